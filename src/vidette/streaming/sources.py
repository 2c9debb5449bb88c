"""Where live frames come from, by address: files, cameras of this machine, cameras on the network."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vidette.errors import SettingError
from vidette.streaming.base import Notify, Shown, Source, SourceCounts, Stoppable, safe_address
from vidette.streaming.clock import Clock, SystemClock
from vidette.streaming.remote import Patience, RemoteSource
from vidette.video.clip import ClipSpec, Frame
from vidette.video.reader import open_video

__all__ = ["FileSource", "open_source"]

_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtp", "udp", "tcp", "rtmp", "srt")


def open_source(
    address: str,
    *,
    realtime: bool = False,
    clock: Clock | None = None,
    patience: Patience | None = None,
    pictures: bool = False,
) -> Source:
    """Return the source at an address; it is opened when its frames are asked for.

    Args:
        address: A file, a camera of this machine (``0`` or ``/dev/video0``), ``screen``, or an address such as
            ``rtsp://``, ``http://`` (MJPEG, HLS, a file) or ``udp://``.
        realtime: Show a file at its own pace instead of as fast as possible.
        clock: What tells the time.
        patience: How long to wait for what is not a file.
        pictures: Give a file's pictures at their own size too, as other sources do.

    Raises:
        SettingError: The address has a scheme that is not known, or there is no screen.
    """
    clock, patience = clock or SystemClock(), patience or Patience()
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme in _SCHEMES:
        return RemoteSource(address, clock=clock, patience=patience)
    if scheme:
        raise SettingError(f"{safe_address(address)}: expected a file, a camera or {'://, '.join(_SCHEMES)}://")
    if address == "screen":
        device, kind = _screen()
        return RemoteSource(device, clock=clock, patience=patience, container_format=kind, name="screen")
    if re.fullmatch(r"[0-9]+|/dev/video[0-9]+", address):
        device, kind = _camera(address)
        return RemoteSource(device, clock=clock, patience=patience, container_format=kind)
    return FileSource(address, realtime=realtime, clock=clock, pictures=pictures)


def _camera(address: str) -> tuple[str, str]:
    """Return FFmpeg's address and format of a camera of this machine."""
    if sys.platform.startswith("linux"):
        return (f"/dev/video{address}" if address.isdigit() else address), "video4linux2"
    if sys.platform == "darwin":
        return address, "avfoundation"
    raise SettingError(f"camera {address}: read on Linux and macOS only; give a file or a network address")


def _screen() -> tuple[str, str]:
    """Return FFmpeg's address and format of this machine's screen."""
    if sys.platform == "darwin":
        return "Capture screen 0", "avfoundation"
    if sys.platform == "win32":
        return "desktop", "gdigrab"
    display = os.environ.get("DISPLAY")
    if not display:
        raise SettingError("there is no screen to read: DISPLAY is not set; start this in a graphical session")
    return display, "x11grab"


class FileSource(Stoppable):
    """A video file; the end of the file is the end.

    Args:
        path: The file.
        realtime: Show it at its own pace.
        clock: What tells the time.
        pictures: Also give its pictures at their own size, for people to look at; reads the file a second time.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        realtime: bool = False,
        clock: Clock | None = None,
        pictures: bool = False,
    ) -> None:
        super().__init__(clock or SystemClock())
        self._pictures = pictures
        self.name = str(path)
        self.is_live = realtime
        self.counts = SourceCounts()

    def __repr__(self) -> str:
        return f"FileSource({self.name}{', realtime' if self.is_live else ''})"

    def frames(self, spec: ClipSpec, notify: Notify) -> Iterator[Shown]:
        """Yield the file's pictures."""
        del notify
        with open_video(self.name) as video, contextlib.ExitStack() as opened:
            self.counts.height, self.counts.width = video.info.height, video.info.width
            begun = self.clock.now()
            large = opened.enter_context(open_video(self.name)).frames() if self._pictures else None
            for frame in video.frames(spec):
                if self.is_live:
                    self.sleep_until(begun + frame.seconds)
                if self.stopped.is_set():
                    return
                self.counts.num_frames += 1
                self.counts.num_damaged = video.lost_frames
                own = _same(frame, large)
                yield Shown(
                    frame.seconds,
                    lambda pixels=frame.pixels: pixels,
                    read_picture=None if own is None else lambda pixels=own.pixels: pixels,
                )


def _same(frame: Frame, large: Iterator[Frame] | None) -> Frame | None:
    """Return the same frame of another reading, at its own size; None where there is no other, or it ended."""
    if large is None:
        return None
    return next((other for other in large if other.index >= frame.index), None)
