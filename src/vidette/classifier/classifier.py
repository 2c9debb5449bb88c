"""The artefact: a model with the spec, class names and calibration that its answers depend on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidette.classifier.onnx import export_onnx
from vidette.classifier.scorers import FrameScorer, OnnxFrames, TorchFrames
from vidette.classifier.step_runtime import NotExportedError, export_step
from vidette.errors import ClassifierError, InputMismatchError, OutputExistsError, SettingError, StorageError
from vidette.models import VideoModel, build_model
from vidette.models.backbone import PACKAGED_BACKBONE, imagenet_normalisation
from vidette.models.base import FrameModel
from vidette.models.imagenet import imagenet_class_names
from vidette.models.imported import IMPORTED_MODELS, build_imported
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import clip_tensor

__all__ = ["Classifier", "Runtime"]

Runtime = Literal["auto", "torch", "onnx"]
_FORMAT = 1
_DESCRIPTION, _WEIGHTS = "classifier.json", "weights.safetensors"
_ONNX, _STEP = "backbone.onnx", "step.onnx"


@dataclass(eq=False)
class Classifier:
    """A trained video classifier: clips in, logits and probabilities out.

    Attributes:
        model: The network, in eval mode.
        model_name: Its name in ``MODELS``.
        model_options: The options it was built with.
        spec: How a source becomes its input.
        classes: Names in the order of the logits.
        temperature: Logits are divided by it before the softmax; fitted on validation clips.
        training_statistics: What training left for later stages (numbers of clips, scores).
        decision: When an event begins and ends, as the plain values of a ``DecisionPolicy``; empty before
            ``vidette tune-decision``.

    Example:
        >>> from vidette.models import build_model
        >>> spec = ClipSpec(num_frames=4, height=32, width=32)
        >>> model = build_model("conv3d_small", num_classes=2, num_frames=4, height=32, width=32)
        >>> clf = Classifier(model, "conv3d_small", {}, spec, ("fall", "walk"))
        >>> clip = Clip(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4) / 10)
        >>> clf.logits([clip]).shape
        (1, 2)
    """

    model: VideoModel
    model_name: str
    model_options: Mapping[str, Any]
    spec: ClipSpec
    classes: tuple[str, ...]
    temperature: float = 1.0
    training_statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    decision: Mapping[str, Any] = field(default_factory=dict[str, Any])
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    onnx_path: Path | None = None
    step_path: Path | None = None

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device).eval()
        self._frames: FrameScorer = (
            OnnxFrames(self.onnx_path) if self.onnx_path else TorchFrames(self.model, self.device)
        )

    @property
    def runtime(self) -> Literal["torch", "onnx"]:
        """What runs the per-frame part."""
        return "onnx" if self.onnx_path else "torch"

    def features(self, clips: Sequence[Clip]) -> Tensor:
        """Compute what depends on each frame alone: N clips to ``(N, T, ...)``.

        Raises:
            InputMismatchError: A clip has another number of frames or another size than the spec.
        """
        for clip in clips:
            expected = (self.spec.num_frames, self.spec.height, self.spec.width)
            if clip.pixels.shape[:3] != expected:
                raise InputMismatchError(
                    f"clip has (frames, height, width) {clip.pixels.shape[:3]} but this classifier needs "
                    f"{expected}: cut it with the classifier's own spec"
                )
        return self._frames(clip_tensor(clips, self.spec))

    def logits_of_features(self, features: Tensor) -> np.ndarray:
        """Finish what :meth:`features` began: ``(N, T, ...)`` to uncalibrated float32 ``(N, K)``."""
        with torch.no_grad():
            return self.model.head(features.to(self.device)).float().cpu().numpy()

    def logits(self, clips: Sequence[Clip]) -> np.ndarray:
        """Return uncalibrated logits, float32 ``(N, K)``; a clip's row does not depend on the others."""
        return self.logits_of_features(self.features(clips))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities of logits, both ``(..., K)``: softmax(logits / temperature)."""
        scaled = logits.astype(np.float64) / self.temperature
        exponent = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return exponent / exponent.sum(axis=-1, keepdims=True)

    def save(self, folder: str | Path, *, overwrite: bool = False, onnx: bool = True) -> Path:
        """Write the classifier as a folder: all of it, or nothing.

        Args:
            folder: Its place.
            overwrite: Replace what is there.
            onnx: Also write the per-frame part and the step for ONNX Runtime, where the model has them.

        Raises:
            OutputExistsError: The folder exists and ``overwrite`` is off.
            StorageError: The disk is full or cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and not overwrite:
            raise OutputExistsError(f"{folder} exists; choose another place or overwrite it (--overwrite)")
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        try:
            partial.mkdir(parents=True)
            self._write(partial, onnx=onnx)
            _swap(partial, folder)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"classifier could not be written to {folder}: {error}; free some space"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _write(self, folder: Path, *, onnx: bool) -> None:
        state = {name: tensor.contiguous().cpu() for name, tensor in self.model.state_dict().items()}
        save_file(state, folder / _WEIGHTS)
        description = {
            "format": _FORMAT,
            "model": {"name": self.model_name, "options": dict(self.model_options)},
            "classes": list(self.classes),
            "spec": self.spec.to_dict(),
            "temperature": self.temperature,
            "training_statistics": dict(self.training_statistics),
            "decision": dict(self.decision),
        }
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if onnx:
            self._write_onnx(folder)

    def _write_onnx(self, folder: Path) -> None:
        """Write the per-frame part and the step, where the model has them."""
        model, size = self.model.cpu().eval(), (self.spec.height, self.spec.width)
        if isinstance(model, FrameModel):
            export_onnx(model.backbone, folder / _ONNX, example=torch.rand(2, 3, *size))
        if model.can_step and not self.spec.follows_motion:
            with contextlib.suppress(NotExportedError):  # torch then runs it on streams, which is said there
                export_step(model, folder / _STEP, size=size)
        self.model.to(self.device)

    def save_decision(self, folder: str | Path, decision: Mapping[str, Any]) -> Path:
        """Give this classifier another decision, and write it into the folder that it was loaded from.

        The weights are not touched; the description is replaced whole, or not at all.

        Returns:
            The description that was written.

        Raises:
            ClassifierError: The folder holds no classifier, or another one.
            StorageError: The disk is full or cannot be written.
        """
        place = _find(Path(folder))
        description = _read_description(place)
        if tuple(description["classes"]) != self.classes:
            raise ClassifierError(f"{place} holds a classifier of other classes; give the folder of this one")
        path, partial = place / _DESCRIPTION, place / f".{_DESCRIPTION}.{os.getpid()}.partial"
        text = json.dumps({**description, "decision": dict(decision)}, indent=2) + "\n"
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise StorageError(f"{path} could not be written: {error}; free some space") from error
        finally:
            partial.unlink(missing_ok=True)
        self.decision = dict(decision)
        return path

    @classmethod
    def load(cls, folder: str | Path, *, runtime: Runtime = "auto", device: str = "cpu") -> Classifier:
        """Read a saved classifier, or ``"imagenet"``, the packaged frame-by-frame ImageNet classifier.

        Args:
            folder: A classifier folder, a run folder that holds ``classifier/``, or ``"imagenet"``.
            runtime: What runs the per-frame part; ``"auto"`` takes ONNX Runtime on a CPU where it was saved.
            device: A torch device name.

        Raises:
            ClassifierError: The folder is absent, incomplete, or its weights do not fit its description.
        """
        if str(folder) == "imagenet":
            return _imagenet(cls, torch.device(device))
        folder = _find(Path(folder))
        description = _read_description(folder)
        spec = ClipSpec.from_dict(description["spec"])
        name, options = description["model"]["name"], description["model"]["options"]
        classes = tuple(description["classes"])
        model = _new_model(name, options, spec, num_classes=len(classes))
        _fill(model, folder / _WEIGHTS)
        return cls(
            model,
            name,
            options,
            spec,
            classes,
            temperature=float(description["temperature"]),
            training_statistics=description["training_statistics"],
            decision=description.get("decision", {}),
            device=torch.device(device),
            onnx_path=_choose_onnx(folder, runtime, device),
            step_path=folder / _STEP if runtime != "torch" and (folder / _STEP).is_file() else None,
        )


def _new_model(name: str, options: Mapping[str, Any], spec: ClipSpec, *, num_classes: int) -> VideoModel:
    """Build the described model without its weights: one of Vidette's, or one that was imported."""
    if name in IMPORTED_MODELS:
        return build_imported(name, num_classes=num_classes, options=options)
    return build_model(
        name,
        num_classes=num_classes,
        num_frames=spec.num_frames,
        height=spec.height,
        width=spec.width,
        options=options,
    )


def _imagenet(kind: type[Classifier], device: torch.device) -> Classifier:
    mean, std = imagenet_normalisation(PACKAGED_BACKBONE)
    spec = ClipSpec(num_frames=1, mean=mean, std=std)
    model = build_model("imagenet", num_classes=1000, num_frames=1, height=224, width=224)
    return kind(model, "imagenet", {}, spec, imagenet_class_names(), device=device)


def _find(folder: Path) -> Path:
    for place in (folder, folder / "classifier"):
        if (place / _DESCRIPTION).is_file():
            return place
    what = "no such folder" if not folder.exists() else f"no {_DESCRIPTION} in it or in classifier/ below it"
    raise ClassifierError(f"{folder}: {what}; expected a classifier, a run folder, or the name 'imagenet'")


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClassifierError(f"{path} cannot be read: {error}; train or save the classifier again") from error
    wanted = ("format", "model", "classes", "spec", "temperature", "training_statistics")
    missing = [key for key in wanted if not isinstance(description, dict) or key not in description]
    if missing:
        raise ClassifierError(f"{path} lacks {', '.join(missing)}; train or save the classifier again")
    if not isinstance(description.get("decision", {}), dict):
        raise ClassifierError(f"{path}: decision is no object of settings; tune or save the classifier again")
    if description["format"] != _FORMAT:
        raise ClassifierError(f"{path} has format {description['format']}; this version reads {_FORMAT}")
    return description


def _fill(model: VideoModel, path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ClassifierError(f"{path} cannot be read: {error}; train or save the classifier again") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ClassifierError(f"{path} does not fit the model in {_DESCRIPTION}: {first}") from error


def _choose_onnx(folder: Path, runtime: Runtime, device: str) -> Path | None:
    path = folder / _ONNX
    if runtime not in ("auto", "torch", "onnx"):
        raise SettingError(f"runtime is {runtime!r}; expected auto, torch or onnx")
    if runtime == "onnx" and not path.is_file():
        raise ClassifierError(f"{folder} has no {_ONNX}; use runtime 'torch' (3-D CNNs have no per-frame part)")
    use = runtime == "onnx" or (runtime == "auto" and device == "cpu" and path.is_file())
    return path if use else None


def _swap(partial: Path, folder: Path) -> None:
    """Put ``partial`` in the place of ``folder``, keeping the old one until the new one stands."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
