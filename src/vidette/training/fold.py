"""One split trained: clips in, classifier out. What a single run and every fold of a cross-validation share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from vidette.classifier.classifier import Classifier
from vidette.data.cache import ClipCache, expand_windows
from vidette.data.dataset import ClipDataset
from vidette.data.manifest import LabelledClip, Manifest
from vidette.data.split import Split
from vidette.evaluation.abstain import fit_abstaining
from vidette.evaluation.calibration import fit_temperature
from vidette.evaluation.metrics import Predictions
from vidette.evaluation.reference import MOST_CLIPS, reference_statistics
from vidette.models import VideoModel
from vidette.models.base import CodebookHead, FrameModel
from vidette.training.batches import BatchMix, LabelledTensors
from vidette.training.features import FeatureDataset, FeatureStore
from vidette.training.loop import EpochRecord, FitResult, fit
from vidette.training.lr_finder import RateSearch, find_learning_rate
from vidette.training.recipe import Recipe, TrainSettings
from vidette.training.start import is_frozen, new_model, recipe_spec
from vidette.video.augmentation import Augmentation
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.transforms import clip_tensor, pixels_tensor

__all__ = ["Listener", "Trained", "train_fold"]

_MOST_CODEBOOK_CLIPS = 1000


class Listener(Protocol):
    """Who is told how far the work is; the command line draws it."""

    def say(self, text: str) -> None:
        """Show one line."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` clips of a stage are ready."""
        ...

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Show an epoch's numbers; ``total`` epochs are planned."""
        ...


@dataclass(frozen=True)
class Trained:
    """A classifier with how it came about.

    Attributes:
        classifier: With the weights that were best on validation, calibrated there.
        fit: The course of training.
        validation: Its answers to the validation clips; a clip's windows are averaged.
        features: Of clips under the frozen backbone; None where it was fine-tuned.
    """

    classifier: Classifier
    fit: FitResult
    validation: Predictions
    features: FeatureStore | None


def train_fold(
    manifest: Manifest,
    split: Split,
    recipe: Recipe,
    *,
    cache: ClipCache,
    folder: Path,
    listener: Listener,
    resume: bool = False,
    smoke: bool = False,
) -> Trained:
    """Train one classifier on a split's training clips, chosen and calibrated on its validation clips.

    The test clips are not touched.

    Args:
        manifest: The labelled clips; already cached under the recipe's spec.
        split: Which clips are for what.
        recipe: What to train and how.
        cache: The decoded clips.
        folder: Where the checkpoint and ``metrics.jsonl`` go, and ``learning_rate.json`` if it is looked for.
        listener: Told how far the work is.
        resume: Go on from a checkpoint in ``folder``.
        smoke: One batch of each stage.

    Raises:
        SettingError: The recipe does not fit the model, or training cannot run as asked.
        StorageError: The disk is full.
    """
    spec = recipe_spec(recipe)
    training = _samples(manifest, split.train, spec)
    validation = _samples(manifest, split.validation, spec)
    model, options = new_model(recipe, num_classes=len(manifest.classes), listener=listener)
    if isinstance(model.head, CodebookHead):
        listener.say("learning the codebook from the training clips, without their labels")
        model.head.learn_codebook(_codebook_clips(model, training, spec, cache))
    features: FeatureStore | None = None
    if is_frozen(recipe) and isinstance(model, FrameModel):
        features = FeatureStore(model, spec, cache, device=_feature_device(recipe))
        features.prepare(
            _samples(manifest, range(len(manifest.clips)), spec),
            on_progress=lambda done, total: listener.progress("features", done, total),
        )
    task = _Task(manifest.classes, spec, recipe, cache, listener, resume, smoke)
    lesson = task.lesson(model, training, validation, features)
    settings = task.settings(lesson, folder)
    result = task.fit(lesson, settings, folder)
    if settings.refit and not smoke:
        model, features = task.refit(
            model, features, training, validation, settings, folder / "refit", stop_after=result.best_epoch + 1
        )
    classifier = Classifier(
        model,
        recipe.model.model,
        options,
        replace(spec, trained_spans=_spans(manifest, split, spec, cache)),
        manifest.classes,
        temperature=_temperature(result),
        training_statistics={**_statistics(training, result), "learning_rate": settings.learning_rate},
    )
    answers = _validation_answers(validation, result, manifest.classes)
    classifier.training_statistics = {
        **classifier.training_statistics,
        "abstaining": _abstaining(answers, classifier.temperature),
        "reference": _reference(classifier, validation or training, cache, features),
    }
    return Trained(classifier, result, answers, features)


_Lesson: TypeAlias = tuple[nn.Module, Callable[[Tensor], Tensor], tuple[LabelledTensors, LabelledTensors]]
"""What learns, how a batch becomes its input, and the clips to learn from and to choose by."""


@dataclass(frozen=True)
class _Task:
    """What stays the same while one split is trained."""

    classes: tuple[str, ...]
    spec: ClipSpec
    recipe: Recipe
    cache: ClipCache
    listener: Listener
    resume: bool
    smoke: bool

    @property
    def mix(self) -> BatchMix:
        return BatchMix(self.recipe.augment, seed=self.recipe.train.seed)

    def lesson(
        self,
        model: VideoModel,
        training: Sequence[LabelledClip],
        validation: Sequence[LabelledClip],
        features: FeatureStore | None,
    ) -> _Lesson:
        return _inputs(model, self.spec, training, validation, self.classes, self.recipe, self.cache, features)

    def settings(self, lesson: _Lesson, folder: Path) -> TrainSettings:
        """Return the recipe's settings, with the learning rate that is looked for where asked."""
        settings, (module, prepare, (training, _)) = self.recipe.train, lesson
        if not settings.find_learning_rate or self.smoke:
            return settings

        def search() -> RateSearch:
            k = len(self.classes)
            return find_learning_rate(module, training, settings, prepare=prepare, num_classes=k, mix=self.mix)

        return _with_found_rate(settings, search, folder=folder, resume=self.resume, listener=self.listener)

    def fit(
        self, lesson: _Lesson, settings: TrainSettings, folder: Path, *, stop_after: int | None = None
    ) -> FitResult:
        module, prepare, (training, validation) = lesson
        return fit(
            module,
            training,
            validation,
            settings,
            prepare=prepare,
            num_classes=len(self.classes),
            folder=folder,
            mix=self.mix,
            resume=self.resume,
            smoke=self.smoke,
            stop_after=stop_after,
            on_epoch=self.listener.epoch,
            on_foreseen=lambda seconds: _say_foreseen(seconds, self.listener),
        )

    def refit(
        self,
        first: VideoModel,
        features: FeatureStore | None,
        training: Sequence[LabelledClip],
        validation: Sequence[LabelledClip],
        settings: TrainSettings,
        folder: Path,
        *,
        stop_after: int,
    ) -> tuple[VideoModel, FeatureStore | None]:
        """Train from the start on training and validation clips together, for so many epochs.

        A codebook stays as the first training had it.
        """
        self.listener.say(f"once more with the validation clips, {stop_after} epochs")
        model, _ = new_model(self.recipe, num_classes=len(self.classes), listener=self.listener)
        if isinstance(first.head, CodebookHead) and isinstance(model.head, CodebookHead):
            model.head.learnt_first().load_state_dict(first.head.learnt_first().state_dict())
        if features is not None and isinstance(model, FrameModel):
            features = features.of(model)
        folder.mkdir(parents=True, exist_ok=True)
        lesson = self.lesson(model, [*training, *validation], validation, features)
        self.fit(lesson, settings, folder, stop_after=stop_after)
        return model, features


def _with_found_rate(
    settings: TrainSettings,
    search: Callable[[], RateSearch],
    *,
    folder: Path,
    resume: bool,
    listener: Listener,
) -> TrainSettings:
    """Return the settings with the rate that is found, or was found before the run was interrupted."""
    kept = folder / "learning_rate.json"
    found = RateSearch.read(kept) if resume and kept.is_file() else search()
    found.write(kept)
    listener.say(found.line())
    return replace(settings, learning_rate=found.suggestion)


def _say_foreseen(seconds: float, listener: Listener) -> None:
    """Say how long training takes, where it is more than a minute."""
    if seconds > 60:
        listener.say(f"training takes about {round(seconds / 60)} min, or less if it stops early")


def _samples(manifest: Manifest, indices: Sequence[int], spec: ClipSpec) -> list[LabelledClip]:
    """Return the clips themselves, or all their windows where the spec has a fixed span."""
    return expand_windows([manifest.clips[i] for i in indices], spec)


def _codebook_clips(
    model: VideoModel, training: Sequence[LabelledClip], spec: ClipSpec, cache: ClipCache
) -> Iterator[Tensor]:
    """Return the features ``(1, T, ...)`` of training clips that are spread evenly over all of them."""
    steps = torch.linspace(0, len(training) - 1, min(len(training), _MOST_CODEBOOK_CLIPS)).round().long()
    with torch.no_grad():
        for i in steps.tolist():
            yield model.frame_features(clip_tensor([cache.load(training[i], spec)], spec))


def _feature_device(recipe: Recipe) -> str:
    wanted = recipe.train.accelerator
    return "cuda" if wanted in ("auto", "gpu") and torch.cuda.is_available() else "cpu"


def _inputs(
    model: VideoModel,
    spec: ClipSpec,
    training: Sequence[LabelledClip],
    validation: Sequence[LabelledClip],
    classes: Sequence[str],
    recipe: Recipe,
    cache: ClipCache,
    features: FeatureStore | None,
) -> _Lesson:
    if features is not None:
        data = FeatureDataset(training, classes, features), FeatureDataset(validation, classes, features)
        return features.learner, lambda batch: batch, data
    settings = recipe.augment
    augmentation = Augmentation(**{field.name: getattr(settings, field.name) for field in fields(Augmentation)})
    seed = recipe.train.seed
    learn = ClipDataset(training, classes, spec, cache, augmentation=augmentation, seed=seed)
    choose = ClipDataset(validation, classes, spec, cache, augmentation=None, seed=seed)
    if recipe.model.frozen and isinstance(model, FrameModel):
        model.backbone.requires_grad_(False)
    return model, lambda batch: pixels_tensor(batch, spec), (learn, choose)


def _spans(manifest: Manifest, split: Split, spec: ClipSpec, cache: ClipCache) -> SpanRange:
    """Return the spans of the training clips, first to last chosen frame."""
    spans = torch.tensor(
        [cache.load(clip, spec).span_seconds for clip in _samples(manifest, split.train, spec)]
    )
    return SpanRange(float(spans.min()), float(spans.double().median()), float(spans.max()))


def _temperature(result: FitResult) -> float:
    return fit_temperature(result.validation_logits.numpy(), result.validation_labels.numpy())


def _validation_answers(
    validation: Sequence[LabelledClip], result: FitResult, classes: tuple[str, ...]
) -> Predictions:
    rows: dict[str, list[int]] = {}
    answered = validation[: len(result.validation_labels)]
    for row, clip in enumerate(answered):
        rows.setdefault(clip.part_of or clip.name, []).append(row)
    logits, first = result.validation_logits.double(), [members[0] for members in rows.values()]
    return Predictions(
        classes=classes,
        labels=result.validation_labels[first].numpy(),
        logits=np.array([logits[members].mean(dim=0).numpy() for members in rows.values()]),
        groups=tuple(answered[row].group or answered[row].path.as_posix() for row in first),
        names=tuple(rows),
    )


def _abstaining(answers: Predictions, temperature: float) -> dict[str, Any]:
    """Return thresholds for abstaining with the risk that they promise."""
    made = fit_abstaining(answers.logits, answers.labels, temperature=temperature, groups=answers.groups)
    return made.to_dict()


def _reference(
    classifier: Classifier, clips: Sequence[LabelledClip], cache: ClipCache, features: FeatureStore | None
) -> dict[str, Any]:
    """Return how pictures, features and answers are on clips spread evenly over those given."""
    steps = torch.linspace(0, len(clips) - 1, min(len(clips), MOST_CLIPS)).round().long().tolist()
    chosen = [clips[i] for i in steps]
    measured = reference_statistics(
        classifier,
        (cache.load(clip, classifier.spec) for clip in chosen),
        known=((features.load_frames(clip), features.logits([clip])[0]) for clip in chosen)
        if features
        else None,
    )
    return measured.to_dict()


def _statistics(training: Sequence[LabelledClip], result: FitResult) -> dict[str, Any]:
    best = result.history[result.best_epoch]
    counts: dict[str, int] = {}
    for clip in training:
        counts[clip.label] = counts.get(clip.label, 0) + 1
    return {
        "training_clips": counts,
        "validation_clips": len(result.validation_labels),
        "validation_accuracy": best.validation_accuracy,
        "validation_loss": best.validation_loss,
        "best_epoch": result.best_epoch,
    }
