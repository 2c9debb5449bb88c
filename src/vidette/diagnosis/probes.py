"""Running a network under alternatives while its activations are watched.

How far activations are from training is one number. Each channel of a watched place is held against the mean
and variance that training left there (batch normalisation's running statistics, the reference statistics of a
trained classifier) by the symmetrised Kullback-Leibler divergence of two Gaussians,

    ((v + d^2) / w + (w + d^2) / v) / 2 - 1,    d the distance of the means, v and w the variances

(S. Kullback, R. Leibler, On information and sufficiency, Ann. Math. Stat. 22, 1951). Its log(1 + x) is averaged
over channels, then over the places of a kind, then over the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidette.diagnosis.subject import Subject
from vidette.evaluation.reference import ReferenceStatistics
from vidette.models.base import FrameModel, VideoModel
from vidette.models.keras_network import KerasNetwork

__all__ = ["Moments", "Observation", "Place", "find_places", "last_layer_inputs", "observe"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LEAST_VARIANCE = 1e-6


@dataclass
class Moments:
    """Sums of the channels of what passed a place: ``(C,)`` each."""

    count: int = 0
    total: Tensor | None = None
    squares: Tensor | None = None

    def add(self, x: Tensor, channel_axis: int) -> None:
        """Add what passes, of any shape with channels on one axis."""
        axis = channel_axis % x.dim()
        others = [i for i in range(x.dim()) if i != axis]
        variance, mean = torch.var_mean(x.detach().float(), others, correction=0)
        mean, variance = mean.double().cpu(), variance.double().cpu()
        count = x.numel() // x.shape[axis]
        self.count += count
        total, squares = count * mean, count * (variance + mean.square())
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares

    def mean_and_variance(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both, float64 ``(C,)``."""
        assert self.total is not None
        assert self.squares is not None
        mean = self.total / self.count
        return mean.numpy(), (self.squares / self.count - mean.square()).clamp_min(0).numpy()


@dataclass(frozen=True, eq=False)
class Place:
    """Where activations are watched, and what training left there.

    Attributes:
        name: For people.
        kind: ``"input"``, ``"norm"`` or ``"features"``; each kind counts alike.
        mean: float64 ``(C,)``.
        variance: float64 ``(C,)``.
        watch: Attaches a listener that is given what passes there; returns what detaches it.
        channel_axis: Of what passes.
    """

    name: str
    kind: str
    mean: np.ndarray
    variance: np.ndarray
    watch: Callable[[Callable[[Tensor], None]], Callable[[], None]]
    channel_axis: int = 1

    def distance(self, moments: Moments) -> float:
        """Return how far moments are from training: 0 for equal, about 0.7 for one standard deviation."""
        mean, variance = moments.mean_and_variance()
        floor = max(_LEAST_VARIANCE, 1e-3 * float(np.median(self.variance)))
        now, then = np.maximum(variance, floor), np.maximum(self.variance, floor)
        apart = np.square(mean - self.mean)
        divergence = ((now + apart) / then + (then + apart) / now) / 2 - 1
        return float(np.log1p(np.maximum(divergence, 0)).mean())


@dataclass(frozen=True, eq=False)
class Observation:
    """What a network did with clips.

    Attributes:
        logits: float32 ``(N, K)``.
        distance: From training's activations; nan where training left nothing to compare with.
        by_place: The same for each place.
        labels: int ``(N,)``, -1 where not known; None without labels.
    """

    logits: np.ndarray
    distance: float
    by_place: dict[str, float] = field(default_factory=dict[str, float])
    labels: np.ndarray | None = None

    @property
    def answers(self) -> np.ndarray:
        """Int ``(N,)``."""
        return self.logits.argmax(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Bool ``(M,)``: which of the labelled clips are answered rightly."""
        if self.labels is None:
            return np.zeros(0, bool)
        known = self.labels >= 0
        return self.answers[known] == self.labels[known]

    @property
    def accuracy(self) -> float:
        """Share of labelled clips that are answered rightly; nan without any."""
        right = self.right
        return float(right.mean()) if len(right) else float("nan")


def find_places(subject: Subject, reference: ReferenceStatistics | None) -> list[Place]:
    """Return where a subject's activations can be compared with training."""
    places: list[Place] = []
    if subject.module is None:
        return places
    places += _norm_places(subject.module)
    core = next((part for part in subject.module.modules() if isinstance(part, VideoModel)), None)
    if reference is not None and core is not None:
        mean, std = np.array(reference.channel_mean), np.array(reference.channel_std)
        places.append(Place("input", "input", mean, std**2, _before(core), channel_axis=2))
        if reference.features is not None and isinstance(core, FrameModel):
            known = reference.features
            watch = _pooled_after(core.backbone)
            places.append(Place("features", "features", known.mean, known.std**2, watch))
    return places


def _norm_places(module: nn.Module) -> list[Place]:
    found: list[Place] = []
    for name, part in module.named_modules():
        if isinstance(part, _NORMS) and part.running_mean is not None and part.running_var is not None:
            mean, variance = part.running_mean.double().cpu().numpy(), part.running_var.double().cpu().numpy()
            found.append(Place(name, "norm", mean, variance, _before(part)))
        elif isinstance(part, KerasNetwork):
            found += _keras_norms(part)
    return [place for place in found if np.isfinite(place.mean).all() and np.isfinite(place.variance).all()]


def _keras_norms(network: KerasNetwork) -> Iterator[Place]:
    for layer in keras_layers(network):
        if type(layer).__name__ == "BatchNormalization":
            mean = layer.moving_mean.value.detach().double().cpu().numpy()
            variance = layer.moving_variance.value.detach().double().cpu().numpy()
            yield Place(layer.name, "norm", mean, variance, _before_keras(layer), channel_axis=-1)


def keras_layers(network: KerasNetwork) -> list[Any]:
    """Return the innermost layers of a Keras network, in its own order."""
    flat = network.layer._flatten_layers(include_self=True)
    return [layer for layer in flat if not getattr(layer, "layers", None)]


def _before(module: nn.Module) -> Callable[[Callable[[Tensor], None]], Callable[[], None]]:
    def watch(listener: Callable[[Tensor], None]) -> Callable[[], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            listener(inputs[0])

        return module.register_forward_pre_hook(hook).remove

    return watch


def _pooled_after(module: nn.Module) -> Callable[[Callable[[Tensor], None]], Callable[[], None]]:
    def watch(listener: Callable[[Tensor], None]) -> Callable[[], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            del inputs
            listener(output.mean(dim=(-2, -1)) if output.dim() == 4 else output)

        return module.register_forward_hook(hook).remove

    return watch


def _before_keras(layer: Any) -> Callable[[Callable[[Tensor], None]], Callable[[], None]]:
    """Watch what a Keras layer is called with; Keras does not run torch's hooks."""

    def watch(listener: Callable[[Tensor], None]) -> Callable[[], None]:
        own = layer.call

        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            listener(inputs[0] if isinstance(inputs, list | tuple) else inputs)
            return own(inputs, *args, **kwargs)

        object.__setattr__(layer, "call", call)
        return lambda: object.__delattr__(layer, "call")

    return watch


@contextmanager
def _watched(places: Sequence[Place]) -> Generator[list[Moments], None, None]:
    moments = [Moments() for _ in places]
    with ExitStack() as stack:
        for place, sums in zip(places, moments, strict=True):
            stack.callback(place.watch(_adder(sums, place.channel_axis)))
        yield moments


def _adder(moments: Moments, channel_axis: int) -> Callable[[Tensor], None]:
    return lambda x: moments.add(x, channel_axis)


def observe(
    subject: Subject, x: Tensor, places: Sequence[Place], *, labels: np.ndarray | None = None
) -> Observation:
    """Answer clips ``(N, T, C, H, W)`` and say how far the activations are from training.

    Raises:
        InputMismatchError: The network fails or gives no class scores.
    """
    with _watched(places) as moments:
        logits = subject.logits(x)
    met = [(place, sums) for place, sums in zip(places, moments, strict=True) if sums.count]
    by_place = {place.name: place.distance(sums) for place, sums in met}
    kinds = {place.kind for place, _ in met}
    means = [np.mean([by_place[place.name] for place, _ in met if place.kind == kind]) for kind in kinds]
    return Observation(logits, float(np.mean(means)) if means else float("nan"), by_place, labels)


@contextmanager
def _listening(module: nn.Module, kept: dict[str, Tensor]) -> Generator[None, None, None]:
    """Keep what the last linear layer that runs was given, and its weights."""

    def listener(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], None]:
        def keep(x: Tensor) -> None:
            kept.clear()
            kept["inputs"], kept["weight"] = x.detach().float().cpu(), weight.detach().float().cpu()
            if bias is not None:
                kept["bias"] = bias.detach().float().cpu()

        return keep

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, nn.Linear):
                stack.callback(_before(part)(listener(part.weight, cast("Tensor | None", part.bias))))
            elif isinstance(part, KerasNetwork):
                for layer in keras_layers(part):
                    if type(layer).__name__ == "Dense":
                        bias = layer.bias.value if layer.use_bias else None
                        stack.callback(_before_keras(layer)(listener(layer.kernel.value.T, bias)))
        yield


def last_layer_inputs(subject: Subject, x: Tensor) -> dict[str, Tensor]:
    """Return ``inputs (N, ..., D)``, ``weight (K, D)`` and ``bias (K,)`` of the last linear layer that runs.

    Empty where there is none, or the network is no torch module.
    """
    if subject.module is None:
        return {}
    kept: dict[str, Tensor] = {}
    parts: list[Tensor] = []
    for part in x.split(8):
        with _listening(subject.module, kept):
            subject.logits(part)
        if "inputs" not in kept:
            return {}
        inputs = kept["inputs"]
        if not len(inputs) or len(inputs) % len(part):
            return {}
        parts.append(inputs.reshape(len(part), -1, inputs.shape[-1]))
    return {**kept, "inputs": torch.cat(parts)}
