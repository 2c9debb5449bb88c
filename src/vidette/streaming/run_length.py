"""Cumulative sums with a promised time between false alarms: how far a sum may rise by chance.

Page's CUSUM (E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954) adds up by how much each value
is above what is allowed, and never falls below 0. Its average run length, the expected number of values until
it passes a threshold by chance, is that of a Markov chain over cells of the sum (D. Brook, D. A. Evans, "An
approach to the probability distribution of CUSUM run length", Biometrika 59, 1972).
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from vidette.errors import SettingError

__all__ = ["ALLOWANCE", "LARGEST_STEP", "Cusum", "StepLaw", "average_run_length", "threshold_for"]

ALLOWANCE = 0.5
"""What is taken off every value, in its standard deviations: the sum is quickest for a shift of twice that."""
LARGEST_STEP = 3.0
"""Values further off than so many standard deviations count as so many: one odd second is no drift."""
_GRAIN = 1 / 8
"""Steps of the sum are rounded to this, so that the chain's cells are exact, for counts too."""
_LARGEST_THRESHOLD = 32.0


@dataclass(frozen=True)
class StepLaw:
    """How a standardised value spreads where all is well, at the worst that is still allowed.

    Attributes:
        kind: ``"normal"``; ``"poisson"``: a count of ``mean``, less its mean, over its root.
        mean: Of the count; above 0.
    """

    kind: Literal["normal", "poisson"] = "normal"
    mean: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.mean < float("inf"):
            raise SettingError(f"mean of the count is {self.mean}; expected above 0")

    def share_up_to(self, steps: np.ndarray) -> np.ndarray:
        """Return the probability that a step of the sum is at most so large."""
        values = steps + ALLOWANCE
        if self.kind == "normal":
            below = stats.norm.cdf(values)
        else:
            below = stats.poisson.cdf(np.floor(values * np.sqrt(self.mean) + self.mean + 1e-9), self.mean)
        return np.where(values >= LARGEST_STEP, 1.0, np.where(values < -LARGEST_STEP, 0.0, below))


def average_run_length(threshold: float, law: StepLaw | None = None) -> float:
    """Return after how many values a sum that begins at 0 passes ``threshold`` by chance, on average.

    Example:
        >>> round(average_run_length(3.9))  # 335 for 4.0 in the tables, without grain and largest step
        324
    """
    cells = np.arange(math.floor(threshold / _GRAIN) + 1)
    last = len(cells) - 1
    # The probability that a step leads from one cell to another, or below: steps lie on the cells exactly.
    shares = (law or StepLaw()).share_up_to(_GRAIN * (np.arange(-last, last + 1) + 0.5) - 1e-9)
    upper = shares[cells[None, :] - cells[:, None] + last]
    moves = np.diff(upper, axis=1, prepend=0.0)  # the first cell takes all that falls below
    return float(np.linalg.solve(np.eye(len(cells)) - moves, np.ones(len(cells)))[0])


@functools.lru_cache(maxsize=64)
def threshold_for(run_length: float, law: StepLaw | None = None) -> float:
    """Return the lowest threshold that is passed by chance once in ``run_length`` values or more, on average.

    Raises:
        SettingError: ``run_length`` is not above 1, or too large to be promised.
    """
    if not run_length > 1:
        raise SettingError(f"run length is {run_length}; expected above 1")
    candidates = _GRAIN * np.arange(round(_LARGEST_THRESHOLD / _GRAIN))
    found = bisect.bisect_left(candidates, run_length, key=lambda h: average_run_length(float(h), law))
    if found == len(candidates):
        raise SettingError(f"a run length of {run_length:.3g} cannot be promised; ask for less")
    return float(candidates[found])


class Cusum:
    """One sum: on from when it passes the threshold until it is back at 0; see the module.

    Args:
        run_length: Values until it passes by chance, on average, where values are as bad as ``law`` allows.
        law: How values spread then.

    Attributes:
        is_on: Whether it has passed, and not come back.
        num_above: Values since the sum was last 0: since then something is going on.

    Example:
        >>> cusum = Cusum(1000)
        >>> [cusum.update(value) for value in (0.0, 2.5, 2.5, 2.5, -3.0, -3.0)]
        [False, False, False, True, True, False]
    """

    def __init__(self, run_length: float, law: StepLaw | None = None) -> None:
        self.threshold = threshold_for(float(run_length), law)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.sum, self.is_on, self.num_above = 0.0, False, 0

    def update(self, value: float) -> bool:
        """Take the next value, in standard deviations above what is allowed; return whether it is on."""
        step = min(max(value, -LARGEST_STEP), LARGEST_STEP) - ALLOWANCE
        step = math.floor(step / _GRAIN + 0.5) * _GRAIN
        self.sum = max(0.0, self.sum + step)
        self.num_above = self.num_above + 1 if self.sum > 0 else 0
        self.is_on = self.sum > 0 and (self.is_on or self.sum > self.threshold)
        self.sum = min(self.sum, self.threshold) if self.is_on else self.sum
        return self.is_on
