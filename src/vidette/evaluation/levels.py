"""How one number of pictures or answers is spread over clips, and how a picture looks as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

__all__ = ["QUANTILES", "Level", "PictureLevels", "entropy", "picture_change", "picture_levels"]

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Shares whose quantiles are kept of every level."""
_COVERAGE = 0.99
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Level:
    """How one number was spread over n clips.

    Attributes:
        n: Clips.
        mean: Mean of the clips' means, on the scale.
        std: Standard deviation of the clips' means, on the scale; 0 for one clip.
        within_std: Standard deviation of frames about the mean of their clip, on the scale.
        quantiles: Of the clips' means, at :data:`QUANTILES`; in the number's own units.
        scale: ``"log"``: mean and deviations are of log(1 + value), for values that are 0 or more and skewed.
    """

    n: int
    mean: float
    std: float
    within_std: float
    quantiles: tuple[float, ...]
    scale: Literal["linear", "log"] = "linear"

    @property
    def total_std(self) -> float:
        """Standard deviation of a frame of any clip, on the scale."""
        return float(np.hypot(self.std, self.within_std))

    def scaled(self, value: float) -> float:
        """Return a value on the scale."""
        return float(np.log1p(value)) if self.scale == "log" else value

    def bounds(self, coverage: float = _COVERAGE) -> tuple[float, float]:
        """Return between which values, on the scale, a new clip lies with probability ``coverage``.

        The prediction interval of one more value of a normal distribution (Hahn, Meeker: Statistical Intervals,
        1991, 4.7), widened to the values that the n clips had. For one clip that is its own value.
        """
        low, high = self.scaled(self.quantiles[0]), self.scaled(self.quantiles[-1])
        if self.n < 2:
            return low, high
        factor = float(stats.t.ppf((1 + coverage) / 2, self.n - 1)) * float(np.sqrt(1 + 1 / self.n))
        return min(low, self.mean - factor * self.std), max(high, self.mean + factor * self.std)

    @classmethod
    def of(cls, clips: Sequence[np.ndarray], *, scale: Literal["linear", "log"] = "linear") -> Level:
        """Summarise the values of n clips, each an array of its frames' values.

        Example:
            >>> Level.of([np.array([1.0, 3.0]), np.array([4.0])]).mean
            3.0
        """
        scaled = [np.log1p(values) if scale == "log" else values for values in clips]
        means = np.array([float(values.mean()) for values in scaled])
        inside = np.concatenate([values - values.mean() for values in scaled])
        quantiles = np.quantile(means, QUANTILES)
        return cls(
            n=len(means),
            mean=float(means.mean()),
            std=float(means.std(ddof=1)) if len(means) > 1 else 0.0,
            within_std=float(np.sqrt(np.square(inside).sum() / max(1, len(inside) - len(means)))),
            quantiles=tuple((np.expm1(quantiles) if scale == "log" else quantiles).tolist()),
            scale=scale,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Level:
        """Read what ``dataclasses.asdict`` wrote."""
        fields = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        fields["quantiles"] = tuple(fields["quantiles"])
        return cls(**fields)


@dataclass(frozen=True)
class PictureLevels:
    """How one picture looks as a whole, in levels of 0 to 255.

    Attributes:
        brightness: Mean of its luma.
        contrast: Standard deviation of its luma over the picture.
        sharpness: Variance of its Laplacian; small where it is blurred.
        noise: Standard deviation of the noise in it.
    """

    brightness: float
    contrast: float
    sharpness: float
    noise: float


def picture_levels(pixels: np.ndarray) -> PictureLevels:
    """Measure one picture.

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000); noise is estimated by
    J. Immerkaer, "Fast noise variance estimation", CVIU 64 (1996), which leaves out edges of constant slope.

    Args:
        pixels: uint8 ``(H, W, 3)``, RGB, at least 3x3.

    Example:
        >>> picture_levels(np.full((8, 8, 3), 100, np.uint8)).noise
        0.0
    """
    luma = pixels.astype(np.float32) @ _LUMA
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]  # (H - 2, W)
    columns = luma[:, :-2] - 2 * luma[:, 1:-1] + luma[:, 2:]  # (H, W - 2)
    second = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return PictureLevels(
        brightness=float(luma.mean()),
        contrast=float(luma.std()),
        sharpness=float((rows[:, 1:-1] + columns[1:-1]).var()),
        noise=float(np.sqrt(np.pi / 2) * np.abs(second).mean() / 6),
    )


def picture_change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean absolute difference of two pictures, uint8 ``(H, W, 3)``, in levels of 0 to 255."""
    return float(np.abs(after.astype(np.int16) - before).mean())


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of probabilities ``(..., K)`` in nats, ``(...)``."""
    return -(probabilities * np.log(np.clip(probabilities, 1e-12, None))).sum(axis=-1)
