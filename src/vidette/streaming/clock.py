"""Time: the one place that asks for it; which frames a classifier takes stands in ``video/rate.py``."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from vidette.video.rate import RateTaker, Tick, live_fps

__all__ = ["Clock", "ManualClock", "RateTaker", "SystemClock", "Tick", "live_fps"]


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Return seconds since some moment; never falls."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; not at all below 0."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return seconds since the machine started."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(max(0.0, seconds))


class ManualClock:
    """A clock that moves only when it is told to, or when somebody sleeps; safe to share between threads.

    Example:
        >>> clock = ManualClock()
        >>> clock.sleep(1.5)
        >>> clock.now()
        1.5
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the seconds it was moved by."""
        with self._lock:
            return self._seconds

    def sleep(self, seconds: float) -> None:
        """Move the clock on without waiting."""
        with self._lock:
            self._seconds += max(0.0, seconds)
