"""Before training: what in the clips or their split would make a score a lie, with evidence and what to do."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidette.data.audit_checks import (
    Known,
    check_classes,
    check_duplicates,
    check_given_groups,
    check_leak,
    check_pictures,
    check_shortcuts,
    merged_groups,
)
from vidette.data.audit_findings import Finding, listed
from vidette.data.audit_labels import check_labels
from vidette.data.audit_looks import ClipLook, read_looks
from vidette.data.audit_scenes import find_scenes
from vidette.data.audit_shortcuts import CLIP_BACKGROUND, Shortcut, measure_shortcuts
from vidette.data.cache import ClipCache, open_labelled
from vidette.data.manifest import LabelledClip, Manifest, write_manifest
from vidette.data.split import Split
from vidette.errors import ManifestError, OutputExistsError, VideoError
from vidette.video.reader import VideoInfo

__all__ = ["AuditReport", "audit", "write_groups"]

_ORDER = ("alarm", "warning", "note")


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        source: The folder or CSV.
        findings: Worst first.
        known: The readable clips, their scenes and looks; findings refer to them by position.
        shortcuts: How well each property alone predicts the label, harmless ones included.
        unreadable: Clips that could not be read, each with its reason.
        notes: What was measured beside the findings, and what could not be.
    """

    source: Path
    findings: tuple[Finding, ...]
    known: Known
    shortcuts: tuple[Shortcut, ...]
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def finding(self, name: str) -> Finding | None:
        """Return the finding of a name, None if there is none."""
        return next((finding for finding in self.findings if finding.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; undefined numbers are None."""
        scenes = [
            {"clips": [self.known.clips[i].name for i in self.known.scenes.members(scene)]}
            for scene in range(self.known.scenes.num_scenes)
        ]
        return {
            "source": str(self.source),
            "num_clips": len(self.known.clips),
            "split": self.known.split_name or None,
            "findings": [_named(finding, self.known.clips) for finding in self.findings],
            "shortcuts": [_plain(dataclasses.asdict(shortcut)) for shortcut in self.shortcuts],
            "scenes": scenes,
            "unreadable": list(self.unreadable),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        counts = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{counts[name]} {name}s" for name in _ORDER)
        return f"AuditReport({len(self.known.clips)} clips, {self.known.scenes.num_scenes} scenes: {found})"


def _named(finding: Finding, clips: Sequence[LabelledClip]) -> dict[str, Any]:
    values = finding.to_dict()
    for example in values["examples"]:
        example["clips"] = [clips[i].name for i in example["clips"]]
    return values


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}


def audit(
    manifest: Manifest,
    split: Split | None = None,
    *,
    cache: ClipCache | None = None,
    span_seconds: float | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Look for what would make a score on these clips a lie.

    Scenes are found from pictures alone; groups that the manifest gives are only compared with them, and kept
    whole where properties are tried on held-out clips.

    Args:
        manifest: The clips.
        split: The division to check for leaks; None checks none.
        cache: Where decoded clips and what was seen of them are kept; the user's cache by default.
        span_seconds: Length of a clip that training would take; None calls clips short that are under half the
            median.
        seed: Seed of folds, models and resampling.
        on_progress: Called with (clips done, clips in all).

    Raises:
        ManifestError: No clip can be read.
        StorageError: The disk is full.
    """
    known, unreadable = _learn(manifest, split, cache or ClipCache(), on_progress)
    labels, note = check_labels(known, seed=seed)
    shortcuts = measure_shortcuts(
        known.clips, known.infos, known.looks, known.scenes.scene_of, known.groups, seed=seed
    )
    findings = [
        *check_leak(known),
        *check_duplicates(known),
        *check_shortcuts(shortcuts),
        *check_classes(known),
        *labels,
        *check_pictures(known, span_seconds=span_seconds),
        *check_given_groups(known),
        *_unreadable(unreadable, len(manifest.clips)),
    ]
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    notes = (_scene_note(known), *_background_notes(shortcuts), note)
    return AuditReport(manifest.source, tuple(findings), known, shortcuts, tuple(unreadable), notes)


def _learn(
    manifest: Manifest,
    split: Split | None,
    cache: ClipCache,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Known, list[str]]:
    looks, faults = read_looks(manifest.clips, cache, on_progress=on_progress)
    infos = [_info(clip) if look else None for clip, look in zip(manifest.clips, looks, strict=True)]
    kept = [i for i, (look, info) in enumerate(zip(looks, infos, strict=True)) if look and info]
    if not kept:
        raise ManifestError(
            f"{manifest.source}: none of {len(manifest.clips)} clips can be read: {listed(faults)}"
        )
    clips = tuple(manifest.clips[i] for i in kept)
    seen: tuple[ClipLook, ...] = tuple(look for i in kept if (look := looks[i]))
    facts: tuple[VideoInfo, ...] = tuple(info for i in kept if (info := infos[i]))
    scenes = find_scenes(seen)
    sides = _sides(split, len(manifest.clips))[kept] if split else None
    name = split.name if split else ""
    return Known(clips, facts, seen, scenes, merged_groups(clips, scenes), sides, name), faults


def _info(clip: LabelledClip) -> VideoInfo | None:
    try:
        with open_labelled(clip) as video:
            return video.info
    except VideoError:
        return None


def _sides(split: Split, num_clips: int) -> np.ndarray:
    sides = np.full(num_clips, "", dtype="<U10")
    for name in ("train", "validation", "test"):
        sides[list(getattr(split, name))] = name
    return sides


def _scene_note(known: Known) -> str:
    sizes = np.bincount(known.scenes.scene_of)
    shared = int(sizes[sizes > 1].sum())
    return (
        f"{len(known.clips)} clips show {known.scenes.num_scenes} scenes: {shared} clips share theirs with "
        f"another, the largest scene has {int(sizes.max())} clips."
    )


def _background_notes(shortcuts: Sequence[Shortcut]) -> list[str]:
    """Say what the background picture gives away, which may be who stands still in it."""
    found = [s for s in shortcuts if s.name == CLIP_BACKGROUND]
    return [f"The {s.name} alone tells the label: {s.text()}." for s in found if s.low > 0.5]


def _unreadable(faults: Sequence[str], n: int) -> list[Finding]:
    if not faults:
        return []
    return [
        Finding(
            "unreadable_clips",
            "warning",
            f"{len(faults)} of {n} clips cannot be read and were left out.",
            tuple(faults[:10]) + ((f"and {len(faults) - 10} more",) if len(faults) > 10 else ()),
            "Repair them or take them out.",
        )
    ]


def write_groups(report: AuditReport, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the found scenes as a manifest: ``path,label,group``, for training with a grouped split.

    Parts of one file get one group. Clips that could not be read are left out.

    Args:
        report: What was found.
        path: The CSV.
        overwrite: Replace a file that is there.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: The place cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path} exists; choose another name for the groups, or replace it with --overwrite"
        )
    clips = [dataclasses.replace(clip, group=None, split=None, fold=None) for clip in report.known.clips]
    groups = merged_groups(clips, report.known.scenes)
    _, numbers = np.unique(groups, return_inverse=True)
    width = len(str(len(clips)))
    named = tuple(
        dataclasses.replace(clip, group=f"scene-{number:0{width}d}")
        for clip, number in zip(clips, numbers.tolist(), strict=True)
    )
    classes = tuple(sorted({clip.label for clip in named}))
    write_manifest(Manifest(report.source, named, classes), path)
    return path
