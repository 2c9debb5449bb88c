"""The command ``vidette tune-decision``, and the options of a decision on other commands."""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from vidette.cli_options import with_parameters
from vidette.errors import SettingError

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.evaluation.online import OnlineScores
    from vidette.evaluation.transitions import ScoredVideo
    from vidette.evaluation.tuning import Tuning
    from vidette.prediction.policy import DecisionPolicy

__all__ = ["chosen_decision", "takes_decision_options", "tune_decision"]

_err = Console(stderr=True)
_out = Console()
_PANEL = "Decision: when an event begins and ends; by default the classifier's own"


def _option(kind: Any, about: str) -> Any:
    return Annotated[kind | None, typer.Option(help=about, rich_help_panel=_PANEL, show_default=False)]


_DECISION_OPTIONS: Mapping[str, Any] = {
    "smoothing": _option(
        Literal["none", "mean", "exponential", "majority", "hmm"], "How answers become calmer ones."
    ),
    "smoothing_seconds": _option(float, "Over how long; exponential: the half-life."),
    "enter_probability": _option(float, "An event begins from here."),
    "leave_probability": _option(float, "It ends below this."),
    "minimum_seconds": _option(float, "Shorter events are dropped."),
    "abstain_probability": _option(float, "Answers that are less sure say 'unknown'."),
    "cool_down_seconds": _option(float, "After an event, for so long none of its label."),
    "grouping": _option(
        Literal["label", "activity"],
        "An event is a stretch of one label, or one in which anything but the quiet classes goes on.",
    ),
    "quiet": _option(str, "Classes that mean 'nothing is going on', as in none,rest."),
}


def takes_decision_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which takes ``**options``, the options that replace values of a decision."""
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _DECISION_OPTIONS.items()
    ]
    return with_parameters(command, added)


def chosen_decision(classifier: Classifier, options: Mapping[str, Any]) -> DecisionPolicy:
    """Return the classifier's own decision, but for what the options of :func:`takes_decision_options` say.

    Raises:
        SettingError: A value is out of range, or a quiet label is no class.
    """
    from dataclasses import replace

    from vidette.prediction.policy import own_policy

    own = own_policy(classifier)
    given = {name: value for name, value in options.items() if name in _DECISION_OPTIONS and value is not None}
    if "quiet" in given:
        given["quiet_labels"] = _names(given.pop("quiet"))
    if "enter_probability" in given and "leave_probability" not in given:
        given["leave_probability"] = min(own.leave_probability, given["enter_probability"])
    policy = replace(own, **given)
    policy.check(classifier.classes)
    return policy


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def tune_decision(
    classifier: Annotated[
        Path, typer.Argument(help="A run folder or a classifier folder; it gets the decision.")
    ],
    sources: Annotated[
        list[Path], typer.Argument(help="Untrimmed validation videos: not those that it is tested on.")
    ],
    *,
    truth: Annotated[
        list[Path],
        typer.Option(
            help="What happens in them: start_seconds,end_seconds,label; one table a video in the same order, "
            "or one with a column path for all."
        ),
    ],
    false_alarms_per_hour: Annotated[float, typer.Option(help="At most so many.", min=0)],
    max_delay_seconds: Annotated[
        float, typer.Option(help="How late the smoothing may be, at most.", min=0)
    ] = 0.5,
    quiet: Annotated[
        str | None,
        typer.Option(
            help="Classes that mean 'nothing is going on', as in none,rest. [dim]\\[those saved before][/dim]"
        ),
    ] = None,
    iou: Annotated[float, typer.Option(help="Overlap in time from which an event counts as found.")] = 0.5,
    state: Annotated[
        Literal["window", "carry", "clip"] | None, typer.Option(help="As for vidette stream.")
    ] = None,
    stride_seconds: Annotated[float | None, typer.Option(help="As for vidette stream.")] = None,
    runtime: Annotated[
        Literal["auto", "torch", "onnx"], typer.Option(help="What runs the step of the model.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="A torch device name, for example cpu or cuda.")] = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose and show, and save nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Fit the decision on validation videos to a number of false alarms an hour, and save it."""
    from vidette.classifier.classifier import Classifier
    from vidette.cli_view import progress_bar
    from vidette.evaluation.tuning import score_policy, tune
    from vidette.prediction.policy import own_policy
    from vidette.prediction.steps import NO_DECISION
    from vidette.streaming.live import new_stepper

    if str(classifier) == "imagenet":
        raise SettingError("'imagenet' comes with Vidette and keeps no decision; give a classifier folder")
    if len(set(sources)) < len(sources):
        raise SettingError("a video is named twice; give each once")
    loaded = Classifier.load(classifier, runtime=runtime, device=device)
    before = own_policy(loaded)
    quiet_labels = before.quiet_labels if quiet is None else _names(quiet)
    _check_limits(loaded, quiet_labels, iou)
    stepper, fps = new_stepper(loaded, runtime=runtime, state=state, stride_seconds=stride_seconds)
    videos = _scored_videos(stepper, fps, sources, truth)
    with progress_bar(_err, "trying policies") as on_progress:
        tuning = tune(
            videos,
            false_alarms_per_hour=false_alarms_per_hour,
            max_delay_seconds=max_delay_seconds,
            quiet_labels=quiet_labels,
            iou=iou,
            on_progress=on_progress,
        )
    compared = {"no decision": NO_DECISION, "before": before, "tuned": tuning.policy}
    rows = {
        name: score_policy(videos, policy, iou=iou, quiet_labels=quiet_labels)
        for name, policy in compared.items()
    }
    if not dry_run:
        saved = loaded.save_decision(classifier, tuning.policy.to_dict())
        _err.print(f"saved: {saved}", markup=False, highlight=False, soft_wrap=True)
    if stride_seconds is not None:
        hint = f"it is for an answer every {stride_seconds:g} s: give stream and evaluate --stride-seconds, too"
        _err.print(hint, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(tuning, rows), indent=2, allow_nan=False) + "\n")
        return
    _show(tuning, rows, false_alarms_per_hour)


def _check_limits(loaded: Classifier, quiet_labels: frozenset[str], iou: float) -> None:
    """Find out before the videos are watched what would be refused after."""
    from vidette.prediction.policy import DecisionPolicy

    DecisionPolicy(quiet_labels=quiet_labels).check(loaded.classes)
    if not 0 < iou <= 1:
        raise SettingError(f"--iou is {iou:g}; expected above 0 and at most 1")


def _scored_videos(
    stepper: Any, fps: float, sources: Sequence[Path], tables: Sequence[Path]
) -> list[ScoredVideo]:
    """Answer each video once, as a live run does."""
    from vidette.cli_view import progress_bar
    from vidette.evaluation.stream import truth_of
    from vidette.evaluation.transitions import ScoredVideo
    from vidette.evaluation.truth import check_labels
    from vidette.prediction.steps import step_file

    if len(tables) not in (1, len(sources)):
        raise SettingError(
            f"{len(tables)} --truth for {len(sources)} videos; give one a video, or one with a column path"
        )
    given = list(tables) * len(sources) if len(tables) == 1 else list(tables)
    truths = [truth_of(source, table) for source, table in zip(sources, given, strict=True)]
    for table, events in zip(given, truths, strict=True):
        check_labels(events, stepper.classifier.classes, source=table)
    for note in stepper.notes:
        _warn(note)
    videos: list[ScoredVideo] = []
    for source, events in zip(sources, truths, strict=True):
        with progress_bar(_err, f"watching {source.name}, seconds") as on_progress:
            steps = step_file(stepper, source, fps=fps, on_progress=on_progress)
        for warning in steps.warnings:
            _warn(f"{source}: {warning}")
        videos.append(ScoredVideo(str(source), steps.stretches, events))
    return videos


def _warn(text: str) -> None:
    _err.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


def _as_json(tuning: Tuning, rows: Mapping[str, OnlineScores]) -> dict[str, Any]:
    return {
        "policy": tuning.policy.to_dict(),
        "delay_seconds": tuning.delay_seconds,
        "num_policies": tuning.num_policies,
        "num_videos": tuning.num_videos,
        **{name.replace(" ", "_"): scores.to_dict() for name, scores in rows.items()},
        "held_out": tuning.held_out.to_dict() if tuning.held_out else None,
    }


def _show(tuning: Tuning, rows: Mapping[str, OnlineScores], wish: float) -> None:
    shown = {**rows, **({"tuned, held out": tuning.held_out} if tuning.held_out else {})}
    _out.print(_table(shown))
    for line in _reading(tuning, wish):
        _out.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(rows: Mapping[str, OnlineScores]) -> Table:
    """Return policies side by side, one row each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("F1", "precision", "recall", "false alarms/h", "flips/min", "to detect"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, scores in rows.items():
        detect = scores.mean_seconds_to_detect
        table.add_row(
            name,
            _number(scores.f1, 2),
            _number(scores.precision, 2),
            _number(scores.recall, 2),
            _number(scores.false_alarms_per_hour, 1),
            _number(scores.flips_per_minute, 1),
            "-" if detect != detect else f"{detect:.2f} s",
        )
    return table


def _number(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"


def _reading(tuning: Tuning, wish: float) -> list[str]:
    """Say what was chosen, and what the numbers are worth."""
    from vidette.evaluation.online import poisson_interval

    policy, scores = tuning.policy, tuning.scores
    interval = scores.false_alarms_interval
    smoothing = policy.smoothing
    if smoothing != "none":
        smoothing += f" of {policy.smoothing_seconds:g} s"
    lines = [
        f"chosen of {tuning.num_policies}: smoothing {smoothing} (a delay of {tuning.delay_seconds:.2f} s), "
        f"enter {policy.enter_probability:g}, leave {policy.leave_probability:g}, "
        f"minimum {policy.minimum_seconds:g} s, abstain {policy.abstain_probability:g}, "
        f"cool-down {policy.cool_down_seconds:g} s, events by {policy.grouping}",
        f"{scores.num_false_alarms} false alarms in {scores.total_seconds / 3600:.2f} h with {scores.num_true} "
        f"true events: {interval.low:.1f} to {interval.high:.1f} an hour (95 %)",
        "The policy was chosen on these videos, so others will be answered somewhat worse.",
    ]
    needed = poisson_interval(0).high / wish if wish else math.inf
    if interval.high > wish and needed < math.inf:
        lines.append(f"To show {wish:g} an hour takes {needed:.1f} h without a false alarm.")
    if tuning.num_videos == 1:
        lines.append("With two videos or more each is also held out in turn.")
    return lines
