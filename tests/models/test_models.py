"""Model parts on their own."""

import pytest
import torch
from torch import nn

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.models.backbone import FrameBackbone, GridPool, imagenet_normalisation, load_imagenet_weights
from vidette.models.imagenet import ImageNetFrames, imagenet_class_names
from vidette.models.motion_input import MotionInput
from vidette.models.shift import places_of


@pytest.mark.parametrize(("size", "grid"), [(8, 4), (7, 7), (6, 1), (12, 3)])
def test_grid_pool_equals_average_pooling_where_cells_are_whole(size, grid):
    x = torch.rand(2, 5, size, size)
    assert torch.allclose(GridPool(grid)(x), nn.AdaptiveAvgPool2d(grid)(x), atol=1e-6)


def test_grid_pool_shares_pixels_between_fractional_cells():
    x = torch.tensor([0.0, 1.0, 2.0]).expand(1, 1, 1, 3)
    got = GridPool(2)(x.transpose(2, 3) + torch.zeros(1, 1, 3, 3))
    assert torch.allclose(got[0, 0, :, 0], torch.tensor([1 / 3, 5 / 3]))
    assert torch.allclose(GridPool(4)(torch.ones(1, 1, 2, 2)), torch.ones(1, 1, 4, 4))


def test_a_grid_keeps_where_things_are_and_global_pooling_does_not():
    left, right = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    left[..., 24:40, 8:24], right[..., 24:40, 40:56] = 1, 1
    torch.manual_seed(0)
    fine, coarse = FrameBackbone("small", grid=4).eval(), FrameBackbone("small", grid=1).eval()
    with torch.no_grad():
        assert (fine(left) - fine(right)).abs().max() > 10 * (coarse(left) - coarse(right)).abs().max()


def test_packaged_imagenet_weights_load_and_agree_with_the_whole_classifier():
    backbone = FrameBackbone("tf_efficientnet_lite0", grid=1)
    assert load_imagenet_weights(backbone) == "packaged"
    whole = ImageNetFrames().eval()
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        logits = whole.backbone.classifier(backbone.eval()(x).flatten(1))
        assert torch.allclose(logits, whole.backbone(x), atol=1e-4)


def test_imagenet_names_are_1000_and_unique():
    names = imagenet_class_names()
    assert len(names) == len(set(names)) == 1000
    assert names[0] == "tench"


def test_normalisation_follows_the_weights():
    assert imagenet_normalisation("tf_efficientnet_lite0") == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert imagenet_normalisation("resnet18")[0] == (0.485, 0.456, 0.406)


def small(name, **options):
    return build_model(name, num_classes=2, num_frames=2, height=32, width=32, options=options)


@pytest.mark.parametrize(
    ("backbone", "blocks", "stages"),
    [
        ("resnet18", 8, 4),
        ("resnet50", 16, 4),
        ("mobilenetv2_100", 10, 5),
        ("tf_efficientnet_lite0", 9, 5),
        ("regnety_002", 13, 4),
        ("convnext_atto", 12, 4),
    ],
)
def test_shift_finds_the_residual_branches_of_timm(backbone, blocks, stages):
    with torch.device("meta"):
        net = FrameBackbone(backbone)
    assert len(places_of(net, "blocks")) == blocks
    assert len(places_of(net, "stages")) == stages
    assert set(places_of(net, "stages")) < set(places_of(net, "blocks"))


def test_shift_takes_the_first_channels_from_the_frame_before():
    model = small("shift", backbone="small", shift_fraction=0.25)
    conv = model.head.backbone.net[3]
    seen = []
    conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    clip = torch.rand(1, 2, 3, 32, 32)
    with torch.no_grad():
        model.eval()(clip)
        alone = model.head.backbone.net[:3](clip[0])
    (shifted,) = seen
    assert not shifted[0, :4].any()
    assert torch.allclose(shifted[1, :4], alone[0, :4], atol=1e-6)
    assert torch.allclose(shifted[:, 4:], alone[:, 4:], atol=1e-6)


def test_motion_input_is_the_change_since_the_frame_before():
    x = torch.rand(2, 4, 3, 5, 6)
    both = MotionInput("rgb+difference")(x)
    assert torch.equal(both[:, :, :3], x)
    assert torch.equal(both[:, 1:, 3:], x[:, 1:] - x[:, :-1])
    assert not both[:, 0, 3:].any()
    assert torch.equal(MotionInput("difference")(x), both[:, :, 3:])


def test_motion_as_input_holds_what_moves_and_nothing_else():
    x = torch.rand(1, 1, 3, 12, 12, generator=torch.Generator().manual_seed(0)).repeat(1, 5, 1, 1, 1)
    still = MotionInput("motion")(x)
    assert still.shape == (1, 5, 2, 12, 12)
    assert still.max() < 0.02
    moving = x.clone()
    moving[0, 2, :, 3:5, 6:9] += 2.0  # in the third frame only
    away, change = MotionInput("motion")(moving)[0].unbind(1)
    assert (away[2, 3:5, 6:9] > 0.5).all()
    assert away[[0, 1, 3, 4]].max() < 0.02
    assert (change[2:4, 3:5, 6:9] > 0.5).all()
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[3:5, 6:9] = False
    assert max(float(away[:, outside].max()), float(change[:, outside].max())) < 0.02


def test_a_motion_input_has_no_step():
    with pytest.raises(SettingError, match="no step: its input is what differs from the median"):
        small("cnn_gru", backbone="small", input="motion").initial_state()


def test_a_bidirectional_last_readout_has_read_the_whole_clip_both_ways():
    torch.manual_seed(0)
    model = small("cnn_gru", backbone="small", bidirectional=True, readout="last").eval()
    x = torch.rand(1, 6, 3, 32, 32, requires_grad=True)
    hidden = []
    model.head.classify.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    model(x)
    for half in hidden[0].chunk(2, dim=-1):
        (gradient,) = torch.autograd.grad(half.sum(), x, retain_graph=True)
        assert (gradient.abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_saved_names_stay():
    """Classifiers saved by earlier versions keep loading."""
    names = set(small("cnn_gru", backbone="small").state_dict())
    heads = {"norm", "project", "project_change", "rnn", "classify"}
    assert {name.split(".")[1] for name in names if name.startswith("head.")} == heads
    assert {"head.norm.weight", "head.classify.bias"} <= set(small("frame_cnn", backbone="small").state_dict())
    assert "head.net.2.weight" in small("conv3d_small").state_dict()
    assert "head.net.fc.1.weight" in small("r3d_18").state_dict()


def test_s3d_learns_what_its_layers_see_in_a_few_steps():
    torch.manual_seed(0)
    model = build_model("s3d", num_classes=3, num_frames=8, height=17, width=17).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    seen: dict[nn.Module, torch.Tensor] = {}
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, x: seen.update({module: x[0].mean((0, 2, 3, 4))}))
    clips = torch.randn(2, 8, 3, 17, 17)
    with torch.no_grad():
        for _ in range(40):
            model(clips)
    assert len(norms) > 70
    assert all(torch.allclose(norm.running_mean, seen[norm], rtol=0.05, atol=1e-4) for norm in norms)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (
            lambda: build_model("cnn_gur", num_classes=2, num_frames=2, height=32, width=32),
            "did you mean 'cnn_gru'",
        ),
        (
            lambda: build_model(
                "cnn_gru", num_classes=2, num_frames=2, height=32, width=32, options={"hiden": 3}
            ),
            "did you mean 'hidden'",
        ),
        (lambda: FrameBackbone("resnet-18"), "did you mean 'resnet"),
        (lambda: FrameBackbone("vit_tiny_patch16_224"), "choose a CNN"),
        (lambda: load_imagenet_weights(FrameBackbone("small")), "no ImageNet weights"),
        (lambda: small("frame_cnn", pooling="median"), "unknown pooling over time 'median'"),
        (lambda: small("cnn_gru", input="rgb+diff"), "did you mean 'rgb.difference'"),
        (lambda: small("shift", shift_fraction=0.6), "shift_fraction is 0.6; expected above 0"),
        (lambda: small("shift", shift_places="block"), "did you mean 'blocks'"),
        (lambda: small("shift", backbone="vgg11"), "no residual blocks"),
        (lambda: small("transformer", hidden=20, heads=4), "expected a multiple of 8"),
        (lambda: small("s3d"), "at least 8 frames"),
    ],
)
def test_unknown_names_are_one_clear_error(call, hint):
    with pytest.raises(SettingError, match=hint):
        call()
