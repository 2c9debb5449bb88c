"""New clips among training clips: planted clusters, a planted stranger."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from vidette.classifier.classifier import Classifier
from vidette.data.cache import ClipCache
from vidette.data.manifest import LabelledClip
from vidette.diagnosis.feature_space import clip_features, feature_space, reference_clips
from vidette.errors import InputMismatchError
from vidette.models import MODELS, build_model, model_options
from vidette.models.base import FrameModel, Head
from vidette.video.clip import Clip, ClipSpec

T, SIDE = 4, 16


class ColourHead(Head):
    """A linear layer on the clip's mean red, green and blue: its features are known."""

    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 2)

    def forward(self, features):
        return self.classify(features.mean(dim=(1, 3, 4)))


def colour_classifier():
    spec = ClipSpec(num_frames=T, height=SIDE, width=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
    model = FrameModel(nn.Identity(), ColourHead())
    with torch.no_grad():
        model.head.classify.weight.copy_(torch.tensor([[9.0, -9.0, 0.0], [-9.0, 9.0, 0.0]]))
        model.head.classify.bias.zero_()
    return Classifier(model, "colour", {}, spec, ("red", "green"))


def plain(colour):
    pixels = np.broadcast_to(np.array(colour, np.uint8), (T, SIDE, SIDE, 3)).copy()
    return Clip(pixels, np.arange(T) / 10)


def colour_of(label, number):
    generator = np.random.default_rng((label == "red", number))
    centre = np.array([200, 60, 60]) if label == "red" else np.array([60, 200, 60])
    return np.clip(centre + generator.normal(0, 12, 3), 0, 255)


@pytest.fixture
def training(tmp_path):
    """Forty clips of two colours, by a reader that draws them."""
    clips = [
        LabelledClip(tmp_path / label / f"{i:02d}.mp4", label, group=f"scene {i % 10}")
        for label in ("red", "green")
        for i in range(20)
    ]
    for clip in clips:
        clip.path.parent.mkdir(exist_ok=True)
        clip.path.write_bytes(clip.path.as_posix().encode())

    def read(clip, spec):
        return plain(colour_of(clip.label, int(clip.path.stem)))

    return clips, ClipCache(tmp_path / "cache", read=read)


def test_features_are_what_the_last_layer_reads():
    features = clip_features(colour_classifier(), [plain((255, 0, 0)), plain((51, 102, 204))])
    assert features == pytest.approx(np.array([[1, 0, 0], [0.2, 0.4, 0.8]]), abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"r3d_18", "mc3_18", "r2plus1d_18", "s3d"}))
def test_every_family_has_features_of_a_clip_of_its_own(name):
    """One row a clip, the same whichever clips share its batch."""
    torch.manual_seed(0)
    options = {"backbone": "small"} if "backbone" in model_options(name) else {}
    model = build_model(name, num_classes=2, num_frames=8, height=32, width=32, options=options)
    classifier = Classifier(model, name, options, ClipSpec(num_frames=8, height=32, width=32), ("a", "b"))
    generator = np.random.default_rng(0)
    clips = [
        Clip(generator.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8), np.arange(8) / 10) for _ in range(2)
    ]
    features = clip_features(classifier, clips)
    assert features.shape[0] == 2
    assert features.shape[1] > 2
    assert features[1:] == pytest.approx(clip_features(classifier, clips[1:]), abs=1e-4)


def test_new_clips_lie_with_their_class_and_a_stranger_far_out(training):
    reference, cache = training
    clips = [plain((205, 55, 65)), plain((60, 205, 62)), plain((128, 128, 255))]
    found = feature_space(colour_classifier(), reference, clips, names=("a", "b", "stranger"), cache=cache)
    centres = {
        label: found.training[[own == label for own in found.training_labels]].mean(axis=0)
        for label in ("red", "green")
    }
    for point, label in zip(found.new, ("red", "green"), strict=False):
        other = "green" if label == "red" else "red"
        near, far = (np.linalg.norm(point - centres[name]) for name in (label, other))
        assert near < far / 3
    assert found.new_labels[:2] == ("red", "green")
    assert [found.training_labels[i] for i in found.nearest[:2]] == ["red", "green"]
    assert found.unusualness[2] == 1.0
    assert found.unusualness[:2].max() < 0.95
    assert "unlike training" in found.reading()[2]
    assert "among the training clips" in found.reading()[0]
    assert 0.5 < sum(found.explained) <= 1.0


def test_the_plane_is_the_training_clips_own(training):
    reference, cache = training
    near, far = plain((205, 55, 65)), plain((0, 0, 255))
    alone, beside = (
        feature_space(colour_classifier(), reference, clips, names=["n"] * len(clips), cache=cache)
        for clips in ([near], [near, far])
    )
    assert alone.training == pytest.approx(beside.training)
    assert alone.new[0] == pytest.approx(beside.new[0])


def test_a_training_clip_is_recognised_and_its_group_is_no_neighbour(training):
    reference, cache = training
    own = plain(colour_of("red", 3))
    found = feature_space(colour_classifier(), reference, [own], names=["again"], cache=cache)
    assert found.distances[0] == pytest.approx(0, abs=1e-6)
    assert "is one of the training clips" in found.reading()[0]
    twins = [reference[0], LabelledClip(reference[0].path, "red", group="scene 0"), *reference[1:12]]
    found = feature_space(colour_classifier(), twins, [plain((0, 0, 255))], names=["far"], cache=cache)
    assert found.unusualness[0] == 1.0  # its twin would make the first clip's neighbour distance 0


def test_picture_and_plain_values(training):
    reference, cache = training
    found = feature_space(colour_classifier(), reference, [plain((9, 9, 9))], names=["n"], cache=cache)
    assert found.picture().image.startswith(b"\x89PNG")
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["num_training"] == 40
    assert values["new"][0]["nearest"] in {clip.name for clip in reference}
    with pytest.raises(InputMismatchError, match="3 and 1 at least"):
        feature_space(colour_classifier(), reference[:2], [plain((9, 9, 9))], names=["n"], cache=cache)


def test_reference_clips_are_few_and_of_every_class(training):
    reference, _ = training
    chosen = reference_clips(reference[:24], most=12)
    assert len(chosen) == 12
    assert sum(clip.label == "green" for clip in chosen) == 4
    assert chosen == reference_clips(reference[:24], most=12)
    assert len(reference_clips(reference, most=99)) == 40
