"""The checks of an audit: each takes what is known of the clips and returns findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vidette.data.audit_findings import Example, Finding, Severity, count_text, listed
from vidette.data.audit_looks import ClipLook
from vidette.data.audit_scenes import Scenes, near_duplicates
from vidette.data.audit_shortcuts import CLIP_BACKGROUND, PLACE, Shortcut, clip_seconds
from vidette.data.manifest import LabelledClip
from vidette.video.reader import VideoInfo

__all__ = [
    "Known",
    "check_classes",
    "check_duplicates",
    "check_given_groups",
    "check_leak",
    "check_pictures",
    "check_shortcuts",
    "merged_groups",
]

_MANY_LEAK = 0.2
_IMBALANCE, _FEW_GROUPS, _LEAST_GROUPS = 3.0, 5, 3
_GIVES_AWAY, _GIVES_AWAY_BADLY = 0.6, 0.75
_BLACK_LEVEL, _FROZEN_LEVELS = 24.0, 2.0
_MOST_EXAMPLES, _MOST_CLIPS = 6, 4


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of N readable clips.

    Attributes:
        clips: The clips.
        infos: What each file is.
        looks: What each clip looks like.
        scenes: Which show one scene.
        groups: int ``(N,)``: clips that share a scene, a given group or a file, gathered.
        sides: ``"train"``, ``"validation"``, ``"test"`` or empty, for each clip; None without a split.
        split_name: How the split came about.
    """

    clips: tuple[LabelledClip, ...]
    infos: tuple[VideoInfo, ...]
    looks: tuple[ClipLook, ...]
    scenes: Scenes
    groups: np.ndarray
    sides: np.ndarray | None = None
    split_name: str = ""

    @property
    def labels(self) -> np.ndarray:
        """The label of each clip."""
        return np.array([clip.label for clip in self.clips])


def merged_groups(clips: Sequence[LabelledClip], scenes: Scenes) -> np.ndarray:
    """Number the clips so that those of one scene, one given group or one file share a number."""
    names = [("scene", str(scene)) for scene in scenes.scene_of]
    links = [*enumerate(names)]
    links += [(i, ("file", clip.path.as_posix())) for i, clip in enumerate(clips)]
    links += [(i, ("group", clip.group)) for i, clip in enumerate(clips) if clip.group]
    number = {name: len(clips) + k for k, name in enumerate(dict.fromkeys(name for _, name in links))}
    size = len(clips) + len(number)
    ends = np.array([(i, number[name]) for i, name in links]).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(clips)]


def check_leak(known: Known) -> list[Finding]:
    """Find scenes that stand on both sides of the split."""
    if known.sides is None:
        return []
    scene_of = known.scenes.scene_of
    learning = np.isin(known.sides, ("train", "validation"))
    test = known.sides == "test"
    leaks = test & np.isin(scene_of, scene_of[learning])
    chosen = (known.sides == "validation") & np.isin(scene_of, scene_of[known.sides == "train"])
    count, n = int(leaks.sum()), int(test.sum())
    if not count and not chosen.any():
        return []
    of_validation = int((known.sides == "validation").sum())
    evidence = [
        f"{count_text(count, n, 'test clips')} show a scene that training or validation clips show",
        f"{count_text(int(chosen.sum()), of_validation, 'validation clips')} show a scene of training clips",
        f"an answer by scene alone is right on {count_text(_right_by_scene(known), n, 'test clips')}",
    ]
    who = f"{'Most' if count > n / 2 else f'{count} of {n}'} test clips" if count else "Validation clips"
    return [
        Finding(
            "scene_leak",
            "alarm" if count >= _MANY_LEAK * n else "warning",
            f"{who} share a scene with training ({known.split_name} split).",
            tuple(evidence),
            "Split by scene: write the scenes that were found with --write-groups FILE.csv, look them through, "
            "and train on FILE.csv; or name the groups yourself. A score from this split is too good.",
            _across(known, leaks | chosen),
        )
    ]


def _right_by_scene(known: Known) -> int:
    """How many test clips have the commonest training label of their scene, else of all training clips."""
    assert known.sides is not None
    learning = np.flatnonzero(np.isin(known.sides, ("train", "validation")))
    labels = known.labels
    anyone = Counter(labels[learning].tolist()).most_common(1)
    right = 0
    for i in np.flatnonzero(known.sides == "test"):
        inside = learning[known.scenes.scene_of[learning] == known.scenes.scene_of[i]]
        common = Counter(labels[inside].tolist()).most_common(1) or anyone
        right += bool(common) and common[0][0] == labels[i]
    return right


def _across(known: Known, leaks: np.ndarray) -> tuple[Example, ...]:
    assert known.sides is not None
    scene_of = known.scenes.scene_of
    examples: list[Example] = []
    for scene, count in Counter(scene_of[leaks].tolist()).most_common(_MOST_EXAMPLES):
        inside = known.scenes.members(scene)
        held = [i for i in inside if leaks[i]]
        learnt = [i for i in inside if not leaks[i]]
        sides = Counter(known.sides[inside].tolist())
        shown = (*held[: _MOST_CLIPS // 2], *learnt[: _MOST_CLIPS // 2])
        counts = ", ".join(f"{number} {side}" for side, number in sides.items() if side)
        examples.append(Example(shown, f"one scene: {counts} ({count} leak)"))
    return tuple(examples)


def check_duplicates(known: Known) -> list[Finding]:
    """Find clips that are given twice, in whatever encoding, and say where their labels or sides differ."""
    pairs = near_duplicates(known.looks, known.scenes)
    if not pairs:
        return []
    labels, sides = known.labels, known.sides
    clash = [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    across = [(i, j) for i, j in pairs if sides is not None and sides[i] and sides[j] and sides[i] != sides[j]]
    in_pairs = len({i for pair in pairs for i in pair})
    evidence = [f"{count_text(in_pairs, len(known.clips), 'clips')} have a near twin; {len(pairs)} pairs"]
    evidence += [f"{len(clash)} of {len(pairs)} pairs have different labels"] if clash else []
    evidence += [f"{len(across)} of {len(pairs)} pairs stand on two sides of the split"] if across else []
    worst = list(dict.fromkeys([*clash, *across, *pairs]))[:_MOST_EXAMPLES]
    return [
        Finding(
            "near_duplicates",
            "alarm" if across else "warning" if clash else "note",
            f"{in_pairs} clips look the same as another clip from beginning to end.",
            tuple(evidence),
            "Keep one of each, or give both one group; where their labels differ, see which is right. Clips of "
            "a place where nothing happens are listed too.",
            tuple(Example(pair, " and ".join(labels[list(pair)].tolist())) for pair in worst),
        )
    ]


def check_given_groups(known: Known) -> list[Finding]:
    """Find scenes that run across the groups that the manifest gives."""
    if not any(clip.group for clip in known.clips):
        return []
    spread: list[tuple[int, set[str]]] = []
    for scene in range(known.scenes.num_scenes):
        given = {str(known.clips[i].group) for i in known.scenes.members(scene)}
        spread += [(scene, given)] if len(given) > 1 else []
    if not spread:
        return []
    spread.sort(key=lambda item: -len(item[1]))
    clips = sum(len(known.scenes.members(scene)) for scene, _ in spread)
    shown = [(known.scenes.members(scene), given) for scene, given in spread[:_MOST_EXAMPLES]]
    return [
        Finding(
            "groups_share_scenes",
            "note",
            f"{len(spread)} scenes run across groups that the manifest keeps apart.",
            (count_text(clips, len(known.clips), "clips") + " are of such a scene",),
            "If groups are meant to be scenes, merge these; if they are people in one room, a score by group "
            "says nothing about other rooms.",
            tuple(Example(_one_each(known, inside), f"groups {listed(sorted(g))}") for inside, g in shown),
        )
    ]


def _one_each(known: Known, inside: Sequence[int]) -> tuple[int, ...]:
    first = {str(known.clips[i].group): i for i in reversed(inside)}
    return tuple(sorted(first.values()))[:_MOST_CLIPS]


def check_shortcuts(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    """Find properties that predict the label without the clip being watched."""
    about_files = [s for s in shortcuts if s.name not in (CLIP_BACKGROUND, PLACE)]
    places = [s for s in shortcuts if s.name == PLACE]
    pictures = [s for s in shortcuts if s.name == CLIP_BACKGROUND]
    files = _shortcut_finding(
        "shortcut_files",
        about_files,
        "How the files were made predicts the label",
        "Classes come from different cameras or pipelines: take clips of all classes from the same sources, or "
        "bring all to one size, rate and bit rate; and test on a source that training has not seen.",
    )
    place = _shortcut_finding(
        "shortcut_background",
        places,
        "The place predicts the label without anyone in it",
        "Classes were filmed in different kinds of places: film each class in each place, or train on motion "
        "(--recipe motion), and test on places of the other class.",
    )
    also = tuple(f"{s.name}: {s.text()}" for s in pictures)
    return [*files, *(replace(finding, evidence=(*finding.evidence, *also)) for finding in place)]


def _shortcut_finding(name: str, shortcuts: Sequence[Shortcut], title: str, advice: str) -> list[Finding]:
    bad = sorted((s for s in shortcuts if s.low > _GIVES_AWAY), key=lambda s: -s.auc)
    if not bad:
        return []
    severity: Severity = "alarm" if bad[0].low > _GIVES_AWAY_BADLY else "warning"
    evidence = tuple(f"{s.name}: {s.text()}" for s in bad)
    return [
        Finding(name, severity, f"{title}: AUC up to {bad[0].auc:.2f} where 0.5 is guessing.", evidence, advice)
    ]


def check_classes(known: Known) -> list[Finding]:
    """Find classes with few clips beside the others, and classes from few groups."""
    labels, findings = known.labels, list[Finding]()
    counts = Counter(labels.tolist()).most_common()
    (most, n_most), (least, n_least) = counts[0], counts[-1]
    if n_most >= _IMBALANCE * n_least:
        always = f"always answering {most} is right on {count_text(n_most, len(labels), 'clips')}"
        findings.append(
            Finding(
                "imbalance",
                "warning",
                f"Class {most} has {n_most / n_least:.1f} times as many clips as {least}.",
                (", ".join(f"{label}: {n}" for label, n in counts), always),
                "Read balanced accuracy, not accuracy; train with balanced class weights, or add clips of the "
                "rare classes.",
            )
        )
    groups_of = {label: len(np.unique(known.groups[labels == label])) for label, _ in counts}
    few = {label: n for label, n in groups_of.items() if n < _FEW_GROUPS}
    if few:
        names = sorted(few, key=few.__getitem__)
        findings.append(
            Finding(
                "few_groups",
                "alarm" if min(few.values()) < _LEAST_GROUPS else "warning",
                f"{len(few)} of {len(counts)} classes come from fewer than {_FEW_GROUPS} scenes or groups.",
                tuple(
                    f"{label}: {few[label]} groups for {int((labels == label).sum())} clips" for label in names
                ),
                "Add clips from other places: a class needs 3 groups to be trained, validated and tested at "
                "all, and many more for its score to mean much.",
            )
        )
    return findings


def check_pictures(known: Known, *, span_seconds: float | None) -> list[Finding]:
    """Find clips that are black, that do not change, or that are short."""
    looks = known.looks
    black = [i for i, look in enumerate(looks) if look.brightest < _BLACK_LEVEL]
    frozen = [i for i, look in enumerate(looks) if look.change < _FROZEN_LEVELS and i not in black]
    seconds = np.array([clip_seconds(clip, info) for clip, info in zip(known.clips, known.infos, strict=True)])
    limit = span_seconds if span_seconds is not None else float(np.median(seconds)) / 2
    short = [int(i) for i in np.argsort(seconds, kind="stable") if seconds[i] < limit - 1e-6]
    what = "the span" if span_seconds is not None else "half the median clip"
    advice = "Trim the clips alike, or choose a shorter span: the last frame is repeated for missing time."
    return [
        *_listed_clips(
            known, "black_clips", black, "are black", "Take them out or read them again from the source."
        ),
        *_listed_clips(
            known,
            "frozen_clips",
            frozen,
            "do not change",
            "Take them out unless stillness is what the label means.",
        ),
        *_listed_clips(known, "short_clips", short, f"are shorter than {what} ({limit:.2f} s)", advice),
    ]


def _listed_clips(known: Known, name: str, found: Sequence[int], what: str, advice: str) -> list[Finding]:
    if not found:
        return []
    by_label = Counter(known.labels[list(found)].tolist())
    evidence = (
        f"{count_text(len(found), len(known.clips), 'clips')}: "
        + ", ".join(f"{n} of {label}" for label, n in sorted(by_label.items())),
        listed([known.clips[i].name for i in found]),
    )
    examples = tuple(Example((i,), known.clips[i].label) for i in found[:_MOST_EXAMPLES])
    return [Finding(name, "warning", f"{len(found)} clips {what}.", evidence, advice, examples)]
