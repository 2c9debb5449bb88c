"""Opening a container with errors that say what is wrong, and what one pass over its packets tells."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from vidette.errors import (
    EmptyVideoError,
    MissingVideoError,
    NoVideoStreamError,
    TruncatedVideoError,
    UnreadableVideoError,
)

__all__ = ["PacketScan", "breaks_off", "open_container", "read_packets", "scan_packets"]

_TEXT_FORMATS = frozenset({"ass", "concat", "hls", "lrc", "microdvd", "sdp", "srt", "tty", "webvtt"})
_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"uuid"}
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose its video stream (the first that is not a cover picture).

    Raises:
        VideoError: One of its kinds: missing, empty, no video stream, truncated, unreadable.
    """
    _check_file(path)
    try:
        container = av.open(f"file:{path}", mode="r", metadata_errors="ignore")
    except av.FFmpegError as error:
        if breaks_off(path):
            raise TruncatedVideoError(
                path, "the file breaks off before its index, so no frame can be found; copy or record it again"
            ) from error
        raise UnreadableVideoError(path, f"not a video that FFmpeg can open ({error.strerror})") from error
    try:
        return container, _video_stream(container, path)
    except (NoVideoStreamError, UnreadableVideoError):
        container.close()
        raise


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MissingVideoError(path, "there is no such file")
    if not path.is_file():
        raise UnreadableVideoError(path, "is a folder, not a file; name one video")
    if path.stat().st_size == 0:
        raise EmptyVideoError(path, "the file has zero bytes")


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if container.format.name in _TEXT_FORMATS:
        raise UnreadableVideoError(path, f"is text ({container.format.name}), not a video")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        held = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
        raise NoVideoStreamError(path, f"holds no video stream (it holds {held})")
    stream = streams[0]
    if getattr(stream, "codec_context", None) is None:
        raise UnreadableVideoError(path, "no decoder for its video codec; convert it to H.264")
    return stream


@dataclass(frozen=True, eq=False)
class PacketScan:
    """What one pass over a stream's packets showed; one entry a packet, in decoding order.

    Attributes:
        pts: Presentation times in units of the stream's time base; None where a packet has none.
        dts: Decoding times, likewise.
        keys: Positions of the packets where decoding can start, ascending.
        key_pts: Their presentation times.
        packets: The packets themselves, or None when they are too many to keep.
        breaks_inside: The container could not be read to its end, or its last packet is cut short.
    """

    pts: tuple[int | None, ...]
    dts: tuple[int | None, ...]
    keys: tuple[int, ...]
    key_pts: tuple[int, ...]
    packets: tuple[Packet[VideoStream], ...] | None
    breaks_inside: bool

    def display_pts(self) -> np.ndarray | None:
        """Return int64 ``(F,)``, the ascending times of the promised frames; None if packets do not tell."""
        known = [pts for pts in self.pts if pts is not None]
        if len(known) < len(self.pts) or len(set(known)) < len(known) or not known or self.keys[:1] != (0,):
            return None
        return np.sort(np.array(known, dtype=np.int64))

    def start_of(self, pts: int) -> int:
        """Return the position of the last key packet shown at or before ``pts``, else 0."""
        return self.keys[max(bisect.bisect_right(self.key_pts, pts) - 1, 0)]


def scan_packets(container: InputContainer, stream: VideoStream, *, held_bytes: int) -> PacketScan:
    """Read all packets of a freshly opened stream, decoding nothing; keep them up to ``held_bytes``."""
    pts: list[int | None] = []
    dts: list[int | None] = []
    keys: list[int] = []
    held: list[Packet[VideoStream]] | None = []
    num_bytes, broken = 0, False
    try:
        for packet in read_packets(container, stream):
            num_bytes += packet.size
            if num_bytes > held_bytes:
                held = None
            if held is not None:
                held.append(packet)
            if packet.is_keyframe:
                keys.append(len(pts))
            pts.append(packet.pts)
            dts.append(packet.dts)
            broken = packet.is_corrupt
    except av.FFmpegError:
        broken = True
    packets = None if held is None else tuple(held)
    key_pts = tuple(pts[key] or 0 for key in keys)
    return PacketScan(tuple(pts), tuple(dts), tuple(keys), key_pts, packets, broken)


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of shown frames from where the container stands."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:
            return  # PyAV at the end of a container in which another stream has appeared on the way
        if packet is None:
            return
        if packet.size and not packet.is_discard:
            yield packet


def breaks_off(path: Path) -> bool:
    """Tell whether the file is shorter than its own container says (MP4 and MOV, AVI, Matroska and WebM)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF" and len(head) >= 8:
            return 8 + int(struct.unpack("<I", head[4:8])[0]) > size
        if head[:4] == _EBML:
            return _matroska_end(head) > size
        if head[4:8] in _MP4_BOXES:
            return _mp4_end(file, size) > size
    return False


def _matroska_end(head: bytes) -> int:
    at = head.find(_SEGMENT)
    if at < 0 or at + 12 > len(head):
        return 0
    first = head[at + 4]
    if first == 0:
        return 0
    length = 9 - first.bit_length()
    value = int.from_bytes(head[at + 4 : at + 4 + length], "big") & ((1 << 7 * length) - 1)
    unknown = value == (1 << 7 * length) - 1
    return 0 if unknown else at + 4 + length + value


def _mp4_end(file: IO[bytes], size: int) -> int:
    """Follow the boxes of the file's top level; return where the last known one says it ends."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, name = struct.unpack(">I4s", head[:8])
        if name not in _MP4_BOXES or length == 0:
            break
        if length == 1 and len(head) == 16:
            length = int(struct.unpack(">Q", head[8:16])[0])
        if length < 8:
            break
        position += length
    return position
