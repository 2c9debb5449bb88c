"""Frames, windows and the whole of drawn videos, with classifiers whose every answer is known."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from vidette.classifier.classifier import Classifier
from vidette.diagnosis.explained_clips import clips_to_explain, middle_clip
from vidette.diagnosis.frames_against_clips import compare_frames_and_clips, spread_seconds
from vidette.errors import SettingError, VideoError
from vidette.models.base import FrameModel, Head
from vidette.prediction.files import predict_file
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.reader import open_video
from vidette.video.writer import write_video

FPS, SIDE = 10.0, 16
ORDER, CHANGE, PEAK, MEAN = "order", "change", "peak", "mean"


class Known(Head):
    """Class "yes" by the frames' brightness: its rise, how it varies, its highest, or its mean."""

    needs_whole_clip = None

    def __init__(self, looks_at):
        super().__init__()
        self.looks_at = looks_at

    def forward(self, features):
        bright = features.mean(dim=(2, 3, 4))
        steps = torch.arange(bright.shape[1]) - (bright.shape[1] - 1) / 2
        score = {
            ORDER: lambda: (bright * steps).sum(1) - 0.5,
            CHANGE: lambda: 20 * bright.var(1, correction=0) - 0.5,
            PEAK: lambda: 3 * (bright.amax(1) - 0.5),
            MEAN: lambda: 2 * (bright.mean(1) - 0.5),
        }[self.looks_at]()
        return torch.stack([-4 * score, 4 * score], dim=1)


def classifier_of(looks_at, **spec):
    plain = {"num_frames": 8, "height": SIDE, "width": SIDE, "mean": (0, 0, 0), "std": (1, 1, 1), **spec}
    model = FrameModel(nn.Identity(), Known(looks_at))
    return Classifier(model, "known", {}, ClipSpec(**plain), ("no", "yes"), temperature=2.0)


def video(path, levels):
    frames = (np.full((SIDE, SIDE, 3), round(255 * level), np.uint8) for level in levels)
    return write_video(path, frames, fps=FPS)


def test_single_frames_of_a_classifier_that_crops_by_motion_come_at_its_size(tmp_path):
    path = video(tmp_path / "a.mp4", np.linspace(0.1, 0.9, 20))
    found = compare_frames_and_clips(classifier_of(MEAN, resize="motion"), path)
    assert found.thumbnails.shape[1:] == (SIDE, SIDE, 3)
    assert len(found.frame_probabilities) == len(found.thumbnails) == 20


def test_a_moving_answer_parts_from_its_frames_because_of_order(tmp_path):
    path = video(tmp_path / "a.mp4", np.linspace(0.1, 0.9, 20))
    found = compare_frames_and_clips(classifier_of(ORDER), path)
    assert found.whole.label == "yes"
    assert set(found.frame_labels) == {"no"}
    assert (found.frame_agreement, found.frame_flicker, found.num_frames) == (0.0, 0.0, 20)
    assert found.parted() == ((0.0, pytest.approx(2.0, abs=0.02)),)
    (trial,) = found.trials
    assert trial.in_order == pytest.approx(found.whole.probability, abs=1e-6)
    assert trial.shuffled < trial.in_order - 0.15
    text = " ".join(found.reading())
    assert "0 of 20 single frames" in text
    assert "in its order" in text
    assert "whichever frame stands still, the answer is 'no'" in text


def test_change_in_any_order_is_told_from_order_and_from_single_frames(tmp_path):
    path = video(tmp_path / "a.mp4", [0.1, 0.9] * 8)
    text = " ".join(compare_frames_and_clips(classifier_of(CHANGE), path).reading())
    assert "in whichever order" in text
    path = video(tmp_path / "b.mp4", [0.1] * 9 + [0.95] + [0.1] * 6)
    found = compare_frames_and_clips(classifier_of(PEAK, num_frames=16), path)
    assert found.whole.label == "yes"
    assert found.frame_agreement == pytest.approx(1 / 16)
    assert "a few frames decide, above all the one at 0.90 s" in " ".join(found.reading())


def test_frames_that_suffice_are_said_to(tmp_path):
    path = video(tmp_path / "a.mp4", [0.8] * 12)
    found = compare_frames_and_clips(classifier_of(MEAN), path)
    assert found.frame_agreement == 1.0
    assert found.parted() == ()
    assert "Single frames are enough" in found.reading()[1]
    assert not any("Flicker" in line for line in found.reading())


def test_where_frames_and_windows_part_and_how_often_they_flicker(tmp_path):
    """Dark with one light second: windows of 0.8 s follow; every other frame of the end is light."""
    levels = [0.1] * 20 + [0.9] * 20 + [0.1] * 10 + [0.1, 0.9] * 5
    path = video(tmp_path / "a.mp4", levels)
    found = compare_frames_and_clips(classifier_of(MEAN, num_frames=8, sampling="window", fps=FPS), path)
    assert found.frame_labels == tuple("yes" if level > 0.5 else "no" for level in levels)
    changes = sum(one != other for one, other in itertools.pairwise(levels))
    assert found.frame_flicker == pytest.approx(changes / 59)
    assert 0 < found.window_flicker < found.frame_flicker * 2
    assert all(start >= 1.5 for start, _ in found.parted())
    assert found.parted()[-1][1] == pytest.approx(6.0, abs=0.11)
    assert 0 < found.window_agreement < 1
    text = " ".join(found.reading())
    assert "Flicker: single frames change their answer" in text
    assert "read the windows" in text
    windows = found.whole.timeline.windows
    for trial in found.trials:  # the trial is the window itself
        same = next(w for w in windows if w.start_seconds == pytest.approx(trial.start_seconds))
        assert trial.in_order == pytest.approx(same.probabilities.max(), abs=1e-6)


def test_a_frames_answer_is_the_clip_of_it_alone(tmp_path):
    path = video(tmp_path / "a.mp4", np.linspace(0.2, 0.8, 11))
    classifier = classifier_of(MEAN)
    found = compare_frames_and_clips(classifier, path, most_frames=5)
    with open_video(path) as opened:
        every = opened.frame_seconds()
    assert found.frame_seconds == pytest.approx(every[[0, 2, 5, 8, 10]])
    still = video(tmp_path / "b.mp4", [0.5] * 9)
    assert found.frame_probabilities[2] == pytest.approx(
        predict_file(classifier, still).probabilities, abs=0.02
    )
    assert spread_seconds(every, 99).tolist() == every.tolist()


def test_a_classifier_of_single_frames_has_no_clips_to_try(tmp_path):
    path = video(tmp_path / "a.mp4", [0.9] * 12)
    classifier = classifier_of(MEAN, num_frames=1)
    found = compare_frames_and_clips(classifier, path)
    assert found.trials == ()
    assert "a window is a frame" in found.reading()[1]
    clips = clips_to_explain(classifier, found.whole, label="yes")
    assert len(clips) == 12
    assert all(clip.pixels.shape[0] == 1 for clip in clips)


def test_picture_and_plain_values(tmp_path):
    path = video(tmp_path / "a.mp4", [0.1] * 5 + [0.9] * 5)
    found = compare_frames_and_clips(classifier_of(ORDER), path)
    picture = found.picture()
    assert picture.image.startswith(b"\x89PNG")
    assert picture.caption == found.headline()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["window_flicker"] is None
    assert len(plain["frames"]) == 10
    assert plain["trials"][0]["label"] == found.whole.label


def test_the_windows_that_say_most_are_explained_and_do_not_overlap(tmp_path):
    path = video(tmp_path / "a.mp4", [0.1] * 20 + [0.9] * 20 + [0.1] * 20)
    spans = SpanRange(0.6, 0.7, 0.8)
    classifier = classifier_of(MEAN, trained_spans=spans)
    whole = predict_file(classifier, path)
    assert whole.aggregation == "mean_windows"
    clips = clips_to_explain(classifier, whole, label="yes")
    assert 1 < len(clips) <= 4
    assert all(a.seconds[-1] < b.seconds[0] for a, b in itertools.pairwise(clips))
    brightest = max(clip.pixels.mean() for clip in clips)
    assert brightest == pytest.approx(0.9 * 255, abs=4)
    short = video(tmp_path / "b.mp4", [0.3] * 8)
    (clip,) = clips_to_explain(classifier, predict_file(classifier, short), label="no")
    assert clip.seconds[-1] == pytest.approx(0.7)
    assert middle_clip(classifier, short).seconds == pytest.approx(clip.seconds)
    windowed = classifier_of(MEAN, sampling="window", fps=FPS)
    assert middle_clip(windowed, path).seconds[0] == pytest.approx((5.9 - 0.7) / 2, abs=0.11)


def test_bad_input_is_refused(tmp_path):
    classifier = classifier_of(MEAN)
    with pytest.raises(VideoError, match=r"absent\.mp4"):
        compare_frames_and_clips(classifier, tmp_path / "absent.mp4")
    path = video(tmp_path / "a.mp4", [0.5] * 4)
    with pytest.raises(SettingError, match="most_frames is 0"):
        compare_frames_and_clips(classifier, path, most_frames=0)
    with pytest.raises(SettingError, match="unknown class 'yess'; did you mean 'yes'"):
        clips_to_explain(classifier, predict_file(classifier, path), label="yess")
