"""Networks that others trained, as video models: Keras files, and image classifiers of timm and torchvision.

They are rebuilt from plain descriptions; a description that could run code of its own is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

import timm
import torch
import torchvision
from torch import Tensor, nn

from vidette.errors import ClassifierError, SettingError, unknown_name
from vidette.models.along_time import TimePool
from vidette.models.base import FrameModel, Head, State, VideoModel
from vidette.models.keras_models import FrameByFrame
from vidette.models.keras_network import KerasNetwork, rebuilt

__all__ = [
    "IMPORTED_MODELS",
    "Outputs",
    "Takes",
    "as_logits",
    "build_imported",
    "check_description",
    "described_objects",
    "first_line",
    "new_image_network",
]

Outputs = Literal["logits", "probabilities", "one_probability"]
"""What a network gives: logits, softmax probabilities, or the probability of the second of two classes."""

Takes = Literal["clip", "frame"]

_CARRIES_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
_FUNCTION_MODULES = ("activations", "initializers", "regularizers", "constraints", "ops")


def as_logits(outputs: Tensor, kind: Outputs) -> Tensor:
    """Return logits whose softmax is what the network itself would say.

    Args:
        outputs: ``(N, K)``, or ``(N, 1)`` for ``"one_probability"``.
        kind: What they are. Probabilities become their logarithm; 0 becomes the smallest normal float32's.

    Returns:
        ``(N, K)``.

    Example:
        >>> as_logits(torch.tensor([[0.25]]), "one_probability").softmax(1)
        tensor([[0.7500, 0.2500]])
    """
    if kind == "logits":
        return outputs
    if kind == "one_probability":
        outputs = torch.cat([1 - outputs, outputs], dim=-1)
    return outputs.clamp_min(torch.finfo(torch.float32).tiny).log()


class _FrameAverage(Head):
    """Average what the network gives for each frame, ``(N, T, K)``, and then make logits of it."""

    needs_whole_clip = None

    def __init__(self, width: int, outputs: Outputs) -> None:
        super().__init__()
        self.pool = TimePool("mean", width)
        self.outputs: Outputs = outputs
        self.origin: Tensor
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return as_logits(self.pool(features), self.outputs)

    def initial_state(self, batch: int) -> State:
        return self.pool.initial_state(self.origin, batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        pooled, state = self.pool.step(features, state)
        return as_logits(pooled, self.outputs), state


class _WholeClip(Head):
    """A Keras network on whole clips, channels last: ``(N, T, C, H, W)`` to ``(N, K)``."""

    needs_whole_clip = "it was imported from Keras as a network on whole clips"

    def __init__(self, network: KerasNetwork, outputs: Outputs) -> None:
        super().__init__()
        self.network = network
        self.outputs: Outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return as_logits(self.network(x.movedim(2, -1)), self.outputs)


class _KerasClip(VideoModel):
    """A Keras network on ``(N, T, H, W, 3)``."""

    def __init__(self, network: KerasNetwork, outputs: Outputs) -> None:
        super().__init__()
        self.head = _WholeClip(network, outputs)


def _keras_file(num_classes: int, *, config: Mapping[str, Any], outputs: Outputs, takes: Takes) -> VideoModel:
    """Rebuild the network of a Keras file, without its weights."""
    check_description(config)
    try:
        layer = rebuilt(config)
    except SettingError:
        raise
    except Exception as error:  # Keras raises whatever its layers do
        raise ClassifierError(
            f"Keras cannot rebuild the network ({first_line(error)}); import its file again"
        ) from error
    network = KerasNetwork(layer)
    if takes == "clip":
        return _KerasClip(network, outputs)
    return FrameByFrame(network, _FrameAverage(1 if outputs == "one_probability" else num_classes, outputs))


def _image_network(num_classes: int, *, architecture: str) -> VideoModel:
    """Build an image classifier whose logits are averaged over the frames."""
    return FrameModel(new_image_network(architecture, num_classes), _FrameAverage(num_classes, "logits"))


IMPORTED_MODELS: Mapping[str, Callable[..., VideoModel]] = {
    "keras_file": _keras_file,
    "image_network": _image_network,
}
"""What ``vidette import`` makes: by model name, how it is built from the number of classes and its options."""


def build_imported(name: str, *, num_classes: int, options: Mapping[str, Any]) -> VideoModel:
    """Build an imported model without its weights.

    Args:
        name: A key of :data:`IMPORTED_MODELS`.
        num_classes: K.
        options: As saved with the classifier.

    Raises:
        ClassifierError: The description is incomplete, damaged, or holds code.
        SettingError: Keras is not there, or the architecture is unknown.
    """
    try:
        model = IMPORTED_MODELS[name](num_classes, **options)
    except TypeError as error:
        raise ClassifierError(
            f"the description of the imported model is damaged ({error}); import it again"
        ) from error
    model.name = name
    return model


def described_objects(description: Any) -> Iterator[Mapping[str, Any]]:
    """Give every object inside a Keras description, but for how the network was trained."""
    if isinstance(description, Mapping):
        if "class_name" in description:
            yield cast("Mapping[str, Any]", description)
        for key, value in description.items():
            if key != "compile_config":
                yield from described_objects(value)
    elif isinstance(description, list | tuple):
        for value in description:
            yield from described_objects(value)


def check_description(description: Any) -> None:
    """Refuse a Keras description that would run code which is not Keras's own.

    Raises:
        ClassifierError: It holds a Lambda, a custom object, or another layer that carries code.
    """
    for described in described_objects(description):
        kind, module = str(described["class_name"]), described.get("module")
        name = _name_of(described)
        if kind in _CARRIES_CODE:
            raise ClassifierError(
                f"the Keras model holds {name}: such a layer is Python code inside the file, and running code "
                "from a model file is unsafe, so Vidette never does; use Keras's own layers and save it again"
            )
        foreign = module is not None and str(module).split(".")[0] != "keras"
        gadget = kind == "function" and not set(_FUNCTION_MODULES) & set(str(module).split("."))
        if foreign or gadget or str(described.get("registered_name") or "").count(">"):
            raise ClassifierError(
                f"the Keras model holds {name} of {module or 'a program'}, which is not part of Keras: it is "
                "Python code outside the file; use Keras's own layers and save it again"
            )


def _name_of(described: Mapping[str, Any]) -> str:
    config = described.get("config")
    own = config.get("name") if isinstance(config, Mapping) else config
    return f"{described['class_name']} {own!r}" if isinstance(own, str) else str(described["class_name"])


def new_image_network(architecture: str, num_classes: int) -> nn.Module:
    """Build an image classifier ``(B, 3, H, W)`` to ``(B, K)`` with random weights.

    Args:
        architecture: ``"timm:NAME"`` or ``"torchvision:NAME"``.
        num_classes: K.

    Raises:
        SettingError: There is no such architecture; names the nearest.
    """
    library, _, name = architecture.partition(":")
    if library == "timm" and timm.is_model(name):
        return timm.create_model(name, pretrained=False, num_classes=num_classes)
    if library == "torchvision" and name in _torchvision_names():
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    known = {"timm": timm.list_models, "torchvision": _torchvision_names}
    if library in known:
        raise SettingError(unknown_name(f"architecture of {library}", name, known[library]())[:400])
    raise SettingError(
        f"architecture is {architecture!r}; expected timm:NAME or torchvision:NAME, for example timm:resnet18"
    )


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
