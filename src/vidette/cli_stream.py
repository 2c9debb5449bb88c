"""The command ``vidette stream``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from vidette.streaming.records import SourceReport

__all__ = ["stream"]

_err = Console(stderr=True)
_out = Console()


def stream(
    classifier: Annotated[Path, typer.Argument(help="A run folder, a classifier folder, or 'imagenet'.")],
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, cameras (0 or /dev/video0), rtsp://, http:// (MJPEG, HLS), udp://."),
    ],
    *,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write a file by its ending: .jsonl, .csv, .srt or .vtt; give it again for more."),
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Show files at their own pace, as a camera would.")
    ] = False,
    policy: Annotated[
        Literal["newest", "all", "block"] | None,
        typer.Option(
            help="A model too slow for its source: skip what is late, or let the source wait. "
            "[dim]\\[newest for cameras, all for files][/dim]"
        ),
    ] = None,
    state: Annotated[
        Literal["window", "carry", "clip"] | None,
        typer.Option(
            help="What an answer has seen: one to two spans, everything, or the last clip exactly. "
            "[dim]\\[window, or clip for models without a step][/dim]"
        ),
    ] = None,
    stride_seconds: Annotated[
        float | None, typer.Option(help="Time between answers. [dim]\\[each frame, or half a clip][/dim]")
    ] = None,
    duration_seconds: Annotated[
        float | None, typer.Option(help="Stop after so long. [dim]\\[at the end, or Ctrl-C][/dim]")
    ] = None,
    give_up_seconds: Annotated[
        float | None, typer.Option(help="How long to wait for a lost camera. [dim]\\[for ever][/dim]")
    ] = None,
    runtime: Annotated[
        Literal["auto", "torch", "onnx"], typer.Option(help="What runs the step of the model.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="A torch device name, for example cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines on standard output.")] = False,
) -> None:
    """Answer live sources frame by frame: scores, events, and what is wrong with a source."""
    from vidette.classifier.classifier import Classifier
    from vidette.errors import SettingError, VideoError
    from vidette.streaming.live import new_stepper, run
    from vidette.streaming.outputs import JsonLines, open_outputs
    from vidette.streaming.remote import Patience
    from vidette.streaming.sources import open_source
    from vidette.streaming.view import TerminalView

    if duration_seconds is not None and not duration_seconds > 0:
        raise SettingError(f"--duration-seconds is {duration_seconds}; expected above 0")
    if len(set(sources)) < len(sources):
        raise SettingError("a source is named twice; give each once")
    patience = Patience(give_up_seconds=give_up_seconds)
    opened = [open_source(address, realtime=realtime, patience=patience) for address in sources]
    loaded = Classifier.load(classifier, runtime=runtime, device=device)
    stepper, fps = new_stepper(loaded, runtime=runtime, state=state, stride_seconds=stride_seconds)
    outputs = open_outputs(out or [], num_sources=len(opened), overwrite=overwrite)
    outputs.append(JsonLines(sys.stdout) if as_json else TerminalView(_out))
    try:
        reports = run(
            stepper, opened, outputs=outputs, policy=policy, fps=fps, duration_seconds=duration_seconds
        )
    except VideoError:  # no source gave a picture, so that there is nothing to keep
        for path in out or []:
            path.unlink(missing_ok=True)
        raise
    for report, source in zip(reports, opened, strict=True):
        _err.print(_line(report, is_live=source.is_live), markup=False, highlight=False, soft_wrap=True)
    for path in out or []:
        _err.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


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
