"""What several models come to together: the one that validation chooses in each fold, and the mean of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from vidette.errors import InputMismatchError
from vidette.evaluation.calibration import softmax
from vidette.evaluation.metrics import Metrics, Predictions, measure
from vidette.training.fold_answers import FoldAnswers, pool

__all__ = ["ChosenFold", "ChosenModels", "ScoreName", "average_in_folds", "choose_in_folds"]

ScoreName = Literal["validation_loss", "validation_accuracy"]


@dataclass(frozen=True)
class ChosenFold:
    """One fold's choice.

    Attributes:
        fold: Its name.
        model: The model that answers its test clips.
        scores: Of every model on the fold's validation clips.
        validation_clips: How many they are.
        test_clips: Clips that the chosen model answers.
    """

    fold: str
    model: str
    scores: dict[str, float]
    validation_clips: int
    test_clips: int


@dataclass(frozen=True, eq=False)
class ChosenModels:
    """What choosing among the models by validation comes to: the honest score of the best of them.

    Attributes:
        by: The score that chose.
        folds: The choice of each.
        metrics: Of every clip, answered by the model chosen in the fold in which it was a test clip.
    """

    by: ScoreName
    folds: tuple[ChosenFold, ...]
    metrics: Metrics

    def counts(self) -> dict[str, int]:
        """Return how many folds chose each model, the most often chosen first."""
        models = [fold.model for fold in self.folds]
        return {name: models.count(name) for name in sorted(set(models), key=lambda m: (-models.count(m), m))}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "by": self.by,
            "counts": self.counts(),
            "folds": [asdict(fold) for fold in self.folds],
            "metrics": self.metrics.to_dict(),
        }


def choose_in_folds(runs: Mapping[str, Sequence[FoldAnswers]], *, by: ScoreName) -> ChosenModels:
    """Choose a model in each fold by its validation clips and measure the answers of those chosen.

    No test clip has a say in who answers it, so the score is that of the whole procedure: train all, keep the
    one that validates best. The best row of a table is not: it was chosen by the test clips.

    Args:
        runs: The answers of every model's folds, by the model's name; the folds are the same for all.
        by: The least ``validation_loss``, or the greatest ``validation_accuracy``; of several equally accurate
            models, the one with the least loss.

    Raises:
        InputMismatchError: The models were trained on different folds.
    """
    _check_same_folds(runs)
    count = len(next(iter(runs.values())))
    chosen: list[ChosenFold] = []
    tests = []
    for number in range(count):
        answers = {name: folds[number] for name, folds in runs.items()}
        best = min(answers, key=lambda name: _rank(answers[name], by))
        chosen.append(
            ChosenFold(
                fold=answers[best].name,
                model=best,
                scores={name: getattr(fold, by) for name, fold in answers.items()},
                validation_clips=len(answers[best].validation.names),
                test_clips=len(answers[best].test.names),
            )
        )
        tests.append(answers[best].test)
    return ChosenModels(by, tuple(chosen), measure(pool(tests)))


def average_in_folds(runs: Mapping[str, Sequence[FoldAnswers]]) -> Metrics:
    """Measure the mean of all models' probabilities, each model weighing the same.

    Nothing is chosen, so the score is as honest as that of a single model.

    Args:
        runs: The answers of every model's folds, by the model's name; the folds are the same for all.

    Raises:
        InputMismatchError: The models were trained on different folds.
    """
    _check_same_folds(runs)
    return measure(pool([_mean([fold.test for fold in folds]) for folds in zip(*runs.values(), strict=True)]))


def _mean(answers: Sequence[Predictions]) -> Predictions:
    """Return the mean of several models' probabilities for the same clips, as logits, in the first's order."""
    first, probabilities = answers[0], []
    for each in answers:
        row = {name: i for i, name in enumerate(each.names)}
        column = [each.classes.index(label) for label in first.classes]
        probabilities.append(softmax(each.logits)[[row[name] for name in first.names]][:, column])
    mean = np.mean(probabilities, axis=0)
    return replace(first, logits=np.log(np.maximum(mean, np.finfo(float).tiny)))


def _rank(answers: FoldAnswers, by: ScoreName) -> tuple[float, float]:
    loss = answers.validation_loss
    return (loss, 0.0) if by == "validation_loss" else (-answers.validation_accuracy, loss)


def _check_same_folds(runs: Mapping[str, Sequence[FoldAnswers]]) -> None:
    clips = {
        name: [(sorted(fold.validation.names), sorted(fold.test.names)) for fold in folds]
        for name, folds in runs.items()
    }
    first = next(iter(clips))
    for name, folds in clips.items():
        if folds != clips[first] or not folds:
            raise InputMismatchError(
                f"the folds of {name} hold other clips than those of {first} ({len(folds)} and"
                f" {len(clips[first])} folds), so no model can be chosen fold by fold; compare with --overwrite"
            )
