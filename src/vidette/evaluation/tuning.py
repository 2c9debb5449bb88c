"""Choosing a decision policy: scored videos and their truth in, the best of a grid of policies out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vidette.errors import InputMismatchError, SettingError
from vidette.evaluation.online import OnlineScores, event_scores, pooled
from vidette.evaluation.transitions import ScoredVideo, learn_transitions
from vidette.prediction.decision import Timeline, boundary_seconds, given_answer
from vidette.prediction.policy import DecisionPolicy, Grouping, label_pairs
from vidette.prediction.smoothing import Smoothing, Transitions, rise_seconds
from vidette.prediction.steps import follow
from vidette.prediction.stretches import Event, Restraint, new_grouper, open_event

__all__ = ["Grid", "Scored", "Tuning", "score_grid", "score_policy", "tune"]


@dataclass(frozen=True)
class Grid:
    """The policies that are tried: every combination that is in time.

    Attributes:
        exponential: Half-lives, as multiples of the longest delay.
        mean: Lengths of means and majorities, likewise; beyond 2 no threshold would be in time.
        hmm_seconds: Seconds whose answers are one observation for an HMM.
        abstain: ``abstain_probability``.
        enter: ``enter_probability``.
        leave_share: ``leave_probability``, as shares of the one to enter.
        minimum_seconds: Shortest events.
        cool_down_seconds: Cool-downs.
        grouping: ``"activity"`` is tried only where there are quiet labels.
    """

    exponential: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    mean: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    hmm_seconds: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    abstain: tuple[float, ...] = (0.0, 0.5, 0.7)
    enter: tuple[float, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    leave_share: tuple[float, ...] = (1.0, 0.7, 0.4)
    minimum_seconds: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    cool_down_seconds: tuple[float, ...] = (0.0, 1.0, 3.0)
    grouping: tuple[Grouping, ...] = ("label", "activity")

    def lengths(self, max_delay_seconds: float) -> Iterator[tuple[Smoothing, float]]:
        """Yield smoothings and their seconds; ``"none"`` first."""
        yield "none", DecisionPolicy().smoothing_seconds
        shares: dict[Smoothing, tuple[float, ...]] = {
            "exponential": self.exponential,
            "mean": self.mean,
            "majority": self.mean,
        }
        for kind, parts in shares.items():
            if max_delay_seconds > 0:
                for part in parts:
                    yield kind, part * max_delay_seconds
        for seconds in self.hmm_seconds:
            yield "hmm", seconds


class Scored(NamedTuple):
    """A policy that was tried.

    Attributes:
        policy: What was tried.
        delay_seconds: Its smoothing's; see :meth:`DecisionPolicy.delay_seconds`.
        scores: One a video.
    """

    policy: DecisionPolicy
    delay_seconds: float
    scores: tuple[OnlineScores, ...]


@dataclass(frozen=True)
class Tuning:
    """A policy and what it was chosen by.

    Attributes:
        policy: The best by F1 of those within both limits.
        delay_seconds: Its smoothing's; see :meth:`DecisionPolicy.delay_seconds`.
        scores: On the videos that it was chosen on, hence somewhat better than on others.
        held_out: The same choice made anew without each video in turn and scored on that video, all together
            (an HMM's transitions are those of all videos); None for a single video, or where a choice had no
            answer.
        num_policies: How many were tried.
        num_videos: On how many videos.
    """

    policy: DecisionPolicy
    delay_seconds: float
    scores: OnlineScores
    held_out: OnlineScores | None
    num_policies: int
    num_videos: int


def score_policy(
    videos: Sequence[ScoredVideo], policy: DecisionPolicy, *, iou: float = 0.5, quiet_labels: frozenset[str]
) -> OnlineScores:
    """Score a policy on videos, with the time to detect."""
    scores: list[OnlineScores] = []
    for video in videos:
        answers = follow(video.stretches, policy)
        scores.append(
            event_scores(
                answers.events,
                video.truth,
                total_seconds=answers.total_seconds,
                iou=iou,
                told_seconds=answers.told_seconds,
                quiet_labels=quiet_labels,
            )
        )
    return pooled(scores)


def tune(
    videos: Sequence[ScoredVideo],
    *,
    false_alarms_per_hour: float,
    max_delay_seconds: float = 0.5,
    quiet_labels: frozenset[str] = frozenset(),
    iou: float = 0.5,
    grid: Grid | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tuning:
    """Choose the policy of the best F1 among those with few enough false alarms, in time.

    Ties go to fewer false alarms, then to the shorter cool-down, delay and minimum, then to abstaining less,
    then to thresholds near the default ones.

    Args:
        videos: Validation videos: not those that the classifier is tested on.
        false_alarms_per_hour: At most so many, on all videos together.
        max_delay_seconds: The longest delay of the smoothing; see :meth:`DecisionPolicy.delay_seconds`.
        quiet_labels: Labels that mean "nothing is going on".
        iou: Overlap from which an event counts as found; see :func:`event_scores`.
        grid: What is tried; :class:`Grid` as it is when None.
        on_progress: Called with (smoothings done, smoothings in all).

    Raises:
        SettingError: A limit is out of range, a quiet label is no class, or no policy keeps within the limits:
            the message names the nearest.
        InputMismatchError: There is no video, one has no answer, or the truth holds no event.
    """
    if not false_alarms_per_hour >= 0 or not max_delay_seconds >= 0:
        raise SettingError(
            f"false_alarms_per_hour is {false_alarms_per_hour}, max_delay_seconds {max_delay_seconds}; "
            "expected 0 or more"
        )
    _check_videos(videos, quiet_labels)
    tried = list(
        score_grid(
            videos,
            grid or Grid(),
            max_delay_seconds=max_delay_seconds,
            quiet_labels=quiet_labels,
            iou=iou,
            on_progress=on_progress,
        )
    )
    table = _Table(tried)
    best = table.best(range(len(videos)), false_alarms_per_hour)
    if best is None:
        raise SettingError(_nothing_reached(table, videos, false_alarms_per_hour, max_delay_seconds))
    chosen = tried[best]
    return Tuning(
        chosen.policy,
        chosen.delay_seconds,
        pooled(chosen.scores),
        table.held_out(false_alarms_per_hour),
        len(tried),
        len(videos),
    )


def score_grid(
    videos: Sequence[ScoredVideo],
    grid: Grid,
    *,
    max_delay_seconds: float,
    quiet_labels: frozenset[str] = frozenset(),
    iou: float = 0.5,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Scored]:
    """Yield every policy of a grid that is in time, with its scores; arguments as for :func:`tune`.

    Answers are smoothed once for each smoothing, and followed once for each pair of thresholds.
    """
    transitions = learn_transitions(videos, quiet_labels=quiet_labels)
    smoothings = list(_smoothings(grid, videos[0].classes, quiet_labels, transitions, max_delay_seconds))
    for done, (policy, delays) in enumerate(smoothings, start=1):
        yield from _scored(videos, policy, delays, grid, iou)
        if on_progress is not None:
            on_progress(done, len(smoothings))


def _check_videos(videos: Sequence[ScoredVideo], quiet_labels: frozenset[str]) -> None:
    if not videos:
        raise InputMismatchError("there is no video to tune on; give at least one")
    DecisionPolicy(quiet_labels=quiet_labels).check(videos[0].classes)
    for video in videos:
        if not any(part.windows for part in video.stretches):
            raise InputMismatchError(f"{video.name} has no answer; it is shorter than one clip")
    if not any(event.label not in quiet_labels for video in videos for event in video.truth):
        raise InputMismatchError("the truth holds no event; give videos in which something happens")


def _smoothings(
    grid: Grid,
    classes: tuple[str, ...],
    quiet_labels: frozenset[str],
    transitions: Transitions,
    max_delay_seconds: float,
) -> Iterator[tuple[DecisionPolicy, dict[float, float]]]:
    """Yield policies that differ in smoothing and abstaining, each with the delay of each threshold in time."""
    pairs = label_pairs(classes, quiet_labels)
    for kind, seconds in grid.lengths(max_delay_seconds):
        policy = DecisionPolicy(
            kind, seconds, quiet_labels=quiet_labels, transitions=transitions if kind == "hmm" else None
        )
        late = rise_seconds(policy.new_smoother, pairs, len(classes), grid.enter)
        delays = {
            e: delay for e, delay in zip(grid.enter, late, strict=True) if delay <= max_delay_seconds + 1e-9
        }
        if delays:
            yield from ((replace(policy, abstain_probability=abstain), delays) for abstain in grid.abstain)


def _scored(
    videos: Sequence[ScoredVideo], first: DecisionPolicy, delays: Mapping[float, float], grid: Grid, iou: float
) -> Iterator[Scored]:
    """Yield every policy of one smoothing with its scores; what comes to the same events is scored once."""
    smoothed = [[_Smoothed(part, first) for part in video.stretches if part.windows] for video in videos]
    known: dict[tuple[int, tuple[Event, ...]], OnlineScores] = {}
    groupings = [kind for kind in grid.grouping if kind == "label" or first.quiet_labels]
    for (enter, delay), share, kind in itertools.product(delays.items(), grid.leave_share, groupings):
        entered = replace(
            first, enter_probability=enter, leave_probability=round(share * enter, 4), grouping=kind
        )
        raw = [[part.stretches(entered) for part in parts] for parts in smoothed]
        for minimum, cool_down in itertools.product(grid.minimum_seconds, grid.cool_down_seconds):
            found: list[OnlineScores] = []
            for i, video in enumerate(videos):
                key = (i, tuple(_told(raw[i], minimum, cool_down)))
                if key not in known:
                    known[key] = event_scores(
                        key[1],
                        video.truth,
                        total_seconds=video.total_seconds,
                        iou=iou,
                        quiet_labels=first.quiet_labels,
                    )
                found.append(known[key])
            policy = replace(entered, minimum_seconds=minimum, cool_down_seconds=cool_down)
            yield Scored(policy, delay, tuple(found))


def _told(parts: Sequence[Sequence[Event]], minimum: float, cool_down: float) -> Iterator[Event]:
    for events in parts:
        restraint = Restraint(minimum_seconds=minimum, cool_down_seconds=cool_down)
        for event in events:
            told = restraint.take(event)
            if told is not None:
                yield told


class _Smoothed:
    """The answers to a part of a video after smoothing, as plain lists: thresholds are then quick to try."""

    def __init__(self, timeline: Timeline, policy: DecisionPolicy) -> None:
        self._classes = timeline.classes
        self._stop_seconds = timeline.windows[-1].stop_seconds
        smoother, last = policy.new_smoother(), None
        rows: list[np.ndarray] = []
        self._boundaries, self._known = list[float](), list[bool]()
        for window in timeline.windows:
            answer, is_known = given_answer(window, policy.abstain_probability)
            rows.append(smoother.update(window.centre_seconds, answer))
            self._boundaries.append(boundary_seconds(last, window))
            self._known.append(is_known)
            last = window
        smoothed = np.stack(rows)
        self._best: list[int] = smoothed.argmax(axis=1).tolist()
        self._rows: list[list[float]] = smoothed.tolist()
        self._answers: list[list[float]] = [window.probabilities.tolist() for window in timeline.windows]

    def stretches(self, policy: DecisionPolicy) -> list[Event]:
        """Return the events that they make, before anything is dropped."""
        grouping = new_grouper(policy, self._classes)
        found: list[Event] = []
        rows = zip(self._boundaries, self._best, self._rows, self._answers, self._known, strict=True)
        for boundary, best, smoothed, answer, known in rows:
            ended = grouping.update(boundary, best, smoothed, answer, known)
            if ended is not None:
                found.append(ended.event(boundary, self._classes))
        last = open_event(grouping, self._stop_seconds, self._classes)
        if last is not None:
            found.append(last)
        return found


def _rules(tried: Scored) -> tuple[float, ...]:
    """What breaks a tie, the smaller the better: what hides events, then how far thresholds are from usual."""
    policy, usual = tried.policy, DecisionPolicy()
    return (
        float(policy.grouping != usual.grouping),
        policy.cool_down_seconds,
        tried.delay_seconds,
        policy.minimum_seconds,
        policy.abstain_probability,
        abs(policy.enter_probability - usual.enter_probability),
        abs(policy.leave_probability - usual.leave_probability),
    )


class _Table:
    """Policies against videos: counts that add up."""

    def __init__(self, tried: Sequence[Scored]) -> None:
        self.tried = tried
        counts = [
            [(one.num_matched, one.num_predicted + one.num_true, one.num_false_alarms) for one in row.scores]
            for row in tried
        ]
        self._counts = np.array(counts, dtype=np.float64)  # (policies, videos, 3)
        self._hours = np.array([one.total_seconds for one in tried[0].scores]) / 3600
        self._rules = np.array([_rules(row) for row in tried])

    def best(self, videos: Sequence[int], false_alarms_per_hour: float) -> int | None:
        """Return the policy to choose by these videos; None where none finds anything within the limit."""
        f1, alarms = self.f1_and_alarms(videos)
        within = (alarms <= false_alarms_per_hour + 1e-9) & (f1 > 0)
        return self._first(within, (-f1, alarms)) if within.any() else None

    def nearest(self) -> int | None:
        """Return the policy of the fewest false alarms that finds anything; None where none does."""
        f1, alarms = self.f1_and_alarms(range(len(self._hours)))
        return self._first(f1 > 0, (alarms, -f1)) if (f1 > 0).any() else None

    def f1_and_alarms(self, videos: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return F1 and false alarms an hour of every policy, on these videos together."""
        counts = self._counts[:, list(videos)].sum(axis=1)
        f1 = np.divide(2 * counts[:, 0], counts[:, 1], out=np.zeros(len(counts)), where=counts[:, 1] > 0)
        return f1, counts[:, 2] / self._hours[list(videos)].sum()

    def held_out(self, false_alarms_per_hour: float) -> OnlineScores | None:
        """Choose anew without each video, and score the choice on it."""
        videos = range(len(self._hours))
        if len(videos) < 2:
            return None
        chosen = [self.best([i for i in videos if i != left], false_alarms_per_hour) for left in videos]
        if None in chosen:
            return None
        return pooled(
            [self.tried[policy].scores[left] for left, policy in enumerate(chosen) if policy is not None]
        )

    def _first(self, allowed: np.ndarray, keys: Sequence[np.ndarray]) -> int:
        order = np.lexsort([*self._rules.T[::-1], *(np.round(key, 9) for key in reversed(keys)), ~allowed])
        return int(order[0])


def _nothing_reached(
    table: _Table, videos: Sequence[ScoredVideo], false_alarms_per_hour: float, max_delay_seconds: float
) -> str:
    nearest = table.nearest()
    if nearest is None:
        return (
            f"none of {len(table.tried)} policies finds a single true event; the classifier does not know "
            "these videos, or their truth is not in seconds since the first frame"
        )
    scores, policy = pooled(table.tried[nearest].scores), table.tried[nearest].policy
    hours = sum(video.total_seconds for video in videos) / 3600
    return (
        f"none of {len(table.tried)} policies has {false_alarms_per_hour:g} false alarms an hour or fewer "
        f"with a delay of {max_delay_seconds:g} s or less; the nearest has {scores.false_alarms_per_hour:.1f} "
        f"({scores.num_false_alarms} in {hours:.2f} h, F1 {scores.f1:.2f}): {policy.smoothing}, enter "
        f"{policy.enter_probability:g}; allow more false alarms or a longer delay, or train longer"
    )
