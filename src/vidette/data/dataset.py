"""Labelled clips as PyTorch wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidette.data.cache import ClipCache
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, unknown_name
from vidette.video.augmentation import Augmentation, augment
from vidette.video.clip import ClipSpec

__all__ = ["ClipDataset"]


class ClipDataset(Dataset[tuple[Tensor, int]]):
    """Clips with their labels: items ``(uint8 (T, H, W, 3), label)``.

    A clip and its label are one value, so that a clip left out takes its label along. Augmentation is drawn
    from (seed, epoch, index) alone, and changes every frame of a clip in the same way.

    Args:
        clips: The labelled clips.
        class_names: Labels in the order of the logits.
        spec: How clips are cut.
        cache: Where they are.
        augmentation: How training clips are changed; None leaves them as they are.
        seed: Seed of the augmentation.

    Raises:
        InputMismatchError: A label is not in ``class_names``.
    """

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        class_names: Sequence[str],
        spec: ClipSpec,
        cache: ClipCache,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        number = {name: i for i, name in enumerate(class_names)}
        for clip in clips:
            if clip.label not in number:
                raise InputMismatchError(f"{clip.name}: {unknown_name('label', clip.label, class_names)}")
        self.clips = clips
        self.labels = [number[clip.label] for clip in clips]
        self.spec = spec
        self.cache = cache
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that augmentation is drawn for."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.cache.load(self.clips[index], self.spec).pixels
        if self.augmentation is not None:
            generator = np.random.default_rng([self.seed, self.epoch, index])
            pixels = augment(pixels, self.augmentation, generator=generator)
        return torch.from_numpy(np.ascontiguousarray(pixels)), self.labels[index]
