"""`vidette stream`, end to end on drawn videos."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from vidette.cli_stream import stream
from vidette.errors import MissingVideoError, OutputExistsError, SettingError, UnreadableVideoError
from vidette.video.reader import probe
from vidette.video.writer import write_video

FPS, SECONDS, T = 8.0, 3, 4


@pytest.fixture(scope="module")
def folder(make_classifier, tmp_path_factory):
    return make_classifier("frame_cnn").save(tmp_path_factory.mktemp("clf") / "clf", onnx=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    noise = np.random.default_rng(0).integers(0, 256, (25 * SECONDS, 48, 64, 3), np.uint8)
    return write_video(tmp_path_factory.mktemp("videos") / "noise.mp4", noise, fps=25)


def call(*arguments):
    app = typer.Typer()
    app.command()(stream)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_file_is_answered_into_every_output(folder, video, tmp_path):
    outs = [tmp_path / name for name in ("a.jsonl", "a.csv", "a.srt", "a.vtt")]
    done = call(folder, video, "--json", *(part for out in outs for part in ("--out", out)))
    assert done.exit_code == 0, done.output
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    scores = [line for line in printed if line["type"] == "score"]
    assert len(scores) == SECONDS * FPS - (T - 1)
    assert [json.loads(line) for line in outs[0].read_text().splitlines()] == printed
    assert len(outs[1].read_text().splitlines()) == 1 + len(scores)
    events = [line for line in printed if line["type"] == "event"]
    assert outs[2].read_text().count("-->") == outs[3].read_text().count("-->") == len(events)
    assert f"{video}: 24 frames answered" in done.stderr


def test_an_annotated_video_has_every_frame_and_drift_can_be_left_out(folder, video, tmp_path):
    done = call(folder, video, "--json", "--out", tmp_path / "a.mp4", "--no-drift")
    assert done.exit_code == 0, done.output
    assert f"written: {tmp_path / 'a.mp4'}" in done.stderr
    assert probe(tmp_path / "a.mp4").num_frames == 25 * SECONDS
    assert not [line for line in done.stdout.splitlines() if '"drift"' in line]
    assert [line for line in call(folder, video, "--json").stdout.splitlines() if '"drift"' in line]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--false-alarm-hours", 0), "false_alarm_seconds is 0.0"),
        (("--out", "ftp://u:secret@host/a"), "expected a file, or http://"),
        (("--out", "mqtt://u:secret@host"), "with a topic"),
    ],
)
def test_outputs_and_drift_that_cannot_be(folder, video, options, message):
    error = call(folder, video, *options).exception
    assert isinstance(error, SettingError)
    assert message in str(error)
    assert "secret" not in str(error)


def test_stride_state_and_duration(folder, video):
    done = call(
        folder,
        video,
        "--json",
        *("--stride-seconds", 0.5),
        *("--state", "clip"),
        *("--duration-seconds", 2),
        *("--policy", "block"),
    )
    ends = [
        line["end_seconds"] for line in map(json.loads, done.stdout.splitlines()) if line["type"] == "score"
    ]
    assert ends == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_a_file_at_its_own_pace_tells_its_lag(folder, video):
    done = call(folder, video, "--realtime", "--json", "--duration-seconds", 0.5)
    assert done.exit_code == 0, done.output
    assert "ms, at most" in done.stderr


def test_without_json_events_are_shown(folder, video):
    done = call(folder, video)
    assert done.exit_code == 0, done.output
    assert "{" not in done.stdout
    assert "24 frames answered" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["none.mp4"], MissingVideoError, "no such file"),
        (["http://u:s3cret@127.0.0.1:9/x"], UnreadableVideoError, r"u:\*\*\*@127.0.0.1:9/x: cannot be opened"),
        (["gopher://cam"], SettingError, "expected a file, a camera"),
        (["a.mp4", "b.mp4", "--out", "a.srt"], SettingError, "subtitles are of one source"),
        (["a.mp4", "a.mp4"], SettingError, "named twice"),
        (["a.mp4", "--stride-seconds", "0"], SettingError, "stride_seconds is 0"),
        (["a.mp4", "--duration-seconds", "-1"], SettingError, "expected above 0"),
        (["a.mp4", "--out", "there.csv"], OutputExistsError, "--overwrite"),
    ],
)
def test_what_cannot_be_is_one_error(folder, tmp_path, monkeypatch, arguments, kind, message):
    """`vidette` turns these into one line and exit status 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("x")
    done = call(folder, *arguments)
    assert isinstance(done.exception, kind)
    with pytest.raises(kind, match=message):
        raise done.exception
    assert "s3cret" not in done.output + str(done.exception)


def test_a_source_that_never_worked_leaves_no_output(folder, tmp_path):
    done = call(folder, tmp_path / "none.mp4", "--out", tmp_path / "a.csv")
    assert isinstance(done.exception, MissingVideoError)
    assert not (tmp_path / "a.csv").exists()
