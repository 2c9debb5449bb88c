"""Per-frame CNN followed by a recurrent network along time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidette.models.along_time import TimePool, no_frame_before, one_before, step_before
from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel, Head, State

__all__ = ["CnnRnn", "RecurrentHead"]

_CELLS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentHead(Head):
    """A recurrent network over ``(N, T, D, g, g)``, batch first, time second.

    Each cell of the grid is projected to a few channels, so that a 4x4 grid of a wide backbone stays small.
    With ``difference`` each step also sees the change since the frame before, signed (which way) and absolute
    (how much); the first step's change is zero.

    Args:
        features: D, channels of the backbone.
        num_classes: K.
        grid: Cells along each side, g.
        cell: Kind of recurrence.
        hidden: Size of the state.
        layers: Stacked recurrent layers.
        projection: Channels a grid cell is projected to; 0 feeds the features as they are.
        difference: Add the change between neighbouring frames.
        readout: Classify the last step, the mean over the steps, or a mean weighted by learnt attention.
        bidirectional: Also read the clip backwards; there is then no step.
        dropout: Before the recurrence, between its layers and before the classifier.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        grid: int,
        cell: Literal["rnn", "lstm", "gru"],
        hidden: int,
        layers: int,
        projection: int,
        difference: bool,
        readout: Literal["last", "mean", "attention"],
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.needs_whole_clip = "its recurrence also reads the clip backwards" if bidirectional else None
        self.difference = difference
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, projection) if projection else nn.Identity()
        width = (projection or features) * grid * grid
        self.project_change = nn.Linear(features, projection or features) if difference else None
        self.dropout = nn.Dropout(dropout)
        self.rnn = _CELLS[cell](
            width * (3 if difference else 1),
            hidden,
            layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        summary = hidden * (2 if bidirectional else 1)
        self.pool = TimePool(readout, summary)
        self.classify = nn.Linear(summary, num_classes)
        self._cells_shape = (grid * grid, features)

    def forward(self, features: Tensor) -> Tensor:
        cells = self._cells(features)
        along_time, _ = self.rnn(self.dropout(self._inputs(cells, one_before(cells))))
        if self.rnn.bidirectional and self.pool.kind == "last":
            onward, backward = along_time.chunk(2, dim=-1)  # each direction's own last step
            summary = torch.cat([onward[:, -1], backward[:, 0]], dim=-1)
        else:
            summary = self.pool(along_time)
        return self.classify(self.dropout(summary))

    def initial_state(self, batch: int) -> State:
        """Return the state before the first frame: the cells before, the recurrence, the readout."""
        like = self.classify.weight
        memory = tuple(
            like.new_zeros(batch, self.rnn.num_layers, self.rnn.hidden_size)
            for _ in range(2 if isinstance(self.rnn, nn.LSTM) else 1)
        )
        before = no_frame_before(self._cells_shape, like, batch) if self.difference else ()
        return before, memory, self.pool.initial_state(like, batch)

    def step(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one frame's features ``(N, D, g, g)``."""
        before, memory, pooled = state
        cells = previous = self._cells(features)
        if self.difference:
            previous, before = step_before(cells, before)
        output, memory = self._recur(self._inputs(cells, previous), memory)
        summary, pooled = self.pool.step(output, pooled)
        return self.classify(summary), (before, memory, pooled)

    def _recur(self, x: Tensor, memory: State) -> tuple[Tensor, State]:
        """One step of the recurrence: ``(N, S)`` to ``(N, hidden)``; torch wants the layers first."""
        layers_first = tuple(part.transpose(0, 1).contiguous() for part in memory)
        given = layers_first if len(layers_first) == 2 else layers_first[0]
        output, kept = self.rnn(x[:, None], given)
        parts = kept if isinstance(kept, tuple) else (kept,)
        return output[:, 0], tuple(part.transpose(0, 1) for part in parts)

    def _cells(self, features: Tensor) -> Tensor:
        """Return the normalised cells: ``(..., D, g, g)`` to ``(..., g * g, D)``."""
        return self.norm(features.flatten(-2).transpose(-2, -1))

    def _inputs(self, cells: Tensor, previous: Tensor) -> Tensor:
        """Return what the recurrence reads, ``(..., S)``, of cells ``(..., g * g, D)`` now and before."""
        now = self.project(cells)
        if self.project_change is None:
            return now.flatten(-2)
        signed = now - self.project(previous)
        return torch.cat([now, signed, self.project_change((cells - previous).abs())], dim=-1).flatten(-2)


class CnnRnn(FrameModel):
    """CNN + RNN, LSTM or GRU over any 2-D backbone.

    The recurrence runs along time (axis 1), never along the batch: a clip's logits do not depend on which
    clips share its batch.

    Args:
        num_classes: K.
        cell: ``"rnn"``, ``"lstm"`` or ``"gru"``.
        backbone: ``"small"`` or a timm name.
        grid: Cells along each side of the pooled feature map; 1 forgets where things are.
        hidden: Size of the recurrent state.
        layers: Stacked recurrent layers.
        projection: Channels a grid cell is projected to; 0 for none.
        difference: Add the change between neighbouring frames to each step.
        readout: ``"last"`` step, ``"mean"`` over steps, or ``"attention"`` over steps.
        bidirectional: Also read the clip backwards; such a model has no step.
        dropout: Probability of dropping a feature.
        in_channels: C of the frames.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        cell: Literal["rnn", "lstm", "gru"] = "gru",
        backbone: str = "tf_efficientnet_lite0",
        grid: int = 2,
        hidden: int = 128,
        layers: int = 1,
        projection: int = 32,
        difference: bool = True,
        readout: Literal["last", "mean", "attention"] = "mean",
        bidirectional: bool = False,
        dropout: float = 0.2,
        in_channels: int = 3,
    ) -> None:
        net = FrameBackbone(backbone, grid=grid, in_channels=in_channels)
        head = RecurrentHead(
            net.out_channels,
            num_classes,
            grid=grid,
            cell=cell,
            hidden=hidden,
            layers=layers,
            projection=projection,
            difference=difference,
            readout=readout,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        super().__init__(net, head)
