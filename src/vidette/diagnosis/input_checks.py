"""What is wrong with the pictures: seen in them, and found by trying the alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidette.diagnosis.alternatives import (
    Alternative,
    colour_alternatives,
    order_alternatives,
    picture_alternatives,
    recuts,
    value_alternatives,
)
from vidette.diagnosis.case import Case, Tried, make_case, spread_out
from vidette.diagnosis.findings import Finding
from vidette.diagnosis.probes import Observation
from vidette.diagnosis.wording import new_finding
from vidette.errors import InputMismatchError
from vidette.video.clip import Clip

__all__ = [
    "check_alternatives",
    "check_reference",
    "convincing",
    "improvement",
    "try_alternatives",
]

GAIN = 0.30
"""The least gain of an alternative that is told: fitted on healthy cases, see benchmarks/diagnosis.py."""
LEAST_ACCURACY_GAIN = 0.10
"""Share of labelled clips that an alternative must gain, where only the labels speak for it."""
_SCREENED = 10
_SCREENING_SHARE = 0.006  # of the time, for each of about 60 alternatives
_SLOW = 0.03
_FINALISTS = 10
LIGHT = ("dark", "bright", "low_contrast", "blurred", "noisy")


def try_alternatives(case: Case) -> None:
    """Try every alternative on a few clips, the most promising on all of them, and keep them by gain."""
    spec = case.subject.spec
    alternatives = [*value_alternatives(spec), *colour_alternatives(spec), *picture_alternatives(spec)]
    if spec.num_frames > 1:
        alternatives += order_alternatives()
    if len(case.trial) > _SCREENED + 2 or case.seconds_per_clip > _SLOW:
        alternatives = _screened(case, alternatives)
    tried = [
        _tried(case, a.name, a.cause, a.detail, case.attempt(a, case.trial_x, case.trial_labels))
        for a in alternatives
    ]
    tried += [_recut(case, i) for i in range(len(recuts(spec)))]
    case.tried = sorted((t for t in tried if t is not None), key=lambda t: -t.gain)


def _screened(case: Case, alternatives: list[Alternative]) -> list[Alternative]:
    """Return those that do best on a few clips; with labels, and by activations alone."""
    chosen = spread_out(len(case.x), case.affordable(_SCREENED, share=_SCREENING_SHARE))
    x = case.x[chosen]
    labels = None if case.labels is None else case.labels[chosen]
    seen = [(a, case.attempt(a, x, labels)) for a in alternatives]
    there = [(a, s) for a, s in seen if s is not None]
    both = sorted(there, key=lambda pair: case.cost(pair[1]))[:_FINALISTS]
    close = sorted((p for p in there if p[1].distance == p[1].distance), key=lambda p: p[1].distance)
    fit = sorted(
        (p for p in there if case.likelihood(p[1]) == case.likelihood(p[1])),
        key=lambda p: case.likelihood(p[1]),
    )
    kept = {id(a): a for a, _ in (*both, *close[:4], *fit[:4])}
    return [a for a in alternatives if id(a) in kept]


def _tried(case: Case, name: str, cause: str, detail: str, seen: Observation | None) -> Tried | None:
    return None if seen is None else Tried(name, cause, detail, seen, case.gain(seen))


def _recut(case: Case, index: int) -> Tried | None:
    """Cut the source otherwise and answer it; None where it cannot be, or is the same."""
    other = recuts(case.subject.spec)[index]
    if case.material.recut is None:
        return None
    clips = case.material.recut(other.spec, other.stretch, case.trial.tolist())
    if clips is None or not _differ(clips, case):
        return None
    try:
        seen = case.observe(case.subject.prepare(clips, other.spec), case.trial_labels)
    except InputMismatchError:
        return None
    return _tried(case, other.name, other.cause, other.detail, seen)


def _differ(clips: Sequence[Clip], case: Case) -> bool:
    """Whether another cut gives other pixels or other times."""
    before = [case.material.clips[i] for i in case.trial]
    for new, old in zip(clips, before, strict=True):
        if new.pixels.shape != old.pixels.shape or not np.array_equal(new.pixels, old.pixels):
            return True
    return False


def check_alternatives(case: Case) -> list[Finding]:
    """Tell the alternatives with which the network does clearly better, one finding a cause."""
    found: list[Finding] = []
    for cause in dict.fromkeys(tried.cause for tried in case.tried):
        best = case.best([cause])
        if best is None or cause in LIGHT or not convincing(case, best):
            continue
        if _is_light(case, best) or _is_one_sided(case, best):
            continue
        found.append(_alternative_finding(case, best))
    return found


def _is_light(case: Case, tried: Tried) -> bool:
    """Whether a change helps only because it smooths or darkens by the way what is noisy or bright."""
    if tried.cause not in ("framing", "aspect", "resize_rule", "wrong_size", "colour_order"):
        return False
    rivals = [case.best([name]) for name in LIGHT if case.shifts.get(name, 0.0) > TOWARDS]
    return any(rival is not None and rival.gain > _RIVAL * tried.gain for rival in rivals)


_RIVAL = 0.5


def _is_one_sided(case: Case, tried: Tried) -> bool:
    """Whether enlarging helps only as cutting one side alone does, which gets as many answers right."""
    one = case.best(["aspect"])
    if tried.cause != "framing" or tried.detail != "too far away" or one is None:
        return False
    return one.gain > _ONE_SIDE * tried.gain and one.seen.accuracy >= tried.seen.accuracy


_ONE_SIDE = 0.6


def check_reference(case: Case) -> list[Finding]:
    """Try other values and colours on the labelled reference, where the source itself has no labels.

    What makes pixels into numbers is the same for both, so a fault in it shows where answers are known.
    """
    known = case.reference_base
    if case.labels is not None or case.reference is None or known is None or known.accuracy != known.accuracy:
        return []
    other = make_case(case.subject, case.reference, reference=None, trained=case.trained)
    spec = case.subject.spec
    for a in (*value_alternatives(spec), *colour_alternatives(spec)):
        seen = other.attempt(a, other.trial_x, other.trial_labels)
        if seen is not None:
            other.tried.append(Tried(a.name, a.cause, a.detail, seen, other.gain(seen)))
    found = check_alternatives(other)
    where = f"Tried on the reference, {case.reference.name}, whose labels are known."
    return [replace(finding, evidence=(where, *finding.evidence)) for finding in found]


def convincing(case: Case, tried: Tried, *, least_gain: float = GAIN) -> bool:
    """Whether an alternative is better by more than the clips of a healthy classifier would make it."""
    base, seen = case.trial_base, tried.seen
    labelled = base.accuracy == base.accuracy
    gained = seen.accuracy - base.accuracy if labelled else 0.0
    sure = gained >= 0.15 and case.significance(seen) < _SURE
    if tried.gain < (0.5 * least_gain if sure else least_gain):
        return False
    measured = base.distance == base.distance
    nearer = seen.distance / base.distance if measured and base.distance > 0 else 1.0
    closer = any(base.distance > far and nearer < share for far, share in CLOSER)
    if not labelled:
        return closer
    if gained < -0.1:
        return False
    # Accuracy and activations together, where neither alone would do.
    far = base.distance > CLOSER[-1][0] and nearer < CLOSER[0][1]
    both = far and gained >= 0.08 and case.significance(seen) < _LIKELY
    missing = case.wrong_share >= 0.15 and gained >= 0.05 and tried.gain >= 0.35 and nearer < 0.75
    better = gained >= LEAST_ACCURACY_GAIN and case.significance(seen) < SIGNIFICANT
    return better or closer or both or missing


CLOSER = ((0.6, 0.6), (0.15, 0.35))
"""What brings activations back: from beyond the first number to less than the second's share of it."""
SIGNIFICANT, _LIKELY, _SURE = 0.02, 0.1, 0.005


def _alternative_finding(case: Case, tried: Tried) -> Finding:
    return new_finding(
        tried.cause,
        *improvement(case, tried),
        confidence=_confidence(case, tried),
        explains=case.explained(tried.seen),
        severity="fault" if harms(case) else "warning",
        title=_title(tried),
        numbers={"gain": tried.gain, **_numbers(case, tried)},
    )


def _title(tried: Tried) -> str:
    from vidette.diagnosis.wording import CAUSES

    return f"{CAUSES[tried.cause].title} ({tried.detail})" if tried.detail else CAUSES[tried.cause].title


def _confidence(case: Case, tried: Tried) -> float:
    """Return how sure the best alternative is: its gain, and its lead over those of other causes."""
    others = [t.gain for t in case.tried if t.cause != tried.cause]
    lead = tried.gain - max(others, default=0.0)
    return float(np.clip(0.5 + 0.3 * tried.gain + 0.5 * lead, 0.1, 0.99))


def _numbers(case: Case, tried: Tried) -> dict[str, float]:
    base = case.trial_base
    numbers = {"distance": base.distance, "distance_after": tried.seen.distance}
    if base.accuracy == base.accuracy:
        numbers |= {"accuracy": base.accuracy, "accuracy_after": tried.seen.accuracy}
    return numbers


def improvement(case: Case, tried: Tried) -> tuple[str, ...]:
    """Say what an alternative changes."""
    base, seen, lines = case.trial_base, tried.seen, list[str]()
    if base.accuracy == base.accuracy:
        n = len(base.right)
        lines.append(
            f"Right answers: {base.accuracy:.0%} as given, {seen.accuracy:.0%} with: {tried.name} ({n} clips)."
        )
    if base.distance == base.distance:
        lines.append(
            f"Distance of the activations from training: {base.distance:.2f} as given, {seen.distance:.2f} "
            "with: "
            f"{tried.name} (0 is as in training)."
        )
    return tuple(lines)


def harms(case: Case) -> bool:
    """Whether answers suffer, or nobody can tell."""
    return not (case.base.accuracy == case.base.accuracy and case.wrong_share < 0.05)


TOWARDS = 0.3
"""Of the way from the middle of training to its edge: enough where the alternative speaks for it too."""
