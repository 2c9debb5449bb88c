"""Per-frame CNN followed by convolutions along time that keep when things happen."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from vidette.errors import SettingError
from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel, Head

__all__ = ["CnnTcn", "TemporalConvHead"]

_WINDOW = 3


class TemporalConvHead(Head):
    """Convolutions along time over ``(N, T, D, g, g)``: a vector a frame, stages that halve time, linear layer.

    The stages are those of the encoder in Lea et al., "Temporal Convolutional Networks for Action Segmentation
    and Detection" (2017): convolution, normalisation, rectifier, pooling. What is left along time is not
    averaged, so that a beginning and an end can mean different things.

    Args:
        features: D, channels of the backbone.
        num_classes: K.
        num_frames: T of the clips; other lengths are pooled to what T leaves.
        grid: Cells along each side, g.
        projection: Size of the vector that all cells of a frame together are projected to.
        hidden: Channels of the convolutions along time.
        layers: Convolutions; each halves time.
        dropout: Before the projection and after each stage.

    Raises:
        SettingError: A clip has too few frames for so many layers.
    """

    needs_whole_clip = "its convolutions along time look ahead"

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        num_frames: int,
        grid: int,
        projection: int,
        hidden: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.left = num_frames >> layers
        if self.left < 1:
            raise SettingError(
                f"model cnn_tcn halves time {layers} times, which {num_frames} frames do not allow; "
                f"take {2**layers} frames or more, or fewer layers"
            )
        self.project = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features * grid * grid, projection), _Normalised(projection)
        )
        widths = [projection, *[hidden] * layers]
        self.stages = nn.Sequential(
            *(_stage(before, after, dropout) for before, after in itertools.pairwise(widths))
        )
        self.classify = nn.Linear(widths[-1] * self.left, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        vectors = torch.relu(self.project(features.flatten(2))).transpose(1, 2)
        along_time = self.stages(vectors)
        if along_time.shape[-1] != self.left:
            along_time = nn.functional.adaptive_avg_pool1d(along_time, self.left)
        return self.classify(along_time.flatten(1))


class _Normalised(nn.BatchNorm1d):
    """Normalise vectors ``(N, T, D)`` over all frames of all clips."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, 1)).view_as(input)


def _stage(before: int, after: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(before, after, _WINDOW, padding=_WINDOW // 2, bias=False),
        nn.BatchNorm1d(after),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.MaxPool1d(2),
    )


class CnnTcn(FrameModel):
    """CNN + temporal convolutions over any 2-D backbone, for clips that are one whole action each.

    Args:
        num_classes: K.
        num_frames: T of the clips, ``2 ** layers`` or more.
        backbone: ``"small"`` or a timm name.
        grid: Cells along each side of the pooled feature map; 1 forgets where things are.
        projection: Size of the vector that a frame becomes.
        hidden: Channels of the convolutions along time.
        layers: Convolutions along time; each halves it.
        dropout: Probability of dropping a feature.
        in_channels: C of the frames.

    Raises:
        SettingError: A clip has too few frames for so many layers.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        backbone: str = "tf_efficientnet_lite0",
        grid: int = 2,
        projection: int = 96,
        hidden: int = 128,
        layers: int = 2,
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        net = FrameBackbone(backbone, grid=grid, in_channels=in_channels)
        head = TemporalConvHead(
            net.out_channels,
            num_classes,
            num_frames=num_frames,
            grid=grid,
            projection=projection,
            hidden=hidden,
            layers=layers,
            dropout=dropout,
        )
        super().__init__(net, head)
