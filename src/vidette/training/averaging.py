"""Averages of the weights met in training, which often do better on unseen clips than the last ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from vidette.training.recipe import TrainSettings

__all__ = ["WeightAverage"]


class WeightAverage:
    """One of three: an exponential average over steps (EMA), an equal one over late epochs (SWA), or none.

    EMA takes the share ``min(ema_decay, (1 + n) / (10 + n))`` of itself at step n, so that it soon forgets the
    start; it averages BatchNorm's statistics too. SWA measures them anew on the training clips, unless
    BatchNorm is frozen.

    Sources: Tarvainen and Valpola, Mean Teachers Are Better Role Models, NeurIPS 2017; Izmailov et al.,
    Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.

    Args:
        model: Whose weights are averaged.
        settings: ``ema_decay``, ``swa_start`` and ``freeze_batchnorm`` are used.
        epochs: How many are planned.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, *, epochs: int) -> None:
        self.source = model
        self.decay = settings.ema_decay
        self.first_epoch = round(settings.swa_start * epochs)
        self.renews_statistics = not settings.freeze_batchnorm
        self.average: AveragedModel | None = None
        if self.decay > 0:
            self.average = AveragedModel(model, multi_avg_fn=self._forget, use_buffers=True)
        elif settings.swa_start > 0:
            self.average = AveragedModel(model)

    def _forget(self, averages: Any, newest: Any, count: Tensor | int) -> None:
        n = float(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averages, newest, count)

    @property
    def model(self) -> nn.Module | None:
        """The model with the averaged weights; None while there is no average."""
        if self.average is None or int(self.average.n_averaged) == 0:
            return None
        return self.average.module

    def after_step(self) -> None:
        """Take in the weights of a step."""
        if self.average is not None and self.decay > 0:
            self.average.update_parameters(self.source)

    def after_epoch(self, epoch: int, inputs: Iterable[Tensor]) -> None:
        """Take in the weights of an epoch.

        Args:
            epoch: Which one has ended.
            inputs: The training clips as the model takes them, for the statistics; read only where needed.
        """
        if self.average is None or self.decay > 0 or epoch < self.first_epoch:
            return
        self.average.update_parameters(self.source)
        if self.renews_statistics:
            with torch.no_grad():
                update_bn(inputs, self.average.module)

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a checkpoint needs."""
        return self.average.state_dict() if self.average is not None else None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Take up from a checkpoint."""
        if self.average is not None and state is not None:
            self.average.load_state_dict(state)
