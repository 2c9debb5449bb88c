"""A folder of prepared clips: what is in it, and whether it is all there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidette.data.folder import some
from vidette.errors import ManifestError
from vidette.video.shards import Encoding, KeptFrames

__all__ = ["DESCRIPTION", "FORMAT", "Prepared", "find_prepared", "read_description", "read_prepared"]

DESCRIPTION = "prepared.json"
FORMAT = 1
_LISTED = 10


@dataclass(frozen=True)
class Prepared:
    """What is in a folder of prepared clips.

    Attributes:
        folder: Its place; :func:`vidette.data.manifest.read_manifest` reads it.
        kept: Which frames are there.
        encoding: How they are written.
        num_clips: Clips that are there.
        num_written: Of these, written now.
        num_bytes: Size of the shards.
        skipped: Clips left out, each with its reason.
        damaged: Clips that lost frames, each with how many.
    """

    folder: Path
    kept: KeptFrames
    encoding: Encoding
    num_clips: int
    num_written: int
    num_bytes: int
    skipped: tuple[str, ...]
    damaged: tuple[str, ...]

    def warnings(self) -> tuple[str, ...]:
        """Return a line for what was left out and one for what lost frames, where there is any."""
        lines: list[str] = []
        if self.skipped:
            lines.append(
                f"{len(self.skipped)} clips were left out when prepared: {some(self.skipped, _LISTED)}"
            )
        if self.damaged:
            lines.append(f"{len(self.damaged)} clips lost frames: {some(self.damaged, _LISTED)}")
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def find_prepared(source: str | Path) -> Prepared | None:
    """Return what a source holds if it is a folder of prepared clips; else None.

    Raises:
        ManifestError: It is one, but unfinished or damaged.
    """
    folder = Path(source)
    return read_prepared(folder) if (folder / DESCRIPTION).is_file() else None


def read_prepared(folder: Path) -> Prepared:
    """Read the description of a folder of prepared clips.

    Raises:
        ManifestError: It is absent, damaged or of another version, or the preparation was not finished.
    """
    values = read_description(folder)
    if not values["complete"]:
        raise ManifestError(
            f"{folder}: preparing these clips was not finished; run the same vidette prepare again to go on"
        )
    try:
        return Prepared(
            folder=folder,
            kept=KeptFrames(**values["kept"]),
            encoding=values["encoding"],
            num_clips=values["num_clips"],
            num_written=0,
            num_bytes=values["num_bytes"],
            skipped=tuple(values["skipped"]),
            damaged=tuple(values["damaged"]),
        )
    except (KeyError, TypeError) as error:
        raise _damaged(folder, error) from error


def read_description(folder: Path) -> dict[str, Any]:
    """Return the values of a description, finished or not.

    Raises:
        ManifestError: It is absent, damaged or of another version.
    """
    try:
        values = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ManifestError(
                f"{folder}: prepared by another version (format {values['format']}, this one reads {FORMAT});"
                " run vidette prepare again"
            )
        return {"complete": False, "shards": [], **values}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> ManifestError:
    return ManifestError(f"{folder / DESCRIPTION}: cannot be read ({error}); run vidette prepare again")
