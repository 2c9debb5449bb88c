"""How a classifier's pictures, features and answers were in training: what live sources are held against."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from vidette.errors import ClassifierError, InputMismatchError
from vidette.evaluation.levels import QUANTILES, Level, entropy, picture_change, picture_levels
from vidette.models.base import FrameModel
from vidette.video.clip import Clip
from vidette.video.transforms import pixels_tensor

if TYPE_CHECKING:
    import torch

    from vidette.classifier.classifier import Classifier

__all__ = [
    "MOST_CLIPS",
    "FeatureReference",
    "ReferenceStatistics",
    "find_reference",
    "pooled_features",
    "reference_statistics",
]

MOST_CLIPS = 200
"""Clips that are looked at; more change the statistics little."""
_KEY = "reference"
_FRAMES_A_CLIP = 4
_COMPONENTS = 8
_FOLDS = 5
_LEAST_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class FeatureReference:
    """Where the features of frames lie: a Gaussian with a few directions of their own spread.

    Features are standardised by ``mean`` and ``std``; then the covariance is that of probabilistic PCA
    (Tipping, Bishop, JRSS B 61, 1999): R directions with their own variances, one variance for all others.
    Shrunk so, it is invertible whatever the number of frames.

    Attributes:
        mean: float64 ``(D,)``.
        std: float64 ``(D,)``, above 0.
        directions: float64 ``(R, D)``, of unit length and orthogonal; R may be 0.
        variances: float64 ``(R,)``, along the directions.
        rest: The variance along every other direction.
        distance: Of clips that the statistics were not computed on (by folds), as :meth:`distances` gives it.
    """

    mean: np.ndarray
    std: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: float
    distance: Level

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of features ``(N, D)``, over the root of D: about 1 as in training.

        Raises:
            InputMismatchError: The features have another length.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise InputMismatchError(f"features are {features.shape}; expected (N, {len(self.mean)})")
        standard = (features - self.mean) / self.std
        along = standard @ self.directions.T
        others = np.clip(np.square(standard).sum(1) - np.square(along).sum(1), 0, None)
        squares = (np.square(along) / self.variances).sum(1) + others / self.rest
        return np.sqrt(squares / len(self.mean))

    @classmethod
    def of(cls, clips: Sequence[np.ndarray]) -> FeatureReference:
        """Fit the features of n clips, each ``(F, D)``; distances are those of clips left out of the fit."""
        folds = min(_FOLDS, len(clips))
        distances: list[np.ndarray] = []
        for i in range(folds if folds > 1 else 0):
            fitted = cls._fit([clip for j, clip in enumerate(clips) if j % folds != i])
            distances += [fitted.distances(clip) for clip in clips[i::folds]]
        whole = cls._fit(clips)
        return dataclasses.replace(
            whole, distance=Level.of(distances or [whole.distances(clip) for clip in clips], scale="log")
        )

    @classmethod
    def _fit(cls, clips: Sequence[np.ndarray]) -> FeatureReference:
        values = np.concatenate(clips).astype(np.float64)
        mean, std = values.mean(axis=0), values.std(axis=0)
        # A feature that hardly ever moves would make every difference a huge one.
        std = np.maximum(std, max(_LEAST_SHARE * float(np.sqrt(np.square(values).mean())), 1e-12))
        standard = (values - mean) / std
        wanted = min(_COMPONENTS, len(clips) - 1, values.shape[1] - 1)
        _, spread, directions = np.linalg.svd(standard, full_matrices=False)
        variances = np.square(spread[:wanted]) / len(values)
        total = float(np.square(standard).mean(axis=0).sum())
        rest = (total - float(variances.sum())) / (values.shape[1] - len(variances))
        rest = max(rest, _LEAST_SHARE)
        nowhere = Level(0, float("nan"), 0.0, 0.0, (float("nan"),) * len(QUANTILES))
        return cls(mean, std, directions[:wanted], np.maximum(variances, rest), rest, nowhere)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; arrays are float32 as base64 text."""
        arrays = {name: _packed(getattr(self, name)) for name in ("mean", "std", "directions", "variances")}
        return {**arrays, "rest": self.rest, "distance": dataclasses.asdict(self.distance)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureReference:
        """Read what :meth:`to_dict` wrote."""
        mean = _unpacked(values["mean"])
        return cls(
            mean,
            _unpacked(values["std"]),
            _unpacked(values["directions"]).reshape(-1, len(mean)),
            _unpacked(values["variances"]),
            float(values["rest"]),
            Level.from_dict(values["distance"]),
        )

    def __repr__(self) -> str:
        return f"FeatureReference({len(self.mean)} features, {len(self.directions)} directions)"


@dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """How clips looked to a classifier, and what it answered, where it was trained.

    Attributes:
        n: Clips that were looked at.
        classes: Names in the order of the logits.
        brightness, contrast, sharpness, noise: As :class:`PictureLevels`, of frames at the spec's size.
        change: Mean absolute difference from one frame to the next, in levels of 0 to 255.
        channel_mean, channel_std: Of the model's input, one number a channel.
        features: Of single frames, pooled over the picture; None for a model without a per-frame part.
        confidence: The largest probability.
        entropy: Of the probabilities, in nats.
        logit_mean, logit_std: One number a class.
        label_rates: The share of clips answered with each class.
        flip_rate: How often the answer changes from one frame to the next in the second half of a clip, 0 to 1;
            None for models whose step was not tried.
    """

    n: int
    classes: tuple[str, ...]
    brightness: Level
    contrast: Level
    sharpness: Level
    noise: Level
    change: Level
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    features: FeatureReference | None
    confidence: Level
    entropy: Level
    logit_mean: tuple[float, ...]
    logit_std: tuple[float, ...]
    label_rates: tuple[float, ...]
    flip_rate: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in values.items():
            if isinstance(value, Level):
                values[name] = dataclasses.asdict(value)
            elif isinstance(value, FeatureReference):
                values[name] = value.to_dict()
            elif isinstance(value, tuple):
                values[name] = list(cast("tuple[Any, ...]", value))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReferenceStatistics:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ClassifierError: Something is missing or of another kind.
        """
        try:
            plain = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            for name, value in plain.items():
                if name == "features":
                    plain[name] = None if value is None else FeatureReference.from_dict(value)
                elif isinstance(value, Mapping):
                    plain[name] = Level.from_dict(cast("Mapping[str, Any]", value))
                elif isinstance(value, list):
                    plain[name] = tuple(cast("list[Any]", value))
            return cls(**plain)
        except (KeyError, TypeError, ValueError) as error:
            raise ClassifierError(
                f"the classifier's reference statistics cannot be read ({error!r}); train it again"
            ) from error

    def __repr__(self) -> str:
        return f"ReferenceStatistics({self.n} clips, {len(self.classes)} classes, {self.features})"


def find_reference(classifier: Classifier) -> ReferenceStatistics | None:
    """Return the statistics that training left in a classifier, None where it left none.

    Raises:
        ClassifierError: They cannot be read.
    """
    values = classifier.training_statistics.get(_KEY)
    return None if values is None else ReferenceStatistics.from_dict(values)


def pooled_features(features: torch.Tensor) -> np.ndarray:
    """Average per-frame features ``(T, D, g, g)`` over the picture: float64 ``(T, D)``; ``(T, D)`` stays."""
    return features.flatten(1).unflatten(1, (features.shape[1], -1)).double().mean(dim=-1).cpu().numpy()


def reference_statistics(
    classifier: Classifier, clips: Iterable[Clip], *, known: Iterable[tuple[Tensor, np.ndarray]] | None = None
) -> ReferenceStatistics:
    """Measure clips, and the classifier's answers to them; at most :data:`MOST_CLIPS`, the first ones.

    Args:
        classifier: Calibrated.
        clips: Cut by its spec; taken one at a time. Best are clips it was not trained on.
        known: Of each clip the features ``(T, ...)``, as :meth:`Classifier.features` gives them or averaged
            over the picture, and the logits ``(K,)``; computed where absent.

    Raises:
        InputMismatchError: There is no clip, or one does not fit the classifier.
    """
    measured: list[_Measured] = []
    given = iter(known) if known is not None else None
    for clip in islice(clips, MOST_CLIPS):
        features, logits = _answered(classifier, clip) if given is None else next(given)
        measured.append(_measure(classifier, clip, features[None], logits))
    if not measured:
        raise InputMismatchError("there is no clip to take reference statistics of; give at least one")
    logits = np.stack([each.logits for each in measured]).astype(np.float64)
    probabilities = classifier.probabilities(logits)
    labels = probabilities.argmax(axis=1)
    flips = [each.flips for each in measured if each.flips is not None]
    channels = np.stack([each.channels for each in measured]).mean(axis=0)
    pooled = [each.features for each in measured if each.features is not None]
    return ReferenceStatistics(
        n=len(measured),
        classes=classifier.classes,
        brightness=Level.of([each.pictures[:, 0] for each in measured]),
        contrast=Level.of([each.pictures[:, 1] for each in measured], scale="log"),
        sharpness=Level.of([each.pictures[:, 2] for each in measured], scale="log"),
        noise=Level.of([each.pictures[:, 3] for each in measured], scale="log"),
        change=Level.of([each.changes for each in measured], scale="log"),
        channel_mean=tuple(channels[0].tolist()),
        channel_std=tuple(np.sqrt(np.clip(channels[1] - channels[0] ** 2, 0, None)).tolist()),
        features=FeatureReference.of(pooled) if pooled else None,
        confidence=Level.of(list(probabilities.max(axis=1, keepdims=True))),
        entropy=Level.of(list(entropy(probabilities)[:, None])),
        logit_mean=tuple(logits.mean(axis=0).tolist()),
        logit_std=tuple(logits.std(axis=0).tolist()),
        label_rates=tuple((np.bincount(labels, minlength=logits.shape[1]) / len(labels)).tolist()),
        flip_rate=float(np.mean(flips)) if flips else None,
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """One clip: pictures ``(F, 4)``, changes ``(G,)``, channels ``(2, C)`` (mean, mean square), and answers."""

    pictures: np.ndarray
    changes: np.ndarray
    channels: np.ndarray
    features: np.ndarray | None
    logits: np.ndarray
    flips: float | None


def _answered(classifier: Classifier, clip: Clip) -> tuple[Tensor, np.ndarray]:
    features = classifier.features([clip])
    return features[0], classifier.logits_of_features(features)[0]


def _measure(classifier: Classifier, clip: Clip, features: Tensor, logits: np.ndarray) -> _Measured:
    chosen = np.unique(np.linspace(0, len(clip.pixels) - 1, _FRAMES_A_CLIP).round().astype(int))
    pictures = clip.pixels[chosen]
    following = chosen[chosen + 1 < len(clip.pixels)]
    changes = [picture_change(clip.pixels[i], clip.pixels[i + 1]) for i in following]
    values = pixels_tensor(pictures[None], classifier.spec)[0].double()
    per_frame = isinstance(classifier.model, FrameModel)
    return _Measured(
        pictures=np.array([dataclasses.astuple(picture_levels(picture)) for picture in pictures]),
        changes=np.array(changes or [0.0]),
        channels=np.stack([values.mean(dim=(0, 2, 3)).numpy(), values.square().mean(dim=(0, 2, 3)).numpy()]),
        features=pooled_features(features[0, chosen]) if per_frame else None,
        logits=logits,
        flips=_flips(classifier, features) if per_frame and classifier.model.can_step else None,
    )


def _flips(classifier: Classifier, features: Tensor) -> float | None:
    """Return how often the answer changes from step to step over the second half of a clip."""
    import torch

    if features.shape[1] < 4:
        return None
    head, labels = classifier.model.head, list[int]()
    with torch.no_grad():
        state = head.initial_state(1)
        for frame in features.to(classifier.device).unbind(1):
            logits, state = head.step(frame, state)
            labels.append(int(logits[0].argmax()))
    late = np.array(labels[len(labels) // 2 :])
    return float((late[1:] != late[:-1]).mean())


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
