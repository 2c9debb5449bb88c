"""The picture of frames against clips: three bands of answers along time, and how sure they are."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vidette.diagnosis.overlay import INK, png

if TYPE_CHECKING:
    from vidette.diagnosis.frames_against_clips import FramesAgainstClips

__all__ = ["draw_frames_against_clips"]

_COLOURS = ("#1f6feb", "#d97706", "#2a9d5c", "#b83280", "#6b46c1", "#0e7490")
_OTHERS, _PARTED = "#b8c0cc", "#f8d7da"
_THUMBNAILS = 9


def draw_frames_against_clips(found: FramesAgainstClips) -> bytes:
    """Return a PNG: the frames, a band each for single frames, windows and the whole, and probabilities."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    film, bands, curves = figure.subplots(3, 1, height_ratios=(1.3, 1.5, 2.0))
    colours = _colours(found)
    start, stop = 0.0, _end(found)
    _draw_film(film, found, start, stop)
    _draw_bands(bands, found, colours)
    _draw_curves(curves, found)
    for axis in (bands, curves):
        axis.set_xlim(start, stop)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, length=3)
    figure.suptitle(found.headline(), fontsize=13, color=INK, parse_math=False)
    return png(figure)


def _end(found: FramesAgainstClips) -> float:
    return max(found.whole.timeline.windows[-1].stop_seconds, float(_edges(found)[-1]))


def _edges(found: FramesAgainstClips) -> np.ndarray:
    """Return where each frame's part of the band begins, ``(F + 1,)``."""
    seconds = found.frame_seconds
    last = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    return np.append(seconds, seconds[-1] + last)


def _colours(found: FramesAgainstClips) -> dict[str, str]:
    """Return a colour for the whole's answer and the commonest others."""
    counted = Counter([*found.frame_labels, *found.window_labels])
    names = [found.whole.label, *(name for name, _ in counted.most_common() if name != found.whole.label)]
    return dict(zip(names, _COLOURS, strict=False))


def _draw_film(axis: Axes, found: FramesAgainstClips, start: float, stop: float) -> None:
    """Lay frames along time, as many as there is room for."""
    h, w = found.thumbnails.shape[1:3]
    places = np.linspace(start, stop, _THUMBNAILS + 1)
    wide = (stop - start) / _THUMBNAILS * 0.94
    for left, right in pairwise(places):
        nearest = int(np.abs(found.frame_seconds - (left + right) / 2).argmin())
        axis.imshow(found.thumbnails[nearest], extent=(left, left + wide, 0, 1), aspect="auto")
    axis.set_xlim(start, stop)
    axis.set_ylim(0, 1)
    # The picture keeps its shape: the strip is as high as its frames are at this width.
    axis.set_box_aspect(h / w / _THUMBNAILS / 0.94)
    axis.set_axis_off()


def _draw_bands(axis: Axes, found: FramesAgainstClips, colours: dict[str, str]) -> None:
    edges, end, segments = _edges(found).tolist(), _end(found), found.whole.timeline.segments()
    sure = found.frame_probabilities.max(axis=1).tolist()
    frames = [
        (*pair, label, p) for pair, label, p in zip(pairwise(edges), found.frame_labels, sure, strict=True)
    ]
    windows = [(event.start_seconds, event.stop_seconds, event.label, event.confidence) for event in segments]
    whole = [(0.0, end, found.whole.label, found.whole.probability)]
    for row, blocks in ((2, frames), (1, windows), (0, whole)):
        # The less sure an answer, the paler.
        shades = [to_rgba(colours.get(label, _OTHERS), 0.35 + 0.65 * p) for _, _, label, p in blocks]
        axis.broken_barh(
            [(left, right - left) for left, right, _, _ in blocks],
            (row - 0.36, 0.72),
            facecolors=shades,
            linewidth=0,
        )
    for event in segments:
        _name(axis, 1, event.start_seconds, event.stop_seconds, event.label, end)
    _name(axis, 0, 0.0, end, f"{found.whole.label} {found.whole.probability:.2f}", end)
    names = (
        "the whole",
        _counted(len(found.window_labels), "window"),
        _counted(len(found.frame_labels), "single frame"),
    )
    axis.set_yticks(range(3), names, fontsize=11)
    axis.set_ylim(-0.5, 2.5)
    shown = [Patch(color=colour, label=label) for label, colour in colours.items()]
    if set(found.frame_labels) - set(colours):
        shown.append(Patch(color=_OTHERS, label="other"))
    axis.legend(
        handles=shown, ncols=len(shown), frameon=False, loc="lower left", bbox_to_anchor=(0, 0.98), fontsize=9
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _name(axis: Axes, row: int, left: float, right: float, text: str, end: float) -> None:
    if right - left > 0.012 * len(text) * end:
        axis.text(
            (left + right) / 2,
            row,
            text,
            ha="center",
            va="center",
            color="white",
            fontsize=11,
            parse_math=False,
        )


def _draw_curves(axis: Axes, found: FramesAgainstClips) -> None:
    """Draw the probability of the whole's answer: of frames, windows and the whole."""
    own = found.classes.index(found.whole.label)
    for start, stop in found.parted():
        axis.axvspan(start, stop, color=_PARTED, linewidth=0)
    frames = found.frame_probabilities[:, own]
    windows = found.whole.timeline.windows
    axis.plot(
        found.frame_seconds, frames, "o-", color="#57606a", markersize=4, linewidth=0.8, label="single frames"
    )
    for i, window in enumerate(windows):
        height = float(window.probabilities[own])
        label = "windows" if i == 0 else None
        axis.plot(
            [window.start_seconds, window.stop_seconds], [height, height], color=INK, linewidth=3, label=label
        )
    axis.axhline(found.whole.probability, color=_COLOURS[0], linestyle="--", linewidth=1.5, label="the whole")
    handles, _ = axis.get_legend_handles_labels()
    if found.parted():
        handles.append(Patch(color=_PARTED, label="frames and window part"))
    axis.legend(handles=handles, ncols=4, frameon=False, loc="lower left", bbox_to_anchor=(0, 0.98), fontsize=9)
    axis.set(ylim=(-0.03, 1.03), xlabel="seconds")
    axis.set_ylabel(f"probability of\n{found.whole.label}", parse_math=False)
