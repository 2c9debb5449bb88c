"""Where something goes on: smoothed answers become stretches of time, and stretches become events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from vidette.prediction.policy import DecisionPolicy

__all__ = ["Activity", "Event", "Grouper", "Hysteresis", "Restraint", "Stretch", "new_grouper", "open_event"]


@dataclass(frozen=True)
class Event:
    """A stretch ``[start_seconds, stop_seconds)`` with one label.

    ``confidence`` is the mean probability of the label over the event's windows (those in a cool-down before it
    included), before smoothing. ``num_renamed``: how often its label changed while it was open.
    """

    start_seconds: float
    stop_seconds: float
    label: str
    confidence: float
    num_renamed: int = field(default=0, repr=False)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.stop_seconds - self.start_seconds


class Stretch(NamedTuple):
    """A stretch that has ended.

    Attributes:
        start_seconds: When it began.
        label: Index of its class.
        confidence: Mean probability of the label, before smoothing.
        num_renamed: How often the label changed while it went on.
    """

    start_seconds: float
    label: int
    confidence: float
    num_renamed: int = 0

    def event(self, stop_seconds: float, classes: Sequence[str]) -> Event:
        """Return it as an event that stops at ``stop_seconds``."""
        return Event(self.start_seconds, stop_seconds, classes[self.label], self.confidence, self.num_renamed)


class Grouper(Protocol):
    """Makes stretches of answers, one by one; one a stream.

    Attributes:
        start_seconds: When the stretch that is going on began.
        num_renamed: How often its label changed.
    """

    start_seconds: float
    num_renamed: int

    @property
    def label(self) -> int | None:
        """Index of the label that is going on; None while nothing is."""
        ...

    @property
    def confidence(self) -> float:
        """Mean probability of the label so far, before smoothing."""
        ...

    def update(
        self,
        boundary_seconds: float,
        best: int,
        smoothed: Sequence[float],
        answer: Sequence[float],
        known: bool,
    ) -> Stretch | None:
        """Take the next smoothed answer, which stands for the time from ``boundary_seconds`` on.

        Args:
            boundary_seconds: Where the time of this answer begins.
            best: Index of the largest of ``smoothed``.
            smoothed: ``(K,)``.
            answer: Probabilities ``(K,)`` before smoothing.
            known: Whether it says something; nothing begins where it does not.

        Returns:
            The stretch that ended at ``boundary_seconds``, None where none did.
        """
        ...

    def close(self) -> None:
        """Forget the stretch that is going on."""
        ...


class Hysteresis:
    """Stretches of one label each: a label has to be likely to begin, and less so to go on; see Grouper.

    Args:
        quiet: Indices of the labels that never make an event.
        enter_probability: As in the policy.
        leave_probability: As in the policy.
    """

    num_renamed = 0

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
    ) -> Stretch | None:
        """Take the next smoothed answer; return the stretch that it ended."""
        wanted = self._wanted(best, smoothed, known)
        ended = None
        if self.label is not None and self.label != wanted:
            ended = Stretch(self.start_seconds, self.label, self.confidence)
        if wanted != self.label:
            self.label, self.start_seconds, self._sum, self._num = wanted, boundary_seconds, 0.0, 0
        if self.label is not None:
            self._sum += answer[self.label]
            self._num += 1
        return ended

    def close(self) -> None:
        """Forget the stretch that is going on."""
        self.label = None

    def _wanted(self, best: int, smoothed: Sequence[float], known: bool) -> int | None:
        """The label that should be going on now: the open one stays while nothing else enters."""
        if known and smoothed[best] >= self._enter:
            return None if best in self._quiet else best
        if self.label is not None and smoothed[self.label] >= self._leave:
            return self.label
        return None


class Activity:
    """Stretches in which something goes on, each named by all its answers together; see Grouper.

    Whether something goes on is one question and what it is another: answers that waver between two labels do
    not end a stretch. As temporal actionness grouping (Zhao et al. 2017), but looking back only.

    Args:
        quiet: Indices of the labels that mean that nothing goes on, at least one.
        enter_probability: A stretch begins where all other labels together reach this.
        leave_probability: It ends where they fall below this.
    """

    def __init__(self, quiet: frozenset[int], *, enter_probability: float, leave_probability: float) -> None:
        self._quiet, self._enter, self._leave = quiet, enter_probability, leave_probability
        self.start_seconds, self.num_renamed = 0.0, 0
        self._sums: list[float] | None = None
        self._num = 0

    @property
    def label(self) -> int | None:
        """Index of the label with the most evidence so far; None while nothing goes on."""
        if self._sums is None:
            return None
        return max((k for k in range(len(self._sums)) if k not in self._quiet), key=self._sums.__getitem__)

    @property
    def confidence(self) -> float:
        """Mean probability of the label so far, before smoothing."""
        assert self._sums is not None
        assert self.label is not None
        return self._sums[self.label] / self._num

    def update(
        self,
        boundary_seconds: float,
        best: int,
        smoothed: Sequence[float],
        answer: Sequence[float],
        known: bool,
    ) -> Stretch | None:
        """Take the next smoothed answer; return the stretch that it ended."""
        del best
        active = sum(share for k, share in enumerate(smoothed) if k not in self._quiet)
        before, ended = self.label, None
        if before is not None and active < self._leave:
            ended = Stretch(self.start_seconds, before, self.confidence, self.num_renamed)
            self.close()
        if self._sums is None and known and active >= self._enter:
            before = None
            self._sums, self._num = [0.0] * len(answer), 0
            self.start_seconds, self.num_renamed = boundary_seconds, 0
        if self._sums is not None and known:
            self._sums = [old + new for old, new in zip(self._sums, answer, strict=True)]
            self._num += 1
            self.num_renamed += before is not None and self.label != before
        return ended

    def close(self) -> None:
        """Forget the stretch that is going on."""
        self._sums = None


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


def new_grouper(policy: DecisionPolicy, classes: tuple[str, ...]) -> Grouper:
    """Return what makes stretches of one stream's answers."""
    quiet = frozenset(k for k, name in enumerate(classes) if name in policy.quiet_labels)
    kind = Activity if policy.grouping == "activity" else Hysteresis
    return kind(quiet, enter_probability=policy.enter_probability, leave_probability=policy.leave_probability)


def open_event(grouping: Grouper, now_seconds: float, classes: Sequence[str]) -> Event | None:
    """Return the stretch that is going on as an event until now, None where nothing is."""
    if grouping.label is None:
        return None
    going_on = Stretch(grouping.start_seconds, grouping.label, grouping.confidence, grouping.num_renamed)
    return going_on.event(now_seconds, classes)
