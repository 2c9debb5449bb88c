"""Which clips show the same scene, found from pictures alone: no path, no group column, no encoding.

A camera that stands still shows the same thing at the same place, so backgrounds are compared place by place.
Two kinds of likeness count, the larger of them:

- structure: mean cosine of network descriptors at the same place, over places with texture. Pictures that look
  alike everywhere (drawn gradients, fog) are alike by structure whatever they show, so what a picture
  resembles itself from place to place beyond ``_PLAIN`` is taken off.
- colour: the share of places whose colour is the same within about ten levels, black and white places apart.

All constants are the same for every data set. They were chosen on drawn clips (`vidette.video.motion`) and on
half of the sources of the Surveillance Camera Fight Dataset and confirmed on the other half; what to compare
was chosen on all of it (``benchmarks/audit_scenes.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components

from vidette.data.audit_looks import GRID, ClipLook

__all__ = ["SAME_SCENE", "Scenes", "find_scenes", "gather", "near_duplicates", "scene_similarity"]

SAME_SCENE = 0.2
"""Mean likeness from which clips are one scene."""
_PLAIN, _PLAIN_COST = 0.2, 1.5
_TEXTURE_LEVELS, _LEAST_WEIGHT = 8.0, 0.1
_COLOUR_LEVELS, _SAME_COLOUR = 10.0, 0.3
_COLOUR_GRID = 28
_BLACK, _WHITE, _LEAST_SEEN = 20, 235, 0.25
_BLOCK = 256
_DUPLICATE_LEVELS, _DUPLICATE_SHARE = 6.0, 0.99


@dataclass(frozen=True, eq=False)
class Scenes:
    """Clips gathered into scenes.

    Attributes:
        scene_of: int ``(N,)``, the scene of each clip, numbered from 0 in the order met.
        similarity: float32 ``(N, N)``, likeness of each pair; :data:`SAME_SCENE` is the threshold.
    """

    scene_of: np.ndarray
    similarity: np.ndarray

    @property
    def num_scenes(self) -> int:
        """How many scenes there are, single clips included."""
        return int(self.scene_of.max()) + 1 if len(self.scene_of) else 0

    def members(self, scene: int) -> list[int]:
        """Return the clips of a scene, by position."""
        return [int(i) for i in np.flatnonzero(self.scene_of == scene)]

    def __repr__(self) -> str:
        return f"Scenes({len(self.scene_of)} clips in {self.num_scenes} scenes)"


def find_scenes(looks: Sequence[ClipLook]) -> Scenes:
    """Gather clips into scenes by their likeness.

    Args:
        looks: N clips; time and memory grow with N squared (10,000 clips: 0.4 GB and minutes).
    """
    return gather(scene_similarity(looks))


def gather(similarity: np.ndarray) -> Scenes:
    """Gather clips whose mean likeness reaches :data:`SAME_SCENE` (average linkage).

    Average linkage joins two gatherings only if their clips are alike on the whole, so one accidental likeness
    does not chain two scenes together.

    Args:
        similarity: float ``(N, N)``, symmetric, at most 1.
    """
    n = len(similarity)
    scene_of = np.zeros(n, int)
    if n < 2:
        return Scenes(scene_of, similarity)
    count, part_of = connected_components(similarity >= SAME_SCENE, directed=False)
    offset = 0
    for part in range(count):
        inside = np.flatnonzero(part_of == part)
        scene_of[inside] = offset + _linked(similarity[np.ix_(inside, inside)])
        offset = int(scene_of.max()) + 1
    return Scenes(_in_order_met(scene_of), similarity)


def _linked(similarity: np.ndarray) -> np.ndarray:
    if len(similarity) == 1:
        return np.zeros(1, int)
    distance = np.clip(1 - similarity[np.triu_indices(len(similarity), 1)], 0, None)
    tree = linkage(distance.astype(np.float64), "average")
    return fcluster(tree, 1 - SAME_SCENE, "distance").astype(int) - 1


def _in_order_met(numbers: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def scene_similarity(looks: Sequence[ClipLook]) -> np.ndarray:
    """Return the likeness of every pair of clips, float32 ``(N, N)``, symmetric, at most 1."""
    if not looks:
        return np.zeros((0, 0), np.float32)
    backgrounds = np.stack([look.background for look in looks]).astype(np.float32)
    places = np.stack([look.places for look in looks])
    structure = _structure(places, _texture_weights(backgrounds))
    colour = _same_colour(_block_means(backgrounds, _COLOUR_GRID))
    likeness = np.maximum(structure, colour * (SAME_SCENE / _SAME_COLOUR))
    np.fill_diagonal(likeness, 1.0)
    return np.minimum(likeness, 1.0).astype(np.float32)


def _block_means(pictures: np.ndarray, grid: int) -> np.ndarray:
    n, height, width, _ = pictures.shape
    blocks = pictures.reshape(n, grid, height // grid, grid, width // grid, 3)
    return blocks.mean(axis=(2, 4)).reshape(n, grid * grid, 3)


def _texture_weights(backgrounds: np.ndarray) -> np.ndarray:
    """Weight of every place, float32 ``(N, 196)``: 1 where grey levels spread by 8 or more."""
    n, side = len(backgrounds), backgrounds.shape[1] // GRID
    grey = backgrounds.mean(-1).reshape(n, GRID, side, GRID, side)
    spread = grey.std(axis=(2, 4)).reshape(n, -1)
    return np.clip(spread / _TEXTURE_LEVELS, _LEAST_WEIGHT, 1.0).astype(np.float32)


def _structure(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n = len(places)
    weighted = places.reshape(n, places.shape[1], -1).astype(np.float32) * weights[:, None]
    centres = weighted.sum(2) / weights.sum(1, keepdims=True)
    plainness = (centres**2).sum(1)
    flat = weighted.reshape(n, -1)
    cosine = (flat @ flat.T) / (weights @ weights.T)
    both = (plainness[:, None] + plainness[None]) / 2
    return cosine - _PLAIN_COST * np.maximum(0.0, both - _PLAIN)


def _same_colour(colours: np.ndarray) -> np.ndarray:
    """Share of places ``(N, P, 3)`` of the same colour in each pair, ``(N, N)``."""
    extreme = (colours.max(-1) < _BLACK) | (colours.min(-1) > _WHITE)
    shares = np.empty((len(colours), len(colours)), np.float32)
    least = _LEAST_SEEN * colours.shape[1]
    for i in range(len(colours)):
        for start in range(0, len(colours), _BLOCK):
            part = slice(start, start + _BLOCK)
            apart = np.abs(colours[part] - colours[i]).max(-1)
            seen = ~(extreme[part] & extreme[i])
            same = np.exp(-((apart / _COLOUR_LEVELS) ** 2)) * seen
            shares[i, part] = same.sum(-1) / np.maximum(seen.sum(-1), least)
    return shares


def near_duplicates(looks: Sequence[ClipLook], scenes: Scenes) -> list[tuple[int, int]]:
    """Return pairs of clips of one scene that show the same all along: four small frames within few levels.

    A clip in another resolution, bit rate or container is found; so are two clips of a place where nothing
    happens.
    """
    strips = np.stack([look.strip for look in looks]).astype(np.float32) if looks else np.zeros((0, 1))
    pairs: list[tuple[int, int]] = []
    for scene in range(scenes.num_scenes):
        inside = scenes.members(scene)
        for position, i in enumerate(inside[:-1]):
            others = inside[position + 1 :]
            apart = np.abs(strips[others] - strips[i]).max(-1).reshape(len(others), -1)
            worst = np.quantile(apart, _DUPLICATE_SHARE, axis=1)
            pairs += [(i, j) for j, w in zip(others, worst, strict=True) if w <= _DUPLICATE_LEVELS]
    return pairs
