"""From a picture to the model's tensor: the one resize path and the one tensor path of every stage."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from vidette.errors import InputMismatchError
from vidette.video.clip import Clip, ClipSpec

if TYPE_CHECKING:
    import torch

__all__ = [
    "FrameResizer",
    "Geometry",
    "clip_tensor",
    "pixels_tensor",
    "resized",
    "rgb_pixels",
]

_HELD_FACTOR, _LEAST_HELD_SIDE = 4, 640
"""The longest side of a picture held for a crop: times the spec's own, or pixels where that is more."""


class FrameResizer:
    """Brings a picture to the spec's size in one pass of swscale; keep one for a source.

    Shrinking averages the area under each new pixel, so it does not alias; enlarging is bilinear. A rotation
    or mirroring that the frame carries (a telephone held upright) is applied. Under "motion" the crop is not
    known yet: the whole picture comes out, in its own shape, never enlarged, its long side at most four times
    the spec's or 640 pixels; :func:`vidette.video.motion_crop.clip_pixels` cuts the clip from it.

    Args:
        spec: Its ``height``, ``width`` and ``resize`` rule are used.
        geometry: How the source's pictures are shown; "crop" and "pad" work on the shown picture.

    Example:
        >>> FrameResizer(ClipSpec(height=16, width=24))(np.zeros((33, 65, 3), np.uint8)).shape
        (16, 24, 3)
    """

    def __init__(self, spec: ClipSpec, *, geometry: Geometry | None = None) -> None:
        self._spec = spec
        self._geometry = geometry or Geometry()
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame | np.ndarray) -> np.ndarray:
        """Resize one picture.

        Args:
            frame: A decoded frame of any pixel format, or uint8 ``(H, W, 3)`` in RGB.

        Returns:
            uint8 ``(spec.height, spec.width, 3)``, RGB; ``(H, W, 3)`` where the spec follows motion.

        Raises:
            InputMismatchError: The array is not uint8 ``(H, W, 3)``.
        """
        picture = frame if isinstance(frame, av.VideoFrame) else _wrapped(frame)
        height, width = self._geometry.shown_size(picture)
        rows, columns = _fitted(self._spec, height=height, width=width)
        turns, mirrored = self._geometry.orientation(picture)
        tall, wide = (rows, columns) if turns % 2 == 0 else (columns, rows)
        small = self._reformatter.reformat(
            picture, width=wide, height=tall, format="rgb24", interpolation=Interpolation.AREA, threads=1
        )
        size = (rows, columns) if self._spec.follows_motion else (self._spec.height, self._spec.width)
        out = np.zeros((*size, 3), np.uint8)
        _place(_turned(_plane(small), turns, mirrored=mirrored), out)
        return out


class Geometry:
    """How the pictures of one source are shown: the shape of their pixels, turned and mirrored as they ask.

    Args:
        pixel_aspect: Width over height of a stored pixel as shown; columns are stretched by it.
    """

    def __init__(self, *, pixel_aspect: float = 1.0) -> None:
        self._pixel_aspect = pixel_aspect
        self._orientations: dict[int, tuple[int, bool]] = {}

    def orientation(self, frame: av.VideoFrame) -> tuple[int, bool]:
        """Return how a frame asks to be shown: quarter turns counterclockwise, 0 to 3, then mirrored or not."""
        # Looked up once for each rotation: PyAV keeps a frame alive once its side data was read.
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = _orientation(frame)
        return self._orientations[frame.rotation]

    def stored_width(self, frame: av.VideoFrame) -> int:
        """Return the columns of a frame, stretched by the shape of its pixels but not turned."""
        return max(1, round(frame.width * self._pixel_aspect))

    def shown_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return the rows and columns of a frame as shown."""
        height, width = frame.height, self.stored_width(frame)
        return (height, width) if self.orientation(frame)[0] % 2 == 0 else (width, height)


def rgb_pixels(frame: av.VideoFrame, *, reformatter: VideoReformatter, geometry: Geometry) -> np.ndarray:
    """Return a frame at the size it is shown at as uint8 ``(H, W, 3)``, RGB, turned and mirrored as it asks."""
    width = geometry.stored_width(frame)
    rgb = reformatter.reformat(frame, width=width, format="rgb24", interpolation=Interpolation.BILINEAR)
    turns, mirrored = geometry.orientation(frame)
    return np.array(_turned(_plane(rgb), turns, mirrored=mirrored), order="C")


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    if mirrored:
        a, c = -a, -c
    return round(math.degrees(math.atan2(-b, a)) / 90) % 4, mirrored


def _turned(pixels: np.ndarray, turns: int, *, mirrored: bool) -> np.ndarray:
    turned = np.rot90(pixels, turns)
    return turned[:, ::-1] if mirrored else turned


def _wrapped(pixels: np.ndarray) -> av.VideoFrame:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InputMismatchError(f"picture is {pixels.dtype} {pixels.shape}; expected uint8 (H, W, 3) in RGB")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def _plane(frame: av.VideoFrame) -> np.ndarray:
    """View the pixels of an rgb24 frame as ``(H, W, 3)``, those of a gray frame as ``(H, W, 1)``."""
    plane, channels = frame.planes[0], 1 if frame.format.name == "gray" else 3
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width * channels].reshape(frame.height, frame.width, channels)


def resized(
    pixels: np.ndarray, reformatter: VideoReformatter, *, height: int, width: int, grey: bool = False
) -> np.ndarray:
    """Return uint8 ``(H, W, 3)`` pixels at another size as :class:`FrameResizer` resizes.

    Returns:
        uint8 ``(height, width, 3)``, or ``(height, width)`` where grey; a view that lasts until the next call.
    """
    small = reformatter.reformat(
        _wrapped(pixels),
        width=width,
        height=height,
        format="gray" if grey else "rgb24",
        interpolation=Interpolation.AREA,
        threads=1,
    )
    plane = _plane(small)
    return plane[:, :, 0] if grey else plane


def _fitted(spec: ClipSpec, *, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns that the whole picture gets under the spec's resize rule."""
    if spec.resize == "stretch":
        return spec.height, spec.width
    if spec.follows_motion:
        longest = max(_HELD_FACTOR * max(spec.height, spec.width), _LEAST_HELD_SIDE)
        scale = min(1.0, longest / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))
    ratios = (spec.height / height, spec.width / width)
    if spec.resize == "crop":
        scale = max(ratios)
        return max(spec.height, round(height * scale)), max(spec.width, round(width * scale))
    scale = min(ratios)
    rows, columns = round(height * scale), round(width * scale)
    return min(spec.height, max(1, rows)), min(spec.width, max(1, columns))


def _place(picture: np.ndarray, out: np.ndarray) -> None:
    """Copy the picture centred: what is too large is cut, what is too small keeps a border."""
    source: list[slice] = []
    target: list[slice] = []
    for have, want in zip(picture.shape[:2], out.shape[:2], strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        target.append(slice((want - size) // 2, (want - size) // 2 + size))
    out[target[0], target[1]] = picture[source[0], source[1]]


def clip_tensor(clips: Sequence[Clip], spec: ClipSpec) -> torch.Tensor:
    """Turn clips into the tensor that a model takes.

    Args:
        clips: N clips cut by ``spec``.
        spec: Size, mean, std and channel order.

    Returns:
        float32 ``(N, T, C, H, W)``, normalised.

    Raises:
        InputMismatchError: There is no clip, or one has another number of frames or another size.
    """
    if not clips:
        raise InputMismatchError("no clip to turn into a tensor; expected at least one")
    for clip in clips:
        if len(clip.pixels) != spec.num_frames:
            raise InputMismatchError(
                f"clip has {len(clip.pixels)} frames but this classifier needs {spec.num_frames}"
                " (spec.num_frames); cut it with the classifier's own spec"
            )
    return pixels_tensor(np.stack([clip.pixels for clip in clips]), spec)


def pixels_tensor(pixels: np.ndarray | torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """Normalise pixels: ``(pixel / 255 - mean) / std``, channels in the spec's order.

    Args:
        pixels: uint8 ``(N, T, H, W, 3)``, RGB; a tensor stays on its device.
        spec: Size, mean, std and channel order; mean and std are in that order.

    Returns:
        float32 ``(N, T, C, H, W)``, contiguous.

    Raises:
        InputMismatchError: The pixels are not uint8 ``(N, T, H, W, 3)`` at the spec's size.
    """
    import torch

    tensor = pixels if isinstance(pixels, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
    rest = (spec.height, spec.width, 3)
    if tensor.dtype != torch.uint8 or tensor.ndim != 5 or tuple(tensor.shape[2:]) != rest:
        raise InputMismatchError(
            f"pixels are {tensor.dtype} {tuple(tensor.shape)}; expected torch.uint8 (N, T, *{rest})"
        )
    scale, shift = _scale_and_shift(spec.mean, spec.std)
    if tensor.device.type == "cpu" and tuple(tensor.shape[:2]) == (1, 1):
        # One frame of a stream: torch's threads, once awake, spin and take the cores from ONNX Runtime's.
        few = tensor.numpy()[..., :: -1 if spec.channel_order == "BGR" else 1].transpose(0, 1, 4, 2, 3)
        values = np.ascontiguousarray(few).astype(np.float32)
        values *= scale
        values -= shift
        return torch.from_numpy(values)
    planes = tensor.permute(0, 1, 4, 2, 3)
    if spec.channel_order == "BGR":
        planes = planes.flip(2)
    values = planes.to(torch.float32, memory_format=torch.contiguous_format)
    return values.mul_(torch.from_numpy(scale).to(values)).sub_(torch.from_numpy(shift).to(values))


@functools.lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return what pixels are multiplied by and what is then taken off, float32 ``(3, 1, 1)`` each."""
    means, stds = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    return 1 / (255 * stds), means / stds
