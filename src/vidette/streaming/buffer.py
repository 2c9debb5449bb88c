"""Between the threads that read sources and the one that answers: what waits, what is skipped, who waits."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from vidette.errors import SettingError, unknown_name

__all__ = ["BUFFER_POLICIES", "BufferPolicy", "FrameBuffer", "Waiting"]

BufferPolicy = Literal["newest", "all", "block"]
BUFFER_POLICIES: dict[BufferPolicy, str] = {
    "newest": "for cameras: a frame that would be answered late is skipped, and counted",
    "all": "for files: every frame is answered; a source that is far ahead waits",
    "block": "every frame is answered; a source is never more than one frame ahead",
}
_CAPACITY: dict[BufferPolicy, int] = {"newest": 64, "all": 256, "block": 1}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Waiting(Generic[Item]):
    """An item and when it came, by the clock."""

    item: Item
    arrived_seconds: float


@dataclass
class _Lane(Generic[Item]):
    """What waits of one source."""

    waiting: deque[Waiting[Item]] = field(default_factory=deque["Waiting[Item]"])
    num_skipped: int = 0
    ended: bool = False


class FrameBuffer(Generic[Item]):
    """Holds what readers have read and the model has not yet seen: a lane a source, bounded memory.

    Any number of threads may put, one a source; one thread takes.

    Args:
        policy: One of :data:`BUFFER_POLICIES`.
        num_sources: How many lanes.
        capacity: Items a lane holds at most; the policy's own by default.

    Raises:
        SettingError: The policy is unknown or the capacity under 1.

    Example:
        >>> buffer = FrameBuffer("newest", num_sources=1)
        >>> for number in range(3):
        ...     _ = buffer.put(0, number, arrived_seconds=number / 10)
        >>> buffer.take(now=0.2, keep_seconds=0.05), buffer.num_skipped(0)
        ({0: Waiting(item=2, arrived_seconds=0.2)}, 2)
    """

    def __init__(self, policy: BufferPolicy, *, num_sources: int, capacity: int | None = None) -> None:
        if policy not in BUFFER_POLICIES:
            raise SettingError(unknown_name("buffer policy", policy, BUFFER_POLICIES))
        self.policy: BufferPolicy = policy
        self.capacity = _CAPACITY[policy] if capacity is None else capacity
        if self.capacity < 1 or num_sources < 1:
            raise SettingError(f"capacity is {capacity}, num_sources {num_sources}; expected 1 or more")
        self._lanes = [_Lane[Item]() for _ in range(num_sources)]
        self._changed = threading.Condition()
        self._closed = False

    def put(self, source: int, item: Item, *, arrived_seconds: float) -> bool:
        """Add what a source has read; waits for room, or skips the oldest under ``"newest"``.

        Returns:
            False once the buffer is closed: nothing more is wanted.
        """
        lane = self._lanes[source]
        with self._changed:
            if self.policy == "newest":
                while len(lane.waiting) >= self.capacity:
                    lane.waiting.popleft()
                    lane.num_skipped += 1
            else:
                self._changed.wait_for(lambda: self._closed or len(lane.waiting) < self.capacity)
            if not self._closed:
                lane.waiting.append(Waiting(item, arrived_seconds))
                self._changed.notify_all()
            return not self._closed

    def end(self, source: int) -> None:
        """Say that a source gives nothing more."""
        with self._changed:
            self._lanes[source].ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Say that nothing more is wanted: whoever waits goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until something can be taken or every source has ended; return whether that came."""
        with self._changed:
            return self._changed.wait_for(self._is_ready, timeout_seconds)

    def take(
        self, *, now: float, keep_seconds: float = 0.0, last_seconds: float | None = None
    ) -> dict[int, Waiting[Item]]:
        """Return at most one item of each source that has one.

        Args:
            now: The clock's time.
            keep_seconds: Under ``"newest"``, items that came so long ago are skipped where newer ones wait.
            last_seconds: Under ``"newest"``, the newest too is skipped where it came longer ago; None: never.
        """
        taken: dict[int, Waiting[Item]] = {}
        with self._changed:
            for source, lane in enumerate(self._lanes):
                if self.policy == "newest":
                    _skip_old(lane, now, keep_seconds=keep_seconds, last_seconds=last_seconds)
                if lane.waiting:
                    taken[source] = lane.waiting.popleft()
            self._changed.notify_all()
        return taken

    def is_done(self, source: int) -> bool:
        """Tell whether a source has ended and nothing of it waits."""
        with self._changed:
            lane = self._lanes[source]
            return lane.ended and not lane.waiting

    def num_skipped(self, source: int) -> int:
        """Return how many items of a source were skipped."""
        with self._changed:
            return self._lanes[source].num_skipped

    def backlog(self, source: int) -> int:
        """Return how many items of a source wait."""
        with self._changed:
            return len(self._lanes[source].waiting)

    def _is_ready(self) -> bool:
        return any(lane.waiting for lane in self._lanes) or all(lane.ended for lane in self._lanes)


def _skip_old(lane: _Lane[Item], now: float, *, keep_seconds: float, last_seconds: float | None) -> None:
    waiting = lane.waiting
    while len(waiting) > 1 and now - waiting[0].arrived_seconds >= keep_seconds:
        waiting.popleft()
        lane.num_skipped += 1
    if len(waiting) == 1 and last_seconds is not None and now - waiting[0].arrived_seconds > last_seconds:
        waiting.popleft()
        lane.num_skipped += 1
