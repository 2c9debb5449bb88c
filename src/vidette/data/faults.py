"""Everything wrong with a source, told in one message."""

from __future__ import annotations

from pathlib import Path

from vidette.data.folder import some
from vidette.errors import ManifestError

__all__ = ["Faults"]

_LISTED = 10


class Faults:
    """Every fault of a source, by kind, in the order met."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, item: str) -> None:
        """Keep one fault."""
        self._found.setdefault(kind, []).append(item)

    def raise_any(self, source: Path) -> None:
        """Tell all faults at once.

        Raises:
            ManifestError: There is one.
        """
        if not self._found:
            return
        lines = [f"  {kind} ({len(items)}): {some(items, _LISTED)}" for kind, items in self._found.items()]
        count = sum(len(items) for items in self._found.values())
        raise ManifestError(f"{source}: {count} fault{'s' if count > 1 else ''}\n" + "\n".join(lines))
