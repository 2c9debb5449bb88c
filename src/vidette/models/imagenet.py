"""The packaged ImageNet classifier as a video model: frame by frame, 1000 classes, no training."""

from __future__ import annotations

from typing import ClassVar

import torch
from timm.data import ImageNetInfo
from torch import Tensor

from vidette.models.along_time import TimePool
from vidette.models.backbone import packaged_imagenet_classifier
from vidette.models.base import FrameModel, Head, State

__all__ = ["ImageNetFrames", "imagenet_class_names"]


_NUM_CLASSES = 1000


class _MeanOverTime(Head):
    """The features are logits already."""

    needs_whole_clip = None

    def __init__(self) -> None:
        super().__init__()
        self.pool = TimePool("mean", _NUM_CLASSES)
        self.origin: Tensor
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.pool(features)

    def initial_state(self, batch: int) -> State:
        return self.pool.initial_state(self.origin, batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        return self.pool.step(features, state)


class ImageNetFrames(FrameModel):
    """EfficientNet-Lite0 with its ImageNet layer; a clip's logits are the mean of its frames'."""

    uses_order: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(packaged_imagenet_classifier(), _MeanOverTime())


def imagenet_class_names() -> tuple[str, ...]:
    """Return the 1000 class names in the order of the logits, unique.

    Each is the first of its synonyms; all synonyms where two classes share the first, with the class's number
    where they share them all.
    """
    full = list(ImageNetInfo().label_descriptions())
    short = [name.split(",")[0] for name in full]
    names = [f if short.count(s) > 1 else s for s, f in zip(short, full, strict=True)]
    return tuple(f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names))
