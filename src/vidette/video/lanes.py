"""Work done side by side by a few helpers that each do one thing at a time, its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["side_by_side"]

_Lane = TypeVar("_Lane")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def side_by_side(
    lanes: Sequence[_Lane], items: Sequence[_Item], work: Callable[[_Lane, _Item], _Result]
) -> Iterator[_Result]:
    """Yield ``work(lane, item)`` for every item in order, each lane working on one item at a time.

    No more than one item a lane is worked on ahead of what was yielded. An error comes in its item's turn; once
    the caller stops, what was begun is finished and nothing more is begun.

    Example:
        >>> list(side_by_side(["a", "b"], [1, 2, 3], lambda lane, item: item * 10))
        [10, 20, 30]
    """
    free: SimpleQueue[_Lane] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def do(item: _Item) -> _Result:
        lane = free.get()
        try:
            return work(lane, item)
        finally:
            free.put(lane)

    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(len(lanes)) as pool:
        for item in items:
            pending.append(pool.submit(do, item))
            if len(pending) > len(lanes):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
