"""Video and subtitle files out: H.264 MP4s, captions burnt into a copy, SRT subtitles.

Every file is written under a temporary name beside its place and renamed when it is complete, so that
a file that is there is whole.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image, ImageDraw, ImageFont

from vidette.errors import EmptyVideoError, OutputExistsError, SettingError, StorageError
from vidette.video.reader import open_video

__all__ = [
    "Caption",
    "VideoEncoder",
    "caption_font",
    "replacing",
    "shortened",
    "write_annotated",
    "write_srt",
    "write_video",
]

_TICKS_A_SECOND = 90_000
_SMALLEST_FONT, _LEAST_FONT, _LARGEST_FONT = 8, 11, 48
_FONT_FRACTION = 0.055
_BAR_BRIGHTNESS = 0.25
_FRAGMENTS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
# Without macroblock tree, equal frames give equal bytes (x264's, with it, do not always at small sizes), and
# a frame's quality does not hang on what comes after it.
_X264_OPTIONS = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}


@dataclass(frozen=True)
class Caption:
    """A text shown during ``[start_seconds, stop_seconds)``.

    Attributes:
        start_seconds: When it appears, since the first frame.
        stop_seconds: When it is gone, since the first frame.
        text: What it says; a line break starts a new line.

    Raises:
        SettingError: The times are negative or out of order, or the text is blank.

    Example:
        >>> Caption(0.0, 1.5, "left 0.98")
        Caption(start_seconds=0.0, stop_seconds=1.5, text='left 0.98')
    """

    start_seconds: float
    stop_seconds: float
    text: str

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < self.stop_seconds < float("inf"):
            raise SettingError(
                f"caption {self.text!r} runs from {self.start_seconds} to {self.stop_seconds} s; "
                "expected 0 <= start < stop"
            )
        if not self.lines:
            raise SettingError(f"caption at {self.start_seconds} s has no text; leave it out instead")

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the text that are not blank."""
        return tuple(line.strip() for line in self.text.splitlines() if line.strip())


@contextlib.contextmanager
def replacing(path: str | Path, *, overwrite: bool = False) -> Generator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` if the block ends well, else remove it.

    Raises:
        OutputExistsError: ``path`` is there and ``overwrite`` is false, or it is a folder.
        StorageError: The place cannot be written or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; expected the path of a file to write")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another name or overwrite it (--overwrite)")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: float, overwrite: bool = False) -> Path:
    """Write frames of one size as an H.264 MP4 at a constant rate.

    Args:
        path: The MP4 file to write.
        frames: uint8 ``(H, W, 3)`` RGB arrays, or one ``(F, H, W, 3)`` array; taken one at a time.
        fps: Frames a second.
        overwrite: Replace a file that is there.

    Returns:
        The path.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        EmptyVideoError: There was no frame.
        StorageError: The place cannot be written or the disk is full.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with replacing(path, overwrite=overwrite) as temporary:
        remaining = iter(frames)
        first = next(remaining, None)
        if first is None:
            raise EmptyVideoError(path, "no frame was given to write; expected one or more")
        with VideoEncoder(temporary, first, rate=rate, time_base=1 / rate, num_threads=1) as encoder:
            encoder.add(first, ticks=0)
            for ticks, pixels in enumerate(remaining, start=1):
                encoder.add(pixels, ticks=ticks)
    return Path(path)


def write_annotated(
    source: str | Path, out: str | Path, captions: Sequence[Caption], *, overwrite: bool = False
) -> Path:
    """Write a copy of a video as H.264 MP4 with the captions burnt into a dark bar at the bottom.

    Size, frame times and rate are the source's; sound is left out. A size with an odd side is written
    with full colour resolution (yuv444p), since the usual format cannot hold it.

    Args:
        source: The video to copy.
        out: The ``.mp4`` file to write.
        captions: What to show when; captions that overlap in time are stacked.
        overwrite: Replace ``out`` if it is there.

    Returns:
        ``out``.

    Raises:
        SettingError: ``out`` does not end in ``.mp4``.
        OutputExistsError: ``out`` is there and ``overwrite`` is false.
        VideoError: The source cannot be read.
        StorageError: The place cannot be written or the disk is full.
    """
    if Path(out).suffix.lower() != ".mp4":
        raise SettingError(f"annotated video {out} must end in .mp4; got {Path(out).suffix or 'no ending'!r}")
    with open_video(source) as video, replacing(out, overwrite=overwrite) as temporary:
        rate = Fraction(video.info.fps or 25).limit_denominator(1001)
        frames = video.frames()
        first = next(frames, None)
        if first is None:
            raise EmptyVideoError(source, "it holds no frame to annotate")
        painter = _CaptionPainter(captions, first.pixels)
        with VideoEncoder(
            temporary, first.pixels, rate=rate, time_base=Fraction(1, _TICKS_A_SECOND)
        ) as encoder:
            encoder.add(painter.paint(first.pixels, seconds=first.seconds), ticks=_ticks(first.seconds))
            for frame in frames:
                painted = painter.paint(frame.pixels, seconds=frame.seconds)
                encoder.add(painted, ticks=_ticks(frame.seconds))
    return Path(out)


def write_srt(path: str | Path, captions: Sequence[Caption], *, overwrite: bool = False) -> Path:
    """Write captions as SubRip subtitles (UTF-8), in order of their start, times to the millisecond.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: The place cannot be written or the disk is full.
    """
    cues = [_srt_cue(number, caption) for number, caption in enumerate(_in_order(captions), start=1)]
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(cues), encoding="utf-8", newline="\n")
    return Path(path)


def _srt_cue(number: int, caption: Caption) -> str:
    start = round(caption.start_seconds * 1000)
    stop = max(round(caption.stop_seconds * 1000), start + 1)
    lines = "\n".join(caption.lines)
    return f"{number}\n{_srt_time(start)} --> {_srt_time(stop)}\n{lines}\n"


def _srt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{milliseconds:03}"


def _in_order(captions: Iterable[Caption]) -> list[Caption]:
    return sorted(captions, key=lambda caption: (caption.start_seconds, caption.stop_seconds))


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS_A_SECOND)


class VideoEncoder:
    """One H.264 MP4 being written; a context manager.

    Args:
        path: The file.
        like: uint8 ``(H, W, 3)``, a picture of the size to come.
        rate: Frames a second, about.
        time_base: Seconds a tick.
        num_threads: Of the encoder; 0 leaves it to the encoder.
        fragmented: Write pieces of about a second, each with its own index, as soon as they are there: the file
            plays up to the last of them whenever the writing ends.
    """

    def __init__(
        self,
        path: Path,
        like: np.ndarray,
        *,
        rate: Fraction,
        time_base: Fraction,
        num_threads: int = 0,
        fragmented: bool = False,
    ) -> None:
        height, width = like.shape[:2]
        pieces = _FRAGMENTS if fragmented else {}
        options = {**_X264_OPTIONS, **({"tune": "zerolatency", "g": str(round(rate))} if fragmented else {})}
        self._container = av.open(str(path), "w", format="mp4", options=pieces)
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        context = self._stream.codec_context
        context.time_base = time_base
        context.thread_count = num_threads
        context.colorspace, context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
        self._time_base = time_base
        self._last_ticks = -1
        self._reformatter = VideoReformatter()

    def __enter__(self) -> VideoEncoder:
        return self

    def add(self, pixels: np.ndarray, *, ticks: int) -> None:
        """Encode one uint8 ``(H, W, 3)`` RGB picture, shown at ``ticks`` (made to increase)."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            width=self._stream.width,
            height=self._stream.height,
            format=self._stream.pix_fmt,
            dst_colorspace=Colorspace.SMPTE170M,
        )
        self._last_ticks = max(ticks, self._last_ticks + 1)
        frame.pts, frame.time_base = self._last_ticks, self._time_base
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


class _CaptionPainter:
    """Draws the captions of one moment onto frames that come in order of time."""

    def __init__(self, captions: Iterable[Caption], like: np.ndarray) -> None:
        self._pending = deque(_in_order(captions))
        self._active: list[Caption] = []
        self._height, self._width = like.shape[:2]
        self._drawn: tuple[str, ...] = ()
        self._ink = np.zeros((0, self._width, 1), np.float32)

    def paint(self, pixels: np.ndarray, *, seconds: float) -> np.ndarray:
        """Return ``(H, W, 3)`` pixels with the captions on show at ``seconds``; the input is unchanged."""
        lines = self._lines_at(seconds)
        if not lines:
            return pixels
        if lines != self._drawn:
            self._drawn, self._ink = lines, _draw_lines(lines, width=self._width, height=self._height)
        painted = pixels.copy()
        bar = painted[-len(self._ink) :]
        ink = self._ink[-len(bar) :, : bar.shape[1]]
        bar[:] = bar * _BAR_BRIGHTNESS * (1 - ink) + 255 * ink + 0.5
        return painted

    def _lines_at(self, seconds: float) -> tuple[str, ...]:
        moment = seconds + 0.5 / _TICKS_A_SECOND
        while self._pending and self._pending[0].start_seconds <= moment:
            self._active.append(self._pending.popleft())
        self._active = [caption for caption in self._active if caption.stop_seconds > moment]
        return tuple(line for caption in self._active for line in caption.lines)


def _draw_lines(lines: Sequence[str], *, width: int, height: int) -> np.ndarray:
    """Draw white lines of text, as large as fits; float32 ``(bar height, width, 1)`` in 0..1."""
    pad = max(2, height // 60)
    font = _fitting_font(lines, width=width - 2 * pad, height=height)
    row = sum(font.getmetrics())
    lines = lines[: max(1, (height // 2 - 2 * pad) // row)]
    picture = Image.new("L", (width, min(height, row * len(lines) + 2 * pad)))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        shown = shortened(line, font, width=width - 2 * pad)
        draw.text(((width - font.getlength(shown)) / 2, pad + number * row), shown, fill=255, font=font)
    return np.asarray(picture, np.float32)[:, :, None] / 255


def _fitting_font(lines: Iterable[str], *, width: int, height: int) -> ImageFont.FreeTypeFont:
    largest = int(np.clip(round(height * _FONT_FRACTION), _LEAST_FONT, _LARGEST_FONT))
    longest = max(lines, key=len)
    for size in range(largest, _SMALLEST_FONT, -1):
        font = caption_font(size)
        if font.getlength(longest) <= width:
            return font
    return caption_font(_SMALLEST_FONT)


def caption_font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib carries (Latin, Greek, Cyrillic and more), ``size`` pixels high."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def shortened(line: str, font: ImageFont.FreeTypeFont, *, width: int) -> str:
    """Return a line as it is, or cut with an ellipsis to be at most ``width`` pixels long."""
    if font.getlength(line) <= width:
        return line
    kept = len(line)
    while kept > 1 and font.getlength(line[:kept].rstrip() + "…") > width:
        kept -= 1
    return line[:kept].rstrip() + "…"
