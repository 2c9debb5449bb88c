"""What an audit sees of a clip: its background, how it looks at every place, and how much it changes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidette.classifier.onnx import export_onnx, open_session
from vidette.data.cache import ClipCache, clip_key
from vidette.data.manifest import LabelledClip
from vidette.data.store import ArrayStore
from vidette.errors import VideoError
from vidette.models.backbone import PACKAGED_BACKBONE, FrameBackbone, load_imagenet_weights
from vidette.video.clip import ClipSpec

__all__ = ["GRID", "LOOK_SPEC", "ClipLook", "PlacesNet", "look_at", "read_looks"]

LOOK_SPEC = ClipSpec(num_frames=16, height=224, width=224)
"""How clips are cut for an audit: 16 frames over the whole clip, the spec that training takes by default."""
GRID = 14
"""Places along each side of the picture; one is 16x16 pixels."""
_PLACE_CHANNELS = 40 + 112
_POOLED = 1280
_VERSION = "1"
_FRAMES = (0, 2, 4, 6, 9, 11, 13, 15)
_STRIP = (0, 5, 10, 15)
_STRIP_SIZE = 28


@dataclass(frozen=True, eq=False)
class ClipLook:
    """One clip as an audit sees it.

    Attributes:
        background: uint8 ``(224, 224, 3)``, the median of the clip's frames at every pixel.
        places: float16 ``(152, 14, 14)``, a descriptor of unit length at every place of the background.
        background_features: float32 ``(1280,)``, ImageNet features of the background.
        clip_features: float32 ``(2560,)``, ImageNet features of 8 frames: their mean, and the mean absolute
            difference between neighbours.
        strip: uint8 ``(4, 28, 28, 3)``, four small frames over the clip.
        brightness: Mean of all pixels, 0 to 255.
        brightest: The level that one pixel in a hundred exceeds, 0 to 255.
        change: The largest change of any place (mean of 16x16 pixels) between any frame and the first, in
            levels of 255.
    """

    background: np.ndarray
    places: np.ndarray
    background_features: np.ndarray
    clip_features: np.ndarray
    strip: np.ndarray
    brightness: float
    brightest: float
    change: float

    def __repr__(self) -> str:
        return f"ClipLook(brightness {self.brightness:.0f}, change {self.change:.1f})"


class PlacesNet(nn.Module):
    """The packaged EfficientNet-Lite0, read at two depths as descriptors of places, and at its end.

    The maps after the third and fifth stage (strides 8 and 16) are put on one grid of 14x14, standardised by
    the mean and spread that the network's own batch normalisation expects of natural pictures, and brought to
    unit length; so a descriptor says how a place differs from the average place of any picture, and does not
    depend on the data set it is met in.

    Shapes:
        ``(B, 3, 224, 224)``, normalised, to ``(B, 152 * 14 * 14 + 1280)``.
    """

    fine_mean: Tensor
    fine_std: Tensor
    coarse_mean: Tensor
    coarse_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        backbone = FrameBackbone(PACKAGED_BACKBONE)
        load_imagenet_weights(backbone)
        self.net = cast(Any, backbone.net)
        for name, stage in (("fine", 2), ("coarse", 4)):
            mean, std = _expected(self.net.blocks[stage])
            self.register_buffer(f"{name}_mean", mean[:, None, None])
            self.register_buffer(f"{name}_std", std[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return descriptors of places and pooled features, flattened into one row a picture."""
        maps: list[Tensor] = []
        x = self.net.bn1(self.net.conv_stem(x))
        for block in self.net.blocks:
            x = block(x)
            maps.append(x)
        fine = nn.functional.avg_pool2d(maps[2], 2)
        fine = _unit((fine - self.fine_mean) / self.fine_std)
        coarse = _unit((maps[4] - self.coarse_mean) / self.coarse_std)
        pooled = self.net.bn2(self.net.conv_head(x)).mean((2, 3))
        places = torch.cat([fine, coarse], dim=1) / 2**0.5
        return torch.cat([places.flatten(1), pooled], dim=1)


def _expected(stage: Any) -> tuple[Tensor, Tensor]:
    """Mean and spread of a stage's output over natural pictures: a sum of batch-normalised parts."""
    norms = [block.bn3 for block in stage]
    mean = torch.stack([norm.bias.detach() for norm in norms]).sum(0)
    variance = torch.stack([norm.weight.detach() ** 2 for norm in norms]).sum(0)
    return mean, variance.sqrt()


def _unit(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(1, keepdim=True).clamp_min(1e-12).sqrt()


def read_looks(
    clips: Sequence[LabelledClip],
    cache: ClipCache,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ClipLook | None], list[str]]:
    """Look at every clip; what was computed before is read from the cache.

    Returns:
        A look for each clip, None where it cannot be read, and the reasons for those.

    Raises:
        StorageError: The disk is full.
    """
    store = ArrayStore(cache.folder / "looks" / _VERSION)
    looks: list[ClipLook | None] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        net = _LazyNet(Path(scratch) / "places.onnx")
        for done, clip in enumerate(clips, start=1):
            try:
                looks.append(_stored_look(clip, cache, store, net))
            except VideoError as error:
                looks.append(None)
                faults.append(str(error))
            if on_progress:
                on_progress(done, len(clips))
    return looks, faults


class _LazyNet:
    """The network in ONNX Runtime, written when it is first wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.session: Any = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.session is None:
            example = torch.rand(2, 3, LOOK_SPEC.height, LOOK_SPEC.width)
            self.session = open_session(export_onnx(PlacesNet().eval(), self.path, example=example))
        return np.asarray(self.session.run(None, {self.session.get_inputs()[0].name: x})[0])


def _stored_look(clip: LabelledClip, cache: ClipCache, store: ArrayStore, net: _LazyNet) -> ClipLook:
    key = clip_key(clip, LOOK_SPEC, memo=cache.memo)
    arrays = store.load(key)
    if arrays is None or len(arrays) != 6:
        look = look_at(cache.load(clip, LOOK_SPEC).pixels, net)
        numbers = np.array([look.brightness, look.brightest, look.change])
        arrays = [
            look.background,
            look.places,
            look.background_features,
            look.clip_features,
            look.strip,
            numbers,
        ]
        store.save(key, arrays)
    background, places, background_features, clip_features, strip, numbers = arrays
    return ClipLook(background, places, background_features, clip_features, strip, *numbers.tolist())


def look_at(pixels: np.ndarray, net: Callable[[np.ndarray], np.ndarray]) -> ClipLook:
    """Reduce a clip's frames to what an audit compares.

    Args:
        pixels: uint8 ``(16, 224, 224, 3)``, RGB.
        net: Runs :class:`PlacesNet` on normalised float32 ``(B, 3, 224, 224)``.
    """
    background = np.median(pixels, axis=0).astype(np.uint8)
    pictures = np.concatenate([background[None], pixels[list(_FRAMES)]])
    out = net(np.ascontiguousarray((pictures.transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128))
    places, pooled = out[0, :-_POOLED], out[:, -_POOLED:]
    frames = pooled[1:]
    return ClipLook(
        background=background,
        places=places.reshape(_PLACE_CHANNELS, GRID, GRID).astype(np.float16),
        background_features=pooled[0],
        clip_features=np.concatenate([frames.mean(0), np.abs(np.diff(frames, axis=0)).mean(0)]),
        strip=_shrunk(pixels[list(_STRIP)], _STRIP_SIZE).round().astype(np.uint8),
        brightness=float(pixels.mean()),
        brightest=float(np.quantile(pixels[::3, ::2, ::2], 0.99)),
        change=_largest_change(pixels),
    )


def _shrunk(pictures: np.ndarray, size: int) -> np.ndarray:
    """Pictures ``(..., H, W, 3)`` averaged over equal blocks to float32 ``(..., size, size, 3)``."""
    *lead, height, width, channels = pictures.shape
    shape = (*lead, size, height // size, size, width // size, channels)
    return pictures.reshape(shape).mean(axis=(-4, -2), dtype=np.float32)


def _largest_change(pixels: np.ndarray) -> float:
    places = _shrunk(pixels, GRID)
    return float(np.abs(places - places[0]).max())
