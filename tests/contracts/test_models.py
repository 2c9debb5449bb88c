"""What every model keeps: one suite over the whole table and its notable variants."""

import copy

import pytest
import torch

from vidette.classifier.onnx import export_onnx, open_session
from vidette.errors import SettingError
from vidette.models import MODELS, build_model, model_options
from vidette.models.base import FrameModel

K, T, SIZE = 5, 8, 32

VARIANTS = {
    **{name: (name, {}) for name in MODELS},
    "frame_cnn max": ("frame_cnn", {"pooling": "max"}),
    "frame_cnn attention": ("frame_cnn", {"pooling": "attention"}),
    "cnn_lstm stacked last": ("cnn_lstm", {"layers": 2, "readout": "last", "difference": False}),
    "cnn_gru attention": ("cnn_gru", {"readout": "attention"}),
    "cnn_gru bidirectional": ("cnn_gru", {"bidirectional": True}),
    "cnn_lstm bidirectional last": ("cnn_lstm", {"bidirectional": True, "readout": "last"}),
    "cnn_tcn three layers": ("cnn_tcn", {"layers": 3, "grid": 4}),
    "shift stages": ("shift", {"backbone": "resnet18", "shift_places": "stages"}),
    "shift both ways": ("shift", {"causal": False}),
    "transformer both ways": ("transformer", {"causal": False}),
    "transformer short memory": ("transformer", {"attention_frames": 3, "difference": False}),
    "change all levels": ("change", {"backbone": "resnet18", "levels": "all", "grid": 2}),
    "frame_cnn difference": ("frame_cnn", {"input": "difference"}),
    "cnn_gru rgb+difference": ("cnn_gru", {"input": "rgb+difference"}),
    "cnn_gru motion": ("cnn_gru", {"input": "motion"}),
    "shift rgb+difference": ("shift", {"input": "rgb+difference"}),
    "conv3d_small rgb+difference": ("conv3d_small", {"input": "rgb+difference"}),
}


def built(name, shape, **options):
    if "backbone" in model_options(name):
        options.setdefault("backbone", "small")
    t, h, w = shape
    return build_model(name, num_classes=K, num_frames=t, height=h, width=w, options=options)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def model(variant, awaken):
    return awaken(*VARIANTS[variant], num_classes=K, shape=(T, SIZE, SIZE))


@pytest.fixture
def clips():
    return torch.rand(3, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_logits_are_finite_and_shaped(model, clips):
    with torch.no_grad():
        logits = model(clips)
    assert logits.shape == (3, K)
    assert torch.isfinite(logits).all()
    assert (logits[0] - logits[1]).abs().max() > 1e-3, "answers that never differ test nothing"


def test_a_clips_logits_do_not_depend_on_its_batch_mates(model, clips):
    """Recurrence over the batch instead of time, the tutorial's fault, fails here."""
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clip[None]) for clip in clips])
        turned = model(clips.flip(0)).flip(0)
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, turned, atol=1e-4)


def test_every_parameter_gets_a_gradient(variant, model, clips):
    model = copy.deepcopy(model).train()
    torch.nn.functional.cross_entropy(model(clips), torch.tensor([0, 1, 2])).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    if variant == "cnn_rnn":  # nn.RNN adds two biases that act as one
        without = [n for n in without if "bias_hh" not in n]
    assert without == []


def test_eval_is_deterministic(model, clips):
    with torch.no_grad():
        assert torch.equal(model(clips), model(clips))


def test_order_matters_where_the_table_says_so(variant, model, clips):
    name, options = VARIANTS[variant]
    with torch.no_grad():
        difference = (model(clips) - model(clips[:, [5, 0, 7, 2, 4, 1, 6, 3]])).abs().max()
    assert (difference > 1e-4) == (MODELS[name].uses_order or "input" in options)


def test_forward_is_head_after_frame_features(model, clips):
    with torch.no_grad():
        features = model.frame_features(clips)
        assert features.shape[:2] == (3, T)
        assert torch.allclose(model.head(features), model(clips), atol=1e-5)
        alone = torch.cat([model.frame_features(clips[:, i : i + 1]) for i in range(T)], dim=1)
    assert torch.allclose(features, alone, atol=1e-4), "a frame's features depend on other frames"


def test_survives_state_dict(variant, model, clips):
    name, options = VARIANTS[variant]
    with torch.device("meta"):  # without numbers of its own
        other = built(name, (T, SIZE, SIZE), **options).eval()
    other.load_state_dict(model.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(model(clips), other(clips))


def test_exports_to_onnx_within_the_tolerance(model, clips, tmp_path):
    path = export_onnx(model, tmp_path / "model.onnx", example=clips[:2])
    session = open_session(path)
    (got,) = session.run(None, {session.get_inputs()[0].name: clips.numpy()})
    with torch.no_grad():
        expected = model(clips)
    assert torch.allclose(torch.from_numpy(got), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 33, 41), (2, 32, 32), (1, 16, 16)])
@pytest.mark.parametrize("name", MODELS)
def test_any_clip_shape_fits_or_is_refused_by_name(name, shape):
    if name == "s3d" and (shape[0] < 8 or min(shape[1:]) < 17):
        with pytest.raises(SettingError, match="s3d needs clips of at least 8 frames of 17x17"):
            built(name, shape)
        return
    if name == "cnn_tcn" and shape[0] < 4:
        with pytest.raises(SettingError, match=f"halves time 2 times, which {shape[0]} frames do not allow"):
            built(name, shape)
        return
    if name == "flow_fisher" and (shape[0] < 4 or min(shape[1:]) < 16):
        with pytest.raises(SettingError, match="flow_fisher needs 4 frames or more of 16x16 pixels or more"):
            built(name, shape)
        return
    if name == "change" and shape[0] < 2:
        with pytest.raises(SettingError, match="change needs 2 frames or more, not 1"):
            built(name, shape)
        return
    model = built(name, shape).eval()
    with torch.no_grad():
        assert model(torch.rand(2, shape[0], 3, *shape[1:])).shape == (2, K)


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_100"])
def test_any_timm_backbone_fits(backbone):
    model = built("cnn_gru", (2, 64, 64), backbone=backbone)
    assert isinstance(model, FrameModel)
    with torch.no_grad():
        assert model.eval()(torch.rand(2, 2, 3, 64, 64)).shape == (2, K)
