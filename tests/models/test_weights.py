"""Starting weights and the report of those that did not fit."""

import urllib.error

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.models.backbone import CHANGE_SHARE, FrameBackbone
from vidette.models.weights import load_weights, weights_normalisation


def model_of(name, num_classes=3, **options):
    return build_model(name, num_classes=num_classes, num_frames=8, height=32, width=32, options=options)


def backbone_of(model):
    (backbone,) = (m for m in model.modules() if isinstance(m, FrameBackbone))
    return backbone.net.state_dict()


@pytest.mark.parametrize("name", ["cnn_gru", "shift", "transformer"])
def test_packaged_imagenet_weights_reach_every_model_with_a_2d_network(name):
    plain = FrameBackbone("tf_efficientnet_lite0")
    from vidette.models.backbone import load_imagenet_weights

    load_imagenet_weights(plain)
    model = model_of(name)
    report = load_weights(model, "imagenet")
    got = backbone_of(model)
    assert all(torch.equal(tensor, got[key]) for key, tensor in plain.net.state_dict().items())
    assert report.loaded == len(got)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    assert "packaged" in report.lines()[0]


def test_imagenet_weights_of_six_channels_keep_the_picture_and_scale_the_change():
    three, six = model_of("shift"), model_of("shift", input="rgb+difference")
    load_weights(three, "imagenet"), load_weights(six, "imagenet")
    narrow, wide = backbone_of(three)["conv_stem.weight"], backbone_of(six)["conv_stem.weight"]
    assert wide.shape[1] == 6
    assert torch.equal(wide[:, :3], narrow)
    assert torch.equal(wide[:, 3:], CHANGE_SHARE * narrow)


def test_none_leaves_the_model_and_a_3d_cnn_has_no_imagenet_weights():
    model = model_of("conv3d_small")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for weights in ("none", "imagenet"):
        report = load_weights(model, weights)
        assert report.loaded == 0
        assert "random" in report.lines()[0]
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_of_a_backbone_loads_and_its_classifier_is_named(tmp_path, ending):
    """torchvision's and timm's ResNet name their tensors alike."""
    source = torchvision.models.resnet18().state_dict()
    path = tmp_path / f"resnet.{ending}"
    save_file(source, path) if ending == "safetensors" else torch.save({"state_dict": source}, path)
    model = model_of("cnn_lstm", backbone="resnet18")
    report = load_weights(model, str(path))
    assert torch.equal(backbone_of(model)["layer2.0.conv1.weight"], source["layer2.0.conv1.weight"])
    assert set(report.unexpected) == {"fc.weight", "fc.bias"}
    assert (report.missing, report.mismatched) == ((), ())
    assert "not in the model: fc." in "\n".join(report.lines())


def test_a_file_of_a_torchvision_video_network_loads(tmp_path):
    source = torchvision.models.video.s3d().state_dict()
    torch.save({f"module.{key}": tensor for key, tensor in source.items()}, tmp_path / "s3d.pth")
    model = model_of("s3d", input="rgb+difference")
    report = load_weights(model, str(tmp_path / "s3d.pth"))
    assert set(report.mismatched) == {"classifier.1.weight", "classifier.1.bias"}
    assert (report.missing, report.unexpected) == ((), ())
    assert report.loaded == len(source) - 2


def test_a_file_of_a_whole_model_for_other_classes_loads_but_for_its_classifier(tmp_path):
    source = model_of("cnn_gru", num_classes=7, backbone="small")
    torch.save(source.state_dict(), tmp_path / "model.pt")
    model = model_of("cnn_gru", backbone="small")
    report = load_weights(model, str(tmp_path / "model.pt"))
    assert report.mismatched == ("head.classify.weight", "head.classify.bias")
    assert torch.equal(model.head.rnn.weight_hh_l0, source.head.rnn.weight_hh_l0)


class Payload:
    def __reduce__(self):
        return print, ("a file of weights ran code",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected imagenet, kinetics, none"),
        (b"no weights at all", "cannot be read as weights"),
        (Payload(), "cannot be read as weights"),
        ({"a": 1}, "holds no tensors"),
        ({"other.weight": torch.zeros(2)}, "none of its 1 tensors fits .*'other.weight', expected like"),
    ],
)
def test_unusable_files_are_one_clear_error(tmp_path, capsys, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(SettingError, match=message):
        load_weights(model_of("conv3d_small"), str(path))
    assert "ran code" not in capsys.readouterr().out


def test_kinetics_weights_are_refused_by_other_models_and_without_a_network(monkeypatch, tmp_path):
    with pytest.raises(SettingError, match="r3d_18, mc3_18, r2plus1d_18 and s3d, not of conv3d_small"):
        load_weights(model_of("conv3d_small"), "kinetics")

    def offline(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SettingError, match=r"Kinetics weights of s3d could not be downloaded.*s3d-.*\.pth"):
        load_weights(model_of("s3d"), "kinetics")


def test_normalisation_is_that_of_the_weights():
    assert weights_normalisation("kinetics", backbone=None)[0][0] == pytest.approx(0.43216)
    assert weights_normalisation("imagenet", backbone="resnet18")[0] == (0.485, 0.456, 0.406)
    assert weights_normalisation("none", backbone="resnet18") is None
    assert weights_normalisation("imagenet", backbone=None) is None


def test_every_timm_name_in_the_issue_takes_a_state_dict_of_timm(tmp_path):
    for name in ("mobilenetv2_100", "tf_efficientnet_lite0"):
        source = timm.create_model(name, pretrained=False)
        torch.save(source.state_dict(), tmp_path / "net.pth")
        report = load_weights(model_of("shift", backbone=name), str(tmp_path / "net.pth"))
        assert report.unexpected == ("classifier.weight", "classifier.bias")
        assert report.missing == ()
