"""Measures along time, on events and answers whose score is known by hand."""

import math

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.metrics import average_precision_score

from vidette.errors import InputMismatchError, SettingError
from vidette.evaluation.online import (
    event_scores,
    per_frame_average_precision,
    poisson_interval,
    pooled,
)
from vidette.prediction.decision import Event


def events(*spans):
    return [Event(start, stop, label, 1.0) for start, stop, label in spans]


TRUTH = events((2, 4, "a"), (6, 8, "b"), (10, 12, "a"))


def test_the_truth_itself_is_perfect():
    scores = event_scores(TRUTH, TRUTH, total_seconds=60, told_seconds=[2, 6, 10])
    assert (scores.precision, scores.recall, scores.f1) == (1, 1, 1)
    assert scores.false_alarms_per_hour == 0
    assert scores.mean_seconds_to_detect == 0
    assert scores.flips_per_minute == 6
    assert scores.undefined == {}


def test_each_event_is_counted_by_what_it_is():
    told = events(
        (2.5, 4.5, "a"),  # IoU 1.5 / 2.5: matches
        (6, 6.5, "b"),  # IoU 0.25: no match, but no false alarm
        (9, 9.5, "b"),  # nothing goes on: false alarm
        (10, 12, "b"),  # another label: false alarm
    )
    scores = event_scores(told, TRUTH, total_seconds=1800, told_seconds=[3.0, 6.4, 9.5, 11])
    assert (scores.num_true, scores.num_predicted, scores.num_matched) == (3, 4, 1)
    assert scores.precision == 1 / 4
    assert scores.recall == 1 / 3
    assert scores.f1 == pytest.approx(2 / 7)
    assert scores.num_false_alarms == 2
    assert scores.false_alarms_per_hour == 4
    assert scores.num_detected == 2
    assert scores.mean_seconds_to_detect == pytest.approx((1.0 + 0.4) / 2)
    assert scores.num_flips == 8


def test_the_overlap_decides_what_matches():
    told = events((2, 3, "a"))
    assert event_scores(told, TRUTH, total_seconds=20, iou=0.5).num_matched == 1
    assert event_scores(told, TRUTH, total_seconds=20, iou=0.51).num_matched == 0


def test_one_true_event_matches_one_of_its_fragments():
    told = events((2, 3, "a"), (3, 4, "a"))
    scores = event_scores(told, TRUTH[:1], total_seconds=20, iou=0.5, told_seconds=[2.5, 3.5])
    assert scores.num_matched == 1
    assert scores.precision == 0.5
    assert scores.recall == 1
    assert scores.num_false_alarms == 0
    assert scores.detect_seconds == (0.5,)


def test_the_largest_overlap_is_paired_first():
    true = events((0, 10, "a"), (10, 14, "a"))
    told = events((0, 4, "a"), (4, 14, "a"))
    assert event_scores(told, true, total_seconds=14, iou=0.3).num_matched == 1  # (4, 14) goes to (0, 10)
    assert event_scores(told, true, total_seconds=14, iou=0.45).num_matched == 0


def test_told_early_is_no_negative_delay():
    scores = event_scores(events((1, 3, "a")), TRUTH[:1], total_seconds=9, told_seconds=[1.5])
    assert scores.detect_seconds == (0.0,)


def test_quiet_labels_are_no_events_but_flips():
    told = events((0, 2, "quiet"), (2, 4, "a"), (4, 9, "quiet"))
    true = [*TRUTH[:1], *events((4, 9, "quiet"))]
    scores = event_scores(told, true, total_seconds=9, quiet_labels={"quiet"})
    assert (scores.num_true, scores.num_predicted, scores.num_false_alarms) == (1, 1, 0)
    assert scores.num_flips == 2


def test_flips_are_changes_of_what_is_shown():
    def flips(*spans, total=10.0):
        return event_scores(events(*spans), [], total_seconds=total).num_flips

    renamed = Event(0, 5, "a", 1.0, num_renamed=2)
    assert event_scores([renamed], [], total_seconds=10.0).num_flips == 3
    assert flips() == 0
    assert flips((0, 10, "a")) == 0
    assert flips((0, 5, "a")) == 1
    assert flips((2, 5, "a")) == 2
    assert flips((0, 5, "a"), (5, 10, "b")) == 1
    assert flips((0, 5, "a"), (5, 10, "a")) == 0
    assert flips((0, 5, "a"), (6, 10, "a")) == 2


def test_undefined_is_nan_with_a_reason():
    nothing = event_scores([], [], total_seconds=60)
    assert set(nothing.undefined) == {"precision", "recall", "f1", "mean_seconds_to_detect"}
    assert all(math.isnan(getattr(nothing, name)) for name in nothing.undefined)
    plain = nothing.to_dict()
    assert plain["precision"] is None
    assert plain["undefined"] == nothing.undefined
    missed = event_scores([], TRUTH, total_seconds=60, told_seconds=[])
    assert missed.recall == missed.f1 == 0
    assert "no true event was detected" in missed.undefined.values()


def test_false_alarms_have_an_exact_interval():
    for count in (0, 1, 7):
        interval = poisson_interval(count)
        low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
        assert interval.low == pytest.approx(low)
        assert interval.high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2)
    scores = event_scores(events((1, 2, "a")), [], total_seconds=1800)
    interval = scores.false_alarms_interval
    assert scores.false_alarms_per_hour == 2
    assert interval.low == pytest.approx(2 * poisson_interval(1).low)
    assert interval.high == pytest.approx(2 * poisson_interval(1).high)


def test_several_videos_add_up():
    one = event_scores(events((2, 4, "a")), TRUTH, total_seconds=20, told_seconds=[3])
    two = event_scores(events((0, 1, "b")), TRUTH, total_seconds=40, told_seconds=[1])
    both = pooled([one, two])
    assert both.total_seconds == 60
    assert both.num_true == 6
    assert both.recall == 1 / 6
    assert both.num_false_alarms == 1
    assert both.false_alarms_per_hour == 60
    assert both.detect_seconds == (1.0,)
    with pytest.raises(InputMismatchError):
        pooled([one, event_scores([], TRUTH, total_seconds=20, iou=0.3)])
    with pytest.raises(InputMismatchError):
        pooled([])


@pytest.mark.parametrize(
    "wrong",
    [{"iou": 0}, {"iou": 1.1}, {"total_seconds": 0}, {"total_seconds": math.nan}, {"told_seconds": [1]}],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises((SettingError, InputMismatchError)):
        event_scores(TRUTH, TRUTH, **{"total_seconds": 10, **wrong})


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    seconds = np.arange(1, 121) / 8
    scores = rng.dirichlet(np.ones(3), len(seconds))
    measured = per_frame_average_precision(scores, seconds, TRUTH, classes=("a", "b", "c"))
    a = ((seconds > 2) & (seconds <= 4)) | ((seconds > 10) & (seconds <= 12))
    b = (seconds > 6) & (seconds <= 8)
    assert measured.by_class["a"] == pytest.approx(average_precision_score(a, scores[:, 0]))
    assert measured.by_class["b"] == pytest.approx(average_precision_score(b, scores[:, 1]))
    assert measured.mean == pytest.approx((measured.by_class["a"] + measured.by_class["b"]) / 2)
    assert math.isnan(measured.by_class["c"])
    assert "by_class.c" in measured.undefined
    assert measured.n == 120
    assert measured.to_dict()["by_class"]["c"] is None


def test_average_precision_knows_which_answers_lie_in_an_event():
    seconds = np.array([1.0, 2.0, 3.0, 4.0, 5.0])  # an answer at 2 has not seen the event that begins at 2
    right = np.array([[0.1], [0.1], [0.9], [0.9], [0.1]])
    assert per_frame_average_precision(right, seconds, events((2, 4, "a")), classes=("a",)).mean == 1
    nothing = per_frame_average_precision(right, seconds, [], classes=("a",))
    assert math.isnan(nothing.mean)
    assert set(nothing.undefined) == {"mean", "by_class.a"}
    with pytest.raises(InputMismatchError):
        per_frame_average_precision(right, seconds[:2], [], classes=("a",))
