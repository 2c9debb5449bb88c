"""Choosing by validation, fold by fold: the test clips have no say."""

from dataclasses import replace

import numpy as np
import pytest

from vidette.errors import ClassifierError, InputMismatchError
from vidette.evaluation.metrics import Predictions
from vidette.training.choice import average_in_folds, choose_in_folds
from vidette.training.fold_answers import FoldAnswers, read_folds, write_fold


def answers(right, names, *, sure=4.0):
    """Answer clips of class b, some of them right."""
    logits = np.array([[0.0, sure] if r else [sure, 0.0] for r in right])
    return Predictions(("a", "b"), np.ones(len(right), int), logits, names, names)


def fold(number, validation, test, *, sure=4.0):
    return FoldAnswers(
        f"fold {number}",
        answers(validation, tuple(f"v{number}{i}" for i in range(len(validation))), sure=sure),
        answers(test, tuple(f"t{number}{i}" for i in range(len(test)))),
    )


def test_validation_chooses_even_where_the_test_clips_would_not():
    runs = {
        "lucky": [fold(0, [1, 0, 0], [1, 1, 1]), fold(1, [1, 1, 1], [0, 1])],
        "good": [fold(0, [1, 1, 0], [0, 0, 1]), fold(1, [0, 0, 1], [1, 1])],
    }
    chosen = choose_in_folds(runs, by="validation_accuracy")
    assert [f.model for f in chosen.folds] == ["good", "lucky"]
    assert chosen.metrics.n == 5
    assert chosen.metrics.accuracy == pytest.approx(2 / 5)
    assert chosen.folds[0].scores == {"lucky": pytest.approx(1 / 3), "good": pytest.approx(2 / 3)}
    assert chosen.counts() == {"good": 1, "lucky": 1}


def test_loss_and_accuracy_are_two_ways_to_choose_and_loss_breaks_ties():
    surely_wrong_once, weakly_wrong_twice = [0, 1, 1], [0, 0, 1]
    runs = {
        "accurate": [fold(0, surely_wrong_once, [1], sure=20.0)],
        "calm": [fold(0, weakly_wrong_twice, [0], sure=0.1)],
        "calmer": [fold(0, surely_wrong_once, [1], sure=10.0)],
    }
    assert choose_in_folds(runs, by="validation_loss").folds[0].model == "calm"
    assert choose_in_folds(runs, by="validation_accuracy").folds[0].model == "calmer"


def test_the_mean_weighs_probabilities_alike_and_goes_by_names():
    """Of two sure and wrong answers to one right, the wrong ones win; clips may come in another order."""
    first = fold(0, [1], [1, 0])
    turned = replace(first.test, logits=first.test.logits[::-1], names=first.test.names[::-1])
    same = replace(first, test=turned)
    wrong = fold(0, [1], [0, 0])
    assert average_in_folds({"a": [first], "b": [same]}).accuracy == 0.5
    assert average_in_folds({"a": [first], "b": [wrong], "c": [wrong]}).accuracy == 0.0
    faint = replace(first, test=replace(first.test, logits=first.test.logits / 100))
    assert average_in_folds({"a": [first], "b": [faint], "c": [wrong]}).accuracy == 0.5
    with pytest.raises(InputMismatchError):
        average_in_folds({"a": [first], "b": [fold(0, [1], [1])]})


def test_folds_of_other_clips_are_refused():
    runs = {"a": [fold(0, [1], [1, 0])], "b": [fold(0, [1], [1])]}
    with pytest.raises(InputMismatchError, match="folds of b"):
        choose_in_folds(runs, by="validation_loss")
    with pytest.raises(InputMismatchError):
        choose_in_folds({"a": [], "b": []}, by="validation_loss")


def test_answers_are_read_as_they_were_written(tmp_path):
    written = fold(0, [1, 0], [1, 1, 0], sure=1 / 3)
    (tmp_path / "fold-0").mkdir()
    write_fold(written, tmp_path / "fold-0")
    (read,) = read_folds(tmp_path)
    assert read.name == "fold 0"
    for ours, theirs in ((read.validation, written.validation), (read.test, written.test)):
        assert np.array_equal(ours.logits, theirs.logits)
        assert np.array_equal(ours.labels, theirs.labels)
        assert (ours.names, ours.groups, ours.classes) == (theirs.names, theirs.groups, theirs.classes)
    assert read.validation_loss == pytest.approx((np.log1p(np.exp(-1 / 3)) + np.log1p(np.exp(1 / 3))) / 2)
    (tmp_path / "fold-0" / "answers.json").write_text("{}")
    with pytest.raises(ClassifierError, match="cannot be read"):
        read_folds(tmp_path)
