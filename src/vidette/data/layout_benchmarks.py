"""HMDB51 and UCF101 with their official split files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vidette.data.faults import Faults
from vidette.data.folder import some
from vidette.data.layout_files import (
    LayoutOptions,
    VideoIndex,
    annotation_files,
    check_named_once,
    manifest_of,
    read_lines,
)
from vidette.data.manifest import LabelledClip, Manifest
from vidette.errors import ManifestError

__all__ = ["hmdb51_group", "is_hmdb51", "is_ucf101", "read_hmdb51", "read_ucf101", "ucf101_group"]

_HMDB51_FILE = re.compile(r"(?P<label>.+)_test_split(?P<number>\d+)\.txt")
_HMDB51_SPLITS = {"1": "train", "2": "test", "0": None}
_UCF101_FILE = re.compile(r"(?P<split>train|test)list(?P<number>\d+)\.txt")
_UCF101_GROUP = re.compile(r"_g(\d+)_c\d+", re.IGNORECASE)


def is_hmdb51(source: Path) -> bool:
    """Tell whether a folder holds HMDB51's split files."""
    return source.is_dir() and any(_HMDB51_FILE.fullmatch(file.name) for file in annotation_files(source))


def read_hmdb51(source: Path, options: LayoutOptions) -> Manifest:
    """Read HMDB51: ``<class>_test_split1.txt`` files of lines ``name.avi 1|2|0``, and the videos.

    Both lie anywhere below ``source``; the videos in folders named after their class, or without folders. 1 is
    training, 2 test, and 0 is left out and counted. The group is the source video, as the name tells.

    Raises:
        ManifestError: Anything is wrong; every fault is listed.
    """
    files = _of_number(source, _HMDB51_FILE, options.split_number, "<class>_test_split<number>.txt")
    labels = [match["label"] for match, _ in files]
    index, faults = VideoIndex(options.videos or source), Faults()
    clips: list[LabelledClip] = []
    num_unused = 0
    for label, (_, file) in zip(labels, files, strict=True):
        for line, text in read_lines(file):
            name, _, digit = text.rpartition(" ")
            if not name or digit not in _HMDB51_SPLITS:
                faults.add("bad line (expected: name.avi 1, 2 or 0)", f"{file.name} line {line} {text!r}")
            elif (split := _HMDB51_SPLITS[digit]) is None:
                num_unused += 1
            else:
                stem = Path(name.strip()).stem
                path = index.one(stem, f"{label}/{name.strip()}", faults, label=label, classes=labels)
                clips += [LabelledClip(path, label, hmdb51_group(stem, label), split=split)] if path else []
    unused = f", {num_unused} clips are in neither part and left out" if num_unused else ""
    notes = [f"HMDB51 split {options.split_number}{unused}"]
    return _checked(source, clips, faults, notes)


def hmdb51_group(stem: str, label: str) -> str | None:
    """Return the source video of an HMDB51 name: all that stands before the class.

    Example:
        >>> hmdb51_group("Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6", "cartwheel")
        'Turnk_r_Pippi_Michel'
    """
    at = stem.casefold().rfind(f"_{label.casefold()}_")
    return stem[:at] if at > 0 else None


def is_ucf101(source: Path) -> bool:
    """Tell whether a folder holds UCF101's split files."""
    return source.is_dir() and any(_UCF101_FILE.fullmatch(file.name) for file in annotation_files(source))


def read_ucf101(source: Path, options: LayoutOptions) -> Manifest:
    """Read UCF101: ``trainlist01.txt``, ``testlist01.txt`` and ``classInd.txt``, and the videos.

    Lines are ``<class>/<name>.avi``, in the training list with the class's number. The group is the class with
    the ``gNN`` of the name: numbers are given anew in each class.

    Raises:
        ManifestError: Anything is wrong; every fault is listed.
    """
    expected = "trainlist<number>.txt and testlist<number>.txt"
    files = _of_number(source, _UCF101_FILE, options.split_number, expected)
    faults = Faults()
    numbers = _class_numbers(source, faults)
    given = {match["split"] for match, _ in files}
    for split in ("train", "test"):
        if split not in given:
            faults.add("absent list", f"{split}list{options.split_number:02d}.txt")
    entries: list[tuple[str, str, str]] = []
    for match, file in files:
        for line, text in read_lines(file):
            entry = _ucf101_entry(text, f"{file.name} line {line}", numbers, faults)
            entries += [(*entry, match["split"])] if entry else []
    index, labels = VideoIndex(options.videos or source), {label for label, _, _ in entries}
    clips: list[LabelledClip] = []
    for label, name, split in entries:
        stem = Path(name).stem
        path = index.one(stem, f"{label}/{name}", faults, label=label, classes=labels)
        clips += [LabelledClip(path, label, ucf101_group(stem, label), split=split)] if path else []
    return _checked(source, clips, faults, [f"UCF101 split {options.split_number}"])


def ucf101_group(stem: str, label: str) -> str | None:
    """Return the group of a UCF101 name, with its class.

    Example:
        >>> ucf101_group("v_SoccerJuggling_g23_c01", "SoccerJuggling")
        'SoccerJuggling_g23'
    """
    match = _UCF101_GROUP.search(stem)
    return f"{label}_g{match.group(1)}" if match else None


def _ucf101_entry(text: str, where: str, numbers: dict[str, str], faults: Faults) -> tuple[str, str] | None:
    """Return class and file name of a line; keep as a fault what does not fit ``classInd.txt``."""
    path, _, number = text.rpartition(" ") if re.search(r" \d+$", text) else (text, "", "")
    label, _, name = path.strip().replace("\\", "/").rpartition("/")
    if not label or not name:
        faults.add("bad line (expected: <class>/<name>.avi)", f"{where} {text!r}")
        return None
    label = label.rpartition("/")[2]
    if numbers and label not in numbers:
        faults.add("class that is not in classInd.txt", f"{where} {label!r}")
    elif numbers and number and numbers[label] != number:
        faults.add("class number unlike classInd.txt", f"{where} {label} {number}, there {numbers[label]}")
    return label, name


def _class_numbers(source: Path, faults: Faults) -> dict[str, str]:
    """Return the number of each class by ``classInd.txt``; nothing where there is none."""
    numbers: dict[str, str] = {}
    for file in annotation_files(source):
        if file.name.casefold() != "classind.txt":
            continue
        for line, text in read_lines(file):
            number, _, label = text.partition(" ")
            if not number.isdigit() or not label.strip():
                faults.add("bad line (expected: number class)", f"{file.name} line {line} {text!r}")
            numbers[label.strip()] = number
    return numbers


def _of_number(
    source: Path, pattern: re.Pattern[str], number: int, expected: str
) -> list[tuple[re.Match[str], Path]]:
    """Return the split files of one official split."""
    matches = [
        (match, file)
        for file in annotation_files(source)
        if (match := pattern.fullmatch(file.name)) is not None
    ]
    chosen = [(match, file) for match, file in matches if int(match["number"]) == number]
    if chosen:
        return chosen
    there = sorted({int(match["number"]) for match, _ in matches})
    if there:
        numbers = ", ".join(map(str, there))
        raise ManifestError(f"{source}: has no split {number}; its splits are {numbers}: choose --split-number")
    raise ManifestError(f"{source}: holds no split files; expected {expected} in it or in a folder below")


def _checked(source: Path, clips: list[LabelledClip], faults: Faults, notes: Iterable[str]) -> Manifest:
    check_named_once(clips, faults)
    faults.raise_any(source)
    if not clips:
        raise ManifestError(f"{source}: its split files name no clip; download them again")
    without = [clip.path.name for clip in clips if clip.group is None]
    warning = f"{len(without)} of {len(clips)} names tell no source video; each is its own group"
    return manifest_of(
        source, clips, notes=notes, warnings=[f"{warning}: {some(without, 3)}"] if without else []
    )
