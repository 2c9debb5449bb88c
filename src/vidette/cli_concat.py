"""The command ``vidette concat``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from vidette.cli_options import read_source, takes_source_options

__all__ = ["concat"]

_err = Console(stderr=True)
_out = Console()


@takes_source_options
def concat(
    source: Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")],
    *,
    out: Annotated[Path, typer.Option(help="The video to write, .mp4; its truth lies beside it as .csv.")],
    rest_label: Annotated[
        str | None, typer.Option(help="The class in which nothing goes on: its clips lie between the others.")
    ] = None,
    rest_seconds: Annotated[
        float, typer.Option(help="How long the last picture is held where no such clip parts two events.")
    ] = 1.0,
    only_group: Annotated[
        list[str] | None, typer.Option(help="Take the clips of this group; give it again for more.")
    ] = None,
    only_split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Take the clips of this set, where the source names one (split.csv of a run does)."),
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames a second of the video.")] = 25.0,
    height: Annotated[int | None, typer.Option(help="Rows. [dim]\\[the first clip's][/dim]")] = None,
    width: Annotated[int | None, typer.Option(help="Columns. [dim]\\[the first clip's][/dim]")] = None,
    resize: Annotated[
        Literal["stretch", "crop", "pad"], typer.Option(help="How a picture comes to the size.")
    ] = "stretch",
    order: Annotated[Literal["shuffled", "given"], typer.Option(help="Of the clips.")] = "shuffled",
    seed: Annotated[int, typer.Option(help="Seed of the shuffling.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    **options: Any,
) -> None:
    """Join labelled clips into one untrimmed video, with its truth beside it."""
    from vidette.cli_view import progress_bar
    from vidette.data.concat import ConcatPlan, chosen_clips, concatenate

    plan = ConcatPlan(
        fps=fps,
        height=height,
        width=width,
        resize=resize,
        rest_label=rest_label,
        rest_seconds=rest_seconds,
        seed=seed if order == "shuffled" else None,
    )
    manifest = read_source(source, options)
    for line in (*manifest.notes, *manifest.warnings):
        _err.print(line, markup=False, highlight=False, soft_wrap=True)
    clips = chosen_clips(manifest, groups=only_group, split=only_split)
    with progress_bar(_err, "joining clips") as on_progress:
        made = concatenate(clips, out, plan, overwrite=overwrite, on_progress=on_progress)
    if as_json:
        facts = {"video": str(made.video), "truth": str(made.truth), "num_clips": len(clips)}
        facts |= {"num_events": made.num_events, "seconds": made.seconds}
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    text = (
        f"{len(clips)} clips, {made.num_events} events, {made.seconds:.1f} s: {made.video}, truth: {made.truth}"
    )
    _out.print(text, markup=False, highlight=False, soft_wrap=True)
