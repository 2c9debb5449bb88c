"""Score a classifier on labelled clips: load, answer, measure, and say what looks wrong."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vidette.data.cache import ClipCache, expand_windows
from vidette.data.folder import some
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, SettingError, VideoError, unknown_name
from vidette.evaluation.abstain import PromiseChecks, check_promises, find_abstaining
from vidette.evaluation.consistency import Consistency, ProbeAnswers, probe_batch, summarise
from vidette.evaluation.metrics import Metrics, Predictions, measure
from vidette.video.augmentation import view_crops
from vidette.video.clip import Clip, ClipSpec

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["Evaluation", "evaluate"]

_NUM_LOADERS = 4
_PROBED_CLIPS = 200


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A classifier's score on one set of clips, and what to know about it.

    Attributes:
        metrics: The numbers, at the classifier's temperature.
        consistency: Whole clips beside single frames and shuffled frames; None when not asked for.
        predictions: The answers that the numbers are made of.
        clips: The M clips, in the order of ``predictions``.
        split_name: What set of clips this was, for example ``"test"``.
        warnings: Sentences about what makes the score doubtful.
        skipped: Clips left out because their file is damaged, each with the reason.
        promises: What the classifier's thresholds for abstaining promised, and whether it held; None where
            training left none.
        views: Views of each clip whose logits were averaged.
    """

    metrics: Metrics
    consistency: Consistency | None
    predictions: Predictions
    clips: tuple[LabelledClip, ...]
    split_name: str
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    promises: PromiseChecks | None = None
    views: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        return {
            "split": self.split_name,
            "views": self.views,
            "metrics": self.metrics.to_dict(),
            "consistency": self.consistency.to_dict() if self.consistency else None,
            "abstaining": self.promises.to_dict() if self.promises else None,
            "warnings": list(self.warnings),
            "skipped": list(self.skipped),
        }

    def __repr__(self) -> str:
        return f"Evaluation({self.split_name}: {self.metrics.headline()})"


@dataclass
class _Tally:
    """What has been seen of the clips so far. A unit is a labelled clip; it has one window or more."""

    logits: dict[int, list[np.ndarray]] = field(default_factory=dict[int, list[np.ndarray]])
    probed: dict[int, int] = field(default_factory=dict[int, int])
    answers: list[ProbeAnswers] = field(default_factory=list[ProbeAnswers])
    faults: dict[int, str] = field(default_factory=dict[int, str])
    outside: set[int] = field(default_factory=set[int])
    repeated: set[int] = field(default_factory=set[int])
    lost: dict[int, int] = field(default_factory=dict[int, int])


def evaluate(
    classifier: Classifier,
    clips: Sequence[LabelledClip],
    *,
    cache: ClipCache,
    batch_size: int = 8,
    split_name: str = "test",
    consistency: bool = True,
    views: int = 1,
    on_damage: Literal["raise", "skip"] = "raise",
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Answer every clip and measure the answers.

    A clip longer than a ``"window"`` spec is cut into windows, and their logits are averaged. Single frames and
    shuffled frames are tried on at most 200 clips, chosen by a fixed seed, of one view each.

    Args:
        classifier: What to score.
        clips: Labelled clips, not yet cut into windows; those of one group are one draw for the intervals.
        cache: Where decoded clips are.
        batch_size: Clips answered at once.
        split_name: Name of the set, for the report.
        consistency: Whether to try single and shuffled frames also.
        views: Of how many views the logits are averaged, 1 to 6: the whole picture, its centre, its corners.
            The temperature stays that of one view, so probabilities are a little too unsure or too sure.
        on_damage: ``"skip"`` leaves out clips whose file is damaged, and lists them in ``skipped``.
        on_progress: Called with (windows done, windows in all).

    Raises:
        InputMismatchError: There is no clip, or a label is not one of the classifier's classes.
        VideoError: A file is damaged and ``on_damage`` is ``"raise"``.
        SettingError: The number of views is out of range.
    """
    if on_damage not in ("raise", "skip"):
        raise SettingError(f"on_damage is {on_damage!r}; expected raise or skip")
    _check_labels(clips, classifier.classes)
    tally, skip = _Tally(), on_damage == "skip"
    windows, units = _windows_of(clips, classifier.spec, tally=tally, skip=skip)
    chosen = _probed_windows(units) if consistency else frozenset[int]()
    loaded = enumerate(_load_all(cache, windows, classifier.spec, ahead=2 * batch_size))
    done = 0
    while batch := list(itertools.islice(loaded, batch_size)):
        readable = _answer(classifier, batch, units=units, chosen=chosen, tally=tally, skip=skip)
        if readable and views != 1:
            _answer_crops(classifier, readable, tally=tally, views=views)
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(windows))
    found = _conclude(classifier, clips, tally, split_name=split_name, probe=consistency)
    return replace(found, views=views)


def _check_labels(clips: Sequence[LabelledClip], classes: Sequence[str]) -> None:
    if not clips:
        raise InputMismatchError("there is no clip to evaluate; give a split or manifest that holds some")
    counts = Counter(clip.label for clip in clips if clip.label not in set(classes))
    if counts:
        faults = [f"{unknown_name('label', name, classes)} ({count} clips)" for name, count in counts.items()]
        raise InputMismatchError(
            f"{len(counts)} of the clips' labels are not classes of this classifier: {'; '.join(faults)}; "
            "rename the labels or leave these clips out"
        )


def _windows_of(
    clips: Sequence[LabelledClip], spec: ClipSpec, *, tally: _Tally, skip: bool
) -> tuple[list[LabelledClip], list[int]]:
    """Cut clips into the windows of a ``"window"`` spec; with each, the index of the clip that it is of."""
    windows: list[LabelledClip] = []
    units: list[int] = []
    for unit, clip in enumerate(clips):
        try:
            parts = expand_windows([clip], spec)
        except VideoError as error:
            if not skip:
                raise
            tally.faults[unit] = str(error)
            continue
        windows += parts
        units += [unit] * len(parts)
    return windows, units


def _probed_windows(units: Sequence[int]) -> frozenset[int]:
    """The middle window of each clip of at most 200."""
    of_unit: dict[int, list[int]] = {}
    for window, unit in enumerate(units):
        of_unit.setdefault(unit, []).append(window)
    names = np.array(sorted(of_unit))
    if len(names) > _PROBED_CLIPS:
        names = np.random.default_rng(0).choice(names, _PROBED_CLIPS, replace=False)
    return frozenset(of_unit[int(unit)][len(of_unit[int(unit)]) // 2] for unit in names)


def _load_all(
    cache: ClipCache, windows: Sequence[LabelledClip], spec: ClipSpec, *, ahead: int
) -> Iterator[Clip | VideoError]:
    """Load clips in a few threads, about ``ahead`` of them before they are wanted; in order."""
    with ThreadPoolExecutor(_NUM_LOADERS) as pool:
        waiting: deque[Future[list[Clip | VideoError]]] = deque()
        try:
            groups = cache.groups(windows, spec)
            most = max(_NUM_LOADERS, ahead * len(groups) // max(1, len(windows)))
            for group in groups:
                waiting.append(pool.submit(cache.load_together, group, spec))
                if len(waiting) > most:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _answer(
    classifier: Classifier,
    batch: Sequence[tuple[int, Clip | VideoError]],
    *,
    units: Sequence[int],
    chosen: frozenset[int],
    tally: _Tally,
    skip: bool,
) -> list[tuple[int, Clip]]:
    """Answer clips, probe those chosen; return the clips that could be read, each with its unit."""
    plain: list[tuple[int, Clip]] = []
    probed: list[tuple[int, Clip]] = []
    for number, clip in batch:
        if isinstance(clip, VideoError):
            if not skip:
                raise clip
            tally.faults.setdefault(units[number], str(clip))
            continue
        (probed if number in chosen else plain).append((units[number], clip))
        _note(tally, units[number], clip, classifier.spec)
    if plain:
        _keep(tally, plain, classifier.logits([clip for _, clip in plain]))
    if probed:
        numbers = [unit for unit, _ in probed]
        answers = probe_batch(classifier, [clip for _, clip in probed], clip_numbers=numbers)
        _keep(tally, probed, answers.clip_logits)
        for row, unit in enumerate(numbers):
            tally.probed[unit] = len(tally.answers)
            tally.answers.append(_row(answers, row))
    return plain + probed


def _answer_crops(
    classifier: Classifier, clips: Sequence[tuple[int, Clip]], *, tally: _Tally, views: int
) -> None:
    """Answer the further views of clips; their logits are averaged with those of the whole picture."""
    crops = [view_crops(clip.pixels, views)[1:] for _, clip in clips]
    for view in zip(*crops, strict=True):
        pictures = [replace(clip, pixels=crop) for (_, clip), crop in zip(clips, view, strict=True)]
        _keep(tally, clips, classifier.logits(pictures))


def _row(answers: ProbeAnswers, row: int) -> ProbeAnswers:
    one = slice(row, row + 1)
    return ProbeAnswers(answers.clip_logits[one], answers.frame_logits[one], answers.shuffled_logits[one])


def _keep(tally: _Tally, batch: Sequence[tuple[int, Clip]], logits: np.ndarray) -> None:
    for (unit, _), row in zip(batch, logits, strict=True):
        tally.logits.setdefault(unit, []).append(row)


def _note(tally: _Tally, unit: int, clip: Clip, spec: ClipSpec) -> None:
    if clip.repeated:
        tally.repeated.add(unit)
    if clip.lost_frames:
        tally.lost[unit] = max(clip.lost_frames, tally.lost.get(unit, 0))
    if spec.trained_spans is not None and not spec.trained_spans.holds(clip.span_seconds):
        tally.outside.add(unit)


def _conclude(
    classifier: Classifier, clips: Sequence[LabelledClip], tally: _Tally, *, split_name: str, probe: bool
) -> Evaluation:
    kept = [unit for unit in sorted(tally.logits) if unit not in tally.faults]
    if not kept:
        raise InputMismatchError(
            f"none of the {len(clips)} clips could be read; first: {next(iter(tally.faults.values()))}"
        )
    position = {name: k for k, name in enumerate(classifier.classes)}
    answered = tuple(clips[unit] for unit in kept)
    predictions = Predictions(
        classes=tuple(classifier.classes),
        labels=np.array([position[clip.label] for clip in answered], dtype=np.int64),
        logits=np.stack([np.mean(tally.logits[unit], axis=0) for unit in kept]),
        groups=tuple(clip.group or clip.path.as_posix() for clip in answered),
        names=tuple(clip.name for clip in answered),
    )
    return Evaluation(
        metrics=measure(predictions, temperature=classifier.temperature),
        consistency=_consistency(classifier, kept, predictions, tally) if probe else None,
        predictions=predictions,
        clips=answered,
        split_name=split_name,
        warnings=(
            *_warnings(answered, predictions, tally, classifier.spec),
            *_lost([(clips[unit].name, num) for unit, num in sorted(tally.lost.items())]),
        ),
        skipped=tuple(f"{clips[unit].name}: {reason}" for unit, reason in sorted(tally.faults.items())),
        promises=_promises(classifier, predictions),
    )


def _promises(classifier: Classifier, predictions: Predictions) -> PromiseChecks | None:
    made = find_abstaining(classifier.training_statistics)
    return check_promises(made, predictions, temperature=classifier.temperature) if made else None


def _consistency(
    classifier: Classifier, kept: Sequence[int], predictions: Predictions, tally: _Tally
) -> Consistency:
    rows = [row for row, unit in enumerate(kept) if unit in tally.probed]
    return summarise(
        [tally.answers[tally.probed[kept[row]]] for row in rows],
        predictions.labels[rows],
        groups=[predictions.groups[row] for row in rows],
        probabilities=classifier.probabilities,
        num_frames=classifier.spec.num_frames,
    )


def _lost(clips: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Say which clips lost how many frames, if any did."""
    named = [f"{name} ({num} frames)" for name, num in clips]
    return (f"{len(named)} clips lost frames: {some(named, 10)}",) if named else ()


def _warnings(
    clips: Sequence[LabelledClip], predictions: Predictions, tally: _Tally, spec: ClipSpec
) -> tuple[str, ...]:
    n, num_groups = len(clips), len(set(predictions.groups))
    found: list[str] = []
    if tally.faults:
        count = len(tally.faults)
        found.append(f"{count} clip{' was' if count == 1 else 's were'} left out because the file is damaged.")
    if num_groups == n and not any(clip.group for clip in clips):
        found.append(
            "No groups are known, so the interval treats clips as unrelated; if several show one scene or "
            "person, it is too narrow and the score may be too good."
        )
    elif num_groups < 10:
        found.append(f"The clips come from {num_groups} groups only; the interval is a rough guess.")
    absent = [name for k, name in enumerate(predictions.classes) if not (predictions.labels == k).any()]
    if absent:
        shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        found.append(f"{len(absent)} of {len(predictions.classes)} classes have no clip here: {shown}.")
    if spec.trained_spans is not None and tally.outside:
        spans = spec.trained_spans
        found.append(
            f"{len(tally.outside)} of {n} clips last longer or shorter than the clips of training "
            f"({spans.shortest_seconds:.1f} to {spans.longest_seconds:.1f} s), so they move at another pace."
        )
    if tally.repeated:
        found.append(
            f"{len(tally.repeated)} of {n} clips are shorter than the classifier's span; their last frame "
            "stands in for the rest."
        )
    return tuple(found)
