"""The probe tells a classifier that uses order from one that looks at single frames."""

import json

import numpy as np
import pytest

from vidette.evaluation.consistency import probe, probe_batch
from vidette.video.clip import Clip, ClipSpec

SPEC = ClipSpec(num_frames=8, height=8, width=8)
LABELS = [i % 2 for i in range(40)]


@pytest.fixture
def ramps(ramp):
    return lambda num_frames=8: [ramp(num_frames, rising=bool(label)) for label in LABELS]


def stills():
    levels = (np.array(LABELS) * 200 + 20).astype(np.uint8)
    return [Clip(np.full((8, 8, 8, 3), level, np.uint8), np.linspace(0, 1, 8)) for level in levels]


def test_a_classifier_that_uses_order_loses_when_frames_are_shuffled(fake_classifier, ramps):
    found = probe(fake_classifier(SPEC), ramps(), LABELS)
    assert found.n == 40
    assert found.clip_accuracy == 1.0
    assert found.order_gap == pytest.approx(1.0 - found.shuffled_accuracy)
    assert found.order_gap > 0.25
    assert found.order_gap_interval.low > 0.1
    assert found.frame_gap == pytest.approx(0.5)
    assert found.frame_gap_interval.low > 0.2
    assert found.frame_accuracy == pytest.approx(0.5)
    assert found.frame_vote_accuracy == pytest.approx(0.5)
    order, frames = found.reading()
    assert "the classifier uses the order of events" in order
    assert "needs several frames" in frames


def test_a_classifier_that_looks_at_frames_loses_nothing(fake_classifier):
    found = probe(fake_classifier(SPEC, looks_at="mean"), stills(), LABELS)
    assert (
        found.clip_accuracy == found.shuffled_accuracy == found.frame_accuracy == found.frame_vote_accuracy == 1
    )
    assert found.order_gap == 0
    assert found.frame_agreement == 1
    order, frames = found.reading()
    assert "does not use the order" in order
    assert "gains nothing from seeing several frames" in frames


def test_the_per_frame_part_is_computed_once(fake_classifier, ramps):
    classifier = fake_classifier(SPEC)
    probe(classifier, ramps(), LABELS, num_shuffles=5, frames_per_clip=8)
    assert classifier.frames_seen == 40 * 8


def test_a_single_frames_answer_is_that_of_a_clip_of_that_frame_alone(fake_classifier, ramp):
    clip = ramp(rising=True)
    answers = probe_batch(fake_classifier(SPEC, looks_at="mean"), [clip], clip_numbers=[0], frames_per_clip=3)
    for row, frame in enumerate((0, 4, 7)):  # equally spaced, both ends
        still = Clip(clip.pixels[[frame] * 8], clip.seconds)
        expected = fake_classifier(SPEC, looks_at="mean").logits([still])[0]
        assert answers.frame_logits[0, row] == pytest.approx(expected, abs=1e-6)


def test_shuffled_clips_hold_the_same_frames_in_another_order(fake_classifier, ramp):
    class Recorder(fake_classifier):
        def logits_of_features(self, features):
            seen.append(features.numpy().copy())
            return super().logits_of_features(features)

    seen: list[np.ndarray] = []
    probe_batch(Recorder(SPEC), [ramp(rising=True)] * 2, clip_numbers=[0, 1], num_shuffles=3, frames_per_clip=1)
    clip, *shuffled = (seen[0], *seen[2:])
    assert len(shuffled) == 3
    for orders in shuffled:
        assert np.sort(orders, axis=1) == pytest.approx(np.sort(clip, axis=1))
        assert not np.array_equal(orders[0], clip[0])
        assert not np.array_equal(orders[0], orders[1])  # each clip has its own


def test_orders_depend_on_the_seed_and_clip_and_not_on_its_batch_mates(fake_classifier, ramp):
    clips = [ramp(rising=True, noise=40, seed=i) for i in range(6)]
    together = probe_batch(fake_classifier(SPEC), clips, clip_numbers=range(6))
    alone = probe_batch(fake_classifier(SPEC), clips[4:5], clip_numbers=[4])
    other = probe_batch(fake_classifier(SPEC), clips, clip_numbers=range(6), seed=1)
    assert together.shuffled_logits[4] == pytest.approx(alone.shuffled_logits[0])
    assert not np.allclose(together.shuffled_logits, other.shuffled_logits)


def test_two_frames_are_always_swapped(fake_classifier, ramps):
    spec = ClipSpec(num_frames=2, height=8, width=8)
    found = probe(fake_classifier(spec), ramps(2), LABELS)
    assert found.shuffled_accuracy == 0
    assert found.order_gap == 1


def test_one_frame_has_no_order_and_says_so(fake_classifier):
    spec = ClipSpec(num_frames=1, height=8, width=8)
    clips = [Clip(clip.pixels[:1], clip.seconds[:1]) for clip in stills()]
    found = probe(fake_classifier(spec, looks_at="mean"), clips, LABELS)
    assert np.isnan(found.order_gap)
    assert "one frame" in found.undefined["order_gap"]
    assert "undefined" in found.reading()[0]
    assert found.frame_accuracy == 1


def test_no_clips_are_undefined(fake_classifier):
    found = probe(fake_classifier(SPEC), [], [])
    assert found.n == 0
    assert np.isnan(found.clip_accuracy)
    assert set(found.undefined) >= {"clip_accuracy", "order_gap", "frame_vote_accuracy"}
    assert found.to_dict()["clip_accuracy"] is None
    assert "No clip" in found.reading()[0]


def test_few_groups_cannot_tell(fake_classifier, ramps):
    found = probe(fake_classifier(SPEC), ramps(), LABELS, groups=["one"] * 40)
    assert not found.order_gap_interval.defined
    assert found.undefined["order_gap_interval"]
    assert found.undefined["frame_gap_interval"]
    assert all("too few clips to tell" in sentence for sentence in found.reading())


def test_a_handful_of_clips_cannot_tell(fake_classifier, ramps):
    labels = [*LABELS[:6], *(1 - label for label in LABELS[6:12])]  # half of the answers are wrong
    found = probe(fake_classifier(SPEC), ramps()[:12], labels)
    assert all("too few clips to tell" in sentence for sentence in found.reading())


def test_to_dict_is_json(fake_classifier, ramps):
    plain = json.loads(json.dumps(probe(fake_classifier(SPEC), ramps(), LABELS).to_dict(), allow_nan=False))
    assert plain["n"] == 40
    assert plain["order_gap"] == pytest.approx(plain["clip_accuracy"] - plain["shuffled_accuracy"])
