"""Names of files: which are videos, and the order that people expect."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vidette.errors import MissingVideoError, UnreadableVideoError

__all__ = ["VIDEO_ENDINGS", "find_videos", "natural_key"]

VIDEO_ENDINGS = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
        *(".gif", ".webp", ".ts", ".3gp", ".ogv"),
    }
)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts ``clip2`` before ``clip10``.

    Example:
        >>> sorted(["clip10", "clip2", "Clip1"], key=natural_key)
        ['Clip1', 'clip2', 'clip10']
    """
    parts = re.split(r"([0-9]+)", text.casefold())
    key = [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]
    return (*key, (1, 0, text))


def find_videos(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """List files as given, and the video files below folders in natural order (``2.mp4`` before ``10.mp4``).

    Hidden files and folders are left out; a file met twice is listed once.

    Raises:
        MissingVideoError: Paths are not there; names all of them.
        UnreadableVideoError: A folder holds no video file.
    """
    given = [Path(path) for path in paths]
    missing = [path for path in given if not path.exists()]
    if missing:
        also = f"; also missing: {', '.join(map(str, missing[1:]))}" if missing[1:] else ""
        raise MissingVideoError(missing[0], f"there is no such file or folder{also}")
    found: list[Path] = []
    for path in given:
        inside = _videos_below(path) if path.is_dir() else [path]
        if not inside:
            raise UnreadableVideoError(path, "the folder holds no video file; give another folder or the files")
        found += inside
    return tuple(dict.fromkeys(found))


def _videos_below(folder: Path) -> list[Path]:
    """Return the visible videos at any depth, in natural order."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [path.as_posix() for path in inside if not any(part.startswith(".") for part in path.parts)]
    videos = (path for path in shown if Path(path).suffix.lower() in VIDEO_ENDINGS)
    return [folder / path for path in sorted(videos, key=natural_key)]
