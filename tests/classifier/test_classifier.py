"""The saved artefact: complete, exact, never half-written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidette.classifier.classifier import Classifier
from vidette.classifier.onnx import export_onnx
from vidette.errors import ClassifierError, InputMismatchError, OutputExistsError, SettingError
from vidette.models import MODELS, build_model, model_options
from vidette.video.clip import Clip, ClipSpec, SpanRange

SPEC = ClipSpec(num_frames=4, height=32, width=32, trained_spans=SpanRange(1.0, 2.0, 3.0))


def make(name="cnn_gru", classes=("fall", "walk", "wave"), spec=SPEC):
    torch.manual_seed(0)
    options = {"backbone": "small"} if "backbone" in model_options(name) else {}
    shape = {"num_frames": spec.num_frames, "height": 32, "width": 32}
    model = build_model(name, num_classes=len(classes), options=options, **shape)
    return Classifier(model, name, options, spec, classes, temperature=1.7, training_statistics={"clips": 3})


def clips(count=3, frames=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Clip(rng.integers(0, 256, (frames, 32, 32, 3), np.uint8), np.arange(frames) / 10) for _ in range(count)
    ]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("runtime", ["auto", "torch"])
def test_saved_and_loaded_gives_the_same_answer(name, runtime, tmp_path):
    """Label names, spec and calibration come back with the weights (the tutorial saved weights only)."""
    first = make(name, spec=replace(SPEC, num_frames=8))
    first.save(tmp_path / "clf", onnx=runtime == "auto")
    second = Classifier.load(tmp_path / "clf", runtime=runtime)
    assert second.classes == first.classes
    assert second.spec == first.spec
    assert second.temperature == first.temperature
    assert second.training_statistics == {"clips": 3}
    assert second.runtime == ("onnx" if runtime == "auto" and MODELS[name].has_backbone else "torch")
    assert np.abs(second.logits(clips(frames=8)) - first.logits(clips(frames=8))).max() <= 1e-4


def test_a_decision_is_saved_with_it_and_without_touching_the_weights(tmp_path):
    first = make()
    first.save(tmp_path / "clf", onnx=False)
    weights = (tmp_path / "clf/weights.safetensors").stat()
    loaded = Classifier.load(tmp_path / "clf")
    assert loaded.decision == {}
    loaded.save_decision(tmp_path / "clf", {"enter_probability": 0.7})
    again = Classifier.load(tmp_path / "clf")
    assert again.decision == loaded.decision == {"enter_probability": 0.7}
    assert again.temperature == first.temperature
    after = (tmp_path / "clf/weights.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (weights.st_ino, weights.st_mtime_ns)
    assert len(list((tmp_path / "clf").iterdir())) == 2
    again.save(tmp_path / "copy", onnx=False)
    assert Classifier.load(tmp_path / "copy").decision == again.decision
    with pytest.raises(ClassifierError, match="other classes"):
        make(classes=("a", "b")).save_decision(tmp_path / "clf", {})


def test_a_folder_without_a_decision_is_read_and_a_broken_one_is_refused(tmp_path):
    make().save(tmp_path / "clf", onnx=False)
    path = tmp_path / "clf/classifier.json"
    description = json.loads(path.read_text())
    del description["decision"]
    path.write_text(json.dumps(description))
    assert Classifier.load(tmp_path / "clf").decision == {}
    path.write_text(json.dumps({**description, "decision": 3}))
    with pytest.raises(ClassifierError, match="decision"):
        Classifier.load(tmp_path / "clf")


def test_features_then_head_is_the_logits():
    clf = make()
    assert np.allclose(clf.logits_of_features(clf.features(clips())), clf.logits(clips()))


def test_probabilities_are_tempered():
    clf = make()
    logits = np.array([[2.0, 1.0, -1.0]])
    expected = np.exp(logits / 1.7) / np.exp(logits / 1.7).sum()
    assert np.allclose(clf.probabilities(logits), expected)


def test_a_clip_of_17_frames_is_refused_where_4_were_trained():
    with pytest.raises(InputMismatchError, match=r"\(17, 32, 32\).*\(4, 32, 32\)"):
        make().logits(clips(frames=17))


def test_an_existing_folder_is_kept_unless_overwritten(tmp_path):
    make().save(tmp_path / "clf", onnx=False)
    with pytest.raises(OutputExistsError, match="overwrite"):
        make(classes=("a", "b")).save(tmp_path / "clf", onnx=False)
    assert Classifier.load(tmp_path / "clf").classes == ("fall", "walk", "wave")
    make(classes=("a", "b")).save(tmp_path / "clf", overwrite=True, onnx=False)
    assert Classifier.load(tmp_path / "clf").classes == ("a", "b")
    assert [p.name for p in tmp_path.iterdir()] == ["clf"]


def test_a_failed_save_leaves_nothing_and_keeps_the_old(tmp_path):
    make().save(tmp_path / "clf", onnx=False)
    broken = replace(make(classes=("a", "b")), training_statistics={"x": object()})
    with pytest.raises(TypeError):
        broken.save(tmp_path / "clf", overwrite=True, onnx=False)
    assert [p.name for p in tmp_path.iterdir()] == ["clf"]
    assert Classifier.load(tmp_path / "clf").classes == ("fall", "walk", "wave")


def test_no_pickle_is_written(tmp_path):
    make().save(tmp_path / "clf")
    assert {p.name for p in (tmp_path / "clf").iterdir()} == {
        "classifier.json",
        "weights.safetensors",
        "backbone.onnx",
        "step.onnx",
    }


def damage_json(folder):
    (folder / "classifier.json").write_text("{")


def drop_classes(folder):
    values = json.loads((folder / "classifier.json").read_text())
    del values["classes"]
    (folder / "classifier.json").write_text(json.dumps(values))


def truncate_weights(folder):
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])


def other_classes(folder):
    values = json.loads((folder / "classifier.json").read_text())
    values["classes"] = ["a", "b"]
    (folder / "classifier.json").write_text(json.dumps(values))


@pytest.mark.parametrize("damage", [damage_json, drop_classes, truncate_weights, other_classes])
def test_a_damaged_folder_is_one_clear_error(damage, tmp_path):
    make().save(tmp_path / "clf", onnx=False)
    damage(tmp_path / "clf")
    with pytest.raises(ClassifierError, match=r"classifier\.json|weights\.safetensors"):
        Classifier.load(tmp_path / "clf")


def test_an_unknown_spec_field_names_the_nearest(tmp_path):
    make().save(tmp_path / "clf", onnx=False)
    path = tmp_path / "clf" / "classifier.json"
    path.write_text(path.read_text().replace('"num_frames"', '"num_frame"'))
    with pytest.raises(SettingError, match="did you mean 'num_frames'"):
        Classifier.load(tmp_path / "clf")


def test_absent_folder_and_absent_onnx_say_what_to_do(tmp_path):
    with pytest.raises(ClassifierError, match="no such folder"):
        Classifier.load(tmp_path / "nothing")
    make("conv3d_small").save(tmp_path / "clf")
    with pytest.raises(ClassifierError, match="runtime 'torch'"):
        Classifier.load(tmp_path / "clf", runtime="onnx")


class _Unlike(torch.nn.Module):
    """Gives ONNX and torch different answers: the branch is fixed at export."""

    def forward(self, x):
        return x + (0.0 if torch.compiler.is_exporting() else 1.0)


def test_export_is_refused_where_onnx_differs(tmp_path):
    with pytest.raises(ClassifierError, match="differ by"):
        export_onnx(_Unlike(), tmp_path / "m.onnx", example=torch.zeros(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_imagenet_answers_without_training():
    clf = Classifier.load("imagenet")
    assert len(clf.classes) == 1000
    pixels = np.zeros((clf.spec.num_frames, 224, 224, 3), np.uint8)
    assert clf.logits([Clip(pixels, np.arange(clf.spec.num_frames) / 2)]).shape == (1, 1000)
