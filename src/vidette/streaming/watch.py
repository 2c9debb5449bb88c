"""Drift beside the answers: looks at every source's pictures now and then, and tells signals to all outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidette.classifier.classifier import Classifier
from vidette.classifier.scorers import FrameScorer, OnnxFrames, TorchFrames
from vidette.evaluation.levels import picture_change, picture_levels
from vidette.evaluation.reference import ReferenceStatistics, find_reference, pooled_features
from vidette.streaming.base import Shown
from vidette.streaming.clock import Clock, SystemClock
from vidette.streaming.drift import DriftDetector, DriftPolicy, Signal
from vidette.streaming.records import Decided, Drifted, Note, Output, Picture, PictureOutput, Record, Score
from vidette.video.transforms import pixels_tensor

__all__ = ["DriftWatch"]

_LARGEST_SHARE = 0.05
"""Share of the time that features may be computed beside the answers."""


@dataclass(eq=False)
class _Watched:
    """One source: its detector, and what was looked at last."""

    detector: DriftDetector
    next_look: float = 0.0
    before: np.ndarray | None = None
    seconds: float = 0.0


class DriftWatch:
    """An output that passes everything on to others, with signals added.

    Args:
        classifier: Whose reference statistics sources are held against; without any a note says so.
        outputs: Those that get everything.
        policy: What counts as drift.
        fps: Answers a second of a source.
        quiet_labels: Labels that may stay for ever.
        clock: What tells how long features take.

    Raises:
        ClassifierError: The reference statistics cannot be read.
    """

    def __init__(
        self,
        classifier: Classifier,
        outputs: Sequence[Output],
        *,
        policy: DriftPolicy | None = None,
        fps: float = 10.0,
        quiet_labels: frozenset[str] = frozenset(),
        clock: Clock | None = None,
    ) -> None:
        self.classifier, self.policy, self.clock = classifier, policy or DriftPolicy(), clock or SystemClock()
        self._outputs = tuple(outputs)
        self._screens = tuple(output for output in outputs if isinstance(output, PictureOutput))
        self._answer_seconds, self._quiet = 1 / fps, quiet_labels
        self._watched: dict[str, _Watched] = {}
        self._reference = self._usable_reference()
        self._frames: FrameScorer | None = None
        if self._reference is not None and self._reference.features is not None:
            path = classifier.onnx_path
            self._frames = OnnxFrames(path) if path else TorchFrames(classifier.model, classifier.device)
        self._next_features = self.clock.now()

    def take(self, record: Record) -> None:
        """Pass a record on; an answer may begin or end a signal."""
        self._pass_on(record)
        if isinstance(record, Score):
            watched = self._of(record.source)
            seconds = watched.seconds = record.window.stop_seconds
            self._tell(record.source, watched.detector.answered(seconds, record.window.probabilities))

    def show(self, picture: Picture) -> None:
        """Pass a picture on; look at it where a look is due."""
        for screen in self._screens:
            screen.show(picture)
        watched, seconds = self._of(picture.source), picture.shown.seconds
        if seconds >= watched.next_look:
            watched.next_look = seconds + self.policy.look_seconds - self._answer_seconds / 2
            self._tell(picture.source, self._look(watched, picture.shown))

    def refresh(self) -> None:
        """Let the screens do what has to be done now and then."""
        for screen in self._screens:
            screen.refresh()

    def close(self) -> None:
        """End the signals that go on, and the outputs."""
        for source, watched in self._watched.items():
            self._tell(source, watched.detector.finish(watched.seconds))
        for output in self._outputs:
            output.close()

    def _usable_reference(self) -> ReferenceStatistics | None:
        reference = find_reference(self.classifier)
        reason = "this classifier has no statistics of its training; train it again to have them"
        if reference is not None and self.classifier.spec.follows_motion:
            reference, reason = None, "this classifier's pictures are cut where things move"
        if reference is None:
            text = f"brightness, contrast, blur, noise, features and certainty are not watched: {reason}"
            self._pass_on(Note("", "drift", 0.0, text))
        return reference

    def _of(self, source: str) -> _Watched:
        if source not in self._watched:
            detector = DriftDetector(
                self.classifier.classes,
                self._reference,
                policy=self.policy,
                answer_seconds=self._answer_seconds,
                quiet_labels=self._quiet,
            )
            self._watched[source] = _Watched(detector)
        return self._watched[source]

    def _look(self, watched: _Watched, shown: Shown) -> list[Signal]:
        pixels, before = shown.pixels, watched.before
        same_size = before is not None and before.shape == pixels.shape
        change = picture_change(before, pixels) if before is not None and same_size else None
        watched.before, watched.seconds = pixels, max(watched.seconds, shown.seconds)
        distance = self._distance(pixels)
        return watched.detector.look(shown.seconds, picture_levels(pixels), change=change, distance=distance)

    def _distance(self, pixels: np.ndarray) -> float | None:
        """Return the distance of a picture's features; None where that would take time from the answers."""
        begun = self.clock.now()
        if self._frames is None or self._reference is None or begun < self._next_features:
            return None
        assert self._reference.features is not None
        features = self._frames(pixels_tensor(pixels[None, None], self.classifier.spec))
        distance = float(self._reference.features.distances(pooled_features(features[0]))[0])
        took = self.clock.now() - begun
        self._next_features = begun + took / _LARGEST_SHARE
        return distance

    def _tell(self, source: str, signals: Sequence[Signal]) -> None:
        for signal in signals:
            self._pass_on(Drifted(source, signal))

    def _pass_on(self, record: Record | Decided) -> None:
        for output in self._outputs:
            output.take(record)
