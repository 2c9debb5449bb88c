"""What became of a set of weights."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WeightReport"]


@dataclass(frozen=True)
class WeightReport:
    """What became of a set of weights.

    Attributes:
        source: Where they are from, for people.
        loaded: How many tensors were taken.
        missing: Names in the model that got none and keep their random start.
        unexpected: Names in the source that the model does not have.
        mismatched: Names in both whose shapes differ; the model's keep their random start.
    """

    source: str
    loaded: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return the report as lines for people, every name that did not fit among them."""
        if not self.loaded:
            return (f"starts from {self.source}",)
        faults = {
            "keeps its random start": self.missing,
            "not in the model": self.unexpected,
            "of another shape": self.mismatched,
        }
        named = (f"  {what}: {', '.join(names)}" for what, names in faults.items() if names)
        return (f"weights from {self.source}: {self.loaded} tensors", *named)
