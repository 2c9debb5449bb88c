"""What every model keeps: one suite over the whole table."""

import pytest
import torch

from vidette.classifier.onnx import export_onnx, open_session
from vidette.models import MODELS, build_model
from vidette.models.base import FrameModel

K, T, SIZE = 5, 8, 64


def build(name, **options):
    torch.manual_seed(0)
    if MODELS[name].has_backbone:
        options.setdefault("backbone", "small")
    return build_model(name, num_classes=K, num_frames=T, height=SIZE, width=SIZE, options=options).eval()


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


@pytest.fixture
def clips():
    return torch.rand(3, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_logits_are_finite_and_shaped(name, clips):
    logits = build(name)(clips)
    assert logits.shape == (3, K)
    assert torch.isfinite(logits).all()


def test_a_clips_logits_do_not_depend_on_its_batch_mates(name, clips):
    """Recurrence over the batch instead of time, the tutorial's fault, fails here."""
    model = build(name)
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clip[None]) for clip in clips])
        turned = model(clips.flip(0)).flip(0)
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, turned, atol=1e-4)


def test_every_parameter_gets_a_gradient(name, clips):
    model = build(name).train()
    torch.nn.functional.cross_entropy(model(clips), torch.tensor([0, 1, 2])).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    if name == "cnn_rnn":  # nn.RNN adds two biases that act as one
        without = [n for n in without if "bias_hh" not in n]
    assert without == []


def test_eval_is_deterministic(name, clips):
    model = build(name)
    with torch.no_grad():
        assert torch.equal(model(clips), model(clips))


def test_order_matters_where_the_table_says_so(name, clips):
    model = build(name)
    with torch.no_grad():
        difference = (model(clips) - model(clips.flip(1))).abs().max()
    assert (difference > 1e-4) == MODELS[name].uses_order


def test_forward_is_head_after_frame_features(name, clips):
    model = build(name)
    with torch.no_grad():
        features = model.frame_features(clips)
        assert features.shape[:2] == (3, T)
        assert torch.allclose(model.head(features), model(clips), atol=1e-5)
        alone = torch.cat([model.frame_features(clips[:, i : i + 1]) for i in range(T)], dim=1)
    assert torch.allclose(features, alone, atol=1e-4), "a frame's features depend on other frames"


def test_survives_state_dict(name, clips):
    model, other = build(name), build(name)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(clips), other(clips))


def test_exports_to_onnx_within_the_tolerance(name, clips, tmp_path):
    model = build(name)
    path = export_onnx(model, tmp_path / "model.onnx", example=clips[:2])
    session = open_session(path)
    (got,) = session.run(None, {session.get_inputs()[0].name: clips.numpy()})
    with torch.no_grad():
        expected = model(clips)
    assert torch.allclose(torch.from_numpy(got), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 32, 32), (16, 48, 64), (7, 33, 41), (2, 32, 32), (1, 16, 16)])
def test_any_clip_shape_fits(name, shape):
    t, h, w = shape
    options = {"backbone": "small"} if MODELS[name].has_backbone else {}
    model = build_model(name, num_classes=K, num_frames=t, height=h, width=w, options=options).eval()
    with torch.no_grad():
        assert model(torch.rand(2, t, 3, h, w)).shape == (2, K)


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_100"])
def test_any_timm_backbone_fits(backbone):
    model = build_model(
        "cnn_gru", num_classes=K, num_frames=2, height=64, width=64, options={"backbone": backbone}
    )
    assert isinstance(model, FrameModel)
    with torch.no_grad():
        assert model.eval()(torch.rand(2, 2, 3, 64, 64)).shape == (2, K)
