"""The command, and the three situations that tutorials meet."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vidette.classifier.classifier import Classifier
from vidette.cli import app
from vidette.diagnosis.material import read_material
from vidette.diagnosis.run import diagnose
from vidette.diagnosis.subject import subject_of_classifier
from vidette.errors import VidetteError
from vidette.models import build_model
from vidette.video.clip import Clip, ClipSpec
from vidette.video.writer import write_video

COLOURS = {"blue": (40, 60, 210), "green": (40, 180, 60), "red": (210, 50, 40)}


def scene(colour, seed, size=48):
    """A coloured disc before a grey gradient: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    grey = 90 + 80 * rows[..., None] + rng.normal(0, 4, (size, size, 1)) + np.zeros(3)
    inside = np.hypot(rows - rng.uniform(0.3, 0.7), columns - rng.uniform(0.3, 0.7)) < rng.uniform(0.2, 0.3)
    return np.clip(np.where(inside[..., None], COLOURS[colour], grey), 0, 255).astype(np.uint8)


def invoke(*arguments):
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)])


def test_resnet18_with_a_new_head_says_one_class_for_every_frame(tmp_path):
    """Situation 1: a pretrained network, its head replaced and not trained, on a video."""
    torch.manual_seed(0)
    model = build_model(
        "frame_cnn", num_classes=4, num_frames=1, height=32, width=32, options={"backbone": "resnet18"}
    )
    clips = [Clip(scene(c, i, 32)[None], np.zeros(1)) for i in range(6) for c in COLOURS]
    spec = ClipSpec(num_frames=1, height=32, width=32)
    classifier = Classifier(model, "frame_cnn", {"backbone": "resnet18"}, spec, ("a", "b", "c", "d"))
    with torch.no_grad():  # as training leaves it: other weights, and statistics of what it saw
        for parameter in model.backbone.parameters():
            parameter.add_(0.2 * parameter.abs().mean() * torch.randn_like(parameter))
        model.backbone.train()
        for part in model.backbone.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = None  # the mean of all that it sees
        classifier.features(clips)
    classifier.save(tmp_path / "run", onnx=False)
    frames = np.repeat(np.stack([scene("red", 1, 32), scene("blue", 2, 32)]), 5, axis=0)
    video = write_video(tmp_path / "stream.mp4", frames, fps=10.0) or tmp_path / "stream.mp4"
    done = invoke(tmp_path / "run", video, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["findings"][0]["name"] == "head_random"
    assert found["healthy"] is False


def keras_model():
    keras = pytest.importorskip("keras", reason="Keras is an extra")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.Conv2D(8, 3, strides=2, activation="tanh"),
            layers.Conv2D(16, 3, strides=2, activation="tanh"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def test_the_report_on_a_video_shows_its_frames_against_its_windows(tmp_path):
    model = build_model(
        "frame_cnn", num_classes=3, num_frames=2, height=32, width=32, options={"backbone": "small"}
    )
    spec = ClipSpec(num_frames=2, height=32, width=32, sampling="window", fps=6.0)
    Classifier(model, "frame_cnn", {"backbone": "small"}, spec, tuple(COLOURS)).save(
        tmp_path / "clf", onnx=False
    )
    write_video(tmp_path / "video.mp4", np.stack([scene("red", i) for i in range(12)]), fps=6.0)
    report = tmp_path / "report.html"
    done = invoke(tmp_path / "clf", tmp_path / "video.mp4", "--report", report)
    assert done.exit_code == 0, done.output
    page = report.read_text(encoding="utf-8")
    assert "Single frames against windows" in page.split("What was looked at")[0]
    assert 'src="data:image/png;base64,iVBOR' in page


def test_keras_cnn_whose_snapshots_and_video_differ_by_the_scaling(tmp_path):
    """Situation 2: trained on pixels in 0..1, given 0..255 by the code of the video."""
    from vidette.models.keras_network import keras_library

    try:
        keras_library()
    except VidetteError:
        pytest.skip("Keras is an extra")
    model = keras_model()
    x = torch.from_numpy(np.stack([scene(c, i) for i in range(20) for c in COLOURS])).float() / 255
    y = torch.arange(60) % 3
    optimizer = torch.optim.Adam([weight.value for weight in model.trainable_weights], lr=2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(model(x).clamp_min(1e-7).log(), y).backward()
        optimizer.step()
    model.save(tmp_path / "cnn.keras")
    (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    for i in range(8):
        for colour in COLOURS:
            place = tmp_path / "snapshots" / colour / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene(colour, 100 + i)).save(place)
    write_video(tmp_path / "video.mp4", np.stack([scene("red", i) for i in range(12)]), fps=6.0)
    given = ["--model", tmp_path / "cnn.keras", "--classes", tmp_path / "classes.txt", "--frames", 2]
    report = tmp_path / "report.html"
    done = invoke(
        *given,
        "--range",
        "0..255",
        tmp_path / "video.mp4",
        "--reference",
        tmp_path / "snapshots",
        "--report",
        report,
    )
    assert done.exit_code == 0, done.output
    first = next(line for line in done.output.splitlines() if line.startswith("1. "))
    assert "range" in first
    assert "0..1" in first
    assert "data:image/png" in report.read_text(encoding="utf-8")
    healthy = invoke(
        *given, "--range", "0..1", tmp_path / "video.mp4", "--reference", tmp_path / "snapshots", "--json"
    )
    assert "value_range" not in [finding["name"] for finding in json.loads(healthy.stdout)["findings"]]


@pytest.mark.parametrize(
    ("kind", "word"), [("dark", "darker"), ("noisy", "noisier"), ("blurred", "more blurred")]
)
def test_imagenet_on_a_stream_that_degrades(kind, word):
    """Situation 3: which shift, how strong, from when."""
    rng = np.random.default_rng(0)
    clips = []
    for i in range(10):
        picture = scene("red", 5, 64).astype(float) + rng.normal(0, 2, (64, 64, 3))
        picture += 30 * (np.mgrid[0:64, 0:64].sum(0) % 8 < 4)[..., None]
        if i >= 6:
            if kind == "dark":
                picture *= 0.25
            elif kind == "noisy":
                picture += rng.normal(0, 40, picture.shape)
            else:
                picture = np.repeat(np.repeat(picture.reshape(16, 4, 16, 4, 3).mean((1, 3)), 4, 0), 4, 1)
        clips.append(Clip(np.clip(picture, 0, 255).astype(np.uint8)[None], np.array([2.0 * i])))
    classifier = Classifier.load("imagenet")
    classifier.spec = ClipSpec(
        num_frames=1, height=64, width=64, mean=classifier.spec.mean, std=classifier.spec.std
    )
    from vidette.diagnosis.material import material_of_clips

    subject = subject_of_classifier(classifier)
    if kind != "noisy":  # quicker, and enough to tell the kinds apart: a network of three numbers
        subject = dataclasses.replace(
            subject, network=lambda x: x.mean((1, 3, 4)), module=None, classes=("r", "g", "b")
        )
    found = diagnose(subject, material_of_clips(clips, in_time=True)).findings
    drift = next(finding for finding in found if finding.name == "drift")
    assert kind != "noisy" or found[0] is drift
    assert drift.numbers["began_seconds"] == 12.0
    assert word in drift.title


def test_bad_input_is_one_error(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    from vidette.cli import main

    for arguments, said in (
        ((tmp_path / "absent", tmp_path / "empty.mp4"), "no such folder"),
        (("imagenet", tmp_path / "empty.mp4"), "empty.mp4"),
        (("imagenet",), "expected CLASSIFIER SOURCE"),
        (("imagenet", tmp_path / "empty.mp4", "--range", "0..1"), "go with --model"),
        (("--model", "no_such_module:network", tmp_path / "empty.mp4"), "cannot be imported"),
    ):
        done = invoke(*arguments)
        assert isinstance(done.exception, VidetteError), done.output
        assert said in str(done.exception)
    assert callable(main)


def test_one_video_becomes_windows_in_time(tmp_path):
    write_video(tmp_path / "v.mp4", np.stack([scene("red", i) for i in range(60)]), fps=10.0)
    made = read_material(tmp_path / "v.mp4", ClipSpec(num_frames=4, height=32, width=32), most_clips=8)
    starts = [clip.seconds[0] for clip in made.clips]
    assert made.in_time
    assert len(made.clips) > 2
    assert starts == sorted(starts)
