"""Other ways in which the same clips could have come to the network, each of which is tried.

An alternative undoes one fault. Most work on the network's input; those that need other pixels (another size,
another resize rule, another span of time) are cut from the source again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vidette.video.clip import ClipSpec

__all__ = [
    "CONVENTIONS",
    "Alternative",
    "Recut",
    "colour_alternatives",
    "order_alternatives",
    "picture_alternatives",
    "recuts",
    "value_alternatives",
]

_Triple = tuple[float, float, float]

CONVENTIONS: Mapping[str, tuple[_Triple, _Triple]] = {
    "0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "-1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "ImageNet's mean and deviation": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "Kinetics' mean and deviation": ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "0..255 less ImageNet's mean": ((0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255)),
}
"""Mean and std, in units of pixel / 255 and red first, of the ways in which pixels become numbers."""


@dataclass(frozen=True, eq=False)
class Alternative:
    """One other way.

    Attributes:
        name: For people: what was tried.
        cause: Name of the finding that it speaks for.
        change: The network's input ``(N, T, C, H, W)`` to another.
        detail: What the finding says of it, for example the angle.
    """

    name: str
    cause: str
    change: Callable[[Tensor], Tensor]
    detail: str = ""


@dataclass(frozen=True)
class Recut:
    """The same source cut otherwise.

    Attributes:
        name: For people.
        cause: Name of the finding that it speaks for.
        spec: To cut by.
        stretch: Time that a clip spans, relative to now.
        detail: What the finding says of it.
    """

    name: str
    cause: str
    spec: ClipSpec
    stretch: float = 1.0
    detail: str = ""


def value_alternatives(spec: ClipSpec) -> list[Alternative]:
    """Return the other ways in which pixels become numbers, once more and once less than declared too."""
    mean, std = _in_order(spec, (spec.mean, spec.std), turned=False)
    found: list[Alternative] = []
    for name, convention in CONVENTIONS.items():
        to_mean, to_std = _in_order(spec, convention, turned=spec.channel_order == "BGR")
        if torch.allclose(to_mean, mean, atol=0.02) and torch.allclose(to_std, std, rtol=0.03):
            continue
        cause = _value_cause(spec, convention)
        found.append(
            Alternative(f"values as {name}", cause, _affine(std / to_std, (mean - to_mean) / to_std), name)
        )
    if not _is_plain(spec):
        found.append(
            Alternative(
                "normalised once more", "normalisation_missing", _affine(1 / std, -mean / std), "once more"
            )
        )
        for name, scale, shift in _BEFORE_NORMALISING:
            change = _affine(torch.full((3,), scale), (scale * mean + shift - mean) / std)
            found.append(Alternative(f"{name}, then normalised", "value_range", change, name))
        for name in ("ImageNet's mean and deviation", "0..255 less ImageNet's mean"):
            of_mean, of_std = _in_order(spec, CONVENTIONS[name], turned=spec.channel_order == "BGR")
            if not torch.allclose(of_std, std, rtol=0.03):
                undone = _affine(of_std / std, (of_mean - mean) / std)
                found.append(Alternative(f"{name} undone", "normalisation_of_another_network", undone, name))
        return found
    for name, cause in _UNDONE:
        to_mean, to_std = _in_order(spec, CONVENTIONS[name], turned=spec.channel_order == "BGR")
        undone = f"{name}, once less"
        found.append(Alternative(undone, cause, _affine(to_std, to_mean), undone))
    for name, scale in (("multiplied by 255 once more", 255.0), ("divided by 255 once more", 1 / 255)):
        found.append(Alternative(name, "value_range", _affine(torch.full((3,), scale), torch.zeros(3)), name))
    return found


_UNDONE = (
    ("ImageNet's mean and deviation", "normalisation_doubled"),
    ("-1..1", "normalisation_doubled"),
    ("0..255 less ImageNet's mean", "normalisation_of_another_network"),
)
"""What may have been done to values that a plain network wants as they are."""

_BEFORE_NORMALISING = (
    ("divided by 255 once more", 1 / 255, 0.0),
    ("divided by 255 once less", 255.0, 0.0),
    ("-1..1 brought to 0..1", 0.5, 0.5),
    ("0..1 brought to -1..1", 2.0, -1.0),
)
"""What may be wrong with pixels in 0..1 before mean and deviation: factor and shift that undo it."""


def _is_plain(spec: ClipSpec) -> bool:
    """Whether the declared values are pixels over a number, without a mean."""
    return not any(spec.mean)


def _value_cause(spec: ClipSpec, convention: tuple[_Triple, _Triple]) -> str:
    """Name the fault that a better convention speaks for."""
    own_plain, other_plain = _is_plain(spec), not any(convention[0])
    if own_plain and other_plain:
        return "value_range"
    if own_plain:
        return "value_range" if len(set(convention[0])) == 1 else "normalisation_missing"
    if other_plain:
        return "normalisation_doubled" if max(convention[1]) > 0.5 else "value_range"
    return "normalisation_of_another_network"


def _in_order(spec: ClipSpec, values: tuple[_Triple, _Triple], *, turned: bool) -> tuple[Tensor, Tensor]:
    del spec
    mean, std = torch.tensor(values[0]), torch.tensor(values[1])
    return (mean.flip(0), std.flip(0)) if turned else (mean, std)


def _affine(scale: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x * scale.view(3, 1, 1) + shift.view(3, 1, 1)


def colour_alternatives(spec: ClipSpec) -> list[Alternative]:
    """Return red and blue exchanged, before the mean and deviation of the channels."""
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    scale, shift = std.flip(0) / std, (mean.flip(0) - mean) / std
    return [
        Alternative("red and blue exchanged, then normalised", "colour_order", lambda x: x.flip(2)),
        Alternative(
            "red and blue exchanged",
            "colour_order",
            lambda x: x.flip(2) * scale.view(3, 1, 1) + shift.view(3, 1, 1),
        ),
    ]


def order_alternatives() -> list[Alternative]:
    """Return the frames played backwards."""
    return [Alternative("frames backwards", "frames_reversed", lambda x: x.flip(1), "backwards")]


def picture_alternatives(spec: ClipSpec) -> list[Alternative]:
    """Return turned, mirrored, cut, enlarged, brightened, smoothed and sharpened pictures."""
    found = [
        Alternative(f"turned by {90 * k} degrees", "rotated", _turned(k), f"{90 * k} degrees counterclockwise")
        for k in (1, 2, 3)
    ]
    found.append(Alternative("mirrored", "mirrored", lambda x: x.flip(4), "left and right"))
    for share in (0.5, 0.75):
        found += [
            Alternative(f"middle {share:.0%} of the width", "aspect", _middle(1.0, share), "too narrow"),
            Alternative(f"middle {share:.0%} of the height", "aspect", _middle(share, 1.0), "too flat"),
            Alternative(
                f"enlarged to the middle {share:.0%}", "framing", _middle(share, share), "too far away"
            ),
        ]
    for share in (0.55, 0.75):
        found += [
            Alternative(f"{share:.0%} as large", "framing", _shrunk(share, share), "cut or too near"),
            Alternative(f"{share:.0%} as wide", "aspect", _shrunk(1.0, share), "too wide"),
            Alternative(f"{share:.0%} as high", "aspect", _shrunk(share, 1.0), "too high"),
        ]
    light = [
        ("2 times brighter", "dark", _lit(spec, lambda p: 2 * p)),
        ("4 times brighter", "dark", _lit(spec, lambda p: 4 * p)),
        ("8 times brighter", "dark", _lit(spec, lambda p: 8 * p)),
        ("half as bright", "bright", _lit(spec, lambda p: p / 2)),
        ("its light taken away", "bright", _lit(spec, lambda p: (p - 0.3) / 0.7)),
        ("its light taken away, flatter", "bright", _lit(spec, lambda p: (p - 0.35) / 1.4)),
        ("contrast doubled", "low_contrast", _lit(spec, lambda p: _spread(p, 2.0))),
        ("contrast 4 times", "low_contrast", _lit(spec, lambda p: _spread(p, 4.0))),
        ("smoothed", "noisy", _lit(spec, lambda p: _blurred(p, 1.0))),
        ("smoothed more", "noisy", _lit(spec, lambda p: _blurred(p, 2.0))),
        ("sharpened", "blurred", _lit(spec, lambda p: p + 1.5 * (p - _blurred(p, 1.0)))),
        ("sharpened more", "blurred", _lit(spec, lambda p: p + 3.0 * (p - _blurred(p, 2.0)))),
    ]
    return found + [Alternative(name, cause, change) for name, cause, change in light]


def _turned(turns: int) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        turned = x.rot90(turns, (3, 4))
        return turned if turned.shape == x.shape else _resized(turned, x.shape[-2], x.shape[-1])

    return change


def _middle(rows: float, columns: float) -> Callable[[Tensor], Tensor]:
    """Cut the middle part and enlarge it to the whole."""

    def change(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tall, wide = max(2, round(rows * height)), max(2, round(columns * width))
        top, left = (height - tall) // 2, (width - wide) // 2
        return _resized(x[..., top : top + tall, left : left + wide], height, width)

    return change


def _shrunk(rows: float, columns: float) -> Callable[[Tensor], Tensor]:
    """Shrink the picture and continue its edges."""

    def change(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tall, wide = max(2, round(rows * height)), max(2, round(columns * width))
        small = _resized(x, tall, wide).flatten(0, 1)
        top, left = (height - tall) // 2, (width - wide) // 2
        pad = (left, width - wide - left, top, height - tall - top)
        return functional.pad(small, pad, mode="replicate").unflatten(0, x.shape[:2])

    return change


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    flat = functional.interpolate(x.flatten(0, 1), (height, width), mode="bilinear", antialias=True)
    return flat.unflatten(0, x.shape[:2])


def _lit(spec: ClipSpec, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Work on pixels in 0..1, and go back to the network's values."""
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    return lambda x: (change(x * std + mean).clamp(0, 1) - mean) / std


def _spread(pixels: Tensor, factor: float) -> Tensor:
    middle = pixels.mean(dim=(2, 3, 4), keepdim=True)
    return middle + factor * (pixels - middle)


def _blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Smooth with a Gaussian of ``sigma`` pixels, edges continued."""
    reach = math.ceil(2.5 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=pixels.dtype)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    flat = pixels.flatten(0, 2)[:, None]
    flat = functional.pad(flat, (reach,) * 4, mode="replicate")
    flat = functional.conv2d(functional.conv2d(flat, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return flat[:, 0].unflatten(0, pixels.shape[:3])


def recuts(spec: ClipSpec) -> list[Recut]:
    """Return other sizes, other resize rules and other spans of time."""
    import dataclasses

    rules: tuple[Literal["stretch", "crop", "pad"], ...] = ("stretch", "crop", "pad")
    found = [
        Recut(f"resized by {rule}", "resize_rule", dataclasses.replace(spec, resize=rule), detail=rule)
        for rule in rules
        if rule != spec.resize
    ]
    for factor in (0.5, 2.0):
        height, width = round(spec.height * factor), round(spec.width * factor)
        if min(height, width) >= 16 and max(height, width) <= 448:
            other = dataclasses.replace(spec, height=height, width=width)
            found.append(Recut(f"at {height}x{width}", "wrong_size", other, detail=f"{height}x{width}"))
    if spec.num_frames > 1:
        for stretch in (0.25, 0.5, 2.0, 4.0):
            found.append(Recut(f"{stretch:g} times the span", "span", spec, stretch, f"{stretch:g} times"))
    return found


def smoothest_order(pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the order of frames in which neighbours differ least, greedily, and the two costs.

    Args:
        pixels: uint8 ``(T, H, W, 3)``.

    Returns:
        The order ``(T,)`` from the end that leaves the shorter path, the mean step in the given order, and the
        mean step in that order, in levels of 0 to 255.
    """
    small = pixels[:, ::2, ::2].astype(np.float32).reshape(len(pixels), -1)
    apart = np.abs(small[:, None] - small[None]).mean(-1)
    given = float(np.diagonal(apart, 1).mean())
    best, cost = np.arange(len(pixels)), given
    for start in range(len(pixels)):
        order, left = [start], set(range(len(pixels))) - {start}
        while left:
            order.append(min(left, key=lambda j: float(apart[order[-1], j])))
            left.remove(order[-1])
        length = float(np.mean([apart[a, b] for a, b in itertools.pairwise(order)]))
        if length < cost - 1e-9:
            best, cost = np.array(order), length
    return best, given, cost
