"""Attacks stay within their strength, are pictures, go uphill, and are scored with the clips as they were."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vidette.classifier.classifier import Classifier
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, SettingError, TruncatedVideoError
from vidette.evaluation.adversarial import attack, measure_attacks
from vidette.models import build_model
from vidette.models.base import Head, VideoModel
from vidette.video.clip import Clip, ClipSpec


class LinearHead(Head):
    """The weighted sum of all pixels is the second class's logit."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        score = (x * self.weights).sum(dim=(1, 2, 3, 4))
        return torch.stack([-score, score], dim=1)


class LinearModel(VideoModel):
    def __init__(self, weights):
        super().__init__()
        self.head = LinearHead(weights)


def linear(*, channel_order="RGB", spread=1.0) -> Classifier:
    """A classifier whose gradient is known: weights of random sign."""
    spec = ClipSpec(num_frames=2, height=8, width=8, channel_order=channel_order)
    weights = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * spread
    return Classifier(LinearModel(weights), "linear", {}, spec, ("no", "yes"))


def grey_clip(spec: ClipSpec, seed=0) -> Clip:
    shape = (spec.num_frames, spec.height, spec.width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Clip(pixels, np.arange(spec.num_frames) / 8)


def attacked(classifier, clip, label=1, *, kind, strength, seed=0) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    return attack(classifier, clip, label, kind=kind, strength=strength, generator=generator)


@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
def test_fgsm_moves_every_value_by_its_strength_against_the_label(channel_order):
    classifier = linear(channel_order=channel_order, spread=0.01)
    clip = grey_clip(classifier.spec)
    weights = classifier.model.head.weights.detach().permute(0, 2, 3, 1).numpy()
    signs = np.sign(weights if channel_order == "RGB" else weights[..., ::-1])
    for label, way in ((1, -1), (0, 1)):
        expected = np.clip(clip.pixels + 4.0 * way * signs, 0, 255)
        got = attacked(classifier, clip, label, kind="fgsm", strength=4).pixels
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(("kind", "strength"), [("fgsm", 1), ("pgd", 8)])
def test_stays_within_its_strength_and_lowers_the_label(kind, strength):
    options = {"backbone": "small"}
    spec = ClipSpec(num_frames=2, height=32, width=32)
    torch.manual_seed(0)
    model = build_model("cnn_gru", num_classes=3, num_frames=2, height=32, width=32, options=options)
    classifier = Classifier(model, "cnn_gru", options, spec, ("a", "b", "c"))
    clip = grey_clip(spec)
    before = clip.pixels.copy()
    other = attacked(classifier, clip, kind=kind, strength=strength)
    assert np.abs(other.pixels.astype(int) - before).max() == strength
    assert np.array_equal(clip.pixels, before)
    logits = classifier.logits([clip, other])
    assert classifier.probabilities(logits)[1, 1] < classifier.probabilities(logits)[0, 1]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_classifier_that_is_entirely_sure_is_still_moved():
    classifier = linear(spread=100.0)
    clip = grey_clip(classifier.spec)
    label = int(classifier.logits([clip]).argmax())
    assert classifier.probabilities(classifier.logits([clip])).max() == 1
    assert (
        np.abs(attacked(classifier, clip, label, kind="fgsm", strength=4).pixels - 1.0 * clip.pixels).max() == 4
    )


def test_pgd_depends_on_its_seed_alone():
    classifier = linear()
    clip = grey_clip(classifier.spec)
    one = attacked(classifier, clip, kind="pgd", strength=4)
    assert np.array_equal(one.pixels, attacked(classifier, clip, kind="pgd", strength=4).pixels)


def test_unknown_attacks_and_strengths_are_refused():
    classifier = linear()
    clip = grey_clip(classifier.spec)
    with pytest.raises(SettingError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        attacked(classifier, clip, kind="pdg", strength=1)
    for strength in (0, 256):
        with pytest.raises(SettingError, match="expected 1 to 255"):
            attacked(classifier, clip, kind="fgsm", strength=strength)


class Shelf:
    def __init__(self, clips):
        self.clips = clips

    def load(self, clip, spec):
        if clip.name not in self.clips:
            raise TruncatedVideoError(clip.path, "breaks off")
        return self.clips[clip.name]


def labelled_clips(classifier, number: int):
    clips = {f"{i}.mp4": grey_clip(classifier.spec, seed=i) for i in range(number)}
    answers = classifier.logits(list(clips.values())).argmax(axis=1)
    listed = [
        LabelledClip(Path(name), classifier.classes[answer])
        for name, answer in zip(clips, answers, strict=True)
    ]
    return listed, Shelf(clips)


def test_scores_stand_beside_the_clips_as_they_are():
    classifier = linear()
    clips, shelf = labelled_clips(classifier, 6)
    progress, foreseen = [], []
    scores = measure_attacks(
        classifier,
        clips,
        cache=shelf,
        kinds=["pgd", "fgsm"],
        strengths=(1, 128),
        on_progress=lambda done, total: progress.append((done, total)),
        on_foreseen=foreseen.append,
    )
    named = [(score.attack, score.strength) for score in scores]
    assert named == [("clean", 0), ("fgsm", 1), ("fgsm", 128), ("pgd", 1), ("pgd", 128)]
    assert (scores[0].accuracy, scores[0].fooled) == (1, 0)
    assert (scores[2].accuracy, scores[2].fooled) == (0, 1)
    assert all(score.n == 6 for score in scores)
    assert progress[-1] == (24, 24)
    assert len(foreseen) == 1
    json.dumps([score.to_dict() for score in scores], allow_nan=False)


def test_damage_labels_and_names_are_checked():
    classifier = linear()
    clips, shelf = labelled_clips(classifier, 2)
    broken = LabelledClip(Path("broken.mp4"), "no")
    with pytest.raises(TruncatedVideoError):
        measure_attacks(classifier, [broken], cache=shelf, kinds=["fgsm"])
    scores = measure_attacks(classifier, [broken, *clips], cache=shelf, kinds=["fgsm"], on_damage="skip")
    assert scores[0].n == 2
    with pytest.raises(InputMismatchError, match="none of the 1 clips"):
        measure_attacks(classifier, [broken], cache=shelf, kinds=["fgsm"], on_damage="skip")
    with pytest.raises(InputMismatchError, match="unknown label 'maybe'"):
        measure_attacks(classifier, [LabelledClip(clips[0].path, "maybe")], cache=shelf, kinds=["fgsm"])
    with pytest.raises(SettingError, match="unknown attack"):
        measure_attacks(classifier, clips, cache=shelf, kinds=["deepfool"])
