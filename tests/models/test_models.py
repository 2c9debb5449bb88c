"""Model parts on their own."""

import pytest
import torch
from torch import nn

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.models.backbone import FrameBackbone, GridPool, imagenet_normalisation, load_imagenet_weights
from vidette.models.imagenet import ImageNetFrames, imagenet_class_names


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
    ],
)
def test_unknown_names_are_one_clear_error(call, hint):
    with pytest.raises(SettingError, match=hint):
        call()
