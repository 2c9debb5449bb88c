"""What a diagnosis looks at: clips of a source, cut by the declared spec and, on demand, otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vidette.data.cache import open_labelled
from vidette.data.layouts import LayoutOptions, read_layout
from vidette.data.manifest import LabelledClip
from vidette.errors import (
    EmptyVideoError,
    ManifestError,
    MissingVideoError,
    SettingError,
    UnreadableVideoError,
    VideoError,
)
from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.motion_crop import clip_pixels
from vidette.video.names import VIDEO_ENDINGS, find_videos, natural_key
from vidette.video.reader import open_video
from vidette.video.sampling import pick_frames
from vidette.video.transforms import FrameResizer

__all__ = ["Material", "has_labels", "labels_of", "material_of_clips", "material_of_frames", "read_material"]

Recutter = Callable[[ClipSpec, float, Sequence[int]], "list[Clip] | None"]

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
_LEAST_CLASSES = 2


@dataclass(frozen=True, eq=False)
class Material:
    """Clips to look at.

    Attributes:
        name: For people.
        clips: N clips, cut by the subject's spec.
        names: N, for people.
        label_names: N labels; empty where there are none.
        recut: Cuts some of the clips by another spec, their time stretched by a factor; None where it cannot.
        in_time: Whether the clips follow each other in one video, so that a change has a time.
        unreadable: What could not be read, and why.
        stills: Whether these are single pictures.
    """

    name: str
    clips: tuple[Clip, ...]
    names: tuple[str, ...]
    label_names: tuple[str, ...] = ()
    recut: Recutter | None = None
    in_time: bool = False
    unreadable: tuple[str, ...] = ()
    stills: bool = False

    def __repr__(self) -> str:
        kind = "labelled " if self.label_names else ""
        return f"Material({len(self.clips)} {kind}clips of {self.name})"

    def labels(self, classes: Sequence[str]) -> np.ndarray | None:
        """Return int ``(N,)``, -1 for a label that is no class; None without labels."""
        if not self.label_names:
            return None
        places = {name: i for i, name in enumerate(classes)}
        return np.array([places.get(label, -1) for label in self.label_names])


def material_of_clips(
    clips: Sequence[Clip],
    *,
    labels: Sequence[str] = (),
    name: str = "clips",
    recut: Recutter | None = None,
    in_time: bool = False,
) -> Material:
    """Return clips that are already cut."""
    names = tuple(f"clip {i}" for i in range(len(clips)))
    return Material(name, tuple(clips), names, tuple(labels), recut, in_time)


def has_labels(source: Path) -> bool:
    """Tell whether a source holds labelled clips: a table, or two or more class folders."""
    if source.is_file():
        return source.suffix.lower() in (".csv", ".json", ".jsonl", ".tsv")
    if not source.is_dir():
        return False
    return (
        _is_stills(source)
        or (source / "manifest.csv").is_file()
        or len(_class_folders(source)) >= _LEAST_CLASSES
    )


def _class_folders(source: Path) -> list[Path]:
    folders = [path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [f for f in folders if any(p.suffix.lower() in VIDEO_ENDINGS or p.is_dir() for p in f.iterdir())]


def _pictures_by_class(source: Path) -> list[tuple[Path, str]]:
    """Return single pictures in class folders: ``<class>/<name>.jpg``."""
    folders = sorted((p for p in source.iterdir() if p.is_dir()), key=lambda p: natural_key(p.name))
    return [
        (path, folder.name)
        for folder in folders
        for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name))
        if path.suffix.lower() in _PICTURES
    ]


def _is_stills(source: Path) -> bool:
    return len({label for _, label in _pictures_by_class(source)}) >= _LEAST_CLASSES


def read_material(
    source: Path,
    spec: ClipSpec,
    *,
    most_clips: int = 32,
    layout: str | None = None,
    options: LayoutOptions | None = None,
    group_from: str | None = None,
    split: str | None = None,
    seed: int = 0,
) -> Material:
    """Read a video, a folder of videos, labelled clips, or class folders of single pictures.

    Of labelled clips as many of each class are taken, drawn at random; of one video, windows spread over it.

    Args:
        source: A file or folder.
        spec: To cut by.
        most_clips: More are not looked at.
        layout: Of labelled clips; recognised by default.
        options: What the files do not say.
        group_from: As :func:`vidette.data.layouts.read_layout` takes it.
        split: Only clips of this split, where the source has one.
        seed: Of the draw.

    Raises:
        VideoError: There is no such file, or no video in it can be read.
        ManifestError: The labelled clips are unusable.
    """
    if not source.exists():
        raise MissingVideoError(source, "there is no such file or folder")
    if layout is None and source.is_dir() and _is_stills(source):
        return _stills_material(source, spec, most_clips, seed)
    if layout is not None or has_labels(source):
        manifest = read_layout(source, layout=layout, options=options, group_from=group_from, min_classes=1)
        clips = [c for c in manifest.clips if split is None or c.split in (split, None)] or list(manifest.clips)
        chosen = [clips[i] for i in _balanced([clip.label for clip in clips], most_clips, seed)]
        return _material(str(source), chosen, spec, labelled=True)
    videos = find_videos([source])
    if len(videos) == 1:
        return _video_material(videos[0], spec, most_clips)
    chosen = [LabelledClip(videos[i], "") for i in _spread(len(videos), most_clips)]
    return _material(str(source), chosen, spec, labelled=False)


def labels_of(
    source: Path, *, layout: str | None = None, options: LayoutOptions | None = None
) -> tuple[str, ...] | None:
    """Return the distinct labels of a source, sorted; None where its clips have none."""
    if not source.exists() or not (layout is not None or has_labels(source)):
        return None
    if layout is None and source.is_dir() and _is_stills(source):
        return tuple(sorted({label for _, label in _pictures_by_class(source)}))
    return read_layout(source, layout=layout, options=options, min_classes=1).classes


def _balanced(labels: Sequence[str], most: int, seed: int) -> list[int]:
    """Return positions, as many of each label as there are, drawn in turn."""
    generator = np.random.default_rng(seed)
    queues = {label: [i for i, given in enumerate(labels) if given == label] for label in sorted(set(labels))}
    for queue in queues.values():
        generator.shuffle(queue)
    chosen: list[int] = []
    while len(chosen) < most and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < most:
                chosen.append(queue.pop())
    return sorted(chosen)


def _spread(total: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()


def _material(name: str, chosen: Sequence[LabelledClip], spec: ClipSpec, *, labelled: bool) -> Material:
    clips, kept, faults = list[Clip](), list[LabelledClip](), list[str]()
    for labelled_clip in chosen:
        try:
            clips.append(_cut(labelled_clip, spec, 1.0))
            kept.append(labelled_clip)
        except VideoError as error:
            faults.append(str(error))
    if not clips:
        raise UnreadableVideoError(
            name, f"none of its {len(chosen)} videos can be read; the first: {faults[0]}"
        )

    def recut(other: ClipSpec, stretch: float, places: Sequence[int]) -> list[Clip] | None:
        try:
            return [_cut(kept[i], other, stretch) for i in places]
        except (VideoError, SettingError):
            return None

    labels = tuple(clip.label for clip in kept) if labelled else ()
    names = tuple(clip.name for clip in kept)
    return Material(name, tuple(clips), names, labels, recut, unreadable=tuple(faults))


def _cut(clip: LabelledClip, spec: ClipSpec, stretch: float) -> Clip:
    """Cut a clip about its middle, ``stretch`` times as long; what lies outside its file is not there."""
    with open_labelled(clip) as video:
        start, stop = clip.start_seconds, clip.stop_seconds
        if stretch == 1.0 and spec.fps is None:
            return video.clip(spec, start_seconds=start, stop_seconds=stop)
        seconds = video.frame_seconds()
        first = float(seconds[0]) if start is None else start
        last = float(seconds[-1]) if stop is None else stop
        if spec.fps is not None:
            wanted = stretch * (spec.num_frames - 1) / spec.fps
            spec = _with_rate(spec, spec.fps / stretch)
        else:
            wanted = stretch * (last - first)
        middle = (first + last) / 2
        begin = max(float(seconds[0]), middle - wanted / 2)
        end = min(float(seconds[-1]), begin + wanted)
        frames_of_one = 1.5 * (float(seconds[-1]) / max(1, len(seconds) - 1))
        return video.clip(spec, start_seconds=begin, stop_seconds=max(end, begin + frames_of_one))


def _with_rate(spec: ClipSpec, fps: float) -> ClipSpec:
    import dataclasses

    return dataclasses.replace(spec, fps=fps)


def _video_material(path: Path, spec: ClipSpec, most_clips: int) -> Material:
    """Cut one video into windows that follow each other."""
    with open_video(path) as video:
        seconds = video.frame_seconds()
    total = float(seconds[-1])
    period = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.04
    span = spec.span_seconds if spec.span_seconds else (total if spec.num_frames > 1 else 0.0)
    if spec.num_frames > 1 and spec.span_seconds is None:
        span = min(total, max(min(2.0, total / 4), (spec.num_frames - 1) * period))
    room = max(0.0, total - span)
    count = 1 if room == 0 else min(most_clips, max(2, int(room / max(span / 2, 0.25)) + 1))
    starts = np.linspace(0, room, count)
    parts = [
        LabelledClip(path, "", start_seconds=float(s), stop_seconds=float(s + max(span, 1.5 * period)))
        for s in starts
    ]
    made = _material(str(path), parts, spec, labelled=False)
    return Material(made.name, made.clips, made.names, (), made.recut, True, made.unreadable)


def _stills_material(source: Path, spec: ClipSpec, most_clips: int, seed: int) -> Material:
    """Read single pictures, each as a clip that stands still."""
    found = _pictures_by_class(source)
    chosen = [found[i] for i in _balanced([label for _, label in found], most_clips, seed)]

    def cut(other: ClipSpec, stretch: float, places: Sequence[int]) -> list[Clip]:
        del stretch
        resizer = FrameResizer(other)
        return [_still(chosen[i][0], other, resizer) for i in places]

    clips = cut(spec, 1.0, range(len(chosen)))
    names, labels = tuple(path.as_posix() for path, _ in chosen), tuple(label for _, label in chosen)
    return Material(str(source), tuple(clips), names, labels, cut, stills=True)


def _still(path: Path, spec: ClipSpec, resizer: FrameResizer) -> Clip:
    try:
        with Image.open(path) as picture:
            pixels = clip_pixels([resizer(np.asarray(picture.convert("RGB")))], spec)
    except (OSError, UnidentifiedImageError) as error:
        raise ManifestError(f"{path}: the picture cannot be read ({error}); take it out") from error
    return Clip(np.repeat(pixels, spec.num_frames, axis=0), np.zeros(spec.num_frames))


def material_of_frames(name: str, frames: Sequence[Frame], spec: ClipSpec, *, most_clips: int = 24) -> Material:
    """Cut pictures that were collected from a live source into clips that follow each other.

    Args:
        name: For people.
        frames: In order, as the spec's resizer gives them.
        spec: To cut by.
        most_clips: At most so many.

    Raises:
        EmptyVideoError: There is no picture.
    """
    if not frames:
        raise EmptyVideoError(name, "the source gave no picture; see that it is running")
    seconds = np.array([frame.seconds for frame in frames])
    total = float(seconds[-1] - seconds[0])
    span = min(total, spec.span_seconds or 2.0) if spec.num_frames > 1 else 0.0
    count = int(np.clip(2 * total / max(span, 0.5), 1, most_clips))
    clips: list[Clip] = []
    for start in np.linspace(seconds[0], seconds[0] + max(0.0, total - span), count):
        wanted = np.linspace(start, start + span, spec.num_frames)
        chosen = pick_frames(seconds, wanted)
        clips.append(Clip(clip_pixels([frames[i].pixels for i in chosen], spec), seconds[chosen]))
    names = tuple(f"{name} at {clip.seconds[0]:.1f} s" for clip in clips)
    return Material(name, tuple(clips), names, in_time=True)
