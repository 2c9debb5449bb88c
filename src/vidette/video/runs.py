"""Which packets are decoded for the frames that are wanted: runs from a key packet to the last such frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vidette.video.packets import PacketScan

__all__ = ["Run", "runs_of"]

_JUMP_PACKETS = 24
"""Skip to a later key frame only over at least this many packets: starting afresh costs a few."""
_SPARE_PACKETS = 1
"""Fed after the last wanted one: the second field of an interlaced picture may be a packet of its own."""


@dataclass(frozen=True)
class Run:
    """What is decoded from one key packet on.

    Attributes:
        position: That of the key packet.
        end: The position after the last packet.
        wanted: Presentation times of the frames that are wanted, ascending, at least one.
        goes_on: Another run begins where this one would have gone on: all of its packets are decoded, so that
            both together meet the same damage as one long run.
    """

    position: int
    end: int
    wanted: tuple[int, ...]
    goes_on: bool

    @property
    def num_packets(self) -> int:
        """How many packets are decoded."""
        return self.end - self.position


def runs_of(scan: PacketScan, wanted: Sequence[int], *, num_pieces: int = 1) -> list[Run]:
    """Group frames into runs.

    Args:
        scan: What the packets told; seekable.
        wanted: Presentation times of frames, ascending.
        num_pieces: Above 1, long runs are cut where a key packet lets another go on, into about so many equal
            ones together.
    """
    runs = _cut(scan, wanted, piece=math.inf)
    if num_pieces == 1:
        return runs
    num_packets = sum(run.num_packets for run in runs)
    return _cut(scan, wanted, piece=max(_JUMP_PACKETS, num_packets / num_pieces))


def _cut(scan: PacketScan, wanted: Sequence[int], *, piece: float) -> list[Run]:
    """Group frames into runs; one of at least ``piece`` packets ends where another can go on."""
    runs: list[Run] = []
    group: list[int] = []
    position = 0
    for pts in wanted:
        start = scan.start_of(pts)
        near = bool(group) and start - scan.position_of(group[-1]) < _JUMP_PACKETS
        if group and not (near and start - position < piece):
            runs.append(_run(scan, position, group, following=start if near else None))
            group = []
        position = position if group else start
        group.append(pts)
    return [*runs, _run(scan, position, group)] if group else runs


def _run(scan: PacketScan, position: int, group: list[int], *, following: int | None = None) -> Run:
    last = max(map(scan.position_of, group))
    end = max(last + 1 + _SPARE_PACKETS, following or 0)
    return Run(position, end, tuple(group), goes_on=following is not None)
