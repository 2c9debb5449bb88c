"""Drift and pictures in a live run: signals beside the answers, each picture after the answers before it."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from vidette.classifier.stepper import Stepper
from vidette.errors import OutputExistsError, SettingError
from vidette.evaluation.reference import reference_statistics
from vidette.prediction.decision import Window
from vidette.streaming.base import Shown, SourceCounts
from vidette.streaming.clock import ManualClock
from vidette.streaming.drift import DriftPolicy, Signal
from vidette.streaming.live import LiveStreams, run
from vidette.streaming.outputs import JsonLines, as_json
from vidette.streaming.outputs_network import Webhook
from vidette.streaming.records import Drifted, Note, Picture, Score, Status
from vidette.streaming.sources import FileSource
from vidette.streaming.view import TerminalView
from vidette.streaming.wanted import WantedOutputs
from vidette.streaming.watch import DriftWatch
from vidette.video.clip import Clip
from vidette.video.reader import open_video
from vidette.video.writer import write_video

T, SIZE, FPS = 4, 32, 8.0


def still(seconds, pixels):
    return Shown(seconds, lambda: pixels)


def scene(rng, *, brightness=110):
    """Noise about a brightness."""
    return np.clip(rng.normal(brightness, 30, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


class ListSource:
    """Gives pictures at listed times."""

    def __init__(self, shown, name="cam"):
        self.name, self.is_live, self.counts, self.shown = name, False, SourceCounts(), shown

    def frames(self, spec, notify):
        for each in self.shown:
            self.counts.num_frames += 1
            yield each

    def stop(self):
        pass


class Screen:
    """An output that keeps records and the times of pictures in the order they come."""

    def __init__(self):
        self.got, self.num_refreshes, self.closed = [], 0, False

    def take(self, record):
        self.got.append(record)

    def show(self, picture):
        self.got.append(picture)

    def refresh(self):
        self.num_refreshes += 1

    def close(self):
        self.closed = True

    def of(self, kind):
        return [each for each in self.got if isinstance(each, kind)]


@pytest.fixture(scope="module")
def classifier(make_classifier):
    """A classifier with the statistics of twelve clips of about the same brightness."""
    made, rng = make_classifier("cnn_gru"), np.random.default_rng(0)
    clips = [
        Clip(np.stack([scene(rng, brightness=level) for _ in range(T)]), np.arange(T) / FPS)
        for level in rng.normal(110, 5, 12)
    ]
    made.training_statistics = {"reference": reference_statistics(made, clips).to_dict()}
    return made


def watched_run(classifier, brightness, *, seconds=40, outputs=None, **more):
    rng, screen = np.random.default_rng(1), Screen()
    times = np.arange(int(seconds * FPS)) / FPS
    shown = [still(s, scene(rng, brightness=brightness(s))) for s in times.tolist()]
    watch = DriftWatch(classifier, [screen, *(outputs or [])], fps=FPS, clock=ManualClock(), **more)
    run(Stepper(classifier, runtime="torch"), [ListSource(shown)], outputs=[watch], policy="all")
    assert screen.closed
    return screen


def test_a_step_in_the_pictures_is_told_with_its_times(classifier):
    lines = io.StringIO()
    screen = watched_run(classifier, lambda s: 180 if 15 <= s < 25 else 110, outputs=[JsonLines(lines)])
    told = [each.signal for each in screen.of(Drifted) if each.signal.kind == "brightness"]
    assert [signal.stop_seconds is None for signal in told] == [True, False]
    assert 14 <= told[0].start_seconds <= 18
    assert 25 <= told[1].stop_seconds <= 35
    assert not screen.of(Note)
    signals = [json.loads(line) for line in lines.getvalue().splitlines() if '"signal"' in line]
    assert next(each["end_seconds"] for each in signals if each["kind"] == "brightness") is None
    assert "in training" in signals[0]["text"]


def test_pictures_like_training_are_quiet_and_every_signal_ends_with_the_run(classifier):
    assert not watched_run(classifier, lambda _: 110).of(Drifted)
    told = watched_run(classifier, lambda s: 110 if s < 10 else 200, seconds=30).of(Drifted)
    kinds = {each.signal.kind for each in told}
    assert "brightness" in kinds
    ended = {each.signal.kind for each in told if each.signal.stop_seconds is not None}
    assert ended == kinds


def test_without_statistics_a_note_says_so_and_what_is_plain_is_still_seen(make_classifier):
    screen = watched_run(make_classifier("cnn_gru"), lambda s: 110 if s < 4 else -200, seconds=12)
    (note,) = screen.of(Note)
    assert note.kind == "drift"
    assert "train it again" in note.text
    assert [each.signal.kind for each in screen.of(Drifted) if each.signal.stop_seconds is None] == [
        "black",
        "frozen",
    ]


def test_each_picture_comes_after_the_answers_before_it(classifier):
    """A source at 20 fps, a classifier at 8: all pictures in order, none before an answer of its time."""
    rng, screen = np.random.default_rng(1), Screen()
    shown = [still(i / 20, scene(rng)) for i in range(40)]
    run(Stepper(classifier, runtime="torch"), [ListSource(shown)], outputs=[screen], policy="all")
    assert [each.shown.seconds for each in screen.of(Picture)] == [each.seconds for each in shown]
    assert screen.num_refreshes > 0
    answered = -1.0
    for each in screen.got:
        if isinstance(each, Score):
            answered = each.window.stop_seconds - 1 / FPS
        else:
            assert answered - 1e-6 <= each.shown.seconds, "no later answer has come"
            due = np.floor(each.shown.seconds * FPS + 1e-6) / FPS
            assert answered >= due - 1e-6 or due < (T - 1) / FPS, "its own answer has"


def test_a_slow_model_never_holds_more_than_some_pictures(classifier):
    """Pictures of a camera that are not taken in time are left out, the oldest first."""
    screen = Screen()
    live = LiveStreams(
        Stepper(classifier, runtime="torch"),
        [ListSource([])],
        outputs=[screen],
        policy="newest",
        clock=ManualClock(),
    )
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    for number in range(1000):
        live.offer(0, Shown(number / 100, lambda: black))
    live.end(0)
    while not live.is_done:
        live.turn()
    assert 0 < len(screen.of(Picture)) <= 128
    assert screen.of(Picture)[-1].shown.seconds == 9.99
    assert all(each.may_drop for each in screen.of(Picture))


def test_a_file_gives_its_own_size_to_people_and_the_same_frames_to_the_model(tmp_path, classifier):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", frames, fps=8)
    plain = list(FileSource(path).frames(classifier.spec, lambda *_: None))
    large = list(FileSource(path, pictures=True).frames(classifier.spec, lambda *_: None))
    with open_video(path) as video:
        own = [frame.pixels for frame in video.frames()]
    assert plain[0].picture().shape == (SIZE, SIZE, 3)
    for one, other, pixels in zip(plain, large, own, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(other.picture(), pixels)


def test_signals_in_the_terminal_stay_until_they_end():
    text = io.StringIO()
    view = TerminalView(Console(file=text, force_terminal=True, width=100, height=30, color_system=None))
    begun = Drifted("cam", Signal("blur", 12.0, None, "sharpness is 3, was 300 to 900 in training"))
    view.take(begun)
    view.take(as_score())
    view.close()
    assert "blur since 12.0 s: cam: sharpness is 3" in text.getvalue()
    assert "doubtful: blur since 12 s" in text.getvalue()
    text.truncate(0)
    plain = TerminalView(Console(file=text, width=100))
    plain.take(replace(begun, signal=replace(begun.signal, stop_seconds=20.0)))
    assert "blur is over, 12.0 to 20.0 s: cam" in text.getvalue()
    assert as_json(begun)["kind"] == "blur"


def as_score():
    found = np.array([0.2, 0.8])
    status = Status(8.0, 8.0, 0.01, 0.01, 0, 12, 0, 0, 0)
    return Score("cam", Window(0.0, 1.0, found), ("a", "b"), found, np.log(found), 0, status)


def test_outputs_are_opened_together_or_not_at_all(tmp_path, monkeypatch):
    console, said = Console(file=io.StringIO()), []
    hook, file = "http://u:secret@127.0.0.1:9/x", str(tmp_path / "a.jsonl")
    outputs = WantedOutputs((hook, file)).open(num_sources=1, console=console, say=said.append)
    assert [type(output) for output in outputs] == [Webhook, JsonLines, TerminalView]
    for output in outputs:
        output.close()
    wanted = WantedOutputs((hook, file))
    assert wanted.lines(outputs) == [f"written: {file}", "http://u:***@127.0.0.1:9/x: 0 sent"]
    with pytest.raises(OutputExistsError):
        wanted.open(num_sources=1, console=console, say=said.append)
    with pytest.raises(SettingError, match="named twice"):
        WantedOutputs((hook, hook)).open(num_sources=1, console=console, say=said.append)
    with pytest.raises(SettingError, match=re.escape("annotated video is of one source, got 2")):
        WantedOutputs((str(tmp_path / "a.mp4"),)).open(num_sources=2, console=console, say=said.append)
    wanted.discard()
    assert not (tmp_path / "a.jsonl").exists()


def test_a_files_pictures_are_not_read_far_ahead(tmp_path):
    source = FileSource(tmp_path / "a.mp4")
    assert WantedOutputs(("b.mp4",)).buffer_policy([source]) == "block"
    assert WantedOutputs(("b.csv",)).buffer_policy([source]) == "all"
    assert WantedOutputs(window=True).buffer_policy([FileSource("a.mp4", realtime=True)]) == "newest"


def test_a_drift_policy_out_of_range():
    for values in ({"false_alarm_seconds": 0}, {"look_seconds": -1}, {"false_alarm_seconds": 5.0}):
        with pytest.raises(SettingError, match="expected above"):
            DriftPolicy(**values)
