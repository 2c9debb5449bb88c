"""The command line as a user types it: exit status, one message, nothing lost; the README's first screen."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = ["--recipe", "motion", "--model", "conv3d_small", "--size", "32", "--num-frames", "8", "--epochs", "1"]
README = Path(__file__).parents[1] / "README.md"


def vidette(*arguments, cwd=None):
    command = [sys.executable, "-m", "vidette.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


@pytest.fixture(scope="module")
def run(motion_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = vidette("train", motion_clips, *QUICK, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    return folder


def test_evaluate_prints_the_runs_own_numbers(run):
    done = vidette("evaluate", run, "--json")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)["metrics"]
    assert got == json.loads((run / "evaluation.json").read_text())["test"]["metrics"]


def test_predict_prints_json_lines_and_writes_by_ending(run, motion_clips, tmp_path):
    clip = sorted(motion_clips.glob("left/*.mp4"))[0]
    done = vidette("predict", run, clip, "--json", "--out", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[0])
    assert list(row) == ["path", "start_seconds", "end_seconds", "label", "probability"]
    assert (tmp_path / "a.csv").read_text().startswith("path,start_seconds,end_seconds,label,probability")
    for ending in ("srt", "mp4"):
        assert vidette("predict", run, clip, "--out", tmp_path / f"a.{ending}").returncode == 0
        assert (tmp_path / f"a.{ending}").stat().st_size > 0
    again = vidette("predict", run, clip, "--out", tmp_path / "a.csv")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr or "overwrite" in again.stderr


def test_imagenet_needs_no_training(motion_clips):
    clip = sorted(motion_clips.glob("left/*.mp4"))[0]
    done = vidette("predict", "imagenet", clip, "--json")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout.splitlines()[0])["probability"] <= 1


def test_info_and_models(run, motion_clips):
    for path in (run, motion_clips, sorted(motion_clips.glob("up/*.mp4"))[0], "imagenet"):
        done = vidette("info", path, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kind"]
    rows = json.loads(vidette("models", "--json").stdout)
    assert {"frame_cnn", "cnn_gru", "cnn_lstm", "conv3d_small", "r3d_18"} <= {row["name"] for row in rows}
    assert all(row["parameters"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "nowhere"),
        (["train", "{clips}", "--epoch", "3"], "epochs"),
        (["train", "{clips}", "--model", "cnn_gur"], "cnn_gru"),
        (["train", "{clips}", "--folds", "x"], "whole number"),
        (["train", "{clips}", "--out", "{run}"], "--overwrite"),
        (["evaluate", "nowhere"], "no such folder"),
        (["evaluate", "{run}", "{other}"], "not classes of this classifier"),
        (["predict", "{run}", "nowhere.mp4"], "nowhere.mp4"),
        (["predict", "{run}", "{text}"], "text.mp4"),
        (["info", "{text}"], "text.mp4"),
        (["motion", "{clips}"], "overwrite"),
    ],
)
def test_bad_input_is_one_error_and_status_2(arguments, message, run, motion_clips, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    clip = sorted(motion_clips.glob("left/*.mp4"))[0]
    other = tmp_path / "other.csv"
    other.write_text(f"path,label\n{clip},sideways\n")
    places = {"clips": motion_clips, "run": run, "text": text, "other": other}
    done = vidette(*(a.format(**places) for a in arguments), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert message in re.sub(r"\s+", " ", done.stderr)


def test_a_killed_run_resumes(motion_clips, tmp_path):
    whole = vidette("train", motion_clips, *QUICK, "--out", tmp_path / "a", "--epochs", "3")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "vidette.cli", "train", motion_clips, *QUICK, "--out", tmp_path / "b"]
    process = subprocess.Popen([*map(str, command), "--epochs", "3"], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch   1/3" in line:
            process.kill()
            break
    process.wait(timeout=60)
    process.stderr.close()
    assert not (tmp_path / "b" / "classifier").exists()
    done = vidette("train", motion_clips, "--out", tmp_path / "b", "--resume")
    assert done.returncode == 0, done.stderr
    assert "epoch   1/3" not in done.stderr
    weights = "classifier/weights.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()


def test_the_readmes_python_lines_run(motion_clips, tmp_path):
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S).group(1)
    clip = sorted(motion_clips.glob("left/*.mp4"))[0]
    code = code.replace('"clips/"', f'"{motion_clips}", recipe="motion", size=32, num_frames=8, epochs=1')
    code = code.replace('"video.mp4"', f'"{clip}"')
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in {p.name for p in motion_clips.iterdir()}


def test_the_readmes_commands_exist():
    text = README.read_text(encoding="utf-8")
    for command in set(re.findall(r"vidette (train|evaluate|predict|models|info|motion|audit)\b", text)):
        assert vidette(command, "--help").returncode == 0
