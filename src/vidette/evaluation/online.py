"""How good along time: the events of a video against what really happened, answers against what goes on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import gammaincinv
from sklearn.metrics import average_precision_score

from vidette.errors import InputMismatchError, SettingError
from vidette.evaluation.metrics import Interval
from vidette.prediction.stretches import Event

__all__ = [
    "FramePrecision",
    "OnlineScores",
    "event_scores",
    "per_frame_average_precision",
    "poisson_interval",
    "pooled",
]

_NAN = float("nan")
_SAME_SECONDS = 1e-6


@dataclass(frozen=True)
class OnlineScores:
    """How events fared against the truth, as counts that add up over videos; rates are nan when undefined.

    Attributes:
        iou: Temporal intersection over union from which an event matches a true one of its label.
        total_seconds: How long the video lasts, or the videos together.
        num_true: True events.
        num_predicted: Events that were told.
        num_matched: Pairs of one event and one true event that match; each is in one pair at most.
        num_detected: True events during which an event of their label went on.
        num_false_alarms: Events that overlap no true event of their label. One that overlaps but does not match
            counts against precision only.
        num_flips: How often what is shown changes, from label to label (that of an open event included) or
            between a label and nothing.
        detect_seconds: For each detected true event, from its start to when its label is told, 0 where it was
            told before; None where it is not known when events were told.
    """

    iou: float
    total_seconds: float
    num_true: int
    num_predicted: int
    num_matched: int
    num_detected: int
    num_false_alarms: int
    num_flips: int
    detect_seconds: tuple[float, ...] | None = None

    @property
    def precision(self) -> float:
        """Share of the events that match."""
        return _ratio(self.num_matched, self.num_predicted)

    @property
    def recall(self) -> float:
        """Share of the true events that are matched."""
        return _ratio(self.num_matched, self.num_true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: ``2 matched / (told + true)``."""
        return _ratio(2 * self.num_matched, self.num_predicted + self.num_true)

    @property
    def false_alarms_per_hour(self) -> float:
        """False alarms over the hours of video."""
        return _ratio(self.num_false_alarms * 3600, self.total_seconds)

    @property
    def false_alarms_interval(self) -> Interval:
        """95 % interval of :attr:`false_alarms_per_hour`; see :func:`poisson_interval`."""
        counted, hours = poisson_interval(self.num_false_alarms), self.total_seconds / 3600
        return Interval(_ratio(counted.low, hours), _ratio(counted.high, hours))

    @property
    def mean_seconds_to_detect(self) -> float:
        """Mean of ``detect_seconds``; those that were missed are not in it."""
        return float(np.mean(self.detect_seconds)) if self.detect_seconds else _NAN

    @property
    def flips_per_minute(self) -> float:
        """Flips over the minutes of video."""
        return _ratio(self.num_flips * 60, self.total_seconds)

    @property
    def undefined(self) -> dict[str, str]:
        """Reason of every nan, by its name."""
        reasons: dict[str, str] = {}
        if not self.num_predicted:
            reasons["precision"] = "no event was told"
        if not self.num_true:
            reasons["recall"] = "the truth holds no event"
        if not self.num_predicted + self.num_true:
            reasons["f1"] = "no event was told and the truth holds none"
        if self.detect_seconds is None:
            reasons["mean_seconds_to_detect"] = "it is not known when events were told"
        elif not self.detect_seconds:
            reasons["mean_seconds_to_detect"] = "no true event was detected"
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None, its reason stays in ``undefined``."""
        interval = self.false_alarms_interval
        return {
            "iou": self.iou,
            "total_seconds": self.total_seconds,
            "num_true": self.num_true,
            "num_predicted": self.num_predicted,
            "num_matched": self.num_matched,
            "num_detected": self.num_detected,
            "num_false_alarms": self.num_false_alarms,
            "num_flips": self.num_flips,
            "precision": _plain(self.precision),
            "recall": _plain(self.recall),
            "f1": _plain(self.f1),
            "false_alarms_per_hour": _plain(self.false_alarms_per_hour),
            "false_alarms_per_hour_interval": [_plain(interval.low), _plain(interval.high)],
            "mean_seconds_to_detect": _plain(self.mean_seconds_to_detect),
            "flips_per_minute": _plain(self.flips_per_minute),
            "undefined": self.undefined,
        }


def event_scores(
    predicted: Sequence[Event],
    truth: Sequence[Event],
    *,
    total_seconds: float,
    iou: float = 0.5,
    told_seconds: Sequence[float] | None = None,
    quiet_labels: Collection[str] = (),
) -> OnlineScores:
    """Score the events of one video against its truth.

    Args:
        predicted: In order of time, not overlapping, as a decision gives them.
        truth: What really happened; events of one label do not overlap.
        total_seconds: How long the video lasts.
        iou: Overlap over union in time from which two events of one label match, above 0 to 1; pairs of the
            largest overlap are made first.
        told_seconds: When each event was told (:func:`vidette.prediction.steps.follow`); without it, no time to
            detect.
        quiet_labels: Labels that mean "nothing is going on": no events, though a change from or to them is a
            flip.

    Raises:
        SettingError: ``iou`` or ``total_seconds`` is out of range.
        InputMismatchError: There are other numbers of events and of ``told_seconds``.

    Example:
        >>> truth = [Event(1, 3, "wave", 1.0)]
        >>> scores = event_scores([Event(1.5, 3, "wave", 0.9)], truth, total_seconds=60, told_seconds=[2.0])
        >>> scores.f1, scores.mean_seconds_to_detect, scores.flips_per_minute
        (1.0, 1.0, 2.0)
    """
    if not 0 < iou <= 1:
        raise SettingError(f"iou is {iou}; expected above 0 and at most 1")
    if not 0 < total_seconds < math.inf:
        raise SettingError(f"total_seconds is {total_seconds}; expected above 0")
    if told_seconds is not None and len(told_seconds) != len(predicted):
        raise InputMismatchError(
            f"{len(told_seconds)} told_seconds for {len(predicted)} events; expected as many"
        )
    told = told_seconds or [_NAN] * len(predicted)
    alarms = [(e, when) for e, when in zip(predicted, told, strict=True) if e.label not in quiet_labels]
    true = [event for event in truth if event.label not in quiet_labels]
    overlaps = np.array([[_overlap_seconds(e, t) for t in true] for e, _ in alarms])
    overlaps = overlaps.reshape(len(alarms), len(true))
    delays = [
        min(max(0.0, alarms[i][1] - event.start_seconds) for i in np.flatnonzero(overlaps[:, j] > 0))
        for j, event in enumerate(true)
        if overlaps[:, j].any()
    ]
    return OnlineScores(
        iou=iou,
        total_seconds=total_seconds,
        num_true=len(true),
        num_predicted=len(alarms),
        num_matched=_num_matched([e for e, _ in alarms], true, overlaps, iou),
        num_detected=len(delays),
        num_false_alarms=int(np.sum(~overlaps.any(axis=1))),
        num_flips=_num_flips(predicted, total_seconds),
        detect_seconds=None if told_seconds is None else tuple(delays),
    )


def pooled(scores: Sequence[OnlineScores]) -> OnlineScores:
    """Add up the scores of several videos.

    Raises:
        InputMismatchError: There is none, or they were matched at different overlaps.
    """
    if len({one.iou for one in scores}) != 1:
        raise InputMismatchError(
            f"{len(scores)} scores at overlaps {sorted({s.iou for s in scores})}; expected one"
        )
    delays = [one.detect_seconds for one in scores]
    return OnlineScores(
        iou=scores[0].iou,
        total_seconds=sum(one.total_seconds for one in scores),
        num_true=sum(one.num_true for one in scores),
        num_predicted=sum(one.num_predicted for one in scores),
        num_matched=sum(one.num_matched for one in scores),
        num_detected=sum(one.num_detected for one in scores),
        num_false_alarms=sum(one.num_false_alarms for one in scores),
        num_flips=sum(one.num_flips for one in scores),
        detect_seconds=None if None in delays else tuple(s for some in delays if some for s in some),
    )


def poisson_interval(count: int) -> Interval:
    """Return the exact 95 % interval of the mean of a Poisson count (Garwood 1936).

    Example:
        >>> interval = poisson_interval(0)
        >>> interval.low, round(interval.high, 2)
        (0.0, 3.69)
    """
    low = float(gammaincinv(count, 0.025)) if count else 0.0
    return Interval(low, float(gammaincinv(count + 1, 0.975)))


def _overlap_seconds(a: Event, b: Event) -> float:
    """How long two events of one label last together; 0 for two labels."""
    if a.label != b.label:
        return 0.0
    return max(0.0, min(a.stop_seconds, b.stop_seconds) - max(a.start_seconds, b.start_seconds))


def _num_matched(alarms: Sequence[Event], true: Sequence[Event], overlaps: np.ndarray, iou: float) -> int:
    """Pair events with true ones, the largest overlaps first; return how many pairs reach ``iou``."""
    pairs = [
        (float(overlaps[i, j] / (alarms[i].seconds + true[j].seconds - overlaps[i, j])), int(i), int(j))
        for i, j in np.argwhere(overlaps > 0)
    ]
    taken_alarms, taken_true = set[int](), set[int]()
    for share, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if share >= iou - 1e-12 and i not in taken_alarms and j not in taken_true:
            taken_alarms.add(i)
            taken_true.add(j)
    return len(taken_true)


def _num_flips(events: Sequence[Event], total_seconds: float) -> int:
    """How often what is shown changes in ``[0, total)``; between events nothing is shown."""
    shown: list[str | None] = []
    now = 0.0
    for event in events:
        if event.start_seconds > now + _SAME_SECONDS:
            shown.append(None)
        shown.append(event.label)
        now = event.stop_seconds
    if now < total_seconds - _SAME_SECONDS:
        shown.append(None)
    changes = sum(before != after for before, after in itertools.pairwise(shown))
    return changes + sum(event.num_renamed for event in events)


@dataclass(frozen=True)
class FramePrecision:
    """Average precision of the answers one by one, each class against the rest.

    Attributes:
        mean: Over the classes where it is defined (mAP); nan where it is defined for none.
        by_class: Of every class; nan where no answer is of it.
        n: Answers.
        undefined: Reason of every nan: ``mean``, or ``by_class.NAME``.
    """

    mean: float
    by_class: dict[str, float]
    n: int
    undefined: dict[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        by_class = {label: _plain(value) for label, value in self.by_class.items()}
        return {"mean": _plain(self.mean), "by_class": by_class, "n": self.n, "undefined": dict(self.undefined)}


def per_frame_average_precision(
    probabilities: np.ndarray, seconds: np.ndarray, truth: Sequence[Event], *, classes: Sequence[str]
) -> FramePrecision:
    """Rank all answers by the probability of a class, against whether it goes on when the answer comes.

    The per-frame mAP of online action detection (De Geest et al. 2016), by
    ``sklearn.metrics.average_precision_score``. Of several videos: their answers one after the other, with
    ``seconds`` and truths moved so that they do not overlap.

    Args:
        probabilities: float ``(N, K)``.
        seconds: float ``(N,)``, the stop of the last frame that each answer has seen; an event goes on at an
            answer where ``start < seconds <= stop``.
        truth: What really happened.
        classes: The K class names.

    Raises:
        InputMismatchError: Shapes differ.
    """
    if probabilities.shape != (len(seconds), len(classes)):
        raise InputMismatchError(
            f"probabilities {probabilities.shape}; expected ({len(seconds)}, {len(classes)}) for {len(seconds)}"
            f" answers of {len(classes)} classes"
        )
    by_class, undefined = dict[str, float](), dict[str, str]()
    for k, label in enumerate(classes):
        spans = [(e.start_seconds, e.stop_seconds) for e in truth if e.label == label]
        going_on = np.zeros(len(seconds), dtype=bool)
        for start, stop in spans:
            going_on |= (seconds > start + _SAME_SECONDS) & (seconds <= stop + _SAME_SECONDS)
        by_class[label] = _NAN
        if going_on.any():
            by_class[label] = float(average_precision_score(going_on, probabilities[:, k]))
        else:
            undefined[f"by_class.{label}"] = "no answer comes while it goes on"
    known = [value for value in by_class.values() if not math.isnan(value)]
    if not known:
        undefined["mean"] = "no answer comes during a true event"
    return FramePrecision(float(np.mean(known)) if known else _NAN, by_class, len(seconds), undefined)


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else _NAN


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
