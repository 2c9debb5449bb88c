"""Decoding no more than is wanted, and never trusting packets or headers without looking at what comes out.

The packets alone tell when frames are shown. Every frame that leaves the decoder is compared with what they
promised; where the two disagree (headers that lie, packets without times, damage) the file is decoded once to
count its real frames and those that are lost. Where a reading disagrees with that count too (damage again), it
decodes from the start, as the count did, and knows frames by their place. From the first damage on, every
reading has a fresh decoder of one thread: what stands in for damage would depend on threads and on what was
decoded before.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from vidette.errors import TruncatedVideoError, VideoError
from vidette.video.lanes import side_by_side
from vidette.video.packets import (
    DECODER_OPTIONS,
    NO_TIME,
    PacketScan,
    breaks_off,
    frameless,
    num_video_streams,
    open_container,
    pixel_aspect,
    read_packets,
    scan_packets,
)
from vidette.video.timeline import DisagreementError, StreamFacts, Timeline

__all__ = ["FrameDecoder"]

_DECODER_THREADS = 3
_LANES = 2
_LANE_FRAMES = 4
"""Runs with more wanted frames than this are not decoded ahead, so that few pictures are held."""
_SPARE_PACKETS = 1
"""Fed after the last wanted one: the second field of an interlaced picture may be a packet of its own."""
_Run = tuple[int, list[int]]
_JUMP_PACKETS = 24
"""Skip to a later key frame only over at least this many packets: starting afresh costs a few."""

_LONGEST_SECONDS = 3600
"""A frame that is shown for longer makes the packets' times doubtful."""


class FrameDecoder:
    """The frames of one file, by index, in the order they are shown; one reading at a time.

    Attributes:
        path: The file.
        held_bytes: Packets up to this sum are read once and kept.
        num_decoded: How many frames have left the decoder so far.
    """

    def __init__(
        self, path: Path, *, held_bytes: int, stream: int = 0, num_threads: int = _DECODER_THREADS
    ) -> None:
        self.path = path
        self._num_threads = num_threads
        self.held_bytes = held_bytes
        self._stream_number = stream
        self.num_decoded = 0
        self._readings = 0
        self._damaged = False
        self._careful = False
        self._known_scan: PacketScan | None = None
        self._known_timeline: Timeline | None = None
        self._origin_known = False
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def facts(self) -> StreamFacts:
        """What the container says."""
        rate = self._stream.average_rate
        return StreamFacts(
            container=self._container.format.name,
            codec=self._stream.codec_context.name,
            fps=float(rate) if rate else None,
            bit_rate=self._container.bit_rate or None,
            promised_seconds=self._promised_seconds(),
            last_frame_seconds=float(1 / rate) if rate else None,
            has_audio=bool(self._container.streams.audio),
            num_video_streams=num_video_streams(self._container),
            pixel_aspect=pixel_aspect(self._stream),
        )

    def wanted(self, timeline: Timeline, indices: np.ndarray) -> Iterator[av.VideoFrame]:
        """Yield the frames at ascending indices, decoding as little as exactness allows."""
        if timeline.pts is None:
            chosen = frozenset(indices.tolist())
            for place, picture in enumerate(self._decoded(0)):
                if place in chosen:
                    yield picture
            return
        if len(indices) == 0:
            return
        runs = self._runs(timeline.pts[indices].tolist())
        if runs[0][0] > 0:
            self._check_origin(timeline.pts[0])
        if len(runs) == 1 or self._careful or max(len(wanted) for _, wanted in runs) > _LANE_FRAMES:
            for run in runs:
                yield from self._run(timeline, run)
        else:
            yield from self._side_by_side(timeline, runs)

    def _run(self, timeline: Timeline, run: _Run) -> Iterator[av.VideoFrame]:
        """Yield the wanted frames of one run."""
        position, wanted = run
        self._check_run(timeline, position, wanted[-1])
        assert timeline.pts is not None
        missing = deque(wanted)
        for _, picture in self._checked(timeline.pts, position, frozenset(wanted)):
            if picture.pts == missing[0]:
                missing.popleft()
                yield picture
            if not missing or (picture.pts or 0) > missing[0]:
                break
        if missing:
            raise DisagreementError

    def _side_by_side(self, timeline: Timeline, runs: list[_Run]) -> Iterator[av.VideoFrame]:
        """Yield the wanted frames of runs that are decoded in parallel, each by a decoder with one thread.

        Several threads of one decoder wait for each other where it skips frames, and start afresh for each run.
        """
        self._readings += 1
        mine = self._readings
        lanes = [self._lane() for _ in range(min(_LANES, len(runs)))]
        try:
            for pictures in side_by_side(lanes, runs, lambda lane, run: list(lane._run(timeline, run))):
                for picture in pictures:
                    self._check_turn(mine)
                    yield picture
        finally:
            self._careful = self._careful or any(lane._careful for lane in lanes)
            self.num_decoded += sum(lane.num_decoded for lane in lanes)
            for lane in lanes:
                lane.close()

    def _lane(self) -> FrameDecoder:
        """Return another decoder of the same file, with one thread, that knows what this one does."""
        lane = FrameDecoder(self.path, held_bytes=self.held_bytes, stream=self._stream_number, num_threads=1)
        lane._known_scan = self._known_scan
        return lane

    def _check_turn(self, reading: int) -> None:
        if reading != self._readings:
            raise VideoError(
                self.path, "another reading was begun; open the file twice to read it twice at once"
            )

    def between(self, timeline: Timeline, low: int, high: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames from ``low`` to before ``high`` with their indices."""
        if timeline.pts is None:
            yield from itertools.islice(enumerate(self._decoded(0)), low, high)
            return
        if low >= high:
            return
        self._check_origin(timeline.pts[0])
        expected, start = low, self._scan().start_of(int(timeline.pts[low]))
        self._check_run(timeline, start, int(timeline.pts[high - 1]))
        for index, picture in self._checked(timeline.pts, start):
            if index < low:
                continue
            if index != expected:
                raise DisagreementError
            yield index, picture
            expected += 1
            if expected == high:
                return
        raise DisagreementError

    def _runs(self, wanted: list[int]) -> list[tuple[int, list[int]]]:
        """Group ascending times into runs that decode from one key packet on."""
        scan = self._scan()
        runs: list[tuple[int, list[int]]] = []
        for pts in wanted:
            start = scan.start_of(pts)
            if runs and start - scan.position_of(runs[-1][1][-1]) < _JUMP_PACKETS:
                runs[-1][1].append(pts)
            else:
                runs.append((start, [pts]))
        return runs

    def _check_origin(self, first_pts: int) -> None:
        """Make sure, once, that the file's first frame is the one that the packets promise."""
        if not self._origin_known:
            first = next(self._decoded(0), None)
            if first is None or first.pts != first_pts:
                raise DisagreementError
            self._origin_known = True

    def _check_run(self, timeline: Timeline, position: int, last_pts: int) -> None:
        """Make sure that no frame is known to be lost from a key packet to the last one that is wanted."""
        if len(timeline.lost_seconds) and timeline.pts is not None:
            bounds = np.array([self._scan().pts[position], last_pts])
            start, stop = self._seconds(bounds, timeline.pts[0])
            if timeline.num_lost(start if position else -np.inf, np.nextafter(stop, np.inf)):
                raise DisagreementError

    def _checked(
        self, known: np.ndarray, position: int, wanted: frozenset[int] | None = None
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from a key packet on; every frame must be a known one, in order, and none be damaged."""
        previous = -1
        for picture in self._decoded(position, wanted):
            index = -1 if picture.pts is None else int(np.searchsorted(known, picture.pts))
            unknown = not 0 <= index < len(known) or known[index] != picture.pts
            if unknown or index <= previous or self._damaged:
                self._careful = self._careful or self._damaged
                raise DisagreementError
            previous = index
            yield index, picture

    def _decoded(self, position: int, wanted: frozenset[int] | None = None) -> Iterator[av.VideoFrame]:
        """Decode from a key packet on; unwanted frames that nothing refers to may be left out.

        ``_damaged`` tells whether a packet was corrupt or refused, or a frame called corrupt.
        """
        self._readings += 1
        mine = self._readings
        self._damaged = False
        if self._careful:
            self._container.close()
            self._open()
        packets = self._packets_from(position)
        if wanted is not None:
            last = max(self._scan().position_of(pts) for pts in wanted)
            packets = itertools.islice(packets, last + 1 + _SPARE_PACKETS - position)
        codec = self._stream.codec_context
        codec.flush_buffers()
        codec.skip_frame = "DEFAULT"
        skips = wanted is not None and not self._careful and not self._may_miss_packets()
        for packet in itertools.chain(packets, [None]):
            self._check_turn(mine)
            self._damaged = self._damaged or (packet is not None and packet.is_corrupt)
            if skips and packet is not None:
                codec.skip_frame = "DEFAULT" if packet.pts in (wanted or ()) else "NONREF"
            try:
                pictures = codec.decode(packet)
            except av.FFmpegError:
                self._damaged = True
                continue
            for picture in pictures:
                self.num_decoded += 1
                self._damaged = self._damaged or picture.is_corrupt
                yield picture

    def _may_miss_packets(self) -> bool:
        """Tell whether packets may be lost without a trace: MP4 and MOV list theirs, others just go on."""
        return not self._container.format.name.startswith("mov") and self._scan().has_holes

    def _packets_from(self, position: int) -> Iterator[Packet[VideoStream]]:
        """Return the packets from a position in decoding order, kept or read again."""
        scan = self._known_scan
        if scan is not None and scan.packets is not None:
            return iter(scan.packets[position:])
        if scan is None or (position == 0 and not scan.tells_display):
            self._container.close()
            self._open()
            return read_packets(self._container, self._stream)
        pts = int(scan.pts[position])
        try:
            self._container.seek(int(scan.dts[position]), stream=self._stream)
        except av.FFmpegError as error:
            raise DisagreementError from error
        packets = read_packets(self._container, self._stream)
        return itertools.dropwhile(lambda packet: packet.pts != pts, packets)

    def _open(self) -> None:
        self._container, self._stream = open_container(self.path, stream=self._stream_number)
        self._stream.codec_context.options = DECODER_OPTIONS
        self._stream.codec_context.thread_type = "FRAME"
        self._stream.codec_context.thread_count = 1 if self._careful else self._num_threads

    # What the packets tell.

    def _scan(self) -> PacketScan:
        if self._known_scan is None:
            if self._readings:
                self._container.close()
                self._open()
            self._known_scan = scan_packets(self._container, self._stream, held_bytes=self.held_bytes)
            self._careful = self._known_scan.keys[:1].tolist() != [0]
        return self._known_scan

    def timeline(self) -> Timeline:
        """Return when the frames are shown, by the packets if they can tell, else by a count."""
        if self._known_timeline is None:
            scan = self._scan()
            # AVI keeps no presentation times: where frames are reordered, those of its packets are guesses.
            guessed = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
            if guessed or not scan.tells_display:
                return self._counted_timeline()
            pts = scan.display_pts
            seconds = self._seconds(pts, pts[0])
            if np.diff(seconds).max(initial=0) > _LONGEST_SECONDS:
                return self._counted_timeline()
            num_promised, ends_early = self._promise(len(pts))
            self._known_timeline = Timeline(seconds, pts, num_promised, ends_early)
        return self._known_timeline

    def doubted(self, timeline: Timeline) -> Timeline:
        """Return what to go by instead of a timeline that a reading has disagreed with."""
        return replace(timeline, pts=None) if timeline.counted else self._counted_timeline()

    def _seconds(self, pts: np.ndarray, first_pts: int) -> np.ndarray:
        return (pts - first_pts) * float(self._stream.time_base or 1)

    def _promise(self, num_packets: int) -> tuple[int, bool]:
        """Return how many frames the file says it has, and whether it breaks off before them."""
        seconds, rate = self._promised_seconds(), self._stream.average_rate
        said = self._stream.frames or (round(seconds * float(rate)) if seconds and rate else 0)
        breaks = self._scan().breaks_inside or (
            (said > num_packets or self._container.format.name == "gif") and breaks_off(self.path)
        )
        return max(said, num_packets) if breaks else num_packets, breaks

    def _counted_timeline(self) -> Timeline:
        """Decode everything once and keep when each frame is shown."""
        scan = self._scan()
        stamps, corrupt = self._stamps()
        if (self._damaged or len(stamps) < len(scan.display_pts)) and not self._careful:
            self._careful = True
            stamps, corrupt = self._stamps()
        pts, num_packets, damaged = stamps[stamps != NO_TIME], len(scan.display_pts), self._damaged
        num_promised, ends_early = self._promise(num_packets)
        if damaged and (len(stamps) == 0 or stamps[-1] != scan.display_pts.max(initial=NO_TIME)):
            ends_early = True
        if len(stamps) == 0:
            raise frameless(self.path, num_packets, ends_early=ends_early)
        if len(pts) == len(stamps) and np.all(np.diff(pts) > 0):
            seconds = self._seconds(pts, pts[0])
            known = pts if scan.seekable else None
            missing = np.setdiff1d(scan.display_pts, pts) if damaged and scan.times_known else pts[:0]
            lost = np.sort(np.append(seconds[corrupt], self._seconds(missing, pts[0])))
        else:
            rate = self._stream.average_rate or self._stream.guessed_rate or 25
            seconds, known = np.arange(len(stamps)) / float(rate), None
            num_missing = max(num_packets - len(stamps), 0) if damaged else 0
            lost = np.append(seconds[corrupt], np.full(num_missing, np.nan))
        self._known_timeline = Timeline(
            seconds, known, max(num_promised, len(stamps)), ends_early, counted=True, lost_seconds=lost
        )
        return self._known_timeline

    def _stamps(self) -> tuple[np.ndarray, np.ndarray]:
        """Decode everything; return int64 ``(F,)`` presentation times and bool ``(F,)``, which are corrupt."""
        stamps, corrupt = array("q"), array("b")
        for picture in self._decoded(0):
            stamps.append(NO_TIME if picture.pts is None else picture.pts)
            corrupt.append(picture.is_corrupt)
        return np.array(stamps, dtype=np.int64), np.array(corrupt, dtype=bool)

    def first_frame(self) -> av.VideoFrame:
        """Decode the first frame.

        Raises:
            EmptyVideoError, TruncatedVideoError, UnreadableVideoError: There is none.
        """
        first = next(self._decoded(0), None)
        if first is None:
            self._counted_timeline()
            raise frameless(self.path, len(self._scan().display_pts), ends_early=False)
        return first

    def _promised_seconds(self) -> float | None:
        """Return how long the header says the video lasts, None if it does not."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def truncated(self, timeline: Timeline) -> TruncatedVideoError:
        """Return the error that says how many frames decode of how many."""
        seconds = timeline.seconds
        return TruncatedVideoError(
            self.path,
            f"{len(seconds)} of {timeline.num_promised} frames decode, until {seconds[-1]:.3f} s: the file"
            " breaks off or is damaged; copy it again, or ask for a segment before that",
        )
