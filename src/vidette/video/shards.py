"""Clips kept as pictures in tar files, WebDataset's format: written once, read in any order.

A shard ``000003.tar`` holds for each clip ``KEY.json`` (its label and times), ``KEY.cls`` (the number of its
class) and its frames ``KEY.00000.jpg`` or, kept raw, ``KEY.00000.npy``. Beside it, ``000003.json`` says where
in the tar the frames lie. A clip's path is that of its tar and its key: ``shards/000003.tar/walk/video_7``.

Source of the format: WebDataset, "Dataset Format" (files of one basename are one sample).
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image

from vidette.errors import MissingVideoError, SettingError, UnreadableVideoError, VideoError
from vidette.video.clip import ClipSpec, Resize
from vidette.video.reader import VideoInfo
from vidette.video.stills import Stills

__all__ = [
    "Encoding",
    "Entry",
    "Index",
    "KeptFrames",
    "Place",
    "ShardClip",
    "is_shard_clip",
    "open_shard_clip",
    "shard_clip_digest",
    "shard_keys",
]

Encoding = Literal["jpeg", "raw"]


@dataclass(frozen=True)
class KeptFrames:
    """Which frames of a clip are kept, and at what size.

    Attributes:
        height: Rows.
        width: Columns.
        resize: The resize rule of :class:`vidette.video.clip.ClipSpec` that they went through. Under "motion"
            whole pictures are kept, at the size that is held for the crop of a clip.
        num_frames: So many, equally spaced over the clip; None where ``fps`` says which.
        fps: All frames at this rate; None where ``num_frames`` says which.
    """

    height: int
    width: int
    resize: Resize = "stretch"
    num_frames: int | None = 16
    fps: float | None = None

    def __post_init__(self) -> None:
        if (self.num_frames is None) == (self.fps is None):
            raise SettingError(
                f"kept frames: num_frames is {self.num_frames} and fps is {self.fps}; expected one of them"
            )
        self.spec()

    def spec(self) -> ClipSpec:
        """Return the spec whose resize rule and size the frames have, and whose clips they hold exactly."""
        return ClipSpec(
            num_frames=self.num_frames or 2,
            height=self.height,
            width=self.width,
            resize=self.resize,
            sampling="whole" if self.fps is None else "window",
            fps=self.fps,
        )

    def refusal(self, spec: ClipSpec) -> str | None:
        """Say why these frames cannot stand for the video under a spec; None where they can.

        Fewer or smaller frames than are kept can be taken from them; more, larger or differently cut ones
        cannot.
        """
        if spec.resize != self.resize:
            return f"frames were kept with resize {self.resize!r}, not {spec.resize!r}"
        if spec.height > self.height or spec.width > self.width:
            return f"frames were kept at {self.height}x{self.width}, smaller than {spec.height}x{spec.width}"
        if self.resize in ("crop", "pad") and spec.height * self.width != spec.width * self.height:
            return f"frames were kept at {self.height}x{self.width}, of another shape"
        if self.num_frames is not None and (spec.fps is not None or spec.num_frames > self.num_frames):
            wanted = f"{spec.num_frames} frames" + (f" at {spec.fps:g} fps" if spec.fps else "")
            return f"{self.num_frames} frames spread over each clip were kept, not {wanted}"
        if self.fps is not None and spec.fps is not None and not _divides(spec.fps, self.fps):
            return f"frames were kept at {self.fps:g} fps, of which {spec.fps:g} fps is no whole part"
        return None


def _divides(part: float, whole: float) -> bool:
    return part <= whole * (1 + 1e-9) and abs(whole / part - round(whole / part)) < 1e-6


class Place(NamedTuple):
    """Where one frame's bytes lie in a tar."""

    offset: int
    size: int


@dataclass
class Entry:
    """What a shard's index says about a clip."""

    seconds: list[float]
    duration_seconds: float
    source_size: tuple[int, int]
    lost_frames: int
    digest: str
    frames: list[Place]


@dataclass
class Index:
    """What lies beside a shard."""

    kept: KeptFrames
    encoding: Encoding
    clips: dict[str, Entry] = field(default_factory=dict[str, Entry])


def _split(path: Path) -> tuple[Path, str] | None:
    """Return the tar and the key of a clip's path; None for the path of something else."""
    for parent in path.parents:
        if parent.suffix == ".tar":
            return parent, path.relative_to(parent).as_posix()
    return None


def is_shard_clip(path: Path) -> bool:
    """Tell whether a path names a clip in a shard, there or not: a file ``.tar`` and a key below it."""
    found = _split(path)
    return found is not None and found[0].is_file()


def open_shard_clip(path: Path) -> ShardClip:
    """Open a clip of a shard.

    Raises:
        MissingVideoError: There is no such shard, or it has no such clip.
        UnreadableVideoError: The shard's index is absent or damaged.
    """
    return ShardClip(path)


def shard_keys(tar: Path) -> frozenset[str]:
    """Return the keys of the clips in a shard.

    Raises:
        UnreadableVideoError: Its index is absent or damaged.
    """
    return frozenset(_read_index(tar).clips)


def shard_clip_digest(path: Path) -> str:
    """Return the hex digest of a clip's frames, from the shard's index; errors as :func:`open_shard_clip`."""
    return ShardClip(path).digest


class ShardClip(Stills):
    """A clip in a shard, read as the video that it was taken from.

    Attributes:
        path: Tar and key.
        kept: Which frames of the video are there.
        digest: Hex digest of the frames' bytes.
        lost_frames: How many frames the video had lost.
    """

    def __init__(self, path: Path) -> None:
        found = _split(path)
        if found is None or not found[0].is_file():
            raise MissingVideoError(path, "there is no such shard; run vidette prepare again")
        self._tar, self._key = found
        index = _read_index(self._tar)
        if self._key not in index.clips:
            raise MissingVideoError(path, f"{self._tar.name} holds no such clip; run vidette prepare again")
        entry = index.clips[self._key]
        self.kept = index.kept
        self.digest = entry.digest
        self.lost_frames = entry.lost_frames
        self._encoding: Encoding = index.encoding
        self._entry = entry
        self._file: BinaryIO | None = None
        seconds = np.array(entry.seconds, np.float64)
        super().__init__(path, seconds - seconds[0])

    @property
    def damaged_packets(self) -> int:
        """Always 0: a picture that cannot be read is an error."""
        return 0

    @property
    def info(self) -> VideoInfo:
        """What the clip is."""
        height, width = self._entry.source_size
        span = float(self._seconds[-1])
        return VideoInfo(
            path=self.path,
            container="shard",
            codec=self._encoding,
            pixel_format="rgb24",
            width=width,
            height=height,
            fps=self.kept.fps or ((len(self._seconds) - 1) / span if span else None),
            duration_seconds=self._entry.duration_seconds,
            num_frames=len(self._seconds),
            bit_rate=None,
            rotation_degrees=0,
            has_audio=False,
        )

    def close(self) -> None:
        """Close the shard; it is opened again if another frame is read."""
        if self._file:
            self._file.close()
            self._file = None

    def _check(self, spec: ClipSpec) -> None:
        reason = self.kept.refusal(spec)
        if reason:
            raise SettingError(f"{self.path}: {reason}; prepare the clips again, or change the recipe")

    def _read(self, index: int) -> np.ndarray:
        return self._decoded(index, self._data(index))

    def _read_all(self, indices: Sequence[int]) -> list[np.ndarray]:
        data = [self._data(index) for index in indices]
        if self._encoding == "raw":
            return [self._decoded(index, each) for index, each in zip(indices, data, strict=True)]
        return list(_threads(os.getpid()).map(self._decoded, indices, data))

    def _data(self, index: int) -> bytes:
        place = self._entry.frames[index]
        try:
            self._file = self._file or self._tar.open("rb")
            self._file.seek(place.offset)
            return self._file.read(place.size)
        except OSError as error:
            raise UnreadableVideoError(self.path, f"the shard cannot be read ({error.strerror})") from error

    def _decoded(self, index: int, data: bytes) -> np.ndarray:
        try:
            if self._encoding == "raw":
                if self.kept.resize == "motion":
                    return np.load(io.BytesIO(data), allow_pickle=False)
                shape = (self.kept.height, self.kept.width, 3)
                return np.frombuffer(data[-math.prod(shape) :], np.uint8).reshape(shape)
            with Image.open(io.BytesIO(data)) as picture:
                return np.asarray(picture)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise UnreadableVideoError(
                self.path, f"frame {index} in the shard is damaged ({error}); run vidette prepare again"
            ) from error


@functools.lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Return threads that decode JPEG, of this process: a forked one has none of its parent's."""
    del process
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="vidette-jpeg")


def _read_index(tar: Path) -> Index:
    place = tar.with_suffix(".json")
    try:
        return _index_of(place, place.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, VideoError) as error:
        raise UnreadableVideoError(
            tar, f"its index {place.name} cannot be read ({error}); run vidette prepare again"
        ) from error


@functools.lru_cache(maxsize=256)
def _index_of(place: Path, changed: int) -> Index:
    del changed
    values = json.loads(place.read_text(encoding="utf-8"))
    clips = {
        key: Entry(
            seconds=entry["seconds"],
            duration_seconds=entry["duration_seconds"],
            source_size=tuple(entry["source_size"]),
            lost_frames=entry["lost_frames"],
            digest=entry["digest"],
            frames=[Place(*place) for place in entry["frames"]],
        )
        for key, entry in values["clips"].items()
    }
    return Index(KeptFrames(**values["kept"]), values["encoding"], clips)
