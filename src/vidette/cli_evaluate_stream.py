"""``vidette evaluate --stream``: a classifier's score along an untrimmed video."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from vidette.cli_options import with_parameters
from vidette.cli_tune import chosen_decision
from vidette.errors import SettingError

if TYPE_CHECKING:
    from vidette.classifier.classifier import Runtime
    from vidette.classifier.stepper import StatePolicy
    from vidette.evaluation.stream import StreamEvaluation, StreamScore

__all__ = [
    "StreamSettings",
    "evaluate_along_time",
    "refuse",
    "stream_settings",
    "stream_table",
    "takes_stream_options",
]

_err = Console(stderr=True)
_out = Console()
_PANEL = "Along time"


def _option(kind: Any, about: str, *names: str) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=about, rich_help_panel=_PANEL, show_default=False)]


_STREAM_OPTIONS: Mapping[str, Any] = {
    "untrimmed": _option(Path, "Follow one untrimmed video, as a live run does.", "--stream"),
    "truth": _option(Path, "CSV: start_seconds,end_seconds,label of its events."),
    "iou": _option(float, "Overlap over union from which events match. [dim]\\[0.5][/dim]"),
    "quiet": _option(str, "Classes in which nothing goes on, as in none,rest. [dim]\\[the decision's][/dim]"),
    "state": _option(Literal["window", "carry", "clip"], "As for vidette stream."),
    "stride_seconds": _option(float, "As for vidette stream."),
}


@dataclass(frozen=True)
class StreamSettings:
    """What is asked of a score along time.

    Attributes:
        video: The untrimmed video.
        truth: What happens in it.
        iou: Temporal overlap over union from which events match.
        quiet: Classes in which nothing goes on, with commas between; the decision's own when None.
        state: As for ``vidette stream``.
        stride_seconds: As for ``vidette stream``.
    """

    video: Path
    truth: Path
    iou: float = 0.5
    quiet: str | None = None
    state: StatePolicy | None = None
    stride_seconds: float | None = None


def takes_stream_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which takes ``**options``, those of a score along time."""
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _STREAM_OPTIONS.items()
    ]
    return with_parameters(command, added)


def stream_settings(options: Mapping[str, Any]) -> StreamSettings | None:
    """Return what the options of :func:`takes_stream_options` say; None without ``--stream``.

    Raises:
        SettingError: One of them is given without ``--stream``, or there is no truth.
    """
    given = {name: options[name] for name in _STREAM_OPTIONS if options[name] is not None}
    if "untrimmed" not in given:
        refuse("is for --stream", **given)
        return None
    if "truth" not in given:
        raise SettingError("--stream needs --truth, a CSV with start_seconds,end_seconds,label")
    return StreamSettings(given.pop("untrimmed"), given.pop("truth"), **given)


def refuse(why: str, **given: Any) -> None:
    """Refuse options that were given where they have no meaning.

    Raises:
        SettingError: One is not None; named as on the command line.
    """
    for name, value in given.items():
        if value is not None:
            raise SettingError(f"{'SOURCE' if name == 'source' else '--' + name.replace('_', '-')} {why}")


def evaluate_along_time(
    classifier: Path, settings: StreamSettings, *, runtime: Runtime, device: str, as_json: bool
) -> None:
    """Score a classifier on one video whose events are known, and show the score.

    Raises:
        SettingError: A quiet label is none of the classifier's.
        VidetteError: As :func:`vidette.evaluation.stream.evaluate_stream`.
    """
    from vidette.classifier.classifier import Classifier
    from vidette.cli_view import progress_bar
    from vidette.evaluation.stream import evaluate_stream, truth_of
    from vidette.streaming.live import new_stepper

    events = truth_of(settings.video, settings.truth)
    loaded = Classifier.load(classifier, runtime=runtime, device=device)
    policy = chosen_decision(loaded, {"quiet": settings.quiet})
    stepper, fps = new_stepper(
        loaded, runtime=runtime, state=settings.state, stride_seconds=settings.stride_seconds
    )
    with progress_bar(_err, "watching, seconds") as on_progress:
        result = evaluate_stream(
            stepper,
            settings.video,
            events,
            policy=policy,
            fps=fps,
            iou=settings.iou,
            on_progress=on_progress,
        )
    if as_json:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
        return
    _out.print(stream_table(result))
    for warning in (*stepper.notes, *result.warnings):
        _err.print(f"warning: {warning}", markup=False, highlight=False, style="yellow", soft_wrap=True)


def stream_table(result: StreamEvaluation) -> Table:
    """Return the measures with and without the decision stage side by side."""
    events = result.decided.events
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        caption=f"{events.num_true} true events in {events.total_seconds:.1f} s; events match from"
        f" {events.iou:g} of their union.",
        caption_justify="left",
    )
    table.add_column("")
    for name in ("with decision", "without"):
        table.add_column(name, justify="right")
    rows = zip(_measures(result.decided), _measures(result.plain), strict=True)
    for (name, decided), (_, plain) in rows:
        table.add_row(name, decided, plain)
    return table


def _measures(score: StreamScore) -> list[tuple[str, str]]:
    events, frames = score.events, score.frames
    interval = events.false_alarms_interval
    alarms = f"{events.false_alarms_per_hour:.1f} ({interval.low:.1f}-{interval.high:.1f})"
    return [
        (f"per-frame mAP, {frames.n} answers", _number(frames.mean)),
        ("events told", str(events.num_predicted)),
        ("event precision", _share(events.precision)),
        ("event recall", _share(events.recall)),
        ("event F1", _share(events.f1)),
        ("true events detected", f"{events.num_detected} of {events.num_true}"),
        ("mean time to detect", _number(events.mean_seconds_to_detect, " s")),
        ("false alarms an hour (95 %)", alarms),
        ("flips a minute", f"{events.flips_per_minute:.1f}"),
    ]


def _share(value: float) -> str:
    return "undefined" if value != value else f"{value:.1%}"


def _number(value: float, unit: str = "") -> str:
    return "undefined" if value != value else f"{value:.2f}{unit}"
