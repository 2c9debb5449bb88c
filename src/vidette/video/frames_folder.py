"""A folder of pictures read as a video: the same interface as :class:`vidette.video.reader.Video`."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageOps

from vidette.errors import EmptyVideoError, MissingVideoError, SettingError, UnreadableVideoError
from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.reader import VideoInfo
from vidette.video.sampling import TOLERANCE_SECONDS, pick_frames, target_seconds
from vidette.video.transforms import FrameResizer

__all__ = ["PICTURE_ENDINGS", "FramesFolder", "frames_digest", "open_frames", "picture_files"]

PICTURE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp"})


def open_frames(folder: str | Path, *, fps: float) -> FramesFolder:
    """Open a folder of frames.

    Args:
        folder: Holds pictures whose names, in natural order, are the order in time.
        fps: Frames a second: frame ``i`` is shown at ``i / fps``.

    Raises:
        MissingVideoError: There is no such folder.
        EmptyVideoError: It holds no picture.
        UnreadableVideoError: It is a file.
        SettingError: ``fps`` is not above 0.
    """
    return FramesFolder(folder, fps=fps)


def picture_files(folder: Path) -> list[Path]:
    """Return the visible pictures of a folder in natural order: ``2.jpg`` before ``10.jpg``."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in PICTURE_ENDINGS and not f.name.startswith(".")]
    return sorted(files, key=lambda file: _natural(file.name))


def frames_digest(folder: Path) -> str:
    """Return a hex digest of the pictures' place, names, sizes and times of change; their content is not read.

    Raises:
        MissingVideoError: There is no such folder.
        UnreadableVideoError: It may not be read.
    """
    try:
        stats = [(file.name, file.stat()) for file in picture_files(folder)]
    except FileNotFoundError as error:
        raise MissingVideoError(folder, "there is no such folder of frames") from error
    except OSError as error:
        raise UnreadableVideoError(folder, f"cannot be read ({error.strerror})") from error
    state = (folder.resolve().as_posix(), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)] + [(0, name)]


class FramesFolder:
    """The pictures of a folder as a video. Times are seconds since the first frame.

    Attributes:
        path: The folder.
        damaged_packets: Always 0: a picture that cannot be read is an error.
    """

    damaged_packets = 0

    def __init__(self, folder: str | Path, *, fps: float) -> None:
        if not 0 < fps < math.inf:
            raise SettingError(f"fps is {fps}; expected frames a second, above 0")
        self.path = Path(folder)
        if not self.path.exists():
            raise MissingVideoError(self.path, "there is no such folder of frames")
        if not self.path.is_dir():
            raise UnreadableVideoError(self.path, "is a file; a frame rate goes with a folder of frames")
        self._files = picture_files(self.path)
        self._fps = fps
        self._size: tuple[int, int] | None = None
        if not self._files:
            raise EmptyVideoError(
                self.path, f"the folder holds no picture; expected {', '.join(sorted(PICTURE_ENDINGS))}"
            )

    def __enter__(self) -> FramesFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""

    @property
    def info(self) -> VideoInfo:
        """What the folder is; reads the first picture."""
        height, width = self._read(0).shape[:2]
        return VideoInfo(
            path=self.path,
            container="frames",
            codec=self._files[0].suffix.lower().lstrip("."),
            pixel_format="rgb24",
            width=width,
            height=height,
            fps=self._fps,
            duration_seconds=len(self._files) / self._fps,
            num_frames=len(self._files),
            bit_rate=None,
            rotation_degrees=0,
            has_audio=False,
        )

    def frame_seconds(self) -> np.ndarray:
        """Return when every frame is shown, float64 ``(F,)``, ascending from 0."""
        return np.arange(len(self._files), dtype=np.float64) / self._fps

    def clip(
        self, spec: ClipSpec, *, start_seconds: float | None = None, stop_seconds: float | None = None
    ) -> Clip:
        """Cut one clip as :meth:`vidette.video.reader.Video.clip` does, reading only the frames it needs.

        Args:
            spec: Which frames and what size.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.

        Raises:
            SettingError: The segment is empty or starts before 0.
            EmptyVideoError: No frame lies in the segment.
            UnreadableVideoError: A picture cannot be read, or has another size than the first one read.
        """
        low, high = self._segment(start_seconds, stop_seconds)
        times = self.frame_seconds()
        first, last = float(times[low]), float(times[high - 1])
        wanted = target_seconds(spec, first_seconds=first, last_seconds=last)
        picks = pick_frames(times[low:high], wanted) + low
        indices, places = np.unique(picks, return_inverse=True)
        resizer = FrameResizer(spec)
        pixels = np.stack([resizer(self._read(int(index))) for index in indices])[places]
        return Clip(pixels, times[picks], int(np.sum(wanted > last + TOLERANCE_SECONDS)))

    def frames(
        self,
        spec: ClipSpec | None = None,
        *,
        start_seconds: float | None = None,
        stop_seconds: float | None = None,
    ) -> Iterator[Frame]:
        """Yield the frames of a segment in order; arguments and errors as :meth:`clip`.

        Args:
            spec: Resizes to its size; default RGB at the pictures' own size.
            start_seconds: Start of the segment ``[start, stop)``; default the first frame.
            stop_seconds: End of the segment; default after the last frame.
        """
        resizer = FrameResizer(spec) if spec else None
        low, high = self._segment(start_seconds, stop_seconds)
        for index in range(low, high):
            pixels = self._read(index)
            yield Frame(resizer(pixels) if resizer else pixels, index / self._fps, index)

    def _segment(self, start_seconds: float | None, stop_seconds: float | None) -> tuple[int, int]:
        """Return the first frame in ``[start, stop)`` and the first one after it, as indices."""
        start = 0.0 if start_seconds is None else start_seconds
        stop = math.inf if stop_seconds is None else stop_seconds
        if not 0 <= start < stop:
            raise SettingError(f"segment [{start:g}, {stop:g}) s; expected a start from 0 and a later stop")
        times = self.frame_seconds()
        low, high = np.searchsorted(times, np.array([start, stop]) - TOLERANCE_SECONDS)
        if low >= high:
            raise EmptyVideoError(
                self.path,
                f"no frame lies in the segment [{start:g}, {stop:g}) s; the {len(times)} frames last"
                f" until {times[-1]:.3f} s",
            )
        return int(low), int(high)

    def _read(self, index: int) -> np.ndarray:
        """Return a picture as uint8 ``(H, W, 3)``, RGB, its rotation applied."""
        file = self._files[index]
        try:
            with Image.open(file) as picture:
                pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnreadableVideoError(
                self.path, f"its frame {file.name} cannot be read ({error}); extract the frames again"
            ) from error
        size = pixels.shape[0], pixels.shape[1]
        self._size = self._size or size
        if size != self._size:
            raise UnreadableVideoError(
                self.path,
                f"its frame {file.name} is {size[0]}x{size[1]} and others are {self._size[0]}x{self._size[1]}; "
                "expected one size: extract the frames again",
            )
        return pixels
