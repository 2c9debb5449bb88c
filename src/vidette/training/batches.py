"""Clips in batches: their order, how they are put together, and how a batch is mixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from vidette.training.recipe import AugmentSettings, TrainSettings

__all__ = [
    "Batch",
    "BatchMix",
    "LabelledTensors",
    "Loader",
    "evaluation_batches",
    "in_groups",
    "training_batches",
]

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Inputs ``(N, ...)`` and classes ``(N,)``."""

Loader: TypeAlias = DataLoader[Any]


class LabelledTensors(Protocol):
    """What the loop reads: items ``(tensor, label)`` whose randomness depends on the epoch alone."""

    @property
    def labels(self) -> Sequence[int]:
        """Every clip's label."""
        ...

    def __len__(self) -> int:
        """Return how many clips there are."""
        ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a clip's input and label."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that augmentation is drawn for."""
        ...


class _Shuffled(Sampler[int]):
    """A new order every epoch, drawn from the generator that the epoch's seed set."""

    def __init__(self, labels: Sequence[int]) -> None:
        self.length = len(labels)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.length).tolist())


class _Balanced(_Shuffled):
    """As many clips an epoch as there are, every class equally often (within one clip).

    Clips of a rare class come again only when all of them have come; of a common class a different part comes
    every epoch.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        super().__init__(labels)
        classes = torch.tensor(labels)
        self.members = [torch.nonzero(classes == label).flatten() for label in classes.unique()]

    def __iter__(self) -> Iterator[int]:
        rounds = torch.randperm(len(self.members)).tolist()  # which classes get the odd clips
        each, odd = divmod(self.length, len(self.members))
        chosen = [
            _dealt(members, each + (place < odd)) for place, members in zip(rounds, self.members, strict=True)
        ]
        clips = torch.cat(chosen)
        return iter(clips[torch.randperm(len(clips))].tolist())


def _dealt(members: Tensor, count: int) -> Tensor:
    """Deal ``count`` of the members, shuffled anew each time that all have been dealt."""
    hands = [members[torch.randperm(len(members))] for _ in range(-(-count // len(members)))]
    return torch.cat(hands)[:count] if hands else members[:0]


def training_batches(data: LabelledTensors, settings: TrainSettings) -> Loader:
    """Return shuffled batches; a last batch of one clip is left out (BatchNorm needs two)."""
    lonely = len(data) > settings.batch_size and len(data) % settings.batch_size == 1
    sampler = (_Balanced if settings.balanced_sampling else _Shuffled)(data.labels)
    return _loader(data, settings, sampler=sampler, drop_last=lonely)


def evaluation_batches(data: LabelledTensors, settings: TrainSettings) -> Loader:
    """Return all clips in their own order."""
    return _loader(data, settings)


def _loader(data: LabelledTensors, settings: TrainSettings, **order: Any) -> Loader:
    return DataLoader(
        cast(Dataset[Any], data),
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        collate_fn=_together,
        pin_memory=torch.cuda.is_available(),
        **order,
    )


def _together(items: Sequence[tuple[Tensor, int]]) -> Batch:
    """Put clips into one batch by a plain copy; torch.stack waits for its threads on a busy machine."""
    inputs = np.stack([tensor.numpy() for tensor, _ in items])
    return torch.from_numpy(inputs), torch.tensor([label for _, label in items])


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield ``size`` batches at a time; the last group may be smaller."""
    batches = iter(batches)
    while group := list(itertools.islice(batches, size)):
        yield group


class BatchMix:
    """Mixup and CutMix: each clip blended with its neighbour in the batch, and its label likewise.

    Every frame of a clip gets the same share, or the same rectangle, of the same neighbour.

    Sources: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018; Yun et al., CutMix, ICCV 2019.

    Args:
        settings: ``mixup`` and ``cutmix``, the parameters of their Beta distributions; 0 leaves one out. With
            both, each batch gets one of them.
        seed: Seed of the drawing.
    """

    def __init__(self, settings: AugmentSettings, *, seed: int = 0) -> None:
        self.seed = seed
        self.kinds: list[v2.MixUp | v2.CutMix] = []
        if settings.mixup > 0:
            self.kinds.append(v2.MixUp(alpha=settings.mixup))
        if settings.cutmix > 0:
            self.kinds.append(v2.CutMix(alpha=settings.cutmix))

    def __call__(self, inputs: Tensor, labels: Tensor, *, epoch: int, number: int) -> Batch:
        """Mix one batch; what is drawn depends on (seed, epoch, number) alone.

        Args:
            inputs: float ``(N, T, C, H, W)``, pixels or features.
            labels: ``(N, K)``, each of sum 1.
            epoch: Which epoch.
            number: Which batch of the epoch.
        """
        if not self.kinds:
            return inputs, labels
        generator = np.random.default_rng([self.seed, epoch, number])
        kind = self.kinds[int(generator.integers(len(self.kinds)))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator.integers(2**62)))
            mixed, blended = kind(tv_tensors.Video(inputs), labels)
        return mixed.as_subclass(Tensor), blended
