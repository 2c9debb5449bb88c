"""Decoded clips kept on disk: the second epoch and the second run decode nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import platformdirs

from vidette.data.manifest import LabelledClip
from vidette.data.store import ArrayStore, ContentMemo
from vidette.errors import ManifestError, SettingError, StorageError, VideoError
from vidette.video.clip import Clip, ClipSpec, SpanRange
from vidette.video.frames_folder import FramesFolder, frames_digest, open_frames
from vidette.video.reader import Video, open_video
from vidette.video.sampling import window_starts
from vidette.video.shards import ShardClip, is_shard_clip, open_shard_clip, shard_clip_digest

__all__ = ["ClipCache", "PrepareReport", "clip_key", "expand_windows", "open_labelled", "read_labelled"]

_Result = TypeVar("_Result")

_LISTED = 10
_ROOM = 64 << 20
_TOGETHER_CLIPS, _TOGETHER_BYTES = 8, 32 << 20
"""How many windows of one file are decoded together at most, and how many bytes they may have."""


@dataclass(frozen=True)
class PrepareReport:
    """What preparing clips came to.

    Attributes:
        num_clips: Clips that are ready.
        num_decoded: Of these, decoded now.
        num_cached: Of these, there before.
        repeated_frames: Frames that stand in for time after a clip's end.
        skipped: Positions of the clips that could not be read, each with its reason.
        damaged: Positions of the clips that lost frames, each with how many.
        spans: Shortest, median and longest time from a clip's first chosen frame to its last; None without
            clips.
    """

    num_clips: int
    num_decoded: int
    num_cached: int
    repeated_frames: int
    skipped: Mapping[int, str]
    damaged: Mapping[int, int]
    spans: SpanRange | None


def read_labelled(clip: LabelledClip, spec: ClipSpec) -> Clip:
    """Decode a labelled clip.

    Raises:
        VideoError: The file cannot be read.
    """
    with open_labelled(clip) as video:
        return video.clip(spec, start_seconds=clip.start_seconds, stop_seconds=clip.stop_seconds)


def open_labelled(clip: LabelledClip) -> Video | FramesFolder | ShardClip:
    """Open what a labelled clip lies in: a video, a folder of frames, or a shard of prepared clips.

    Raises:
        VideoError: It cannot be opened.
    """
    return _open(clip.path, clip.fps, clip.stream)


def _open(path: Path, fps: float | None, stream: int) -> Video | FramesFolder | ShardClip:
    if is_shard_clip(path):
        return open_shard_clip(path)
    return open_video(path, stream=stream) if fps is None else open_frames(path, fps=fps)


def clip_key(clip: LabelledClip, spec: ClipSpec, *, memo: ContentMemo) -> str:
    """Return the key of a clip's pixels: content of the file, part of it, and the spec's pixel rules."""
    if is_shard_clip(clip.path):
        content = shard_clip_digest(clip.path)
    else:
        content = memo.digest(clip.path) if clip.fps is None else frames_digest(clip.path)
    parts = (content, spec.pixel_key, clip.start_seconds, clip.stop_seconds)
    parts = parts if clip.fps is None else (*parts, clip.fps)
    parts = (*parts, "stream", clip.stream) if clip.stream else parts
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class ClipCache:
    """Clips under a spec, decoded once. Prepared clips are read from their shards and not kept again.

    Args:
        folder: Its place; ``$VIDETTE_CACHE`` or the user's cache folder by default.
        read: Decodes one clip; a seam for tests. By default clips of one file may be decoded together.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        read: Callable[[LabelledClip, ClipSpec], Clip] | None = None,
    ) -> None:
        self.folder = Path(folder or os.environ.get("VIDETTE_CACHE") or platformdirs.user_cache_path("vidette"))
        self.memo = ContentMemo(self.folder / "digests.jsonl")
        self._store = ArrayStore(self.folder / "clips")
        self._read = read or read_labelled
        self._most_together = _TOGETHER_CLIPS if read is None else 1

    def __repr__(self) -> str:
        return f"ClipCache({self.folder})"

    def load(self, clip: LabelledClip, spec: ClipSpec) -> Clip:
        """Return a clip, decoding and keeping it if it is not there.

        Raises:
            VideoError: The file cannot be read.
            StorageError: The disk is full.
        """
        if is_shard_clip(clip.path):
            return self._read(clip, spec)
        key = clip_key(clip, spec, memo=self.memo)
        return self._load(key) or self._decode(key, clip, spec)

    def groups(self, clips: Sequence[LabelledClip], spec: ClipSpec) -> list[list[LabelledClip]]:
        """Group clips that follow each other and lie in one file, a few each: for :meth:`load_together`."""
        fitting = _TOGETHER_BYTES // (spec.num_frames * spec.height * spec.width * 3)
        most = max(1, min(self._most_together, fitting))
        groups: list[list[LabelledClip]] = []
        for clip in clips:
            if groups and len(groups[-1]) < most and _source(groups[-1][0]) == _source(clip):
                groups[-1].append(clip)
            else:
                groups.append([clip])
        return groups

    def load_together(self, clips: Sequence[LabelledClip], spec: ClipSpec) -> list[Clip | VideoError]:
        """Return clips of one file, decoding together and keeping those that are not there.

        Returns:
            One a clip; for one that cannot be read, the error that :meth:`load` raises.

        Raises:
            StorageError: The disk is full.
        """
        return self._each(clips, spec, lambda clip, decoded: decoded or self.load(clip, spec))

    def _each(
        self,
        clips: Sequence[LabelledClip],
        spec: ClipSpec,
        work: Callable[[LabelledClip, Clip | None], _Result],
    ) -> list[_Result | VideoError]:
        """Return what a function makes of each clip, with its decoded frames where they are now."""
        results: list[_Result | VideoError] = []
        decoded = self._decode_together(clips, spec) if len(clips) > 1 else [None]
        for clip, ready in zip(clips, decoded, strict=True):
            try:
                results.append(work(clip, ready))
            except VideoError as error:
                results.append(error)
        return results

    def _decode_together(self, clips: Sequence[LabelledClip], spec: ClipSpec) -> list[Clip | None]:
        """Decode and keep what is not there, opening the file once; None for each of the others.

        Where one cannot be read all are None: reading one at a time tells which.
        """
        decoded: list[Clip | None] = [None] * len(clips)
        with contextlib.suppress(VideoError):
            in_shard = is_shard_clip(clips[0].path)
            keys = [clip_key(clip, spec, memo=self.memo) for clip in clips]
            missing = [i for i, key in enumerate(keys) if not self._store.has(key)]
            if len(missing) > 1 and not in_shard:
                segments = [(clips[i].start_seconds, clips[i].stop_seconds) for i in missing]
                with open_labelled(clips[0]) as video:
                    cut = video.clips(spec, segments)
                for i, clip in zip(missing, cut, strict=True):
                    self._save(keys[i], clip)
                    decoded[i] = clip
        return decoded

    def _load(self, key: str) -> Clip | None:
        arrays = self._store.load(key)
        if arrays is None or len(arrays) != 3 or arrays[2].shape != (2,):
            return None
        pixels, seconds, (repeated, lost) = arrays
        return Clip(pixels, seconds, int(repeated), int(lost))

    def _decode(self, key: str, clip: LabelledClip, spec: ClipSpec) -> Clip:
        decoded = self._read(clip, spec)
        self._save(key, decoded)
        return decoded

    def _save(self, key: str, clip: Clip) -> None:
        self._store.save(key, [clip.pixels, clip.seconds, np.array([clip.repeated, clip.lost_frames])])

    def bytes_needed(self, clips: Sequence[LabelledClip], spec: ClipSpec) -> int:
        """Return how much disk the clips that are not there yet will take."""
        missing = sum(
            not is_shard_clip(clip.path) and not self._store.has(clip_key(clip, spec, memo=self.memo))
            for clip in clips
        )
        return missing * spec.num_frames * (spec.height * spec.width * 3 + 8)

    def prepare(
        self,
        clips: Sequence[LabelledClip],
        spec: ClipSpec,
        *,
        num_workers: int | None = None,
        on_damage: Literal["raise", "skip"] = "raise",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> PrepareReport:
        """Decode what is not there yet, several clips at once; an interrupted call goes on where it was.

        Args:
            clips: What is wanted.
            spec: Under which spec.
            num_workers: Clips decoded at once, in threads; one a core by default.
            on_damage: ``"raise"`` tells of all unreadable clips in one error after the others are ready;
                ``"skip"`` lists them in the report.
            on_progress: Called with (clips done, clips in all).

        Raises:
            ManifestError: Clips cannot be read and ``on_damage`` is ``"raise"``.
            StorageError: There is too little room, or the disk filled up.
        """
        if on_damage not in ("raise", "skip"):
            raise SettingError(f"on_damage is {on_damage!r}; expected raise or skip")
        self._check_room(clips, spec)
        results: dict[int, _Ready] = {}
        faults: dict[int, str] = {}

        def ready(clip: LabelledClip, decoded: Clip | None) -> _Ready:
            return _Ready.of(decoded, decoded_now=True) if decoded else self._ready(clip, spec)

        pool = ThreadPoolExecutor(num_workers or os.cpu_count() or 1)
        try:
            numbers, firsts = dict[Future[list[_Ready | VideoError]], int](), 0
            for group in self.groups(clips, spec):
                numbers[pool.submit(self._each, group, spec, ready)] = firsts
                firsts += len(group)
            outcomes = itertools.chain.from_iterable(
                enumerate(future.result(), numbers[future]) for future in as_completed(numbers)
            )
            for done, (i, outcome) in enumerate(outcomes, start=1):
                if isinstance(outcome, VideoError):
                    faults[i] = str(outcome)
                else:
                    results[i] = outcome
                if on_progress:
                    on_progress(done, len(clips))
        finally:
            pool.shutdown(cancel_futures=True)
        if faults and on_damage == "raise":
            raise ManifestError(_all_faults(faults, len(clips)))
        return _report(results, faults)

    def _ready(self, clip: LabelledClip, spec: ClipSpec) -> _Ready:
        """Make one clip ready; of a prepared one, look at its times only."""
        if is_shard_clip(clip.path):
            with open_shard_clip(clip.path) as shard_clip:
                seconds, repeated = shard_clip.choice(
                    spec, start_seconds=clip.start_seconds, stop_seconds=clip.stop_seconds
                )
            return _Ready(float(seconds[-1] - seconds[0]), repeated, shard_clip.lost_frames, False)
        key = clip_key(clip, spec, memo=self.memo)
        there = self._load(key)
        return _Ready.of(there or self._decode(key, clip, spec), decoded_now=there is None)

    def _check_room(self, clips: Sequence[LabelledClip], spec: ClipSpec) -> None:
        needed = self.bytes_needed([clip for clip in clips if clip.path.exists()], spec)
        place = next(folder for folder in (self.folder, *self.folder.resolve().parents) if folder.exists())
        free = shutil.disk_usage(place).free
        if needed and needed + _ROOM > free:
            raise StorageError(
                f"decoded clips need {needed / 1e6:,.0f} MB in {self.folder}, but"
                f" {free / 1e6:,.0f} MB are free; free some space, choose another place with the environment"
                " variable VIDETTE_CACHE, or a smaller --size"
            )


def _source(clip: LabelledClip) -> tuple[Path, float | None, int]:
    """Return what tells whether clips lie in one opened file."""
    return clip.path, clip.fps, clip.stream


def _all_faults(faults: dict[int, str], total: int) -> str:
    listed = "\n".join(f"  {faults[i]}" for i in sorted(faults)[:_LISTED])
    more = f"\n  and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    return f"{len(faults)} of {total} clips cannot be read; repair them or take them out:\n{listed}{more}"


class _Ready(NamedTuple):
    """What making one clip ready came to."""

    span_seconds: float
    repeated: int
    lost_frames: int
    decoded_now: bool

    @classmethod
    def of(cls, clip: Clip, *, decoded_now: bool) -> _Ready:
        """Sum up a clip."""
        return cls(clip.span_seconds, clip.repeated, clip.lost_frames, decoded_now)


def _report(results: dict[int, _Ready], faults: dict[int, str]) -> PrepareReport:
    spans = np.array([ready.span_seconds for ready in results.values()])
    decoded = sum(ready.decoded_now for ready in results.values())
    return PrepareReport(
        num_clips=len(results),
        num_decoded=decoded,
        num_cached=len(results) - decoded,
        repeated_frames=sum(ready.repeated for ready in results.values()),
        skipped={i: faults[i] for i in sorted(faults)},
        damaged={i: results[i].lost_frames for i in sorted(results) if results[i].lost_frames},
        spans=SpanRange(float(spans.min()), float(np.median(spans)), float(spans.max()))
        if len(spans)
        else None,
    )


def expand_windows(clips: Sequence[LabelledClip], spec: ClipSpec) -> list[LabelledClip]:
    """Return the clips themselves for a ``"whole"`` spec; for a ``"window"`` spec all windows of each clip.

    Windows follow each other at half a span, and the last reaches the clip's end; a clip shorter than a span is
    one window. Each window knows the clip that it is ``part_of``. A clip whose file cannot be opened, or ends
    before the clip begins, stays as it is: reading it tells what is wrong, together with all other faults.
    """
    if spec.sampling == "whole" or spec.fps is None:
        return list(clips)
    windows: list[LabelledClip] = []
    span = spec.num_frames / spec.fps
    for clip in clips:
        begin = clip.start_seconds or 0.0
        end = _end_seconds(clip)
        if end <= begin:
            windows.append(clip)
            continue
        starts = window_starts(duration_seconds=end - begin, span_seconds=span, stride_seconds=span / 2)
        for start in np.round(begin + starts, 6).tolist():
            stop = round(min(start + span, end), 6)
            windows.append(dataclasses.replace(clip, start_seconds=start, stop_seconds=stop, part_of=clip.name))
    return windows


def _end_seconds(clip: LabelledClip) -> float:
    """Return where a clip ends, not after its file does; 0 where the file cannot be opened."""
    try:
        if is_shard_clip(clip.path):
            with open_shard_clip(clip.path) as shard_clip:
                duration = shard_clip.info.duration_seconds
        else:
            stat = clip.path.stat()
            duration = _duration_of(clip.path, clip.fps, clip.stream, stat.st_size, stat.st_mtime_ns)
    except (OSError, VideoError):
        return 0.0
    return duration if clip.stop_seconds is None else min(clip.stop_seconds, duration)


@functools.lru_cache(maxsize=65536)
def _duration_of(path: Path, fps: float | None, stream: int, size: int, changed: int) -> float:
    """Return a file's duration in seconds, read once for each state of the file."""
    del size, changed
    with _open(path, fps, stream) as video:
        return video.info.duration_seconds
