"""The command ``vidette compare``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vidette.cli_options import folds_option, given_options, takes_recipe_options
from vidette.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from vidette.training.choice import ChosenModels
    from vidette.training.compare import Comparison
    from vidette.training.recipe import Recipe

__all__ = ["compare"]

_err = Console(stderr=True)
_out = Console()
_OPTION = re.compile(r":(?=[a-z_-]+=)")
_MOST_FOLDS = 12


@takes_recipe_options
def compare(
    source: Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")],
    *,
    models: Annotated[
        str,
        typer.Option(
            help="Names of models or recipes (flow, gesture or a TOML file), with commas between; options as in"
            " cnn_gru:hidden=64:layers=2."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs. [dim]\\[runs/SOURCE-compared][/dim]")
    ] = None,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    **options: Any,
) -> None:
    """Train and score several models on the same clips, and put them side by side."""
    from vidette.cli_view import listening
    from vidette.training.compare import compare as compare_models

    given = given_options(options)
    if "model" in given:
        raise SettingError("--model is for vidette train; name the models to compare with --models")
    recipes: dict[str, Recipe] = {}
    for entry in filter(None, (part.strip() for part in models.split(","))):
        name, wanted = _recipe_of(entry, source, start=recipe, given=given)
        if name in recipes:
            raise SettingError(f"--models {models} names {name} twice")
        recipes[name] = wanted
    folder = out or Path("runs") / f"{source.resolve().stem or 'clips'}-compared"
    with listening(_err) as listener:
        comparison = compare_models(
            source,
            recipes,
            folder,
            folds=folds_option(folds, leave_one_group_out),
            overwrite=overwrite,
            smoke=smoke,
            listener=listener,
        )
    if as_json:
        sys.stdout.write(json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n")
        return
    _out.print(_table(comparison))
    for line in _choice_lines(comparison.chosen) if comparison.chosen else ():
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
    for name in ("comparison.csv", "comparison.png"):
        _out.print(str(folder / name), markup=False, highlight=False, soft_wrap=True)


def _recipe_of(entry: str, source: Path, *, start: str, given: Mapping[str, Any]) -> tuple[str, Recipe]:
    """Return the name of the run folder for an entry of ``--models``, and what it asks for.

    Options of the command line are for every entry whose model takes them, those of the entry for it alone.
    """
    from vidette.models import MODELS, model_kind, model_options
    from vidette.training.recipes import RECIPES, named_recipe
    from vidette.training.run import fitted_recipe

    what, *pairs = _OPTION.split(entry)
    own = {key.replace("-", "_"): value for key, value in (pair.split("=", 1) for pair in pairs)}
    if "model" in own:
        raise SettingError(f"--models {entry}: the model is {what}; leave out model={own['model']}")
    if what.endswith(".toml") or (what in RECIPES and what not in MODELS):
        recipe, label = named_recipe(what), Path(what).stem
    else:
        model_kind(what)
        recipe, label = named_recipe(start), what
        own["model"] = what
    model = own.get("model", recipe.model.model)
    known, of_models = model_options(model), {option for name in MODELS for option in model_options(name)}
    alien = [key for key in own if key in of_models and key not in known]
    if alien:
        raise SettingError(f"--models {entry}: {unknown_name(f'option of model {model}', alien[0], known)}")
    taken = {key: value for key, value in given.items() if key not in of_models or key in known}
    name = re.sub(r"[^\w.=+-]+", "-", ":".join([label, *pairs]))
    return name, fitted_recipe(source, recipe, {**taken, **own})


def _table(comparison: Comparison) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        caption=f"Scored on {comparison.scored_on}; gap: lost by shuffling frames; -: wants whole clips.",
    )
    table.add_column("model", overflow="fold", min_width=13)
    for name in ("accuracy (95 %)", "AUC", "1 frame", "gap", "weights", "GFLOP", "ms/clip", "ms/frame"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(
            row.model,
            _share(row.accuracy) + _interval(row.accuracy_low, row.accuracy_high),
            "" if row.auc is None else f"{row.auc:.2f}",
            _share(row.frame_accuracy),
            "" if row.order_gap is None else f"{row.order_gap:+.1%}",
            f"{row.parameters / 1e6:.1f} M",
            f"{row.gflops:.1f}",
            f"{row.clip_ms:.0f}",
            "-" if row.frame_ms is None else f"{row.frame_ms:.1f}",
        )
    for name, metrics in comparison.together.items():
        scores = metrics.to_dict()
        table.add_row(
            name,
            _share(scores["accuracy"]) + _interval(*scores["accuracy_interval"]),
            "" if scores["auc"] is None else f"{scores['auc']:.2f}",
        )
    return table


def _choice_lines(chosen: ChosenModels) -> Iterator[str]:
    """Say which model answers which fold."""
    counts = ", ".join(f"{name} in {count}" for name, count in chosen.counts().items())
    yield (
        f"chosen: in each of {len(chosen.folds)} folds the model with the best {chosen.by.replace('_', ' ')}"
        f" ({counts}), so no test clip has a say."
    )
    if len(chosen.folds) > _MOST_FOLDS:
        return
    for fold in chosen.folds:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in fold.scores.items())
        yield f"  {fold.fold}: {fold.model} ({scores} on {fold.validation_clips} validation clips)"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({100 * low:.0f}-{100 * high:.0f})"
