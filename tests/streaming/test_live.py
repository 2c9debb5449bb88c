"""Live runs: the clip's own answer at any camera rate, and on time where the model is slow."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from vidette.classifier.classifier import Classifier
from vidette.classifier.stepper import Stepper
from vidette.errors import SettingError, VideoError
from vidette.prediction.decision import DecisionPolicy, decide
from vidette.streaming.base import Shown, SourceCounts
from vidette.streaming.clock import ManualClock, SystemClock
from vidette.streaming.live import LiveStreams, run
from vidette.streaming.records import Decided, Note, Score
from vidette.streaming.sources import FileSource
from vidette.video.clip import Clip, ClipSpec, SpanRange
from vidette.video.reader import open_video
from vidette.video.writer import write_video

T, SIZE, FPS = 4, 32, 8.0
SPEC = ClipSpec(num_frames=T, height=SIZE, width=SIZE, sampling="window", fps=FPS)
WHOLE = replace(SPEC, sampling="whole", fps=None, trained_spans=SpanRange(0.9, 1.0, 1.2))
STEPPING = ("frame_cnn", "cnn_rnn", "cnn_lstm", "cnn_gru", "shift", "transformer", "conv3d_causal")
EVERY = DecisionPolicy(smoothing="none", enter_probability=0.0, leave_probability=0.0)


def scene(seconds):
    """A bright bar that moves four times a second, 0.05 s or more before a classifier looks."""
    picture = np.full((SIZE, SIZE, 3), 30, np.uint8)
    left = 5 * int(seconds * 4 + 0.3) % (SIZE - 8)
    picture[8:24, left : left + 8] = (220, 180, 90)
    return picture


def flicker(seconds):
    """Noise that is another one at each moment."""
    seed = round(seconds * 1000)
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def shown(seconds, draw=scene):
    return Shown(float(seconds), lambda: draw(float(seconds)))


class ListSource:
    """Gives pictures at listed times, then ends or fails."""

    def __init__(self, times, *, name="list", is_live=False, draw=scene, error=None):
        self.name, self.is_live, self.counts = name, is_live, SourceCounts()
        self.times, self.draw, self.error, self.stopped = times, draw, error, threading.Event()

    def frames(self, spec, notify):
        for seconds in self.times:
            if self.stopped.is_set():
                return
            self.counts.num_frames += 1
            yield shown(seconds, self.draw)
        if self.error is not None:
            raise self.error

    def stop(self):
        self.stopped.set()


class EndlessSource(ListSource):
    """A camera: goes on until it is stopped."""

    def frames(self, spec, notify):
        yield from super().frames(spec, notify)
        self.stopped.wait(20.0)


class Remembered:
    """An output that keeps what it is told."""

    def __init__(self):
        self.records, self.closed = [], False

    def take(self, record):
        assert not self.closed
        self.records.append(record)

    def close(self):
        self.closed = True

    def of(self, kind):
        return [record for record in self.records if isinstance(record, kind)]

    def notes(self, kind):
        return [note for note in self.of(Note) if note.kind == kind]


class SlowStepper(Stepper):
    """A model that takes its time, by the clock."""

    def __init__(self, classifier, clock, step_seconds):
        super().__init__(classifier, runtime="torch")
        self.clock, self.step_seconds, self.batches = clock, step_seconds, []

    def push_many(self, frames, states):
        self.clock.sleep(self.step_seconds)
        self.batches.append(len(frames))
        return super().push_many(frames, states)


@pytest.fixture(scope="module")
def gru(make_classifier):
    return make_classifier("cnn_gru")


def streamed(classifier, times, *, draw=scene, **more):
    out = Remembered()
    stepper = Stepper(classifier, runtime="torch")
    reports = run(stepper, [ListSource(times, draw=draw)], outputs=[out], policy="all", **more)
    assert out.closed
    return out, reports[0]


@pytest.mark.parametrize("name", STEPPING)
@pytest.mark.parametrize("spec", [SPEC, WHOLE], ids=["window", "whole"])
def test_a_clip_long_file_ends_with_the_clips_own_logits(make_classifier, name, spec, tmp_path):
    """Offline is the fold of online, for every model that steps."""
    classifier = make_classifier(name, spec)
    last = spec.span_seconds
    frames = [flicker(i / 24) for i in range(round(last * 24) + 1)]
    path = write_video(tmp_path / "clip.mp4", frames, fps=24)
    out = Remembered()
    run(Stepper(classifier, runtime="torch"), [FileSource(path)], outputs=[out], policy="all")
    with open_video(path) as video:
        expected = classifier.logits([video.clip(spec)])[0]
    (score,) = out.of(Score)
    assert np.abs(score.logits - expected).max() <= 1e-4
    assert np.abs(score.window.probabilities - classifier.probabilities(expected)).max() <= 1e-4
    assert score.repeated == 0
    other = classifier.logits([Clip(np.stack(frames[-T:]), np.arange(T) / 8)])[0]
    assert np.abs(expected - other).max() > 1e-3, "answers that never differ test nothing"


@pytest.mark.parametrize("fps", [10.0, 25.0, 29.97, 60.0, None])
def test_the_answers_do_not_depend_on_the_cameras_rate(gru, fps):
    """A scene drawn at any rate gives the answers of one that is drawn at the classifier's own ticks."""
    if fps is None:
        times = np.append(0.0, np.cumsum(np.random.default_rng(0).uniform(0.005, 0.045, 210)))
    else:
        times = np.arange(0, 5, 1 / fps)
    steady = streamed(gru, np.arange(41) / FPS)[0].of(Score)
    out, report = streamed(gru, times)
    assert report.num_skipped == 0
    assert len(out.of(Score)) > 34
    for expected, got in zip(steady, out.of(Score), strict=False):
        assert got.window.stop_seconds == pytest.approx(expected.window.stop_seconds)
        assert np.abs(got.logits - expected.logits).max() <= 1e-5
    faster = streamed(gru, np.arange(41) / FPS, draw=lambda seconds: scene(2 * seconds))[0].of(Score)
    off = [np.abs(a.logits - b.logits).max() for a, b in zip(steady, faster, strict=True)]
    assert np.median(off) > 1e-2, "a scene twice as fast is another one to this classifier"


def test_dropped_frames_do_not_stretch_the_clip(gru):
    times = np.arange(0, 4, 1 / 25)
    full, _ = streamed(gru, times)
    gappy, _ = streamed(gru, times[(times < 1.5) | (times > 1.9)])
    seconds = [[score.window.stop_seconds for score in out.of(Score)] for out in (full, gappy)]
    assert seconds[0] == seconds[1]
    after = [s.window.stop_seconds > 3.0 for s in full.of(Score)]
    for i in np.flatnonzero(after):
        assert full.of(Score)[i].label == gappy.of(Score)[i].label


def test_live_events_are_the_fold_of_the_scores(gru):
    out, report = streamed(gru, np.arange(0, 6, 1 / 25), draw=flicker, decision=EVERY)
    windows = [score.window for score in out.of(Score)]
    expected = decide(windows, classes=gru.classes, policy=EVERY)
    assert tuple(decided.event for decided in out.of(Decided)) == expected
    assert report.num_events == len(expected) > 0


def test_the_classifiers_own_decision_is_the_default(gru):
    own = replace(EVERY, minimum_seconds=0.5, abstain_probability=0.5)
    decided = Classifier(
        gru.model, gru.model_name, gru.model_options, SPEC, gru.classes, decision=own.to_dict()
    )
    times = np.arange(0, 6, 1 / 25)
    out, _ = streamed(decided, times, draw=flicker)
    given, _ = streamed(gru, times, draw=flicker, decision=own)
    assert [d.event for d in out.of(Decided)] == [d.event for d in given.of(Decided)]
    labels = {score.label for score in out.of(Score) if score.probability < 0.5}
    assert labels == {"unknown"}
    assert all(score.label in gru.classes for score in out.of(Score) if score.probability >= 0.5)


def simulate(live, clock, arrivals, draw=scene):
    """Pictures come at their times by a manual clock, however long the model takes meanwhile."""
    for arrived in arrivals:
        while clock.now() < arrived:
            if live.turn() == 0:
                clock.sleep(arrived - clock.now())
        live.offer(0, shown(arrived, draw), arrived_seconds=float(arrived))
    live.end(0)
    while not live.is_done:
        live.turn()
    return live.finish()[0]


@pytest.mark.parametrize("slowness", [1.3, 2.5, 3.0, 7.7])
def test_a_slow_model_answers_on_time_and_skips(gru, slowness):
    clock, out = ManualClock(), Remembered()
    step = slowness / FPS
    stepper = SlowStepper(gru, clock, step)
    live = LiveStreams(stepper, [ListSource([], is_live=True)], outputs=[out], policy="newest", clock=clock)
    report = simulate(live, clock, np.arange(0, 30, 1 / 25))
    scores = out.of(Score)
    assert report.largest_lag_seconds <= 1.2 * step + 1e-9
    assert {score.status.backlog for score in scores} == {0}, "nothing piles up"
    assert report.num_skipped > 0
    assert report.num_answered + report.num_skipped == pytest.approx(30 * FPS, abs=2)
    assert scores[-1].status.fps <= 1.01 / step
    (note,) = out.notes("rate")
    assert "trained with 8.0, because the model is too slow" in note.text


def test_a_model_that_keeps_up_skips_nothing(gru):
    clock, out = ManualClock(), Remembered()
    stepper = SlowStepper(gru, clock, 0.9 / FPS)
    live = LiveStreams(stepper, [ListSource([], is_live=True)], outputs=[out], policy="newest", clock=clock)
    report = simulate(live, clock, np.arange(0, 20, 1 / 10))  # ticks come in pairs now and then
    assert report.num_skipped == 0
    assert report.largest_lag_seconds < 3 / FPS
    assert out.notes("rate") == []
    assert out.of(Score)[-1].status.fps == pytest.approx(FPS, rel=0.05)


def test_a_flood_is_bounded_and_every_frame_of_it_is_counted(gru):
    camera = ListSource(np.arange(0, 200, 1 / FPS), is_live=True)
    stepper = SlowStepper(gru, SystemClock(), 0.005)
    out = Remembered()
    (report,) = run(stepper, [camera], outputs=[out], policy="newest")
    assert report.num_answered + report.num_skipped == len(camera.times)
    assert report.num_skipped > 0
    assert all(score.status.backlog <= 64 for score in out.of(Score))


def test_several_cameras_that_are_too_slow_for_all_get_their_turns(gru):
    """However their frames fall, none of them starves, and none waits longer than a step and a frame."""
    clock, out = ManualClock(), Remembered()
    step = 2.5 / FPS
    cameras = [ListSource([], name=name, is_live=True) for name in "abc"]
    live = LiveStreams(SlowStepper(gru, clock, step), cameras, outputs=[out], policy="newest", clock=clock)
    for tick in range(240):
        for number, phase in enumerate((0.0, 0.04, 0.09)):
            arrived = tick / FPS + phase
            while clock.now() < arrived:
                if live.turn() == 0:
                    clock.sleep(arrived - clock.now())
            live.offer(number, shown(arrived), arrived_seconds=arrived)
    reports = live.finish()
    assert all(report.num_answered > 80 for report in reports)
    assert all(report.largest_lag_seconds <= step + 1 / FPS + 1e-9 for report in reports)


def test_a_camera_that_is_too_slow_is_told(gru):
    out, _ = streamed(gru, np.append(np.arange(0, 6, 1 / 4), np.arange(6, 16, 1 / 16)))
    low, good = out.notes("rate")
    assert "4.0 frames a second are seen, trained with 8.0, because the source gives no more" in low.text
    assert "seen again" in good.text


def test_a_long_gap_begins_anew(gru):
    times = np.append(np.arange(0, 2, 1 / 25), np.arange(60, 62, 1 / 25))
    out, _ = streamed(gru, times, draw=flicker, decision=EVERY)
    assert "nothing came for 58.1 s" in out.notes("break")[0].text
    seconds = [score.window.stop_seconds for score in out.of(Score)]
    assert not any(2.2 < second < 60 + (T - 1) / FPS for second in seconds)
    events = [decided.event for decided in out.of(Decided)]
    assert any(event.start_seconds >= 60 for event in events)
    assert not any(2.2 < moment < 60 for e in events for moment in (e.start_seconds, e.stop_seconds))


def test_a_source_shorter_than_a_clip_is_answered_as_the_file_is(gru, tmp_path):
    path = write_video(tmp_path / "short.mp4", [flicker(i / 8) for i in range(2)], fps=8)
    out = Remembered()
    run(Stepper(gru, runtime="torch"), [FileSource(path)], outputs=[out])
    with open_video(path) as video:
        expected = gru.logits([video.clip(SPEC)])[0]
    (score,) = out.of(Score)
    assert np.abs(score.logits - expected).max() <= 1e-4
    assert score.repeated == 2
    assert "repeated 2 times" in out.notes("short")[0].text


def test_models_without_a_step_slide(make_classifier):
    classifier = make_classifier("conv3d_small")
    out, _ = streamed(classifier, np.arange(0, 3, 1 / 8), draw=flicker)
    for score in out.of(Score):
        ticks = np.arange(T) / FPS + score.window.start_seconds
        pixels = np.stack([flicker(seconds) for seconds in ticks])
        assert np.abs(score.logits - classifier.logits([Clip(pixels, ticks)])[0]).max() <= 1e-4
    stops = [score.window.stop_seconds for score in out.of(Score)]
    assert np.allclose(np.diff(stops)[:-1], T / 2 / FPS)
    assert stops[-1] == pytest.approx(3.0), "the end is answered too"


def test_several_sources_share_a_step_and_do_not_mix(gru):
    """Each gets the answers that it gets alone; one that fails is told and left."""
    alone = [streamed(gru, np.arange(0, 4, 1 / 25), draw=draw)[0].of(Score) for draw in (scene, flicker)]
    out, stepper = Remembered(), SlowStepper(gru, ManualClock(), 0.0)
    bad = ListSource(np.arange(3) / 25, name="bad", error=VideoError("bad", "unplugged; plug it in"))
    good = [ListSource(np.arange(0, 4, 1 / 25), name=d.__name__, draw=d) for d in (scene, flicker)]
    reports = run(stepper, [good[0], bad, good[1]], outputs=[out], policy="block")
    assert max(stepper.batches) > 1
    for source, expected in zip(good, alone, strict=True):
        got = [score for score in out.of(Score) if score.source == source.name]
        assert len(got) == len(expected)
        assert max(np.abs(a.logits - b.logits).max() for a, b in zip(got, expected, strict=True)) <= 1e-4
    assert [report.error is None for report in reports] == [True, False, True]
    assert [note.text for note in out.notes("failed")] == ["bad: unplugged; plug it in"]


def test_where_no_source_works_the_first_error_is_raised(gru):
    bad = [ListSource([], name=name, error=VideoError(name, "cannot be opened")) for name in "ab"]
    out = Remembered()
    with pytest.raises(VideoError, match="a: cannot be opened"):
        run(Stepper(gru, runtime="torch"), bad, outputs=[out])
    assert out.closed
    with pytest.raises(SettingError, match="no source"):
        run(Stepper(gru, runtime="torch"), [])


def test_a_fault_in_a_reader_is_not_hidden(gru):
    bad = ListSource([0.0], error=ZeroDivisionError("a bug"))
    camera = EndlessSource(np.arange(3) / 25, is_live=True)
    with pytest.raises(ZeroDivisionError):
        run(Stepper(gru, runtime="torch"), [camera, bad])


def test_duration_ends_files_by_their_own_time_and_cameras_by_the_clock(gru):
    _, report = streamed(gru, np.arange(0, 9, 1 / 25), duration_seconds=2.0)
    assert report.num_frames == 51
    camera = EndlessSource(np.arange(3) / 25, is_live=True)
    reports = run(Stepper(gru, runtime="torch"), [camera], duration_seconds=0.3)
    assert reports[0].num_frames == 3


def test_interrupting_ends_in_good_order(gru):
    class Interrupting(Remembered):
        def take(self, record):
            super().take(record)
            if len(self.of(Score)) == 3 and isinstance(record, Score):
                raise KeyboardInterrupt

    out = Interrupting()
    source = EndlessSource(np.arange(0, 9, 1 / 25), is_live=True)
    reports = run(Stepper(gru, runtime="torch"), [source], outputs=[out], policy="all", decision=EVERY)
    assert out.closed
    assert isinstance(out.records[-1], Decided), "the open event is told"
    assert reports[0].num_frames > 0


def test_a_classifier_without_a_span_cannot_be_live(make_classifier):
    classifier = make_classifier(spec=replace(WHOLE, trained_spans=None))
    with pytest.raises(SettingError, match="cannot be live"):
        run(Stepper(classifier, runtime="torch"), [ListSource([0.0])])
