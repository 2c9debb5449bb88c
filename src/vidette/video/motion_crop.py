"""A crop that follows the motion of a clip: one rectangle around what moves, cut from the large pictures.

The change from each chosen frame to the next is measured on small grey pictures, without what moves all of the
picture (a camera that shakes, light that changes) and without noise. The rectangle holds nearly all of the
change of the whole clip, so every frame of a clip gets the same crop.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter

from vidette.errors import InputMismatchError
from vidette.video.clip import ClipSpec
from vidette.video.transforms import resized

__all__ = ["Box", "clip_pixels", "motion_box", "motion_energy"]

_LOOK_SIDE = 320
"""The long side of the pictures that motion is looked for in: a person 50 of 480 rows high has 17."""
_LEAST_CHANGE = 6.0
"""Grey levels of change that are never motion: noise of sensors and of compression."""
_NOISE_FACTOR = 4.0
"""How many times the change of the quiet part of the picture is not motion either."""
_QUIET_SHARE = 0.4
_STILL_SHARE, _STILL_CHANGE = 0.8, 2.0
"""A camera stands still where so much of the picture changes by no more grey levels than that."""
_MOST_CHANGE = 24.0
"""Grey levels over which more change counts no more: else a white sleeve outweighs the person."""
_LEAST_NEIGHBOURS = 4
"""How many of a cell and its eight neighbours must change in the same step; fewer are noise."""
_LEAST_CELLS = 6.0
"""Cells of full change in all of the clip, under which nothing moves."""
_BLOCK_SIDE = 16
"""Cells along a side of the blocks that islands of motion are made of."""
_ISLAND_SHARE = 0.1
"""An island with less change than this share of the greatest one's is left out: clocks, flicker, passers-by."""
_OUTSIDE = 0.01
"""Share of the change that may stay outside on each of the four sides."""
_MARGIN = 0.3
"""Share of the rectangle's own size that is added on each side."""
_LEAST_SIDE = 0.5
"""The shortest side of a crop, as a share of the picture's short side."""


class Box(NamedTuple):
    """A rectangle as shares of the picture, each from 0 to 1: ``[top, bottom)`` and ``[left, right)``."""

    top: float
    left: float
    bottom: float
    right: float


_WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def clip_pixels(pictures: Sequence[np.ndarray], spec: ClipSpec) -> np.ndarray:
    """Make the pixels of one clip from pictures as :class:`vidette.video.transforms.FrameResizer` gives them.

    Args:
        pictures: T pictures, uint8 ``(H, W, 3)``, RGB: at the spec's size, or where the spec follows motion at
            the larger size that is held for the crop.
        spec: Its size and resize rule are used.

    Returns:
        uint8 ``(T, spec.height, spec.width, 3)``, RGB; under ``"motion"`` each picture's part in
        :func:`motion_box`, the same for all.

    Raises:
        InputMismatchError: There is no picture.
    """
    if not pictures:
        raise InputMismatchError("no picture to make a clip of; expected at least one")
    if not spec.follows_motion:
        return np.stack(pictures)
    first = pictures[0].shape
    box = motion_box(motion_energy(_small_grey(pictures)), shape=first[:2], aspect=spec.width / spec.height)
    reformatter = VideoReformatter()
    pixels = np.empty((len(pictures), spec.height, spec.width, 3), np.uint8)
    for row, picture in enumerate(pictures):
        pixels[row] = resized(_part(picture, box), reformatter, height=spec.height, width=spec.width)
    return pixels


def _small_grey(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the pictures small and grey, uint8 ``(T, h, w)``, all of them at the shape of the first."""
    height, width = pictures[0].shape[:2]
    scale = min(1.0, _LOOK_SIDE / max(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    reformatter = VideoReformatter()
    return np.stack(
        [resized(each, reformatter, height=rows, width=columns, grey=True).copy() for each in pictures]
    )


def _part(picture: np.ndarray, box: Box) -> np.ndarray:
    height, width = picture.shape[:2]
    top, left = min(round(box.top * height), height - 1), min(round(box.left * width), width - 1)
    bottom, right = max(top + 1, round(box.bottom * height)), max(left + 1, round(box.right * width))
    return picture[top:bottom, left:right]


def motion_energy(grey: np.ndarray) -> np.ndarray:
    """Measure where a clip's pictures change from one to the next.

    Of each step: the earlier picture is moved by the whole cells that the camera was, and brought to the later
    one's brightness; a change counts where the later value lies outside of what the earlier picture holds in
    the cell and its neighbours (so that trembling by less than a cell is no change), beyond the noise of the
    picture's quiet part, and not alone.

    Args:
        grey: uint8 ``(T, h, w)``, small grey pictures.

    Returns:
        float32 ``(h, w)``: the sum over the steps, 1 a step for full change.
    """
    energy = np.zeros(grey.shape[1:], np.float32)
    for before, after in itertools.pairwise(grey):
        if not np.array_equal(before, after):
            energy += _step_energy(before.astype(np.float32), after.astype(np.float32))
    return energy


def _step_energy(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    down, right = 0, 0
    if float(np.quantile(np.abs(after - before), _STILL_SHARE)) > _STILL_CHANGE:
        down, right = _camera_shift(before, after)
    before = _moved(before, down, right)
    before = np.minimum(before * float(np.median((after + 1) / (before + 1))), 255)
    change = np.maximum(after - _neighbours(before, np.maximum), _neighbours(before, np.minimum) - after)
    floor = max(_LEAST_CHANGE, _NOISE_FACTOR * float(np.quantile(change, _QUIET_SHARE)))
    strength = np.clip((change - floor) / (_MOST_CHANGE - _LEAST_CHANGE), 0, 1)
    strength *= _moved(np.ones_like(strength), down, right, filled=False)
    moves = (strength > 0).astype(np.float32)
    return np.where(_neighbours(moves, np.add) >= _LEAST_NEIGHBOURS, strength, 0).astype(np.float32)


def _neighbours(values: np.ndarray, join: np.ufunc) -> np.ndarray:
    """Join each cell with its eight neighbours; beyond the border the cells of the border go on."""
    padded = np.pad(values, 1, mode="edge")
    rows = join(join(padded[:-2], padded[1:-1]), padded[2:])
    return join(join(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _camera_shift(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Return by how many whole cells all of the picture has moved down and right; 0, 0 where it has not.

    By phase correlation: Kuglin and Hines, "The phase correlation image alignment method" (1975). The peak is
    believed where moving by it halves the typical change.
    """
    spectrum = np.fft.rfft2(after - after.mean()) * np.conj(np.fft.rfft2(before - before.mean()))
    peaks = np.fft.irfft2(spectrum / (np.abs(spectrum) + 1e-6), s=before.shape)
    found = np.unravel_index(int(peaks.argmax()), peaks.shape)
    down, right = (int(i) if i <= n // 2 else int(i) - n for i, n in zip(found, peaks.shape, strict=True))
    if (down, right) == (0, 0):
        return 0, 0
    still = float(np.abs(after - before).mean())
    moved = float(np.abs(after - _moved(before, down, right)).mean())
    return (down, right) if moved < still / 2 else (0, 0)


def _moved(values: np.ndarray, down: int, right: int, *, filled: bool = True) -> np.ndarray:
    """Move a picture by whole cells; what comes in is the border that goes on, or 0 where it is not filled."""
    if (down, right) == (0, 0):
        return values
    rows, columns = np.arange(values.shape[0]) - down, np.arange(values.shape[1]) - right
    last_row, last_column = values.shape[0] - 1, values.shape[1] - 1
    moved = values[np.clip(rows, 0, last_row)][:, np.clip(columns, 0, last_column)]
    if not filled:
        moved[(rows < 0) | (rows > last_row)] = 0
        moved[:, (columns < 0) | (columns > last_column)] = 0
    return moved


def motion_box(energy: np.ndarray, *, shape: tuple[int, int], aspect: float) -> Box:
    """Return the rectangle that holds nearly all of the motion, with a margin; the whole one without motion.

    It is no smaller than half of the picture's short side, lies inside the picture, and has the wanted shape as
    far as the picture has room for it.

    Args:
        energy: float ``(h, w)``, from :func:`motion_energy`.
        shape: Rows and columns of the picture.
        aspect: Width over height that is wanted, in pixels of the picture.
    """
    if energy.sum() < _LEAST_CELLS:
        return _WHOLE
    energy = _great_islands(energy)
    height, width = float(shape[0]), float(shape[1])
    top, bottom = (share * height for share in _bounds(energy.sum(axis=1)))
    left, right = (share * width for share in _bounds(energy.sum(axis=0)))
    least = _LEAST_SIDE * min(height, width)
    tall = max((bottom - top) * (1 + 2 * _MARGIN), least)
    wide = max((right - left) * (1 + 2 * _MARGIN), least)
    tall, wide = max(tall, wide / aspect), max(wide, tall * aspect)
    first_row, last_row = _placed((top + bottom) / 2, tall, height)
    first_column, last_column = _placed((left + right) / 2, wide, width)
    return Box(first_row / height, first_column / width, last_row / height, last_column / width)


def _great_islands(energy: np.ndarray) -> np.ndarray:
    """Leave out the change of small islands: blocks that touch each other but no other block with change."""
    padding = [(0, -size % _BLOCK_SIDE) for size in energy.shape]
    padded = np.pad(energy, padding)
    rows, columns = (size // _BLOCK_SIDE for size in padded.shape)
    blocks = padded.reshape(rows, _BLOCK_SIDE, columns, _BLOCK_SIDE).sum(axis=(1, 3))
    is_land = blocks >= 1
    names = np.where(is_land, np.arange(1, blocks.size + 1).reshape(blocks.shape), 0)
    while True:
        joined = np.where(is_land, _neighbours(names, np.maximum), 0)
        if np.array_equal(joined, names):
            break
        names = joined
    sums = np.bincount(names.ravel(), weights=blocks.ravel())
    sums[0] = 0
    is_kept = (sums >= _ISLAND_SHARE * sums.max())[names] & is_land
    mask = np.kron(is_kept, np.ones((_BLOCK_SIDE, _BLOCK_SIDE), bool))
    kept = energy * mask[: energy.shape[0], : energy.shape[1]]
    return kept if kept.any() else energy


def _bounds(profile: np.ndarray) -> tuple[float, float]:
    """Return from where to where a profile holds all but a little on each side, as shares of its length."""
    total = np.cumsum(profile, dtype=np.float64)
    first = int(np.searchsorted(total, _OUTSIDE * total[-1], side="right"))
    last = int(np.searchsorted(total, (1 - _OUTSIDE) * total[-1], side="left"))
    return first / len(profile), (min(last, len(profile) - 1) + 1) / len(profile)


def _placed(centre: float, size: float, room: float) -> tuple[float, float]:
    """Return a stretch of a size around a centre, moved into ``[0, room)`` and no longer than that."""
    size = min(size, room)
    start = min(max(centre - size / 2, 0.0), room - size)
    return start, start + size
