"""What changes from frame to frame, where and how much: a linear classifier on the change of CNN features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidette.errors import SettingError
from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel, Head

__all__ = ["ChangeCnn", "ChangeHead"]

_STATISTICS = 3
_SMALLEST = 1e-6


class Standardise(nn.Module):
    """Subtract the mean of all vectors ``(N, S)`` that training has shown so far, and divide by their spread.

    Other than BatchNorm, a vector does not depend on its batch mates in training either.
    """

    count: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._learn(x.detach().float())
        spread = (self.square - self.mean.square()).clamp(min=_SMALLEST).sqrt()
        return (x - self.mean) / torch.where(self.count > 0, spread, 1.0)

    def _learn(self, x: Tensor) -> None:
        self.count += len(x)
        share = len(x) / self.count
        self.mean += share * (x.mean(0) - self.mean)
        self.square += share * (x.square().mean(0) - self.square)


class ChangeHead(Head):
    """Classify by the absolute change of features from frame to frame: ``(N, T, D, g, g)`` to ``(N, K)``.

    Of each feature three numbers: its change averaged over time and picture, the same in the cell that changes
    most, and how much the change of the whole picture varies along time. Square roots bring them nearer to
    normal, and a linear layer answers. A movement and its reverse are the same to it.
    """

    needs_whole_clip = "it measures the change over a whole clip"

    def __init__(self, features: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.standardise = Standardise(_STATISTICS * features)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(_STATISTICS * features, num_classes)
        nn.init.normal_(self.classify.weight, std=1e-3)
        nn.init.zeros_(self.classify.bias)

    def summary(self, features: Tensor) -> Tensor:
        """Return the three numbers of each feature, ``(N, 3 D)``; there are no weights in them."""
        change = (features[:, 1:] - features[:, :-1]).abs().flatten(-2)
        cells, moments = change.mean(1), change.mean(-1)
        spread = (moments - moments.mean(1, keepdim=True)).square().mean(1).add(_SMALLEST**2).sqrt()
        numbers = torch.cat([cells.mean(-1), cells.amax(-1), spread], dim=1)
        return numbers.add(_SMALLEST).sqrt()

    def of_summary(self, summary: Tensor) -> Tensor:
        """Answer ``(N, 3 D)``."""
        return self.classify(self.dropout(self.standardise(summary)))

    def forward(self, features: Tensor) -> Tensor:
        return self.of_summary(self.summary(features))


class ChangeCnn(FrameModel):
    """Per-frame CNN, answered by how much its features change along the clip, and where.

    For activities that differ in how violently, not in which direction, things move. Its only weights are a
    linear layer's, so that some hundred clips are enough.

    Args:
        num_classes: K.
        num_frames: T of the clips, 2 or more.
        backbone: ``"small"`` or a timm name.
        grid: Cells along each side of the feature map.
        levels: ``"top"``: the last features; ``"all"``: also those of the stages below, which are finer.
        dropout: Probability of dropping a number.
        in_channels: C of the frames.

    Raises:
        SettingError: A clip has one frame, or the backbone does not show the stages below its last.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        backbone: str = "tf_efficientnet_lite0",
        grid: int = 7,
        levels: Literal["top", "all"] = "top",
        dropout: float = 0.0,
        in_channels: int = 3,
    ) -> None:
        if num_frames < 2:
            raise SettingError(
                f"model change needs 2 frames or more, not {num_frames}: it measures their change"
            )
        net = FrameBackbone(backbone, grid=grid, in_channels=in_channels, levels=levels)
        super().__init__(net, ChangeHead(net.out_channels, num_classes, dropout=dropout))
