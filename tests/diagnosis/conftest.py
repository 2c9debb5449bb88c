"""Tiny networks trained in seconds on drawn pictures, with clips to be diagnosed on."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from vidette.classifier.classifier import Classifier
from vidette.diagnosis.material import Material
from vidette.diagnosis.subject import subject_of_classifier
from vidette.evaluation.reference import reference_statistics
from vidette.models import build_model
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import pixels_tensor

CLASSES = ("blue", "red down", "red up")
FRAMES, SIZE = 4, 32


def picture(label, seed, size=SIZE):
    """A coloured arrow before bright sky and dark ground, drifting: uint8 (T, H, W, 3)."""
    rng = np.random.default_rng((seed, CLASSES.index(label)))
    rows, columns = np.mgrid[0:size, 0:size] / size
    colour = np.array([190, 50, 40]) if label != "blue" else np.array([40, 60, 200])
    ground = np.where((rows < rng.uniform(0.4, 0.6))[..., None], [150, 185, 215], [110, 95, 60])
    ground = ground + rng.normal(0, 8, (size, size, 1))
    x, y, drift = rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65), rng.normal(0, 0.02, 2)
    frames = []
    for t in range(FRAMES):
        v = (rows - y - drift[1] * t) / 0.25
        v = -v if label == "red down" else v
        inside = (v > -1) & (v < 0.8) & (np.abs(columns - x - drift[0] * t) / 0.25 < (v + 1) / 1.9)
        frames.append(np.where(inside[..., None], colour, ground) + rng.normal(0, 3, (size, size, 1)))
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def drawn(number, seed):
    """Pixels of ``number`` clips, uint8 (T, H, W, 3) each, and their labels."""
    labels = tuple(CLASSES[i % 3] for i in range(number))
    return [picture(label, 1000 * seed + i) for i, label in enumerate(labels)], labels


def material(pixels, labels=(), *, in_time=False):
    clips = tuple(Clip(p, np.arange(len(p)) / 4 + (3.0 * i if in_time else 0.0)) for i, p in enumerate(pixels))
    return Material("clips", clips, tuple(map(str, range(len(clips)))), tuple(labels), None, in_time)


def trained(name="frame_cnn", **options):
    """A classifier of the drawn pictures, with the statistics that training leaves."""
    spec = ClipSpec(num_frames=FRAMES, height=SIZE, width=SIZE)
    torch.manual_seed(0)
    model = build_model(name, num_classes=3, num_frames=FRAMES, height=SIZE, width=SIZE, options=options)
    pixels, labels = drawn(60, 1)
    x, y = torch.from_numpy(np.stack(pixels)), torch.tensor([CLASSES.index(label) for label in labels])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for epoch in range(8):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for places in order.split(12):
            loss = nn.functional.cross_entropy(model(pixels_tensor(x[places], spec)), y[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    classifier = Classifier(model.eval(), name, options, spec, CLASSES)
    held = [Clip(p, np.arange(FRAMES) / 4) for p in drawn(18, 2)[0]]
    classifier.training_statistics = {
        "validation_accuracy": 1.0,
        "training_clips": dict.fromkeys(CLASSES, 20),
        "reference": reference_statistics(classifier, held).to_dict(),
    }
    return classifier


@pytest.fixture(scope="session")
def classifier():
    return trained(backbone="small")


@pytest.fixture
def subject(classifier):
    return subject_of_classifier(classifier, name="arrows")


@pytest.fixture(scope="session")
def source():
    """18 clips that were not trained on, and their labels."""
    return drawn(18, 3)


@pytest.fixture
def with_network(subject):
    """Put another module in the subject's place."""

    def put(module):
        return dataclasses.replace(subject, network=module, module=module)

    return put


class Before(nn.Module):
    """A network with a fault before it."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change
        self.eval()

    def forward(self, x):
        return self.inner(self.change(x))
