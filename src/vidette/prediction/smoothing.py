"""Answers along time become calmer ones, update by update; nothing here looks ahead.

A smoother takes the probabilities of each new answer and returns smoothed ones. What it costs is time: after
the answers turn from one label to another, surely and at once, the new label reaches an ``enter_probability``
of e

- ``none``: at once;
- ``mean``: after e * ``smoothing_seconds`` (half of them at least: it has to be the largest);
- ``majority``: the same, in votes: e is then the share of the answers that it has to win;
- ``exponential``: after log2(1 / (1 - e)) * ``smoothing_seconds``: 1.3 of them at e = 0.6, one at least;
- ``hmm``: after what its transitions ask for: the rarer a change was in the truth, the longer;

which :func:`rise_seconds` measures for any of them. The end of an event is late likewise.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.linalg import expm

from vidette.errors import SettingError

__all__ = ["SMOOTHINGS", "Smoother", "Smoothing", "Transitions", "new_smoother", "rise_seconds"]

Smoothing = Literal["none", "mean", "exponential", "majority", "hmm"]
SMOOTHINGS: tuple[Smoothing, ...] = ("none", "mean", "exponential", "majority", "hmm")

_ASTRAY = 0.01
"""Share of answers that an HMM takes to say nothing at all, so that no single one is proof."""
_MOST_NUMBERS = 4_000_000
"""What an HMM keeps of matrices, one for each millisecond count between two answers that it has met."""
_FINE_SECONDS, _LONGEST_SECONDS, _MOST_LABELS = 0.02, 10.0, 16


class Smoother(Protocol):
    """Takes the answers of one stream, or of several at once, in order of time."""

    def update(self, seconds: float, answer: np.ndarray) -> np.ndarray:
        """Return smoothed probabilities ``(..., K)``.

        Args:
            seconds: When, not before the last answer.
            answer: Calibrated probabilities ``(..., K)``; all 0 where there is no answer. The smoothed ones
                then sum to less than 1: what is missing is the share of "unknown".
        """
        ...


@dataclass(frozen=True)
class Transitions:
    """How often one thing follows another: a Markov chain in continuous time, right at any rate of answers.

    Attributes:
        rates: ``(S, S)``, a second: from row to column off the diagonal, 0 or more; rows sum to 0. S is the
            number of classes K, or K + 1: the last state is then "nothing is going on", for classes without a
            quiet one.
        priors: ``(K,)``: the share of each class in what the classifier learnt from.
    """

    rates: tuple[tuple[float, ...], ...]
    priors: tuple[float, ...]

    def __post_init__(self) -> None:
        states, classes = len(self.rates), len(self.priors)
        if states not in (classes, classes + 1) or any(len(row) != states for row in self.rates):
            raise SettingError(f"transition rates are of {states} states; expected {classes} or {classes + 1}")
        rates = np.array(self.rates, dtype=np.float64)
        between = rates[~np.eye(states, dtype=bool)]
        if not (np.isfinite(rates).all() and (between >= 0).all() and np.allclose(rates.sum(axis=1), 0)):
            raise SettingError(
                "transition rates are no rates: expected 0 or more between states, rows of sum 0"
            )
        if not all(0 < prior <= 1 for prior in self.priors):
            raise SettingError(f"class priors are {self.priors}; expected above 0, at most 1")

    def after(self, seconds: float) -> np.ndarray:
        """Return the probability of each state (column) ``seconds`` after each (row): exp(rates * seconds)."""
        return np.clip(expm(np.array(self.rates) * seconds), 0.0, 1.0)

    def stationary(self) -> np.ndarray:
        """Return the share of time in each state, ``(S,)``, summing to 1."""
        rates = np.array(self.rates)
        equations = np.vstack([rates.T, np.ones(len(rates))])
        shares = np.linalg.lstsq(equations, np.eye(len(rates) + 1)[-1], rcond=None)[0]
        return np.clip(shares, 0.0, None) / np.clip(shares, 0.0, None).sum()


def new_smoother(kind: Smoothing, smoothing_seconds: float, transitions: Transitions | None = None) -> Smoother:
    """Return the smoother of one stream; ``transitions`` are for ``"hmm"`` alone."""
    if kind == "hmm":
        assert transitions is not None
        return _Hmm(smoothing_seconds, transitions)
    if kind in ("mean", "majority"):
        return _Mean(smoothing_seconds, votes=kind == "majority")
    return _Exponential(smoothing_seconds) if kind == "exponential" else _Plain()


def rise_seconds(
    make: Callable[[], Smoother], pairs: Sequence[tuple[int, int]], num_classes: int, enter: Sequence[float]
) -> tuple[float, ...]:
    """Measure how late a smoother follows answers that turn, surely and at once, from one label to another.

    Args:
        make: Makes the smoother.
        pairs: Which labels, as (before, after); at most 16 are tried, and the slowest counts.
        num_classes: K.
        enter: Probabilities that the new label, being the largest, has to reach.

    Returns:
        For each of ``enter`` the time since the first answer with the new label; inf where it is over 10 s.
    """
    tried = [
        pairs[i] for i in np.linspace(0, len(pairs) - 1, min(_MOST_LABELS, len(pairs))).round().astype(int)
    ]
    labels = np.eye(num_classes)
    before, after = (labels[[pair[i] for pair in tried]] for i in (0, 1))
    target = after.argmax(axis=-1)
    smoother, step = make(), 0
    while step * _FINE_SECONDS < _LONGEST_SECONDS:
        smoother.update(step * _FINE_SECONDS, before)
        step += 1
    found = [math.inf] * len(enter)
    for late in range(round(_LONGEST_SECONDS / _FINE_SECONDS)):
        smoothed = smoother.update((step + late) * _FINE_SECONDS, after)
        is_largest = (smoothed.argmax(axis=-1) == target).all()
        lowest = smoothed[np.arange(len(tried)), target].min() if is_largest else -1.0
        found = [
            min(known, late * _FINE_SECONDS) if lowest >= wish - 1e-9 else known
            for known, wish in zip(found, enter, strict=True)
        ]
        if math.inf not in found:
            break
    return tuple(found)


class _Plain:
    """No smoothing."""

    def update(self, seconds: float, answer: np.ndarray) -> np.ndarray:
        del seconds
        return answer


class _Mean:
    """The mean of the answers of the last seconds; or of their votes, one each for the most probable label."""

    def __init__(self, smoothing_seconds: float, *, votes: bool) -> None:
        self._seconds, self._votes = smoothing_seconds, votes
        self._recent: deque[tuple[float, np.ndarray]] = deque()

    def update(self, seconds: float, answer: np.ndarray) -> np.ndarray:
        if self._votes:
            is_given = answer.sum(axis=-1, keepdims=True) > 0
            answer = np.eye(answer.shape[-1])[answer.argmax(axis=-1)] * is_given
        self._recent.append((seconds, answer))
        while self._recent[0][0] <= seconds - self._seconds:
            self._recent.popleft()
        return np.stack([row for _, row in self._recent]).mean(axis=0)


class _Exponential:
    """Weights that halve every ``smoothing_seconds``."""

    def __init__(self, smoothing_seconds: float) -> None:
        self._half_life = smoothing_seconds
        self._last: tuple[float, np.ndarray] | None = None

    def update(self, seconds: float, answer: np.ndarray) -> np.ndarray:
        if self._last is not None:
            keep = 0.5 ** ((seconds - self._last[0]) / self._half_life)
            answer = keep * self._last[1] + (1 - keep) * answer
        self._last = (seconds, answer)
        return answer


class _Hmm:
    """Forward filter of a hidden Markov model: P(state | all answers so far).

    The likelihood of an answer under a class is its probability over the class's prior (Bourlard & Morgan,
    Connectionist Speech Recognition, 1994); one answer in a hundred is taken to say nothing. Neighbouring
    windows show mostly the same frames, so their answers are no independent evidence: those of
    ``smoothing_seconds`` count as one together (likelihood ** (seconds since the last answer /
    smoothing_seconds), at most 1), whatever the rate. A missing answer says nothing, and its share is taken off
    the smoothed probabilities.
    """

    def __init__(self, smoothing_seconds: float, transitions: Transitions) -> None:
        self._evidence_seconds, self._transitions = smoothing_seconds, transitions
        self._priors, self._states = np.array(transitions.priors), len(transitions.rates)
        self._begin = transitions.stationary()
        self._matrices: dict[float, np.ndarray] = {}
        self._given = _Exponential(smoothing_seconds)
        self._last: tuple[float, np.ndarray] | None = None

    def update(self, seconds: float, answer: np.ndarray) -> np.ndarray:
        is_given = answer.sum(axis=-1, keepdims=True) > 0
        belief, weight = self._begin, 1.0
        if self._last is not None:
            passed = seconds - self._last[0]
            belief = self._last[1] @ self._after(round(passed, 3))
            weight = min(1.0, passed / self._evidence_seconds)
        likelihood = np.ones((*answer.shape[:-1], self._states))
        ratio = (1 - _ASTRAY) * answer / self._priors + _ASTRAY
        likelihood[..., : answer.shape[-1]] = np.where(is_given, ratio, 1.0) ** weight
        belief = belief * likelihood
        belief = belief / belief.sum(axis=-1, keepdims=True)
        self._last = (seconds, belief)
        return belief[..., : answer.shape[-1]] * self._given.update(seconds, is_given.astype(float))

    def _after(self, seconds: float) -> np.ndarray:
        if seconds not in self._matrices:
            if len(self._matrices) * self._states**2 >= _MOST_NUMBERS:
                self._matrices.clear()
            self._matrices[seconds] = self._transitions.after(seconds)
        return self._matrices[seconds]
