"""One step of several streams in torch or ONNX Runtime: frames and flat states in, logits and states out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import onnxruntime
import platformdirs
import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from vidette.classifier.onnx import PARITY_TOLERANCE, export_onnx, open_session
from vidette.classifier.scorers import OnnxFrames
from vidette.errors import ClassifierError, StorageError
from vidette.models.base import FrameModel, VideoModel

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = [
    "NotExportedError",
    "OnnxStep",
    "StepRunner",
    "TorchStep",
    "check_step_parity",
    "export_step",
    "exported_step",
]

_BACKBONE, _STEP = "backbone.onnx", "step.onnx"
_KEPT_EXPORTS = 8
_CHECKED_STEPS = 3


class NotExportedError(ClassifierError):
    """A model's step cannot be written as ONNX."""


class StepRunner(Protocol):
    """Run one step of S streams, each with R rows of state."""

    runtime: Literal["torch", "onnx"]

    def initial(self) -> tuple[Tensor, ...]:
        """Return the state of one stream of which nothing was seen: tensors ``(R, ...)``."""
        ...

    def __call__(self, frames: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take frames ``(S, C, H, W)`` and states ``(S, R, ...)``; return logits ``(S, R, K)`` and states."""
        ...


class _FlatStep(nn.Module):
    """What a step makes of a frame's features, or of the frame where there are none, and a flat state."""

    def __init__(self, model: VideoModel, layout: TreeSpec) -> None:
        super().__init__()
        self.part = model.head if isinstance(model, FrameModel) else model
        self.layout = layout

    def forward(self, x: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        logits, state = self.part.step(x, tree_unflatten(list(flat), self.layout))
        return (logits, *tree_leaves(state))


class TorchStep:
    """A model's step in torch, on the model's device.

    Args:
        model: In eval mode, with a step.
        rows: States a stream, R.
        device: Where the model is.
    """

    runtime: Literal["torch", "onnx"] = "torch"

    def __init__(self, model: VideoModel, *, rows: int, device: torch.device) -> None:
        self.model, self.device, self.rows = model, device, rows
        with torch.no_grad():
            flat, layout = tree_flatten(model.initial_state(rows))
        self._initial = tuple(flat)
        self.network = _FlatStep(model, layout).eval()

    def initial(self) -> tuple[Tensor, ...]:
        """Return the state of one stream of which nothing was seen."""
        return tuple(x.clone() for x in self._initial)

    def features(self, frames: Tensor) -> Tensor:
        """Return what is computed of each frame alone, ``(S, ...)``; the frames where there is nothing."""
        frames = frames.to(self.device)
        if not isinstance(self.model, FrameModel):
            return frames
        with torch.no_grad():
            return self.model.frame_features(frames[:, None])[:, 0]

    def __call__(self, frames: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the step."""
        repeated = self.features(frames).repeat_interleave(self.rows, dim=0)
        given = (repeated, *(x.flatten(0, 1) for x in states))
        with torch.no_grad():
            logits, *after = (x.unflatten(0, (-1, self.rows)) for x in self.network(*given))
        return logits, tuple(after)


class OnnxStep:
    """A step that was exported, in ONNX Runtime on the CPU.

    Args:
        path: The ONNX file: features of frames, or frames, and flat states in; logits and flat states out.
        backbone: The ONNX file that computes the features; None where the step takes frames.
        initial: The state of one stream of which nothing was seen, ``(R, ...)``.

    Raises:
        ClassifierError: A file cannot be opened.
    """

    runtime: Literal["torch", "onnx"] = "onnx"

    def __init__(self, path: Path, *, backbone: Path | None, initial: tuple[Tensor, ...]) -> None:
        self._frames = None if backbone is None else OnnxFrames(backbone)
        self.session = open_session(path, num_threads=None if backbone is None else 1)
        self._initial, self.rows = initial, len(initial[0])
        self._names = [given.name for given in self.session.get_inputs()]

    def initial(self) -> tuple[Tensor, ...]:
        """Return the state of one stream of which nothing was seen."""
        return tuple(x.clone() for x in self._initial)

    def __call__(self, frames: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the step."""
        features = frames if self._frames is None else self._frames(frames[:, None])[:, 0]
        # In numpy, as all that is done between two steps: torch's threads, once awake, spin and take the cores.
        given = [np.repeat(features.numpy(), self.rows, axis=0), *(x.flatten(0, 1).numpy() for x in states)]
        answers = self.session.run(None, dict(zip(self._names, given, strict=True)))
        logits, *after = (torch.from_numpy(x).unflatten(0, (-1, self.rows)) for x in answers)
        return logits, tuple(after)


def exported_step(
    classifier: Classifier, *, rows: int, size: tuple[int, int], folder: Path | None = None
) -> OnnxStep:
    """Return a classifier's step in ONNX Runtime: what was saved with it, else an export that is kept.

    It is checked against torch at every load.

    Args:
        classifier: On the CPU, with a model that steps.
        rows: States a stream, R.
        size: H and W of a frame.
        folder: Where exports are kept; ``steps`` in ``$VIDETTE_CACHE`` or in the user's cache by default.

    Raises:
        NotExportedError: The model's step cannot be written as ONNX.
        ClassifierError: ONNX Runtime's answers differ from torch's by more than ``PARITY_TOLERANCE``.
        StorageError: The export cannot be written.
    """
    torch_step = TorchStep(classifier.model, rows=rows, device=torch.device("cpu"))
    frames = _example(size)
    kept = (folder or _default_folder()) / _key(classifier)
    has_backbone = isinstance(classifier.model, FrameModel)
    backbone = (classifier.onnx_path or kept / _BACKBONE) if has_backbone else None
    for path in (classifier.step_path, kept / _STEP):
        if path is not None and path.is_file():
            with contextlib.suppress(ClassifierError):
                return _checked(torch_step, path, backbone, frames)
    _export(classifier, kept)
    return _checked(torch_step, kept / _STEP, backbone, frames)


def _checked(expected: TorchStep, path: Path, backbone: Path | None, frames: Tensor) -> OnnxStep:
    got = OnnxStep(path, backbone=backbone, initial=expected.initial())
    check_step_parity(expected, got, frames)
    return got


def export_step(model: VideoModel, path: Path, *, size: tuple[int, int]) -> None:
    """Write a model's step as ONNX, with a free number of states; without what is computed of a frame alone.

    Args:
        model: In eval mode on the CPU, with a step.
        path: Where the step goes.
        size: H and W of a frame.

    Raises:
        NotExportedError: The step cannot be written as ONNX.
        OSError: The file cannot be written.
    """
    step = TorchStep(model, rows=1, device=torch.device("cpu"))
    states = tuple(torch.cat([x, x]) for x in step.initial())
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = ({0: batch}, tuple({0: batch} for _ in states))
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with _named_failure(), _quiet(), torch.no_grad():
            given = (step.features(_example(size)), *states)
            program = torch.onnx.export(step.network, given, dynamo=True, dynamic_shapes=shapes, verbose=False)
            assert program is not None
            program.save(partial, external_data=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_step_parity(expected: StepRunner, got: StepRunner, frames: Tensor) -> None:
    """Step both over the same frames, for one stream and for several; their logits must agree.

    Args:
        expected: In torch.
        got: In ONNX Runtime.
        frames: ``(S, C, H, W)``, S at least 2.

    Raises:
        ClassifierError: They differ by more than ``PARITY_TOLERANCE``, relative to logits above 1.
    """
    worst = 0.0
    for given in (frames, frames[:1]):
        states = [tuple(torch.stack([x] * len(given)) for x in step.initial()) for step in (expected, got)]
        for number in range(_CHECKED_STEPS):
            moved = given.roll(number, dims=-1)
            wanted, states[0] = expected(moved, states[0])
            answer, states[1] = got(moved, states[1])
            off = (answer - wanted).abs() / wanted.abs().clamp(min=1)
            worst = max(worst, float(off.nan_to_num(torch.inf).max()))
    if not worst <= PARITY_TOLERANCE:
        raise ClassifierError(
            f"ONNX Runtime and torch differ by {worst:.2e} on the model's step; "
            f"expected at most {PARITY_TOLERANCE:.0e}: use runtime 'torch'"
        )


def _default_folder() -> Path:
    return Path(os.environ.get("VIDETTE_CACHE") or platformdirs.user_cache_path("vidette")) / "steps"


def _key(classifier: Classifier) -> str:
    """Name everything that an export depends on, the weights included."""
    spec = classifier.spec
    facts = [classifier.model_name, dict(classifier.model_options), spec.num_frames, spec.height, spec.width]
    versions = [str(torch.__version__), onnxruntime.__version__]
    digest = hashlib.blake2b(json.dumps([facts, versions], default=str).encode(), digest_size=16)
    for name, tensor in sorted(classifier.model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _example(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def _export(classifier: Classifier, folder: Path) -> None:
    """Write a classifier's step, and its per-frame part where it has one that is not written yet."""
    model, size = classifier.model, (classifier.spec.height, classifier.spec.width)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(model, FrameModel) and classifier.onnx_path is None:
            with _named_failure():
                export_onnx(model.backbone, folder / _BACKBONE, example=_example(size))
        export_step(model, folder / _STEP, size=size)
        _remove_old(folder.parent)
    except OSError as error:
        raise StorageError(
            f"the exported step could not be written to {folder.parent}: {error}; choose another place with "
            "VIDETTE_CACHE, or use runtime 'torch'"
        ) from error


def _remove_old(folder: Path) -> None:
    exports = sorted(folder.glob(f"*/{_STEP}"), key=lambda path: path.stat().st_mtime)
    for path in exports[:-_KEPT_EXPORTS]:
        shutil.rmtree(path.parent, ignore_errors=True)


@contextlib.contextmanager
def _named_failure() -> Generator[None]:
    """Say of whatever the exporter passes on from a model's own code that the step cannot be exported."""
    try:
        yield
    except (OSError, ClassifierError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise NotExportedError(f"the model's step cannot be written as ONNX: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the exporter's remarks to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
