"""What is wrong with the pictures themselves: nothing shown, standing still, light, focus and noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vidette.diagnosis.case import Case, Tried
from vidette.diagnosis.findings import Finding
from vidette.diagnosis.input_checks import GAIN, LIGHT, TOWARDS, convincing, harms, improvement
from vidette.diagnosis.looks import ClipLooks, known_levels, look_at
from vidette.diagnosis.wording import new_finding
from vidette.evaluation.levels import Level

__all__ = ["check_pictures", "light_shifts"]


def check_pictures(case: Case) -> list[Finding]:
    """Tell pictures that stand still, are black or covered, and light, focus and noise unlike training's."""
    looks = look_at(case.material.clips)
    reference = look_at(case.reference.clips) if case.reference and not case.reference.stills else None
    levels = known_levels(case.trained, reference)
    empty = _check_nothing_shown(looks)
    still = _check_still(case, looks)
    if empty and empty[0].name == "covered":
        return [*empty, *still]
    light = _check_light(case, looks, levels)
    only_dark = any(finding.name == "dark" and "gain" in finding.numbers for finding in light)
    return [*empty, *still] if empty and not only_dark else [*still, *light]


def _check_nothing_shown(looks: ClipLooks) -> list[Finding]:
    black = (looks.brightness < 10) & (looks.brightest < 40)
    covered = (looks.spread < 1 + 0.02 * looks.brightness) & ~black
    for name, where in (("black", black), ("covered", covered)):
        share = float(where.mean())
        if share >= 0.3:
            n = len(where)
            return [
                new_finding(
                    name,
                    f"{int(where.sum())} of {n} clips: mean brightness {looks.brightness[where].mean():.0f} "
                    "of 255, "
                    f"differences over the picture {looks.spread[where].mean():.1f}.",
                    confidence=0.97,
                    explains=share,
                    numbers={"share": share},
                )
            ]
    return []


def _check_still(case: Case, looks: ClipLooks) -> list[Finding]:
    num_frames = case.subject.spec.num_frames
    if num_frames < 2 or case.material.stills:
        return []
    still = looks.distinct <= 1
    share = float(still.mean())
    if share >= 0.5:
        return [
            new_finding(
                "frames_identical",
                f"{int(still.sum())} of {len(still)} clips hold {num_frames} times the same picture.",
                confidence=0.95,
                explains=share,
                numbers={"share": share},
            )
        ]
    distinct = float(np.median(looks.distinct))
    if num_frames >= 4 and distinct <= 0.67 * num_frames:
        return [
            new_finding(
                "few_distinct_frames",
                f"Of {num_frames} frames of a clip {distinct:g} differ from the one before (median of "
                f"{len(still)} clips).",
                confidence=0.85,
                explains=1 - distinct / num_frames,
                numbers={"distinct": distinct},
            )
        ]
    return []


def _check_light(case: Case, looks: ClipLooks, levels: Mapping[str, Level]) -> list[Finding]:
    """Tell light, contrast, focus and noise out of the range of training; plain ones where it is not known."""
    shifts = case.shifts = _without_doubles(
        case, looks, levels, light_shifts(looks, levels, many=not case.material.in_time)
    )
    found: list[Finding] = []
    for name in LIGHT:
        best, far = case.best([name]), shifts.get(name, 0.0)
        helps = best is not None and convincing(case, best, least_gain=0.5 * GAIN if far > 1 else GAIN)
        likely = far > TOWARDS if levels else _plausible(name, looks)
        if far > 1 or (helps and likely):
            found.append(
                _light_finding(case, name, far, best if helps else None, _light_words(name, looks, levels))
            )
    return found


def _light_finding(case: Case, name: str, far: float, best: Tried | None, words: tuple[str, ...]) -> Finding:
    strength = max(far, 1.0)
    return new_finding(
        name,
        *words,
        *(improvement(case, best) if best else ()),
        confidence=float(np.clip(0.5 + 0.15 * strength + 0.2 * (best is not None), 0, 0.97)),
        explains=max(case.explained(best.seen) if best else 0.0, min(1.0, 0.3 + 0.3 * strength)),
        severity="fault" if harms(case) else "warning",
        numbers={"shift": far, **({"gain": best.gain} if best else {})},
    )


def _without_doubles(
    case: Case, looks: ClipLooks, levels: Mapping[str, Level], shifts: dict[str, float]
) -> dict[str, float]:
    """Darkness takes contrast away as well, and so does too much light: keep the likeliest of these."""
    if not levels or max(shifts["dark"], shifts["bright"], shifts["low_contrast"]) <= 1:
        return shifts
    if shifts["bright"] > 1:
        return shifts | {"low_contrast": 0.0}
    strongest = max(shifts["dark"], shifts["low_contrast"])
    darker = float(np.median(looks.brightness)) < 0.6 * levels["brightness"].mean
    dark, contrast = case.best(["dark"]), case.best(["low_contrast"])
    by_gain = dark is not None and (contrast is None or dark.gain >= contrast.gain)
    keep, drop = ("dark", "low_contrast") if darker and by_gain else ("low_contrast", "dark")
    return shifts | {keep: strongest, drop: 0.0}


def light_shifts(looks: ClipLooks, levels: Mapping[str, Level], *, many: bool) -> dict[str, float]:
    """Return how far the median clip is out of training's range, 1 at its edge; narrower of many clips."""
    if not levels:
        return {}

    narrower = _OF_MANY if many and len(looks.change) >= _MANY else 1.0

    def out(name: str, *, low: bool) -> float:
        level = levels[name]
        bounds = level.bounds()
        value = level.scaled(float(np.median(looks.values(name))))
        half = max(narrower * (bounds[1] - bounds[0]) / 2, _LEAST_HALF[name])
        middle = (bounds[0] + bounds[1]) / 2
        return (middle - value) / half if low else (value - middle) / half

    dark, bright = out("brightness", low=True), out("brightness", low=False)
    noisy, contrast = out("noise", low=False), out("contrast", low=True)
    # Less contrast makes a picture less sharp; what is left is blur.
    sharp = levels["sharpness"]
    lost = sharp.mean - sharp.scaled(float(np.median(looks.sharpness)))
    by_contrast = 2 * (levels["contrast"].mean - levels["contrast"].scaled(float(np.median(looks.contrast))))
    half = max(narrower * (sharp.bounds()[1] - sharp.bounds()[0]) / 2, _LEAST_HALF["sharpness"])
    blurred = (lost - max(0.0, by_contrast)) / half
    return {"dark": dark, "bright": bright, "noisy": noisy, "low_contrast": contrast, "blurred": blurred}


_MANY, _OF_MANY = 8, 0.6
_LEAST_HALF = {"brightness": 20.0, "contrast": 0.3, "sharpness": 0.7, "noise": 0.4, "change": 0.5}


def _plausible(name: str, looks: ClipLooks) -> bool:
    """Whether pictures are so by themselves, where nobody knows how training's were."""
    brightness, contrast = float(np.median(looks.brightness)), float(np.median(looks.contrast))
    return {
        "dark": brightness < 60,
        "bright": brightness > 190,
        "low_contrast": contrast < 25,
        "noisy": float(np.median(looks.noise)) > 6,
        "blurred": float(np.median(looks.values("relative_sharpness"))) < 0.1,
    }[name]


_MEASURES = {
    "dark": "brightness",
    "bright": "brightness",
    "low_contrast": "contrast",
    "blurred": "sharpness",
    "noisy": "noise",
}


def _light_words(name: str, looks: ClipLooks, levels: Mapping[str, Level]) -> tuple[str, ...]:
    measure = _MEASURES[name]
    now = float(np.median(looks.values(measure)))
    if not levels:
        return (f"{measure.capitalize()}: {now:.1f} (median clip).",)
    level = levels[measure]
    low, high = level.quantiles[0], level.quantiles[-1]
    return (f"{measure.capitalize()}: {now:.1f} (median clip); in training {low:.1f} to {high:.1f}.",)
