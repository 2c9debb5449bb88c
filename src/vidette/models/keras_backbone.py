"""Networks of keras.applications as per-frame backbones, and the pixels that their weights want."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidette.errors import SettingError, unknown_name
from vidette.models.keras_network import KerasNetwork, built_on_cpu

__all__ = ["CAFFE_MEAN", "KERAS_BACKBONES", "KerasApplication", "KerasBackbone", "load_keras_imagenet"]

CAFFE_MEAN = (103.939 / 255, 116.779 / 255, 123.68 / 255)
"""Mean of ImageNet, blue first, that ResNet50 of Keras subtracts from pixels of 0 to 255."""


@dataclass(frozen=True)
class KerasApplication:
    """A network of keras.applications and what its ImageNet weights want to see.

    Attributes:
        name: In ``keras.applications``.
        mean: In units of pixel / 255, in ``channel_order``.
        std: In the same units.
        channel_order: Of the tensor.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["RGB", "BGR"]


KERAS_BACKBONES: Mapping[str, KerasApplication] = {
    "keras:ResNet50": KerasApplication("ResNet50", CAFFE_MEAN, (1 / 255, 1 / 255, 1 / 255), "BGR"),
    "keras:MobileNetV2": KerasApplication("MobileNetV2", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "RGB"),
}
"""Backbones of Keras by the name that Vidette gives them."""


class KerasBackbone(nn.Module):
    """A network of keras.applications without its classifier: ``(B, C, H, W)`` to ``(B, out_channels, h, w)``.

    Args:
        name: A key of :data:`KERAS_BACKBONES`.
        in_channels: C of the pictures.

    Raises:
        SettingError: The name is unknown, or Keras is not there.
    """

    def __init__(self, name: str, *, in_channels: int = 3) -> None:
        super().__init__()
        if name not in KERAS_BACKBONES:
            raise SettingError(unknown_name("Keras backbone", name, KERAS_BACKBONES))
        self.name = name
        self.network = KerasNetwork(built_on_cpu(lambda keras: _application(keras, name, in_channels, None)))
        self.out_channels = int(self.network.layer.output_shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.movedim(1, -1)).movedim(-1, 1)


def _application(keras: Any, name: str, in_channels: int, weights: str | None) -> Any:
    order = keras.config.image_data_format()
    if order != "channels_last":
        raise SettingError(
            f"Keras is set to {order!r}; Vidette needs 'channels_last': change image_data_format in "
            "~/.keras/keras.json"
        )
    build = getattr(keras.applications, KERAS_BACKBONES[name].name)
    shape = (None, None, in_channels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on 6 channels and on sizes other than 224
        return build(include_top=False, weights=weights, input_shape=shape)


def load_keras_imagenet(backbone: KerasBackbone, *, change_share: float = 0.0) -> None:
    """Fill a backbone with the ImageNet weights of keras.applications, downloaded at the first use.

    Args:
        backbone: Filled in place.
        change_share: Where its first convolution also reads the change between frames: how strong those
            weights begin, as a share of the picture's.

    Raises:
        SettingError: The download failed.
    """
    try:
        source = built_on_cpu(lambda keras: _application(keras, backbone.name, 3, "imagenet"))
    except Exception as error:  # Keras raises plain Exception where a download fails
        reason = (str(error).splitlines() or ["no message"])[0][:200]
        raise SettingError(
            f"ImageNet weights of {backbone.name!r} could not be loaded ({reason}); they are downloaded on "
            "request: check the network, use the default backbone (packaged), or --weights none"
        ) from error
    with torch.no_grad():
        for ours, theirs in zip(backbone.network.parameters(), source.weights, strict=True):
            given = theirs.value.detach()
            if ours.dim() == 4 and ours.shape[2] == 2 * given.shape[2]:
                given = torch.cat([given, change_share * given], dim=2)
            ours.copy_(given)
