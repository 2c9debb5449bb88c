"""`vidette evaluate --stream`: the score along a video is that of the live run, answer for answer."""

import csv
import json
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from vidette.cli_evaluate import evaluate
from vidette.errors import InputMismatchError, ManifestError, MissingVideoError, SettingError
from vidette.evaluation.online import event_scores
from vidette.evaluation.stream import evaluate_stream
from vidette.evaluation.truth import read_truth
from vidette.prediction.decision import DecisionPolicy
from vidette.prediction.steps import follow, step_file
from vidette.streaming.live import new_stepper, run
from vidette.streaming.records import Decided, Score
from vidette.streaming.sources import FileSource
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.writer import write_video

T, SIZE = 4, 32
SPEC = ClipSpec(num_frames=T, height=SIZE, width=SIZE, sampling="window", fps=8.0)
WHOLE = replace(SPEC, sampling="whole", fps=None, trained_spans=SpanRange(0.9, 1.0, 1.2))
EVERY = DecisionPolicy(smoothing="none", enter_probability=0.0, leave_probability=0.0)
KEEN = DecisionPolicy(smoothing_seconds=0.3, enter_probability=0.34, leave_probability=0.33)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten seconds of one noise after another at 15 frames a second."""
    rng = np.random.default_rng(0)
    noises = rng.integers(0, 256, (20, 24, 32, 3)).astype(np.uint8)
    frames = np.repeat(noises, rng.integers(2, 14, len(noises)), axis=0)
    return write_video(tmp_path_factory.mktemp("video") / "noise.mp4", frames, fps=15)


@pytest.fixture(scope="module")
def truth(video):
    path = video.with_suffix(".csv")
    with path.open("w", newline="") as file:
        rows = [("start_seconds", "end_seconds", "label"), (1, 3, "walk"), (5, 6.5, "wave"), (7, 8, "fall")]
        csv.writer(file).writerows(rows)
    return path


class Records:
    """Keeps what a live run tells."""

    def __init__(self):
        self.scores, self.events = [], []

    def take(self, record):
        if isinstance(record, Score):
            self.scores.append(record)
        elif isinstance(record, Decided):
            self.events.append(record.event)

    def close(self):
        pass


def live_run(stepper, video, fps, policy):
    records = Records()
    run(stepper, [FileSource(video)], outputs=[records], policy="all", decision=policy, fps=fps)
    return records


@pytest.mark.parametrize(("name", "spec"), [("cnn_gru", SPEC), ("frame_cnn", WHOLE), ("conv3d_small", SPEC)])
@pytest.mark.parametrize("policy", [EVERY, KEEN])
def test_the_steps_of_a_file_are_those_of_a_live_run(make_classifier, video, name, spec, policy):
    stepper, fps = new_stepper(make_classifier(name, spec))
    live, steps = live_run(stepper, video, fps, policy), step_file(stepper, video, fps=fps)
    windows = [window for timeline in steps.stretches for window in timeline.windows]
    assert len(windows) == len(live.scores) > 10
    for window, score in zip(windows, live.scores, strict=True):
        assert (window.start_seconds, window.stop_seconds) == (
            score.window.start_seconds,
            score.window.stop_seconds,
        )
        np.testing.assert_array_equal(window.probabilities, score.window.probabilities)
    answers = follow(steps.stretches, policy)
    np.testing.assert_array_equal(answers.probabilities, [score.smoothed for score in live.scores])
    assert list(answers.events) == live.events
    assert live.events
    assert steps.num_frames == round(windows[-1].stop_seconds * fps)


def test_the_evaluation_scores_what_the_live_run_tells(make_classifier, video, truth):
    stepper, fps = new_stepper(make_classifier())
    true = read_truth(truth)[""]
    result = evaluate_stream(stepper, video, true, policy=KEEN, fps=fps)
    live = live_run(stepper, video, fps, KEEN)
    total = live.scores[-1].window.stop_seconds
    expected = event_scores(live.events, true, total_seconds=total, told_seconds=result.answers.told_seconds)
    assert result.decided.events == expected
    plain = live_run(stepper, video, fps, EVERY)
    assert result.plain.events.num_flips == len(plain.events) - 1
    assert result.plain.events.num_predicted == len(plain.events)
    assert result.plain.frames.n == result.decided.frames.n == len(live.scores)


def test_a_gap_begins_the_answers_anew(make_classifier, tmp_path):
    """As in the recording of a camera that was away for six seconds."""
    path = tmp_path / "gap.mkv"
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 8)
        for tick in [*range(12), *range(60, 72)]:
            noise = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    stepper, fps = new_stepper(make_classifier())
    steps = step_file(stepper, path, fps=fps)
    live = live_run(stepper, path, fps, KEEN)
    assert [len(timeline.windows) for timeline in steps.stretches] == [9, 9]
    assert list(follow(steps.stretches, KEEN).events) == live.events
    assert "begin anew" in steps.warnings[0]


@pytest.fixture(scope="module")
def folder(make_classifier, tmp_path_factory):
    return make_classifier("frame_cnn").save(tmp_path_factory.mktemp("clf") / "clf", onnx=False)


def call(*arguments):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_both_columns(folder, video, truth):
    done = call(folder, "--stream", video, "--truth", truth)
    assert done.exit_code == 0, done.output
    for row in ("per-frame mAP", "event F1", "mean time to detect", "false alarms an hour", "flips a minute"):
        assert row in done.stdout
    assert "with decision" in done.stdout
    assert "3 true events" in done.stdout


def test_the_command_prints_json(folder, video, truth, make_classifier):
    done = call(folder, "--stream", video, "--truth", truth, "--json", "--iou", 0.3, "--quiet", "fall")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    stepper, fps = new_stepper(make_classifier("frame_cnn"))
    policy = DecisionPolicy(quiet_labels=frozenset({"fall"}))
    result = evaluate_stream(stepper, video, read_truth(truth)[""], policy=policy, fps=fps, iou=0.3)
    assert printed == json.loads(json.dumps(result.to_dict()))
    assert printed["without_decision"]["events"]["num_true"] == 2
    assert printed["policy"]["quiet_labels"] == ["fall"]


def test_bad_input_is_one_clear_error(folder, video, truth, tmp_path):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("start_seconds,end_seconds,label\n1,2,wavee\n")
    for arguments, error, text in [
        (["--stream", video], SettingError, "--truth"),
        (["--truth", truth], SettingError, "--truth is for --stream"),
        ([video.parent, "--stream", video, "--truth", truth], SettingError, "SOURCE is not for --stream"),
        (["--stream", video, "--truth", truth, "--iou", 0], SettingError, "iou"),
        (["--stream", video, "--truth", truth, "--quiet", "fal"], SettingError, "did you mean 'fall'"),
        (["--stream", video, "--truth", wrong], InputMismatchError, "did you mean 'wave'"),
        (["--stream", video, "--truth", tmp_path / "absent.csv"], ManifestError, "cannot be read"),
        (["--stream", tmp_path / "absent.mp4", "--truth", truth], MissingVideoError, "absent.mp4"),
    ]:
        done = call(folder, *arguments)
        assert isinstance(done.exception, error), (arguments, done.exception)
        assert text in str(done.exception)
