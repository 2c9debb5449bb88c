"""A classifier on streams: the clip's own answer, frame by frame, in torch and ONNX Runtime alike."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidette.classifier.classifier import Classifier
from vidette.classifier.step_runtime import TorchStep, check_step_parity, exported_step
from vidette.classifier.stepper import Stepper
from vidette.errors import ClassifierError, InputMismatchError, SettingError
from vidette.models import MODELS, build_model, model_options
from vidette.models.base import Head, VideoModel
from vidette.video.clip import Clip, ClipSpec, SpanRange

T, SIZE = 4, 32
SPEC = ClipSpec(num_frames=T, height=SIZE, width=SIZE, sampling="window", fps=8.0)
STEPPING = ("frame_cnn", "cnn_rnn", "cnn_lstm", "cnn_gru", "shift", "transformer", "conv3d_causal")
OF_KERAS = ("keras_frame_cnn", "keras_cnn_lstm")
CLASSES = ("fall", "walk", "wave")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name="cnn_gru", **options):
    """A small model whose normalisations have seen something, so that its answers depend on the frames."""
    torch.manual_seed(0)
    options = {"backbone": "small", **options} if "backbone" in model_options(name) else options
    model = build_model(name, num_classes=len(CLASSES), num_frames=T, height=SIZE, width=SIZE, options=options)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, T, 3, SIZE, SIZE))
        for norm in norms:
            norm.running_var.clamp_(min=float(norm.running_var.mean()))
    return Classifier(model, name, options, SPEC, CLASSES)


def frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def clip_logits(classifier, pixels):
    return classifier.logits([Clip(pixels, np.arange(len(pixels)) / 8)])[0]


def pushed(stepper, pixels):
    state, answers = stepper.start(), []
    for frame in pixels:
        answer, state = stepper.push(frame, state)
        answers.append(answer)
    return answers, state


@pytest.mark.parametrize("name", STEPPING + OF_KERAS)
def test_a_clips_worth_of_frames_ends_with_the_clips_logits(name, tmp_path):
    classifier, pixels = make(name), frames(T)
    expected = clip_logits(classifier, pixels)
    for runtime in ("torch", "auto"):
        stepper = Stepper(classifier, runtime=runtime, folder=tmp_path)
        assert stepper.runtime == ("onnx" if runtime == "auto" else "torch")
        answers, _ = pushed(stepper, pixels)
        assert answers[:-1] == [None] * (T - 1), "no answer from less than a clip"
        assert np.abs(answers[-1] - expected).max() <= 1e-4
    assert np.abs(expected - clip_logits(classifier, frames(T, seed=1))).max() > 1e-3


def test_the_list_holds_every_model_that_steps():
    small = {"num_classes": 3, "num_frames": 8, "height": SIZE, "width": SIZE}
    options = {n: {"backbone": "small"} if "backbone" in model_options(n) else {} for n in MODELS}
    stepping = {n for n in MODELS if build_model(n, options=options[n], **small).can_step}
    assert stepping == set(STEPPING + OF_KERAS)


def lengths_seen(classifier, pixels, *, longest):
    """For every answer, the run of frames up to now that gives it, fed to a fresh state."""
    first = classifier.spec.num_frames
    answers, _ = pushed(Stepper(classifier, runtime="torch"), pixels)
    lengths = []
    for end in range(first, len(pixels) + 1):
        fits = []
        for length in range(1, min(end, longest) + 1):
            fresh = Stepper(classifier, runtime="torch", state="carry")
            _, state = pushed(fresh, pixels[end - length : end])
            if np.allclose(answers[end - 1], state.logits, atol=1e-5):
                fits.append(length)
        assert len(fits) == 1, (end, fits)
        lengths += fits
    return lengths


def test_every_answer_has_seen_hardly_more_than_a_span_where_states_share_features():
    assert set(lengths_seen(make("cnn_gru"), frames(3 * T), longest=2 * T)) == {T}
    short = make("cnn_gru")
    spec = dataclasses.replace(SPEC, num_frames=10)
    classifier = Classifier(short.model, short.model_name, short.model_options, spec, CLASSES)
    assert lengths_seen(classifier, frames(21), longest=13) == [10, 11] * 6, "states begin two frames apart"


def test_every_answer_has_seen_between_one_and_two_spans():
    classifier = make("cnn_gru", input="difference")
    lengths = lengths_seen(classifier, frames(5 * T), longest=2 * T + 1)
    assert set(lengths) == set(range(T, 2 * T))


def test_carry_never_begins_afresh():
    classifier, pixels = make("frame_cnn"), frames(4 * T)
    answers, _ = pushed(Stepper(classifier, runtime="torch", state="carry"), pixels)
    each = [clip_logits(classifier, np.repeat(frame[None], T, 0)) for frame in pixels]
    assert np.abs(answers[-1] - np.mean(each, axis=0)).max() <= 1e-4


def test_clip_state_gives_the_last_clips_own_logits_at_every_frame():
    classifier, pixels = make("cnn_gru"), frames(2 * T)
    answers, _ = pushed(Stepper(classifier, state="clip", runtime="torch"), pixels)
    for end in range(T, 2 * T + 1):
        assert np.abs(answers[end - 1] - clip_logits(classifier, pixels[end - T : end])).max() <= 1e-4


@pytest.mark.parametrize("name", ["conv3d_small", "cnn_lstm"])
def test_models_without_a_step_slide_by_half_a_clip(name):
    classifier, pixels = (
        make(name, **({"bidirectional": True} if name == "cnn_lstm" else {})),
        frames(2 * T + 1),
    )
    stepper = Stepper(classifier, runtime="torch")
    answers, state = pushed(stepper, pixels)
    due = [i + 1 for i, answer in enumerate(answers) if answer is not None]
    assert due == [T, T + 2, 2 * T]
    for end in due:
        assert np.abs(answers[end - 1] - clip_logits(classifier, pixels[end - T : end])).max() <= 1e-4
    rest, repeated = stepper.finish(state)
    assert repeated == 0
    assert np.abs(rest - clip_logits(classifier, pixels[-T:])).max() <= 1e-4, "the end is answered too"


def test_per_frame_features_are_computed_once_a_frame():
    classifier = make("cnn_gru", bidirectional=True)
    seen = []
    classifier.model.backbone.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    pushed(Stepper(classifier, stride_frames=1, runtime="torch"), frames(3 * T))
    assert sum(seen) == 3 * T
    seen.clear()
    classifier = make("cnn_gru")
    classifier.model.backbone.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    pushed(Stepper(classifier, runtime="torch"), frames(3 * T))
    assert sum(seen) == 3 * T, "the states share a frame's features"


@pytest.mark.parametrize("name", ["cnn_gru", "shift"])
def test_streams_in_one_batch_do_not_mix(name, tmp_path):
    stepper = Stepper(make(name), runtime="onnx", folder=tmp_path)
    one, two = frames(3 * T), frames(3 * T, seed=1)
    alone = pushed(stepper, one)[0], pushed(stepper, two)[0]
    states = [stepper.start(), stepper.start()]
    _, states[0] = stepper.push(one[0], states[0])  # the second stream joins a frame later
    for i in range(3 * T - 1):
        (a, states[0]), (b, states[1]) = stepper.push_many([one[i + 1], two[i]], states)
        for got, expected in ((a, alone[0][i + 1]), (b, alone[1][i])):
            assert (got is None) == (expected is None)
            assert got is None or np.abs(got - expected).max() <= 1e-4


def test_a_state_is_a_value():
    stepper = Stepper(make("cnn_lstm"), runtime="torch")
    pixels = frames(3 * T)
    _, state = pushed(stepper, pixels[: T + 1])
    first, _ = stepper.push(pixels[T + 1], state)
    for frame in pixels[T + 2 :]:
        stepper.push(frame, state)
    again, _ = stepper.push(pixels[T + 1], state)
    assert np.array_equal(first, again)


def test_a_stream_shorter_than_a_clip_ends_with_its_last_frame_repeated():
    classifier, pixels = make("cnn_gru"), frames(2)
    stepper = Stepper(classifier, runtime="torch")
    answers, state = pushed(stepper, pixels)
    assert answers == [None, None]
    logits, repeated = stepper.finish(state)
    assert repeated == T - 2
    assert np.abs(logits - clip_logits(classifier, pixels[[0, 1, 1, 1]])).max() <= 1e-4
    assert stepper.finish(stepper.start()) == (None, 0)
    _, state = pushed(stepper, frames(T))
    assert stepper.finish(state) == (None, 0), "the last frame was answered already"


def test_exports_are_kept_and_belong_to_their_weights(tmp_path, monkeypatch):
    classifier = make("frame_cnn")
    Stepper(classifier, folder=tmp_path)
    (kept,) = tmp_path.glob("*/step.onnx")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    assert Stepper(classifier, folder=tmp_path).runtime == "onnx"
    monkeypatch.undo()
    with torch.no_grad():
        classifier.model.head.classify.bias += 1
    Stepper(classifier, folder=tmp_path)
    assert len(list(tmp_path.glob("*/step.onnx"))) == 2
    kept.write_bytes(b"no model")
    with torch.no_grad():
        classifier.model.head.classify.bias -= 1
    answers, _ = pushed(Stepper(classifier, folder=tmp_path), frames(T))
    assert np.abs(answers[-1] - clip_logits(classifier, frames(T))).max() <= 1e-4


def test_a_step_that_differs_from_torch_is_refused(tmp_path):
    classifier = make("frame_cnn")
    exported = exported_step(classifier, rows=2, size=(SIZE, SIZE), folder=tmp_path)
    with torch.no_grad():
        classifier.model.head.classify.weight.mul_(1.01)
    step = TorchStep(classifier.model, rows=2, device=torch.device("cpu"))
    with pytest.raises(ClassifierError, match=r"differ by .*expected at most 1e-04: use runtime 'torch'"):
        check_step_parity(step, exported, torch.randn(2, 3, SIZE, SIZE))


@pytest.mark.parametrize(("name", "files"), [("cnn_gru", 2), ("shift", 1)])
def test_a_saved_classifier_streams_without_another_export(name, files, tmp_path, monkeypatch):
    classifier, pixels = make(name), frames(2 * T)
    folder = classifier.save(tmp_path / "clf")
    assert len(list(folder.glob("*.onnx"))) == files, "what is computed of each frame alone is written once"
    loaded = Classifier.load(folder)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    for state in ("window", "carry"):
        stepper = Stepper(loaded, state=state, folder=tmp_path / "cache")
        assert stepper.runtime == "onnx"
        answers, _ = pushed(stepper, pixels)
        expected, _ = pushed(Stepper(classifier, runtime="torch", state=state), pixels)
        assert np.abs(np.stack(answers[T - 1 :]) - np.stack(expected[T - 1 :])).max() <= 1e-4
    assert not (tmp_path / "cache").exists()
    assert Classifier.load(folder, runtime="torch").step_path is None


def test_a_damaged_saved_step_is_exported_again(tmp_path):
    folder = make("frame_cnn").save(tmp_path / "clf")
    (folder / "step.onnx").write_bytes(b"no model")
    stepper = Stepper(Classifier.load(folder), folder=tmp_path / "cache")
    assert stepper.runtime == "onnx"
    assert [path.name for path in tmp_path.glob("cache/*/*")] == ["step.onnx"], "the saved backbone is used"


class _Data(Head):
    """A head that torch cannot export: what it does depends on the numbers."""

    needs_whole_clip = None

    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 3)

    def forward(self, features):
        return self.classify(features.mean((1, 3, 4)))

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def step(self, features, state):
        if float(features.sum()) > 1e9:
            return self.classify(features.mean((2, 3))) * 0, state
        return self.classify(features.mean((2, 3))), state


def test_a_step_that_cannot_be_exported_runs_in_torch_and_says_so(tmp_path):
    model = VideoModel()
    model.head = _Data()
    classifier = Classifier(model, "own", {}, SPEC, CLASSES)
    stepper = Stepper(classifier, folder=tmp_path)
    assert stepper.runtime == "torch"
    assert "torch runs the step: the model's step cannot be written as ONNX" in stepper.notes[0]
    with pytest.raises(ClassifierError, match="cannot be written as ONNX"):
        Stepper(classifier, runtime="onnx", folder=tmp_path)
    assert not (classifier.save(tmp_path / "clf") / "step.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "carry"}, "conv3d_small has no step"),
        ({"state": "often"}, "expected one of window, carry, clip"),
        ({"stride_frames": 0}, "expected 1 or more"),
        ({"runtime": "tvm"}, "expected auto, torch or onnx"),
        ({"runtime": "onnx"}, "no exported per-frame part"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        Stepper(make("conv3d_small"), **options)


def test_a_frame_of_another_size_is_refused():
    stepper = Stepper(make("conv3d_small"))
    with pytest.raises(InputMismatchError, match=r"expected uint8 \(32, 32, 3\)"):
        stepper.push(np.zeros((16, 32, 3), np.uint8), stepper.start())


@pytest.mark.parametrize(("longest", "says"), [(3.0, True), (1.4, False)])
def test_clips_of_many_lengths_cut_to_one_are_told(longest, says):
    """What it learnt to see from start to end it sees live in part; the remedy names a rate that fits."""
    spans = SpanRange(0.75, 1.0, longest)
    spec = dataclasses.replace(SPEC, sampling="whole", fps=None, trained_spans=spans)
    notes = Stepper(dataclasses.replace(make(), spec=spec), runtime="torch").notes
    if not says:
        assert notes == ()
        return
    (note,) = notes
    assert "0.8 to 3.0 s" in note
    assert "sees 1.0 s at a time" in note
    assert "--sampling window --fps 4" in note
