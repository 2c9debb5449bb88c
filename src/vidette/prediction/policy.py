"""The rules by which scores along time become events, as one value that is saved with a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from vidette.errors import SettingError, unknown_name
from vidette.prediction.smoothing import (
    SMOOTHINGS,
    Smoother,
    Smoothing,
    Transitions,
    new_smoother,
    rise_seconds,
)

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["GROUPINGS", "UNKNOWN", "DecisionPolicy", "Grouping", "label_pairs", "own_policy"]

Grouping = Literal["label", "activity"]
GROUPINGS: tuple[Grouping, ...] = ("label", "activity")

UNKNOWN = "unknown"
"""What is said where no label is likely enough; never an event."""


@dataclass(frozen=True)
class DecisionPolicy:
    """When a probability is enough to say that something is going on.

    Attributes:
        smoothing: ``"none"``; ``"mean"``: mean of the answers of the last ``smoothing_seconds``;
            ``"exponential"``: an answer's weight halves every ``smoothing_seconds``; ``"majority"``: share of
            votes in the last ``smoothing_seconds``; ``"hmm"``: forward filter with ``transitions``, for which
            the answers of ``smoothing_seconds`` count as one observation.
        smoothing_seconds: Above 0; of no effect with ``"none"``.
        enter_probability: A label's event begins when its smoothed probability is the largest and reaches this.
        leave_probability: It ends when its smoothed probability falls below this, or another label enters.
        minimum_seconds: Shorter events are dropped, and counted in ``Decider.num_dropped``.
        abstain_probability: An answer whose largest calibrated probability is below this says "unknown": it
            counts for no label, and no event begins at it. 0: every answer says something.
        cool_down_seconds: After an event, for so long no other of the same label begins; one that is going on
            when the time is over begins then.
        quiet_labels: Labels that mean "nothing is going on"; they never make an event.
        transitions: For ``"hmm"`` alone.
        grouping: ``"label"``: an event is a stretch of one label, as above. ``"activity"``: a stretch in which
            anything but the quiet labels goes on. It begins where the smoothed probabilities of all others
            together reach ``enter_probability``, ends where they fall below ``leave_probability``, and has the
            label of the largest mean probability since it began, which may change until it ends. For
            classifiers that see better that something happens than what; of two things without a pause
            between them it makes one event.
    """

    smoothing: Smoothing = "exponential"
    smoothing_seconds: float = 0.5
    enter_probability: float = 0.6
    leave_probability: float = 0.4
    minimum_seconds: float = 0.0
    abstain_probability: float = 0.0
    cool_down_seconds: float = 0.0
    quiet_labels: frozenset[str] = frozenset()
    transitions: Transitions | None = None
    grouping: Grouping = "label"

    def __post_init__(self) -> None:
        if self.grouping not in GROUPINGS:
            raise SettingError(f"grouping is {self.grouping!r}; expected one of {', '.join(GROUPINGS)}")
        if self.grouping == "activity" and not self.quiet_labels:
            raise SettingError(
                "grouping is 'activity' but there are no quiet labels; name the classes that mean that nothing "
                "is going on"
            )
        if self.smoothing not in SMOOTHINGS:
            raise SettingError(f"smoothing is {self.smoothing!r}; expected one of {', '.join(SMOOTHINGS)}")
        if not 0 < self.smoothing_seconds < math.inf:
            raise SettingError(f"smoothing_seconds is {self.smoothing_seconds}; expected above 0")
        if not 0 <= self.leave_probability <= self.enter_probability <= 1:
            raise SettingError(
                f"leave_probability is {self.leave_probability}, enter_probability {self.enter_probability}; "
                "expected 0 <= leave <= enter <= 1"
            )
        if not 0 <= self.abstain_probability <= 1:
            raise SettingError(f"abstain_probability is {self.abstain_probability}; expected 0 to 1")
        for name in ("minimum_seconds", "cool_down_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.smoothing == "hmm" and self.transitions is None:
            raise SettingError(
                "smoothing is 'hmm' but there are no transitions; learn them with 'vidette tune-decision'"
            )

    def check(self, classes: tuple[str, ...]) -> None:
        """Check that the policy is one for these classes.

        Raises:
            SettingError: A quiet label is no class, no class is left for events by activity, or the transitions
                are of another number of classes.
        """
        for label in sorted(self.quiet_labels - set(classes)):
            raise SettingError(f"quiet_labels: {unknown_name('class', label, classes)}")
        if self.grouping == "activity" and self.quiet_labels >= set(classes):
            raise SettingError("grouping is 'activity' but all classes are quiet; leave out those of events")
        if self.transitions is not None and len(self.transitions.priors) != len(classes):
            raise SettingError(
                f"transitions are of {len(self.transitions.priors)} classes, not {len(classes)}; tune again"
            )

    def new_smoother(self) -> Smoother:
        """Return the smoother of one stream."""
        return new_smoother(self.smoothing, self.smoothing_seconds, self.transitions)

    def delay_seconds(self, classes: tuple[str, ...]) -> float:
        """Return how late an event begins after answers that turn to its label surely and at once.

        Measured from a quiet label to each other one, or from each label to the next where there is no quiet
        one; the slowest counts. ``minimum_seconds`` come on top for whoever waits for ``Decider.open_event``.
        """
        pairs = label_pairs(classes, self.quiet_labels)
        return rise_seconds(self.new_smoother, pairs, len(classes), [self.enter_probability])[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["quiet_labels"] = sorted(self.quiet_labels)
        if self.transitions is None:
            del values["transitions"]
        else:
            rates = [list(row) for row in self.transitions.rates]
            values["transitions"] = {"rates": rates, "priors": list(self.transitions.priors)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecisionPolicy:
        """Return the policy of plain values; what is left out has its default.

        Raises:
            SettingError: A key is unknown or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise SettingError(f"decision: {unknown_name('key', name, known)}")
        given = {name: _read(name, value) for name, value in values.items()}
        return cls(**given)


def own_policy(classifier: Classifier) -> DecisionPolicy:
    """Return the policy that is saved with a classifier, the default one where none is.

    Raises:
        SettingError: What is saved is no policy, or one for other classes.
    """
    policy = DecisionPolicy.from_dict(classifier.decision)
    policy.check(classifier.classes)
    return policy


def label_pairs(classes: tuple[str, ...], quiet_labels: frozenset[str]) -> list[tuple[int, int]]:
    """Return (before, after) for every label that makes events, as indices; see ``delay_seconds``."""
    quiet = [k for k, name in enumerate(classes) if name in quiet_labels]
    loud = [k for k in range(len(classes)) if k not in quiet] or [0]
    return [(quiet[0] if quiet else k - 1 if k else len(classes) - 1, k) for k in loud]


def _read(name: str, value: Any) -> Any:
    if name in ("smoothing", "grouping"):
        return value
    if name == "quiet_labels":
        if isinstance(value, str) or not all(isinstance(label, str) for label in value):
            raise SettingError(f"decision: quiet_labels is {value!r}; expected a list of class names")
        return frozenset(value)
    if name == "transitions":
        return _read_transitions(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"decision: {name} is {value!r}; expected a number")
    return float(value)


def _read_transitions(value: Any) -> Transitions:
    try:
        rates = tuple(tuple(float(rate) for rate in row) for row in value["rates"])
        priors = tuple(float(prior) for prior in value["priors"])
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(f"decision: transitions lack rates or priors ({error}); tune again") from error
    return Transitions(rates, priors)
