"""Motion at the entry of a model: the change between neighbouring frames, instead of or beside the pictures."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidette.errors import SettingError, unknown_name
from vidette.models.along_time import no_frame_before, one_before, step_before
from vidette.models.base import Head, State, VideoModel

__all__ = ["INPUTS", "InputKind", "MotionInput", "MotionModel"]

InputKind = Literal["rgb", "difference", "rgb+difference", "motion"]
INPUTS: dict[str, int] = {"rgb": 3, "difference": 3, "rgb+difference": 6, "motion": 2}
"""What a model may read, and how many channels that has."""

_RGB = 3
_NOISE = 0.15
"""Change that counts as none, in units of the normalised input: about 9 of 255 grey levels."""
_STRONGEST, _FAINT, _TINY = 2.0, 0.05, 1e-4


class MotionInput(nn.Module):
    """Frames to their change since the frame before, ``(N, T, 3, H, W)`` to ``(N, T, C, H, W)``.

    The first frame's change is zero. With ``"rgb+difference"`` the change follows the picture as channels 3
    to 5. ``"motion"`` leaves only what moves before a camera that stands still, in two channels: how far each
    grey pixel is from its median over the clip, and from the frame before; noise is cut off, and the strength
    of a clip is taken out. It needs the whole clip.

    Args:
        kind: A key of :data:`INPUTS`.

    Raises:
        SettingError: The kind is unknown.
    """

    def __init__(self, kind: InputKind) -> None:
        super().__init__()
        if kind not in INPUTS:
            raise SettingError(unknown_name("input", kind, INPUTS))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return _motion(x) if self.kind == "motion" else self._read(x, one_before(x))

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one frame, ``(N, 3, H, W)`` to ``(N, C, H, W)``; the state is the frame before."""
        previous, state = step_before(frame, state)
        return self._read(frame, previous), state

    def _read(self, x: Tensor, previous: Tensor) -> Tensor:
        if self.kind == "rgb":
            return x
        change = x - previous
        return change if self.kind == "difference" else torch.cat([x, change], dim=-3)


def _motion(x: Tensor) -> Tensor:
    """Return what moves, ``(N, T, 3, H, W)`` to ``(N, T, 2, H, W)``, from 0 to the root of 2."""
    grey = x.mean(-3)
    in_order = grey.movedim(1, -1).contiguous().sort(dim=-1).values  # 4 times as fast as along dim 1
    half = grey.shape[1] // 2
    median = in_order[..., half] if grey.shape[1] % 2 else in_order[..., half - 1 : half + 1].mean(-1)
    away = torch.stack([grey - median[:, None], grey - one_before(grey)], dim=2).abs()
    moved = (away - _NOISE).clamp(min=0)
    strength = moved.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    return (moved / (3 * strength + _FAINT)).clamp(max=_STRONGEST).add(_TINY).sqrt()


class _MotionHead(Head):
    def __init__(self, model: VideoModel, kind: InputKind, *, height: int, width: int) -> None:
        super().__init__()
        self.entry = MotionInput(kind)
        self.model = model
        of_clip = "its input is what differs from the median of the whole clip"
        self.needs_whole_clip = of_clip if kind == "motion" else model.head.needs_whole_clip
        self._frame_shape = (_RGB, height, width)
        self.origin: Tensor
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.model(self.entry(features))

    def initial_state(self, batch: int) -> State:
        return no_frame_before(self._frame_shape, self.origin, batch), self.model.initial_state(batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        before, inner = state
        frame, before = self.entry.step(features, before)
        logits, inner = self.model.step(frame, inner)
        return logits, (before, inner)


class MotionModel(VideoModel):
    """Any model behind a :class:`MotionInput`.

    A change needs two frames, so that no part of it looks at a frame alone: the features are the pixels, as
    those of a 3-D CNN.

    Args:
        model: Built for as many channels as the input has.
        kind: What it reads.
        height: H of the frames in pixels.
        width: W of the frames in pixels.
    """

    def __init__(self, model: VideoModel, kind: InputKind, *, height: int, width: int) -> None:
        super().__init__()
        self.head = _MotionHead(model, kind, height=height, width=width)
