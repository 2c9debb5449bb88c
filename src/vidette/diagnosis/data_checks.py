"""What is wrong with the data: classes, leaks, shortcuts, unknown classes, clips unlike those of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vidette.diagnosis.case import Case
from vidette.diagnosis.findings import Finding
from vidette.diagnosis.looks import look_at
from vidette.diagnosis.wording import new_finding
from vidette.video.clip import Clip

__all__ = [
    "check_classes",
    "check_drift",
    "check_leak",
    "check_shift",
    "check_shortcut",
    "check_unexplained",
]

_IMBALANCE = 5.0
_SAME_LEVELS, _SAME_MOVEMENT = 6.0, 0.75
_FOLLOWS = 0.55
_FAR = 0.9
"""Distance of the activations of clips from elsewhere: fitted on healthy cases, see benchmarks/diagnosis.py."""


def check_classes(case: Case) -> list[Finding]:
    """Tell classes that the classifier does not know, and a majority that it answers always."""
    return [*_unseen(case), *_imbalance(case)]


def _unseen(case: Case) -> list[Finding]:
    labels = case.material.label_names
    if not labels:
        return []
    unknown = sorted({label for label in labels if label not in case.subject.classes})
    share = sum(label in unknown for label in labels) / len(labels)
    if not unknown:
        return []
    if share > 0.95 and len(unknown) > 1:
        case.notes.append("no label of the source is a class of the classifier; labels were not used")
        return []
    return [
        new_finding(
            "unseen_class",
            f"{share:.0%} of {len(labels)} clips are labelled {', '.join(map(repr, unknown[:5]))}, which the "
            "classifier has no name for.",
            confidence=0.95,
            explains=min(1.0, 0.3 + share),
            numbers={"share": share},
        )
    ]


def _imbalance(case: Case) -> list[Finding]:
    counts = case.subject.statistics.get("training_clips")
    if not isinstance(counts, dict) or len(counts) < 2:
        return []
    numbers = {str(name): float(count) for name, count in counts.items() if isinstance(count, int | float)}
    most = max(numbers, key=lambda name: numbers[name])
    rest = (sum(numbers.values()) - numbers[most]) / max(1, len(numbers) - 1)
    ratio = numbers[most] / max(rest, 1.0)
    if ratio < _IMBALANCE or most not in case.subject.classes:
        return []
    top = case.subject.classes.index(most)
    answered = float((case.base.answers == top).mean())
    labels = case.labels
    there = float((labels == top).mean()) if labels is not None else 1 / len(numbers)
    if answered < there + 0.2:
        return []
    return [
        new_finding(
            "class_imbalance",
            f"{most!r} had {numbers[most]:.0f} training clips, the other classes {rest:.0f} on average.",
            f"{answered:.0%} of {len(case.base.answers)} clips are answered so, {there:.0%} are.",
            confidence=0.85,
            explains=float(np.clip(answered - there + 0.3, 0, 1)),
            numbers={"ratio": ratio, "answered": answered},
        )
    ]


def check_leak(case: Case) -> list[Finding]:
    """Find clips of the source among those of the reference."""
    if case.reference is None or case.reference.stills or case.material.stills:
        return []
    here, there = _strips(case.material.clips), _strips(case.reference.clips)
    apart = np.stack([np.quantile(np.abs(there - one), 0.99, axis=(1, 2)) for one in here])
    if apart.shape[1] < 2:
        return []
    moved = np.einsum("itp,jtp->ij", _movement(here), _movement(there))
    # Takes of one scene look alike; copies move alike too.
    same = (apart <= _SAME_LEVELS) & (moved >= _SAME_MOVEMENT) | (apart <= 1)
    found = same.any(axis=1)
    share = float(found.mean())
    if share < 0.15 or case.material.name == case.reference.name:
        return []
    first = int(np.flatnonzero(found)[0])
    copied = case.reference.names[int(np.flatnonzero(same[first])[0])]
    return [
        new_finding(
            "train_test_leak",
            f"{int(found.sum())} of {len(found)} clips show the same as a clip of the reference "
            f"({len(there)} clips): small pictures within {_SAME_LEVELS:g} levels of 255, and moving alike.",
            f"For example {case.material.names[first]} and {copied}.",
            confidence=0.9,
            explains=min(1.0, 0.5 + share / 2),
            severity="fault",
            numbers={"share": share},
        )
    ]


def _strips(clips: Sequence[Clip]) -> np.ndarray:
    """Eight small pictures over each clip, float32 ``(N, 8, P)``."""
    rows: list[np.ndarray] = []
    for clip in clips:
        chosen = np.linspace(0, len(clip.pixels) - 1, 8).round().astype(int)
        frames = torch.from_numpy(clip.pixels[chosen]).permute(0, 3, 1, 2).float()
        rows.append(torch.nn.functional.interpolate(frames, (14, 14), mode="area").flatten(1).numpy())
    return np.stack(rows)


def _movement(strips: np.ndarray) -> np.ndarray:
    """What differs from each clip's mean picture, of length 1; products are correlations."""
    moving = strips - strips.mean(axis=1, keepdims=True)
    return moving / np.maximum(np.sqrt(np.square(moving).sum(axis=(1, 2), keepdims=True)), 1e-6)


def check_shortcut(case: Case) -> list[Finding]:
    """Put one place of a clip into another clip, and see whether the answer goes with it.

    A place that carries the answer wherever it is put is a shortcut. Looked at in the reference where there is
    one: it shows what training did. The grid is 4 x 4; the pairs are of clips that get different answers.
    """
    x, base = case.x, case.base
    if case.reference_x is not None and case.reference_base is not None:
        x, base = case.reference_x, case.reference_base
    pairs = _pairs(base.answers, most=case.affordable(16, share=0.01))
    if len(pairs) < 4:
        return []
    rates, grid = np.zeros((4, 4)), 4
    givers, takers = [a for a, _ in pairs], [b for _, b in pairs]
    height, width = x.shape[-2] // grid, x.shape[-1] // grid
    for row in range(grid):
        for column in range(grid):
            mixed = x[takers].clone()
            place = (..., slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
            mixed[place] = x[givers][place]
            answers = case.subject.logits(mixed).argmax(1)
            rates[row, column] = (answers == base.answers[givers]).mean()
    best = np.unravel_index(rates.argmax(), rates.shape)
    rate, others = float(rates.max()), float(np.median(rates))
    if rate < _FOLLOWS or rate - others < 0.45:
        return []
    where = f"row {int(best[0]) + 1}, column {int(best[1]) + 1} of 4 x 4"
    return [
        new_finding(
            "shortcut",
            f"Putting the place at {where} of one clip into another takes its answer along in {rate:.0%} of "
            f"{len(pairs)} pairs; other places do in {others:.0%} (median).",
            confidence=0.85,
            explains=0.7,
            severity="fault" if case.wrong_share == case.wrong_share and case.wrong_share > 0.1 else "warning",
            numbers={"rate": rate, "others": others},
        )
    ]


def _pairs(answers: np.ndarray, *, most: int) -> list[tuple[int, int]]:
    """Pairs of clips with different answers, each clip giving and taking about as often."""
    generator = np.random.default_rng(0)
    places = generator.permutation(len(answers))
    turned = [(int(places[i]), int(places[(i + s) % len(places)])) for s in (1, 2) for i in range(len(places))]
    return [(a, b) for a, b in turned if answers[a] != answers[b]][:most]


def check_shift(case: Case, explained: bool) -> list[Finding]:
    """Tell clips whose activations are far from training's, where nothing else tells why.

    Args:
        case: What was measured.
        explained: Whether another finding says why.
    """
    distance = case.base.distance
    if explained or distance != distance:
        return []
    reference = case.reference_base
    usual = reference.distance if reference is not None and reference.distance == reference.distance else 0.0
    if distance < max(_FAR, 2 * usual):
        return []
    harmless = case.base.accuracy == case.base.accuracy and case.wrong_share < 0.1
    return [
        new_finding(
            "domain_shift",
            f"Distance of the activations from training: {distance:.2f} (0 is as in training"
            + (f", {usual:.2f} on the reference" if usual else "")
            + ").",
            confidence=0.6,
            explains=0.5,
            severity="note" if harmless else "warning",
            numbers={"distance": distance},
        )
    ]


def check_unexplained(case: Case, explained: bool) -> list[Finding]:
    """Tell answers that are often wrong where nothing else tells why, instead of calling that healthy.

    Args:
        case: What was measured.
        explained: Whether another finding says why.
    """
    accuracy, expected = case.base.accuracy, case.expected_accuracy
    if explained or accuracy != accuracy or len(case.base.right) < _LEAST_LABELLED:
        return []
    right = f"Right in {accuracy:.0%} of {len(case.base.right)} clips"
    if expected - accuracy >= _MISSING:
        name, evidence = "errors_unexplained", f"{right}; {expected:.0%} were expected."
    elif max(expected, accuracy) < _WEAK:
        name, evidence = "weak_classifier", f"{right}, and in {expected:.0%} of its validation clips."
    else:
        return []
    numbers = {"accuracy": accuracy, "expected": expected}
    return [new_finding(name, evidence, confidence=0.6, explains=0.5, severity="warning", numbers=numbers)]


_LEAST_LABELLED = 8
_MISSING = 0.3
_WEAK = 0.5

_DRIFT_MEASURES = {
    "brightness": ("brightness", 12.0, "darker", "brighter"),
    "noise": ("noise", 2.0, "less noisy", "noisier"),
    "contrast": ("contrast", 10.0, "flatter", "harder in contrast"),
    "relative_sharpness": ("sharpness", 0.0, "more blurred", "sharper"),
}


def check_drift(case: Case) -> list[Finding]:
    """Find the moment at which one stream begins to look different.

    The best single step in each measure, by least squares; its size is held against the spread about the step,
    with Student's t (a step may be anywhere, so that t has to be large), and against what is worth telling.
    """
    if not case.material.in_time or len(case.material.clips) < 8:
        return []
    looks = look_at(case.material.clips)
    seconds = np.array([clip.seconds[0] for clip in case.material.clips])
    found: list[tuple[float, str, int, float, float]] = []
    kinds: list[str] = []
    for measure, (what, least, less, more) in _DRIFT_MEASURES.items():
        values = np.log1p(looks.values(measure)) if measure in ("noise",) else looks.values(measure)
        raw = looks.values(measure)
        if measure == "relative_sharpness":
            values = np.log(values + 1e-3)
        place, t = _step(values)
        before, after = float(np.median(raw[:place])), float(np.median(raw[place:]))
        large = abs(after - before) >= least if least else abs(np.log((after + 1e-3) / (before + 1e-3))) > 0.7
        if t > _STEP and large:
            found.append((t, what, place, before, after))
            kinds.append(more if after > before else less)
    if not found:
        return []
    found.sort(key=lambda entry: -entry[0])
    place = found[0][2]
    lines = [
        f"From {seconds[p]:.1f} s on: {what} {after:.3g}, before {before:.3g}."
        for _, what, p, before, after in found
    ]
    answers = case.base.answers
    changed = float(np.mean(_mode(answers[:place]) != answers[place:])) if place else 0.0
    lines.append(f"{changed:.0%} of the answers after that are not the usual one before.")
    return [
        new_finding(
            "drift",
            *lines,
            confidence=0.85,
            explains=max(0.6, changed),
            severity="fault" if changed > 0.2 else "warning",
            title=f"From {seconds[place]:.1f} s on the pictures are {', '.join(kinds)}",
            numbers={"began_seconds": float(seconds[place]), "t": found[0][0]},
        )
    ]


_STEP = 9.0


def _step(values: np.ndarray) -> tuple[int, float]:
    """Return where the best step is (the first value after it) and Student's t of its size."""
    n, best, place = len(values), -1.0, 1
    for cut in range(2, n - 1):
        before, after = values[:cut], values[cut:]
        inside = np.square(before - before.mean()).sum() + np.square(after - after.mean()).sum()
        deviation = np.sqrt(inside / (n - 2)) + 1e-3 * (abs(float(values.mean())) + 1e-6)
        t = abs(after.mean() - before.mean()) / (deviation * np.sqrt(1 / len(before) + 1 / len(after)))
        if t > best:
            best, place = float(t), cut
    return place, best


def _mode(answers: np.ndarray) -> int:
    values, counts = np.unique(answers, return_counts=True)
    return int(values[counts.argmax()])
