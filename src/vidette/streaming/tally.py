"""One source's way through a live run: its state, its rate, its lag."""

from __future__ import annotations

from collections import deque

from vidette.classifier.stepper import StreamState
from vidette.errors import VideoError
from vidette.prediction.decision import Decider
from vidette.streaming.base import Shown, Source
from vidette.streaming.clock import Tick
from vidette.streaming.records import SourceReport

__all__ = ["StreamTally"]

_LEAST_FRAMES = 8


class StreamTally:
    """What the answering thread keeps of one source.

    Args:
        state: The stepper's.
        decider: Turns its scores into events.
        num_frames: T of the classifier's clips; the rate is that of about two clips.
    """

    def __init__(self, state: StreamState, decider: Decider, *, num_frames: int) -> None:
        self.state = state
        self.decider = decider
        self.epoch = 0
        self.begin_seconds: float | None = None
        self.last_seconds = 0.0
        self.seen: deque[float] = deque(maxlen=2 * max(_LEAST_FRAMES, num_frames))
        self._shown_seconds = -1.0
        self.num_answered = self.num_events = self.backlog = 0
        self.lag_sum = self.largest_lag = self.lag = 0.0
        self.is_slow = self.is_finished = False
        self.error: VideoError | None = None

    @property
    def fps(self) -> float:
        """Different frames a second that the model saw lately."""
        span = self.seen[-1] - self.seen[0] if len(self.seen) > 1 else 0.0
        return (len(self.seen) - 1) / span if span > 0 else 0.0

    def begin_anew(self, state: StreamState, decider: Decider, epoch: int) -> None:
        """Forget what was seen before a break; the rate too."""
        self.state, self.decider, self.epoch, self.begin_seconds = state, decider, epoch, None
        self.seen.clear()

    def saw(self, tick: Tick[Shown], *, lag_seconds: float) -> None:
        """Note that the model has seen a frame."""
        if self.begin_seconds is None:
            self.begin_seconds = tick.seconds
        self.last_seconds, self.lag = tick.seconds, lag_seconds
        if tick.item.seconds > self._shown_seconds:
            self._shown_seconds = tick.item.seconds
            self.seen.append(tick.seconds)
        self.num_answered += 1
        self.lag_sum += lag_seconds
        self.largest_lag = max(self.largest_lag, lag_seconds)

    def report(self, source: Source, *, num_skipped: int) -> SourceReport:
        """Return what the run came to for this source."""
        return SourceReport(
            source=source.name,
            num_frames=source.counts.num_frames,
            num_answered=self.num_answered,
            num_skipped=num_skipped,
            num_damaged=source.counts.num_damaged,
            num_returns=source.counts.num_returns,
            num_events=self.num_events,
            mean_lag_seconds=self.lag_sum / self.num_answered if self.num_answered else float("nan"),
            largest_lag_seconds=self.largest_lag if self.num_answered else float("nan"),
            error=self.error,
        )
