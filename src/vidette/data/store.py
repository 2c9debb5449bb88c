"""Arrays on disk under a key: written whole or not at all, damage found on reading."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidette.errors import MissingVideoError, StorageError, UnreadableVideoError

__all__ = ["ArrayStore", "ContentMemo"]

_CHUNK = 1 << 20
_DAMAGE = (ValueError, EOFError, OSError, SyntaxError, TypeError, MemoryError, tokenize.TokenError)
"""What NumPy raises on reading a file that is cut short or overwritten."""


_FULL = (errno.ENOSPC, errno.EDQUOT, None)
"""A full disk or quota; NumPy's own writing gives a write that was cut short no number."""


class ArrayStore:
    """Lists of arrays in files named by a key, safe with several processes at once.

    Args:
        folder: Where the files go; made when first written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = ArrayStore(Path(folder))
        ...     store.save("ab12", [np.arange(3)])
        ...     store.load("ab12"), store.load("cd34")
        ([array([0, 1, 2])], None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / key[:2] / f"{key}.arrays"

    def has(self, key: str) -> bool:
        """Tell whether something was saved under the key."""
        return self.path(key).is_file()

    def save(self, key: str, arrays: Sequence[np.ndarray]) -> None:
        """Write arrays under a key: beside their place, then renamed.

        Raises:
            StorageError: The disk is full or cannot be written; nothing half-written stays.
        """
        path = self.path(key)
        partial = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                for array in arrays:
                    np.save(file, array, allow_pickle=False)
            partial.replace(path)
        except OSError as error:
            what = "the disk is full" if error.errno in _FULL else str(error.strerror or error)
            needed = sum(array.nbytes for array in arrays) / 1e6
            raise StorageError(
                f"{needed:.1f} MB could not be written to {self.folder}: {what}; free some space, or choose "
                "another place with the environment variable VIDETTE_CACHE"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()

    def load(self, key: str) -> list[np.ndarray] | None:
        """Return the arrays under a key; None where there are none, or the file is damaged (it is removed)."""
        path = self.path(key)
        arrays: list[np.ndarray] = []
        try:
            with path.open("rb") as file:
                end = os.fstat(file.fileno()).st_size
                while file.tell() < end:
                    arrays.append(np.load(file, allow_pickle=False))
        except FileNotFoundError:
            return None
        except _DAMAGE:
            arrays = []
        if not arrays:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return arrays


class ContentMemo:
    """Digests of files' content, remembered by path, size and time of change.

    Args:
        file: Where digests are kept between runs, a line each; None keeps them in memory.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._known = _read_memo(file) if file else {}

    def digest(self, path: Path) -> str:
        """Return the hex digest of a file's content, reading it only if it is new or has changed.

        Raises:
            MissingVideoError: There is no such file.
            UnreadableVideoError: It may not be read.
            StorageError: The digest cannot be kept.
        """
        try:
            stat = path.stat()
        except OSError as error:
            raise MissingVideoError(path, f"{error.strerror}; give the path of a video file") from error
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        with self._lock:
            known = self._known.get(key)
        return known or self._remember(key, _content_digest(path))

    def _remember(self, key: str, digest: str) -> str:
        with self._lock:
            self._known[key] = digest
            if self.file:
                try:
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                    with self.file.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps([key, digest]) + "\n")
                except OSError as error:
                    raise StorageError(
                        f"{self.file} cannot be written: {error.strerror}; free some space, or choose another "
                        "place with the environment variable VIDETTE_CACHE"
                    ) from error
        return digest


def _content_digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UnreadableVideoError(path, f"cannot be read: {error.strerror}; give a video file") from error
    return digest.hexdigest()


def _read_memo(file: Path) -> dict[str, str]:
    """Read the lines that are whole; one torn by a kill is passed over and its file hashed again."""
    known: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return known
    for line in lines:
        with contextlib.suppress(ValueError):
            match json.loads(line):
                case [str(key), str(digest)]:
                    known[key] = digest
                case _:
                    pass
    return known
