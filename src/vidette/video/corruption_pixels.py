"""Disturbances of the picture: noise, blur, light, things in the way, haze, few pixels, a camera that moves.

Each takes uint8 ``(T, H, W, 3)`` and returns the same shape. What chance decides (a place, a direction, the
noise) is drawn from the generator alone, whatever the strength, so that a stronger one is more of the same.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.signal import fftconvolve
from torch import Tensor
from torch.nn import functional as nn_functional
from torchvision.transforms.v2 import InterpolationMode, functional

__all__ = [
    "brighter",
    "defocused",
    "fixed_object",
    "gaussian_noise",
    "hazy",
    "impulse_noise",
    "light_drift",
    "light_jump",
    "low_contrast",
    "low_resolution",
    "motion_blurred",
    "moving_object",
    "rotated",
    "shaken",
    "shot_noise",
]

_GAMMA = 2.2
"""Pixels are about the power 1 / 2.2 of the light that made them."""


def gaussian_noise(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Add normal noise, drawn anew for each value; ``strength``: standard deviation, as a share of white."""
    del seconds
    noise = generator.standard_normal(pixels.shape, dtype=np.float32)
    return _rounded(pixels + 255 * strength * noise)


def shot_noise(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Count photons: each value is a Poisson draw; ``strength``: how many photons make white."""
    del seconds
    photons = generator.poisson(pixels.astype(np.float32) * np.float32(strength / 255))
    return _rounded(photons.astype(np.float32) * np.float32(255 / strength))


def impulse_noise(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Set a share ``strength`` of the values to black or white, half of them each (salt and pepper)."""
    del seconds
    drawn = generator.random(pixels.shape, dtype=np.float32)
    return np.where(drawn < strength / 2, 0, np.where(drawn > 1 - strength / 2, 255, pixels)).astype(np.uint8)


def defocused(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Blur with a disc, as a lens out of focus does; ``strength``: its radius, as a share of the short side."""
    del seconds, generator
    radius = 0.5 + strength * min(pixels.shape[1:3])
    reach = math.ceil(radius)
    axis = np.arange(-reach, reach + 1)
    distance = np.hypot(axis[:, None], axis)
    return _filtered(pixels, np.clip(radius + 0.5 - distance, 0, 1))


def motion_blurred(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Blur along a line of one direction; ``strength``: length of the line, as a share of the short side."""
    del seconds
    angle = generator.uniform(0, math.pi)
    length = 1 + strength * min(pixels.shape[1:3])
    return _filtered(pixels, _line(length, angle))


def brighter(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Multiply the light by 2 to the power ``strength`` (photographers' stops); below 0 it gets darker."""
    del seconds, generator
    return _exposed(pixels, np.full(len(pixels), strength))


def low_contrast(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Draw all values towards the clip's mean; ``strength``: the share of the contrast that is left."""
    del seconds, generator
    mean = pixels.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    return _rounded(mean + np.float32(strength) * (pixels - mean))


def light_drift(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Change the light steadily along the clip, by ``strength`` stops at its end, up or down."""
    way = _up_or_down(generator)
    return _exposed(pixels, way * strength * _progress(seconds))


def light_jump(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Change the light at once by ``strength`` stops, up or down, somewhere in the middle half of the clip."""
    way, moment = _up_or_down(generator), generator.uniform(0.25, 0.75)
    return _exposed(pixels, way * strength * (_progress(seconds) >= moment))


def fixed_object(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Cover one place of all frames with a dark rectangle; ``strength``: its share of the picture."""
    del seconds
    height, width = pixels.shape[1:3]
    down, right, shade = generator.random(3)
    rows, columns = _side(height, strength), _side(width, strength)
    top, left = round(down * (height - rows)), round(right * (width - columns))
    covered = pixels.copy()
    covered[:, top : top + rows, left : left + columns] = _shade(shade)
    return covered


def moving_object(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Let a dark rectangle cross the picture from side to side; ``strength``: its share of the picture."""
    height, width = pixels.shape[1:3]
    way, middle, shade = _up_or_down(generator), generator.uniform(0.3, 0.7), generator.random()
    rows, columns = _side(height, strength), _side(width, strength)
    top = max(0, round(middle * height - rows / 2))
    covered = pixels.copy()
    for frame, progress in zip(covered, _progress(seconds), strict=True):
        centre = width * (progress if way > 0 else 1 - progress)
        left, right = round(centre - columns / 2), round(centre + columns / 2)
        frame[top : top + rows, max(0, left) : max(0, right)] = _shade(shade)
    return covered


def hazy(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Lay haze over the picture, thicker towards its top, where things are mostly farther away.

    Koschmieder's law: light J from distance d arrives as ``J t + A (1 - t)`` with ``t = exp(-strength d)``; the
    depth d here runs from about 0.2 at the bottom to about 1 at the top, with soft clouds in it.
    """
    del seconds
    height, width = pixels.shape[1:3]
    clouds = torch.from_numpy(generator.uniform(-0.2, 0.2, (1, 1, 5, 5)).astype(np.float32))
    clouds = nn_functional.interpolate(clouds, (height, width), mode="bilinear", align_corners=True)[
        0, 0
    ].numpy()
    depth = (np.linspace(1.0, 0.3, height, dtype=np.float32)[:, None] + clouds).clip(0.05)
    air = np.float32(generator.uniform(205, 235))
    arrives = np.exp(-np.float32(strength) * depth)[:, :, None]
    return _rounded(pixels * arrives + air * (1 - arrives))


def low_resolution(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Shrink both sides by ``strength`` and enlarge again, as a small or distant source is."""
    del seconds, generator
    height, width = pixels.shape[1:3]
    small = [max(1, round(height / strength)), max(1, round(width / strength))]
    shrunk = functional.resize(_planes(pixels), small, antialias=True)
    return _from_planes(functional.resize(shrunk, [height, width], antialias=True))


def rotated(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Turn all frames about their centre by ``strength`` degrees, either way; the corners stay black."""
    del seconds
    angle = _up_or_down(generator) * strength
    turned = functional.rotate(_planes(pixels), angle, interpolation=InterpolationMode.BILINEAR)
    return _from_planes(turned)


def shaken(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Move each frame by itself, as a shaking camera does; ``strength``: the farthest, as a share of a side."""
    del seconds
    moves = torch.from_numpy(generator.uniform(-1, 1, (len(pixels), 2)).astype(np.float32))
    maps = torch.eye(2, 3).repeat(len(pixels), 1, 1)
    maps[:, :, 2] = 2 * strength * moves
    planes = _planes(pixels).float()
    grid = nn_functional.affine_grid(maps, list(planes.shape), align_corners=False)
    moved = nn_functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return _rounded(moved.permute(0, 2, 3, 1).numpy())


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _planes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)


def _from_planes(planes: Tensor) -> np.ndarray:
    return np.ascontiguousarray(planes.permute(0, 2, 3, 1).numpy())


def _filtered(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter each channel of each frame with one point-symmetric kernel ``(k, k)``; edges are repeated."""
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge").astype(np.float32)
    weights = (kernel / kernel.sum()).astype(np.float32)[None, :, :, None]
    return _rounded(fftconvolve(padded, weights, mode="valid", axes=(1, 2)))


def _line(length: float, angle: float) -> np.ndarray:
    """Return a kernel ``(k, k)`` that holds a line through its centre, shared out over neighbouring pixels."""
    reach = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    along = np.linspace(-(length - 1) / 2, (length - 1) / 2, 16 * reach)
    x, y = reach + along * math.cos(angle), reach + along * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            weight = (1 - np.abs(x - left - right)) * (1 - np.abs(y - top - down))
            np.add.at(kernel, (top + down, left + right), weight)
    return kernel


def _exposed(pixels: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Multiply the light of frame t by ``2 ** stops[t]``; what is brighter than white is white."""
    factors = 2.0 ** (np.asarray(stops) / _GAMMA)
    tables = _rounded(factors[:, None] * np.arange(256))
    return np.stack([table[frame] for table, frame in zip(tables, pixels, strict=True)])


def _progress(seconds: np.ndarray) -> np.ndarray:
    """Return how far through the clip each frame is, 0 to 1, ``(T,)``."""
    span = seconds[-1] - seconds[0]
    return (seconds - seconds[0]) / span if span > 0 else np.linspace(0, 1, len(seconds))


def _up_or_down(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _side(length: int, share: float) -> int:
    """Return the side of a rectangle that has a share of the picture and the picture's shape."""
    return min(length, max(1, round(length * math.sqrt(share))))


def _shade(drawn: float) -> int:
    return round(20 + 50 * drawn)
