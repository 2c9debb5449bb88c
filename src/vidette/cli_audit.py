"""The command ``vidette audit``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.text import Text

from vidette.cli_options import read_source, takes_source_options
from vidette.errors import OutputExistsError

if TYPE_CHECKING:
    from vidette.data.audit import AuditReport
    from vidette.data.manifest import Manifest
    from vidette.data.split import Split

__all__ = ["audit"]

_err = Console(stderr=True)
_out = Console()
_STYLES = {"alarm": "bold red", "warning": "bold yellow", "note": "bold blue"}


@takes_source_options
def audit(
    source: Annotated[Path, typer.Argument(help="clips/<class>/<video>, a CSV, or another layout.")],
    *,
    split: Annotated[
        Literal["auto", "grouped", "stratified", "column", "none"],
        typer.Option(help="The split to check: the one that training would draw, or none."),
    ] = "auto",
    span_seconds: Annotated[
        float | None, typer.Option(help="Length of a clip in training; shorter ones are listed.", min=0.0)
    ] = None,
    write_groups: Annotated[
        Path | None, typer.Option(help="Write the scenes that were found as a new CSV: path,label,group.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a report, a new HTML file.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the checks.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    **options: Any,
) -> None:
    """Say what in labelled clips would make a score a lie, before training."""
    from vidette.cli_view import progress_bar
    from vidette.data.audit import audit as audit_clips
    from vidette.data.audit import write_groups as write_found
    from vidette.data.audit_report import write_audit_report

    for path in (write_groups, report):
        if path and path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists; choose another name, or replace it with --overwrite")
    manifest = read_source(source, options, min_classes=2)
    divided = _split(manifest, split, seed)
    with progress_bar(_err, "looking at clips") as on_progress:
        found = audit_clips(manifest, divided, span_seconds=span_seconds, seed=seed, on_progress=on_progress)
    if write_groups:
        _said(write_found(found, write_groups, overwrite=overwrite), "groups")
    if report:
        _said(write_audit_report(found, report, overwrite=overwrite), "report")
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")
    else:
        _show(found)


def _split(manifest: Manifest, split: str, seed: int) -> Split | None:
    from vidette.data.split import SplitPlan, split_manifest

    if split == "none":
        return None
    return split_manifest(manifest, SplitPlan(strategy=cast(Any, split), seed=seed))


def _said(path: Path, what: str) -> None:
    _err.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)


def _show(found: AuditReport) -> None:
    for finding in found.findings:
        line = Text(f"{finding.severity}: ", style=_STYLES[finding.severity])
        line.append(finding.title, style="bold")
        _out.print(line, soft_wrap=True)
        for text in finding.evidence:
            _out.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)
        _out.print(f"  Do: {finding.advice}", markup=False, highlight=False, soft_wrap=True, style="dim")
    if not found.findings:
        _out.print("Nothing found.", style="bold green")
    for note in found.notes:
        _out.print(note, markup=False, highlight=False, soft_wrap=True)
