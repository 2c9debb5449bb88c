"""A picture of how training went."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidette.training.loop import EpochRecord

__all__ = ["draw_curves"]


def draw_curves(history: Sequence[EpochRecord], *, best_epoch: int) -> bytes:
    """Return a PNG of loss and accuracy by epoch, training and validation, the chosen epoch marked."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [record.epoch + 1 for record in history]
    for axis, name in ((loss, "loss"), (accuracy, "accuracy")):
        for part, colour in (("train", "#8a94a6"), ("validation", "#1f6feb")):
            values = [getattr(record, f"{part}_{name}") for record in history]
            axis.plot(epochs, values, color=colour, label=part, marker="o" if len(epochs) == 1 else None)
        axis.axvline(best_epoch + 1, color="#d29922", linestyle=":", label=f"chosen: epoch {best_epoch + 1}")
        axis.set(xlabel="epoch", title=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
    accuracy.set_ylim(0, 1.02)
    accuracy.legend(frameon=False, fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
