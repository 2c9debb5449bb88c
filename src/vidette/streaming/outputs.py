"""Where a live run's records go: JSON lines, CSV, subtitles. What is written is whole at any moment."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vidette.errors import OutputExistsError, SettingError, StorageError, unknown_name
from vidette.prediction.decision import Event
from vidette.streaming.outputs_video import AnnotatedVideo
from vidette.streaming.records import Decided, Drifted, Note, Output, Record, Score
from vidette.video.writer import Caption

__all__ = ["STREAM_ENDINGS", "CsvScores", "JsonLines", "Subtitles", "as_json", "open_outputs"]

_TOP = 5
_COLUMNS = ("source", "start_seconds", "end_seconds", "label", "probability")


def as_json(record: Record) -> dict[str, Any]:
    """Return a record as plain values: its ``type`` is score, event, signal or note; five labels of a score.

    Example:
        >>> as_json(Decided("cam", Event(1.0, 2.5, "wave", 0.9)))["end_seconds"]
        2.5
    """
    if isinstance(record, Note):
        seconds = round(record.seconds, 3)
        source = record.source or None
        return {
            "type": "note",
            "source": source,
            "run_seconds": seconds,
            "kind": record.kind,
            "text": record.text,
        }
    if isinstance(record, Decided):
        event = record.event
        return {
            "type": "event",
            "source": record.source,
            "start_seconds": round(event.start_seconds, 3),
            "end_seconds": round(event.stop_seconds, 3),
            "label": event.label,
            "probability": round(event.confidence, 6),
        }
    if isinstance(record, Drifted):
        signal = record.signal
        return {
            "type": "signal",
            "source": record.source,
            "kind": signal.kind,
            "start_seconds": round(signal.start_seconds, 3),
            "end_seconds": None if signal.stop_seconds is None else round(signal.stop_seconds, 3),
            "text": signal.text,
        }
    status = record.status
    return {
        "type": "score",
        "source": record.source,
        "start_seconds": round(record.window.start_seconds, 3),
        "end_seconds": round(record.window.stop_seconds, 3),
        "label": record.label,
        "probability": round(record.probability, 6),
        "probabilities": _best(record.classes, record.window.probabilities),
        "smoothed": _best(record.classes, record.smoothed),
        "repeated": record.repeated,
        "fps": round(status.fps, 2),
        "lag_seconds": round(status.lag_seconds, 4),
        "backlog": status.backlog,
        "num_skipped": status.num_skipped,
        "num_damaged": status.num_damaged,
        "num_returns": status.num_returns,
    }


def _best(classes: Sequence[str], probabilities: np.ndarray) -> dict[str, float]:
    best = np.argsort(-probabilities, kind="stable")[:_TOP]
    return {classes[int(k)]: round(float(probabilities[k]), 6) for k in best}


class _Growing:
    """A text file, or a stream that is open already, that grows by whole pieces.

    Args:
        target: The file to write, or the stream.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: It cannot be written.
    """

    def __init__(self, target: str | Path | TextIO, *, overwrite: bool = False) -> None:
        self.name = str(target) if isinstance(target, str | Path) else "the output"
        self._own = isinstance(target, str | Path)
        with self._guarded():
            if isinstance(target, str | Path):
                path = Path(target)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file: TextIO = path.open("w" if overwrite else "x", encoding="utf-8", newline="")
            else:
                self._file = target

    def write(self, text: str) -> None:
        """Write a piece and hand it to the system."""
        with self._guarded():
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Close the file; a stream that was given stays open."""
        if self._own:
            with self._guarded():
                self._file.close()

    @contextlib.contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except (FileExistsError, IsADirectoryError) as error:
            raise OutputExistsError(
                f"{self.name} exists already; choose another name or overwrite it (--overwrite)"
            ) from error
        except OSError as error:
            raise StorageError(f"{self.name} cannot be written: {error.strerror or error}") from error


class JsonLines:
    """One JSON object a line: every score, event and note; see :func:`as_json`.

    Args:
        target: A file to write, or an open stream such as standard output.
        overwrite: Replace a file that is there.
    """

    def __init__(self, target: str | Path | TextIO, *, overwrite: bool = False) -> None:
        self._out = _Growing(target, overwrite=overwrite)

    def take(self, record: Record) -> None:
        """Write one line."""
        self._out.write(json.dumps(as_json(record), ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._out.close()


class CsvScores:
    """A table with one row a score: ``source,start_seconds,end_seconds,label,probability``."""

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._out = _Growing(path, overwrite=overwrite)
        self._write(_COLUMNS)

    def take(self, record: Record) -> None:
        """Write a score's row; events and notes are left out."""
        if isinstance(record, Score):
            values = as_json(record)
            self._write([values[name] for name in _COLUMNS])

    def close(self) -> None:
        """Close the file."""
        self._out.close()

    def _write(self, row: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        self._out.write(text.getvalue())


class Subtitles:
    """The events of one source as subtitles, SubRip (``.srt``) or WebVTT (``.vtt``) by the ending."""

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._is_vtt = Path(path).suffix.lower() == ".vtt"
        self._out = _Growing(path, overwrite=overwrite)
        self._number = 0
        if self._is_vtt:
            self._out.write("WEBVTT\n\n")

    def take(self, record: Record) -> None:
        """Write an event's cue; scores and notes are left out."""
        if isinstance(record, Decided) and record.event.seconds > 0:
            self._number += 1
            self._out.write(self._cue(record.event))

    def close(self) -> None:
        """Close the file."""
        self._out.close()

    def _cue(self, event: Event) -> str:
        text = f"{event.label} {100 * event.confidence:.0f} %"
        caption = Caption(event.start_seconds, event.stop_seconds, text)
        start = round(caption.start_seconds * 1000)
        stop = max(round(caption.stop_seconds * 1000), start + 1)
        lines = "\n".join(caption.lines)
        if self._is_vtt:
            safe = lines.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return f"{_time(start, '.')} --> {_time(stop, '.')}\n{safe}\n\n"
        return f"{self._number}\n{_time(start, ',')} --> {_time(stop, ',')}\n{lines}\n\n"


def _time(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{milliseconds:03}"


STREAM_ENDINGS: dict[str, Callable[..., Output]] = {
    ".jsonl": JsonLines,
    ".csv": CsvScores,
    ".srt": Subtitles,
    ".vtt": Subtitles,
    ".mp4": AnnotatedVideo,
}
"""What a live run writes, by the ending of the file."""
_OF_ONE_SOURCE = (Subtitles, AnnotatedVideo)


def open_outputs(paths: Sequence[str | Path], *, num_sources: int, overwrite: bool = False) -> list[Output]:
    """Open files to write, each of the kind that its ending says; all of them or none.

    Raises:
        SettingError: An ending is unknown, a file is named twice, or what shows one source is for several.
        OutputExistsError: A file is there and ``overwrite`` is false.
        StorageError: A file cannot be written.
    """
    files = [Path(path) for path in paths]
    for path in files:
        ending = path.suffix.lower()
        if ending not in STREAM_ENDINGS:
            raise SettingError(f"{path}: {unknown_name('output ending', ending, STREAM_ENDINGS)}")
        if STREAM_ENDINGS[ending] in _OF_ONE_SOURCE and num_sources > 1:
            what = "subtitles are" if ending != ".mp4" else "annotated video is"
            raise SettingError(f"{path}: {what} of one source, got {num_sources}; write .csv or .jsonl")
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists already; choose another name or overwrite it (--overwrite)")
    if len({path.resolve() for path in files}) < len(files):
        raise SettingError("an output is named twice; give each its own file")
    with contextlib.ExitStack() as opened:
        outputs: list[Output] = []
        for path in files:
            output = STREAM_ENDINGS[path.suffix.lower()](path, overwrite=overwrite)
            opened.callback(output.close)
            outputs.append(output)
        opened.pop_all()
    return outputs
