"""Weights that nobody trained: those that follow, number for number, the rule that a new layer is filled by.

A layer is untouched if its weights pass for a draw of an initialisation and its companions are as new: a bias
of zeros or of the same draw, a following batch normalisation with scale 1, shift 0 and statistics 0 and 1.

Sources of the rules: X. Glorot, Y. Bengio, AISTATS 2010; K. He et al., ICCV 2015; Y. LeCun et al., Efficient
BackProp, 1998; PyTorch's and Keras's defaults. The test of fit is that of Kolmogorov and Smirnov.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor, nn

from vidette.diagnosis.case import Case
from vidette.diagnosis.findings import Finding
from vidette.diagnosis.probes import keras_layers
from vidette.diagnosis.wording import new_finding
from vidette.models.keras_network import KerasNetwork

__all__ = ["LayerState", "check_weights", "layer_states"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LEAST_NUMBERS = 48
_MOST_NUMBERS = 20000
_FEW_NUMBERS = 1000
_FITS = 1e-3
_PLAIN, _RECURRENT, _KERAS = 0, 1, 2
_LEAST_CLIPS = 8
_RIGHT, _RIGHT_OF_TWO = 0.75, 0.9
"""Shares of right answers that a new head hardly gives; of two classes luck gives more."""


@dataclass(frozen=True)
class LayerState:
    """Whether one layer with weights was ever trained.

    Attributes:
        name: Of the layer.
        untouched: Whether it is as new.
        rule: The initialisation that its weights follow; empty where none.
        num_weights: Numbers in it.
    """

    name: str
    untouched: bool
    rule: str
    num_weights: int


def layer_states(module: nn.Module) -> list[LayerState]:
    """Look at every convolution, linear layer and recurrence, in the module's order."""
    parts = list(_parts(module))
    found: list[LayerState] = []
    for i, (name, weight, bias, fans) in enumerate(parts):
        if weight is None:
            continue
        norm = parts[i + 1] if i + 1 < len(parts) and parts[i + 1][1] is None else None
        found.append(_state(name, weight, bias, fans, pristine=None if norm is None else bool(norm[3][0])))
    return found


def _parts(module: nn.Module) -> Iterator[tuple[str, np.ndarray | None, np.ndarray | None, tuple[int, ...]]]:
    """Give layers as (name, weight, bias, fans), and norms as (name, None, None, (as new,))."""
    for name, part in module.named_modules():
        if isinstance(part, KerasNetwork):
            yield from _keras_parts(name, part)
        elif isinstance(part, _NORMS):
            yield name, None, None, (int(_new_norm(part)),)
        elif isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            weight = _array(part.weight)
            receptive = int(np.prod(weight.shape[2:], initial=1))
            fans = (weight.shape[1] * receptive, weight.shape[0] * receptive, _PLAIN)
            yield name, weight, None if part.bias is None else _array(part.bias), fans
        elif isinstance(part, nn.RNNBase):
            weight = np.concatenate([_array(w).ravel() for n, w in part.named_parameters() if "weight" in n])
            bias = [_array(w).ravel() for n, w in part.named_parameters() if "bias" in n]
            fans = (part.hidden_size, part.hidden_size, _RECURRENT)
            yield name, weight, np.concatenate(bias) if bias else None, fans


def _keras_parts(name: str, network: KerasNetwork) -> Iterator[Any]:
    for layer in keras_layers(network):
        kernel = getattr(layer, "kernel", None)
        if type(layer).__name__ == "BatchNormalization":
            mean, variance = _array(layer.moving_mean.value), _array(layer.moving_variance.value)
            yield f"{name}.{layer.name}", None, None, (int(not mean.any() and bool((variance == 1).all())),)
        elif kernel is not None and hasattr(kernel, "value"):
            weight = _array(kernel.value)
            receptive = int(np.prod(weight.shape[:-2], initial=1))
            fans = (weight.shape[-2] * receptive, weight.shape[-1] * receptive, _KERAS)
            bias = getattr(layer, "bias", None)
            yield f"{name}.{layer.name}", weight, None if bias is None else _array(bias.value), fans


def _new_norm(part: Any) -> bool:
    """Whether a batch normalisation is as new."""
    parts: list[tuple[Tensor | None, float]] = [
        (part.weight, 1.0),
        (part.bias, 0.0),
        (part.running_mean, 0.0),
        (part.running_var, 1.0),
    ]
    return all(bool((value == new).all()) for value, new in parts if value is not None)


def _array(value: Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()


def _state(
    name: str, weight: np.ndarray, bias: np.ndarray | None, fans: Sequence[int], *, pristine: bool | None
) -> LayerState:
    numbers = weight.ravel()
    count = len(numbers)
    if count < _LEAST_NUMBERS or not np.isfinite(numbers).all():
        return LayerState(name, False, "", count)
    fan_in, fan_out, kind = fans
    sharp = _uniform_rule(numbers, fan_in, fan_out)
    bound = 1 / np.sqrt(fan_in)
    drawn = (
        kind != _KERAS  # which begins with zeros
        and sharp in ("PyTorch's default", "Glorot, uniform", "He, uniform")
        and bias is not None
        and bool((np.abs(bias) <= bound * (1 + 1e-6)).all() and bias.std() > 0)
    )
    bias_new = bias is None or not bias.any() or drawn
    if sharp and bias_new and pristine is not False:
        return LayerState(name, True, sharp, count)
    companion = pristine is True or (bias is not None and not bias.any())
    rule = _normal_rule(numbers, fan_in, fan_out) if companion and kind != _RECURRENT else ""
    return LayerState(name, bool(rule), rule, count)


def _uniform_rule(numbers: np.ndarray, fan_in: int, fan_out: int) -> str:
    """Return the uniform initialisation that the numbers fill to its very edge, and never beyond."""
    largest, n = float(np.abs(numbers).max()), len(numbers)
    rules = {
        "PyTorch's default": 1 / np.sqrt(fan_in),
        "Glorot, uniform": np.sqrt(6 / (fan_in + fan_out)),
        "He, uniform": np.sqrt(6 / fan_in),
        "LeCun, uniform": np.sqrt(3 / fan_in),
        "timm's default": 1 / np.sqrt(fan_out),
    }
    few = n < _FEW_NUMBERS  # a trained layer may look so by chance: 1 to 2 % of new ones are let go for that
    for rule, bound in rules.items():
        if bound * (1 - (5 if few else 12) / n) <= largest <= bound * (1 + 1e-5):
            sample = numbers[:: max(1, n // _MOST_NUMBERS)]
            if stats.kstest(sample, "uniform", args=(-bound, 2 * bound)).pvalue > (
                10 * _FITS if few else _FITS
            ):
                return rule
    return ""


def _normal_rule(numbers: np.ndarray, fan_in: int, fan_out: int) -> str:
    """Return the normal initialisation, plain or cut off at two deviations, that the numbers follow."""
    sample = numbers[:: max(1, len(numbers) // _MOST_NUMBERS)]
    rules = {
        "He, normal (outputs)": np.sqrt(2 / fan_out),
        "He, normal": np.sqrt(2 / fan_in),
        "LeCun, normal": np.sqrt(1 / fan_in),
        "Glorot, normal": np.sqrt(2 / (fan_in + fan_out)),
        "deviation 0.02": 0.02,
        "deviation 0.01": 0.01,
    }
    for rule, deviation in rules.items():
        whole = stats.norm(scale=deviation)
        cut = stats.truncnorm(-2, 2, scale=deviation / 0.87962566)
        if max(stats.kstest(sample, law.cdf).pvalue for law in (whole, cut)) > 0.01:
            return rule
    return ""


def check_weights(case: Case) -> list[Finding]:
    """Tell weights that were never loaded or trained: all, some, or those of the last layer."""
    module = case.subject.module
    if module is None:
        case.notes.append("the network is no torch module, so its weights were not looked at")
        return []
    layers = layer_states(module)
    checked = [layer for layer in layers if layer.num_weights >= _LEAST_NUMBERS]
    new = [layer for layer in checked if layer.untouched]
    if not new:
        return []
    share = sum(layer.num_weights for layer in new) / sum(layer.num_weights for layer in checked)
    names = ", ".join(layer.name for layer in new[:6]) + (f" and {len(new) - 6} more" if len(new) > 6 else "")
    evidence = (
        f"{len(new)} of {len(checked)} layers ({share:.0%} of the weights) are exactly as a new network has "
        "them: "
        f"{names}.",
        f"They follow the initialisation {' and '.join(sorted({layer.rule for layer in new}))}.",
    )
    last = checked[-1]
    if len(new) == len(checked):
        name, confidence = "weights_not_loaded", 0.98
    elif len(new) == 1 and new[0] is last:
        if _best_accuracy(case) >= (_RIGHT_OF_TWO if case.base.logits.shape[1] == 2 else _RIGHT):
            return []
        name, confidence = "head_random", 0.97
    else:
        name, confidence = "weights_partly_loaded", 0.93
    numbers = {"layers": float(len(new)), "of": float(len(checked)), "share": share}
    return [new_finding(name, *evidence, confidence=confidence, explains=0.98, numbers=numbers)]


def _best_accuracy(case: Case) -> float:
    """Return the share of right answers on the clips or on the reference; 0 where neither is labelled."""
    seen = [
        one for one in (case.base, case.reference_base) if one is not None and len(one.right) >= _LEAST_CLIPS
    ]
    return max((one.accuracy for one in seen), default=0.0)
