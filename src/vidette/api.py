"""The few names that Python users start from: train, load, predict, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from vidette.classifier.classifier import Classifier, Runtime
from vidette.data.cache import ClipCache
from vidette.data.layouts import LayoutName, LayoutOptions, read_layout
from vidette.evaluation.run import Evaluation, evaluate
from vidette.prediction.files import FilePrediction, predict_file
from vidette.training.cross_validation import FoldsBy
from vidette.training.recipe import Recipe
from vidette.training.recipes import named_recipe
from vidette.training.run import TrainingRun, fitted_recipe, new_run_folder
from vidette.training.run import train as train_run

__all__ = ["VideoClassifier", "load", "train"]


class VideoClassifier(Classifier):
    """A classifier with the verbs that people ask for first."""

    def predict(self, path: str | Path, *, stride_seconds: float | None = None) -> FilePrediction:
        """Classify a video file.

        Args:
            path: The file.
            stride_seconds: Time between the windows of a longer video's timeline; half a span by default.

        Returns:
            label, probability, probabilities ``(K,)``, and the timeline of windows.

        Raises:
            VideoError: The file cannot be read.
        """
        return predict_file(self, path, stride_seconds=stride_seconds)

    def evaluate(
        self,
        source: str | Path,
        *,
        layout: LayoutName | None = None,
        options: LayoutOptions | None = None,
        group_from: str | None = None,
    ) -> Evaluation:
        """Score the classifier on labelled clips in any layout.

        Raises:
            ManifestError: The clips are unusable; every fault is listed.
            InputMismatchError: A label is not one of the classifier's classes.
        """
        manifest = read_layout(source, layout=layout, options=options, group_from=group_from, min_classes=1)
        return evaluate(self, manifest.clips, cache=ClipCache(), split_name=str(source))


def load(folder: str | Path, *, runtime: Runtime = "auto", device: str = "cpu") -> VideoClassifier:
    """Load a saved classifier.

    Args:
        folder: A classifier folder, a run folder, or ``"imagenet"`` for the packaged ImageNet classifier.
        runtime: ``"torch"``, ``"onnx"``, or the quicker one that is there.
        device: A torch device name.

    Raises:
        ClassifierError: The folder is absent, incomplete or inconsistent.
    """
    return cast(VideoClassifier, VideoClassifier.load(folder, runtime=runtime, device=device))


def train(
    source: str | Path,
    *,
    out: str | Path | None = None,
    recipe: str | Recipe = "default",
    folds: FoldsBy | int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> TrainingRun:
    """Train a classifier on a folder of labelled clips and score it on clips it has not seen.

    Args:
        source: ``clips/<class>/<video>``, a CSV manifest, another layout, or a folder of prepared clips.
        out: The run folder; ``runs/<source>-<model>`` by default.
        recipe: A recipe, its name, or a TOML file.
        folds: Cross-validate by ``"column"``, ``"leave_one_group_out"`` or a number of folds.
        overwrite: Replace a run that is in ``out``.
        **options: Values of the recipe, for example ``model="conv3d_small", epochs=10``.

    Raises:
        VidetteError: The clips, the recipe or the place are unusable; the message says what to do.
    """
    start = named_recipe(recipe) if isinstance(recipe, str) else recipe
    chosen = fitted_recipe(source, start, options)
    folder = Path(out) if out else new_run_folder(Path("runs"), source, chosen.model.model)
    return train_run(source, recipe=chosen, out=folder, folds=folds, overwrite=overwrite)
