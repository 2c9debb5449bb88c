"""A video transformer on a per-frame CNN: attention within each frame, then along time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidette.errors import SettingError
from vidette.models.along_time import TimePool, no_frame_before, one_before, step_before
from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel, Head, State

__all__ = ["SpaceTimeHead", "SpaceTimeTransformer"]

_BASE = 100.0
"""Longest period of the rotary position, in frames, over 2 pi; clips are far shorter than text."""


class _Attention(nn.Module):
    """Attention of ``heads`` heads; queries, keys and values have shape ``(..., heads, L, E)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of ``(..., L, D)``."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.unbind(-3)
        return query.transpose(-3, -2), key.transpose(-3, -2), value.transpose(-3, -2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, unseen: Tensor | None = None) -> Tensor:
        """Return ``(..., L, D)``; where ``unseen`` is true a key is passed over."""
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        if unseen is not None:
            scores = scores.masked_fill(unseen, -1e30)
        return self.out((scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2))


def _rotated(x: Tensor, first: int = 0) -> Tensor:
    """Turn pairs of channels of ``(..., L, E)`` by angles that grow along L, from position ``first``.

    The product of two turned vectors then depends on how far apart they are and not on when they were.
    Source: Su et al., RoFormer, 2021.
    """
    half = x.shape[-1] // 2
    pairs = torch.arange(half, dtype=torch.float32, device=x.device)
    frames = torch.arange(first, first + x.shape[-2], dtype=torch.float32, device=x.device)
    angles = frames[:, None] * _BASE ** (-pairs / half)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)


class _Block(nn.Module):
    """Attention over a frame's cells, attention over a cell's frames, and a small network on each token."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.space_norm, self.space = nn.LayerNorm(width), _Attention(width, heads)
        self.time_norm, self.time = nn.LayerNorm(width), _Attention(width, heads)
        self.mix_norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, unseen: Tensor | None) -> Tensor:
        """Take tokens ``(N, T, G, D)`` and which frames ``(T, T)`` a frame does not see."""
        x = self._look_within(x)
        query, key, value = self.time.split(self.time_norm(x).transpose(1, 2))
        seen = self.time.attend(_rotated(query), _rotated(key), value, unseen)
        return self._mix(x + self.dropout(seen.transpose(1, 2)))

    def step(self, x: Tensor, keys: Tensor, values: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one frame's tokens ``(N, G, D)`` and the last frames' keys and values ``(N, G, heads, W, E)``.

        Keys are kept unturned and get their positions within the window, so that these never grow.
        """
        x = self._look_within(x)
        query, key, value = self.time.split(self.time_norm(x)[:, :, None])
        keys = torch.cat([keys[..., 1:, :], key], dim=-2)
        values = torch.cat([values[..., 1:, :], value], dim=-2)
        turned = _rotated(query, first=keys.shape[-2] - 1)
        seen = self.time.attend(turned, _rotated(keys), values, unseen)[:, :, 0]
        return self._mix(x + seen), keys, values

    def _look_within(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.space.attend(*self.space.split(self.space_norm(x))))

    def _mix(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.mix(self.mix_norm(x)))


class SpaceTimeHead(Head):
    """Blocks of attention over ``(N, T, D, g, g)``: every cell of every frame is a token.

    Position in the frame is learnt; position in time is rotary, hence relative. Causal, a frame sees itself
    and the ``attention_frames - 1`` frames before; a step keeps their keys and values.

    Args:
        features: D, channels of the backbone.
        num_classes: K.
        grid: Cells along each side, g.
        hidden: Width of a token.
        layers: Blocks.
        heads: Heads of each attention.
        attention_frames: Frames that a causal frame sees, itself included.
        causal: A frame sees only itself and earlier ones.
        difference: A token also holds its cell's change since the frame before.
        readout: Classify the last frame, the mean over frames, or a mean weighted by learnt attention.
        dropout: After each part of a block and before the classifier.

    Raises:
        SettingError: ``hidden`` does not divide into heads of an even width.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        grid: int,
        hidden: int,
        layers: int,
        heads: int,
        attention_frames: int,
        causal: bool,
        difference: bool,
        readout: Literal["last", "mean", "attention"],
        dropout: float,
    ) -> None:
        super().__init__()
        if hidden % (2 * heads):
            raise SettingError(f"hidden is {hidden} with {heads} heads; expected a multiple of {2 * heads}")
        self.needs_whole_clip = None if causal else "its attention also looks at later frames"
        self.causal, self.attention_frames, self.difference = causal, attention_frames, difference
        self.norm = nn.LayerNorm(features)
        self.embed = nn.Linear(features * (3 if difference else 1), hidden)
        self.place = nn.Parameter(torch.randn(grid * grid, hidden) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(hidden, heads, dropout) for _ in range(layers))
        self.out_norm = nn.LayerNorm(hidden)
        self.pool = TimePool(readout, hidden)
        self.classify = nn.Linear(hidden, num_classes)
        self._cells_shape = (grid * grid, features)
        self._key_shape = (grid * grid, heads, attention_frames, hidden // heads)

    def forward(self, features: Tensor) -> Tensor:
        cells = self._cells(features)
        x = self._tokens(cells, one_before(cells))
        unseen = self._unseen(x.shape[1], x.device) if self.causal else None
        for block in self.blocks:
            x = block(x, unseen)
        return self.classify(self.dropout(self.pool(self._summary(x))))

    def initial_state(self, batch: int) -> State:
        """Return: cells before, frames seen, keys and values of each block, readout."""
        like = self.classify.weight
        before = no_frame_before(self._cells_shape, like, batch) if self.difference else ()
        memory = tuple(
            (like.new_zeros(batch, *self._key_shape), like.new_zeros(batch, *self._key_shape))
            for _ in self.blocks
        )
        return before, like.new_zeros(batch, 1), memory, self.pool.initial_state(like, batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one frame's features ``(N, D, g, g)``."""
        before, seen, memory, pooled = state
        cells = previous = self._cells(features)
        if self.difference:
            previous, before = step_before(cells, before)
        x = self._tokens(cells, previous)
        seen = (seen + 1).clamp(max=self.attention_frames)
        slots = torch.arange(self.attention_frames, device=seen.device)
        unseen = (slots < self.attention_frames - seen)[:, None, None, None]
        kept: list[tuple[Tensor, Tensor]] = []
        for block, (keys, values) in zip(self.blocks, memory, strict=True):
            assert isinstance(block, _Block)
            x, keys, values = block.step(x, keys, values, unseen)
            kept.append((keys, values))
        summary, pooled = self.pool.step(self._summary(x), pooled)
        return self.classify(summary), (before, seen, tuple(kept), pooled)

    def _cells(self, features: Tensor) -> Tensor:
        """Return the normalised cells: ``(..., D, g, g)`` to ``(..., g * g, D)``."""
        return self.norm(features.flatten(-2).transpose(-2, -1))

    def _tokens(self, cells: Tensor, previous: Tensor) -> Tensor:
        """Return ``(..., G, hidden)`` of cells and those a frame before."""
        if self.difference:
            change = cells - previous
            cells = torch.cat([cells, change, change.abs()], dim=-1)
        return self.dropout(self.embed(cells)) + self.place

    def _summary(self, x: Tensor) -> Tensor:
        """Return one vector a frame: ``(..., G, hidden)`` to ``(..., hidden)``."""
        return self.out_norm(x).mean(-2)

    def _unseen(self, num_frames: int, device: torch.device) -> Tensor:
        """Return ``(T, T)``: true where a frame (row) does not see another (column)."""
        frames = torch.arange(num_frames, device=device)
        ago = frames[:, None] - frames
        return (ago < 0) | (ago >= self.attention_frames)


class SpaceTimeTransformer(FrameModel):
    """A factorised space-time transformer of ours on the grid of a per-frame CNN.

    Args:
        num_classes: K.
        num_frames: T of the clips.
        backbone: ``"small"`` or a timm name.
        grid: Cells along each side of the pooled feature map.
        hidden: Width of a token.
        layers: Blocks, each of attention in space, attention in time and a small network.
        heads: Heads of each attention.
        attention_frames: Frames that a causal frame sees, itself included; the clip's length where left out.
        causal: A frame sees only itself and earlier ones; otherwise the model has no step.
        difference: A token also holds its cell's change since the frame before.
        readout: ``"last"`` frame, ``"mean"`` over frames, or ``"attention"`` over frames.
        dropout: Probability of dropping a feature.
        in_channels: C of the frames.

    Raises:
        SettingError: ``hidden`` does not divide into heads of an even width.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        backbone: str = "tf_efficientnet_lite0",
        grid: int = 4,
        hidden: int = 128,
        layers: int = 2,
        heads: int = 4,
        attention_frames: int | None = None,
        causal: bool = True,
        difference: bool = True,
        readout: Literal["last", "mean", "attention"] = "mean",
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        net = FrameBackbone(backbone, grid=grid, in_channels=in_channels)
        head = SpaceTimeHead(
            net.out_channels,
            num_classes,
            grid=grid,
            hidden=hidden,
            layers=layers,
            heads=heads,
            attention_frames=attention_frames or num_frames,
            causal=causal,
            difference=difference,
            readout=readout,
            dropout=dropout,
        )
        super().__init__(net, head)
