"""Stages of pretrained networks: in order, freed from the top, at their own rates; BatchNorm standing still."""

import pytest
import torch
from torch import nn

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.training.optimizer import build_optimizer
from vidette.training.recipe import TrainSettings
from vidette.training.stages import Stages, hold_still


def built(name="cnn_gru", *, size=32, frames=4, **options):
    return build_model(name, num_classes=3, num_frames=frames, height=size, width=size, options=options)


NETWORKS = [
    ("cnn_gru", {"backbone": "small"}, 4, "backbone.net.0.weight", "backbone.net.9.weight"),
    ("shift", {"backbone": "small"}, 4, "head.backbone.net.0.weight", "head.backbone.net.9.weight"),
    (
        "frame_cnn",
        {"backbone": "resnet18"},
        5,
        "backbone.net.conv1.weight",
        "backbone.net.layer4.0.conv1.weight",
    ),
    (
        "frame_cnn",
        {"backbone": "tf_efficientnet_lite0"},
        8,
        "backbone.net.conv_stem.weight",
        "backbone.net.conv_head.weight",
    ),
    ("r3d_18", {}, 5, "head.net.stem.0.weight", "head.net.layer4.0.conv1.0.weight"),
]


@pytest.mark.parametrize(("name", "options", "count", "lowest", "highest"), NETWORKS)
def test_stages_go_from_the_pixels_up_and_hold_the_whole_network(name, options, count, lowest, highest):
    model = built(name, **options)
    stages = Stages(model, TrainSettings(layer_decay=0.5, learning_rate=1.0, backbone_rate_factor=1.0))
    assert len(stages.parameters) == count
    named = dict(model.named_parameters())
    assert any(p is named[lowest] for p in stages.parameters[0])
    assert any(p is named[highest] for p in stages.parameters[-1])
    assert stages.rate(lowest) == 0.5 ** (count - 1)
    assert stages.rate(highest) == 1.0
    inside = {id(p) for stage in stages.parameters for p in stage}
    head = [key for key, p in named.items() if id(p) not in inside]
    assert head
    assert all(not key.startswith(("backbone.", "head.backbone.")) for key in head)
    assert all(stages.rate(key) == 1.0 for key in head)


def test_the_optimiser_has_every_parameter_once_at_its_rate():
    model = built(backbone="small")
    settings = TrainSettings(layer_decay=0.5, learning_rate=0.8, backbone_rate_factor=0.5, weight_decay=0.3)
    stages = Stages(model, settings)
    optimizer = build_optimizer(model, stages, settings)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        assert group["lr"] == stages.rate(name)
        assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
    rates = {round(group["lr"], 6) for group in optimizer.param_groups}
    assert rates == {0.8, 0.4, 0.2, 0.1, 0.05}


def test_stages_are_freed_from_the_top():
    model = built(backbone="small")
    stages = Stages(model, TrainSettings(unfreeze_epochs=4))
    for epoch, freed in enumerate([0, 1, 2, 3, 4, 4]):
        stages.free(epoch)
        learning = [all(p.requires_grad for p in stage) for stage in stages.parameters]
        assert learning == [False] * (4 - freed) + [True] * freed
        assert all(p.requires_grad for p in model.head.parameters())


def test_stages_are_freed_in_fewer_epochs_than_there_are_stages():
    stages = Stages(built(backbone="small"), TrainSettings(unfreeze_epochs=2))
    counts = []
    for epoch in range(3):
        stages.free(epoch)
        counts.append(sum(all(p.requires_grad for p in stage) for stage in stages.parameters))
    assert counts == [0, 2, 4]


def test_what_never_learns_is_not_freed():
    model = built(backbone="small")
    model.backbone.net[0].requires_grad_(False)
    Stages(model, TrainSettings(unfreeze_epochs=1)).free(5)
    assert not model.backbone.net[0].weight.requires_grad
    assert model.backbone.net[3].weight.requires_grad


def test_frozen_batchnorm_keeps_statistics_and_scale():
    model = built(backbone="small")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = TrainSettings(freeze_batchnorm=True, learning_rate=0.1)
    optimizer = build_optimizer(model, Stages(model, settings), settings)
    model.train()
    hold_still(model)
    model(torch.rand(4, 4, 3, 32, 32)).sum().backward()
    optimizer.step()
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 4
    for key, value in model.state_dict().items():
        still = key.rpartition(".")[0] in norms
        assert torch.equal(value, before[key]) == still, key


def test_batchnorm_of_a_stage_that_is_not_freed_stands_still():
    model = built(backbone="small")
    stages = Stages(model, TrainSettings(unfreeze_epochs=4))
    stages.free(1)
    model.train()
    hold_still(model)
    assert [m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == [False] * 3 + [True]


@pytest.mark.parametrize("asked", [{"layer_decay": 0.5}, {"unfreeze_epochs": 2}, {"freeze_batchnorm": True}])
def test_what_needs_stages_is_refused_without_them(asked):
    with pytest.raises(SettingError, match=f"{next(iter(asked))} needs a pretrained network"):
        Stages(built("conv3d_small"), TrainSettings(**asked))
    Stages(built("conv3d_small"), TrainSettings())


def test_unfreezing_on_several_devices_is_refused():
    with pytest.raises(SettingError, match="one device"):
        Stages(built(backbone="small"), TrainSettings(unfreeze_epochs=2, devices=2))
