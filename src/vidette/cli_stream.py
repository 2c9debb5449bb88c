"""The command ``vidette stream``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from vidette.cli_tune import chosen_decision, takes_decision_options

if TYPE_CHECKING:
    from vidette.streaming.records import SourceReport

__all__ = ["stream"]

_err = Console(stderr=True)
_out = Console()


_Classifier = Annotated[Path, typer.Argument(help="A run folder, a classifier folder, or 'imagenet'.")]
_Sources = Annotated[
    list[str],
    typer.Argument(help="Files, cameras (0 or /dev/video0), screen, rtsp://, http:// (MJPEG, HLS), udp://."),
]
_Out = Annotated[
    list[str] | None,
    typer.Option(
        help="Write a file by its ending: .jsonl, .csv, .srt, .vtt or .mp4 (annotated); or send events to "
        "https://... (POST) or mqtt://USER:PASSWORD@HOST/TOPIC. Give it again for more."
    ),
]
_Window = Annotated[bool, typer.Option("--window", help="Show the pictures on this machine's screen.")]
_Realtime = Annotated[bool, typer.Option("--realtime", help="Show files at their own pace, as a camera would.")]
_Policy = Annotated[
    Literal["newest", "all", "block"] | None,
    typer.Option(
        help="A model too slow for its source: skip what is late, or let the source wait. "
        "[dim]\\[newest for cameras, all for files][/dim]"
    ),
]
_State = Annotated[
    Literal["window", "carry", "clip"] | None,
    typer.Option(
        help="What an answer has seen: about a span (at most two), everything, or the last clip exactly. "
        "[dim]\\[window, or clip for models without a step][/dim]"
    ),
]
_Stride = Annotated[
    float | None, typer.Option(help="Time between answers. [dim]\\[each frame, or half a clip][/dim]")
]
_Duration = Annotated[
    float | None, typer.Option(help="Stop after so long. [dim]\\[at the end, or Ctrl-C][/dim]")
]
_GiveUp = Annotated[
    float | None, typer.Option(help="How long to wait for a lost camera. [dim]\\[for ever][/dim]")
]
_Runtime = Annotated[Literal["auto", "torch", "onnx"], typer.Option(help="What runs the step of the model.")]
_Device = Annotated[str, typer.Option(help="A torch device name, for example cpu or cuda.")]
_Drift = Annotated[bool, typer.Option(help="Tell when pictures or answers are unlike training.")]
_FalseAlarms = Annotated[float, typer.Option(help="Time between false alarms of drift, on average.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON lines on standard output.")]


@takes_decision_options
def stream(
    classifier: _Classifier,
    sources: _Sources,
    *,
    out: _Out = None,
    window: _Window = False,
    realtime: _Realtime = False,
    policy: _Policy = None,
    state: _State = None,
    stride_seconds: _Stride = None,
    duration_seconds: _Duration = None,
    give_up_seconds: _GiveUp = None,
    runtime: _Runtime = "auto",
    device: _Device = "cpu",
    drift: _Drift = True,
    false_alarm_hours: _FalseAlarms = 24.0,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
    **options: Any,
) -> None:
    """Answer live sources frame by frame: scores, events, and what is wrong with a source."""
    from vidette.classifier.classifier import Classifier
    from vidette.errors import SettingError, VideoError
    from vidette.evaluation.reference import find_reference
    from vidette.streaming.drift import DriftPolicy
    from vidette.streaming.live import new_stepper, run
    from vidette.streaming.remote import Patience
    from vidette.streaming.sources import open_source
    from vidette.streaming.wanted import WantedOutputs
    from vidette.streaming.watch import DriftWatch

    if duration_seconds is not None and not duration_seconds > 0:
        raise SettingError(f"--duration-seconds is {duration_seconds}; expected above 0")
    if len(set(sources)) < len(sources):
        raise SettingError("a source is named twice; give each once")
    patience = Patience(give_up_seconds=give_up_seconds)
    wanted = WantedOutputs(tuple(out or ()), overwrite=overwrite, window=window, as_json=as_json)
    drifting = DriftPolicy(false_alarm_seconds=3600 * false_alarm_hours)
    opened = [
        open_source(address, realtime=realtime, patience=patience, pictures=wanted.shows_pictures)
        for address in sources
    ]
    loaded = Classifier.load(classifier, runtime=runtime, device=device)
    decision = chosen_decision(loaded, options)
    find_reference(loaded)  # damage is told before any output is opened
    stepper, fps = new_stepper(loaded, runtime=runtime, state=state, stride_seconds=stride_seconds)
    say = _err_say if as_json or not _out.is_terminal else _out_say
    outputs = wanted.open(num_sources=len(opened), console=_out, say=say)
    watched = outputs
    if drift:
        quiet = decision.quiet_labels
        watched = [DriftWatch(loaded, outputs, policy=drifting, fps=fps, quiet_labels=quiet)]
    try:
        reports = run(
            stepper,
            opened,
            outputs=watched,
            policy=policy or wanted.buffer_policy(opened),
            decision=decision,
            fps=fps,
            duration_seconds=duration_seconds,
        )
    except VideoError:  # no source gave a picture, so that there is nothing to keep
        wanted.discard()
        raise
    for report, source in zip(reports, opened, strict=True):
        _err_say(_line(report, is_live=source.is_live))
    for line in wanted.lines(outputs):
        _err_say(line)


def _err_say(text: str) -> None:
    _err.print(text, markup=False, highlight=False, soft_wrap=True)


def _out_say(text: str) -> None:
    """Say it above the view, which another console would write across."""
    _out.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _line(report: SourceReport, *, is_live: bool) -> str:
    """Say in one line what a run came to for one source; a file that waits for the model has no lag."""
    parts = [f"{report.num_answered} frames answered", f"{report.num_events} events"]
    if report.num_answered and is_live:
        lags = f"{1000 * report.mean_lag_seconds:.0f} ms, at most {1000 * report.largest_lag_seconds:.0f} ms"
        parts.append(f"lag {lags}")
    for count, what in (
        (report.num_skipped, "skipped"),
        (report.num_damaged, "damaged"),
        (report.num_returns, "times back"),
    ):
        if count:
            parts.append(f"{count} {what}")
    if report.error is not None:
        parts.append("failed")
    return f"{report.source}: {', '.join(parts)}"
