"""What every video model is: a per-frame part and a head over time."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

__all__ = ["FrameModel", "VideoModel"]


class VideoModel(nn.Module):
    """Clips to logits in two parts, so that work done frame by frame can be done once and reused.

    ``frame_features`` looks at every frame on its own; ``head`` looks along time. A 3-D CNN has no per-frame
    part: its features are the pixels.

    Shapes:
        forward: ``(N, T, C, H, W)`` to logits ``(N, K)``.
        frame_features: ``(N, T, C, H, W)`` to ``(N, T, ...)``.
        head: ``(N, T, ...)`` to ``(N, K)``.
    """

    uses_order: ClassVar[bool] = True
    head: nn.Module

    def frame_features(self, x: Tensor) -> Tensor:
        """Return what is computed of each frame alone, ``(N, T, ...)``."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.frame_features(x))


class FrameModel(VideoModel):
    """A model whose per-frame part is a 2-D backbone ``(B, C, H, W)`` to ``(B, D, g, g)``."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def frame_features(self, x: Tensor) -> Tensor:
        """Run the backbone on every frame: ``(N, T, C, H, W)`` to ``(N, T, D, g, g)``."""
        n, t = x.shape[:2]
        return self.backbone(x.flatten(0, 1)).unflatten(0, (n, t))
