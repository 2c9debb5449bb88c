"""Video classifiers of transformers, small and random, saved to disk."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from vidette.errors import SettingError
from vidette.models import build_model
from vidette.models.huggingface import source_clip, source_normalisation
from vidette.models.weights import load_weights, weights_normalisation
from vidette.video.clip import Clip, ClipSpec
from vidette.video.transforms import clip_tensor

installed = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed (extra 'transformers')",
)
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
KINDS = {
    "VideoMAE": ("VideoMAEConfig", {"image_size": 32, "patch_size": 16, "num_frames": 4, **TINY}),
    "TimeSformer": ("TimesformerConfig", {"image_size": 32, "patch_size": 16, "num_frames": 4, **TINY}),
    "ViViT": ("VivitConfig", {"image_size": 32, "num_frames": 4, "tubelet_size": [2, 16, 16], **TINY}),
    "VJEPA2": (
        "VJEPA2Config",
        {
            "crop_size": 32,
            "frames_per_clip": 4,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pred_hidden_size": 24,
            "pred_num_attention_heads": 2,
            "pred_num_hidden_layers": 1,
            "num_pooler_layers": 1,
        },
    ),
}


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """Save a random classifier of 7 classes."""
    import transformers

    name, values = KINDS[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**values, num_labels=7)
    transformers.AutoModelForVideoClassification.from_config(config).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def built(folder, num_classes=3, **options):
    return build_model(
        f"hf:{folder}", num_classes=num_classes, num_frames=4, height=32, width=32, options=options
    ).eval()


@installed
def test_a_saved_classifier_of_transformers_is_a_model_with_our_classes(folder):
    import transformers

    model = built(folder)
    report = load_weights(model, "imagenet")
    assert all(name.startswith("classifier") for name in (*report.missing, *report.mismatched))
    assert report.mismatched
    assert report.loaded > 10
    theirs = transformers.AutoModelForVideoClassification.from_pretrained(folder).state_dict()
    ours = model.head.net.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs if not k.startswith("classifier"))
    with torch.no_grad():
        assert model(torch.rand(2, 4, 3, 32, 32)).shape == (2, 3)


@installed
def test_it_answers_as_transformers_does_and_is_saved_back(folder, tmp_path):
    import transformers

    model = built(folder, num_classes=7)
    assert load_weights(model, "imagenet").missing == ()
    x = torch.rand(2, 4, 3, 32, 32)
    model.save_back(tmp_path / "ours")
    with torch.no_grad():
        for place in (folder, tmp_path / "ours"):
            theirs = transformers.AutoModelForVideoClassification.from_pretrained(place).eval()
            assert torch.allclose(theirs(x).logits, model(x), atol=1e-5)


@installed
def test_its_own_options_build_it_again_without_the_folder(folder):
    model = built(folder)
    options = json.loads(json.dumps(model.own_options))
    again = built("gone", **options)
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert not again.can_step


@installed
def test_faults_are_one_clear_error(tmp_path, monkeypatch):
    import transformers

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SettingError, match=r"its config\.json could not be read"):
        built(tmp_path)
    config = transformers.VideoMAEConfig(image_size=32, patch_size=16, num_frames=8, **TINY)
    config.save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="takes 8 frames of 32x32, the clips have 4 of 32x32"):
        built(tmp_path)
    transformers.BertConfig(**TINY).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="is a bert, not a video classifier"):
        built(tmp_path)


@installed
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("VideoMAEImageProcessor", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}),
        ("VideoMAEImageProcessor", {"do_normalize": False}),
        ("VivitImageProcessor", {}),
        ("VivitImageProcessor", {"offset": False, "rescale_factor": 1 / 255, "image_mean": [0.3, 0.4, 0.5]}),
        ("TimesformerVideoProcessor", {}),
        ("VJEPA2VideoProcessor", {"image_std": [0.2, 0.3, 0.4], "do_resize": False}),
    ],
)
def test_a_clip_becomes_the_numbers_that_the_networks_own_preprocessor_makes(name, values, tmp_path):
    import transformers

    shape = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = getattr(transformers, name)(**shape, **values)
    processor.save_pretrained(tmp_path)
    mean, std = source_normalisation(str(tmp_path))
    spec = ClipSpec(num_frames=4, height=32, width=32, mean=mean, std=std)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    theirs = processor(list(pixels), return_tensors="pt")
    theirs = next(value for key, value in theirs.items() if "pixel_values" in key)
    ours = clip_tensor([Clip(pixels, np.arange(4.0))], spec)
    assert torch.allclose(theirs.float(), ours, atol=1e-4)


@installed
def test_a_source_says_its_shape_and_one_without_preprocessor_no_normalisation(folder, tmp_path):
    assert source_clip(str(folder)) == {"num_frames": 4, "size": 32}
    assert source_normalisation(str(folder)) is None
    assert weights_normalisation("imagenet", backbone=None, model=f"hf:{folder}") is None
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(SettingError, match=r"its preprocessor_config\.json could not be read"):
        source_normalisation(str(folder))


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SettingError, match=r"pip install 'vidette\[transformers\]'"):
        built("anything")
