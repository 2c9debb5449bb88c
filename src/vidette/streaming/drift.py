"""When not to trust a live source: signals with a start and an end, from numbers alone.

Two kinds. What is compared with training (brightness, contrast, blur, noise, features, certainty, flips) is
held to the range that clips lay in there, and how far it is outside adds up (see ``run_length.py``).
All of it together gives one false alarm in a promised time on a source whose clips look like those of training,
even at the edge of their range. What is plain to see (a frozen, black or covered picture, an answer that never
changes) has to last for some seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidette.errors import SettingError
from vidette.evaluation.levels import Level, PictureLevels, entropy
from vidette.evaluation.reference import ReferenceStatistics
from vidette.streaming.run_length import Cusum, StepLaw

__all__ = ["DriftDetector", "DriftPolicy", "Signal", "SignalKind"]

SignalKind = Literal[
    "frozen",
    "black",
    "covered",
    "brightness",
    "contrast",
    "blur",
    "noise",
    "features",
    "certainty",
    "stuck",
    "flicker",
]

_FROZEN_CHANGE = 0.03
_BLACK_BRIGHTNESS, _BLACK_CONTRAST = 24.0, 8.0
_COVERED_CONTRAST, _COVERED_SHARPNESS = 14.0, 10.0
_CALM_FLIPS = 0.25
_LEAST_STD, _LEAST_BRIGHTNESS_STD = 0.05, 2.0
_RELEASE_SECONDS = 2.0


@dataclass(frozen=True)
class DriftPolicy:
    """What counts as drift.

    Attributes:
        false_alarm_seconds: Time between false alarms that is promised, of all that is compared with training.
        look_seconds: From one look at the picture to the next.
        frozen_seconds: A picture without any change is frozen after so long.
        covered_seconds: A black or covered lens is told after so long.
        stuck_seconds: The answer is stuck when it has been the same for so long, or longer where training's
            labels would be the same for so long by chance once in ``false_alarm_seconds``.
    """

    false_alarm_seconds: float = 24 * 3600.0
    look_seconds: float = 1.0
    frozen_seconds: float = 5.0
    covered_seconds: float = 2.0
    stuck_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value < float("inf"):
                raise SettingError(f"{name} is {value}; expected above 0")
        if not self.false_alarm_seconds > 10 * self.look_seconds:
            raise SettingError(
                f"false_alarm_seconds is {self.false_alarm_seconds}; expected above 10 looks of "
                f"{self.look_seconds} s"
            )


@dataclass(frozen=True)
class Signal:
    """Something about a source that makes its answers doubtful.

    Attributes:
        kind: Its name.
        start_seconds: Since when, in the source's time; it is told some seconds later.
        stop_seconds: When it was over; None while it goes on.
        text: A sentence, with what was seen and what was expected.
    """

    kind: SignalKind
    start_seconds: float
    stop_seconds: float | None
    text: str


class _Held:
    """On after a condition has held for some time, off after it has not for some time."""

    def __init__(self, hold_seconds: float, release_seconds: float = _RELEASE_SECONDS) -> None:
        self.hold_seconds, self.release_seconds = hold_seconds, release_seconds
        self.is_on = False
        self.start_seconds: float | None = None
        self._true_seconds = 0.0

    def update(self, seconds: float, holds: bool) -> bool:
        if holds:
            self.start_seconds = seconds if self.start_seconds is None else self.start_seconds
            self._true_seconds = seconds
            self.is_on = self.is_on or seconds - self.start_seconds >= self.hold_seconds
        elif not self.is_on or seconds - self._true_seconds >= self.release_seconds:
            self.is_on, self.start_seconds = False, None
        return self.is_on


class _Compared:
    """A level of the source held against training's: the sums of what is above it, below it, or both."""

    def __init__(
        self, kind: SignalKind, level: Level, what: str, sides: tuple[int, ...], *, run_length: float
    ) -> None:
        self.kind: SignalKind = kind
        self.level, self.what, self.sides = level, what, sides
        self._low, self._high = level.bounds()
        least = _LEAST_BRIGHTNESS_STD if kind == "brightness" else _LEAST_STD
        self._spread = max(level.total_std, least)
        self._sums = tuple(Cusum(run_length) for _ in sides)

    def update(self, value: float) -> tuple[bool, int]:
        """Take the next value; return whether it is outside for good, and since how many values."""
        scaled = self.level.scaled(value)
        ages = [0]
        for side, total in zip(self.sides, self._sums, strict=True):
            excess = self._low - scaled if side < 0 else scaled - self._high
            if total.update(excess / self._spread):
                ages.append(total.num_above)
        return len(ages) > 1, max(ages)

    def text(self, value: float) -> str:
        low, high = self.level.quantiles[0], self.level.quantiles[-1]
        return f"{self.what} is {value:.3g}, was {low:.3g} to {high:.3g} in training"


class DriftDetector:
    """Watches one source; :meth:`look` at its pictures and :meth:`answered` give signals that begin or end.

    The same numbers give the same signals: there is no clock and no randomness.

    Args:
        classes: Names in the order of the probabilities.
        reference: Left by training; without it nothing is compared with training.
        policy: What counts as drift.
        answer_seconds: From one answer to the next.
        quiet_labels: Labels that mean "nothing is going on": a source may show one for ever.

    Example:
        >>> detector = DriftDetector(("fall", "walk"))
        >>> dark = PictureLevels(brightness=2.0, contrast=1.0, sharpness=0.1, noise=0.3)
        >>> for second in range(4):
        ...     for signal in detector.look(float(second), dark, change=0.5):
        ...         print(signal.kind, "since", signal.start_seconds)
        black since 0.0
    """

    def __init__(
        self,
        classes: Sequence[str],
        reference: ReferenceStatistics | None = None,
        *,
        policy: DriftPolicy | None = None,
        answer_seconds: float = 0.1,
        quiet_labels: frozenset[str] = frozenset(),
    ) -> None:
        self.classes, self.reference, self.policy = tuple(classes), reference, policy or DriftPolicy()
        self._quiet = frozenset(k for k, name in enumerate(self.classes) if name in quiet_labels)
        self._answer_seconds = answer_seconds
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        policy = self.policy
        self._on: dict[SignalKind, Signal] = {}
        self._frozen = _Held(policy.frozen_seconds)
        self._black, self._covered = _Held(policy.covered_seconds), _Held(policy.covered_seconds)
        self._compared = self._new_compared()
        flips = self._allowed_flips()
        self._flicker = Cusum(self._run_length, StepLaw("poisson", flips))
        self._flips, self._next_count = 0, 0.0
        self._label: int | None = None
        self._label_since = 0.0
        self._stuck_after = self._stuck_seconds()

    @property
    def active(self) -> tuple[Signal, ...]:
        """The signals that go on."""
        return tuple(self._on.values())

    def look(
        self, seconds: float, levels: PictureLevels, *, change: float | None, distance: float | None = None
    ) -> list[Signal]:
        """Take what one look at the picture gave; looks are ``policy.look_seconds`` apart.

        Args:
            seconds: When, in the source's time.
            levels: Of the picture.
            change: Mean absolute difference from the picture looked at before, None for the first.
            distance: Of its features, as the reference gives it; None where they are not known.

        Returns:
            Signals that begin or end here.
        """
        told: list[Signal] = []
        is_frozen = change is not None and change <= _FROZEN_CHANGE
        self._hold(told, "frozen", self._frozen, seconds, is_frozen, "nothing in the picture changes")
        is_black, is_covered = self._is_black(levels), self._is_covered(levels)
        text = f"the picture is black: brightness {levels.brightness:.0f} of 255"
        self._hold(told, "black", self._black, seconds, is_black, text)
        text = f"the lens looks covered: contrast {levels.contrast:.0f}, no edges"
        self._hold(told, "covered", self._covered, seconds, is_covered and not is_black, text)
        if is_black or is_covered:
            return told  # whatever else is then unlike training has that cause
        values = {
            "brightness": levels.brightness,
            "contrast": levels.contrast,
            "blur": levels.sharpness,
            "noise": levels.noise,
            "features": distance,
        }
        for compared in self._compared:
            value = values.get(compared.kind)
            if value is not None:
                self._compare(told, compared, seconds, value)
        return told

    def answered(self, seconds: float, probabilities: np.ndarray) -> list[Signal]:
        """Take an answer.

        Args:
            seconds: When, in the source's time.
            probabilities: Calibrated, ``(K,)``.

        Returns:
            Signals that begin or end here.
        """
        told: list[Signal] = []
        label = int(probabilities.argmax())
        if self._label is None:
            self._next_count = seconds + self.policy.look_seconds
        if label != self._label:
            self._flips += self._label is not None
            self._label, self._label_since = label, seconds
        self._watch_stuck(told, seconds, label)
        if seconds >= self._next_count:
            self._count(told, seconds, probabilities)
        return told

    def finish(self, seconds: float) -> list[Signal]:
        """End the signals that go on; the source has ended."""
        ended = [self._ended(signal, seconds) for signal in self._on.values()]
        self._on.clear()
        return ended

    # What is compared with training.

    @property
    def _run_length(self) -> float:
        """Looks between false alarms of each sum, so that all together keep the promise."""
        sums = 1 + sum(len(sides) for _, _, _, sides in self._wanted())
        return sums * self.policy.false_alarm_seconds / self.policy.look_seconds

    def _wanted(self) -> list[tuple[SignalKind, Level, str, tuple[int, ...]]]:
        known = self.reference
        if known is None:
            return []
        wanted: list[tuple[SignalKind, Level, str, tuple[int, ...]]] = [
            ("brightness", known.brightness, "brightness", (-1, 1)),
            ("contrast", known.contrast, "contrast", (-1,)),
            ("blur", known.sharpness, "sharpness", (-1,)),
            ("noise", known.noise, "noise", (1,)),
            ("certainty", known.entropy, "uncertainty (entropy)", (1,)),
        ]
        if known.features is not None:
            wanted.append(("features", known.features.distance, "distance of the features", (1,)))
        return wanted

    def _new_compared(self) -> list[_Compared]:
        length = self._run_length
        return [
            _Compared(kind, level, what, sides, run_length=length)
            for kind, level, what, sides in self._wanted()
        ]

    def _compare(self, told: list[Signal], compared: _Compared, seconds: float, value: float) -> None:
        is_on, age = compared.update(value)
        start = max(0.0, seconds - (age - 1) * self.policy.look_seconds)
        self._tell(told, compared.kind, is_on, start, seconds, lambda: compared.text(value))

    # Answers.

    def _allowed_flips(self) -> float:
        """Return the changes of the answer that are in order, between two looks."""
        calm = _CALM_FLIPS * self.policy.look_seconds
        rate = self.reference.flip_rate if self.reference else None
        return max(calm, (rate or 0.0) * self.policy.look_seconds / self._answer_seconds)

    def _count(self, told: list[Signal], seconds: float, probabilities: np.ndarray) -> None:
        """Look at the answers since the last count: how often they changed, and how sure the last one is."""
        allowed, flips = self._allowed_flips(), self._flips
        self._flips, self._next_count = 0, seconds + self.policy.look_seconds
        is_on = self._flicker.update((flips - allowed) / float(np.sqrt(allowed)))
        start = max(0.0, seconds - self._flicker.num_above * self.policy.look_seconds)
        each = flips / self.policy.look_seconds
        text = f"the answer flickers: it changed {each:.1f} times a second"
        self._tell(told, "flicker", is_on, start, seconds, lambda: text)
        for compared in self._compared:
            if compared.kind == "certainty":
                value = float(entropy(probabilities))
                self._compare(told, compared, seconds, value)

    def _stuck_seconds(self) -> float:
        """Return how long one answer may last.

        Where a share p of clips has the label, and one follows another at random each look, n in a row are of
        that label once in (1 - p^n) / ((1 - p) p^n) looks (W. Feller, Introduction to Probability Theory I,
        XIII.7).
        """
        rates = self.reference.label_rates if self.reference else ()
        share = min(max(rates, default=0.0), 0.99)
        if not share > 0:
            return self.policy.stuck_seconds
        clips = self.policy.false_alarm_seconds / self.policy.look_seconds
        in_a_row = np.log(1 + clips * (1 - share)) / -np.log(share)
        return max(self.policy.stuck_seconds, float(in_a_row) * self.policy.look_seconds)

    def _watch_stuck(self, told: list[Signal], seconds: float, label: int) -> None:
        lasted = seconds - self._label_since
        is_stuck = label not in self._quiet and len(self.classes) > 1 and lasted >= self._stuck_after
        text = f"the answer has been {self.classes[label]} for {lasted:.0f} s"
        self._tell(told, "stuck", is_stuck, self._label_since, seconds, lambda: text)

    # What is plain to see.

    def _is_black(self, levels: PictureLevels) -> bool:
        is_dark = levels.brightness < _BLACK_BRIGHTNESS and levels.contrast < _BLACK_CONTRAST
        return is_dark and self._is_below(levels.brightness, "brightness")

    def _is_covered(self, levels: PictureLevels) -> bool:
        is_flat = levels.contrast < _COVERED_CONTRAST and levels.sharpness < _COVERED_SHARPNESS
        return is_flat and self._is_below(levels.contrast, "contrast")

    def _is_below(self, value: float, name: Literal["brightness", "contrast"]) -> bool:
        """Tell whether no clip of training was so low; True where that is not known."""
        return self.reference is None or value < getattr(self.reference, name).quantiles[0]

    # Signals.

    def _hold(
        self, told: list[Signal], kind: SignalKind, held: _Held, seconds: float, holds: bool, text: str
    ) -> None:
        is_on = held.update(seconds, holds)
        self._tell(told, kind, is_on, held.start_seconds or 0.0, seconds, lambda: text)

    def _tell(
        self,
        told: list[Signal],
        kind: SignalKind,
        is_on: bool,
        start_seconds: float,
        seconds: float,
        text: Callable[[], str],
    ) -> None:
        """Note that a signal is on or off; what begins or ends is told."""
        going_on = self._on.get(kind)
        if is_on and going_on is None:
            self._on[kind] = Signal(kind, start_seconds, None, text())
            told.append(self._on[kind])
        elif going_on is not None and not is_on:
            del self._on[kind]
            told.append(self._ended(going_on, seconds))

    @staticmethod
    def _ended(signal: Signal, seconds: float) -> Signal:
        return Signal(signal.kind, signal.start_seconds, max(seconds, signal.start_seconds), signal.text)
