"""Training and new clips in one plot: what the classifier's last layer reads of them, projected to a plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from vidette.data.cache import ClipCache, expand_windows
from vidette.data.manifest import LabelledClip
from vidette.diagnosis.findings import Picture
from vidette.diagnosis.overlay import INK, png
from vidette.errors import InputMismatchError
from vidette.models.keras_network import KerasNetwork
from vidette.video.clip import Clip
from vidette.video.transforms import clip_tensor

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.models import VideoModel

__all__ = ["FeatureSpace", "clip_features", "feature_space", "reference_clips"]

_BATCH = 8
_FAR, _TYPICAL = 0.95, 0.5
_SAME_POINT = 1e-3
_MARKERS = "osD^vPXh<>"
_MOST_CLASSES, _MOST_NAMES = 10, 12


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Training clips and new clips as points.

    Attributes:
        training: float64 ``(M, 2)``.
        training_labels: M labels.
        training_names: M names of clips.
        new: float64 ``(N, 2)``, in the plane that the training clips span.
        new_labels: N answers of the classifier.
        new_names: N names of clips.
        explained: The share of the training clips' variance that each axis of the plane shows.
        distances: float64 ``(N,)``: from each new clip to the nearest training clip, in all dimensions.
        unusualness: float64 ``(N,)``: the share of training clips that are nearer to the nearest training clip
            of another group than the new clip is: 0.99 is far out, 0.5 is ordinary.
        nearest: N indices of the nearest training clip.
    """

    training: np.ndarray
    training_labels: tuple[str, ...]
    training_names: tuple[str, ...]
    new: np.ndarray
    new_labels: tuple[str, ...]
    new_names: tuple[str, ...]
    explained: tuple[float, float]
    distances: np.ndarray
    unusualness: np.ndarray
    nearest: tuple[int, ...]

    def reading(self) -> tuple[str, ...]:
        """Say of every new clip how near it is to the training clips."""
        return tuple(self._reading_of(i) for i in range(len(self.new)))

    def _reading_of(self, index: int) -> str:
        share, nearest = float(self.unusualness[index]), self.nearest[index]
        label = self.training_labels[nearest]
        ours = f"{self.new_names[index]} (answered {self.new_labels[index]!r})"
        beside = f"its nearest training clip is {self.training_names[nearest]} ({label!r})"
        if self.distances[index] < _SAME_POINT:
            twin = f"{self.training_names[nearest]} ({label!r})"
            return f"Feature space: {ours} is one of the training clips: {twin}."
        if share >= _FAR:
            return (
                f"Feature space: {ours} is unlike training: farther from it than {100 * share:.0f} % of the "
                f"training clips are from one another; {beside}."
            )
        if label != self.new_labels[index]:
            return f"Feature space: {ours} is as near to training as others are, but {beside}."
        how = "well among" if share <= _TYPICAL else "among"
        return f"Feature space: {ours} lies {how} the training clips; {beside}."

    def picture(self) -> Picture:
        """Return the plot, with the readings as its caption."""
        return Picture(" ".join(self.reading()), _draw(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "num_training": len(self.training),
            "explained": [round(share, 4) for share in self.explained],
            "training": [
                {"name": name, "label": label, "x": round(float(x), 4), "y": round(float(y), 4)}
                for name, label, (x, y) in zip(
                    self.training_names, self.training_labels, self.training, strict=True
                )
            ],
            "new": [
                {
                    "name": self.new_names[i],
                    "label": self.new_labels[i],
                    "x": round(float(self.new[i, 0]), 4),
                    "y": round(float(self.new[i, 1]), 4),
                    "distance": round(float(self.distances[i]), 4),
                    "unusualness": round(float(self.unusualness[i]), 4),
                    "nearest": self.training_names[self.nearest[i]],
                }
                for i in range(len(self.new))
            ],
            "reading": list(self.reading()),
        }


def feature_space(
    classifier: Classifier,
    reference: Sequence[LabelledClip],
    clips: Sequence[Clip],
    *,
    names: Sequence[str],
    cache: ClipCache,
    on_progress: Callable[[int, int], None] | None = None,
) -> FeatureSpace:
    """Project new clips into the plane of the largest variance of training clips.

    Plane and scales come from the training clips alone (PCA of standardised features), so that new clips cannot
    bend them. How unusual a clip is, the distance to its nearest training clip says, in all dimensions; among
    training clips, those of one group do not count as neighbours. Source of the measure: Sun et al.,
    Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022.

    Args:
        classifier: Its torch network is used.
        reference: Training clips; see :func:`reference_clips`.
        clips: N new clips, cut by the classifier's spec.
        names: N names.
        cache: Where decoded training clips are.
        on_progress: Called with (training clips done, training clips in all).

    Raises:
        InputMismatchError: There are fewer than 3 training clips or no new clip.
        VideoError: A training clip cannot be read.
    """
    if len(reference) < 3 or not clips:
        raise InputMismatchError(
            f"got {len(reference)} training clips and {len(clips)} new ones; expected 3 and 1 at least"
        )
    spec = classifier.spec
    windows = [parts[len(parts) // 2] for parts in (expand_windows([clip], spec) for clip in reference)]
    rows: list[np.ndarray] = []
    for first in range(0, len(windows), _BATCH):
        rows.append(clip_features(classifier, [cache.load(w, spec) for w in windows[first : first + _BATCH]]))
        if on_progress is not None:
            on_progress(min(first + _BATCH, len(windows)), len(windows))
    scaler = StandardScaler().fit(np.concatenate(rows))
    training = np.asarray(scaler.transform(np.concatenate(rows)))
    new = np.asarray(scaler.transform(_in_batches(classifier, clips)))
    plane = PCA(n_components=min(2, training.shape[1]), random_state=0).fit(training)
    apart = pairwise_distances(new, training)
    usual = _nearest_of_another_group(training, [clip.group or clip.path.as_posix() for clip in reference])
    nearest = apart.argmin(axis=1)
    distances = apart[np.arange(len(new)), nearest]
    shares = [*plane.explained_variance_ratio_.tolist(), 0.0]
    return FeatureSpace(
        training=_two(plane.transform(training)),
        training_labels=tuple(clip.label for clip in reference),
        training_names=tuple(clip.name for clip in reference),
        new=_two(plane.transform(new)),
        new_labels=_answers(classifier, clips),
        new_names=tuple(names),
        explained=(shares[0], shares[1]),
        distances=distances,
        unusualness=(usual[None] < distances[:, None]).mean(axis=1),
        nearest=tuple(int(i) for i in nearest),
    )


def reference_clips(clips: Sequence[LabelledClip], *, most: int = 160, seed: int = 0) -> list[LabelledClip]:
    """Choose at most ``most`` clips, as many of each class as there are, at random by ``seed``."""
    generator = np.random.default_rng(seed)
    queues: list[list[LabelledClip]] = []
    for label in sorted({clip.label for clip in clips}):
        own = [clip for clip in clips if clip.label == label]
        queues.append([own[i] for i in generator.permutation(len(own))])
    chosen: list[LabelledClip] = []
    while len(chosen) < most and any(queues):
        for queue in queues:
            if queue and len(chosen) < most:
                chosen.append(queue.pop())
    return chosen


def clip_features(classifier: Classifier, clips: Sequence[Clip]) -> np.ndarray:
    """Return what the classifier's last layer reads of clips, float64 ``(N, D)``; a mean where it reads frames.

    A network without a last linear layer of its own, such as an imported Keras file, gives its logits.
    """
    x = clip_tensor(clips, classifier.spec).to(classifier.device)
    layer = _last_layer(classifier.model, x[:1], num_classes=len(classifier.classes))
    read: list[Tensor] = []
    handle = None
    if layer is not None:

        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            del module
            read.append(inputs[0])

        handle = layer.register_forward_pre_hook(note)
    try:
        with torch.no_grad():
            logits = classifier.model(x)
    finally:
        if handle is not None:
            handle.remove()
    features = read[-1] if read else logits
    return (
        features.reshape(len(clips), -1, features.shape[-1] if features.dim() < 4 else features[0].numel())
        .mean(dim=1, dtype=torch.float64)
        .cpu()
        .numpy()
    )


def _last_layer(model: VideoModel, x: Tensor, *, num_classes: int) -> nn.Module | None:
    """Return the last layer that turns features into classes, by running the network once."""
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        wide = isinstance(module, nn.Linear) and output.shape[-1] == num_classes
        volume = isinstance(module, nn.Conv3d) and output.shape[1] == num_classes
        keras = isinstance(module, KerasNetwork) and inputs[0].dim() < 4 and output.shape[-1] == num_classes
        if wide or volume or keras:
            found.append(module)

    kinds = (nn.Linear, nn.Conv3d, KerasNetwork)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None


def _in_batches(classifier: Classifier, clips: Sequence[Clip]) -> np.ndarray:
    parts = [clip_features(classifier, clips[first : first + _BATCH]) for first in range(0, len(clips), _BATCH)]
    return np.concatenate(parts)


def _answers(classifier: Classifier, clips: Sequence[Clip]) -> tuple[str, ...]:
    batches = [clips[first : first + _BATCH] for first in range(0, len(clips), _BATCH)]
    return tuple(classifier.classes[int(k)] for part in batches for k in classifier.logits(part).argmax(axis=1))


def _nearest_of_another_group(points: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return, for each point, the distance to the nearest one of another group, or of any where all are one."""
    apart = pairwise_distances(points)
    names = np.array(groups)
    same = names[:, None] == names[None]
    if same.all():
        same = np.eye(len(names), dtype=bool)
    return np.where(same, np.inf, apart).min(axis=1)


def _two(points: np.ndarray) -> np.ndarray:
    """Return ``(N, 2)`` of points that may have one dimension only."""
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _draw(space: FeatureSpace) -> bytes:
    figure = Figure(figsize=(9.5, 7), layout="constrained")
    axis = figure.subplots()
    _draw_training(axis, space)
    far = space.unusualness >= _FAR
    for chosen, colour, label in ((~far, INK, "new clip"), (far, "#d1242f", "new clip, unlike training")):
        if chosen.any():
            x, y = space.new[chosen].T
            axis.scatter(x, y, s=260, marker="*", color=colour, edgecolor="white", zorder=4, label=label)
    if len(space.new) <= _MOST_NAMES:
        for (x, y), name, answer in zip(space.new, space.new_names, space.new_labels, strict=True):
            text = f"{name.rsplit('/', 1)[-1]}: {answer}"
            axis.annotate(
                text, (x, y), xytext=(9, 7), textcoords="offset points", fontsize=9, color=INK, parse_math=False
            )
    across, up = (100 * share for share in space.explained)
    axis.set(
        xlabel=f"first direction ({across:.0f} % of the variance)", ylabel=f"second direction ({up:.0f} %)"
    )
    axis.set_title(
        f"{len(space.training)} training clips and {len(space.new)} new, as the last layer sees them",
        color=INK,
    )
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.spines[["top", "right"]].set_visible(False)
    return png(figure)


def _draw_training(axis: Axes, space: FeatureSpace) -> None:
    """Draw the training clips, a colour and a mark for each class; rarer classes beyond ten are grey."""
    labels = sorted(set(space.training_labels), key=lambda label: -space.training_labels.count(label))
    names = np.array(space.training_labels)
    for i, label in enumerate(labels[:_MOST_CLASSES]):
        x, y = space.training[names == label].T
        axis.scatter(x, y, s=26, marker=_MARKERS[i % len(_MARKERS)], color=f"C{i}", alpha=0.6, label=label)
    rest = np.isin(names, labels[_MOST_CLASSES:])
    if rest.any():
        x, y = space.training[rest].T
        axis.scatter(x, y, s=16, color="#b8c0cc", alpha=0.6, label="other classes")
