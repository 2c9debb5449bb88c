"""A 2-D CNN that sees motion: part of its channels come from the frame before (temporal shift)."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from vidette.errors import SettingError, unknown_name
from vidette.models.backbone import FrameBackbone
from vidette.models.base import Head, State, VideoModel
from vidette.models.frame_cnn import PooledHead

__all__ = ["ShiftCnn", "places_of"]

_PLACES = ("blocks", "stages")


class _Shifter(Protocol):
    """How frames get channels of their neighbours while the network runs once."""

    def __call__(self, x: Tensor, fraction: float) -> Tensor: ...


_SHIFTER: ContextVar[_Shifter] = ContextVar("vidette_shifter")
"""Set for the length of one run of the network: timm's blocks pass on pictures only, and no clip or state."""


def _run(net: nn.Module, x: Tensor, shifter: _Shifter) -> Tensor:
    token = _SHIFTER.set(shifter)
    try:
        return net(x)
    finally:
        _SHIFTER.reset(token)


def _shift_input(module: nn.Module, inputs: tuple[Tensor, ...], *, fraction: float) -> tuple[Tensor, ...]:
    del module
    return (_SHIFTER.get()(inputs[0], fraction), *inputs[1:])


def _part(x: Tensor, fraction: float) -> int:
    return max(1, round(x.shape[1] * fraction))


class _ShiftClips:
    """Shift within whole clips whose frames follow one another in the batch, ``(N * T, C, H, W)``."""

    def __init__(self, num_clips: int, num_frames: int, *, causal: bool) -> None:
        self.shape = (num_clips, num_frames)
        self.causal = causal

    def __call__(self, x: Tensor, fraction: float) -> Tensor:
        clips, part = x.unflatten(0, self.shape), _part(x, fraction)
        none = torch.zeros_like(clips[:, :1, :part])
        from_before = torch.cat([none, clips[:, :-1, :part]], dim=1)
        if self.causal:
            return torch.cat([from_before, clips[:, :, part:]], dim=2).flatten(0, 1)
        from_after = torch.cat([clips[:, 1:, part : 2 * part], none], dim=1)
        return torch.cat([from_before, from_after, clips[:, :, 2 * part :]], dim=2).flatten(0, 1)


class _ShiftStep:
    """Shift one frame of each stream, ``(N, C, H, W)``, with the channels that each place kept of the last."""

    def __init__(self, before: State) -> None:
        self.before = before
        self.kept: list[Tensor] = []

    def __call__(self, x: Tensor, fraction: float) -> Tensor:
        part, place = _part(x, fraction), len(self.kept)
        self.kept.append(x[:, :part].clone())
        return torch.cat([self.before[place], x[:, part:]], dim=1)


class _ShapesOnly:
    """Shift nothing; note what each place keeps of a frame."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor, fraction: float) -> Tensor:
        self.shapes.append((_part(x, fraction), *x.shape[2:]))
        return x


def places_of(backbone: FrameBackbone, places: str) -> list[str]:
    """Return the names of the convolutions whose input is shifted.

    The first convolution of a residual branch: its shortcut keeps the frame's own channels. Blocks without a
    shortcut are left alone. The small network has none, so every convolution but the first is a place.

    Args:
        backbone: The network.
        places: ``"blocks"``: every residual block; ``"stages"``: the first of every stage.

    Raises:
        SettingError: ``places`` is unknown, or the network has no residual block.
    """
    if places not in _PLACES:
        raise SettingError(unknown_name("shift_places", places, _PLACES))
    if backbone.name == "small":
        return [name for name, module in backbone.net.named_modules() if isinstance(module, nn.Conv2d)][1:]
    branches = _residual_branches(backbone)
    if places == "stages":
        firsts = {block.rpartition(".")[0]: block for block in reversed(branches)}
        branches = {block: name for block, name in branches.items() if block in firsts.values()}
    if not branches:
        raise SettingError(
            f"backbone {backbone.name!r} has no residual blocks to shift in; use resnet18, mobilenetv2_100 or "
            "tf_efficientnet_lite0"
        )
    return list(branches.values())


def _residual_branches(backbone: FrameBackbone) -> dict[str, str]:
    """Return every residual block with the first convolution of its branch, both by name, in order.

    timm names the parts of a block ``conv...``, and says in ``has_skip`` where a block has no shortcut.
    """
    blocks: list[str] = []
    branches: dict[str, str] = {}
    for name, module in backbone.net.named_modules():
        first = next((child for child, _ in module.named_children() if child.startswith("conv")), None)
        if not name or first is None or any(name.startswith(f"{block}.") for block in blocks):
            continue
        blocks.append(name)
        place = f"{name}.{first}"
        if getattr(module, "has_skip", True) and not _reads_pixels(backbone, place):
            branches[name] = place
    return branches


def _reads_pixels(backbone: FrameBackbone, place: str) -> bool:
    inside = backbone.net.get_submodule(place).modules()
    first = next((module for module in inside if isinstance(module, nn.Conv2d)), None)
    return first is None or first.in_channels == backbone.in_channels


class _ShiftHead(Head):
    def __init__(
        self, backbone: FrameBackbone, pooled: PooledHead, frame_shape: tuple[int, ...], *, causal: bool
    ) -> None:
        super().__init__()
        self.needs_whole_clip = None if causal else "its shift takes channels of the frame after, too"
        self.backbone = backbone
        self.pooled = pooled
        self.causal = causal
        self._kept_shapes = _kept_shapes(backbone, frame_shape)

    def forward(self, features: Tensor) -> Tensor:
        n, t = features.shape[:2]
        shifter = _ShiftClips(n, t, causal=self.causal)
        return self.pooled(_run(self.backbone, features.flatten(0, 1), shifter).unflatten(0, (n, t)))

    def initial_state(self, batch: int) -> State:
        like = self.pooled.classify.weight
        kept = tuple(like.new_zeros(batch, *shape) for shape in self._kept_shapes)
        return kept, self.pooled.initial_state(batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        shifter = _ShiftStep(state[0])
        frame = _run(self.backbone, features, shifter)
        logits, pooled = self.pooled.step(frame, state[1])
        return logits, (tuple(shifter.kept), pooled)


def _kept_shapes(backbone: FrameBackbone, frame_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return ``(C, H, W)`` of what each place keeps of a frame."""
    shapes = _ShapesOnly()
    with torch.no_grad():
        _run(backbone.eval(), torch.zeros(1, *frame_shape), shapes)
    backbone.train()
    return shapes.shapes


class ShiftCnn(VideoModel):
    """A 2-D CNN with temporal shift, its frames' answers pooled over time.

    At each place a part of the channels is replaced by those of the frame before (zero at the first), so that
    2-D convolutions compare frames at no extra arithmetic. Not causal, a second part comes from the frame after
    and the model has no step.

    Source: Lin et al., TSM: Temporal Shift Module for Efficient Video Understanding, ICCV 2019.

    Args:
        num_classes: K.
        height: H in pixels.
        width: W in pixels.
        backbone: ``"small"`` or a timm CNN with residual blocks.
        shift_fraction: Share of the channels that is shifted (each way, where not causal), at most 0.5.
        shift_places: ``"blocks"``: in every residual block; ``"stages"``: in the first of each stage.
        causal: A frame sees only itself and earlier ones.
        pooling: Mean, maximum or attention over the frames.
        dropout: Probability of dropping a feature.
        in_channels: C of the frames.

    Raises:
        SettingError: A value is out of range, or the backbone has no residual blocks.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        height: int,
        width: int,
        backbone: str = "tf_efficientnet_lite0",
        shift_fraction: float = 0.125,
        shift_places: str = "blocks",
        causal: bool = True,
        pooling: Literal["mean", "max", "attention"] = "mean",
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not 0 < shift_fraction <= 0.5:
            raise SettingError(f"shift_fraction is {shift_fraction}; expected above 0 and at most 0.5")
        net = FrameBackbone(backbone, grid=1, in_channels=in_channels)
        hook = partial(_shift_input, fraction=shift_fraction)
        for place in places_of(net, shift_places):
            net.net.get_submodule(place).register_forward_pre_hook(hook)
        pooled = PooledHead(net.out_channels, num_classes, pooling=pooling, dropout=dropout)
        self.head = _ShiftHead(net, pooled, (in_channels, height, width), causal=causal)
