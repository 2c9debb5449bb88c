"""Clip tensors to logits; knows no file, no spec and no recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vidette.errors import SettingError, unknown_name
from vidette.models.base import VideoModel
from vidette.models.cnn_rnn import CnnRnn
from vidette.models.conv3d import Conv3dSmall, ResNet3d
from vidette.models.frame_cnn import FrameCnn
from vidette.models.imagenet import ImageNetFrames

__all__ = ["MODELS", "ModelKind", "VideoModel", "build_model", "model_options"]


@dataclass(frozen=True)
class ModelKind:
    """One line of the model table.

    Attributes:
        build: Makes the network from ``num_classes`` and its options.
        summary: One line for people.
        uses_order: Whether the order of the frames can change the answer.
        has_backbone: Whether a 2-D backbone looks at every frame on its own.
        licence: Of the architecture's code.
    """

    build: Callable[..., VideoModel]
    summary: str
    uses_order: bool
    has_backbone: bool
    licence: str = "Apache-2.0"


MODELS: Mapping[str, ModelKind] = {
    "frame_cnn": ModelKind(FrameCnn, "CNN frame by frame, averaged", False, True),
    "cnn_rnn": ModelKind(partial(CnnRnn, cell="rnn"), "CNN + simple RNN", True, True),
    "cnn_lstm": ModelKind(partial(CnnRnn, cell="lstm"), "CNN + LSTM", True, True),
    "cnn_gru": ModelKind(partial(CnnRnn, cell="gru"), "CNN + GRU (default)", True, True),
    "conv3d_small": ModelKind(Conv3dSmall, "small 3-D CNN", True, False),
    "r3d_18": ModelKind(partial(ResNet3d, variant="r3d_18"), "3-D ResNet-18", True, False, "BSD-3-Clause"),
}

_CLIP_SHAPE = ("num_frames", "height", "width")


def model_options(name: str) -> tuple[str, ...]:
    """Return the names of the options that a model takes, without the clip's shape.

    Raises:
        SettingError: The model is unknown.
    """
    if name == "imagenet":
        return ()
    if name not in MODELS:
        raise SettingError(unknown_name("model", name, MODELS))
    build = MODELS[name].build
    fixed = set(build.keywords) if isinstance(build, partial) else set()
    names = inspect.signature(build).parameters
    return tuple(n for n in names if n not in {"num_classes", *_CLIP_SHAPE, *fixed})


def build_model(
    name: str,
    *,
    num_classes: int,
    num_frames: int,
    height: int,
    width: int,
    options: Mapping[str, Any] | None = None,
) -> VideoModel:
    """Build a model with random weights.

    Args:
        name: A key of :data:`MODELS`, or ``"imagenet"``.
        num_classes: K.
        num_frames: T of the clips it will see.
        height: H in pixels.
        width: W in pixels.
        options: The model's own options; see :func:`model_options`.

    Raises:
        SettingError: The model or an option is unknown; names the nearest.

    Example:
        >>> model = build_model("conv3d_small", num_classes=4, num_frames=8, height=32, width=32)
        >>> import torch
        >>> model(torch.zeros(2, 8, 3, 32, 32)).shape
        torch.Size([2, 4])
    """
    known = model_options(name)
    for option in options or {}:
        if option not in known:
            raise SettingError(unknown_name(f"option of model {name}", option, known))
    if name == "imagenet":
        return ImageNetFrames()
    build = MODELS[name].build
    shape = {"num_frames": num_frames, "height": height, "width": width}
    wanted = {k: v for k, v in shape.items() if k in inspect.signature(build).parameters}
    return build(num_classes, **wanted, **(options or {}))
