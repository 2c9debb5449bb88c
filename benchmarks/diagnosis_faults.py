# ruff: noqa: ARG001, ARG005  every fault takes the same arguments
"""Faults planted on purpose, for benchmarks/diagnosis.py: each is a function of a patient and a seed.

What is diagnosed afterwards is a callable with the fault inside, or clips with the fault in their pictures;
nothing else tells which fault it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidette.diagnosis.material import Material
from vidette.diagnosis.subject import Subject
from vidette.models.keras_network import KerasNetwork
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import FrameResizer

__all__ = ["FAULTS", "Fault", "NativeClips", "Patient"]


@dataclass(frozen=True, eq=False)
class NativeClips:
    """Pictures at their own size and rate, from which clips are cut."""

    frames: tuple[np.ndarray, ...]
    fps: tuple[float, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, places) -> NativeClips:
        return NativeClips(
            tuple(self.frames[i] for i in places),
            tuple(self.fps[i] for i in places),
            tuple(self.labels[i] for i in places),
        )

    def joined(self, other: NativeClips) -> NativeClips:
        return NativeClips(
            (*self.frames, *other.frames), (*self.fps, *other.fps), (*self.labels, *other.labels)
        )

    def changed(self, change: Callable[[np.ndarray, int], np.ndarray]) -> NativeClips:
        return dataclasses.replace(self, frames=tuple(change(f, i) for i, f in enumerate(self.frames)))

    def cut(self, spec: ClipSpec, stretch: float = 1.0) -> list[Clip]:
        resizer = FrameResizer(spec)
        clips = []
        for frames, fps in zip(self.frames, self.fps, strict=True):
            last = (len(frames) - 1) / fps
            wanted = min(last, stretch * _share(self) * last)
            begin = (last - wanted) / 2
            seconds = begin + np.linspace(0, wanted, spec.num_frames)
            chosen = np.clip(np.floor(seconds * fps + 1e-6).astype(int), 0, len(frames) - 1)
            clips.append(Clip(np.stack([resizer(frames[i]) for i in chosen]), chosen / fps))
        return clips


def _share(native: NativeClips) -> float:
    return getattr(native, "share", 1.0)


@dataclass(frozen=True, eq=False)
class ShortClips(NativeClips):
    share: float = 1.0

    def take(self, places) -> ShortClips:
        taken = super().take(places)
        return ShortClips(taken.frames, taken.fps, taken.labels, share=self.share)


@dataclass(frozen=True, eq=False)
class Patient:
    """A healthy classifier with clips to be diagnosed on."""

    name: str
    subject: Subject
    source: NativeClips
    training: NativeClips
    uses_order: bool
    extras: Mapping[str, Callable[[], Subject]] = dataclasses.field(default_factory=dict)

    def material(self, native: NativeClips | None = None, spec: ClipSpec | None = None) -> Material:
        return as_material(native or self.source, spec or self.subject.spec, "source")

    def reference(self) -> Material:
        return as_material(self.training, self.subject.spec, "training")


def as_material(native: NativeClips, spec: ClipSpec, name: str) -> Material:
    names = tuple(f"{name} {i}" for i in range(len(native)))
    return Material(
        name,
        tuple(native.cut(spec)),
        names,
        native.labels,
        lambda s, stretch, places: native.take(places).cut(s, stretch),
    )


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    ``accepted``: names of findings that are right; ``needs``: what a patient must have; ``tune``: thresholds
    were chosen on it; the others were kept apart.
    """

    name: str
    accepted: tuple[str, ...]
    plant: Callable[[Patient, int], tuple[Subject, Material, Material | None]]
    needs: str = ""
    tune: bool = True


def _wrapped(patient: Patient, change: Callable[[Tensor], Tensor]) -> Subject:
    """Put a change of the input inside the network."""
    module = _Before(patient.subject.module, change)
    return dataclasses.replace(patient.subject, network=module, module=module)


class _Before(nn.Module):
    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.change = change
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.change(x))


def _input(change: Callable[[Patient, Tensor], Tensor]):
    def plant(patient: Patient, seed: int):
        return _wrapped(patient, lambda x: change(patient, x)), patient.material(), None

    return plant


def _pictures(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]):
    def plant(patient: Patient, seed: int):
        def one(frames: np.ndarray, i: int) -> np.ndarray:
            return change(frames, np.random.default_rng((seed, i)))

        return patient.subject, patient.material(patient.source.changed(one)), None

    return plant


def _spec_values(patient: Patient) -> tuple[Tensor, Tensor]:
    spec = patient.subject.spec
    return torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)


def _pixels(patient: Patient, x: Tensor) -> Tensor:
    mean, std = _spec_values(patient)
    return x * std + mean


def _normalised(patient: Patient, x: Tensor) -> Tensor:
    mean, std = _spec_values(patient)
    return (x - mean) / std


def _other_network(patient: Patient, x: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return (_pixels(patient, x) - mean) * 255  # Caffe's, without its order


def _level(frames: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _blur(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small = functional.interpolate(x, scale_factor=1 / float(rng.uniform(3.0, 4.5)), mode="area")
    big = functional.interpolate(small, frames.shape[1:3], mode="bilinear")
    return _level(big.permute(0, 2, 3, 1).numpy())


def _noise(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _level(frames + rng.normal(0, rng.uniform(35, 55), frames.shape))


def _dark(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _level(frames * rng.uniform(0.1, 0.25))


def _bright(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _level(frames * 1.5 + rng.uniform(80, 110))


def _hazy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _level(frames.mean() + (frames - frames.mean()) * rng.uniform(0.1, 0.2))


def _black(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros_like(frames)


def _covered(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _level(np.full(frames.shape, rng.uniform(60, 160)) + rng.normal(0, 2, frames.shape))


def _stuck(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(frames[:1], len(frames), axis=0)


def _few(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kept = np.floor(np.linspace(0, 2.999, len(frames))).astype(int) * (len(frames) // 3)
    return frames[kept]


def _turn(turns: int):
    return lambda frames, rng: np.ascontiguousarray(np.rot90(frames, turns, axes=(1, 2)))


def _mirror(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(frames[:, :, ::-1])


def _bars(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture squeezed between black bars at its sides."""
    height, width = frames.shape[1:3]
    inner = round(width * 0.5)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small = functional.interpolate(x, (height, inner), mode="area").permute(0, 2, 3, 1).numpy()
    out = np.zeros_like(frames)
    left = (width - inner) // 2
    out[:, :, left : left + inner] = _level(small)
    return out


def _zoom(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The middle of the picture only."""
    height, width = frames.shape[1:3]
    top, left = round(height * 0.2), round(width * 0.2)
    return np.ascontiguousarray(frames[:, top : height - top, left : width - left])


def _bgr(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(frames[..., ::-1])


def _shuffled(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return frames[rng.permutation(len(frames))]


def _reversed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(frames[::-1])


def _size(patient: Patient, seed: int):
    spec = dataclasses.replace(
        patient.subject.spec, height=patient.subject.spec.height // 2, width=patient.subject.spec.width // 2
    )
    return dataclasses.replace(patient.subject, spec=spec), patient.material(spec=spec), None


def _resize_rule(patient: Patient, seed: int):
    spec = dataclasses.replace(patient.subject.spec, resize="crop")
    return dataclasses.replace(patient.subject, spec=spec), patient.material(spec=spec), None


def _span(patient: Patient, seed: int):
    s = patient.source
    short = ShortClips(s.frames, s.fps, s.labels, share=float(np.random.default_rng(seed).uniform(0.2, 0.3)))
    return patient.subject, patient.material(short), None


def _order_blind(patient: Patient, seed: int):
    inner = patient.subject.module

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            frames = [self.inner(x[:, t : t + 1].expand_as(x).contiguous()) for t in range(x.shape[1])]
            return torch.stack(frames).double().mean(0).float()

    module = Blind().eval()
    return dataclasses.replace(patient.subject, network=module, module=module), patient.material(), None


def _memory(patient: Patient, seed: int):
    inner, kept = patient.subject.module, {}

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            logits = []
            for clip in x:
                half = clip[None].clone()
                if "last" in kept:
                    half[:, : x.shape[1] // 2] = kept["last"][:, -(x.shape[1] // 2) :]
                kept["last"] = clip[None]
                logits.append(self.inner(half))
            return torch.cat(logits)

    module = Remembers().eval()
    return dataclasses.replace(patient.subject, network=module, module=module), patient.material(), None


def _over_batch(patient: Patient, seed: int):
    """A recurrence along the batch: each clip's features lean on those before it."""
    inner = patient.subject.module

    class OverBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            logits, state = self.inner(x), None
            found = []
            for row in logits:
                state = row if state is None else 0.6 * state + 0.4 * row
                found.append(state)
            return torch.stack(found)

    module = OverBatch().eval()
    return dataclasses.replace(patient.subject, network=module, module=module), patient.material(), None


def _model(change: Callable[[nn.Module, int], None]):
    def plant(patient: Patient, seed: int):
        module = copy.deepcopy(patient.subject.module)
        torch.manual_seed(seed + 100)
        change(module, seed)
        return dataclasses.replace(patient.subject, network=module, module=module), patient.material(), None

    return plant


def _training_mode(module: nn.Module, seed: int) -> None:
    module.train()


def fresh(module: nn.Module) -> None:
    """Fill a layer, and what is inside it, as a new network has it."""
    for part in module.modules():
        if isinstance(part, KerasNetwork):
            _fresh_keras(part)
        elif hasattr(part, "reset_parameters"):
            part.reset_parameters()


def _fresh_keras(network: KerasNetwork) -> None:
    from vidette.models.keras_network import keras_library, rebuilt

    new = KerasNetwork(rebuilt(keras_library().saving.serialize_keras_object(network.layer)))
    network.load_state_dict(new.state_dict())


def _not_loaded(module: nn.Module, seed: int) -> None:
    fresh(module)


def _weighted(module: nn.Module) -> list[nn.Module]:
    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.RNNBase, nn.BatchNorm2d, nn.BatchNorm3d)
    return [part for part in module.modules() if isinstance(part, kinds)]


def _partly(module: nn.Module, seed: int) -> None:
    if any(isinstance(part, KerasNetwork) for part in module.modules()):
        networks = [part for part in module.modules() if isinstance(part, KerasNetwork)]
        layers = [layer for layer in networks[0].layer.layers if layer.weights]
        for layer in layers[1:2]:
            fresh_layer = [torch.empty_like(w.value) for w in layer.weights]
            bound = np.sqrt(6 / sum(_fans(tuple(layer.kernel.shape))))
            fresh_layer[0].uniform_(-bound, bound)
            fresh_layer[1].zero_()
            for weight, new in zip(layer.weights, fresh_layer, strict=True):
                weight.value.data.copy_(new)
        return
    parts = _weighted(module)
    middle = list(parts[2:-1])
    for part in middle[: max(2, len(middle) // 2)]:
        part.reset_parameters()


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    receptive = int(np.prod(shape[:-2], initial=1))
    return shape[-2] * receptive, shape[-1] * receptive


def last_linear(module: nn.Module) -> tuple[Tensor, Tensor, Callable[[], None]]:
    """Return weight (any layout) and bias of the last linear layer, and what makes them new."""
    networks = [part for part in module.modules() if isinstance(part, KerasNetwork)]
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if networks and not linears:
        network = networks[-1]
        dense = [layer for layer in network.layer.layers if type(layer).__name__ == "Dense"][-1]
        return dense.kernel.value, dense.bias.value, lambda: _fresh_keras(network)
    return linears[-1].weight, linears[-1].bias, linears[-1].reset_parameters


def _head_random(module: nn.Module, seed: int) -> None:
    last_linear(module)[2]()


def _saturated(module: nn.Module, seed: int) -> None:
    weight, bias, _ = last_linear(module)
    with torch.no_grad():
        weight.mul_(60)
        bias.mul_(60)


def _collapsed(module: nn.Module, seed: int) -> None:
    weight, _, _ = last_linear(module)
    with torch.no_grad():
        weight.mul_(1e-6)


def _bias(module: nn.Module, seed: int) -> None:
    _weight, bias, _ = last_linear(module)
    with torch.no_grad():
        bias[seed % len(bias)] += 40.0


def _dead(module: nn.Module, seed: int) -> None:
    """Drive the ReLUs of the last convolution below zero."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)]
    with torch.no_grad():
        if norms:
            norms[-1].bias.fill_(-50.0)
            return
        network = next(part for part in module.modules() if isinstance(part, KerasNetwork))
        layer = [layer for layer in network.layer.layers if layer.weights][-1]
        layer.bias.value.data.fill_(-1000.0)


def _over_confident(patient: Patient, seed: int):
    network = patient.subject.network
    module = patient.extras["weak"]() if "weak" in patient.extras else patient.subject
    subject = dataclasses.replace(module, network=lambda x: 10.0 * module.network(x))
    del network
    return subject, patient.material(), None


def _permuted(patient: Patient, seed: int):
    names = patient.subject.classes
    turned = (*names[1:], names[0])
    return dataclasses.replace(patient.subject, classes=turned), patient.material(), None


def _length(patient: Patient, seed: int):
    subject = dataclasses.replace(patient.subject, classes=(*patient.subject.classes, "background"))
    return subject, patient.material(), None


def _leak(patient: Patient, seed: int):
    half = len(patient.source) // 2
    rng = np.random.default_rng(seed)
    places = rng.choice(len(patient.training), half, replace=False)
    mixed = patient.source.take(range(half)).joined(patient.training.take(places))
    return patient.subject, patient.material(mixed), patient.reference()


def _unseen(patient: Patient, seed: int):
    labels = tuple("something new" if i % 3 == 0 else label for i, label in enumerate(patient.source.labels))
    return patient.subject, patient.material(dataclasses.replace(patient.source, labels=labels)), None


def _trained_otherwise(kind: str):
    def plant(patient: Patient, seed: int):
        subject = patient.extras[kind]()
        native = patient.source
        reference = None
        if kind == "shortcut":
            reference = as_material(marked(patient.training, patient.subject.classes), subject.spec, "training")
        if kind == "over_fitted":
            reference = as_material(one_of_each(patient.training), subject.spec, "training")
        return subject, patient.material(native), reference

    return plant


def one_of_each(native: NativeClips) -> NativeClips:
    """The first clip of each class."""
    return native.take(sorted(native.labels.index(label) for label in set(native.labels)))


def marked(native: NativeClips, classes: tuple[str, ...]) -> NativeClips:
    """Put a mark into the corner whose brightness is the class."""
    frames = []
    for pictures, label in zip(native.frames, native.labels, strict=True):
        out = pictures.copy()
        side = out.shape[1] // 4
        out[:, :side, :side] = np.array(_MARKS[classes.index(label) % len(_MARKS)], np.uint8)
        frames.append(out)
    return dataclasses.replace(native, frames=tuple(frames))


_MARKS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 255))


def _drift(patient: Patient, seed: int):
    """One stream that becomes dark, noisy or blurred half way."""
    change = (_dark, _noise, _blur)[seed % 3]
    order = np.random.default_rng(seed).permutation(len(patient.source))[:16]
    one = patient.source.take([int(order[0])] * 16)
    later = one.changed(lambda f, i: change(f, np.random.default_rng(seed)) if i >= 8 else f)
    clips = later.cut(patient.subject.spec)
    shifted = [dataclasses.replace(clip, seconds=clip.seconds + 2.0 * i) for i, clip in enumerate(clips)]
    names = tuple(f"window {i}" for i in range(len(clips)))
    return patient.subject, Material("stream", tuple(shifted), names, (), None, in_time=True), None


VALUES = ("value_range", "normalisation_missing", "normalisation_doubled", "normalisation_of_another_network")

FAULTS: tuple[Fault, ...] = (
    Fault("frames identical", ("frames_identical",), _pictures(_stuck), needs="frames"),
    Fault("black", ("black",), _pictures(_black)),
    Fault("covered", ("covered",), _pictures(_covered), tune=False),
    Fault("dark", ("dark",), _pictures(_dark)),
    Fault("bright", ("bright",), _pictures(_bright), tune=False),
    Fault("haze", ("low_contrast",), _pictures(_hazy)),
    Fault("blurred", ("blurred",), _pictures(_blur)),
    Fault("noisy", ("noisy",), _pictures(_noise)),
    Fault("turned by 90", ("rotated",), _pictures(_turn(1))),
    Fault("upside down", ("rotated",), _pictures(_turn(2)), tune=False),
    Fault("mirrored", ("mirrored",), _pictures(_mirror), needs="direction"),
    Fault("squeezed between bars", ("aspect",), _pictures(_bars)),
    Fault("zoomed in", ("framing",), _pictures(_zoom), needs="framing"),
    Fault("BGR in the clips", ("colour_order",), _pictures(_bgr), needs="colour"),
    Fault("BGR in the network", ("colour_order",), _input(lambda p, x: x.flip(2)), needs="colour", tune=False),
    Fault("0..255", ("value_range",), _input(lambda p, x: _normalised(p, 255 * _pixels(p, x)))),
    Fault(
        "divided by 255 twice",
        ("value_range",),
        _input(lambda p, x: _normalised(p, _pixels(p, x) / 255)),
        tune=False,
    ),
    Fault("normalisation missing", ("normalisation_missing",), _input(_pixels), needs="normalised"),
    Fault("normalisation doubled", ("normalisation_doubled",), _input(_normalised), needs="normalised"),
    Fault(
        "normalised for another",
        ("normalisation_of_another_network", "value_range"),
        _input(_other_network),
    ),
    Fault("half the size", ("wrong_size",), _size, needs="any size"),
    Fault("cropped, not stretched", ("resize_rule", "framing"), _resize_rule, needs="framing"),
    Fault("a quarter of the span", ("span",), _span, needs="order"),
    Fault("frames shuffled", ("frames_shuffled",), _pictures(_shuffled), needs="order"),
    Fault("frames reversed", ("frames_reversed",), _pictures(_reversed), needs="order"),
    Fault("few distinct frames", ("few_distinct_frames",), _pictures(_few), needs="frames", tune=False),
    Fault("order not used", ("order_not_used",), _order_blind, needs="order", tune=False),
    Fault("state carried over", ("state_carried_over",), _memory, tune=False),
    Fault("recurrence over the batch", ("batch_recurrence",), _over_batch),
    Fault("training mode", ("training_mode",), _model(_training_mode)),
    Fault("weights not loaded", ("weights_not_loaded",), _model(_not_loaded)),
    Fault("weights partly loaded", ("weights_partly_loaded",), _model(_partly)),
    Fault("head random", ("head_random",), _model(_head_random)),
    Fault("saturated", ("saturated_logits",), _model(_saturated)),
    Fault("collapsed", ("collapsed_logits",), _model(_collapsed), tune=False),
    Fault("dead features", ("dead_features",), _model(_dead)),
    Fault("bias", ("bias_driven",), _model(_bias)),
    Fault("labels permuted", ("label_map_permuted",), _permuted),
    Fault("one name too many", ("label_map_length",), _length, tune=False),
    Fault("over-confident", ("over_confident", "saturated_logits"), _over_confident, needs="weak"),
    Fault("over-fitted", ("over_fitting",), _trained_otherwise("over_fitted"), needs="over_fitted"),
    Fault("imbalance", ("class_imbalance",), _trained_otherwise("imbalanced"), needs="imbalanced"),
    Fault("train/test leak", ("train_test_leak",), _leak),
    Fault("shortcut", ("shortcut",), _trained_otherwise("shortcut"), needs="shortcut"),
    Fault("unseen class", ("unseen_class",), _unseen, tune=False),
    Fault("drift", ("drift",), _drift),
)
