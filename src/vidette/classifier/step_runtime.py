"""One step of several streams in torch or ONNX Runtime: frames and flat states in, logits and states out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
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

from vidette.classifier.onnx import PARITY_TOLERANCE, open_session
from vidette.errors import ClassifierError, StorageError
from vidette.models.base import FrameModel, VideoModel

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["NotExportedError", "OnnxStep", "StepRunner", "TorchStep", "check_step_parity", "exported_step"]

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


class _Rows(nn.Module):
    """A model's step over R states a stream; what is computed of a frame alone is computed once for all."""

    def __init__(self, model: VideoModel, layout: TreeSpec, rows: int) -> None:
        super().__init__()
        self.model, self.layout, self.rows = model, layout, rows

    def forward(self, frames: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        state = tree_unflatten([x.flatten(0, 1) for x in flat], self.layout)
        if isinstance(self.model, FrameModel):
            features = self.model.frame_features(frames[:, None])[:, 0]
            logits, state = self.model.head.step(self._repeated(features), state)
        else:
            logits, state = self.model.step(self._repeated(frames), state)
        return tuple(x.unflatten(0, (-1, self.rows)) for x in (logits, *tree_leaves(state)))

    def _repeated(self, x: Tensor) -> Tensor:
        return x[:, None].expand(-1, self.rows, *x.shape[1:]).flatten(0, 1)


class TorchStep:
    """A model's step in torch, on the model's device.

    Args:
        model: In eval mode, with a step.
        rows: States a stream, R.
        device: Where the model is.
    """

    runtime: Literal["torch", "onnx"] = "torch"

    def __init__(self, model: VideoModel, *, rows: int, device: torch.device) -> None:
        self.device = device
        with torch.no_grad():
            flat, layout = tree_flatten(model.initial_state(rows))
        self._initial = tuple(flat)
        self.network = _Rows(model, layout, rows).eval()

    def initial(self) -> tuple[Tensor, ...]:
        """Return the state of one stream of which nothing was seen."""
        return tuple(x.clone() for x in self._initial)

    def __call__(self, frames: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the step."""
        with torch.no_grad():
            logits, *after = self.network(frames.to(self.device), *states)
        return logits, tuple(after)


class OnnxStep:
    """A step that was exported, in ONNX Runtime on the CPU.

    Args:
        path: The ONNX file: frames and flat states in, logits and flat states out.
        initial: The state of one stream of which nothing was seen.

    Raises:
        ClassifierError: The file cannot be opened.
    """

    runtime: Literal["torch", "onnx"] = "onnx"

    def __init__(self, path: Path, *, initial: tuple[Tensor, ...]) -> None:
        try:
            self.session = open_session(path)
        except Exception as error:  # ONNX Runtime's own kinds have no common base
            raise ClassifierError(f"{path} cannot be opened ({error}); remove it") from error
        self._initial = initial
        self._names = [given.name for given in self.session.get_inputs()]

    def initial(self) -> tuple[Tensor, ...]:
        """Return the state of one stream of which nothing was seen."""
        return tuple(x.clone() for x in self._initial)

    def __call__(self, frames: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the step."""
        given = [np.ascontiguousarray(x.numpy()) for x in (frames, *states)]
        logits, *after = self.session.run(None, dict(zip(self._names, given, strict=True)))
        return torch.from_numpy(logits), tuple(torch.from_numpy(x) for x in after)


def exported_step(
    classifier: Classifier, *, rows: int, size: tuple[int, int], folder: Path | None = None
) -> OnnxStep:
    """Return a classifier's step in ONNX Runtime; exports are kept and checked against torch at every load.

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
    frames = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    path = (folder or _default_folder()) / f"{_key(classifier, rows)}.onnx"
    if path.is_file():
        with contextlib.suppress(ClassifierError):
            kept = OnnxStep(path, initial=torch_step.initial())
            check_step_parity(torch_step, kept, frames)
            return kept
    _export(torch_step, frames, path)
    fresh = OnnxStep(path, initial=torch_step.initial())
    check_step_parity(torch_step, fresh, frames)
    return fresh


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


def _key(classifier: Classifier, rows: int) -> str:
    """Name everything that an export depends on, the weights included."""
    spec = classifier.spec
    facts = [classifier.model_name, dict(classifier.model_options), spec.num_frames, spec.height, spec.width]
    versions = [rows, str(torch.__version__), onnxruntime.__version__]
    digest = hashlib.blake2b(json.dumps([facts, versions], default=str).encode(), digest_size=16)
    for name, tensor in sorted(classifier.model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _export(step: TorchStep, frames: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    states = tuple(torch.stack([x, x]) for x in step.initial())
    shapes = ({0: batch}, tuple({0: batch} for _ in states))
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                step.network, (frames, *states), dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            assert program is not None
            program.save(partial, external_data=False)
        partial.replace(path)
        _remove_old(path.parent)
    except OSError as error:
        raise StorageError(
            f"the exported step could not be written to {path.parent}: {error}; choose another place with "
            "VIDETTE_CACHE, or use runtime 'torch'"
        ) from error
    except Exception as error:  # the exporter passes on whatever a model's own code raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise NotExportedError(f"the model's step cannot be written as ONNX: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)


def _remove_old(folder: Path) -> None:
    exports = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
    for path in exports[:-_KEPT_EXPORTS]:
        path.unlink(missing_ok=True)


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
