"""A manifest written out in one of the layouts: annotation files, and links to the videos."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidette.data.faults import Faults
from vidette.data.folder import SPLIT_NAMES, some
from vidette.data.layout_benchmarks import hmdb51_group, ucf101_group
from vidette.data.layouts import LAYOUTS, LayoutName
from vidette.data.manifest import LabelledClip, Manifest, write_manifest
from vidette.errors import OutputExistsError, SettingError, StorageError, unknown_name
from vidette.video.names import VIDEO_ENDINGS, natural_key

__all__ = ["Export", "write_layout"]

Link = Literal["symlink", "hardlink", "copy"]
_NUMBERS = {"train": "1", "test": "2", None: "0"}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: Where it is; :func:`vidette.data.layouts.read_layout` reads it with ``layout``.
        layout: Its layout.
        num_clips: How many clips it holds.
        lost: What the layout cannot hold and reading it back will not give.
    """

    folder: Path
    layout: LayoutName
    num_clips: int
    lost: tuple[str, ...]


@dataclass
class _Tree:
    """Files to write, by their place in the folder: texts, and videos that they refer to."""

    texts: dict[str, str] = field(default_factory=dict[str, str])
    videos: dict[str, Path] = field(default_factory=dict[str, Path])
    lost: list[str] = field(default_factory=list[str])
    taken: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def place(self, folder: str, stem: str, clip: LabelledClip, *, fold_case: bool = True) -> str:
        """Give a video a name that is free in a folder whatever its ending; return it without ending."""
        ending = "" if clip.path.is_dir() else clip.path.suffix
        free, number = stem, 1
        while (key := (folder, free.casefold() if fold_case else free)) in self.taken:
            number += 1
            free = f"{stem}_{number}"
        self.taken.add(key)
        self.videos[f"{folder}/{free}{ending}"] = Path(os.path.abspath(clip.path))
        return free


def write_layout(
    manifest: Manifest, folder: str | Path, *, layout: LayoutName, link: Link = "symlink"
) -> Export:
    """Write a manifest's clips in a layout, so that reading it gives the same clips.

    ``csv``, ``tsv`` and ``list`` name the videos where they are; the other layouts hold links to them. All is
    written under a temporary name and renamed when complete.

    Args:
        manifest: The clips.
        folder: A new folder.
        layout: One of :data:`vidette.data.layouts.LAYOUTS`.
        link: How videos come into the folder: symbolic links, hard links (one disk), or copies.

    Raises:
        OutputExistsError: The folder is there already.
        ManifestError: The layout cannot hold these clips (parts of a video, a validation set); lists why.
        SettingError: The layout or the kind of link is unknown.
        StorageError: The place cannot be written.
    """
    folder = Path(folder)
    if layout not in _WRITERS:
        raise SettingError(unknown_name("layout", layout, LAYOUTS))
    if link not in _LINKS:
        raise SettingError(unknown_name("link", link, _LINKS))
    if folder.exists() or folder.is_symlink():
        raise OutputExistsError(f"{folder}: is there already; name a new folder")
    _check(manifest, layout)
    tree = _Tree()
    _WRITERS[layout](manifest, tree)
    _write(tree, folder, manifest, layout, link)
    return Export(folder, layout, len(manifest), tuple(tree.lost))


def _check(manifest: Manifest, layout: LayoutName) -> None:
    """Refuse what the layout cannot hold without changing what a clip shows or which side it is on."""
    faults = Faults()
    for clip in manifest.clips:
        is_part = clip.start_seconds is not None or clip.stop_seconds is not None
        if is_part and layout not in ("csv", "tsv"):
            faults.add(f"part of a video, which {layout} cannot hold (csv can)", clip.name)
        if clip.path.is_dir() and layout not in ("csv", "tsv", "list", "frames"):
            faults.add(f"folder of frames, which {layout} cannot hold (frames and csv can)", clip.name)
        if not clip.path.is_dir() and layout == "frames":
            faults.add("video, where frames holds folders of pictures", clip.name)
        is_found = clip.path.is_dir() or clip.path.suffix.lower() in VIDEO_ENDINGS
        if not is_found and layout not in ("csv", "tsv", "list"):
            faults.add(f"ending that reading {layout} passes over (csv and list can hold it)", clip.name)
        if not clip.path.exists():
            faults.add("absent video", clip.name)
        if layout in ("hmdb51", "ucf101") and clip.split not in ("train", "test"):
            got = f"split {clip.split!r}" if clip.split else "no split"
            faults.add(f"{got}, where {layout} holds train and test", clip.name)
    for label in manifest.classes:
        if layout in ("folders", "frames", "hmdb51", "ucf101") and not re.fullmatch(r"[^./\\][^/\\]*", label):
            faults.add("label that cannot name a folder", repr(label))
        if layout in ("list", "something") and (label != label.strip() or re.search(r"[\[\]\n]", label)):
            faults.add(f"label that {layout} cannot hold", repr(label))
    faults.raise_any(manifest.source)


def _splits(manifest: Manifest, tree: _Tree) -> bool:
    """Tell whether every clip has a split; note what is lost where only some have."""
    given = sum(clip.split is not None for clip in manifest.clips)
    if 0 < given < len(manifest):
        tree.lost.append(f"the split of {given} clips: {len(manifest) - given} others have none")
    return given == len(manifest)


def _lose_groups(manifest: Manifest, tree: _Tree, group_of: Callable[[LabelledClip, int], str | None]) -> None:
    """Note how many groups reading back will not give; ``group_of`` tells what it will give."""
    lost = sum(group_of(clip, i) != clip.group for i, clip in enumerate(manifest.clips))
    if lost:
        tree.lost.append(f"the group of {lost} clips (a csv holds it)")
    folds = sum(clip.fold is not None for clip in manifest.clips)
    if folds:
        tree.lost.append(f"the fold of {folds} clips (a csv holds it)")


def _write_folders(manifest: Manifest, tree: _Tree) -> None:
    by_split = _splits(manifest, tree)
    splits = {clip.split for clip in manifest.clips}
    if by_split and len(splits) == 1:
        by_split = False
        tree.lost.append(f"the split, {splits.pop()!r} for all: one folder alone would be a class")
    if (
        not by_split
        and len(manifest.classes) > 1
        and {c.casefold() for c in manifest.classes} <= SPLIT_NAMES.keys()
    ):
        tree.lost.append("the labels: all are names of splits, and will be read as such")
    for clip in manifest.clips:
        tree.place(f"{clip.split}/{clip.label}" if by_split else clip.label, _stem(clip), clip)
    _lose_groups(manifest, tree, lambda _clip, _i: None)


def _write_table(_: Manifest, __: _Tree) -> None:
    """Nothing to link: the table is written with its columns by ``_write``."""


def _write_hmdb51(manifest: Manifest, tree: _Tree) -> None:
    lines: dict[str, list[str]] = {}
    read_back: list[str | None] = []
    for clip in manifest.clips:
        stem = _stem(clip)
        if clip.group and hmdb51_group(stem, clip.label) != clip.group:
            stem = f"{clip.group}_{clip.label}_{stem}".replace("/", "-")
            stem = stem if hmdb51_group(stem, clip.label) == clip.group else f"{clip.group}_{clip.label}_clip"
        stem = tree.place(f"videos/{clip.label}", stem.replace("/", "-"), clip)
        read_back.append(hmdb51_group(stem, clip.label))
        lines.setdefault(clip.label, []).append(f"{stem}{clip.path.suffix} {_NUMBERS[clip.split]}")
    for label, entries in lines.items():
        tree.texts[f"splits/{label}_test_split1.txt"] = _joined(entries)
    _lose_groups(manifest, tree, lambda _clip, i: read_back[i])


def _write_ucf101(manifest: Manifest, tree: _Tree) -> None:
    number_of = {label: i for i, label in enumerate(manifest.classes, start=1)}
    lists: dict[str, list[str]] = {"train": [], "test": []}
    read_back: list[str | None] = []
    stems = _ucf101_stems(manifest)
    for clip, stem in zip(manifest.clips, stems, strict=True):
        name = tree.place(f"videos/{clip.label}", stem, clip) + clip.path.suffix
        number = f" {number_of[clip.label]}" if clip.split == "train" else ""
        lists[clip.split or "train"].append(f"{clip.label}/{name}{number}")
        read_back.append(ucf101_group(stem, clip.label))
    for split, entries in lists.items():
        tree.texts[f"splits/{split}list01.txt"] = _joined(entries)
    tree.texts["splits/classInd.txt"] = _joined([f"{number} {label}" for label, number in number_of.items()])
    across = _groups_across_classes(manifest)
    if across:
        tree.lost.append(
            f"that {len(across)} groups span classes ({some(across, 3)}): UCF101 numbers the groups of each "
            "class, so a split by group of what is written would leak"
        )
    _lose_groups(manifest, tree, lambda _clip, i: read_back[i])


def _ucf101_stems(manifest: Manifest) -> list[str]:
    """Return the clips' own names where these tell the groups, else ``v_<class>_g01_c01`` made up."""
    own = [_stem(clip) for clip in manifest.clips]
    if all(ucf101_group(stem, c.label) == c.group for stem, c in zip(own, manifest.clips, strict=True)):
        return own
    groups: dict[str, list[str]] = {}
    for i, clip in sorted(
        enumerate(manifest.clips), key=lambda entry: natural_key(manifest.group_of(entry[0]))
    ):
        known = groups.setdefault(clip.label, [])
        known += [manifest.group_of(i)] if manifest.group_of(i) not in known else []
    counted: Counter[tuple[str, int]] = Counter()
    stems: list[str] = []
    for i, clip in enumerate(manifest.clips):
        group = groups[clip.label].index(manifest.group_of(i)) + 1
        counted[clip.label, group] += 1
        stems.append(f"v_{clip.label}_g{group:02d}_c{counted[clip.label, group]:02d}")
    return stems


def _groups_across_classes(manifest: Manifest) -> list[str]:
    labels: dict[str, set[str]] = {}
    for i, clip in enumerate(manifest.clips):
        labels.setdefault(manifest.group_of(i), set()).add(clip.label)
    return [group for group, members in labels.items() if len(members) > 1]


def _write_kinetics(manifest: Manifest, tree: _Tree) -> None:
    by_split = _splits(manifest, tree)
    rows: list[tuple[str, ...]] = [("label", "youtube_id", "time_start", "time_end", "split")]
    read_back: list[str | None] = []
    for clip in manifest.clips:
        named = re.fullmatch(r"(.+)_(\d{6})_(\d{6})", _stem(clip))
        stem = tree.place("videos", _stem(clip), clip, fold_case=False)
        times = (str(int(named[2])), str(int(named[3]))) if named and stem == _stem(clip) else ("", "")
        video = named[1] if named and times[0] else stem
        read_back.append(video)
        rows.append((clip.label, video, *times, _kinetics_split(clip) if by_split else ""))
    tree.texts["clips.csv"] = _table(rows, ",")
    _lose_groups(manifest, tree, lambda _clip, i: read_back[i])


def _kinetics_split(clip: LabelledClip) -> str:
    return "val" if clip.split == "validation" else clip.split or ""


def _write_something(manifest: Manifest, tree: _Tree) -> None:
    by_split = _splits(manifest, tree)
    lists: dict[str, list[dict[str, str]]] = {}
    for clip in manifest.clips:
        stem = tree.place("videos", _stem(clip), clip)
        name = clip.split if by_split and clip.split else "clips"
        lists.setdefault(name, []).append({"id": stem, "label": clip.label, "template": clip.label})
    for name, entries in lists.items():
        tree.texts[f"{name}.json"] = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
    numbers = {label: str(i) for i, label in enumerate(manifest.classes)}
    tree.texts["labels.json"] = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    _lose_groups(manifest, tree, lambda _clip, _i: None)


def _write_list(manifest: Manifest, tree: _Tree) -> None:
    by_split = _splits(manifest, tree)
    number_of = {label: i for i, label in enumerate(manifest.classes)}
    lists: dict[str, list[str]] = {}
    for clip in manifest.clips:
        name = f"{clip.split}_list" if by_split else "list"
        path = Path(os.path.abspath(clip.path)).as_posix()
        lists.setdefault(name, []).append(f"{path} {number_of[clip.label]}")
    tree.texts |= {f"{name}.txt": _joined(entries) for name, entries in lists.items()}
    tree.texts["label_map.txt"] = _joined(list(manifest.classes))
    _lose_groups(manifest, tree, lambda _clip, _i: None)


_WRITERS: Mapping[str, Callable[[Manifest, _Tree], None]] = {
    "folders": _write_folders,
    "csv": _write_table,
    "tsv": _write_table,
    "hmdb51": _write_hmdb51,
    "ucf101": _write_ucf101,
    "kinetics": _write_kinetics,
    "something": _write_something,
    "list": _write_list,
    "frames": _write_folders,
}


def _stem(clip: LabelledClip) -> str:
    return clip.path.name if clip.path.is_dir() else clip.path.stem


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _table(rows: list[tuple[str, ...]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _symlink(source: Path, place: Path) -> None:
    place.symlink_to(source, target_is_directory=source.is_dir())


def _hardlink(source: Path, place: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, place, copy_function=os.link)
    else:
        os.link(source.resolve(), place)


def _copy(source: Path, place: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copyfile(source, place)


_LINKS: Mapping[str, Callable[[Path, Path], None]] = {"symlink": _symlink, "hardlink": _hardlink, "copy": _copy}


def _write(tree: _Tree, folder: Path, manifest: Manifest, layout: LayoutName, link: Link) -> None:
    """Write everything beside the folder's place, then give it its name."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        for name, text in tree.texts.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8")
        for name, video in tree.videos.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _LINKS[link](video, partial / name)
        if layout in ("csv", "tsv"):
            _write_manifest(manifest, partial, layout)
        partial.rename(folder)
    except OSError as error:
        other = "" if link == "copy" else "; where links are not allowed, use link='copy'"
        raise StorageError(f"{folder}: cannot be written ({error.strerror or error}){other}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_manifest(manifest: Manifest, folder: Path, layout: LayoutName) -> None:
    table = folder / "manifest.csv"
    write_manifest(manifest, table)
    if layout == "tsv":
        with table.open(encoding="utf-8", newline="") as file:
            rows = [tuple(row) for row in csv.reader(file)]
        (folder / "manifest.tsv").write_text(_table(rows, "\t"), encoding="utf-8")
        table.unlink()
