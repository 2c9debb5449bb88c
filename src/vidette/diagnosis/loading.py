"""A user's own network as a subject: a file of torch or Keras, or ``module:function``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidette.classifier.declared import DeclaredInput
from vidette.classifier.imports import import_keras, import_state_dict
from vidette.diagnosis.subject import Subject, subject_of_classifier
from vidette.errors import ClassifierError, InputMismatchError, SettingError
from vidette.models.imported import as_logits, first_line
from vidette.models.keras_network import KerasNetwork, keras_installed
from vidette.video.clip import ClipSpec

__all__ = ["LAYOUTS", "LayoutOfInput", "load_subject"]

LayoutOfInput = Literal["NTCHW", "NCTHW", "NTHWC", "NCHW", "NHWC"]

LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "NTCHW": lambda x: x,
    "NCTHW": lambda x: x.transpose(1, 2).contiguous(),
    "NTHWC": lambda x: x.movedim(2, -1).contiguous(),
    "NCHW": lambda x: x.flatten(0, 1),
    "NHWC": lambda x: x.flatten(0, 1).movedim(1, -1).contiguous(),
}
"""What a network may take, by the order of its axes; without T it looks at frames; scores are averaged."""

_KERAS = (".keras", ".h5", ".hdf5")
_TORCH = (".pt", ".pth", ".ts", ".pt2", ".safetensors")


def load_subject(
    target: str,
    *,
    classes: Sequence[str] | None = None,
    declared: DeclaredInput | None = None,
    architecture: str | None = None,
    takes: LayoutOfInput | None = None,
) -> Subject:
    """Load what is to be diagnosed.

    Args:
        target: A Keras file, a TorchScript or exported program of torch, tensors by name (with an
            architecture), or
            ``module:function``: a network, a function that builds one, or a function from clips to class
            scores.
        classes: Names in the order of the scores; numbers where not known.
        declared: What the network is given at present.
        architecture: Of tensors by name: ``timm:NAME`` or ``torchvision:NAME``.
        takes: The order of the input's axes; found by trying where not given.

    Raises:
        SettingError: The target is nothing of these, or cannot be loaded.
        InputMismatchError: No order of axes works; the error of each is told.
    """
    declared = declared or DeclaredInput()
    if ":" in target and not Path(target).exists():
        return _foreign(target, _imported(target), classes, declared, takes)
    path = Path(target)
    if not path.is_file():
        raise SettingError(f"{target}: there is no such file; give a model file, or module:function")
    if path.suffix.lower() in _KERAS or (path.suffix.lower() in _TORCH and architecture):
        return _known(path, classes, declared, architecture)
    if path.suffix.lower() not in _TORCH:
        known = ", ".join((*_KERAS, *_TORCH))
        raise SettingError(f"{target} ends in {path.suffix!r}; expected one of {known}, or module:function")
    return _foreign(path.name, _loaded_torch(path), classes, declared, takes)


def _known(
    path: Path, classes: Sequence[str] | None, declared: DeclaredInput, architecture: str | None
) -> Subject:
    """Load what Vidette can import whole."""
    if classes is None:
        raise SettingError(f"{path}: say --classes, a text file with the class names, one a line")
    if architecture:
        classifier = import_state_dict(path, classes, architecture=architecture, declared=declared)
    else:
        classifier = import_keras(path, classes, declared=declared)
    return subject_of_classifier(classifier, name=path.name)


def _loaded_torch(path: Path) -> nn.Module:
    """Load a network without running code of a pickle."""
    import warnings

    if path.suffix.lower() != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                if any("/code/" in name for name in names):
                    return torch.jit.load(str(path), map_location="cpu")
                if any(
                    name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names
                ):
                    return torch.export.load(str(path)).module()
        except (RuntimeError, ValueError, OSError) as error:
            raise SettingError(f"{path} cannot be loaded ({first_line(error)}); save it again") from error
    raise SettingError(
        f"{path} holds no network that can be run: tensors by name need --architecture (timm:NAME or "
        "torchvision:NAME), and a pickled module would run code of its own; give module:function that builds "
        "and fills "
        "the network, or save it with torch.jit.script or torch.export"
    )


def _imported(target: str) -> Any:
    """Import ``module:function``, from the current folder too."""
    module_name, _, name = target.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a foreign module raises
        raise SettingError(
            f"{target}: cannot be imported ({type(error).__name__}: {first_line(error)}); expected "
            "module:function, found from the current folder"
        ) from error
    if inspect.isclass(found) or (
        callable(found) and not isinstance(found, nn.Module) and _needs_nothing(found)
    ):
        try:
            return found()
        except Exception as error:  # whatever a foreign function raises
            raise SettingError(f"{target}() failed: {type(error).__name__}: {first_line(error)}") from error
    return found


def _needs_nothing(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in free for p in parameters) and not _is_keras(function)


def _is_keras(value: Any) -> bool:
    if not keras_installed() or "keras" not in sys.modules:
        return False
    return isinstance(value, sys.modules["keras"].layers.Layer)


def _foreign(
    name: str, found: Any, classes: Sequence[str] | None, declared: DeclaredInput, takes: LayoutOfInput | None
) -> Subject:
    """Make a subject of a network or function whose input's axes are found by trying."""
    if _is_keras(found):
        found = KerasNetwork(found).eval()
    if not callable(found):
        raise SettingError(f"{name} is {type(found).__name__}; expected a network or a function of clips")
    height, width = declared.height_and_width or (224, 224)
    spec = declared.spec(num_frames=declared.num_frames or ClipSpec.num_frames, height=height, width=width)
    module = found if isinstance(found, nn.Module) else None
    laid = _laid_out(name, found, spec, takes)
    network = _Network(found, laid)
    scores = network(_example(spec))
    names = tuple(classes) if classes is not None else tuple(f"class {i}" for i in range(scores.shape[1]))
    return Subject(
        name=name,
        network=network,
        spec=spec,
        classes=names,
        module=None if module is None else network,
        uses_order=None if "T" in laid else False,
    )


class _Network(nn.Module):
    """A foreign network on ``(N, T, C, H, W)``, its scores as logits, frames averaged."""

    def __init__(self, inner: Any, layout: str) -> None:
        super().__init__()
        self.inner = inner
        self.layout = layout
        self.training = bool(getattr(inner, "training", False))

    def forward(self, x: Tensor) -> Tensor:
        scores = _scores(self.inner(LAYOUTS[self.layout](x)))
        if "T" not in self.layout:
            scores = scores.unflatten(0, (len(x), x.shape[1])).mean(1)
        return _logits(scores)


def _scores(answer: Any) -> Tensor:
    """Return class scores as a tensor ``(N, K)``."""
    if isinstance(answer, Mapping) and "logits" in answer:
        answer = answer["logits"]
    answer = getattr(answer, "logits", answer)
    if isinstance(answer, list | tuple) and len(answer) == 1:
        answer = answer[0]
    scores = answer if isinstance(answer, Tensor) else torch.as_tensor(answer)
    if scores.dim() != 2 or scores.is_complex():
        raise ClassifierError(f"it answers {tuple(scores.shape)}; expected class scores (clips, classes)")
    return scores.detach().float().cpu()


def _logits(scores: Tensor) -> Tensor:
    """Take probabilities for what they are."""
    if scores.shape[1] == 1 and bool(((scores >= 0) & (scores <= 1)).all()):
        return as_logits(scores, "one_probability")
    adds_up = bool((scores >= 0).all()) and torch.allclose(scores.sum(1), torch.ones(len(scores)), atol=1e-3)
    return as_logits(scores, "probabilities") if adds_up else scores


def _example(spec: ClipSpec) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, spec.num_frames, 3, spec.height, spec.width, generator=generator)
    return (pixels - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)


def _laid_out(name: str, found: Any, spec: ClipSpec, takes: LayoutOfInput | None) -> str:
    """Return the first order of axes that the network answers; torch's own before channels last."""
    faults: list[str] = []
    for layout in [takes] if takes else list(LAYOUTS):
        x = LAYOUTS[layout](_example(spec))
        try:
            with torch.no_grad():
                scores = _scores(found(x))
            if len(scores) != len(x):
                raise ClassifierError(f"it answers {tuple(scores.shape)} to {len(x)}")
        except Exception as error:  # noqa: BLE001  whatever a foreign network raises
            faults.append(f"  {layout} {tuple(x.shape)}: {type(error).__name__}: {first_line(error)}")
        else:
            return layout
    tried = "\n".join(faults)
    raise InputMismatchError(
        f"{name} cannot be run as a classifier. Tried (N clips, T frames, C channels, H rows, W "
        f"columns):\n{tried}\n"
        "Say --frames, --size and --takes as it needs them; it has to give class scores (N, K)"
    )
