"""What a decoder knows of a file before it decodes: when each frame is shown, and what the container says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vidette.errors import EmptyVideoError, SettingError
from vidette.video.sampling import TOLERANCE_SECONDS

__all__ = ["DisagreementError", "Segment", "StreamFacts", "Timeline", "checked_seconds", "segment_bounds"]

Segment = tuple[float | None, float | None]
"""``(start_seconds, stop_seconds)``; None: the first frame, after the last frame."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """When each frame is shown.

    Attributes:
        seconds: float64 ``(F,)``, ascending from 0.
        pts: int64 ``(F,)`` by which decoded frames are known, or None: by their place instead.
        num_promised: Frames that the file says it has.
        ends_early: The file breaks off, or its end does not decode.
        counted: Every frame was decoded once to make it.
        lost_seconds: float64 ``(L,)``, when frames were due that did not decode or came out corrupt; nan where
            unknown.
    """

    seconds: np.ndarray
    pts: np.ndarray | None
    num_promised: int
    ends_early: bool
    counted: bool = False
    lost_seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def num_lost(self, start_seconds: float, stop_seconds: float) -> int:
        """Return how many frames are lost in ``[start, stop)``; those of an unknown time count everywhere."""
        outside = (self.lost_seconds < start_seconds) | (self.lost_seconds >= stop_seconds)
        return int(np.sum(~outside))


@dataclass(frozen=True)
class StreamFacts:
    """What a container says of itself and of the stream that was chosen; None where it does not say.

    Attributes:
        container, codec: FFmpeg's names.
        fps: Mean frames a second.
        bit_rate: Bits a second of the whole file.
        promised_seconds: How long the stream lasts.
        last_frame_seconds: How long its last frame is shown.
        has_audio: Whether there is a sound track.
        num_video_streams: How many video streams there are, without cover pictures.
        pixel_aspect: Width over height of a pixel as shown.
    """

    container: str
    codec: str
    fps: float | None
    bit_rate: int | None
    promised_seconds: float | None
    last_frame_seconds: float | None
    has_audio: bool
    num_video_streams: int
    pixel_aspect: float


class DisagreementError(Exception):
    """The decoder gave other frames than the packets promised.

    Attributes:
        damaged: A packet was refused, or a frame called corrupt.
    """

    def __init__(self, *, damaged: bool = False) -> None:
        super().__init__()
        self.damaged = damaged


def checked_seconds(wanted_seconds: np.ndarray) -> np.ndarray:
    """Return wanted times as float64 ``(N,)``.

    Raises:
        SettingError: They are not in order, not numbers, or before 0.
    """
    wanted = np.asarray(wanted_seconds, dtype=np.float64)
    if wanted.ndim != 1 or not np.all(np.isfinite(wanted)) or np.any(np.diff(wanted, prepend=0.0) < 0):
        raise SettingError(f"wanted_seconds is {wanted}; expected one row of seconds from 0, not decreasing")
    return wanted


def segment_bounds(
    path: Path, seconds: np.ndarray, start_seconds: float | None, stop_seconds: float | None
) -> tuple[int, int]:
    """Return the first frame in ``[start, stop)`` and the first one after it, as indices.

    Args:
        path: Named in errors.
        seconds: float64 ``(F,)``, when each frame is shown, ascending.
        start_seconds: Default the first frame.
        stop_seconds: Default after the last frame.

    Raises:
        SettingError: The segment is empty or starts before 0.
        EmptyVideoError: No frame lies in it.
    """
    start = 0.0 if start_seconds is None else start_seconds
    stop = math.inf if stop_seconds is None else stop_seconds
    if not 0 <= start < stop:
        raise SettingError(f"segment [{start:g}, {stop:g}) s; expected a start from 0 and a later stop")
    low, high = np.searchsorted(seconds, np.array([start, stop]) - TOLERANCE_SECONDS)
    if low >= high:
        raise EmptyVideoError(
            path,
            f"no frame lies in the segment [{start:g}, {stop:g}) s; the {len(seconds)} frames last"
            f" until {seconds[-1]:.3f} s",
        )
    return int(low), int(high)
