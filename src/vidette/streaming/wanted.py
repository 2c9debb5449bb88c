"""The outputs that a person asked for, opened together: files, addresses, a window, and the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from vidette.errors import SettingError
from vidette.streaming.base import Source
from vidette.streaming.buffer import BufferPolicy
from vidette.streaming.live import default_policy
from vidette.streaming.outputs import JsonLines, open_outputs
from vidette.streaming.outputs_network import Say, is_address, open_network_output
from vidette.streaming.records import CountingOutput, Output
from vidette.streaming.view import TerminalView

__all__ = ["WantedOutputs"]


@dataclass(frozen=True)
class WantedOutputs:
    """What to write and where to.

    Attributes:
        targets: Files by their ending, and addresses to send events to.
        overwrite: Replace files that are there.
        window: Show pictures on this machine's screen.
        as_json: Print JSON lines on standard output instead of showing the answers to a person.
    """

    targets: tuple[str, ...] = ()
    overwrite: bool = False
    window: bool = False
    as_json: bool = False

    @property
    def shows_pictures(self) -> bool:
        """Whether sources have to give their pictures at their own size."""
        return self.window or any(Path(file).suffix.lower() == ".mp4" for file in self._files)

    def buffer_policy(self, sources: Sequence[Source]) -> BufferPolicy:
        """Return the default policy; a file whose pictures are held is not read far ahead."""
        policy = default_policy(sources)
        return "block" if policy == "all" and self.shows_pictures else policy

    def open(self, *, num_sources: int, console: Console, say: Say) -> list[Output]:
        """Open all of them, or none.

        Args:
            num_sources: How many sources they are for.
            console: Where the terminal view goes.
            say: Told what goes wrong on the network.

        Raises:
            SettingError: A target is unknown or named twice, there is no screen, or an extra is not installed.
            OutputExistsError: A file is there and ``overwrite`` is false.
            StorageError: A file cannot be written.
        """
        if len(set(self._addresses)) < len(self._addresses):
            raise SettingError("an output is named twice; give each once")
        with contextlib.ExitStack() as opened:
            outputs: list[Output] = []
            for address in self._addresses:
                outputs.append(open_network_output(address, say=say))
                opened.callback(outputs[-1].close)
            if self.window:
                from vidette.streaming.window import ScreenWindow

                outputs.append(ScreenWindow())
                opened.callback(outputs[-1].close)
            outputs += open_outputs(self._files, num_sources=num_sources, overwrite=self.overwrite)
            opened.pop_all()
        outputs.append(JsonLines(sys.stdout) if self.as_json else TerminalView(console))
        return outputs

    def discard(self) -> None:
        """Remove the files, after a run that gave nothing to keep."""
        for file in self._files:
            Path(file).unlink(missing_ok=True)

    def lines(self, outputs: Sequence[Output]) -> list[str]:
        """Say what was written, sent and lost."""
        told = [each.summary() for each in outputs if isinstance(each, CountingOutput)]
        return [f"written: {file}" for file in self._files] + [line for line in told if line]

    @property
    def _files(self) -> tuple[str, ...]:
        return tuple(target for target in self.targets if not is_address(target))

    @property
    def _addresses(self) -> tuple[str, ...]:
        return tuple(target for target in self.targets if is_address(target))
