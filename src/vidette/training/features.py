"""The per-frame features of clips, computed once and kept: what makes a frozen backbone quick to train on."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidette.classifier.onnx import export_onnx
from vidette.classifier.scorers import FrameScorer, OnnxFrames, TorchFrames
from vidette.data.cache import ClipCache, clip_key
from vidette.data.manifest import LabelledClip
from vidette.data.store import ArrayStore
from vidette.models.base import CodebookHead, FrameModel, Head
from vidette.video.clip import ClipSpec
from vidette.video.transforms import clip_tensor

__all__ = ["FeatureDataset", "FeatureStore"]


class FeatureStore:
    """Features ``(T, D, g, g)`` of clips under one backbone and one spec, on disk.

    Where the model's head begins with something that has no weights (:meth:`Head.summary`), that is kept
    instead, and of the features their mean over the picture.

    Args:
        model: Whose backbone looks at the frames; its weights are part of the key.
        spec: How clips become its input.
        cache: Where decoded clips, and beside them the features, are kept.
        device: ``"cpu"`` runs the backbone in ONNX Runtime, anything else in torch on that device.
    """

    def __init__(self, model: FrameModel, spec: ClipSpec, cache: ClipCache, *, device: str = "cpu") -> None:
        self.model = model
        self.spec = spec
        self.cache = cache
        self.device = device
        self.key = _backbone_key(model, spec)
        self.store = ArrayStore(cache.folder / "features" / self.key)

    def of(self, model: FrameModel) -> FeatureStore:
        """Return the same features for another model on the same backbone, whose head is what learns."""
        return FeatureStore(model, self.spec, self.cache, device=self.device)

    def prepare(
        self, clips: Sequence[LabelledClip], *, on_progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Compute what is not there yet; return how many clips that was."""
        keys = [clip_key(clip, self.spec, memo=self.cache.memo) for clip in clips]
        missing = [(clip, key) for clip, key in zip(clips, keys, strict=True) if not self.store.has(key)]
        if not missing:
            return 0
        with tempfile.TemporaryDirectory() as scratch:
            scorer = self._scorer(Path(scratch))
            for done, (clip, key) in enumerate(missing, start=1):
                x = clip_tensor([self.cache.load(clip, self.spec)], self.spec)
                self.store.save(key, self._kept(scorer(x)))
                if on_progress:
                    on_progress(done, len(missing))
        return len(missing)

    def _scorer(self, scratch: Path) -> FrameScorer:
        if self.device != "cpu":
            return TorchFrames(self.model.to(self.device).eval(), torch.device(self.device))
        backbone = self.model.backbone.cpu().eval()
        example = torch.rand(2, 3, self.spec.height, self.spec.width)
        return OnnxFrames(export_onnx(backbone, scratch / "backbone.onnx", example=example))

    def _kept(self, features: Tensor) -> list[np.ndarray]:
        """Return what is kept of one clip's features ``(1, T, D, g, g)``."""
        with torch.no_grad():
            summary = self.model.head.summary(features)
        if summary is None:
            return [features[0].cpu().numpy()]
        return [summary[0].cpu().numpy(), features[0].flatten(-2).mean(-1).cpu().numpy()]

    @property
    def learner(self) -> nn.Module:
        """What learns from :meth:`load`'s answers: the head, or what follows its summary."""
        return AfterSummary(self.model.head) if summarises(self.model.head) else self.model.head

    def logits(self, clips: Sequence[LabelledClip]) -> np.ndarray:
        """Return the logits of clips, float32 ``(N, K)``, by the head as it is now."""
        kept = torch.stack([self.load(clip) for clip in clips])
        learner = self.learner.eval()
        with torch.no_grad():
            return learner(kept.to(next(learner.parameters()).device)).float().cpu().numpy()

    def load_frames(self, clip: LabelledClip) -> Tensor:
        """Return one clip's features, ``(T, D, g, g)``; averaged, ``(T, D)``, where a summary is kept."""
        return self._load(clip)[-1]

    def load(self, clip: LabelledClip) -> Tensor:
        """Return what the head learns from: a clip's features ``(T, D, g, g)``, or their summary ``(S,)``."""
        return self._load(clip)[0]

    def _load(self, clip: LabelledClip) -> list[Tensor]:
        key = clip_key(clip, self.spec, memo=self.cache.memo)
        arrays = self.store.load(key)
        while arrays is None:
            self.prepare([clip])
            arrays = self.store.load(key)
        return [torch.from_numpy(array) for array in arrays]


class AfterSummary(nn.Module):
    """What follows a head's summary: ``(N, S)`` to logits ``(N, K)``, with the head's own weights."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, summary: Tensor) -> Tensor:
        return self.head.of_summary(summary)


def summarises(head: Head) -> bool:
    """Tell whether a head begins with something that has no weights."""
    return type(head).summary is not Head.summary


def _backbone_key(model: FrameModel, spec: ClipSpec) -> str:
    digest = hashlib.sha256(repr((spec.mean, spec.std, spec.channel_order)).encode())
    for part in _state_bytes(model.backbone):
        digest.update(part)
    pool = getattr(model.backbone, "pool", None)
    digest.update(str(getattr(pool, "grid", 0)).encode())
    if getattr(model.backbone, "levels", "top") != "top":
        digest.update(b"all levels")
    if summarises(model.head):
        digest.update(type(model.head).__name__.encode())
    if isinstance(model.head, CodebookHead):
        for part in _state_bytes(model.head.learnt_first()):
            digest.update(part)
    return digest.hexdigest()[:20]


def _state_bytes(module: nn.Module) -> Iterator[bytes]:
    for name, tensor in sorted(module.state_dict().items()):
        yield name.encode()
        yield tensor.cpu().contiguous().numpy().tobytes()


class FeatureDataset:
    """Stored features, or summaries, with their labels: items ``(float32 (T, D, g, g) or (S,), label)``."""

    def __init__(self, clips: Sequence[LabelledClip], class_names: Sequence[str], store: FeatureStore) -> None:
        number = {name: i for i, name in enumerate(class_names)}
        self.clips = clips
        self.labels = [number[clip.label] for clip in clips]
        self.store = store

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.store.load(self.clips[index]), self.labels[index]

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: features of a frozen backbone are the same every epoch."""
