"""Clips divided into training, validation and test: three different sets, by group where groups are known."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from vidette.data.manifest import Manifest
from vidette.errors import SplitError
from vidette.video.names import natural_key

__all__ = ["FoldStrategy", "Split", "SplitPlan", "make_folds", "split_manifest"]

FoldStrategy = Literal["column", "grouped", "stratified", "leave_one_group_out"]
_TRIES = 20
_MISSING = 10.0


@dataclass(frozen=True)
class Split:
    """Which clips are for what; positions in ``manifest.clips``.

    Attributes:
        name: How it came about, for people.
        train: Clips to learn from.
        validation: Clips to choose weights and calibrate by.
        test: Clips for the score, used once.
        warnings: What makes the score doubtful.
    """

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sets = [set(self.train), set(self.validation), set(self.test)]
        if sum(map(len, sets)) != len(set.union(*sets)):
            raise SplitError(f"split {self.name}: a clip is in two of training, validation and test")
        for part, members in zip(("training", "validation", "test"), sets, strict=True):
            if not members:
                raise SplitError(f"split {self.name}: no clip is left for {part}; add clips or groups")

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return f"Split({self.name}: {sizes})"


@dataclass(frozen=True)
class SplitPlan:
    """How to divide clips once.

    Attributes:
        strategy: ``"grouped"``: no group on two sides; ``"stratified"``: each clip on its own, classes in
            proportion; ``"column"``: as the manifest's split column says; ``"auto"``: column if there is one,
            else grouped if groups are known, else stratified.
        validation_fraction: Share of all clips for validation.
        test_fraction: Share of all clips for test.
        seed: Seed of the draw.
    """

    strategy: Literal["auto", "grouped", "stratified", "column"] = "auto"
    validation_fraction: float = 0.15
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.validation_fraction < 1 and 0 < self.test_fraction < 1):
            raise SplitError(
                f"validation_fraction is {self.validation_fraction} and test_fraction {self.test_fraction}; "
                "expected both between 0 and 1"
            )
        if self.validation_fraction + self.test_fraction >= 0.9:
            raise SplitError(
                f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction} leave "
                "less than a tenth for training; lower them"
            )


def split_manifest(manifest: Manifest, plan: SplitPlan) -> Split:
    """Divide the clips once, into three different sets.

    Raises:
        SplitError: One class only, a class with too few clips or groups, or no usable column.

    Example:
        >>> from pathlib import Path
        >>> from vidette.data.manifest import LabelledClip
        >>> clips = tuple(LabelledClip(Path(f"{i}.mp4"), "ab"[i % 2]) for i in range(20))
        >>> split_manifest(Manifest(Path("."), clips, ("a", "b")), SplitPlan())
        Split(stratified: 13 train, 3 validation, 4 test)
    """
    _check_classes(manifest)
    strategy = _strategy(manifest, plan)
    if strategy == "column":
        return _column_split(manifest, plan)
    everything = list(range(len(manifest.clips)))
    by_group = strategy == "grouped"
    rest, test = _carve(manifest, everything, plan.test_fraction, by_group=by_group, seed=plan.seed, sides=3)
    share = plan.validation_fraction / (1 - plan.test_fraction)
    train, validation = _carve(manifest, rest, share, by_group=by_group, seed=plan.seed, sides=2)
    return _warned(manifest, Split(strategy, tuple(train), tuple(validation), tuple(test)))


def _check_classes(manifest: Manifest) -> None:
    if len(manifest.classes) < 2:
        raise SplitError(
            f"{manifest.source} has one class only ({', '.join(manifest.classes)}); expected two or more"
        )


def _strategy(manifest: Manifest, plan: SplitPlan) -> Literal["grouped", "stratified", "column"]:
    if plan.strategy != "auto":
        if plan.strategy == "grouped" and not manifest.has_groups:
            raise SplitError(
                f"{manifest.source} has no groups to split by; add a group column, name them with --group-from,"
                " or use --split stratified"
            )
        return plan.strategy
    if any(clip.split for clip in manifest.clips):
        return "column"
    return "grouped" if manifest.has_groups else "stratified"


def _column_split(manifest: Manifest, plan: SplitPlan) -> Split:
    sets: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for i, clip in enumerate(manifest.clips):
        if clip.split:
            sets[clip.split].append(i)
    for name in ("train", "test"):
        if not sets[name]:
            raise SplitError(
                f"{manifest.source}: no clip has split {name!r}; fill the split column or use another --split"
            )
    if not sets["validation"]:
        share = plan.validation_fraction / (1 - plan.test_fraction)
        sets["train"], sets["validation"] = _carve(
            manifest, sets["train"], share, by_group=manifest.has_groups, seed=plan.seed, sides=2
        )
    split = Split("column", tuple(sets["train"]), tuple(sets["validation"]), tuple(sets["test"]))
    return _warned(manifest, split)


def _carve(
    manifest: Manifest, indices: Sequence[int], fraction: float, *, by_group: bool, seed: int, sides: int
) -> tuple[list[int], list[int]]:
    """Return (rest, taken): ``taken`` is about ``fraction`` of ``indices``, every class on both sides.

    ``sides`` is how many sets the indices are still to be divided into, this one included: 3 when the test set
    is taken, 2 when the validation set is.
    """
    labels = np.array([manifest.clips[i].label for i in indices])
    if by_group:
        groups = np.array([manifest.group_of(i) for i in indices])
        taken = _taken_groups(labels, groups, fraction, seed=seed, sides=sides)
    else:
        taken = _taken_clips(labels, fraction, num_classes=len(manifest.classes), seed=seed, sides=sides)
    rest = [i for i, chosen in zip(indices, taken.tolist(), strict=True) if not chosen]
    return rest, [i for i, chosen in zip(indices, taken.tolist(), strict=True) if chosen]


def _taken_clips(labels: np.ndarray, fraction: float, *, num_classes: int, seed: int, sides: int) -> np.ndarray:
    """Return bool ``(M,)``: about ``fraction`` of each class, at least one, leaving one for each other set."""
    counts = Counter(labels.tolist())
    few = {str(label): n for label, n in counts.items() if n < sides}
    if few or len(counts) < num_classes:
        listed = ", ".join(f"{label} ({n})" for label, n in few.items()) or "a class without clips"
        raise SplitError(
            f"too few clips to divide: {listed}; {_needed('clips', sides)}: add clips or drop the class"
        )
    size = int(np.clip(round(fraction * len(labels)), num_classes, len(labels) - num_classes * (sides - 1)))
    chosen = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)[1]
    taken = np.isin(np.arange(len(labels)), chosen)
    for label, count in counts.items():
        members = np.flatnonzero(labels == label)
        if not 1 <= taken[members].sum() <= count - sides + 1:
            size = min(max(1, round(fraction * count)), count - sides + 1)
            taken[members] = False
            taken[train_test_split(members, test_size=size, random_state=seed)[1]] = True
    return taken


def _needed(what: str, sides: int) -> str:
    if sides == 3:
        return f"each class needs at least 3 {what} in all (one each for training, validation and test)"
    return f"each class needs at least {sides} {what} besides those for test (training and validation)"


def _taken_groups(
    labels: np.ndarray, groups: np.ndarray, fraction: float, *, seed: int, sides: int
) -> np.ndarray:
    """Return bool ``(M,)``: of several seeded groupings, the one nearest to the asked share of each class.

    Where no grouping of that size has every class on every side, larger ones are tried.
    """
    _check_groups(labels, groups, sides=sides)
    most = min(len(set(groups.tolist())), max(Counter(labels.tolist()).values()))
    largest = int(np.clip(round(1 / fraction), 2, max(2, most)))
    best: tuple[float, np.ndarray] | None = None
    for num_folds in range(largest, 1, -1):
        for attempt in range(_TRIES):
            for taken in _group_folds(labels, groups, num_folds, seed=seed * _TRIES + attempt):
                mask = np.zeros(len(labels), bool)
                mask[taken] = True
                score = _imbalance(labels, groups, mask, fraction, sides=sides)
                if best is None or score < best[0] - 1e-9:
                    best = score, mask
        if best is not None and best[0] < _MISSING:
            break
    assert best is not None
    return best[1]


def _group_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int, *, seed: int) -> list[np.ndarray]:
    """Return the positions of each fold; no group in two."""
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer clips than folds: we look for ourselves whether each side has every class.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return [taken for _, taken in folds.split(labels, labels, groups)]


def _imbalance(
    labels: np.ndarray, groups: np.ndarray, taken: np.ndarray, fraction: float, *, sides: int
) -> float:
    """How far the taken share of each class is from ``fraction``; a class missing on a side weighs most."""
    missing, distances = 0, list[float]()
    for label in np.unique(labels):
        members = labels == label
        rest = set(groups[members & ~taken].tolist())
        missing += not taken[members].any()
        missing += max(0, sides - 1 - len(rest))
        distances.append(abs(float(taken[members].mean()) - fraction))
    return _MISSING * missing + float(np.mean(distances))


def _check_groups(labels: np.ndarray, groups: np.ndarray, *, sides: int) -> None:
    of_class = {str(label): set(groups[labels == label].tolist()) for label in np.unique(labels)}
    few = {label: len(members) for label, members in of_class.items() if len(members) < sides}
    if few:
        listed = ", ".join(f"{label} ({n})" for label, n in few.items())
        raise SplitError(
            f"too few groups to divide: {listed}; {_needed('groups', sides)}: add clips of other groups,"
            " drop the class, or use --split stratified, whose score leaks"
        )


def _warned(manifest: Manifest, split: Split) -> Split:
    """Add what makes the split's score doubtful."""
    doubts: list[str] = []
    if not manifest.has_groups:
        doubts.append(
            "No groups are known, so each clip is its own group: if several clips show one scene or person,"
            " the score is too good (name groups with a group column or --group-from)."
        )
    training_groups = {manifest.group_of(i) for i in (*split.train, *split.validation)}
    shared = sum(manifest.group_of(i) in training_groups for i in split.test)
    if shared and manifest.has_groups:
        doubts.append(
            f"{shared} of {len(split.test)} test clips share a group with training or validation:"
            " this score leaks."
        )
    for part, members in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        missing = sorted(set(manifest.classes) - {manifest.clips[i].label for i in members})
        if missing:
            doubts.append(f"The {part} set has no clip of {', '.join(missing)}.")
    return replace(split, warnings=tuple(doubts))


def make_folds(
    manifest: Manifest,
    *,
    by: FoldStrategy,
    num_folds: int = 5,
    validation_fraction: float = 0.15,
    seed: int = 0,
) -> tuple[Split, ...]:
    """Divide the clips into folds; each clip is a test clip once.

    Args:
        manifest: The clips.
        by: ``"column"``: the manifest's folds; ``"leave_one_group_out"``: a fold a group; ``"grouped"`` and
            ``"stratified"``: ``num_folds`` folds.
        num_folds: For ``"grouped"`` and ``"stratified"``.
        validation_fraction: Share of all clips taken from each fold's training part, by group unless
            ``"stratified"``.
        seed: Seed of the draw.

    Raises:
        SplitError: There are no folds or groups, or more folds than groups or clips of a class.
    """
    _check_classes(manifest)
    tests = _fold_tests(manifest, by, num_folds, seed)
    everything = set(range(len(manifest.clips)))
    by_group = by != "stratified" and manifest.has_groups
    splits: list[Split] = []
    for name, test in tests:
        rest = sorted(everything - set(test))
        share = min(0.5, validation_fraction * len(everything) / len(rest)) if rest else validation_fraction
        if not rest:
            raise SplitError(f"fold {name} holds every clip; expected two folds or more")
        train, validation = _carve(manifest, rest, share, by_group=by_group, seed=seed, sides=2)
        split = Split(f"{by} fold {name}", tuple(train), tuple(validation), tuple(sorted(test)))
        splits.append(_warned(manifest, split))
    return tuple(splits)


def _fold_tests(manifest: Manifest, by: FoldStrategy, num_folds: int, seed: int) -> list[tuple[str, list[int]]]:
    if by == "column":
        names = [clip.fold for clip in manifest.clips]
        if not all(names):
            raise SplitError(
                f"{manifest.source}: {names.count(None)} of {len(names)} clips have no fold;"
                " fill the fold column"
            )
        return _by_name([str(name) for name in names])
    groups = [manifest.group_of(i) for i in range(len(manifest.clips))]
    if by == "leave_one_group_out":
        if not manifest.has_groups:
            raise SplitError(
                f"{manifest.source} has no groups to leave out; add a group column or use --group-from"
            )
        return _by_name(groups)
    labels = [clip.label for clip in manifest.clips]
    most = min(Counter(labels).values()) if by == "stratified" else len(set(groups))
    if not 2 <= num_folds <= most:
        what = "clips of the rarest class" if by == "stratified" else "groups"
        raise SplitError(f"{num_folds} folds asked, but there are {most} {what}; use 2 to {most} folds")
    if by == "stratified":
        folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
        parts = [test for _, test in folds.split(labels, labels)]
    else:
        parts = _group_folds(np.array(labels), np.array(groups), num_folds, seed=seed)
    return [(str(number), [int(i) for i in test]) for number, test in enumerate(parts)]


def _by_name(names: Sequence[str]) -> list[tuple[str, list[int]]]:
    distinct = sorted(set(names), key=natural_key)
    if len(distinct) < 2:
        raise SplitError(f"there is one fold only ({distinct[0]}); expected two or more")
    return [(name, [i for i, other in enumerate(names) if other == name]) for name in distinct]
