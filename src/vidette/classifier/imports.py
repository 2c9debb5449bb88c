"""Models that others trained become classifiers: Keras files, and image classifiers saved as tensors by name.

The file says what the network is; what it wants to see, it does not say, so the caller declares it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import timm
import torch
from torch import Tensor, nn

from vidette.classifier.classifier import Classifier
from vidette.classifier.declared import DeclaredInput, class_names, turned
from vidette.errors import ClassifierError, SettingError
from vidette.models.backbone import imagenet_normalisation
from vidette.models.base import FrameModel
from vidette.models.imported import (
    Outputs,
    Takes,
    build_imported,
    check_description,
    described_objects,
    first_line,
    new_image_network,
)
from vidette.models.keras_network import KerasNetwork, built_on_cpu, keras_library
from vidette.models.weights import (
    fit_weights,
    read_state,
)
from vidette.video.clip import ClipSpec

__all__ = ["DeclaredInput", "import_keras", "import_state_dict"]

_KERAS_ENDINGS = (".keras", ".h5", ".hdf5")
_SAME = 1e-5


def import_keras(
    path: str | Path, classes: Sequence[str] | str | Path, *, declared: DeclaredInput | None = None
) -> Classifier:
    """Make a classifier of a whole Keras model in a ``.keras`` or ``.h5`` file.

    A model of clips takes ``(N, T, H, W, 3)``; one of images takes ``(N, H, W, 3)`` and becomes a classifier
    frame by frame: what it gives for the T frames (16 unless declared) is averaged. A softmax, or one sigmoid
    unit for two classes, is undone by the logarithm: the classifier's probabilities are Keras's own.

    Args:
        path: The file.
        classes: Names in the order of the model's outputs, or a text file with one a line.
        declared: What the model was trained to see, where its file does not say.

    Raises:
        SettingError: Keras is not installed; the declared input contradicts the model or is not enough; the
            classes are not those of the model.
        ClassifierError: The file is no such model, or holds code.

    Example:
        >>> import_keras("model.keras", ["fall", "walk"], declared=DeclaredInput(fps=8))  # doctest: +SKIP
    """
    path, declared = Path(path), declared or DeclaredInput()
    names = class_names(classes)
    layer = _loaded_keras(path)
    takes, spec = _keras_spec(path.name, layer, declared)
    source = KerasNetwork(layer).eval()
    example = _example(spec, takes)
    answers = _answers(path.name, source, example)
    outputs = _kind_of_outputs(path.name, layer, answers, names)
    config = json.loads(json.dumps(keras_library().saving.serialize_keras_object(layer)))
    options = {"config": config, "outputs": outputs, "takes": takes}
    model = build_imported("keras_file", num_classes=len(names), options=options).eval()
    network = next(module for module in model.modules() if isinstance(module, KerasNetwork))
    network.load_state_dict(source.state_dict())
    _check_same(path.name, answers, torch.cat([_answers(path.name, network, one[None]) for one in example]))
    return Classifier(
        model, "keras_file", options, spec, names, training_statistics={"imported_from": path.name}
    )


def _loaded_keras(path: Path) -> Any:
    if path.suffix.lower() not in _KERAS_ENDINGS:
        raise SettingError(f"{path} is no Keras file; expected one ending in {', '.join(_KERAS_ENDINGS)}")
    keras = keras_library()
    check_description(_description(path))
    try:
        layer = built_on_cpu(lambda _: keras.saving.load_model(str(path), compile=False, safe_mode=True))
    except Exception as error:  # Keras raises whatever its layers do
        raise ClassifierError(
            f"Keras {keras.__version__} cannot load {path} ({first_line(error)}); save the whole model again "
            "as .keras with this Keras"
        ) from error
    for name in ("input_shape", "output_shape"):
        if not isinstance(getattr(layer, name, None), tuple):
            raise ClassifierError(
                f"{path} holds no Keras model with one input and one output; import such a one"
            )
    return layer


def _description(path: Path) -> Any:
    """Return the description of the network inside a file, without building anything."""
    try:
        if path.suffix.lower() == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(path, "r") as file:
            return json.loads(cast(Any, file.attrs["model_config"]))
    except FileNotFoundError as error:
        raise ClassifierError(f"{path}: there is no such file; give a .keras or .h5 file") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ClassifierError(
            f"{path} holds no description of a Keras model ({first_line(error)}); expected a whole model as "
            "model.save writes it, not weights alone"
        ) from error


def _keras_spec(name: str, layer: Any, declared: DeclaredInput) -> tuple[Takes, ClipSpec]:
    """Return what the model takes and the spec, from its input's shape and what was declared."""
    shape: tuple[int | None, ...] = layer.input_shape
    if len(shape) not in (4, 5) or shape[-1] != 3:
        raise ClassifierError(
            f"{name}: the model's input is {_shown(shape)}; expected clips (N, T, H, W, 3) or images "
            "(N, H, W, 3), channels last, in colour"
        )
    takes: Takes = "clip" if len(shape) == 5 else "frame"
    own_frames = shape[1] if takes == "clip" else (declared.num_frames or ClipSpec.num_frames)
    own_size = shape[-3:-1] if None not in shape[-3:-1] else None
    if declared.values is None and _rescales(layer):
        raise SettingError(
            f"{name}: the model holds a layer that rescales its input, so its range cannot be guessed; say "
            "--range (0..255 if that layer divides by 255)"
        )
    num_frames = _agreed("--frames", declared.num_frames, own_frames, name)
    height, width = cast("tuple[int, int]", _agreed("--size", declared.height_and_width, own_size, name))
    return takes, declared.spec(num_frames=num_frames, height=height, width=width)


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join(map(str, shape))})"


def _rescales(layer: Any) -> bool:
    description = keras_library().saving.serialize_keras_object(layer)
    return any(o["class_name"] in ("Rescaling", "Normalization") for o in described_objects(description))


_Value = TypeVar("_Value")


def _agreed(option: str, given: _Value | None, own: _Value | None, name: str) -> _Value:
    """Return the model's own value, or the given one where it has none."""
    if given is None and own is None:
        raise SettingError(f"{name}: the model's input leaves this open; say {option}")
    if given is not None and own is not None and given != own:
        raise SettingError(f"{name}: {option} is {given} but the model's input says {own}; leave {option} out")
    return cast(_Value, own if given is None else given)


def _example(spec: ClipSpec, takes: Takes) -> Tensor:
    """Return four random inputs in the declared range, channels last."""
    time = (spec.num_frames,) if takes == "clip" else ()
    pixels = torch.rand(4, *time, spec.height, spec.width, 3, generator=torch.Generator().manual_seed(0))
    return (pixels - torch.tensor(spec.mean)) / torch.tensor(spec.std)


def _answers(name: str, network: nn.Module, example: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            return network(example)
    except Exception as error:  # whatever the network's layers raise
        shape = _shown(example.shape[1:])
        raise ClassifierError(
            f"{name}: the network cannot answer an input of {shape} ({first_line(error)}); check --frames "
            "and --size"
        ) from error


def _kind_of_outputs(name: str, layer: Any, answers: Tensor, classes: Sequence[str]) -> Outputs:
    """Say what the model gives: found by its last activation and by its answers to random inputs."""
    last, width = _last_activation(layer), answers.shape[-1]
    one_for_two = last == "sigmoid" and width == 1
    if answers.dim() != 2 or (width != len(classes) and not (one_for_two and len(classes) == 2)):
        hint = " (one sigmoid unit stands for two classes)" if one_for_two else ""
        shown = _shown(layer.output_shape)
        raise SettingError(
            f"{name}: the model's output is {shown}{hint} but {len(classes)} classes are named: "
            f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}; name as many as it has outputs"
        )
    if one_for_two:
        return "one_probability"
    if last == "sigmoid":
        raise ClassifierError(
            f"{name}: the model ends in {width} sigmoids, several of which can be 1 at once; a classifier "
            "answers with one class: end the model in a softmax"
        )
    adds_up = bool((answers >= 0).all()) and torch.allclose(answers.sum(1), torch.ones(len(answers)), atol=1e-3)
    return "probabilities" if adds_up else "logits"


def _last_activation(layer: Any) -> str | None:
    """Return the name of the activation that the outputs come from, also where models are nested."""
    outputs = getattr(layer, "outputs", None)
    if outputs:
        return _last_activation(outputs[0]._keras_history.operation)
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _check_same(name: str, loaded: Tensor, rebuilt: Tensor) -> None:
    """Compare the loaded network's answers to several inputs with the rebuilt one's to each alone."""
    worst = float((loaded - rebuilt).abs().max())
    if not worst <= _SAME * max(1.0, float(loaded.abs().max())):
        raise ClassifierError(
            f"{name}: the model as rebuilt from its description, asked one input at a time, differs by "
            f"{worst:.1e} from the one loaded; save it as .keras with this Keras, without stateful layers"
        )


def import_state_dict(
    path: str | Path,
    classes: Sequence[str] | str | Path,
    *,
    architecture: str,
    declared: DeclaredInput | None = None,
) -> Classifier:
    """Make a frame-by-frame classifier of an image classifier's tensors; its logits are averaged over T frames.

    Args:
        path: ``.pth`` or ``.pt`` (read without running code) or ``.safetensors``, tensors by name.
        classes: Names in the order of the model's outputs, or a text file with one a line.
        architecture: ``"timm:resnet18"`` or ``"torchvision:resnet18"``: what the tensors are of.
        declared: What the model was trained to see; size and range are those that the architecture's ImageNet
            weights use unless declared, and T is 16.

    Returns:
        The classifier; ``training_statistics["weights"]`` says which tensors the network had no place for.

    Raises:
        SettingError: The architecture is unknown, the file is unreadable, the classes are not those of the
            weights, or a part of the network would be left without weights (names every one).
    """
    path, declared = Path(path), declared or DeclaredInput()
    names = class_names(classes)
    state = read_state(path)
    _check_head(path.name, state, architecture, names)
    options = {"architecture": architecture}
    model = build_imported("image_network", num_classes=len(names), options=options).eval()
    network = cast(FrameModel, model).backbone
    report = fit_weights(network, state, source=path.name)
    without = [n for n in (*report.missing, *report.mismatched) if not n.endswith("num_batches_tracked")]
    if without:
        raise SettingError(
            f"{path.name} does not fit {architecture}: {len(without)} parts of the network would keep random "
            f"numbers; choose the architecture that the weights are of.\n{chr(10).join(report.lines())}"
        )
    spec = _image_spec(architecture, declared)
    _answers(path.name, network, torch.zeros(1, 3, spec.height, spec.width))
    statistics = {"imported_from": path.name, "weights": list(report.lines())}
    return Classifier(model, "image_network", options, spec, names, training_statistics=statistics)


def _check_head(name: str, state: Mapping[str, Tensor], architecture: str, classes: Sequence[str]) -> None:
    """Refuse weights for another number of classes; the head is what changes with that number."""
    with torch.device("meta"):
        ours = new_image_network(architecture, len(classes)).state_dict()
        other = new_image_network(architecture, len(classes) + 1).state_dict()
    head = [key for key in ours if ours[key].shape != other[key].shape]
    known = [key for key in head if key in state]
    if not known:
        raise SettingError(
            f"{name} has no classifier ({', '.join(head)} of {architecture}): it is another architecture, or a "
            "backbone alone, which needs training: vidette train --weights FILE"
        )
    for key in known:
        if state[key].dim() and len(state[key]) != len(ours[key]):
            raise SettingError(
                f"{name} knows {len(state[key])} classes ({key}) but {len(classes)} are named: "
                f"{', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}; name as many as it knows"
            )


def _image_spec(architecture: str, declared: DeclaredInput) -> ClipSpec:
    library, _, name = architecture.partition(":")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if library == "timm" else None
    usual = (224, 224) if config is None else (config.input_size[1], config.input_size[2])
    height, width = declared.height_and_width or usual
    num_frames = declared.num_frames or ClipSpec.num_frames
    spec = replace(declared, values=declared.values or "imagenet").spec(
        num_frames=num_frames, height=height, width=width
    )
    if declared.values is None and config is not None:
        mean, std = imagenet_normalisation(name)
        turn = spec.channel_order == "BGR"
        spec = replace(spec, mean=turned(mean) if turn else mean, std=turned(std) if turn else std)
    return spec
