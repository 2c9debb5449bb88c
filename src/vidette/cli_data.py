"""The commands ``vidette prepare`` and ``vidette export``: labelled clips written in another form."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console

from vidette.cli_options import read_source, takes_source_options
from vidette.video.clip import Resize

if TYPE_CHECKING:
    from vidette.data.prepared import Prepared

__all__ = ["export", "prepare"]

_err = Console(stderr=True)
_out = Console()

_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
_Source = Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")]


@takes_source_options
def prepare(
    source: _Source,
    *,
    out: Annotated[Path, typer.Option(help="A new folder for the frames.")],
    num_frames: Annotated[
        int | None, typer.Option(help="Frames spread over each clip. [dim]\\[16][/dim]", min=1, max=1024)
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="All frames at this rate, in place of --num-frames.")
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", min=8, max=4096)] = 224,
    resize: Annotated[
        Resize,
        typer.Option(
            "--resize",
            "--crop",
            help="How a picture comes to the size; motion: kept whole and larger, to be cut around what moves.",
        ),
    ] = "stretch",
    encoding: Annotated[
        Literal["jpeg", "raw"],
        typer.Option("--format", help="jpeg: small; raw: exact, quicker to read."),
    ] = "jpeg",
    quality: Annotated[int, typer.Option(help="Quality of JPEG.", min=1, max=100)] = 95,
    num_workers: Annotated[
        int | None, typer.Option(help="Shards written at once. [dim]\\[one a core][/dim]", min=1)
    ] = None,
    on_damage: Annotated[
        Literal["raise", "skip"], typer.Option(help="A damaged file: leave it out and say so, or stop.")
    ] = "skip",
    overwrite: _Overwrite = False,
    as_json: _Json = False,
    **options: Any,
) -> None:
    """Write the frames of labelled clips once, for many trainings; call it again to go on after a stop."""
    from vidette.cli_view import progress_bar
    from vidette.data.prepare import ShardPlan, prepare_shards
    from vidette.errors import SettingError
    from vidette.video.shards import KeptFrames

    if fps is not None and num_frames is not None:
        raise SettingError("--num-frames and --fps are two ways to choose frames; give one")
    if fps is not None and not 0 < fps < 1000:
        raise SettingError(f"--fps is {fps:g}; expected frames a second, above 0 and below 1000")
    manifest = read_source(source, options)
    kept = KeptFrames(size, size, resize, (num_frames or 16) if fps is None else None, fps)
    plan = ShardPlan(kept, encoding, quality)
    for line in (*manifest.notes, *manifest.warnings):
        _say(line)
    with progress_bar(_err, "preparing clips") as on_progress:
        prepared = prepare_shards(
            manifest,
            out,
            plan,
            num_workers=num_workers,
            on_damage=on_damage,
            overwrite=overwrite,
            on_foreseen=lambda size: _say(f"Frames will take about {size / 1e6:,.0f} MB in {out}."),
            on_progress=on_progress,
        )
    if as_json:
        sys.stdout.write(json.dumps(prepared.to_dict(), indent=2) + "\n")
    else:
        _show(prepared)


def _show(prepared: Prepared) -> None:
    for title, lines in (("left out", prepared.skipped), ("lost frames", prepared.damaged)):
        for line in lines:
            _err.print(f"{title}: {line}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    _out.print(
        f"{prepared.num_clips} clips ready ({prepared.num_written} written now),"
        f" {prepared.num_bytes / 1e6:,.1f} MB in {prepared.folder}; {len(prepared.skipped)} left out,"
        f" {len(prepared.damaged)} with lost frames",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    _out.print(f"train with: vidette train {prepared.folder}", markup=False, highlight=False, soft_wrap=True)


@takes_source_options
def export(
    source: _Source,
    *,
    out: Annotated[Path, typer.Option(help="A new folder for the clips in the other layout.")],
    to: Annotated[
        str, typer.Option(help="folders, csv, tsv, hmdb51, ucf101, kinetics, something, list or frames.")
    ],
    link: Annotated[
        Literal["symlink", "hardlink", "copy"], typer.Option(help="How videos come into the folder.")
    ] = "symlink",
    as_json: _Json = False,
    **options: Any,
) -> None:
    """Write labelled clips in another layout: annotation files, and links to the videos."""
    from vidette.data.export import write_layout

    manifest = read_source(source, options)
    done = write_layout(manifest, out, layout=cast(Any, to), link=link)
    if as_json:
        facts = {"folder": str(done.folder), "layout": done.layout, "num_clips": done.num_clips}
        sys.stdout.write(json.dumps({**facts, "lost": list(done.lost)}, indent=2) + "\n")
        return
    for text in done.lost:
        _err.print(f"not kept: {text}", markup=False, highlight=False, soft_wrap=True, style="yellow")
    _out.print(
        f"{done.num_clips} clips as {done.layout}: {done.folder}", markup=False, highlight=False, soft_wrap=True
    )


def _say(text: str) -> None:
    _err.print(text, markup=False, highlight=False, soft_wrap=True)
