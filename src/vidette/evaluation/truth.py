"""What really happens in a video, and when, as a table says it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vidette.data.faults import Faults
from vidette.errors import InputMismatchError, ManifestError, unknown_name
from vidette.prediction.decision import Event

__all__ = ["check_labels", "read_truth"]

_COLUMNS = ("start_seconds", "end_seconds", "label")
_SAME_SECONDS = 1e-6


def read_truth(path: str | Path) -> dict[str, tuple[Event, ...]]:
    """Read what really happens in one or several videos.

    A CSV with the header ``start_seconds,end_seconds,label``: an event is ``[start, end)`` in seconds since the
    video's first frame. A further column ``path`` names the video of each event, absolute or relative to the
    CSV's folder; a row with nothing but a path is a video in which nothing happens.

    Returns:
        The events of each video in order of time, by the video's path; by ``""`` where there is no ``path``.

    Raises:
        ManifestError: The file is absent or no such table, a time is no number or not in order, a label is
            missing, or two events of one label overlap; the message lists every fault.
    """
    path = Path(path)
    rows = _truth_rows(path)
    faults, found = Faults(), dict[str, list[Event]]()
    has_paths = "path" in rows[0]
    for line, row in enumerate(rows[1:], start=2):
        values = dict(zip(rows[0], row, strict=False))
        name = values.get("path", "").strip()
        if has_paths and not name:
            faults.add("no path", f"line {line}")
            continue
        video = str(path.parent / name) if name else ""
        events = found.setdefault(video, [])
        if not (name and not any(values.get(column, "").strip() for column in _COLUMNS)):
            _add_event(events, values, faults, f"line {line}")
    if not has_paths:
        found.setdefault("", [])
    for events in found.values():
        _check_overlaps(events, faults)
    faults.raise_any(path)
    return {video: tuple(events) for video, events in found.items()}


def _truth_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} is no CSV in UTF-8: {error}") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise ManifestError(
            f"{path}: the header has no {', '.join(missing)}; expected {','.join(_COLUMNS)} in the first"
            " line, and path where the events are of several videos"
        )
    return [header, *rows[1:]]


def _add_event(events: list[Event], values: Mapping[str, str], faults: Faults, where: str) -> None:
    label = values.get("label", "").strip()
    try:
        start, stop = float(values.get("start_seconds", "")), float(values.get("end_seconds", ""))
    except ValueError:
        faults.add("start_seconds or end_seconds is no number", where)
        return
    if not 0 <= start < stop < math.inf:
        faults.add("expected 0 <= start_seconds < end_seconds", where)
    elif not label:
        faults.add("no label", where)
    else:
        events.append(Event(start, stop, label, 1.0))


def _check_overlaps(events: list[Event], faults: Faults) -> None:
    """Sort events by time, and find those that overlap the one before of their label."""
    events.sort(key=lambda event: (event.start_seconds, event.stop_seconds))
    latest: dict[str, Event] = {}
    for event in events:
        before = latest.get(event.label)
        if before is not None and event.start_seconds < before.stop_seconds - _SAME_SECONDS:
            faults.add("overlaps another event of its label", f"{event.label} at {event.start_seconds:g} s")
        latest[event.label] = event


def check_labels(truth: Sequence[Event], classes: Sequence[str], *, source: str | Path) -> None:
    """Find out whether a classifier knows every label of a truth.

    Raises:
        InputMismatchError: It does not; the nearest class is named.
    """
    for label in sorted({event.label for event in truth} - set(classes)):
        raise InputMismatchError(f"{source}: {unknown_name('label', label, classes)}")
