"""3-D CNNs: convolution over time and space together."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torchvision.models import video as torchvision_video

from vidette.errors import SettingError
from vidette.models.backbone import GridPool
from vidette.models.base import Head, State, VideoModel
from vidette.models.frame_cnn import PooledHead

__all__ = ["CausalConv3d", "Conv3dCausal", "Conv3dSmall", "TorchvisionVideo"]


class _TimeSecond(Head):
    """Run a torchvision-style network, which wants ``(N, C, T, H, W)``, on ``(N, T, C, H, W)``."""

    needs_whole_clip = "its 3-D filters look at several frames at once, later ones too"

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.transpose(1, 2))


class Conv3dSmall(VideoModel):
    """Four 3-D convolutions and a linear layer whose size is computed for the clip's shape.

    Args:
        num_classes: K.
        num_frames: T of the clips.
        height: H in pixels.
        width: W in pixels.
        channels: Channels of the first convolution; doubled twice.
        dropout: Before the linear layer.
        in_channels: C of the frames.
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
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        body = nn.Sequential(
            *_block(in_channels, channels, stride=(1, 2, 2)),
            *_block(channels, 2 * channels, stride=(2 if num_frames >= 8 else 1, 2, 2)),
            *_block(2 * channels, 4 * channels, stride=(2 if num_frames >= 4 else 1, 2, 2)),
            *_block(4 * channels, 4 * channels, stride=(1, 2, 2)),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = body.eval()(torch.zeros(1, in_channels, num_frames, height, width)).shape[1]
        body.train()
        self.head = _TimeSecond(nn.Sequential(body, nn.Dropout(dropout), nn.Linear(flat, num_classes)))


def _block(inputs: int, outputs: int, *, stride: tuple[int, int, int]) -> tuple[nn.Module, ...]:
    convolution = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)


class TorchvisionVideo(VideoModel):
    """A 3-D CNN of torchvision: ``r3d_18``, ``mc3_18``, ``r2plus1d_18`` or ``s3d``.

    Sources: Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018; Xie et
    al., Rethinking Spatiotemporal Feature Learning, ECCV 2018 (s3d).

    Args:
        num_classes: K.
        num_frames: T of the clips.
        height: H in pixels.
        width: W in pixels.
        variant: torchvision's name.
        dropout: Before the linear layer.
        in_channels: C of the frames.

    Raises:
        SettingError: The clips are too short or too small for the network.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        height: int,
        width: int,
        variant: str = "r3d_18",
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.variant = variant
        net = cast(nn.Module, getattr(torchvision_video, variant)(weights=None))
        if variant == "s3d":
            _check_s3d(num_frames, height, width)
            net.avgpool = nn.AdaptiveAvgPool3d(1)  # its own wants 224x224; the mean of all is the same there
            net.classifier = nn.Sequential(nn.Dropout(dropout), nn.Conv3d(1024, num_classes, 1))
            _learn_statistics_quickly(net)
        else:
            inputs = cast(nn.Linear, net.fc).in_features
            net.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, num_classes))
        if in_channels != 3:
            _replace_first_convolution(net, in_channels)
        self.head = _TimeSecond(net)


def _check_s3d(num_frames: int, height: int, width: int) -> None:
    # Its last pooling, 2x2x2, needs 17 pixels and 5 frames; but on a CPU, torch gets the weight gradient of its
    # filter over 7 frames wrong where a clip has 5 to 7.
    frames, side = 8, 17
    if num_frames < frames or min(height, width) < side:
        raise SettingError(
            f"s3d needs clips of at least {frames} frames of {side}x{side}, got {num_frames} of "
            f"{height}x{width}; raise --num-frames or --size, or use r3d_18"
        )


def _learn_statistics_quickly(net: nn.Module) -> None:
    # S3D's own 0.001 takes thousands of steps, until which it evaluates with statistics that are none.
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 0.1


def _replace_first_convolution(net: nn.Module, in_channels: int) -> None:
    name, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv3d))
    new = nn.Conv3d(
        in_channels,
        old.out_channels,
        cast("tuple[int, int, int]", old.kernel_size),
        stride=cast("tuple[int, int, int]", old.stride),
        padding=cast("tuple[int, int, int]", old.padding),
        bias=old.bias is not None,
    )
    net.set_submodule(name, new)


class CausalConv3d(nn.Module):
    """A 3x3x3 convolution that sees a frame and the two before it, with batch norm and ReLU.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Over rows and columns.
    """

    frames_before = 2

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.convolve = nn.Conv3d(inputs, outputs, 3, stride=(1, stride, stride), padding=(0, 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        n, c, _, h, w = x.shape
        return self._run(torch.cat([x.new_zeros(n, c, self.frames_before, h, w), x], dim=2))

    def step(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Take one frame ``(N, C, H, W)`` and the two before it ``(N, C, 2, H, W)``."""
        frames = torch.cat([before, x[:, :, None]], dim=2)
        return self._run(frames)[:, :, 0], frames[:, :, 1:]

    def _run(self, frames: Tensor) -> Tensor:
        return self.norm(self.convolve(frames)).relu()


class _CausalHead(Head):
    """Causal convolutions, a grid, and the frames' logits pooled over time."""

    needs_whole_clip = None

    def __init__(
        self, body: nn.ModuleList, grid: int, pooled: PooledHead, frame_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.body = body
        self.grid = GridPool(grid)
        self.pooled = pooled
        self._shapes = _input_shapes(body, frame_shape)

    def forward(self, features: Tensor) -> Tensor:
        x = features.transpose(1, 2)
        for layer in self.body:
            x = layer(x)
        return self.pooled(self._cells(x.transpose(1, 2)))

    def initial_state(self, batch: int) -> State:
        like = self.pooled.classify.weight
        before = tuple(like.new_zeros(batch, c, CausalConv3d.frames_before, h, w) for c, h, w in self._shapes)
        return before, self.pooled.initial_state(batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        x, kept = features, list[Tensor]()
        for layer, before in zip(self.body, state[0], strict=True):
            x, before = cast(CausalConv3d, layer).step(x, before)
            kept.append(before)
        logits, pooled = self.pooled.step(self._cells(x), state[1])
        return logits, (tuple(kept), pooled)

    def _cells(self, x: Tensor) -> Tensor:
        """Put every cell's channels side by side: ``(..., C, H, W)`` to ``(..., C * g * g, 1, 1)``."""
        return self.grid(x).flatten(-3)[..., None, None]


def _input_shapes(body: nn.ModuleList, frame_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return ``(C, H, W)`` of each layer's input."""
    shapes: list[tuple[int, ...]] = []
    x = torch.zeros(1, *frame_shape)[:, :, None]
    with torch.no_grad():
        for layer in body.eval():
            shapes.append((x.shape[1], x.shape[3], x.shape[4]))
            x = layer(x)
    body.train()
    return shapes


class Conv3dCausal(VideoModel):
    """Four 3-D convolutions that look back only: each frame's answer needs two earlier frames of each layer.

    Together they see 9 frames; the frames' logits are pooled over the whole clip.

    Args:
        num_classes: K.
        height: H in pixels.
        width: W in pixels.
        channels: Channels of the first convolution; doubled twice.
        grid: Cells along each side of the pooled feature map.
        pooling: Mean, maximum or attention over the frames.
        dropout: Before the linear layer.
        in_channels: C of the frames.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        height: int,
        width: int,
        channels: int = 16,
        grid: int = 2,
        pooling: Literal["mean", "max", "attention"] = "mean",
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        widths = (in_channels, channels, 2 * channels, 4 * channels, 4 * channels)
        body = nn.ModuleList(CausalConv3d(widths[i], widths[i + 1], stride=2 if i < 3 else 1) for i in range(4))
        pooled = PooledHead(widths[-1] * grid * grid, num_classes, pooling=pooling, dropout=dropout)
        self.head = _CausalHead(body, grid, pooled, (in_channels, height, width))
