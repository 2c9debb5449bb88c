"""One self-contained HTML page that says how good a classifier is, for readers who are not experts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vidette.errors import VideoError
from vidette.evaluation.adversarial import AttackScore
from vidette.evaluation.calibration import reliability_bins, softmax
from vidette.evaluation.metrics import Metrics, Predictions
from vidette.evaluation.robustness_plot import robustness_png
from vidette.evaluation.robustness_scores import Robustness
from vidette.evaluation.run import Evaluation
from vidette.video.clip import Clip
from vidette.video.writer import replacing

__all__ = ["write_report"]

_NUM_ERRORS = 12
_NUM_MIXUPS = 8
_STRIP_FRAMES, _STRIP_HEIGHT = 4, 112
_INK, _ACCENT, _SOFT, _GRID = "#1f2933", "#1f6feb", "#9db8de", "#d9dee5"
_MOST_CELL_NUMBERS, _MOST_TICK_LABELS = 14, 45


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluation: Evaluation,
    classifier_facts: Mapping[str, str],
    curves_png: bytes | None = None,
    compared: Sequence[tuple[str, Metrics]] = (),
    leaking: Collection[str] = (),
    frames_of: Callable[[int], Clip] | None = None,
    robustness: Robustness | None = None,
    attacks: Sequence[AttackScore] = (),
) -> Path:
    """Write the report; a report that is there is replaced.

    Args:
        path: The HTML file. It refers to nothing outside itself.
        title: Heading of the page.
        evaluation: What to report.
        classifier_facts: Name and value of each fact about the classifier, in order.
        curves_png: A picture of the training curves.
        compared: Other scores to show beside this one, each with a name, for example one of another split.
        leaking: Names in ``compared`` whose test clips share a group with training clips, so look too good.
        frames_of: Gives the clip of prediction i, for pictures of the errors; without it there are none.
        robustness: The classifier under disturbance, if measured.
        attacks: The classifier attacked on purpose, if measured.

    Returns:
        The path.

    Raises:
        StorageError: The place cannot be written or the disk is full.
    """
    page = _template().render(
        title=title,
        split=evaluation.split_name,
        metrics=evaluation.metrics,
        consistency=evaluation.consistency,
        warnings=evaluation.warnings,
        skipped=evaluation.skipped,
        facts=dict(classifier_facts),
        always=_largest_share(evaluation.metrics),
        compared=_compared(evaluation, compared, leaking),
        mixups=_mixups(evaluation.metrics),
        errors=_errors(evaluation.predictions, evaluation.metrics.temperature, frames_of),
        num_errors=_num_errors(evaluation.metrics),
        confusion_image=_data_uri(_confusion_png(evaluation.metrics)),
        reliability_image=_data_uri(_reliability_png(evaluation.predictions, evaluation.metrics.temperature)),
        promises=evaluation.promises,
        robustness=robustness,
        robustness_image=_data_uri(robustness_png(robustness)) if robustness else None,
        attacks=attacks,
        curves_image=_data_uri(curves_png) if curves_png else None,
    )
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = _percent
    environment.filters["place"] = _place
    environment.filters["two"] = _two
    text = resources.files("vidette.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def _percent(rate: float) -> str:
    return "–" if np.isnan(rate) else f"{100 * rate:.0f}\N{NO-BREAK SPACE}%"


def _two(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _place(rate: float) -> str:
    """A rate as a CSS length along its bar."""
    return f"{100 * min(max(rate, 0.0), 1.0):.2f}%" if not np.isnan(rate) else "0%"


def _largest_share(metrics: Metrics) -> float:
    """Accuracy of always answering the most common label."""
    return max(score.n for score in metrics.per_class) / metrics.n if metrics.n else float("nan")


def _num_errors(metrics: Metrics) -> int:
    return metrics.n - int(np.trace(metrics.confusion))


def _compared(
    evaluation: Evaluation, compared: Sequence[tuple[str, Metrics]], leaking: Collection[str]
) -> list[dict[str, Any]]:
    if not compared:
        return []
    rows = [{"name": f"{evaluation.split_name} (this report)", "metrics": evaluation.metrics, "leaks": False}]
    return rows + [{"name": name, "metrics": m, "leaks": name in leaking} for name, m in compared]


def _mixups(metrics: Metrics) -> list[dict[str, Any]]:
    """The pairs of label and answer that are confused most often."""
    wrong = metrics.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_MIXUPS]
    pairs = [divmod(int(cell), len(metrics.classes)) for cell in order]
    return [
        {
            "label": metrics.classes[row],
            "answer": metrics.classes[column],
            "count": int(wrong[row, column]),
            "n": metrics.per_class[row].n,
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def _errors(
    predictions: Predictions, temperature: float, frames_of: Callable[[int], Clip] | None
) -> list[dict[str, Any]]:
    """The wrong answers that were given with the highest probability, most confident first."""
    answers = predictions.answers()
    probabilities = softmax(predictions.logits, temperature=temperature)
    wrong = np.flatnonzero(answers != predictions.labels)
    wrong = wrong[np.argsort(-probabilities[wrong, answers[wrong]], kind="stable")][:_NUM_ERRORS]
    return [
        {
            "name": predictions.names[i],
            "label": predictions.classes[predictions.labels[i]],
            "answer": predictions.classes[answers[i]],
            "probability": float(probabilities[i, answers[i]]),
            "label_probability": float(probabilities[i, predictions.labels[i]]),
            **_pictures(int(i), frames_of),
        }
        for i in wrong
    ]


def _pictures(index: int, frames_of: Callable[[int], Clip] | None) -> dict[str, Any]:
    if frames_of is None:
        return {"image": None, "times": "", "reason": ""}
    try:
        clip = frames_of(index)
    except VideoError as error:
        return {"image": None, "times": "", "reason": f"no picture: {error.reason}"}
    shown = np.linspace(0, len(clip.pixels) - 1, min(_STRIP_FRAMES, len(clip.pixels))).round().astype(int)
    times = ", ".join(f"{clip.seconds[i]:.1f}" for i in shown)
    return {"image": _data_uri(_strip_jpeg(clip.pixels[shown]), "jpeg"), "times": times, "reason": ""}


def _strip_jpeg(frames: np.ndarray) -> bytes:
    """Frames uint8 ``(F, H, W, 3)`` side by side, as JPEG bytes."""
    width = max(1, round(frames.shape[2] * _STRIP_HEIGHT / frames.shape[1]))
    gap = 3
    strip = Image.new("RGB", (len(frames) * (width + gap) - gap, _STRIP_HEIGHT), "white")
    for i, frame in enumerate(frames):
        picture = Image.fromarray(frame).resize((width, _STRIP_HEIGHT), Image.Resampling.BILINEAR)
        strip.paste(picture, (i * (width + gap), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _data_uri(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _confusion_png(metrics: Metrics) -> bytes:
    """Rows the label, columns the answer, shaded by the share of the row."""
    num_classes = len(metrics.classes)
    totals = metrics.confusion.sum(axis=1, keepdims=True)
    shares = metrics.confusion / np.maximum(totals, 1)
    side = float(np.clip(0.5 * num_classes + 2, 3.6, 10))
    figure = Figure(figsize=(side, side))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("answer", color=_INK)
    axes.set_ylabel("label", color=_INK)
    if num_classes <= _MOST_TICK_LABELS:
        names = [_shorten(name) for name in metrics.classes]
        size = 10 if num_classes <= _MOST_CELL_NUMBERS else 6
        axes.set_xticks(range(num_classes), names, rotation=45, ha="right", fontsize=size, parse_math=False)
        axes.set_yticks(range(num_classes), names, fontsize=size, parse_math=False)
    if num_classes <= _MOST_CELL_NUMBERS:
        for (row, column), count in np.ndenumerate(metrics.confusion):
            colour = "white" if shares[row, column] > 0.55 else _INK if count else _GRID
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=10)
    axes.tick_params(length=0, colors=_INK)
    for spine in axes.spines.values():
        spine.set_color(_GRID)
    return _png(figure)


def _reliability_png(predictions: Predictions, temperature: float) -> bytes:
    """How often answers were right, against the probability that they were given with."""
    bins = reliability_bins(
        softmax(predictions.logits, temperature=temperature), predictions.labels, num_bins=10
    )
    centres = (bins.edges[:-1] + bins.edges[1:]) / 2
    figure = Figure(figsize=(4.8, 4.8))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 3)), label="ideal")
    upper.bar(centres, np.nan_to_num(bins.accuracy), width=0.09, color=_SOFT, label="how often right")
    upper.scatter(bins.confidence, bins.accuracy, s=22, color=_ACCENT, zorder=3, label="mean of the bin")
    upper.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="share of right answers")
    upper.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=8)
    lower.bar(centres, bins.counts, width=0.09, color=_GRID)
    lower.set(xlabel="probability given with the answer", ylabel="clips")
    for axes in (upper, lower):
        axes.tick_params(colors=_INK, length=3)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _shorten(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
