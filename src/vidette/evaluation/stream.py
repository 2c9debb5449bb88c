"""A classifier's score along an untrimmed video, with and without the decision stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidette.classifier.stepper import Stepper
from vidette.errors import InputMismatchError
from vidette.evaluation.online import FramePrecision, OnlineScores, event_scores, per_frame_average_precision
from vidette.evaluation.truth import check_labels, read_truth
from vidette.prediction.decision import DecisionPolicy, Event
from vidette.prediction.steps import NO_DECISION, Answers, Steps, follow, step_file

__all__ = ["StreamEvaluation", "StreamScore", "evaluate_stream", "score_steps", "truth_of"]


@dataclass(frozen=True)
class StreamScore:
    """How the answers to one video fared under one decision.

    Attributes:
        events: Against the truth.
        frames: Average precision of the answers, as the decision has smoothed them.
    """

    events: OnlineScores
    frames: FramePrecision

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {"events": self.events.to_dict(), "frames": self.frames.to_dict()}


@dataclass(frozen=True, eq=False)
class StreamEvaluation:
    """What a classifier is worth on one untrimmed video, live.

    Attributes:
        decided: With the decision stage.
        plain: Without it: the best label of every answer as it comes.
        answers: The events that were told, and when.
        truth: What really happened.
        policy: The decision.
        warnings: Sentences about what makes the score doubtful.
    """

    decided: StreamScore
    plain: StreamScore
    answers: Answers
    truth: tuple[Event, ...]
    policy: DecisionPolicy
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        told = zip(self.answers.events, self.answers.told_seconds, strict=True)
        return {
            "total_seconds": self.answers.total_seconds,
            "with_decision": self.decided.to_dict(),
            "without_decision": self.plain.to_dict(),
            "policy": self.policy.to_dict(),
            "events": [{**dataclasses.asdict(event), "told_seconds": when} for event, when in told],
            "truth": [
                {"start_seconds": event.start_seconds, "stop_seconds": event.stop_seconds, "label": event.label}
                for event in self.truth
            ],
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        scores = self.decided.events
        return (
            f"StreamEvaluation(F1 {scores.f1:.2f}, {scores.num_true} true events, {scores.total_seconds:.0f} s)"
        )


def evaluate_stream(
    stepper: Stepper,
    path: str | Path,
    truth: Sequence[Event],
    *,
    policy: DecisionPolicy | None = None,
    fps: float | None = None,
    iou: float = 0.5,
    on_progress: Callable[[int, int], None] | None = None,
) -> StreamEvaluation:
    """Answer a file as a live run does, and score its answers and events against the truth.

    Args:
        stepper: The classifier.
        path: The untrimmed video.
        truth: What happens in it, see :func:`truth_of`.
        policy: The decision; the classifier's own when None. Its quiet labels are no events of the truth.
        fps: Frames a second that are taken; the classifier's own by default.
        iou: Temporal overlap from which events match.
        on_progress: Called with whole seconds of video that were answered, and all of them.

    Raises:
        InputMismatchError: The truth has a label that the classifier does not know.
        VideoError: The video cannot be read.
        SettingError: The classifier cannot be live, or ``iou`` is out of range.
    """
    check_labels(truth, stepper.classifier.classes, source=path)
    steps = step_file(stepper, path, fps=fps, on_progress=on_progress)
    return score_steps(steps, truth, policy=policy, iou=iou)


def score_steps(
    steps: Steps, truth: Sequence[Event], *, policy: DecisionPolicy | None = None, iou: float = 0.5
) -> StreamEvaluation:
    """Score what :func:`vidette.prediction.steps.step_file` gave; see :func:`evaluate_stream`."""
    policy = policy or steps.stretches[0].policy or DecisionPolicy()
    answers = follow(steps.stretches, policy)
    plain = follow(steps.stretches, NO_DECISION)
    classes = steps.stretches[0].classes
    warnings = list(steps.warnings)
    late = [event for event in truth if event.stop_seconds > answers.total_seconds + 1.0]
    if late:
        warnings.append(
            f"{len(late)} true events end after the video, which lasts {answers.total_seconds:.1f} s:"
            " is it the truth of this video?"
        )
    return StreamEvaluation(
        decided=_score(answers, truth, policy, iou, classes),
        plain=_score(plain, truth, policy, iou, classes),
        answers=answers,
        truth=tuple(truth),
        policy=policy,
        warnings=tuple(warnings),
    )


def _score(
    answers: Answers, truth: Sequence[Event], policy: DecisionPolicy, iou: float, classes: Sequence[str]
) -> StreamScore:
    events = event_scores(
        answers.events,
        truth,
        total_seconds=answers.total_seconds,
        iou=iou,
        told_seconds=answers.told_seconds,
        quiet_labels=policy.quiet_labels,
    )
    return StreamScore(
        events, per_frame_average_precision(answers.probabilities, answers.seconds, truth, classes=classes)
    )


def truth_of(video: str | Path, table: str | Path) -> tuple[Event, ...]:
    """Return what happens in one video, by a table of one or of several videos.

    Raises:
        ManifestError: The table is unusable.
        InputMismatchError: It is of several videos, and not of this one.
    """
    events = read_truth(table)
    if "" in events:
        return events[""]
    by_path = {Path(name).resolve(): found for name, found in events.items()}
    found = by_path.get(Path(video).resolve())
    if found is None:
        raise InputMismatchError(f"{table} says nothing of {video}; its path column names {len(events)} others")
    return found
