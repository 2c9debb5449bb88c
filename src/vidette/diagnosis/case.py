"""What every check of a diagnosis is given: the subject, the clips, and what the network did with them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vidette.diagnosis.alternatives import Alternative
from vidette.diagnosis.material import Material
from vidette.diagnosis.probes import Observation, Place, find_places, observe
from vidette.diagnosis.subject import Subject
from vidette.errors import InputMismatchError, VidetteError
from vidette.evaluation.calibration import fit_temperature, softmax
from vidette.evaluation.reference import ReferenceStatistics

__all__ = ["BUDGET_SECONDS", "Case", "Tried", "make_case", "spread_out"]


@dataclass(frozen=True, eq=False)
class Tried:
    """An alternative and what came of it.

    Attributes:
        name: What was tried.
        cause: The finding that it speaks for.
        detail: What the finding says of it.
        seen: What the network did.
        gain: How much better than as given: see :meth:`Case.gain`.
    """

    name: str
    cause: str
    detail: str
    seen: Observation
    gain: float


@dataclass(eq=False)
class Case:
    """One diagnosis at work.

    Attributes:
        subject: What is diagnosed.
        material: The clips that it fails on.
        reference: Clips that it was trained on, or that it is right on; None where not given.
        trained: What training measured; None where it left nothing.
        places: Where activations are compared with training.
        x: The network's input, ``(N, T, C, H, W)``.
        labels: int ``(N,)``, -1 for no class; None without labels.
        base: What the network did with the clips as given.
        seconds_per_clip: What an answer costs.
        trial: Positions of the clips that alternatives are tried on: all, or some where answers are slow.
        trial_base: What the network did with these as given.
        reference_base: The same of the reference.
        tried: The alternatives, best first.
        shifts: How far light, focus and noise lie out of the range of training; 1 is at its edge.
        notes: What could not be looked at.
    """

    subject: Subject
    material: Material
    reference: Material | None
    trained: ReferenceStatistics | None
    places: list[Place]
    x: Tensor
    labels: np.ndarray | None
    base: Observation
    reference_base: Observation | None
    seconds_per_clip: float
    trial: np.ndarray
    trial_base: Observation
    reference_x: Tensor | None = None
    reference_labels: np.ndarray | None = None
    tried: list[Tried] = field(default_factory=list[Tried])
    shifts: dict[str, float] = field(default_factory=dict[str, float])
    notes: list[str] = field(default_factory=list[str])

    @property
    def pixels(self) -> np.ndarray:
        """uint8 ``(N, T, H, W, 3)``: the pictures as they are before the network's preparation."""
        return np.stack([clip.pixels for clip in self.material.clips])

    @property
    def expected_accuracy(self) -> float:
        """What the classifier reached on validation clips, else on the reference, else 0.9."""
        known = self.subject.statistics.get("validation_accuracy")
        if isinstance(known, int | float) and known == known:
            return float(known)
        if self.reference_base is not None and self.reference_base.accuracy == self.reference_base.accuracy:
            return max(0.5, self.reference_base.accuracy)
        return 0.9

    @property
    def wrong_share(self) -> float:
        """How much is wrong: accuracy that is missing, 0 to 1; nan without labels."""
        return max(0.0, self.expected_accuracy - self.base.accuracy)

    def cost(self, seen: Observation) -> float:
        """Return how ill an input fits, lower is better: ``log(distance + 0.06) + negative log-likelihood``.

        The likelihood is that of the labels after the temperature that suits these answers best, in nats over
        ``log(K)``, so that guessing costs 1. What is not known counts 0.
        """
        parts = [np.log(seen.distance + _NEAR)] if seen.distance == seen.distance else []
        likelihood = self.likelihood(seen)
        return float(sum(parts)) + (_LABEL_WEIGHT * likelihood if likelihood == likelihood else 0.0)

    def likelihood(self, seen: Observation) -> float:
        """Return the labels' negative log-likelihood over that of guessing; nan without labels."""
        labels = seen.labels
        if labels is None or not (labels >= 0).any() or seen.logits.shape[1] < 2:
            return float("nan")
        logits, known = seen.logits[labels >= 0], labels[labels >= 0]
        if (known >= logits.shape[1]).any() or not np.isfinite(logits).all():
            return float("nan")
        scaled = logits / max(1e-6, float(np.abs(logits - logits.mean(1, keepdims=True)).mean()))
        probabilities = softmax(scaled, temperature=fit_temperature(scaled, known))
        given = probabilities[np.arange(len(known)), known]
        return float(-np.log(np.clip(given, 1e-12, None)).mean() / np.log(logits.shape[1]))

    def gain(self, seen: Observation, base: Observation | None = None) -> float:
        """Return how much less an alternative costs than the clips as given."""
        return self.cost(base or self.trial_base) - self.cost(seen)

    def observe(self, x: Tensor, labels: np.ndarray | None) -> Observation:
        """Answer clips and compare the activations with training."""
        return observe(self.subject, x, self.places, labels=labels)

    def attempt(self, alternative: Alternative, x: Tensor, labels: np.ndarray | None) -> Observation | None:
        """Answer changed clips; None where the network cannot take them."""
        try:
            seen = self.observe(alternative.change(x).contiguous(), labels)
        except InputMismatchError:
            return None
        return seen if np.isfinite(seen.logits).all() else None

    def explained(self, seen: Observation) -> float:
        """Return the share of the wrong behaviour that goes with an alternative, 0 to 1."""
        shares: list[float] = []
        base = self.trial_base
        if base.accuracy == base.accuracy and self.expected_accuracy - base.accuracy > 0.05:
            shares.append((seen.accuracy - base.accuracy) / (self.expected_accuracy - base.accuracy))
        if seen.distance == seen.distance and base.distance > 0:
            shares.append(1 - seen.distance / base.distance)
        return float(np.clip(max(shares), 0, 1)) if shares else 0.5

    def significance(self, seen: Observation) -> float:
        """Return how unlikely the change in right answers is by chance, one-sided sign test; nan unlabelled."""
        before = self.trial_base.right
        if not len(before):
            return float("nan")
        gained = int((seen.right & ~before).sum())
        lost = int((~seen.right & before).sum())
        if gained + lost == 0:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)

    def affordable(self, most: int, *, share: float) -> int:
        """Return how many clips may be answered for a share of the time that a diagnosis has; 2 at least."""
        return int(np.clip(share * BUDGET_SECONDS / max(self.seconds_per_clip, 1e-6), 2, max(2, most)))

    @property
    def trial_x(self) -> Tensor:
        """What the network is given of the clips that alternatives are tried on."""
        return self.x[self.trial]

    @property
    def trial_labels(self) -> np.ndarray | None:
        """Their labels."""
        return None if self.labels is None else self.labels[self.trial]

    def best(self, causes: Sequence[str]) -> Tried | None:
        """Return the best alternative of some causes."""
        fitting = [tried for tried in self.tried if tried.cause in causes]
        return max(fitting, key=lambda tried: tried.gain) if fitting else None


_LABEL_WEIGHT = 1.0
_NEAR = 0.06  # clips of a healthy classifier differ by this much
BUDGET_SECONDS = 40.0
"""About how long a diagnosis may take; a slow network is shown fewer clips."""
_TRIAL_SHARE = 0.025  # of the time, for each of about 17 alternatives


def spread_out(total: int, most: int) -> np.ndarray:
    """Return at most so many positions, equally far apart."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))


def make_case(
    subject: Subject, material: Material, *, reference: Material | None, trained: ReferenceStatistics | None
) -> Case:
    """Answer the clips once, as they are.

    Raises:
        InputMismatchError: The network cannot answer them, or what it gives are no class scores.
    """
    places = find_places(subject, trained)
    x = subject.prepare(material.clips)
    torch.manual_seed(0)
    labels = material.labels(subject.classes)
    subject.logits(x[:1])  # the first answer is slower than the others
    begun = time.perf_counter()
    base = observe(subject, x, places, labels=labels)
    cost = (time.perf_counter() - begun) / len(x)
    _check_scores(subject, base)
    trial, trial_base = np.arange(len(x)), base
    most = max(6, int(_TRIAL_SHARE * BUDGET_SECONDS / max(cost, 1e-6)))
    if most < len(x):
        trial = spread_out(len(x), most)
        trial_base = observe(subject, x[trial], places, labels=None if labels is None else labels[trial])
    case = Case(subject, material, reference, trained, places, x, labels, base, None, cost, trial, trial_base)
    if reference is not None:
        case.reference_x = subject.prepare(reference.clips)
        case.reference_labels = reference.labels(subject.classes)
        try:
            case.reference_base = observe(subject, case.reference_x, places, labels=case.reference_labels)
        except VidetteError as error:
            case.notes.append(f"the reference could not be answered: {error}")
    return case


def _check_scores(subject: Subject, base: Observation) -> None:
    if base.logits.shape[1] < 2:
        raise InputMismatchError(
            f"{subject.name} gives {base.logits.shape[1]} number a clip; expected a score for each of two or "
            "more "
            "classes"
        )
    if not np.isfinite(base.logits).any():
        raise InputMismatchError(f"{subject.name} gives no finite score; nothing can be compared")
