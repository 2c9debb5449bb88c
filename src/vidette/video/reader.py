"""Reading video files: what they are, and their frames by time, exactly as a full decode would pick them.

The packets alone tell when frames are shown, so a clip is chosen before a picture is decoded; then only what
the chosen frames need is decoded, and only they are converted.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidette.errors import VideoError
from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.decoding import FrameDecoder
from vidette.video.motion_crop import clip_pixels
from vidette.video.pictures import PictureDecoder, is_animated_webp
from vidette.video.sampling import TOLERANCE_SECONDS, pick_frames, target_seconds
from vidette.video.timeline import DisagreementError, Segment, Timeline, checked_seconds, segment_bounds
from vidette.video.transforms import FrameResizer, Geometry, rgb_pixels

__all__ = ["HELD_BYTES", "Video", "VideoInfo", "open_video", "probe"]

HELD_BYTES = 32 * 2**20
"""Packets up to this sum are read once and kept; those of a longer file are read again by seeking."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its video.

    Attributes:
        path: The file.
        container: FFmpeg's name of the container format.
        codec: FFmpeg's name of the codec.
        pixel_format: FFmpeg's name of the pixel format.
        width: Columns as shown: stretched by the shape of the pixels, rotation applied.
        height: Rows as shown: rotation applied.
        fps: Mean frames a second, None if unknown.
        duration_seconds: From the first frame until the last one leaves the screen.
        num_frames: Counted; None for a file too long to count at a glance.
        bit_rate: Bits a second of the whole file, None if unknown.
        rotation_degrees: The turn counterclockwise that was applied: 0, 90, 180 or 270.
        has_audio: Whether there is a sound track.
        mirrored: Whether the picture was also mirrored left to right, after the turn.
        interlaced: Whether the first frame is two half pictures of different times; frames are left as decoded.
        num_video_streams: How many video streams there are; cover pictures do not count.
    """

    path: Path
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float | None
    duration_seconds: float
    num_frames: int | None
    bit_rate: int | None
    rotation_degrees: int
    has_audio: bool
    mirrored: bool = False
    interlaced: bool = False
    num_video_streams: int = 1


def open_video(path: str | Path, *, stream: int = 0, held_bytes: int = HELD_BYTES) -> Video:
    """Open a video file.

    Args:
        path: The file.
        stream: Which of its video streams, from 0; cover pictures do not count.
        held_bytes: How much of a file's packets may be kept in memory; a longer file is read by seeking.

    Returns:
        The open video; a context manager that closes it.

    Raises:
        MissingVideoError: There is no such file.
        EmptyVideoError: It has zero bytes.
        NoVideoStreamError: It holds no video, or not as many streams.
        TruncatedVideoError: It breaks off before the part that says where the frames are.
        UnreadableVideoError: It is not a video, no decoder can open it, or its pictures are over
            :data:`vidette.video.packets.MAX_PIXELS`.
    """
    return Video(path, stream=stream, held_bytes=held_bytes)


def probe(path: str | Path, *, stream: int = 0) -> VideoInfo:
    """Tell what a video file is; raises as :func:`open_video` and :meth:`Video.frame_seconds` do."""
    with open_video(path, stream=stream) as video:
        return video.info


class _Choice(NamedTuple):
    """The frames of one clip: their indices ``(T,)``, how many repeat, and how many the source has lost."""

    picks: np.ndarray
    repeated: int
    lost_frames: int


class Video:
    """An open video file; one reading at a time. Times are seconds since its first frame.

    Memory does not grow with the length of the video, apart from a few numbers a frame: the packets of a short
    file are kept, those of a long one are read again from the key frame before what is wanted.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | Path, *, stream: int = 0, held_bytes: int = HELD_BYTES) -> None:
        self.path = Path(path)
        self._held_bytes = held_bytes
        self._decoder: FrameDecoder | PictureDecoder
        if is_animated_webp(self.path):
            self._decoder = PictureDecoder(self.path, stream=stream)
        else:
            self._decoder = FrameDecoder(self.path, stream=stream, held_bytes=held_bytes)
        self._geometry = Geometry(pixel_aspect=self._decoder.facts.pixel_aspect)

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._decoder.close()
        gc.collect(0)  # PyAV ties a frame and its side data, which tell its orientation, into a circle.

    @property
    def lost_frames(self) -> int:
        """How many frames of the file are known by now not to decode or to come out corrupt.

        Only what was decoded is known: 0 until a reading meets damage, the whole file's number from then on.
        """
        return len(self._decoder.timeline().lost_seconds)

    @property
    def num_decoded(self) -> int:
        """How many frames have been decoded so far: what the readings have cost."""
        return self._decoder.num_decoded

    @property
    def info(self) -> VideoInfo:
        """What the file is; counts its frames only when it is short."""
        short = self.path.stat().st_size <= self._held_bytes
        seconds = self.frame_seconds() if short else None
        facts, frame = self._decoder.facts, self._decoder.first_frame()
        height, width = self._geometry.shown_size(frame)
        turns, mirrored = self._geometry.orientation(frame)
        return VideoInfo(
            path=self.path,
            container=facts.container,
            codec=facts.codec,
            pixel_format=frame.format.name,
            width=width,
            height=height,
            fps=facts.fps,
            duration_seconds=self._duration_seconds(seconds),
            num_frames=None if seconds is None else len(seconds),
            bit_rate=facts.bit_rate,
            rotation_degrees=90 * turns,
            has_audio=facts.has_audio,
            mirrored=mirrored,
            interlaced=frame.interlaced_frame,
            num_video_streams=facts.num_video_streams,
        )

    def frame_seconds(self) -> np.ndarray:
        """Return when every frame is shown, float64 ``(F,)``, ascending from 0.

        Only packets are read, unless they do not tell: then the file is decoded once.

        Raises:
            EmptyVideoError: The stream holds no frame.
            UnreadableVideoError: Nothing of it decodes.
            TruncatedVideoError: It breaks off before its first frame.
        """
        return self._decoder.timeline().seconds.copy()

    def clip(
        self, spec: ClipSpec, *, start_seconds: float | None = None, stop_seconds: float | None = None
    ) -> Clip:
        """Cut one clip, decoding no more than its frames need.

        Args:
            spec: Which frames and what size. ``"whole"`` spaces its frames equally from the segment's first
                frame to its last. ``"window"`` starts at the segment's first frame; where the segment is
                shorter than the window its last frame is repeated and counted.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.

        Returns:
            Exactly ``spec.num_frames`` frames, those that a full decode would pick.

        Raises:
            SettingError: The segment is empty or starts before 0.
            EmptyVideoError: No frame lies in the segment.
            TruncatedVideoError: The file breaks off, or does not decode, before the last frame that is wanted.
        """
        timeline = self._decoder.timeline()
        while True:
            try:
                return self._cut(timeline, spec, [(start_seconds, stop_seconds)])[0]
            except DisagreementError as error:
                timeline = self._decoder.doubted(timeline, damaged=error.damaged)

    def clips(self, spec: ClipSpec, segments: Sequence[Segment]) -> list[Clip]:
        """Cut several clips, decoding frames that they share once, and frames that lie apart side by side.

        All of their pixels are held at once; ask for a few at a time of a long file.

        Args:
            spec: As for :meth:`clip`.
            segments: ``(start_seconds, stop_seconds)`` of each, in any order; None as for :meth:`clip`.

        Returns:
            A clip a segment: exactly those that :meth:`clip` gives one after the other.

        Raises:
            SettingError, EmptyVideoError, TruncatedVideoError: As :meth:`clip` for the first clip that fails.
        """
        if len(segments) > 1 and not spec.follows_motion:
            with contextlib.suppress(DisagreementError, VideoError):
                return self._cut(self._decoder.timeline(), spec, segments)
        return [self.clip(spec, start_seconds=start, stop_seconds=stop) for start, stop in segments]

    def frames(
        self,
        spec: ClipSpec | None = None,
        *,
        start_seconds: float | None = None,
        stop_seconds: float | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames of a segment in the order they are shown.

        Args:
            spec: Resizes to its size; default RGB at the size that :attr:`info` says.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.

        Raises:
            SettingError, EmptyVideoError: As :meth:`clip`.
            TruncatedVideoError: The file breaks off before the segment's end; raised after the last good frame.
            VideoError: Another reading of this video was begun meanwhile.
        """
        resizer = self._resizer(spec) if spec else None
        reformatter = VideoReformatter()
        for index, seconds, picture in self._shown(start_seconds, stop_seconds):
            pixels = (
                resizer(picture)
                if resizer
                else rgb_pixels(picture, reformatter=reformatter, geometry=self._geometry)
            )
            yield Frame(pixels, seconds, index)

    def frames_at(self, spec: ClipSpec, wanted_seconds: np.ndarray) -> Iterator[Frame]:
        """Yield the frame on display at each wanted time, decoding only what is needed and holding one frame.

        Args:
            spec: Resizes to its size; its choice of frames is not used.
            wanted_seconds: float ``(N,)``, not decreasing, from 0; times after the last frame get the last one.

        Yields:
            N frames, each with its own index and time; a frame on display at several times comes as often.

        Raises:
            SettingError: The times are not in order, not numbers, or before 0.
            TruncatedVideoError: The file breaks off before a wanted frame; raised after the last good one.
            VideoError: Another reading of this video was begun meanwhile.
        """
        wanted, num_done = checked_seconds(wanted_seconds), 0
        resizer, timeline = self._resizer(spec), self._decoder.timeline()
        while num_done < len(wanted):
            rest = wanted[num_done:]
            good = rest[rest <= timeline.seconds[-1] + TOLERANCE_SECONDS] if timeline.ends_early else rest
            try:
                for frame in self._on_display(timeline, pick_frames(timeline.seconds, good), resizer=resizer):
                    yield frame
                    num_done += 1
            except DisagreementError as error:
                timeline = self._decoder.doubted(timeline, damaged=error.damaged)
                continue
            if len(good) < len(rest):
                raise self._decoder.truncated(timeline)

    # The choice of frames.

    def _cut(self, timeline: Timeline, spec: ClipSpec, segments: Sequence[Segment]) -> list[Clip]:
        choices = [self._choose(timeline, spec, *segment) for segment in segments]
        indices = np.unique(np.concatenate([choice.picks for choice in choices]))
        pictures = self._decoder.map_wanted(
            timeline, indices, lambda: self._resizer(spec), in_pieces=len(segments) > 1
        )
        if len(pictures) < len(indices):
            raise self._decoder.truncated(timeline)
        clips: list[Clip] = []
        for choice in choices:
            places = np.searchsorted(indices, choice.picks).tolist()
            pixels = clip_pixels([pictures[place] for place in places], spec)
            clips.append(Clip(pixels, timeline.seconds[choice.picks], choice.repeated, choice.lost_frames))
        return clips

    def _choose(
        self, timeline: Timeline, spec: ClipSpec, start_seconds: float | None, stop_seconds: float | None
    ) -> _Choice:
        low, high = segment_bounds(self.path, timeline.seconds, start_seconds, stop_seconds)
        times = timeline.seconds[low:high]
        wanted = target_seconds(spec, first_seconds=float(times[0]), last_seconds=float(times[-1]))
        late = wanted > times[-1] + TOLERANCE_SECONDS
        if timeline.ends_early and high == len(timeline.seconds) and (spec.fps is None or late.any()):
            raise self._decoder.truncated(timeline)
        start = start_seconds - TOLERANCE_SECONDS if start_seconds else -np.inf
        stop = np.inf if stop_seconds is None else stop_seconds - TOLERANCE_SECONDS
        end = stop if spec.fps is None else min(stop, float(wanted[-1]) + TOLERANCE_SECONDS)
        return _Choice(pick_frames(times, wanted) + low, int(late.sum()), timeline.num_lost(start, end))

    def _resizer(self, spec: ClipSpec) -> FrameResizer:
        return FrameResizer(spec, geometry=self._geometry)

    def _on_display(self, timeline: Timeline, picks: np.ndarray, *, resizer: FrameResizer) -> Iterator[Frame]:
        """Decode the picked frames, ascending and perhaps repeated, one after the other."""
        indices, counts = np.unique(picks, return_counts=True)
        num_found = 0
        for index, count, picture in zip(
            indices.tolist(), counts.tolist(), self._decoder.wanted(timeline, indices), strict=False
        ):
            num_found += 1
            frame = Frame(resizer(picture), float(timeline.seconds[index]), index)
            yield from itertools.repeat(frame, count)
        if num_found < len(indices):
            raise self._decoder.truncated(timeline)

    def _shown(
        self, start_seconds: float | None, stop_seconds: float | None
    ) -> Iterator[tuple[int, float, av.VideoFrame]]:
        """Yield index, time and picture of every frame in the segment."""
        timeline, shown_until = self._decoder.timeline(), -np.inf
        while True:
            low, high = segment_bounds(self.path, timeline.seconds, start_seconds, stop_seconds)
            low = max(low, int(np.searchsorted(timeline.seconds, shown_until, side="right")))
            try:
                for index, picture in self._decoder.between(timeline, low, high):
                    shown_until = float(timeline.seconds[index])
                    yield index, shown_until, picture
                break
            except DisagreementError as error:
                timeline = self._decoder.doubted(timeline, damaged=error.damaged)
        late = stop_seconds is None or stop_seconds > timeline.seconds[-1] + TOLERANCE_SECONDS
        if timeline.ends_early and late:
            raise self._decoder.truncated(timeline)

    def _duration_seconds(self, seconds: np.ndarray | None) -> float:
        """Return until when the last frame is shown, by the frames' times or, without them, by the header."""
        facts = self._decoder.facts
        if seconds is None and facts.promised_seconds is not None:
            return facts.promised_seconds
        seconds = self.frame_seconds() if seconds is None else seconds
        last = facts.last_frame_seconds
        if last is None:
            last = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
        return float(seconds[-1]) + last
