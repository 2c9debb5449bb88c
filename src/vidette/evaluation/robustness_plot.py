"""Accuracy against the level of each disturbance, clip-wise and frame-wise, as one picture."""

from __future__ import annotations

import io
import math

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidette.evaluation.robustness_scores import CorruptionScore, Robustness

__all__ = ["robustness_png"]

_COLUMNS = 3
_INK, _GRID = "#1f2933", "#d9dee5"
_COLOURS = ("#1f6feb", "#c2410c", "#1a7f4b", "#8250df", "#b3261e", "#0e7490")


def robustness_png(robustness: Robustness) -> bytes:
    """Draw one panel a family of corruptions, level 0 being the clips as they are, as PNG bytes.

    Whole clips are drawn through, single frames dashed; dotted: always answering the commonest label.
    """
    families = list(dict.fromkeys(score.family for score in robustness.corruptions))
    columns = min(_COLUMNS, len(families))
    rows = math.ceil(len(families) / columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 2.7 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, family in zip(panels, families, strict=False):
        scores = [score for score in robustness.corruptions if score.family == family]
        _draw_family(axes, family, scores, robustness)
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    figure.supxlabel("level (0: the clips as they are)", color=_INK, fontsize=10)
    figure.supylabel("share of right answers: clips (line), single frames (dashed)", color=_INK, fontsize=10)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _draw_family(axes: Axes, family: str, scores: list[CorruptionScore], robustness: Robustness) -> None:
    for colour, score in zip(_COLOURS, scores, strict=False):
        points = (robustness.clean, *score.levels)
        levels = [point.level for point in points]
        clips = [point.accuracy for point in points]
        axes.plot(levels, clips, color=colour, marker="o", markersize=3, linewidth=1.6, label=score.name)
        frames = [point.frame_accuracy for point in points]
        axes.plot(levels, frames, color=colour, linewidth=1, linestyle=(0, (4, 2)), alpha=0.7)
        if len(scores) == 1:
            lows = [point.accuracy_interval.low for point in points]
            highs = [point.accuracy_interval.high for point in points]
            axes.fill_between(levels, lows, highs, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(robustness.guessing, color=_INK, linewidth=1, linestyle=":")
    axes.set_title(family, fontsize=10, color=_INK)
    axes.set_ylim(0, 1.03)
    axes.set_xticks(range(6))
    axes.legend(frameon=False, fontsize=7.5, loc="lower left")
    axes.grid(color=_GRID, linewidth=0.5)
    axes.tick_params(colors=_INK, length=3, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)
