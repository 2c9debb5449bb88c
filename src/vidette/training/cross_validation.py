"""Every clip tested once by a classifier that never saw its group; beside it, the score that leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidette.data.cache import ClipCache, expand_windows
from vidette.data.manifest import LabelledClip, Manifest
from vidette.data.split import Split, make_folds
from vidette.evaluation.metrics import Metrics, Predictions, measure
from vidette.training.fold import Listener, Trained, train_fold
from vidette.training.fold_answers import FoldAnswers, pool, write_fold
from vidette.training.loop import EpochRecord
from vidette.training.recipe import Recipe

__all__ = ["CrossValidation", "FoldsBy", "cross_validate"]

FoldsBy = Literal["column", "leave_one_group_out"]
_LEAKING = "random folds (stratified)"


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Answers pooled over the folds: each clip's comes from the fold in which it was a test clip.

    Attributes:
        by: How the folds were made.
        num_folds: How many.
        predictions: One row a clip; logits are divided by their own fold's temperature.
        metrics: Measured on the pooled answers, intervals over groups.
        random_metrics: The same recipe on as many stratified folds, which ignore groups; None where not asked.
    """

    by: str
    num_folds: int
    predictions: Predictions
    metrics: Metrics
    random_metrics: Metrics | None

    @property
    def compared(self) -> tuple[tuple[str, Metrics], ...]:
        """The scores to show side by side, each with a name."""
        honest = (f"{self.num_folds} folds by {self.by}", self.metrics)
        return (honest, (_LEAKING, self.random_metrics)) if self.random_metrics else (honest,)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "by": self.by,
            "num_folds": self.num_folds,
            "metrics": self.metrics.to_dict(),
            "stratified": self.random_metrics.to_dict() if self.random_metrics else None,
        }


class _FoldListener:
    """Passes counts on and keeps epochs to itself: folds have too many of them to show."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def say(self, text: str) -> None:
        self.listener.say(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        self.listener.progress(stage, done, total)

    def epoch(self, record: EpochRecord, total: int) -> None:
        del record, total


def cross_validate(
    manifest: Manifest,
    recipe: Recipe,
    *,
    by: FoldsBy | int,
    cache: ClipCache,
    folder: Path,
    listener: Listener,
    smoke: bool = False,
    resume: bool = False,
) -> CrossValidation:
    """Train and test a classifier for every fold, and where groups are known also on random folds.

    Within a fold, the validation clips are taken from its training part, by group where groups are known.

    Args:
        manifest: The labelled clips, cached under the recipe's spec.
        recipe: What to train and how.
        by: The manifest's fold column, one fold a group, or a number of folds.
        cache: The decoded clips.
        folder: Where each fold's checkpoint, ``metrics.jsonl`` and ``answers.json`` go.
        listener: Told how far the work is.
        smoke: One batch of each stage, two folds.
        resume: Go on from the folds' checkpoints.

    Raises:
        SplitError: The clips cannot be divided into such folds.
    """
    kind, num_folds = _kind(manifest, by)
    share, seed = recipe.split.validation_fraction, recipe.train.seed
    folds = make_folds(manifest, by=kind, num_folds=num_folds, validation_fraction=share, seed=seed)

    def pooled(splits: Sequence[Split], name: str) -> Predictions:
        splits = splits[:2] if smoke else splits
        return _pool(manifest, splits, recipe, cache, folder / name, _FoldListener(listener), smoke, resume)

    predictions = pooled(folds, "honest")
    random_metrics = None
    if manifest.has_groups and kind != "stratified" and recipe.split.random_folds:
        random = make_folds(
            manifest, by="stratified", num_folds=len(folds), validation_fraction=share, seed=seed
        )
        random_metrics = measure(pooled(random, "stratified"))
    return CrossValidation(
        kind.replace("_", " "), len(folds), predictions, measure(predictions), random_metrics
    )


def _kind(
    manifest: Manifest, by: FoldsBy | int
) -> tuple[Literal["column", "grouped", "stratified", "leave_one_group_out"], int]:
    if isinstance(by, int):
        return ("grouped" if manifest.has_groups else "stratified"), by
    return by, 0


def _pool(
    manifest: Manifest,
    splits: Sequence[Split],
    recipe: Recipe,
    cache: ClipCache,
    folder: Path,
    listener: _FoldListener,
    smoke: bool,
    resume: bool,
) -> Predictions:
    tests: list[Predictions] = []
    for number, split in enumerate(splits):
        place = folder / f"fold-{number}"
        place.mkdir(parents=True, exist_ok=True)
        trained = train_fold(
            manifest, split, recipe, cache=cache, folder=place, listener=listener, resume=resume, smoke=smoke
        )
        answers = _answers(manifest, split, trained, cache)
        write_fold(answers, place)
        tests.append(answers.test)
        listener.progress(f"folds ({folder.name})", number + 1, len(splits))
    return pool(tests)


def _answers(manifest: Manifest, split: Split, trained: Trained, cache: ClipCache) -> FoldAnswers:
    position = {name: k for k, name in enumerate(manifest.classes)}
    test = Predictions(
        classes=manifest.classes,
        labels=np.array([position[manifest.clips[i].label] for i in split.test], dtype=np.int64),
        logits=np.stack([_clip_logits(trained, manifest.clips[i], cache) for i in split.test]),
        groups=tuple(manifest.group_of(i) for i in split.test),
        names=tuple(manifest.clips[i].name for i in split.test),
    )
    chosen_by = trained.validation
    scaled = replace(chosen_by, logits=chosen_by.logits / trained.classifier.temperature)
    return FoldAnswers(split.name, scaled, test)


def _clip_logits(trained: Trained, clip: LabelledClip, cache: ClipCache) -> np.ndarray:
    """Return a test clip's logits ``(K,)``, the mean over its windows, on the scale of its probabilities."""
    classifier = trained.classifier
    windows = expand_windows([clip], classifier.spec)
    if trained.features is not None:
        logits = trained.features.logits(windows)
    else:
        logits = classifier.logits([cache.load(window, classifier.spec) for window in windows])
    return logits.mean(axis=0) / classifier.temperature
