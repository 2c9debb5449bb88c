"""The command line as a user types it: exit status, one message, nothing lost; the README's first screen."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from vidette.cli import main
from vidette.cli_view import models_table

QUICK = ["--recipe", "motion", "--model", "conv3d_small", "--size", "32", "--num-frames", "8", "--epochs", "1"]
README = Path(__file__).parents[1] / "README.md"


def vidette(*arguments):
    """Run the command line in this process, which has its libraries already; what it says and how it ends."""
    said, complained = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vidette", *map(str, arguments)])
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            try:
                status = main()
            except SystemExit as ended:
                status = ended.code
    return subprocess.CompletedProcess(arguments, status or 0, said.getvalue(), complained.getvalue())


def vidette_process(*arguments, cwd=None):
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
    done = vidette_process("evaluate", run, "--json")
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
    rows = {row["name"]: row for row in json.loads(vidette("models", "--json").stdout)}
    assert {"frame_cnn", "cnn_gru", "cnn_lstm", "shift", "transformer", "conv3d_causal", "s3d"} <= set(rows)
    assert all(row["parameters"] > 0 and row["gflops_per_clip"] > 0 for row in rows.values())
    assert 70 < rows["r3d_18"]["gflops_per_clip"] < 90  # 40.7 * 10^9 multiply-adds, as published
    assert rows["shift"]["streaming"]
    assert not rows["r3d_18"]["streaming"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(models_table(list(rows.values())))
    table = console.export_text()
    assert all(name in table for name in rows)
    assert "BSD-3-Clause: r3d_18, mc3_18, r2plus1d_18, s3d" in table
    assert "…" not in table, "the table fits a terminal"


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
def test_bad_input_is_one_error_and_status_2(arguments, message, run, motion_clips, tmp_path, monkeypatch):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    clip = sorted(motion_clips.glob("left/*.mp4"))[0]
    other = tmp_path / "other.csv"
    other.write_text(f"path,label\n{clip},sideways\n")
    places = {"clips": motion_clips, "run": run, "text": text, "other": other}
    monkeypatch.chdir(tmp_path)
    done = vidette(*(a.format(**places) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert message in re.sub(r"\s+", " ", done.stderr)


def test_an_error_is_no_traceback(tmp_path):
    done = vidette_process("train", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_killed_run_resumes(motion_clips, tmp_path):
    """To the same weights, bit for bit; hence each in a process of its own, with the same number of threads."""
    whole = vidette_process("train", motion_clips, *QUICK, "--out", tmp_path / "a", "--epochs", "3")
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
    done = vidette_process("train", motion_clips, "--out", tmp_path / "b", "--resume")
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


def test_prepare_then_train_then_evaluate(motion_clips, tmp_path):
    """Frames written once: the run's recipe is what they were prepared with; damage is skipped and listed."""
    clips = tmp_path / "clips"
    shutil.copytree(motion_clips, clips)
    (clips / "manifest.csv").unlink()
    (clips / "left" / "scene-000-broken.mp4").write_bytes(b"no video")
    done = vidette(
        "prepare",
        clips,
        "--out",
        tmp_path / "p",
        "--size",
        "32",
        "--num-frames",
        "8",
        "--group-from",
        r"(scene-\d+)",
    )
    assert done.returncode == 0, done.stderr
    assert "Frames will take about" in done.stderr
    assert "left out" in done.stderr
    assert "scene-000-broken.mp4" in done.stderr
    assert "96 clips ready (96 written now)" in done.stdout
    quick = ["--recipe", "motion", "--model", "conv3d_small", "--epochs", "1"]
    done = vidette("train", tmp_path / "p", *quick, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "1 clips were left out when prepared" in done.stderr
    assert "1 clips were left out when prepared" in (tmp_path / "run/report.html").read_text()
    facts = json.loads(vidette("info", tmp_path / "run", "--json").stdout)
    assert "8 frames of 32x32" in facts["spec"]
    done = vidette("evaluate", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    done = vidette("train", tmp_path / "p", *quick, "--size", "64", "--out", tmp_path / "run2")
    assert done.returncode == 2
    assert "kept at 32x32" in done.stderr


def test_prepare_raises_when_asked_and_refuses_two_ways_to_choose_frames(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.mp4").write_bytes(b"no video")
    done = vidette("prepare", tmp_path, "--out", tmp_path / "p", "--on-damage", "raise")
    assert done.returncode == 2
    assert "x.mp4" in done.stderr
    done = vidette("prepare", tmp_path, "--out", tmp_path / "p", "--num-frames", "4", "--fps", "4")
    assert done.returncode == 2
    assert "give one" in done.stderr


def test_train_skips_damaged_clips_when_asked(motion_clips, tmp_path):
    clips = tmp_path / "clips"
    shutil.copytree(motion_clips, clips)
    table = clips / "manifest.csv"
    first = table.read_text().splitlines()[1].split(",")[0]
    (clips / first).write_bytes(b"no video")
    done = vidette("train", clips, *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert first in done.stderr
    done = vidette("train", clips, *QUICK, "--on-damage", "skip", "--overwrite", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "1 clips were left out" in done.stderr
    report = (tmp_path / "run/report.html").read_text()
    assert "1 clips were left out" in report
    assert first not in (tmp_path / "run/split.csv").read_text()


def test_export_writes_another_layout_that_reads_back(motion_clips, tmp_path):
    done = vidette("export", motion_clips, "--to", "list", "--out", tmp_path / "list")
    assert done.returncode == 0, done.stderr
    assert "not kept" in done.stderr  # the groups
    facts = json.loads(vidette("info", tmp_path / "list", "--json").stdout)
    assert "96 clips, 8 classes" in facts["1"]
    again = vidette("export", motion_clips, "--to", "list", "--out", tmp_path / "list")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_compare_prints_one_row_a_model(motion_clips, tmp_path):
    quick = [
        "--recipe",
        "motion",
        "--size",
        "32",
        "--num-frames",
        "8",
        "--epochs",
        "1",
        "--out",
        tmp_path / "c",
    ]
    done = vidette("compare", motion_clips, "--models", "frame_cnn,conv3d_small", *quick, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in json.loads(done.stdout)["models"]] == ["frame_cnn", "conv3d_small"]
    done = vidette("compare", motion_clips, "--models", "frame_cnn,conv3d_small", *quick)
    lines = done.stdout.splitlines()
    assert lines[0].split()[-3:] == ["GFLOP", "ms/clip", "ms/frame"]
    assert [line.split()[0] for line in lines[1:3]] == ["frame_cnn", "conv3d_small"]
    assert lines[2].endswith("-")  # conv3d_small takes no single frames
    done = vidette("compare", motion_clips, "--models", "frame_cnn,conv4d", *quick)
    assert done.returncode == 2
    assert "conv4d" in done.stderr
    done = vidette("compare", motion_clips, "--models", "frame_cnn,cnn_gru", "--model", "cnn_gru", *quick)
    assert done.returncode == 2
    assert "--models" in done.stderr


def test_import_makes_a_state_dict_a_classifier(motion_clips, tmp_path):
    import timm
    import torch

    labels = sorted(place.name for place in motion_clips.iterdir() if place.is_dir())
    (tmp_path / "labels.txt").write_text("\n".join(labels) + "\n")
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18", num_classes=8).state_dict(), tmp_path / "w.pth")
    options = [
        "--classes",
        tmp_path / "labels.txt",
        "--architecture",
        "timm:resnet18",
        "--out",
        tmp_path / "clf",
    ]
    done = vidette("import", tmp_path / "w.pth", *options, "--frames", "4", "--fps", "8", "--size", "32")
    assert done.returncode == 0, done.stderr
    clip = sorted(motion_clips.glob("left/*.mp4"))[0]
    done = vidette("predict", tmp_path / "clf", clip, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["label"] in labels
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    done = vidette("import", tmp_path / "w.pth", *options[:-1], tmp_path / "other")
    assert done.returncode == 2
    assert "8" in done.stderr
    assert "2" in done.stderr
