"""What a live run tells: scores, events and notes, and how its sources fare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from vidette.errors import VideoError
from vidette.prediction.decision import UNKNOWN, Event, Window
from vidette.streaming.base import NoteKind as SourceNoteKind
from vidette.streaming.base import Shown
from vidette.streaming.drift import Signal

__all__ = [
    "CountingOutput",
    "Decided",
    "Drifted",
    "Note",
    "NoteKind",
    "Output",
    "Picture",
    "PictureOutput",
    "Record",
    "Score",
    "SourceReport",
    "Status",
]

NoteKind = Literal[SourceNoteKind, "rate", "short", "break", "failed", "runtime", "drift"]


@dataclass(frozen=True)
class Status:
    """How a source fares at one moment.

    Attributes:
        fps: Frames of the source a second that the model saw lately; 0 before there were two.
        wanted_fps: What the classifier was trained with.
        lag_seconds: From the frame's arrival to its answer.
        step_seconds: How long the model's step took, for all its sources together.
        backlog: Frames that waited when this one was taken.
        num_answered: Frames that the model has seen so far.
        num_skipped: Frames that it was too slow for.
        num_damaged: Packets and pictures of the source that were damaged.
        num_returns: How often the source was lost and came back.
    """

    fps: float
    wanted_fps: float
    lag_seconds: float
    step_seconds: float
    backlog: int
    num_answered: int
    num_skipped: int
    num_damaged: int
    num_returns: int


@dataclass(frozen=True, eq=False)
class Score:
    """The answer at one moment of one source.

    Attributes:
        source: Its name, without password.
        window: The last span of the source, and its calibrated probabilities ``(K,)``.
        classes: The K class names.
        smoothed: Probabilities ``(K,)`` as the decision sees them.
        logits: float32 ``(K,)``, uncalibrated.
        repeated: How often the last frame was repeated to make a clip, at the end of a short source.
        status: How the source fares.
        is_unknown: Whether the answer is too unsure for the decision, which then counts it for no label.
    """

    source: str
    window: Window
    classes: tuple[str, ...]
    smoothed: np.ndarray
    logits: np.ndarray
    repeated: int
    status: Status
    is_unknown: bool = False

    @property
    def label(self) -> str:
        """The most probable class of the window, or "unknown"."""
        if self.is_unknown:
            return UNKNOWN
        return self.classes[int(self.window.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """The largest of the window's probabilities."""
        return float(self.window.probabilities.max())

    def __repr__(self) -> str:
        return f"Score({self.source}: {self.label} {self.probability:.2f}, {self.window})"


@dataclass(frozen=True)
class Decided:
    """An event of one source that has ended."""

    source: str
    event: Event


@dataclass(frozen=True)
class Note:
    """Something that happened to a source, or to the run.

    Attributes:
        source: Its name; empty for the run.
        kind: ``"lost"``, ``"returned"``, ``"size"``: its connection and pictures; ``"rate"``: the model sees
            another rate than in training; ``"break"``: a gap after which the stream begins anew; ``"short"``:
            it ended before one clip; ``"failed"``: it is gone for good; ``"runtime"``: what runs the model;
            ``"drift"``: what is not watched.
        seconds: When, since the run began, by the clock.
        text: A sentence.
    """

    source: str
    kind: NoteKind
    seconds: float
    text: str


@dataclass(frozen=True)
class Drifted:
    """A signal of one source that begins, or ends (``signal.stop_seconds`` is set)."""

    source: str
    signal: Signal


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a source, for whoever shows pictures.

    Attributes:
        source: Its name.
        shown: With its time; its pixels are read when they are asked for.
        may_drop: Whether it may be left out where time is short, as a camera's may.
    """

    source: str
    shown: Shown
    may_drop: bool


Record = Score | Decided | Note | Drifted


class Output(Protocol):
    """Where records go."""

    def take(self, record: Record) -> None:
        """Take the next record; what was written before stays whole whatever happens."""
        ...

    def close(self) -> None:
        """End the output."""
        ...


@runtime_checkable
class PictureOutput(Output, Protocol):
    """Where pictures go too: each after the answers to those before it."""

    def show(self, picture: Picture) -> None:
        """Take the next picture of a source."""
        ...

    def refresh(self) -> None:
        """Do what has to be done now and then, whether or not pictures come."""
        ...


@runtime_checkable
class CountingOutput(Output, Protocol):
    """What can say at the end how much of what it took has arrived."""

    def summary(self) -> str:
        """Return a line; empty where there is nothing to say."""
        ...


@dataclass(frozen=True)
class SourceReport:
    """What a run came to for one source.

    Attributes:
        source: Its name.
        num_frames: Pictures that it gave.
        num_answered: Frames that the model saw.
        num_skipped: Frames that the model was too slow for.
        num_damaged: Packets and pictures that were damaged.
        num_returns: How often it was lost and came back.
        num_events: Events that were told.
        mean_lag_seconds: From a frame's arrival to its answer; nan where the model saw none.
        largest_lag_seconds: Likewise.
        error: Why it failed, None where it ended or was stopped.
    """

    source: str
    num_frames: int
    num_answered: int
    num_skipped: int
    num_damaged: int
    num_returns: int
    num_events: int
    mean_lag_seconds: float
    largest_lag_seconds: float
    error: VideoError | None = None
