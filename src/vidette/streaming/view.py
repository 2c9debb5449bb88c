"""A live run in a terminal: label, bars, rate, lag, what was skipped; events and notes scroll by above."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vidette.streaming.drift import Signal
from vidette.streaming.records import Decided, Drifted, Note, Record, Score, Status

__all__ = ["TerminalView"]

_BARS = 5
_BAR_WIDTH = 30
_REFRESHES_A_SECOND = 8


class TerminalView:
    """Shows each source's latest score as bars; without a terminal, one line an event or note.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._latest: dict[str, Score] = {}
        self._signals: dict[str, dict[str, Signal]] = {}
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                console=console, get_renderable=self._picture, refresh_per_second=_REFRESHES_A_SECOND
            )
            self._live.start()

    def take(self, record: Record) -> None:
        """Show a record."""
        if isinstance(record, Score):
            self._latest[record.source] = record
        elif isinstance(record, Decided):
            event = record.event
            line = Text(f"{event.start_seconds:9.2f} to {event.stop_seconds:9.2f} s  ")
            line.append(event.label, style="bold")
            line.append(f"  {event.confidence:.1%}  ")
            line.append(record.source, style="dim")
            self._console.print(line, soft_wrap=True, highlight=False)
        elif isinstance(record, Drifted):
            self._keep(record)
            self._console.print(_signal_line(record), soft_wrap=True, highlight=False)
        else:
            self._console.print(_note_line(record), soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.stop()

    def _keep(self, record: Drifted) -> None:
        """Remember the signals that go on; the dictionary is replaced, since another thread draws."""
        signal, going_on = record.signal, dict(self._signals.get(record.source, {}))
        going_on.pop(signal.kind, None)
        if signal.stop_seconds is None:
            going_on[signal.kind] = signal
        self._signals[record.source] = going_on

    def _picture(self) -> RenderableType:
        scores = list(self._latest.values())
        return Group(*(_source_lines(score, self._signals.get(score.source, {})) for score in scores))


def _signal_line(record: Drifted) -> Text:
    signal = record.signal
    if signal.stop_seconds is None:
        return Text(
            f"{signal.kind} since {signal.start_seconds:.1f} s: {record.source}: {signal.text}", "yellow"
        )
    times = f"{signal.start_seconds:.1f} to {signal.stop_seconds:.1f} s"
    return Text(f"{signal.kind} is over, {times}: {record.source}", "dim")


def _note_line(note: Note) -> Text:
    source = f"{note.source}: " if note.source and not note.text.startswith(note.source) else ""
    return Text(f"{note.kind}: {source}{note.text}", style="dim" if note.kind == "returned" else "yellow")


def _source_lines(score: Score, signals: Mapping[str, Signal]) -> RenderableType:
    """Return one source's picture: its name and answer, bars of the best labels, how it fares, what drifts."""
    head = Text(f"{score.source}  ", style="dim")
    head.append(f"{score.label} {score.probability:.0%}", style="bold")
    head.append(f"  at {score.window.stop_seconds:.1f} s", style="dim")
    table = Table.grid(padding=(0, 1))
    for k in np.argsort(-score.smoothed, kind="stable")[:_BARS]:
        share = float(score.smoothed[k])
        bar = ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH)
        table.add_row(Text(score.classes[int(k)]), bar, Text(f"{share:.0%}"))
    drifting = [
        Text(f"doubtful: {signal.kind} since {signal.start_seconds:.0f} s", "bold yellow")
        for signal in signals.values()
    ]
    return Group(head, table, _status_line(score.status), *drifting)


def _status_line(status: Status) -> Text:
    line = Text(f"{status.fps:.1f} of {status.wanted_fps:.1f} fps, lag {1000 * status.lag_seconds:.0f} ms")
    line.append(f", step {1000 * status.step_seconds:.1f} ms, skipped {status.num_skipped}")
    for count, what in ((status.num_damaged, "damaged"), (status.num_returns, "reconnected")):
        if count:
            line.append(f", {what} {count}", style="yellow")
    return line
