"""Animated WebP read by Pillow, behind what the reader wants of a decoder: FFmpeg does not decode it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from PIL import Image, ImageSequence

from vidette.errors import TruncatedVideoError, UnreadableVideoError, VideoError
from vidette.video.packets import breaks_off, check_file, check_size, no_such_stream
from vidette.video.timeline import StreamFacts, Timeline

__all__ = ["PictureDecoder", "is_animated_webp"]

_HEAD_BYTES = 30
_ANIMATION = 0x02
_Result = TypeVar("_Result")
_Work = Callable[[av.VideoFrame], _Result]


def is_animated_webp(path: Path) -> bool:
    """Tell by a file's first bytes whether it is a WebP of several pictures."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    is_webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return is_webp and len(head) == _HEAD_BYTES and bool(head[20] & _ANIMATION)


class PictureDecoder:
    """The pictures of an animated WebP, by index; one is held at a time. Transparency is dropped.

    Attributes:
        path: The file.
        num_decoded: How many pictures have been decoded so far.

    Args:
        stream: Only 0 is there.

    Raises:
        NoVideoStreamError: Another stream was asked for.
        TruncatedVideoError: The file breaks off: no picture can be had from a part of it.
        UnreadableVideoError: It holds no picture, or its pictures are too large.
    """

    def __init__(self, path: Path, *, stream: int = 0) -> None:
        check_file(path)
        if stream != 0:
            raise no_such_stream(path, stream, held=1)
        self.path = path
        self.num_decoded = 0
        self._readings = 0
        self._canvas = _read_canvas(path)
        check_size(path, width=self._canvas.width, height=self._canvas.height)
        if breaks_off(path):
            raise TruncatedVideoError(path, "the file breaks off, so no picture can be had; copy it again")
        if not self._canvas.durations:
            raise UnreadableVideoError(path, "an animated WebP without a picture; make it again")

    def close(self) -> None:
        """Do nothing: no file stays open between readings."""

    @property
    def facts(self) -> StreamFacts:
        """What the file says."""
        seconds = sum(self._canvas.durations) / 1000
        return StreamFacts(
            container="webp",
            codec="webp",
            fps=len(self._canvas.durations) / seconds if seconds else None,
            bit_rate=round(8 * self.path.stat().st_size / seconds) if seconds else None,
            promised_seconds=seconds or None,
            last_frame_seconds=self._canvas.durations[-1] / 1000,
            has_audio=False,
            num_video_streams=1,
            pixel_aspect=1.0,
        )

    def timeline(self) -> Timeline:
        """Return when the pictures are shown."""
        ends = np.cumsum(self._canvas.durations)
        seconds = np.append(0, ends[:-1]) / 1000
        return Timeline(seconds, None, len(seconds), ends_early=False, counted=True)

    def doubted(self, timeline: Timeline, *, damaged: bool) -> Timeline:
        """Return the same timeline: nothing disagrees with it."""
        del damaged
        return timeline

    def first_frame(self) -> av.VideoFrame:
        """Decode the first picture."""
        return next(self._decoded())

    def wanted(self, timeline: Timeline, indices: np.ndarray) -> Iterator[av.VideoFrame]:
        """Yield the pictures at ascending indices; those before the last one are decoded too."""
        chosen, last = frozenset(indices.tolist()), int(indices.max(initial=-1))
        for index, frame in self.between(timeline, 0, last + 1):
            if index in chosen:
                yield frame

    def map_wanted(
        self,
        timeline: Timeline,
        indices: np.ndarray,
        new_work: Callable[[], _Work[_Result]],
        *,
        in_pieces: bool = False,
    ) -> list[_Result]:
        """Return what a function makes of the pictures at ascending indices, decoded one after the other."""
        del in_pieces
        return list(map(new_work(), self.wanted(timeline, indices)))

    def between(self, timeline: Timeline, low: int, high: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the pictures from ``low`` to before ``high`` with their indices."""
        del timeline
        for index, frame in enumerate(self._decoded()):
            if index >= high:
                return
            if index >= low:
                yield index, frame

    def truncated(self, timeline: Timeline) -> TruncatedVideoError:
        """Return the error that says that fewer pictures decode than the file holds."""
        return TruncatedVideoError(
            self.path, f"not all of its {timeline.num_promised} pictures decode; make or copy it again"
        )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        self._readings += 1
        mine, decoded_before = self._readings, self.num_decoded
        try:
            with Image.open(self.path, formats=["WEBP"]) as picture:
                for frame in ImageSequence.Iterator(picture):
                    if mine != self._readings:
                        raise VideoError(
                            self.path, "another reading was begun; open the file twice to read it twice at once"
                        )
                    self.num_decoded += 1
                    yield _video_frame(frame)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if self.num_decoded == decoded_before:
                raise UnreadableVideoError(self.path, f"its pictures cannot be read ({error})") from error
            raise self.truncated(self.timeline()) from error


def _video_frame(picture: Image.Image) -> av.VideoFrame:
    if picture.mode == "RGBA":
        return av.VideoFrame.from_ndarray(np.asarray(picture), format="rgba")
    return av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")


@dataclass(frozen=True)
class _Canvas:
    """Size of the pictures and how long each is shown, in milliseconds."""

    width: int
    height: int
    durations: tuple[int, ...]


def _read_canvas(path: Path) -> _Canvas:
    """Follow the chunks of a file that :func:`is_animated_webp`, reading no picture."""
    durations: list[int] = []
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        position = 20 + struct.unpack("<I", head[16:20])[0]
        while True:
            file.seek(position)
            chunk = file.read(24)
            if len(chunk) < 8:
                break
            name, size = struct.unpack("<4sI", chunk[:8])
            if name == b"ANMF" and len(chunk) == 24:
                durations.append(int.from_bytes(chunk[20:23], "little"))
            position += 8 + size + size % 2
    width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    return _Canvas(width, height, tuple(durations))
