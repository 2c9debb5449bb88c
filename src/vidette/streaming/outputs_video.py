"""Annotated video of a live run: playable up to the last second or so, whenever the run ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vidette.errors import OutputExistsError, StorageError
from vidette.streaming.courier import Courier
from vidette.streaming.overlay import Overlay
from vidette.streaming.records import Picture, Record
from vidette.video.writer import VideoEncoder

__all__ = ["AnnotatedVideo"]

_TICKS_A_SECOND = 90_000
_RATE = Fraction(30)
_CAPACITY = 16


class AnnotatedVideo:
    """An MP4 of one source at its own pace, with answers, events and signals burnt in.

    It is encoded on a thread of its own; where that is too slow for a camera, pictures are left out, and
    :meth:`summary` counts them. Pictures of another size than the first are fitted into it.

    Args:
        path: The file to write.
        overwrite: Replace a file that is there.

    Attributes:
        name: The path.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: It cannot be written.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.name = str(path)
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("w" if overwrite else "x").close()
        except (FileExistsError, IsADirectoryError) as error:
            raise OutputExistsError(
                f"{path} exists already; choose another name or overwrite it (--overwrite)"
            ) from error
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
        self._overlay = Overlay()
        self._encoder: VideoEncoder | None = None
        self._size = (0, 0)
        self._courier = Courier[tuple[Picture, Overlay]](self._encode, capacity=_CAPACITY, name="video")

    def take(self, record: Record) -> None:
        """Remember what is to be burnt in."""
        self._overlay.take(record)

    def show(self, picture: Picture) -> None:
        """Take the next picture.

        Raises:
            StorageError: A picture before could not be written.
        """
        self._courier.put((picture, self._overlay.copy()), may_drop=picture.may_drop)

    def refresh(self) -> None:
        """Do nothing: the thread does it."""

    def close(self) -> None:
        """Write what is left and end the file.

        Raises:
            StorageError: A picture could not be written.
        """
        try:
            self._courier.finish()
        finally:
            if self._encoder is not None:
                try:
                    self._encoder.__exit__(None)
                except OSError as error:
                    raise self._storage_error(error) from error

    def summary(self) -> str:
        """Say what was left out; empty where nothing was."""
        lost = self._courier.num_lost
        return f"{self.name}: {lost} pictures left out, encoding was too slow for them" if lost else ""

    def _encode(self, item: tuple[Picture, Overlay]) -> None:
        picture, overlay = item
        pixels, seconds = picture.shown.picture(), picture.shown.seconds
        try:
            if self._encoder is None:
                self._size = pixels.shape[:2]
                self._encoder = VideoEncoder(
                    self._path, pixels, rate=_RATE, time_base=Fraction(1, _TICKS_A_SECOND), fragmented=True
                )
            painted = overlay.paint(_fitted(pixels, self._size), seconds=seconds)
            self._encoder.add(painted, ticks=round(seconds * _TICKS_A_SECOND))
        except (OSError, av.FFmpegError) as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: Exception) -> StorageError:
        return StorageError(f"{self.name} cannot be written: {getattr(error, 'strerror', None) or error}")


def _fitted(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return pixels at a size, with black bars where the shape differs."""
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    rows, columns = max(1, int(pixels.shape[0] * scale)), max(1, int(pixels.shape[1] * scale))
    small = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR))
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    out[top : top + rows, left : left + columns] = small
    return out
