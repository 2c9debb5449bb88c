"""Metrics equal scikit-learn where it has the measure; undefined is nan with a reason."""

import json
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from vidette.errors import InputMismatchError
from vidette.evaluation.calibration import softmax
from vidette.evaluation.metrics import Predictions, bootstrap_interval, measure


def predictions(labels, logits, groups=None, classes=None) -> Predictions:
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    names = tuple(f"clip-{i}" for i in range(len(labels)))
    classes = classes or tuple(f"class-{k}" for k in range(logits.shape[1]))
    return Predictions(classes, labels, logits, tuple(groups or names), names)


def random_predictions(num_clips, num_classes, *, seed=0, num_groups=None, decimals=12) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_clips)
    logits = generator.normal(size=(num_clips, num_classes)).round(decimals)
    logits[np.arange(num_clips), labels] += 0.8
    groups = [f"g{i % num_groups}" for i in range(num_clips)] if num_groups else None
    return predictions(labels, logits, groups)


@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_equals_scikit_learn(num_classes):
    given = random_predictions(200, num_classes)
    labels, answers = given.labels, given.answers()
    metrics = measure(given)
    assert metrics.n == 200
    assert metrics.accuracy == pytest.approx(sk.accuracy_score(labels, answers))
    assert metrics.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, answers))
    assert metrics.confusion.tolist() == sk.confusion_matrix(labels, answers).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, answers)
    assert [s.precision for s in metrics.per_class] == pytest.approx(precision.tolist())
    assert [s.recall for s in metrics.per_class] == pytest.approx(recall.tolist())
    assert [s.f1 for s in metrics.per_class] == pytest.approx(f1.tolist())
    assert [s.n for s in metrics.per_class] == support.tolist()


def test_auc_of_two_classes_is_of_the_second_and_counts_ties_half():
    given = random_predictions(150, 2, decimals=0)
    assert len(np.unique(softmax(given.logits)[:, 1])) < 50  # there are ties
    expected = sk.roc_auc_score(given.labels, softmax(given.logits)[:, 1])
    assert measure(given).auc == pytest.approx(expected)
    assert measure(predictions([0, 1], [[1.0, 1.0], [1.0, 1.0]])).auc == pytest.approx(0.5)
    assert measure(predictions([0, 1], [[0.0, 2.0], [0.0, 1.0]])).auc == pytest.approx(0.0)


def test_auc_of_many_classes_is_one_vs_rest():
    given = random_predictions(150, 5)
    expected = sk.roc_auc_score(given.labels, softmax(given.logits), multi_class="ovr", average="macro")
    assert measure(given).auc == pytest.approx(expected)


def test_auc_of_many_classes_leaves_out_a_class_without_clips():
    given = random_predictions(90, 3)
    wide = np.concatenate([given.logits, np.full((90, 1), -30.0)], axis=1)
    assert measure(predictions(given.labels, wide)).auc == pytest.approx(measure(given).auc)


def test_top5_equals_scikit_learn_and_is_undefined_for_few_classes():
    given = random_predictions(100, 12)
    expected = sk.top_k_accuracy_score(given.labels, given.logits, k=5)
    assert measure(given).top5_accuracy == pytest.approx(expected)
    few = measure(random_predictions(20, 5))
    assert np.isnan(few.top5_accuracy)
    assert "more than 5 classes" in few.undefined["top5_accuracy"]


def test_a_class_without_clips_or_answers_is_nan_with_a_reason_and_not_zero():
    metrics = measure(predictions([0, 0, 1, 1], [[2, 1, 0], [2, 1, 0], [2, 1, 0], [1, 2, 0]]))
    absent = metrics.per_class[2]
    assert absent.n == 0
    assert np.isnan([absent.precision, absent.recall, absent.f1]).all()
    for rate in ("precision", "recall", "f1"):
        assert metrics.undefined[f"per_class.class-2.{rate}"]
    assert metrics.balanced_accuracy == pytest.approx(0.75)


def test_a_class_that_is_never_answered_has_f1_zero_like_scikit_learn():
    given = predictions([0, 1], [[1.0, 0.0], [1.0, 0.0]])
    score = measure(given).per_class[1]
    expected = sk.precision_recall_fscore_support([0, 1], [0, 0], zero_division=np.nan)
    assert np.isnan(score.precision)
    assert np.isnan(expected[0][1])
    assert (score.recall, score.f1) == (expected[1][1], expected[2][1]) == (0.0, 0.0)


def test_no_clips_is_undefined_everywhere():
    metrics = measure(predictions(np.zeros(0, dtype=int), np.zeros((0, 2))))
    values = (
        metrics.accuracy,
        metrics.balanced_accuracy,
        metrics.auc,
        metrics.ece,
        metrics.accuracy_interval.low,
    )
    assert np.isnan(values).all()
    undefined = {
        "accuracy",
        "balanced_accuracy",
        "auc",
        "ece",
        "accuracy_interval",
        "auc_interval",
        "top5_accuracy",
    }
    assert undefined <= set(metrics.undefined)


def test_one_class_only_leaves_auc_undefined():
    metrics = measure(predictions([1, 1, 1], [[0, 1], [0, 2], [3, 1]]))
    assert np.isnan(metrics.auc)
    assert "two classes" in metrics.undefined["auc"]
    assert not metrics.auc_interval.defined


def test_one_group_has_no_interval():
    metrics = measure(predictions([0, 1], np.eye(2), groups=["g", "g"]))
    assert not metrics.accuracy_interval.defined
    assert "got 1" in metrics.undefined["accuracy_interval"]
    assert "no interval" in metrics.headline()
    assert "1 group" in metrics.headline()


def test_every_nan_has_a_reason():
    metrics = measure(predictions([0, 0], [[1, 0, 0], [1, 0, 0]], groups=["g", "g"]))
    plain = metrics.to_dict()
    for name in ("accuracy", "top5_accuracy", "balanced_accuracy", "auc", "ece"):
        assert (plain[name] is None) == (name in metrics.undefined)
    for score in plain["per_class"]:
        for rate in ("precision", "recall", "f1"):
            assert (score[rate] is None) == (f"per_class.{score['label']}.{rate}" in metrics.undefined)


def test_interval_over_groups_is_wider_than_over_clips_when_groups_stand_or_fall_together():
    right = np.repeat(np.random.default_rng(0).random(20) < 0.6, 15).astype(float)
    by_group = bootstrap_interval(right, [f"g{i // 15}" for i in range(300)])
    by_clip = bootstrap_interval(right, [str(i) for i in range(300)])
    assert by_group.high - by_group.low > 2 * (by_clip.high - by_clip.low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    covered, truth = 0, 0.7
    for seed in range(200):
        right = (np.random.default_rng(seed).random(100) < truth).astype(float)
        interval = bootstrap_interval(right, [str(i) for i in range(100)], num_resamples=300, seed=seed)
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 200 <= 0.985


def test_auc_interval_equals_a_plain_loop_over_resamples():
    given = random_predictions(60, 3, num_groups=12)
    counts = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), size=40)
    areas = []
    for count in counts:
        chosen = np.repeat(np.arange(60), count[np.arange(60) % 12])
        probabilities = softmax(given.logits)[chosen]
        areas.append(
            np.mean([sk.roc_auc_score(given.labels[chosen] == k, probabilities[:, k]) for k in range(3)])
        )
    interval = measure(given, num_resamples=40, seed=7).auc_interval
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(areas, [2.5, 97.5])))


def test_same_seed_same_interval_and_another_seed_another():
    given = random_predictions(80, 3)
    assert measure(given, seed=1).auc_interval == measure(given, seed=1).auc_interval
    assert measure(given, seed=1).accuracy_interval != measure(given, seed=2).accuracy_interval


def test_a_thousand_resamples_of_300_clips_are_quick():
    given = random_predictions(300, 8, num_groups=45)
    start = time.process_time()
    measure(given, num_resamples=1000)
    assert time.process_time() - start < 3.0


def test_temperature_changes_calibration_and_not_the_answers():
    given = random_predictions(300, 4)
    cold, hot = measure(given, temperature=0.2), measure(given, temperature=1.0)
    assert cold.accuracy == hot.accuracy
    assert cold.ece > hot.ece


def test_to_dict_is_json_without_nan():
    text = json.dumps(measure(predictions([0, 0], [[1, 0], [1, 0]])).to_dict(), allow_nan=False)
    plain = json.loads(text)
    assert plain["auc"] is None
    assert plain["undefined"]["auc"]
    assert plain["confusion"] == [[2, 0], [0, 0]]


def test_headline_reads_plainly():
    given = random_predictions(300, 4, num_groups=45)
    metrics = measure(given)
    low, high = metrics.accuracy_interval.low, metrics.accuracy_interval.high
    expected = (
        f"accuracy {100 * metrics.accuracy:.0f} % "
        f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %, 300 clips of 45 groups)"
    )
    assert metrics.headline() == expected


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([0, 2], np.eye(2), "outside 0 to 1"),
        ([0], np.eye(2), r"expected \(1, 2\)"),
        ([0, 1], [[0.0, np.nan], [1.0, 0.0]], "clip-0"),
    ],
)
def test_predictions_check_themselves(labels, logits, message):
    with pytest.raises(InputMismatchError, match=message):
        predictions(labels, logits)
