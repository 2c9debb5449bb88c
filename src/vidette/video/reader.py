"""Reading video files: what they are, and their frames by time, exactly as a full decode would pick them.

The packets alone tell when frames are shown, so a clip is chosen before a picture is decoded; then only what
the chosen frames need is decoded, and only they are converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidette.errors import EmptyVideoError, SettingError
from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.decoding import DisagreementError, FrameDecoder, Timeline
from vidette.video.sampling import TOLERANCE_SECONDS, pick_frames, target_seconds
from vidette.video.transforms import FrameResizer, quarter_turns, rgb_pixels

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
        width: Columns as shown, rotation applied.
        height: Rows as shown, rotation applied.
        fps: Mean frames a second, None if unknown.
        duration_seconds: From the first frame until the last one leaves the screen.
        num_frames: Counted; None for a file too long to count at a glance.
        bit_rate: Bits a second of the whole file, None if unknown.
        rotation_degrees: The turn counterclockwise that was applied: 0, 90, 180 or 270.
        has_audio: Whether there is a sound track.
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


def open_video(path: str | Path, *, held_bytes: int = HELD_BYTES) -> Video:
    """Open a video file.

    Args:
        path: The file.
        held_bytes: How much of a file's packets may be kept in memory; a longer file is read by seeking.

    Returns:
        The open video; a context manager that closes it.

    Raises:
        MissingVideoError: There is no such file.
        EmptyVideoError: It has zero bytes.
        NoVideoStreamError: It holds no video.
        TruncatedVideoError: It breaks off before the part that says where the frames are.
        UnreadableVideoError: It is not a video, or no decoder can open it.
    """
    return Video(path, held_bytes=held_bytes)


def probe(path: str | Path) -> VideoInfo:
    """Tell what a video file is; raises as :func:`open_video` and :meth:`Video.frame_seconds` do."""
    with open_video(path) as video:
        return video.info


class Video:
    """An open video file; one reading at a time. Times are seconds since its first frame.

    Memory does not grow with the length of the video, apart from a few numbers a frame: the packets of a short
    file are kept, those of a long one are read again from the key frame before what is wanted.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | Path, *, held_bytes: int = HELD_BYTES) -> None:
        self.path = Path(path)
        self._decoder = FrameDecoder(self.path, held_bytes=held_bytes)

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._decoder.close()

    @property
    def damaged_packets(self) -> int:
        """How many packets the decoder refused in the last reading."""
        return self._decoder.damaged_packets

    @property
    def info(self) -> VideoInfo:
        """What the file is; counts its frames only when it is short."""
        short = self.path.stat().st_size <= self._decoder.held_bytes
        seconds = self.frame_seconds() if short else None
        frame = self._decoder.first_frame()
        turns = quarter_turns(frame)
        rate = self._decoder.stream.average_rate
        return VideoInfo(
            path=self.path,
            container=self._decoder.container.format.name,
            codec=self._decoder.stream.codec_context.name,
            pixel_format=frame.format.name,
            width=frame.height if turns % 2 else frame.width,
            height=frame.width if turns % 2 else frame.height,
            fps=float(rate) if rate else None,
            duration_seconds=self._duration_seconds(seconds),
            num_frames=None if seconds is None else len(seconds),
            bit_rate=self._decoder.container.bit_rate or None,
            rotation_degrees=90 * turns,
            has_audio=bool(self._decoder.container.streams.audio),
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
        try:
            return self._cut(self._decoder.timeline(), spec, start_seconds, stop_seconds)
        except DisagreementError:
            return self._cut(self._decoder.counted_timeline(), spec, start_seconds, stop_seconds)

    def frames(
        self,
        spec: ClipSpec | None = None,
        *,
        start_seconds: float | None = None,
        stop_seconds: float | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames of a segment in the order they are shown.

        Args:
            spec: Resizes to its size; default RGB at the video's own size.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.

        Raises:
            SettingError, EmptyVideoError: As :meth:`clip`.
            TruncatedVideoError: The file breaks off before the segment's end; raised after the last good frame.
            VideoError: Another reading of this video was begun meanwhile.
        """
        resizer = FrameResizer(spec) if spec else None
        reformatter = VideoReformatter()
        for index, seconds, picture in self._shown(start_seconds, stop_seconds):
            pixels = resizer(picture) if resizer else rgb_pixels(picture, reformatter=reformatter)
            yield Frame(pixels, seconds, index)

    # The choice of frames.

    def _cut(
        self, timeline: Timeline, spec: ClipSpec, start_seconds: float | None, stop_seconds: float | None
    ) -> Clip:
        low, high = self._segment(timeline, start_seconds, stop_seconds)
        times = timeline.seconds[low:high]
        wanted = target_seconds(spec, first_seconds=float(times[0]), last_seconds=float(times[-1]))
        late = wanted > times[-1] + TOLERANCE_SECONDS
        if timeline.ends_early and high == len(timeline.seconds) and (spec.fps is None or late.any()):
            raise self._decoder.truncated(timeline)
        picks = pick_frames(times, wanted) + low
        return Clip(self._pixels(timeline, spec, picks), timeline.seconds[picks], int(late.sum()))

    def _pixels(self, timeline: Timeline, spec: ClipSpec, picks: np.ndarray) -> np.ndarray:
        """Decode the picked frames, ascending and perhaps repeated, into uint8 ``(T, H, W, 3)``."""
        pixels = np.zeros((len(picks), spec.height, spec.width, 3), np.uint8)
        indices, rows = np.unique(picks, return_index=True)
        resizer = FrameResizer(spec)
        num_found = 0
        for row, picture in zip(rows, self._decoder.wanted(timeline, indices), strict=False):
            resizer.write(picture, pixels[row])
            num_found += 1
        if num_found < len(indices):
            raise self._decoder.truncated(timeline)
        first_rows = rows[np.searchsorted(indices, picks)]
        repeats = np.flatnonzero(first_rows != np.arange(len(picks)))
        pixels[repeats] = pixels[first_rows[repeats]]
        return pixels

    def _segment(
        self, timeline: Timeline, start_seconds: float | None, stop_seconds: float | None
    ) -> tuple[int, int]:
        """Return the first frame in ``[start, stop)`` and the first one after it, as indices."""
        start = 0.0 if start_seconds is None else start_seconds
        stop = np.inf if stop_seconds is None else stop_seconds
        if not 0 <= start < stop:
            raise SettingError(f"segment [{start:g}, {stop:g}) s; expected a start from 0 and a later stop")
        low, high = np.searchsorted(timeline.seconds, np.array([start, stop]) - TOLERANCE_SECONDS)
        if low >= high:
            raise EmptyVideoError(
                self.path,
                f"no frame lies in the segment [{start:g}, {stop:g}) s; the {len(timeline.seconds)} frames last"
                f" until {timeline.seconds[-1]:.3f} s",
            )
        return int(low), int(high)

    def _shown(
        self, start_seconds: float | None, stop_seconds: float | None
    ) -> Iterator[tuple[int, float, av.VideoFrame]]:
        """Yield index, time and picture of every frame in the segment."""
        timeline, following = self._decoder.timeline(), 0
        while True:
            low, high = self._segment(timeline, start_seconds, stop_seconds)
            try:
                for index, picture in self._decoder.between(timeline, max(low, following), high):
                    yield index, float(timeline.seconds[index]), picture
                    following = index + 1
                break
            except DisagreementError:
                timeline = self._decoder.counted_timeline()
        late = stop_seconds is None or stop_seconds > timeline.seconds[-1] + TOLERANCE_SECONDS
        if timeline.ends_early and late:
            raise self._decoder.truncated(timeline)

    def _duration_seconds(self, seconds: np.ndarray | None) -> float:
        """Return until when the last frame is shown, by the frames' times or, without them, by the header."""
        promised = self._decoder.promised_seconds()
        if seconds is None and promised is not None:
            return promised
        seconds = self.frame_seconds() if seconds is None else seconds
        rate = self._decoder.stream.average_rate
        last = 1 / float(rate) if rate else float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
        return float(seconds[-1]) + last
