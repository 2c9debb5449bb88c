"""The packaged ImageNet classifier as a video model: frame by frame, 1000 classes, no training."""

from __future__ import annotations

from typing import ClassVar

from timm.data import ImageNetInfo
from torch import Tensor, nn

from vidette.models.backbone import packaged_imagenet_classifier
from vidette.models.base import FrameModel

__all__ = ["ImageNetFrames", "imagenet_class_names"]


class _MeanOverTime(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean(1)


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
