"""A threshold keeps the risk that it promises, or says that it cannot, and is checked on other clips."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from vidette.errors import ClassifierError, InputMismatchError
from vidette.evaluation.abstain import Abstaining, Promise, check_promises, find_abstaining, fit_abstaining
from vidette.evaluation.metrics import Predictions


def answers(num_clips: int, *, seed: int, sharpness=3.0) -> tuple[np.ndarray, np.ndarray]:
    """Two-class logits whose probabilities are true: an answer of 0.8 is right 8 times in 10."""
    generator = np.random.default_rng(seed)
    gaps = generator.normal(0, sharpness, num_clips)
    labels = (generator.random(num_clips) < 1 / (1 + np.exp(-gaps))).astype(np.int64)
    return np.stack([np.zeros(num_clips), gaps], axis=1), labels


def as_predictions(logits, labels, *, groups=None) -> Predictions:
    names = tuple(str(i) for i in range(len(labels)))
    return Predictions(("no", "yes"), labels, logits, groups or names, names)


def true_risk(threshold: float) -> float:
    logits, labels = answers(200_000, seed=99)
    sureness = 1 / (1 + np.exp(-np.abs(logits[:, 1])))
    given = sureness >= threshold
    return float((logits.argmax(axis=1) != labels)[given].mean())


def test_the_bound_is_the_binomial_tail():
    logits, labels = answers(500, seed=0)
    promise = fit_abstaining(logits, labels, risks=(0.1,)).promises[0]
    failing = 0.05 / np.ceil(np.log2(501))
    assert binom.cdf(promise.errors, promise.answered, promise.bound) == pytest.approx(failing, rel=1e-6)
    assert promise.bound <= 0.1
    sureness = 1 / (1 + np.exp(-np.abs(logits[:, 1])))
    given = sureness >= promise.threshold
    assert promise.answered == given.sum()
    assert promise.errors == (logits.argmax(axis=1) != labels)[given].sum()


def test_promises_fail_no_more_often_than_they_say():
    made = [fit_abstaining(*answers(500, seed=seed), risks=(0.1,)).promises[0] for seed in range(200)]
    thresholds = [promise.threshold for promise in made if promise.threshold is not None]
    assert len(thresholds) > 150
    risks = {threshold: true_risk(threshold) for threshold in set(np.round(thresholds, 2))}
    broken = sum(risks[round(threshold, 2)] > 0.101 for threshold in thresholds)
    assert broken / len(thresholds) <= 0.05


def test_a_stricter_promise_answers_fewer():
    made = fit_abstaining(*answers(2000, seed=1), risks=(0.2, 0.05, 0.1)).promises
    assert [promise.risk for promise in made] == [0.05, 0.1, 0.2]
    assert made[0].answered < made[1].answered < made[2].answered
    assert made[0].threshold > made[1].threshold > made[2].threshold


def test_few_or_wrong_clips_promise_nothing_and_say_why():
    few = fit_abstaining(*answers(20, seed=2), risks=(0.05,)).promises[0]
    assert few.threshold is None
    assert "20 validation clips do not show it" in few.reason
    logits, labels = answers(400, seed=3)
    assert fit_abstaining(logits, 1 - labels, risks=(0.05,)).promises[0].threshold is None


def test_equal_probabilities_stand_or_fall_together():
    logits = np.tile([[0.0, 2.0]], (100, 1))
    promise = fit_abstaining(logits, np.ones(100, np.int64), risks=(0.1,)).promises[0]
    assert promise.answered == 100


def test_temperature_moves_the_threshold_not_the_answers():
    logits, labels = answers(500, seed=4)
    plain = fit_abstaining(logits, labels, risks=(0.1,)).promises[0]
    softer = fit_abstaining(logits, labels, temperature=2.0, risks=(0.1,)).promises[0]
    assert plain.answered == softer.answered
    assert softer.threshold < plain.threshold


def test_no_clip_is_refused():
    with pytest.raises(InputMismatchError, match="0 rows of logits and 0 labels"):
        fit_abstaining(np.zeros((0, 2)), np.zeros(0, np.int64))


def test_the_promise_is_measured_on_other_clips():
    made = fit_abstaining(*answers(1000, seed=5), risks=(0.05,))
    logits, labels = answers(1000, seed=6)
    check = check_promises(made, as_predictions(logits, labels), temperature=1.0).checks[0]
    sureness = 1 / (1 + np.exp(-np.abs(logits[:, 1])))
    given = sureness >= made.promises[0].threshold
    assert check.answered == given.sum()
    assert check.coverage == pytest.approx(given.mean())
    assert check.risk == pytest.approx((logits.argmax(axis=1) != labels)[given].mean())
    assert check.risk_interval.low <= check.risk <= check.risk_interval.high
    assert check.verdict == "held"
    assert "the promise held" in check.reading()


def test_verdicts():
    made = Abstaining((Promise(0.1, 0.9, 0.08, 100, 2),), 0.95, 200, 50)
    sure = np.tile([[0.0, 5.0]], (100, 1))

    def verdict(num_wrong: int, logits=sure) -> str:
        labels = np.ones(100, np.int64)
        labels[:num_wrong] = 0
        return check_promises(made, as_predictions(logits, labels), temperature=1.0).checks[0].verdict

    assert verdict(0) == "held"
    assert verdict(10) == "held"
    assert verdict(13) == "above"
    assert verdict(40) == "broken"
    assert verdict(0, logits=np.zeros((100, 2))) == "empty"


def test_no_error_still_has_an_interval_with_a_width():
    made = Abstaining((Promise(0.1, 0.9, 0.08, 100, 2),), 0.95, 200, 50)
    predictions = as_predictions(np.tile([[0.0, 5.0]], (30, 1)), np.ones(30, np.int64))
    check = check_promises(made, predictions, temperature=1.0).checks[0]
    assert check.risk_interval.low == 0
    assert check.risk_interval.high == pytest.approx(1 - 0.025 ** (1 / 30))


def test_few_groups_widen_the_interval_and_are_told():
    made = Abstaining((Promise(0.1, 0.9, 0.08, 100, 2),), 0.95, 200, 6)
    labels = np.ones(100, np.int64)
    labels[:20] = 0
    logits = np.tile([[0.0, 5.0]], (100, 1))
    alone = check_promises(made, as_predictions(logits, labels), temperature=1.0).checks[0].risk_interval
    groups = tuple("one" if i < 20 else f"g{i // 20}" for i in range(100))
    grouped = check_promises(made, as_predictions(logits, labels, groups=groups), temperature=1.0)
    interval = grouped.checks[0].risk_interval
    assert interval.high - interval.low > alone.high - alone.low
    assert "6 groups and are not independent" in grouped.caveat()


def test_saved_and_read_again():
    made = fit_abstaining(*answers(300, seed=7), groups=[str(i % 9) for i in range(300)])
    statistics = json.loads(json.dumps({"abstaining": made.to_dict()}, allow_nan=False))
    again = find_abstaining(statistics)
    assert again.num_groups == 9
    assert again.to_dict() == made.to_dict()
    assert find_abstaining({}) is None
    with pytest.raises(ClassifierError, match="train it again"):
        find_abstaining({"abstaining": {"promises": [{}]}})


def test_checks_are_json():
    made = fit_abstaining(*answers(300, seed=8))
    checks = check_promises(made, as_predictions(*answers(50, seed=9)), temperature=1.0)
    text = json.dumps(checks.to_dict(), allow_nan=False)
    assert json.loads(text)["promises"][0]["risk"] == 0.01
    assert len(checks.reading()) == 4
