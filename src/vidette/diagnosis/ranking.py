"""Findings in order: causes before what follows from them, then by how much of the trouble each explains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from vidette.diagnosis.findings import SEVERITIES, Finding

__all__ = ["FOLLOWS", "ranked"]

_VALUES = ("value_range", "normalisation_missing", "normalisation_doubled", "normalisation_of_another_network")
_LIGHT = ("dark", "bright", "low_contrast", "blurred", "noisy")
_GEOMETRY = ("rotated", "mirrored", "aspect", "framing", "resize_rule", "wrong_size")
_SEEN_OTHERWISE = (*_VALUES, *_GEOMETRY, "colour_order", "frames_reversed", "span")
_TRIED = (*_SEEN_OTHERWISE, *_LIGHT)
_STILL = ("frames_identical", "few_distinct_frames")
_SCORES = ("collapsed_logits", "saturated_logits", "bias_driven", "dead_features", "over_confident")
_WRONG = (*_SCORES, "over_fitting", "domain_shift", "label_map_permuted", "class_imbalance")
_SOFT = ("over_confident", "over_fitting", "domain_shift", "class_imbalance", "drift")

FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "weights_not_loaded": (*_TRIED, *_SCORES, *_SOFT, "label_map_permuted", "order_not_used", "shortcut"),
    "weights_partly_loaded": (*_TRIED, *_SCORES, *_SOFT, "label_map_permuted", "order_not_used", "shortcut"),
    "head_random": (*_TRIED, *_SCORES, *_SOFT, "label_map_permuted", "shortcut"),
    "training_mode": (
        *_TRIED,
        *_SCORES,
        *_SOFT,
        "label_map_permuted",
        "state_carried_over",
        "batch_recurrence",
    ),
    "state_carried_over": (
        *_TRIED,
        *_SCORES,
        *_SOFT,
        "label_map_permuted",
        "batch_recurrence",
        "order_not_used",
    ),
    "batch_recurrence": (*_TRIED, *_SCORES, *_SOFT, "label_map_permuted", "order_not_used", "shortcut"),
    "black": (
        *_TRIED,
        *_SCORES,
        *_SOFT,
        "covered",
        "frames_identical",
        "few_distinct_frames",
        "train_test_leak",
    ),
    "covered": (*_TRIED, *_SCORES, *_SOFT, "frames_identical", "few_distinct_frames", "train_test_leak"),
    "frames_identical": (*_SEEN_OTHERWISE, *_WRONG, "few_distinct_frames"),
    "frames_shuffled": (*_TRIED, *_SOFT, "label_map_permuted"),
    "dead_features": (
        *_TRIED,
        *_SOFT,
        "collapsed_logits",
        "bias_driven",
        "label_map_permuted",
        "saturated_logits",
    ),
    "label_map_length": ("label_map_permuted", "unseen_class", *_TRIED, *_SOFT),
    "unseen_class": ("over_confident", "over_fitting", "domain_shift"),
    "class_imbalance": ("bias_driven", "collapsed_logits", "over_fitting", "over_confident", *_GEOMETRY),
    "saturated_logits": ("over_confident",),
    "collapsed_logits": ("bias_driven", "over_confident", "over_fitting"),
    "bias_driven": ("collapsed_logits", "over_confident", "over_fitting", "label_map_permuted", *_GEOMETRY),
    "label_map_permuted": ("over_confident", "over_fitting"),
    "order_not_used": ("label_map_permuted", "frames_reversed", "over_confident", "over_fitting", "mirrored"),
    "shortcut": ("over_fitting", "over_confident", "label_map_permuted", *_GEOMETRY),
    "train_test_leak": ("over_confident",),
    "few_distinct_frames": ("over_confident", "over_fitting"),
    "over_fitting": ("over_confident",),
    "drift": (*_LIGHT, *_STILL),
    **dict.fromkeys(_SEEN_OTHERWISE, _WRONG),
    **dict.fromkeys(_LIGHT, (*_WRONG, *_STILL)),  # a slow movement is lost in few levels
}
"""What follows from a cause: a finding that another one explains comes after it."""

_LEAST = 0.3


def ranked(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Put findings in order.

    Notes come last; what follows from another finding comes after everything that does not; then by severity,
    and by the share explained, weighted by confidence. Of several findings of one name the surest stays.
    """
    best: dict[str, Finding] = {}
    for finding in findings:
        there = best.get(finding.name)
        if there is None or _weight(finding) > _weight(there):
            best[finding.name] = finding
    causes = [f for f in best.values() if f.severity != "note" and _weight(f) >= _LEAST]
    marked = [_marked(finding, causes) for finding in best.values()]
    return tuple(sorted(marked, key=_place))


def _weight(finding: Finding) -> float:
    return finding.explains * finding.confidence


def _place(finding: Finding) -> tuple[bool, bool, int, float]:
    is_note, follows = finding.severity == "note", bool(finding.symptom_of)
    return is_note, follows, SEVERITIES.index(finding.severity), -_weight(finding)


def _marked(finding: Finding, causes: Sequence[Finding]) -> Finding:
    """Name the findings that this one follows from; of two that follow from each other neither does."""
    sources = [
        name
        for name, weight in sorted((cause.name, _weight(cause)) for cause in causes)
        if finding.name in FOLLOWS.get(name, ())
        and name not in FOLLOWS.get(finding.name, ())
        and weight >= 0.5 * _weight(finding)
    ]
    return dataclasses.replace(finding, symptom_of=tuple(sources))
