"""Scores along time become events: smoothing, hysteresis and a shortest length, one window at a time.

A file's events are the fold of :meth:`Decider.update` over its windows, so a file and a live stream decide
alike. Nothing here looks ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vidette.errors import InputMismatchError, SettingError

__all__ = ["Decider", "DecisionPolicy", "Event", "Timeline", "Window", "decide"]


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


@dataclass(frozen=True)
class Event:
    """A stretch ``[start_seconds, stop_seconds)`` with one label.

    ``confidence`` is the mean probability of the label over the event's windows, before smoothing.
    """

    start_seconds: float
    stop_seconds: float
    label: str
    confidence: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.stop_seconds - self.start_seconds


@dataclass(frozen=True)
class DecisionPolicy:
    """When a probability is enough to say that something is going on.

    Attributes:
        smoothing: ``"none"``; ``"mean"``: mean of the windows of the last ``smoothing_seconds``;
            ``"exponential"``: a window's weight halves every ``smoothing_seconds``.
        smoothing_seconds: Above 0; of no effect with ``"none"``.
        enter_probability: A label's event opens when its smoothed probability is the largest and reaches this.
        leave_probability: An open event closes when its smoothed probability falls below this.
        minimum_seconds: Shorter events are dropped, and counted in :attr:`Decider.num_dropped`.
        quiet_labels: Labels that mean "nothing is going on"; they never make an event.
    """

    smoothing: Literal["none", "mean", "exponential"] = "exponential"
    smoothing_seconds: float = 0.5
    enter_probability: float = 0.6
    leave_probability: float = 0.4
    minimum_seconds: float = 0.0
    quiet_labels: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.smoothing not in ("none", "mean", "exponential"):
            raise SettingError(f"smoothing is {self.smoothing!r}; expected none, mean or exponential")
        if not self.smoothing_seconds > 0:
            raise SettingError(f"smoothing_seconds is {self.smoothing_seconds}; expected above 0")
        if not 0 <= self.leave_probability <= self.enter_probability <= 1:
            raise SettingError(
                f"leave_probability is {self.leave_probability}, enter_probability {self.enter_probability}; "
                "expected 0 <= leave <= enter <= 1"
            )
        if not self.minimum_seconds >= 0:
            raise SettingError(f"minimum_seconds is {self.minimum_seconds}; expected 0 or more")


_EVERY_WINDOW = DecisionPolicy(smoothing="none", enter_probability=0.0, leave_probability=0.0)


@dataclass
class _OpenEvent:
    label: int
    start_seconds: float
    probability_sum: float = 0.0
    num_windows: int = 0


@dataclass
class Decider:
    """Turns windows into events, step by step; one Decider a stream.

    An answer stands for the time nearer to its window's centre than to a neighbour's, so events never overlap
    however much the windows do: a boundary lies midway between two centres. The first window reaches back to
    its start and the last to its stop.

    Args:
        classes: The K class names.
        policy: When an event opens and closes.

    Attributes:
        num_dropped: Events shorter than ``policy.minimum_seconds``, which were not returned.

    Example:
        >>> policy = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}))
        >>> decider = Decider(("idle", "wave"), policy)
        >>> decider.update(Window(0, 2, np.array([0.1, 0.9])))
        >>> decider.update(Window(1, 3, np.array([0.9, 0.1])))
        Event(start_seconds=0, stop_seconds=1.5, label='wave', confidence=0.9)
    """

    classes: tuple[str, ...]
    policy: DecisionPolicy = field(default_factory=DecisionPolicy)
    num_dropped: int = 0
    _recent: deque[Window] = field(default_factory=deque[Window], repr=False)
    _smoothed: np.ndarray | None = field(default=None, repr=False)
    _open: _OpenEvent | None = field(default=None, repr=False)
    _last: Window | None = field(default=None, repr=False)

    @property
    def smoothed(self) -> np.ndarray | None:
        """Smoothed probabilities ``(K,)`` after the last window; None before the first."""
        return self._smoothed

    @property
    def open_event(self) -> Event | None:
        """The event that is going on, as far as it has got, or None; for an alarm that cannot wait."""
        if self._open is None or self._last is None:
            return None
        return self._event(self._open, self._last.stop_seconds)

    def update(self, window: Window) -> Event | None:
        """Take the next window; return the event that it ended, if it ended one that is long enough.

        Raises:
            InputMismatchError: The window has other classes than the decider, a probability that is not
                finite, or is earlier than the one before.
        """
        self._check(window)
        boundary = window.start_seconds
        if self._last is not None:
            boundary = (self._last.centre_seconds + window.centre_seconds) / 2
        smoothed = self._smoothed = self._smooth(window)
        wanted = self._wanted_label(smoothed)
        ended = None
        if self._open is not None and self._open.label != wanted:
            ended = self._close(boundary)
        if self._open is None and wanted is not None:
            self._open = _OpenEvent(wanted, boundary)
        if self._open is not None:
            self._open.probability_sum += float(window.probabilities[self._open.label])
            self._open.num_windows += 1
        self._last = window
        return ended

    def finish(self) -> Event | None:
        """End the stream: return the event that was still open, if it is long enough."""
        if self._open is None or self._last is None:
            return None
        return self._close(self._last.stop_seconds)

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

    def _smooth(self, window: Window) -> np.ndarray:
        current = np.asarray(window.probabilities, dtype=np.float64)
        if self.policy.smoothing == "mean":
            self._recent.append(window)
            while self._recent[0].centre_seconds <= window.centre_seconds - self.policy.smoothing_seconds:
                self._recent.popleft()
            recent = np.stack([w.probabilities for w in self._recent])
            return recent.astype(np.float64).mean(axis=0)
        if self.policy.smoothing == "exponential" and self._smoothed is not None and self._last is not None:
            passed = window.centre_seconds - self._last.centre_seconds
            keep = 0.5 ** (passed / self.policy.smoothing_seconds)
            return keep * self._smoothed + (1 - keep) * current
        return current

    def _wanted_label(self, smoothed: np.ndarray) -> int | None:
        """The label whose event should be open now: hysteresis keeps the open one while nothing else enters."""
        best = int(smoothed.argmax())
        if smoothed[best] >= self.policy.enter_probability:
            return None if self.classes[best] in self.policy.quiet_labels else best
        if self._open is not None and smoothed[self._open.label] >= self.policy.leave_probability:
            return self._open.label
        return None

    def _close(self, stop_seconds: float) -> Event | None:
        assert self._open is not None
        event, self._open = self._event(self._open, stop_seconds), None
        if event.seconds < self.policy.minimum_seconds:
            self.num_dropped += 1
            return None
        return event

    def _event(self, opened: _OpenEvent, stop_seconds: float) -> Event:
        confidence = opened.probability_sum / opened.num_windows
        return Event(opened.start_seconds, stop_seconds, self.classes[opened.label], confidence)


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
    """

    windows: tuple[Window, ...]
    classes: tuple[str, ...]

    def events(self, policy: DecisionPolicy | None = None) -> tuple[Event, ...]:
        """What goes on and when, under a policy (the default one when None)."""
        return decide(self.windows, classes=self.classes, policy=policy)

    def segments(self) -> tuple[Event, ...]:
        """The best label of every window, neighbours with the same label joined: they tile the video."""
        return decide(self.windows, classes=self.classes, policy=_EVERY_WINDOW)

    def __repr__(self) -> str:
        if not self.windows:
            return "Timeline(no windows)"
        first, last = self.windows[0].start_seconds, self.windows[-1].stop_seconds
        return f"Timeline({len(self.windows)} windows, {first:.2f} to {last:.2f} s)"
