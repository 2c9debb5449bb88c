"""What is wrong along time: span of a clip, order of its frames, and what is carried from clip to clip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vidette.diagnosis.alternatives import smoothest_order
from vidette.diagnosis.case import Case
from vidette.diagnosis.findings import Finding
from vidette.diagnosis.input_checks import convincing, improvement
from vidette.diagnosis.wording import new_finding

__all__ = ["check_carried_over", "check_order", "check_span"]

_SPAN_RATIO = 1.5
_SHUFFLED_RATIO = 1.25
_LEAST_STEP = 0.5
_SAME = 1e-3


def check_span(case: Case) -> list[Finding]:
    """Tell clips that span another time than those of training."""
    spec = case.subject.spec
    if spec.num_frames < 2 or case.material.stills:
        return []
    known = spec.trained_spans
    spans = np.array([clip.span_seconds for clip in case.material.clips])
    best = case.best(["span"])
    if known is not None and known.median_seconds > 0:
        now = float(np.median(spans))
        inside = np.mean([known.holds(span) for span in spans])
        ratio = now / known.median_seconds
        far = max(ratio, 1 / ratio) if ratio > 0 else float("inf")
        if far < _SPAN_RATIO or inside > 0.5:
            return []
        lines = [
            f"A clip spans {now:.2f} s here, {known.median_seconds:.2f} s in training "
            f"({known.shortest_seconds:.2f} to {known.longest_seconds:.2f} s); {inside:.0%} of "
            f"{len(spans)} clips lie in that range."
        ]
        tried = best is not None and convincing(case, best)
        if best is not None and tried:
            lines += improvement(case, best)
        return [
            new_finding(
                "span",
                *lines,
                confidence=0.9 if tried else 0.75,
                explains=max(case.explained(best.seen) if best and tried else 0.0, min(1.0, 0.3 * far)),
                severity="fault"
                if case.base.accuracy != case.base.accuracy or case.wrong_share > 0.05
                else "warning",
                numbers={"span_seconds": now, "trained_span_seconds": known.median_seconds, "ratio": ratio},
            )
        ]
    return []


def check_order(case: Case) -> list[Finding]:
    """Tell frames out of order, and a network that does not care."""
    if case.subject.spec.num_frames < 2 or case.material.stills:
        return []
    return [*_shuffled(case), *_order_not_used(case)]


def _shuffled(case: Case) -> list[Finding]:
    results = [smoothest_order(clip.pixels) for clip in case.material.clips if len(clip.pixels) > 3]
    moving = [(given, cost) for _, given, cost in results if given > _LEAST_STEP]
    if len(moving) < max(2, 0.3 * len(results)):
        return []
    ratio = float(np.median([given / max(cost, 1e-6) for given, cost in moving]))
    backwards = np.mean([bool((np.diff(clip.seconds) < -1e-6).any()) for clip in case.material.clips])
    if ratio < _SHUFFLED_RATIO and backwards < 0.5:
        return []
    n = len(moving)
    return [
        new_finding(
            "frames_shuffled",
            f"Neighbouring frames differ {ratio:.2f} times as much as in the smoothest order of the same "
            "frames "
            f"(median of {n} clips that move).",
            confidence=float(np.clip(0.6 + 0.5 * (ratio - _SHUFFLED_RATIO), 0, 0.97)),
            explains=0.9,
            numbers={"ratio": ratio, "share_with_falling_times": float(backwards)},
        )
    ]


def _order_not_used(case: Case) -> list[Finding]:
    """Compare the answers with those to reversed, shuffled and frozen frames."""
    x = case.x[: case.affordable(min(16, len(case.x)), share=0.03)]
    if float((x[:, 1:] - x[:, :-1]).abs().mean()) < 1e-6:
        return []
    base = case.subject.logits(x)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(x.shape[1], generator=generator)
    spread = float(base.std(axis=0).mean()) + 1e-9
    changes = {
        "reversed": float(np.abs(case.subject.logits(x.flip(1)) - base).mean()) / spread,
        "shuffled": float(np.abs(case.subject.logits(x[:, order]) - base).mean()) / spread,
    }
    if max(changes.values()) > _SAME:
        return []
    by_design = case.subject.uses_order is False
    lines = [
        "Reversed and shuffled frames change the scores by "
        f"{changes['reversed']:.1e} and {changes['shuffled']:.1e} of their spread over clips ({len(x)} clips)."
    ]
    if by_design:
        lines.append("Its architecture averages over frames, so this is by design.")
    else:
        frozen = x[:, :1].expand_as(x).contiguous()
        lines.append(
            "The first frame alone, standing still, changes them by "
            f"{float(np.abs(case.subject.logits(frozen) - base).mean()) / spread:.2f}."
        )
    wrong = case.wrong_share if case.base.accuracy == case.base.accuracy else 0.0
    return [
        new_finding(
            "order_not_used",
            *lines,
            confidence=0.95,
            explains=0.2 if by_design else 0.9,
            severity="note" if by_design else ("fault" if wrong > 0.1 else "warning"),
            numbers=changes,
        )
    ]


def check_carried_over(case: Case) -> list[Finding]:
    """Tell a network whose answer to a clip depends on the clips before it or beside it.

    Every answer is asked for with the same random numbers, so that dropout does not look like a memory.
    """
    if len(case.x) < 3:
        return []
    first = case.x[:1]
    others = case.x[1 : min(5, len(case.x))]
    ask = _asker(case)
    spread = float(np.ptp(case.base.logits, axis=0).mean()) + 1e-9
    # Twice with other clips in between: a memory that is not reset gives another answer.
    alone = ask(first)
    ask(others[:1])
    after_one = ask(first)
    for i in range(len(others)):
        ask(others[i : i + 1])
    after_many = ask(first)
    carried = max(_apart(alone, after_one), _apart(after_one, after_many)) / spread
    changes_itself = _buffers_change(case, others[:1])
    found: list[Finding] = []
    if carried > _DIFFERENT and not changes_itself:
        found.append(
            new_finding(
                "state_carried_over",
                f"The same clip asked again after other clips changes its scores by {carried:.2f} of their "
                "range.",
                confidence=0.95,
                explains=min(1.0, 0.6 + carried),
                numbers={"change": carried},
            )
        )
        return found
    found += _batch_mates(ask, first, others, spread)
    return found


_DIFFERENT = 0.005


def _asker(case: Case) -> Callable[[Tensor], np.ndarray]:
    def ask(x: Tensor) -> np.ndarray:
        torch.manual_seed(1)
        return case.subject.logits(x, batch_size=len(x))

    return ask


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _buffers_change(case: Case, x: Tensor) -> bool:
    """Whether answering changes the network's own statistics, as batch normalisation in training mode does."""
    module = case.subject.module
    if module is None:
        return False
    names = [name for name, _ in module.named_buffers() if name.endswith(("running_mean", "running_var"))]
    before = {name: module.get_buffer(name).clone() for name in names}
    case.subject.logits(x)
    return any(not torch.equal(before[name], module.get_buffer(name)) for name in names)


def _batch_mates(
    ask: Callable[[Tensor], np.ndarray], first: Tensor, others: Tensor, spread: float
) -> list[Finding]:
    """Put the clip last in batches of other clips, and of the same in another order."""
    if len(others) < 4:
        return []
    three, turned = others[:3], others[[2, 0, 1]]
    a = ask(torch.cat([three, first]))[-1]
    b = ask(torch.cat([turned, first]))[-1]
    c = ask(torch.cat([others[1:4], first]))[-1]
    by_order, by_mates = _apart(a, b) / spread, _apart(a, c) / spread
    if by_order > _DIFFERENT and by_order > 0.02 * by_mates:
        return [
            new_finding(
                "batch_recurrence",
                f"The order of the other clips in its batch changes a clip's scores by {by_order:.2f} of "
                "their range.",
                confidence=0.95,
                explains=min(1.0, 0.6 + by_order),
                numbers={"by_order": by_order, "by_mates": by_mates},
            )
        ]
    if by_mates > _DIFFERENT:
        return [
            new_finding(
                "training_mode",
                f"Other clips in its batch change a clip's scores by {by_mates:.2f} of their range, whatever "
                "their "
                "order: batch statistics are at work.",
                confidence=0.95,
                explains=min(1.0, 0.7 + by_mates),
                numbers={"by_mates": by_mates},
            )
        ]
    return []
