"""Labelled clips in the layouts that people have them in, recognised or named.

===========  =====================================================================================
folders      ``<class>/**/<video>``, or below ``train|val|test``
csv, tsv     a table with ``path,label`` (or a folder with a ``manifest.csv``)
hmdb51       ``<class>_test_split1.txt`` files and the videos
ucf101       ``trainlist01.txt``, ``testlist01.txt``, ``classInd.txt`` and the videos
kinetics     CSVs ``label,youtube_id,time_start,time_end,split`` and the videos that were downloaded
something    Something-Something: JSON lists of ``id`` and ``template``, ``labels.json``, the videos
list         lines ``path label`` with integer labels, and a file of class names
frames       ``<class>/<clip>/00001.jpg``, with a frame rate
===========  =====================================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vidette.data.folder import class_folders, scan_folder
from vidette.data.grouping import with_groups
from vidette.data.layout_annotations import is_kinetics, is_something, read_kinetics, read_something
from vidette.data.layout_benchmarks import is_hmdb51, is_ucf101, read_hmdb51, read_ucf101
from vidette.data.layout_files import LayoutOptions, table_columns, visible_walk
from vidette.data.layout_lists import is_frames, is_list, read_frames, read_list
from vidette.data.manifest import LabelledClip, Manifest, read_manifest
from vidette.data.prepared import DESCRIPTION
from vidette.errors import ManifestError, SettingError, unknown_name
from vidette.video.names import VIDEO_ENDINGS

__all__ = ["LAYOUTS", "Layout", "LayoutName", "LayoutOptions", "read_layout", "recognise"]

LayoutName = Literal["folders", "csv", "tsv", "hmdb51", "ucf101", "kinetics", "something", "list", "frames"]
_WITHOUT_ANNOTATIONS = frozenset({"folders", "frames"})
_PLAIN = frozenset({"folders", "csv"})
_LISTED = 10


@dataclass(frozen=True)
class Layout:
    """One way of laying out labelled clips.

    Attributes:
        fits: Tells by a few names whether a source is laid out so.
        read: Reads it.
    """

    fits: Callable[[Path], bool]
    read: Callable[[Path, LayoutOptions], Manifest]


def read_layout(
    source: str | Path,
    *,
    layout: LayoutName | str | None = None,
    options: LayoutOptions | None = None,
    group_from: str | None = None,
    min_classes: int = 2,
) -> Manifest:
    """Read labelled clips in any of :data:`LAYOUTS`.

    Args:
        source: A folder, or one annotation file.
        layout: Its layout; recognised by default, which a note of the manifest tells.
        options: What the files do not say.
        group_from: Regular expression searched in every path (with ``/``, relative to the source); its first
            capture group, or else the whole match, names the clip's group, in place of the layout's own.
        min_classes: Fewer classes are an error; 1 for clips that are only to be scored.

    Raises:
        ManifestError: Anything is wrong, every fault being listed; or the layout is not plain.
        SettingError: The layout is unknown (names the nearest), or an option out of range.
    """
    source, options = Path(source), options or LayoutOptions()
    is_prepared = (source / DESCRIPTION).is_file()
    name = recognise(source) if layout is None and not is_prepared else layout
    if name is None or (layout is None and name in _PLAIN):
        _check_kind(source)
        plain = read_manifest(source, group_from=group_from, min_classes=min_classes)
        return _with_stream(plain, options.stream)
    if name not in LAYOUTS:
        raise SettingError(unknown_name("layout", name, LAYOUTS))
    if not source.exists():
        raise ManifestError(
            f"{source}: there is no such folder or file; give the one that is laid out as {name}"
        )
    manifest = _with_stream(LAYOUTS[name].read(source, options), options.stream)
    if layout is None:
        note = f"{source}: recognised as layout {name}"
        manifest = dataclasses.replace(manifest, notes=(note, *manifest.notes))
    if group_from is not None:
        place = options.videos or source
        manifest = with_groups(manifest, place if place.is_dir() else place.parent, group_from)
    if len(manifest.classes) < min_classes:
        raise ManifestError(_too_few_classes(manifest, min_classes))
    return manifest


def _with_stream(manifest: Manifest, stream: int) -> Manifest:
    if not stream:
        return manifest
    clips = (dataclasses.replace(clip, stream=stream) for clip in manifest.clips)
    return dataclasses.replace(manifest, clips=tuple(clips))


def recognise(source: Path) -> LayoutName | None:
    """Return the layout that a source is in by its files' names; None where none fits.

    Annotations win over the plain folders that they are about.

    Raises:
        ManifestError: Several layouts fit; names them.
    """
    found = _fitting(source) if source.exists() else []
    annotated: list[LayoutName] = [name for name in found if name not in _WITHOUT_ANNOTATIONS]
    candidates: list[LayoutName] = annotated or found
    if len(candidates) > 1:
        raise ManifestError(
            f"{source}: fits {len(candidates)} layouts ({', '.join(candidates)}); say which one with --layout"
        )
    return candidates[0] if candidates else None


def _fitting(source: Path) -> list[LayoutName]:
    names: tuple[LayoutName, ...] = get_args(LayoutName)
    return [name for name in names if LAYOUTS[name].fits(source)]


def _check_kind(source: Path) -> None:
    """Refuse files that no layout knows, with what would be one."""
    if source.is_file() and source.suffix.lower() in (".txt", ".json"):
        raise ManifestError(
            f"{source}: is no list of clips that is known; expected lines 'path label' with integer labels, or "
            f"a JSON list of id and label; or name its layout with --layout ({', '.join(LAYOUTS)})"
        )


def _too_few_classes(manifest: Manifest, min_classes: int) -> str:
    got = f"{len(manifest.classes)} class ({', '.join(manifest.classes)}, {len(manifest.clips)} clips)"
    expected = f"expected at least {min_classes} classes to tell apart"
    return f"{manifest.source}: holds {got}; {expected}; add clips of another class"


def _is_folders(source: Path) -> bool:
    return source.is_dir() and any(
        Path(name).suffix.lower() in VIDEO_ENDINGS
        for label in class_folders(source)
        for _, _, names in visible_walk(source / label)
        for name in names
    )


def _read_folders(source: Path, _: LayoutOptions) -> Manifest:
    if not source.is_dir():
        raise ManifestError(f"{source}: is a file; expected a folder <class>/<video>")
    scan = scan_folder(source)
    clips = tuple(LabelledClip(video.path, video.label, split=video.split) for video in scan.videos)
    classes = tuple(sorted({clip.label for clip in clips}))
    return Manifest(source, clips, classes, notes=scan.notes, warnings=scan.warnings)


def _table_fits(ending: str) -> Callable[[Path], bool]:
    def fits(source: Path) -> bool:
        table = source / f"manifest{ending}" if source.is_dir() else source
        return table.is_file() and table.suffix.lower() == ending and "path" in table_columns(table)

    return fits


def _table_read(ending: str) -> Callable[[Path, LayoutOptions], Manifest]:
    def read(source: Path, _: LayoutOptions) -> Manifest:
        table = source / f"manifest{ending}" if source.is_dir() else source
        if not table.is_file():
            raise ManifestError(f"{source}: holds no {table.name}; name the table itself")
        return read_manifest(table, min_classes=1)

    return read


LAYOUTS: Mapping[str, Layout] = {
    "folders": Layout(_is_folders, _read_folders),
    "csv": Layout(_table_fits(".csv"), _table_read(".csv")),
    "tsv": Layout(_table_fits(".tsv"), _table_read(".tsv")),
    "hmdb51": Layout(is_hmdb51, read_hmdb51),
    "ucf101": Layout(is_ucf101, read_ucf101),
    "kinetics": Layout(is_kinetics, read_kinetics),
    "something": Layout(is_something, read_something),
    "list": Layout(is_list, read_list),
    "frames": Layout(is_frames, read_frames),
}
"""What can be read, by name."""
