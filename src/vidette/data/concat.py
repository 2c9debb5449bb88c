"""Labelled clips joined into one untrimmed video, with the truth beside it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidette.data.cache import open_labelled
from vidette.data.manifest import LabelledClip, Manifest
from vidette.errors import EmptyVideoError, OutputExistsError, SettingError, unknown_name
from vidette.video.clip import ClipSpec
from vidette.video.sampling import TOLERANCE_SECONDS
from vidette.video.writer import replacing, write_video

if TYPE_CHECKING:
    from vidette.video.clip import Resize
    from vidette.video.reader import Video
    from vidette.video.stills import Stills

__all__ = ["ConcatPlan", "Concatenated", "chosen_clips", "concatenate"]

_TRUTH_HEADER = ("start_seconds", "end_seconds", "label")


@dataclass(frozen=True)
class ConcatPlan:
    """How clips become one video.

    Attributes:
        fps: Frames a second of the video; each shows what the clip shows at that time.
        height: Rows of the video; those of the first clip when None.
        width: Columns likewise.
        resize: How pictures of another size come to it, as in a clip spec.
        rest_label: The class in which nothing is going on: its clips are spread between the others, and are
            no events. None: there is none.
        rest_seconds: Where no clip of ``rest_label`` lies between two events, the last picture is held still
            for so long; 0: they follow at once, and neighbours of one label are one event.
        seed: Of the order of the clips; None keeps the order they come in.

    Raises:
        SettingError: A value is out of range.
    """

    fps: float = 25.0
    height: int | None = None
    width: int | None = None
    resize: Resize = "stretch"
    rest_label: str | None = None
    rest_seconds: float = 1.0
    seed: int | None = 0

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 240:
            raise SettingError(f"fps is {self.fps}; expected 1 to 240 frames a second")
        if not 0 <= self.rest_seconds <= 3600:
            raise SettingError(f"rest_seconds is {self.rest_seconds}; expected 0 to 3600")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side is not None and not 16 <= side <= 4320:
                raise SettingError(f"{name} is {side}; expected 16 to 4320 pixels")
        if self.resize not in ("stretch", "crop", "pad"):
            raise SettingError(f"resize is {self.resize!r}; expected stretch, crop or pad")


class Concatenated(NamedTuple):
    """What :func:`concatenate` wrote.

    Attributes:
        video: The file.
        truth: The table beside it: ``start_seconds,end_seconds,label``.
        num_events: Its rows.
        seconds: How long the video lasts.
    """

    video: Path
    truth: Path
    num_events: int
    seconds: float


def concatenate(
    clips: Sequence[LabelledClip],
    out: str | Path,
    plan: ConcatPlan | None = None,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Concatenated:
    """Write clips one after the other into one MP4, and when each event happens into a CSV of the same name.

    One frame is held at a time, whatever the length. Each file appears when it is complete.

    Args:
        clips: What to join; every clip that is not of the rest label is an event.
        out: The video, ``.mp4``; the truth lies beside it as ``.csv``.
        plan: Rate, size, rests and order.
        overwrite: Replace the two files if they are there.
        on_progress: Called with (clips written, clips in all).

    Raises:
        SettingError: There is no event, ``out`` does not end in ``.mp4`` or is one of the clips, or the rest
            label is none of the clips'.
        OutputExistsError: One of the files is there and ``overwrite`` is false.
        VideoError: A clip cannot be read, to its end where it has one; nothing is written.
        StorageError: The place cannot be written or the disk is full.
    """
    plan, out = plan or ConcatPlan(), Path(out)
    truth = out.with_suffix(".csv")
    _check(clips, out, truth, plan, overwrite=overwrite)
    order = _order(clips, plan)
    film = _Film(order, plan, _spec(order, plan), on_progress)
    with replacing(truth, overwrite=overwrite) as temporary:
        write_video(out, film.frames(), fps=plan.fps, overwrite=overwrite)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([_TRUTH_HEADER, *film.rows()])
    return Concatenated(out, truth, len(film.events), film.num_frames / plan.fps)


def chosen_clips(
    manifest: Manifest, *, groups: Sequence[str] | None = None, split: str | None = None
) -> tuple[LabelledClip, ...]:
    """Return the clips of some groups and of one set, all by default, in the manifest's order.

    Raises:
        SettingError: A group is none of the manifest's, or no clip is left.
    """
    known = manifest.groups
    for group in groups or ():
        if group not in known:
            raise SettingError(f"{manifest.source}: {unknown_name('group', group, known)}")
    clips = tuple(
        clip
        for i, clip in enumerate(manifest.clips)
        if (not groups or manifest.group_of(i) in groups) and (split is None or clip.split == split)
    )
    if not clips:
        raise SettingError(f"{manifest.source}: none of {len(manifest)} clips is of the chosen groups and set")
    return clips


def _check(clips: Sequence[LabelledClip], out: Path, truth: Path, plan: ConcatPlan, *, overwrite: bool) -> None:
    if out.suffix.lower() != ".mp4":
        raise SettingError(f"{out} must end in .mp4; got {out.suffix or 'no ending'!r}")
    labels = {clip.label for clip in clips}
    if plan.rest_label is not None and plan.rest_label not in labels:
        raise SettingError(unknown_name("rest label", plan.rest_label, labels))
    if not labels - {plan.rest_label}:
        raise SettingError(f"{len(clips)} clips hold no event; expected clips of a class other than the rest's")
    if out.exists() and any(clip.path.exists() and out.samefile(clip.path) for clip in clips):
        raise SettingError(f"{out} is one of the clips; choose another output")
    for path in (out, truth):
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists already; choose another --out, or add --overwrite")


def _order(clips: Sequence[LabelledClip], plan: ConcatPlan) -> list[LabelledClip]:
    """Return the events in their order with the clips of the rest label spread evenly between them."""
    events = [clip for clip in clips if clip.label != plan.rest_label]
    rests = [clip for clip in clips if clip.label == plan.rest_label]
    if plan.seed is not None:
        rng = np.random.default_rng(plan.seed)
        events = [events[i] for i in rng.permutation(len(events))]
        rests = [rests[i] for i in rng.permutation(len(rests))]
    # Slot i lies before event i, the last one after all: 1, 2, ... are filled before 0, so that a rest that is
    # there parts two events.
    slots = [list[LabelledClip]() for _ in range(len(events) + 1)]
    for i, rest in enumerate(rests):
        slots[(i + 1) % len(slots)].append(rest)
    before = [clip for slot, event in zip(slots, events, strict=False) for clip in (*slot, event)]
    return [*before, *slots[-1]]


def _spec(clips: Sequence[LabelledClip], plan: ConcatPlan) -> ClipSpec:
    height, width = plan.height, plan.width
    if height is None or width is None:
        with open_labelled(clips[0]) as video:
            info = video.info
        height, width = height or info.height, width or info.width
    return ClipSpec(num_frames=1, height=height, width=width, resize=plan.resize)


class _Film:
    """The pictures of all clips in order, counted as they are taken."""

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        plan: ConcatPlan,
        spec: ClipSpec,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.clips, self.plan, self.spec, self.on_progress = clips, plan, spec, on_progress
        self.num_frames = 0
        self.events: list[tuple[int, int, str]] = []

    def frames(self) -> Iterator[np.ndarray]:
        """Yield uint8 ``(H, W, 3)`` pictures."""
        is_event_before = False
        held: np.ndarray | None = None
        for done, clip in enumerate(self.clips, start=1):
            is_event = clip.label != self.plan.rest_label
            if is_event and is_event_before and held is not None:
                for _ in range(round(self.plan.rest_seconds * self.plan.fps)):
                    self.num_frames += 1
                    yield held
            start = self.num_frames
            for held in self._frames_of(clip):
                self.num_frames += 1
                yield held
            if is_event:
                self._add_event(start, clip.label)
            is_event_before = is_event
            if self.on_progress is not None:
                self.on_progress(done, len(self.clips))

    def _frames_of(self, clip: LabelledClip) -> Iterator[np.ndarray]:
        with open_labelled(clip) as video:
            start, stop = _bounds(clip, video)
            count = max(1, round((stop - start) * self.plan.fps))
            wanted = start + np.arange(count) / self.plan.fps
            for frame in video.frames_at(self.spec, wanted):
                yield frame.pixels

    def _add_event(self, start: int, label: str) -> None:
        if self.events and self.events[-1][1:] == (start, label):
            start = self.events.pop()[0]  # the same goes on
        self.events.append((start, self.num_frames, label))

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the rows of the truth."""
        fps = self.plan.fps
        return [(f"{start / fps:.3f}", f"{stop / fps:.3f}", label) for start, stop, label in self.events]


def _bounds(clip: LabelledClip, video: Video | Stills) -> tuple[float, float]:
    """Return where a clip begins and ends, in seconds since its file's first frame."""
    seconds = video.frame_seconds()
    period = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / 25
    end = float(seconds[-1]) + period
    start, stop = clip.start_seconds or 0.0, min(end, clip.stop_seconds or end)
    if stop - start <= TOLERANCE_SECONDS:
        raise EmptyVideoError(clip.path, f"the part from {start:g} s lies after its end at {end:.3f} s")
    return start, stop
