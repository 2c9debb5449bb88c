"""How a classifier fares when the video is disturbed: clips as they are beside the same clips, level by level.

Relative performance under corruption (rPC) is the accuracy under disturbance, meant over levels and then over
corruptions, divided by the accuracy on the clips as they are: Michaelis et al. 2019, "Benchmarking robustness
in object detection: autonomous driving when winter is coming"; for video Yi et al. 2021, "Benchmarking the
robustness of spatial-temporal models against corruptions". The corruptions are
:mod:`vidette.video.corruptions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from vidette.data.cache import ClipCache, expand_windows
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, SettingError, VideoError, unknown_name
from vidette.evaluation.robustness_scores import DisturbedAnswers, Robustness, robustness_of
from vidette.video.clip import Clip, ClipSpec
from vidette.video.corruptions import CORRUPTIONS, NUM_LEVELS, Corruption, corruption_generator

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["choose_clips", "chosen_corruptions", "load_middles", "measure_robustness"]

_FRAMES_PER_CLIP = 4


def choose_clips(clips: Sequence[LabelledClip], num_clips: int, *, seed: int = 0) -> list[LabelledClip]:
    """Return at most ``num_clips`` clips, each class with its share of them, drawn by a seed.

    Args:
        clips: Labelled clips.
        num_clips: How many at most, 1 or more.
        seed: Of the drawing.

    Returns:
        Clips in the order in which they were given.

    Raises:
        SettingError: ``num_clips`` is below 1.
    """
    if num_clips < 1:
        raise SettingError(f"number of clips is {num_clips}; expected 1 or more")
    if len(clips) <= num_clips:
        return list(clips)
    generator = np.random.default_rng(seed)
    of_label: dict[str, list[int]] = {}
    for i in generator.permutation(len(clips)):
        of_label.setdefault(clips[i].label, []).append(int(i))
    # Place k of a class with m clips stands at (k + 1/2) / m: taking the first places shares out the classes.
    places = [
        ((k + 0.5) / len(members), label, i)
        for label, members in sorted(of_label.items())
        for k, i in enumerate(members)
    ]
    chosen = sorted(i for _, _, i in sorted(places)[:num_clips])
    return [clips[i] for i in chosen]


def chosen_corruptions(names: Sequence[str] | None = None) -> tuple[Corruption, ...]:
    """Return the corruptions of those names, all of them when None, in the order of the table.

    Raises:
        SettingError: A name is unknown, or there is none.
    """
    if names is None:
        return tuple(CORRUPTIONS.values())
    for name in names:
        if name not in CORRUPTIONS:
            raise SettingError(unknown_name("corruption", name, CORRUPTIONS))
    if not names:
        raise SettingError(f"no corruption was named; expected all, or some of {', '.join(CORRUPTIONS)}")
    return tuple(kind for name, kind in CORRUPTIONS.items() if name in names)


def measure_robustness(
    classifier: Classifier,
    clips: Sequence[LabelledClip],
    *,
    cache: ClipCache,
    corruptions: Sequence[str] | None = None,
    levels: Sequence[int] = (1, 2, 3, 4, 5),
    seed: int = 0,
    on_damage: Literal["raise", "skip"] = "raise",
    on_foreseen: Callable[[float], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Answer clips as they are and disturbed in every way, whole and by single frames.

    Each clip is decoded once. Where only the order of frames changes, what the model computes of each frame
    alone is computed once too. Of a clip that a ``"window"`` spec cuts into several, the middle one is taken.
    Corruptions of time say nothing of a classifier that takes one frame, and are left out for it.

    Args:
        classifier: What to disturb.
        clips: Labelled clips; see :func:`choose_clips`.
        cache: Where decoded clips are.
        corruptions: Names; all when None.
        levels: Which of the levels 1 to 5.
        seed: Of the disturbances: a clip gets the same ones in every call.
        on_damage: ``"skip"`` leaves out clips whose file is damaged, and lists them.
        on_foreseen: Told once, after a trial on the first clip, about how many seconds all will take.
        on_progress: Called with (disturbed clips answered, all of them).

    Raises:
        InputMismatchError: There is no clip, or a label is not one of the classifier's classes.
        SettingError: A name or level is unknown.
        VideoError: A file is damaged and ``on_damage`` is ``"raise"``.
    """
    kinds = _fitting(chosen_corruptions(corruptions), classifier.spec)
    steps = _checked_levels(levels)
    _check_labels(clips, classifier.classes)
    skipped: list[str] = []
    collected = _Collected()
    each = len(kinds) * len(steps)
    done = 0
    for number, labelled, clip in load_middles(
        clips, classifier.spec, cache=cache, on_damage=on_damage, skipped=skipped
    ):
        if on_foreseen is not None and not collected.clips:
            seconds = _trial_seconds(classifier, clip, kinds, level=steps[len(steps) // 2])
            on_foreseen(seconds * len(steps) * len(clips))
        collected.clips.append(labelled)
        features = classifier.features([clip])
        collected.clean.append(_answers(classifier, features))
        for kind in kinds:
            answers = _disturbed(classifier, clip, kind, steps, features=features, seed=seed, number=number)
            collected.of_kind.setdefault(kind.name, []).append(answers)
            done += len(steps)
            if on_progress is not None:
                on_progress(done, each * len(clips))
    if not collected.clips:
        raise InputMismatchError(f"none of the {len(clips)} clips could be read; first: {skipped[0]}")
    return _scored(classifier, collected, kinds, steps, seed=seed, skipped=skipped)


def load_middles(
    clips: Sequence[LabelledClip],
    spec: ClipSpec,
    *,
    cache: ClipCache,
    on_damage: Literal["raise", "skip"],
    skipped: list[str],
) -> Iterator[tuple[int, LabelledClip, Clip]]:
    """Load clips one by one, the middle window of each; damage is raised, or told to ``skipped``."""
    for number, labelled in enumerate(clips):
        try:
            windows = expand_windows([labelled], spec)
            yield number, labelled, cache.load(windows[len(windows) // 2], spec)
        except VideoError as error:
            if on_damage == "raise":
                raise
            skipped.append(f"{labelled.name}: {error}")


@dataclass
class _Collected:
    """The answers so far: of clips as they are, and of each kind one entry a clip."""

    clips: list[LabelledClip] = field(default_factory=list[LabelledClip])
    clean: list[DisturbedAnswers] = field(default_factory=list[DisturbedAnswers])
    of_kind: dict[str, list[DisturbedAnswers]] = field(default_factory=dict[str, list[DisturbedAnswers]])


def _fitting(kinds: tuple[Corruption, ...], spec: ClipSpec) -> tuple[Corruption, ...]:
    if spec.num_frames > 1:
        return kinds
    fitting = tuple(kind for kind in kinds if kind.family != "time")
    if not fitting:
        raise SettingError("corruptions of time say nothing of a classifier that takes one frame; name others")
    return fitting


def _checked_levels(levels: Sequence[int]) -> tuple[int, ...]:
    wrong = [level for level in levels if not 1 <= level <= NUM_LEVELS]
    if wrong or not levels:
        got = ", ".join(map(str, wrong)) or "none"
        raise SettingError(f"levels: got {got}; expected some of 1 (weak) to {NUM_LEVELS} (strong)")
    return tuple(sorted(set(levels)))


def _check_labels(clips: Sequence[LabelledClip], classes: Sequence[str]) -> None:
    if not clips:
        raise InputMismatchError("there is no clip to disturb; give a split or manifest that holds some")
    for clip in clips:
        if clip.label not in classes:
            raise InputMismatchError(f"{clip.name}: {unknown_name('label', clip.label, classes)}")


def _trial_seconds(classifier: Classifier, clip: Clip, kinds: Sequence[Corruption], *, level: int) -> float:
    """Return how long one clip takes through each kind at one level, after a first answer that warms up."""
    _answers(classifier, classifier.features([clip]))
    start = time.perf_counter()
    features = classifier.features([clip])
    for kind in kinds:
        _disturbed(classifier, clip, kind, (level,), features=features, seed=0, number=0)
    return time.perf_counter() - start


def _disturbed(
    classifier: Classifier,
    clip: Clip,
    kind: Corruption,
    levels: tuple[int, ...],
    *,
    features: torch.Tensor,
    seed: int,
    number: int,
) -> DisturbedAnswers:
    """Answer one clip, of those features as it is, under one kind at several levels."""

    def generator() -> np.random.Generator:
        return corruption_generator(kind.name, seed=seed, clip_number=number)

    if kind.order is not None:
        orders = [kind.frames(clip.seconds, level, generator=generator()) for level in levels]
        rows = torch.from_numpy(np.stack([order for order in orders if order is not None]))
        return _answers(classifier, features[0][rows.to(features.device)])
    disturbed = [kind(clip, level, generator=generator()) for level in levels]
    return _answers(classifier, classifier.features(disturbed))


def _answers(classifier: Classifier, features: torch.Tensor) -> DisturbedAnswers:
    """Answer clips whole and by single frames, of their features ``(L, T, ...)``."""
    num_frames = features.shape[1]
    frames = np.unique(np.linspace(0, num_frames - 1, min(_FRAMES_PER_CLIP, num_frames)).round().astype(int))
    still = [features[:, [frame]].expand_as(features) for frame in frames]
    return DisturbedAnswers(
        clip_logits=classifier.logits_of_features(features),
        frame_logits=np.stack([classifier.logits_of_features(one) for one in still], axis=1),
    )


def _scored(
    classifier: Classifier,
    collected: _Collected,
    kinds: Sequence[Corruption],
    levels: tuple[int, ...],
    *,
    seed: int,
    skipped: Sequence[str],
) -> Robustness:
    position = {name: k for k, name in enumerate(classifier.classes)}
    return robustness_of(
        DisturbedAnswers.joined(collected.clean),
        {kind: DisturbedAnswers.stacked(collected.of_kind[kind.name]) for kind in kinds},
        np.array([position[clip.label] for clip in collected.clips], dtype=np.int64),
        levels=levels,
        groups=tuple(clip.group or clip.path.as_posix() for clip in collected.clips),
        temperature=classifier.temperature,
        seed=seed,
        skipped=tuple(skipped),
    )
