"""3-D CNNs: convolution over time and space together."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import video as torchvision_video

from vidette.models.base import VideoModel

__all__ = ["Conv3dSmall", "ResNet3d"]


class _TimeSecond(nn.Module):
    """Run a torchvision-style network, which wants ``(N, C, T, H, W)``, on ``(N, T, C, H, W)``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.transpose(1, 2))


class Conv3dSmall(VideoModel):
    """Four 3-D convolutions and a linear layer whose size is computed for the clip's shape.

    Args:
        num_classes: K.
        num_frames: T, at least 2.
        height: H in pixels.
        width: W in pixels.
        channels: Channels of the first convolution; doubled twice.
        dropout: Before the linear layer.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        height: int,
        width: int,
        channels: int = 16,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        body = nn.Sequential(
            *_block(3, channels, stride=(1, 2, 2)),
            *_block(channels, 2 * channels, stride=(2 if num_frames >= 8 else 1, 2, 2)),
            *_block(2 * channels, 4 * channels, stride=(2 if num_frames >= 4 else 1, 2, 2)),
            *_block(4 * channels, 4 * channels, stride=(1, 2, 2)),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = body.eval()(torch.zeros(1, 3, num_frames, height, width)).shape[1]
        body.train()
        self.head = _TimeSecond(nn.Sequential(body, nn.Dropout(dropout), nn.Linear(flat, num_classes)))


def _block(inputs: int, outputs: int, *, stride: tuple[int, int, int]) -> tuple[nn.Module, ...]:
    convolution = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)


class ResNet3d(VideoModel):
    """A torchvision 3-D ResNet: ``r3d_18``, ``mc3_18`` or ``r2plus1d_18``.

    Source: Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018.

    Args:
        num_classes: K.
        variant: torchvision's name.
        dropout: Before the linear layer.
    """

    def __init__(self, num_classes: int, *, variant: str = "r3d_18", dropout: float = 0.2) -> None:
        super().__init__()
        net = cast(nn.Module, getattr(torchvision_video, variant)(weights=None))
        inputs = cast(nn.Linear, net.fc).in_features
        net.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, num_classes))
        self.head = _TimeSecond(net)
