"""The command ``vidette evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from vidette.cli_evaluate_stream import (
    evaluate_along_time,
    refuse,
    stream_settings,
    takes_stream_options,
)
from vidette.cli_options import read_source, takes_source_options
from vidette.cli_robustness import Disturbed, disturb, disturbance, promises_table
from vidette.errors import OutputExistsError

if TYPE_CHECKING:
    from vidette.data.manifest import LabelledClip
    from vidette.evaluation.run import Evaluation

__all__ = ["evaluate"]

_err = Console(stderr=True)
_out = Console()
_DISTURBED = "Disturbed on purpose"


@takes_stream_options
@partial(takes_source_options, stream_flag="--video-stream")
def evaluate(
    classifier: Annotated[Path, typer.Argument(help="A run folder, a classifier folder, or 'imagenet'.")],
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder or CSV of labelled clips; the run's held-out clips by default."),
    ] = None,
    *,
    corruptions: Annotated[
        str | None,
        typer.Option(help="Disturb the clips too: all, or names as in dark,h264.", rich_help_panel=_DISTURBED),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Of 1 (weak) to 5 (strong), as in 1,3,5. [dim]\\[all][/dim]", rich_help_panel=_DISTURBED
        ),
    ] = None,
    adversarial: Annotated[
        str | None,
        typer.Option(help="Attack the classifier: fgsm,pgd, or one of them.", rich_help_panel=_DISTURBED),
    ] = None,
    num_clips: Annotated[
        int | None,
        typer.Option(
            help="At most so many clips are disturbed. [dim]\\[100][/dim]", min=1, rich_help_panel=_DISTURBED
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(help="Average the answers to so many crops of each clip. [dim]\\[1][/dim]", min=1, max=6),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a report, a new HTML file.")] = None,
    on_damage: Annotated[
        Literal["raise", "skip"], typer.Option(help="A damaged file: stop, or leave it out and say so.")
    ] = "raise",
    runtime: Annotated[
        Literal["auto", "torch", "onnx"], typer.Option(help="What runs the per-frame part of the model.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="A torch device name, for example cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    **options: Any,
) -> None:
    """Score a classifier on clips it has not seen, with intervals."""
    from vidette.classifier.classifier import Classifier
    from vidette.cli_view import progress_bar
    from vidette.data.cache import ClipCache
    from vidette.evaluation.run import evaluate as evaluate_clips

    along_time = stream_settings(options)
    if along_time is not None:
        disturbing = {"corruptions": corruptions, "levels": levels, "adversarial": adversarial}
        refuse(
            "is not for --stream", source=source, report=report, views=views, num_clips=num_clips, **disturbing
        )
        evaluate_along_time(classifier, along_time, runtime=runtime, device=device, as_json=as_json)
        return
    wanted = disturbance(corruptions=corruptions, levels=levels, adversarial=adversarial, num_clips=num_clips)
    if views is not None:
        refuse("is not for --views", corruptions=corruptions, adversarial=adversarial)
    _check_report(report, overwrite=overwrite)
    loaded = Classifier.load(classifier, runtime=runtime, device=device)
    clips, name = _clips_of(classifier, source, options)
    with progress_bar(_err, "testing") as on_progress:
        result = evaluate_clips(
            loaded,
            clips,
            cache=ClipCache(),
            split_name=name,
            views=views or 1,
            on_damage=on_damage,
            on_progress=on_progress,
        )
    disturbed = disturb(loaded, clips, wanted, cache=ClipCache(), on_damage=on_damage, console=_err)
    if report:
        _write_evaluation_report(report, loaded, result, disturbed)
    if as_json:
        values = {**result.to_dict(), **disturbed.to_dict()}
        sys.stdout.write(json.dumps(values, indent=2, allow_nan=False) + "\n")
        return
    _show(name, result, disturbed)


def _clips_of(
    classifier: Path, source: Path | None, options: Mapping[str, Any]
) -> tuple[Sequence[LabelledClip], str]:
    """Return the clips to score, and what they are called."""
    from vidette.training.run import read_run

    if source is None:
        return read_run(classifier)[2], "test"
    return read_source(source, options).clips, str(source)


def _show(name: str, result: Evaluation, disturbed: Disturbed) -> None:
    from vidette.cli_view import consistency_table, metrics_table

    _out.print(metrics_table([(name, result.metrics)]))
    if result.views > 1:
        _out.print(f"Each answer is the mean of {result.views} views of a clip, its picture whole and cropped.")
    if result.consistency:
        _out.print(consistency_table(result.consistency))
    for line in result.consistency.reading() if result.consistency else ():
        _out.print(line, markup=False, highlight=False)
    if result.promises:
        _out.print(promises_table(result.promises.checks))
        _out.print(result.promises.caveat(), markup=False, highlight=False)
    disturbed.show(_out)
    for warning in (*result.warnings, *result.skipped):
        _err.print(f"warning: {warning}", markup=False, highlight=False, style="yellow", soft_wrap=True)


def _check_report(report: Path | None, *, overwrite: bool) -> None:
    if report and report.exists() and not overwrite:
        raise OutputExistsError(f"{report} exists; choose another --report, or replace it with --overwrite")


def _write_evaluation_report(path: Path, classifier: Any, result: Evaluation, disturbed: Disturbed) -> None:
    from vidette.data.cache import ClipCache, expand_windows
    from vidette.evaluation.report import write_report

    cache = ClipCache()
    write_report(
        path,
        title=f"{classifier.model_name} on {result.split_name}",
        evaluation=result,
        classifier_facts={
            "model": classifier.model_name,
            "input": repr(classifier.spec),
            "views": f"{result.views} of each clip",
        },
        frames_of=lambda i: cache.load(expand_windows([result.clips[i]], classifier.spec)[0], classifier.spec),
        robustness=disturbed.robustness,
        attacks=disturbed.attacks,
    )
    _err.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
