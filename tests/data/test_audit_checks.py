"""The parts of an audit, on looks and numbers made up so that the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidette.data.audit_checks import (
    Known,
    check_classes,
    check_duplicates,
    check_given_groups,
    check_leak,
    check_pictures,
    check_shortcuts,
    merged_groups,
)
from vidette.data.audit_findings import count_text, share_interval
from vidette.data.audit_labels import mislabel_candidates
from vidette.data.audit_looks import ClipLook
from vidette.data.audit_scenes import Scenes, find_scenes, gather, scene_similarity
from vidette.data.audit_shortcuts import held_out_probabilities, measure_auc, measure_shortcuts, picture_model
from vidette.data.manifest import LabelledClip
from vidette.video.reader import VideoInfo


def make_look(scene=0, *, noise=0.0, seed=0, brightness=120.0, brightest=200.0, change=30.0, gain=1.0):
    """A look whose place is decided by ``scene``, with ``noise`` (0 to 1) of another clip's own on top."""
    rng, own = np.random.default_rng(1000 + scene), np.random.default_rng(seed)
    mix = (1 - noise) * rng.normal(size=(152, 14, 14)) + noise * own.normal(size=(152, 14, 14))
    places = mix / np.linalg.norm(mix, axis=0)
    picture = np.clip(rng.integers(30, 220, (56, 56, 3)).repeat(4, 0).repeat(4, 1) * gain, 0, 255)
    features = rng.normal(size=1280).astype(np.float32)
    return ClipLook(
        background=picture.astype(np.uint8),
        places=places.astype(np.float16),
        background_features=features,
        clip_features=np.concatenate([features, own.normal(size=1280).astype(np.float32)]),
        strip=own.integers(0, 255, (4, 28, 28, 3)).astype(np.uint8),
        brightness=brightness,
        brightest=brightest,
        change=change,
    )


def make_info(path="a.mp4", *, width=320, seconds=2.0, codec="h264", bit_rate=500_000):
    return VideoInfo(Path(path), "mp4", codec, "yuv420p", width, 240, 25.0, seconds, 50, bit_rate, 0, False)


def make_known(labels, scene_of, *, looks=None, infos=None, sides=None, groups=None):
    clips = tuple(
        LabelledClip(Path(f"{i}.mp4"), label, None if groups is None else groups[i])
        for i, label in enumerate(labels)
    )
    n = len(labels)
    scenes = Scenes(np.array(scene_of), np.eye(n, dtype=np.float32))
    return Known(
        clips,
        tuple(infos or [make_info()] * n),
        tuple(looks or [make_look(scene, seed=i) for i, scene in enumerate(scene_of)]),
        scenes,
        merged_groups(clips, scenes),
        None if sides is None else np.array(sides),
        "made-up",
    )


def test_scenes_survive_people_and_light():
    looks = [
        make_look(scene, noise=0.4, seed=i, gain=gain)
        for i, (scene, gain) in enumerate([(0, 1.0), (1, 1.0), (0, 0.5), (1, 0.6), (2, 1.0)])
    ]
    assert find_scenes(looks).scene_of.tolist() == [0, 1, 0, 1, 2]


def test_plain_pictures_are_not_alike_by_structure():
    """Descriptors that are the same all over match any other plain picture, so they do not count."""
    direction = np.ones((152, 14, 14)) / np.sqrt(152)

    def plain(level):
        look = make_look()
        picture = np.full((224, 224, 3), level, np.uint8)
        return ClipLook(**{**vars(look), "places": direction.astype(np.float16), "background": picture})

    similarity = scene_similarity([plain(60), plain(150), plain(62)])
    assert similarity[0, 1] < 0.0 + 1e-3
    assert similarity[0, 2] > 0.2


def test_one_chance_likeness_does_not_chain_scenes():
    similarity = np.eye(6, dtype=np.float32)
    similarity[:3, :3] = similarity[3:, 3:] = 0.9
    similarity[2, 3] = similarity[3, 2] = 0.5
    assert gather(similarity).scene_of.tolist() == [0, 0, 0, 1, 1, 1]


def test_no_clips_and_one_clip_have_no_pairs():
    assert find_scenes([]).num_scenes == 0
    assert find_scenes([make_look()]).scene_of.tolist() == [0]


def test_near_twins_are_found_with_their_labels_and_sides():
    first = make_look(0, seed=1)
    noise = np.random.default_rng(0).integers(-2, 3, first.strip.shape)
    strip = np.clip(first.strip.astype(int) + noise, 0, 255).astype(np.uint8)
    twin = ClipLook(**{**vars(first), "strip": strip})
    looks = [first, twin, make_look(0, seed=2)]
    known = make_known(["a", "b", "a"], [0, 0, 0], looks=looks, sides=["train", "test", "train"])
    (finding,) = check_duplicates(known)
    assert finding.severity == "alarm"
    assert finding.examples[0].clips == (0, 1)
    assert len(finding.examples) == 1
    assert "1 of 1 pairs have different labels" in finding.evidence


def test_leak_counts_test_clips_only():
    sides = ["train", "train", "validation", "test", "test", "test"]
    clean = make_known(list("ababab"), [0, 1, 2, 3, 4, 5], sides=sides)
    assert check_leak(clean) == []
    (finding,) = check_leak(make_known(list("ababab"), [0, 1, 2, 0, 2, 5], sides=sides))
    assert finding.evidence[0].startswith("2 of 3 test clips (67%")
    assert finding.title.startswith("Most test clips")
    (finding,) = check_leak(make_known(list("ababab"), [0, 1, 0, 3, 4, 5], sides=sides))
    assert finding.severity == "warning"
    assert finding.title.startswith("Validation clips")


def test_groups_gather_scenes_given_groups_and_files():
    clips = [
        LabelledClip(Path("a.mp4"), "x", None, 0, 1),
        LabelledClip(Path("a.mp4"), "x", None, 1, 2),
        LabelledClip(Path("b.mp4"), "x", "g"),
        LabelledClip(Path("c.mp4"), "x", "g"),
        LabelledClip(Path("d.mp4"), "x"),
    ]
    numbers = merged_groups(clips, Scenes(np.array([0, 1, 1, 2, 3]), np.eye(5)))
    assert len(set(numbers[:4].tolist())) == 1
    assert numbers[4] != numbers[0]


def test_scenes_across_given_groups_are_named():
    (finding,) = check_given_groups(make_known(list("abab"), [0, 0, 1, 2], groups=["g", "h", "g", "h"]))
    assert finding.examples[0].clips == (0, 1)
    assert check_given_groups(make_known(list("abab"), [0, 0, 1, 1], groups=["g", "g", "h", "h"])) == []
    assert check_given_groups(make_known(list("abab"), [0, 0, 1, 1])) == []


def planted(n=60, *, leak):
    labels = np.array(["a", "b"] * (n // 2))
    rng = np.random.default_rng(3)
    rates = [int(rng.normal(500, 50) + (400 if leak and label == "b" else 0)) * 1000 for label in labels]
    clips = [LabelledClip(Path(f"{i}.mp4"), str(label)) for i, label in enumerate(labels)]
    infos = [make_info(bit_rate=rate) for rate in rates]
    looks = [make_look(i, seed=i) for i in range(n)]
    return measure_shortcuts(clips, infos, looks, np.arange(n), np.arange(n) // 2)


def test_a_planted_shortcut_is_found_and_chance_is_not():
    shortcuts = {s.name: s for s in planted(leak=True)}
    assert shortcuts["bit rate"].auc > 0.95
    assert shortcuts["bit rate"].low > 0.85
    assert shortcuts["codec"].auc == 0.5
    (finding,) = check_shortcuts(list(shortcuts.values()))
    assert finding.name == "shortcut_files"
    assert finding.severity == "alarm"
    assert check_shortcuts(planted(leak=False)) == []


def test_a_shortcut_of_one_group_a_class_is_undefined_with_a_reason():
    clips = [LabelledClip(Path(f"{i}.mp4"), "ab"[i // 4]) for i in range(8)]
    infos = [make_info(bit_rate=1000 * i) for i in range(1, 9)]
    looks = [make_look(i, seed=i) for i in range(8)]
    found = measure_shortcuts(clips, infos, looks, np.arange(8), np.arange(8) // 4)
    rate = next(s for s in found if s.name == "bit rate")
    assert np.isnan(rate.auc)
    assert "one group only" in rate.text()


def test_held_out_answers_never_saw_the_group():
    """Features that name the group alone predict nothing once groups are held out."""
    groups = np.repeat(np.arange(12), 5)
    labels = np.array(["a", "b"])[groups % 2]
    values = np.random.default_rng(0).normal(size=(12, 40))[groups]
    probabilities = held_out_probabilities(values, labels, groups, picture_model(), seed=0)
    assert probabilities is not None
    auc, low, _ = measure_auc(probabilities, labels, groups, seed=0)
    assert low < 0.5
    assert auc < 0.9


@pytest.mark.parametrize("num_classes", [2, 3])
def test_auc_equals_scikit_learn(num_classes):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(num_classes)
    labels = np.array(list("abc"))[rng.integers(0, num_classes, 80)]
    probabilities = rng.dirichlet(np.ones(num_classes), 80).round(1)
    mine, low, high = measure_auc(probabilities, labels, np.arange(80), seed=0)
    classes = np.unique(labels)
    columns = [1] if num_classes == 2 else range(num_classes)
    expected = np.mean([roc_auc_score(labels == classes[k], probabilities[:, k]) for k in columns])
    assert mine == pytest.approx(expected)
    assert low < mine < high


def test_swapped_labels_are_the_candidates():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)
    probability = np.clip(0.5 + 0.35 * (2 * truth - 1) + rng.normal(0, 0.08, 100), 0.01, 0.99)
    labels = np.array(["a", "b"])[truth]
    labels[[3, 70]] = ["b", "a"]
    found = mislabel_candidates(np.stack([1 - probability, probability], axis=1), labels)
    assert {c.clip for c in found} == {3, 70}
    assert all(c.probability > c.label_probability for c in found)


def test_black_frozen_and_short_clips_are_listed():
    looks = [make_look(i, seed=i) for i in range(6)]
    looks[1] = make_look(1, brightest=10.0, change=0.0)
    looks[2] = make_look(2, change=0.5)
    infos = [make_info()] * 5 + [make_info(seconds=0.4)]
    known = make_known(list("ababab"), range(6), looks=looks, infos=infos)
    found = {finding.name: finding for finding in check_pictures(known, span_seconds=None)}
    assert found["black_clips"].examples[0].clips == (1,)
    assert found["frozen_clips"].examples[0].clips == (2,)
    assert [example.clips for example in found["short_clips"].examples] == [(5,)]
    assert {f.name for f in check_pictures(known, span_seconds=0.3)} == {"black_clips", "frozen_clips"}


def test_rare_classes_and_few_groups_are_found():
    known = make_known(["a"] * 12 + ["b"] * 2, [*range(12), 12, 12])
    found = {finding.name: finding for finding in check_classes(known)}
    assert "6.0 times" in found["imbalance"].title
    assert found["few_groups"].severity == "alarm"
    assert found["few_groups"].evidence == ("b: 1 groups for 2 clips",)
    assert check_classes(make_known(list("ab") * 6, range(12))) == []


def test_shares_have_wilson_intervals():
    low, high = share_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.2775, abs=1e-3)
    assert np.isnan(share_interval(0, 0)).all()
    assert count_text(1, 4, "clips").startswith("1 of 4 clips (25%")
