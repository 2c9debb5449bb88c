"""Networks written as ONNX, with parity to torch checked before anything is kept."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from vidette.errors import ClassifierError

__all__ = ["PARITY_TOLERANCE", "export_onnx", "open_session"]

PARITY_TOLERANCE = 1e-4
"""Largest absolute difference allowed between torch and ONNX Runtime, relative to outputs above 1."""


def export_onnx(module: nn.Module, path: Path, *, example: Tensor) -> Path:
    """Write ``module`` (one tensor in, one out, batch first) as ONNX with a free batch size.

    The file is written beside its place and renamed once ONNX Runtime gives torch's answer on two batch
    sizes within :data:`PARITY_TOLERANCE`.

    Args:
        module: In eval mode on the CPU.
        path: Where the model goes.
        example: One input, ``(B, ...)`` with B at least 2.

    Raises:
        ClassifierError: ONNX Runtime's answer differs from torch's.
    """
    partial = path.with_suffix(f".{os.getpid()}.partial.onnx")
    try:
        _write(module, partial, example)
        _check_parity(module, partial, (example, example[:1]))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(module: nn.Module, path: Path, example: Tensor) -> None:
    batch = torch.export.Dim("batch", min=1, max=65536)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=({0: batch},), input_names=["x"], verbose=False
            )
            assert program is not None
            program.save(path, external_data=False)
    finally:
        quiet.setLevel(level)


def _check_parity(module: nn.Module, path: Path, inputs: Sequence[Tensor]) -> None:
    session = open_session(path)
    for x in inputs:
        with torch.no_grad():
            expected = module(x).numpy()
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        worst = float(np.max(np.abs(np.asarray(got) - expected) / np.maximum(1.0, np.abs(expected))))
        if not worst <= PARITY_TOLERANCE:
            raise ClassifierError(
                f"ONNX Runtime and torch differ by {worst:.2e} on {type(module).__name__}; "
                f"expected at most {PARITY_TOLERANCE:.0e}: use runtime 'torch'"
            )


def open_session(path: Path, *, num_threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open an ONNX model on the CPU, one thread a core of this process by default.

    Raises:
        ClassifierError: The file cannot be opened.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or torch.get_num_threads()
    options.log_severity_level = 3
    # Between two operators a thread waits awake, which is shorter than to be woken; not long, and not after a
    # run: it would take the cores from torch's, and from other streams.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds have no common base
        raise ClassifierError(f"{path} cannot be opened ({error}); remove it") from error
