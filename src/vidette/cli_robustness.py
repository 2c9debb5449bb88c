"""What ``vidette evaluate --corruptions`` and ``--adversarial`` add: the clips disturbed, and attacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from vidette.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.data.cache import ClipCache
    from vidette.data.manifest import LabelledClip
    from vidette.evaluation.abstain import PromiseCheck
    from vidette.evaluation.adversarial import AttackScore
    from vidette.evaluation.metrics import Interval
    from vidette.evaluation.robustness_scores import LevelScore, Robustness

__all__ = ["Disturbance", "Disturbed", "disturb", "disturbance", "promises_table"]

_MOST_CLIPS = 100


@dataclass(frozen=True)
class Disturbance:
    """What was asked for.

    Attributes:
        corruptions: Names; None where none were asked for.
        levels: Of 1 to 5.
        attacks: Names; none where none were asked for.
        num_clips: At most so many clips.
    """

    corruptions: tuple[str, ...] | None
    levels: tuple[int, ...]
    attacks: tuple[str, ...]
    num_clips: int


@dataclass(frozen=True)
class Disturbed:
    """What came of it; None and nothing where it was not asked for."""

    robustness: Robustness | None = None
    attacks: tuple[AttackScore, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, of what was asked for."""
        values: dict[str, Any] = {}
        if self.robustness:
            values["robustness"] = self.robustness.to_dict()
        if self.attacks:
            values["attacks"] = [score.to_dict() for score in self.attacks]
        return values

    def show(self, console: Console) -> None:
        """Print the tables and what they mean."""
        if self.robustness:
            console.print(_robustness_table(self.robustness))
            for line in self.robustness.reading():
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.attacks:
            console.print(_attacks_table(self.attacks))


def disturbance(
    *, corruptions: str | None, levels: str | None, adversarial: str | None, num_clips: int | None
) -> Disturbance:
    """Read the options.

    Raises:
        SettingError: A name or level is unknown, or an option has nothing to say something about.
    """
    from vidette.evaluation.adversarial import ATTACKS
    from vidette.evaluation.robustness import chosen_corruptions

    if levels is not None and corruptions is None:
        raise SettingError("--levels is for --corruptions; give both")
    if num_clips is not None and corruptions is None and adversarial is None:
        raise SettingError("--num-clips is for --corruptions and --adversarial; give one of them")
    names = None if corruptions is None else _names(corruptions, what="--corruptions")
    kinds = chosen_corruptions(None if names == ("all",) else names) if names else ()
    attacks = () if adversarial is None else _names(adversarial, what="--adversarial")
    for name in attacks:
        if name not in ATTACKS:
            raise SettingError(unknown_name("attack", name, ATTACKS))
    return Disturbance(
        corruptions=tuple(kind.name for kind in kinds) if names else None,
        levels=_levels(levels) if levels is not None else (1, 2, 3, 4, 5),
        attacks=attacks,
        num_clips=_MOST_CLIPS if num_clips is None else num_clips,
    )


def disturb(
    classifier: Classifier,
    clips: Sequence[LabelledClip],
    wanted: Disturbance,
    *,
    cache: ClipCache,
    on_damage: Literal["raise", "skip"],
    console: Console,
) -> Disturbed:
    """Disturb and attack as asked, saying before how much that is and about how long it takes."""
    from vidette.cli_view import progress_bar
    from vidette.evaluation.adversarial import STRENGTHS, measure_attacks
    from vidette.evaluation.robustness import choose_clips, measure_robustness

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    robustness, attacks = None, ()
    if wanted.corruptions is None and not wanted.attacks:
        return Disturbed()
    chosen = choose_clips(clips, wanted.num_clips)
    drawn = "" if len(chosen) == len(clips) else ", drawn by a fixed seed, each class with its share"
    say(f"{len(chosen)} of {len(clips)} clips{drawn}:")
    if wanted.corruptions is not None:
        kinds, levels = len(wanted.corruptions), len(wanted.levels)
        say(f"  {kinds} corruptions at {levels} levels: {len(chosen) * kinds * levels:,} disturbed clips")
        with progress_bar(console, "disturbing") as on_progress:
            robustness = measure_robustness(
                classifier,
                chosen,
                cache=cache,
                corruptions=wanted.corruptions,
                levels=wanted.levels,
                on_damage=on_damage,
                on_foreseen=lambda seconds: say(f"  disturbing takes about {_duration(seconds)}"),
                on_progress=on_progress,
            )
    if wanted.attacks:
        sizes = ", ".join(map(str, STRENGTHS))
        say(f"  attacks {', '.join(wanted.attacks)}: pixel values changed by up to {sizes} of 255")
        with progress_bar(console, "attacking") as on_progress:
            attacks = measure_attacks(
                classifier,
                chosen,
                cache=cache,
                kinds=wanted.attacks,
                on_damage=on_damage,
                on_foreseen=lambda seconds: say(f"  attacking takes about {_duration(seconds)}"),
                on_progress=on_progress,
            )
    return Disturbed(robustness, attacks)


def promises_table(checks: Sequence[PromiseCheck]) -> Table:
    """Return the promises of abstaining beside what was measured."""
    table = _table("wrong at most", "answers from", "answered", "wrong (95 %)", "promise")
    for check in checks:
        if check.promise.threshold is None:
            table.add_row(f"{check.promise.risk:.0%}", "-", "-", "-", "none")
            continue
        low, high = check.risk_interval.low, check.risk_interval.high
        wrong = "-" if check.answered == 0 else f"{check.risk:.1%} ({100 * low:.0f}-{100 * high:.0f})"
        table.add_row(
            f"{check.promise.risk:.0%}",
            f"{check.promise.threshold:.1%}",
            f"{check.answered} of {check.n}",
            wrong,
            {"above": "above, maybe by chance", "empty": "nothing answered"}.get(check.verdict, check.verdict),
        )
    return table


def _robustness_table(robustness: Robustness) -> Table:
    levels = robustness.corruptions[0].levels
    table = _table(
        "right answers, %", *(f"L{level.level}" for level in levels), "rPC (95 %)", "1 frame", "ECE", "flicker"
    )
    clean = robustness.clean
    table.add_row(
        "clean", *(_percent(clean) for _ in levels), "", "", f"{clean.ece:.2f}", _share(clean.flicker)
    )
    for score in robustness.corruptions:
        table.add_row(
            score.name,
            *(_percent(level) for level in score.levels),
            _two(score.relative) + _between(score.relative_interval),
            _two(score.frame_relative),
            f"{score.ece:.2f}",
            _share(score.flicker),
        )
    table.add_row(
        "all",
        *("" for _ in levels),
        _two(robustness.relative) + _between(robustness.relative_interval),
        _two(robustness.frame_relative),
        "",
        "",
        style="bold",
    )
    table.caption = (
        f"{robustness.n} clips of {robustness.num_groups} groups. rPC: accuracy disturbed / clean, mean over "
        "levels; 1 frame: rPC of single frames."
    )
    return table


def _attacks_table(scores: Sequence[AttackScore]) -> Table:
    table = _table("attack", "of 255", "accuracy (95 %)", "right turned wrong", "confidence", "clips")
    for score in scores:
        low, high = score.accuracy_interval.low, score.accuracy_interval.high
        table.add_row(
            score.attack,
            str(score.strength),
            _share(score.accuracy) + (f" ({100 * low:.0f}-{100 * high:.0f})" if low == low else ""),
            _share(score.fooled),
            _share(score.confidence),
            str(score.n),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _names(given: str, *, what: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    if not names:
        raise SettingError(f"{what} is {given!r}; expected names with commas between")
    return names


def _levels(given: str) -> tuple[int, ...]:
    from vidette.video.corruptions import NUM_LEVELS

    parts = [part.strip() for part in given.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= NUM_LEVELS for part in parts):
        raise SettingError(f"--levels is {given!r}; expected numbers from 1 to {NUM_LEVELS}, as in 1,3,5")
    return tuple(sorted({int(part) for part in parts}))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _percent(level: LevelScore) -> str:
    return f"{100 * level.accuracy:.0f}"


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.0%}"


def _two(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"


def _between(interval: Interval) -> str:
    return f" ({interval.low:.2f}-{interval.high:.2f})" if interval.defined else ""
