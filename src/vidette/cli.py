"""The command line: thin, with imports inside the commands so that ``--help`` is quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from vidette.cli_audit import audit
from vidette.cli_compare import compare
from vidette.cli_concat import concat
from vidette.cli_data import export, prepare
from vidette.cli_diagnose import diagnose
from vidette.cli_evaluate import evaluate
from vidette.cli_explain import explain
from vidette.cli_import import import_model
from vidette.cli_options import (
    folds_option,
    given_options,
    layout_options,
    takes_recipe_options,
    takes_source_options,
)
from vidette.cli_stream import stream as stream_command
from vidette.cli_tune import tune_decision
from vidette.errors import SettingError, VideoError, VidetteError

if TYPE_CHECKING:
    from vidette.evaluation.run import Evaluation
    from vidette.prediction.files import FilePrediction

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, evaluate and run video classifiers that can be trusted on a live camera.",
)
_err = Console(stderr=True)
_out = Console()

app.command(name="compare")(compare)
app.command(name="audit")(audit)
app.command(name="diagnose")(diagnose)
app.command(name="prepare")(prepare)
app.command(name="export")(export)
app.command(name="import")(import_model)
app.command(name="stream")(stream_command)
app.command(name="explain")(explain)
app.command(name="tune-decision")(tune_decision)
app.command(name="evaluate")(evaluate)
app.command(name="concat")(concat)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
RuntimeName = Annotated[
    Literal["auto", "torch", "onnx"], typer.Option(help="What runs the per-frame part of the model.")
]
Device = Annotated[str, typer.Option(help="A torch device name, for example cpu or cuda.")]


def main() -> None:
    """Run the command line; an error that Vidette foresees is one message and exit status 2."""
    try:
        app()
    except VidetteError as error:
        _err.print("[bold red]error:[/bold red] ", end="")
        _err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@app.command()
@takes_recipe_options
def train(
    source: Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")],
    *,
    out: Annotated[Path | None, typer.Option(help="The run folder. [dim]\\[runs/SOURCE-MODEL][/dim]")] = None,
    recipe: Annotated[
        str, typer.Option(help="default, change, flow, gesture, motion, resnet18-rnn, or a TOML file.")
    ] = "default",
    folds: Annotated[
        str | None,
        typer.Option(help="Cross-validate: a number of folds, or 'column', the manifest's own folds."),
    ] = None,
    leave_one_group_out: Annotated[
        bool, typer.Option("--leave-one-group-out", help="Cross-validate: each group is a fold.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="One batch of each stage, to see that all runs.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Train on labelled clips; leaves a run folder with classifier, honest score and report."""
    from vidette.cli_view import consistency_table, listening, metrics_table
    from vidette.training.recipe import read_recipe
    from vidette.training.recipes import named_recipe
    from vidette.training.run import fitted_recipe, new_run_folder
    from vidette.training.run import train as train_run

    given = given_options(options)
    if resume and out is None:
        raise SettingError("--resume needs --out, the run folder to go on with")
    saved = out / "recipe.toml" if resume and out else None
    start = read_recipe(saved) if saved and saved.is_file() else named_recipe(recipe)
    chosen = fitted_recipe(source, start, given)
    folder = out or new_run_folder(Path("runs"), source, chosen.model.model)
    by = folds_option(folds, leave_one_group_out)
    with listening(_err) as listener:
        run = train_run(
            source,
            recipe=chosen,
            out=folder,
            folds=by,
            overwrite=overwrite,
            resume=resume,
            smoke=smoke,
            listener=listener,
        )
    if as_json:
        _print_json(json.loads((folder / "evaluation.json").read_text(encoding="utf-8")))
        return
    rows = list(run.cross_validation.compared) if run.cross_validation else []
    rows.append(("test clips", run.evaluation.metrics))
    _out.print(metrics_table(rows))
    if run.cross_validation and run.cross_validation.random_metrics:
        _out.print("Random folds share groups between training and test: that score leaks.", style="yellow")
    if run.evaluation.consistency:
        _out.print(consistency_table(run.evaluation.consistency))
    _print_warnings(run.evaluation)
    _out.print(f"report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    _out.print(f"classifier: {folder / 'classifier'}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def predict(
    classifier: Annotated[Path, typer.Argument(help="A run folder, a classifier folder, or 'imagenet'.")],
    paths: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a file by its ending: .csv, .jsonl, .srt or .mp4 (captions burnt in)."),
    ] = None,
    stride_seconds: Annotated[
        float | None, typer.Option(help="Time between windows of a longer video. [dim]\\[half a span][/dim]")
    ] = None,
    top: Annotated[int, typer.Option(help="Labels to show.", min=1)] = 5,
    stream: Annotated[int, typer.Option(help="Which of a file's video streams, from 0.", min=0)] = 0,
    on_damage: Annotated[
        Literal["raise", "skip"], typer.Option(help="A damaged file: stop, or go on with the next and say so.")
    ] = "raise",
    runtime: RuntimeName = "auto",
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Label video files, with a timeline for longer ones."""
    from vidette.classifier.classifier import Classifier
    from vidette.prediction.files import check_output, predict_files, write_output
    from vidette.video.names import find_videos

    videos = find_videos(paths)
    if out:
        check_output(out, overwrite=overwrite, videos=videos)
    loaded = Classifier.load(classifier, runtime=runtime, device=device)
    kept: list[FilePrediction] = []
    answers = predict_files(
        loaded,
        videos,
        stride_seconds=stride_seconds,
        top=top,
        stream=stream,
        on_damage=on_damage,
        on_skip=_say_skipped,
    )
    for answer in answers:
        if out:
            kept.append(answer)
        if as_json:
            for row in answer.rows():
                sys.stdout.write(row.to_json() + "\n")
            sys.stdout.flush()
        else:
            _show_prediction(answer)
    if out:
        write_output(kept, out, overwrite=overwrite)
        _err.print(f"written: {out}", markup=False, highlight=False, soft_wrap=True)


def _say_skipped(error: VideoError) -> None:
    _err.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True, style="yellow")


def _show_prediction(answer: FilePrediction) -> None:
    from vidette.cli_view import prediction_lines

    for line in prediction_lines(answer):
        _out.print(line, soft_wrap=True, highlight=False)
    for warning in answer.warnings:
        _err.print(f"  warning: {warning}", markup=False, highlight=False, style="yellow", soft_wrap=True)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models with their number of parameters."""
    from vidette.cli_facts import model_rows
    from vidette.cli_view import models_table

    rows = model_rows()
    if as_json:
        _print_json(rows)
    else:
        _out.print(models_table(rows))


@app.command()
def motion(
    out: Annotated[Path, typer.Argument(help="Folder for the clips.")],
    *,
    scenes: Annotated[int, typer.Option(help="Scenes; each is drawn once for each of 8 classes.", min=1)] = 60,
    size: Annotated[
        int | None, typer.Option(help="Height and width in pixels. [dim]\\[varied][/dim]", min=32)
    ] = None,
    untrimmed: Annotated[int, typer.Option(help="Events of one long video beside them; 0: none.", min=0)] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the drawing.", min=0)] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw clips of 8 classes in which only motion tells the class, and one long video with its truth."""
    from vidette.cli_view import progress_bar
    from vidette.video.motion import write_motion_clips, write_untrimmed

    shape = (size, size) if size else None
    with progress_bar(_err, "drawing clips") as on_progress:
        manifest = write_motion_clips(
            out, num_scenes=scenes, size=shape, seed=seed, overwrite=overwrite, on_progress=on_progress
        )
    _out.print(f"{scenes * 8} clips: {manifest}", markup=False, highlight=False, soft_wrap=True)
    if untrimmed:
        video, truth = write_untrimmed(
            out / "untrimmed", seed=seed + 1, num_events=untrimmed, size=shape, overwrite=overwrite
        )
        _out.print(f"long video: {video}, truth: {truth}", markup=False, highlight=False, soft_wrap=True)


@app.command()
@takes_source_options
def info(
    path: Annotated[Path, typer.Argument(help="A video, labelled clips, a run or a classifier.")],
    *,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Say what a video, a source of labelled clips, a run or a classifier is."""
    from vidette.cli_facts import describe

    facts = describe(path, layout=options["layout"], options=layout_options(options))
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        _out.print(f"[bold]{name}[/bold]: ", end="")
        _out.print(str(value), markup=False, highlight=False, soft_wrap=True)


def _print_json(values: Any) -> None:
    sys.stdout.write(json.dumps(values, indent=2, allow_nan=False) + "\n")


def _print_warnings(evaluation: Evaluation) -> None:
    for warning in (*evaluation.warnings, *evaluation.skipped):
        _err.print(f"warning: {warning}", markup=False, highlight=False, style="yellow", soft_wrap=True)


if __name__ == "__main__":
    main()
