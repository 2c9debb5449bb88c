"""How clips look: light, sharpness, noise and movement, beside those of training."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidette.evaluation.levels import Level, picture_change, picture_levels
from vidette.evaluation.reference import ReferenceStatistics
from vidette.video.clip import Clip

__all__ = ["ClipLooks", "known_levels", "look_at"]

_FRAMES = 4
_SAME = 0.3  # levels of 255: less is no other frame


@dataclass(frozen=True, eq=False)
class ClipLooks:
    """N clips, one number each.

    Attributes:
        brightness, contrast, sharpness, noise: As ``picture_levels`` gives them, mean over four frames.
        change: Mean absolute difference from frame to frame, levels of 0 to 255.
        distinct: Frames that differ from the one before, and the first; 1 to T.
        spread: Standard deviation over the places of the coarse picture (8 x 8), levels.
        brightest: The level that one pixel in a hundred exceeds.
    """

    brightness: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray
    noise: np.ndarray
    change: np.ndarray
    distinct: np.ndarray
    spread: np.ndarray
    brightest: np.ndarray

    def values(self, name: str) -> np.ndarray:
        """Return one measure, float ``(N,)``; ``relative_sharpness`` is sharpness over contrast squared."""
        if name == "relative_sharpness":
            return self.sharpness / np.maximum(self.contrast, 1.0) ** 2
        return getattr(self, name)


def look_at(clips: Sequence[Clip]) -> ClipLooks:
    """Measure clips."""
    rows = np.array([_measure(clip.pixels) for clip in clips])
    return ClipLooks(*rows.T)


def _measure(pixels: np.ndarray) -> tuple[float, ...]:
    chosen = np.unique(np.linspace(0, len(pixels) - 1, _FRAMES).round().astype(int))
    levels = np.mean([dataclasses.astuple(picture_levels(pixels[i])) for i in chosen], axis=0)
    steps = [picture_change(a, b) for a, b in itertools.pairwise(pixels)]
    distinct = 1 + sum(step > _SAME for step in steps)
    coarse = _coarse(pixels[chosen])
    return (
        *levels.tolist(),
        float(np.mean(steps)) if steps else 0.0,
        distinct,
        float(coarse.std(axis=(1, 2)).mean()),
        float(np.quantile(pixels[chosen], 0.99)),
    )


def _coarse(frames: np.ndarray, cells: int = 8) -> np.ndarray:
    """Average grey over cells: ``(F, cells, cells)``; what does not divide is cut."""
    f, height, width, _ = frames.shape
    tall, wide = max(1, height // cells), max(1, width // cells)
    cut = frames[:, : tall * (height // tall), : wide * (width // wide)].mean(-1)
    return cut.reshape(f, height // tall, tall, width // wide, wide).mean(axis=(2, 4))


def known_levels(trained: ReferenceStatistics | None, reference: ClipLooks | None) -> Mapping[str, Level]:
    """Return how the measures were spread in training: as saved, or of the reference clips."""
    names = ("brightness", "contrast", "sharpness", "noise", "change")
    if reference is not None:
        scales = {"brightness": "linear"}
        return {
            name: Level.of(
                [reference.values(name)[i : i + 1] for i in range(len(reference.change))],
                scale="linear" if name in scales else "log",
            )
            for name in names
        }
    if trained is not None:
        return {name: getattr(trained, name) for name in names}
    return {}
