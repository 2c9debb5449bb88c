"""How far a classifier can be fooled on purpose: the least visible change that makes it answer wrongly.

FGSM: Goodfellow et al. 2015, "Explaining and harnessing adversarial examples". PGD: Madry et al. 2018,
"Towards deep learning models resistant to adversarial attacks". Both know the model and its weights. A strength
of 4 moves no pixel value by more than 4 of 255; the changed clip is rounded to whole pixel values, so it is a
picture that a file could hold, and is then answered on the ordinary path.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vidette.data.cache import ClipCache
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, SettingError, unknown_name
from vidette.evaluation.metrics import Interval, bootstrap_interval
from vidette.evaluation.robustness import load_middles
from vidette.video.clip import Clip
from vidette.video.transforms import pixels_tensor

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["ATTACKS", "STRENGTHS", "Attack", "AttackScore", "attack", "measure_attacks"]

Attack: TypeAlias = Literal["fgsm", "pgd"]
ATTACKS: tuple[Attack, ...] = ("fgsm", "pgd")
STRENGTHS = (1, 2, 4, 8)
"""Largest changes tried, in pixel values of 255."""

_PGD_STEPS = 10
_PGD_REACH = 2.5
"""All steps of PGD together are this many times as long as the largest change allowed, as Madry et al. take."""


@dataclass(frozen=True)
class AttackScore:
    """The answers to N clips under one attack of one strength; strength 0 is the clips as they are.

    Attributes:
        attack: ``"fgsm"``, ``"pgd"``, or ``"clean"``.
        strength: Largest change of a pixel value, of 255.
        n: Clips.
        accuracy: Of whole clips.
        accuracy_interval: 95 %, by bootstrap over groups.
        fooled: Share of the clips answered rightly as they are that are answered wrongly now; nan without any.
        confidence: Mean probability of the answers.
    """

    attack: str
    strength: int
    n: int
    accuracy: float
    accuracy_interval: Interval
    fooled: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; nan becomes None."""
        values = dataclasses.asdict(self)
        values["accuracy_interval"] = [self.accuracy_interval.low, self.accuracy_interval.high]
        values["accuracy_interval"] = [None if math.isnan(v) else v for v in values["accuracy_interval"]]
        return {name: None if value != value else value for name, value in values.items()}


def attack(
    classifier: Classifier,
    clip: Clip,
    label: int,
    *,
    kind: Attack,
    strength: int,
    generator: torch.Generator,
) -> Clip:
    """Change a clip so that its label gets less likely.

    Args:
        classifier: Its torch model gives the gradients, whatever runs its answers.
        clip: Cut by the classifier's spec; not changed.
        label: Index of the true class.
        kind: ``"fgsm"``: one step along the sign of the gradient; ``"pgd"``: 10 steps from a random start.
        strength: Largest change of a pixel value, 1 to 255.
        generator: Of PGD's random start, on the CPU.

    Returns:
        The clip with other pixels, each within ``strength`` of what it was, and from 0 to 255.

    Raises:
        SettingError: The kind is unknown or the strength out of range.
    """
    if kind not in ATTACKS:
        raise SettingError(unknown_name("attack", kind, ATTACKS))
    if len(classifier.classes) < 2:
        raise SettingError("an attack makes another class likelier; this classifier has one class only")
    if not 1 <= strength <= 255:
        raise SettingError(f"strength of an attack is {strength}; expected 1 to 255, in pixel values of 255")
    start = pixels_tensor(clip.pixels[None], classifier.spec).to(classifier.device)
    unit = _pixel_unit(classifier)
    low, high = _pixel_range(classifier)
    low, high = torch.maximum(start - strength * unit, low), torch.minimum(start + strength * unit, high)
    target = torch.tensor([label], device=classifier.device)
    changed = start
    if kind == "fgsm":
        changed = start + strength * unit * _uphill(classifier, start, target)
    else:
        noise = torch.rand(start.shape, generator=generator).to(classifier.device)
        changed = start + (2 * noise - 1) * strength * unit
        step = _PGD_REACH * strength / _PGD_STEPS
        for _ in range(_PGD_STEPS):
            changed = changed.clamp(low, high)
            changed = changed + step * unit * _uphill(classifier, changed, target)
    return dataclasses.replace(clip, pixels=_as_pixels(classifier, changed.clamp(low, high), like=clip.pixels))


def measure_attacks(
    classifier: Classifier,
    clips: Sequence[LabelledClip],
    *,
    cache: ClipCache,
    kinds: Sequence[str],
    strengths: Sequence[int] = STRENGTHS,
    seed: int = 0,
    on_damage: Literal["raise", "skip"] = "raise",
    on_foreseen: Callable[[float], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[AttackScore, ...]:
    """Answer clips as they are and attacked: one score for the first, then one a kind and strength.

    Args:
        classifier: What to fool.
        clips: Labelled clips; of those that are cut into windows, the middle one is taken.
        cache: Where decoded clips are.
        kinds: Some of :data:`ATTACKS`.
        strengths: Largest changes of a pixel value, of 255.
        seed: Of PGD's random starts.
        on_damage: ``"skip"`` leaves out clips whose file is damaged.
        on_foreseen: Told once, after a trial on the first clip, about how many seconds all will take.
        on_progress: Called with (attacks done, all of them).

    Raises:
        SettingError: A kind is unknown.
        InputMismatchError: No clip could be read, or a label is not one of the classifier's classes.
    """
    for kind in kinds:
        if kind not in ATTACKS:
            raise SettingError(unknown_name("attack", kind, ATTACKS))
    wanted = set(kinds)
    plans: list[tuple[Attack, int]] = [
        (kind, size) for kind in ATTACKS if {kind} & wanted for size in strengths
    ]
    position = {name: k for k, name in enumerate(classifier.classes)}
    logits: list[np.ndarray] = []
    read: list[LabelledClip] = []
    skipped: list[str] = []
    for number, labelled, clip in load_middles(
        clips, classifier.spec, cache=cache, on_damage=on_damage, skipped=skipped
    ):
        if labelled.label not in position:
            raise InputMismatchError(f"{labelled.name}: {unknown_name('label', labelled.label, position)}")
        began = time.perf_counter()
        attacked = [clip]
        for done, (kind, strength) in enumerate(plans, start=1):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            attacked.append(
                attack(
                    classifier,
                    clip,
                    position[labelled.label],
                    kind=kind,
                    strength=strength,
                    generator=generator,
                )
            )
            if on_progress is not None:
                on_progress(number * len(plans) + done, len(clips) * len(plans))
        logits.append(classifier.logits(attacked))
        if on_foreseen is not None and not read:
            on_foreseen((time.perf_counter() - began) * len(clips))
        read.append(labelled)
    if not read:
        raise InputMismatchError(f"none of the {len(clips)} clips could be read; first: {skipped[0]}")
    labels = np.array([position[labelled.label] for labelled in read])
    groups = [labelled.group or labelled.path.as_posix() for labelled in read]
    return _scores(classifier, np.stack(logits, axis=1), labels, groups, plans)


def _scores(
    classifier: Classifier,
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    plans: Sequence[tuple[Attack, int]],
) -> tuple[AttackScore, ...]:
    """Score logits ``(1 + plans, N, K)``."""
    right = logits.argmax(axis=-1) == labels
    confidence = classifier.probabilities(logits).max(axis=-1).mean(axis=-1)
    held = right[0].sum()
    return tuple(
        AttackScore(
            attack=kind,
            strength=strength,
            n=len(labels),
            accuracy=float(right[row].mean()),
            accuracy_interval=bootstrap_interval(right[row].astype(np.float64), groups),
            fooled=float((right[0] & ~right[row]).sum() / held) if held else float("nan"),
            confidence=float(confidence[row]),
        )
        for row, (kind, strength) in enumerate([("clean", 0), *plans])
    )


def _uphill(classifier: Classifier, clips: Tensor, target: Tensor) -> Tensor:
    """Return the sign of the gradient of the cross entropy at the input.

    The loss used is ``logsumexp(other logits) - label's logit``: its gradient is that of the cross entropy
    divided by the probability of the other classes, so it has the same sign and does not vanish where the
    model is sure.
    """
    at = clips.detach().requires_grad_(True)
    # cuDNN has no way back through a recurrent layer that is not in training mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        logits = classifier.model(at).float()
        others = logits.scatter(1, target[:, None], float("-inf")).logsumexp(dim=1)
        (gradient,) = torch.autograd.grad((others - logits[0, target]).sum(), at)
    return gradient.sign()


def _pixel_unit(classifier: Classifier) -> Tensor:
    """Return what one pixel value is in the model's input, ``(C, 1, 1)``."""
    std = torch.tensor(classifier.spec.std, device=classifier.device)
    return (1 / (255 * std)).view(3, 1, 1)


def _pixel_range(classifier: Classifier) -> tuple[Tensor, Tensor]:
    """Return what black and white are in the model's input, ``(C, 1, 1)`` each."""
    mean = torch.tensor(classifier.spec.mean, device=classifier.device)
    std = torch.tensor(classifier.spec.std, device=classifier.device)
    return (-mean / std).view(3, 1, 1), ((1 - mean) / std).view(3, 1, 1)


def _as_pixels(classifier: Classifier, clips: Tensor, *, like: np.ndarray) -> np.ndarray:
    """Turn the model's input ``(1, T, C, H, W)`` back into uint8 ``(T, H, W, 3)``, RGB."""
    low, _ = _pixel_range(classifier)
    values = ((clips[0] - low) / _pixel_unit(classifier)).round().clamp(0, 255).to(torch.uint8)
    planes = values.flip(1) if classifier.spec.channel_order == "BGR" else values
    pixels = planes.permute(0, 2, 3, 1).cpu().numpy()
    assert pixels.shape == like.shape
    return np.ascontiguousarray(pixels)
