"""Kinetics tables, Something-Something JSON, and annotation lists ``path label``."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidette.data.faults import Faults
from vidette.data.folder import some
from vidette.data.layout_files import (
    LayoutOptions,
    VideoIndex,
    annotation_files,
    check_named_once,
    manifest_of,
    read_json,
    read_rows,
    split_in_name,
    split_named,
    table_columns,
)
from vidette.data.manifest import LabelledClip, Manifest
from vidette.errors import ManifestError
from vidette.video.names import VIDEO_ENDINGS

__all__ = ["is_kinetics", "is_something", "read_kinetics", "read_something"]

_KINETICS = ("youtube_id", "time_start", "time_end")
_LISTED = 10
_SNIFFED = 4096


def is_kinetics(source: Path) -> bool:
    """Tell whether a CSV, or one in a folder, has Kinetics' columns."""
    return bool(_kinetics_tables(source))


def read_kinetics(source: Path, options: LayoutOptions) -> Manifest:
    """Read Kinetics: CSVs ``label,youtube_id,time_start,time_end,split`` and the videos below.

    A video is ``<id>_<start>_<end>`` (six digits each) or ``<id>``, in folders or not. The group is the YouTube
    id. Missing downloads are normal: they are left out, counted and listed in a warning. A file ``<id>`` is
    taken as cut already, unless several rows share it: then each is the part that its times say.

    Raises:
        ManifestError: Anything is wrong, every fault being listed; or no video is there.
    """
    tables, faults = _kinetics_tables(source), Faults()
    rows: list[tuple[dict[str, str], str, str | None]] = []
    for table in tables:
        by_name = split_in_name(table) if source.is_dir() else None
        for line, row in read_rows(table)[1]:
            split = _kinetics_split(row.get("split", ""), f"{table.name} line {line}", faults)
            rows.append((row, f"{table.name} line {line}", split or by_name))
    unlabelled = [where for row, where, _ in rows if not row.get("label")]
    rows = [entry for entry in rows if entry[0].get("label")]
    classes = {row["label"] for row, _, _ in rows}
    index = VideoIndex(options.videos or _folder_of(source), fold_case=False)
    clips: list[LabelledClip] = []
    missing: list[str] = []
    for row, where, split in rows:
        clip = _kinetics_clip(row, where, split, index=index, classes=classes, faults=faults)
        clips += [clip] if clip else []
        missing += [row["youtube_id"]] if clip is None else []
    clips = _parts_where_shared(clips)
    check_named_once(clips, faults)
    faults.raise_any(source)
    if not clips:
        raise ManifestError(_none_found(source, len(rows), missing, index))
    warnings = _kinetics_warnings(missing, len(rows), unlabelled, _num_whole(clips))
    return manifest_of(source, clips, warnings=warnings)


def _kinetics_tables(source: Path) -> list[Path]:
    tables = [file for file in annotation_files(source, depth=1) if file.suffix.lower() == ".csv"]
    return [table for table in tables if set(_KINETICS) <= set(table_columns(table))]


def _kinetics_split(text: str, where: str, faults: Faults) -> str | None:
    split = split_named(text)
    if text and split is None:
        faults.add("unknown split (known: train, val, validate, test)", f"{where} {text!r}")
    return split


def _kinetics_clip(
    row: dict[str, str], where: str, split: str | None, *, index: VideoIndex, classes: set[str], faults: Faults
) -> LabelledClip | None:
    """Return the clip of a row with its times, None where the video is missing or the row is at fault."""
    video, label = row["youtube_id"], row["label"]
    start, stop = (_whole_seconds(row[name], f"{where} {name}", faults) for name in _KINETICS[1:])
    if not video:
        faults.add("empty youtube_id", where)
        return None
    if start is not None and stop is not None and stop <= start:
        faults.add("time_end is not after time_start", f"{where} [{start:g}, {stop:g})")
    times = f"_{start:06.0f}_{stop:06.0f}" if start is not None and stop is not None else ""
    for stem in dict.fromkeys((video + times, video)):
        found = index.find(stem, label=label, classes=classes)
        if len(found) > 1:
            faults.add("several videos of one name", f"{where}: {some([str(file) for file in found], 3)}")
        if found:
            part = (start, stop) if stem == video else (None, None)
            return LabelledClip(found[0], label, video, *part, split=split)
    return None


def _parts_where_shared(clips: list[LabelledClip]) -> list[LabelledClip]:
    """Keep the times only of clips that share a file with others."""
    sharing = Counter(clip.path for clip in clips)
    alone = (sharing[clip.path] == 1 for clip in clips)
    return [
        replace(clip, start_seconds=None, stop_seconds=None) if one else clip
        for clip, one in zip(clips, alone, strict=True)
    ]


def _whole_seconds(text: str, where: str, faults: Faults) -> float | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,6}(\.\d*)?", text):
        faults.add("bad number (expected seconds, 0 or more)", f"{where} {text!r}")
        return None
    return float(text)


def _none_found(source: Path, num_rows: int, missing: list[str], index: VideoIndex) -> str:
    got = f"none of its {num_rows} labelled clips is there (searched {len(index)} videos below {index.folder})"
    example = missing[0] if missing else "id"
    expected = f"expected names like {example}_000010_000020.mp4 or {example}.mp4"
    return f"{source}: {got}; {expected}: name their folder with --videos"


def _num_whole(clips: list[LabelledClip]) -> int:
    return sum(clip.path.stem == clip.group and clip.start_seconds is None for clip in clips)


def _kinetics_warnings(missing: list[str], num_rows: int, unlabelled: list[str], num_whole: int) -> list[str]:
    warnings: list[str] = []
    if missing:
        listed = some(missing, _LISTED)
        warnings.append(f"{len(missing)} of {num_rows} clips are not downloaded and left out: {listed}")
    if unlabelled:
        warnings.append(f"{len(unlabelled)} rows have no label and are left out: {some(unlabelled, 3)}")
    if num_whole:
        warnings.append(
            f"{num_whole} videos are named by their id alone and taken as cut to [time_start, time_end) "
            "already; if they are whole YouTube videos, give a CSV with path,label,start_seconds,end_seconds"
        )
    return warnings


def is_something(source: Path) -> bool:
    """Tell whether a JSON file, or one in a folder, lists clips as Something-Something does."""
    return any(_lists_clips(file) for file in annotation_files(source, depth=1) if file.suffix == ".json")


def _lists_clips(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        head = opened.read(_SNIFFED)
    return head.lstrip().startswith("[") and bool(re.search(r'"id"\s*:', head))


def read_something(source: Path, options: LayoutOptions) -> Manifest:
    """Read Something-Something: JSON lists of ``id`` with ``template`` or ``label``, ``labels.json``, videos.

    The label is the template without its brackets, as ``labels.json`` has it; a list whose clips have no label,
    as in the official test set, is left out and counted.

    Raises:
        ManifestError: Anything is wrong; every fault is listed.
    """
    files = [file for file in annotation_files(_folder_of(source), depth=1) if file.suffix == ".json"]
    known = _something_labels(files)
    lists = [file for file in files if _lists_clips(file)] if source.is_dir() else [source]
    faults, unlabelled = Faults(), 0
    entries: list[tuple[str, str, str | None]] = []
    for file in lists:
        split = split_in_name(file) if source.is_dir() else None
        for place, value in enumerate(_listed(file)):
            video, label = _something_entry(value, f"{file.name} entry {place}", known, faults)
            unlabelled += bool(video) and not label
            entries += [(video, label, split)] if video and label else []
    index, classes = VideoIndex(options.videos or _folder_of(source)), {label for _, label, _ in entries}
    clips: list[LabelledClip] = []
    for video, label, split in entries:
        path = index.one(video, video, faults, label=label, classes=classes)
        clips += [LabelledClip(path, label, split=split)] if path else []
    check_named_once(clips, faults)
    faults.raise_any(source)
    if not clips:
        raise ManifestError(
            f"{source}: lists no labelled clip; expected JSON lists of id with template or label"
        )
    left = f"{unlabelled} clips have no label (the official test set has none) and are left out"
    return manifest_of(source, clips, warnings=[left] if unlabelled else [])


def _listed(file: Path) -> list[Any]:
    values = read_json(file)
    if not isinstance(values, list):
        raise ManifestError(
            f"{file}: holds a {type(values).__name__}; expected a list of clips with id and label"
        )
    return values


def _something_labels(files: list[Path]) -> set[str]:
    """Return the keys of the label files; nothing where there is none."""
    labels: set[str] = set()
    for file in files:
        if re.search(r"(^|[-_])labels$", file.stem) and isinstance(values := read_json(file), dict):
            labels |= {str(name) for name in values}
    return labels


def _something_entry(value: Any, where: str, known: set[str], faults: Faults) -> tuple[str, str]:
    """Return id and label of an entry; empty where there is none."""
    if not isinstance(value, dict) or not value.get("id"):
        faults.add("entry without id", where)
        return "", ""
    label = re.sub(r"[\[\]]", "", str(value.get("template") or value.get("label") or "")).strip()
    if label and known and label not in known:
        near = difflib.get_close_matches(label, known, n=1)
        faults.add(
            "label not in labels.json", f"{where} {label!r}" + (f" (nearest: {near[0]!r})" if near else "")
        )
    stem = str(value["id"])
    return (stem.rpartition(".")[0] if Path(stem).suffix.lower() in VIDEO_ENDINGS else stem), label


def _folder_of(source: Path) -> Path:
    return source if source.is_dir() else source.parent
