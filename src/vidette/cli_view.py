"""What the command line shows: progress on the error stream, results on standard output."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from vidette.evaluation.consistency import Consistency
from vidette.evaluation.metrics import Metrics
from vidette.prediction.files import FilePrediction
from vidette.training.loop import EpochRecord

__all__ = [
    "RichListener",
    "consistency_table",
    "listening",
    "metrics_table",
    "models_table",
    "prediction_lines",
    "progress_bar",
]

_STAGES = {"clips": "decoding clips", "features": "looking at frames", "test": "testing"}


class _Rate(ProgressColumn):
    """Clips a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=not console.is_terminal,
    )


class RichListener:
    """Draws a run's progress: a bar a stage, a line an epoch."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self.console = console
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Show one line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move a stage's bar; a stage that begins again starts a new one."""
        if stage not in self.tasks:
            task = self.bars.add_task(_STAGES.get(stage, stage), total=total)
            self.tasks[stage] = task
        self.bars.update(self.tasks[stage], completed=done, total=total)
        if done == total:
            self.bars.refresh()
            del self.tasks[stage]

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Show an epoch's numbers."""
        self.say(
            f"epoch {record.epoch + 1:3d}/{total}  loss {record.train_loss:.3f}"
            f"  accuracy {record.train_accuracy:6.1%}   validation: loss {record.validation_loss:.3f}"
            f"  accuracy {record.validation_accuracy:6.1%}"
            f"  ({record.seconds:.1f} s)"
        )


@contextmanager
def listening(console: Console) -> Generator[RichListener]:
    """Show progress while the block runs."""
    with _bars(console) as bars:
        yield RichListener(console, bars)


@contextmanager
def progress_bar(console: Console, title: str) -> Generator[Callable[[int, int], None]]:
    """Show one bar; yields ``on_progress(done, total)``."""
    with _bars(console) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _share(value: float) -> str:
    return "undefined" if value != value else f"{value:.1%}"


def metrics_table(rows: list[tuple[str, Metrics]]) -> Table:
    """Return scores side by side, one row each, with n and interval."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for name in ("accuracy (95 %)", "balanced", "AUC (95 %)", "ECE", "clips", "groups"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, m in rows:
        table.add_row(
            name,
            _share(m.accuracy) + _range(100 * m.accuracy_interval.low, 100 * m.accuracy_interval.high, 0),
            _share(m.balanced_accuracy),
            (f"{m.auc:.2f}" if m.auc == m.auc else "undefined")
            + _range(m.auc_interval.low, m.auc_interval.high, 2),
            f"{m.ece:.2f}",
            str(m.n),
            str(m.num_groups),
        )
    return table


def _range(low: float, high: float, digits: int) -> str:
    return f" ({low:.{digits}f}-{high:.{digits}f})" if low == low else ""


def consistency_table(consistency: Consistency) -> Table:
    """Return whole clips beside single and shuffled frames."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "whole clip",
        "one frame",
        "frames' vote",
        "shuffled",
        "order gap",
        "clips",
    ):
        table.add_column(name, justify="right")
    table.add_row(
        _share(consistency.clip_accuracy),
        _share(consistency.frame_accuracy),
        _share(consistency.frame_vote_accuracy),
        _share(consistency.shuffled_accuracy),
        f"{consistency.order_gap:+.1%}" if consistency.order_gap == consistency.order_gap else "undefined",
        str(consistency.n),
    )
    return table


def prediction_lines(answer: FilePrediction) -> list[Text]:
    """Return a file's answer, its next best labels, and its timeline where it has more than one window."""
    head = Text(f"{answer.path}  ")
    head.append(f"{answer.label}  {answer.probability:.1%}", style="bold")
    others = "   ".join(f"{label} {probability:.1%}" for label, probability in answer.top[1:])
    lines = [head, Text(f"  then {others}", style="dim")] if others else [head]
    rows = answer.rows()
    if len(rows) > 1:
        lines += [
            Text(f"  {row.start_seconds:8.2f} to {row.end_seconds:8.2f} s  {row.label}  {row.probability:.1%}")
            for row in rows
        ]
    return lines


def models_table(rows: list[dict[str, Any]]) -> Table:
    """Return the models side by side, their licences below."""
    licences = {row["licence"]: [r["name"] for r in rows if r["licence"] == row["licence"]] for row in rows}
    caption = "\n".join(
        [
            "Size and work at the defaults, 10 classes, a clip of 16 frames of 112x112; live: frame by frame.",
            *(f"{licence}: {', '.join(names)}" for licence, names in licences.items()),
        ]
    )
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    for name in ("name", "params", "GFLOPs", "order", "live", "weights", "what"):
        right = name in ("params", "GFLOPs")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "what")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['gflops_per_clip']:.1f}",
            "yes" if row["uses_order"] else "no",
            "yes" if row["streaming"] else "no",
            row["weights_offline"],
            row["what"],
        )
    return table
