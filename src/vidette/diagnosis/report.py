"""A diagnosis as one self-contained HTML page, for readers who are not experts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from vidette.diagnosis.findings import Diagnosis, Finding, Picture
from vidette.video.writer import replacing

__all__ = ["Section", "picture_section", "write_diagnosis_report"]

_FAMILIES = {
    "input": "what it is shown",
    "time": "time and order",
    "model": "the network",
    "data": "the clips and the training",
}


@dataclass(frozen=True)
class Section:
    """An extra part of the page.

    Attributes:
        title: Heading.
        paragraphs: Plain text.
        images: Pairs of a caption and a picture as a data address (``data:image/png;base64,...``).
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()


def picture_section(title: str, paragraphs: Sequence[str], picture: Picture) -> Section:
    """Return a section with one picture."""
    return Section(title, tuple(paragraphs), (_embedded(picture),))


def write_diagnosis_report(
    path: str | Path, diagnosis: Diagnosis, *, sections: Sequence[Section] = (), overwrite: bool = False
) -> Path:
    """Write the page; it refers to nothing outside itself.

    Args:
        path: The HTML file.
        diagnosis: What to tell.
        sections: What to tell after the findings.
        overwrite: Replace a file that is there.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: The place cannot be written.
    """
    page = _template().render(
        diagnosis=diagnosis,
        verdict=_verdict(diagnosis),
        causes=[_card(f) for f in diagnosis.findings if f.severity != "note" and not f.symptom_of],
        consequences=[_card(f) for f in diagnosis.findings if f.severity != "note" and f.symptom_of],
        remarks=[_card(f) for f in diagnosis.findings if f.severity == "note"],
        sections=sections,
    )
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = _percent
    text = resources.files("vidette.diagnosis").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.0f}%"


def _verdict(diagnosis: Diagnosis) -> str:
    """Say the outcome in one sentence."""
    if diagnosis.healthy:
        return "Healthy: nothing was found that makes its answers wrong."
    return f"{diagnosis.findings[0].title}."


def _embedded(picture: Picture) -> tuple[str, str]:
    return picture.caption, f"data:image/png;base64,{base64.b64encode(picture.image).decode()}"


def _card(finding: Finding) -> dict[str, object]:
    images = [_embedded(picture) for picture in finding.pictures]
    return {"finding": finding, "family": _FAMILIES[finding.family], "images": images}
