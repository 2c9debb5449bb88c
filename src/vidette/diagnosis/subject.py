"""What is diagnosed: a network, with what it is declared to see and to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidette.classifier.classifier import Classifier
from vidette.errors import InputMismatchError
from vidette.models.imported import first_line
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import clip_tensor

__all__ = ["Subject", "subject_of_classifier"]

_BATCH = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A network and its declared input.

    Attributes:
        name: For people.
        network: Clips ``(N, T, C, H, W)`` to logits ``(N, K)``, batch by batch.
        spec: What the network is declared to see.
        classes: Names in the order of the logits; they may be too many or too few, which is found.
        module: The torch module inside, where there is one: its weights and activations are looked at.
        statistics: What training left (see ``Classifier.training_statistics``).
        temperature: Logits are divided by it before the softmax.
        uses_order: Whether the architecture can use the order of frames; None where that is not known.
    """

    name: str
    network: Callable[[Tensor], Any]
    spec: ClipSpec
    classes: tuple[str, ...]
    module: nn.Module | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    temperature: float = 1.0
    uses_order: bool | None = None

    def prepare(self, clips: Sequence[Clip], spec: ClipSpec | None = None) -> Tensor:
        """Turn clips cut by a spec (the subject's own unless given) into the network's input."""
        return clip_tensor(clips, spec or self.spec)

    def logits(self, x: Tensor, *, batch_size: int = _BATCH) -> np.ndarray:
        """Answer clips ``(N, T, C, H, W)`` in batches: float32 ``(N, K)``.

        Raises:
            InputMismatchError: The network fails, or what it gives are no class scores.
        """
        with torch.no_grad():
            parts = [self._answer(part) for part in x.split(batch_size)]
        return torch.cat(parts).numpy()

    def _answer(self, x: Tensor) -> Tensor:
        try:
            answer = self.network(x)
        except Exception as error:  # whatever a foreign network raises
            raise InputMismatchError(
                f"{self.name} cannot answer clips of shape {tuple(x.shape)}, which is (clips, frames, "
                "channels, "
                f"rows, columns): {type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(answer, Tensor) or answer.dim() != 2 or len(answer) != len(x):
            shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InputMismatchError(
                f"{self.name} answers {shape} to {len(x)} clips; expected class scores ({len(x)}, classes)"
            )
        return answer.detach().float().cpu()


def subject_of_classifier(classifier: Classifier, *, name: str = "classifier") -> Subject:
    """Return a Vidette classifier as a subject; its torch network is looked at, in the mode that it is in."""
    by_frame = classifier.model_options.get("takes") == "frame" or classifier.model_name == "image_network"
    return Subject(
        name=name,
        network=lambda x: classifier.model(x.to(classifier.device)),
        spec=classifier.spec,
        classes=classifier.classes,
        module=classifier.model,
        statistics=classifier.training_statistics,
        temperature=classifier.temperature,
        uses_order=bool(classifier.model.uses_order) and not by_frame,
    )
