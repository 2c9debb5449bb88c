"""One diagnosis from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from vidette.diagnosis.case import Case, make_case
from vidette.diagnosis.data_checks import (
    check_classes,
    check_drift,
    check_leak,
    check_shift,
    check_shortcut,
    check_unexplained,
)
from vidette.diagnosis.findings import Diagnosis, Finding, Picture
from vidette.diagnosis.input_checks import check_alternatives, check_reference, try_alternatives
from vidette.diagnosis.material import Material
from vidette.diagnosis.model_checks import check_class_names, check_confidence, check_mode, check_scores
from vidette.diagnosis.picture_checks import check_pictures
from vidette.diagnosis.ranking import ranked
from vidette.diagnosis.subject import Subject
from vidette.diagnosis.time_checks import check_carried_over, check_order, check_span
from vidette.diagnosis.weight_checks import check_weights
from vidette.evaluation.reference import ReferenceStatistics

__all__ = ["diagnose"]

_Check = Callable[[Case], "list[Finding]"]
_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("mode", check_mode),
    ("weights", check_weights),
    ("memory", check_carried_over),
    ("pictures", check_pictures),
    ("alternatives", check_alternatives),
    ("values of the reference", check_reference),
    ("span", check_span),
    ("order", check_order),
    ("scores", check_scores),
    ("class names", check_class_names),
    ("confidence", check_confidence),
    ("classes", check_classes),
    ("leak", check_leak),
    ("shortcut", check_shortcut),
    ("drift", check_drift),
)


def diagnose(
    subject: Subject,
    material: Material,
    *,
    reference: Material | None = None,
    pictures: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Say why a network is wrong on clips, or that it is healthy.

    Args:
        subject: The network and its declared input.
        material: The clips that it fails on; with labels more can be found.
        reference: Clips that it was trained on, or is right on.
        pictures: Draw what shows each finding.
        on_progress: Called with steps done and steps in all.

    Raises:
        InputMismatchError: The network cannot answer the clips, or its answers are no class scores.
    """
    begun = time.perf_counter()
    state = torch.get_rng_state()
    try:
        case = make_case(subject, material, reference=reference, trained=_trained(subject))
        findings = ranked(_find(case, on_progress))
        if pictures:
            findings = tuple(replace(found, pictures=_drawn(case, found)) for found in findings)
    finally:
        torch.set_rng_state(state)
    return Diagnosis(
        subject=subject.name,
        source=material.name,
        findings=findings,
        facts=_facts(case),
        notes=tuple(dict.fromkeys((*case.notes, *material.unreadable))),
        seconds=time.perf_counter() - begun,
    )


def _drawn(case: Case, finding: Finding) -> tuple[Picture, ...]:
    from vidette.diagnosis.drawing import illustrated

    return illustrated(case, finding)


def _trained(subject: Subject) -> ReferenceStatistics | None:
    values = subject.statistics.get("reference")
    return ReferenceStatistics.from_dict(values) if isinstance(values, Mapping) else None


def _find(case: Case, on_progress: Callable[[int, int], None] | None) -> list[Finding]:
    total = len(_CHECKS) + 1
    found: list[Finding] = []
    for done, (name, check) in enumerate(_CHECKS):
        if name == "pictures":
            try_alternatives(case)
        found += check(case)
        if on_progress:
            on_progress(done + 1, total)
    serious = any(finding.severity != "note" for finding in found)
    found += check_shift(case, explained=serious)
    found += check_unexplained(case, explained=any(finding.severity != "note" for finding in found))
    if on_progress:
        on_progress(total, total)
    return found


def _facts(case: Case) -> dict[str, str]:
    base, n = case.base, len(case.x)
    facts = {
        "declared input": repr(case.subject.spec),
        "clips looked at": f"{n}" + (", labelled" if case.labels is not None else ", without labels"),
    }
    if base.accuracy == base.accuracy:
        facts["right answers"] = f"{base.accuracy:.0%} of {len(base.right)}"
        facts["right answers expected"] = f"{case.expected_accuracy:.0%}"
    if case.reference_base is not None and case.reference is not None:
        accuracy = case.reference_base.accuracy
        right = f", {accuracy:.0%} right" if accuracy == accuracy else ""
        facts["reference"] = f"{len(case.reference.clips)} clips{right}"
    if base.distance == base.distance:
        facts["activations"] = f"{base.distance:.2f} from training (0 is as in training)"
    else:
        facts["activations"] = (
            "nothing of training to compare with: no batch normalisation, no saved statistics"
        )
    facts["alternatives tried"] = str(len(case.tried))
    return facts
