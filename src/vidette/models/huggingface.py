"""Video classifiers of transformers (extra ``transformers``) as ours: ``hf:FOLDER_OR_NAME``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidette.errors import SettingError
from vidette.models.base import Head, VideoModel
from vidette.models.weight_report import WeightReport

__all__ = ["PREFIX", "HuggingFaceVideo", "Normalisation", "source_clip", "source_normalisation"]

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and std, RGB, in units of pixel / 255."""

PREFIX = "hf:"
_PIXELS = {"vjepa2": "pixel_values_videos"}
_FRAMES = ("num_frames", "frames_per_clip")
_SIZES = ("image_size", "crop_size")
_PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_LEFT_OUT = ("id2label", "label2id", "transformers_version", "_name_or_path")


class _WholeClip(Head):
    needs_whole_clip = "its attention looks at the whole clip at once"

    def __init__(self, net: nn.Module, pixels: str) -> None:
        super().__init__()
        self.net = net
        self.pixels = pixels

    def forward(self, features: Tensor) -> Tensor:
        return self.net(**{self.pixels: features}).logits


class HuggingFaceVideo(VideoModel):
    """VideoMAE, TimeSformer, ViViT or V-JEPA 2 with a classifier for our classes, random at first.

    Args:
        num_classes: K.
        num_frames: T; must be the network's own.
        height: H in pixels; must be the network's own.
        width: W in pixels; must be the network's own.
        source: A folder with a ``config.json`` (and weights), or a name to download.
        config: The network's description, where it is known; then nothing is read.

    Raises:
        SettingError: transformers is not installed, there is no such network, it is no video classifier, or it
            is for clips of another shape.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_frames: int,
        height: int,
        width: int,
        source: str,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        library = _library()
        self.source = source
        described = _read_config(library, source) if config is None else _known_config(library, config)
        described.num_labels = num_classes
        _check_shape(source, described, (num_frames, height, width))
        try:
            net = library.AutoModelForVideoClassification.from_config(described)
        except ValueError as error:
            raise SettingError(
                f"{source} is a {described.model_type}, not a video classifier of transformers; use VideoMAE, "
                "TimeSformer, ViViT or V-JEPA 2"
            ) from error
        self.own_options = {
            "config": {k: v for k, v in net.config.to_dict().items() if k not in _LEFT_OUT and v is not None}
        }
        self.head = _WholeClip(net, _PIXELS.get(described.model_type, "pixel_values"))

    def load_own_weights(self) -> WeightReport:
        """Load the weights of the source; a classifier for other classes keeps its random start.

        Raises:
            SettingError: The source holds no weights, or cannot be reached.
        """
        net: Any = self.head.net
        try:
            found, info = type(net).from_pretrained(
                self.source, config=net.config, ignore_mismatched_sizes=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise SettingError(_unreachable(self.source, "weights", error)) from error
        net.load_state_dict(found.state_dict())
        mismatched = tuple(
            sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
        )
        missing = tuple(sorted(str(key) for key in info["missing_keys"] if key not in mismatched))
        return WeightReport(
            self.source,
            len(net.state_dict()) - len(missing) - len(mismatched),
            missing,
            tuple(sorted(str(key) for key in info["unexpected_keys"])),
            mismatched,
        )

    def save_back(self, folder: Path) -> None:
        """Write the network as transformers does, to be opened there again."""
        net: Any = self.head.net
        net.save_pretrained(folder)


def source_clip(source: str) -> dict[str, int]:
    """Return the ``num_frames`` and ``size`` (pixels) that a network of transformers takes, as far as it says.

    Raises:
        SettingError: transformers is not installed, or there is no such network.
    """
    config = _read_config(_library(), source)
    frames = next((getattr(config, name) for name in _FRAMES if hasattr(config, name)), None)
    size = next((getattr(config, name) for name in _SIZES if hasattr(config, name)), None)
    values = {"num_frames": frames, "size": size}
    return {name: value for name, value in values.items() if isinstance(value, int)}


def source_normalisation(source: str) -> Normalisation | None:
    """Return the mean and std that a network's own preprocessor takes off; None where the source has none.

    Its steps are pixel * ``rescale_factor``, minus 1 with ``offset`` (ViViT), minus mean, by std; here they are
    one mean and std in units of pixel / 255.

    Args:
        source: A folder saved by transformers, or a name.

    Raises:
        SettingError: transformers is not installed, or the preprocessor's file is damaged.
    """
    values = _preprocessor(source)
    if values is None:
        return None
    normal = values.get("do_normalize", True)
    mean, std = (values.get("image_mean"), values.get("image_std")) if normal else ([0.0] * 3, [1.0] * 3)
    if not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3):
        return None
    factor = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    offset = 1.0 if values.get("offset", False) else 0.0
    red, green, blue = ((m + offset) / (255 * factor) for m in mean)
    return (red, green, blue), (std[0] / (255 * factor), std[1] / (255 * factor), std[2] / (255 * factor))


def _preprocessor(source: str) -> dict[str, Any] | None:
    library = _library()
    for name in _PREPROCESSORS:
        try:
            path = library.utils.cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        except OSError:  # not reached; the weights, which are needed, say why
            return None
        if path is None:
            continue
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingError(_unreachable(source, name, error)) from error
    return None


def _library() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise SettingError(
            f"models {PREFIX}... need transformers, which cannot be imported ({error}); install it: "
            "pip install 'vidette[transformers]'"
        ) from error


def _read_config(library: Any, source: str) -> Any:
    try:
        return library.AutoConfig.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingError(_unreachable(source, "config.json", error)) from error


def _known_config(library: Any, config: Mapping[str, Any]) -> Any:
    own = {key: value for key, value in config.items() if key != "model_type"}
    return library.AutoConfig.for_model(config["model_type"], **own)


def _unreachable(source: str, what: str, error: BaseException) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return (
        f"{PREFIX}{source}: its {what} could not be read ({reason}); give a folder saved by transformers, or "
        "check the name and the network"
    )


def _check_shape(source: str, config: Any, shape: tuple[int, int, int]) -> None:
    frames = next((getattr(config, name) for name in _FRAMES if hasattr(config, name)), shape[0])
    size = next((getattr(config, name) for name in _SIZES if hasattr(config, name)), shape[1])
    height, width = (size, size) if isinstance(size, int) else size
    if shape != (frames, height, width):
        raise SettingError(
            f"{PREFIX}{source} takes {frames} frames of {height}x{width}, the clips have {shape[0]} of "
            f"{shape[1]}x{shape[2]}; use --num-frames {frames} --size {height}"
        )
