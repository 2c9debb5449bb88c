"""A policy as a value: plain values and back, and what does not fit is named."""

import json

import pytest

from vidette.errors import SettingError
from vidette.prediction.policy import DecisionPolicy
from vidette.prediction.smoothing import Transitions

CHAIN = Transitions(((-1.0, 1.0), (0.5, -0.5)), (0.5, 0.5))
FULL = DecisionPolicy(
    smoothing="hmm", smoothing_seconds=0.25, enter_probability=0.8, leave_probability=0.3, minimum_seconds=0.4,
    abstain_probability=0.5, cool_down_seconds=3.0, quiet_labels=frozenset({"rest"}), transitions=CHAIN,
    grouping="activity",
)  # fmt: skip


@pytest.mark.parametrize("policy", [DecisionPolicy(), FULL])
def test_plain_values_and_back(policy):
    assert DecisionPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_what_is_left_out_has_its_default():
    assert DecisionPolicy.from_dict({}) == DecisionPolicy()
    assert DecisionPolicy.from_dict({"minimum_seconds": 2}).minimum_seconds == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enter_probabilty": 0.5}, "did you mean 'enter_probability'"),
        ({"enter_probability": "high"}, "expected a number"),
        ({"minimum_seconds": True}, "expected a number"),
        ({"quiet_labels": "rest"}, "expected a list"),
        ({"smoothing": "median"}, "expected one of"),
        ({"smoothing": "hmm"}, "no transitions"),
        ({"grouping": "each"}, "expected one of label, activity"),
        ({"grouping": "activity"}, "no quiet labels"),
        ({"transitions": {"rates": [[0.0]]}}, "priors"),
        ({"abstain_probability": 1.5}, "0 to 1"),
        ({"cool_down_seconds": -1}, "0 or more"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(SettingError, match=message):
        DecisionPolicy.from_dict(values)


def test_a_policy_is_for_its_classes():
    FULL.check(("rest", "wave"))
    with pytest.raises(SettingError, match="rest"):
        FULL.check(("walk", "wave"))
    with pytest.raises(SettingError, match="2 classes"):
        FULL.check(("rest", "walk", "wave"))
    with pytest.raises(SettingError, match="all classes are quiet"):
        DecisionPolicy(grouping="activity", quiet_labels=frozenset({"rest", "still"})).check(("rest", "still"))


def test_the_delay_is_that_of_the_smoothing_and_the_threshold():
    policy = DecisionPolicy(smoothing="mean", smoothing_seconds=1.0, enter_probability=0.8)
    assert policy.delay_seconds(("rest", "wave")) == pytest.approx(0.8, abs=0.03)
    assert DecisionPolicy(smoothing="none").delay_seconds(("rest", "wave")) == 0
