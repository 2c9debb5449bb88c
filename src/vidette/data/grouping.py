"""Which clips belong together, read from their paths."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vidette.data.folder import some
from vidette.errors import ManifestError

if TYPE_CHECKING:
    from vidette.data.manifest import LabelledClip, Manifest

__all__ = ["with_groups"]

_LISTED = 10


def with_groups(manifest: Manifest, folder: Path, group_from: str) -> Manifest:
    """Take the groups from the paths, relative to ``folder`` where they lie below it.

    Raises:
        ManifestError: ``group_from`` is no regular expression, or a path has no match.
    """
    try:
        pattern = re.compile(group_from)
    except re.error as error:
        raise ManifestError(f"group_from {group_from!r} is no regular expression: {error}") from error
    clips: list[LabelledClip] = []
    without: list[str] = []
    for clip in manifest.clips:
        path = (clip.path.relative_to(folder) if clip.path.is_relative_to(folder) else clip.path).as_posix()
        match = pattern.search(path)
        group = match and (match.group(1) if pattern.groups else match.group(0))
        clips.append(dataclasses.replace(clip, group=group or None))
        without += [] if group else [path]
    if without:
        got = f"group_from {group_from!r} finds no group in {len(without)} of {len(clips)} paths"
        raise ManifestError(f"{manifest.source}: {got}: {some(without, _LISTED)}; widen the expression")
    replaced = any(clip.group for clip in manifest.clips)
    notes = ["groups come from group_from, not from the source"] if replaced else []
    return dataclasses.replace(manifest, clips=tuple(clips), notes=(*manifest.notes, *notes))
