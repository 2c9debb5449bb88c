"""Writing tar shards of clips: see :mod:`vidette.video.shards` for what is in one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidette.errors import StorageError
from vidette.video.clip import Frame
from vidette.video.shards import Encoding, Entry, Index, KeptFrames, Place

__all__ = ["ShardWriter", "encoded_frame"]

_SUFFIX = {"jpeg": "jpg", "raw": "npy"}


class ShardWriter:
    """Writes one shard, a frame at a time; it stands complete or not at all.

    Args:
        path: The tar; its index goes beside it, ending ``.json``.
        kept: What the frames are.
        encoding: ``"jpeg"`` or ``"raw"``.
        quality: Of JPEG, 1 to 100.

    Example:
        >>> import tempfile
        >>> from vidette.video.clip import ClipSpec
        >>> from vidette.video.shards import open_shard_clip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tar = Path(folder) / "000000.tar"
        ...     with ShardWriter(tar, KeptFrames(8, 8, num_frames=2)) as shard:
        ...         shard.begin("walk/a")
        ...         for i in range(2):
        ...             shard.add(Frame(np.full((8, 8, 3), 90, np.uint8), i / 2, i))
        ...         shard.end({"label": "walk"}, duration_seconds=1.0, source_size=(8, 8))
        ...     open_shard_clip(tar / "walk/a").clip(ClipSpec(num_frames=2, height=8, width=8))
        Clip(2 frames of 8x8, 0.00 to 0.50 s)
    """

    def __init__(self, path: Path, kept: KeptFrames, *, encoding: Encoding = "jpeg", quality: int = 95) -> None:
        self.path = path
        self.num_bytes = 0
        self._quality = quality
        self._index = Index(kept, encoding)
        self._partial = path.with_suffix(f".{os.getpid()}.partial")
        self._key = ""
        self._seconds: list[float] = []
        self._frames: list[Place] = []
        self._digest = hashlib.blake2b(digest_size=16)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tar = tarfile.open(self._partial, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        except OSError as error:
            raise self._full(error) from error

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._tar.fileobj:
                self._tar.fileobj.close()
            self._partial.unlink(missing_ok=True)

    def begin(self, key: str) -> None:
        """Begin a clip, forgetting one that was begun and not ended."""
        self._key = key
        self._seconds, self._frames = [], []
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, frame: Frame) -> None:
        """Keep a frame of the clip that was begun.

        Raises:
            StorageError: The disk is full.
        """
        data = encoded_frame(frame.pixels, self._index.encoding, self._quality)
        name = f"{self._key}.{len(self._frames):05d}.{_SUFFIX[self._index.encoding]}"
        self._frames.append(self._member(name, data))
        self._seconds.append(round(frame.seconds, 6))
        self._digest.update(data)

    def end(
        self,
        facts: Mapping[str, Any],
        *,
        duration_seconds: float,
        source_size: tuple[int, int],
        lost_frames: int = 0,
        class_number: int | None = None,
    ) -> None:
        """End the clip.

        Args:
            facts: Goes into ``KEY.json``.
            duration_seconds: From the clip's first frame until its last leaves the screen.
            source_size: Height and width of the video's picture.
            lost_frames: How many frames the video lost.
            class_number: Goes into ``KEY.cls``.

        Raises:
            StorageError: The disk is full.
        """
        text = json.dumps({**facts, "seconds": self._seconds, "lost_frames": lost_frames}, ensure_ascii=False)
        self._member(f"{self._key}.json", text.encode())
        if class_number is not None:
            self._member(f"{self._key}.cls", str(class_number).encode())
        self._index.clips[self._key] = Entry(
            self._seconds,
            duration_seconds,
            source_size,
            lost_frames,
            self._digest.hexdigest(),
            self._frames,
        )

    def _member(self, name: str, data: bytes) -> Place:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        try:
            self._tar.addfile(member, io.BytesIO(data))
        except OSError as error:
            raise self._full(error) from error
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        self.num_bytes = self._tar.offset
        return Place(self._tar.offset - padded, len(data))

    def _finish(self) -> None:
        index = self.path.with_suffix(".json")
        try:
            self._tar.close()
            self._partial.replace(self.path)
            self._partial.write_text(json.dumps(asdict(self._index)), encoding="utf-8")
            self._partial.replace(index)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path} cannot be written: {error.strerror}; free some space, or choose another --out"
        )


def encoded_frame(pixels: np.ndarray, encoding: Encoding, quality: int) -> bytes:
    """Return the bytes that keep a picture, uint8 ``(H, W, 3)``, RGB."""
    out = io.BytesIO()
    if encoding == "raw":
        np.save(out, pixels, allow_pickle=False)
    else:
        Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()
