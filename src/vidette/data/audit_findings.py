"""What an audit says: findings with their evidence, and what to do about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Example", "Finding", "Severity", "count_text", "listed", "share_interval"]

Severity = Literal["alarm", "warning", "note"]


@dataclass(frozen=True)
class Example:
    """Clips to look at side by side.

    Attributes:
        clips: Their positions among the audited clips.
        caption: What they show.
    """

    clips: tuple[int, ...]
    caption: str


@dataclass(frozen=True)
class Finding:
    """One thing that would make a score a lie, or training harder than it need be.

    Attributes:
        name: A fixed name, for programs.
        severity: ``"alarm"``: a score from these clips would be wrong; ``"warning"``: it may be;
            ``"note"``: worth knowing.
        title: What was found, in one sentence.
        evidence: The numbers, each with its n and where it can with an interval.
        advice: What to do.
        examples: Clips that show it.
    """

    name: str
    severity: Severity
    title: str
    evidence: tuple[str, ...]
    advice: str
    examples: tuple[Example, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def share_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, nan without cases.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    Example:
        >>> low, high = share_interval(8, 10)
        >>> f"{low:.2f} to {high:.2f}"
        '0.49 to 0.94'
    """
    if n == 0:
        return float("nan"), float("nan")
    z, share = 1.959964, count / n
    middle = share + z * z / (2 * n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def count_text(count: int, n: int, what: str) -> str:
    """Say a share with its n and interval: ``8 of 10 clips (80 %, 95 % interval 49 to 94 %)``."""
    low, high = share_interval(count, n)
    return (
        f"{count} of {n} {what} ({count / n:.0%}, 95 % interval {low:.0%} to {high:.0%})" if n else f"no {what}"
    )


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names for a sentence, the first few and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
