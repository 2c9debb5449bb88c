"""The baseline that knows no order: a per-frame CNN, pooled over time."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from vidette.models.along_time import TimePool
from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel, Head, State

__all__ = ["FrameCnn", "PooledHead"]


class PooledHead(Head):
    """Classify each frame, then pool over time: ``(N, T, D, g, g)`` to ``(N, K)``, blind to order.

    Mean and maximum are taken of the frames' logits; attention weighs the frames' features by a learnt score,
    so that a few telling frames can outweigh the rest.
    """

    needs_whole_clip = None

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        pooling: Literal["mean", "max", "attention"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(features, num_classes)
        self.pool = TimePool(pooling, features if pooling == "attention" else num_classes)

    def forward(self, features: Tensor) -> Tensor:
        frames = self.dropout(self.norm(features.flatten(-2).mean(-1)))
        if self.pool.kind == "attention":
            return self.classify(self.pool(frames))
        return self.pool(self.classify(frames))

    def initial_state(self, batch: int) -> State:
        """Return the pool of no frame."""
        return self.pool.initial_state(self.classify.weight, batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Add one frame's features ``(N, D, g, g)``."""
        frame = self.norm(features.flatten(-2).mean(-1))
        if self.pool.kind == "attention":
            pooled, state = self.pool.step(frame, state)
            return self.classify(pooled), state
        return self.pool.step(self.classify(frame), state)


class FrameCnn(FrameModel):
    """Per-frame CNN with its answers pooled over time: the same answer for any order of the frames.

    Args:
        num_classes: K.
        backbone: ``"small"`` or a timm name.
        pooling: Mean or maximum of the frames' logits, or a mean of features weighted by learnt attention.
        dropout: Probability of dropping a feature.
        in_channels: C of the frames.
    """

    uses_order: ClassVar[bool] = False

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "tf_efficientnet_lite0",
        pooling: Literal["mean", "max", "attention"] = "mean",
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        net = FrameBackbone(backbone, grid=1, in_channels=in_channels)
        super().__init__(net, PooledHead(net.out_channels, num_classes, pooling=pooling, dropout=dropout))
