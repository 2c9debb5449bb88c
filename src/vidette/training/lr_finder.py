"""A learning rate found by trying: one short run in which it rises from far too small to far too large."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from vidette.errors import ClassifierError, SettingError
from vidette.training.batches import Batch, BatchMix, LabelledTensors, in_groups, training_batches
from vidette.training.learner import Learner
from vidette.training.recipe import TrainSettings

__all__ = ["RateSearch", "find_learning_rate"]

_SMOOTHING = 0.03
"""Width of the smoothing of the losses, as a share of the steps."""
_EXPLODED = 4.0
_FEWEST = 10
_USUAL_FEWEST, _MOST = 30, 100


@dataclass(frozen=True)
class RateSearch:
    """What the loss did while the learning rate rose.

    Attributes:
        rates: The rate of each step, rising by one factor.
        losses: The loss at each step, smoothed, in nats a clip.
        suggestion: The rate at which the loss fell fastest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def line(self) -> str:
        """Say what was found, for people."""
        return (
            f"learning rate {self.suggestion:.2g}: there the loss fell fastest, of {len(self.rates)} rates"
            f" tried on the training clips, {self.rates[0]:.0e} to {self.rates[-1]:.0e}"
        )

    def write(self, path: Path) -> None:
        """Write the rates, the losses and the suggestion as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> RateSearch:
        """Read what :meth:`write` wrote.

        Raises:
            ClassifierError: The file is damaged.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return RateSearch(tuple(values["rates"]), tuple(values["losses"]), float(values["suggestion"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ClassifierError(f"{path} cannot be read ({error!r}); train again with --overwrite") from error


def find_learning_rate(
    model: nn.Module,
    training: LabelledTensors,
    settings: TrainSettings,
    *,
    prepare: Callable[[Tensor], Tensor],
    num_classes: int,
    mix: BatchMix | None = None,
    lowest: float = 1e-6,
    highest: float = 1.0,
    num_steps: int | None = None,
) -> RateSearch:
    """Train a copy of ``model`` for some steps while the learning rate rises; suggest one.

    The copy learns by the same optimiser, loss and batches as a run; only the schedule and averages are left
    out. The search ends early where the loss is 4 times the first.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.

    Args:
        model: As it would begin to learn; not changed.
        training: Clips to learn from.
        settings: The recipe's ``[train]``; ``learning_rate`` does not matter.
        prepare: Turns a batch as loaded into the model's input, on the device.
        num_classes: K.
        mix: How clips of a batch are mixed; None leaves them apart.
        lowest: The first rate, above 0.
        highest: The last rate.
        num_steps: Steps from the one to the other, at least 10; None takes a quarter of the run's own, from
            30 to 100.

    Raises:
        SettingError: The range or the number of steps is too small, or the loss explodes from the start.
    """
    num_steps = _steps_of(len(training.labels), settings) if num_steps is None else num_steps
    if not 0 < lowest < highest or num_steps < _FEWEST:
        raise SettingError(
            f"learning rates from {lowest} to {highest} in {num_steps} steps; expected 0 < lowest < highest "
            f"and at least {_FEWEST} steps"
        )
    settings = replace(
        settings, learning_rate=lowest, schedule="constant", warmup_fraction=0.0, ema_decay=0.0, swa_start=0.0
    )
    torch.manual_seed(settings.seed)
    learner = Learner(
        copy.deepcopy(model),
        settings,
        prepare=prepare,
        labels=training.labels,
        num_classes=num_classes,
        mix=mix,
        epochs=1,
        num_batches=num_steps * settings.accumulate,
    )
    rates = np.geomspace(lowest, highest, num_steps).tolist()
    groups = in_groups(_endless(training, settings), settings.accumulate)
    raw = _losses_while_rising(learner, rates, groups)
    losses = gaussian_filter1d(raw, max(1.0, _SMOOTHING * num_steps), mode="nearest").tolist()
    return RateSearch(tuple(rates[: len(losses)]), tuple(losses), _steepest(rates, losses))


def _steps_of(num_clips: int, settings: TrainSettings) -> int:
    """Return the steps of a search that takes a part of a run's time."""
    of_run = settings.epochs * math.ceil(num_clips / settings.batch_size / settings.accumulate)
    return min(_MOST, max(_USUAL_FEWEST, of_run // 4))


def _endless(training: LabelledTensors, settings: TrainSettings) -> Iterator[Batch]:
    loader = training_batches(training, settings)
    for epoch in itertools.count():
        training.set_epoch(epoch)
        yield from loader


def _losses_while_rising(learner: Learner, rates: list[float], groups: Iterator[list[Batch]]) -> list[float]:
    """Return the loss at each rate, as far as it stays finite and small."""
    shares = [group["lr"] / rates[0] for group in learner.optimizer.param_groups]
    losses: list[float] = []
    learner.begin()
    for number, (rate, group) in enumerate(zip(rates, groups, strict=False)):
        for share, parameters in zip(shares, learner.optimizer.param_groups, strict=True):
            parameters["lr"] = share * rate
        try:
            losses.append(learner.step(group, number=number)[0])
        except SettingError:  # not finite: far beyond what is looked for
            if not losses:
                raise
            break
        if losses[-1] > _EXPLODED * losses[0]:
            break
    return losses


def _steepest(rates: list[float], losses: list[float]) -> float:
    """Return the rate before the least loss at which the loss fell fastest along the logarithm of the rate."""
    falling = losses[: int(np.argmin(losses)) + 1]
    if len(falling) < 3:
        raise SettingError(
            "the loss did not fall at any learning rate; start lower, or look at the clips and their labels"
        )
    slope = np.gradient(np.array(falling), math.log(rates[1] / rates[0]))
    return rates[int(np.argmin(slope))]
