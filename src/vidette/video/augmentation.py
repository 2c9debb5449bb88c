"""Random changes of training clips that treat a clip as one picture: every frame is changed alike."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from vidette.errors import SettingError

__all__ = ["Augmentation", "augment", "flip_suggestion", "view_crops"]

_GREY = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""RGB to brightness and two axes of colour; turning the two axes turns the hue."""

_MOST = {
    "rotate": 180.0,
    "translate": 0.5,
    "zoom": 1.0,
    "colour": 0.9,
    "hue": 0.5,
    "blur": 10.0,
    "noise": 1.0,
    "erase": 0.9,
    "time_shift": 0.5,
    "time_jitter": 4.0,
    "speed": 4.0,
}
"""The largest strength of each change."""

_NUM_VIEWS = 6


@dataclass(frozen=True)
class Augmentation:
    """How far training may change a clip; by default not at all.

    Every strength is the most that a clip can get; each clip gets an amount drawn between none and that.

    Attributes:
        crop_scale_min: The smallest random crop, as a fraction of the area, above 0 to 1; 1 keeps the whole.
        rotate: The clip turns by up to this many degrees either way, 0 to 180.
        translate: It moves by up to this share of its height and width either way, 0 to 0.5.
        zoom: It grows or shrinks by up to this fraction, 0 to 1: 0.25 is 1.25 times to 1 / 1.25 times. Where
            turning, moving and shrinking leave a gap, the border goes on.
        flip: Mirror left and right half of the time; wrong where left and right are different classes.
        colour: Brightness, contrast and saturation change by up to this fraction, 0 to 0.9.
        hue: The hue turns by up to this fraction of the colour circle, either way, 0 to 0.5.
        blur: Largest standard deviation of a Gaussian blur, in pixels of the clip.
        noise: Largest standard deviation of pixel noise, as a fraction of white. Its strength is the clip's;
            the noise itself differs from frame to frame, as a camera's does.
        erase: Largest share of the picture under one rectangle, which has the clip's mean colour.
        time_shift: The clip begins earlier or later by up to this share of its length; the picture that is
            missing at an end is the first or last one, held.
        time_jitter: Each frame may come from up to this many frames before or after; order is kept.
        speed: The clip runs faster or slower by up to this fraction: 0.5 is 1.5 times to 1 / 1.5 times. A
            slower clip shows a part of the movement; a faster one is over early and stands still.
    """

    crop_scale_min: float = 1.0
    rotate: float = 0.0
    translate: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    colour: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    time_shift: float = 0.0
    time_jitter: float = 0.0
    speed: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_scale_min <= 1:
            raise SettingError(f"crop_scale_min is {self.crop_scale_min}; expected above 0, up to 1")
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise SettingError(f"{name} is {getattr(self, name)}; expected 0 to {most:g}")


@dataclass(frozen=True)
class _Draws:
    """What chance decides for one clip; the same numbers are drawn whatever is switched on.

    Each number is from 0 to 1, but for ``colours``, which are from -1 to 1.
    """

    crop: np.ndarray
    flip: float
    colours: np.ndarray
    hue: float
    blur: float
    noise: float
    erase: np.ndarray
    start: float
    shift: float
    speed: float
    place: np.ndarray


def _drawn(generator: np.random.Generator) -> _Draws:
    first, colours, more = generator.random(5), generator.uniform(-1, 1, 3), generator.random(14)
    (hue, blur, noise), erase, (start, shift, speed) = more[:3], more[3:7], more[7:10]
    return _Draws(first[:4], first[4], colours, hue, blur, noise, erase, start, shift, speed, more[10:])


def augment(pixels: np.ndarray, augmentation: Augmentation, *, generator: np.random.Generator) -> np.ndarray:
    """Change a clip as one picture: the same crop, mirror, colour, blur and rectangle for every frame.

    Args:
        pixels: uint8 ``(T, H, W, 3)``, RGB; not changed.
        augmentation: How far to go.
        generator: Where the randomness comes from. What one change draws does not depend on which others are
            switched on.

    Returns:
        uint8 ``(T, H, W, 3)``.
    """
    draws = _drawn(generator)
    changed = _retimed(pixels, augmentation, draws, generator=generator)
    changed = _cropped(changed, draws.crop, scale_min=augmentation.crop_scale_min)
    if augmentation.rotate > 0 or augmentation.translate > 0 or augmentation.zoom > 0:
        changed = _placed(changed, augmentation, 2 * draws.place - 1)
    if augmentation.flip and draws.flip < 0.5:
        changed = changed[:, :, ::-1]
    if augmentation.colour > 0 or augmentation.hue > 0:
        changed = _coloured(changed, augmentation, draws)
    if augmentation.blur > 0:
        changed = _blurred(changed, sigma=augmentation.blur * draws.blur)
    if augmentation.noise > 0:
        changed = _noisy(changed, deviation=255 * augmentation.noise * draws.noise, generator=generator)
    if augmentation.erase > 0:
        changed = _erased(changed, draws.erase, area_max=augmentation.erase)
    return np.ascontiguousarray(changed)


def _retimed(
    pixels: np.ndarray, augmentation: Augmentation, draws: _Draws, *, generator: np.random.Generator
) -> np.ndarray:
    """Take other frames of the clip, in order: speed, then shift, then jitter."""
    last = len(pixels) - 1
    rate = (1 + augmentation.speed) ** (2 * draws.speed - 1)
    indices = rate * np.arange(len(pixels)) + draws.start * last * (1 - rate)
    indices += augmentation.time_shift * (2 * draws.shift - 1) * len(pixels)
    if augmentation.time_jitter > 0:
        indices += augmentation.time_jitter * generator.uniform(-1, 1, len(pixels))
    nearest = np.sort(np.rint(indices).clip(0, last).astype(int))
    return pixels if np.array_equal(nearest, np.arange(len(pixels))) else pixels[nearest]


def _cropped(pixels: np.ndarray, draws: np.ndarray, *, scale_min: float) -> np.ndarray:
    """Cut one box of a random area, shape (3:4 to 4:3) and place out of all frames, brought back to size."""
    height, width = pixels.shape[1:3]
    side = np.sqrt(scale_min + (1 - scale_min) * draws[0])
    shape = np.exp((2 * draws[1] - 1) * np.log(4 / 3) / 2) if scale_min < 1 else 1.0
    rows = min(height, max(1, round(height * side / shape)))
    columns = min(width, max(1, round(width * side * shape)))
    top, left = int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1))
    return _box_at_full_size(pixels, top, left, rows, columns)


def _box_at_full_size(pixels: np.ndarray, top: int, left: int, rows: int, columns: int) -> np.ndarray:
    height, width = pixels.shape[1:3]
    if (rows, columns) == (height, width):
        return pixels
    box = _planes(pixels[:, top : top + rows, left : left + columns])
    return _pixels(functional.resize(box, [height, width], antialias=True))


def _placed(pixels: np.ndarray, augmentation: Augmentation, draws: np.ndarray) -> np.ndarray:
    """Turn, move and scale all frames alike, about the middle; the border goes on."""
    height, width = pixels.shape[1:3]
    angle = math.radians(augmentation.rotate * draws[0])
    scale = (1 + augmentation.zoom) ** draws[1]
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    turn = turn * np.array([[1, height / width], [width / height, 1]])  # from pixels to halves of each side
    moved = -turn @ (2 * augmentation.translate * draws[2:])
    matrix = torch.from_numpy(np.concatenate([turn, moved[:, None]], axis=1)).float()
    shape = [len(pixels), 3, height, width]
    grid = nn.functional.affine_grid(matrix.expand(len(pixels), 2, 3), shape, align_corners=False)
    planes = nn.functional.grid_sample(
        _planes(pixels).float(), grid, padding_mode="border", align_corners=False
    )
    return _pixels(planes.round().to(torch.uint8))


def _coloured(pixels: np.ndarray, augmentation: Augmentation, draws: _Draws) -> np.ndarray:
    """Change brightness, contrast (about mean grey), saturation and hue, as one affine map of RGB."""
    brightness, contrast, saturation = 1 + augmentation.colour * draws.colours
    mean = float(pixels.reshape(-1, 3).mean(axis=0) @ _GREY)
    mix = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _GREY)
    if augmentation.hue > 0:
        mix = mix @ _hue_turned(2 * math.pi * augmentation.hue * (2 * draws.hue - 1))
    matrix = (brightness * contrast * mix).astype(np.float32)
    offset = np.float32(brightness * (1 - contrast) * mean)
    changed = pixels.astype(np.float32) @ matrix.T + offset
    return np.clip(changed + 0.5, 0, 255).astype(np.uint8)


def _hue_turned(angle: float) -> np.ndarray:
    """Return the map of RGB that turns the hue by ``angle`` radians and keeps grey and brightness."""
    turn = np.eye(3)
    turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return np.linalg.inv(_YIQ) @ turn @ _YIQ


def _blurred(pixels: np.ndarray, *, sigma: float) -> np.ndarray:
    size = 2 * math.ceil(2 * sigma) + 1
    if sigma < 0.1 or size // 2 >= min(pixels.shape[1:3]):
        return pixels
    return _pixels(functional.gaussian_blur(_planes(pixels), [size, size], [sigma, sigma]))


def _noisy(pixels: np.ndarray, *, deviation: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(pixels.shape, dtype=np.float32)
    noise *= deviation
    noise += pixels
    noise += 0.5
    return np.clip(noise, 0, 255, out=noise).astype(np.uint8)


def _erased(pixels: np.ndarray, draws: np.ndarray, *, area_max: float) -> np.ndarray:
    """Cover one rectangle of a random area, shape (1:2 to 2:1) and place with the clip's mean colour."""
    height, width = pixels.shape[1:3]
    side, shape = np.sqrt(area_max * draws[0]), 2 ** (draws[1] - 0.5)
    rows = min(height, round(height * side / shape))
    columns = min(width, round(width * side * shape))
    top, left = int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1))
    covered = pixels.copy()
    covered[:, top : top + rows, left : left + columns] = pixels.mean(axis=(0, 1, 2)).round()
    return covered


def _planes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)


def _pixels(planes: Tensor) -> np.ndarray:
    return planes.permute(0, 2, 3, 1).numpy()


def view_crops(pixels: np.ndarray, num: int, *, side: float = 0.875) -> list[np.ndarray]:
    """Return several views of a clip, whose answers are averaged at test time.

    The first is the whole picture, the second its centre, the others its corners; each is a crop of all frames
    brought back to the clip's size. None is mirrored.

    Args:
        pixels: uint8 ``(T, H, W, 3)``, RGB.
        num: How many views, 1 to 6.
        side: Height and width of a crop, as a share of the picture's, above 0 to 1.

    Returns:
        ``num`` clips, each uint8 ``(T, H, W, 3)``; the first is ``pixels`` itself.

    Raises:
        SettingError: ``num`` or ``side`` is out of range.

    Example:
        >>> [view.shape for view in view_crops(np.zeros((2, 16, 16, 3), np.uint8), 3)]
        [(2, 16, 16, 3), (2, 16, 16, 3), (2, 16, 16, 3)]
    """
    if not 1 <= num <= _NUM_VIEWS:
        raise SettingError(f"number of views is {num}; expected 1 to {_NUM_VIEWS}")
    if not 0 < side <= 1:
        raise SettingError(f"side of a view is {side}; expected above 0, up to 1")
    height, width = pixels.shape[1:3]
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    down, right = height - rows, width - columns
    corners = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)]
    crops = [_box_at_full_size(pixels, top, left, rows, columns) for top, left in corners[: num - 1]]
    return [pixels, *(np.ascontiguousarray(crop) for crop in crops)]


_SIDED = re.compile(r"(left|right)(wards?|hand(ed)?|most)?|(anti|counter)?clockwise|c?cw")


def flip_suggestion(class_names: Sequence[str]) -> str | None:
    """Say that mirroring is unsafe where the names of classes tell left from right or a sense of turning.

    Args:
        class_names: The classes; words are told by case, digits and punctuation.

    Returns:
        A sentence for people, or None where no name has such a word.

    Example:
        >>> flip_suggestion(["walk", "turnLeft"])
        'class turnLeft names a side, which a mirrored clip gets wrong; train with --no-flip'
        >>> flip_suggestion(["bright", "upright"]) is None
        True
    """
    sided = [name for name in class_names if any(_SIDED.fullmatch(word) for word in _words(name))]
    if not sided:
        return None
    named = f"{', '.join(sided[:4])}{', ...' if len(sided) > 4 else ''}"
    subject = f"class {named} names" if len(sided) == 1 else f"classes {named} name"
    return f"{subject} a side, which a mirrored clip gets wrong; train with --no-flip"


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    joined = re.sub(r"(?i)\b(counter|anti)[\s_-]+clockwise", r"\1clockwise", apart)
    return [word.lower() for word in re.split(r"[\W\d_]+", joined) if word]
