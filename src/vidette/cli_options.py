"""Every value of a recipe as an option of the command line."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from vidette.errors import SettingError
from vidette.training.recipe import SECTIONS

__all__ = ["folds_option", "given_options", "takes_recipe_options"]

_TITLES = {
    "source": "Source: how the labelled clips are laid out",
    "clip": "Clip: how a video becomes the model's input",
    "model": "Model",
    "split": "Split: what is for training, validation and test",
    "augment": "Augmentation",
    "train": "Training",
}


def takes_recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which takes ``**options``, a signature that names every value of a recipe."""
    own = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD
    ]
    added = [
        _parameter(section, field) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)
    ]
    parameters = [*own, *added]
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def folds_option(folds: str | None, leave_one_group_out: bool) -> Any:
    """Return how to cross-validate: the name of a way, a number of folds, or None.

    Raises:
        SettingError: Both ways are asked for, or the number is none.
    """
    if leave_one_group_out and folds:
        raise SettingError("--folds and --leave-one-group-out are two ways to cross-validate; give one")
    if leave_one_group_out:
        return "leave_one_group_out"
    if folds is None or folds == "column":
        return folds
    if not folds.isdigit() or int(folds) < 2:
        raise SettingError(f"--folds is {folds!r}; expected a whole number from 2, or 'column'")
    return int(folds)


def _parameter(section: str, field: dataclasses.Field[Any]) -> inspect.Parameter:
    hints = typing.get_type_hints(SECTIONS[section], include_extras=True)
    hinted = hints[field.name]
    kind, about = typing.get_args(hinted)[:2]
    default = getattr(field.default, "default", field.default)
    shown = "the model's own" if default is None and section == "model" else _shown(default)
    flag = f"--{field.name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind in (bool, bool | None) else flag,
        help=f"{about.description} [dim]\\[{shown}][/dim]",
        rich_help_panel=_TITLES[section],
        show_default=False,
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return "none" if default is None else f"{default}"
