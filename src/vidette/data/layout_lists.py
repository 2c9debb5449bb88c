"""Annotation lists ``path label`` with integer labels, and folders of frames."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

from vidette.data.faults import Faults
from vidette.data.folder import class_folders, some
from vidette.data.layout_files import (
    LayoutOptions,
    annotation_files,
    check_named_once,
    manifest_of,
    read_lines,
    split_in_name,
    split_named,
    visible_walk,
)
from vidette.data.manifest import LabelledClip, Manifest
from vidette.errors import ManifestError
from vidette.video.frames_folder import PICTURE_ENDINGS
from vidette.video.names import VIDEO_ENDINGS, natural_key

__all__ = ["is_frames", "is_list", "read_frames", "read_list"]

_LINE = re.compile(r"\S.*\s\d+")
_OTHERS = re.compile(r".*_test_split\d+|(train|test)list\d+|classind", re.IGNORECASE)
_CLASS_FILES = re.compile(r"(label_?map|labels|classes|class_?names)([-_].*)?|.*[-_](label_?map|classes)", re.I)
_SNIFFED = 20


def is_list(source: Path) -> bool:
    """Tell whether a text file, or one in a folder, is a list of lines ``path label``."""
    return bool(_lists(source))


def read_list(source: Path, options: LayoutOptions) -> Manifest:
    """Read annotation lists: lines ``path label``, or ``folder_of_frames number_of_frames label``.

    Labels are integers from 0; their names come from ``options.classes_file``, or from a ``label_map.txt`` or
    ``classes.txt`` beside: a name a line, or ``number name``. Paths are relative to ``options.videos`` or the
    list's folder. The split is what a list's file name speaks of, unless one list alone was named.

    Raises:
        ManifestError: Anything is wrong; every fault is listed.
    """
    lists, faults = _lists(source) if source.is_dir() else [source], Faults()
    if not lists:
        raise ManifestError(f"{source}: holds no list; expected a .txt of lines: path label")
    names = _class_names(_classes_file(source, options))
    clips: list[LabelledClip] = []
    for file in lists:
        split = split_in_name(file) if source.is_dir() else None
        base = options.videos or file.parent
        for line, text in read_lines(file):
            clip = _list_clip(text, f"{file.name} line {line}", base, names, options.fps, faults)
            clips += [replace(clip, split=split)] if clip else []
    check_named_once(clips, faults)
    faults.raise_any(source)
    return manifest_of(source, clips)


def _lists(source: Path) -> list[Path]:
    files = [file for file in annotation_files(source, depth=1) if file.suffix == ".txt"]
    return [file for file in files if not _named_otherwise(file) and _looks_like_list(file)]


def _named_otherwise(file: Path) -> bool:
    return bool(_OTHERS.fullmatch(file.stem) or _CLASS_FILES.fullmatch(file.stem))


def _looks_like_list(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        lines = [line.strip() for line, _ in zip(opened, range(_SNIFFED), strict=False) if line.strip()]
    return sum(_LINE.fullmatch(line) is not None for line in lines) > len(lines) / 2


def _classes_file(source: Path, options: LayoutOptions) -> Path:
    if options.classes_file:
        return options.classes_file
    folder = source if source.is_dir() else source.parent
    found = [
        file
        for file in annotation_files(folder, depth=1)
        if file.suffix == ".txt" and _CLASS_FILES.fullmatch(file.stem)
    ]
    if len(found) == 1:
        return found[0]
    got = f"holds {len(found)} files of class names" + (
        f" ({some([f.name for f in found], 5)})" if found else ""
    )
    raise ManifestError(f"{source}: labels are integers and {folder} {got}; name the one with --classes-file")


def _class_names(file: Path) -> dict[int, str]:
    """Read a name a line, or lines ``number name``."""
    lines = [text for _, text in read_lines(file)]
    numbered = [re.fullmatch(r"(\d+)[\s,:]+(\S.*)", text) for text in lines]
    if lines and all(numbered):
        names = {int(match[1]): match[2] for match in numbered if match}
    else:
        names = dict(enumerate(lines))
    if len(set(names.values())) < len(lines) or not names:
        raise ManifestError(
            f"{file}: {len(lines)} lines name {len(set(names.values()))} classes; name each once"
        )
    return names


def _list_clip(
    text: str, where: str, base: Path, names: dict[int, str], fps: float | None, faults: Faults
) -> LabelledClip | None:
    """Return the clip of one line; keep as faults what is wrong with it."""
    name, _, digits = text.rpartition(" ")
    if not _LINE.fullmatch(text) or not digits.isdigit():
        faults.add("bad line (expected: path label)", f"{where} {text!r}")
        return None
    if int(digits) not in names:
        known = f"label that the file of class names does not have ({min(names)} to {max(names)})"
        faults.add(known, f"{where} {digits}")
        return None
    path, label = base / name.strip(), names[int(digits)]
    if path.is_file():
        return LabelledClip(path, label)
    folder = path if path.is_dir() else _frames_folder(base, name.strip())
    if folder is None:
        faults.add(f"absent video (paths are relative to {base}; --videos names another)", f"{where} {path}")
    elif fps is None:
        faults.add("folder of frames without a rate (give --frames-fps)", f"{where} {folder}")
    else:
        return _frames_clip(folder, label, fps)
    return None


def _frames_folder(base: Path, name: str) -> Path | None:
    """Return the folder of ``folder number_of_frames``, if that is what was meant."""
    folder, _, count = name.rpartition(" ")
    return base / folder if folder and count.isdigit() and (base / folder).is_dir() else None


def _frames_clip(folder: Path, label: str, fps: float) -> LabelledClip:
    return LabelledClip(folder, label, fps=fps)


def is_frames(source: Path) -> bool:
    """Tell whether class folders hold folders of numbered pictures."""
    return source.is_dir() and any(
        _numbers(names) for place, _, names in visible_walk(source) if len(place.relative_to(source).parts) >= 2
    )


def read_frames(source: Path, options: LayoutOptions) -> Manifest:
    """Read folders of frames: ``<class>/**/<clip>/00001.jpg``, or below ``train|val|test``.

    Raises:
        ManifestError: There is none, or no rate was given.
    """
    if not source.is_dir():
        raise ManifestError(f"{source}: is a file; expected a folder <class>/<clip>/00001.jpg")
    if options.fps is None:
        raise ManifestError(f"{source}: holds folders of frames, which have no times; give --frames-fps")
    top = class_folders(source)
    by_split = len(top) > 1 and all(split_named(name) for name in top)
    clips: list[LabelledClip] = []
    gaps: list[str] = []
    videos: list[str] = []
    for place, _, names in visible_walk(source):
        parts = place.relative_to(source).parts
        videos += [
            name for name in names if Path(name).suffix.lower() in VIDEO_ENDINGS and not _is_picture(name)
        ]
        if len(parts) < (3 if by_split else 2) or not any(map(_is_picture, names)):
            continue
        clip = _frames_clip(place, parts[1 if by_split else 0], options.fps)
        clips.append(replace(clip, split=split_named(parts[0]) if by_split else None))
        gaps += [place.relative_to(source).as_posix()] if _has_gap(_numbers(names)) else []
    if not clips:
        raise ManifestError(
            f"{source}: holds no folder of frames; expected {source.name}/<class>/<clip>/00001.jpg"
        )
    told = (
        (videos, "videos among the folders of frames, left out"),
        (gaps, "folders have gaps in their numbers; frames are taken as equally far apart all the same"),
    )
    warnings = [f"{len(items)} {what}: {some(items, 3)}" for items, what in told if items]
    return manifest_of(source, clips, warnings=warnings)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURE_ENDINGS


def _numbers(names: list[str]) -> list[int]:
    """Return the numbers that end the names of pictures, in order; none unless two or more have one."""
    pictures = sorted((name for name in names if _is_picture(name)), key=natural_key)
    found = [match for name in pictures if (match := re.search(r"(\d+)$", Path(name).stem))]
    return [int(match[1]) for match in found] if len(found) == len(pictures) > 1 else []


def _has_gap(numbers: list[int]) -> bool:
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    return len(steps) > 1
