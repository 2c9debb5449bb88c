"""What every source of live frames is: pictures with times, counts of what happened, an address to show."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from vidette.streaming.clock import Clock
from vidette.video.clip import ClipSpec

__all__ = ["NoteKind", "Notify", "Shown", "Source", "SourceCounts", "Stoppable", "safe_address"]

_SLEEP_SECONDS = 0.2

NoteKind = Literal["lost", "returned", "size"]
Notify = Callable[[NoteKind, str], None]


def safe_address(address: str) -> str:
    """Return an address without its password, and without secrets among its parameters.

    Example:
        >>> safe_address("rtsp://admin:s3cret@camera/live?channel=1&token=abc")
        'rtsp://admin:***@camera/live?channel=1&token=***'
    """
    hidden = re.sub(r"^([a-z0-9+.-]+://[^:@/]*):.*@", r"\1:***@", address, flags=re.IGNORECASE)
    secret = r"([?&][^=&]*(?:pass|pwd|token|key|secret|auth|sig)[^=&]*=)[^&]*"
    return re.sub(secret, r"\1***", hidden, flags=re.IGNORECASE)


@dataclass
class SourceCounts:
    """What has happened to a source so far.

    Attributes:
        num_frames: Pictures that were shown.
        num_damaged: Packets and pictures that were damaged, and left out.
        num_returns: How often it was lost and came back.
        num_sizes: How often its pictures changed their size.
        height, width: Of its last picture; 0 before the first.
    """

    num_frames: int = 0
    num_damaged: int = 0
    num_returns: int = 0
    num_sizes: int = 0
    height: int = 0
    width: int = 0


class Shown:
    """A picture of a source, resized when it is asked for.

    Attributes:
        seconds: When it is shown, since the source's first picture.
    """

    def __init__(
        self,
        seconds: float,
        read: Callable[[], np.ndarray],
        *,
        read_picture: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self.seconds = seconds
        self._read, self._read_picture = read, read_picture

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 ``(H, W, 3)``, RGB, at the size of the spec that it was asked for with, before its crop."""
        return self._read()

    def picture(self) -> np.ndarray:
        """Return uint8 ``(H, W, 3)``, RGB, to be looked at: at the source's own size where it gives that."""
        return self.pixels if self._read_picture is None else self._read_picture()


class Source(Protocol):
    """Gives pictures with times that increase, until it ends, fails or is stopped.

    Attributes:
        name: The address as it may be shown.
        is_live: Whether it goes on without waiting for whoever looks.
        counts: What has happened so far.
    """

    name: str
    is_live: bool
    counts: SourceCounts

    def frames(self, spec: ClipSpec, notify: Notify) -> Iterator[Shown]:
        """Yield pictures at the spec's size; ``notify`` is told what happens to the connection.

        Raises:
            VideoError: The source cannot be opened, or is gone for good.
        """
        ...

    def stop(self) -> None:
        """End soon, from another thread."""
        ...


class Stoppable:
    """Waits on a clock in short naps, so that it can be stopped meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stopped = threading.Event()

    def stop(self) -> None:
        """End soon, from another thread."""
        self.stopped.set()

    def sleep_until(self, seconds: float) -> None:
        """Wait until the clock says ``seconds``, or it is stopped."""
        while not self.stopped.is_set() and (left := seconds - self.clock.now()) > 0:
            self.clock.sleep(min(left, _SLEEP_SECONDS))
