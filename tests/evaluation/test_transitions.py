"""Transitions learnt from truth: counts over time, with one imagined stay in each state."""

import numpy as np
import pytest

from vidette.errors import InputMismatchError
from vidette.evaluation.transitions import ScoredVideo, learn_transitions
from vidette.prediction.decision import Event, Timeline, Window

CLASSES = ("idle", "run", "wave")
IDLE = frozenset({"idle"})


def video(*truth, seconds=20.0):
    windows = (Window(0.0, seconds, np.array([1.0, 0.0, 0.0])),)
    events = tuple(Event(start, stop, label, 1.0) for start, stop, label in truth)
    return ScoredVideo("v.mp4", (Timeline(windows, CLASSES),), events)


def test_rates_are_changes_over_time_with_one_imagined_stay():
    """idle 5 s, run 5 s, idle 2 s, wave 6 s, idle 2 s: five stays of 4 s on average."""
    learnt = learn_transitions([video((5, 10, "run"), (12, 18, "wave"))], quiet_labels=IDLE)
    expected = [[-3 / 13, 1.5 / 13, 1.5 / 13], [1.5 / 9, -2 / 9, 0.5 / 9], [1.5 / 10, 0.5 / 10, -2 / 10]]
    assert np.array(learnt.rates) == pytest.approx(np.array(expected))
    assert learnt.priors == (1 / 3, 1 / 3, 1 / 3)


def test_without_a_quiet_label_nothing_is_a_state():
    learnt = learn_transitions([video((5, 10, "run"), (10, 18, "wave"))])
    assert len(learnt.rates) == 4
    assert learnt.rates[3][1] > learnt.rates[3][2]  # from nothing to run
    assert learnt.rates[1][2] > learnt.rates[1][3]  # from run to wave at once


def test_a_later_event_ends_an_earlier_one_and_videos_add_up():
    once = learn_transitions([video((5, 15, "run"), (10, 15, "wave"))], quiet_labels=IDLE)
    assert once == learn_transitions([video((5, 10, "run"), (10, 15, "wave"))], quiet_labels=IDLE)
    many = learn_transitions([video((5, 10, "run"), (12, 18, "wave"))] * 50, quiet_labels=IDLE)
    assert many.rates[1][0] == pytest.approx(1 / 5, abs=0.01)
    assert many.rates[1][2] == pytest.approx(0, abs=0.01)


def test_a_truth_without_events_teaches_nothing():
    with pytest.raises(InputMismatchError, match="no event"):
        learn_transitions([video()], quiet_labels=IDLE)
