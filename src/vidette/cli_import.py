"""The command ``vidette import``: a model that others trained becomes a classifier folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from vidette.errors import OutputExistsError, SettingError

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.classifier.declared import DeclaredInput

__all__ = ["import_model"]

_err = Console(stderr=True)
_out = Console()
_KERAS = (".keras", ".h5", ".hdf5")
_TENSORS = (".pth", ".pt", ".safetensors")


def import_model(
    path: Annotated[
        Path, typer.Argument(help="A Keras model (.keras, .h5), or weights (.pth, .pt, .safetensors).")
    ],
    *,
    classes: Annotated[
        Path, typer.Option(help="Text file: class names in the order of the outputs, one a line.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the classifier.")],
    architecture: Annotated[
        str | None, typer.Option(help="What weights are of: timm:NAME or torchvision:NAME.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames a clip. [dim]\\[the model's own; 16 for images][/dim]", min=1, max=1024),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second. [dim]\\[frames spread over the whole clip][/dim]")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Pixels: 64, or height x width as in 64x96. [dim]\\[the model's own][/dim]"),
    ] = None,
    value_range: Annotated[
        Literal["0..1", "-1..1", "0..255", "imagenet", "caffe"] | None,
        typer.Option(
            "--range", help="What a pixel became in training. [dim]\\[Keras: 0..1; weights: imagenet][/dim]"
        ),
    ] = None,
    channel_order: Annotated[
        Literal["RGB", "BGR"] | None, typer.Option(help="Order of the channels. [dim]\\[RGB; caffe: BGR][/dim]")
    ] = None,
    resize: Annotated[
        Literal["stretch", "crop", "pad"], typer.Option(help="How a picture comes to the size.")
    ] = "stretch",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Make a classifier of a Keras model, or of weights of timm or torchvision."""
    from vidette.classifier.declared import DeclaredInput

    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists; choose another folder, or replace it with --overwrite")
    if fps is not None and not 0 < fps < 1000:
        raise SettingError(f"--fps is {fps:g}; expected frames a second, above 0 and below 1000")
    declared = DeclaredInput(
        num_frames=frames,
        fps=fps,
        size=_height_and_width(size),
        values=value_range,
        channel_order=channel_order,
        resize=resize,
    )
    classifier = _imported(path, classes, architecture, declared)
    classifier.save(out, overwrite=overwrite)
    _show(classifier)
    _out.print(f"classifier: {out}", markup=False, highlight=False, soft_wrap=True)


def _height_and_width(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise SettingError(f"--size is {size!r}; expected pixels such as 64, or height x width such as 64x96")
    return int(sides[0]), int(sides[-1])


def _imported(path: Path, classes: Path, architecture: str | None, declared: DeclaredInput) -> Classifier:
    from vidette.classifier.imports import import_keras, import_state_dict

    ending = path.suffix.lower()
    if ending in _KERAS:
        if architecture:
            raise SettingError(
                f"{path} is a Keras file, which says its own architecture; leave --architecture out"
            )
        return import_keras(path, classes, declared=declared)
    if ending not in _TENSORS:
        raise SettingError(f"{path} ends in {ending!r}; expected one of {', '.join((*_KERAS, *_TENSORS))}")
    if architecture is None:
        raise SettingError(
            f"{path} holds tensors by name and not the network; say --architecture, for example timm:resnet18"
        )
    return import_state_dict(path, classes, architecture=architecture, declared=declared)


def _show(classifier: Classifier) -> None:
    """Say what was declared and taken, so that a wrong guess is seen."""
    spec = classifier.spec
    numbers = ", ".join(f"({', '.join(f'{v:.4g}' for v in values)})" for values in (spec.mean, spec.std))
    lines = [
        f"input: {spec!r}, mean and std of pixel / 255: {numbers}",
        f"classes: {', '.join(classifier.classes[:10])}{', ...' if len(classifier.classes) > 10 else ''}",
        *classifier.training_statistics.get("weights", ()),
    ]
    if "outputs" in classifier.model_options:
        lines.append(f"outputs of the model: {classifier.model_options['outputs'].replace('_', ' ')}")
    for line in lines:
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
