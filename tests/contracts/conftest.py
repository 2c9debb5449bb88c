"""Shared by the suites over models."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from vidette.models import build_model, model_options


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small networks on several threads wait more than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def awaken():
    """Build a model, small, with activations as in training, so that its answers differ by what it sees.

    A new network's answers hardly depend on its input: its normalisations have seen nothing, and the last of a
    residual branch multiplies by zero.
    """

    def build(name, options, *, num_classes, shape):
        options = {"backbone": "small", **options} if "backbone" in model_options(name) else options
        t, h, w = shape
        torch.manual_seed(0)
        model = build_model(name, num_classes=num_classes, num_frames=t, height=h, width=w, options=options)
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
            if not norm.weight.any():
                torch.nn.init.ones_(norm.weight)
        with torch.no_grad():
            model.train()(torch.rand(4, t, 3, h, w))
            for norm in norms:
                norm.running_var.clamp_(min=float(norm.running_var.mean()))
        return model.eval()

    return build
