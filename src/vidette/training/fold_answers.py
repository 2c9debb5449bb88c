"""What the classifier of one fold answered, kept in the run folder: to validation clips and to test clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidette.errors import ClassifierError
from vidette.evaluation.calibration import softmax
from vidette.evaluation.metrics import Predictions

__all__ = ["FoldAnswers", "pool", "read_folds", "write_fold"]

_FILE = "answers.json"


@dataclass(frozen=True, eq=False)
class FoldAnswers:
    """Answers of one fold's classifier; logits are divided by its temperature, a clip's windows averaged.

    Attributes:
        name: The fold's name.
        validation: Of the clips that the weights and the temperature were chosen by.
        test: Of the clips that nothing was chosen by.
    """

    name: str
    validation: Predictions
    test: Predictions

    @property
    def validation_loss(self) -> float:
        """Mean cross-entropy of the validation clips, in nats a clip."""
        probabilities = softmax(self.validation.logits)
        right = probabilities[np.arange(len(probabilities)), self.validation.labels]
        return float(-np.log(np.maximum(right, np.finfo(float).tiny)).mean())

    @property
    def validation_accuracy(self) -> float:
        """Share of the validation clips answered right."""
        return float((self.validation.answers() == self.validation.labels).mean())


def write_fold(answers: FoldAnswers, folder: Path) -> None:
    """Write a fold's answers into its folder, as JSON."""
    values = {
        "fold": answers.name,
        "classes": list(answers.test.classes),
        "validation_loss": answers.validation_loss,
        "validation_accuracy": answers.validation_accuracy,
        "validation": _rows(answers.validation),
        "test": _rows(answers.test),
    }
    partial = folder / f"{_FILE}.partial"
    partial.write_text(json.dumps(values, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(folder / _FILE)


def read_folds(folder: Path) -> tuple[FoldAnswers, ...]:
    """Read the answers of ``fold-0``, ``fold-1``, ... in ``folder``, as many as there are.

    Raises:
        ClassifierError: A file is damaged.
    """
    found: list[FoldAnswers] = []
    while (path := folder / f"fold-{len(found)}" / _FILE).is_file():
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            classes = tuple(values["classes"])
            parts = [_predictions(values[part], classes) for part in ("validation", "test")]
            found.append(FoldAnswers(values["fold"], *parts))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ClassifierError(f"{path} cannot be read ({error!r}); train again with --overwrite") from error
    return tuple(found)


def pool(answers: Sequence[Predictions]) -> Predictions:
    """Return the answers of several sets of clips as one; the classes are the same."""
    return Predictions(
        classes=answers[0].classes,
        labels=np.concatenate([part.labels for part in answers]),
        logits=np.concatenate([part.logits for part in answers]),
        groups=tuple(group for part in answers for group in part.groups),
        names=tuple(name for part in answers for name in part.names),
    )


def _rows(predictions: Predictions) -> list[dict[str, Any]]:
    rows = zip(
        predictions.names, predictions.groups, predictions.labels, predictions.logits.tolist(), strict=True
    )
    return [
        {"clip": name, "group": group, "label": predictions.classes[label], "logits": logits}
        for name, group, label, logits in rows
    ]


def _predictions(rows: Sequence[dict[str, Any]], classes: tuple[str, ...]) -> Predictions:
    return Predictions(
        classes=classes,
        labels=np.array([classes.index(row["label"]) for row in rows], dtype=np.int64),
        logits=np.array([row["logits"] for row in rows], dtype=np.float64),
        groups=tuple(row["group"] for row in rows),
        names=tuple(row["clip"] for row in rows),
    )
