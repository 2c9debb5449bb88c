"""Per-frame CNN followed by a recurrent network along time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidette.models.backbone import FrameBackbone
from vidette.models.base import FrameModel

__all__ = ["CnnRnn", "RecurrentHead"]

_CELLS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentHead(nn.Module):
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
        readout: Classify the last step or the mean over the steps.
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
        readout: Literal["last", "mean"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.readout = readout
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
        )
        self.classify = nn.Linear(hidden, num_classes)

    def steps(self, features: Tensor) -> Tensor:
        """Return what the recurrence reads at each step: ``(N, T, D, g, g)`` to ``(N, T, S)``."""
        cells = self.norm(features.flatten(3).transpose(2, 3))
        now = self.project(cells)
        if self.project_change is None:
            return now.flatten(2)
        change = torch.diff(cells, dim=1, prepend=cells[:, :1])
        signed = torch.diff(now, dim=1, prepend=now[:, :1])
        return torch.cat([now, signed, self.project_change(change.abs())], dim=-1).flatten(2)

    def forward(self, features: Tensor) -> Tensor:
        along_time, _ = self.rnn(self.dropout(self.steps(features)))
        summary = along_time[:, -1] if self.readout == "last" else along_time.mean(1)
        return self.classify(self.dropout(summary))


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
        readout: ``"last"`` step or ``"mean"`` over steps.
        dropout: Probability of dropping a feature.
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
        readout: Literal["last", "mean"] = "mean",
        dropout: float = 0.2,
    ) -> None:
        net = FrameBackbone(backbone, grid=grid)
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
            dropout=dropout,
        )
        super().__init__(net, head)
