"""Time to the same accuracy on ``fight/``: frozen features + GRU (the default) beside the tutorial's way.

The tutorial's way is the recipe ``resnet18-rnn``: every epoch sends every frame of every clip through the whole
ResNet18, forwards and backwards. Its ImageNet weights are a download; with ``--weights none`` (the default) it
starts from random weights, which changes what it reaches, not what an epoch costs. Ours computes the packaged
EfficientNet-Lite0's features once, at four times the pixels, and then trains a GRU on them.

Both learn from the same training clips of one split by group and choose by the same validation clips; both
read decoded clips from the cache (the tutorial reads JPEG files: that cost is not charged to it). They take
turns: ours is trained once more, features computed afresh, before the tutorial and after each of its first
``--rounds`` epochs, so that both meet the same load of the machine.

    VIDETTE_DATA=../shared/data python benchmarks/tutorial_training.py [--epochs 2] [--weights imagenet]

``--epochs 20`` runs the whole tutorial; fewer epochs measure those and extrapolate the time of 20, and say so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidette.data.cache import ClipCache
from vidette.data.dataset import ClipDataset
from vidette.data.manifest import Manifest, read_manifest
from vidette.data.split import Split, SplitPlan, split_manifest
from vidette.data.store import ArrayStore
from vidette.models import build_model
from vidette.models.backbone import load_imagenet_weights
from vidette.training.features import FeatureDataset, FeatureStore
from vidette.training.loop import EpochRecord, fit
from vidette.training.recipe import ModelSettings, Recipe, with_options
from vidette.training.recipes import named_recipe
from vidette.training.start import recipe_spec
from vidette.video.augmentation import Augmentation
from vidette.video.transforms import pixels_tensor

TUTORIAL_EPOCHS = named_recipe("resnet18-rnn").train.epochs


@dataclass(frozen=True)
class Course:
    """What training came to: seconds before the first epoch, and each epoch's record."""

    name: str
    before: float
    history: tuple[EpochRecord, ...]

    @property
    def total(self) -> float:
        return self.before + sum(record.seconds for record in self.history)

    @property
    def epoch_seconds(self) -> float:
        return statistics.median(record.seconds for record in self.history)

    @property
    def best(self) -> float:
        return max(record.validation_accuracy for record in self.history)

    def seconds_to(self, accuracy: float) -> float | None:
        """Seconds from the start to the end of the first epoch with at least this validation accuracy."""
        spent = self.before
        for record in self.history:
            spent += record.seconds
            if record.validation_accuracy >= accuracy - 1e-9:
                return spent
        return None


class Benchmark:
    def __init__(self, manifest: Manifest, split: Split, cache: ClipCache) -> None:
        self.manifest, self.split, self.cache = manifest, split, cache
        self.training = [manifest.clips[i] for i in split.train]
        self.validation = [manifest.clips[i] for i in split.validation]

    def ours(self, name: str) -> Course:
        """The default recipe: features of the clips that the tutorial sees too (not test), then the head."""
        recipe = with_options(named_recipe("default"), {"accelerator": "cpu"})
        spec, model = recipe_spec(recipe), self.model(recipe)
        load_imagenet_weights(model.backbone)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            features = FeatureStore(model, spec, self.cache)
            features.store = ArrayStore(Path(folder) / "features")
            features.prepare([*self.training, *self.validation])
            before = time.perf_counter() - start
            result = fit(
                model.head,
                FeatureDataset(self.training, self.manifest.classes, features),
                FeatureDataset(self.validation, self.manifest.classes, features),
                recipe.train,
                prepare=unchanged,
                num_classes=len(self.manifest.classes),
                folder=Path(folder),
            )
        return Course(name, before, result.history)

    def tutorial(
        self, name: str, *, epochs: int, weights: str, between: Callable[[EpochRecord], None]
    ) -> Course:
        options = {"accelerator": "cpu", "epochs": epochs, "weights": weights}
        recipe = with_options(named_recipe("resnet18-rnn"), options)
        spec, model = recipe_spec(recipe), self.model(recipe)
        if weights == "imagenet":
            load_imagenet_weights(model.backbone)
        augmentation = Augmentation(
            crop_scale_min=recipe.augment.crop_scale_min,
            flip=recipe.augment.flip,
            colour=recipe.augment.colour,
        )
        classes = self.manifest.classes
        with tempfile.TemporaryDirectory() as folder:
            result = fit(
                model,
                ClipDataset(self.training, classes, spec, self.cache, augmentation=augmentation),
                ClipDataset(self.validation, classes, spec, self.cache),
                recipe.train,
                prepare=lambda batch: pixels_tensor(batch, spec),
                num_classes=len(self.manifest.classes),
                folder=Path(folder),
                on_epoch=lambda record, _: between(record),
            )
        return Course(name, 0.0, result.history)

    def model(self, recipe: Recipe):
        torch.manual_seed(recipe.train.seed)
        return build_model(
            recipe.model.model,
            num_classes=len(self.manifest.classes),
            num_frames=recipe.clip.num_frames,
            height=recipe.clip.size,
            width=recipe.clip.size,
            options=chosen(recipe.model),
        )


def chosen(settings: ModelSettings) -> dict[str, object]:
    names = ("backbone", "grid", "hidden", "layers", "projection", "difference", "readout", "dropout")
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}


def unchanged(batch: Tensor) -> Tensor:
    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2, help="tutorial epochs to run; the recipe has 20")
    parser.add_argument("--rounds", type=int, default=3, help="tutorial epochs after which ours takes a turn")
    parser.add_argument("--weights", choices=("none", "imagenet"), default="none")
    options = parser.parse_args()
    data = Path(os.environ.get("VIDETTE_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
    if not (data / "fight/fight.csv").exists():
        sys.exit(f"{data}/fight/fight.csv is absent: set VIDETTE_DATA to the folder that holds fight/")
    manifest = read_manifest(data / "fight/fight.csv")
    split = split_manifest(manifest, SplitPlan(strategy="grouped"))
    cache = ClipCache()
    for name in ("default", "resnet18-rnn"):
        spec = recipe_spec(named_recipe(name))
        start = time.perf_counter()
        decoded = cache.prepare(manifest.clips, spec).num_decoded
        print(f"{name}: {spec}, {decoded} clips decoded in {time.perf_counter() - start:.0f} s (not counted)")
    print(f"{split}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    bench = Benchmark(manifest, split, cache)
    ours = [told(bench.ours("ours"))]

    def between(record: EpochRecord) -> None:
        """An epoch's seconds are taken before this is called, so that our turn is not charged to it."""
        told(Course(f"tutorial epoch {record.epoch + 1}", 0.0, (record,)))
        if record.epoch < options.rounds:
            ours.append(told(bench.ours("ours")))

    tutorial = bench.tutorial("tutorial", epochs=options.epochs, weights=options.weights, between=between)
    report(ours, tutorial, weights=options.weights)


def told(course: Course) -> Course:
    features = f"features {course.before:.0f} s, then " if course.before else ""
    print(
        f"  {course.name}: {features}{len(course.history)} epochs of {course.epoch_seconds:.2f} s, "
        f"{course.total:.0f} s in all; best validation accuracy {course.best:.3f}; "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return course


def report(ours: Sequence[Course], tutorial: Course, *, weights: str) -> None:
    run = len(tutorial.history)
    kind = "measured" if run >= TUTORIAL_EPOCHS else f"EXTRAPOLATED from {run}"
    print(f"the tutorial's ResNet18 started from weights {weights!r}")
    features = statistics.median(course.before for course in ours)
    epoch = statistics.median(course.epoch_seconds for course in ours)
    total = statistics.median(course.total for course in ours)
    print(f"ours: features {features:.1f} s once, {epoch:.2f} s an epoch, {total:.1f} s in all (medians)")
    print(f"tutorial: {tutorial.epoch_seconds:.1f} s an epoch, {tutorial.epoch_seconds / epoch:.0f} times ours")
    whole = tutorial.total + max(0, TUTORIAL_EPOCHS - run) * tutorial.epoch_seconds
    turns = [
        TUTORIAL_EPOCHS * record.seconds / ((before.total + after.total) / 2)
        for record, before, after in zip(tutorial.history, ours, ours[1:], strict=False)
    ]
    print(
        f"whole training: tutorial's {TUTORIAL_EPOCHS} epochs {whole:.0f} s ({kind}), ours {total:.0f} s:",
        end=" ",
    )
    print(f"{whole / total:.1f} times; by turns {', '.join(f'{ratio:.1f}' for ratio in turns)}")
    print(f"  best validation accuracy: ours {min(c.best for c in ours):.3f} (n = {len(ours)} runs), ", end="")
    print(f"tutorial {tutorial.best:.3f} in {run} epochs")
    reached = tutorial.seconds_to(tutorial.best) or tutorial.total
    needed = [seconds for course in ours if (seconds := course.seconds_to(tutorial.best)) is not None]
    print(f"to the tutorial's best, {tutorial.best:.3f}: tutorial {reached:.0f} s", end=", ")
    if len(needed) < len(ours):
        print(f"ours reached it in {len(needed)} of {len(ours)} runs")
    else:
        middle = statistics.median(needed)
        print(f"ours {middle:.0f} s: {reached / middle:.1f} times, features included; ", end="")
        print(f"to the end of the tutorial's {TUTORIAL_EPOCHS} epochs: {whole / middle:.1f} times")
    low = min(course.best for course in ours)
    print(f"to ours, {low:.3f}: {needed_for(tutorial, low)}")


def needed_for(tutorial: Course, accuracy: float) -> str:
    seconds = tutorial.seconds_to(accuracy)
    if seconds is not None:
        return f"tutorial {seconds:.0f} s"
    return f"the tutorial did not reach it in {len(tutorial.history)} epochs, {tutorial.total:.0f} s"


if __name__ == "__main__":
    main()
