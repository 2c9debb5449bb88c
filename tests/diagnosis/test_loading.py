"""A user's own network: every order of axes, files that are refused, and errors that name the shapes tried."""

import sys

import pytest
import torch
from torch import nn

from vidette.classifier.declared import DeclaredInput
from vidette.diagnosis.loading import load_subject
from vidette.errors import InputMismatchError, SettingError

SMALL = DeclaredInput(num_frames=4, size=16)

MODULE = """
import torch
from torch import nn

class Channels(nn.Module):
    def __init__(self, axes):
        super().__init__()
        self.axes = axes
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        assert x.dim() == len(self.axes) and x.shape[self.axes.index("C")] == 3
        others = [i for i, axis in enumerate(self.axes) if axis not in "NC"]
        return self.linear(x.mean(others))

def frames_first(): return Channels("NTCHW")
def channels_second(): return Channels("NCTHW")
def channels_last(): return Channels("NTHWC")
def pictures(): return Channels("NCHW")
def pictures_last(): return Channels("NHWC")
def no_scores(x): return x.mean()
def softmax(x): return x.mean((1, 3, 4)).softmax(1)
thing = 3
def broken(): raise RuntimeError("no weights here")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_network.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "my_network"
    sys.modules.pop("my_network", None)


@pytest.mark.parametrize(
    "name", ["frames_first", "channels_second", "channels_last", "pictures", "pictures_last"]
)
def test_every_order_of_axes_is_found(module, name):
    subject = load_subject(f"{module}:{name}", classes=["a", "b"], declared=SMALL)
    x = torch.rand(3, 4, 3, 16, 16)
    weight, bias = (p.detach() for p in subject.module.parameters())
    expected = x.mean((1, 3, 4)) @ weight.T + bias
    assert torch.allclose(torch.from_numpy(subject.logits(x)), expected, atol=1e-5)


def test_probabilities_become_logits(module):
    subject = load_subject(f"{module}:softmax", declared=SMALL)
    x = torch.rand(2, 4, 3, 16, 16)
    given = torch.from_numpy(subject.logits(x)).softmax(1)
    assert torch.allclose(given, x.mean((1, 3, 4)).softmax(1), atol=1e-5)
    assert subject.classes == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "cannot be imported"), ("thing", "a network or a function"), ("broken", "no weights")],
)
def test_what_is_no_network(module, name, said):
    with pytest.raises(SettingError, match=said):
        load_subject(f"{module}:{name}", declared=SMALL)


def test_the_error_names_the_shapes_tried(module):
    with pytest.raises(InputMismatchError) as raised:
        load_subject(f"{module}:no_scores", declared=SMALL)
    for shape in ("NTCHW (2, 4, 3, 16, 16)", "NHWC (8, 16, 16, 3)"):
        assert shape in str(raised.value)


def test_a_pickled_module_is_refused_and_torchscript_taken(tmp_path):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(SettingError, match="module:function"):
        load_subject(str(tmp_path / "whole.pt"), declared=SMALL)
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.script(net), tmp_path / "script.pt")
    subject = load_subject(str(tmp_path / "script.pt"), declared=SMALL)
    frames = torch.rand(1, 4, 3, 16, 16)
    assert torch.allclose(torch.from_numpy(subject.logits(frames))[0], net(frames[0]).mean(0), atol=1e-5)
    with pytest.raises(SettingError, match="no such file"):
        load_subject(str(tmp_path / "absent.keras"))
