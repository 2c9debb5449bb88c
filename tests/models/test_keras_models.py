"""Keras networks: the classic forms are Keras's own, and their weights are torch's parameters."""

import copy
import pickle
import random
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from vidette.errors import SettingError
from vidette.models.base import FrameModel
from vidette.models.frame_cnn import PooledHead
from vidette.models.keras_backbone import KERAS_BACKBONES, KerasBackbone, load_keras_imagenet
from vidette.models.keras_models import KerasCnnLstm, KerasConv3d, KerasFrameCnn
from vidette.models.keras_network import KerasNetwork, keras_installed, keras_library
from vidette.video.clip import ClipSpec
from vidette.video.transforms import pixels_tensor

with_keras = pytest.mark.skipif(
    not keras_installed(), reason="keras is not installed: pip install 'vidette[keras]'"
)
FORMS = {
    "frame_cnn": lambda: KerasFrameCnn(5),
    "cnn_lstm": lambda: KerasCnnLstm(5, height=64, width=64),
    "conv3d": lambda: KerasConv3d(5),
}


@pytest.fixture(params=FORMS)
def build(request):
    return FORMS[request.param]


@pytest.fixture
def clips():
    return torch.rand(3, 10, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def networks(model):
    return [module.layer for module in model.modules() if isinstance(module, KerasNetwork)]


def awake(network, channels=3):
    """Give a new network the statistics of a batch: without, its answers hardly differ from zero."""
    for layer in network.layers:
        if "BatchNormalization" in type(layer).__name__:
            layer.momentum = 0.0
    with torch.no_grad():
        network(torch.rand(4, 64, 64, channels, generator=torch.Generator().manual_seed(2)), training=True)
    return network


@with_keras
def test_the_lstm_form_is_the_classic_time_distributed_one(clips):
    keras = keras_library()
    model = KerasCnnLstm(5, height=64, width=64).eval()
    cnn, lstm, dense = networks(model)
    inputs = keras.Input((10, 64, 64, 3))
    classic = keras.Model(inputs, dense(lstm(keras.layers.TimeDistributed(cnn)(inputs))))
    assert (lstm.units, [layer.filters for layer in cnn.layers if "conv" in layer.name]) == (128, [32, 64])
    expected = classic.predict(clips.movedim(2, -1).numpy(), verbose=0)
    with torch.no_grad():
        assert np.abs(model(clips).numpy() - expected).max() <= 1e-5


@with_keras
def test_the_3d_form_is_kerass_own(clips):
    keras = keras_library()
    model = KerasConv3d(5).eval()
    convolutions, dense = networks(model)
    expected = keras.Sequential([convolutions, dense]).predict(clips.movedim(2, -1).numpy(), verbose=0)
    with torch.no_grad():
        assert np.abs(model(clips).numpy() - expected).max() <= 1e-5


@with_keras
def test_torchs_seed_decides_the_weights_and_pythons_is_left_alone(build):
    random.seed(5)
    wanted = random.Random(5).random()
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build().state_dict())
    assert random.random() == wanted
    same, other = (
        [torch.equal(states[0][key], states[i][key]) for key in states[0] if "bias" not in key] for i in (1, 2)
    )
    assert all(same)
    assert not any(other)


@with_keras
def test_a_step_of_the_optimiser_changes_the_answer_of_a_copy_and_not_of_the_original(build, clips):
    model = build().eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        before = model(clips)
        assert torch.equal(before, other(clips))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.5)
    torch.nn.functional.cross_entropy(other(clips), torch.tensor([0, 1, 2])).backward()
    assert [name for name, p in other.named_parameters() if not p.grad.abs().sum() > 0] == []
    optimizer.step()
    with torch.no_grad():
        assert (other(clips) - before).abs().max() > 1e-3
        assert torch.equal(model(clips), before)


@with_keras
def test_weights_put_in_place_of_the_first_are_used(build, clips):
    model = build().eval()
    with torch.device("meta"):
        other = build().eval()
        assert other(torch.zeros(1, 10, 3, 64, 64)).shape == (1, 5)
    other.load_state_dict(model.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(model(clips), other(clips))


@with_keras
def test_survives_pickling(clips):
    model = KerasFrameCnn(5).eval()
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(clips), model(clips))


@with_keras
@pytest.mark.parametrize("form", ["frame_cnn", "cnn_lstm"])
def test_steps_end_with_the_answer_to_the_clip(form, clips):
    model = FORMS[form]().eval()
    with torch.no_grad():
        logits, _ = model.steps(clips, model.initial_state(3))
        assert torch.allclose(logits[:, -1], model(clips), atol=1e-5)


@with_keras
@pytest.mark.parametrize("name", KERAS_BACKBONES)
def test_the_spec_of_a_backbone_is_its_preprocessing_in_keras(name):
    known = KERAS_BACKBONES[name]
    spec = ClipSpec(
        num_frames=2, height=16, width=16, mean=known.mean, std=known.std, channel_order=known.channel_order
    )
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16, 3), np.uint8)
    module = {"keras:ResNet50": "resnet50", "keras:MobileNetV2": "mobilenet_v2"}[name]
    preprocess = getattr(keras_library().applications, module).preprocess_input
    expected = preprocess(pixels.astype(np.float32)[0])
    got = pixels_tensor(pixels, spec)[0].movedim(1, -1).numpy()
    assert np.ptp(expected) > 1.5
    assert np.allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@with_keras
@pytest.mark.parametrize(("name", "channels"), [("keras:ResNet50", 2048), ("keras:MobileNetV2", 1280)])
def test_a_backbone_gives_kerass_features(name, channels):
    backbone = KerasBackbone(name).eval()
    awake(backbone.network.layer)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        got = backbone(x)
    assert got.std() > 0.05
    expected = backbone.network.layer.predict(x.movedim(1, -1).numpy(), verbose=0)
    assert got.shape == (2, channels, 2, 2)
    assert backbone.out_channels == channels
    assert np.allclose(got.movedim(1, -1).numpy(), expected, atol=1e-4)


@with_keras
def test_a_backbone_learns_and_keeps_its_statistics_only_in_training():
    backbone = KerasBackbone("keras:MobileNetV2", in_channels=6)
    model = FrameModel(backbone, PooledHead(1280, 4, pooling="mean", dropout=0.0))
    x = torch.rand(2, 2, 6, 32, 32)
    means = [p for name, p in backbone.named_parameters() if "moving_mean" in name]
    with torch.no_grad():
        model.eval()(x)
    assert not any(p.any() for p in means)
    torch.nn.functional.cross_entropy(model.train()(x), torch.tensor([0, 1])).backward()
    assert all(p.any() for p in means)
    learns = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert not any("moving" in name for name in learns)
    assert [name for name, p in learns.items() if p.grad is None] == []


@with_keras
def test_imagenet_weights_are_put_in_or_the_failed_download_is_told(monkeypatch, tmp_path):
    """The file that Keras would download is drawn here."""
    keras = keras_library()
    source = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    awake(source).save_weights(tmp_path / "drawn.weights.h5")
    files = sys.modules["keras.src.applications.mobilenet_v2"].file_utils
    monkeypatch.setattr(files, "get_file", lambda *_, **__: str(tmp_path / "drawn.weights.h5"))
    backbone = KerasBackbone("keras:MobileNetV2", in_channels=6).eval()
    load_keras_imagenet(backbone, change_share=0.5)
    x = torch.rand(1, 3, 64, 64)
    expected = source.predict(x.movedim(1, -1).numpy(), verbose=0)
    with torch.no_grad():
        still, moving = (backbone(torch.cat([x, change], dim=1)).movedim(1, -1) for change in (0 * x, x))
    assert np.abs(still.numpy() - expected).max() <= 1e-4
    assert np.abs(moving.numpy() - expected).max() > 1e-2

    def fails(*_, **__):
        raise Exception("URL fetch failure on https://example.org/weights.h5")

    monkeypatch.setattr(files, "get_file", fails)
    with pytest.raises(SettingError, match=r"keras:MobileNetV2.*URL fetch failure.*check the network"):
        load_keras_imagenet(backbone)


@with_keras
def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(SettingError, match="did you mean 'keras:ResNet50'"):
        KerasBackbone("keras:resnet50")


def test_without_keras_the_error_names_the_extra(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(SettingError, match=r"vidette\[keras\]"):
        build()


def test_keras_on_another_backend_is_refused(build, monkeypatch):
    other = types.ModuleType("keras")
    other.backend = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(SettingError, match=r"'jax'.*needs 'torch'.*KERAS_BACKEND=torch"):
        build()


LATE = """
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
from vidette.models.keras_network import keras_library
import vidette.models.keras_models, vidette.models.keras_backbone, vidette.models.imported
assert "keras" not in sys.modules
assert keras_library().backend.backend() == "torch"
assert os.environ["KERAS_BACKEND"] == "jax"
"""


@with_keras
def test_keras_is_imported_when_it_is_needed_and_on_torch():
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
