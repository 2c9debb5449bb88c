"""What gives the label away without watching: how the files were made, and the empty place they were filmed in.

Every measure is the area under the ROC curve (AUC) of answers to clips whose group was not trained on, with an
interval from 400 resamplings of whole groups (B. Efron and R. Tibshirani, An Introduction to the Bootstrap,
1993).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from vidette.data.audit_looks import ClipLook
from vidette.data.manifest import LabelledClip
from vidette.video.reader import VideoInfo

__all__ = [
    "CLIP_BACKGROUND",
    "PLACE",
    "Shortcut",
    "clip_seconds",
    "held_out_probabilities",
    "measure_auc",
    "measure_shortcuts",
    "picture_model",
]

CLIP_BACKGROUND = "background of the clip (per-pixel median)"
PLACE = "empty place (mean background of the scene)"
_FOLDS, _RESAMPLES = 5, 400


@dataclass(frozen=True)
class Shortcut:
    """How well one property alone predicts the label.

    Attributes:
        name: The property.
        auc: Of held-out answers; the mean over classes, each against the rest. 0.5 is guessing; nan if
            undefined.
        low: Lower end of the 95 % interval, nan if undefined.
        high: Upper end.
        n: Clips.
        num_groups: Groups that folds and resampling keep whole.
        reason: Why it is undefined, else empty.
    """

    name: str
    auc: float
    low: float
    high: float
    n: int
    num_groups: int
    reason: str = ""

    def text(self) -> str:
        """Return the measure for people: ``AUC 0.71 (95 % interval 0.62 to 0.80, 300 clips of 45 groups)``."""
        if self.reason:
            return f"not measured: {self.reason}"
        return (
            f"AUC {self.auc:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, "
            f"{self.n} clips of {self.num_groups} groups)"
        )


def measure_shortcuts(
    clips: Sequence[LabelledClip],
    infos: Sequence[VideoInfo],
    looks: Sequence[ClipLook],
    scene_of: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """Measure how well each property of the files, all of them, and the background alone tell the label.

    The median picture of a clip still holds whoever stands still in it; the place, the mean background of all
    clips of a scene, does not, so only the place is evidence that classes were filmed in different places.

    Args:
        clips: N labelled clips.
        infos: What each file is.
        looks: What each clip looks like.
        scene_of: int ``(N,)``, the scene of each clip.
        groups: int ``(N,)``; clips of one group are never on both sides of a fold.
        seed: Seed of the folds, the models and the resampling.
    """
    labels = np.array([clip.label for clip in clips])
    columns = _properties(clips, infos, looks)
    tree = DecisionTreeClassifier(
        max_leaf_nodes=8, min_samples_leaf=max(2, len(clips) // 40), random_state=seed
    )
    forest = RandomForestClassifier(150, min_samples_leaf=2, random_state=seed)
    found = [_measure(name, values, labels, groups, tree, seed) for name, values in columns.items()]
    table = np.concatenate(list(columns.values()), axis=1)
    found.append(_measure("all of these together", table, labels, groups, forest, seed))
    backgrounds = np.stack([look.background_features for look in looks])
    places = np.stack([backgrounds[scene_of == scene].mean(0) for scene in scene_of])
    found.append(_measure(CLIP_BACKGROUND, backgrounds, labels, groups, picture_model(), seed))
    found.append(_measure(PLACE, places, labels, groups, picture_model(), seed))
    return tuple(found)


def picture_model() -> Any:
    """Return the model that reads labels off picture features: standardised, linear, strongly held back."""
    linear = LogisticRegression(C=1e-3, max_iter=2000, class_weight="balanced")
    return make_pipeline(StandardScaler(), linear)


def _properties(
    clips: Sequence[LabelledClip], infos: Sequence[VideoInfo], looks: Sequence[ClipLook]
) -> dict[str, np.ndarray]:
    """Columns ``(N, D)`` of what is known without watching."""
    codecs = [info.codec for info in infos]
    known = sorted(set(codecs))
    return {
        "resolution": np.array([(info.width, info.height) for info in infos], float),
        "aspect ratio": _column([info.width / info.height for info in infos]),
        "frames a second": _column([info.fps or 0.0 for info in infos]),
        "duration": _column([clip_seconds(clip, info) for clip, info in zip(clips, infos, strict=True)]),
        "bit rate": _column([float(info.bit_rate or 0) for info in infos]),
        "codec": np.array([[codec == name for name in known] for codec in codecs], float),
        "brightness": _column([look.brightness for look in looks]),
    }


def _column(values: Sequence[float]) -> np.ndarray:
    return np.array(values, float)[:, None]


def clip_seconds(clip: LabelledClip, info: VideoInfo) -> float:
    """Return how long a clip, or the part of a file that it is, lasts in seconds."""
    stop = info.duration_seconds if clip.stop_seconds is None else min(clip.stop_seconds, info.duration_seconds)
    return max(0.0, stop - (clip.start_seconds or 0.0))


def _measure(
    name: str, values: np.ndarray, labels: np.ndarray, groups: np.ndarray, model: Any, seed: int
) -> Shortcut:
    n, num_groups = len(labels), len(np.unique(groups))
    if len(np.unique(values, axis=0)) < 2:
        return Shortcut(name, 0.5, 0.5, 0.5, n, num_groups)
    probabilities = held_out_probabilities(values, labels, groups, model, seed=seed)
    if probabilities is None:
        reason = "a class has clips of one group only"
        return Shortcut(name, np.nan, np.nan, np.nan, n, num_groups, reason)
    auc, low, high = measure_auc(probabilities, labels, groups, seed=seed)
    return Shortcut(name, auc, low, high, n, num_groups)


def held_out_probabilities(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray, model: Any, *, seed: int
) -> np.ndarray | None:
    """Return probabilities ``(N, K)`` of the sorted classes, each clip's by a model that never saw its group.

    Returns:
        None where a class has fewer than two groups, so that it cannot be both learnt and held out.
    """
    classes = np.unique(labels)
    fewest = min(len(np.unique(groups[labels == label])) for label in classes)
    if fewest < 2 or len(classes) < 2:
        return None
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    probabilities = np.full((len(labels), len(classes)), 1 / len(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for train, test in folds.split(values, labels, groups):
            if len(test) == 0 or len(np.unique(labels[train])) < 2:
                continue
            fresh: Any = clone(model)
            fitted = fresh.fit(values[train], labels[train])
            probabilities[test] = 0.0
            columns = np.searchsorted(classes, fitted.classes_)
            probabilities[np.ix_(test, columns)] = fitted.predict_proba(values[test])
    return probabilities


def measure_auc(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seed: int
) -> tuple[float, float, float]:
    """Return the AUC and its 95 % interval over resampled groups; nan where a class is missing throughout."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn: list[float] = []
    for _ in range(_RESAMPLES):
        picked = np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])
        drawn.append(_auc(probabilities[picked], labels[picked], np.unique(labels)))
    kept = np.array(drawn)[np.isfinite(drawn)]
    low, high = np.quantile(kept, (0.025, 0.975)) if len(kept) else (np.nan, np.nan)
    return _auc(probabilities, labels, np.unique(labels)), float(low), float(high)


def _auc(probabilities: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Mean over the classes of the AUC of each against the rest; nan if a class is missing."""
    if len(np.unique(labels)) < len(classes):
        return float("nan")
    columns = [1] if len(classes) == 2 else range(len(classes))
    return float(np.mean([_area(probabilities[:, k], labels == classes[k]) for k in columns]))


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    """AUC by ranks, ties counting half (H. Mann and D. Whitney, Ann. Math. Statist. 18, 1947)."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
