"""The optimiser, its learning rates by parameter, and their course over training."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import nn

from vidette.training.recipe import TrainSettings
from vidette.training.stages import Stages

__all__ = ["Scheduler", "build_optimizer", "build_scheduler"]

Scheduler: TypeAlias = torch.optim.lr_scheduler.LambdaLR | torch.optim.lr_scheduler.ReduceLROnPlateau


def build_optimizer(model: nn.Module, stages: Stages, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimiser of what learns: grouped by rate, and decayed (matrices) or not (biases, norms)."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((stages.rate(name), parameter.ndim > 1), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay if decayed else 0.0}
        for (rate, decayed), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(listed, lr=settings.learning_rate)


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, *, total_steps: int
) -> Scheduler:
    """Return the course of the learning rate: told of every step, or (plateau) of every epoch's score."""
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
