"""Smoothing, step by step: the same at any rate of answers, and as late as it says."""

import math

import numpy as np
import pytest
from scipy.linalg import expm

from vidette.errors import SettingError
from vidette.prediction.smoothing import SMOOTHINGS, Transitions, new_smoother, rise_seconds

RATES = ((-0.5, 0.4, 0.1), (0.25, -0.25, 0.0), (1.0, 1.0, -2.0))
CHAIN = Transitions(RATES, (1 / 3, 1 / 3, 1 / 3))


def run(kind, answers, *, stride=0.1, seconds=1.0, transitions=CHAIN):
    smoother = new_smoother(kind, seconds, transitions)
    return np.array([smoother.update(i * stride, np.array(row, dtype=float)) for i, row in enumerate(answers)])


def test_majority_is_the_share_of_votes_of_the_last_seconds():
    answers = [[0.6, 0.4], [0.1, 0.9], [0.4, 0.6], [0.51, 0.49]]
    smoothed = run("majority", answers, stride=0.5, seconds=1.5)
    assert smoothed == pytest.approx(np.array([[1, 0], [0.5, 0.5], [1 / 3, 2 / 3], [1 / 3, 2 / 3]]))


@pytest.mark.parametrize("kind", ["mean", "majority", "exponential", "hmm"])
def test_a_missing_answer_counts_for_no_label(kind):
    """What lacks to 1 is the share of "unknown"; it grows while nothing is said, and goes when something is."""
    sure, nothing = [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]
    sums = run(kind, [sure] * 20 + [nothing] * 15 + [sure] * 60).sum(axis=1)
    assert sums[19] == pytest.approx(1)
    assert sums[34] < 0.4
    assert sums[-1] > 0.95


def test_the_hmm_is_the_forward_filter_of_the_textbook():
    """One answer an evidence time: belief(t) ~ (belief(t - 1) P) * likelihood."""
    answers = np.random.default_rng(0).dirichlet([1, 1, 1], size=5)
    matrix = expm(np.array(RATES))
    shares = CHAIN.stationary()
    assert shares @ matrix == pytest.approx(shares)
    belief, expected = shares, []
    for i, answer in enumerate(answers):
        belief = (belief if i == 0 else belief @ matrix) * (0.99 * answer / (1 / 3) + 0.01)
        belief = belief / belief.sum()
        expected.append(belief)
    assert run("hmm", answers, stride=1.0, seconds=1.0) == pytest.approx(np.array(expected))


def test_the_hmm_says_the_same_at_any_rate_of_answers():
    """Answers that come four times as often are no four times as much evidence."""
    slow = run("hmm", [[0.3, 0.5, 0.2]] * 11, stride=0.4, seconds=2.0)[-1]
    quick = run("hmm", [[0.3, 0.5, 0.2]] * 41, stride=0.1, seconds=2.0)[-1]
    assert quick == pytest.approx(slow, abs=0.03)


def test_the_hmm_holds_what_lasts_and_follows_what_changes():
    """A stray answer does not move a chain that seldom changes; several do."""
    still = Transitions(((-0.05, 0.05), (0.05, -0.05)), (0.5, 0.5))
    first, second = [0.9, 0.1], [0.1, 0.9]
    smoothed = run("hmm", [first] * 20 + [second] + [first] * 5 + [second] * 20, seconds=0.3, transitions=still)
    assert (smoothed[:26].argmax(axis=1) == 0).all()
    assert smoothed[-1].argmax() == 1


def test_priors_weigh_what_training_saw_seldom():
    rare = Transitions(((-1.0, 1.0), (1.0, -1.0)), (0.9, 0.1))
    assert run("hmm", [[0.7, 0.3]], transitions=rare)[0].argmax() == 1


def test_a_state_more_than_classes_is_nothing():
    """With answers that say nothing, most of the time nothing goes on."""
    rates = ((-1.0, 0.0, 1.0), (0.0, -1.0, 1.0), (0.1, 0.1, -0.2))
    smoothed = run("hmm", [[0.5, 0.5]] * 30, transitions=Transitions(rates, (0.5, 0.5)))
    assert smoothed.shape == (30, 2)
    assert smoothed[-1].sum() < 0.4


@pytest.mark.parametrize("kind", SMOOTHINGS)
def test_several_streams_at_once_are_each_alone(kind):
    answers = np.random.default_rng(1).dirichlet([0.5, 0.5, 0.5], size=(12, 4))
    together = run(kind, answers)
    for stream in range(4):
        assert together[:, stream] == pytest.approx(run(kind, answers[:, stream]))


@pytest.mark.parametrize("kind", SMOOTHINGS)
def test_smoothed_probabilities_do_not_depend_on_what_comes(kind):
    answers = np.random.default_rng(2).dirichlet([0.5, 0.5, 0.5], size=20)
    assert run(kind, answers[:12]) == pytest.approx(run(kind, answers)[:12])


def test_rise_seconds_are_as_documented():
    def rise(kind, seconds=1.0, enter=(0.3, 0.6, 0.9)):
        return rise_seconds(lambda: new_smoother(kind, seconds, CHAIN), [(0, 1), (2, 0)], 3, enter)

    assert rise("none") == (0, 0, 0)
    for kind in ("mean", "majority"):
        assert rise(kind) == pytest.approx((0.5, 0.6, 0.9), abs=0.03)
    expected = [max(1.0, math.log2(1 / (1 - enter))) for enter in (0.3, 0.6, 0.9)]
    assert rise("exponential") == pytest.approx(expected, abs=0.03)
    assert rise("exponential", 0.5) == pytest.approx(np.array(expected) / 2, abs=0.03)
    assert rise("exponential", enter=(1.0,)) == (math.inf,)
    quick, slow = rise("hmm", 0.25, (0.6,))[0], rise("hmm", 1.0, (0.6,))[0]
    assert 0 < quick < slow < 2


@pytest.mark.parametrize(
    ("rates", "priors"),
    [
        (((-1.0, 1.0), (1.0, -1.0)), (0.3, 0.3, 0.4)),
        (((-1.0, 2.0), (1.0, -1.0)), (0.5, 0.5)),
        (((1.0, -1.0), (1.0, -1.0)), (0.5, 0.5)),
        (((-1.0, 1.0), (1.0,)), (0.5, 0.5)),
        (((-1.0, 1.0), (1.0, -1.0)), (1.0, 0.0)),
        (((math.nan, 1.0), (1.0, -1.0)), (0.5, 0.5)),
    ],
)
def test_transitions_check_themselves(rates, priors):
    with pytest.raises(SettingError):
        Transitions(rates, priors)
