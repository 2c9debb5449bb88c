"""Pictures that show a finding: the clips as given, the alternatives side by side, the answers, the stream."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidette.diagnosis.case import Case
from vidette.diagnosis.findings import Finding, Picture
from vidette.diagnosis.looks import look_at

__all__ = ["draw_alternatives", "draw_answers", "draw_frames", "illustrated"]

_INK, _ACCENT, _SOFT, _GRID = "#1f2933", "#1f6feb", "#9db8de", "#d9dee5"
_NUM_BARS = 10
_ANSWERS = (
    "bias_driven",
    "collapsed_logits",
    "class_imbalance",
    "head_random",
    "weights_not_loaded",
    "weights_partly_loaded",
    "saturated_logits",
    "dead_features",
    "label_map_permuted",
)


def illustrated(case: Case, finding: Finding) -> tuple[Picture, ...]:
    """Return the pictures that go with a finding."""
    draw: list[Callable[[], Picture]] = []
    if finding.family == "input" or finding.name in (
        "frames_shuffled",
        "frames_reversed",
        "few_distinct_frames",
    ):
        draw.append(lambda: draw_frames(case))
    if case.best([finding.name]) is not None:
        draw.append(lambda: draw_alternatives(case, finding.name))
    if finding.name in _ANSWERS:
        draw.append(lambda: draw_answers(case))
    if finding.name == "drift":
        draw.append(lambda: draw_stream(case, finding))
    return tuple(one() for one in draw)


def draw_frames(case: Case, *, num_clips: int = 3, num_frames: int = 6) -> Picture:
    """Draw frames of some clips as the network is given them."""
    clips = case.material.clips
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(num_clips, len(clips))).round().astype(int))
    times = np.unique(np.linspace(0, len(clips[0].pixels) - 1, num_frames).round().astype(int))
    figure = Figure(figsize=(1.5 * len(times), 1.45 * len(chosen)))
    for row, index in enumerate(chosen):
        for column, t in enumerate(times):
            axes = figure.add_subplot(len(chosen), len(times), row * len(times) + column + 1)
            axes.imshow(clips[index].pixels[t])
            axes.set_axis_off()
            axes.set_title(f"{clips[index].seconds[t]:.2f} s", fontsize=7, color=_INK)
    figure.tight_layout(pad=0.3)
    return Picture("The frames as they come, a clip a row.", _png(figure))


def draw_alternatives(case: Case, name: str) -> Picture:
    """Draw how well the network does under the alternatives, and as given."""
    tried = case.tried[:_NUM_BARS]
    best = case.best([name])
    if best is not None and best not in tried:
        tried = [*tried[:-1], best]
    base = case.trial_base
    labelled = base.accuracy == base.accuracy
    values = [t.seen.accuracy if labelled else t.seen.distance for t in tried]
    values.append(base.accuracy if labelled else base.distance)
    names = [*(t.name for t in tried), "as given"]
    colours = [*(_ACCENT if t.cause == name else _SOFT for t in tried), _INK]
    figure = Figure(figsize=(6.4, 0.32 * len(names) + 0.9))
    axes = figure.add_subplot()
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, color=colours, height=0.7)
    axes.set_yticks(places, names, fontsize=8)
    measure = "share of right answers" if labelled else "distance of the activations from training"
    axes.set_xlabel(measure, fontsize=9)
    _plain(axes)
    what = "more is better" if labelled else "less is better"
    return Picture(f"What the network does when the clips are changed: {what}.", _png(figure))


def draw_answers(case: Case) -> Picture:
    """Draw how often each class is answered, beside how often it is there."""
    k = case.base.logits.shape[1]
    counts = np.bincount(case.base.answers, minlength=k)
    shown = np.argsort(-counts, kind="stable")[:12]
    names = [case.subject.classes[i] if i < len(case.subject.classes) else f"number {i}" for i in shown]
    figure = Figure(figsize=(6.4, 0.34 * len(shown) + 0.9))
    axes = figure.add_subplot()
    places = np.arange(len(shown))[::-1]
    axes.barh(places + 0.18, counts[shown], height=0.34, color=_ACCENT, label="answered")
    if case.labels is not None:
        true = np.bincount(case.labels[case.labels >= 0], minlength=max(k, int(case.labels.max()) + 1))
        axes.barh(places - 0.18, true[shown], height=0.34, color=_SOFT, label="really there")
    axes.set_yticks(places, [_short(name) for name in names], fontsize=8, parse_math=False)
    axes.set_xlabel("clips", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return Picture("How often each class is answered.", _png(figure))


def draw_stream(case: Case, finding: Finding) -> Picture:
    """Draw light, noise and sharpness along the stream, and when the change began."""
    looks = look_at(case.material.clips)
    seconds = np.array([clip.seconds[0] for clip in case.material.clips])
    measures = ("brightness", "noise", "relative_sharpness")
    figure = Figure(figsize=(6.8, 4.2))
    rows: Sequence[Axes] = figure.subplots(len(measures), 1, sharex=True)
    for axes, measure in zip(rows, measures, strict=True):
        axes.plot(seconds, looks.values(measure), color=_ACCENT, marker="o", markersize=3)
        axes.set_ylabel(measure.replace("_", " "), fontsize=8)
        axes.axvline(finding.numbers["began_seconds"], color=_INK, linestyle=(0, (4, 3)), linewidth=1)
        _plain(axes)
    figure.supxlabel("seconds", fontsize=9)
    return Picture("The pictures along the stream; the dashed line is where the change began.", _png(figure))


def _plain(axes: Axes) -> None:
    axes.tick_params(colors=_INK, length=3, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
