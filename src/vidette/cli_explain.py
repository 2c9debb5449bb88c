"""The command ``vidette explain``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from vidette.cli_options import read_source, takes_source_options
from vidette.errors import OutputExistsError

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.diagnosis.attribution import Explanation
    from vidette.diagnosis.feature_space import FeatureSpace
    from vidette.diagnosis.frames_against_clips import FramesAgainstClips

__all__ = ["explain"]

_err = Console(stderr=True)
_out = Console()
_FRAMES, _SHEET, _VIDEO = "frames_against_clips.png", "contact_sheet.png", "overlay.mp4"
_SPACE = "feature_space.png"
_ALIKE = 0.5


@takes_source_options
def explain(
    classifier: Annotated[Path, typer.Argument(help="A run folder, a classifier folder, or 'imagenet'.")],
    paths: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    *,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("explained"),
    label: Annotated[
        str | None, typer.Option(help="Ask what speaks for this class. [dim]\\[the video's answer][/dim]")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Training clips, to show the videos among them.")
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device name, for example cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    **options: Any,
) -> None:
    """Show why a video is answered as it is: frames against clips, where, when, and among training clips."""
    from vidette.classifier.classifier import Classifier
    from vidette.video.names import find_videos

    videos = list(find_videos(paths))
    folders = _folders(out, videos)
    wanted = [folder / name for folder in folders for name in (_FRAMES, _SHEET, _VIDEO)]
    _check_free([*wanted, *([out / _SPACE] if reference else [])], overwrite=overwrite)
    manifest = read_source(reference, options) if reference else None
    loaded = Classifier.load(classifier, runtime="torch", device=device)
    told: list[dict[str, Any]] = []
    for path, folder in zip(videos, folders, strict=True):
        told.append(_explain_video(loaded, path, folder, label=label, stream=options["stream"], quiet=as_json))
    space = None
    if manifest:
        space = _place(loaded, manifest.clips, videos, stream=options["stream"])
        _write(out / _SPACE, space.picture().image)
        told_lines = space.reading()
        if not as_json:
            _say(told_lines)
    if as_json:
        whole = {"videos": told, "feature_space": space.to_dict() if space else None}
        sys.stdout.write(json.dumps(whole, indent=2, allow_nan=False) + "\n")
    for path in [*wanted, *([out / _SPACE] if reference else [])]:
        _err.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


def _explain_video(
    classifier: Classifier, path: Path, folder: Path, *, label: str | None, stream: int, quiet: bool
) -> dict[str, Any]:
    """Explain one video: write its pictures, say what they show, and return it as plain values."""
    from vidette.diagnosis.attribution import explain_clip
    from vidette.diagnosis.explained_clips import clips_to_explain
    from vidette.diagnosis.frames_against_clips import compare_frames_and_clips
    from vidette.diagnosis.map_sanity import map_similarity_when_randomised
    from vidette.diagnosis.overlay import contact_sheet, write_overlay

    compared = compare_frames_and_clips(classifier, path, stream=stream)
    asked = label or compared.whole.label
    clips = clips_to_explain(classifier, compared.whole, label=asked, stream=stream)
    explained = [explain_clip(classifier, clip, label=asked) for clip in clips]
    alike = None
    if explained[0].maps is not None:
        alike = map_similarity_when_randomised(classifier, clips[0], label=asked)
    _write(folder / _FRAMES, compared.picture().image)
    _write(folder / _SHEET, contact_sheet(explained).image)
    write_overlay(folder / _VIDEO, explained, overwrite=True)
    if not quiet:
        _show(path, compared, explained, alike)
    return {
        **compared.to_dict(),
        "asked": asked,
        "clips": [part.to_dict() for part in explained],
        "map_similarity_when_randomised": None if alike is None else round(alike, 4),
    }


def _show(path: Path, compared: FramesAgainstClips, explained: list[Explanation], alike: float | None) -> None:
    _out.print(str(path), style="bold", markup=False, highlight=False, soft_wrap=True)
    _say(compared.reading())
    shown = explained if len(explained[0].clip.pixels) > 1 else [max(explained, key=lambda e: e.probability)]
    for part in shown:
        first, last = part.clip.seconds[[0, -1]]
        when = f"{first:.2f} s" if first == last else f"{first:.2f} to {last:.2f} s"
        told = f"At {when}, {part.label} {part.probability:.2f}. "
        _say([f"{told}{line}" if len(explained) > 1 else line for line in part.reading()])
    if alike is not None:
        how = "they hardly change: do not trust them" if alike > _ALIKE else "they change, as they should"
        _say([f"Check: with the weights shuffled, the maps correlate by {alike:.2f} with these; {how}."])


def _say(lines: Any) -> None:
    for line in lines:
        _out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _place(classifier: Classifier, training: Any, paths: list[Path], *, stream: int) -> FeatureSpace:
    """Place the videos among training clips."""
    from vidette.cli_view import progress_bar
    from vidette.data.cache import ClipCache
    from vidette.diagnosis.explained_clips import middle_clip
    from vidette.diagnosis.feature_space import feature_space, reference_clips

    chosen = reference_clips(training)
    clips = [middle_clip(classifier, path, stream=stream) for path in paths]
    names = [path.as_posix() for path in paths]
    with progress_bar(_err, "training clips") as on_progress:
        return feature_space(classifier, chosen, clips, names=names, cache=ClipCache(), on_progress=on_progress)


def _folders(out: Path, paths: list[Path]) -> list[Path]:
    """Return where each video's pictures go: ``out`` itself for one, a folder named after each for several."""
    if len(paths) == 1:
        return [out]
    names: list[str] = []
    for path in paths:
        same = sum(name == path.stem or name.startswith(f"{path.stem}-") for name in names)
        names.append(path.stem if path.stem not in names else f"{path.stem}-{same + 1}")
    return [out / name for name in names]


def _check_free(paths: list[Path], *, overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputExistsError(f"{there[0]} exists; choose another --out, or replace it with --overwrite")


def _write(path: Path, data: bytes) -> None:
    from vidette.video.writer import replacing

    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(data)
