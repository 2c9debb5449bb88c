"""Maps lie on what decides, importance on when it is seen; both vanish with what was learnt."""

import numpy as np
import pytest
import torch
from torch import nn

from vidette.classifier.classifier import Classifier
from vidette.diagnosis.attribution import activation_maps, explain_clip, log_odds, time_importance
from vidette.diagnosis.map_sanity import map_similarity_when_randomised, randomised
from vidette.diagnosis.overlay import contact_sheet, overlay, write_overlay
from vidette.errors import InputMismatchError, OutputExistsError, SettingError
from vidette.models import MODELS, build_model, model_options
from vidette.models.base import FrameModel, Head
from vidette.video.clip import Clip, ClipSpec
from vidette.video.reader import probe

T, SIDE = 8, 32
FLASH = 5  # the one frame with a bright square


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class BrightSquare(Head):
    """Class 1 is the sum over time of the brightest places: known where and when it looks."""

    needs_whole_clip = None

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 8.0]))

    def forward(self, features):
        return features.mean(dim=(1, 2, 3, 4))[:, None] * self.weight - torch.tensor([0.0, 0.1])


def bright_network():
    """A convolution that answers to light above half, on a map of 8x8, and a head that sums it up."""
    convolve = nn.Conv2d(3, 1, 4, stride=4)
    with torch.no_grad():
        convolve.weight.fill_(1 / 48)
        convolve.bias.fill_(-0.5)
    return FrameModel(nn.Sequential(convolve, nn.ReLU(inplace=True)), BrightSquare())


def classifier_of(model, name="hand-made", **spec):
    plain = {"num_frames": T, "height": SIDE, "width": SIDE, "mean": (0, 0, 0), "std": (1, 1, 1), **spec}
    return Classifier(model, name, {}, ClipSpec(**plain), ("dark", "light"))


def flash(num_frames=T):
    """A dim clip in which a bright square stands at rows 20 to 27, columns 4 to 11, in one frame."""
    pixels = np.full((num_frames, SIDE, SIDE, 3), 60, np.uint8)
    pixels[FLASH, 20:28, 4:12] = 250
    return Clip(pixels, np.arange(num_frames) / 10)


def noise_clip(num_frames=T, side=SIDE):
    pixels = np.random.default_rng(0).integers(0, 255, (num_frames, side, side, 3), dtype=np.uint8)
    return Clip(pixels, np.arange(num_frames) / 10)


def test_the_map_lies_on_the_object_and_the_importance_on_its_moment():
    found = explain_clip(classifier_of(bright_network()), flash(), label="light")
    maps = found.maps.maps
    assert maps.shape == (T, SIDE, SIDE)
    assert maps[FLASH].sum() > 0.99 * maps.sum() > 0
    assert maps[FLASH, 18:30, 2:14].sum() > 0.95 * maps.sum()  # two pixels around it for the interpolation
    assert found.maps.layer_shape == (8, 8)
    assert found.importance.strongest() == (FLASH, FLASH + 1)
    others = np.delete(found.importance.per_frame, FLASH)
    assert found.importance.per_frame[FLASH] > 0
    assert others.max() <= 1e-5  # the frame after it is filled by the flash itself, which only adds to it
    assert "bottom left" in found.reading()[0]
    assert found.maps.focus() > 0.99


def test_the_drop_is_what_the_answer_loses_without_the_run():
    classifier, clip = classifier_of(bright_network()), flash()
    without = clip.pixels.copy()
    without[FLASH] = without[FLASH - 1]

    def odds(pixels):
        p = classifier.probabilities(classifier.logits([Clip(pixels, clip.seconds)]))[0, 1]
        return np.log(p / (1 - p))

    importance = time_importance(classifier, clip, label="light", run_frames=1)
    assert importance.drops[FLASH] == pytest.approx(odds(clip.pixels) - odds(without), abs=1e-4)
    two = time_importance(classifier, clip, label="light", run_frames=2)
    assert len(two.drops) == T - 1
    assert set(np.flatnonzero(two.drops > 1e-4)) == {FLASH - 1, FLASH}
    mean = time_importance(classifier, clip, label="light", run_frames=1, fill="mean")
    assert mean.strongest()[0] == FLASH
    against = time_importance(classifier, clip, label="dark", run_frames=1)
    assert against.drops == pytest.approx(-importance.drops, abs=1e-4)


def test_each_frame_left_out_is_filled_by_the_nearest_that_is_left():
    """A head that reads one frame's number tells which frame stands where."""

    class Numbers(Head):
        def forward(self, features):
            level = features.mean(dim=(2, 3, 4)) * 255
            return torch.stack([torch.zeros(len(level)), (level * 10.0 ** torch.arange(4)).sum(1)], dim=1)

    levels = np.arange(1, 5, dtype=np.uint8)[:, None, None, None]
    clip = Clip(np.broadcast_to(levels, (4, SIDE, SIDE, 3)).copy(), np.arange(4.0))
    classifier = classifier_of(FrameModel(nn.Identity(), Numbers()), num_frames=4)
    whole = 1 + 20 + 300 + 4000
    found = whole - time_importance(classifier, clip, label="light", run_frames=2).drops
    assert found.round().tolist() == [3 + 30 + 300 + 4000, 1 + 10 + 400 + 4000, 1 + 20 + 200 + 2000]


@pytest.mark.parametrize(
    "name", sorted(set(MODELS) - {"r3d_18", "mc3_18", "r2plus1d_18", "s3d", "flow_fisher"})
)
def test_every_family_gives_a_map_a_frame_that_changes_when_weights_are_randomised(name):
    torch.manual_seed(0)
    options = {"backbone": "small"} if "backbone" in model_options(name) else {}
    model = build_model(name, num_classes=2, num_frames=T, height=SIDE, width=SIDE, options=options)
    classifier, clip = classifier_of(model, name), noise_clip()
    found = explain_clip(classifier, clip)
    assert found.maps is not None, found.reason
    assert found.maps.maps.shape == (T, SIDE, SIDE)
    assert (found.maps.maps >= 0).all()
    assert found.maps.maps.max() > 0
    assert found.importance.per_frame.shape == (T,)
    assert map_similarity_when_randomised(classifier, clip, label=found.label, num_seeds=2) < 0.6


def test_a_model_without_layers_that_keep_places_says_why_it_has_no_map():
    torch.manual_seed(0)
    model = build_model("flow_fisher", num_classes=2, num_frames=T, height=SIDE, width=SIDE)
    found = explain_clip(classifier_of(model, "flow_fisher"), noise_clip())
    assert found.maps is None
    assert "flow_fisher" in found.reason
    assert found.importance.per_frame.shape == (T,)


@pytest.mark.parametrize(("variant", "frames"), [("mc3_18", 4), ("s3d", 8)])
def test_deep_3d_networks_are_read_before_their_pooling(variant, frames):
    model = build_model(variant, num_classes=2, num_frames=frames, height=64, width=64)
    classifier = classifier_of(model, variant, num_frames=frames, height=64, width=64)
    maps = activation_maps(classifier, noise_clip(frames, 64), label="dark")
    assert maps.layer in ("head.net.layer4", "head.net.features")
    assert len(maps.layer_shape) == 3
    assert maps.layer_shape[-1] > 1


def test_the_change_between_frames_as_input_and_an_onnx_backbone_are_explained_too(tmp_path):
    options = {"backbone": "small", "input": "difference"}
    model = build_model("cnn_gru", num_classes=2, num_frames=T, height=SIDE, width=SIDE, options=options)
    assert explain_clip(classifier_of(model, "cnn_gru"), noise_clip()).maps is not None
    options = {"backbone": "small"}
    model = build_model("cnn_gru", num_classes=2, num_frames=T, height=SIDE, width=SIDE, options=options)
    spec = ClipSpec(num_frames=T, height=SIDE, width=SIDE)
    Classifier(model, "cnn_gru", options, spec, ("dark", "light")).save(tmp_path / "c")
    by_onnx, by_torch = (Classifier.load(tmp_path / "c", runtime=runtime) for runtime in ("onnx", "torch"))
    one, other = explain_clip(by_onnx, noise_clip()), explain_clip(by_torch, noise_clip())
    assert one.maps.maps == pytest.approx(other.maps.maps, abs=1e-6)
    assert one.importance.drops == pytest.approx(other.importance.drops, abs=1e-4)


def test_explaining_leaves_the_network_as_it_was():
    model = build_model("keras_frame_cnn", num_classes=2, num_frames=T, height=SIDE, width=SIDE)
    classifier, clip = classifier_of(model), noise_clip()
    names, before = list(model.state_dict()), classifier.logits([clip])
    explain_clip(classifier, clip)
    assert list(model.state_dict()) == names
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert classifier.logits([clip]) == pytest.approx(before, abs=1e-6)


def test_a_keras_network_used_as_a_layer_of_another_is_read_at_its_end():
    """Transfer learning as Keras teaches it."""
    import keras

    from vidette.models.imported import build_imported

    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(4, 3, strides=2, name="c")])
    picture = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inner(picture))
    whole = keras.Model(picture, keras.layers.Dense(2)(pooled))
    options = {"config": keras.saving.serialize_keras_object(whole), "outputs": "logits", "takes": "frame"}
    model = build_imported("keras_file", num_classes=2, options=options)
    maps = activation_maps(classifier_of(model), noise_clip(), label="dark")
    assert maps.layer_shape == (15, 15)


def test_a_network_without_places_says_so_and_still_has_its_moments():
    model = FrameModel(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)), BrightSquare())
    found = explain_clip(classifier_of(model), flash())
    assert found.maps is None
    assert "no convolution" in found.reason
    assert found.importance is not None
    assert "no map" in found.reading()[0]
    with pytest.raises(InputMismatchError, match="no convolution"):
        activation_maps(classifier_of(model), flash(), label="dark")


def test_shuffled_weights_are_the_same_values_elsewhere():
    model = build_model(
        "frame_cnn", num_classes=2, num_frames=T, height=SIDE, width=SIDE, options={"backbone": "small"}
    )
    other = randomised(model, seed=1)
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a.flatten().sort().values, b.flatten().sort().values) for a, b in pairs)
    assert not torch.equal(pairs[0][0], pairs[0][1])


def test_log_odds_are_those_of_the_softmax():
    logits = torch.randn(3, 5, dtype=torch.float64)
    p = logits.softmax(-1)
    assert torch.allclose(log_odds(logits), (p / (1 - p)).log())


def test_choices_that_cannot_be_are_refused():
    classifier = classifier_of(bright_network())
    with pytest.raises(SettingError, match="unknown class 'lihgt'; did you mean 'light'"):
        explain_clip(classifier, flash(), label="lihgt")
    with pytest.raises(SettingError, match="run_frames is 8"):
        time_importance(classifier, flash(), label="light", run_frames=T)
    with pytest.raises(SettingError, match="unknown fill"):
        time_importance(classifier, flash(), label="light", fill="black")


def test_the_overlay_lights_the_object_and_dims_the_rest():
    found = explain_clip(classifier_of(bright_network()), flash(), label="light")
    lit = overlay(found.clip.pixels, found.maps.maps).astype(int)
    assert np.ptp(lit[FLASH, 23, 7]) > 60  # coloured
    assert np.ptp(lit[FLASH, 4, 28]) == 0  # grey
    assert lit[FLASH, 4, 28].max() < 60
    dark = overlay(found.clip.pixels, np.zeros_like(found.maps.maps))
    assert (np.ptp(dark.astype(int), axis=-1) == 0).all()
    with pytest.raises(InputMismatchError, match="shape"):
        overlay(found.clip.pixels, found.maps.maps[:, ::2])


def test_sheet_and_video_show_every_frame(tmp_path):
    found = [explain_clip(classifier_of(bright_network()), flash(), label="light") for _ in range(2)]
    sheet = contact_sheet(found)
    assert sheet.image.startswith(b"\x89PNG")
    assert "bottom left" in sheet.caption
    path = write_overlay(tmp_path / "a.mp4", found)
    facts = probe(path)
    assert facts.num_frames == 2 * T
    assert facts.fps == pytest.approx(10)
    with pytest.raises(OutputExistsError):
        write_overlay(path, found)
    with pytest.raises(InputMismatchError, match="no explanation"):
        contact_sheet([])
