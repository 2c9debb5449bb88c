"""An audit as one self-contained HTML page, with pictures."""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from vidette.data.audit import AuditReport
from vidette.data.audit_findings import Example
from vidette.data.audit_looks import LOOK_SPEC
from vidette.data.cache import ClipCache
from vidette.errors import VideoError
from vidette.video.writer import replacing

__all__ = ["write_audit_report"]

_HEIGHT, _WIDEST = 110, 240
_MOST_SCENES, _MOST_IN_SCENE = 16, 5
_MOMENTS = (0, 7, 15)


def write_audit_report(
    report: AuditReport, path: str | Path, *, cache: ClipCache | None = None, overwrite: bool = False
) -> Path:
    """Write the page; it refers to nothing outside itself.

    Args:
        report: What was found.
        path: The HTML file.
        cache: Where the clips' frames are; the user's cache by default.
        overwrite: Replace a file that is there.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: The place cannot be written.
    """
    pictures = _Pictures(report, cache or ClipCache())
    page = _template().render(
        report=report,
        num_clips=len(report.known.clips),
        classes=sorted(set(report.known.labels.tolist())),
        cards=[
            {"finding": finding, "examples": [pictures.example(example) for example in finding.examples]}
            for finding in report.findings
        ],
        scenes=_scenes(report, pictures),
        num_shared=int((np.bincount(report.known.scenes.scene_of) > 1).sum()),
    )
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["place"] = lambda value: f"{100 * min(max(float(value), 0.0), 1.0):.1f}%"
    text = resources.files("vidette.data").joinpath("audit.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def _scenes(report: AuditReport, pictures: _Pictures) -> list[dict[str, Any]]:
    """The scenes of most clips, largest first."""
    known = report.known
    sizes = np.bincount(known.scenes.scene_of)
    largest = [int(i) for i in np.argsort(-sizes, kind="stable")[:_MOST_SCENES] if sizes[i] > 1]
    rows: list[dict[str, Any]] = []
    for scene in largest:
        inside = known.scenes.members(scene)
        labels, counts = np.unique(known.labels[inside], return_counts=True)
        spread = np.linspace(0, len(inside) - 1, min(_MOST_IN_SCENE, len(inside))).round().astype(int)
        text = ", ".join(f"{n} {label}" for label, n in zip(labels, counts, strict=True))
        rows.append(
            {"text": text, "n": len(inside), "images": [pictures.background(inside[i]) for i in spread]}
        )
    return rows


class _Pictures:
    """Pictures of clips, at the shape that the clips are shown in."""

    def __init__(self, report: AuditReport, cache: ClipCache) -> None:
        self.known = report.known
        self.cache = cache

    def example(self, example: Example) -> dict[str, Any]:
        """A row of clips: one picture each, or three moments of a single one."""
        moments = _MOMENTS if len(example.clips) == 1 else _MOMENTS[1:2]
        clips = [{"images": self.frames(i, moments), **self._words(i)} for i in example.clips]
        return {"caption": example.caption, "clips": clips}

    def _words(self, index: int) -> dict[str, str]:
        clip, sides = self.known.clips[index], self.known.sides
        return {
            "name": clip.name,
            "short": clip.name.rsplit("/", 1)[-1],
            "label": clip.label,
            "side": str(sides[index]) if sides is not None else "",
        }

    def frames(self, index: int, moments: tuple[int, ...]) -> list[str]:
        """Frames of a clip as data addresses; its background where the clip can no longer be read."""
        try:
            pixels = self.cache.load(self.known.clips[index], LOOK_SPEC).pixels
        except VideoError:
            return [self.background(index)]
        return [self._uri(index, pixels[moment]) for moment in moments]

    def background(self, index: int) -> str:
        """The background of a clip as a data address."""
        return self._uri(index, self.known.looks[index].background)

    def _uri(self, index: int, pixels: np.ndarray) -> str:
        info = self.known.infos[index]
        width = int(np.clip(round(_HEIGHT * info.width / info.height), 40, _WIDEST))
        buffer = io.BytesIO()
        picture = Image.fromarray(pixels).resize((width, _HEIGHT), Image.Resampling.BILINEAR)
        picture.save(buffer, "JPEG", quality=80)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
