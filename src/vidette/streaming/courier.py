"""Work handed to another thread through a bounded queue: what is slow must not hold up the answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from vidette.errors import SettingError, VidetteError

__all__ = ["Courier"]

Item = TypeVar("Item")


class Courier(Generic[Item]):
    """Delivers items in order on a thread of its own.

    Args:
        deliver: Called with each item; a ``VidetteError`` that it raises ends the deliveries.
        capacity: Items that wait at most.
        name: Of the thread.

    Attributes:
        num_lost: Items that were dropped for want of room, or never delivered.

    Raises:
        SettingError: The capacity is below 1.

    Example:
        >>> got = []
        >>> courier = Courier(got.append, capacity=2, name="example")
        >>> courier.put("a", may_drop=False)
        >>> courier.finish()
        True
        >>> got, courier.num_lost
        (['a'], 0)
    """

    def __init__(self, deliver: Callable[[Item], None], *, capacity: int, name: str) -> None:
        if capacity < 1:
            raise SettingError(f"capacity is {capacity}; expected 1 or more")
        self.num_lost = 0
        self._deliver, self._capacity = deliver, capacity
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._is_ending = self._is_busy = False
        self._error: VidetteError | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item, *, may_drop: bool) -> None:
        """Add an item; where there is no room wait, or drop and count the oldest that waits.

        Raises:
            VidetteError: What a delivery before raised.
        """
        with self._changed:
            if may_drop and len(self._waiting) >= self._capacity:
                self._waiting.popleft()
                self.num_lost += 1
            self._changed.wait_for(lambda: len(self._waiting) < self._capacity or self._error is not None)
            if self._error is not None:
                raise self._error
            self._waiting.append(item)
            self._changed.notify_all()

    def finish(self, *, timeout_seconds: float | None = None) -> bool:
        """Wait until all is delivered, or for some time; what is left then is lost, and counted.

        Returns:
            Whether all was delivered in time.

        Raises:
            VidetteError: What a delivery raised.
        """
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
            done = self._changed.wait_for(self._is_idle, timeout=timeout_seconds)
            self.num_lost += len(self._waiting)
            self._waiting.clear()
            error, self._error = self._error, None
        if error is not None:
            raise error
        return done

    def _is_idle(self) -> bool:
        return self._error is not None or not (self._waiting or self._is_busy)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting) or self._is_ending)
                if not self._waiting:
                    return
                item, self._is_busy = self._waiting.popleft(), True
                self._changed.notify_all()
            try:
                self._deliver(item)
            except VidetteError as error:
                with self._changed:
                    self._error, self._is_busy = error, False
                    self._changed.notify_all()
                return
