"""Shared by the suite: a small classifier."""

import os
import shutil
import subprocess

import pytest
import torch

from vidette.classifier.classifier import Classifier
from vidette.models import build_model
from vidette.video.clip import ClipSpec

T, SIZE, FPS = 4, 32, 8.0
SPEC = ClipSpec(num_frames=T, height=SIZE, width=SIZE, sampling="window", fps=FPS)
CLASSES = ("fall", "walk", "wave")


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small networks on several threads wait more than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_classifier():
    """Build a small classifier whose answers depend on what it sees."""

    def make(name="cnn_gru", spec=SPEC, **options):
        torch.manual_seed(0)
        options = options if name.startswith("conv3d") else {"backbone": "small", **options}
        shape = {"num_frames": spec.num_frames, "height": SIZE, "width": SIZE}
        model = build_model(name, num_classes=len(CLASSES), options=options, **shape)
        for module in model.modules():
            if hasattr(module, "momentum"):
                module.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.randn(4, spec.num_frames, 3, SIZE, SIZE))
        return Classifier(model, name, options, spec, CLASSES)

    return make


@pytest.fixture
def screen(monkeypatch):
    """A screen in memory."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("Xvfb, a screen in memory, is not installed")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        [program, "-displayfd", str(writing), "-screen", "0", "640x480x24"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        number = told.readline().strip()  # once it listens
    if not number:
        server.wait()
        pytest.skip("Xvfb does not start here")
    monkeypatch.setenv("DISPLAY", f":{number}")
    yield f":{number}"
    server.terminate()
    server.wait()
