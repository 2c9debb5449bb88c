"""One split trained: clips in, classifier out. What a single run and every fold of a cross-validation share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidette.classifier.classifier import Classifier
from vidette.data.cache import ClipCache, expand_windows
from vidette.data.dataset import ClipDataset
from vidette.data.manifest import LabelledClip, Manifest
from vidette.data.split import Split
from vidette.errors import SettingError
from vidette.evaluation.abstain import fit_abstaining
from vidette.evaluation.calibration import fit_temperature
from vidette.evaluation.metrics import Predictions
from vidette.evaluation.reference import MOST_CLIPS, reference_statistics
from vidette.models import VideoModel, build_model, model_kind, model_options
from vidette.models.backbone import PACKAGED_BACKBONE, imagenet_channel_order
from vidette.models.base import FrameModel
from vidette.models.weights import load_weights, weights_normalisation
from vidette.training.batches import BatchMix, LabelledTensors
from vidette.training.features import FeatureDataset, FeatureStore
from vidette.training.loop import EpochRecord, FitResult, fit
from vidette.training.recipe import ModelSettings, Recipe
from vidette.video.augmentation import Augmentation, flip_suggestion
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.transforms import pixels_tensor

__all__ = ["Listener", "Trained", "chosen_options", "recipe_spec", "train_fold"]


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


def recipe_spec(recipe: Recipe) -> ClipSpec:
    """Return the spec a recipe asks for: its clip settings and the normalisation its weights expect."""
    clip, model = recipe.clip, recipe.model
    spec = ClipSpec(
        num_frames=clip.num_frames,
        height=clip.size,
        width=clip.size,
        sampling=clip.sampling,
        fps=clip.fps,
        resize=clip.resize,
    )
    known = "backbone" in model_options(model.model)
    backbone = (model.backbone or PACKAGED_BACKBONE) if known else None
    # A file's weights are taken to expect what the published weights of their backbone do.
    weights = model.weights if model.weights in ("none", "kinetics") else "imagenet"
    expected = weights_normalisation(weights, backbone=backbone)
    if expected is None:
        return spec
    order = imagenet_channel_order(backbone) if backbone else "RGB"
    return replace(spec, mean=expected[0], std=expected[1], channel_order=order)


def chosen_options(settings: ModelSettings) -> dict[str, Any]:
    """Return the model options that a recipe sets.

    Raises:
        SettingError: The model is unknown, or does not take one of them.
    """
    known = model_options(settings.model)
    names = [field.name for field in fields(settings) if field.name not in ("model", "weights", "frozen")]
    chosen = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    alien = [name for name in chosen if name not in known and name not in ("backbone", "grid")]
    if alien:
        raise SettingError(
            f"model {settings.model} has no option {', '.join(alien)}; it takes {', '.join(known)}"
        )
    return {name: value for name, value in chosen.items() if name in known}


def _is_frozen(recipe: Recipe) -> bool:
    """Tell whether the backbone is kept as it is: only where it looks at the pictures one by one."""
    settings = recipe.model
    return settings.frozen and model_kind(settings.model).has_backbone and settings.input in (None, "rgb")


def _new_model(recipe: Recipe, *, num_classes: int, listener: Listener) -> tuple[VideoModel, dict[str, Any]]:
    """Build the recipe's model with its starting weights, the same for the same seed."""
    settings = recipe.model
    options = chosen_options(settings)
    if _is_frozen(recipe) and settings.weights == "none":
        raise SettingError(
            "a frozen backbone with random weights learns nothing: use --no-frozen or --weights imagenet"
        )
    torch.manual_seed(recipe.train.seed)
    size = recipe.clip.size
    model = build_model(
        settings.model,
        num_classes=num_classes,
        num_frames=recipe.clip.num_frames,
        height=size,
        width=size,
        options=options,
    )
    for line in load_weights(model, settings.weights).lines():
        listener.say(line)
    return model, {**options, **model.own_options}


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
        folder: Where the checkpoint and ``metrics.jsonl`` go.
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
    model, options = _new_model(recipe, num_classes=len(manifest.classes), listener=listener)
    features: FeatureStore | None = None
    if _is_frozen(recipe) and isinstance(model, FrameModel):
        features = FeatureStore(model, spec, cache, device=_feature_device(recipe))
        features.prepare(
            _samples(manifest, range(len(manifest.clips)), spec),
            on_progress=lambda done, total: listener.progress("features", done, total),
        )
    module, prepare, datasets = _inputs(
        model, spec, training, validation, manifest.classes, recipe, cache, features
    )
    unsafe = flip_suggestion(manifest.classes)
    if unsafe and recipe.augment.flip and features is None:
        listener.say(f"warning: {unsafe}")
    result = fit(
        module,
        datasets[0],
        datasets[1],
        recipe.train,
        prepare=prepare,
        num_classes=len(manifest.classes),
        folder=folder,
        mix=BatchMix(recipe.augment, seed=recipe.train.seed),
        resume=resume,
        smoke=smoke,
        on_epoch=listener.epoch,
        on_foreseen=lambda seconds: _say_foreseen(seconds, listener),
    )
    classifier = Classifier(
        model,
        recipe.model.model,
        options,
        replace(spec, trained_spans=_spans(manifest, split, spec, cache)),
        manifest.classes,
        temperature=_temperature(result),
        training_statistics=_statistics(training, result),
    )
    answers = _validation_answers(validation, result, manifest.classes)
    classifier.training_statistics = {
        **classifier.training_statistics,
        "abstaining": _abstaining(answers, classifier.temperature),
        "reference": _reference(classifier, validation or training, cache, features),
    }
    return Trained(classifier, result, answers, features)


def _say_foreseen(seconds: float, listener: Listener) -> None:
    """Say how long training takes, where it is more than a minute."""
    if seconds > 60:
        listener.say(f"training takes about {round(seconds / 60)} min, or less if it stops early")


def _samples(manifest: Manifest, indices: Sequence[int], spec: ClipSpec) -> list[LabelledClip]:
    """Return the clips themselves, or all their windows where the spec has a fixed span."""
    return expand_windows([manifest.clips[i] for i in indices], spec)


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
) -> tuple[nn.Module, Callable[[Tensor], Tensor], tuple[LabelledTensors, LabelledTensors]]:
    """Return what learns, how a batch becomes its input, and the two data sets."""
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
