"""Events from windows: smoothing, hysteresis, shortest length, and folding equals stepping."""

from itertools import pairwise

import numpy as np
import pytest

from vidette.errors import InputMismatchError, SettingError
from vidette.prediction.decision import Decider, DecisionPolicy, Timeline, Window, decide

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


@pytest.mark.parametrize("smoothing", ["none", "mean", "exponential"])
@pytest.mark.parametrize("seed", range(5))
def test_folding_a_timeline_equals_updating_one_by_one(smoothing, seed):
    policy = DecisionPolicy(
        smoothing=smoothing, smoothing_seconds=1.0, enter_probability=0.5, leave_probability=0.3,
        minimum_seconds=0.4, quiet_labels=frozenset({"idle"}),
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


@pytest.mark.parametrize("smoothing", ["none", "mean", "exponential"])
def test_the_past_does_not_change_when_the_stream_goes_on(smoothing):
    policy = DecisionPolicy(smoothing=smoothing, enter_probability=0.5, leave_probability=0.3)
    given = random_windows(40, seed=1)
    whole, part = (
        decide(given, classes=CLASSES, policy=policy),
        decide(given[:25], classes=CLASSES, policy=policy),
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
