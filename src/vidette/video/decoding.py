"""Decoding no more than is wanted, and never trusting packets or headers without looking at what comes out.

The packets alone tell when frames are shown. Every frame that leaves the decoder is compared with what they
promised; where the two disagree (headers that lie, packets without times, damage) the file is decoded once to
count its real frames, and these are then known by their place.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vidette.errors import EmptyVideoError, TruncatedVideoError, UnreadableVideoError, VideoError
from vidette.video.packets import PacketScan, breaks_off, open_container, read_packets, scan_packets

__all__ = ["DisagreementError", "FrameDecoder", "Timeline"]

_DECODER_THREADS = 3
_JUMP_PACKETS = 24
"""Skip to a later key frame only over at least this many packets: starting afresh costs a few."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """When each frame is shown.

    Attributes:
        seconds: float64 ``(F,)``, ascending from 0.
        pts: int64 ``(F,)`` by which decoded frames are known, or None: by their place instead.
        num_promised: Frames that the file says it has.
        ends_early: The file breaks off, or its end does not decode.
    """

    seconds: np.ndarray
    pts: np.ndarray | None
    num_promised: int
    ends_early: bool


class DisagreementError(Exception):
    """The decoder gave other frames than the packets promised."""


class FrameDecoder:
    """The frames of one file, by index, in the order they are shown; one reading at a time.

    Attributes:
        path: The file.
        held_bytes: Packets up to this sum are read once and kept.
        damaged_packets: How many packets the decoder refused in the last reading.
    """

    def __init__(self, path: Path, *, held_bytes: int) -> None:
        self.path = path
        self.held_bytes = held_bytes
        self.damaged_packets = 0
        self._readings = 0
        self._known_scan: PacketScan | None = None
        self._known_timeline: Timeline | None = None
        self._origin_known = False
        self._positions: dict[int, int] = {}
        self._open()

    @property
    def container(self) -> InputContainer:
        """The open container; another one after a reading that began anew."""
        return self._container

    @property
    def stream(self) -> VideoStream:
        """The video stream of :attr:`container`."""
        return self._stream

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def wanted(self, timeline: Timeline, indices: np.ndarray) -> Iterator[av.VideoFrame]:
        """Yield the frames at ascending indices, decoding as little as exactness allows."""
        if timeline.pts is None:
            chosen = frozenset(indices.tolist())
            for place, picture in enumerate(self._decoded(0)):
                if place in chosen:
                    yield picture
            return
        runs = self._runs(timeline.pts[indices].tolist())
        if runs[0][0] > 0:
            self._check_origin(timeline.pts[0])
        for position, wanted in runs:
            missing = deque(wanted)
            for picture in self._checked(position, frozenset(wanted)):
                if picture.pts == missing[0]:
                    missing.popleft()
                    yield picture
                if not missing or (picture.pts or 0) > missing[0]:
                    break
            if missing:
                raise DisagreementError

    def between(self, timeline: Timeline, low: int, high: int) -> Iterator[tuple[int, av.VideoFrame]]:
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
        raise DisagreementError

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
                raise DisagreementError
            self._origin_known = True

    def _checked(self, position: int, wanted: frozenset[int] | None) -> Iterator[av.VideoFrame]:
        """Decode from a key packet on; every frame must be one that the packets promised, in its order."""
        previous: int | None = None
        for picture in self._decoded(position, wanted):
            pts = picture.pts
            if pts is None or pts not in self._positions or (previous is not None and pts <= previous):
                raise DisagreementError
            previous = pts
            yield picture

    def _decoded(self, position: int, wanted: frozenset[int] | None = None) -> Iterator[av.VideoFrame]:
        """Decode from a key packet on; unwanted frames that nothing refers to may be left out."""
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
        try:
            self._container.seek((pts if dts is None else dts) or 0, stream=self._stream)
        except av.FFmpegError as error:
            raise DisagreementError from error
        packets = read_packets(self._container, self._stream)
        return itertools.dropwhile(lambda packet: packet.pts != pts, packets)

    def _open(self) -> None:
        self._container, self._stream = open_container(self.path)
        self._stream.codec_context.thread_type = "FRAME"
        self._stream.codec_context.thread_count = _DECODER_THREADS

    # What the packets tell.

    def _scan(self) -> PacketScan:
        if self._known_scan is None:
            self._known_scan = scan_packets(self._container, self._stream, held_bytes=self.held_bytes)
            self._positions = {pts: i for i, pts in enumerate(self._known_scan.pts) if pts is not None}
        return self._known_scan

    def timeline(self) -> Timeline:
        """Return when the frames are shown, by the packets if they can tell, else by a count."""
        if self._known_timeline is None:
            scan = self._scan()
            # AVI keeps no presentation times: where frames are reordered, those of its packets are guesses.
            guessed = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
            pts = None if guessed else scan.display_pts()
            if pts is None:
                return self.counted_timeline()
            seconds = (pts - pts[0]) * float(self._stream.time_base or 1)
            num_promised, ends_early = self._promise(len(pts))
            self._known_timeline = Timeline(seconds, pts, num_promised, ends_early)
        return self._known_timeline

    def _promise(self, num_packets: int) -> tuple[int, bool]:
        """Return how many frames the file says it has, and whether it breaks off before them."""
        seconds, rate = self.promised_seconds(), self._stream.average_rate
        said = self._stream.frames or (round(seconds * float(rate)) if seconds and rate else 0)
        breaks = self._scan().breaks_inside or (said > num_packets and breaks_off(self.path))
        return max(said, num_packets) if breaks else num_packets, breaks

    def counted_timeline(self) -> Timeline:
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
        self._known_timeline = Timeline(seconds, None, max(num_promised, len(pts)), ends_early)
        return self._known_timeline

    def first_frame(self) -> av.VideoFrame:
        """Decode the first frame.

        Raises:
            EmptyVideoError, TruncatedVideoError, UnreadableVideoError: There is none.
        """
        first = next(self._decoded(0), None)
        if first is None:
            self.counted_timeline()
            raise self._frameless(len(self._scan().pts), ends_early=False)
        return first

    def promised_seconds(self) -> float | None:
        """Return how long the header says the video lasts, None if it does not."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def _frameless(self, num_packets: int, *, ends_early: bool) -> VideoError:
        if num_packets == 0 and not ends_early:
            return EmptyVideoError(self.path, "its video stream holds no frame")
        if ends_early or breaks_off(self.path):
            return TruncatedVideoError(
                self.path, f"0 of {num_packets} frames decode: the file breaks off or is damaged; copy it again"
            )
        return UnreadableVideoError(
            self.path, f"none of its {num_packets} packets decodes; convert it to H.264"
        )

    def truncated(self, timeline: Timeline) -> TruncatedVideoError:
        """Return the error that says how many frames decode of how many."""
        seconds = timeline.seconds
        return TruncatedVideoError(
            self.path,
            f"{len(seconds)} of {timeline.num_promised} frames decode, until {seconds[-1]:.3f} s: the file"
            " breaks off or is damaged; copy it again, or ask for a segment before that",
        )
