"""The one training loop: reads top to bottom, devices and precision by Lightning Fabric."""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidette.errors import StorageError
from vidette.training.batches import (
    Batch,
    BatchMix,
    LabelledTensors,
    Loader,
    evaluation_batches,
    training_batches,
)
from vidette.training.learner import Learner
from vidette.training.memory import keep_freed_memory
from vidette.training.optimizer import Scheduler
from vidette.training.recipe import TrainSettings

__all__ = ["EpochRecord", "FitResult", "fit"]

_TIMED_BATCHES = 3


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
    best_state: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    best_answers: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))


def fit(
    model: nn.Module,
    training: LabelledTensors,
    validation: LabelledTensors,
    settings: TrainSettings,
    *,
    prepare: Callable[[Tensor], Tensor],
    num_classes: int,
    folder: Path,
    mix: BatchMix | None = None,
    resume: bool = False,
    smoke: bool = False,
    stop_after: int | None = None,
    on_epoch: Callable[[EpochRecord, int], None] | None = None,
    on_foreseen: Callable[[float], None] | None = None,
) -> FitResult:
    """Train ``model`` and leave in it the weights that were best on the validation clips.

    Everything random is drawn from (seed, epoch), so that a run resumed after a kill ends with the weights of
    an uninterrupted one on the CPU. Where weights are averaged, it is the average that is scored and kept.

    Args:
        model: Takes ``prepare(batch)``, gives logits ``(N, num_classes)``; its stages learn at their own rates.
        training: Clips to learn from.
        validation: Clips to choose the weights by; never the test clips.
        settings: The recipe's ``[train]``.
        prepare: Turns a batch as loaded into the model's input, on the device.
        num_classes: K.
        folder: Where ``metrics.jsonl`` and ``checkpoint.pt`` go.
        mix: How clips of a training batch are mixed; None leaves them apart.
        resume: Go on from the checkpoint in ``folder`` if there is one.
        smoke: One batch of each stage, one epoch.
        stop_after: End after so many of the planned epochs and leave the last weights, whatever the validation
            clips say.
        on_epoch: Told of every epoch's record and how many epochs are planned.
        on_foreseen: Told once, after the first few batches, about how many seconds all epochs will take.

    Raises:
        SettingError: The loss is not finite, the device is not there, or a setting does not fit the model.
        StorageError: The checkpoint cannot be written.
    """
    start = time.perf_counter()
    keep_freed_memory()
    loaders = training_batches(training, settings), evaluation_batches(validation, settings)
    counts = (1, 1) if smoke else (len(loaders[0]), len(loaders[1]))
    epochs = 1 if smoke else settings.epochs
    learner = Learner(
        model,
        settings,
        prepare=prepare,
        labels=training.labels,
        num_classes=num_classes,
        mix=mix,
        epochs=epochs,
        num_batches=counts[0],
    )
    progress = _Progress([])
    checkpoint = folder / "checkpoint.pt"
    if resume and checkpoint.is_file():
        progress = _restore(checkpoint, learner)
    first = len(progress.history)
    for epoch in range(first, epochs):
        if epoch == stop_after or (stop_after is None and _out_of_patience(progress, settings)):
            break
        began = time.perf_counter()
        torch.manual_seed(settings.seed * 100_003 + epoch)
        training.set_epoch(epoch)
        learner.stages.free(epoch)
        batches = _limited(loaders[0], counts[0])
        if epoch == first and on_foreseen:
            batches = _foreseen(batches, on_foreseen, work=(epochs - first) * (counts[0] + counts[1] / 3))
        learnt = learner.train_epoch(batches, epoch=epoch)
        learner.average_epoch(_limited(loaders[0], counts[0]), epoch=epoch)
        answers = learner.predict(_limited(loaders[1], counts[1]))
        record = _record(epoch, learnt, answers, learner.optimizer, time.perf_counter() - began)
        _after_epoch(progress, record, answers, learner)
        if learner.fabric.is_global_zero:
            _save_checkpoint(checkpoint, progress, learner)
            _write_history(folder / "metrics.jsonl", progress.history)
        if on_epoch:
            on_epoch(record, epochs)
    model.load_state_dict(progress.best_state if stop_after is None else learner.weights())
    model.to("cpu").eval()
    seconds = time.perf_counter() - start
    return FitResult(tuple(progress.history), progress.best_epoch, seconds, *progress.best_answers)


def _limited(loader: Loader, count: int) -> Iterator[Batch]:
    """Yield ``count`` batches; the loader starts with the first, not before."""
    yield from itertools.islice(loader, count)


def _foreseen(batches: Iterable[Batch], tell: Callable[[float], None], *, work: float) -> Iterator[Batch]:
    """Pass batches on; tell how many seconds ``work`` batches take, by those after the first."""
    began = time.perf_counter()
    for done, batch in enumerate(batches):
        if done == 1:
            began = time.perf_counter()
        if done == 1 + _TIMED_BATCHES:
            tell((time.perf_counter() - began) / _TIMED_BATCHES * work)
        yield batch


def _record(
    epoch: int,
    learnt: tuple[float, float],
    answers: tuple[Tensor, Tensor],
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> EpochRecord:
    logits, classes = answers
    return EpochRecord(
        epoch=epoch,
        train_loss=learnt[0],
        train_accuracy=learnt[1],
        validation_loss=float(functional.cross_entropy(logits, classes)),
        validation_accuracy=float((logits.argmax(1) == classes).float().mean()),
        learning_rate=max(float(group["lr"]) for group in optimizer.param_groups),
        seconds=seconds,
    )


def _after_epoch(
    progress: _Progress, record: EpochRecord, answers: tuple[Tensor, Tensor], learner: Learner
) -> None:
    """Keep the weights if this epoch is the best so far; tell a plateau schedule."""
    progress.history.append(record)
    score = {
        "validation_loss": record.validation_loss,
        "validation_accuracy": -record.validation_accuracy + 1e-6 * record.validation_loss,
        "last": -float(record.epoch),
    }[learner.settings.select_by]
    if score < progress.best_score or not progress.best_state:
        progress.best_score, progress.best_epoch = score, record.epoch
        progress.best_state, progress.best_answers = learner.weights(), answers
    if isinstance(learner.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        learner.scheduler.step(record.validation_loss)


def _out_of_patience(progress: _Progress, settings: TrainSettings) -> bool:
    waited = len(progress.history) - 1 - progress.best_epoch
    return bool(progress.history) and 0 < settings.early_stopping <= waited


def _save_checkpoint(path: Path, progress: _Progress, learner: Learner) -> None:
    state = {
        "module": learner.module.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": {k: v for k, v in learner.scheduler.state_dict().items() if k != "lr_lambdas"},
        "average": learner.average.state_dict(),
        "history": [asdict(record) for record in progress.history],
        "best_score": progress.best_score,
        "best_epoch": progress.best_epoch,
        "best_state": progress.best_state,
        "best_answers": progress.best_answers,
    }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"checkpoint could not be written to {path}: {error}; free some space") from error
    finally:
        partial.unlink(missing_ok=True)


def _restore(path: Path, learner: Learner) -> _Progress:
    state = torch.load(path, map_location="cpu", weights_only=True)
    learner.module.load_state_dict(state["module"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.scheduler.load_state_dict({**state["scheduler"], **_lambdas(learner.scheduler)})
    learner.average.load_state_dict(state["average"])
    history = [EpochRecord(**record) for record in state["history"]]
    best = (state[name] for name in ("best_score", "best_epoch", "best_state", "best_answers"))
    return _Progress(history, *best)


def _lambdas(scheduler: Scheduler) -> dict[str, Any]:
    """The schedule's functions are made anew, not stored; None leaves each as it is."""
    if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
        return {"lr_lambdas": [None] * len(scheduler.lr_lambdas)}
    return {}


def _write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(record)) + "\n" for record in history), encoding="utf-8")
    partial.replace(path)
