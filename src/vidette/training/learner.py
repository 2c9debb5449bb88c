"""A model and what makes it learn: one step, one epoch, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vidette.errors import SettingError
from vidette.training.averaging import WeightAverage
from vidette.training.batches import Batch, BatchMix, in_groups
from vidette.training.losses import ClipLoss, class_weights
from vidette.training.optimizer import Scheduler, build_optimizer, build_scheduler
from vidette.training.recipe import TrainSettings
from vidette.training.stages import Stages, hold_still

__all__ = ["Learner"]


class Learner:
    """A model on its device with its optimiser, schedule, loss and average.

    Args:
        model: Takes ``prepare(batch)``, gives logits ``(N, num_classes)``; changed in place.
        settings: The recipe's ``[train]``.
        prepare: Turns a batch as loaded into the model's input, on the device.
        labels: Labels of the training clips, for the class weights.
        num_classes: K.
        mix: How clips of a batch are mixed; None leaves them apart.
        epochs: How many are planned.
        num_batches: Batches of an epoch.

    Raises:
        SettingError: The device is not there, or a setting does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        *,
        prepare: Callable[[Tensor], Tensor],
        labels: Sequence[int],
        num_classes: int,
        mix: BatchMix | None = None,
        epochs: int,
        num_batches: int,
    ) -> None:
        self.settings = settings
        self.fabric = _launch(settings)
        self.stages = Stages(model, settings)
        wrapped = self.fabric.setup(model, build_optimizer(model, self.stages, settings))
        self.module, self.optimizer = cast(tuple[nn.Module, torch.optim.Optimizer], wrapped)
        steps = epochs * -(-num_batches // settings.accumulate)
        self.scheduler: Scheduler = build_scheduler(self.optimizer, settings, total_steps=steps)
        weights = class_weights(labels, settings, num_classes=num_classes)
        self.loss = ClipLoss(weights.to(self.fabric.device), settings)
        self.average = WeightAverage(model, settings, epochs=epochs)
        self._prepare = prepare
        self._mix = mix

    def begin(self) -> None:
        """Put the model into training mode, but for BatchNorm that stands still."""
        self.module.train()
        hold_still(self.module)

    def train_epoch(self, batches: Iterable[Batch], *, epoch: int) -> tuple[float, float]:
        """Return mean loss and accuracy over the epoch's clips, as met while training.

        Raises:
            SettingError: The loss is not finite.
        """
        self.begin()
        loss_sum, right, seen = 0.0, 0, 0
        for number, group in enumerate(in_groups(batches, self.settings.accumulate)):
            loss, hits = self.step(group, epoch=epoch, number=number)
            if isinstance(self.scheduler, torch.optim.lr_scheduler.LambdaLR):
                self.scheduler.step()
            clips = sum(len(classes) for _, classes in group)
            loss_sum, right, seen = loss_sum + loss * clips, right + hits, seen + clips
        return loss_sum / seen, right / seen

    def step(self, group: Sequence[Batch], *, epoch: int = 0, number: int = 0) -> tuple[float, int]:
        """Learn from some batches as if they were one.

        Args:
            group: The batches.
            epoch: Which epoch, for the mixing.
            number: Which step of the epoch.

        Returns:
            Their mean loss, and how many clips were answered rightly.

        Raises:
            SettingError: The loss is not finite.
        """
        total = torch.stack([self.loss.total_weight(self._on_device(classes)) for _, classes in group]).sum()
        mean_loss, right = 0.0, 0
        self.optimizer.zero_grad()
        for place, batch in enumerate(group):
            inputs, labels = self._inputs(batch), self.loss.one_hot(self._on_device(batch[1]))
            if self._mix is not None:
                place_in_epoch = number * self.settings.accumulate + place
                inputs, labels = self._mix(inputs, labels, epoch=epoch, number=place_in_epoch)
            logits = self.module(inputs)
            loss = self.loss(logits, labels).sum() / total
            self._check_finite(loss)
            self.fabric.backward(loss)
            mean_loss += float(loss.detach())
            right += int((logits.argmax(1) == labels.argmax(1)).sum())
        self._change_weights()
        return mean_loss, right

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            rate = self.settings.learning_rate
            raise SettingError(f"the loss became {float(loss.detach())}; lower the learning rate ({rate})")

    def _change_weights(self) -> None:
        most = self.settings.gradient_clip
        if most:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=most, error_if_nonfinite=False)
        self.optimizer.step()
        self.average.after_step()

    def average_epoch(self, batches: Iterable[Batch], *, epoch: int) -> None:
        """Tell the average that an epoch has ended; ``batches`` are read only where it needs them."""
        with self.fabric.autocast():
            self.average.after_epoch(epoch, (self._inputs(batch) for batch in batches))

    def predict(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Return logits ``(N, K)`` and classes ``(N,)``, by the averaged weights where there are some."""
        net = (self.average.model or self.module).eval()
        logits: list[Tensor] = []
        classes: list[Tensor] = []
        with torch.no_grad(), self.fabric.autocast():
            for batch in batches:
                logits.append(net(self._inputs(batch)).float().cpu())
                classes.append(batch[1])
        return torch.cat(logits), torch.cat(classes)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that :meth:`predict` answers with."""
        net = self.average.model or self.module
        return {name: value.detach().clone() for name, value in net.state_dict().items()}

    def _inputs(self, batch: Batch) -> Tensor:
        return self._prepare(self._on_device(batch[0]))

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.fabric.device)


def _launch(settings: TrainSettings) -> Fabric:
    try:
        fabric = Fabric(
            accelerator=settings.accelerator, devices=settings.devices, precision=settings.precision
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise SettingError(f"cannot train on {settings.accelerator} x{settings.devices}: {error}") from error
    return fabric
