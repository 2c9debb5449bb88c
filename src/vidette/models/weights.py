"""Starting weights: ImageNet, Kinetics or a file, with a report of every weight that did not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from vidette.errors import SettingError
from vidette.models.backbone import FrameBackbone, imagenet_normalisation, load_imagenet_weights, widened
from vidette.models.base import VideoModel
from vidette.models.conv3d import TorchvisionVideo
from vidette.models.huggingface import PREFIX, HuggingFaceVideo, Normalisation, source_normalisation
from vidette.models.weight_report import WeightReport

__all__ = ["WeightReport", "fit_weights", "load_weights", "read_state", "weights_normalisation"]

_KINETICS: Normalisation = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


def load_weights(model: VideoModel, weights: str) -> WeightReport:
    """Give a new model its starting weights.

    Args:
        model: Filled in place.
        weights: ``"none"``; ``"imagenet"``: its 2-D backbone, packaged or downloaded; ``"kinetics"``: a
            torchvision 3-D CNN, downloaded; or the path of a file (.pth, .pt, .safetensors) with tensors by
            name, of the whole model or of its backbone. A model without a backbone ignores ``"imagenet"``; a
            model ``hf:SOURCE`` takes the weights of its source for either word.

    Returns:
        What fitted. A file's classifier for other classes does not, and is named.

    Raises:
        SettingError: The model has no such weights, the download failed, or the file cannot be read or holds
            nothing that fits.
    """
    if weights == "none":
        return WeightReport("random numbers")
    if isinstance(model, HuggingFaceVideo) and weights in ("imagenet", "kinetics"):
        return model.load_own_weights()
    if weights == "imagenet":
        return _load_imagenet(model)
    if weights == "kinetics":
        return _load_kinetics(model)
    return _load_file(model, Path(weights))


def fit_weights(target: nn.Module, state: Mapping[str, Tensor], *, source: str) -> WeightReport:
    """Load every tensor that fits by name and shape, and report the rest.

    A first convolution that reads pictures and their change takes the picture's weights for both.
    """
    wanted = target.state_dict()
    given = widened(dict(state), target)
    mismatched = [name for name in given if name in wanted and given[name].shape != wanted[name].shape]
    fitting = {name: t for name, t in given.items() if name in wanted and name not in mismatched}
    target.load_state_dict(fitting, strict=False)
    return WeightReport(
        source,
        len(fitting),
        tuple(name for name in wanted if name not in given),
        tuple(name for name in given if name not in wanted),
        tuple(mismatched),
    )


def weights_normalisation(weights: str, *, backbone: str | None, model: str = "") -> Normalisation | None:
    """Return the mean and std (units of pixel / 255, RGB) that weights expect; None where that is not known.

    Args:
        weights: As :func:`load_weights` takes them.
        backbone: The model's 2-D backbone; None where it has none.
        model: The model's name; one ``hf:SOURCE`` expects what its source's preprocessor does.

    Raises:
        SettingError: The preprocessor cannot be read.
    """
    if model.startswith(PREFIX):
        return source_normalisation(model.removeprefix(PREFIX))
    if weights == "kinetics":
        return _KINETICS
    return imagenet_normalisation(backbone) if weights == "imagenet" and backbone else None


def _load_imagenet(model: VideoModel) -> WeightReport:
    backbones = [module for module in model.modules() if isinstance(module, FrameBackbone)]
    if not backbones:
        return WeightReport("random numbers: no 2-D backbone")
    (backbone,) = backbones
    how = load_imagenet_weights(backbone)
    return WeightReport(f"ImageNet ({how}), backbone {backbone.name}", len(backbone.net.state_dict()))


def _load_kinetics(model: VideoModel) -> WeightReport:
    networks = [module for module in model.modules() if isinstance(module, TorchvisionVideo)]
    if not networks:
        raise SettingError(
            f"weights 'kinetics' are those of r3d_18, mc3_18, r2plus1d_18 and s3d, not of {model.name}; "
            "use imagenet, none or a file"
        )
    (network,) = networks
    chosen = get_model_weights(network.variant)["KINETICS400_V1"]
    try:
        state = chosen.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"Kinetics weights of {network.variant} could not be downloaded ({_first_line(error)}); check the "
            f"network, give the file {chosen.url.rpartition('/')[2]} (--weights FILE), or use --weights none"
        ) from error
    return fit_weights(_network(network), state, source=f"Kinetics-400 (downloaded), {network.variant}")


def _load_file(model: VideoModel, path: Path) -> WeightReport:
    """Load a file into the part of the model whose names it knows best."""
    state = read_state(path)
    best = max(_targets(model), key=lambda target: _num_fitting(target, state))
    if not _num_fitting(best, state):
        theirs, ours = next(iter(state)), next(iter(best.state_dict()))
        raise SettingError(
            f"{path}: none of its {len(state)} tensors fits this model; its names look like {theirs!r}, "
            f"expected like {ours!r}: choose the model and backbone that the weights are of"
        )
    return fit_weights(best, state, source=str(path))


def _targets(model: VideoModel) -> list[nn.Module]:
    """Return what a file may hold the weights of: the model, its 2-D network or its torchvision network."""
    inside: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, FrameBackbone):
            inside.append(module.net)
        elif isinstance(module, TorchvisionVideo | HuggingFaceVideo):
            inside.append(_network(module))
    return [model, *inside]


def _network(model: TorchvisionVideo | HuggingFaceVideo) -> nn.Module:
    return cast(nn.Module, model.head.net)


def _num_fitting(target: nn.Module, state: Mapping[str, Tensor]) -> int:
    wanted, given = target.state_dict(), widened(dict(state), target)
    return sum(name in wanted and wanted[name].shape == tensor.shape for name, tensor in given.items())


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, without the wrapping that training programs put around them.

    Raises:
        SettingError: The file is absent or no state dict.
    """
    if not path.is_file():
        raise SettingError(
            f"weights is {str(path)!r}; expected imagenet, kinetics, none, or a .pth or .safetensors file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise SettingError(
            f"{path} cannot be read as weights ({_first_line(error)}); expected a state dict saved by torch or "
            "safetensors, with nothing but tensors in it"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise SettingError(f"{path} holds no tensors by name; expected a state dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
