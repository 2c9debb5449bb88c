"""Keras 3 on the torch backend: imported when first used, its layers as torch modules whose weights last."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import os
import random
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vidette.errors import SettingError

__all__ = ["KerasNetwork", "built_on_cpu", "keras_installed", "keras_library", "rebuilt"]


def keras_installed() -> bool:
    """Tell whether Keras could be imported."""
    return importlib.util.find_spec("keras") is not None


def keras_library() -> Any:
    """Return Keras on the torch backend, imported at the first call.

    Raises:
        SettingError: Keras is not installed, or the program imported it with another backend.
    """
    keras: Any = sys.modules.get("keras")
    if keras is None:
        keras = _imported_on_torch()
    backend = keras.backend.backend()
    if backend != "torch":
        raise SettingError(
            f"Keras was imported with the backend {backend!r}; Vidette needs 'torch': set KERAS_BACKEND=torch "
            "before the program imports keras"
        )
    return keras


def _imported_on_torch() -> Any:
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        return importlib.import_module("keras")
    except ImportError as error:
        raise SettingError(
            f"this needs Keras, which cannot be imported ({error}); install it: pip install 'vidette[keras]'"
        ) from error
    finally:
        del os.environ["KERAS_BACKEND"]
        if before is not None:
            os.environ["KERAS_BACKEND"] = before


class KerasNetwork(nn.Module):
    """A built Keras layer or model as a torch module: ``(B, ...)``, channels last, to what Keras gives.

    Its weights are torch parameters, numbered in Keras's own order: Keras's names count up with every layer of
    the process, so they do not last.

    Args:
        layer: A built Keras layer or model that takes ``training``.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._held = (layer,)  # in a tuple, so that torch does not register Keras's names as well
        self._variables = tuple(layer.weights)
        for i, variable in enumerate(self._variables):
            self.register_parameter(f"{i:03d}_{variable.name}", variable.value)

    @property
    def layer(self) -> Any:
        """The Keras layer or model; call it inside :meth:`ready`."""
        return self._held[0]

    def forward(self, x: Tensor) -> Tensor:
        with self.ready(x):
            return self.layer(x, training=self.training)

    @contextlib.contextmanager
    def ready(self, x: Tensor) -> Generator[None, None, None]:
        """Let Keras compute where ``x`` is and with the parameters that are in this module now.

        Left alone, Keras moves everything to the first GPU that it finds; and torch may put other parameters in
        the place of those that Keras was built with.
        """
        for variable, parameter in zip(self._variables, self._parameters.values(), strict=True):
            variable._value = parameter
        with keras_library().device(str(x.device)):
            yield

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as a description and weights: Keras's own copy would not use the parameters here."""
        config = keras_library().saving.serialize_keras_object(self.layer)
        learns = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        return _restored, (config, self.state_dict(), learns, self.training)


def _restored(
    config: dict[str, Any], state: dict[str, Tensor], learns: dict[str, bool], training: bool
) -> KerasNetwork:
    network = KerasNetwork(rebuilt(config))
    for name, parameter in network.named_parameters():
        parameter.data = state[name].detach().clone()
        parameter.requires_grad_(learns[name])
    return network.train(training)


def built_on_cpu(build: Callable[[Any], Any]) -> Any:
    """Return ``build(keras)``, its weights on the CPU and drawn from torch's generator.

    Keras seeds itself from Python's ``random``, whose state is put back.
    """
    keras = keras_library()
    before = random.getstate()
    random.seed(int(torch.randint(2**31, (1,), device="cpu")))
    try:
        with keras.device("cpu"):
            return build(keras)
    finally:
        random.setstate(before)


def rebuilt(description: Mapping[str, Any]) -> Any:
    """Return the layer or model that Keras described, with weights of its own; no Lambda is rebuilt."""
    own = copy.deepcopy(dict(description))  # Keras takes apart what it reads
    return built_on_cpu(lambda keras: keras.saving.deserialize_keras_object(own, safe_mode=True))
