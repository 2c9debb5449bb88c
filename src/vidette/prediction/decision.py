"""Scores along time become events, one window at a time: smoothing, stretches, then what is told of them.

A file's events are the fold of :meth:`Decider.update` over its windows, so a file and a live stream decide
alike. Nothing here looks ahead.

When an event begins and ends: an answer stands for the time nearer to its window's centre than to a
neighbour's, so a boundary lies midway between two centres, and events never overlap however much the windows
do. The first window reaches back to its start and the last to its stop. A boundary is known half a window after
its time, when the window has been seen; smoothing moves it later (:meth:`DecisionPolicy.delay_seconds`), at the
end of an event as at its beginning. An event is told when it has ended; :attr:`Decider.open_event` tells it
before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from vidette.errors import InputMismatchError
from vidette.prediction.policy import UNKNOWN, DecisionPolicy
from vidette.prediction.stretches import Event, Restraint, Stretch, new_grouper, open_event

__all__ = [
    "UNKNOWN",
    "Decider",
    "DecisionPolicy",
    "Event",
    "Timeline",
    "Window",
    "boundary_seconds",
    "decide",
    "given_answer",
]


@dataclass(frozen=True, eq=False)
class Window:
    """The scores of one stretch of a video.

    Attributes:
        start_seconds: Time of the window's first frame, since the source's first frame.
        stop_seconds: Time of its last frame.
        probabilities: float ``(K,)``, calibrated, summing to 1.
    """

    start_seconds: float
    stop_seconds: float
    probabilities: np.ndarray

    @property
    def centre_seconds(self) -> float:
        """Midway between start and stop."""
        return (self.start_seconds + self.stop_seconds) / 2

    def __repr__(self) -> str:
        times = f"{self.start_seconds:.2f} to {self.stop_seconds:.2f} s"
        return f"Window({times}, {len(self.probabilities)} classes)"


_EVERY_WINDOW = DecisionPolicy(smoothing="none", enter_probability=0.0, leave_probability=0.0)


@dataclass
class Decider:
    """Turns windows into events, step by step; one Decider a stream.

    Args:
        classes: The K class names.
        policy: When an event begins and ends.

    Raises:
        SettingError: The policy is for other classes.

    Example:
        >>> policy = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}))
        >>> decider = Decider(("idle", "wave"), policy)
        >>> decider.update(Window(0, 2, np.array([0.1, 0.9])))
        >>> decider.update(Window(1, 3, np.array([0.9, 0.1])))
        Event(start_seconds=0, stop_seconds=1.5, label='wave', confidence=0.9)
    """

    classes: tuple[str, ...]
    policy: DecisionPolicy = field(default_factory=DecisionPolicy)

    def __post_init__(self) -> None:
        self.policy.check(self.classes)
        self._smoother = self.policy.new_smoother()
        self._grouper = new_grouper(self.policy, self.classes)
        self._restraint = Restraint(
            minimum_seconds=self.policy.minimum_seconds, cool_down_seconds=self.policy.cool_down_seconds
        )
        self._smoothed: np.ndarray | None = None
        self._is_known = True
        self._boundary = 0.0
        self._last: Window | None = None

    @property
    def smoothed(self) -> np.ndarray | None:
        """Smoothed ``(K,)`` after the last window, what lacks to 1 being "unknown"; None before the first."""
        return self._smoothed

    @property
    def is_known(self) -> bool:
        """Whether the last window is sure enough to say something; else it says "unknown"."""
        return self._is_known

    @property
    def num_dropped(self) -> int:
        """Events shorter than ``policy.minimum_seconds``, which were not returned."""
        return self._restraint.num_dropped

    @property
    def num_cooled(self) -> int:
        """Events that lay in the cool-down of their label, which were not returned."""
        return self._restraint.num_cooled

    @property
    def open_event(self) -> Event | None:
        """The event that is going on, as far as it has got, or None; for an alarm that cannot wait.

        It is told as soon as it is sure to last ``policy.minimum_seconds``, its cool-down over: it never ends
        before the time that the last answer stands for. By activity its label may still change.
        """
        event = self._open_until_now()
        if event is None or self._restraint.preview(replace(event, stop_seconds=self._boundary)) is None:
            return None
        return self._restraint.preview(event)

    def update(self, window: Window) -> Event | None:
        """Take the next window; return the event that it ended, if it ended one that is to be told.

        Raises:
            InputMismatchError: The window has other classes than the decider, a probability that is not
                finite, or is earlier than the one before.
        """
        self._check(window)
        answer, self._is_known = given_answer(window, self.policy.abstain_probability)
        smoothed = self._smoothed = self._smoother.update(window.centre_seconds, answer)
        boundary = self._boundary = boundary_seconds(self._last, window)
        ended = self._grouper.update(
            boundary,
            int(smoothed.argmax()),
            smoothed.tolist(),
            window.probabilities.tolist(),
            self._is_known,
        )
        self._last = window
        return None if ended is None else self._tell(ended, boundary)

    def finish(self) -> Event | None:
        """End the stream: return the event that was still open, if it is to be told."""
        event = self._open_until_now()
        self._grouper.close()
        return None if event is None else self._restraint.take(event)

    def _check(self, window: Window) -> None:
        if window.probabilities.shape != (len(self.classes),):
            raise InputMismatchError(
                f"window has probabilities {window.probabilities.shape}; expected ({len(self.classes)},)"
            )
        if not np.isfinite(window.probabilities).all():
            raise InputMismatchError(f"{window} has a probability that is not finite")
        if not window.start_seconds <= window.stop_seconds:
            raise InputMismatchError(f"{window} stops before it starts")
        if self._last is not None and not window.centre_seconds >= self._last.centre_seconds:
            raise InputMismatchError(f"{window} is earlier than the one before, {self._last}; sort by time")

    def _tell(self, ended: Stretch, stop_seconds: float) -> Event | None:
        return self._restraint.take(ended.event(stop_seconds, self.classes))

    def _open_until_now(self) -> Event | None:
        if self._last is None:
            return None
        return open_event(self._grouper, self._last.stop_seconds, self.classes)


def given_answer(window: Window, abstain_probability: float) -> tuple[np.ndarray, bool]:
    """Return what a window says, float64 ``(K,)``, all 0 where it abstains; and whether it says something."""
    answer = np.asarray(window.probabilities, dtype=np.float64)
    if answer.max() < abstain_probability:
        return np.zeros_like(answer), False
    return answer, True


def boundary_seconds(last: Window | None, window: Window) -> float:
    """Return where the time that a window's answer stands for begins: midway between two centres."""
    if last is None:
        return window.start_seconds
    return (last.centre_seconds + window.centre_seconds) / 2


def decide(
    windows: Iterable[Window], *, classes: tuple[str, ...], policy: DecisionPolicy | None = None
) -> tuple[Event, ...]:
    """Fold :meth:`Decider.update` over windows in order of time, then finish."""
    decider = Decider(classes, policy or DecisionPolicy())
    ended = [decider.update(window) for window in windows]
    return tuple(event for event in [*ended, decider.finish()] if event is not None)


@dataclass(frozen=True, eq=False)
class Timeline:
    """The windows of one video in order of time.

    Attributes:
        windows: At least one for a video that has a frame.
        classes: The K class names.
        policy: When an event begins and ends: the classifier's own, None where it has none.
    """

    windows: tuple[Window, ...]
    classes: tuple[str, ...]
    policy: DecisionPolicy | None = None

    def events(self, policy: DecisionPolicy | None = None) -> tuple[Event, ...]:
        """What goes on and when, under a policy: the timeline's own or else the default one when None."""
        return decide(self.windows, classes=self.classes, policy=policy or self.policy)

    def segments(self) -> tuple[Event, ...]:
        """The best label of every window, neighbours with the same label joined: they tile the video."""
        return decide(self.windows, classes=self.classes, policy=_EVERY_WINDOW)

    def __repr__(self) -> str:
        if not self.windows:
            return "Timeline(no windows)"
        first, last = self.windows[0].start_seconds, self.windows[-1].stop_seconds
        return f"Timeline({len(self.windows)} windows, {first:.2f} to {last:.2f} s)"
