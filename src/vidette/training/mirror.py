"""Whether a mirrored clip still shows its own class: asked of the training clips before they are mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import GroupKFold
from torch.nn import functional

from vidette.data.cache import ClipCache, expand_windows
from vidette.data.manifest import LabelledClip
from vidette.video.augmentation import flip_suggestion
from vidette.video.clip import ClipSpec

__all__ = ["SwappedPair", "find_swapped", "flip_warnings", "movement"]

_SIDE = 32
_CELLS = 4
_SEGMENTS = 3
_MOST_CLIPS = 300
_FEWEST_CLIPS = 8
_FEWEST_SHARE = 20
_FOLDS = 5
_NEAREST = 3
_TOLD = 0.65
_CHANCE = 0.01
_SMOOTH = 4.0
"""Added to the squared gradients, in squared grey levels a pixel: a cell without texture does not move."""


@dataclass(frozen=True)
class SwappedPair:
    """Two classes that mirroring makes of each other. Shares are of ``n`` clips, each judged by other groups.

    Attributes:
        first: One class.
        second: The other.
        n: Clips of both.
        right: Share that a judge of the two classes tells rightly.
        mirrored_right: Share that it tells rightly when they are mirrored: far less than half.
    """

    first: str
    second: str
    n: int
    right: float
    mirrored_right: float


def flip_warnings(
    clips: Sequence[LabelledClip], classes: Sequence[str], spec: ClipSpec, cache: ClipCache
) -> tuple[str, ...]:
    """Say why clips should not be mirrored: by the names of the classes, and by how the clips move.

    Of many clips 300 are looked at, or 20 of each class; of a clip with several windows the middle one.

    Args:
        clips: Training clips.
        classes: All classes.
        spec: How clips are cut.
        cache: The decoded clips.
    """
    return tuple(line for line in (flip_suggestion(classes), _by_movement(clips, spec, cache)) if line)


def _by_movement(clips: Sequence[LabelledClip], spec: ClipSpec, cache: ClipCache) -> str | None:
    chosen = _spread(clips)
    windows = [expand_windows([clip], spec) for clip in chosen]
    pixels = (cache.load(of_clip[len(of_clip) // 2], spec).pixels for of_clip in windows)
    pairs = [(movement(own), movement(own[:, :, ::-1])) for own in pixels]
    found = find_swapped(
        np.array([own for own, _ in pairs]),
        np.array([mirrored for _, mirrored in pairs]),
        [clip.label for clip in chosen],
        [clip.group or clip.path.as_posix() for clip in chosen],
    )
    if not found:
        return None
    named = "; ".join(
        f"{pair.first} and {pair.second} (told apart in {pair.right:.0%} of {pair.n} clips, mirrored in"
        f" {pair.mirrored_right:.0%})"
        for pair in found[:4]
    )
    more = f"; and {len(found) - 4} more pairs" if len(found) > 4 else ""
    return f"mirroring makes training clips of one class move as those of another: {named}{more}; use --no-flip"


def find_swapped(
    own: np.ndarray, mirrored: np.ndarray, labels: Sequence[str], groups: Sequence[str]
) -> tuple[SwappedPair, ...]:
    """Return the pairs of classes that mirroring makes of each other, the plainest first.

    For each pair a linear judge (discriminant analysis, covariance shrunk as Ledoit and Wolf 2004) learns from
    the clips as they are and is asked of those of other groups, as they are and mirrored. A pair is named where
    the judge is right of at least 65 % as they are and at most 35 % mirrored, of less than half of each class,
    and that loss is no chance (exact test of McNemar 1947, 1 % over all pairs asked). A class with fewer than
    8 clips is left out, and of many classes those pairs that are far from alike.

    Args:
        own: Features of the clips, float ``(N, D)``.
        mirrored: Of the same clips mirrored.
        labels: N classes.
        groups: N groups.
    """
    names, names_of, groups_of = sorted(set(labels)), np.array(labels), np.array(groups)
    names = [name for name in names if (names_of == name).sum() >= _FEWEST_CLIPS]
    wanted = _nearest_pairs(own, mirrored, names, names_of)
    found: list[SwappedPair] = []
    for first, second in wanted:
        these = np.isin(names_of, [first, second])
        is_second = names_of[these] == second
        right = _judged_right(own[these], mirrored[these], is_second, groups_of[these])
        if right is not None and _is_swapped(right, is_second, num_pairs=len(wanted)):
            as_is, mirror = right.mean(axis=1).tolist()
            found.append(SwappedPair(first, second, len(is_second), as_is, mirror))
    return tuple(sorted(found, key=lambda pair: pair.mirrored_right - pair.right))


def _nearest_pairs(
    own: np.ndarray, mirrored: np.ndarray, names: Sequence[str], names_of: np.ndarray
) -> list[tuple[str, str]]:
    """Return the pairs in which one class, mirrored, is on average among the nearest to the other."""
    scale = own.std(axis=0) + 1e-6
    pairs: set[tuple[str, str]] = set()
    for name in names:
        mean = (mirrored[names_of == name] / scale).mean(axis=0)
        others = [other for other in names if other != name]
        others.sort(
            key=lambda other: float(np.sum((mean - (own[names_of == other] / scale).mean(axis=0)) ** 2))
        )
        pairs |= {(min(name, other), max(name, other)) for other in others[:_NEAREST]}
    return sorted(pairs)


def _judged_right(
    own: np.ndarray, mirrored: np.ndarray, is_second: np.ndarray, groups: np.ndarray
) -> np.ndarray | None:
    """Return bool ``(2, n)``: which clips are told rightly, as they are and mirrored; None without a judge."""
    num_folds = min(_FOLDS, len(set(groups.tolist())))
    if num_folds < 2:
        return None
    right = np.zeros((2, len(is_second)), bool)
    for learn, ask in GroupKFold(num_folds).split(own, is_second, groups):
        if len(set(is_second[learn].tolist())) < 2:
            return None
        scale = own[learn].std(axis=0) + 1e-6
        judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        judge.fit(own[learn] / scale, is_second[learn])
        right[:, ask] = [judge.predict(part[ask] / scale) == is_second[ask] for part in (own, mirrored)]
    return right


def _is_swapped(right: np.ndarray, is_second: np.ndarray, *, num_pairs: int) -> bool:
    as_is, mirrored = right
    lost, won = int((as_is & ~mirrored).sum()), int((mirrored & ~as_is).sum())
    if as_is.mean() < _TOLD or mirrored.mean() > 1 - _TOLD or lost + won == 0:
        return False
    better = max(float(mirrored[is_second].mean()), float(mirrored[~is_second].mean()))
    chance = float(binomtest(lost, lost + won, alternative="greater").pvalue)
    return better < 0.5 and chance < _CHANCE / num_pairs


def movement(pixels: np.ndarray) -> np.ndarray:
    """Return how a clip moves and how bright it is, on a coarse grid: float ``(D,)``.

    For each cell of 4 x 4 and each third of the clip: the displacement that the brightness followed (Lucas and
    Kanade 1981), in pixels of a 32 x 32 picture, and how much it changed; and each cell's mean brightness.

    Args:
        pixels: uint8 ``(T, H, W, 3)``.
    """
    green = torch.from_numpy(np.ascontiguousarray(pixels[..., 1])).float()
    small = functional.adaptive_avg_pool2d(green[:, None], _SIDE)[:, 0].numpy()
    bright = _cell_means(small.mean(axis=0))
    if len(small) < 2:
        return (bright - bright.mean()).ravel()
    middle = (small[1:] + small[:-1]) / 2
    down, right = np.gradient(middle, axis=(1, 2))
    change = small[1:] - small[:-1]
    products = (right * right, right * down, down * down, right * change, down * change, change * change)
    parts = []
    for part in np.array_split(np.stack(products), min(_SEGMENTS, len(change)), axis=1):
        xx, xy, yy, xt, yt, tt = _cell_means(part.mean(axis=1))
        xx, yy = xx + _SMOOTH, yy + _SMOOTH
        area = xx * yy - xy * xy
        parts += [(xy * yt - yy * xt) / area, (xy * xt - xx * yt) / area, np.sqrt(tt)]
    return np.concatenate([np.ravel(part) for part in (*parts, bright - bright.mean())])


def _cell_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each cell: ``(..., 32, 32)`` to ``(..., 4, 4)``."""
    size = _SIDE // _CELLS
    return values.reshape(*values.shape[:-2], _CELLS, size, _CELLS, size).mean(axis=(-3, -1))


def _spread(clips: Sequence[LabelledClip]) -> list[LabelledClip]:
    """Return 300 clips at most, or 20 of each class, as many of one as of another as far as there are."""
    of_class: dict[str, list[LabelledClip]] = {}
    for place in np.random.default_rng(0).permutation(len(clips)):
        of_class.setdefault(clips[int(place)].label, []).append(clips[int(place)])
    share = max(_FEWEST_SHARE, _MOST_CLIPS // max(1, len(of_class)))
    return [clip for members in of_class.values() for clip in members[:share]]
