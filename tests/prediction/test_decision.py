"""Events from windows: smoothing, hysteresis, shortest length, and folding equals stepping."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vidette.errors import InputMismatchError, SettingError
from vidette.prediction.decision import Decider, DecisionPolicy, Timeline, Window, decide
from vidette.prediction.policy import GROUPINGS
from vidette.prediction.smoothing import Transitions

CLASSES = ("idle", "run", "wave")
PLAIN = DecisionPolicy(smoothing="none", enter_probability=0.6, leave_probability=0.4)
QUIET = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"idle"}))


def windows(*answers, span=2.0, stride=1.0):
    """Windows from rows of probabilities or from one probability of 'wave' against 'idle'."""
    rows = [np.array([1 - a, 0.0, a]) if np.isscalar(a) else np.array(a, dtype=float) for a in answers]
    return tuple(Window(i * stride, i * stride + span, row) for i, row in enumerate(rows))


def random_windows(num, *, seed):
    generator = np.random.default_rng(seed)
    starts = np.cumsum(generator.uniform(0.1, 1.5, size=num))
    return tuple(Window(float(s), float(s) + 1.0, generator.dirichlet([0.4] * 3)) for s in starts)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("smoothing", ["none", "mean", "exponential"])
@pytest.mark.parametrize("seed", range(5))
def test_folding_a_timeline_equals_updating_one_by_one(smoothing, seed, grouping):
    enter = {"label": 0.5, "activity": 0.7}[grouping]
    policy = DecisionPolicy(
        smoothing=smoothing, smoothing_seconds=1.0, enter_probability=enter, leave_probability=enter - 0.2,
        minimum_seconds=0.4, quiet_labels=frozenset({"idle"}), grouping=grouping,
    )  # fmt: skip
    given = random_windows(60, seed=seed)
    decider, stepped = Decider(CLASSES, policy), []
    for window in given:
        if event := decider.update(window):
            assert event.stop_seconds <= window.stop_seconds  # known by then: nothing looks ahead
            stepped.append(event)
    if event := decider.finish():
        stepped.append(event)
    assert len(stepped) > 3
    assert (
        tuple(stepped)
        == Timeline(given, CLASSES).events(policy)
        == decide(given, classes=CLASSES, policy=policy)
    )


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("smoothing", ["none", "mean", "exponential"])
def test_the_past_does_not_change_when_the_stream_goes_on(smoothing, grouping):
    policy = DecisionPolicy(smoothing, grouping=grouping, quiet_labels=frozenset({"idle"}))
    given = random_windows(60, seed=1)
    whole, part = (
        decide(given, classes=CLASSES, policy=policy),
        decide(given[:40], classes=CLASSES, policy=policy),
    )
    assert len(part) > 2
    assert whole[: len(part) - 1] == part[:-1]


def test_events_never_overlap_and_boundaries_lie_midway_between_centres():
    timeline = Timeline(windows([0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]), CLASSES)
    first, second = timeline.events(PLAIN)
    assert (first.label, first.start_seconds, first.stop_seconds) == ("run", 0.0, 2.5)
    assert (second.label, second.start_seconds, second.stop_seconds) == ("wave", 2.5, 5.0)
    assert second.confidence == 1.0


def test_hysteresis_holds_an_event_through_a_weak_window():
    (event,) = decide(windows(0.1, 0.7, 0.5, 0.5, 0.7, 0.1), classes=CLASSES, policy=QUIET)
    assert (event.start_seconds, event.stop_seconds) == (1.5, 5.5)
    assert event.confidence == pytest.approx(0.6)
    without = DecisionPolicy(
        smoothing="none", enter_probability=0.6, leave_probability=0.6, quiet_labels=QUIET.quiet_labels
    )
    assert len(decide(windows(0.1, 0.7, 0.5, 0.5, 0.7, 0.1), classes=CLASSES, policy=without)) == 2


def test_a_weak_window_alone_does_not_open_an_event():
    assert decide(windows(0.1, 0.5, 0.5, 0.1), classes=CLASSES, policy=QUIET) == ()


def test_abstains_when_no_label_is_likely_enough():
    assert decide(windows([0.34, 0.33, 0.33]), classes=CLASSES, policy=PLAIN) == ()


def test_mean_smoothing_takes_out_one_stray_window():
    given = windows(0.9, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9)
    smooth = DecisionPolicy(smoothing="mean", smoothing_seconds=3.0, quiet_labels=frozenset({"idle"}))
    assert len(decide(given, classes=CLASSES, policy=smooth)) == 1
    assert len(decide(given, classes=CLASSES, policy=QUIET)) == 2


def test_mean_smoothing_is_the_mean_of_the_last_seconds():
    decider = Decider(CLASSES, DecisionPolicy(smoothing="mean", smoothing_seconds=2.0))
    for window in windows(0.0, 0.2, 0.4, 0.8):
        decider.update(window)
    assert decider.smoothed == pytest.approx([0.4, 0.0, 0.6])


def test_exponential_smoothing_halves_by_seconds_and_not_by_windows():
    policy = DecisionPolicy(smoothing="exponential", smoothing_seconds=2.0)
    slow, quick = Decider(CLASSES, policy), Decider(CLASSES, policy)
    for decider, stride in ((slow, 2.0), (quick, 0.5)):
        decider.update(Window(0.0, 1.0, np.array([1.0, 0.0, 0.0])))
        for i in range(1, int(4 / stride) + 1):
            decider.update(Window(i * stride, i * stride + 1, np.array([0.0, 0.0, 1.0])))
    assert slow.smoothed == pytest.approx([0.25, 0.0, 0.75])
    assert quick.smoothed == pytest.approx(slow.smoothed)


def test_what_wavers_between_two_labels_is_one_event_by_activity():
    """Something surely goes on for five answers, and what it is comes out in the end."""
    given = windows(
        [1, 0, 0], [0, 0.6, 0.4], [0, 0.3, 0.7], [0, 0.8, 0.2], [0.1, 0.2, 0.7], [0, 0.1, 0.9], [1, 0, 0]
    )
    assert [e.label for e in decide(given, classes=CLASSES, policy=QUIET)] == ["run", "wave", "run", "wave"]
    decider, shown = Decider(CLASSES, replace(QUIET, grouping="activity")), []
    told = []
    for window in given:
        told.append(decider.update(window))
        shown.append(decider.open_event and decider.open_event.label)
    assert shown == [None, "run", "wave", "run", "wave", "wave", None]  # the larger sums: 0.6, 1.1, 1.7, 2, 2.9
    (event,) = [event for event in told if event]
    assert (event.start_seconds, event.stop_seconds, event.label) == (1.5, 6.5, "wave")
    assert event.confidence == pytest.approx(2.9 / 5)
    assert event.num_renamed == 3


def test_activity_has_two_thresholds_and_begins_at_no_unsure_answer():
    policy = DecisionPolicy(
        "none",
        enter_probability=0.8,
        leave_probability=0.4,
        grouping="activity",
        quiet_labels=frozenset({"idle"}),
    )
    spread = [windows([1 - a, a / 2, a / 2])[0].probabilities for a in (0.7, 0.9, 0.5, 0.3, 0.7, 0.9)]
    events = decide(windows(*spread), classes=CLASSES, policy=policy)
    assert [(e.start_seconds, e.stop_seconds) for e in events] == [(1.5, 3.5), (5.5, 7.0)]
    unsure = replace(policy, abstain_probability=0.6)
    assert decide(windows(*spread), classes=CLASSES, policy=unsure) == ()


def test_short_events_are_dropped_and_counted():
    policy = DecisionPolicy(smoothing="none", minimum_seconds=1.5, quiet_labels=frozenset({"idle"}))
    decider = Decider(CLASSES, policy)
    events = [decider.update(w) for w in windows(0.0, 0.9, 0.0, 0.9, 0.9, 0.9, 0.0)]
    assert [e.seconds for e in events if e] == [3.0]
    assert decider.num_dropped == 1


def test_open_event_is_seen_before_it_ends():
    decider = Decider(CLASSES, QUIET)
    assert decider.open_event is None
    assert decider.update(windows(0.9)[0]) is None
    assert decider.open_event is not None
    assert decider.open_event.label == "wave"
    assert decider.finish() is not None
    assert decider.open_event is None
    assert decider.finish() is None


def test_segments_tile_the_video():
    segments = Timeline(random_windows(30, seed=2), CLASSES).segments()
    assert len(segments) > 3
    for before, after in pairwise(segments):
        assert before.stop_seconds == after.start_seconds
        assert before.label != after.label


def test_no_windows_no_events():
    assert Timeline((), CLASSES).events() == ()


@pytest.mark.parametrize(
    "setting",
    [
        {"smoothing": "gauss"},
        {"smoothing_seconds": 0.0},
        {"enter_probability": 0.3, "leave_probability": 0.4},
        {"minimum_seconds": -1.0},
        {"enter_probability": float("nan")},
        {"grouping": "activity"},
        {"grouping": "instance", "quiet_labels": frozenset({"idle"})},
    ],
)
def test_policy_checks_itself(setting):
    with pytest.raises(SettingError):
        DecisionPolicy(**setting)


@pytest.mark.parametrize(
    "window",
    [
        Window(0.0, 2.0, np.array([0.5, 0.5])),
        Window(0.0, 2.0, np.array([np.nan, 0.5, 0.5])),
        Window(-5.0, -3.0, np.array([0.0, 0.5, 0.5])),
        Window(9.0, 8.0, np.array([0.0, 0.5, 0.5])),
    ],
)
def test_decider_refuses_windows_that_do_not_fit(window):
    decider = Decider(CLASSES)
    decider.update(windows(0.5)[0])
    with pytest.raises(InputMismatchError):
        decider.update(window)


def test_unsure_answers_say_unknown_and_begin_no_event():
    policy = DecisionPolicy(
        smoothing="none", enter_probability=0.3, leave_probability=0.3, abstain_probability=0.6
    )
    decider = Decider(CLASSES, policy)
    assert decider.update(Window(0.0, 1.0, np.array([0.1, 0.4, 0.5]))) is None
    assert not decider.is_known
    assert decider.open_event is None
    assert decider.smoothed.sum() == 0
    decider.update(Window(1.0, 2.0, np.array([0.1, 0.2, 0.7])))
    assert decider.is_known
    assert decider.open_event.label == "wave"
    ended = decider.update(Window(2.0, 3.0, np.array([0.1, 0.4, 0.5])))
    assert (ended.label, ended.start_seconds, ended.stop_seconds) == ("wave", 1.0, 2.0)


def test_smoothing_carries_an_event_over_one_unsure_answer():
    policy = DecisionPolicy(
        smoothing="mean", smoothing_seconds=3.0, enter_probability=0.6, leave_probability=0.4,
        abstain_probability=0.6, quiet_labels=frozenset({"idle"}),
    )  # fmt: skip
    answers = [[0, 0, 1]] * 3 + [[0.5, 0, 0.5]] + [[0, 0, 1]] * 3
    assert len(decide(windows(*answers), classes=CLASSES, policy=policy)) == 1


def test_a_label_cools_down_and_goes_on_when_that_is_over():
    policy = DecisionPolicy(smoothing="none", cool_down_seconds=2.0, quiet_labels=frozenset({"idle"}))
    # wave in [0, 2.5), [3.5, 4.5) and [5.5, end): the second lies in the cool-down, which ends at 4.5
    decider = Decider(CLASSES, policy)
    told = [decider.update(w) for w in windows(0.9, 0.9, 0.0, 0.9, 0.0, 0.9, 0.9)] + [decider.finish()]
    assert [(e.start_seconds, e.stop_seconds) for e in told if e] == [(0.0, 2.5), (5.5, 8.0)]
    assert decider.num_cooled == 1
    longer = DecisionPolicy(smoothing="none", cool_down_seconds=3.5, quiet_labels=frozenset({"idle"}))
    events = decide(windows(0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9), classes=CLASSES, policy=longer)
    assert [(e.start_seconds, e.stop_seconds) for e in events] == [(0.0, 2.5), (6.0, 8.0)]


def test_other_labels_do_not_cool_down():
    policy = DecisionPolicy(smoothing="none", cool_down_seconds=60.0, quiet_labels=frozenset({"idle"}))
    events = decide(windows([0, 0, 1], [0, 1, 0], [0, 0, 1]), classes=CLASSES, policy=policy)
    assert [event.label for event in events] == ["wave", "run"]


def test_an_open_event_is_told_when_it_is_sure_to_last():
    policy = DecisionPolicy(smoothing="none", minimum_seconds=1.5, quiet_labels=frozenset({"idle"}))
    decider, seen = Decider(CLASSES, policy), []
    for window in windows(0.0, 0.9, 0.9, 0.9, 0.0):
        ended = decider.update(window)
        seen.append(decider.open_event is not None)
    assert seen == [False, False, False, True, False]  # begun at 1.5; sure to last 1.5 s from the third on
    assert ended.seconds == 3.0


HMM = DecisionPolicy(
    smoothing="hmm", smoothing_seconds=1.0, quiet_labels=frozenset({"idle"}), enter_probability=0.5,
    transitions=Transitions(((-0.4, 0.2, 0.2), (0.2, -0.4, 0.2), (0.2, 0.2, -0.4)), (1 / 3, 1 / 3, 1 / 3)),
)  # fmt: skip


@pytest.mark.parametrize("smoothing", ["majority", "hmm"])
@pytest.mark.parametrize("seed", range(3))
def test_with_every_rule_at_once_the_past_stays_and_events_do_not_overlap(smoothing, seed):
    policy = replace(
        HMM, smoothing=smoothing, minimum_seconds=0.3, abstain_probability=0.4, cool_down_seconds=1.0
    )
    given = random_windows(80, seed=seed)
    whole, part = (decide(some, classes=CLASSES, policy=policy) for some in (given, given[:60]))
    assert len(whole) > 3
    assert whole[: len(part) - 1] == part[:-1]
    for before, after in pairwise(whole):
        assert before.stop_seconds <= after.start_seconds
        assert before.label != after.label or after.start_seconds - before.stop_seconds > 1 - 1e-9


def test_a_timeline_has_its_own_policy():
    given = windows(0.1, 0.55, 0.1)
    low = DecisionPolicy(smoothing="none", enter_probability=0.4, quiet_labels=frozenset({"idle"}))
    assert Timeline(given, CLASSES, replace(low, leave_probability=0.4)).events() != ()
    assert Timeline(given, CLASSES, low).events(QUIET) == Timeline(given, CLASSES).events(QUIET) == ()


def test_a_decider_refuses_a_policy_for_other_classes():
    with pytest.raises(SettingError, match="rest"):
        Decider(CLASSES, DecisionPolicy(quiet_labels=frozenset({"rest"})))
