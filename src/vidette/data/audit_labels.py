"""Labels that the pictures contradict: candidates for a second look, not proofs.

After C. Northcutt, L. Jiang, I. Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70,
2021: a clip is a candidate where a model that never saw its group gives another class at least the probability
that clips of that class get on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidette.data.audit_checks import Known
from vidette.data.audit_findings import Example, Finding, count_text
from vidette.data.audit_shortcuts import held_out_probabilities, measure_auc, picture_model

__all__ = ["Candidate", "check_labels", "mislabel_candidates"]

_LEAST_AUC = 0.7
_MOST_EXAMPLES = 8


@dataclass(frozen=True)
class Candidate:
    """A clip whose label the pictures contradict.

    Attributes:
        clip: Its position.
        answer: The class that held-out answers give.
        probability: Of that class, 0 to 1.
        label_probability: Of its label.
    """

    clip: int
    answer: str
    probability: float
    label_probability: float


def mislabel_candidates(probabilities: np.ndarray, labels: np.ndarray) -> list[Candidate]:
    """Return the clips that confident learning puts into another class, surest first.

    Args:
        probabilities: ``(N, K)`` held out, columns in the order of the sorted labels.
        labels: N names.
    """
    classes = np.unique(labels)
    own = np.searchsorted(classes, labels)
    usual = np.array([probabilities[own == k, k].mean() for k in range(len(classes))])
    reached = np.where(probabilities >= usual, probabilities, -1.0)
    answer = reached.argmax(axis=1)
    rows = np.arange(len(labels))
    given = probabilities[rows, own]
    other = probabilities[rows, answer]
    found = np.flatnonzero((answer != own) & (reached[rows, answer] > 0) & (other > given))
    found = found[np.argsort(-(other - given)[found], kind="stable")]
    return [Candidate(int(i), str(classes[answer[i]]), float(other[i]), float(given[i])) for i in found]


def check_labels(known: Known, *, seed: int = 0) -> tuple[list[Finding], str]:
    """Find labels that a model of the other groups' clips contradicts with confidence.

    Returns:
        The finding, if any, and a note on what was measured or why nothing could be.
    """
    features = np.stack([look.clip_features for look in known.looks])
    labels = known.labels
    probabilities = held_out_probabilities(features, labels, known.groups, picture_model(), seed=seed)
    if probabilities is None:
        return [], "Labels were not checked: a class has clips of one group only."
    auc, low, high = measure_auc(probabilities, labels, known.groups, seed=seed)
    measured = f"AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}, {len(labels)} clips"
    if not low > _LEAST_AUC - 0.05 or auc < _LEAST_AUC:
        return [], f"Labels were not checked: the model that would do it ranks them too poorly ({measured})."
    found = mislabel_candidates(probabilities, labels)
    note = f"Labels were checked by held-out answers from picture features ({measured})."
    if not found:
        return [], note
    return [
        Finding(
            "mislabel_candidates",
            "note",
            f"{len(found)} clips look like another class than their label says.",
            (count_text(len(found), len(labels), "clips"), f"by held-out answers: {measured}"),
            "Watch them, surest first: some are wrong labels, others are clips that a classifier finds hard.",
            tuple(
                Example(
                    (c.clip,),
                    f"labelled {labels[c.clip]} ({c.label_probability:.0%}), "
                    f"looks like {c.answer} ({c.probability:.0%})",
                )
                for c in found[:_MOST_EXAMPLES]
            ),
        )
    ], note
