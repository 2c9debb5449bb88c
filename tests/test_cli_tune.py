"""`vidette tune-decision`, end to end: a lamp goes on and off, a policy is chosen, saved, used by `stream`."""

import csv
import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from vidette.classifier.classifier import Classifier
from vidette.cli_stream import stream
from vidette.cli_tune import tune_decision
from vidette.errors import ClassifierError, InputMismatchError, ManifestError, SettingError
from vidette.models import build_model
from vidette.prediction.policy import DecisionPolicy, own_policy
from vidette.video.clip import ClipSpec
from vidette.video.motion import write_untrimmed
from vidette.video.writer import write_video

T, SIZE, FPS = 2, 32, 8.0
SPEC = ClipSpec(num_frames=T, height=SIZE, width=SIZE, sampling="window", fps=FPS)
TRUTH = ((2.0, 5.0), (8.0, 12.0), (15.0, 18.0))
FLASHES = (6.5, 13.5)


def call(*arguments):
    app = typer.Typer()
    app.command("tune-decision")(tune_decision)
    app.command("stream")(stream)
    return CliRunner().invoke(app, [*(str(argument) for argument in arguments), "--runtime", "torch"])


@pytest.fixture(scope="module")
def lamp():
    """A frame CNN whose last layer is set so that it tells light from dark."""
    torch.manual_seed(0)
    shape = {"num_frames": T, "height": SIZE, "width": SIZE}
    model = build_model("frame_cnn", num_classes=2, options={"backbone": "small"}, **shape).eval()
    with torch.no_grad():
        dark, light = (
            model.head.norm(model.frame_features(torch.full((1, T, 3, SIZE, SIZE), v)).flatten(-2).mean(-1))[
                0, 0
            ]
            for v in (-1.0, 1.0)
        )
        step = (light - dark) / (light - dark).square().sum()
        model.head.classify.weight.copy_(torch.stack([-step, step]) * 6)
        middle = 6 * step @ (light + dark) / 2
        model.head.classify.bias.copy_(torch.stack([middle, -middle]))
    return Classifier(model, "frame_cnn", {"backbone": "small"}, SPEC, ("dark", "light"))


def level(now, truth):
    return 255 if any(start <= now < stop for start, stop in truth) else 0


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos of a lamp that flashes twice where nothing happens, their truths, and a table of both."""
    folder = tmp_path_factory.mktemp("lamp")
    rows = []
    for name, shift in (("a", 0.0), ("b", 0.5)):
        spans = [(start + shift, stop + shift) for start, stop in TRUTH]
        shown = spans + [(flash, flash + 0.2) for flash in FLASHES]
        levels = (level(i / 10, shown) for i in range(200))
        write_video(folder / f"{name}.mp4", (np.full((32, 32, 3), v, np.uint8) for v in levels), fps=10)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [("start_seconds", "end_seconds", "label"), *((*s, "light") for s in spans)]
            )
        rows += [(f"{name}.mp4", *span, "light") for span in spans]
    with (folder / "both.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "start_seconds", "end_seconds", "label"), *rows])
    return folder


@pytest.fixture
def folder(lamp, tmp_path):
    return lamp.save(tmp_path / "clf", onnx=False)


def tune(folder, videos, *more, names=("a",), truth=("a.csv",), wish=0):
    tables = [part for table in truth for part in ("--truth", videos / table)]
    sources = [videos / f"{name}.mp4" for name in names]
    return call("tune-decision", folder, *sources, *tables, "--false-alarms-per-hour", wish, *more)


def test_the_policy_is_chosen_saved_and_used_by_stream(folder, videos):
    weights = (folder / "weights.safetensors").stat()
    done = tune(folder, videos, "--quiet", "dark", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["no_decision"]["num_false_alarms"] == 2
    assert told["tuned"]["num_false_alarms"] == 0
    assert told["tuned"]["f1"] == 1
    assert told["tuned"]["mean_seconds_to_detect"] > 0
    assert told["held_out"] is None
    saved = Classifier.load(folder)
    assert saved.decision == told["policy"]
    assert own_policy(saved).quiet_labels == {"dark"}
    after = (folder / "weights.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (weights.st_ino, weights.st_mtime_ns)
    assert {path.name for path in folder.iterdir()} == {"classifier.json", "weights.safetensors"}
    assert len(events(call("stream", folder, videos / "a.mp4", "--json"))) == 3
    plain = ("--smoothing", "none", "--minimum-seconds", 0, "--enter-probability", 0.6)
    assert len(events(call("stream", folder, videos / "a.mp4", "--json", *plain))) == 5


def test_a_stride_is_to_be_given_again_where_it_is_used(folder, videos):
    done = tune(folder, videos, "--quiet", "dark", "--dry-run", "--stride-seconds", 0.25)
    assert done.exit_code == 0, done.output
    assert "every 0.25 s" in done.stderr
    assert "--stride-seconds" not in tune(folder, videos, "--quiet", "dark", "--dry-run").stderr


def events(done):
    assert done.exit_code == 0, done.output
    told = map(json.loads, done.stdout.splitlines())
    return [line for line in told if line["type"] == "event"]


def test_two_videos_by_one_table_and_a_table_is_printed(folder, videos):
    done = tune(folder, videos, "--quiet", "dark", "--dry-run", names=("a", "b"), truth=("both.csv",))
    assert done.exit_code == 0, done.output
    for word in ("no decision", "before", "tuned, held out", "an hour (95 %)", "6 true events", "cool-down"):
        assert word in done.stdout
    assert Classifier.load(folder).decision == {}


def test_quiet_labels_that_were_saved_stay(folder, videos, lamp):
    lamp_again = Classifier.load(folder)
    lamp_again.save_decision(folder, DecisionPolicy(quiet_labels=frozenset({"dark"})).to_dict())
    assert tune(folder, videos).exit_code == 0
    assert own_policy(Classifier.load(folder)).quiet_labels == {"dark"}


def test_stream_says_unknown_where_it_is_told_to_abstain(folder, videos):
    done = call("stream", folder, videos / "a.mp4", "--json", "--abstain-probability", 1, "--quiet", "dark")
    assert events(done) == []
    labels = {line["label"] for line in map(json.loads, done.stdout.splitlines()) if line["type"] == "score"}
    assert labels == {"unknown"}


def test_stream_groups_by_activity_where_a_quiet_class_is_named(folder, videos):
    options = ("--json", "--smoothing", "none", "--grouping", "activity")
    told = events(call("stream", folder, videos / "b.mp4", *options, "--quiet", "dark"))
    assert {event["label"] for event in told} == {"light"}
    assert told == events(call("stream", folder, videos / "b.mp4", *options[:-2], "--quiet", "dark"))
    unnamed = call("stream", folder, videos / "b.mp4", *options)
    assert isinstance(unnamed.exception, SettingError)
    assert "no quiet labels" in str(unnamed.exception)


def test_what_no_policy_reaches_is_an_error_with_the_nearest(folder, videos):
    done = call(
        "tune-decision", folder, videos / "b.mp4", "--truth", videos / "a.csv", "--false-alarms-per-hour", 0,
        "--iou", 0.99, "--quiet", "dark",
    )  # fmt: skip
    assert isinstance(done.exception, SettingError)
    assert "none of" in str(done.exception)
    assert Classifier.load(folder).decision == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truth": ("none.csv",)}, ManifestError, "none.csv"),
        ({"truth": ("a.csv", "b.csv")}, SettingError, "2 --truth for 1 videos"),
        ({"names": ("a", "a")}, SettingError, "twice"),
        ({"more": ("--quiet", "drak")}, SettingError, "did you mean 'dark'"),
        ({"more": ("--iou", 0)}, SettingError, "--iou"),
        ({"more": ("--stride-seconds", -1)}, SettingError, "stride_seconds"),
    ],
)
def test_bad_input_is_one_error(folder, videos, options, error, message):
    more = options.get("more", ())
    done = tune(folder, videos, *more, **{name: value for name, value in options.items() if name != "more"})
    assert isinstance(done.exception, error), done.output
    assert message in str(done.exception)


def test_a_truth_of_other_classes_is_refused(folder, videos, tmp_path):
    video, truth = write_untrimmed(tmp_path / "long", num_events=1, size=(32, 32))
    done = call("tune-decision", folder, video, "--truth", truth, "--false-alarms-per-hour", 6)
    assert isinstance(done.exception, InputMismatchError)


def test_what_keeps_no_decision_is_refused(videos, tmp_path):
    assert isinstance(tune("imagenet", videos).exception, SettingError)
    assert isinstance(tune(tmp_path, videos).exception, ClassifierError)
