"""Calibration error against hand counts; temperature against data made with a known one."""

import numpy as np
import pytest

from vidette.errors import InputMismatchError
from vidette.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
)


def drawn(num_clips, num_classes, *, seed=0, scale=2.0):
    """Logits whose softmax is exactly the chance of each label."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=scale, size=(num_clips, num_classes))
    labels = np.array([generator.choice(num_classes, p=p) for p in softmax(logits)])
    return logits, labels


def test_softmax_survives_large_logits_and_sums_to_one():
    probabilities = softmax(np.array([[1000.0, 0.0, -1000.0]]), temperature=2.0)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1.0)


def test_ece_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # bin of 0.9: accuracy 0.5, gap 0.4; bin of 0.6: accuracy 1, gap 0.4
    assert expected_calibration_error(probabilities, labels, num_bins=10) == pytest.approx(0.4)


def test_ece_is_a_mean_over_bins_and_not_over_all():
    probabilities = np.array([[1.0, 0.0]] * 2 + [[0.5, 0.5]] * 2)
    labels = np.array([0, 1, 0, 0])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.5)
    assert abs(probabilities.max(1).mean() - 0.75) == 0  # over all, the gap would be 0


def test_bin_edges_belong_to_the_bin_below():
    bins = reliability_bins(np.array([[0.6, 0.4], [1.0, 0.0]]), np.array([0, 0]), num_bins=5)
    assert bins.counts.tolist() == [0, 0, 1, 0, 1]
    assert np.isnan(bins.accuracy[0])


def test_ece_of_true_probabilities_is_small_and_of_sharpened_ones_large():
    logits, labels = drawn(4000, 3)
    assert expected_calibration_error(softmax(logits), labels) < 0.03
    assert expected_calibration_error(softmax(4 * logits), labels) > 0.1


def test_ece_of_nothing_is_undefined():
    assert np.isnan(expected_calibration_error(np.zeros((0, 2)), np.zeros(0, dtype=int)))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(factor):
    logits, labels = drawn(4000, 4)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.1)


def test_temperature_lowers_the_loss_and_the_calibration_error():
    logits, labels = drawn(1000, 5, seed=3)
    temperature = fit_temperature(5 * logits, labels)
    before, after = softmax(5 * logits), softmax(5 * logits, temperature=temperature)
    assert expected_calibration_error(after, labels) < expected_calibration_error(before, labels) / 2


def test_all_right_answers_do_not_drive_the_temperature_to_its_bound():
    logits = np.eye(2)[np.arange(30) % 2] * 4.0
    temperature = fit_temperature(logits, np.arange(30) % 2)
    top = softmax(logits, temperature=temperature).max()
    assert 0.95 < top < 0.995


def test_logits_without_differences_leave_the_temperature_alone():
    assert fit_temperature(np.ones((4, 3)), np.array([0, 1, 2, 0])) == 1.0


@pytest.mark.parametrize("logits", [np.zeros((0, 2)), np.full((1, 2), np.inf)])
def test_temperature_refuses_what_it_cannot_fit(logits):
    with pytest.raises(InputMismatchError):
        fit_temperature(logits, np.zeros(len(logits), dtype=int))
