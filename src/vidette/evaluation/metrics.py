"""How good: counts, rates and areas of a set of answers, each with its n and, where it can, an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidette.errors import InputMismatchError
from vidette.evaluation.calibration import expected_calibration_error, softmax

__all__ = [
    "ClassScore",
    "Interval",
    "Metrics",
    "Predictions",
    "bootstrap_interval",
    "bootstrap_ratio",
    "measure",
]

_NAN = float("nan")
_CHUNK_ENTRIES = 4_000_000


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier said of clips whose label is known.

    Attributes:
        classes: The K class names.
        labels: int ``(M,)``, index of the true class.
        logits: float ``(M, K)``, uncalibrated.
        groups: M names; clips of one group (scene, person, recording) are not independent of each other.
        names: M names of the clips, for people.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    groups: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        m, k = len(self.labels), len(self.classes)
        if self.logits.shape != (m, k) or len(self.groups) != m or len(self.names) != m:
            raise InputMismatchError(
                f"predictions: logits {self.logits.shape}, {len(self.groups)} groups, {len(self.names)} names; "
                f"expected ({m}, {k}), {m} and {m} for {m} labels of {k} classes"
            )
        if m and not (int(self.labels.min()) >= 0 and int(self.labels.max()) < k):
            raise InputMismatchError(f"predictions: labels reach outside 0 to {k - 1} for {k} classes")
        bad = [self.names[i] for i in np.flatnonzero(~np.isfinite(self.logits).all(axis=1))]
        if bad:
            raise InputMismatchError(
                f"predictions: {len(bad)} of {m} clips have logits that are not finite, first {bad[0]}; "
                "the classifier is broken: look at its training losses"
            )

    def answers(self) -> np.ndarray:
        """Index of the answered class, int64 ``(M,)``."""
        return self.logits.argmax(axis=1)

    def __repr__(self) -> str:
        n, k = self.logits.shape
        return f"Predictions({n} clips, {k} classes, {len(set(self.groups))} groups)"


@dataclass(frozen=True)
class Interval:
    """Low and high end of a 95 % interval; both nan when it is undefined."""

    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether both ends are numbers."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class ClassScore:
    """How one class fared. ``n`` counts the clips whose true label it is; rates are nan when undefined."""

    label: str
    n: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class Metrics:
    """The score of one set of answers. Rates run from 0 to 1; undefined is nan, with its reason.

    Attributes:
        n: Clips.
        num_groups: Groups of clips; what the intervals resample.
        classes: The K class names.
        accuracy: Share of clips whose answer is the label (top-1).
        accuracy_interval: 95 %, by bootstrap over groups.
        top5_accuracy: Share of clips whose label is among the five largest logits; nan when K <= 5.
        balanced_accuracy: Mean recall of the classes that have clips.
        per_class: One score a class, in the order of ``classes``.
        confusion: int64 ``(K, K)``: row the label, column the answer.
        auc: Area under the ROC curve: of the second class when K is 2, else the mean of one-vs-rest areas over
            the classes that have clips.
        auc_interval: 95 %, by bootstrap over groups.
        ece: Expected calibration error of the probabilities at ``temperature``.
        temperature: What the logits were divided by.
        undefined: Reason of every nan, by the field's name; ``per_class.NAME.precision`` for a class.
    """

    n: int
    num_groups: int
    classes: tuple[str, ...]
    accuracy: float
    accuracy_interval: Interval
    top5_accuracy: float
    balanced_accuracy: float
    per_class: tuple[ClassScore, ...]
    confusion: np.ndarray
    auc: float
    auc_interval: Interval
    ece: float
    temperature: float
    undefined: dict[str, str] = field(default_factory=dict[str, str])

    def headline(self) -> str:
        """One line for people: ``accuracy 74 % (95 % interval 66 to 81 %, 300 clips of 45 groups)``."""
        if self.n == 0:
            return "accuracy undefined (no clips)"
        counted = f"{_count(self.n, 'clip')} of {_count(self.num_groups, 'group')}"
        if not self.accuracy_interval.defined:
            return f"accuracy {_percent(self.accuracy)} % ({counted}; no interval from fewer than 2 groups)"
        low, high = _percent(self.accuracy_interval.low), _percent(self.accuracy_interval.high)
        return f"accuracy {_percent(self.accuracy)} % (95 % interval {low} to {high} %, {counted})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None, its reason stays in ``undefined``."""
        return {
            "n": self.n,
            "num_groups": self.num_groups,
            "classes": list(self.classes),
            "accuracy": _plain(self.accuracy),
            "accuracy_interval": [_plain(self.accuracy_interval.low), _plain(self.accuracy_interval.high)],
            "top5_accuracy": _plain(self.top5_accuracy),
            "balanced_accuracy": _plain(self.balanced_accuracy),
            "auc": _plain(self.auc),
            "auc_interval": [_plain(self.auc_interval.low), _plain(self.auc_interval.high)],
            "ece": _plain(self.ece),
            "temperature": self.temperature,
            "per_class": [
                {
                    "label": score.label,
                    "n": score.n,
                    "precision": _plain(score.precision),
                    "recall": _plain(score.recall),
                    "f1": _plain(score.f1),
                }
                for score in self.per_class
            ],
            "confusion": self.confusion.tolist(),
            "undefined": dict(self.undefined),
        }

    def __repr__(self) -> str:
        return f"Metrics({self.headline()})"


def measure(
    predictions: Predictions, *, temperature: float = 1.0, num_resamples: int = 1000, seed: int = 0
) -> Metrics:
    """Score a set of answers.

    Args:
        predictions: Labels and uncalibrated logits.
        temperature: Divides the logits before the softmax; changes ``ece`` (and slightly a many-class ``auc``).
        num_resamples: Bootstrap resamples of the groups.
        seed: Of the resampling.

    Example:
        >>> two = Predictions(("a", "b"), np.array([0, 1]), np.eye(2), ("g", "h"), ("x", "y"))
        >>> measure(two).accuracy
        1.0
    """
    undefined: dict[str, str] = {}
    n, num_classes = predictions.logits.shape
    labels, answers = predictions.labels.astype(np.int64), predictions.answers()
    right = (answers == labels).astype(np.float64)
    probabilities = softmax(predictions.logits, temperature=temperature)
    confusion = np.bincount(labels * num_classes + answers, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    recalls = _ratio(np.diag(confusion), confusion.sum(axis=1))
    if n == 0:
        undefined |= dict.fromkeys(("accuracy", "balanced_accuracy", "ece"), "there is no clip")
    auc = _mean_area(probabilities, labels, np.ones((1, n)))[0]
    if np.isnan(auc):
        undefined["auc"] = "needs clips of at least two classes"
    accuracy_interval = _accuracy_interval(right, predictions.groups, num_resamples, seed, undefined)
    return Metrics(
        n=n,
        num_groups=len(set(predictions.groups)),
        classes=predictions.classes,
        accuracy=float(right.mean()) if n else _NAN,
        accuracy_interval=accuracy_interval,
        top5_accuracy=_top5(predictions.logits, labels, undefined),
        balanced_accuracy=float(np.nanmean(recalls)) if n else _NAN,
        per_class=_class_scores(predictions.classes, confusion, recalls, undefined),
        confusion=confusion,
        auc=float(auc),
        auc_interval=_auc_interval(probabilities, labels, predictions.groups, num_resamples, seed, undefined),
        ece=expected_calibration_error(probabilities, labels),
        temperature=temperature,
        undefined=undefined,
    )


def bootstrap_interval(
    values: np.ndarray, groups: Sequence[str], *, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """95 % percentile interval of a mean, by drawing whole groups with replacement.

    Efron and Tibshirani 1993, chapter 13. Clips of one group stand or fall together, so groups are drawn, not
    clips; with few groups (under about 10) the interval is too narrow.

    Args:
        values: float ``(M,)``, one a clip; the statistic is their mean.
        groups: M group names.
        num_resamples: Draws.
        seed: Of the draws.

    Returns:
        Both ends nan when there are fewer than two groups.
    """
    return bootstrap_ratio(values, np.ones(len(groups)), groups, num_resamples=num_resamples, seed=seed)


def bootstrap_ratio(
    top: np.ndarray, bottom: np.ndarray, groups: Sequence[str], *, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """95 % percentile interval of ``sum(top) / sum(bottom)``, by drawing whole groups as above.

    Args:
        top: float ``(M,)``, one a clip.
        bottom: float ``(M,)``, 0 or more; draws in which it sums to 0 are left out.
        groups: M group names.
        num_resamples: Draws.
        seed: Of the draws.

    Returns:
        Both ends nan when there are fewer than two groups, or ``bottom`` is 0 in most draws.
    """
    index, num_groups = _group_index(groups)
    if num_groups < 2:
        return Interval(_NAN, _NAN)
    draws = _draw_groups(num_groups, num_resamples, seed)
    tops = draws @ np.bincount(index, weights=top, minlength=num_groups)
    bottoms = draws @ np.bincount(index, weights=bottom, minlength=num_groups)
    if (bottoms > 0).sum() < num_resamples / 2:
        return Interval(_NAN, _NAN)
    return _percentiles(tops[bottoms > 0] / bottoms[bottoms > 0])


def _accuracy_interval(
    right: np.ndarray, groups: Sequence[str], num_resamples: int, seed: int, undefined: dict[str, str]
) -> Interval:
    interval = bootstrap_interval(right, groups, num_resamples=num_resamples, seed=seed)
    if not interval.defined:
        undefined["accuracy_interval"] = _few_groups(groups)
    return interval


def _auc_interval(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    num_resamples: int,
    seed: int,
    undefined: dict[str, str],
) -> Interval:
    index, num_groups = _group_index(groups)
    if num_groups < 2 or len(np.unique(labels)) < 2:
        undefined["auc_interval"] = undefined.get("auc") or _few_groups(groups)
        return Interval(_NAN, _NAN)
    draws = _draw_groups(num_groups, num_resamples, seed)
    step = max(1, _CHUNK_ENTRIES // len(labels))
    areas = np.concatenate(
        [
            _mean_area(probabilities, labels, draws[i : i + step][:, index])
            for i in range(0, num_resamples, step)
        ]
    )
    areas = areas[~np.isnan(areas)]
    if len(areas) < num_resamples / 2:
        undefined["auc_interval"] = "most resamples of the groups hold one class only; more groups are needed"
        return Interval(_NAN, _NAN)
    return _percentiles(areas)


def _few_groups(groups: Sequence[str]) -> str:
    return f"needs at least 2 groups of clips, got {len(set(groups))}"


def _group_index(groups: Sequence[str]) -> tuple[np.ndarray, int]:
    """Number the groups in order of first appearance: ``(M,)`` indices, and how many."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[name] for name in groups], dtype=np.int64), len(numbers)


def _draw_groups(num_groups: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each group is drawn in each resample: float64 ``(num_resamples, num_groups)``."""
    generator = np.random.default_rng(seed)
    chances = np.full(num_groups, 1.0 / num_groups)
    return generator.multinomial(num_groups, chances, size=num_resamples).astype(np.float64)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def _mean_area(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ROC area ``(R,)`` under R weightings ``(R, M)`` of the clips; nan where a weighting leaves one class."""
    num_classes = probabilities.shape[1]
    columns = [1] if num_classes == 2 else [int(k) for k in np.unique(labels)]
    if len(np.unique(labels)) < 2:
        return np.full(len(weights), _NAN)
    total, defined = np.zeros(len(weights)), np.zeros(len(weights))
    for column in columns:
        area = _area(probabilities[:, column], labels == column, weights)
        known = ~np.isnan(area)
        total += np.where(known, area, 0.0)
        defined += known
    return _ratio(total, defined)


def _area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Chance ``(R,)`` that a positive clip outscores a negative one, ties counted half (Mann-Whitney)."""
    order = np.argsort(scores, kind="stable")
    ordered, is_positive, drawn = scores[order], positive[order], weights[:, order]
    negative_mass = np.cumsum(drawn * ~is_positive, axis=1)
    padded = np.concatenate([np.zeros((len(drawn), 1)), negative_mass], axis=1)
    below = np.searchsorted(ordered, ordered[is_positive], side="left")
    upto = np.searchsorted(ordered, ordered[is_positive], side="right")
    positives = drawn[:, is_positive]
    wins = (positives * (padded[:, below] + padded[:, upto])).sum(axis=1) / 2
    return _ratio(wins, positives.sum(axis=1) * negative_mass[:, -1])


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide; nan where the divisor is zero."""
    return top / np.where(bottom > 0, bottom, np.nan)


def _top5(logits: np.ndarray, labels: np.ndarray, undefined: dict[str, str]) -> float:
    n, num_classes = logits.shape
    if num_classes <= 5:
        undefined["top5_accuracy"] = f"needs more than 5 classes, got {num_classes}"
        return _NAN
    if n == 0:
        undefined["top5_accuracy"] = "there is no clip"
        return _NAN
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return float((best == labels[:, None]).any(axis=1).mean())


def _class_scores(
    classes: Sequence[str], confusion: np.ndarray, recalls: np.ndarray, undefined: dict[str, str]
) -> tuple[ClassScore, ...]:
    hits, labelled, answered = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precisions = _ratio(hits, answered)
    f1s = _ratio(2 * hits, labelled + answered)
    for k, label in enumerate(classes):
        if not labelled[k]:
            undefined[f"per_class.{label}.recall"] = "no clip has this label"
        if not answered[k]:
            undefined[f"per_class.{label}.precision"] = "never answered"
        if not labelled[k] and not answered[k]:
            undefined[f"per_class.{label}.f1"] = "no clip has this label and it is never answered"
    return tuple(
        ClassScore(label, int(labelled[k]), float(precisions[k]), float(recalls[k]), float(f1s[k]))
        for k, label in enumerate(classes)
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f}"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
