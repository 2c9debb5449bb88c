"""The frozen values of the video room: a frame, a clip, and the spec that both obey."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from vidette.errors import SettingError, unknown_name

# Raised when decoding or resizing gives other pixels, so that caches made before are not used.
_PIXEL_RULE = 3
_MOTION_RULE = 2  # likewise of the crop that follows motion alone

__all__ = ["Clip", "ClipSpec", "Frame", "Resize", "SpanRange"]

Resize = Literal["stretch", "crop", "pad", "motion"]
"""How a picture comes to the spec's size; see :class:`ClipSpec`."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture and when it was shown.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, RGB.
        seconds: Time since the first frame of the file or stream.
        index: Position in the decoded order, from 0.
    """

    pixels: np.ndarray
    seconds: float
    index: int

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"Frame({height}x{width} at {self.seconds:.3f} s, index {self.index})"


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames chosen by a spec from one file or stream.

    Attributes:
        pixels: uint8 ``(T, H, W, 3)``, RGB, already at the spec's size.
        seconds: float64 ``(T,)``, when each frame was shown, since the first frame of the source.
        repeated: How many of the frames stand in for time after the source's end.
        lost_frames: How many frames of the source were due in the clip's time but do not decode, or come out
            corrupt; the frames before them stand in. Counted where decoding met damage.
    """

    pixels: np.ndarray
    seconds: np.ndarray
    repeated: int = 0
    lost_frames: int = 0

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[-1] != 3 or self.pixels.dtype != np.uint8:
            raise SettingError(
                f"clip pixels are {self.pixels.dtype} {self.pixels.shape}; expected uint8 (T, H, W, 3)"
            )
        if self.seconds.shape != (len(self.pixels),):
            raise SettingError(f"clip has {len(self.pixels)} frames but {self.seconds.shape} times")

    @property
    def span_seconds(self) -> float:
        """Time from the first to the last frame."""
        return float(self.seconds[-1] - self.seconds[0])

    def __repr__(self) -> str:
        t, h, w, _ = self.pixels.shape
        return f"Clip({t} frames of {h}x{w}, {self.seconds[0]:.2f} to {self.seconds[-1]:.2f} s)"


@dataclass(frozen=True)
class SpanRange:
    """The spans met in training, from a clip's first chosen frame to its last, in seconds."""

    shortest_seconds: float
    median_seconds: float
    longest_seconds: float

    def holds(self, span_seconds: float, *, tolerance: float = 0.1) -> bool:
        """Tell whether a span lies in the range, widened by ``tolerance`` (a fraction) on both sides."""
        low = self.shortest_seconds * (1 - tolerance)
        return low <= span_seconds <= self.longest_seconds * (1 + tolerance)


@dataclass(frozen=True)
class ClipSpec:
    """How a source becomes the tensor that a model was trained on; saved with the weights.

    Attributes:
        num_frames: Frames a clip, T.
        height: Rows of a frame, in pixels.
        width: Columns of a frame, in pixels.
        sampling: ``"whole"``: T frames equally spaced over the clip, first and last included;
            ``"window"``: T frames at ``fps``, so a fixed span.
        fps: Frames a second of ``"window"``; None for ``"whole"``.
        resize: ``"stretch"``: the whole picture to the size; ``"crop"``: short side to the size, then the
            centre; ``"pad"``: long side to the size, black bars; ``"motion"``: the part of the picture that the
            clip's motion lies in, one for all of its frames (:mod:`vidette.video.motion_crop`).
        mean: Per channel, in units of pixel / 255, in ``channel_order``.
        std: Per channel, in the same units.
        channel_order: Order of the channels in the tensor.
        trained_spans: The spans met in training; what a ``"whole"`` spec takes live.

    Example:
        >>> ClipSpec(num_frames=16, height=112, width=112)
        ClipSpec(16 frames of 112x112, whole clip, stretch, RGB)
    """

    num_frames: int = 16
    height: int = 224
    width: int = 224
    sampling: Literal["whole", "window"] = "whole"
    fps: float | None = None
    resize: Resize = "stretch"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    trained_spans: SpanRange | None = None

    def __post_init__(self) -> None:
        faults = [*self._size_faults(), *self._choice_faults()]
        if faults:
            raise SettingError("clip spec: " + "; ".join(faults))

    def _size_faults(self) -> list[str]:
        faults = [
            f"{name} is {value}; expected a whole number from {least} to {most}"
            for name, value, least, most in (
                ("num_frames", self.num_frames, 1, 1024),
                ("height", self.height, 8, 4096),
                ("width", self.width, 8, 4096),
            )
            if value != int(value) or not least <= value <= most
        ]
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            faults.append(f"mean {self.mean} and std {self.std}; expected three numbers each, std above 0")
        return faults

    def _choice_faults(self) -> list[str]:
        faults = [
            f"{name} is {value!r}; expected one of {', '.join(choices)}"
            for name, value, choices in (
                ("sampling", self.sampling, ("whole", "window")),
                ("resize", self.resize, get_args(Resize)),
                ("channel_order", self.channel_order, ("RGB", "BGR")),
            )
            if value not in choices
        ]
        if self.sampling == "window" and not (self.fps and self.fps > 0):
            faults.append(f"fps is {self.fps}; sampling 'window' needs a rate above 0")
        if self.sampling == "whole" and self.fps is not None:
            faults.append(f"fps is {self.fps}; sampling 'whole' has no rate: use sampling 'window'")
        if self.follows_motion and self.num_frames < 2:
            faults.append("resize is 'motion' but num_frames is 1; one frame has no motion: use 2 or more")
        return faults

    @property
    def follows_motion(self) -> bool:
        """Whether a clip's crop is known only once its frames are; till then larger pictures are held."""
        return self.resize == "motion"

    @property
    def span_seconds(self) -> float | None:
        """First to last frame: exact for ``"window"``, the training median for ``"whole"``, else None."""
        if self.fps is not None:
            return (self.num_frames - 1) / self.fps
        return self.trained_spans.median_seconds if self.trained_spans else None

    @property
    def pixel_key(self) -> str:
        """Hex digest of the fields that decide a clip's uint8 pixels (not mean, std, order or spans)."""
        fields = ("num_frames", "height", "width", "sampling", "fps", "resize")
        rules = {"rule": _PIXEL_RULE} | ({"motion_rule": _MOTION_RULE} if self.follows_motion else {})
        text = json.dumps({**rules, **{name: getattr(self, name) for name in fields}}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipSpec:
        """Read what :meth:`to_dict` wrote.

        Raises:
            SettingError: A key is unknown (names the nearest) or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise SettingError(unknown_name("clip spec field", key, known))
        plain = dict(values)
        for name in ("mean", "std"):
            if name in plain:
                plain[name] = tuple(plain[name])
        if plain.get("trained_spans") is not None:
            plain["trained_spans"] = SpanRange(**plain["trained_spans"])
        return cls(**plain)

    def __repr__(self) -> str:
        time = f"{self.fps:g} fps" if self.fps else "whole clip"
        size = f"{self.height}x{self.width}"
        return f"ClipSpec({self.num_frames} frames of {size}, {time}, {self.resize}, {self.channel_order})"
