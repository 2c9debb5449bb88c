"""Reference statistics: what was measured, kept as plain JSON, and told apart from other pictures."""

import json

import numpy as np
import pytest
import torch

from vidette.classifier.classifier import Classifier
from vidette.errors import ClassifierError, InputMismatchError
from vidette.evaluation.levels import Level, picture_change, picture_levels
from vidette.evaluation.reference import (
    FeatureReference,
    ReferenceStatistics,
    find_reference,
    pooled_features,
    reference_statistics,
)
from vidette.models import build_model
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import clip_tensor

SPEC = ClipSpec(num_frames=6, height=32, width=32, sampling="window", fps=8.0)


def classifier(name="cnn_gru"):
    torch.manual_seed(0)
    options = {} if name.startswith("conv3d") else {"backbone": "small"}
    model = build_model(name, num_classes=2, num_frames=6, height=32, width=32, options=options)
    return Classifier(model, name, options, SPEC, ("a", "b"), temperature=2.0)


def clips(n=12, *, brightness=110, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Clip(
            np.clip(rng.normal(brightness + rng.normal(0, 8), 25, (6, 32, 32, 3)), 0, 255).astype(np.uint8),
            np.arange(6) / 8,
        )
        for _ in range(n)
    ]


def noisy(picture, sigma, seed=0):
    return np.clip(picture + np.random.default_rng(seed).normal(0, sigma, picture.shape), 0, 255).astype(
        np.uint8
    )


def ramp():
    """A picture of constant slope: no noise, and nothing that a Laplacian sees."""
    luma = 40 + 2 * np.arange(64)[:, None] + np.arange(64)[None]
    return np.repeat(luma[:, :, None], 3, axis=2).astype(np.uint8)


def test_noise_is_measured_in_levels():
    """The same noise in every channel has that deviation in the luma."""
    sigma = 6.0
    noise = np.random.default_rng(0).normal(0, sigma, (64, 64, 1))
    assert picture_levels((ramp() + noise).round().astype(np.uint8)).noise == pytest.approx(sigma, rel=0.1)
    assert picture_levels(ramp()).noise == pytest.approx(0.0, abs=1e-3)


def test_levels_tell_dark_flat_and_blurred_pictures():
    sharp = noisy(ramp(), 20)
    blurred = sharp.astype(np.float64)
    for axis in (0, 1):
        blurred = (np.roll(blurred, 1, axis) + blurred + np.roll(blurred, -1, axis)) / 3
    clear, soft = picture_levels(sharp), picture_levels(blurred.astype(np.uint8))
    assert soft.sharpness < clear.sharpness / 5
    flat = picture_levels(np.full((16, 16, 3), 7, np.uint8))
    assert (flat.brightness, flat.contrast, flat.sharpness) == pytest.approx((7, 0, 0), abs=1e-4)
    assert picture_levels(np.full((4, 4, 3), (0, 255, 0), np.uint8)).brightness == pytest.approx(149.7, abs=0.1)


def test_change_does_not_wrap_around():
    assert picture_change(np.full((4, 4, 3), 250, np.uint8), np.full((4, 4, 3), 5, np.uint8)) == 245


def test_a_levels_bounds_hold_new_clips_as_often_as_said():
    """Of many sets of five normal values, the sixth lies in the 90 % interval about as often, or more."""
    rng = np.random.default_rng(1)
    inside = 0
    for values in rng.normal(3, 2, (2000, 6)):
        low, high = Level.of(list(values[:5, None])).bounds(0.9)
        inside += low <= values[5] <= high
    assert 0.88 < inside / 2000 < 0.94


def test_a_level_keeps_clips_and_frames_apart():
    level = Level.of([np.array([1.0, 3.0]), np.array([5.0, 7.0])])
    assert (level.n, level.mean, level.quantiles[0], level.quantiles[-1]) == (2, 4.0, 2.0, 6.0)
    assert level.std == pytest.approx(np.sqrt(8))
    assert level.within_std == pytest.approx(np.sqrt(2))
    log = Level.of([np.array([0.0]), np.array([np.e - 1])], scale="log")
    assert log.mean == pytest.approx(0.5)
    assert log.quantiles[-1] == pytest.approx(np.e - 1)
    assert Level.of([np.array([4.0])]).bounds() == (4.0, 4.0)


def test_distances_are_about_one_on_the_same_and_large_on_other_features():
    rng = np.random.default_rng(0)
    mixing = rng.normal(0, 1, (40, 40))
    draw = [rng.normal(0, 1, (4, 40)) @ mixing + 5 for _ in range(60)]
    reference = FeatureReference.of(draw[:50])
    fresh = np.concatenate([reference.distances(clip) for clip in draw[50:]])
    assert 0.8 < np.median(fresh) < 1.25
    assert abs(reference.distance.quantiles[4] - np.median(fresh)) < 0.15, "measured on clips left out"
    assert reference.distances(draw[50] + 20).min() > 2 * fresh.max()
    with pytest.raises(InputMismatchError, match=r"expected \(N, 40\)"):
        reference.distances(np.zeros((1, 3)))


def test_constant_features_do_not_make_distances_infinite():
    reference = FeatureReference.of([np.ones((2, 5))] * 3)
    assert np.isfinite(reference.distances(np.ones((1, 5)))).all()


@pytest.mark.parametrize("name", ["cnn_gru", "conv3d_small"])
def test_statistics_survive_json(name):
    model = classifier(name)
    reference = reference_statistics(model, clips())
    again = ReferenceStatistics.from_dict(json.loads(json.dumps(reference.to_dict(), allow_nan=False)))
    assert again.n == 12
    for field in ("brightness", "sharpness", "confidence", "entropy", "logit_mean", "label_rates", "flip_rate"):
        assert getattr(again, field) == getattr(reference, field)
    assert sum(again.label_rates) == pytest.approx(1)
    assert 100 < again.brightness.mean < 120
    assert (again.features is None) == (name == "conv3d_small")
    if again.features is not None:
        features = pooled_features(model.features(clips(1))[0])
        assert again.features.distances(features) == pytest.approx(reference.features.distances(features), 1e-4)


def test_the_models_input_is_measured_in_its_own_units():
    reference = reference_statistics(classifier(), clips(4))
    x = clip_tensor([Clip(clip.pixels, clip.seconds) for clip in clips(4)], SPEC)
    assert reference.channel_mean == pytest.approx(x.mean(dim=(0, 1, 3, 4)).tolist(), abs=0.05)
    assert reference.channel_std == pytest.approx(x.std(dim=(0, 1, 3, 4)).tolist(), rel=0.05)


def test_given_features_are_used_and_give_the_same():
    model, given = classifier(), clips(5)
    answered = [(model.features([clip])[0], model.logits([clip])[0]) for clip in given]
    whole, reused = reference_statistics(model, given), reference_statistics(model, given, known=answered)
    assert reused.logit_mean == pytest.approx(whole.logit_mean, abs=1e-5)
    other = reference_statistics(model, given, known=[(f, -logits) for f, logits in answered])
    assert other.logit_mean == pytest.approx([-value for value in whole.logit_mean], abs=1e-5)


def test_statistics_of_no_clip_and_of_damaged_json():
    with pytest.raises(InputMismatchError, match="no clip"):
        reference_statistics(classifier(), [])
    model = classifier()
    assert find_reference(model) is None
    model.training_statistics = {"reference": {"n": 3}}
    with pytest.raises(ClassifierError, match="train it again"):
        find_reference(model)
