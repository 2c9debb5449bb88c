"""A file answered as a live run answers it: frame by frame, every answer as it comes, and what is told when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidette.classifier.stepper import Stepper
from vidette.errors import InputMismatchError
from vidette.prediction.decision import (
    Decider,
    DecisionPolicy,
    Event,
    Timeline,
    Window,
    boundary_seconds,
)
from vidette.prediction.policy import own_policy
from vidette.video.rate import RateTaker, Tick, live_fps
from vidette.video.reader import open_video

__all__ = ["NO_DECISION", "Answers", "Steps", "follow", "step_file"]

NO_DECISION = DecisionPolicy(smoothing="none", enter_probability=0.0, leave_probability=0.0)
"""The best label of every answer as it comes: what a live run shows without a decision stage."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The answers to one file, step by step.

    Attributes:
        stretches: One timeline without a gap; more where nothing is shown for so long that a live run begins
            anew.
        num_frames: Frames that the classifier took, at its own rate.
        warnings: Sentences about what makes the answers doubtful.
    """

    stretches: tuple[Timeline, ...]
    num_frames: int
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        num_windows = sum(len(timeline.windows) for timeline in self.stretches)
        return f"Steps({num_windows} windows, {self.num_frames} frames)"


def step_file(
    stepper: Stepper,
    path: str | Path,
    *,
    fps: float | None = None,
    stream: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Steps:
    """Answer a file as ``vidette stream`` answers it: the same frames, states and windows, nothing skipped.

    Args:
        stepper: The classifier.
        path: The file; its frames are read one after the other, and not held.
        fps: Frames a second that are taken; the classifier's own by default.
        stream: Which of the file's video streams, from 0.
        on_progress: Called with the whole seconds of video that were answered, and all of them.

    Raises:
        VideoError: The file is absent, empty, damaged or no video.
        SettingError: The classifier cannot be live.
        InputMismatchError: An answer is not finite.
    """
    spec = stepper.classifier.spec
    fps = live_fps(spec) if fps is None else fps
    span_seconds = (spec.num_frames - 1) / fps
    taker = RateTaker[np.ndarray](fps, break_seconds=max(1.0, span_seconds))
    stretch = _Stretch(stepper, fps, span_seconds)
    stretches, warnings, num_frames = [stretch], list[str](), 0
    with open_video(path, stream=stream) as video:
        total_seconds = round(float(video.frame_seconds()[-1]))
        for frame in video.frames(spec):
            for tick in taker.push(frame.seconds, frame.pixels):
                if tick.after_break:
                    stretch.finish()
                    warnings.append(
                        f"nothing is shown for long before {tick.seconds:.1f} s: answers begin anew"
                    )
                    stretch = _Stretch(stepper, fps, span_seconds)
                    stretches.append(stretch)
                stretch.push(tick)
                num_frames += 1
            if on_progress is not None:
                on_progress(min(round(frame.seconds), total_seconds), total_seconds)
        if video.lost_frames:
            warnings.append(f"{video.lost_frames} frames are lost or damaged")
    stretch.finish()
    classes, policy = stepper.classifier.classes, own_policy(stepper.classifier)
    timelines = tuple(Timeline(tuple(one.windows), classes, policy) for one in stretches)
    return Steps(timelines, num_frames, tuple(warnings))


class _Stretch:
    """The answers to a part of a video without a gap, as they come."""

    def __init__(self, stepper: Stepper, fps: float, span_seconds: float) -> None:
        self._stepper, self._state = stepper, stepper.start()
        self._fps, self._span_seconds = fps, span_seconds
        self._begin_seconds: float | None = None
        self._last_seconds = 0.0
        self.windows: list[Window] = []

    def push(self, tick: Tick[np.ndarray]) -> None:
        """Take the next frame."""
        if self._begin_seconds is None:
            self._begin_seconds = tick.seconds
        self._last_seconds = tick.seconds
        logits, self._state = self._stepper.push(tick.item, self._state)
        self._answer(logits)

    def finish(self) -> None:
        """Answer what the end leaves unanswered."""
        self._answer(self._stepper.finish(self._state)[0])

    def _answer(self, logits: np.ndarray | None) -> None:
        if logits is None:
            return
        start = max(self._begin_seconds or 0.0, self._last_seconds - self._span_seconds)
        probabilities = self._stepper.classifier.probabilities(logits)
        self.windows.append(Window(start, self._last_seconds + 1 / self._fps, probabilities))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a decision makes of scores along time.

    Attributes:
        events: In order of time.
        told_seconds: When a live run is sure of each event: the stop of the first window after which it is open
            and has lasted ``minimum_seconds``. The time that the machine takes comes on top.
        seconds: float64 ``(N,)``, the stop of each window, where its answer comes.
        probabilities: float64 ``(N, K)``, smoothed, as the decision sees them.
        total_seconds: Where the last window stops.
    """

    events: tuple[Event, ...]
    told_seconds: tuple[float, ...]
    seconds: np.ndarray
    probabilities: np.ndarray
    total_seconds: float

    def __repr__(self) -> str:
        return f"Answers({len(self.events)} events, {len(self.seconds)} windows, {self.total_seconds:.1f} s)"


def follow(stretches: Sequence[Timeline], policy: DecisionPolicy | None = None) -> Answers:
    """Fold a decision over the unbroken stretches of one video, as a live run does.

    Args:
        stretches: In order of time; a video without a gap is one. The decision begins anew with each.
        policy: The first stretch's own when None; :data:`NO_DECISION` for the best label of every window.

    Raises:
        InputMismatchError: There is no window.
    """
    events, told, smoothed = list[Event](), list[float](), list[np.ndarray]()
    windows = [window for timeline in stretches for window in timeline.windows]
    if not windows:
        raise InputMismatchError("there is no answer to decide on; the video is shorter than one window")
    policy = policy or stretches[0].policy or DecisionPolicy()
    for timeline in stretches:
        decider, sure = Decider(timeline.classes, policy), _FirstSure(policy.minimum_seconds)
        for i, window in enumerate(timeline.windows):
            boundary = boundary_seconds(timeline.windows[i - 1] if i else None, window)
            ended = decider.update(window)
            if ended is not None:
                events.append(ended)
                told.append(sure.of(ended, otherwise=window.stop_seconds))
            sure.see(decider.open_event, boundary_seconds=boundary, now_seconds=window.stop_seconds)
            assert decider.smoothed is not None
            smoothed.append(decider.smoothed)
        ended = decider.finish()
        if ended is not None:
            events.append(ended)
            told.append(sure.of(ended, otherwise=timeline.windows[-1].stop_seconds))
    seconds = np.array([window.stop_seconds for window in windows])
    return Answers(tuple(events), tuple(told), seconds, np.stack(smoothed), windows[-1].stop_seconds)


@dataclass
class _FirstSure:
    """When the open event was first sure to last long enough: it never ends before its latest boundary."""

    minimum_seconds: float
    _opened: tuple[str, float] | None = None
    _sure_seconds: float | None = None

    def see(self, opened: Event | None, *, boundary_seconds: float, now_seconds: float) -> None:
        """Take the event that is open after a window."""
        key = None if opened is None else (opened.label, opened.start_seconds)
        if key != self._opened:
            self._opened, self._sure_seconds = key, None
        if opened is None or self._sure_seconds is not None:
            return
        if boundary_seconds - opened.start_seconds >= self.minimum_seconds:
            self._sure_seconds = now_seconds

    def of(self, ended: Event, *, otherwise: float) -> float:
        """Return when an event that has ended was first sure."""
        known = (ended.label, ended.start_seconds) == self._opened and self._sure_seconds is not None
        return self._sure_seconds if known and self._sure_seconds is not None else otherwise
