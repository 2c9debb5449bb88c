"""Where in a network the class activation maps are read: its last convolution that still has places."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from vidette.errors import InputMismatchError
from vidette.models.backbone import GridPool
from vidette.models.base import FrameModel, VideoModel
from vidette.models.huggingface import HuggingFaceVideo
from vidette.models.keras_backbone import KerasBackbone
from vidette.models.keras_network import KerasNetwork, keras_library

__all__ = ["MapLayer", "find_map_layer"]

_Module = TypeVar("_Module", bound=nn.Module)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, KerasBackbone)


@dataclass(frozen=True, eq=False)
class MapLayer:
    """A layer whose output is a map of the picture.

    Attributes:
        model: The network that holds it: the given one, or a view of it with a Keras network cut in two there.
        layer: Gives ``(T, D, h, w)`` of a clip of T frames, or ``(1, D, t, h, w)``.
        name: Its name in the network.
        shape: ``(h, w)``, or ``(t, h, w)`` of a network that convolves over time.
    """

    model: VideoModel
    layer: nn.Module
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Call:
    """One module's turn in a run of the network."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]

    @property
    def is_convolution(self) -> bool:
        return isinstance(self.module, _CONVOLUTIONS) and math.prod(self.shape[2:]) > 1


def find_map_layer(model: VideoModel, x: Tensor) -> MapLayer:
    """Return the last convolution that still tells places apart, with what follows it there.

    Normalisation, activation and the end of a residual block belong to the convolution as long as the map keeps
    its size; pooling ends it.

    Args:
        model: In eval mode.
        x: One clip, ``(1, T, C, H, W)``.

    Raises:
        InputMismatchError: The network has no such layer, or attention follows it, which mixes the places.
    """
    if _attends(model):
        raise InputMismatchError(
            f"model {model.name} mixes the places of its picture by attention, so it has no class activation "
            "map; its importance over time can be measured"
        )
    found = _last_map(_calls(model, x)) or _cut_keras(model, x)
    if found is None:
        raise InputMismatchError(
            f"model {model.name} has no convolution that still tells places apart, so it has no class "
            "activation map; its importance over time can be measured"
        )
    if len(found.shape) == 2 and _calls(found.model, x, only=found.layer)[0].shape[0] != x.shape[1]:
        raise InputMismatchError(
            f"layer {found.name} of model {model.name} gives no map for each of the clip's frames"
        )
    return found


def _attends(model: VideoModel) -> bool:
    """Whether attention works on the picture itself; a head that attends to frames reads a map before it."""
    if isinstance(model, HuggingFaceVideo):
        return True
    if not isinstance(model, FrameModel):
        return False
    return any("attention" in type(module).__name__.lower() for module in model.backbone.modules())


def _calls(model: VideoModel, x: Tensor, *, only: nn.Module | None = None) -> list[_Call]:
    """Run the network once; return its modules as they finish, with the shape of what they give."""
    calls: list[_Call] = []
    handles: list[Any] = []
    for name, module in model.named_modules():
        if only is not None and module is not only:
            continue

        def note(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            del inputs
            if isinstance(output, Tensor):
                calls.append(_Call(name, module, tuple(output.shape)))

        handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _last_map(calls: Sequence[_Call]) -> MapLayer | None:
    places = [i for i, call in enumerate(calls) if call.is_convolution]
    if not places:
        return None
    last = places[-1]
    end = last
    for i in range(last + 1, len(calls)):
        if calls[i].shape[2:] != calls[last].shape[2:] or isinstance(calls[i].module, GridPool):
            break
        end = i
    model = cast(VideoModel, calls[-1].module)
    return MapLayer(model, calls[end].module, calls[end].name, calls[end].shape[2:])


# Keras calls its layers itself, so that no torch hook sees them: a network is cut in two instead.


class _Front(nn.Module):
    """A Keras network up to its last map, which it gives channels first."""

    def __init__(self, part: Callable[[Any], Any]) -> None:
        super().__init__()
        self._held = (part,)  # in a tuple, so that torch does not register Keras's layers

    def forward(self, x: Tensor) -> Tensor:
        return self._held[0](x).movedim(-1, 1)


class _InTwo(nn.Module):
    """A Keras network with its map as an output on the way; the weights are the network's own."""

    def __init__(self, network: KerasNetwork, front: Callable[[Any], Any], back: Callable[[Any], Any]) -> None:
        super().__init__()
        self.front = _Front(front)
        self._held = (network, back)

    def forward(self, x: Tensor) -> Tensor:
        network, back = self._held
        with network.ready(x):
            return back(self.front(x).movedim(1, -1))


def _cut(network: Any, chosen: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    """Return what a Keras network does up to a layer, and after it; None where something leads past it."""
    keras = keras_library()
    if isinstance(network, keras.Sequential):
        layers = list(network.layers)
        end = layers.index(chosen) + 1
        return partial(_through, layers[:end]), partial(_through, layers[end:])
    for node in reversed(chosen._inbound_nodes):  # a network used as a layer also has a node of its own
        maps = node.outputs[0]
        with contextlib.suppress(ValueError):
            return keras.Model(network.inputs, maps), keras.Model(maps, network.outputs[0])
    return None


def _through(layers: Sequence[Any], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def _cut_keras(model: VideoModel, x: Tensor) -> MapLayer | None:
    for name, module in reversed(list(model.named_modules())):
        if not isinstance(module, KerasNetwork):
            continue
        chosen = _last_keras_map(module.layer)
        parts = _cut(module.layer, chosen) if chosen is not None else None
        if parts is None:
            continue
        in_two = _InTwo(module, *parts)
        view = _with_submodule(model, name, in_two)
        shape = _calls(view, x, only=in_two.front)[0].shape
        return MapLayer(view, in_two.front, f"{name}.{cast(Any, chosen).name}", shape[2:])
    return None


def _last_keras_map(network: Any) -> Any:
    """Return the layer whose output is the last map of a Keras network of pictures or clips, or None."""
    layers = list(getattr(network, "layers", ()))
    if not layers or not getattr(network, "inputs", None):
        return None
    dimensions, chosen = len(network.inputs[0].shape), None
    for layer in layers:
        shape = tuple(layer.output.shape)
        if len(shape) == dimensions and dimensions >= 4 and 1 not in shape[1:-1]:
            pools = "Pool" in type(layer).__name__  # by name: the size itself may be left open
            same = chosen is not None and not pools and _places(chosen) == _places(layer)
            chosen = layer if _convolves(layer) or same else chosen
    return chosen


def _places(layer: Any) -> tuple[int | None, ...]:
    return tuple(layer.output.shape)[1:-1]


def _convolves(layer: Any) -> bool:
    inner = [*getattr(layer, "layers", ()), *([layer.layer] if hasattr(layer, "layer") else [])]
    return "Conv" in type(layer).__name__ or any(_convolves(part) for part in inner)


def _with_submodule(model: VideoModel, name: str, new: nn.Module) -> VideoModel:
    """Return a view of ``model`` with another submodule: all else is shared, and the model left alone."""
    *parents, last = name.split(".")
    view = _shallow(model)
    place: nn.Module = view
    for part in parents:
        child = _shallow(place.get_submodule(part))
        place.set_submodule(part, child)
        place = child
    place.set_submodule(last, new)
    return view


def _shallow(module: _Module) -> _Module:
    """Return a copy that shares its submodules but not the table of them."""
    copied = copy.copy(module)
    vars(copied)["_modules"] = dict(vars(module)["_modules"])
    return copied
