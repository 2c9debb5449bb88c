"""Opening a container with errors that say what is wrong, and what one pass over its packets tells."""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
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
    VideoError,
)
from vidette.video.timeline import StreamFacts

__all__ = [
    "DECODER_OPTIONS",
    "MAX_PIXELS",
    "NO_TIME",
    "PacketScan",
    "breaks_off",
    "check_file",
    "check_size",
    "frameless",
    "no_such_stream",
    "num_video_streams",
    "open_container",
    "pixel_aspect",
    "promised_seconds",
    "read_packets",
    "scan_packets",
    "stream_facts",
]

MAX_PIXELS = 35_651_584
"""Pixels of the largest picture that is decoded, 8704x4096: that of level 6.2 in H.264, H.265 and AV1.

More is refused before memory is taken for it; a header that is damaged can claim anything.
"""

DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
_ONLY_THIS_FILE = {"protocol_whitelist": "file"}
NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is not known."""
_TEXT_FORMATS = frozenset({"ass", "concat", "hls", "lrc", "microdvd", "sdp", "srt", "tty", "webvtt"})
_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"uuid"}
)
_GIF_PICTURE, _GIF_END = 0x2C, 0x3B
_ASPECTS = 1 / 4, 4
"""Least and greatest widths over heights of a pixel that are believed; others are damage."""
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def open_container(path: Path, *, stream: int = 0) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose one of its video streams; cover pictures do not count.

    Args:
        path: The file; nothing outside it is opened, whatever it names.
        stream: Which video stream, from 0.

    Raises:
        VideoError: One of its kinds: missing, empty, no such video stream, truncated, unreadable.
    """
    check_file(path)
    try:
        container = av.open(
            f"file:{path}", mode="r", metadata_errors="ignore", container_options=_ONLY_THIS_FILE
        )
    except av.FFmpegError as error:
        if breaks_off(path):
            raise TruncatedVideoError(
                path, "the file breaks off before its index, so no frame can be found; copy or record it again"
            ) from error
        raise UnreadableVideoError(path, f"not a video that FFmpeg can open ({error.strerror})") from error
    try:
        return container, _video_stream(container, path, stream=stream)
    except (NoVideoStreamError, UnreadableVideoError):
        container.close()
        raise


def check_file(path: Path) -> None:
    """Make sure that there is a file with something in it.

    Raises:
        MissingVideoError, UnreadableVideoError, EmptyVideoError: There is none, it is a folder, it is empty.
    """
    if not path.exists():
        raise MissingVideoError(path, "there is no such file")
    if not path.is_file():
        raise UnreadableVideoError(path, "is a folder, not a file; name one video")
    if path.stat().st_size == 0:
        raise EmptyVideoError(path, "the file has zero bytes")


def check_size(path: Path, *, width: int, height: int) -> None:
    """Make sure that pictures are of a size that is decoded.

    Raises:
        UnreadableVideoError: They have more than :data:`MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise UnreadableVideoError(
            path,
            f"says that its pictures are {width}x{height}, over {MAX_PIXELS} pixels: its header is damaged, or"
            " scale it down first",
        )


def num_video_streams(container: InputContainer) -> int:
    """Return how many video streams a container has; cover pictures do not count."""
    return len(_video_streams(container))


def _video_streams(container: InputContainer) -> list[VideoStream]:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if container.metadata.get("major_brand") == "avis" and any(s.frames > 1 for s in streams):
        return [s for s in streams if s.frames > 1]  # an AVIF sequence holds its cover as one more stream
    return streams


def _video_stream(container: InputContainer, path: Path, *, stream: int) -> VideoStream:
    if container.format.name in _TEXT_FORMATS:
        raise UnreadableVideoError(path, f"is text ({container.format.name}), not a video")
    streams = _video_streams(container)
    if not streams:
        held = ", ".join(sorted({s.type for s in container.streams})) or "no stream"
        raise NoVideoStreamError(path, f"holds no video stream (it holds {held})")
    if not 0 <= stream < len(streams):
        raise no_such_stream(path, stream, held=len(streams))
    chosen = streams[stream]
    if getattr(chosen, "codec_context", None) is None:
        raise UnreadableVideoError(path, "no decoder for its video codec; convert it to H.264")
    check_size(path, width=chosen.codec_context.width, height=chosen.codec_context.height)
    return chosen


def no_such_stream(path: Path, stream: int, *, held: int) -> NoVideoStreamError:
    """Return the error that says how many video streams there are."""
    return NoVideoStreamError(
        path,
        f"has no video stream {stream}: it holds {held}; expected "
        + ("0" if held == 1 else f"0 to {held - 1}"),
    )


@dataclass(frozen=True, eq=False)
class PacketScan:
    """What one pass over a stream's packets showed; one entry a packet, in decoding order.

    Attributes:
        pts: int64 ``(P,)``, presentation times in units of the stream's time base.
        dts: int64 ``(P,)``, decoding times, likewise; the presentation time where a packet has none.
        shown: bool ``(P,)``, whether its frame is shown; an edit list may want it decoded only.
        keys: int64 ``(K,)``, positions of the packets where decoding can start, ascending.
        packets: The packets themselves, or None when they are too many to keep.
        times_known: Every packet has a presentation time, and no two the same.
        breaks_inside: The container could not be read to its end, or its last packet is cut short.
    """

    pts: np.ndarray
    dts: np.ndarray
    shown: np.ndarray
    keys: np.ndarray
    packets: tuple[Packet[VideoStream], ...] | None
    times_known: bool
    breaks_inside: bool

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.pts, kind="stable")

    @cached_property
    def display_pts(self) -> np.ndarray:
        """int64 ``(F,)``, the presentation times of the frames that are shown, in order."""
        return np.sort(self.pts[self.shown])

    @property
    def tells_display(self) -> bool:
        """Whether the packets alone say when every frame is shown."""
        return self.times_known and self.seekable and self.keys[0] == 0 and bool(self.shown.any())

    @cached_property
    def _key_pts(self) -> np.ndarray:
        return self.pts[self.keys]

    @cached_property
    def seekable(self) -> bool:
        """Whether decoding can start at a key packet: there are some, in order of time."""
        stamps = self._key_pts
        return len(stamps) > 0 and stamps[0] != NO_TIME and bool(np.all(np.diff(stamps) > 0))

    @cached_property
    def has_holes(self) -> bool:
        """Whether a frame may be missing: one is shown much longer than is usual in this stream.

        A packet that is lost leaves no other sign, and what then stands in may come from any frame before it.
        """
        gaps = np.diff(self.display_pts)
        return len(gaps) > 0 and bool(gaps.max() > 1.5 * np.median(gaps))

    def position_of(self, pts: int) -> int:
        """Return the position of the packet shown at ``pts``."""
        place = np.searchsorted(self.pts, pts, sorter=self._order)
        return int(self._order[min(int(place), len(self.pts) - 1)])

    def start_of(self, pts: int) -> int:
        """Return the position of the last key packet shown at or before ``pts``, else 0."""
        place = int(np.searchsorted(self._key_pts, pts, side="right"))
        return int(self.keys[place - 1]) if place else 0


def scan_packets(container: InputContainer, stream: VideoStream, *, held_bytes: int) -> PacketScan:
    """Read all packets of a freshly opened stream, decoding nothing; keep them up to ``held_bytes``."""
    pts, dts, keys, shown = array("q"), array("q"), array("q"), array("b")
    held: list[Packet[VideoStream]] | None = None if _is_over(held_bytes, container, stream) else []
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
            pts.append(NO_TIME if packet.pts is None else packet.pts)
            dts.append(pts[-1] if packet.dts is None else packet.dts)
            shown.append(not packet.is_discard)
            broken = packet.is_corrupt
    except av.FFmpegError:
        broken = True
    stamps = np.array(pts, dtype=np.int64)
    return PacketScan(
        pts=stamps,
        dts=np.array(dts, dtype=np.int64),
        shown=np.array(shown, dtype=bool),
        keys=np.array(keys, dtype=np.int64),
        packets=None if held is None else tuple(held),
        times_known=NO_TIME not in stamps and len(np.unique(stamps)) == len(stamps),
        breaks_inside=broken,
    )


def _is_over(held_bytes: int, container: InputContainer, stream: VideoStream) -> bool:
    """Tell whether a stream's packets are surely too many to keep, by the file's size and its header."""
    seconds, bit_rate = promised_seconds(container, stream) or 0, stream.codec_context.bit_rate or 0
    return container.size > held_bytes and seconds * bit_rate / 8 > held_bytes


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets that hold anything from where the container stands."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except IndexError:
        return  # PyAV at the end of a container in which another stream has appeared on the way


def breaks_off(path: Path) -> bool:
    """Tell whether the file is shorter than it says itself (MP4 and MOV, AVI and WebP, Matroska, GIF)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF" and len(head) >= 8:
            return 8 + int(struct.unpack("<I", head[4:8])[0]) > size
        if head[:4] == _EBML:
            return _matroska_end(head) > size
        if head[4:8] in _MP4_BOXES:
            return _mp4_end(file, size) > size
        if head[:4] == b"GIF8":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return not _gif_ends(content)
    return False


def _gif_ends(content: mmap.mmap) -> bool:
    """Follow a GIF's blocks; tell whether the last one is whole (some writers leave the end mark out)."""
    try:
        position = 13 + _gif_table_bytes(content[10])
        while position != len(content) and content[position] != _GIF_END:
            if content[position] == _GIF_PICTURE:
                position += 11 + _gif_table_bytes(content[position + 9])
            else:
                position += 2
            while content[position]:
                position += content[position] + 1
            position += 1
    except IndexError:
        return False
    return True


def _gif_table_bytes(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


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


def frameless(path: Path, num_packets: int, *, ends_early: bool) -> VideoError:
    """Return the error that says why a file gives no frame at all."""
    if num_packets == 0 and not ends_early:
        return EmptyVideoError(path, "its video stream holds no frame")
    if ends_early or breaks_off(path):
        return TruncatedVideoError(
            path, f"0 of {num_packets} frames decode: the file breaks off or is damaged; copy it again"
        )
    return UnreadableVideoError(path, f"none of its {num_packets} packets decodes; convert it to H.264")


def stream_facts(container: InputContainer, stream: VideoStream) -> StreamFacts:
    """Return what a container says of itself and of one of its streams."""
    rate = stream.average_rate
    return StreamFacts(
        container=container.format.name,
        codec=stream.codec_context.name,
        fps=float(rate) if rate else None,
        bit_rate=container.bit_rate or None,
        promised_seconds=promised_seconds(container, stream),
        last_frame_seconds=float(1 / rate) if rate else None,
        has_audio=bool(container.streams.audio),
        num_video_streams=num_video_streams(container),
        pixel_aspect=pixel_aspect(stream),
    )


def promised_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Return how long the header says the video lasts, None if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def pixel_aspect(stream: VideoStream) -> float:
    """Return how wide a pixel is shown for its height, 1 where the file does not say or cannot mean it."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if _ASPECTS[0] <= aspect <= _ASPECTS[1] else 1.0
