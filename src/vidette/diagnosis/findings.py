"""What a diagnosis says: findings with evidence, ordered by how much of the wrong behaviour each explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["SEVERITIES", "Diagnosis", "Family", "Finding", "Picture", "Severity"]

Family = Literal["input", "time", "model", "data"]
Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that shows a finding.

    Attributes:
        caption: What is seen, in one sentence.
        image: The bytes of a PNG.
    """

    caption: str
    image: bytes

    def __repr__(self) -> str:
        return f"Picture({self.caption!r}, {len(self.image)} bytes)"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One cause of wrong answers.

    Attributes:
        name: A fixed name, for programs.
        family: Where the cause lies.
        severity: ``"fault"``: answers are wrong because of it; ``"warning"``: they may be; ``"note"``: worth
            knowing, and no reason to call the classifier sick.
        title: What was found, in one sentence.
        evidence: The numbers behind it, in sentences.
        numbers: The same numbers, for programs.
        cause: How this usually comes about.
        repair: What to do.
        confidence: How sure the finding is, 0 to 1.
        explains: The share of the wrong behaviour that goes when the cause is undone, 0 to 1; measured where
            undoing it could be tried.
        symptom_of: Names of findings that this one follows from.
        pictures: What to look at.
    """

    name: str
    family: Family
    severity: Severity
    title: str
    evidence: tuple[str, ...]
    cause: str
    repair: str
    confidence: float
    explains: float
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    symptom_of: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, the pictures by their captions."""
        return {
            "name": self.name,
            "family": self.family,
            "severity": self.severity,
            "title": self.title,
            "evidence": list(self.evidence),
            "numbers": {name: _plain(value) for name, value in self.numbers.items()},
            "cause": self.cause,
            "repair": self.repair,
            "confidence": round(self.confidence, 3),
            "explains": round(self.explains, 3),
            "symptom_of": list(self.symptom_of),
            "pictures": [picture.caption for picture in self.pictures],
        }


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a diagnosis came to.

    Attributes:
        subject: What was diagnosed.
        source: On which clips.
        findings: Most explaining first.
        facts: Name and value of what was looked at, for people.
        notes: What could not be looked at, and why.
        seconds: How long it took.
    """

    subject: str
    source: str
    findings: tuple[Finding, ...]
    facts: Mapping[str, str]
    notes: tuple[str, ...]
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "subject": self.subject,
            "source": self.source,
            "healthy": self.healthy,
            "findings": [finding.to_dict() for finding in self.findings],
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }


def _plain(value: float) -> float | None:
    """Return a number for JSON; None where it is undefined."""
    return None if value != value or abs(value) == float("inf") else round(float(value), 6)
