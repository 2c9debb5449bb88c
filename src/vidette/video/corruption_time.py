"""Disturbances of time: which frame is on show at each of a clip's times, when the source stutters.

Each takes the times of T frames and returns T indices of the frames shown instead, never falling.
"""

from __future__ import annotations

import numpy as np

__all__ = ["faster", "frame_drop", "frame_rate", "freeze", "slower", "time_jitter"]


def frame_drop(seconds: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Lose a share ``strength`` of the frames at random, never the first; the frame before stays on show."""
    shown = np.arange(len(seconds))
    shown[1 + generator.permutation(len(seconds) - 1)[: round(strength * (len(seconds) - 1))]] = 0
    return np.maximum.accumulate(shown)


def freeze(seconds: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Hold the picture for a share ``strength`` of the clip, then go on with what is live."""
    times = _times(seconds)
    start = generator.random() * (1 - strength) * times[-1]
    frozen = (times >= start) & (times <= start + strength * times[-1])
    return _shown(times, np.where(frozen, start, times))


def frame_rate(seconds: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Show only every ``strength``-th frame, until the next: a source with fewer frames a second."""
    del generator
    every = round(strength)
    return np.arange(len(seconds)) // every * every


def faster(seconds: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Run ``strength`` times as fast from the first frame; when it is over, the last frame stays."""
    del generator
    times = _times(seconds)
    return _shown(times, strength * times)


def slower(seconds: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Run ``strength`` times as slowly, from somewhere in the clip: a part of it fills the whole time."""
    times = _times(seconds)
    start = generator.random() * times[-1] * (1 - 1 / strength)
    return _shown(times, start + times / strength)


def time_jitter(seconds: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Let frames come up to ``strength`` frames early or late, in order."""
    times = _times(seconds)
    step = times[-1] / max(1, len(times) - 1)
    late = strength * step * generator.uniform(-1, 1, len(times))
    return np.maximum.accumulate(_shown(times, times + late + step / 2))


def _times(seconds: np.ndarray) -> np.ndarray:
    """Return seconds since the first frame; frame numbers where all frames have one time."""
    times = np.asarray(seconds, dtype=np.float64) - seconds[0]
    return times if times[-1] > 0 else np.arange(len(times), dtype=np.float64)


def _shown(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the last frame at or before each wanted time."""
    after = np.searchsorted(times, wanted + 1e-9, side="right")
    return (after - 1).clip(0, len(times) - 1)
