"""Does a probability mean what it says: calibration error, and the temperature that lowers it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from vidette.errors import InputMismatchError

__all__ = ["ReliabilityBins", "expected_calibration_error", "fit_temperature", "reliability_bins", "softmax"]

_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Answers sorted into bins of equal width by the probability that each was given with.

    Attributes:
        edges: float64 ``(B + 1,)``, from 0 to 1; bin b is ``(edges[b], edges[b + 1]]``.
        counts: int64 ``(B,)``, answers in the bin.
        confidence: float64 ``(B,)``, mean probability in the bin; nan where the bin is empty.
        accuracy: float64 ``(B,)``, share of right answers in the bin; nan where the bin is empty.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    def __repr__(self) -> str:
        return f"ReliabilityBins({len(self.counts)} bins, {int(self.counts.sum())} answers)"


def softmax(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Turn logits ``(..., K)`` into float64 probabilities ``(..., K)``: ``softmax(logits / temperature)``.

    Example:
        >>> softmax(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 15) -> ReliabilityBins:
    """Sort answers into bins by their probability, and say how often each bin was right.

    Args:
        probabilities: ``(M, K)``; a row's answer is its largest entry.
        labels: int ``(M,)``, the true class of each row.
        num_bins: Bins of equal width over (0, 1].
    """
    answers = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    filled = np.where(counts > 0, counts, np.nan)
    return ReliabilityBins(
        edges=np.linspace(0.0, 1.0, num_bins + 1),
        counts=counts,
        confidence=np.bincount(bins, weights=confidence, minlength=num_bins) / filled,
        accuracy=np.bincount(bins, weights=answers == labels, minlength=num_bins) / filled,
    )


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Mean distance between the probability of the answers and how often they are right.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning", with bins of equal
    width over the probability of the answer: the sum over bins of n_bin / M * |accuracy - confidence|.

    Args:
        probabilities: ``(M, K)``, rows that sum to 1.
        labels: int ``(M,)``.
        num_bins: Bins over (0, 1].

    Returns:
        From 0 (a probability of 0.8 is right 8 times in 10) to 1; nan when M is 0.

    Example:
        >>> expected_calibration_error(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1, 0]))
        0.5
    """
    if len(labels) == 0:
        return float("nan")
    bins = reliability_bins(probabilities, labels, num_bins=num_bins)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.counts) / len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature T whose ``softmax(logits / T)`` fits held-out labels best.

    Guo et al. 2017, "On calibration of modern neural networks": minimise the negative log likelihood over T.
    The target of each clip is softened by 1 / (M + 1), spread over the classes, in the manner of Platt 1999:
    M right answers out of M are no proof that the next one is right, so T does not run to zero.

    Args:
        logits: ``(M, K)``, of clips that were not trained on.
        labels: int ``(M,)``, their true classes.

    Returns:
        T between 0.05 and 20: above 1 the classifier was too sure, below 1 not sure enough; 1.0 when
        K is 1 or no logit differs from another in its row (T changes nothing then).

    Raises:
        InputMismatchError: There is no clip, or a logit is not finite.
    """
    values = np.asarray(logits, dtype=np.float64)
    if len(labels) == 0 or values.shape[0] != len(labels):
        raise InputMismatchError(
            f"temperature fit got logits {values.shape} and {len(labels)} labels; expected (M, K) and M, M >= 1"
        )
    if not np.isfinite(values).all():
        raise InputMismatchError("temperature fit got logits that are not finite; look at the training losses")
    values = values - values.max(axis=1, keepdims=True)
    if not values.any():
        return 1.0
    soften = 1.0 / (len(labels) + 1)
    wanted = (1 - soften) * values[np.arange(len(labels)), labels] + soften * values.mean(axis=1)

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        normaliser = np.log(np.exp(values / temperature).sum(axis=1))
        return float((normaliser - wanted / temperature).mean())

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
