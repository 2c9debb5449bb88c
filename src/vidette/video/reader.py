"""Reading video files: what they are, and their frames by time, exactly those that decoding everything would pick.

The packets alone tell when frames are shown, so a clip is chosen before a picture is decoded; then only what the
chosen frames need is decoded, and only they are converted. Every frame that leaves the decoder is compared with
what the packets promised. Where they disagree (headers that lie, packets without times, damage) the file is decoded
once to count its real frames, and the choice is made among those.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vidette.errors import EmptyVideoError, SettingError, TruncatedVideoError, UnreadableVideoError, VideoError
from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.packets import HELD_BYTES, PacketScan, breaks_off, open_container, read_packets, scan_packets
from vidette.video.sampling import TOLERANCE_SECONDS, pick_frames, target_seconds
from vidette.video.transforms import FrameResizer, quarter_turns, rgb_pixels

__all__ = ["Video", "VideoInfo", "open_video", "probe"]

_DECODER_THREADS = 2
_JUMP_PACKETS = 24
"""Skip to a later key frame only over at least this many packets: starting afresh costs a few."""


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
        duration_seconds: From the first frame until the last one leaves the screen, None if unknown.
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
    duration_seconds: float | None
    num_frames: int | None
    bit_rate: int | None
    rotation_degrees: int
    has_audio: bool


@dataclass(frozen=True, eq=False)
class _Timeline:
    """When each frame is shown.

    Attributes:
        seconds: float64 ``(F,)``, ascending from 0.
        pts: int64 ``(F,)`` by which decoded frames are known, or None: then by their place in the decoded order.
        num_promised: Frames that the file says it has.
        ends_early: The file breaks off, or its end does not decode.
    """

    seconds: np.ndarray
    pts: np.ndarray | None
    num_promised: int
    ends_early: bool


class _DisagreementError(Exception):
    """The decoder gave other frames than the packets promised."""


def open_video(path: str | Path) -> Video:
    """Open a video file.

    Args:
        path: The file.

    Returns:
        The open video; a context manager that closes it.

    Raises:
        MissingVideoError: There is no such file.
        EmptyVideoError: It has zero bytes.
        NoVideoStreamError: It holds no video.
        TruncatedVideoError: It breaks off before the part that says where the frames are.
        UnreadableVideoError: It is not a video, or no decoder can open it.
    """
    return Video(path)


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
        damaged_packets: How many packets the decoder refused in the last reading.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damaged_packets = 0
        self._readings = 0
        self._known_scan: PacketScan | None = None
        self._known_timeline: _Timeline | None = None
        self._origin_known = False
        self._positions: dict[int | None, int] = {}
        self._open()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._container.close()

    @property
    def info(self) -> VideoInfo:
        """What the file is; counts its frames only when it is short."""
        short = self.path.stat().st_size <= HELD_BYTES
        seconds = self.frame_seconds() if short else None
        frame = self._first_frame()
        turns = quarter_turns(frame)
        rate = self._stream.average_rate
        return VideoInfo(
            path=self.path,
            container=self._container.format.name,
            codec=self._stream.codec_context.name,
            pixel_format=frame.format.name,
            width=frame.height if turns % 2 else frame.width,
            height=frame.width if turns % 2 else frame.height,
            fps=float(rate) if rate else None,
            duration_seconds=self._promised_seconds() if seconds is None else self._shown_seconds(seconds),
            num_frames=None if seconds is None else len(seconds),
            bit_rate=self._container.bit_rate or None,
            rotation_degrees=90 * turns,
            has_audio=bool(self._container.streams.audio),
        )

    def frame_seconds(self) -> np.ndarray:
        """Return when every frame is shown, float64 ``(F,)``, ascending from 0.

        Only packets are read, unless they do not tell: then the file is decoded once.

        Raises:
            EmptyVideoError: The stream holds no frame.
            UnreadableVideoError: Nothing of it decodes.
            TruncatedVideoError: It breaks off before its first frame.
        """
        return self._timeline().seconds.copy()

    def clip(
        self, spec: ClipSpec, *, start_seconds: float | None = None, stop_seconds: float | None = None
    ) -> Clip:
        """Cut one clip, decoding no more than its frames need.

        Args:
            spec: Which frames and what size. ``"whole"`` spaces its frames equally from the segment's first frame
                to its last. ``"window"`` starts at the segment's first frame; where the segment is shorter than
                the window its last frame is repeated and counted.
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
            return self._cut(self._timeline(), spec, start_seconds, stop_seconds)
        except _DisagreementError:
            return self._cut(self._counted_timeline(), spec, start_seconds, stop_seconds)

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
        self, timeline: _Timeline, spec: ClipSpec, start_seconds: float | None, stop_seconds: float | None
    ) -> Clip:
        low, high = self._segment(timeline, start_seconds, stop_seconds)
        times = timeline.seconds[low:high]
        wanted = target_seconds(spec, first_seconds=float(times[0]), last_seconds=float(times[-1]))
        late = wanted > times[-1] + TOLERANCE_SECONDS
        if timeline.ends_early and high == len(timeline.seconds) and (spec.fps is None or late.any()):
            raise self._truncated(timeline)
        picks = pick_frames(times, wanted) + low
        return Clip(self._pixels(timeline, spec, picks), timeline.seconds[picks], int(late.sum()))

    def _pixels(self, timeline: _Timeline, spec: ClipSpec, picks: np.ndarray) -> np.ndarray:
        """Decode the picked frames, ascending and perhaps repeated, into uint8 ``(T, H, W, 3)``."""
        pixels = np.zeros((len(picks), spec.height, spec.width, 3), np.uint8)
        indices, rows = np.unique(picks, return_index=True)
        resizer = FrameResizer(spec)
        num_found = 0
        for row, picture in zip(rows, self._wanted(timeline, indices), strict=False):
            resizer.write(picture, pixels[row])
            num_found += 1
        if num_found < len(indices):
            raise self._truncated(timeline)
        first_rows = rows[np.searchsorted(indices, picks)]
        repeats = np.flatnonzero(first_rows != np.arange(len(picks)))
        pixels[repeats] = pixels[first_rows[repeats]]
        return pixels

    def _segment(
        self, timeline: _Timeline, start_seconds: float | None, stop_seconds: float | None
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
        timeline, following = self._timeline(), 0
        while True:
            low, high = self._segment(timeline, start_seconds, stop_seconds)
            try:
                for index, picture in self._run(timeline, max(low, following), high):
                    yield index, float(timeline.seconds[index]), picture
                    following = index + 1
                break
            except _DisagreementError:
                timeline = self._counted_timeline()
        late = stop_seconds is None or stop_seconds > timeline.seconds[-1] + TOLERANCE_SECONDS
        if timeline.ends_early and late:
            raise self._truncated(timeline)

    # Decoding.

    def _wanted(self, timeline: _Timeline, indices: np.ndarray) -> Iterator[av.VideoFrame]:
        """Yield the frames at ascending indices, decoding as little as exactness allows."""
        if timeline.pts is None:
            chosen = frozenset(indices.tolist())
            for place, picture in enumerate(self._decoded(0)):
                if place in chosen:
                    yield picture
            return
        for position, wanted in self._runs(timeline.pts[indices].tolist()):
            found = 0
            for picture in self._checked(position, frozenset(wanted)):
                if picture.pts == wanted[found]:
                    yield picture
                    found += 1
                    if found == len(wanted):
                        break
            if found < len(wanted):
                raise _DisagreementError

    def _run(self, timeline: _Timeline, low: int, high: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames from ``low`` to before ``high`` with their indices."""
        if timeline.pts is None:
            yield from itertools.islice(enumerate(self._decoded(0)), low, high)
            return
        if low >= high:
            return
        self._check_origin(timeline.pts[0])
        first, last = timeline.pts[low], timeline.pts[high - 1]
        for picture in self._checked(self._scan().start_of(int(first)), None):
            pts = picture.pts or 0
            if pts >= first:
                yield int(np.searchsorted(timeline.pts, pts)), picture
            if pts >= last:
                return
        raise _DisagreementError

    def _runs(self, wanted: list[int]) -> list[tuple[int, list[int]]]:
        """Group ascending times into runs that decode from one key packet on."""
        scan = self._scan()
        runs: list[tuple[int, list[int]]] = []
        for pts in wanted:
            start = scan.start_of(pts)
            if runs and start - self._positions[runs[-1][1][-1]] < _JUMP_PACKETS:
                runs[-1][1].append(pts)
            else:
                runs.append((start, [pts]))
        return runs

    def _check_origin(self, first_pts: int) -> None:
        """Make sure, once, that the file's first frame is the one that the packets promise."""
        if not self._origin_known:
            first = next(self._decoded(0), None)
            if first is None or first.pts != first_pts:
                raise _DisagreementError
            self._origin_known = True

    def _checked(self, position: int, wanted: frozenset[int] | None) -> Iterator[av.VideoFrame]:
        """Decode from a key packet on; every frame must be one that the packets promised, in its order."""
        previous: int | None = None
        for picture in self._decoded(position, wanted):
            pts = picture.pts
            if pts not in self._positions or (previous is not None and pts <= previous):
                raise _DisagreementError
            previous = pts
            yield picture

    def _decoded(self, position: int, wanted: frozenset[int] | None = None) -> Iterator[av.VideoFrame]:
        """Decode from a key packet on; frames that nothing refers to and that are not wanted may be left out."""
        self._readings += 1
        mine = self._readings
        self.damaged_packets = 0
        packets = self._packets_from(position)
        codec = self._stream.codec_context
        codec.flush_buffers()
        codec.skip_frame = "DEFAULT"
        for packet in itertools.chain(packets, [None]):
            if mine != self._readings:
                raise VideoError(
                    self.path, "another reading was begun; open the file twice to read it twice at once"
                )
            if wanted is not None and packet is not None:
                codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            try:
                pictures = codec.decode(packet)
            except av.FFmpegError:
                self.damaged_packets += 1
                continue
            yield from pictures

    def _packets_from(self, position: int) -> Iterator[Packet[VideoStream]]:
        """Return the packets from a position in decoding order, kept or read again."""
        scan = self._known_scan
        if scan is not None and scan.packets is not None:
            return iter(scan.packets[position:])
        if scan is None or position == 0:
            self._container.close()
            self._open()
            return read_packets(self._container, self._stream)
        pts, dts = scan.pts[position], scan.dts[position]
        self._container.seek((pts if dts is None else dts) or 0, stream=self._stream)
        packets = read_packets(self._container, self._stream)
        return itertools.dropwhile(lambda packet: packet.pts != pts, packets)

    def _open(self) -> None:
        self._container, self._stream = open_container(self.path)
        self._stream.codec_context.thread_type = "FRAME"
        self._stream.codec_context.thread_count = _DECODER_THREADS

    # What the packets tell.

    def _scan(self) -> PacketScan:
        if self._known_scan is None:
            self._known_scan = scan_packets(self._container, self._stream)
            self._positions = {pts: i for i, pts in enumerate(self._known_scan.pts) if pts is not None}
        return self._known_scan

    def _timeline(self) -> _Timeline:
        """Return when the frames are shown, by the packets if they can tell, else by a count."""
        if self._known_timeline is None:
            scan = self._scan()
            # AVI keeps no presentation times: where frames are reordered, those of its packets are guesses.
            guessed = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
            pts = None if guessed else scan.display_pts()
            if pts is None:
                return self._counted_timeline()
            seconds = (pts - pts[0]) * float(self._stream.time_base or 1)
            num_promised, ends_early = self._promise(len(pts))
            self._known_timeline = _Timeline(seconds, pts, num_promised, ends_early)
        return self._known_timeline

    def _promise(self, num_packets: int) -> tuple[int, bool]:
        """Return how many frames the file says it has, and whether it breaks off before them."""
        seconds, rate = self._promised_seconds(), self._stream.average_rate
        said = self._stream.frames or (round(seconds * float(rate)) if seconds and rate else 0)
        breaks = self._scan().breaks_inside or (said > num_packets and breaks_off(self.path))
        return max(said, num_packets) if breaks else num_packets, breaks

    def _counted_timeline(self) -> _Timeline:
        """Decode everything once and keep when each frame is shown."""
        scan = self._scan()
        pts = [picture.pts for picture in self._decoded(0)]
        num_promised, ends_early = self._promise(len(scan.pts))
        if self.damaged_packets and (
            not pts or pts[-1] != max((p for p in scan.pts if p is not None), default=None)
        ):
            ends_early = True
        if not pts:
            raise self._frameless(len(scan.pts), ends_early=ends_early)
        stamps = np.array([np.nan if p is None else p for p in pts])
        if np.all(np.diff(stamps) > 0):
            seconds = (stamps - stamps[0]) * float(self._stream.time_base or 1)
        else:
            rate = self._stream.average_rate or self._stream.guessed_rate or 25
            seconds = np.arange(len(pts)) / float(rate)
        self._known_timeline = _Timeline(seconds, None, max(num_promised, len(pts)), ends_early)
        return self._known_timeline

    def _first_frame(self) -> av.VideoFrame:
        first = next(self._decoded(0), None)
        if first is None:
            self._counted_timeline()
            raise self._frameless(len(self._scan().pts), ends_early=False)
        return first

    def _promised_seconds(self) -> float | None:
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def _shown_seconds(self, seconds: np.ndarray) -> float:
        rate = self._stream.average_rate
        last = 1 / float(rate) if rate else float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
        return float(seconds[-1]) + last

    def _frameless(self, num_packets: int, *, ends_early: bool) -> VideoError:
        if num_packets == 0 and not ends_early:
            return EmptyVideoError(self.path, "its video stream holds no frame")
        if ends_early or breaks_off(self.path):
            return TruncatedVideoError(
                self.path, f"0 of {num_packets} frames decode: the file breaks off or is damaged"
            )
        return UnreadableVideoError(
            self.path, f"none of its {num_packets} packets decodes; convert it to H.264"
        )

    def _truncated(self, timeline: _Timeline) -> TruncatedVideoError:
        seconds = timeline.seconds
        return TruncatedVideoError(
            self.path,
            f"{len(seconds)} of {timeline.num_promised} frames decode, until {seconds[-1]:.3f} s: the file breaks off"
            " or is damaged; copy it again, or ask for a segment before that",
        )
