"""What in a clip speaks for an answer: where in each frame, and when.

Where: class activation maps, read at the network's last convolution. When: parts of the clip are left out and
the answer is asked again (occlusion of time), which needs no gradient and suits recurrent networks, 3-D CNNs
and transformers alike. Both speak of the answer's log odds: ``ln(p / (1 - p))``, p its calibrated probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor

from vidette.diagnosis.map_layers import find_map_layer
from vidette.errors import InputMismatchError, SettingError, unknown_name
from vidette.video.clip import Clip
from vidette.video.transforms import clip_tensor

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.models import VideoModel

__all__ = [
    "ActivationMaps",
    "Explanation",
    "Fill",
    "TimeImportance",
    "activation_maps",
    "explain_clip",
    "log_odds",
    "time_importance",
]

Fill = Literal["neighbour", "mean"]

_BATCH = 8
_QUARTER = 0.25
_SPREAD, _FOCUSED = 0.4, 0.6
_TELLING = 0.5
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """Where the evidence for a class lies.

    Attributes:
        maps: float32 ``(T, H, W)`` at the clip's size, 0 and above: how far a place speaks for the class, by
            the network's last map. Only differences within a clip have a meaning.
        layer: Where in the network they were read.
        layer_shape: ``(h, w)``, or ``(t, h, w)`` where the network convolves over time: how coarse they are.
    """

    maps: np.ndarray
    layer: str
    layer_shape: tuple[int, ...]

    def focus(self) -> float:
        """Return the share of the evidence in the strongest quarter of all places, 0.25 if it is spread evenly.

        nan where there is no evidence at all.
        """
        strongest = np.sort(self.maps, axis=None)[::-1]
        total = float(strongest.sum(dtype=np.float64))
        kept = strongest[: max(1, round(_QUARTER * len(strongest)))]
        return float(kept.sum(dtype=np.float64)) / total if total > 0 else float("nan")

    def place(self) -> str:
        """Name the ninth of the picture that holds the centre of the evidence, for example ``"top left"``."""
        along_rows = self.maps.sum(axis=(0, 2), dtype=np.float64)
        along_columns = self.maps.sum(axis=(0, 1), dtype=np.float64)
        row, column = (_centre(part) for part in (along_rows, along_columns))
        if (row, column) == (1, 1):
            return "centre"
        return f"{_ROWS[row]} {_COLUMNS[column]}"


@dataclass(frozen=True, eq=False)
class TimeImportance:
    """When the evidence for a class is seen.

    Attributes:
        drops: float64 ``(R,)``: how far the class's log odds fall when the frames ``[r, r + run_frames)``
            are left out; below 0 where the run speaks against the class.
        per_frame: float64 ``(T,)``: the mean drop of the runs that hold the frame.
        run_frames: Frames left out at once.
        fill: What stands in for them: ``"neighbour"``: the nearest frame that is left, so that the picture
            freezes; ``"mean"``: the mean frame of the clip.
    """

    drops: np.ndarray
    per_frame: np.ndarray
    run_frames: int
    fill: Fill

    def strongest(self) -> tuple[int, int]:
        """Return the frames ``[start, stop)`` whose absence lowers the log odds most."""
        start = int(self.drops.argmax())
        return start, start + self.run_frames


@dataclass(frozen=True, eq=False)
class Explanation:
    """What in one clip speaks for a class.

    Attributes:
        clip: The clip, as the network sees it.
        label: The class.
        probability: Its calibrated probability in this clip.
        maps: Where; None where the network has no such maps.
        importance: When; None for a clip of one frame.
        reason: Why there are no maps.
    """

    clip: Clip
    label: str
    probability: float
    maps: ActivationMaps | None
    importance: TimeImportance | None
    reason: str = ""

    def reading(self) -> tuple[str, ...]:
        """Say in plain sentences what the maps and the importance show."""
        return (self._reading_of_place(), *self._reading_of_time())

    def _reading_of_place(self) -> str:
        if self.maps is None:
            return f"Where: no map ({self.reason})."
        focus = self.maps.focus()
        if np.isnan(focus):
            return f"Where: no place in the picture speaks for {self.label!r}."
        how = "mostly" if focus >= _FOCUSED else "loosely" if focus >= _SPREAD else "spread over all,"
        share = f"a quarter of the places holds {100 * focus:.0f} % of the evidence"
        grid = "x".join(str(places) for places in self.maps.layer_shape[-2:])
        return (
            f"Where: the evidence for {self.label!r} lies {how} around the {self.maps.place()} ({share}; the "
            f"network tells {grid} places apart)."
        )

    def _reading_of_time(self) -> tuple[str, ...]:
        if self.importance is None:
            return ()
        start, stop = self.importance.strongest()
        drop, seconds = float(self.importance.drops[start]), self.clip.seconds
        when = f"{seconds[start]:.2f} to {seconds[min(stop, len(seconds) - 1)]:.2f} s"
        if drop < _TELLING:
            without = f"leaving out any {self.importance.run_frames} of {len(seconds)} frames"
            return (
                f"When: no single moment decides: {without} lowers the log odds of {self.label!r} by at most "
                f"{max(drop, 0.0):.2f}.",
            )
        left = _probability(_log_odds_of(self.probability) - drop)
        digits = 2 if abs(self.probability - left) >= 0.01 else 5
        fall = f"from {self.probability:.{digits}f} to {left:.{digits}f}"
        return (
            f"When: {when} matters most: without it {self.label!r} falls {fall} (log odds down by {drop:.2f}).",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the pixels and the maps."""
        where = when = None
        if self.maps is not None:
            focus = self.maps.focus()
            where = {
                "layer": self.maps.layer,
                "layer_shape": list(self.maps.layer_shape),
                "place": self.maps.place(),
                "focus": None if np.isnan(focus) else round(focus, 4),
            }
        if self.importance is not None:
            when = {
                "per_frame": self.importance.per_frame.round(5).tolist(),
                "drops": self.importance.drops.round(5).tolist(),
                "run_frames": self.importance.run_frames,
                "fill": self.importance.fill,
            }
        return {
            "seconds": self.clip.seconds.round(4).tolist(),
            "label": self.label,
            "probability": round(self.probability, 6),
            "where": where,
            "no_maps_because": self.reason or None,
            "when": when,
            "reading": list(self.reading()),
        }


def explain_clip(
    classifier: Classifier,
    clip: Clip,
    *,
    label: str | None = None,
    fill: Fill = "neighbour",
    run_frames: int | None = None,
) -> Explanation:
    """Say where and when a clip speaks for a class.

    Args:
        classifier: Its torch network is used for the maps, whatever runs its per-frame part.
        clip: Cut by the classifier's own spec.
        label: The class that is asked about; the clip's answer when None.
        fill: What stands in for frames left out, see :func:`time_importance`.
        run_frames: Frames left out at once; an eighth of the clip when None.

    Raises:
        SettingError: The class or a choice is unknown.
        InputMismatchError: The clip does not fit the classifier.
    """
    probabilities = classifier.probabilities(classifier.logits([clip]))[0]
    label = classifier.classes[int(probabilities.argmax())] if label is None else label
    index = _index_of(classifier, label)
    maps, reason = None, ""
    try:
        maps = activation_maps(classifier, clip, label=label)
    except InputMismatchError as error:
        reason = str(error)
    importance = None
    if len(clip.pixels) > 1:
        importance = time_importance(classifier, clip, label=label, fill=fill, run_frames=run_frames)
    return Explanation(clip, label, float(probabilities[index]), maps, importance, reason)


def activation_maps(
    classifier: Classifier, clip: Clip, *, label: str, model: VideoModel | None = None
) -> ActivationMaps:
    """Return a class activation map for every frame of a clip: Grad-CAM, by captum.

    A network that looks at frames one by one gives a map for each, through whatever looks along time behind it;
    a 3-D CNN gives maps of some moments, which are interpolated to the frames.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017.

    Args:
        classifier: Its torch network is used.
        clip: Cut by the classifier's own spec.
        label: The class.
        model: Another network in the place of the classifier's own, to check the maps.

    Raises:
        SettingError: The class is unknown.
        InputMismatchError: The network has no layer to read maps at, or the clip does not fit it.
    """
    index = _index_of(classifier, label)
    x = clip_tensor([clip], classifier.spec).to(classifier.device)
    found = find_map_layer(model or classifier.model, x)

    def answer(x: Tensor) -> Tensor:
        return log_odds(found.model(x) / classifier.temperature)[:, index]

    # cuDNN has no gradient of a recurrence in eval mode, so that torch's own is taken.
    with torch.backends.cudnn.flags(enabled=False):
        coarse = LayerGradCam(answer, found.layer).attribute(x.requires_grad_())
    num_frames, _, height, width = x.shape[1:]
    over_time = len(found.shape) == 3
    size = (num_frames, height, width) if over_time else (height, width)
    way = "trilinear" if over_time else "bilinear"
    maps = LayerAttribution.interpolate(cast(Tensor, coarse).detach().relu(), size, way)
    return ActivationMaps(maps.reshape(num_frames, height, width).cpu().numpy(), found.name, found.shape)


def time_importance(
    classifier: Classifier,
    clip: Clip,
    *,
    label: str,
    fill: Fill = "neighbour",
    run_frames: int | None = None,
) -> TimeImportance:
    """Leave out each run of frames in turn and measure how far the class's log odds fall.

    What a model computes of each frame alone is computed once. Source of the idea: Zeiler and Fergus,
    Visualizing and Understanding Convolutional Networks, ECCV 2014, there over the places of a picture.

    Args:
        classifier: Torch or ONNX Runtime.
        clip: Cut by the classifier's own spec; 2 frames or more.
        label: The class.
        fill: ``"neighbour"``: the nearest frame that is left stands still instead: what moves or appears only
            there is lost, and its neighbours are seen for longer. ``"mean"``: the mean frame of the clip, which
            is no real picture.
        run_frames: Frames left out at once, under T; an eighth of the clip when None.

    Raises:
        SettingError: A choice is unknown or out of range, or the clip has one frame.
    """
    num_frames = len(clip.pixels)
    run = max(1, round(num_frames / 8)) if run_frames is None else run_frames
    if fill not in ("neighbour", "mean"):
        raise SettingError(unknown_name("fill", fill, ("neighbour", "mean")))
    if not 1 <= run < num_frames:
        raise SettingError(
            f"run_frames is {run} of a clip of {num_frames} frames; expected 1 or more, and a frame left"
        )
    index = _index_of(classifier, label)
    features = classifier.features([clip])
    if fill == "mean":
        mean = np.broadcast_to(clip.pixels.mean(axis=0).round().astype(np.uint8), clip.pixels.shape)
        features = torch.cat([features, classifier.features([Clip(mean.copy(), clip.seconds)])[:, :1]], dim=1)
    orders = np.stack([_without(num_frames, start, run, fill) for start in range(num_frames - run + 1)])
    orders = np.concatenate([np.arange(num_frames)[None], orders])
    odds = [
        _class_odds(classifier, features[0, torch.from_numpy(part).to(features.device)], index)
        for part in np.array_split(orders, -(-len(orders) // _BATCH))
    ]
    whole, *without = np.concatenate(odds)
    drops = whole - np.array(without)
    holding = np.array([(order != np.arange(num_frames)) for order in orders[1:]], dtype=np.float64)
    return TimeImportance(drops, holding.T @ drops / holding.sum(axis=0), run, fill)


def _without(num_frames: int, start: int, run: int, fill: Fill) -> np.ndarray:
    """Return which frames to show ``(T,)`` so that ``[start, start + run)`` is not; T is the mean frame."""
    order = np.arange(num_frames)
    for frame in range(start, start + run):
        before, after = start - 1, start + run
        nearer_before = after >= num_frames or (before >= 0 and frame - before <= after - frame)
        order[frame] = num_frames if fill == "mean" else before if nearer_before else after
    return order


def _class_odds(classifier: Classifier, features: Tensor, index: int) -> np.ndarray:
    """Return a class's log odds, float64 ``(N,)``, of features ``(N, T, ...)``."""
    logits = torch.from_numpy(classifier.logits_of_features(features)).double()
    return log_odds(logits / classifier.temperature)[:, index].numpy()


def log_odds(logits: Tensor) -> Tensor:
    """Return ``ln(p / (1 - p))`` of every class: its logit less the log-sum-exp of the others, ``(N, K)``.

    Unlike a probability it does not saturate; unlike a logit it does not move with what all classes share.

    Example:
        >>> log_odds(torch.tensor([[2.0, 0.0]]))
        tensor([[ 2., -2.]])
    """
    own = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others = logits[:, None, :].expand(-1, logits.shape[-1], -1).masked_fill(own, -torch.inf)
    return logits - others.logsumexp(-1)


def _index_of(classifier: Classifier, label: str) -> int:
    if label not in classifier.classes:
        raise SettingError(unknown_name("class", label, classifier.classes)[:400])
    return classifier.classes.index(label)


def _centre(weights: np.ndarray) -> int:
    """Return the third, 0 to 2, that holds the centre of mass; the middle where there is no mass."""
    total = weights.sum()
    if total <= 0:
        return 1
    middle = float((weights * (np.arange(len(weights)) + 0.5)).sum() / total) / len(weights)
    return min(2, int(3 * middle))


def _log_odds_of(probability: float) -> float:
    near = float(np.clip(probability, 1e-12, 1 - 1e-12))
    return float(np.log(near / (1 - near)))


def _probability(odds: float) -> float:
    return float(1 / (1 + np.exp(-odds)))
