"""Tuning on sequences of scores in which the right answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from vidette.errors import InputMismatchError, SettingError
from vidette.evaluation.transitions import ScoredVideo
from vidette.evaluation.tuning import Grid, score_grid, score_policy, tune
from vidette.prediction.decision import DecisionPolicy, Event, Timeline, Window
from vidette.prediction.policy import GROUPINGS
from vidette.prediction.smoothing import SMOOTHINGS
from vidette.prediction.steps import NO_DECISION, follow

CLASSES = ("idle", "run", "wave")
IDLE = frozenset({"idle"})
TRUTH = ((2.0, 5.0, "run"), (8.0, 12.0, "wave"), (15.0, 18.0, "run"))
RATE = 10
SMALL = Grid(enter=(0.5, 0.8), hmm_seconds=(0.5,), leave_share=(1.0, 0.5), cool_down_seconds=(0.0, 1.0))


def video(*, blips=(), holes=(), sure=0.9, truth=TRUTH, seconds=20.0, noise=0.0, seed=0, name="v.mp4"):
    """Answers that follow the truth, but for blips of half a second of `wave` and holes of one answer."""
    generator, windows = np.random.default_rng(seed), []
    for i in range(round(seconds * RATE)):
        now = i / RATE
        label = next((label for start, stop, label in truth if start <= now < stop), "idle")
        if any(start <= now < start + 0.5 for start in blips):
            label = "wave"
        if any(abs(now - hole) < 0.01 for hole in holes):
            label = "idle"
        row = np.full(3, (1 - sure) / 2)
        row[CLASSES.index(label)] = sure
        row = np.exp(np.log(row) + noise * generator.normal(size=3))
        windows.append(Window(now - 0.25, now + 0.25, row / row.sum()))
    events = tuple(Event(start, stop, label, 1.0) for start, stop, label in truth)
    return ScoredVideo(name, (Timeline(tuple(windows), CLASSES),), events)


def tuned(*videos, wish=0.0, **options):
    return tune(videos, false_alarms_per_hour=wish, quiet_labels=IDLE, grid=SMALL, **options)


def test_clean_answers_need_no_smoothing():
    result = tuned(video())
    assert result.policy.smoothing == "none"
    assert result.delay_seconds == 0
    assert result.scores.f1 == 1
    assert result.scores.num_false_alarms == 0
    assert result.held_out is None


def test_blips_and_holes_are_taken_out_within_the_delay():
    given = video(blips=(6.5, 13.5), holes=(3.0, 3.5, 9.0, 10.0, 16.0, 17.0))
    plain = score_policy([given], replace(NO_DECISION, quiet_labels=IDLE), quiet_labels=IDLE)
    assert plain.f1 < 0.5
    assert plain.num_false_alarms == 2
    result = tuned(given)
    assert result.scores.f1 == 1
    assert result.scores.num_false_alarms == 0
    assert result.delay_seconds <= 0.5
    assert result.policy.quiet_labels == IDLE


def test_the_scores_are_those_of_following_the_policy():
    """The quick way through the grid and the way of a live run agree, for every kind of smoothing."""
    given = video(blips=(6.5,), noise=1.0, seed=3)
    tried = list(score_grid([given], SMALL, max_delay_seconds=0.5, quiet_labels=IDLE))
    assert {policy.smoothing for policy, _, _ in tried} == set(SMOOTHINGS)
    assert {policy.grouping for policy, _, _ in tried[::41]} == set(GROUPINGS)
    for policy, delay, (scores,) in tried[::41]:
        followed = score_policy([given], policy, quiet_labels=IDLE)
        assert replace(followed, detect_seconds=None) == scores
        assert delay == policy.delay_seconds(CLASSES) <= 0.5


def wavering():
    """What goes on is sure and lasts; which of two it is changes every half second, mostly rightly."""
    given = video()
    rows = [w.probabilities for w in given.stretches[0].windows]
    for i, row in enumerate(rows):
        if row[0] < 0.5 and i % 10 >= 6:
            row[1:] = row[:0:-1].copy()
    return given


def test_labels_that_waver_are_grouped_by_activity():
    result = tuned(wavering(), wish=60.0, max_delay_seconds=0.0)
    assert result.policy.grouping == "activity"
    assert result.scores.f1 == 1
    one_by_one = score_policy([wavering()], replace(result.policy, grouping="label"), quiet_labels=IDLE)
    assert one_by_one.f1 < 0.5


def test_without_a_quiet_label_there_is_no_activity():
    tried = score_grid([video()], SMALL, max_delay_seconds=0.0)
    assert {policy.grouping for policy, _, _ in tried} == {"label"}


def test_more_false_alarms_are_allowed_when_wished():
    """A false alarm of half a second, and true events as short: what drops the one drops the others."""
    truth = ((2.0, 5.0, "run"), (8.0, 8.5, "wave"), (10.0, 10.5, "wave"))
    given = video(truth=truth, blips=(14.0,))
    strict, free = tuned(given, wish=0.0), tuned(given, wish=200.0)
    assert (strict.scores.num_false_alarms, strict.scores.num_matched) == (0, 1)
    assert (free.scores.num_false_alarms, free.scores.num_matched) == (1, 3)


def test_when_no_policy_keeps_within_the_limit_the_nearest_is_named():
    long_blip = tuple(np.arange(13, 15, 0.5))  # as long and as sure as a true event
    with pytest.raises(SettingError, match=r"the nearest has 178\.7 \(1 in 0\.01 h, F1 0\.\d\d\)"):
        tuned(video(blips=long_blip, truth=((2.0, 4.0, "wave"), (8.0, 10.0, "wave"))))


def test_a_classifier_that_finds_nothing_is_told_so():
    given = replace(video(), truth=(Event(6.0, 7.0, "wave", 1.0),))
    with pytest.raises(SettingError, match="finds a single true event"):
        tuned(given, wish=10_000.0)


def test_no_delay_allows_no_smoothing():
    result = tuned(video(holes=(3.0, 9.0)), wish=10_000.0, max_delay_seconds=0.0)
    assert result.policy.smoothing == "none"


def test_each_video_is_held_out_in_turn():
    videos = [video(noise=0.8, seed=seed, name=f"{seed}.mp4") for seed in range(3)]
    result = tuned(*videos, wish=200.0)
    assert result.num_videos == 3
    assert result.held_out.num_true == result.scores.num_true == 9
    assert result.held_out.f1 <= result.scores.f1


def test_a_break_in_the_answers_ends_an_event():
    whole = video()
    windows = whole.stretches[0].windows
    parts = (Timeline(windows[:100], CLASSES), Timeline(windows[100:], CLASSES))
    broken = replace(whole, stretches=parts)
    policy = DecisionPolicy(smoothing="none", quiet_labels=IDLE)
    assert len(follow(broken.stretches, policy).events) == 4
    assert tuned(broken, wish=200.0).scores.num_predicted >= 4


@pytest.mark.parametrize(
    ("videos", "options", "error"),
    [
        ([], {}, InputMismatchError),
        ([video(truth=())], {}, InputMismatchError),
        ([video(truth=((1.0, 9.0, "idle"),))], {}, InputMismatchError),
        ([video()], {"quiet_labels": frozenset({"rest"})}, SettingError),
        ([video()], {"false_alarms_per_hour": -1.0}, SettingError),
        ([video()], {"max_delay_seconds": float("nan")}, SettingError),
    ],
)
def test_what_cannot_be_tuned_is_refused(videos, options, error):
    with pytest.raises(error):
        tune(videos, **{"false_alarms_per_hour": 6.0, "quiet_labels": IDLE, **options})
