"""A folder of pictures read as a video: the same interface as :class:`vidette.video.reader.Video`."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vidette.errors import EmptyVideoError, MissingVideoError, SettingError, UnreadableVideoError
from vidette.video.names import natural_key
from vidette.video.reader import VideoInfo
from vidette.video.stills import Stills

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
    return sorted(files, key=lambda file: natural_key(file.name))


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


class FramesFolder(Stills):
    """The pictures of a folder as a video. Times are seconds since the first frame.

    Attributes:
        path: The folder.
        lost_frames: Always 0: a picture that cannot be read is an error.
    """

    def __init__(self, folder: str | Path, *, fps: float) -> None:
        if not 0 < fps < math.inf:
            raise SettingError(f"fps is {fps}; expected frames a second, above 0")
        path = Path(folder)
        if not path.exists():
            raise MissingVideoError(path, "there is no such folder of frames")
        if not path.is_dir():
            raise UnreadableVideoError(path, "is a file; a frame rate goes with a folder of frames")
        self._files = picture_files(path)
        self._fps = fps
        self._size: tuple[int, int] | None = None
        if not self._files:
            raise EmptyVideoError(
                path, f"the folder holds no picture; expected {', '.join(sorted(PICTURE_ENDINGS))}"
            )
        super().__init__(path, np.arange(len(self._files), dtype=np.float64) / fps)

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
