"""Frames against clips: the answers to each frame, each window and the whole of a video, and why they part."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidette.diagnosis.findings import Picture
from vidette.diagnosis.frames_picture import draw_frames_against_clips
from vidette.errors import SettingError
from vidette.prediction.decision import Window
from vidette.prediction.files import FilePrediction, predict_file
from vidette.video.clip import Clip
from vidette.video.motion_crop import clip_pixels
from vidette.video.reader import open_video

if TYPE_CHECKING:
    from torch import Tensor

    from vidette.classifier.classifier import Classifier

__all__ = ["FramesAgainstClips", "Trial", "compare_frames_and_clips", "spread_seconds"]

_BATCH = 8
_NUM_SHUFFLES = 4
_MOST_TRIALS = 4
_LOSS = 0.15
_SAME, _MOSTLY = 0.9, 0.5
_NARROW = 0.2


@dataclass(frozen=True)
class Trial:
    """One clip of the video, asked again in other ways; all are probabilities of the clip's own answer.

    Attributes:
        start_seconds: Its first frame.
        stop_seconds: Its last frame.
        label: The clip's own answer.
        in_order: Of the clip as it is.
        shuffled: Mean over random orders of its frames.
        still: Mean over its frames, each standing still for the whole clip.
        best_still: The highest of them.
        best_still_seconds: When that frame is shown.
    """

    start_seconds: float
    stop_seconds: float
    label: str
    in_order: float
    shuffled: float
    still: float
    best_still: float
    best_still_seconds: float


@dataclass(frozen=True, eq=False)
class FramesAgainstClips:
    """The answers to one video at three sizes.

    Attributes:
        whole: The file's own answer and its windows.
        frame_seconds: float64 ``(F,)``: when the single frames are shown.
        frame_probabilities: float64 ``(F, K)``: calibrated, of each frame standing still for a whole clip.
        thumbnails: uint8 ``(F, H, W, 3)``, the frames as the classifier sees them.
        num_frames: Frames of the video; more than F where they are too many to ask each.
        trials: Clips asked in other ways, to say why.
        frames_a_clip: T.
    """

    whole: FilePrediction
    frame_seconds: np.ndarray
    frame_probabilities: np.ndarray
    thumbnails: np.ndarray
    num_frames: int
    trials: tuple[Trial, ...]
    frames_a_clip: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names."""
        return self.whole.timeline.classes

    @property
    def frame_labels(self) -> tuple[str, ...]:
        """The answer to each of the F frames."""
        return tuple(self.classes[k] for k in self.frame_probabilities.argmax(axis=1))

    @property
    def window_labels(self) -> tuple[str, ...]:
        """The answer to each window."""
        return tuple(self.classes[int(w.probabilities.argmax())] for w in self.whole.timeline.windows)

    @property
    def frame_agreement(self) -> float:
        """Share of the frames that are answered like the whole."""
        return _share(self.frame_labels, self.whole.label)

    @property
    def window_agreement(self) -> float:
        """Share of the windows that are answered like the whole."""
        return _share(self.window_labels, self.whole.label)

    @property
    def frame_flicker(self) -> float:
        """Share of neighbouring frames whose answers differ; nan with one frame."""
        return _flicker(self.frame_labels)

    @property
    def window_flicker(self) -> float:
        """Share of neighbouring windows whose answers differ; nan with one window."""
        return _flicker(self.window_labels)

    @property
    def frame_window_agreement(self) -> float:
        """Share of the frames that are answered like the window that they lie in."""
        pairs = list(zip(self.frame_labels, self.covering_labels(), strict=True))
        return sum(one == other for one, other in pairs) / len(pairs)

    def covering_labels(self) -> tuple[str, ...]:
        """Return, for each frame, the answer of the window whose middle is nearest."""
        centres = np.array([window.centre_seconds for window in self.whole.timeline.windows])
        nearest = np.abs(self.frame_seconds[:, None] - centres).argmin(axis=1)
        return tuple(self.window_labels[i] for i in nearest)

    def parted(self) -> tuple[tuple[float, float], ...]:
        """Return the stretches ``[start, stop)`` in seconds whose frames are not answered like their window."""
        apart = [one != other for one, other in zip(self.frame_labels, self.covering_labels(), strict=True)]
        edges = frame_edges(self.frame_seconds)
        stretches: list[tuple[float, float]] = []
        for i, differs in enumerate(apart):
            if differs and i and apart[i - 1]:
                stretches[-1] = (stretches[-1][0], float(edges[i + 1]))
            elif differs:
                stretches.append((float(edges[i]), float(edges[i + 1])))
        return tuple(stretches)

    def headline(self) -> str:
        """Say in one sentence what the three sizes answer."""
        agreeing = round(self.frame_agreement * len(self.frame_labels))
        windows = ""
        if len(self.window_labels) > 1:
            same = round(self.window_agreement * len(self.window_labels))
            windows = f", {same} of {len(self.window_labels)} windows"
        return (
            f"The whole video is {self.whole.label!r} ({self.whole.probability:.2f}); so are {agreeing} of "
            f"{len(self.frame_labels)} single frames{windows}."
        )

    def reading(self) -> tuple[str, ...]:
        """Say in plain sentences where the answers part, and why."""
        lines = [self.headline()]
        if self.frames_a_clip == 1:
            lines.append("The classifier looks at one frame at a time, so a window is a frame.")
        elif min(self.frame_agreement, self.frame_window_agreement) >= _SAME:
            lines.append(
                "Single frames are enough here: a still scene that looks alike would be answered the same."
            )
        else:
            lines += [self._where(), *self._why()]
        if self.window_agreement < _SAME:
            lines.append(
                f"The windows give {len(set(self.window_labels))} answers, and the whole is their mean: where "
                "several things happen, read the windows."
            )
        lines += self._flickering()
        return (*lines, *(f"Note: {warning}." for warning in self.whole.warnings))

    def _where(self) -> str:
        stretches = self.parted()
        if not stretches:
            return (
                "Every frame is answered like the window that it lies in; the windows differ among themselves."
            )
        if len(stretches) == 1 and _covers(stretches[0], self.frame_seconds):
            return "Frames and windows part all along the video."
        shown = ", ".join(f"{start:.2f} to {stop:.2f} s" for start, stop in stretches[:4])
        more = f" and {len(stretches) - 4} more stretches" if len(stretches) > 4 else ""
        return f"Frames and windows part at {shown}{more}."

    def _why(self) -> list[str]:
        reasons: list[str] = []
        (common, count), *_ = Counter(self.frame_labels).most_common(1)
        if common != self.whole.label and count >= _SAME * len(self.frame_labels):
            reasons.append(f"Why: whichever frame stands still, the answer is {common!r}.")
        for trial in _most_parted(self.trials):
            reasons.append(f"Why: {_reason(trial)}.")
        return reasons

    def _flickering(self) -> list[str]:
        changes = sum(
            one != other for one, other in zip(self.frame_labels, self.frame_labels[1:], strict=False)
        )
        if changes < 2:
            return []
        ranked = np.sort(self.frame_probabilities, axis=1)
        gap = float((ranked[:, -1] - ranked[:, -2]).mean())
        close = ": the two best classes are close" if gap < _NARROW else ", though each is sure of itself"
        return [
            f"Flicker: single frames change their answer {changes} times in {len(self.frame_labels)} frames"
            f"{close} ({gap:.2f} apart on average)."
        ]

    def picture(self) -> Picture:
        """Return the picture: frames, the three answers along time, the probability of the whole's answer."""
        return Picture(self.headline(), draw_frames_against_clips(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "path": str(self.whole.path),
            "label": self.whole.label,
            "probability": round(self.whole.probability, 6),
            "aggregation": self.whole.aggregation,
            "num_frames": self.num_frames,
            "frames": [
                {"seconds": round(float(s), 4), "label": label, "probability": round(float(p.max()), 6)}
                for s, label, p in zip(
                    self.frame_seconds, self.frame_labels, self.frame_probabilities, strict=True
                )
            ],
            "windows": [
                {
                    "start_seconds": round(w.start_seconds, 4),
                    "stop_seconds": round(w.stop_seconds, 4),
                    "label": label,
                    "probability": round(float(w.probabilities.max()), 6),
                }
                for w, label in zip(self.whole.timeline.windows, self.window_labels, strict=True)
            ],
            "frame_agreement": self.frame_agreement,
            "window_agreement": self.window_agreement,
            "frame_window_agreement": self.frame_window_agreement,
            "frame_flicker": _plain(self.frame_flicker),
            "window_flicker": _plain(self.window_flicker),
            "parted_seconds": [list(stretch) for stretch in self.parted()],
            "trials": [vars(trial) for trial in self.trials],
            "reading": list(self.reading()),
        }


def compare_frames_and_clips(
    classifier: Classifier,
    path: str | Path,
    *,
    most_frames: int = 64,
    stride_seconds: float | None = None,
    stream: int = 0,
    seed: int = 0,
) -> FramesAgainstClips:
    """Answer a video whole, window by window and frame by frame.

    Args:
        classifier: What answers.
        path: The video.
        most_frames: Single frames to ask at most, spread evenly over a video that has more.
        stride_seconds: From one window to the next, as for ``vidette predict``.
        stream: Which of the file's video streams, from 0.
        seed: Of the random orders.

    Raises:
        VideoError: The file cannot be read.
        SettingError: ``most_frames`` is under 1, or the stride is not above 0.
    """
    if most_frames < 1:
        raise SettingError(f"most_frames is {most_frames}; expected 1 or more")
    whole = predict_file(classifier, path, stride_seconds=stride_seconds, stream=stream)
    with open_video(path, stream=stream) as video:
        every = video.frame_seconds()
        frames = list(video.frames_at(classifier.spec, spread_seconds(every, most_frames)))
        clips = [
            video.clip(classifier.spec, start_seconds=window.start_seconds, stop_seconds=window.stop_seconds)
            for window in _tried(whole.timeline.windows)
            if classifier.spec.num_frames > 1
        ]
    pixels = np.concatenate([clip_pixels([frame.pixels], classifier.spec) for frame in frames])
    return FramesAgainstClips(
        whole=whole,
        frame_seconds=np.array([frame.seconds for frame in frames]),
        frame_probabilities=classifier.probabilities(_frame_logits(classifier, pixels)),
        thumbnails=pixels,
        num_frames=len(every),
        trials=tuple(_try(classifier, clip, seed=seed) for clip in clips),
        frames_a_clip=classifier.spec.num_frames,
    )


def spread_seconds(every: np.ndarray, most: int) -> np.ndarray:
    """Return at most ``most`` of the times, spread evenly, the first and the last among them."""
    return every[np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int))]


def frame_edges(seconds: np.ndarray) -> np.ndarray:
    """Return ``(F + 1,)`` where each frame's stretch of time begins and the last one ends."""
    last = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    return np.append(seconds, seconds[-1] + last)


def _frame_logits(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Return logits ``(F, K)`` of frames, each standing still for a clip; each is looked at once."""
    num = classifier.spec.num_frames
    rows: list[np.ndarray] = []
    for first in range(0, len(pixels), num):
        part = pixels[first : first + num]
        filled = np.concatenate([part, part[-1:].repeat(num - len(part), axis=0)])
        features = classifier.features([Clip(filled, np.arange(num, dtype=np.float64))])[0, : len(part)]
        rows += [_still(classifier, some) for some in features.split(_BATCH)]
    return np.concatenate(rows)


def _still(classifier: Classifier, features: Tensor) -> np.ndarray:
    """Return logits of frames ``(B, ...)``, each repeated for a whole clip."""
    num = classifier.spec.num_frames
    return classifier.logits_of_features(features[:, None].expand(-1, num, *features.shape[1:]))


def _try(classifier: Classifier, clip: Clip, *, seed: int) -> Trial:
    features = classifier.features([clip])
    num = features.shape[1]
    generator = np.random.default_rng(seed)
    orders = torch.from_numpy(np.stack([generator.permutation(num) for _ in range(_NUM_SHUFFLES)]))
    as_is = classifier.probabilities(classifier.logits_of_features(features))[0]
    best = int(as_is.argmax())
    shuffled = classifier.probabilities(classifier.logits_of_features(features[0][orders.to(features.device)]))
    still = classifier.probabilities(
        np.concatenate([_still(classifier, part) for part in features[0].split(_BATCH)])
    )[:, best]
    return Trial(
        start_seconds=float(clip.seconds[0]),
        stop_seconds=float(clip.seconds[-1]),
        label=classifier.classes[best],
        in_order=float(as_is[best]),
        shuffled=float(shuffled[:, best].mean()),
        still=float(still.mean()),
        best_still=float(still.max()),
        best_still_seconds=float(clip.seconds[int(still.argmax())]),
    )


def _tried(windows: Sequence[Window]) -> list[Window]:
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(_MOST_TRIALS, len(windows))).round().astype(int))
    return [windows[i] for i in chosen]


def _most_parted(trials: Sequence[Trial]) -> list[Trial]:
    """Return the clip whose frames know least of its answer, if any falls short."""
    parted = [trial for trial in trials if trial.in_order - trial.still > _LOSS]
    return sorted(parted, key=lambda trial: trial.still - trial.in_order)[:1]


def _reason(trial: Trial) -> str:
    """Say what the clip has that its single frames have not."""
    when = f"the clip from {trial.start_seconds:.2f} to {trial.stop_seconds:.2f} s is {trial.label!r} with "
    facts = f"{when}{trial.in_order:.2f}, its frames one by one with {trial.still:.2f} on average"
    if trial.in_order - trial.shuffled > _LOSS:
        return (
            f"{facts}, and out of order with {trial.shuffled:.2f}: the answer rests on movement, in its order, "
            "which no single frame shows"
        )
    order = f", and out of order still with {trial.shuffled:.2f}"
    if trial.best_still >= _MOSTLY:
        return (
            f"{facts}{order}: a few frames decide, above all the one at {trial.best_still_seconds:.2f} s "
            f"({trial.best_still:.2f} alone)"
        )
    return (
        f"{facts}{order}: the answer rests on how the frames differ, in whichever order, and a frame that "
        "stands still does not differ"
    )


def _share(labels: Sequence[str], label: str) -> float:
    return sum(own == label for own in labels) / len(labels)


def _flicker(labels: Sequence[str]) -> float:
    if len(labels) < 2:
        return float("nan")
    return sum(one != other for one, other in itertools.pairwise(labels)) / (len(labels) - 1)


def _covers(stretch: tuple[float, float], seconds: np.ndarray) -> bool:
    return stretch[0] <= seconds[0] and stretch[1] >= seconds[-1]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
