"""Pictures with times read as a video: the interface of :class:`vidette.video.reader.Video`."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.motion_crop import clip_pixels
from vidette.video.sampling import TOLERANCE_SECONDS, pick_frames, target_seconds
from vidette.video.timeline import Segment, checked_seconds, segment_bounds
from vidette.video.transforms import FrameResizer

__all__ = ["Stills"]

_AnyStills = TypeVar("_AnyStills", bound="Stills")


class Stills(ABC):
    """Pictures that are read one at a time, in any order. Times are seconds since the first frame.

    Attributes:
        path: The file or folder.
        lost_frames: How many frames the source has lost.
    """

    lost_frames: int = 0

    def __init__(self, path: Path, seconds: np.ndarray) -> None:
        self.path = path
        self._seconds = seconds

    def __enter__(self: _AnyStills) -> _AnyStills:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  most keep no file open
        """Close what is open; the object is of no use afterwards."""

    @abstractmethod
    def _read(self, index: int) -> np.ndarray:
        """Return a picture as uint8 ``(H, W, 3)``, RGB, as shown."""

    def _read_all(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return several pictures."""
        return [self._read(index) for index in indices]

    def _check(self, spec: ClipSpec) -> None:  # noqa: B027  most can serve any
        """Refuse a spec that these pictures cannot serve."""

    def frame_seconds(self) -> np.ndarray:
        """Return when every frame is shown, float64 ``(F,)``, ascending from 0."""
        return self._seconds.copy()

    def clip(
        self, spec: ClipSpec, *, start_seconds: float | None = None, stop_seconds: float | None = None
    ) -> Clip:
        """Cut one clip as :meth:`vidette.video.reader.Video.clip` does, reading only the frames it needs.

        Args:
            spec: Which frames and what size.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.

        Raises:
            SettingError: The segment is empty or starts before 0.
            EmptyVideoError: No frame lies in the segment.
            UnreadableVideoError: A picture cannot be read, or has another size than the first one read.
        """
        picks, repeated = self._choose(spec, start_seconds, stop_seconds)
        indices, places = np.unique(picks, return_inverse=True)
        pictures = self._resized(self._read_all(indices.tolist()), spec)
        pixels = clip_pixels([pictures[place] for place in places], spec)
        return Clip(pixels, self._seconds[picks], repeated, self.lost_frames)

    def clips(self, spec: ClipSpec, segments: Sequence[Segment]) -> list[Clip]:
        """Cut several clips, one after the other; arguments and errors as :meth:`clip`.

        Args:
            spec: As for :meth:`clip`.
            segments: ``(start_seconds, stop_seconds)`` of each.
        """
        return [self.clip(spec, start_seconds=start, stop_seconds=stop) for start, stop in segments]

    def choice(
        self, spec: ClipSpec, *, start_seconds: float | None = None, stop_seconds: float | None = None
    ) -> tuple[np.ndarray, int]:
        """Return when a clip's frames are shown, float64 ``(T,)``, and how many repeat; reads no picture."""
        picks, repeated = self._choose(spec, start_seconds, stop_seconds)
        return self._seconds[picks], repeated

    def _choose(
        self, spec: ClipSpec, start_seconds: float | None, stop_seconds: float | None
    ) -> tuple[np.ndarray, int]:
        self._check(spec)
        low, high = segment_bounds(self.path, self._seconds, start_seconds, stop_seconds)
        times = self._seconds[low:high]
        wanted = target_seconds(spec, first_seconds=float(times[0]), last_seconds=float(times[-1]))
        return pick_frames(times, wanted) + low, int(np.sum(wanted > times[-1] + TOLERANCE_SECONDS))

    def frames(
        self,
        spec: ClipSpec | None = None,
        *,
        start_seconds: float | None = None,
        stop_seconds: float | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames of a segment in order; arguments and errors as :meth:`clip`.

        Args:
            spec: Resizes to its size; default RGB at the pictures' own size.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.
        """
        if spec:
            self._check(spec)
        low, high = segment_bounds(self.path, self._seconds, start_seconds, stop_seconds)
        yield from self._frames_of(np.arange(low, high), spec)

    def frames_at(self, spec: ClipSpec, wanted_seconds: np.ndarray) -> Iterator[Frame]:
        """Yield the frame on display at each wanted time, as :meth:`vidette.video.reader.Video.frames_at` does.

        Args:
            spec: Resizes to its size; its choice of frames is not used.
            wanted_seconds: float ``(N,)``, not decreasing, from 0; times after the last frame get the last one.

        Raises:
            SettingError: The times are not in order, not numbers, or before 0.
            UnreadableVideoError: A picture cannot be read, or has another size than the first one read.
        """
        self._check(spec)
        yield from self._frames_of(pick_frames(self._seconds, checked_seconds(wanted_seconds)), spec)

    def _frames_of(self, indices: np.ndarray, spec: ClipSpec | None) -> Iterator[Frame]:
        for index, count in zip(*np.unique(indices, return_counts=True), strict=True):
            picture = self._read(int(index))
            if spec:
                (picture,) = self._resized([picture], spec)
            yield from itertools.repeat(Frame(picture, float(self._seconds[index]), int(index)), int(count))

    def _resized(self, pictures: Sequence[np.ndarray], spec: ClipSpec) -> list[np.ndarray]:
        resizer, size = FrameResizer(spec), (spec.height, spec.width)
        if spec.follows_motion:
            return [resizer(picture) for picture in pictures]
        return [picture if picture.shape[:2] == size else resizer(picture) for picture in pictures]
