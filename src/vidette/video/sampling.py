"""Which frames make a clip: pure arithmetic on times, the same for files and for live streams.

A frame is on display from its own time until the next frame's, so "the frame at a time" is the latest one whose
time is not after it. Times are seconds since the first frame of the source.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from vidette.errors import InputMismatchError, SettingError
from vidette.video.clip import Clip, ClipSpec, Frame
from vidette.video.motion_crop import clip_pixels

__all__ = [
    "TOLERANCE_SECONDS",
    "WindowCutter",
    "pick_frames",
    "target_seconds",
    "uniform_seconds",
    "window_starts",
]

TOLERANCE_SECONDS = 1e-3
"""Times nearer than this are one time: Matroska keeps milliseconds, so 1/30 s reads 0.033 s."""


def uniform_seconds(start_seconds: float, stop_seconds: float, num: int) -> np.ndarray:
    """Return ``num`` equally spaced times, both ends included.

    Args:
        start_seconds: The first time.
        stop_seconds: The last time; not before the first.
        num: How many, from 1; one alone is the start.

    Returns:
        float64 ``(num,)``.

    Raises:
        SettingError: ``num`` is under 1, or the stop lies before the start.

    Example:
        >>> uniform_seconds(0.0, 1.5, 4).tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    if num < 1 or not stop_seconds >= start_seconds:
        raise SettingError(
            f"cannot space {num} times from {start_seconds:g} s to {stop_seconds:g} s;"
            " expected 1 or more, and a stop not before the start"
        )
    return np.linspace(start_seconds, stop_seconds, num, dtype=np.float64)


def pick_frames(frame_seconds: np.ndarray, wanted_seconds: np.ndarray) -> np.ndarray:
    """Find the frame on display at each wanted time.

    Args:
        frame_seconds: float64 ``(F,)``, not decreasing, F at least 1.
        wanted_seconds: float64 ``(T,)``.

    Returns:
        int64 ``(T,)``: for each time the latest frame not after it (within a millisecond); the first frame for
        times before it.

    Raises:
        InputMismatchError: There is no frame.

    Example:
        >>> pick_frames(np.array([0.0, 0.5, 1.0]), np.array([-1.0, 0.49, 0.5, 9.0])).tolist()
        [0, 0, 1, 2]
    """
    if len(frame_seconds) == 0:
        raise InputMismatchError("no frame to pick from; expected at least one")
    after = np.searchsorted(frame_seconds, np.asarray(wanted_seconds) + TOLERANCE_SECONDS, side="right")
    return np.maximum(after - 1, 0).astype(np.int64)


def target_seconds(spec: ClipSpec, *, first_seconds: float, last_seconds: float) -> np.ndarray:
    """Return the times at which a clip wants its frames.

    Args:
        spec: Its ``sampling`` decides: ``"whole"`` spaces the times equally from the first frame to the last;
            ``"window"`` takes ``1 / fps`` steps from the first, whether or not the source lasts as long.
        first_seconds: When the first frame is shown.
        last_seconds: When the last frame is shown.

    Returns:
        float64 ``(T,)``.
    """
    if spec.fps is None:
        return uniform_seconds(first_seconds, last_seconds, spec.num_frames)
    return first_seconds + np.arange(spec.num_frames, dtype=np.float64) / spec.fps


def window_starts(*, duration_seconds: float, span_seconds: float, stride_seconds: float) -> np.ndarray:
    """Return where the windows of a file start.

    Args:
        duration_seconds: From the first frame to the last.
        span_seconds: From the first frame of a window to its last.
        stride_seconds: From one window's start to the next one's; above 0.

    Returns:
        float64 ``(W,)``, W at least 1: every window that fits, and one more if none of them reaches the end.
        A source shorter than one span has the one window at 0.

    Raises:
        SettingError: The stride is not above 0, or a length is negative.

    Example:
        >>> window_starts(duration_seconds=5.0, span_seconds=2.0, stride_seconds=2.0).tolist()
        [0.0, 2.0, 3.0]
    """
    if not stride_seconds > 0 or not span_seconds >= 0 or not duration_seconds >= 0:
        raise SettingError(
            f"windows of {span_seconds:g} s every {stride_seconds:g} s over {duration_seconds:g} s;"
            " expected a stride above 0 and lengths not below 0"
        )
    room = duration_seconds - span_seconds
    if room <= TOLERANCE_SECONDS:
        return np.zeros(1)
    starts = np.arange(int((room + TOLERANCE_SECONDS) / stride_seconds) + 1) * stride_seconds
    return starts if room - starts[-1] <= TOLERANCE_SECONDS else np.append(starts, room)


class WindowCutter:
    """Cuts a stream of frames into clips, one window every stride; a file is a stream that ends.

    Window ``k`` starts with the first frame at or after ``k * stride_seconds`` and lasts ``span_seconds``; its
    T frames are those on display at T equally spaced times, so dropped frames do not stretch it. It comes out
    as soon as a frame at or after its end arrives. The frames of one span are held, no more.

    Args:
        spec: What a clip is; frames must come at its size, as the reader's ``frames(spec)`` gives them.
        stride_seconds: From one window's start to the next one's; above 0.
        span_seconds: For ``"whole"`` only: first to last frame of a window; default the spec's training median.

    Raises:
        SettingError: The stride is not above 0, a ``"whole"`` spec has no span, or a ``"window"`` spec gets one
            unlike its own.

    Example:
        >>> spec = ClipSpec(num_frames=3, height=8, width=8, sampling="window", fps=2.0)
        >>> cutter = WindowCutter(spec, stride_seconds=1.0)
        >>> black = np.zeros((8, 8, 3), np.uint8)
        >>> clips = [cutter.push(Frame(black, i * 0.25, i)) for i in range(9)]
        >>> [clip for clip in clips if clip]
        [Clip(3 frames of 8x8, 0.00 to 1.00 s), Clip(3 frames of 8x8, 1.00 to 2.00 s)]
    """

    def __init__(self, spec: ClipSpec, *, stride_seconds: float, span_seconds: float | None = None) -> None:
        self._spec = spec
        self._stride_seconds = stride_seconds
        self._span_seconds = _checked_span(spec, stride_seconds=stride_seconds, span_seconds=span_seconds)
        self._held: deque[Frame] = deque()
        self._ready: deque[Clip] = deque()
        self._origin_seconds = 0.0
        self._next_window = 0
        self._starts: deque[float] = deque()
        self._covered_seconds: float | None = None

    @property
    def span_seconds(self) -> float:
        """First to last wanted time of a window."""
        return self._span_seconds

    def push(self, frame: Frame) -> Clip | None:
        """Take the next frame and return a clip when a window has become complete.

        Several windows can end in one gap between frames; each push then returns one of them, oldest first.

        Args:
            frame: uint8 ``(H, W, 3)`` at the spec's size (larger where it follows motion), later than the one
                before.

        Raises:
            InputMismatchError: The frame has another size, or its time does not advance.
        """
        self._check(frame)
        if not self._held:
            self._origin_seconds = frame.seconds
        self._held.append(frame)
        self._open_window(frame.seconds)
        while self._starts and frame.seconds >= self._starts[0] + self._span_seconds - TOLERANCE_SECONDS:
            self._finish(self._starts.popleft())
        self._forget(frame.seconds)
        return self._ready.popleft() if self._ready else None

    def flush(self) -> Clip | None:
        """Say that the stream has ended; return a clip still due, else None (call until None).

        A stream shorter than one span gives its one clip, the last frame repeated ("repeat_last", counted in
        ``Clip.repeated``). Frames after the last complete window give one more window, which reaches the end.
        """
        if self._held and not self._ready:
            last_seconds = self._held[-1].seconds
            if self._covered_seconds is None:
                self._finish(self._held[0].seconds)
            elif last_seconds > self._covered_seconds + TOLERANCE_SECONDS:
                start_seconds = last_seconds - self._span_seconds - TOLERANCE_SECONDS
                self._finish(next(f.seconds for f in self._held if f.seconds >= start_seconds))
                self._covered_seconds = last_seconds
            self._starts.clear()
        return self._ready.popleft() if self._ready else None

    def _check(self, frame: Frame) -> None:
        expected = (self._spec.height, self._spec.width, 3)
        if frame.pixels.shape != expected and not self._spec.follows_motion:
            raise InputMismatchError(
                f"frame is {frame.pixels.shape} but the spec is {expected}; resize it first"
            )
        if self._held and not frame.seconds > self._held[-1].seconds:
            raise InputMismatchError(
                f"frame at {frame.seconds:g} s follows one at {self._held[-1].seconds:g} s;"
                " expected times that increase"
            )

    def _open_window(self, seconds: float) -> None:
        """Start a window at this frame if one is due; windows due inside a gap are one and the same."""
        passed = seconds - self._origin_seconds + TOLERANCE_SECONDS
        if passed >= self._next_window * self._stride_seconds:
            self._starts.append(seconds)
            self._next_window = int(passed / self._stride_seconds) + 1

    def _finish(self, start_seconds: float) -> None:
        """Pick the frames of the window that starts here from those held."""
        stop_seconds = start_seconds + self._span_seconds
        wanted = target_seconds(self._spec, first_seconds=start_seconds, last_seconds=stop_seconds)
        times = np.array([frame.seconds for frame in self._held])
        picks = pick_frames(times, wanted)
        self._ready.append(
            Clip(
                pixels=clip_pixels([self._held[i].pixels for i in picks], self._spec),
                seconds=times[picks],
                repeated=int(np.sum(wanted > times[-1] + TOLERANCE_SECONDS)),
            )
        )
        self._covered_seconds = stop_seconds

    def _forget(self, newest_seconds: float) -> None:
        """Drop the frames that no open window and no last window can want."""
        oldest_seconds = newest_seconds - self._span_seconds - TOLERANCE_SECONDS
        if self._starts:
            oldest_seconds = min(oldest_seconds, self._starts[0])
        while self._held[0].seconds < oldest_seconds:
            self._held.popleft()


def _checked_span(spec: ClipSpec, *, stride_seconds: float, span_seconds: float | None) -> float:
    if not stride_seconds > 0:
        raise SettingError(f"stride_seconds is {stride_seconds}; expected above 0")
    own = spec.span_seconds
    if spec.sampling == "window" and own is not None:
        if span_seconds is not None and abs(span_seconds - own) > TOLERANCE_SECONDS:
            raise SettingError(
                f"span_seconds is {span_seconds:g} but the spec's window lasts {own:g} s; leave it out"
            )
        return own
    span = own if span_seconds is None else span_seconds
    if span is None or not span >= 0:
        raise SettingError(
            f"span_seconds is {span}; sampling 'whole' has no span of its own: give span_seconds,"
            " or a spec with trained_spans"
        )
    return span
