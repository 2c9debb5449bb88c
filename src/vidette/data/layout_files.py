"""What the readers of layouts share: options, faults, annotation files, and videos found by name."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidette.data.faults import Faults
from vidette.data.folder import some
from vidette.data.manifest import LabelledClip, Manifest
from vidette.errors import ManifestError, SettingError
from vidette.video.names import VIDEO_ENDINGS, natural_key

__all__ = [
    "LayoutOptions",
    "VideoIndex",
    "annotation_files",
    "check_named_once",
    "manifest_of",
    "read_json",
    "read_lines",
    "read_rows",
    "split_in_name",
    "split_named",
    "table_columns",
    "visible_walk",
]

_LISTED = 10
_DEPTH = 2
_HEADER_LENGTH = 4096
_ANNOTATION_ENDINGS = frozenset({".txt", ".csv", ".tsv", ".json"})
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """What a layout's files do not say.

    Attributes:
        split_number: Which of the official splits of HMDB51 and UCF101.
        fps: Frames a second of folders of frames.
        classes_file: Names of the integer labels of an annotation list.
        videos: Folder of the videos where they do not lie with the annotations.
        stream: Which of the files' video streams, from 0; the manifest's own where it is 0.

    Raises:
        SettingError: A value is out of range, or a place is not there.
    """

    split_number: int = 1
    fps: float | None = None
    classes_file: Path | None = None
    videos: Path | None = None
    stream: int = 0

    def __post_init__(self) -> None:
        faults: list[str] = []
        if self.split_number < 1:
            faults.append(f"split_number is {self.split_number}; expected 1 or more (official splits: 1, 2, 3)")
        if self.stream < 0:
            faults.append(f"stream is {self.stream}; expected 0 or more")
        if self.fps is not None and not 0 < self.fps < math.inf:
            faults.append(f"fps is {self.fps:g}; expected frames a second, above 0")
        if self.classes_file is not None and not self.classes_file.is_file():
            faults.append(f"classes_file {self.classes_file}: there is no such file")
        if self.videos is not None and not self.videos.is_dir():
            faults.append(f"videos {self.videos}: there is no such folder")
        if faults:
            raise SettingError("layout: " + "; ".join(faults))


class VideoIndex:
    """The videos below a folder, found by their name without its ending.

    Args:
        folder: Searched whole, hidden files and folders apart.
        fold_case: Whether upper and lower case are one.
    """

    def __init__(self, folder: Path, *, fold_case: bool = True) -> None:
        self.folder = folder
        self._fold_case = fold_case
        self._files: dict[str, list[Path]] = {}
        for place, _, names in visible_walk(folder):
            for name in names:
                if os.path.splitext(name)[1].lower() in VIDEO_ENDINGS:
                    self._files.setdefault(self._key(Path(name).stem), []).append(place / name)

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def find(self, stem: str, *, label: str, classes: Iterable[str] = ()) -> list[Path]:
        """Return the videos of a name: in a folder named after ``label``, else in no class's folder.

        A video in another class's folder is never taken for one of ``label``.

        Args:
            stem: The name, without folder and ending.
            label: The class that it should show.
            classes: All classes.
        """
        found = self._files.get(self._key(stem), [])
        own = [file for file in found if _folded(file.parent.name) == _folded(label)]
        if own or not found:
            return own
        others = {_folded(name) for name in classes}
        return [file for file in found if _folded(file.parent.name) not in others]

    def one(self, stem: str, where: str, faults: Faults, *, label: str, classes: Iterable[str]) -> Path | None:
        """Return the one video of a name, or keep as a fault that there is none or several."""
        found = self.find(stem, label=label, classes=classes)
        if not found:
            faults.add(f"absent video (searched below {self.folder})", where)
        if len(found) > 1:
            faults.add("several videos of one name", f"{where}: {some([str(file) for file in found], 3)}")
        return found[0] if len(found) == 1 else None

    def _key(self, stem: str) -> str:
        return stem.casefold() if self._fold_case else stem


def _folded(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name.casefold())


def visible_walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk a folder in natural order, links followed once, hidden names passed over."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        again = real in seen
        seen.add(real)
        kept = [] if again else [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(kept, key=natural_key)
        if not again:
            yield (
                Path(place),
                folders,
                sorted((n for n in names if not n.startswith(".")), key=natural_key),
            )


def annotation_files(source: Path, *, depth: int = _DEPTH) -> list[Path]:
    """Return text, table and JSON files in ``source`` and ``depth`` levels below; a file is itself."""
    if not source.is_dir():
        return [source]
    files: list[Path] = []
    folders: list[Path] = []
    for entry in sorted(os.scandir(source), key=lambda entry: natural_key(entry.name)):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in _ANNOTATION_ENDINGS:
            files.append(Path(entry.path))
    below = (
        [file for folder in folders for file in annotation_files(folder, depth=depth - 1)] if depth > 0 else []
    )
    return files + below


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, each with its number from 1.

    Raises:
        ManifestError: The file cannot be read, or is not UTF-8.
    """
    lines = enumerate(_text(file).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_rows(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return a CSV's header, and its rows that are not blank, each with its line number.

    Raises:
        ManifestError: The file cannot be read, or is no CSV in UTF-8.
    """
    try:
        reader = csv.reader(_text(file).splitlines())
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ManifestError(f"{file}: is no CSV ({error}); save it again as CSV in UTF-8") from error
    empty = dict.fromkeys(header, "")
    return header, [
        (line, empty | dict(zip(header, cells, strict=False))) for line, cells in rows if any(cells)
    ]


def table_columns(file: Path) -> list[str]:
    """Return the columns that the first line of a CSV or TSV names; none where it cannot be read."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            first = opened.readline(_HEADER_LENGTH)
    except OSError:
        return []
    return [cell.strip().strip('"') for cell in first.split("\t" if file.suffix.lower() == ".tsv" else ",")]


def read_json(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ManifestError: The file cannot be read, or is no JSON.
    """
    try:
        return json.loads(_text(file))
    except ValueError as error:
        raise ManifestError(f"{file}: is no JSON ({error}); download it again") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file}: is not UTF-8 ({error}); save it as UTF-8 text") from error
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read ({error.strerror})") from error


def split_named(name: str) -> str | None:
    """Return ``"train"``, ``"validation"`` or ``"test"`` for one of its usual names, else None."""
    return _SPLITS.get(name.casefold())


def split_in_name(file: Path) -> str | None:
    """Return the one split that a file's name speaks of, else None.

    Example:
        >>> split_in_name(Path("kinetics400_val_list_videos.txt")), split_in_name(Path("train_test.csv"))
        ('validation', None)
    """
    words = re.split(r"[^a-z]+", file.stem.casefold())
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    return found.pop() if len(found) == 1 else None


def check_named_once(clips: Sequence[LabelledClip], faults: Faults) -> None:
    """Keep as a fault every video, or part of one, that is given twice."""
    first: dict[tuple[Path, float | None, float | None], LabelledClip] = {}
    for clip in clips:
        earlier = first.setdefault((clip.path, clip.start_seconds, clip.stop_seconds), clip)
        if earlier is not clip:
            differ = (earlier.label, earlier.split) != (clip.label, clip.split)
            as_what = [f"{one.label}, {one.split or 'no split'}" for one in (earlier, clip)]
            faults.add("clip given twice", clip.name + (f" as {' and as '.join(as_what)}" if differ else ""))


def manifest_of(
    source: Path, clips: Iterable[LabelledClip], *, notes: Iterable[str] = (), warnings: Iterable[str] = ()
) -> Manifest:
    """Return the manifest of clips in natural order of label and path."""
    kept = sorted(clips, key=lambda clip: (natural_key(clip.label), natural_key(clip.name)))
    classes = tuple(sorted({clip.label for clip in kept}))
    return Manifest(source, tuple(kept), classes, notes=tuple(notes), warnings=tuple(warnings))
