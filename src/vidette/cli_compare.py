"""The command ``vidette compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vidette.cli_options import folds_option, given_options, takes_recipe_options
from vidette.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from vidette.training.compare import ComparedModel, Comparison
    from vidette.training.recipe import Recipe

__all__ = ["compare"]

_err = Console(stderr=True)
_out = Console()


@takes_recipe_options
def compare(
    source: Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")],
    *,
    models: Annotated[str, typer.Option(help="Names that `vidette models` prints, with commas between.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs. [dim]\\[runs/SOURCE-compared][/dim]")
    ] = None,
    recipe: Annotated[str, typer.Option(help="default, motion, resnet18-rnn, or a TOML file.")] = "default",
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
    from vidette.models import MODELS, model_options
    from vidette.training.compare import compare as compare_models
    from vidette.training.recipe import named_recipe
    from vidette.training.run import fitted_recipe

    names = [name.strip() for name in models.split(",") if name.strip()]
    for name in names:
        if name not in MODELS:
            raise SettingError(unknown_name("model", name, MODELS))
    if len(set(names)) < len(names):
        raise SettingError(f"--models {models} names a model twice")
    given = given_options(options)
    if "model" in given:
        raise SettingError("--model is for vidette train; name the models to compare with --models")
    start = named_recipe(recipe)
    of_models = {option for name in MODELS for option in model_options(name)}
    recipes: dict[str, Recipe] = {}
    for name in names:
        known = model_options(name)
        taken = {key: value for key, value in given.items() if key not in of_models or key in known}
        recipes[name] = fitted_recipe(source, start, {**taken, "model": name})
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
    for name in ("comparison.csv", "comparison.png"):
        _out.print(str(folder / name), markup=False, highlight=False, soft_wrap=True)


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
            _share(row.accuracy) + _interval(row),
            "" if row.auc is None else f"{row.auc:.2f}",
            _share(row.frame_accuracy),
            "" if row.order_gap is None else f"{row.order_gap:+.1%}",
            f"{row.parameters / 1e6:.1f} M",
            f"{row.gflops:.1f}",
            f"{row.clip_ms:.0f}",
            "-" if row.frame_ms is None else f"{row.frame_ms:.1f}",
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _interval(row: ComparedModel) -> str:
    if row.accuracy_low is None or row.accuracy_high is None:
        return ""
    return f" ({100 * row.accuracy_low:.0f}-{100 * row.accuracy_high:.0f})"
