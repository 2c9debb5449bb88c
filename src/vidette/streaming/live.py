"""A classifier over live sources: threads read, one thread answers, and what is late is skipped and said."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from vidette.classifier.classifier import Classifier, Runtime
from vidette.classifier.stepper import StatePolicy, Stepper
from vidette.errors import InputMismatchError, SettingError, VideoError
from vidette.prediction.decision import Decider, DecisionPolicy, Event, Window
from vidette.prediction.policy import own_policy
from vidette.streaming.base import Shown, Source
from vidette.streaming.buffer import BufferPolicy, FrameBuffer, Waiting
from vidette.streaming.clock import Clock, RateTaker, SystemClock, Tick, live_fps
from vidette.streaming.records import Decided, Note, NoteKind, Output, Record, Score, SourceReport, Status
from vidette.streaming.screens import Screens
from vidette.streaming.tally import StreamTally

__all__ = ["LiveStreams", "default_policy", "new_stepper", "run"]

_FRESH = 0.2
"""Share of a step's time that a frame may have waited where the model is slower than the source."""
_BURST_TICKS = 4
"""Ticks that a frame may have waited where the model keeps up: bursts are worked off."""
_LOW_RATE, _GOOD_RATE = 0.9, 0.95
_RECENT_STEPS = 5
_NAP_SECONDS, _SHOW_SECONDS = 0.1, 0.03
_LARGE_CAPACITY = 16
"""Frames of a source that wait where they are held large, for a crop that follows motion or to be looked at."""


def default_policy(sources: Sequence[Source]) -> BufferPolicy:
    """Return ``"newest"`` where a source does not wait, else ``"all"``."""
    return "newest" if any(source.is_live for source in sources) else "all"


def new_stepper(
    classifier: Classifier,
    *,
    runtime: Runtime = "auto",
    state: StatePolicy | None = None,
    stride_seconds: float | None = None,
) -> tuple[Stepper, float]:
    """Return what answers live sources, and the frames a second that it takes of each.

    Args:
        classifier: Its spec says how fast frames are taken.
        runtime: As for :class:`Stepper`.
        state: As for :class:`Stepper`.
        stride_seconds: From one answer to the next, to the nearest frame; as :class:`Stepper` does by default.

    Raises:
        SettingError: The classifier cannot be live, or a value is out of range.
        ClassifierError: As for :class:`Stepper`.
    """
    if stride_seconds is not None and not 0 < stride_seconds < float("inf"):
        raise SettingError(f"stride_seconds is {stride_seconds}; expected above 0")
    fps = live_fps(classifier.spec, stride_seconds=stride_seconds)
    stride = None if stride_seconds is None else max(1, round(stride_seconds * fps))
    return Stepper(classifier, runtime=runtime, state=state, stride_frames=stride), fps


def run(
    stepper: Stepper,
    sources: Sequence[Source],
    *,
    outputs: Sequence[Output] = (),
    policy: BufferPolicy | None = None,
    decision: DecisionPolicy | None = None,
    fps: float | None = None,
    duration_seconds: float | None = None,
    clock: Clock | None = None,
) -> tuple[SourceReport, ...]:
    """Answer sources until all have ended, for some time, or until the user interrupts.

    A source that fails is told and left; the others go on.

    Args:
        stepper: The classifier; one batch a step for all sources.
        sources: One or more.
        outputs: Get every record, on the thread that calls, and are closed at the end.
        policy: What waits and what is skipped; :func:`default_policy` by default.
        decision: When an event begins and ends; the classifier's own by default.
        fps: Frames a second that are taken of each source; the classifier's own by default.
        duration_seconds: Of each source; without end by default.
        clock: What tells the time.

    Returns:
        One report a source.

    Raises:
        VideoError: No source gave a single picture; the first one's error.
        SettingError: There is no source, or the classifier cannot be live.
    """
    clock = clock or SystemClock()
    try:
        live = LiveStreams(
            stepper,
            sources,
            outputs=outputs,
            policy=policy or default_policy(sources),
            decision=decision,
            fps=fps,
            clock=clock,
        )
        with ThreadPoolExecutor(len(sources), thread_name_prefix="source") as pool:
            readers = [pool.submit(_read, live, i, duration_seconds) for i in range(len(sources))]
            try:
                while not live.is_done and not live.is_over(duration_seconds):
                    live.wait(_NAP_SECONDS)
                    live.turn()
                    _raise_faults(readers)
            except KeyboardInterrupt:
                pass
            finally:
                live.stop()
        _raise_faults(readers)
        reports = live.finish()
    finally:
        for output in outputs:
            output.close()
    failed = [report.error for report in reports if report.error is not None]
    if failed and not any(report.num_frames for report in reports):
        raise failed[0]
    return reports


def _read(live: LiveStreams, number: int, duration_seconds: float | None) -> None:
    """Read one source to its end, on a thread of its own."""
    source = live.sources[number]
    try:
        for shown in source.frames(live.stepper.classifier.spec, partial(live.note, number)):
            if duration_seconds is not None and shown.seconds >= duration_seconds:
                break
            if not live.offer(number, shown):
                break
    except VideoError as error:
        live.fail(number, error)
    finally:
        live.end(number)


def _raise_faults(readers: Sequence[Future[None]]) -> None:
    """Raise what a reader did not foresee."""
    for reader in readers:
        if reader.done():
            reader.result()


class LiveStreams:
    """Sources on the way to their answers: readers offer pictures, the answering thread takes turns.

    :func:`run` drives it with threads; without threads it is a simulation. Arguments as for :func:`run`.
    """

    def __init__(
        self,
        stepper: Stepper,
        sources: Sequence[Source],
        *,
        outputs: Sequence[Output] = (),
        policy: BufferPolicy = "newest",
        decision: DecisionPolicy | None = None,
        fps: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not sources:
            raise SettingError("there is no source to answer; give at least one")
        spec = stepper.classifier.spec
        self.stepper, self.sources, self.clock = stepper, tuple(sources), clock or SystemClock()
        self._outputs = tuple(outputs)
        self._screens = Screens(outputs, sources, may_drop=policy == "newest")
        self._fps = live_fps(spec) if fps is None else fps
        self._span_seconds = (spec.num_frames - 1) / self._fps
        self._takers = [
            RateTaker[Shown](self._fps, break_seconds=max(1.0, self._span_seconds)) for _ in sources
        ]
        self._epochs = [0] * len(sources)
        is_large = bool(spec.follows_motion or self._screens) and policy != "block"
        capacity = _LARGE_CAPACITY if is_large else None
        self._buffer = FrameBuffer[tuple[int, Tick[Shown]]](policy, num_sources=len(sources), capacity=capacity)
        self._decision = decision or own_policy(stepper.classifier)
        self._streams = [
            StreamTally(stepper.start(), self._new_decider(), num_frames=spec.num_frames) for _ in sources
        ]
        self._steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self._begun = self.clock.now()
        for text in stepper.notes:
            self._tell(Note("", "runtime", 0.0, text))

    # What readers call, each for its own source.

    def offer(self, source: int, shown: Shown, *, arrived_seconds: float | None = None) -> bool:
        """Take a source's next picture, which came now or at another time; return whether more is wanted."""
        arrived = self.clock.now() if arrived_seconds is None else arrived_seconds
        for tick in self._takers[source].push(shown.seconds, shown):
            self._epochs[source] += tick.after_break
            _ = tick.item.pixels  # resized here, on the source's thread
            if not self._buffer.put(source, (self._epochs[source], tick), arrived_seconds=arrived):
                return False
        self._screens.put(source, shown)
        return True

    def note(self, source: int, kind: NoteKind, text: str) -> None:
        """Tell what has happened to a source; safe from any thread."""
        self._notes.put(Note(self.sources[source].name, kind, self.clock.now() - self._begun, text))

    def fail(self, source: int, error: VideoError) -> None:
        """Say that a source is gone for good."""
        self._streams[source].error = error
        self.note(source, "failed", str(error))

    def end(self, source: int) -> None:
        """Say that a source gives nothing more."""
        self._buffer.end(source)

    # What the answering thread calls.

    @property
    def is_done(self) -> bool:
        """Whether every source has ended and been answered."""
        return all(stream.is_finished for stream in self._streams)

    def is_over(self, duration_seconds: float | None) -> bool:
        """Tell whether only live sources are left, and have lasted long enough by the clock."""
        if duration_seconds is None or self.clock.now() - self._begun < duration_seconds:
            return False
        pairs = zip(self.sources, self._streams, strict=True)
        return all(source.is_live or stream.is_finished for source, stream in pairs)

    def wait(self, timeout_seconds: float) -> None:
        """Wait until there is something to do."""
        self._buffer.wait(min(timeout_seconds, _SHOW_SECONDS) if self._screens else timeout_seconds)

    def stop(self) -> None:
        """End every source, and free whoever waits."""
        for source in self.sources:
            source.stop()
        self._buffer.close()

    def turn(self) -> int:
        """Answer at most one frame of each source, in one step of the model; return how many."""
        self._tell_notes()
        taken = self._take()
        if taken:
            self._step(taken)
        for number, stream in enumerate(self._streams):
            if not stream.is_finished and self._buffer.is_done(number):
                self._finish(number)
            num_pictures = self._screens.count(number)  # before the look at what waits: none of its ticks waits
            if not self._buffer.backlog(number):
                self._screens.show(number, num_pictures)
        self._screens.refresh()
        return len(taken)

    def finish(self) -> tuple[SourceReport, ...]:
        """Tell what is still to be told; return how each source fared."""
        for number, stream in enumerate(self._streams):
            if not stream.is_finished:
                self._finish(number)
        self._tell_notes()
        pairs = enumerate(zip(self.sources, self._streams, strict=True))
        return tuple(s.report(source, num_skipped=self._buffer.num_skipped(i)) for i, (source, s) in pairs)

    def _take(self) -> dict[int, Waiting[tuple[int, Tick[Shown]]]]:
        """Take what is fresh; a single source that the model is too slow for is waited for."""
        step, now = self._step_seconds, self.clock.now()
        if step <= 1 / self._fps:
            return self._buffer.take(now=now, keep_seconds=_BURST_TICKS / self._fps)
        return self._buffer.take(now=now, last_seconds=_FRESH * step if len(self.sources) == 1 else None)

    @property
    def _step_seconds(self) -> float:
        return float(np.median(self._steps)) if self._steps else 0.0

    def _step(self, taken: dict[int, Waiting[tuple[int, Tick[Shown]]]]) -> None:
        for number, waiting in taken.items():
            self._streams[number].backlog = self._buffer.backlog(number)
            self._begin_anew_after_break(number, *waiting.item)
        frames = [waiting.item[1].item.pixels for waiting in taken.values()]
        states = [self._streams[number].state for number in taken]
        begun = self.clock.now()
        answers = self.stepper.push_many(frames, states)
        done = self.clock.now()
        self._steps.append(done - begun)
        for (number, waiting), (logits, state) in zip(taken.items(), answers, strict=True):
            stream = self._streams[number]
            stream.state = state
            stream.saw(waiting.item[1], lag_seconds=done - waiting.arrived_seconds)
            self._watch_rate(number)
            self._screens.show_before(number, waiting.item[1].seconds)
            if logits is not None:
                self._score(number, logits)

    def _new_decider(self) -> Decider:
        return Decider(self.stepper.classifier.classes, self._decision)

    def _begin_anew_after_break(self, number: int, epoch: int, tick: Tick[Shown]) -> None:
        stream = self._streams[number]
        if epoch != stream.epoch:
            gap = tick.seconds - stream.last_seconds
            self._decided(number, stream.decider.finish())
            stream.begin_anew(self.stepper.start(), self._new_decider(), epoch)
            text = f"nothing came for {gap:.1f} s: the stream begins anew, and answers after the next full clip"
            self._tell(Note(self.sources[number].name, "break", self.clock.now() - self._begun, text))

    def _watch_rate(self, number: int) -> None:
        """Say once when the model sees too few frames a second, and once when it sees enough again."""
        stream, num_frames = self._streams[number], self.stepper.classifier.spec.num_frames
        if num_frames == 1 or len(stream.seen) < num_frames:
            return
        share = stream.fps / self._fps
        if not stream.is_slow and share < _LOW_RATE:
            is_late = self._step_seconds > 1 / self._fps
            why = "the model is too slow for it" if is_late else "the source gives no more"
            text = (
                f"{stream.fps:.1f} frames a second are seen, trained with {self._fps:.1f}, because {why}: "
                "movements look faster than they are, and answers are doubtful"
            )
        elif stream.is_slow and share >= _GOOD_RATE:
            text = f"{stream.fps:.1f} frames a second are seen again, as in training"
        else:
            return
        stream.is_slow = not stream.is_slow
        self._tell(Note(self.sources[number].name, "rate", self.clock.now() - self._begun, text))

    def _score(self, number: int, logits: np.ndarray, *, repeated: int = 0) -> None:
        stream, classifier = self._streams[number], self.stepper.classifier
        start = max(stream.begin_seconds or 0.0, stream.last_seconds - self._span_seconds)
        probabilities = classifier.probabilities(logits)
        if not np.isfinite(probabilities).all():
            raise InputMismatchError(f"the classifier's answer to {self.sources[number].name} is not finite")
        window = Window(start, stream.last_seconds + 1 / self._fps, probabilities)
        ended = stream.decider.update(window)
        smoothed = stream.decider.smoothed
        assert smoothed is not None
        name, status = self.sources[number].name, self._status(number)
        is_unknown = not stream.decider.is_known
        self._tell(Score(name, window, classifier.classes, smoothed, logits, repeated, status, is_unknown))
        self._decided(number, ended)

    def _decided(self, number: int, event: Event | None) -> None:
        if event is not None:
            self._streams[number].num_events += 1
            self._tell(Decided(self.sources[number].name, event))

    def _finish(self, number: int) -> None:
        """Answer what a source's end leaves unanswered, and end its open event."""
        stream = self._streams[number]
        stream.is_finished = True
        logits, repeated = self.stepper.finish(stream.state)
        if logits is not None:
            if repeated:
                self.note(
                    number, "short", f"ended before one clip: its last frame was repeated {repeated} times"
                )
            self._score(number, logits, repeated=repeated)
        self._decided(number, stream.decider.finish())
        self._screens.show(number, self._screens.count(number))

    def _status(self, number: int) -> Status:
        stream, counts = self._streams[number], self.sources[number].counts
        return Status(
            fps=stream.fps,
            wanted_fps=self._fps,
            lag_seconds=stream.lag,
            step_seconds=self._step_seconds,
            backlog=stream.backlog,
            num_answered=stream.num_answered,
            num_skipped=self._buffer.num_skipped(number),
            num_damaged=counts.num_damaged,
            num_returns=counts.num_returns,
        )

    def _tell_notes(self) -> None:
        while not self._notes.empty():
            self._tell(self._notes.get())

    def _tell(self, record: Record) -> None:
        for output in self._outputs:
            output.take(record)
