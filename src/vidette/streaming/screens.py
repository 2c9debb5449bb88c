"""Pictures on their way to whoever shows them: each after the answers to what came before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from vidette.streaming.base import Shown, Source
from vidette.streaming.records import Output, Picture, PictureOutput

__all__ = ["Screens"]

_MOST_WAITING = 128
"""Pictures of a source that does not wait; more, and the oldest are left out."""


class Screens:
    """Holds the pictures of each source until the answer that belongs to them is there.

    One thread a source puts, after the ticks of the same picture; the answering thread shows.

    Args:
        outputs: Those that take pictures are used.
        sources: What is shown.
        may_drop: Whether a picture may be left out where time is short.
    """

    def __init__(self, outputs: Sequence[Output], sources: Sequence[Source], *, may_drop: bool) -> None:
        self._outputs = tuple(output for output in outputs if isinstance(output, PictureOutput))
        self._sources = tuple(sources)
        self._may_drop = may_drop
        most = _MOST_WAITING if may_drop else None  # else the source waits for the answers
        self._waiting = [deque[Shown](maxlen=most) for _ in sources]

    def __bool__(self) -> bool:
        return bool(self._outputs)

    def put(self, source: int, shown: Shown) -> None:
        """Add a picture of a source; safe from its thread."""
        if self._outputs:
            self._waiting[source].append(shown)

    def show_before(self, source: int, seconds: float) -> None:
        """Show what was put of the time before ``seconds``."""
        waiting = self._waiting[source]
        while waiting and waiting[0].seconds < seconds:
            self._show(source, waiting.popleft())

    def count(self, source: int) -> int:
        """Return how many pictures of a source wait now."""
        return len(self._waiting[source])

    def show(self, source: int, count: int) -> None:
        """Show the oldest ``count`` pictures of a source."""
        for _ in range(min(count, self.count(source))):
            self._show(source, self._waiting[source].popleft())

    def refresh(self) -> None:
        """Let the outputs do what has to be done now and then."""
        for output in self._outputs:
            output.refresh()

    def _show(self, source: int, shown: Shown) -> None:
        for output in self._outputs:
            output.show(Picture(self._sources[source].name, shown, self._may_drop))
