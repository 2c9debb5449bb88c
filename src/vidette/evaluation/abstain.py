"""When to give no answer: thresholds of probability with the risk that they promise, and whether it held.

The risk is the share of wrong answers among those that are given. A promise is made on validation clips, by
selection with guaranteed risk (Geifman and El-Yaniv 2017, "Selective classification for deep neural networks"),
and is checked on clips that nothing was chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import beta

from vidette.errors import ClassifierError, InputMismatchError
from vidette.evaluation.calibration import softmax
from vidette.evaluation.metrics import Interval, Predictions, bootstrap_ratio

__all__ = [
    "PROMISED_RISKS",
    "Abstaining",
    "Promise",
    "PromiseCheck",
    "PromiseChecks",
    "check_promises",
    "find_abstaining",
    "fit_abstaining",
]

PROMISED_RISKS = (0.01, 0.05, 0.10, 0.20)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Promise:
    """One promise: of the answers given with ``threshold`` or more, at most ``risk`` are wrong.

    Attributes:
        risk: What is promised, above 0 to 1.
        threshold: Least calibrated probability of an answer that is given; None where nothing can be promised.
        bound: The highest risk that the validation clips leave room for; at most ``risk``. nan without
            threshold.
        answered: Validation clips that reach the threshold.
        errors: Of these, wrong answers.
        reason: Why nothing can be promised; empty where something is.
    """

    risk: float
    threshold: float | None
    bound: float
    answered: int
    errors: int
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "risk": self.risk,
            "threshold": self.threshold,
            "bound": None if math.isnan(self.bound) else self.bound,
            "answered": self.answered,
            "errors": self.errors,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Abstaining:
    """The promises of one classifier, and what they stand on.

    Attributes:
        promises: From the smallest risk to the largest.
        confidence: How sure each promise is: it fails for at most 1 in 20 draws of validation clips at 0.95.
        num_clips: Validation clips.
        num_groups: Groups that they come from. The promise takes clips as independent of each other; where
            groups are fewer than clips, it is weaker than it says.
    """

    promises: tuple[Promise, ...]
    confidence: float
    num_clips: int
    num_groups: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "confidence": self.confidence,
            "num_clips": self.num_clips,
            "num_groups": self.num_groups,
            "promises": [promise.to_dict() for promise in self.promises],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Abstaining:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ClassifierError: A value is missing or of another kind.
        """
        try:
            promises = tuple(_promise(row) for row in values["promises"])
            return cls(
                promises, float(values["confidence"]), int(values["num_clips"]), int(values["num_groups"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ClassifierError(
                f"the classifier's abstaining thresholds cannot be read: {error!r}; train it again"
            ) from error


@dataclass(frozen=True)
class PromiseCheck:
    """A promise beside what happened on clips that it was not made on.

    Attributes:
        promise: What was promised.
        n: Clips that it was checked on.
        answered: Of these, clips that reached the threshold.
        coverage: ``answered / n``; nan without clips.
        risk: Share of wrong answers among those given; nan where none was given.
        risk_interval: 95 %: the wider ends of the bootstrap over groups and the exact interval of Clopper and
            Pearson 1934, which has a width where no answer was wrong.
        verdict: ``"held"``: the risk measured is within the promise; ``"broken"``: the whole interval lies
            above it; ``"above"``: more than promised, by what chance can do; ``"empty"``: nothing was answered.
    """

    promise: Promise
    n: int
    answered: int
    coverage: float
    risk: float
    risk_interval: Interval
    verdict: Literal["held", "above", "broken", "empty"]

    def reading(self) -> str:
        """Say it in one sentence."""
        asked = f"at most {self.promise.risk:.0%} wrong"
        if self.promise.threshold is None:
            return f"{asked}: nothing is promised: {self.promise.reason}."
        given = f"answers given with {self.promise.threshold:.1%} or more"
        if self.verdict == "empty":
            return f"{asked}: no clip of {self.n} was answered so surely; nothing was wrong, and nothing said."
        low, high = self.risk_interval.low, self.risk_interval.high
        measured = (
            f"{given}, {self.answered} of {self.n} clips ({self.coverage:.0%}): {self.risk:.1%} wrong "
            f"(95 % interval {low:.1%} to {high:.1%})"
        )
        says = {
            "held": "the promise held",
            "above": "more than promised, by no more than chance can do",
            "broken": "the promise did not hold: these clips are unlike those it was made on",
        }
        return f"{asked}: {measured}: {says[self.verdict]}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            **self.promise.to_dict(),
            "n": self.n,
            "test_answered": self.answered,
            "test_coverage": _plain(self.coverage),
            "test_risk": _plain(self.risk),
            "test_risk_interval": [_plain(self.risk_interval.low), _plain(self.risk_interval.high)],
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class PromiseChecks:
    """All promises of a classifier, checked on clips that they were not made on.

    Attributes:
        abstaining: What was promised, and on what.
        checks: One a promise.
    """

    abstaining: Abstaining
    checks: tuple[PromiseCheck, ...]

    def reading(self) -> tuple[str, ...]:
        """Say in plain sentences what was promised and what came of it."""
        return tuple(check.reading() for check in self.checks)

    def caveat(self) -> str:
        """Say what the promises stand on."""
        made = self.abstaining
        stands = (
            f"Each promise is {made.confidence:.0%} sure, from {made.num_clips} validation clips, on which the "
            "weights and the temperature were chosen too"
        )
        if made.num_groups < made.num_clips:
            stands += f"; those come from {made.num_groups} groups and are not independent, so it is weaker"
        return f"{stands}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "confidence": self.abstaining.confidence,
            "num_clips": self.abstaining.num_clips,
            "num_groups": self.abstaining.num_groups,
            "promises": [check.to_dict() for check in self.checks],
        }


def find_abstaining(training_statistics: Mapping[str, Any]) -> Abstaining | None:
    """Return the promises that training left with a classifier, or None where it left none.

    Raises:
        ClassifierError: They cannot be read.
    """
    saved = training_statistics.get("abstaining")
    return None if saved is None else Abstaining.from_dict(saved)


def fit_abstaining(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    temperature: float = 1.0,
    groups: Sequence[str] | None = None,
    risks: Sequence[float] = PROMISED_RISKS,
    confidence: float = _CONFIDENCE,
) -> Abstaining:
    """Find, for each risk, the lowest threshold of probability that promises it.

    Geifman and El-Yaniv 2017, algorithm SGR: a search by halves over the probabilities met, of at most k tries;
    each try bounds the risk of the answers at or above a threshold by the binomial tail inversion (the upper
    end of Clopper and Pearson's interval) at ``(1 - confidence) / k``, so that all tries hold together. Of the
    tries that keep the promise, the one with most answers is taken.

    Args:
        logits: ``(M, K)``, of clips that were not trained on.
        labels: int ``(M,)``.
        temperature: Divides the logits.
        groups: M names; each clip its own when None.
        risks: What to promise, each above 0 and below 1.
        confidence: How sure the promise is.

    Raises:
        InputMismatchError: There is no clip, or logits and labels are of other lengths.

    Example:
        >>> sure = np.eye(2)[[0, 1] * 50] * 9
        >>> fit_abstaining(sure, np.array([0, 1] * 50), risks=(0.1,)).promises[0].answered
        100
    """
    if len(labels) == 0 or len(logits) != len(labels):
        raise InputMismatchError(
            f"abstaining got {len(logits)} rows of logits and {len(labels)} labels; expected as many, 1 or more"
        )
    probabilities = softmax(logits, temperature=temperature)
    sureness, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return Abstaining(
        promises=tuple(_promised(sureness, right, risk, 1 - confidence) for risk in sorted(risks)),
        confidence=confidence,
        num_clips=len(labels),
        num_groups=len(set(groups)) if groups is not None else len(labels),
    )


def check_promises(abstaining: Abstaining, predictions: Predictions, *, temperature: float) -> PromiseChecks:
    """Measure, on clips that nothing was chosen on, what each promise promised."""
    probabilities = softmax(predictions.logits, temperature=temperature)
    wrong = predictions.answers() != predictions.labels
    sureness = probabilities.max(axis=1)
    checks = [_checked(promise, sureness, wrong, predictions.groups) for promise in abstaining.promises]
    return PromiseChecks(abstaining, tuple(checks))


def _promise(row: Mapping[str, Any]) -> Promise:
    threshold, bound = row["threshold"], row["bound"]
    return Promise(
        risk=float(row["risk"]),
        threshold=None if threshold is None else float(threshold),
        bound=float("nan") if bound is None else float(bound),
        answered=int(row["answered"]),
        errors=int(row["errors"]),
        reason=str(row["reason"]),
    )


def _promised(sureness: np.ndarray, right: np.ndarray, risk: float, failing: float) -> Promise:
    """Search the lowest threshold whose bound keeps the promise; ``failing`` is shared among the tries."""
    ordered = np.sort(sureness)
    num_tries = math.ceil(math.log2(len(ordered) + 1))
    best: Promise | None = None
    low, high = -1, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        given = sureness >= ordered[middle]
        answered, errors = int(given.sum()), int((given & ~right).sum())
        bound = _upper_bound(errors, answered, failing / num_tries)
        if bound <= risk:
            high = middle
            best = Promise(risk, float(ordered[middle]), bound, answered, errors)
        else:
            low = middle
    return best or _no_promise(risk, len(ordered), failing / num_tries)


def _no_promise(risk: float, num_clips: int, failing: float) -> Promise:
    needed = math.ceil(math.log(failing) / math.log(1 - risk))
    reason = (
        f"{num_clips} validation clips do not show it at any threshold tried; {needed} sure answers, "
        "all of them right, would"
    )
    return Promise(risk, None, float("nan"), 0, 0, reason)


def _upper_bound(errors: int, answered: int, failing: float) -> float:
    """Return the largest rate under which ``errors`` or fewer happen with probability ``failing``."""
    return 1.0 if errors == answered else float(beta.ppf(1 - failing, errors + 1, answered - errors))


def _checked(promise: Promise, sureness: np.ndarray, wrong: np.ndarray, groups: Sequence[str]) -> PromiseCheck:
    n = len(sureness)
    nothing = Interval(float("nan"), float("nan"))
    if promise.threshold is None:
        return PromiseCheck(promise, n, 0, 0.0 if n else float("nan"), float("nan"), nothing, "empty")
    # A threshold is a probability met: what was computed a second time may differ in its last digits.
    given = sureness >= promise.threshold - 1e-9
    answered = int(given.sum())
    if answered == 0:
        return PromiseCheck(promise, n, 0, 0.0 if n else float("nan"), float("nan"), nothing, "empty")
    errors = int((given & wrong).sum())
    interval = _risk_interval(errors, answered, given & wrong, given, groups)
    risk = errors / answered
    verdict = "held" if risk <= promise.risk else "broken" if interval.low > promise.risk else "above"
    return PromiseCheck(promise, n, answered, answered / n, risk, interval, verdict)


def _risk_interval(
    errors: int, answered: int, wrong: np.ndarray, given: np.ndarray, groups: Sequence[str]
) -> Interval:
    low = 0.0 if errors == 0 else float(beta.ppf(0.025, errors, answered - errors + 1))
    exact = Interval(low, _upper_bound(errors, answered, 0.025))
    drawn = bootstrap_ratio(wrong.astype(np.float64), given.astype(np.float64), groups)
    if not drawn.defined:
        return exact
    return Interval(min(exact.low, drawn.low), max(exact.high, drawn.high))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
