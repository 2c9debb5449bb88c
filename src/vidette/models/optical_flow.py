"""Dense optical flow without learnt weights: how far each place of a picture has moved since the one before."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dense_flow"]

_SMALLEST_SIDE = 7
_ITERATIONS = 2
_RADIUS = 2
_FLAT = 0.02
"""Squared slope, in units of the normalised input, below which a place is too plain to be followed."""
_LONGEST_STEP = 1.5


def dense_flow(before: Tensor, after: Tensor) -> Tensor:
    """Return the movement from one grey picture to the next, by the method of Lucas and Kanade on a pyramid.

    Each place takes the shift that explains the change of its 5x5 neighbours best (least squares, smoothed
    twice); coarse pictures come first, so that shifts of many pixels are found.

    Args:
        before: ``(B, 1, H, W)``, normalised, H and W 4 or more.
        after: The same, of the next moment.

    Returns:
        ``(B, 2, H // 2, W // 2)``: x, to the right, and y, downwards, in pixels of the given pictures.

    Source:
        B. D. Lucas and T. Kanade, An iterative image registration technique, IJCAI 1981; J.-Y. Bouguet,
        Pyramidal implementation of the Lucas Kanade feature tracker, 2000.
    """
    levels = max(1, int(math.log2(max(1, min(before.shape[-2:]) / _SMALLEST_SIDE))))
    pictures = [(before, after)]
    for _ in range(levels):
        a, b = pictures[-1]
        pictures.append((F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)))
    a, b = pictures[-1]
    flow = torch.zeros_like(torch.cat([a, a], dim=1))
    for level in range(levels, 0, -1):
        a, b = pictures[level]
        if level < levels:
            flow = 2 * F.interpolate(flow, size=a.shape[-2:], mode="bilinear", align_corners=False)
        flow = _refined(a, b, flow)
    return 2 * flow


def _refined(a: Tensor, b: Tensor, flow: Tensor) -> Tensor:
    """Improve ``(B, 2, h, w)`` in pixels of pictures ``(B, 1, h, w)``."""
    wide = F.pad(a, (1, 1, 1, 1), mode="replicate")
    along_x = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2
    along_y = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2
    slopes = torch.cat([along_x, along_y], dim=1)
    xx, yy = (_smooth(slopes.square()) + _FLAT).split(1, dim=1)
    xy = _smooth(along_x * along_y)
    determinant = xx * yy - xy * xy
    for _ in range(_ITERATIONS):
        xt, yt = _smooth(slopes * (_moved(b, flow) - a)).split(1, dim=1)
        step = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / determinant
        flow = flow + step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
    return flow


def _smooth(x: Tensor) -> Tensor:
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x, (_RADIUS,) * 4, mode="replicate"), 2 * _RADIUS + 1, stride=1)
    return x


def _moved(x: Tensor, flow: Tensor) -> Tensor:
    """Return pictures read where the flow points to; beyond the edge its pixels repeat."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    right = (columns + flow[:, 0]) * (2 / max(1, width - 1)) - 1
    down = (rows + flow[:, 1]) * (2 / max(1, height - 1)) - 1
    places = torch.stack([right, down], dim=-1)
    return F.grid_sample(x, places, mode="bilinear", padding_mode="border", align_corners=True)
