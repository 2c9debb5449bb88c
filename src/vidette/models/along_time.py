"""What several models do along time, on whole clips and step by step: pooling, and the frame before."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidette.errors import SettingError, unknown_name
from vidette.models.base import State

__all__ = ["TimePool", "no_frame_before", "one_before", "step_before"]

PoolKind = Literal["last", "mean", "max", "attention"]
_LOWEST = -1e30


class TimePool(nn.Module):
    """Pool ``(N, T, D)`` over time to ``(N, D)``; stepping gives the pool of the steps so far.

    ``attention`` is a mean weighted by the softmax over time of a learnt score of each step.

    Args:
        kind: ``"last"``, ``"mean"``, ``"max"`` or ``"attention"``.
        width: D.

    Raises:
        SettingError: The kind is unknown.
    """

    def __init__(self, kind: PoolKind, width: int) -> None:
        super().__init__()
        known = ("last", "mean", "max", "attention")
        if kind not in known:
            raise SettingError(unknown_name("pooling over time", kind, known))
        self.kind = kind
        self.width = width
        self.score = nn.Linear(width, 1, bias=False) if kind == "attention" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "last":
            return x[:, -1]
        if self.kind == "max":
            return x.amax(1)
        if self.score is None:
            return x.mean(1)
        return (x * self.score(x).softmax(1)).sum(1)

    def initial_state(self, like: Tensor, batch: int) -> State:
        """Return the pool of no step at all, on the device of ``like``."""
        nothing, none = like.new_zeros(batch, self.width), like.new_zeros(batch, 1)
        states: dict[str, State] = {
            "last": (),
            "max": (nothing + _LOWEST,),
            "mean": (nothing, none),
            "attention": (nothing, none, none + _LOWEST),
        }
        return states[self.kind]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Add one step ``(N, D)``; return the pool so far and the state."""
        if self.kind == "last":
            return x, ()
        if self.kind == "max":
            highest = torch.maximum(state[0], x)
            return highest, (highest.clone(),)
        if self.score is None:
            total, count = state[0] + x, state[1] + 1
            return total / count, (total, count)
        return self._attend(x, self.score(x), state)

    @staticmethod
    def _attend(x: Tensor, score: Tensor, state: State) -> tuple[Tensor, State]:
        """Add one step to a softmax-weighted mean, kept relative to the highest score so far."""
        total, weight, highest = state
        now_highest = torch.maximum(highest, score)
        fade, new = (highest - now_highest).exp(), (score - now_highest).exp()
        total, weight = total * fade + x * new, weight * fade + new
        return total / weight, (total, weight, now_highest)


def one_before(x: Tensor) -> Tensor:
    """Return ``(N, T, ...)`` moved one step later; the first step stands before itself."""
    return torch.cat([x[:, :1], x[:, :-1]], dim=1)


def no_frame_before(shape: tuple[int, ...], like: Tensor, batch: int) -> State:
    """Return the state of :func:`step_before` for ``batch`` streams of steps of ``shape``."""
    return like.new_zeros(batch, *shape), like.new_zeros(batch, *(1 for _ in shape))


def step_before(x: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the step before ``x``, ``(N, ...)``, and the state; the first step stands before itself."""
    before, seen = state
    return torch.where(seen > 0, before, x), (x.clone(), torch.ones_like(seen))
