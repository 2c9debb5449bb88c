"""The command ``vidette diagnose``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from vidette.cli_options import layout_options, takes_source_options
from vidette.errors import OutputExistsError, SettingError

if TYPE_CHECKING:
    from vidette.classifier.declared import DeclaredInput
    from vidette.diagnosis.findings import Diagnosis, Finding
    from vidette.diagnosis.material import Material
    from vidette.diagnosis.report import Section
    from vidette.diagnosis.subject import Subject
    from vidette.video.clip import ClipSpec

__all__ = ["diagnose"]

_err = Console(stderr=True)
_out = Console()
_STYLES = {"fault": "bold red", "warning": "bold yellow", "note": "bold blue"}
_LIVE_FPS = 15.0


@takes_source_options
def diagnose(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[CLASSIFIER] SOURCE",
            help="A run, classifier folder or 'imagenet' (left out with --model); then a video, a folder, "
            "labelled clips, class folders of pictures, or a live source.",
        ),
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(help="A network of your own: FILE.keras, FILE.pt (TorchScript), or module:function."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Clips that it was trained on, or is right on; labelled ones help most.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="With --model: class names in the order of the scores, one a line.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Of tensors by name: timm:NAME or torchvision:NAME.")
    ] = None,
    takes: Annotated[
        Literal["NTCHW", "NCTHW", "NTHWC", "NCHW", "NHWC"] | None,
        typer.Option(help="Order of the network's axes. [dim]\\[found by trying][/dim]"),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="With --model: frames a clip.", min=1, max=1024)] = None,
    fps: Annotated[float | None, typer.Option(help="With --model: frames a second.")] = None,
    size: Annotated[str | None, typer.Option(help="With --model: pixels, as 64 or 64x96.")] = None,
    value_range: Annotated[
        Literal["0..1", "-1..1", "0..255", "imagenet", "caffe"] | None,
        typer.Option("--range", help="With --model: what a pixel becomes at present."),
    ] = None,
    clips: Annotated[int, typer.Option(help="Look at so many clips at most.", min=4, max=200)] = 32,
    duration_seconds: Annotated[float, typer.Option(help="How long to watch a live source.", min=1.0)] = 30.0,
    report: Annotated[Path | None, typer.Option(help="Also write a report, a new HTML file.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw of clips.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    **options: Any,
) -> None:
    """Say why a classifier is wrong on clips: the cause, the evidence, the repair."""
    from vidette.cli_view import progress_bar
    from vidette.diagnosis.run import diagnose as run

    if report and report.exists() and not overwrite:
        raise OutputExistsError(f"{report} exists; choose another name, or replace it with --overwrite")
    target, source = _target_and_source(arguments, model)
    declared = _declared(frames, fps, size, value_range, given=model is not None)
    subject = _subject(target, model, source, classes, declared, architecture, takes, options)
    material = _material(source, subject.spec, clips, seed, duration_seconds, options)
    known = (
        None
        if reference is None
        else _material(str(reference), subject.spec, clips, seed, duration_seconds, options, split="train")
    )
    with progress_bar(_err, "trying alternatives") as on_progress:
        found = run(subject, material, reference=known, pictures=report is not None, on_progress=on_progress)
    if report:
        from vidette.diagnosis.report import write_diagnosis_report

        sections = [] if model else _sections(target, Path(source), stream=options["stream"])
        write_diagnosis_report(report, found, sections=sections, overwrite=overwrite)
        _err.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")
    else:
        _show(found)


def _target_and_source(arguments: list[str], model: str | None) -> tuple[str, str]:
    wanted = 1 if model else 2
    if len(arguments) != wanted:
        how = "SOURCE" if model else "CLASSIFIER SOURCE, or --model MODEL SOURCE"
        raise SettingError(f"{len(arguments)} arguments ({' '.join(arguments)}); expected {how}")
    return ("", arguments[0]) if model else (arguments[0], arguments[1])


def _declared(
    frames: int | None, fps: float | None, size: str | None, value_range: Any, *, given: bool
) -> DeclaredInput | None:
    from vidette.classifier.declared import DeclaredInput

    if not given:
        if any(value is not None for value in (frames, fps, size, value_range)):
            raise SettingError(
                "--frames, --fps, --size and --range go with --model; a classifier has its own spec"
            )
        return None
    return DeclaredInput(num_frames=frames, fps=fps, size=_height_and_width(size), values=value_range)


def _height_and_width(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", size.lower(), flags=re.ASCII)
    if found is None:
        raise SettingError(f"--size is {size!r}; expected pixels such as 64, or height x width such as 64x96")
    return int(found[1]), int(found[2] or found[1])


def _subject(
    target: str,
    model: str | None,
    source: str,
    classes: Path | None,
    declared: DeclaredInput | None,
    architecture: str | None,
    takes: Any,
    options: dict[str, Any],
) -> Subject:
    if model is None:
        from vidette.classifier.classifier import Classifier
        from vidette.diagnosis.subject import subject_of_classifier

        for name, value in (("--classes", classes), ("--architecture", architecture), ("--takes", takes)):
            if value is not None:
                raise SettingError(f"{name} goes with --model; {target} is a classifier and knows it")
        return subject_of_classifier(Classifier.load(target, runtime="torch"), name=target)
    from vidette.classifier.declared import read_classes
    from vidette.diagnosis.loading import load_subject

    names = read_classes(classes) if classes else _classes_of_source(source, options)
    return load_subject(model, classes=names, declared=declared, architecture=architecture, takes=takes)


def _classes_of_source(source: str, options: dict[str, Any]) -> tuple[str, ...] | None:
    """Take the labels of the source, sorted, for the class names; None without labels."""
    from vidette.diagnosis.material import labels_of

    return labels_of(Path(source), layout=options["layout"], options=layout_options(options))


def _material(
    source: str,
    spec: ClipSpec,
    clips: int,
    seed: int,
    duration_seconds: float,
    options: dict[str, Any],
    *,
    split: str | None = None,
) -> Material:
    from vidette.diagnosis.material import read_material

    if _is_live(source):
        return _watched(source, spec, duration_seconds)
    return read_material(
        Path(source),
        spec,
        most_clips=clips,
        layout=options["layout"],
        options=layout_options(options),
        group_from=options["group_from"],
        split=split,
        seed=seed,
    )


def _sections(target: str, source: Path, *, stream: int) -> list[Section]:
    """Return what the report tells of one video beside the findings: its frames against its windows."""
    from vidette.classifier.classifier import Classifier
    from vidette.diagnosis.frames_against_clips import compare_frames_and_clips
    from vidette.diagnosis.report import picture_section
    from vidette.video.names import VIDEO_ENDINGS

    if not source.is_file() or source.suffix.lower() not in VIDEO_ENDINGS:
        return []
    compared = compare_frames_and_clips(Classifier.load(target), source, stream=stream)
    return [picture_section("Single frames against windows", compared.reading(), compared.picture())]


def _is_live(source: str) -> bool:
    if source == "screen":
        return True
    return (not Path(source).exists() and bool(re.match(r"[a-z0-9+.-]+://", source) or source.isdigit())) or (
        source.startswith("/dev/video")
    )


def _watched(source: str, spec: ClipSpec, duration_seconds: float) -> Material:
    """Watch a live source for a while."""
    from vidette.diagnosis.material import material_of_frames
    from vidette.streaming.base import safe_address
    from vidette.streaming.remote import Patience
    from vidette.streaming.sources import open_source
    from vidette.video.clip import Frame

    opened = open_source(source, patience=Patience(give_up_seconds=duration_seconds))
    kept: list[Frame] = []
    for shown in opened.frames(spec, _unheard):
        if not kept or shown.seconds - kept[-1].seconds >= 1 / _LIVE_FPS:
            kept.append(Frame(shown.pixels, shown.seconds, len(kept)))
        if shown.seconds > duration_seconds:
            break
    return material_of_frames(safe_address(source), kept, spec)


def _unheard(kind: str, text: str) -> None:
    del kind, text


def _show(found: Diagnosis) -> None:
    if found.healthy:
        _out.print("healthy: nothing was found that makes its answers wrong", style="bold green")
    for number, finding in enumerate(found.findings, start=1):
        _show_finding(number, finding)
    for name, value in found.facts.items():
        _out.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True, style="dim")
    for note in found.notes:
        _err.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _show_finding(number: int, finding: Finding) -> None:
    line = Text(f"{number}. {finding.severity}: ", style=_STYLES[finding.severity])
    line.append(finding.title, style="bold")
    _out.print(line, soft_wrap=True)
    told = f"  explains {finding.explains:.0%}, sure by {finding.confidence:.0%}"
    if finding.symptom_of:
        told += f"; follows from {', '.join(finding.symptom_of)}"
    _out.print(told, markup=False, highlight=False, soft_wrap=True, style="dim")
    for text in finding.evidence:
        _out.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)
    _out.print(f"  Cause: {finding.cause}", markup=False, highlight=False, soft_wrap=True)
    _out.print(f"  Do: {finding.repair}", markup=False, highlight=False, soft_wrap=True)
