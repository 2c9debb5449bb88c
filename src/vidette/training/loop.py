"""The one training loop: reads top to bottom, devices and precision by Lightning Fabric."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vidette.errors import SettingError, StorageError
from vidette.training.recipe import TrainSettings

__all__ = ["EpochRecord", "FitResult", "LabelledTensors", "fit"]


class LabelledTensors(Protocol):
    """What the loop reads: items ``(tensor, label)`` whose randomness depends on the epoch alone."""

    def __len__(self) -> int:
        """Return how many clips there are."""
        ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a clip's input and label."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that augmentation is drawn for."""
        ...


@dataclass(frozen=True)
class EpochRecord:
    """One line of ``metrics.jsonl``; losses in nats a clip, accuracies from 0 to 1."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """What a fit came to; the model holds the weights of ``best_epoch``."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    seconds: float
    validation_logits: Tensor
    validation_labels: Tensor


@dataclass
class _Progress:
    """What changes from epoch to epoch, besides the weights."""

    history: list[EpochRecord]
    best_score: float = math.inf
    best_epoch: int = -1
    best_state: dict[str, Tensor] | None = None


def fit(
    model: nn.Module,
    training: LabelledTensors,
    validation: LabelledTensors,
    settings: TrainSettings,
    *,
    prepare: Callable[[Tensor], Tensor],
    labels: Sequence[int],
    folder: Path,
    resume: bool = False,
    smoke: bool = False,
    on_epoch: Callable[[EpochRecord, int], None] | None = None,
) -> FitResult:
    """Train ``model`` and leave in it the weights that were best on the validation clips.

    Everything random is drawn from (seed, epoch), so that a run resumed after a kill ends with the weights of
    an uninterrupted one on the CPU.

    Args:
        model: Takes ``prepare(batch)``, gives logits ``(N, K)``; its ``backbone`` learns at its own rate.
        training: Clips to learn from.
        validation: Clips to choose the weights by; never the test clips.
        settings: The recipe's ``[train]``.
        prepare: Turns a batch as loaded into the model's input, on the device.
        labels: Labels of the training clips, for the class weights.
        folder: Where ``metrics.jsonl`` and ``checkpoint.pt`` go.
        resume: Go on from the checkpoint in ``folder`` if there is one.
        smoke: One batch of each stage, one epoch.
        on_epoch: Told of every epoch's record and how many epochs are planned.

    Raises:
        SettingError: The loss is not finite, or the asked device is not there.
        StorageError: The checkpoint cannot be written.
    """
    start = time.perf_counter()
    fabric = _launch(settings)
    loaders = _loader(training, settings, shuffle=True), _loader(validation, settings, shuffle=False)
    epochs = 1 if smoke else settings.epochs
    steps = 1 if smoke else len(loaders[0])
    optimizer = _optimizer(model, settings)
    module, optimizer = cast(tuple[nn.Module, torch.optim.Optimizer], fabric.setup(model, optimizer))
    scheduler = _scheduler(optimizer, settings, total_steps=epochs * steps)
    weight = _class_weights(labels, settings, device=fabric.device)
    progress = _Progress([])
    checkpoint = folder / "checkpoint.pt"
    if resume and checkpoint.is_file():
        progress = _restore(checkpoint, module, optimizer, scheduler)
    for epoch in range(len(progress.history), epochs):
        if _out_of_patience(progress, settings):
            break
        began = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)
        training.set_epoch(epoch)
        batches = _limited(loaders[0], 1 if smoke else None)
        learnt = _train_epoch(fabric, module, optimizer, scheduler, batches, settings, prepare, weight)
        logits, truth = _predict(fabric, module, _limited(loaders[1], 1 if smoke else None), prepare)
        record = _record(epoch, learnt, logits, truth, optimizer, time.perf_counter() - began)
        _after_epoch(progress, record, module, scheduler, settings)
        if fabric.is_global_zero:
            _save_checkpoint(checkpoint, progress, module, optimizer, scheduler)
            _write_history(folder / "metrics.jsonl", progress.history)
        if on_epoch:
            on_epoch(record, epochs)
    assert progress.best_state is not None
    module.load_state_dict(progress.best_state)
    logits, truth = _predict(fabric, module, _limited(loaders[1], 1 if smoke else None), prepare)
    model.to("cpu").eval()
    seconds = time.perf_counter() - start
    return FitResult(tuple(progress.history), progress.best_epoch, seconds, logits, truth)


def _launch(settings: TrainSettings) -> Fabric:
    try:
        fabric = Fabric(
            accelerator=settings.accelerator, devices=settings.devices, precision=settings.precision
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise SettingError(f"cannot train on {settings.accelerator} x{settings.devices}: {error}") from error
    return fabric


class _Shuffled(torch.utils.data.Sampler[int]):
    """A new order every epoch, drawn from the generator that the epoch's seed set."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.length).tolist())


def _loader(data: LabelledTensors, settings: TrainSettings, *, shuffle: bool) -> DataLoader[Any]:
    """Batches of the clips; a last batch of one clip is left out in training (BatchNorm needs two)."""
    lonely = shuffle and len(data) > settings.batch_size and len(data) % settings.batch_size == 1
    return DataLoader(
        cast(Dataset[Any], data),
        batch_size=settings.batch_size,
        sampler=_Shuffled(len(data)) if shuffle else None,
        num_workers=settings.num_workers,
        drop_last=lonely,
        pin_memory=torch.cuda.is_available(),
    )


def _limited(loader: DataLoader[Any], batches: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    for i, batch in enumerate(loader):
        if batches is not None and i >= batches:
            return
        yield batch


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Weights in four groups: backbone or not, decayed (matrices) or not (biases, norms)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    listed = [
        {
            "params": parameters,
            "lr": settings.learning_rate * (settings.backbone_rate_factor if in_backbone else 1.0),
            "weight_decay": settings.weight_decay if decayed else 0.0,
        }
        for (in_backbone, decayed), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(listed, lr=settings.learning_rate)


_Scheduler = torch.optim.lr_scheduler.LambdaLR | torch.optim.lr_scheduler.ReduceLROnPlateau


def _scheduler(optimizer: torch.optim.Optimizer, settings: TrainSettings, *, total_steps: int) -> _Scheduler:
    if settings.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    warmup = round(settings.warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _class_weights(labels: Sequence[int], settings: TrainSettings, *, device: torch.device) -> Tensor | None:
    """Weigh each class by the inverse of its number of clips, mean 1 over the clips."""
    if not settings.class_weights:
        return None
    counts = torch.bincount(torch.tensor(labels)).float().clamp(min=1)
    return (len(labels) / (len(counts) * counts)).to(device)


def _train_epoch(
    fabric: Fabric,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: _Scheduler,
    batches: Iterator[tuple[Tensor, Tensor]],
    settings: TrainSettings,
    prepare: Callable[[Tensor], Tensor],
    weight: Tensor | None,
) -> tuple[float, float]:
    """Return mean loss and accuracy over the epoch's clips, as met while training."""
    module.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for inputs, truth in batches:
        inputs, truth = inputs.to(fabric.device), truth.to(fabric.device)
        logits = module(prepare(inputs))
        loss = functional.cross_entropy(logits, truth, weight=weight, label_smoothing=settings.label_smoothing)
        if not torch.isfinite(loss):
            raise SettingError(
                f"the loss became {float(loss.detach())}; lower the learning rate ({settings.learning_rate})"
            )
        optimizer.zero_grad()
        fabric.backward(loss)
        if settings.gradient_clip:
            fabric.clip_gradients(module, optimizer, max_norm=settings.gradient_clip, error_if_nonfinite=False)
        optimizer.step()
        if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            scheduler.step()
        loss_sum += float(loss.detach()) * len(truth)
        correct += int((logits.argmax(1) == truth).sum())
        seen += len(truth)
    return loss_sum / seen, correct / seen


def _predict(
    fabric: Fabric,
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    module.eval()
    logits: list[Tensor] = []
    truths: list[Tensor] = []
    with torch.no_grad():
        for inputs, truth in batches:
            logits.append(module(prepare(inputs.to(fabric.device))).float().cpu())
            truths.append(truth)
    return torch.cat(logits), torch.cat(truths)


def _record(
    epoch: int,
    learnt: tuple[float, float],
    logits: Tensor,
    truth: Tensor,
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        train_loss=learnt[0],
        train_accuracy=learnt[1],
        validation_loss=float(functional.cross_entropy(logits, truth)),
        validation_accuracy=float((logits.argmax(1) == truth).float().mean()),
        learning_rate=max(float(group["lr"]) for group in optimizer.param_groups),
        seconds=seconds,
    )


def _after_epoch(
    progress: _Progress, record: EpochRecord, module: nn.Module, scheduler: _Scheduler, settings: TrainSettings
) -> None:
    """Keep the weights if this epoch is the best so far; tell a plateau schedule."""
    progress.history.append(record)
    score = (
        record.validation_loss
        if settings.select_by == "validation_loss"
        else -record.validation_accuracy + 1e-6 * record.validation_loss
    )
    if score < progress.best_score or progress.best_state is None:
        progress.best_score, progress.best_epoch = score, record.epoch
        progress.best_state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(record.validation_loss)


def _out_of_patience(progress: _Progress, settings: TrainSettings) -> bool:
    waited = len(progress.history) - 1 - progress.best_epoch
    return bool(progress.history) and 0 < settings.early_stopping <= waited


def _save_checkpoint(
    path: Path, progress: _Progress, module: nn.Module, optimizer: torch.optim.Optimizer, scheduler: _Scheduler
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"},
        "history": [asdict(record) for record in progress.history],
        "best_score": progress.best_score,
        "best_epoch": progress.best_epoch,
        "best_state": progress.best_state,
    }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"checkpoint could not be written to {path}: {error}; free some space") from error
    finally:
        partial.unlink(missing_ok=True)


def _restore(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, scheduler: _Scheduler
) -> _Progress:
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict({**state["scheduler"], **_lambdas(scheduler)})
    history = [EpochRecord(**record) for record in state["history"]]
    return _Progress(history, state["best_score"], state["best_epoch"], state["best_state"])


def _lambdas(scheduler: _Scheduler) -> dict[str, Any]:
    """The schedule's functions are made anew, not stored; None leaves each as it is."""
    if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
        return {"lr_lambdas": [None] * len(scheduler.lr_lambdas)}
    return {}


def _write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(record)) + "\n" for record in history), encoding="utf-8")
    partial.replace(path)
