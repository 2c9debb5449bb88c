"""Untrimmed videos with their answers and truth, and how often one thing follows another in them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidette.errors import InputMismatchError
from vidette.prediction.decision import Event, Timeline
from vidette.prediction.smoothing import Transitions

__all__ = ["ScoredVideo", "learn_transitions"]


@dataclass(frozen=True, eq=False)
class ScoredVideo:
    """An untrimmed video with the answers to it, as a live run gives them, and what really happens in it.

    Attributes:
        name: Its path.
        stretches: The answers; see :class:`vidette.prediction.steps.Steps`.
        truth: The true events.
    """

    name: str
    stretches: tuple[Timeline, ...]
    truth: tuple[Event, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names."""
        return self.stretches[0].classes

    @property
    def total_seconds(self) -> float:
        """Where the last window stops."""
        return max(part.windows[-1].stop_seconds for part in self.stretches if part.windows)

    def __repr__(self) -> str:
        return f"ScoredVideo({self.name}, {self.total_seconds:.1f} s, {len(self.truth)} events)"


def learn_transitions(
    videos: Sequence[ScoredVideo], *, quiet_labels: frozenset[str] = frozenset()
) -> Transitions:
    """Learn how often one thing follows another, from the truth of videos.

    The rate from i to j of a Markov chain that is seen in full is the number of such changes over the time
    spent in i (Billingsley, Statistical Inference for Markov Processes, 1961). To each state one imagined stay
    of mean length is added, which ends in any other state alike, so that nothing is impossible. Between events
    goes on the first quiet label, or "nothing", a state more, where there is none. Classes count alike as
    priors, since training weighs them so by default.

    Raises:
        InputMismatchError: No video has a true event.
    """
    classes = videos[0].classes
    quiet = [k for k, name in enumerate(classes) if name in quiet_labels]
    num_states = len(classes) + (not quiet)
    between = quiet[0] if quiet else len(classes)
    changes, stays = np.zeros((num_states, num_states)), np.zeros(num_states)
    num_stays = 0
    for video in videos:
        states = list(_states(video, between))
        for state, seconds in states:
            stays[state] += seconds
        for (before, _), (after, _) in itertools.pairwise(states):
            changes[before, after] += 1
        num_stays += len(states)
    if not any(video.truth for video in videos):
        raise InputMismatchError("the truth holds no event; give videos in which something happens")
    others = 1 - np.eye(num_states)
    rates = (changes + others / max(1, num_states - 1)) / (stays + stays.sum() / num_stays)[:, None]
    rates -= np.diag(rates.sum(axis=1))
    return Transitions(tuple(map(tuple, rates.tolist())), (1 / len(classes),) * len(classes))


def _states(video: ScoredVideo, between: int) -> Iterator[tuple[int, float]]:
    """Yield (state, seconds) along the truth; an event that begins during another ends that one."""
    events = sorted(video.truth, key=lambda event: event.start_seconds)
    ends = [*(event.start_seconds for event in events), math.inf][1:]
    now, parts = 0.0, list[tuple[int, float]]()
    for event, end in zip(events, ends, strict=True):
        stop = min(event.stop_seconds, end)
        parts.append((between, event.start_seconds - now))
        parts.append((video.classes.index(event.label), stop - event.start_seconds))
        now = stop
    parts.append((between, video.total_seconds - now))
    lasting = (part for part in parts if part[1] > 0)
    for state, same in itertools.groupby(lasting, key=lambda part: part[0]):
        yield state, sum(seconds for _, seconds in same)
