"""From the answers to disturbed clips to accuracy, rPC, calibration and flicker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidette.evaluation.calibration import expected_calibration_error, softmax
from vidette.evaluation.metrics import Interval, bootstrap_interval, bootstrap_ratio
from vidette.video.corruptions import Corruption

__all__ = ["CorruptionScore", "DisturbedAnswers", "LevelScore", "Robustness", "robustness_of"]

_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class DisturbedAnswers:
    """Answers to clips, whole and by single frames that each stand still for the whole clip.

    Attributes:
        clip_logits: float32 ``(..., K)``.
        frame_logits: float32 ``(..., F, K)``.
    """

    clip_logits: np.ndarray
    frame_logits: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[DisturbedAnswers]) -> DisturbedAnswers:
        """Join parts of clips one after the other."""
        return cls(
            np.concatenate([part.clip_logits for part in parts]),
            np.concatenate([part.frame_logits for part in parts]),
        )

    @classmethod
    def stacked(cls, parts: Sequence[DisturbedAnswers]) -> DisturbedAnswers:
        """Stack N clips of L levels each: ``(L, N, ...)``."""
        return cls(
            np.stack([part.clip_logits for part in parts], axis=1),
            np.stack([part.frame_logits for part in parts], axis=1),
        )


@dataclass(frozen=True)
class LevelScore:
    """The answers to N clips under one corruption at one level. Rates run from 0 to 1.

    Attributes:
        level: 1 (weak) to 5 (strong); 0 is the clips as they are.
        strength: What the level means, in the corruption's unit.
        accuracy: Of whole clips.
        accuracy_interval: 95 %, by bootstrap over groups.
        frame_accuracy: Of single frames.
        ece: Expected calibration error of whole clips.
        confidence: Mean probability of the answers to whole clips.
        flicker: How often the answers to neighbouring single frames of a clip differ (flip probability of
            Hendrycks and Dietterich 2019); nan with one frame.
        changed: Share of clips answered otherwise than as they are.
    """

    level: int
    strength: float
    accuracy: float
    accuracy_interval: Interval
    frame_accuracy: float
    ece: float
    confidence: float
    flicker: float
    changed: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "level": self.level,
            "strength": self.strength,
            "accuracy": _plain(self.accuracy),
            "accuracy_interval": _ends(self.accuracy_interval),
            "frame_accuracy": _plain(self.frame_accuracy),
            "ece": _plain(self.ece),
            "confidence": _plain(self.confidence),
            "flicker": _plain(self.flicker),
            "changed": _plain(self.changed),
        }


@dataclass(frozen=True)
class CorruptionScore:
    """One corruption, level by level and over its levels.

    Attributes:
        name: Of the corruption.
        family: What it belongs to.
        unit: What a strength counts.
        levels: One score a level, weak to strong.
        accuracy: Mean over the levels.
        relative: ``accuracy`` over that of the clips as they are (rPC); nan where none of those is right.
        relative_interval: 95 %, by bootstrap over groups.
        frame_accuracy: Of single frames, mean over the levels.
        frame_relative: ``frame_accuracy`` over that of the clips as they are.
        ece: Mean over the levels.
        flicker: Mean over the levels.
    """

    name: str
    family: str
    unit: str
    levels: tuple[LevelScore, ...]
    accuracy: float
    relative: float
    relative_interval: Interval
    frame_accuracy: float
    frame_relative: float
    ece: float
    flicker: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "name": self.name,
            "family": self.family,
            "unit": self.unit,
            "accuracy": _plain(self.accuracy),
            "relative": _plain(self.relative),
            "relative_interval": _ends(self.relative_interval),
            "frame_accuracy": _plain(self.frame_accuracy),
            "frame_relative": _plain(self.frame_relative),
            "ece": _plain(self.ece),
            "flicker": _plain(self.flicker),
            "levels": [level.to_dict() for level in self.levels],
        }


@dataclass(frozen=True)
class Robustness:
    """A classifier under disturbance, clip-wise and frame-wise.

    Attributes:
        n: Clips.
        num_groups: Groups of clips; what the intervals resample.
        clean: The clips as they are, level 0.
        corruptions: One score a corruption.
        accuracy: Mean over levels and corruptions (mPC).
        relative: ``accuracy / clean.accuracy`` (rPC); nan where no clip is answered rightly as it is.
        relative_interval: 95 %, by bootstrap over groups.
        frame_accuracy: The same of single frames.
        frame_relative: ``frame_accuracy / clean.frame_accuracy``.
        frame_relative_interval: 95 %, by bootstrap over groups.
        guessing: Accuracy of always answering the commonest label of these clips.
        frames_per_clip: Single frames taken of each clip.
        seed: Of the disturbances.
        skipped: Clips left out because their file is damaged, each with the reason.
    """

    n: int
    num_groups: int
    clean: LevelScore
    corruptions: tuple[CorruptionScore, ...]
    accuracy: float
    relative: float
    relative_interval: Interval
    frame_accuracy: float
    frame_relative: float
    frame_relative_interval: Interval
    guessing: float
    frames_per_clip: int
    seed: int
    skipped: tuple[str, ...] = ()

    def reading(self) -> tuple[str, ...]:
        """Say in plain sentences what the numbers mean."""
        found = [
            f"Of {self.n} clips, {self.clean.accuracy:.0%} are answered rightly as they are and "
            f"{self.accuracy:.0%} on average when disturbed: rPC {_number(self.relative)}"
            f"{_range(self.relative_interval)}. Single frames: {self.clean.frame_accuracy:.0%} and "
            f"{self.frame_accuracy:.0%}, rPC {_number(self.frame_relative)}"
            f"{_range(self.frame_relative_interval)}.",
            f"Always answering the commonest label would be right {self.guessing:.0%} of the time.",
        ]
        hardest = sorted(self.corruptions, key=lambda score: score.accuracy)[:3]
        named = ", ".join(f"{score.name} ({score.accuracy:.0%})" for score in hardest)
        found.append(f"Hardest, mean over the levels: {named}.")
        lost = [score.name for score in self.corruptions if self._sure_and_wrong(score)]
        if lost:
            found.append(
                "Its probabilities no longer mean what they say (calibration error 10 points or more above "
                f"that of clean clips): {', '.join(lost)}."
            )
        return tuple(found)

    def _sure_and_wrong(self, score: CorruptionScore) -> bool:
        return score.ece >= self.clean.ece + 0.1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "n": self.n,
            "num_groups": self.num_groups,
            "clean": self.clean.to_dict(),
            "accuracy": _plain(self.accuracy),
            "relative": _plain(self.relative),
            "relative_interval": _ends(self.relative_interval),
            "frame_accuracy": _plain(self.frame_accuracy),
            "frame_relative": _plain(self.frame_relative),
            "frame_relative_interval": _ends(self.frame_relative_interval),
            "guessing": self.guessing,
            "frames_per_clip": self.frames_per_clip,
            "seed": self.seed,
            "corruptions": [score.to_dict() for score in self.corruptions],
            "skipped": list(self.skipped),
        }

    def __repr__(self) -> str:
        relative = f"rPC {_number(self.relative)}{_range(self.relative_interval)}"
        return f"Robustness({self.n} clips, {len(self.corruptions)} corruptions, {relative})"


def robustness_of(
    clean: DisturbedAnswers,
    disturbed: Mapping[Corruption, DisturbedAnswers],
    labels: np.ndarray,
    *,
    levels: Sequence[int],
    groups: Sequence[str],
    temperature: float,
    seed: int = 0,
    skipped: tuple[str, ...] = (),
) -> Robustness:
    """Score the answers to N clips.

    Args:
        clean: Answers to the clips as they are, ``(N, K)`` and ``(N, F, K)``.
        disturbed: Answers under each corruption, ``(L, N, K)`` and ``(L, N, F, K)``.
        labels: int ``(N,)``.
        levels: The L levels.
        groups: N names.
        temperature: Divides the logits.
        seed: Of the disturbances, to be told.
        skipped: Clips left out, to be told.
    """
    scoring = _Scoring(clean, labels, tuple(groups), temperature)
    scores = tuple(scoring.corruption(kind, levels, answers) for kind, answers in disturbed.items())
    clip_right = np.stack([scoring.clip_right(answers).mean(axis=0) for answers in disturbed.values()])
    frame_right = np.stack([scoring.frame_right(answers).mean(axis=0) for answers in disturbed.values()])
    relative, relative_interval = scoring.relative(clip_right.mean(axis=0), scoring.clip_right(clean))
    frame_relative, frame_interval = scoring.relative(frame_right.mean(axis=0), scoring.frame_right(clean))
    return Robustness(
        n=len(labels),
        num_groups=len(set(groups)),
        clean=scoring.level(clean, level=0, strength=0.0),
        corruptions=scores,
        accuracy=float(clip_right.mean()),
        relative=relative,
        relative_interval=relative_interval,
        frame_accuracy=float(frame_right.mean()),
        frame_relative=frame_relative,
        frame_relative_interval=frame_interval,
        guessing=float(np.bincount(labels).max() / len(labels)),
        frames_per_clip=clean.frame_logits.shape[1],
        seed=seed,
        skipped=skipped,
    )


@dataclass(frozen=True, eq=False)
class _Scoring:
    """What all scores have in common: the clean answers, the labels and the groups of N clips."""

    clean: DisturbedAnswers
    labels: np.ndarray
    groups: tuple[str, ...]
    temperature: float

    def clip_right(self, answers: DisturbedAnswers) -> np.ndarray:
        """Whether each clip is answered rightly, float ``(..., N)``."""
        return (answers.clip_logits.argmax(axis=-1) == self.labels).astype(np.float64)

    def frame_right(self, answers: DisturbedAnswers) -> np.ndarray:
        """Share of each clip's single frames that are answered rightly, ``(..., N)``."""
        return (answers.frame_logits.argmax(axis=-1) == self.labels[:, None]).mean(axis=-1)

    def relative(self, disturbed: np.ndarray, clean: np.ndarray) -> tuple[float, Interval]:
        """Return the ratio of two accuracies of the same clips, ``(N,)`` each, with its interval."""
        if clean.sum() == 0:
            return _NAN, Interval(_NAN, _NAN)
        return float(disturbed.sum() / clean.sum()), bootstrap_ratio(disturbed, clean, self.groups)

    def level(self, answers: DisturbedAnswers, *, level: int, strength: float) -> LevelScore:
        """Score the answers to the N clips at one level."""
        probabilities = softmax(answers.clip_logits, temperature=self.temperature)
        right, frames = self.clip_right(answers), answers.frame_logits.argmax(axis=-1)
        same = answers.clip_logits.argmax(axis=-1) == self.clean.clip_logits.argmax(axis=-1)
        flips = frames[:, 1:] != frames[:, :-1]
        return LevelScore(
            level=level,
            strength=strength,
            accuracy=float(right.mean()),
            accuracy_interval=bootstrap_interval(right, self.groups),
            frame_accuracy=float(self.frame_right(answers).mean()),
            ece=expected_calibration_error(probabilities, self.labels),
            confidence=float(probabilities.max(axis=-1).mean()),
            flicker=float(flips.mean()) if flips.size else _NAN,
            changed=float(1 - same.mean()),
        )

    def corruption(self, kind: Corruption, levels: Sequence[int], answers: DisturbedAnswers) -> CorruptionScore:
        """Score the answers under one corruption, ``(L, N, ...)``."""
        scores = tuple(
            self.level(
                DisturbedAnswers(answers.clip_logits[i], answers.frame_logits[i]),
                level=level,
                strength=kind.strength(level),
            )
            for i, level in enumerate(levels)
        )
        right, frame_right = self.clip_right(answers).mean(axis=0), self.frame_right(answers).mean(axis=0)
        relative, interval = self.relative(right, self.clip_right(self.clean))
        return CorruptionScore(
            name=kind.name,
            family=kind.family,
            unit=kind.unit,
            levels=scores,
            accuracy=float(right.mean()),
            relative=relative,
            relative_interval=interval,
            frame_accuracy=float(frame_right.mean()),
            frame_relative=self.relative(frame_right, self.frame_right(self.clean))[0],
            ece=float(np.mean([score.ece for score in scores])),
            flicker=float(np.mean([score.flicker for score in scores])),
        )


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _ends(interval: Interval) -> list[float | None]:
    return [_plain(interval.low), _plain(interval.high)]


def _number(value: float) -> str:
    return "undefined (no clean clip is answered rightly)" if math.isnan(value) else f"{value:.2f}"


def _range(interval: Interval) -> str:
    return f" (95 % interval {interval.low:.2f} to {interval.high:.2f})" if interval.defined else ""
