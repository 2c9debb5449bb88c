"""What a camera, its scene and its network do to a clip: each disturbance by name, at five levels.

Those of the picture are in ``corruption_pixels``, of time in ``corruption_time``, of the codec in
``corruption_codec``. Kinds and the five levels follow Hendrycks and Dietterich 2019, "Benchmarking neural
network robustness to common corruptions and perturbations", and for video Yi et al. 2021, "Benchmarking the
robustness of spatial-temporal models against corruptions". The strengths are Vidette's own, lengths as shares
of the picture, so that they mean the same at every size.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from vidette.errors import SettingError, unknown_name
from vidette.video import corruption_codec as codec
from vidette.video import corruption_pixels as picture
from vidette.video import corruption_time as time
from vidette.video.clip import Clip

__all__ = ["CORRUPTIONS", "FAMILIES", "NUM_LEVELS", "Corruption", "Family", "corrupt", "corruption_generator"]

NUM_LEVELS = 5
"""Levels of every corruption; level 0 is the clip as it is."""

Family: TypeAlias = Literal[
    "noise", "blur", "light", "occlusion", "weather", "resolution", "codec", "time", "geometry"
]
FAMILIES: tuple[Family, ...] = (
    "noise",
    "blur",
    "light",
    "occlusion",
    "weather",
    "resolution",
    "codec",
    "time",
    "geometry",
)

_Change: TypeAlias = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]
_Order: TypeAlias = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """One kind of disturbance. It changes the pixels, or only which frames are shown.

    Attributes:
        name: As given on the command line.
        family: What it belongs to.
        unit: What a strength counts, for people.
        strengths: Five, from weak to strong.
        change: Pixels uint8 ``(T, H, W, 3)``, times ``(T,)``, strength, generator to pixels; None where only
            the order changes.
        order: Times, strength, generator to int ``(T,)``, the frames shown; None where the pixels change.
    """

    name: str
    family: Family
    unit: str
    strengths: tuple[float, float, float, float, float]
    change: _Change | None = None
    order: _Order | None = None

    def strength(self, level: int) -> float:
        """Return the strength of a level from 1 to 5.

        Raises:
            SettingError: There is no such level.
        """
        if not 1 <= level <= NUM_LEVELS:
            raise SettingError(f"level of {self.name} is {level}; expected 1 (weak) to {NUM_LEVELS} (strong)")
        return self.strengths[level - 1]

    def frames(self, seconds: np.ndarray, level: int, *, generator: np.random.Generator) -> np.ndarray | None:
        """Return which frame stands in the place of each, int ``(T,)``; None where the pixels change."""
        return self.order(seconds, self.strength(level), generator) if self.order else None

    def __call__(self, clip: Clip, level: int, *, generator: np.random.Generator) -> Clip:
        """Return the clip disturbed; its times are as before, since the watcher's clock goes on."""
        frames = self.frames(clip.seconds, level, generator=generator)
        if frames is not None:
            return dataclasses.replace(clip, pixels=clip.pixels[frames])
        assert self.change is not None
        changed = self.change(clip.pixels, clip.seconds, self.strength(level), generator)
        return dataclasses.replace(clip, pixels=changed)


_KINDS = (
    Corruption(
        "gaussian_noise", "noise", "std, of white", (0.04, 0.08, 0.12, 0.18, 0.26), picture.gaussian_noise
    ),
    Corruption("shot_noise", "noise", "photons of white", (60, 25, 12, 6, 3), picture.shot_noise),
    Corruption(
        "impulse_noise", "noise", "share of values", (0.01, 0.03, 0.06, 0.12, 0.2), picture.impulse_noise
    ),
    Corruption("defocus", "blur", "radius, of a side", (0.004, 0.008, 0.014, 0.022, 0.034), picture.defocused),
    Corruption(
        "motion_blur", "blur", "length, of a side", (0.015, 0.03, 0.05, 0.08, 0.12), picture.motion_blurred
    ),
    Corruption("dark", "light", "stops", (-1, -2, -3, -4.5, -6), picture.brighter),
    Corruption("bright", "light", "stops", (0.5, 1, 1.5, 2.25, 3), picture.brighter),
    Corruption("low_contrast", "light", "contrast left", (0.7, 0.5, 0.35, 0.2, 0.1), picture.low_contrast),
    Corruption("light_drift", "light", "stops at the end", (0.75, 1.5, 2.25, 3, 4), picture.light_drift),
    Corruption("light_jump", "light", "stops", (0.75, 1.5, 2.25, 3, 4), picture.light_jump),
    Corruption(
        "fixed_object", "occlusion", "share covered", (0.04, 0.08, 0.15, 0.25, 0.4), picture.fixed_object
    ),
    Corruption(
        "moving_object", "occlusion", "share covered", (0.04, 0.08, 0.15, 0.25, 0.4), picture.moving_object
    ),
    Corruption("haze", "weather", "density", (0.3, 0.6, 1, 1.6, 2.4), picture.hazy),
    Corruption("low_resolution", "resolution", "times fewer", (1.5, 2, 3, 5, 8), picture.low_resolution),
    Corruption("h264", "codec", "quantiser", (32, 38, 43, 47, 51), codec.coarse_h264),
    Corruption("lost_packets", "codec", "share lost", (0.02, 0.05, 0.1, 0.2, 0.4), codec.lost_packets),
    Corruption("frame_drop", "time", "share lost", (0.1, 0.25, 0.4, 0.6, 0.8), order=time.frame_drop),
    Corruption("freeze", "time", "share held", (0.2, 0.35, 0.5, 0.7, 0.9), order=time.freeze),
    Corruption("frame_rate", "time", "times fewer", (2, 3, 4, 6, 8), order=time.frame_rate),
    Corruption("faster", "time", "times", (1.25, 1.5, 2, 3, 4), order=time.faster),
    Corruption("slower", "time", "times", (1.25, 1.5, 2, 3, 4), order=time.slower),
    Corruption("time_jitter", "time", "frames", (0.75, 1.5, 2.5, 4, 6), order=time.time_jitter),
    Corruption("shake", "geometry", "of a side", (0.01, 0.02, 0.04, 0.07, 0.1), picture.shaken),
    Corruption("rotation", "geometry", "degrees", (5, 10, 18, 28, 45), picture.rotated),
)

CORRUPTIONS: dict[str, Corruption] = {kind.name: kind for kind in _KINDS}
"""All corruptions by name, family by family."""


def corrupt(clip: Clip, name: str, level: int, *, generator: np.random.Generator) -> Clip:
    """Disturb a clip.

    Args:
        clip: Of any size; not changed.
        name: One of :data:`CORRUPTIONS`.
        level: 0 returns the clip itself; 1 (weak) to 5 (strong).
        generator: What chance decides is drawn from it; from equal ones, a higher level is more of the same.

    Raises:
        SettingError: The name or the level is unknown.

    Example:
        >>> clip = Clip(np.full((4, 32, 32, 3), 128, np.uint8), np.arange(4) / 8)
        >>> int(corrupt(clip, "dark", 3, generator=np.random.default_rng(0)).pixels.max())
        50
    """
    if name not in CORRUPTIONS:
        raise SettingError(unknown_name("corruption", name, CORRUPTIONS))
    if level == 0:
        return clip
    return CORRUPTIONS[name](clip, level, generator=generator)


def corruption_generator(name: str, *, seed: int, clip_number: int) -> np.random.Generator:
    """Return what a corruption of one clip draws from: the same at every level, another for each clip."""
    return np.random.default_rng([seed, clip_number, zlib.crc32(name.encode())])
