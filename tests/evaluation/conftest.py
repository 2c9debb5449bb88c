"""Classifiers whose every answer is known, and clips for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from vidette.evaluation.calibration import softmax
from vidette.video.clip import Clip, ClipSpec


@dataclass
class FakeClassifier:
    """Two classes told by brightness. ``order``: does it get lighter along the clip; ``mean``: is it light."""

    spec: ClipSpec
    looks_at: str = "order"
    classes: tuple[str, ...] = ("fall", "rise")
    temperature: float = 0.5
    training_statistics: dict = field(default_factory=dict)
    decision: dict = field(default_factory=dict)
    frames_seen: int = 0
    batch_sizes: list[int] = field(default_factory=list)

    def features(self, clips):
        self.frames_seen += sum(len(clip.pixels) for clip in clips)
        pixels = np.stack([clip.pixels for clip in clips]).astype(np.float32) / 255
        return torch.from_numpy(pixels.mean(axis=(2, 3)))

    def logits_of_features(self, features):
        bright = features.mean(dim=2)
        if self.looks_at == "order":
            steps = torch.arange(bright.shape[1], dtype=torch.float32)
            score = (bright * (steps - steps.mean())).sum(dim=1)
        else:
            score = bright.mean(dim=1) - 0.5
        return torch.stack([-score, score], dim=1).numpy()

    def logits(self, clips):
        self.batch_sizes.append(len(clips))
        return self.logits_of_features(self.features(clips))

    def probabilities(self, logits):
        return softmax(logits, temperature=self.temperature)


def make_ramp(num_frames=8, *, rising: bool, size=8, seconds=1.0, noise=0.0, seed=0) -> Clip:
    """A clip that gets lighter or darker."""
    levels = np.linspace(30, 220, num_frames)
    levels = levels if rising else levels[::-1]
    levels = levels + noise * np.random.default_rng(seed).normal(size=num_frames)
    pixels = np.clip(levels, 0, 255).astype(np.uint8)[:, None, None, None]
    return Clip(
        np.broadcast_to(pixels, (num_frames, size, size, 3)).copy(), np.linspace(0, seconds, num_frames)
    )


@pytest.fixture
def fake_classifier() -> type[FakeClassifier]:
    return FakeClassifier


@pytest.fixture
def ramp():
    return make_ramp
