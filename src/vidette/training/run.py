"""A whole training run: from labelled clips to a run folder with classifier, score and report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidette.classifier.classifier import Classifier
from vidette.data.cache import ClipCache, PrepareReport, expand_windows
from vidette.data.folder import some
from vidette.data.layouts import LayoutOptions, read_layout
from vidette.data.manifest import LabelledClip, Manifest, read_manifest, write_manifest
from vidette.data.prepared import find_prepared
from vidette.data.split import Split, SplitPlan, split_manifest
from vidette.errors import ClassifierError, OutputExistsError, SettingError, StorageError
from vidette.evaluation.metrics import Metrics
from vidette.evaluation.report import write_report
from vidette.evaluation.run import Evaluation, evaluate
from vidette.models.huggingface import PREFIX, source_clip
from vidette.training.cross_validation import CrossValidation, FoldsBy, cross_validate
from vidette.training.curves import draw_curves
from vidette.training.fold import Listener, Trained, train_fold
from vidette.training.loop import EpochRecord
from vidette.training.mirror import flip_warnings
from vidette.training.recipe import Recipe, read_recipe, with_options, write_recipe
from vidette.training.start import is_frozen, recipe_spec

__all__ = [
    "SilentListener",
    "TrainingRun",
    "fitted_recipe",
    "new_run_folder",
    "read_run",
    "read_source",
    "train",
]

_PACKAGES = (
    "vidette",
    "torch",
    "torchvision",
    "timm",
    "av",
    "numpy",
    "onnxruntime",
    "scikit-learn",
    "lightning-fabric",
)


class SilentListener:
    """Hears everything and shows nothing."""

    def say(self, text: str) -> None:
        """Ignore a line."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Ignore a count."""

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Ignore an epoch."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A finished run.

    Attributes:
        folder: Holds recipe.toml, split.csv, metrics.jsonl, curves.png, classifier/, evaluation.json,
            report.html and versions.json.
        classifier: As saved, loaded back.
        evaluation: On the test clips.
        cross_validation: Pooled over the folds, where folds were asked for.
    """

    folder: Path
    classifier: Classifier
    evaluation: Evaluation
    cross_validation: CrossValidation | None

    @property
    def metrics(self) -> Metrics:
        """The run's honest score: over the folds where there are some, else on the test clips."""
        return self.cross_validation.metrics if self.cross_validation else self.evaluation.metrics

    def __repr__(self) -> str:
        return f"TrainingRun({self.folder}: {self.metrics.headline()})"


def train(
    source: str | Path,
    *,
    recipe: Recipe,
    out: Path,
    folds: FoldsBy | int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    smoke: bool = False,
    cache: ClipCache | None = None,
    listener: Listener | None = None,
) -> TrainingRun:
    """Train on a folder or table of labelled clips; leave a run folder.

    The test clips are read once, at the end, by the saved classifier.

    Args:
        source: Folder of class folders, a CSV manifest, another layout, or a folder of prepared clips.
        recipe: What to train and how.
        out: The run folder.
        folds: Cross-validate: ``"column"``, ``"leave_one_group_out"``, or a number of folds.
        overwrite: Replace a run that is there.
        resume: Go on with an interrupted run in ``out``.
        smoke: One batch of each stage, to see that all of it runs.
        cache: Where decoded clips are kept; the user's cache by default.
        listener: Told how far the work is.

    Raises:
        ManifestError: The clips are unusable; every fault is listed.
        SplitError: The clips cannot be divided as asked.
        SettingError: The recipe does not fit.
        OutputExistsError: ``out`` holds something.
        StorageError: The disk is full.
    """
    listener = listener or SilentListener()
    cache = cache or ClipCache()
    manifest = read_source(source, recipe)
    _check_prepared(source, recipe)
    split = split_manifest(manifest, _plan(recipe))
    for line in (*manifest.notes, *manifest.warnings, *split.warnings):
        listener.say(line)
    _open_folder(out, recipe, overwrite=overwrite, resume=resume)
    _say_disk(manifest.clips, cache, recipe, listener)
    readable, damage = _prepare(manifest, cache, recipe, listener)
    if readable is not manifest:
        manifest, split = readable, split_manifest(readable, _plan(recipe))
    write_recipe(recipe, out / "recipe.toml")
    _write_split(manifest, split, out)
    if recipe.augment.flip and not is_frozen(recipe):
        training = [manifest.clips[i] for i in split.train]
        for line in flip_warnings(training, manifest.classes, recipe_spec(recipe), cache):
            listener.say(f"warning: {line}")
    crossed = (
        cross_validate(
            manifest,
            recipe,
            by=folds,
            cache=cache,
            folder=out / "folds",
            listener=listener,
            smoke=smoke,
            resume=resume,
        )
        if folds
        else None
    )
    trained = train_fold(
        manifest, split, recipe, cache=cache, folder=out, listener=listener, resume=resume, smoke=smoke
    )
    curves = draw_curves(trained.fit.history, best_epoch=trained.fit.best_epoch)
    (out / "curves.png").write_bytes(curves)
    trained.classifier.save(out / "classifier", overwrite=True)
    classifier = Classifier.load(out / "classifier")
    evaluation = evaluate(
        classifier,
        [manifest.clips[i] for i in split.test],
        cache=cache,
        on_progress=lambda done, total: listener.progress("test", done, total),
    )
    run = TrainingRun(out, classifier, evaluation, crossed)
    notes = {"split": split.warnings, "clips": (*manifest.warnings, *damage)}
    _write_results(run, manifest, trained, curves, cache, notes=notes)
    for checkpoint in out.rglob("checkpoint.pt"):
        checkpoint.unlink()
    return run


def read_source(source: str | Path, recipe: Recipe) -> Manifest:
    """Read the labelled clips of a recipe's source.

    Raises:
        ManifestError: The clips are unusable; every fault is listed.
    """
    named = recipe.source
    options = LayoutOptions(
        split_number=named.split_number,
        fps=named.frames_fps,
        classes_file=Path(named.classes_file) if named.classes_file else None,
        videos=Path(named.videos) if named.videos else None,
        stream=named.stream,
    )
    return read_layout(source, layout=named.layout, options=options, group_from=recipe.split.group_from)


def _plan(recipe: Recipe) -> SplitPlan:
    return SplitPlan(
        strategy=recipe.split.split,
        validation_fraction=recipe.split.validation_fraction,
        test_fraction=recipe.split.test_fraction,
        seed=recipe.train.seed,
    )


def new_run_folder(runs: Path, source: str | Path, model: str) -> Path:
    """Name a run after its clips and model: the first of ``NAME``, ``NAME-2``, ... that is free."""
    name = f"{Path(source).resolve().stem or 'clips'}-{Path(model.removeprefix(PREFIX)).name}"
    first = runs / name
    numbered = (runs / f"{name}-{i}" for i in range(2, 100_000))
    return first if not first.exists() else next(place for place in numbered if not place.exists())


def _open_folder(out: Path, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
    """Make the run folder ready; what is there goes only where it is a run and replacing was asked for."""
    is_run = (out / "recipe.toml").is_file()
    if resume:
        if not is_run:
            raise ClassifierError(f"{out} holds no run to resume (no recipe.toml); leave out --resume")
        if read_recipe(out / "recipe.toml") != recipe:
            raise SettingError(
                f"{out} was begun with another recipe; resume it with no other options, or start anew"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise OutputExistsError(f"{out} exists; choose another --out, or replace it with --overwrite")
        if not is_run:
            raise OutputExistsError(
                f"{out} is not a run of Vidette, so it is not replaced; choose another --out"
            )
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"run folder {out} cannot be made: {error.strerror}; choose another --out"
        ) from error


def _say_disk(clips: Sequence[LabelledClip], cache: ClipCache, recipe: Recipe, listener: Listener) -> None:
    needed = cache.bytes_needed(clips, recipe_spec(recipe))
    if needed:
        listener.say(f"Decoded clips will take {needed / 1e6:,.0f} MB in {cache.folder}.")


def _prepare(
    manifest: Manifest, cache: ClipCache, recipe: Recipe, listener: Listener
) -> tuple[Manifest, tuple[str, ...]]:
    """Make all clips ready; return the manifest of those that can be read, and what is wrong with clips."""
    spec = recipe_spec(recipe)
    pieces = expand_windows(manifest.clips, spec)
    report = cache.prepare(
        pieces,
        spec,
        on_damage=recipe.source.on_damage,
        on_progress=lambda done, total: listener.progress("clips", done, total),
    )
    lines = _damage_lines(pieces, report)
    for line in (_prepared_line(report), *lines):
        listener.say(line)
    broken = {pieces[i].part_of or pieces[i].name for i in report.skipped}
    if not broken:
        return manifest, lines
    return manifest.without(broken), lines


def _damage_lines(pieces: Sequence[LabelledClip], report: PrepareReport) -> tuple[str, ...]:
    """Return a line that counts and names the clips left out, and one for those that lost frames."""
    lines: list[str] = []
    if report.skipped:
        lines.append(f"{len(report.skipped)} clips were left out: {some(list(report.skipped.values()), 10)}")
    if report.damaged:
        named = [f"{pieces[i].name} ({lost} frames)" for i, lost in report.damaged.items()]
        lines.append(f"{len(named)} clips lost frames: {some(named, 10)}")
    return tuple(lines)


def _check_prepared(source: str | Path, recipe: Recipe) -> None:
    """Refuse a recipe that asks for frames which a folder of prepared clips does not hold."""
    prepared = find_prepared(source)
    reason = prepared.kept.refusal(recipe_spec(recipe)) if prepared else None
    if reason:
        raise SettingError(f"{source}: {reason}; prepare the clips again, or change the recipe")


def fitted_recipe(source: str | Path, recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Return a recipe with options; where the source holds prepared clips, one that they can serve.

    Clip settings that were not given as options are then those the clips were prepared with; for a network of
    transformers, the frames and size that it takes.

    Raises:
        SettingError: An option is unknown or out of range.
        ManifestError: The source holds prepared clips, but unfinished or damaged.
    """
    model = str(options.get("model", recipe.model.model))
    if model.startswith(PREFIX):
        recipe = with_options(recipe, source_clip(model.removeprefix(PREFIX)))
    chosen = with_options(recipe, options)
    prepared = find_prepared(source)
    if prepared is None or prepared.kept.refusal(recipe_spec(chosen)) is None:
        return chosen
    kept = prepared.kept
    values: dict[str, Any] = {"size": kept.height, "resize": kept.resize}
    if kept.fps is None:
        values |= {"num_frames": kept.num_frames, "sampling": "whole", "fps": None}
    elif recipe.clip.sampling == "window":
        values["fps"] = kept.fps
    return with_options(recipe, {**values, **options})


def _prepared_line(report: PrepareReport) -> str:
    line = (
        f"{report.num_clips} clips ready: {report.num_decoded} decoded now, {report.num_cached} from the cache."
    )
    if report.repeated_frames:
        line += f" {report.repeated_frames} frames stand in for time after a clip's end."
    return line


def _write_split(manifest: Manifest, split: Split, out: Path) -> None:
    divided = manifest.with_splits(train=split.train, validation=split.validation, test=split.test)
    (out / "split.csv").unlink(missing_ok=True)
    write_manifest(divided, out / "split.csv")


def _write_results(
    run: TrainingRun,
    manifest: Manifest,
    trained: Trained,
    curves: bytes,
    cache: ClipCache,
    *,
    notes: Mapping[str, Sequence[str]],
) -> None:
    folder, crossed = run.folder, run.cross_validation
    results = {"test": run.evaluation.to_dict(), "cross_validation": crossed.to_dict() if crossed else None}
    _write_json(folder / "versions.json", _versions())
    compared = list(crossed.compared) if crossed else []
    write_report(
        folder / "report.html",
        title=f"{folder.name}: {manifest.source.name}",
        evaluation=run.evaluation,
        classifier_facts=_facts(run.classifier, trained, notes),
        curves_png=curves,
        compared=compared,
        leaking=[name for name, _ in compared if "stratified" in name] if manifest.has_groups else [],
        frames_of=lambda i: cache.load(
            expand_windows([run.evaluation.clips[i]], run.classifier.spec)[0], run.classifier.spec
        ),
    )
    _write_json(folder / "evaluation.json", results)


def _facts(classifier: Classifier, trained: Trained, notes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    parameters = sum(p.numel() for p in classifier.model.parameters())
    facts = {
        "model": f"{classifier.model_name} {dict(classifier.model_options) or ''}",
        "parameters": f"{parameters:,}",
        "input": repr(classifier.spec),
        "classes": ", ".join(classifier.classes),
        "chosen epoch": f"{trained.fit.best_epoch + 1} of {len(trained.fit.history)}, by validation",
        "temperature": f"{classifier.temperature:.2f} (fitted on validation)",
        "training time": f"{trained.fit.seconds:.0f} s",
    }
    return facts | {name: "; ".join(lines) for name, lines in notes.items() if lines}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        found[package] = importlib.metadata.version(package)
    found["cuda"] = torch.version.cuda or "none" if torch.cuda.is_available() else "none"
    return found


def _write_json(path: Path, values: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_run(folder: Path) -> tuple[Recipe, Manifest, list[LabelledClip]]:
    """Return a run's recipe, its clips with their splits, and its test clips.

    Raises:
        ClassifierError: The folder is not a finished run.
    """
    for name in ("recipe.toml", "split.csv"):
        if not (folder / name).is_file():
            raise ClassifierError(f"{folder} has no {name}; expected a run folder that `vidette train` made")
    manifest = read_manifest(folder / "split.csv")
    return read_recipe(folder / "recipe.toml"), manifest, [c for c in manifest.clips if c.split == "test"]
