"""Scores along time become events, one window at a time: smoothing, hysteresis, then what is told of it.

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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vidette.errors import InputMismatchError
from vidette.prediction.policy import UNKNOWN, DecisionPolicy

__all__ = [
    "UNKNOWN",
    "Decider",
    "DecisionPolicy",
    "Event",
    "Hysteresis",
    "Restraint",
    "Timeline",
    "Window",
    "boundary_seconds",
    "decide",
    "given_answer",
    "new_hysteresis",
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


@dataclass(frozen=True)
class Event:
    """A stretch ``[start_seconds, stop_seconds)`` with one label.

    ``confidence`` is the mean probability of the label over the event's windows (those in a cool-down before it
    included), before smoothing.
    """

    start_seconds: float
    stop_seconds: float
    label: str
    confidence: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.stop_seconds - self.start_seconds


_EVERY_WINDOW = DecisionPolicy(smoothing="none", enter_probability=0.0, leave_probability=0.0)


class Hysteresis:
    """Smoothed probabilities become stretches of one label; one Hysteresis a stream.

    Args:
        quiet: Indices of the labels that never make an event.
        enter_probability: As in the policy.
        leave_probability: As in the policy.

    Attributes:
        label: Index of the label that is going on; None while nothing is.
        start_seconds: When it began.
    """

    def __init__(self, quiet: frozenset[int], *, enter_probability: float, leave_probability: float) -> None:
        self._quiet, self._enter, self._leave = quiet, enter_probability, leave_probability
        self.label: int | None = None
        self.start_seconds = 0.0
        self._sum, self._num = 0.0, 0

    @property
    def confidence(self) -> float:
        """Mean probability of the label so far, before smoothing."""
        return self._sum / self._num

    def update(
        self,
        boundary_seconds: float,
        best: int,
        smoothed: Sequence[float],
        answer: Sequence[float],
        known: bool,
    ) -> tuple[float, int, float] | None:
        """Take the next smoothed answer, which stands for the time from ``boundary_seconds`` on.

        Args:
            boundary_seconds: Where the time of this answer begins.
            best: Index of the largest of ``smoothed``.
            smoothed: ``(K,)``.
            answer: Probabilities ``(K,)`` before smoothing.
            known: Whether it says something; nothing begins where it does not.

        Returns:
            Start, label and confidence of the stretch that ended at ``boundary_seconds``, None where none did.
        """
        wanted = self._wanted(best, smoothed, known)
        ended = None
        if self.label is not None and self.label != wanted:
            ended = (self.start_seconds, self.label, self.confidence)
        if wanted != self.label:
            self.label, self.start_seconds, self._sum, self._num = wanted, boundary_seconds, 0.0, 0
        if self.label is not None:
            self._sum += answer[self.label]
            self._num += 1
        return ended

    def _wanted(self, best: int, smoothed: Sequence[float], known: bool) -> int | None:
        """The label that should be going on now: the open one stays while nothing else enters."""
        if known and smoothed[best] >= self._enter:
            return None if best in self._quiet else best
        if self.label is not None and smoothed[self.label] >= self._leave:
            return self.label
        return None


class Restraint:
    """What is told of stretches: none that is too short, none of a label that has just been told.

    Args:
        minimum_seconds: As in the policy.
        cool_down_seconds: As in the policy.

    Attributes:
        num_dropped: Stretches that were too short.
        num_cooled: Stretches that lay in the cool-down of their label.
    """

    def __init__(self, *, minimum_seconds: float, cool_down_seconds: float) -> None:
        self._minimum, self._cool_down = minimum_seconds, cool_down_seconds
        self._ready: dict[str, float] = {}
        self.num_dropped = self.num_cooled = 0

    def preview(self, event: Event) -> Event | None:
        """Return what would be told of an event if it ended here."""
        ready = self._ready.get(event.label, event.start_seconds)
        if ready > event.start_seconds:
            if ready >= event.stop_seconds:
                return None
            event = replace(event, start_seconds=ready)
        return event if event.seconds >= self._minimum else None

    def take(self, event: Event) -> Event | None:
        """Take a stretch that has ended; return what is told of it."""
        told = self.preview(event)
        if told is not None:
            self._ready[told.label] = told.stop_seconds + self._cool_down
        elif event.seconds < self._minimum:
            self.num_dropped += 1
        else:
            self.num_cooled += 1
        return told


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
        self._hysteresis = new_hysteresis(self.policy, self.classes)
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
        before the time that the last answer stands for.
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
        ended = self._hysteresis.update(
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
        self._hysteresis.label = None
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

    def _tell(self, ended: tuple[float, int, float], stop_seconds: float) -> Event | None:
        start_seconds, label, confidence = ended
        return self._restraint.take(Event(start_seconds, stop_seconds, self.classes[label], confidence))

    def _open_until_now(self) -> Event | None:
        going_on = self._hysteresis
        if going_on.label is None or self._last is None:
            return None
        label = self.classes[going_on.label]
        return Event(going_on.start_seconds, self._last.stop_seconds, label, going_on.confidence)


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


def new_hysteresis(policy: DecisionPolicy, classes: tuple[str, ...]) -> Hysteresis:
    """Return the hysteresis of one stream."""
    quiet = frozenset(k for k, name in enumerate(classes) if name in policy.quiet_labels)
    return Hysteresis(
        quiet, enter_probability=policy.enter_probability, leave_probability=policy.leave_probability
    )


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
