"""Whether class activation maps show what a network has learnt: they must change when it forgets."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from vidette.diagnosis.attribution import activation_maps
from vidette.video.clip import Clip

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier
    from vidette.models import VideoModel

__all__ = ["map_similarity_when_randomised", "randomised"]


def map_similarity_when_randomised(
    classifier: Classifier, clip: Clip, *, label: str, num_seeds: int = 3
) -> float:
    """Return how alike the maps stay when the network's weights are shuffled: rank correlation, -1 to 1.

    Maps that hardly change would be drawn by the picture and the architecture, not by what was learnt. Source:
    Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018. A network whose maps vanish counts as 0.

    Args:
        classifier: Its torch network is used.
        clip: Cut by the classifier's own spec.
        label: The class.
        num_seeds: Shuffles; the mean over them is returned.

    Raises:
        SettingError, InputMismatchError: As :func:`vidette.diagnosis.attribution.activation_maps`.
    """
    own = activation_maps(classifier, clip, label=label).maps
    found: list[float] = []
    for seed in range(num_seeds):
        model = randomised(classifier.model, seed=seed)
        found.append(_correlation(own, activation_maps(classifier, clip, label=label, model=model).maps))
    return float(np.mean(found))


def randomised(model: VideoModel, *, seed: int = 0) -> VideoModel:
    """Return a copy of a network that has learnt nothing: the values of each weight tensor are shuffled.

    Batch normalisation takes the statistics of what it is given: with those of the learnt weights, nothing
    would reach the end of the network.
    """
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean = module.running_var = None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copied


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    found: Any = spearmanr(one.ravel(), other.ravel())
    return float(found.statistic)
