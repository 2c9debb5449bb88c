"""The baseline that knows no order: a per-frame CNN, averaged over time."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel

__all__ = ["FrameCnn", "PooledHead"]


class PooledHead(nn.Module):
    """Classify each frame, then pool over time: ``(N, T, D, g, g)`` to ``(N, K)``, blind to order."""

    def __init__(
        self, features: int, num_classes: int, *, pooling: Literal["mean", "max"], dropout: float
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        frames = self.norm(features.flatten(3).mean(-1))
        logits = self.classify(self.dropout(frames))
        return logits.mean(1) if self.pooling == "mean" else logits.amax(1)


class FrameCnn(FrameModel):
    """Per-frame CNN with its logits pooled over time: the same answer for any order of the frames.

    Args:
        num_classes: K.
        backbone: ``"small"`` or a timm name.
        pooling: Mean or maximum of the frames' logits.
        dropout: Probability of dropping a feature.
    """

    uses_order: ClassVar[bool] = False

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "tf_efficientnet_lite0",
        pooling: Literal["mean", "max"] = "mean",
        dropout: float = 0.2,
    ) -> None:
        net = FrameBackbone(backbone, grid=1)
        super().__init__(net, PooledHead(net.out_channels, num_classes, pooling=pooling, dropout=dropout))
