"""Every value of a recipe as an option of the command line."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidette.errors import SettingError
from vidette.training.recipe import SECTIONS

if TYPE_CHECKING:
    from vidette.data.layouts import LayoutOptions
    from vidette.data.manifest import Manifest

__all__ = [
    "folds_option",
    "given_options",
    "layout_options",
    "read_source",
    "takes_recipe_options",
    "takes_source_options",
    "with_parameters",
]

_TITLES = {
    "source": "Source: how the labelled clips are laid out",
    "clip": "Clip: how a video becomes the model's input",
    "model": "Model",
    "split": "Split: what is for training, validation and test",
    "augment": "Augmentation",
    "train": "Training",
}

_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {"resize": ("--crop",)}
"""Options that go by another name too: `--crop motion` is `--resize motion`."""

_SOURCE_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "layout": (
        Annotated[
            str | None,
            typer.Option(help="hmdb51, kinetics, list, ... [dim]\\[recognised where plain][/dim]"),
        ],
        None,
    ),
    "split_number": (Annotated[int, typer.Option(help="Official split of HMDB51 or UCF101.", min=1)], 1),
    "frames_fps": (
        Annotated[float | None, typer.Option(help="Frames a second of folders of frames.")],
        None,
    ),
    "classes_file": (Annotated[Path | None, typer.Option(help="Names of an annotation list's labels.")], None),
    "videos": (Annotated[Path | None, typer.Option(help="Folder of the videos, if elsewhere.")], None),
    "group_from": (
        Annotated[
            str | None,
            typer.Option(help="Regular expression on the path; its first group names the clip's group."),
        ],
        None,
    ),
}


def takes_source_options(command: Callable[..., None], *, stream_flag: str = "--stream") -> Callable[..., None]:
    """Give ``command``, which takes ``**options``, the options that say how its labelled clips are laid out.

    ``stream_flag`` names the option that chooses one of a file's video streams.
    """
    chosen = Annotated[int, typer.Option(stream_flag, help="Which of a file's video streams, from 0.", min=0)]
    given = {**_SOURCE_OPTIONS, "stream": (chosen, 0)}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in given.items()
    ]
    return with_parameters(command, added)


def read_source(source: Path, options: Mapping[str, Any], *, min_classes: int = 1) -> Manifest:
    """Read labelled clips as the options of :func:`takes_source_options` say.

    Raises:
        ManifestError: The clips are unusable; every fault is listed.
    """
    from vidette.data.layouts import read_layout

    return read_layout(
        source,
        layout=options["layout"],
        options=layout_options(options),
        group_from=options["group_from"],
        min_classes=min_classes,
    )


def layout_options(options: Mapping[str, Any]) -> LayoutOptions:
    """Return what the options of :func:`takes_source_options` say about a layout."""
    from vidette.data.layouts import LayoutOptions

    return LayoutOptions(
        split_number=options["split_number"],
        fps=options["frames_fps"],
        classes_file=options["classes_file"],
        videos=options["videos"],
        stream=options["stream"],
    )


def takes_recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which takes ``**options``, a signature that names every value of a recipe."""
    added = [
        _parameter(section, field) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)
    ]
    return with_parameters(command, added)


def with_parameters(command: Callable[..., None], added: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Put parameters in the place of a command's ``**options``."""
    given = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*(p for p in given if p.kind is not p.VAR_KEYWORD), *added]
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
        *_OTHER_NAMES.get(field.name, ()),
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
