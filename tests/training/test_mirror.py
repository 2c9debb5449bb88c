"""Whether mirrored clips are another class: seen in how the clips move, whatever the classes are called."""

import numpy as np
import pytest

from vidette.data.cache import ClipCache
from vidette.data.manifest import LabelledClip
from vidette.training.mirror import find_swapped, flip_warnings, movement
from vidette.video.clip import ClipSpec
from vidette.video.motion import CLASSES, draw_clip
from vidette.video.writer import write_video

SWAPPED = {("left", "right"), ("clockwise", "counterclockwise")}


@pytest.fixture(scope="module")
def drawn():
    """Features of 12 scenes of 8 classes, as drawn and mirrored."""
    own, mirrored, labels, groups = [], [], [], []
    for scene in range(12):
        for label in CLASSES:
            clip = draw_clip(scene, label, size=(64, 64))
            frames = clip.frames[np.linspace(0, len(clip.frames) - 1, 12).round().astype(int)]
            own.append(movement(frames))
            mirrored.append(movement(frames[:, :, ::-1]))
            labels.append(label)
            groups.append(clip.group)
    return np.array(own), np.array(mirrored), labels, groups


def test_the_classes_that_mirroring_swaps_are_found_and_no_other(drawn):
    found = find_swapped(*drawn)
    assert {(pair.first, pair.second) for pair in found} == SWAPPED
    for pair in found:
        assert pair.n == 24
        assert pair.mirrored_right < 0.2 < 0.8 < pair.right


def test_labels_without_meaning_and_too_few_clips_find_nothing(drawn):
    own, mirrored, labels, groups = drawn
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(labels).tolist()
        assert find_swapped(own, mirrored, shuffled, groups) == ()
    few = [i for i, group in enumerate(groups) if group in set(groups[:48])]
    assert len(few) == 48
    assert find_swapped(own[few], mirrored[few], [labels[i] for i in few], [groups[i] for i in few]) == ()
    assert find_swapped(own, mirrored, labels, ["one"] * len(labels)) == ()


def test_mirroring_turns_the_sideways_displacement_round():
    square = np.zeros((6, 64, 64, 3), np.uint8)
    square += (np.arange(64) % 16 * 12).astype(np.uint8)[None, None, :, None]
    moving = np.stack([np.roll(frame, 2 * i, axis=1) for i, frame in enumerate(square)])
    sideways = movement(moving)[:16]  # the first third of the clip
    assert np.median(sideways) > 0.3
    assert np.median(movement(moving[:, :, ::-1])[:16]) == pytest.approx(-np.median(sideways), rel=0.05)
    assert np.isfinite(movement(moving[:1])).all()


def test_a_single_frame_and_a_black_clip_have_features():
    assert np.isfinite(movement(np.zeros((4, 20, 30, 3), np.uint8))).all()
    assert movement(np.zeros((1, 20, 30, 3), np.uint8)).shape == (16,)


def test_the_warning_names_classes_and_numbers(tmp_path):
    clips, names = [], {"left": "pass", "right": "return", "up": "lift"}
    for scene in range(9):
        for label, name in names.items():
            clip = draw_clip(scene, label, size=(32, 32))
            path = tmp_path / f"{name}{scene}.mp4"
            write_video(path, clip.frames, fps=clip.fps)
            clips.append(LabelledClip(path, name, group=clip.group))
    spec = ClipSpec(num_frames=8, height=32, width=32)
    (line,) = flip_warnings(clips, tuple(names.values()), spec, ClipCache())
    assert "pass and return (told apart in " in line
    assert "of 18 clips, mirrored in " in line
    assert "lift" not in line
    assert "--no-flip" in line
    upright = [clip for clip in clips if clip.label != "return"]
    assert flip_warnings(upright, ("pass", "lift"), spec, ClipCache()) == ()
