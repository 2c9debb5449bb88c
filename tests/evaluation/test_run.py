"""Evaluation: every clip once, windows averaged, labels checked, damage raised or counted."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from vidette.data.cache import ClipCache
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, MissingVideoError, SettingError, TruncatedVideoError
from vidette.evaluation import run
from vidette.evaluation.run import evaluate
from vidette.prediction.files import predict_file
from vidette.video.augmentation import view_crops
from vidette.video.clip import Clip, ClipSpec, SpanRange
from vidette.video.writer import write_video

SPEC = ClipSpec(num_frames=8, height=8, width=8, trained_spans=SpanRange(0.9, 1.0, 1.1))


class FakeCache:
    """Gives clips by the file's name; a value that is an error is raised."""

    def __init__(self, clips):
        self.clips = clips

    def load(self, clip, spec):
        found = self.clips[clip.path.name]
        if isinstance(found, Exception):
            raise found
        return found

    def groups(self, clips, spec):
        return [list(group) for _, group in itertools.groupby(clips, key=lambda clip: clip.path)]

    def load_together(self, clips, spec):
        return [self.clips[clip.path.name] for clip in clips]


@pytest.fixture
def given(ramp):
    """Twenty clips of ten groups, answered rightly by order, and their cache."""
    clips, pictures = [], {}
    for i in range(20):
        label = "rise" if i % 2 else "fall"
        clips.append(LabelledClip(Path(f"{label}/{i}.mp4"), label, group=f"g{i // 2}"))
        pictures[f"{i}.mp4"] = ramp(rising=bool(i % 2))
    return clips, FakeCache(pictures)


def test_every_clip_is_answered_once_and_in_order(fake_classifier, given):
    clips, cache = given
    progress = []
    found = evaluate(
        fake_classifier(SPEC), clips, cache=cache, batch_size=3, split_name="validation",
        on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert found.metrics.n == 20
    assert found.metrics.num_groups == 10
    assert found.metrics.accuracy == 1.0
    assert found.metrics.temperature == 0.5
    assert found.predictions.names == tuple(clip.name for clip in clips)
    assert found.clips == tuple(clips)
    assert found.split_name == "validation"
    assert progress[-1] == (20, 20)
    assert found.skipped == ()
    assert found.warnings == ()


def test_batch_size_changes_nothing_but_the_batches(fake_classifier, given):
    clips, cache = given
    whole = evaluate(fake_classifier(SPEC), clips, cache=cache, batch_size=20)
    single = evaluate(fake_classifier(SPEC), clips, cache=cache, batch_size=1)
    assert whole.predictions.logits == pytest.approx(single.predictions.logits)
    assert whole.consistency == single.consistency
    classifier = fake_classifier(SPEC)
    evaluate(classifier, clips, cache=cache, batch_size=6, consistency=False)
    assert classifier.batch_sizes == [6, 6, 6, 2]


def test_the_probe_shares_the_per_frame_work_with_the_answers(fake_classifier, given):
    clips, cache = given
    classifier = fake_classifier(SPEC)
    found = evaluate(classifier, clips, cache=cache)
    assert classifier.frames_seen == 20 * 8
    assert found.consistency.n == 20
    assert found.consistency.order_gap > 0.2
    assert evaluate(classifier, clips, cache=cache, consistency=False).consistency is None


def test_the_probe_of_many_clips_takes_some_and_says_how_many(fake_classifier, given, monkeypatch):
    clips, cache = given
    monkeypatch.setattr(run, "_PROBED_CLIPS", 6)
    found = evaluate(fake_classifier(SPEC), clips, cache=cache)
    assert found.metrics.n == 20
    assert found.metrics.accuracy == 1.0
    assert found.consistency.n == 6


def test_windows_of_a_clip_count_as_one_answer(fake_classifier, given, monkeypatch, ramp):
    clips, cache = given
    spec = ClipSpec(num_frames=8, height=8, width=8, sampling="window", fps=7.0)
    cache.clips["0.mp4#1"] = ramp(rising=True)
    parts = {clips[0].path: ["0.mp4", "0.mp4", "0.mp4#1"]}

    def expand(labelled, _):
        (clip,) = labelled
        names = parts.get(clip.path, [clip.path.name])
        return [LabelledClip(clip.path.with_name(n), clip.label, clip.group, part_of=clip.name) for n in names]

    monkeypatch.setattr(run, "expand_windows", expand)
    found = evaluate(fake_classifier(spec), clips, cache=cache)
    assert found.metrics.n == 20
    assert found.consistency.n == 20
    fall, rise = (fake_classifier(spec).logits([cache.clips[n]])[0] for n in ("0.mp4", "0.mp4#1"))
    assert found.predictions.logits[0] == pytest.approx((2 * fall + rise) / 3, abs=1e-5)


def test_a_clip_with_one_damaged_window_is_left_out_whole(fake_classifier, given, monkeypatch):
    clips, cache = given
    spec = ClipSpec(num_frames=8, height=8, width=8, sampling="window", fps=7.0)
    cache.clips["broken"] = TruncatedVideoError("fall/0.mp4", "breaks off")

    def expand(labelled, _):
        (clip,) = labelled
        names = [clip.path.name, "broken"] if clip is clips[0] else [clip.path.name]
        return [LabelledClip(clip.path.with_name(n), clip.label, clip.group, part_of=clip.name) for n in names]

    monkeypatch.setattr(run, "expand_windows", expand)
    found = evaluate(fake_classifier(spec), clips, cache=cache, on_damage="skip")
    assert found.clips == tuple(clips[1:])
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith(clips[0].name)


def test_labels_that_the_classifier_lacks_are_all_named_with_the_nearest(fake_classifier, given):
    clips, cache = given
    strange = [LabelledClip(Path("x.mp4"), "rises"), LabelledClip(Path("y.mp4"), "zoom")]
    with pytest.raises(InputMismatchError) as caught:
        evaluate(fake_classifier(SPEC), [*clips, *strange], cache=cache)
    assert "did you mean 'rise'" in str(caught.value)
    assert "'zoom'" in str(caught.value)


def test_no_clips_are_an_error(fake_classifier, given):
    with pytest.raises(InputMismatchError, match="no clip"):
        evaluate(fake_classifier(SPEC), [], cache=given[1])


def test_damage_is_raised_or_left_out_and_listed(fake_classifier, given):
    clips, cache = given
    cache.clips["7.mp4"] = TruncatedVideoError("rise/7.mp4", "breaks off")
    with pytest.raises(TruncatedVideoError):
        evaluate(fake_classifier(SPEC), clips, cache=cache)
    found = evaluate(fake_classifier(SPEC), clips, cache=cache, on_damage="skip")
    assert found.metrics.n == 19
    assert len(found.clips) == 19
    assert found.consistency.n == 19
    assert "7.mp4" in found.skipped[0]
    assert "1 clip was left out" in found.warnings[0]
    with pytest.raises(SettingError):
        evaluate(fake_classifier(SPEC), clips, cache=cache, on_damage="replace")


def test_nothing_but_damage_is_an_error(fake_classifier, given):
    clips, cache = given
    cache.clips = dict.fromkeys(cache.clips, TruncatedVideoError("a.mp4", "breaks off"))
    with pytest.raises(InputMismatchError, match="none of the 20 clips"):
        evaluate(fake_classifier(SPEC), clips, cache=cache, on_damage="skip")


def test_warns_of_what_makes_the_score_doubtful(fake_classifier, given, ramp):
    clips, cache = given
    cache.clips["0.mp4"] = ramp(rising=False, seconds=3.0)
    cache.clips["2.mp4"] = Clip(cache.clips["2.mp4"].pixels, np.linspace(0, 1, 8), repeated=3, lost_frames=5)
    falling = [LabelledClip(clip.path, clip.label) for clip in clips if clip.label == "fall"]
    text = " ".join(evaluate(fake_classifier(SPEC), falling, cache=cache).warnings)
    assert "No groups are known" in text
    assert "1 of 2 classes have no clip here: rise" in text
    assert "1 of 10 clips last longer or shorter" in text
    assert "1 of 10 clips are shorter than the classifier's span" in text
    assert "1 clips lost frames: fall/2.mp4 (5 frames)" in text
    few = [LabelledClip(clip.path, clip.label, group=f"g{i % 3}") for i, clip in enumerate(clips)]
    assert "3 groups only" in " ".join(evaluate(fake_classifier(SPEC), few, cache=cache).warnings)


def test_to_dict_is_json_with_the_same_numbers(fake_classifier, given):
    clips, cache = given
    found = evaluate(fake_classifier(SPEC), clips, cache=cache)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["split"] == "test"
    assert plain["metrics"]["accuracy"] == found.metrics.accuracy
    assert plain["consistency"]["order_gap"] == found.consistency.order_gap


def test_real_files_get_the_answer_that_prediction_gives_them(fake_classifier, tmp_path):
    levels = np.concatenate([np.linspace(200, 60, 40), np.linspace(60, 240, 33)])
    path = write_video(tmp_path / "a.mp4", (np.full((32, 32, 3), level, np.uint8) for level in levels), fps=12)
    labelled = [LabelledClip(path, "rise")]
    window = ClipSpec(num_frames=8, height=16, width=16, sampling="window", fps=12.0)
    for spec in (window, ClipSpec(num_frames=8, height=16, width=16)):
        classifier = fake_classifier(spec)
        found = evaluate(classifier, labelled, cache=ClipCache(tmp_path / "cache"))
        predicted = predict_file(classifier, path)
        assert (predicted.aggregation == "mean_windows") == (spec is window)
        expected = classifier.probabilities(found.predictions.logits)[0]
        assert predicted.probabilities == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sampling", [{}, {"sampling": "window", "fps": 7.0}])
def test_a_file_that_is_gone_is_skipped_when_told(fake_classifier, tmp_path, sampling):
    path = write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 30, fps=12)
    clips = [LabelledClip(path, "rise"), LabelledClip(tmp_path / "gone.mp4", "fall")]
    classifier = fake_classifier(ClipSpec(num_frames=8, height=16, width=16, **sampling))
    cache = ClipCache(tmp_path / "cache")
    with pytest.raises(MissingVideoError):
        evaluate(classifier, clips, cache=cache)
    found = evaluate(classifier, clips, cache=cache, on_damage="skip")
    assert found.metrics.n == 1
    assert "gone.mp4" in found.skipped[0]


def test_the_answers_to_several_views_are_averaged(fake_classifier, given):
    clips, cache = given
    rng = np.random.default_rng(3)
    for name, clip in cache.clips.items():
        noisy = rng.integers(0, 60, clip.pixels.shape, dtype=np.uint8) + clip.pixels // 2
        cache.clips[name] = Clip(noisy, clip.seconds)
    one = evaluate(fake_classifier(SPEC), clips, cache=cache)
    three = evaluate(fake_classifier(SPEC), clips, cache=cache, views=3, batch_size=7)
    again = evaluate(fake_classifier(SPEC), clips, cache=cache, views=3, batch_size=20, consistency=False)
    assert (one.views, three.views, three.to_dict()["views"]) == (1, 3, 3)
    assert three.predictions.logits == pytest.approx(again.predictions.logits, abs=1e-4)
    for row, clip in enumerate(three.clips):
        whole = cache.clips[clip.path.name]
        crops = [Clip(pixels, whole.seconds) for pixels in view_crops(whole.pixels, 3)]
        expected = fake_classifier(SPEC).logits(crops).mean(axis=0)
        assert three.predictions.logits[row] == pytest.approx(expected, abs=1e-4)
    assert abs(three.predictions.logits - one.predictions.logits).max() > 1e-3
    assert three.consistency == one.consistency  # single frames and shuffled frames are of one view
    with pytest.raises(SettingError, match="number of views is 7"):
        evaluate(fake_classifier(SPEC), clips, cache=cache, views=7)
    with pytest.raises(SettingError, match="number of views is 0"):
        evaluate(fake_classifier(SPEC), clips, cache=cache, views=0)
