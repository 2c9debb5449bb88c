"""Videos in a folder of class folders: found, sorted, and everything left out counted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidette.errors import ManifestError
from vidette.video.names import VIDEO_ENDINGS, natural_key

__all__ = [
    "SPLIT_NAMES",
    "FolderScan",
    "FoundVideo",
    "class_folders",
    "scan_folder",
    "some",
]

SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class FoundVideo:
    """A video file, the class folder it lies in and, where the folders say so, its split."""

    path: Path
    label: str
    split: str | None


@dataclass(frozen=True)
class FolderScan:
    """What a folder of class folders holds.

    Attributes:
        videos: In natural order of class and path.
        notes: How the folders were understood, where that is not plain.
        warnings: What was left out, with counts.
    """

    videos: tuple[FoundVideo, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def scan_folder(source: Path) -> FolderScan:
    """Find the videos of ``source/<class>/**`` or ``source/<train|val|test>/<class>/**``.

    Hidden files and folders are passed over; other files are counted in a warning.

    Raises:
        ManifestError: There is no video in any class folder.
    """
    folders = class_folders(source)
    by_split = len(folders) > 1 and all(name.casefold() in SPLIT_NAMES for name in folders)
    places = [Path(name) for name in folders]
    if by_split:
        places = [Path(split, name) for split in folders for name in class_folders(source / split)]
    files = [(place, file) for place in places for file in _files_below(source / place)]
    videos = tuple(
        FoundVideo(file, place.name, SPLIT_NAMES[place.parts[0].casefold()] if by_split else None)
        for place, file in files
        if _is_video(file)
    )
    above = [source, *(source / name for name in folders if by_split)]
    loose = [file for folder in above for file in _visible_files(folder)]
    if not videos:
        raise ManifestError(_no_videos(source, folders, loose))
    others = [file for _, file in files if not _is_video(file)]
    others += [file for file in loose if not _is_video(file)]
    filled = {video.path.relative_to(source).parts[: 2 if by_split else 1] for video in videos}
    empty = [place.as_posix() for place in places if place.parts not in filled]
    notes = (f"{source}: folders {', '.join(folders)} are the split, those below them the classes",)
    return FolderScan(videos, notes if by_split else (), _left_out(loose, others, empty))


def class_folders(folder: Path) -> list[str]:
    """Return the names of the visible folders in ``folder``, in natural order."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=natural_key)


def some(items: Sequence[str], most: int) -> str:
    """Return the first ``most`` items and how many more there are.

    Example:
        >>> some(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_ENDINGS


def _visible_files(folder: Path) -> list[Path]:
    names = [entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names, key=natural_key)]


def _files_below(folder: Path) -> list[Path]:
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            files += _visible_files(Path(place))
        seen.add(real)
    return sorted(files, key=lambda file: natural_key(file.as_posix()))


def _left_out(loose: list[Path], others: list[Path], empty: list[str]) -> tuple[str, ...]:
    unlabelled = [file.name for file in loose if _is_video(file)]
    names = [file.name for file in others]
    told = (
        (unlabelled, "videos in no class folder, left out"),
        (names, "files that are not videos, left out"),
        (empty, "folders without a video, no class"),
    )
    return tuple(f"{len(items)} {what}: {some(items, 3)}" for items, what in told if items)


def _no_videos(source: Path, folders: list[str], loose: list[Path]) -> str:
    num_loose = sum(_is_video(file) for file in loose)
    got = f"holds {num_loose} videos but no class folder" if num_loose else "holds no video"
    if folders:
        got = f"holds no video in its {len(folders)} folders ({some(folders, 5)})"
    tables = [file.name for file in loose if file.suffix.lower() == ".csv"]
    hint = f"; or give its table {source / tables[0]}" if tables else ""
    return f"{source}: {got}; expected {source.name}/<class>/<video>, or a CSV with path,label{hint}"
