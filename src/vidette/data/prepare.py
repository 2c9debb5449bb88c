"""Frames of labelled clips written once, for many trainings: tar shards beside a manifest that names them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidette.data.cache import open_labelled
from vidette.data.manifest import LabelledClip, Manifest, write_manifest
from vidette.data.prepared import DESCRIPTION, FORMAT, Prepared, read_description, read_prepared
from vidette.errors import ManifestError, OutputExistsError, SettingError, StorageError, VideoError
from vidette.video.clip import Frame
from vidette.video.reader import Video, VideoInfo
from vidette.video.sampling import target_seconds
from vidette.video.shard_writer import ShardWriter, encoded_frame
from vidette.video.shards import Encoding, KeptFrames, shard_keys
from vidette.video.stills import Stills
from vidette.video.timeline import segment_bounds

__all__ = ["ShardPlan", "bytes_foreseen", "kept_frames", "prepare_shards"]

_CLIPS_A_SHARD = 100
_LOOKED_AT = 5
_MEMBER_BYTES = 768
"""A tar's header and, on average, half a block of padding."""
_KEY_LENGTH = 80
_ROOM = 64 << 20
_LISTED = 10


@dataclass(frozen=True)
class ShardPlan:
    """How clips are written.

    Attributes:
        kept: Which frames, at what size.
        encoding: ``"jpeg"`` or ``"raw"``.
        quality: Of JPEG, 1 to 100.
        clips_a_shard: Clips in one tar, at most; a whole number from 1.
    """

    kept: KeptFrames
    encoding: Encoding = "jpeg"
    quality: int = 95
    clips_a_shard: int = _CLIPS_A_SHARD

    def __post_init__(self) -> None:
        if self.encoding not in ("jpeg", "raw"):
            raise SettingError(f"format is {self.encoding!r}; expected jpeg or raw")
        if not 1 <= self.quality <= 100 or self.clips_a_shard < 1:
            raise SettingError(
                f"quality is {self.quality} and clips a shard {self.clips_a_shard};"
                " expected 1 to 100, and 1 or more"
            )


def prepare_shards(
    manifest: Manifest,
    out: str | Path,
    plan: ShardPlan,
    *,
    num_workers: int | None = None,
    on_damage: Literal["raise", "skip"] = "skip",
    overwrite: bool = False,
    on_foreseen: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write the frames of every clip; a call that was interrupted goes on where it was.

    Memory does not grow with the length of a clip: frames are written as they are decoded.

    Args:
        manifest: The clips.
        out: A new folder, or one that an interrupted call with the same clips and plan left.
        plan: Which frames, and how.
        num_workers: Shards written at once, in threads; one a core by default.
        on_damage: ``"skip"`` lists clips that cannot be read; ``"raise"`` tells of them all in one error when
            the others are written, and leaves the folder unfinished.
        overwrite: Replace prepared clips that are there.
        on_foreseen: Called with the bytes that will be written, before they are, if any.
        on_progress: Called with (clips done, clips in all).

    Raises:
        OutputExistsError: The folder holds something else, or clips prepared in another way.
        ManifestError: Clips cannot be read and ``on_damage`` is ``"raise"``, or none can be read at all.
        StorageError: There is too little room, or the disk filled up.
    """
    if on_damage not in ("raise", "skip"):
        raise SettingError(f"on_damage is {on_damage!r}; expected raise or skip")
    out = Path(out)
    writer = _Writer(manifest, out, plan, workers=num_workers or os.cpu_count() or 1)
    writer.open_folder(overwrite=overwrite)
    needed = writer.check_room()
    if needed and on_foreseen:
        on_foreseen(needed)
    results = writer.write(on_progress)
    skipped = [text for result in results for text in result.skipped]
    if skipped and (on_damage == "raise" or len(skipped) == len(manifest)):
        shown = "\n".join(f"  {text}" for text in skipped[:_LISTED])
        more = f"\n  and {len(skipped) - _LISTED} more" if len(skipped) > _LISTED else ""
        do = "repair them, take them out" + (", or use --on-damage skip" if on_damage == "raise" else "")
        raise ManifestError(f"{len(skipped)} of {len(manifest)} clips cannot be read; {do}:\n{shown}{more}")
    return writer.finish(results)


@dataclass
class _Result:
    """What one shard came to; saved beside it, so that an interrupted call knows."""

    clips: int
    num_bytes: int
    skipped: list[str]
    damaged: list[str]
    written_now: bool = False


class _Writer:
    def __init__(self, manifest: Manifest, out: Path, plan: ShardPlan, *, workers: int) -> None:
        self.manifest, self.out, self.plan, self.workers = manifest, out, plan, workers
        size = max(1, min(plan.clips_a_shard, -(-len(manifest) // (4 * workers))))
        self.keys = _keys(manifest)
        self.shards = [range(i, min(i + size, len(manifest))) for i in range(0, len(manifest), size)]
        self._lock = threading.Lock()
        self._done = 0

    # The folder.

    def description(self) -> dict[str, Any]:
        """Return what decides the content of the folder."""
        clips = [
            [key, clip.name, clip.label, self.group(i), clip.split, clip.fold, clip.fps, _state(clip)]
            for i, (key, clip) in enumerate(zip(self.keys, self.manifest.clips, strict=True))
        ]
        return {
            "format": FORMAT,
            "source": str(self.manifest.source),
            "kept": asdict(self.plan.kept),
            "encoding": self.plan.encoding,
            "quality": self.plan.quality if self.plan.encoding == "jpeg" else None,
            "clips": hashlib.sha256(json.dumps(clips).encode()).hexdigest(),
        }

    def open_folder(self, *, overwrite: bool) -> None:
        """Make the folder, or find that it is an interrupted one of the same clips and plan."""
        described = self.out / DESCRIPTION
        if self.out.exists() and not described.is_file() and (self.out.is_file() or any(self.out.iterdir())):
            raise OutputExistsError(f"{self.out} exists and holds no prepared clips; choose another --out")
        wanted = self.description()
        if described.is_file():
            there = read_description(self.out)
            different = [name for name, value in wanted.items() if there.get(name) != value]
            if different and not overwrite:
                raise OutputExistsError(
                    f"{self.out} holds clips prepared in another way ({', '.join(different)} differ); choose "
                    "another --out, or replace them with --overwrite"
                )
            if not different and not overwrite:
                self.shards = [range(*ends) for ends in there["shards"]]
                return
            shutil.rmtree(self.out)
        shards = [[shard.start, shard.stop] for shard in self.shards]
        _write_json(described, {**wanted, "shards": shards, "complete": False})

    def check_room(self) -> int:
        """Return the bytes that are still to be written, as foreseen, if the disk has room for them."""
        left = [i for number in self._missing() for i in self.shards[number]]
        needed = bytes_foreseen([self.manifest.clips[i] for i in left], self.plan)
        free = shutil.disk_usage(self.out).free
        if needed and needed + _ROOM > free:
            raise StorageError(
                f"prepared clips need about {needed / 1e6:,.0f} MB in {self.out}, but {free / 1e6:,.0f} MB are"
                " free; free some space, choose another --out, fewer --num-frames or a smaller --size"
            )
        return needed

    def _missing(self) -> list[int]:
        return [number for number in range(len(self.shards)) if not self._result_file(number).is_file()]

    def _shard(self, number: int) -> Path:
        return self.out / "shards" / f"{number:06d}.tar"

    def _result_file(self, number: int) -> Path:
        return self._shard(number).with_suffix(".done")

    # The shards.

    def write(self, on_progress: Callable[[int, int], None] | None) -> list[_Result]:
        """Write the shards that are not there yet; return what each of all of them came to."""

        def tell() -> None:
            with self._lock:
                self._done += 1
                if on_progress:
                    on_progress(self._done, len(self.manifest))

        missing = set(self._missing())
        self._done = sum(len(shard) for number, shard in enumerate(self.shards) if number not in missing)
        pool = ThreadPoolExecutor(self.workers)
        try:
            for future in as_completed([pool.submit(self._write_shard, number, tell) for number in missing]):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
        return [self._read_result(number, number in missing) for number in range(len(self.shards))]

    def _write_shard(self, number: int, tell: Callable[[], None]) -> None:
        result = _Result(0, 0, [], [])
        with ShardWriter(
            self._shard(number), self.plan.kept, encoding=self.plan.encoding, quality=self.plan.quality
        ) as shard:
            for i in self.shards[number]:
                clip = self.manifest.clips[i]
                try:
                    lost = self._write_clip(shard, i)
                except VideoError as error:
                    result.skipped.append(f"{clip.name}: {error.reason}")
                else:
                    result.clips += 1
                    if lost:
                        result.damaged.append(f"{clip.name}: {lost} frames are lost or damaged")
                tell()
        result.num_bytes = shard.num_bytes
        _write_json(self._result_file(number), asdict(result))

    def _write_clip(self, shard: ShardWriter, i: int) -> int:
        clip, key = self.manifest.clips[i], self.keys[i]
        shard.begin(key)
        with open_labelled(clip) as video:
            info = video.info
            begin: float | None = None
            last: Frame | None = None
            for frame in kept_frames(video, clip, self.plan.kept):
                if last is None or frame.index != last.index:
                    shard.add(frame)
                begin = frame.seconds if begin is None else begin
                last = frame
            lost = video.lost_frames
        facts = {
            "label": clip.label,
            "group": self.group(i),
            "split": clip.split,
            "fold": clip.fold,
            "source": clip.name,
        }
        shard.end(
            facts,
            duration_seconds=_end_seconds(clip, info) - (begin or 0.0),
            source_size=(info.height, info.width),
            lost_frames=lost,
            class_number=self.manifest.classes.index(clip.label),
        )
        return lost

    def _read_result(self, number: int, written_now: bool) -> _Result:
        values = json.loads(self._result_file(number).read_text(encoding="utf-8"))
        return dataclasses.replace(_Result(**values), written_now=written_now)

    def group(self, i: int) -> str | None:
        """Return a clip's group; the video it is a part of where that is all that is known."""
        return self.manifest.group_of(i) if self.manifest.has_groups else None

    def finish(self, results: Sequence[_Result]) -> Prepared:
        """Write the manifest, then say in the description that all is there."""
        clips: list[LabelledClip] = []
        for number, shard in enumerate(self.shards):
            there = shard_keys(self._shard(number))
            clips += [self._shard_clip(number, i) for i in shard if self.keys[i] in there]
        table = self.out / "manifest.csv"
        table.unlink(missing_ok=True)
        write_manifest(dataclasses.replace(self.manifest, clips=tuple(clips)), table)
        there = read_description(self.out)
        complete = {
            **there,
            "complete": True,
            "classes": list(self.manifest.classes),
            "num_clips": len(clips),
            "num_bytes": sum(result.num_bytes for result in results),
            "skipped": [text for result in results for text in result.skipped],
            "damaged": [text for result in results for text in result.damaged],
        }
        _write_json(self.out / DESCRIPTION, complete)
        prepared = read_prepared(self.out)
        written = sum(result.clips for result in results if result.written_now)
        return dataclasses.replace(prepared, num_written=written)

    def _shard_clip(self, number: int, i: int) -> LabelledClip:
        clip = self.manifest.clips[i]
        path = self._shard(number) / self.keys[i]
        return LabelledClip(path, clip.label, self.group(i), split=clip.split, fold=clip.fold)


def kept_frames(video: Video | Stills, clip: LabelledClip, kept: KeptFrames) -> Iterator[Frame]:
    """Yield the frames of an open video that are to be kept; a frame wanted several times comes as often.

    Raises:
        VideoError: The video cannot be read, or breaks off before the clip's end.
    """
    spec = kept.spec()
    if kept.fps is None and not spec.follows_motion:
        cut = video.clip(spec, start_seconds=clip.start_seconds, stop_seconds=clip.stop_seconds)
        for index, (pixels, seconds) in enumerate(zip(cut.pixels, cut.seconds.tolist(), strict=True)):
            repeats = index > 0 and seconds == cut.seconds[index - 1]
            if not repeats:
                yield Frame(pixels, seconds, index)
        return
    seconds = video.frame_seconds()
    low, high = segment_bounds(clip.path, seconds, clip.start_seconds, clip.stop_seconds)
    first, last = float(seconds[low]), float(seconds[high - 1])
    if kept.fps is None:
        wanted, later = target_seconds(spec, first_seconds=first, last_seconds=last)[:-1], 1.0
    else:
        wanted, later = first + np.arange(int((last - first) * kept.fps + 1e-6) + 1) / kept.fps, 1 / kept.fps
    # The last frame too; asked for a little later where the file ends, so that one that breaks off says so.
    wanted = np.append(wanted, last if clip.stop_seconds is not None else last + later)
    yield from video.frames_at(spec, wanted)


def _end_seconds(clip: LabelledClip, info: VideoInfo) -> float:
    return info.duration_seconds if clip.stop_seconds is None else min(clip.stop_seconds, info.duration_seconds)


def bytes_foreseen(clips: Sequence[LabelledClip], plan: ShardPlan) -> int:
    """Foresee the size of the shards: exact arithmetic for raw frames, the size of a few clips' for JPEG."""
    sizes: list[float] = []
    spec = plan.kept.spec()
    for clip in clips[:: max(1, len(clips) // _LOOKED_AT)]:
        try:
            with open_labelled(clip) as video:
                info = video.info
                frame = next(video.frames_at(spec, np.array([clip.start_seconds or 0.0])))
        except VideoError:
            continue
        seconds = _end_seconds(clip, info) - (clip.start_seconds or 0.0)
        num_frames = plan.kept.num_frames or seconds * (plan.kept.fps or 0.0) + 1
        frame_bytes = len(encoded_frame(frame.pixels, plan.encoding, plan.quality))
        sizes.append(num_frames * (frame_bytes + _MEMBER_BYTES) + 2 * _MEMBER_BYTES)
    return round(len(clips) * float(np.mean(sizes))) if sizes else 0


def _keys(manifest: Manifest) -> list[str]:
    """Return a key for each clip: its path below the source's folder, free of dots and of odd characters."""
    folder = manifest.source if manifest.source.is_dir() else manifest.source.parent
    folder = Path(os.path.abspath(folder))
    taken: set[str] = set()
    keys: list[str] = []
    for clip in manifest.clips:
        path = Path(os.path.abspath(clip.path))
        place = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.parent.name) / path.name
        text = place.with_suffix("").as_posix()
        if clip.start_seconds is not None or clip.stop_seconds is not None:
            stop = "end" if clip.stop_seconds is None else f"{clip.stop_seconds:g}"
            text += f"_{clip.start_seconds or 0:g}-{stop}"
        plain = re.sub(r"[^A-Za-z0-9_/-]", "_", text)[-_KEY_LENGTH:].strip("/")
        free, number = plain, 1
        while free in taken:
            number += 1
            free = f"{plain}_{number}"
        taken.add(free)
        keys.append(free)
    return keys


def _state(clip: LabelledClip) -> list[int]:
    """Return size and time of change of a clip's file, by which a changed source is known."""
    try:
        stat = clip.path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _write_json(path: Path, values: Any) -> None:
    partial = path.with_suffix(f"{path.suffix}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}; free some space, or choose another --out"
        ) from error
