"""What is told when, by hand; that a file's steps are those of a live run is shown in tests/streaming."""

import numpy as np
import pytest

from vidette.errors import InputMismatchError
from vidette.prediction.decision import DecisionPolicy, Timeline, Window, decide
from vidette.prediction.steps import NO_DECISION, follow

CLASSES = ("idle", "wave")


def timeline(*waves, start=0.0, span=0.5, step=0.25):
    """One window every quarter of a second, half a second long, with these probabilities of a wave."""
    windows = [
        Window(start + i * step, start + i * step + span, np.array([1 - p, p])) for i, p in enumerate(waves)
    ]
    return Timeline(tuple(windows), CLASSES)


def test_an_event_is_told_at_the_end_of_the_window_that_opens_it():
    policy = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}))
    line = timeline(0, 0, 0.9, 0.9, 0, 0)
    answers = follow([line], policy)
    assert answers.events == decide(line.windows, classes=CLASSES, policy=policy)
    assert len(answers.events) == 1
    assert answers.told_seconds == (1.0,)
    assert answers.total_seconds == 1.75
    assert answers.probabilities.shape == (6, 2)
    assert answers.seconds.tolist() == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


def test_an_event_that_must_last_is_told_when_it_has():
    policy = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}), minimum_seconds=0.5)
    answers = follow([timeline(0, 0.9, 0.9, 0.9, 0.9, 0, 0.9, 0)], policy)
    assert len(answers.events) == 1  # the second is too short, and never told
    assert answers.told_seconds == (1.25,)  # opened by window 1, half a second older with window 3


def test_an_open_end_is_told_too():
    policy = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}), minimum_seconds=0.3)
    answers = follow([timeline(0, 0, 0.9)], policy)
    assert len(answers.events) == 1
    assert answers.told_seconds == (1.0,)


def test_smoothing_tells_later():
    line = timeline(*[0.0] * 8, *[1.0] * 8)
    quick = follow([line], DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"})))
    slow = follow([line], DecisionPolicy(smoothing_seconds=0.5, quiet_labels=frozenset({"idle"})))
    assert slow.told_seconds[0] > quick.told_seconds[0]


def test_without_a_decision_every_best_label_is_told():
    answers = follow([timeline(0.1, 0.9, 0.2, 0.8)], NO_DECISION)
    assert [event.label for event in answers.events] == ["idle", "wave", "idle", "wave"]
    assert answers.told_seconds == (0.5, 0.75, 1.0, 1.25)


def test_the_decision_begins_anew_after_a_gap():
    policy = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}))
    answers = follow([timeline(0.9, 0.9), timeline(0.9, 0.9, start=10.0)], policy)
    assert [(event.start_seconds, event.stop_seconds) for event in answers.events] == [(0, 0.75), (10, 10.75)]
    assert answers.total_seconds == 10.75


def test_no_answer_is_refused():
    with pytest.raises(InputMismatchError):
        follow([Timeline((), CLASSES)])
