"""Which clips there are, what they show and which belong together: a folder of class folders, or a CSV."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidette.data.faults import Faults
from vidette.data.folder import SPLIT_NAMES, class_folders, scan_folder, some
from vidette.data.grouping import with_groups
from vidette.data.prepared import find_prepared
from vidette.errors import ManifestError, StorageError
from vidette.video.names import VIDEO_ENDINGS, natural_key
from vidette.video.shards import is_shard_clip

__all__ = [
    "LabelledClip",
    "Manifest",
    "read_manifest",
    "write_manifest",
]

_COLUMNS = ("path", "label", "group", "split", "fold", "start_seconds", "end_seconds", "fps", "stream")
_LISTED = 10


@dataclass(frozen=True)
class LabelledClip:
    """A video file, or a part of one, and what it shows.

    Attributes:
        path: The file.
        label: Its class.
        group: What it shares with other clips (source video, person, scene); None when not known.
        start_seconds: Where the part begins, since the first frame; None for the beginning.
        stop_seconds: Where it ends; None for the end.
        split: ``"train"``, ``"validation"`` or ``"test"`` where the manifest says so.
        fold: The fold where the manifest says so.
        part_of: Name of the clip that this one was cut from, by ``expand_windows``.
        fps: Frames a second where ``path`` is a folder of frames; None for a video file.
        stream: Which of the file's video streams, from 0.
    """

    path: Path
    label: str
    group: str | None = None
    start_seconds: float | None = None
    stop_seconds: float | None = None
    split: str | None = None
    fold: str | None = None
    part_of: str | None = None
    fps: float | None = None
    stream: int = 0

    @property
    def name(self) -> str:
        """The path, and the span in seconds where the clip is a part: ``a/b.mp4 [1.5, 3)``."""
        if self.start_seconds is None and self.stop_seconds is None:
            return self.path.as_posix()
        stop = "end" if self.stop_seconds is None else f"{self.stop_seconds:g}"
        return f"{self.path.as_posix()} [{self.start_seconds or 0:g}, {stop})"


@dataclass(frozen=True)
class Manifest:
    """The clips of one source, in a fixed order.

    Attributes:
        source: The folder or CSV.
        clips: Every clip; splits refer to them by position.
        classes: The distinct labels, sorted.
        notes: What was decided while reading, for example that ``manifest.csv`` was used.
        warnings: What was left out or looks wrong.
    """

    source: Path
    clips: tuple[LabelledClip, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"Manifest({len(self.clips)} clips of {len(self.classes)} classes, {self.source})"

    @property
    def has_groups(self) -> bool:
        """Whether a clip has a group, or one file holds several clips (which then belong together)."""
        distinct_files = len({clip.path for clip in self.clips})
        return distinct_files < len(self.clips) or any(clip.group for clip in self.clips)

    @property
    def groups(self) -> tuple[str, ...]:
        """The distinct groups in natural order, a clip without a group counting as its own."""
        return tuple(sorted({self.group_of(i) for i in range(len(self.clips))}, key=natural_key))

    def group_of(self, index: int) -> str:
        """Return the group of clip ``index``; its own file when it has none."""
        clip = self.clips[index]
        return clip.group if clip.group else clip.path.as_posix()

    def counts(self) -> dict[str, int]:
        """Return the number of clips of each class, in the order of ``classes``."""
        counted = Counter(clip.label for clip in self.clips)
        return {label: counted[label] for label in self.classes}

    def with_splits(self, *, train: Sequence[int], validation: Sequence[int], test: Sequence[int]) -> Manifest:
        """Return the manifest with its split column as given; clips in no set get none."""
        named = dict.fromkeys(train, "train")
        named |= dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
        clips = (dataclasses.replace(clip, split=named.get(i)) for i, clip in enumerate(self.clips))
        return dataclasses.replace(self, clips=tuple(clips))

    def without(self, names: Collection[str]) -> Manifest:
        """Return the manifest without the clips of these names, and without classes that lose all theirs.

        Raises:
            ManifestError: Fewer than two classes are left.
        """
        clips = tuple(clip for clip in self.clips if clip.name not in names)
        left = {clip.label for clip in clips}
        classes = tuple(label for label in self.classes if label in left)
        if len(classes) < 2:
            raise ManifestError(
                f"{self.source}: {len(clips)} of {len(self.clips)} clips can be read, of {len(classes)}"
                " classes; expected at least 2 classes to tell apart; repair the clips"
            )
        return dataclasses.replace(self, clips=clips, classes=classes)

    def describe(self) -> tuple[str, ...]:
        """Return lines for a reader: totals, clips and groups of each class, splits, folds, notes, warnings."""
        groups_of: dict[str, set[str]] = {label: set() for label in self.classes}
        for i, clip in enumerate(self.clips):
            groups_of[clip.label].add(self.group_of(i))
        total = f"{len(self.clips)} clips, {len(self.classes)} classes"
        lines = [f"{total}, {len(self.groups)} groups" if self.has_groups else f"{total}, no groups known"]
        for label, num_clips in self.counts().items():
            shared = f" from {len(groups_of[label])} groups" if self.has_groups else ""
            lines.append(f"class {label}: {num_clips} clips{shared}")
        for what in ("split", "fold"):
            counted = Counter(value for clip in self.clips if (value := getattr(clip, what)))
            lines += [f"{what} {name}: {counted[name]} clips" for name in sorted(counted, key=natural_key)]
        return (*lines, *self.notes, *(f"warning: {text}" for text in self.warnings))


def read_manifest(source: str | Path, *, group_from: str | None = None, min_classes: int = 2) -> Manifest:
    """Read a folder of class folders, or a CSV.

    A folder is one that ``vidette prepare`` wrote, or ``<class>/**/<video>``, or
    ``train|val|test/<class>/**/<video>``; where it holds a ``manifest.csv``, that is read instead and a note
    says so. A CSV has a header with ``path,label`` and, where known, ``group``, ``split``, ``fold``,
    ``start_seconds``, ``end_seconds``, ``fps`` (of a folder of frames), ``stream``; other columns are ignored
    and paths are absolute or relative to the CSV's folder.

    Args:
        source: The folder or CSV.
        group_from: Regular expression searched in every path (with ``/``, relative to the source); its first
            capture group, or else the whole match, names the clip's group.
        min_classes: Fewer classes are an error; 1 for clips that are only to be scored.

    Raises:
        ManifestError: Anything is wrong; the message lists every fault.
    """
    source = Path(source)
    if not source.exists():
        raise ManifestError(
            f"{source}: there is no such folder or CSV; give a folder of class folders or a CSV"
        )
    folder, table = (source, source / "manifest.csv") if source.is_dir() else (source.parent, source)
    prepared = find_prepared(source)
    if table.is_file():
        manifest = _read_table(table, source)
    else:
        scan = scan_folder(source)
        found = (LabelledClip(video.path, video.label, split=video.split) for video in scan.videos)
        manifest = _manifest(source, found, notes=scan.notes, warnings=scan.warnings)
    if prepared:
        manifest = dataclasses.replace(manifest, warnings=(*manifest.warnings, *prepared.warnings()))
    if group_from is not None:
        manifest = with_groups(manifest, folder, group_from)
    if len(manifest.classes) < min_classes:
        raise ManifestError(_too_few_classes(manifest, folder, min_classes))
    return manifest


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write the clips as a CSV that :func:`read_manifest` reads back: only the columns in use.

    Paths below the CSV's folder are written relative to it, others absolute. An existing file is replaced
    whole.

    Raises:
        StorageError: The place cannot be written.
    """
    path = Path(path)
    folder = path.parent.resolve()
    rows = [_cells(clip, folder) for clip in manifest.clips]
    columns = [name for name in _COLUMNS if name in _COLUMNS[:2] or any(row[name] for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error


def _cells(clip: LabelledClip, folder: Path) -> dict[str, str]:
    file = Path(os.path.abspath(clip.path))
    numbers = (clip.start_seconds, clip.stop_seconds, clip.fps)
    values = (
        file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix(),
        clip.label,
        *(value or "" for value in (clip.group, clip.split, clip.fold)),
        *("" if value is None else repr(float(value)) for value in numbers),
        str(clip.stream or ""),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _too_few_classes(manifest: Manifest, folder: Path, min_classes: int) -> str:
    got = f"{len(manifest.classes)} class ({', '.join(manifest.classes)}, {len(manifest.clips)} clips)"
    text = f"{manifest.source}: holds {got}; expected at least {min_classes} classes to tell apart"
    inner = folder / manifest.classes[0]
    if manifest.source.is_dir() and inner.is_dir() and len(class_folders(inner)) > 1:
        return f"{text}; did you mean {inner}, which holds {len(class_folders(inner))} folders?"
    return f"{text}; add clips of another class"


def _manifest(
    source: Path, clips: Iterable[LabelledClip], *, notes: Iterable[str] = (), warnings: Iterable[str] = ()
) -> Manifest:
    kept = tuple(clips)
    classes = tuple(sorted({clip.label for clip in kept}))
    return Manifest(source, kept, classes, notes=tuple(notes), warnings=tuple(warnings))


def _read_table(table: Path, source: Path) -> Manifest:
    header, rows = _table_rows(table)
    faults = Faults()
    _check_header(header, faults)
    faults.raise_any(table)
    clips = [_clip_of_row(table.parent, header, line, cells, faults) for line, cells in rows]
    _check_together(clips, [line for line, _ in rows], faults)
    faults.raise_any(table)
    notes = [f"{source}: read from its manifest.csv"] if source.is_dir() else []
    return _manifest(source, clips, notes=notes, warnings=_table_warnings(header, clips))


def _table_rows(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    if table.suffix.lower() in VIDEO_ENDINGS:
        raise ManifestError(f"{table}: is a video; expected a folder of class folders or a CSV with path,label")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
            header = [cell.strip() for cell in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{table}: is no CSV in UTF-8 ({error}); save it as UTF-8 text") from error
    except OSError as error:
        raise ManifestError(f"{table}: cannot be read ({error.strerror})") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise ManifestError(f"{table}: holds no clip; expected a header path,label and one line for each clip")
    return header, rows


def _check_header(header: list[str], faults: Faults) -> None:
    for name in ("path", "label"):
        if name not in header:
            folded = {cell.casefold(): cell for cell in header}
            near = difflib.get_close_matches(name, folded, n=1, cutoff=0.5)
            hint = f"; nearest is {folded[near[0]]!r}" if near else ""
            faults.add("missing column", f"{name!r} (the header is {','.join(header)}{hint})")
    for name, count in Counter(header).items():
        if count > 1 and name in _COLUMNS:
            faults.add("column given twice", repr(name))


def _clip_of_row(folder: Path, header: list[str], line: int, cells: list[str], faults: Faults) -> LabelledClip:
    value = dict.fromkeys(_COLUMNS, "") | dict(zip(header, cells, strict=False))
    if any(cells[len(header) :]):
        faults.add("more cells than the header (quote a comma)", f"line {line}")
    path = folder / value["path"]
    if not value["path"]:
        faults.add("empty path", f"line {line}")
    elif path.is_dir():
        if not value["fps"]:
            faults.add("folder of frames without fps", f"line {line} {path}")
    elif not path.is_file() and not is_shard_clip(path):
        faults.add("absent file", f"line {line} {path}")
    if not value["label"]:
        faults.add("empty label", f"line {line}")
    split = SPLIT_NAMES.get(value["split"].casefold())
    if value["split"] and split is None:
        faults.add(
            "unknown split (known: train, validation, val, valid, test)", f"line {line} {value['split']!r}"
        )
    start = _seconds(value["start_seconds"], f"line {line} start_seconds", faults)
    stop = _seconds(value["end_seconds"], f"line {line} end_seconds", faults)
    fps = _rate(value["fps"], f"line {line} fps", faults)
    if stop is not None and stop <= (start or 0.0):
        faults.add("end_seconds is not after start_seconds", f"line {line} [{start or 0:g}, {stop:g})")
    group, fold = value["group"] or None, value["fold"] or None
    stream = _stream(value["stream"], f"line {line} stream", faults)
    return LabelledClip(path, value["label"], group, start, stop, split, fold, fps=fps, stream=stream)


def _seconds(text: str, where: str, faults: Faults) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        faults.add("bad number (expected seconds, 0 or more)", f"{where} {text!r}")
        return None
    return seconds


def _rate(text: str, where: str, faults: Faults) -> float | None:
    rate = _seconds(text, where, faults)
    if rate == 0:
        faults.add("fps is 0 (expected frames a second, above 0)", where)
    return rate or None


def _stream(text: str, where: str, faults: Faults) -> int:
    if text and not text.isdigit():
        faults.add("bad stream (expected a whole number from 0)", f"{where} {text!r}")
        return 0
    return int(text or 0)


def _check_together(clips: list[LabelledClip], lines: list[int], faults: Faults) -> None:
    first: dict[tuple[str, float | None, float | None], int] = {}
    for i, clip in enumerate(clips):
        key = (os.path.abspath(clip.path), clip.start_seconds, clip.stop_seconds)
        earlier = first.setdefault(key, i)
        if earlier != i:
            labels = clips[earlier].label, clip.label
            clash = f", labelled {labels[0]!r} and {labels[1]!r}" if labels[0] != labels[1] else ""
            faults.add("clip given twice", f"lines {lines[earlier]} and {lines[i]}: {clip.name}{clash}")
    for what in ("split", "fold"):
        without = [str(line) for line, clip in zip(lines, clips, strict=True) if not getattr(clip, what)]
        if 0 < len(without) < len(clips):
            faults.add(
                f"{what} given for some clips only; fill in or remove the column",
                f"none at lines {some(without, 5)}",
            )


def _table_warnings(header: list[str], clips: list[LabelledClip]) -> list[str]:
    warnings: list[str] = []
    for name in header:
        near = difflib.get_close_matches(name.casefold(), _COLUMNS, n=1, cutoff=0.8)
        if near and name not in _COLUMNS and near[0] not in header:
            warnings.append(f"column {name!r} is ignored; did you mean {near[0]!r}?")
    without = sum(clip.group is None for clip in clips)
    if 0 < without < len(clips):
        warnings.append(f"{without} of {len(clips)} clips have no group; each counts as its own")
    return warnings
