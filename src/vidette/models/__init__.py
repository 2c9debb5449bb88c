"""Clip tensors to logits; knows no file, no spec and no recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vidette.errors import SettingError, unknown_name
from vidette.models.base import CodebookHead, State, VideoModel
from vidette.models.change import ChangeCnn
from vidette.models.cnn_rnn import CnnRnn
from vidette.models.cnn_tcn import CnnTcn
from vidette.models.conv3d import Conv3dCausal, Conv3dSmall, TorchvisionVideo
from vidette.models.flow_fisher import FlowFisher
from vidette.models.frame_cnn import FrameCnn
from vidette.models.huggingface import PREFIX, HuggingFaceVideo
from vidette.models.imagenet import ImageNetFrames
from vidette.models.keras_models import KerasCnnLstm, KerasConv3d, KerasFrameCnn
from vidette.models.motion_input import INPUTS, MotionModel
from vidette.models.shift import ShiftCnn
from vidette.models.transformer import SpaceTimeTransformer

__all__ = ["MODELS", "ModelKind", "State", "VideoModel", "build_model", "model_kind", "model_options"]


@dataclass(frozen=True)
class ModelKind:
    """One line of the model table.

    Attributes:
        build: Makes the network from ``num_classes`` and its options.
        summary: One line for people.
        uses_order: Whether the order of the frames can change the answer.
        has_backbone: Whether a 2-D backbone looks at every frame on its own.
        weights_offline: Pretrained weights that come with the installation.
        weights_download: Pretrained weights that are downloaded on request.
        licence: Of the architecture's code.
    """

    build: Callable[..., VideoModel]
    summary: str
    uses_order: bool
    has_backbone: bool
    weights_offline: str = "none"
    weights_download: str = "none"
    licence: str = "Apache-2.0"


def _cnn(build: Callable[..., VideoModel], summary: str, *, uses_order: bool = True) -> ModelKind:
    return ModelKind(build, summary, uses_order, True, "ImageNet", "ImageNet of other backbones")


def _torchvision(variant: str, summary: str) -> ModelKind:
    build = partial(TorchvisionVideo, variant=variant)
    return ModelKind(build, summary, True, False, "none", "Kinetics-400", "BSD-3-Clause")


MODELS: Mapping[str, ModelKind] = {
    "frame_cnn": _cnn(FrameCnn, "CNN, frames averaged", uses_order=False),
    "change": _cnn(ChangeCnn, "CNN, feature change"),
    "flow_fisher": ModelKind(FlowFisher, "flow, Fisher vector", True, True),
    "cnn_rnn": _cnn(partial(CnnRnn, cell="rnn"), "CNN + simple RNN"),
    "cnn_lstm": _cnn(partial(CnnRnn, cell="lstm"), "CNN + LSTM"),
    "cnn_gru": _cnn(partial(CnnRnn, cell="gru"), "CNN + GRU (default)"),
    "cnn_tcn": _cnn(CnnTcn, "CNN + temporal conv."),
    "shift": replace(_cnn(ShiftCnn, "CNN, temporal shift"), has_backbone=False),
    "transformer": _cnn(SpaceTimeTransformer, "CNN + attention"),
    "conv3d_small": ModelKind(Conv3dSmall, "small 3-D CNN", True, False),
    "conv3d_causal": ModelKind(Conv3dCausal, "small, looking back", True, False),
    "r3d_18": _torchvision("r3d_18", "3-D ResNet-18"),
    "mc3_18": _torchvision("mc3_18", "ResNet-18, 3-D first"),
    "r2plus1d_18": _torchvision("r2plus1d_18", "ResNet-18, (2+1)-D"),
    "s3d": _torchvision("s3d", "separable Inception"),
    "keras_frame_cnn": ModelKind(KerasFrameCnn, "Keras CNN, averaged", False, False),
    "keras_cnn_lstm": ModelKind(KerasCnnLstm, "Keras CNN + LSTM", True, False),
    "keras_conv3d": ModelKind(KerasConv3d, "Keras 3-D CNN", True, False),
}

_CLIP_SHAPE = ("num_frames", "height", "width", "in_channels")


_HUGGING_FACE = ModelKind(
    HuggingFaceVideo, "video classifier of transformers", True, False, "none", "its own", "of its source"
)


def model_kind(name: str) -> ModelKind:
    """Return the line of the table that a name means; ``hf:SOURCE`` is a network of transformers.

    Raises:
        SettingError: The model is unknown; names the nearest.
    """
    if name.startswith(PREFIX):
        return _HUGGING_FACE
    if name not in MODELS:
        raise SettingError(unknown_name("model", name, MODELS))
    return MODELS[name]


def model_options(name: str) -> tuple[str, ...]:
    """Return the names of the options that a model takes, without the clip's shape.

    Raises:
        SettingError: The model is unknown.
    """
    if name == "imagenet":
        return ()
    if name.startswith(PREFIX):
        return ("config",)
    build = model_kind(name).build
    fixed = set(build.keywords) if isinstance(build, partial) else set()
    names = inspect.signature(build).parameters
    return (*(n for n in names if n not in {"num_classes", *_CLIP_SHAPE, *fixed}), "input")


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
        name: A key of :data:`MODELS`, ``"imagenet"``, or ``"hf:SOURCE"``: a folder or name of transformers.
        num_classes: K.
        num_frames: T of the clips it will see.
        height: H in pixels.
        width: W in pixels.
        options: The model's own options, see :func:`model_options`, and ``input``: what it reads, ``"rgb"``,
            ``"difference"`` (of neighbouring frames), ``"rgb+difference"`` or ``"motion"``.

    Raises:
        SettingError: The model or an option is unknown (names the nearest), or out of range.

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
    own = dict(options or {})
    if name.startswith(PREFIX):
        own["source"] = name.removeprefix(PREFIX)
    kind = own.pop("input", "rgb")
    if kind not in INPUTS:
        raise SettingError(unknown_name("input", kind, INPUTS))
    build = model_kind(name).build
    shape = {"num_frames": num_frames, "height": height, "width": width, "in_channels": INPUTS[kind]}
    wanted = {k: v for k, v in shape.items() if k in inspect.signature(build).parameters}
    model = build(num_classes, **wanted, **own)
    if kind != "rgb" and isinstance(model.head, CodebookHead):
        raise SettingError(
            f"model {name} finds the movement in pictures itself, not in {kind!r}; leave out input"
        )
    if kind != "rgb":
        model = MotionModel(model, kind, height=height, width=width)
    model.name = name
    return model
