"""Several models trained and scored on the same clips under one protocol, side by side."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from vidette.classifier.classifier import Classifier
from vidette.data.cache import ClipCache
from vidette.data.manifest import Manifest
from vidette.errors import ClassifierError, InputMismatchError, OutputExistsError, SettingError
from vidette.evaluation.metrics import Metrics
from vidette.training.choice import ChosenModels, ScoreName, average_in_folds, choose_in_folds
from vidette.training.cross_validation import FoldsBy
from vidette.training.fold import Listener
from vidette.training.fold_answers import read_folds
from vidette.training.recipe import Recipe, read_recipe
from vidette.training.run import SilentListener, read_source, train
from vidette.training.start import chosen_options
from vidette.video.clip import Clip

__all__ = ["ComparedModel", "Comparison", "compare"]

_REPEATS = 7
_PLAN = "plan.json"
_HONEST_FOLDS = Path("folds", "honest")
_CHOSEN, _AVERAGED = "chosen", "mean of all"


@dataclass(frozen=True)
class ComparedModel:
    """One row of a comparison.

    Attributes:
        model: Its name.
        n: Clips that it was scored on.
        accuracy: Of whole clips, with the 95 % interval's ``accuracy_low`` and ``accuracy_high``.
        auc: Area under the ROC curve, with ``auc_low`` and ``auc_high``; None where undefined.
        frame_accuracy: Of single frames; None where it was not asked.
        order_gap: Accuracy on ordered minus on shuffled frames; None where it was not asked.
        parameters: Number of weights.
        gflops: 10^9 floating-point operations a clip, a multiplication and an addition counted as two.
        clip_ms: Milliseconds a clip, from pixels to probabilities: median of several runs on this machine.
        frame_ms: Milliseconds a new frame of a stream; None for a model that wants whole clips.
        reused: Whether the run was there and not trained again.
        folder: The run.
    """

    model: str
    n: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    frame_accuracy: float | None
    order_gap: float | None
    parameters: int
    gflops: float
    clip_ms: float
    frame_ms: float | None
    reused: bool
    folder: str


@dataclass(frozen=True)
class Comparison:
    """What comparing came to.

    Attributes:
        folder: Holds a run folder for each model, ``comparison.csv``, ``comparison.json`` and
            ``comparison.png``.
        scored_on: The clips that the scores are of.
        rows: In the order asked for.
        chosen: What choosing the model by validation in each fold comes to; None without folds.
        averaged: Of the mean of all models' probabilities; None without folds.
    """

    folder: Path
    scored_on: str
    rows: tuple[ComparedModel, ...]
    chosen: ChosenModels | None = None
    averaged: Metrics | None = None

    @property
    def together(self) -> dict[str, Metrics]:
        """The scores that are of no single model, by the name of their row."""
        found = {_CHOSEN: self.chosen and self.chosen.metrics, _AVERAGED: self.averaged}
        return {name: metrics for name, metrics in found.items() if metrics is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "scored_on": self.scored_on,
            "models": [asdict(row) for row in self.rows],
            "chosen": self.chosen.to_dict() if self.chosen else None,
            "averaged": self.averaged.to_dict() if self.averaged else None,
        }


def compare(
    source: str | Path,
    recipes: Mapping[str, Recipe],
    out: Path,
    *,
    folds: FoldsBy | int | None = None,
    overwrite: bool = False,
    smoke: bool = False,
    cache: ClipCache | None = None,
    listener: Listener | None = None,
) -> Comparison:
    """Train and score several models on the same split, or the same folds, of the same clips.

    A run that is finished is not trained again, and one that was interrupted goes on; so a model can be added
    to a comparison later. With folds, the model that validates best in each fold gives that fold's answers too:
    the score of the choice. It goes by the validation accuracy where all recipes do, else by
    the loss. The mean of all models' probabilities is scored too. Random folds, whose score leaks, are not
    trained.

    Args:
        source: Labelled clips, as for training.
        recipes: What to train, by the name of its run folder; they must divide the clips in the same way.
        out: Where the runs go.
        folds: Cross-validate: the scores are then those over the folds.
        overwrite: Replace a comparison that is there.
        smoke: One batch of each stage, to see that all of it runs.
        cache: Where decoded clips are kept.
        listener: Told how far the work is.

    Raises:
        SettingError: There is nothing to compare, or the recipes divide the clips in different ways.
        OutputExistsError: ``out`` holds a comparison of other clips, or something else.
        VidetteError: As training does.
    """
    listener = listener or SilentListener()
    cache = cache or ClipCache()
    recipes = {name: _without_random_folds(recipe) for name, recipe in recipes.items()}
    _check_recipes(recipes)
    manifest = read_source(source, next(iter(recipes.values())))
    _open_folder(out, _plan(manifest, recipes, folds, smoke=smoke), overwrite=overwrite)
    rows: list[ComparedModel] = []
    for name, recipe in recipes.items():
        folder = out / name
        reused = _is_finished(folder, recipe)
        if reused and folds and not _has_all_folds(folder):
            listener.say(f"{name}: finished before, but the answers of its folds were not kept: once more")
            reused = False
        listener.say(f"{name}: {'finished before' if reused else 'training'}")
        if not reused:
            resume = (folder / "recipe.toml").is_file() and read_recipe(folder / "recipe.toml") == recipe
            train(
                source,
                recipe=recipe,
                out=folder,
                folds=folds,
                overwrite=folder.exists() and not resume,
                resume=resume,
                smoke=smoke,
                cache=cache,
                listener=listener,
            )
        rows.append(_row(name, folder, reused=reused))
    scored_on = f"all {len(manifest)} clips, by folds ({folds})" if folds else f"{rows[0].n} test clips"
    chosen, averaged = _together(out, recipes, listener) if folds else (None, None)
    comparison = Comparison(out, scored_on, tuple(rows), chosen, averaged)
    (out / "comparison.json").write_text(json.dumps(comparison.to_dict(), indent=2) + "\n", encoding="utf-8")
    (out / "comparison.csv").write_text(_table(comparison), encoding="utf-8")
    (out / "comparison.png").write_bytes(_picture(comparison))
    return comparison


def _check_recipes(recipes: Mapping[str, Recipe]) -> None:
    if len(recipes) < 2:
        raise SettingError(
            f"{len(recipes)} model to compare; expected two or more, for example frame_cnn,cnn_gru"
        )
    distinct = {(recipe.split, recipe.source, recipe.train.seed) for recipe in recipes.values()}
    if len(distinct) > 1:
        raise SettingError(
            "the recipes read or divide the clips in different ways, so their scores cannot be compared; give"
            " them the same source, split and seed"
        )
    for recipe in recipes.values():
        chosen_options(recipe.model)


def _together(
    out: Path, recipes: Mapping[str, Recipe], listener: Listener
) -> tuple[ChosenModels | None, Metrics | None]:
    """Return what choosing a model in each fold comes to, and what averaging all of them does."""
    criteria = {recipe.train.select_by for recipe in recipes.values()}
    by: ScoreName = "validation_accuracy" if criteria == {"validation_accuracy"} else "validation_loss"
    try:
        runs = {name: read_folds(out / name / _HONEST_FOLDS) for name in recipes}
        return choose_in_folds(runs, by=by), average_in_folds(runs)
    except InputMismatchError as error:
        listener.say(f"warning: {error}")
        return None, None


def _without_random_folds(recipe: Recipe) -> Recipe:
    return replace(recipe, split=replace(recipe.split, random_folds=False))


def _plan(
    manifest: Manifest, recipes: Mapping[str, Recipe], folds: FoldsBy | int | None, *, smoke: bool
) -> dict[str, Any]:
    """Return what must be the same for every run of a comparison."""
    recipe = next(iter(recipes.values()))
    clips = [(c.name, c.label, c.group, c.split, c.fold) for c in manifest.clips]
    return {
        "clips": hashlib.sha256(repr(clips).encode()).hexdigest(),
        "split": asdict(recipe.split),
        "seed": recipe.train.seed,
        "folds": folds,
        **({"smoke": True} if smoke else {}),
    }


def _open_folder(out: Path, plan: dict[str, Any], *, overwrite: bool) -> None:
    path = out / _PLAN
    if out.exists() and not path.is_file() and (out.is_file() or any(out.iterdir())):
        raise OutputExistsError(f"{out} exists and is no comparison; choose another --out")
    if path.is_file():
        there = _read_json(path)
        different = [name for name in {**plan, **there} if there.get(name) != plan.get(name)]
        if different and not overwrite:
            raise OutputExistsError(
                f"{out} holds a comparison of something else ({', '.join(different)} differ); choose another"
                " --out, or replace it with --overwrite"
            )
        if overwrite:
            shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClassifierError(f"{path} cannot be read ({error}); compare again with --overwrite") from error


def _is_finished(folder: Path, recipe: Recipe) -> bool:
    wanted = ("recipe.toml", "evaluation.json", "classifier/classifier.json")
    return all((folder / name).is_file() for name in wanted) and read_recipe(folder / "recipe.toml") == recipe


def _has_all_folds(folder: Path) -> bool:
    """Tell whether the run keeps an answer to each clip that it was cross-validated on."""
    crossed = _read_json(folder / "evaluation.json")["cross_validation"]
    answered = sum(len(fold.test.names) for fold in read_folds(folder / _HONEST_FOLDS))
    return crossed is not None and answered == crossed["metrics"]["n"]


def _row(name: str, folder: Path, *, reused: bool) -> ComparedModel:
    results = _read_json(folder / "evaluation.json")
    crossed, consistency = results["cross_validation"], results["test"]["consistency"]
    metrics = (crossed or results["test"])["metrics"]
    classifier = Classifier.load(folder)
    clip_ms, frame_ms = _milliseconds(classifier)
    return ComparedModel(
        model=name,
        **_scores(metrics),
        frame_accuracy=consistency and consistency["frame_accuracy"],
        order_gap=consistency and consistency["order_gap"],
        parameters=sum(p.numel() for p in classifier.model.parameters()),
        gflops=_gflops(classifier),
        clip_ms=clip_ms,
        frame_ms=frame_ms,
        reused=reused,
        folder=str(folder),
    )


def _scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a row that say how good, from those of ``Metrics.to_dict``."""
    (low, high), (auc_low, auc_high) = metrics["accuracy_interval"], metrics["auc_interval"]
    of_metrics = {name: metrics[name] for name in ("n", "accuracy", "auc")}
    return of_metrics | {"accuracy_low": low, "accuracy_high": high, "auc_low": auc_low, "auc_high": auc_high}


def _gflops(classifier: Classifier) -> float:
    spec = classifier.spec
    clip = torch.zeros(1, spec.num_frames, 3, spec.height, spec.width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        classifier.model(clip)
    return counter.get_total_flops() / 1e9


def _milliseconds(classifier: Classifier) -> tuple[float, float | None]:
    """Return the time of a clip and of a new frame of a stream, the work as it runs in deployment."""
    spec = classifier.spec
    noise = np.random.default_rng(0).integers(0, 256, (spec.num_frames, spec.height, spec.width, 3), np.uint8)
    clip = Clip(noise, np.arange(spec.num_frames) / 10)
    clip_ms = _median_ms(lambda: classifier.logits([clip]))
    model = classifier.model
    if not model.can_step:
        return clip_ms, None
    state = model.initial_state(1)
    frame = torch.zeros(1, 3, spec.height, spec.width, device=classifier.device)
    with torch.no_grad():
        return clip_ms, _median_ms(lambda: model.step(frame, state))


def _median_ms(work: Callable[[], object]) -> float:
    work()
    seconds: list[float] = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def _table(comparison: Comparison) -> str:
    """Return CSV: a row a model, and rows without a cost for what several models come to together."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(comparison.rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in comparison.rows)
    for name, metrics in comparison.together.items():
        writer.writerow({"model": name, **_scores(metrics.to_dict())})
    return text.getvalue()


def _picture(comparison: Comparison) -> bytes:
    """Return a PNG: accuracy with interval beside single frames, and accuracy against time."""
    rows, together = comparison.rows, comparison.together
    names = [*(row.model for row in rows), *together]
    figure = Figure(figsize=(11, 1.6 + 0.45 * len(names)), layout="constrained")
    scores, cost = figure.subplots(1, 2)
    for place, row in enumerate(rows):
        middle = row.accuracy or 0.0
        _bar(scores, place, middle, (row.accuracy_low, row.accuracy_high))
        if row.frame_accuracy is not None:
            scores.plot(
                row.frame_accuracy,
                place,
                marker="D",
                color="#d29922",
                linestyle="none",
                label="single frames" if place == 0 else None,
            )
        cost.plot(row.clip_ms, middle, marker="o", color="#1f6feb", linestyle="none")
        cost.annotate(row.model, (row.clip_ms, middle), xytext=(5, 4), textcoords="offset points", fontsize=8)
    for place, metrics in enumerate(together.values(), start=len(rows)):
        values = _scores(metrics.to_dict())
        _bar(scores, place, values["accuracy"] or 0.0, (values["accuracy_low"], values["accuracy_high"]))
    scores.set_yticks(range(len(names)), names)
    scores.invert_yaxis()
    scores.set(xlim=(0, 1), xlabel=f"accuracy, 95 % interval; {comparison.scored_on}")
    scores.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    cost.set(xscale="log", xlabel="milliseconds a clip on this machine", ylabel="accuracy", ylim=(0, 1.05))
    for axis in (scores, cost):
        axis.grid(alpha=0.25)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def _bar(axis: Axes, place: int, middle: float, ends: tuple[float | None, float | None]) -> None:
    axis.barh(place, middle, color="#1f6feb", height=0.6, label="whole clip" if place == 0 else None)
    low, high = (middle if end is None else end for end in ends)
    axis.plot([low, high], [place, place], color="#0b2a5b", linewidth=2)
