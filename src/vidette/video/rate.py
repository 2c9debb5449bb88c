"""Which frames of a stream a classifier takes, at its own rate, whatever the source's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from vidette.errors import SettingError
from vidette.video.clip import ClipSpec
from vidette.video.sampling import TOLERANCE_SECONDS

__all__ = ["RateTaker", "Tick", "live_fps"]

_SINGLE_FRAMES_FPS = 5.0
_LEAST_BREAK_SECONDS = 1.0

Item = TypeVar("Item")


def live_fps(spec: ClipSpec, *, stride_seconds: float | None = None) -> float:
    """Return the frames a second that a classifier takes of a stream.

    Args:
        spec: ``fps`` of a ``"window"`` spec; T - 1 frames over the median trained span of a ``"whole"`` one.
        stride_seconds: For single-frame classifiers (T = 1): from one frame to the next, by default a fifth.

    Raises:
        SettingError: The spec does not say how long its clips last, so that it cannot be live.
    """
    if spec.num_frames == 1:
        return 1 / stride_seconds if stride_seconds else _SINGLE_FRAMES_FPS
    if spec.fps is not None:
        return spec.fps
    if not spec.span_seconds:
        raise SettingError(
            "this classifier cannot be live: it takes whole clips and does not say how long they last "
            "(spec.trained_spans); train it with Vidette, or give its spec an fps"
        )
    return (spec.num_frames - 1) / spec.span_seconds


@dataclass(frozen=True)
class Tick(Generic[Item]):
    """One moment at which a classifier takes a frame.

    Attributes:
        seconds: When, since the source's first frame.
        item: What is on display then.
        after_break: Whether nothing came for so long that the stream begins anew here.
    """

    seconds: float
    item: Item
    after_break: bool = False


class RateTaker(Generic[Item]):
    """Takes from a stream of frames, at any rate, the one on display at each tick of the classifier's rate.

    Ticks are equally spaced from the first frame on, so that the frames of a clip span what they did in
    training. Where frames were dropped the one on display is taken again: a gap in time stays one. After a gap
    that is longer than ``break_seconds`` the ticks begin anew at the next frame.

    Args:
        fps: Ticks a second; above 0.
        break_seconds: The longest gap that is filled.

    Raises:
        SettingError: ``fps`` is not above 0.

    Example:
        >>> taker = RateTaker(2.0)
        >>> frames = [(0.0, "a"), (0.4, "b"), (1.0, "c")]
        >>> [[(tick.seconds, tick.item) for tick in taker.push(*frame)] for frame in frames]
        [[(0.0, 'a')], [], [(0.5, 'b'), (1.0, 'c')]]
    """

    def __init__(self, fps: float, *, break_seconds: float = _LEAST_BREAK_SECONDS) -> None:
        if not 0 < fps < float("inf"):
            raise SettingError(f"fps is {fps}; expected above 0")
        self._fps = fps
        self._break_seconds = max(break_seconds, 1 / fps)
        self._origin_seconds = 0.0
        self._num_ticks = 0
        self._held: tuple[float, Item] | None = None

    def push(self, seconds: float, item: Item) -> list[Tick[Item]]:
        """Take the next frame and return the ticks that are settled by it, oldest first.

        Args:
            seconds: Since the source's first frame; later than the frame before, else the frame is left out.
            item: The frame, or whatever stands for it.
        """
        if self._held is not None and seconds <= self._held[0]:
            return []
        is_break = self._held is not None and seconds - self._held[0] > self._break_seconds
        if self._held is None or is_break:
            self._origin_seconds, self._num_ticks = seconds, 1
            self._held = (seconds, item)
            return [Tick(seconds, item, after_break=is_break)]
        settled: list[Tick[Item]] = []
        while self._next_seconds < seconds - TOLERANCE_SECONDS:
            settled.append(self._take())
        self._held = (seconds, item)
        if self._next_seconds <= seconds + TOLERANCE_SECONDS:
            settled.append(self._take())
        return settled

    @property
    def _next_seconds(self) -> float:
        return self._origin_seconds + self._num_ticks / self._fps

    def _take(self) -> Tick[Item]:
        assert self._held is not None
        tick = Tick(self._next_seconds, self._held[1])
        self._num_ticks += 1
        return tick
