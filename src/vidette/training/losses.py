"""What training makes small: cross-entropy or focal loss, classes weighed, labels hard or mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vidette.training.recipe import TrainSettings

__all__ = ["ClipLoss", "class_weights"]


class ClipLoss:
    """The loss of each clip, for labels that are classes or mixtures of them.

    With ``p`` the probabilities, ``w`` the classes' weights and ``t`` the smoothed label, a clip's loss is the
    sum over classes of ``t * w * (1 - p) ** gamma * -log(p)``. At gamma 0 this is cross-entropy.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.

    Args:
        weights: ``(K,)``, one a class.
        settings: Its loss, ``focal_gamma`` and ``label_smoothing`` are used.
    """

    def __init__(self, weights: Tensor, settings: TrainSettings) -> None:
        self.weights = weights
        self.smoothing = settings.label_smoothing
        self.gamma = settings.focal_gamma if settings.loss == "focal" else 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses ``(N,)`` in nats of ``logits`` ``(N, K)`` under labels ``(N, K)`` of sum 1."""
        log_p = functional.log_softmax(logits.float(), dim=1)
        wanted = labels * (1 - self.smoothing) + self.smoothing / labels.shape[1]
        losses = -wanted * self.weights * log_p
        if self.gamma > 0:
            losses = losses * (1 - log_p.exp()).clamp(min=0) ** self.gamma
        return losses.sum(dim=1)

    def one_hot(self, classes: Tensor) -> Tensor:
        """Return classes ``(N,)`` as labels ``(N, K)``."""
        return functional.one_hot(classes, len(self.weights)).float()

    def total_weight(self, classes: Tensor) -> Tensor:
        """Return what to divide the sum of the clips' losses by, for their weighted mean."""
        return self.weights[classes].sum()


def class_weights(labels: Sequence[int], settings: TrainSettings, *, num_classes: int) -> Tensor:
    """Return ``(num_classes,)``: the inverse of each class's number of clips, scaled to mean 1 over the clips.

    All ones where weights are off, or where balanced sampling already shows every class equally often.
    """
    if not settings.class_weights or settings.balanced_sampling:
        return torch.ones(num_classes)
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes).float().clamp(min=1)
    return len(labels) / (num_classes * counts)
