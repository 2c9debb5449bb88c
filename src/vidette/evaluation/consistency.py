"""Does the classifier use time: the whole clip beside its single frames and beside its frames out of order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from vidette.evaluation.metrics import Interval, bootstrap_interval
from vidette.video.clip import Clip

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["Consistency", "ProbeAnswers", "probe", "probe_batch", "summarise"]

_BATCH = 8
_ONE_GROUP = "needs at least 2 groups of clips, got 1"
_SAME, _NOTABLE = 0.02, 0.10


@dataclass(frozen=True, eq=False)
class ProbeAnswers:
    """What a classifier said of N clips as they are, of single frames, and of frames out of order.

    Attributes:
        clip_logits: float32 ``(N, K)``.
        frame_logits: float32 ``(N, F, K)``: F frames a clip, each standing still for the whole clip.
        shuffled_logits: float32 ``(N, S, K)``: S random orders of the clip's frames.
    """

    clip_logits: np.ndarray
    frame_logits: np.ndarray
    shuffled_logits: np.ndarray

    def __repr__(self) -> str:
        n, frames, k = self.frame_logits.shape
        return (
            f"ProbeAnswers({n} clips, {frames} frames, {self.shuffled_logits.shape[1]} shuffles, {k} classes)"
        )


@dataclass(frozen=True)
class Consistency:
    """Accuracy of the same clips seen in four ways. Rates run from 0 to 1; undefined is nan, with its reason.

    Attributes:
        n: Clips.
        clip_accuracy: Of the whole clip, frames in order.
        frame_accuracy: Of single frames: one frame repeated for the whole clip.
        frame_vote_accuracy: Of the mean probability of a clip's single frames.
        frame_agreement: How often a single frame is answered like its clip.
        shuffled_accuracy: Of the clip with its frames out of order.
        order_gap: ``clip_accuracy - shuffled_accuracy``: what the order of the frames is worth.
        order_gap_interval: 95 %, by bootstrap over groups.
        frame_gap: ``clip_accuracy - frame_vote_accuracy``: what seeing several frames at once is worth.
        frame_gap_interval: 95 %, by bootstrap over groups.
        frames_per_clip: Single frames taken of each clip.
        num_shuffles: Random orders tried of each clip.
        undefined: Reason of every nan, by the field's name.
    """

    n: int
    clip_accuracy: float
    frame_accuracy: float
    frame_vote_accuracy: float
    frame_agreement: float
    shuffled_accuracy: float
    order_gap: float
    order_gap_interval: Interval
    frame_gap: float
    frame_gap_interval: Interval
    frames_per_clip: int
    num_shuffles: int
    undefined: dict[str, str] = field(default_factory=dict[str, str])

    def reading(self) -> tuple[str, ...]:
        """Say in plain sentences what the numbers mean."""
        if self.n == 0:
            return ("No clip was probed, so nothing can be said about time.",)
        return (self._reading_of_order(), self._reading_of_frames())

    def _reading_of_order(self) -> str:
        if np.isnan(self.order_gap):
            return f"The order gap is undefined: {self.undefined['order_gap']}."
        loss = _change(self.order_gap, self.order_gap_interval)
        times = f"Putting the frames out of order changes accuracy by {loss}"
        return {
            "yes": f"{times}: the classifier uses the order of events.",
            "no": f"{times}: the classifier does not use the order of events, only what is in the pictures.",
            "unsure": f"{times}: too few clips to tell whether the classifier uses the order of events.",
        }[_matters(self.order_gap, self.order_gap_interval)]

    def _reading_of_frames(self) -> str:
        loss = _change(self.frame_gap, self.frame_gap_interval)
        times = f"Seeing one frame at a time changes accuracy by {loss}"
        return {
            "yes": f"{times}: the answer needs several frames.",
            "no": f"{times}: on these clips the classifier gains nothing from seeing several frames, so on a "
            "live camera a still scene may be answered like motion.",
            "unsure": f"{times}: too few clips to tell whether it gains from seeing several frames.",
        }[_matters(self.frame_gap, self.frame_gap_interval)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None, its reason stays in ``undefined``."""
        rates = {
            name: _plain(getattr(self, name))
            for name in (
                "clip_accuracy",
                "frame_accuracy",
                "frame_vote_accuracy",
                "frame_agreement",
                "shuffled_accuracy",
                "order_gap",
                "frame_gap",
            )
        }
        return {
            "n": self.n,
            **rates,
            "order_gap_interval": [_plain(self.order_gap_interval.low), _plain(self.order_gap_interval.high)],
            "frame_gap_interval": [_plain(self.frame_gap_interval.low), _plain(self.frame_gap_interval.high)],
            "frames_per_clip": self.frames_per_clip,
            "num_shuffles": self.num_shuffles,
            "undefined": dict(self.undefined),
        }


def probe(
    classifier: Classifier,
    clips: Sequence[Clip],
    labels: Sequence[int] | np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    num_shuffles: int = 3,
    frames_per_clip: int = 4,
    seed: int = 0,
) -> Consistency:
    """Answer clips whole, frame by frame and shuffled, computing the per-frame part of the model once.

    Args:
        classifier: Gives per-frame features and logits of features.
        clips: N clips that fit the classifier's spec.
        labels: N indices of the true class.
        groups: N group names for the interval; each clip its own when None.
        num_shuffles: Random orders of each clip.
        frames_per_clip: Equally spaced frames of each clip, answered one by one.
        seed: Of the orders; clip i's orders do not depend on the other clips.
    """
    answers = [
        probe_batch(
            classifier,
            clips[first : first + _BATCH],
            clip_numbers=range(first, min(first + _BATCH, len(clips))),
            num_shuffles=num_shuffles,
            frames_per_clip=frames_per_clip,
            seed=seed,
        )
        for first in range(0, len(clips), _BATCH)
    ]
    names = tuple(groups) if groups is not None else tuple(str(i) for i in range(len(clips)))
    return summarise(
        answers,
        np.asarray(labels, dtype=np.int64),
        groups=names,
        probabilities=classifier.probabilities,
        num_frames=classifier.spec.num_frames,
    )


def probe_batch(
    classifier: Classifier,
    clips: Sequence[Clip],
    *,
    clip_numbers: Iterable[int],
    num_shuffles: int = 3,
    frames_per_clip: int = 4,
    seed: int = 0,
) -> ProbeAnswers:
    """Answer N clips whole, frame by frame and shuffled.

    Args:
        classifier: Gives per-frame features and logits of features.
        clips: N clips that fit the classifier's spec.
        clip_numbers: N numbers; a clip's random orders depend on ``seed`` and its number alone.
        num_shuffles: Random orders of each clip.
        frames_per_clip: Equally spaced frames of each clip; at most T.
        seed: Of the orders.
    """
    features = classifier.features(clips)
    num_frames = features.shape[1]
    frames = np.unique(np.linspace(0, num_frames - 1, min(frames_per_clip, num_frames)).round().astype(int))
    orders = np.stack([_orders(num_frames, num_shuffles, seed=(seed, number)) for number in clip_numbers])
    rows = torch.arange(len(clips), device=features.device)[:, None]
    still = [features[:, [frame]].expand_as(features) for frame in frames]
    shuffled = [features[rows, torch.from_numpy(orders[:, i]).to(features.device)] for i in range(num_shuffles)]
    return ProbeAnswers(
        clip_logits=classifier.logits_of_features(features),
        frame_logits=np.stack([classifier.logits_of_features(f) for f in still], axis=1),
        shuffled_logits=np.stack([classifier.logits_of_features(f) for f in shuffled], axis=1),
    )


def summarise(
    answers: Sequence[ProbeAnswers],
    labels: np.ndarray,
    *,
    groups: Sequence[str],
    probabilities: Callable[[np.ndarray], np.ndarray],
    num_frames: int,
) -> Consistency:
    """Turn the answers of N clips in all into accuracies.

    Args:
        answers: Batches, N clips together.
        labels: int ``(N,)``.
        groups: N names.
        probabilities: Calibrated probabilities of logits, ``(..., K)`` to ``(..., K)``.
        num_frames: T of the clips; with 1 the order gap is undefined.
    """
    if not answers:
        return _nothing_probed()
    clip_answers = np.concatenate([a.clip_logits for a in answers]).argmax(axis=-1)
    frame_logits = np.concatenate([a.frame_logits for a in answers])
    shuffled_answers = np.concatenate([a.shuffled_logits for a in answers]).argmax(axis=-1)
    frame_answers = frame_logits.argmax(axis=-1)
    votes = probabilities(frame_logits).mean(axis=1).argmax(axis=-1)
    clip_right = (clip_answers == labels).astype(np.float64)
    shuffled_right = (shuffled_answers == labels[:, None]).mean(axis=1)
    vote_right = (votes == labels).astype(np.float64)
    gap, interval, undefined = _order_gap(clip_right - shuffled_right, groups, num_frames)
    frame_gap_interval = bootstrap_interval(clip_right - vote_right, groups)
    if not frame_gap_interval.defined:
        undefined["frame_gap_interval"] = _ONE_GROUP
    return Consistency(
        n=len(labels),
        clip_accuracy=float(clip_right.mean()),
        frame_accuracy=float((frame_answers == labels[:, None]).mean()),
        frame_vote_accuracy=float(vote_right.mean()),
        frame_agreement=float((frame_answers == clip_answers[:, None]).mean()),
        shuffled_accuracy=float(shuffled_right.mean()),
        order_gap=gap,
        order_gap_interval=interval,
        frame_gap=float((clip_right - vote_right).mean()),
        frame_gap_interval=frame_gap_interval,
        frames_per_clip=frame_logits.shape[1],
        num_shuffles=shuffled_answers.shape[1],
        undefined=undefined,
    )


def _nothing_probed() -> Consistency:
    nan, none = float("nan"), Interval(float("nan"), float("nan"))
    rates = ("clip_accuracy", "frame_accuracy", "frame_vote_accuracy", "frame_agreement", "shuffled_accuracy")
    gaps = ("order_gap", "order_gap_interval", "frame_gap", "frame_gap_interval")
    reasons = dict[str, str]()
    for name in (*rates, *gaps):
        reasons[name] = "no clip was probed"
    return Consistency(0, nan, nan, nan, nan, nan, nan, none, nan, none, 0, 0, reasons)


def _order_gap(
    differences: np.ndarray, groups: Sequence[str], num_frames: int
) -> tuple[float, Interval, dict[str, str]]:
    nan = Interval(float("nan"), float("nan"))
    if num_frames < 2:
        reason = "a clip of one frame has no order"
        return float("nan"), nan, {"order_gap": reason, "order_gap_interval": reason}
    interval = bootstrap_interval(differences, groups)
    few = {} if interval.defined else {"order_gap_interval": _ONE_GROUP}
    return float(differences.mean()), interval, few


def _orders(num_frames: int, num_shuffles: int, *, seed: tuple[int, int]) -> np.ndarray:
    """Random orders ``(S, T)``, none of them the given one where T allows another."""
    generator = np.random.default_rng(seed)
    orders = np.empty((num_shuffles, num_frames), dtype=np.int64)
    for i in range(num_shuffles):
        orders[i] = generator.permutation(num_frames)
        while num_frames > 1 and (np.diff(orders[i]) == 1).all():
            orders[i] = generator.permutation(num_frames)
    return orders


def _matters(gap: float, interval: Interval) -> Literal["yes", "no", "unsure"]:
    """Whether a gap is there (2 points or more, interval above 0), is not (surely under 10), or may be."""
    if interval.defined and gap > _SAME and interval.low > 0:
        return "yes"
    return "no" if interval.defined and interval.high < _NOTABLE else "unsure"


def _change(gap: float, interval: Interval) -> str:
    """A loss in points, with its interval."""
    if not interval.defined:
        return f"{_points(-100 * gap)} points"
    low, high = _points(-100 * interval.high), _points(-100 * interval.low)
    return f"{_points(-100 * gap)} points (95 % interval {low} to {high})"


def _points(value: float) -> str:
    return f"{round(value):+d}"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
