"""What every drift detector keeps: quiet at the promised rate, told of a step, resettable, repeatable."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from vidette.evaluation.levels import Level, PictureLevels
from vidette.evaluation.reference import FeatureReference, ReferenceStatistics
from vidette.streaming.drift import DriftDetector, DriftPolicy
from vidette.streaming.run_length import Cusum, StepLaw, average_run_length, threshold_for

CLASSES = ("fall", "walk", "wave")
SHORT = DriftPolicy(false_alarm_seconds=600.0)
CLIPS, FRAMES = 40, 4


def level(mean, between, within, *, scale="linear", seed=0):
    rng = np.random.default_rng(seed)
    on_scale = mean + rng.normal(0, between, CLIPS)[:, None] + rng.normal(0, within, (CLIPS, FRAMES))
    return Level.of(list(np.expm1(on_scale) if scale == "log" else on_scale), scale=scale)


LEVELS = {
    "brightness": level(120, 12, 3),
    "contrast": level(3.9, 0.2, 0.05, scale="log"),
    "sharpness": level(6.0, 0.4, 0.1, scale="log"),
    "noise": level(1.1, 0.1, 0.05, scale="log"),
}
REFERENCE = ReferenceStatistics(
    n=CLIPS,
    classes=CLASSES,
    **LEVELS,
    change=level(1.0, 0.2, 0.2, scale="log"),
    channel_mean=(0.0,) * 3,
    channel_std=(1.0,) * 3,
    features=FeatureReference(
        np.zeros(4), np.ones(4), np.zeros((0, 4)), np.zeros(0), 1.0, level(0.7, 0.05, 0.05, scale="log")
    ),
    confidence=level(0.9, 0.02, 0.0),
    entropy=level(0.4, 0.1, 0.0),
    logit_mean=(0.0,) * 3,
    logit_std=(1.0,) * 3,
    label_rates=(0.3, 0.3, 0.4),
    flip_rate=0.02,
)


bounds = functools.cache(Level.bounds)


class Source:
    """Numbers as a camera would give them: every level about ``at``, -1 and 1 being the edges of training's."""

    def __init__(self, *, seed=0, at=0.0, policy=SHORT, **more):
        self.detector = DriftDetector(CLASSES, REFERENCE, policy=policy, answer_seconds=0.25, **more)
        self.seed, self.at = seed, at
        self.begin()

    def begin(self):
        self.rng, self.seconds, self.label, self.told = np.random.default_rng(self.seed), 0.0, 0, []

    def draw(self, level, shift=0.0):
        """Draw a value about the middle or an edge of the allowed range, spread as in training."""
        low, high = bounds(level)
        value = (low + high) / 2 + self.at * (high - low) / 2
        value += self.rng.normal(0, 1) * level.total_std + shift * (high - low) / 2
        return float(np.expm1(value)) if level.scale == "log" else value

    def run(self, seconds, *, change=0.8, step=None, flip_rate=0.02, probability=0.92):
        """Go on for some seconds; ``step`` shifts levels by name, in half widths of their range."""
        step = step or {}
        for _ in range(int(seconds)):
            levels = {name: self.draw(each, step.get(name, 0.0)) for name, each in LEVELS.items()}
            distance = self.draw(REFERENCE.features.distance, step.get("features", 0.0))
            self.told += self.detector.look(
                self.seconds, PictureLevels(**levels), change=change, distance=distance
            )
            for _ in range(4):
                self.label = (self.label + (self.rng.random() < flip_rate)) % 3
                rest = (1 - probability) / 2
                probabilities = np.where(np.arange(3) == self.label, probability, rest)
                self.told += self.detector.answered(self.seconds, probabilities)
                self.seconds += 0.25
        return self

    def begun(self):
        return [signal.kind for signal in self.told if signal.stop_seconds is None]

    def ended(self):
        return [signal.kind for signal in self.told if signal.stop_seconds is not None]


def run_lengths(law, length, *, count=500, seed=0):
    """Draw values as bad as the law allows, and count how many come before each false alarm."""
    rng, cusum, lengths = np.random.default_rng(seed), Cusum(length, law), []
    for _ in range(count):
        cusum.reset()
        number = 0
        while True:
            number += 1
            if law.kind == "normal":
                value = rng.normal()
            else:
                value = (rng.poisson(law.mean) - law.mean) / np.sqrt(law.mean)
            if cusum.update(value):
                break
        lengths.append(number)
    return np.array(lengths)


@pytest.mark.parametrize("law", [StepLaw(), StepLaw("poisson", 0.3), StepLaw("poisson", 2.0)], ids=repr)
def test_false_alarms_come_as_often_as_promised(law):
    """The mean of 500 run lengths has a standard error of 4 to 5 %."""
    exact = average_run_length(threshold_for(200.0, law), law)
    assert 200 <= exact < 300, "counts move in steps, so the promise is overfulfilled"
    assert 0.85 < run_lengths(law, 200.0).mean() / exact < 1.15


@pytest.mark.parametrize(("threshold", "tables"), [(3.0, 117.6), (4.0, 335.4), (5.0, 930.9)])
def test_run_lengths_are_those_of_the_tables(threshold, tables):
    """Of a one-sided CUSUM with allowance 0.5; here far values count less."""
    assert average_run_length(threshold - 1 / 8) / 1.06 < tables < average_run_length(threshold)


def test_a_longer_promise_needs_a_higher_threshold():
    day, week = threshold_for(86_400.0), threshold_for(7 * 86_400.0)
    assert 8 < day < week < 13
    assert 86_400 <= average_run_length(day) < 1.2 * 86_400


def test_a_source_at_the_edge_of_training_is_quiet_at_the_promised_rate():
    """All levels at once at an edge of what is allowed, for 40 promised times."""
    for at in (-1.0, 1.0):
        source = Source(at=at)
        alarms = len(source.run(40 * 600).begun())
        assert 8 <= alarms <= 55, "as often as promised, not never"


def test_a_source_like_training_is_quieter_still():
    assert len(Source().run(10 * 600).begun()) <= 1


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("brightness", {"brightness": 1.5}),
        ("brightness", {"brightness": -1.5}),
        ("contrast", {"contrast": -1.8}),
        ("blur", {"sharpness": -1.8}),
        ("noise", {"noise": 1.8}),
        ("features", {"features": 1.8}),
    ],
)
def test_a_step_is_told_and_ends_with_it(kind, step):
    source = Source(policy=DriftPolicy()).run(60)
    assert source.begun() == []
    source.run(60, step=step)
    assert source.begun() == [kind]
    begun = source.told[0]
    assert 60 <= begun.start_seconds <= 70, "since the step, not since it was told"
    source.run(60)
    assert source.ended() == [kind]
    assert begun.start_seconds < 118 < source.told[1].stop_seconds < 140


def test_unsure_answers_are_told():
    assert Source(policy=DriftPolicy()).run(60).run(60, probability=0.4).begun() == ["certainty"]


def test_flickering_answers_are_told():
    source = Source(policy=DriftPolicy()).run(60).run(30, flip_rate=0.8)
    assert source.begun() == ["flicker"]
    assert source.run(60).ended() == ["flicker"]


@pytest.mark.parametrize("reference", [REFERENCE, None], ids=["reference", "no reference"])
@pytest.mark.parametrize(
    ("kind", "levels", "change", "after"),
    [
        ("frozen", PictureLevels(120, 50, 400, 2), 0.0, 5.0),
        ("black", PictureLevels(3, 2, 1, 0.5), 0.5, 2.0),
        ("covered", PictureLevels(60, 6, 2, 1), 0.5, 2.0),
    ],
)
def test_what_is_plain_to_see(reference, kind, levels, change, after):
    detector = DriftDetector(CLASSES, reference)
    good = PictureLevels(120, 50, 400, 2)
    for second in range(3):
        assert detector.look(second, good, change=None if second == 0 else 1.0) == []
    told = [detector.look(second, levels, change=change) for second in range(3, 20)]
    begun = [signal for signals in told for signal in signals]
    assert [(signal.kind, signal.start_seconds, signal.stop_seconds) for signal in begun] == [(kind, 3, None)]
    assert told[int(after)] == begun, "told as soon as it has lasted"
    assert [signal.kind for signal in detector.active] == [kind]
    ended = [signal for second in range(20, 24) for signal in detector.look(second, good, change=1.0)]
    assert [(signal.kind, signal.start_seconds) for signal in ended] == [(kind, 3)]
    assert 20 <= ended[0].stop_seconds < 24
    assert detector.active == ()


def test_a_dark_source_that_was_trained_on_is_not_black():
    night = replace(REFERENCE, brightness=level(6, 1, 0.5), contrast=level(1.5, 0.2, 0.1, scale="log"))
    detector = DriftDetector(CLASSES, night)
    dark = PictureLevels(6.0, 3.5, 400, 2)
    assert not [kind for second in range(20) for kind in detector.look(second, dark, change=1.0)]


def test_an_answer_that_never_changes_is_stuck_unless_it_is_quiet():
    policy = DriftPolicy(stuck_seconds=30.0, false_alarm_seconds=600.0)
    wave = np.array([0.04, 0.04, 0.92])
    detector = DriftDetector(CLASSES, None, policy=policy)
    told = [signal for second in range(100) for signal in detector.answered(float(second), wave)]
    assert [(signal.kind, signal.start_seconds) for signal in told] == [("stuck", 0.0)]
    ended = detector.answered(100.0, wave[::-1])
    assert [(signal.kind, signal.stop_seconds) for signal in ended] == [("stuck", 100.0)]
    quiet = DriftDetector(CLASSES, None, policy=policy, quiet_labels=frozenset({"wave"}))
    assert not [signal for second in range(100) for signal in quiet.answered(float(second), wave)]


def test_one_odd_second_is_no_drift():
    source = Source(policy=DriftPolicy()).run(30)
    source.run(1, step={"brightness": 50, "noise": 50, "features": 50})
    assert source.run(30).told == []


def test_the_same_numbers_give_the_same_signals_and_a_reset_forgets():
    first, second = Source(at=1.0, seed=3), Source(at=1.0, seed=3)
    assert first.run(6000).told == second.run(6000).told != []
    first.detector.reset()
    first.begin()
    assert first.run(6000).told == second.told
    assert Source(at=1.0, seed=4).run(6000).told != second.told


def test_the_end_of_a_source_ends_its_signals():
    source = Source(policy=DriftPolicy()).run(10).run(60, step={"brightness": 2})
    (ended,) = source.detector.finish(source.seconds)
    assert (ended.kind, ended.stop_seconds) == ("brightness", source.seconds)
    assert source.detector.active == ()


def test_without_a_reference_nothing_is_compared():
    detector = DriftDetector(CLASSES)
    for second in range(100):
        odd = PictureLevels(250, 60, 1000, 40)
        assert detector.look(second, odd, change=1.0, distance=99.0) == []
