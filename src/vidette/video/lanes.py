"""Work done side by side by a few helpers that each do one thing at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["side_by_side"]

_Lane = TypeVar("_Lane")
_Item = TypeVar("_Item")


def side_by_side(
    lanes: Sequence[_Lane], items: Iterable[_Item], work: Callable[[_Lane, _Item], object]
) -> None:
    """Call ``work(lane, item)`` for every item, each lane on one item at a time; they are begun in order.

    After an error what was begun is finished, nothing more is begun, and the error is raised.

    Example:
        >>> done = []
        >>> side_by_side(["a", "b"], [1, 2, 3], lambda lane, item: done.append(item * 10))
        >>> sorted(done)
        [10, 20, 30]
    """
    waiting = deque(items)

    def empty(lane: _Lane) -> None:
        while True:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            try:
                work(lane, item)
            except BaseException:
                waiting.clear()
                raise

    with ThreadPoolExecutor(len(lanes)) as pool:
        finished = [pool.submit(empty, lane) for lane in lanes]
    for future in finished:
        future.result()
