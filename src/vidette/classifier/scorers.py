"""One signature for what runs a model's per-frame part: torch, or ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vidette.classifier.onnx import open_session
from vidette.models.base import VideoModel

__all__ = ["FrameScorer", "OnnxFrames", "TorchFrames"]


class FrameScorer(Protocol):
    """Turn clips ``(N, T, C, H, W)`` into per-frame features ``(N, T, ...)``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features of every frame."""
        ...


class TorchFrames:
    """The per-frame part in torch, on the device of the model."""

    def __init__(self, model: VideoModel, device: torch.device) -> None:
        self.model = model
        self.device = device

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.frame_features(x.to(self.device))


class OnnxFrames:
    """The per-frame part in ONNX Runtime, from a model of ``(B, C, H, W)`` to ``(B, ...)``."""

    def __init__(self, path: Path) -> None:
        self.session = open_session(path)
        self.input_name = self.session.get_inputs()[0].name

    def __call__(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1).contiguous().numpy()
        (features,) = self.session.run(None, {self.input_name: frames})
        return torch.from_numpy(features).unflatten(0, x.shape[:2])
