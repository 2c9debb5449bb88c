"""What is wrong with the network: its mode, its scores, its features, and the names of its classes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor, nn

from vidette.diagnosis.case import Case
from vidette.diagnosis.findings import Finding
from vidette.diagnosis.probes import last_layer_inputs
from vidette.diagnosis.wording import new_finding
from vidette.evaluation.calibration import expected_calibration_error, fit_temperature, softmax

__all__ = ["check_class_names", "check_confidence", "check_mode", "check_scores"]

_SATURATED_MARGIN = 45.0
_LEAST_CLIPS = 8


def check_mode(case: Case) -> list[Finding]:
    """Ask twice with other random numbers, and look at the mode of every layer."""
    x = case.x[: case.affordable(min(8, len(case.x)), share=0.02)]
    case.subject.logits(x)  # so that what is remembered is the same for the three that follow
    first, again, second = (_asked(case, x, seed) for seed in (11, 11, 12))
    spread = float(np.ptp(case.base.logits, axis=0).mean()) + 1e-9
    change = float(np.abs(again - second).max()) / spread
    if float(np.abs(again - first).max()) / spread > _SAME:
        return []  # no matter of chance: something is remembered
    training = _layers_in_training(case.subject.module)
    flips = float((first.argmax(1) != second.argmax(1)).mean())
    if change < _SAME and not training:
        return []
    if change < _SAME and not _batch_norms_in_training(case.subject.module):
        return []  # a mode without effect
    lines = [
        f"The same {len(x)} clips asked twice: scores change by {change:.2f} of their range, {flips:.0%} of "
        "the answers change."
    ]
    if training:
        lines.append(
            f"Layers in training mode: {', '.join(training[:5])}"
            f"{f' and {len(training) - 5} more' if len(training) > 5 else ''}."
        )
    return [
        new_finding(
            "training_mode",
            *lines,
            confidence=0.97 if training else 0.85,
            explains=0.9 if training else 0.7,
            numbers={"change": change, "flips": flips, "layers": float(len(training))},
        )
    ]


_SAME = 1e-4


def _asked(case: Case, x: Tensor, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    return case.subject.logits(x)


def _layers_in_training(module: nn.Module | None) -> list[str]:
    if module is None:
        return []
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Dropout, nn.Dropout2d, nn.Dropout3d)
    return [name for name, part in module.named_modules() if isinstance(part, kinds) and part.training]


def _batch_norms_in_training(module: nn.Module | None) -> bool:
    if module is None:
        return False
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(isinstance(part, kinds) and part.training for part in module.modules())


def check_scores(case: Case) -> list[Finding]:
    """Tell scores that hardly depend on the clip: dead features, a bias, a collapse; or that explode."""
    logits = case.base.logits.astype(np.float64)
    n, k = logits.shape
    if n < _LEAST_CLIPS:
        return []
    found = [*_dead_features(case), *_saturated(case, logits)]
    counts = np.bincount(case.base.answers, minlength=k)
    if counts.max() < 0.9 * n or _shows_one_class(case):
        return found
    return [*found, *_constant_answer(case, logits, counts)]


def _shows_one_class(case: Case) -> bool:
    """Whether the clips are of one class, so that one answer may be right."""
    return case.labels is not None and len(set(case.labels.tolist())) == 1


def _constant_answer(case: Case, logits: np.ndarray, counts: np.ndarray) -> list[Finding]:
    """Find why nearly all clips get one answer: nothing varies, or a class is preferred."""
    n, k = logits.shape
    top = int(counts.argmax())
    centred = logits - logits.mean(axis=1, keepdims=True)
    across = float(centred.std(axis=0).mean())
    means = centred.mean(axis=0)
    lead = float(means[top] - np.delete(means, top).max())
    said = f"{counts[top]} of {n} clips are answered {_name(case, top)}."
    lines = [said, f"Scores vary by {across:.3g} from clip to clip; that class leads by {lead:.3g} on average."]
    numbers = {"top_share": counts[top] / n, "across": across, "lead": lead}
    if across < 1e-3 or across < 0.005 * abs(lead):
        still = across < 1e-3
        if still:
            return [new_finding("collapsed_logits", *lines, confidence=0.8, explains=0.8, numbers=numbers)]
    balanced = (centred - means).argmax(axis=1)
    variety = len(set(balanced.tolist())) / k
    gained = _accuracy(case, balanced) - case.base.accuracy
    if gained == gained:
        lines.append(
            f"Without each class's own mean score {_accuracy(case, balanced):.0%} are right, "
            f"{case.base.accuracy:.0%} with it."
        )
    if lead > 2.0 * across and variety > 0.5 and not gained < 0.1:
        helps = float(np.clip(gained / max(case.wrong_share, 0.05), 0, 1)) if gained == gained else 0.6
        return [
            new_finding(
                "bias_driven",
                *lines,
                confidence=float(np.clip(0.5 + 0.05 * lead / max(across, 1e-9), 0.5, 0.9)),
                explains=max(0.5, helps),
                numbers=numbers | {"accuracy_without_bias": _accuracy(case, balanced)},
            )
        ]
    return [
        new_finding(
            "collapsed_logits", *lines, confidence=0.5, explains=0.4, severity="warning", numbers=numbers
        )
    ]


def _accuracy(case: Case, answers: np.ndarray) -> float:
    if case.labels is None or not (case.labels >= 0).any():
        return float("nan")
    known = case.labels >= 0
    return float((answers[known] == case.labels[known]).mean())


def _name(case: Case, index: int) -> str:
    classes = case.subject.classes
    return repr(classes[index]) if index < len(classes) else f"number {index}"


def _dead_features(case: Case) -> list[Finding]:
    """Look at what the last linear layer is given: parts that are the same for every clip."""
    kept = last_layer_inputs(case.subject, case.x[: case.affordable(min(16, len(case.x)), share=0.03)])
    if not kept:
        return []
    inputs = kept["inputs"].double().flatten(0, 1).numpy()
    scale = float(np.abs(inputs).mean()) + 1e-12
    deviation = inputs.std(axis=0)
    dead = deviation < 1e-5 * max(scale, 1e-6)
    share = float(dead.mean())
    if share < 0.7:
        return []
    return [
        new_finding(
            "dead_features",
            f"{int(dead.sum())} of {len(dead)} features before the last layer are the same for all clips.",
            confidence=0.9,
            explains=share,
            numbers={"share": share},
        )
    ]


def _saturated(case: Case, logits: np.ndarray) -> list[Finding]:
    ordered = np.sort(logits, axis=1)
    margin = float(np.median(ordered[:, -1] - ordered[:, -2])) / case.subject.temperature
    largest = float(np.median(ordered[:, -1] - ordered[:, 0])) / case.subject.temperature
    if margin < _SATURATED_MARGIN and largest < 4 * _SATURATED_MARGIN:
        return []
    right = case.base.accuracy
    return [
        new_finding(
            "saturated_logits",
            f"The best score leads by {margin:.0f} (median of {len(logits)} clips); 10 would be a probability "
            "of "
            "0.99995.",
            confidence=0.8,
            explains=0.5 if right != right or right < 0.95 else 0.3,
            severity="fault" if right != right or right < 0.95 else "warning",
            numbers={"margin": margin},
        )
    ]


def check_class_names(case: Case) -> list[Finding]:
    """Tell class names of another number or order than the scores."""
    k, names = case.base.logits.shape[1], len(case.subject.classes)
    if k != names:
        return [
            new_finding(
                "label_map_length",
                f"{names} class names, {k} scores a clip.",
                confidence=0.99,
                explains=0.9,
                numbers={"names": float(names), "scores": float(k)},
            )
        ]
    return _permuted(case)


def _permuted(case: Case) -> list[Finding]:
    """Find the exchange of names that fits the labels best, by the Hungarian method (H. W. Kuhn, 1955)."""
    base, k = case.base, case.base.logits.shape[1]
    if base.labels is None or k < 2:
        return []
    known = base.labels >= 0
    labels, answers = base.labels[known], base.answers[known]
    present = np.unique(labels)
    if len(labels) < _LEAST_CLIPS or len(present) < 2:
        return []
    confusion = np.zeros((k, k))
    np.add.at(confusion, (answers, labels), 1)
    # A tie goes to the name that stands there now.
    rows, columns = linear_sum_assignment(-(confusion + 1e-3 * np.eye(k)))
    renamed = columns[np.argsort(rows)][answers]
    fitted, accuracy = float((renamed == labels).mean()), base.accuracy
    gained = int(((renamed == labels) & ~base.right).sum())
    lost = int(((renamed != labels) & base.right).sum())
    moved = [(i, int(columns[i])) for i in rows if columns[i] != i and confusion[i, columns[i]] > 0]
    # Any confusion gains a little by its best renaming; a permutation gains much.
    enough = fitted - accuracy >= 0.25 and fitted >= 0.6 * case.expected_accuracy
    if not enough or len(moved) < 2 or binomtest(gained, gained + lost, 0.5).pvalue > 0.01:
        return []
    pairs = ", ".join(f"{_name(case, a)} for {_name(case, b)}" for a, b in moved[:6])
    return [
        new_finding(
            "label_map_permuted",
            f"Right answers: {accuracy:.0%} by the names given, {fitted:.0%} with names exchanged "
            f"({len(labels)} clips).",
            f"It answers {pairs}.",
            confidence=float(np.clip(0.5 + (fitted - accuracy) / 2, 0, 0.95)),
            explains=float(np.clip((fitted - accuracy) / max(case.wrong_share, 0.05), 0, 1)),
            numbers={"accuracy": accuracy, "accuracy_after": fitted},
        )
    ]


def check_confidence(case: Case) -> list[Finding]:
    """Tell probabilities that are higher than the answers deserve, on labelled clips."""
    base = case.base
    if base.labels is None or not len(base.right):
        return []
    known = base.labels >= 0
    logits, labels = base.logits[known].astype(np.float64), base.labels[known]
    if len(labels) < 2 * _LEAST_CLIPS or (labels >= logits.shape[1]).any() or not np.isfinite(logits).all():
        return []
    found = [*_over_fitting(case)]
    probabilities = softmax(logits, temperature=case.subject.temperature)
    confidence = float(probabilities.max(axis=1).mean())
    gap = confidence - base.accuracy
    spread = (base.accuracy * (1 - base.accuracy) + confidence * (1 - confidence)) / 2
    noise = 2.5 * np.sqrt(max(spread, 0.02) / len(labels))
    temperature = fit_temperature(logits, labels) / case.subject.temperature
    if gap < max(_GAP, noise) or temperature < _TOO_SURE:
        return found
    error = expected_calibration_error(probabilities, labels)
    as_expected = base.accuracy >= case.expected_accuracy - noise
    found.append(
        new_finding(
            "over_confident",
            f"Mean probability of the answers {confidence:.0%}, right answers {base.accuracy:.0%}; "
            "calibration error "
            f"{error:.2f} ({len(labels)} clips).",
            f"A temperature {temperature:.1f} times as high fits these clips.",
            confidence=0.7,
            explains=0.55 if as_expected else 0.2,
            severity="fault" if as_expected else "warning",
            numbers={
                "confidence": confidence,
                "accuracy": base.accuracy,
                "ece": error,
                "temperature": temperature,
            },
        )
    )
    return found


_GAP = 0.12
_TOO_SURE = 2.0


def _over_fitting(case: Case) -> list[Finding]:
    """Compare the clips with those of training, where the reference is labelled."""
    reference = case.reference_base
    known = case.subject.statistics.get("training_accuracy")
    trained = reference.accuracy if reference is not None else float("nan")
    if trained != trained and isinstance(known, int | float):
        trained = float(known)
    accuracy, n = case.base.accuracy, len(case.base.right)
    if trained != trained or n < _LEAST_CLIPS:
        return []
    noise = 2 * np.sqrt(max(accuracy * (1 - accuracy), 0.02) / n)
    if trained - accuracy < max(0.25, noise):
        return []
    validation = case.subject.statistics.get("validation_accuracy")
    poor = isinstance(validation, int | float) and trained - float(validation) >= 0.2
    return [
        new_finding(
            "over_fitting",
            f"Right answers: {trained:.0%} on clips of training, {accuracy:.0%} on these {n} clips"
            + (
                f", {float(validation):.0%} on validation clips."
                if isinstance(validation, int | float)
                else "."
            ),
            confidence=0.8 if poor else 0.5,
            explains=0.6 if poor else 0.35,
            severity="fault" if poor else "warning",
            numbers={"training_accuracy": trained, "accuracy": accuracy},
        )
    ]
