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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

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
    open_container,
    promised_seconds,
    read_packets,
    scan_packets,
    stream_facts,
)
from vidette.video.runs import Run, runs_of
from vidette.video.timeline import DisagreementError, StreamFacts, Timeline

__all__ = ["FrameDecoder"]

_DECODER_THREADS = 3
_LANES = 2
_PIECES = 8
"""Into about how many pieces of work for the lanes frames that lie close together are cut."""
_LONGEST_SECONDS = 3600
"""A frame that is shown for longer makes the packets' times doubtful."""

_Result = TypeVar("_Result")
_Work = Callable[[av.VideoFrame], _Result]


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
        return stream_facts(self._container, self._stream)

    def wanted(self, timeline: Timeline, indices: np.ndarray) -> Iterator[av.VideoFrame]:
        """Yield the frames at ascending indices, decoding as little as exactness allows."""
        if timeline.pts is None:
            chosen = frozenset(indices.tolist())
            for place, picture in enumerate(self._decoded(0)):
                if place in chosen:
                    yield picture
            return
        for run in self._runs(timeline.pts, indices):
            yield from self._run(timeline, run)

    def map_wanted(
        self,
        timeline: Timeline,
        indices: np.ndarray,
        new_work: Callable[[], _Work[_Result]],
        *,
        in_pieces: bool = False,
    ) -> list[_Result]:
        """Return what a function makes of the frames at ascending indices, decoding side by side where it can.

        Args:
            timeline: What to go by.
            indices: int ``(N,)``.
            new_work: Makes the function; each that it makes is called by one thread at a time.
            in_pieces: Whether to cut frames that lie close together into pieces of work too.

        Returns:
            N results; fewer where the file ends early.
        """
        pts = timeline.pts
        runs = [] if pts is None else self._runs(pts, indices, num_pieces=_PIECES if in_pieces else 1)
        if len(runs) < 2 or self._careful:
            return list(map(new_work(), self.wanted(timeline, indices)))
        results = self._side_by_side(timeline, runs, new_work)
        return [results[pts] for run in runs for pts in run.wanted]

    def _runs(self, known: np.ndarray, indices: np.ndarray, *, num_pieces: int = 1) -> list[Run]:
        """Group the known frames at ascending indices into runs, having looked at where the file begins."""
        runs = runs_of(self._scan(), known[indices].tolist(), num_pieces=num_pieces)
        if runs and runs[0].position > 0:
            self._check_origin(known[0])
        return runs

    def _side_by_side(
        self, timeline: Timeline, runs: list[Run], new_work: Callable[[], _Work[_Result]]
    ) -> dict[int, _Result]:
        """Decode runs in parallel, the longest first, each by a decoder with one thread; keep what is made.

        Several threads of one decoder wait for each other where it skips frames, and start afresh for each run.
        """
        self._readings += 1
        results: dict[int, _Result] = {}
        lanes = [(self._lane(), new_work()) for _ in range(min(_LANES, len(runs)))]

        def decode(lane: tuple[FrameDecoder, _Work[_Result]], run: Run) -> None:
            decoder, work = lane
            for pts, picture in zip(run.wanted, decoder._run(timeline, run), strict=True):
                results[pts] = work(picture)

        try:
            side_by_side(lanes, sorted(runs, key=lambda run: -run.num_packets), decode)
        finally:
            for lane, _ in lanes:
                self.num_decoded += lane.num_decoded
                lane.close()
        return results

    def _run(self, timeline: Timeline, run: Run) -> Iterator[av.VideoFrame]:
        """Yield the wanted frames of one run."""
        self._check_run(timeline, run.position, run.wanted[-1])
        assert timeline.pts is not None
        missing = deque(run.wanted)
        for _, picture in self._checked(timeline.pts, run.position, run):
            if missing and picture.pts == missing[0]:
                missing.popleft()
                yield picture
            if (missing and (picture.pts or 0) > missing[0]) or not (missing or run.goes_on):
                break
        if missing:
            raise DisagreementError

    def _lane(self) -> FrameDecoder:
        """Return another decoder of the same file, with one thread, that knows what this one does."""
        lane = FrameDecoder(self.path, held_bytes=self.held_bytes, stream=self._stream_number, num_threads=1)
        lane._known_scan = self._known_scan
        return lane

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
        self, known: np.ndarray, position: int, run: Run | None = None
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from a key packet on; every frame must be a known one, in order, and none be damaged."""
        previous = -1
        for picture in self._decoded(position, run):
            index = -1 if picture.pts is None else int(np.searchsorted(known, picture.pts))
            unknown = not 0 <= index < len(known) or known[index] != picture.pts
            if unknown or index <= previous or self._damaged:
                raise DisagreementError(damaged=self._damaged)
            previous = index
            yield index, picture

    def _decoded(self, position: int, run: Run | None = None) -> Iterator[av.VideoFrame]:
        """Decode from a key packet on; frames that a run does not want and nothing refers to may be left out.

        ``_damaged`` tells whether a packet was corrupt or refused, or a frame called corrupt.
        """
        self._readings += 1
        mine = self._readings
        self._damaged = False
        if self._careful:
            self._container.close()
            self._open()
        packets = self._packets_from(position)
        if run is not None:
            packets = itertools.islice(packets, run.num_packets)
        codec = self._stream.codec_context
        codec.flush_buffers()
        codec.skip_frame = "DEFAULT"
        wanted = frozenset(run.wanted if run is not None else ())
        skips = run is not None and not self._careful and not self._may_miss_packets()
        for packet in itertools.chain(packets, [None]):
            if mine != self._readings:
                raise VideoError(
                    self.path, "another reading was begun; open the file twice to read it twice at once"
                )
            self._damaged = self._damaged or (packet is not None and packet.is_corrupt)
            if skips and packet is not None:
                codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
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

    def doubted(self, timeline: Timeline, *, damaged: bool) -> Timeline:
        """Return what to go by instead of a timeline that a reading has disagreed with, perhaps for damage."""
        self._careful = self._careful or damaged
        return replace(timeline, pts=None) if timeline.counted else self._counted_timeline()

    def _seconds(self, pts: np.ndarray, first_pts: int) -> np.ndarray:
        return (pts - first_pts) * float(self._stream.time_base or 1)

    def _promise(self, num_packets: int) -> tuple[int, bool]:
        """Return how many frames the file says it has, and whether it breaks off before them."""
        seconds, rate = promised_seconds(self._container, self._stream), self._stream.average_rate
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

    def truncated(self, timeline: Timeline) -> TruncatedVideoError:
        """Return the error that says how many frames decode of how many."""
        seconds = timeline.seconds
        return TruncatedVideoError(
            self.path,
            f"{len(seconds)} of {timeline.num_promised} frames decode, until {seconds[-1]:.3f} s: the file"
            " breaks off or is damaged; copy it again, or ask for a segment before that",
        )
