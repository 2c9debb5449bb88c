"""The commands ``vidette prepare`` and ``vidette export``: labelled clips written in another form."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console

if TYPE_CHECKING:
    from vidette.data.manifest import Manifest
    from vidette.data.prepared import Prepared

__all__ = [
    "ClassesFile",
    "FramesFps",
    "GroupFrom",
    "LayoutOption",
    "SplitNumber",
    "Stream",
    "Videos",
    "export",
    "prepare",
    "read_source",
]

_err = Console(stderr=True)
_out = Console()

GroupFrom = Annotated[
    str | None, typer.Option(help="Regular expression on the path; its first group names the clip's group.")
]
LayoutOption = Annotated[
    str | None,
    typer.Option("--layout", help="hmdb51, kinetics, list, ... [dim]\\[recognised where plain][/dim]"),
]
SplitNumber = Annotated[int, typer.Option(help="Official split of HMDB51 or UCF101.", min=1)]
FramesFps = Annotated[float | None, typer.Option(help="Frames a second of folders of frames.")]
ClassesFile = Annotated[Path | None, typer.Option(help="Names of an annotation list's labels.")]
Videos = Annotated[Path | None, typer.Option(help="Folder of the videos, if elsewhere.")]
Stream = Annotated[int, typer.Option(help="Which of a file's video streams, from 0.", min=0)]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
_Source = Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")]


def read_source(
    source: Path,
    *,
    layout: str | None,
    split_number: int,
    frames_fps: float | None,
    classes_file: Path | None,
    videos: Path | None,
    stream: int,
    group_from: str | None,
    min_classes: int = 1,
) -> Manifest:
    """Read labelled clips as the layout options say."""
    from vidette.data.layouts import LayoutOptions, read_layout

    options = LayoutOptions(
        split_number=split_number, fps=frames_fps, classes_file=classes_file, videos=videos, stream=stream
    )
    return read_layout(source, layout=layout, options=options, group_from=group_from, min_classes=min_classes)


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
        Literal["stretch", "crop", "pad"], typer.Option(help="How a picture comes to the size.")
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
    layout: LayoutOption = None,
    split_number: SplitNumber = 1,
    frames_fps: FramesFps = None,
    classes_file: ClassesFile = None,
    videos: Videos = None,
    stream: Stream = 0,
    group_from: GroupFrom = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
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
    manifest = read_source(
        source,
        layout=layout,
        split_number=split_number,
        frames_fps=frames_fps,
        classes_file=classes_file,
        videos=videos,
        stream=stream,
        group_from=group_from,
    )
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
    layout: LayoutOption = None,
    split_number: SplitNumber = 1,
    frames_fps: FramesFps = None,
    classes_file: ClassesFile = None,
    videos: Videos = None,
    group_from: GroupFrom = None,
    as_json: _Json = False,
) -> None:
    """Write labelled clips in another layout: annotation files, and links to the videos."""
    from vidette.data.export import write_layout

    manifest = read_source(
        source,
        layout=layout,
        split_number=split_number,
        frames_fps=frames_fps,
        classes_file=classes_file,
        videos=videos,
        stream=0,
        group_from=group_from,
    )
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
