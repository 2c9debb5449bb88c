"""Foreign models: the same frames give the same answer as in their own framework, and bad files are told."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import timm
import torch
import torchvision
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from vidette.classifier.classifier import Classifier
from vidette.classifier.declared import DeclaredInput, read_classes
from vidette.classifier.imports import import_keras, import_state_dict
from vidette.cli_import import import_model
from vidette.errors import ClassifierError, SettingError, VidetteError
from vidette.models.keras_network import keras_installed, keras_library
from vidette.prediction.files import predict_file
from vidette.video.clip import Clip
from vidette.video.motion import write_motion_clips

with_keras = pytest.mark.skipif(
    not keras_installed(), reason="keras is not installed: pip install 'vidette[keras]'"
)
NAMES = ("fall", "walk", "wave")
T, SIZE = 4, (24, 32)
NORMALISED = {
    "0..1": lambda p: p / 255,
    "-1..1": lambda p: p / 127.5 - 1,
    "0..255": lambda p: p,
    "imagenet": lambda p: (p / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "caffe": lambda p: p[..., ::-1] - [103.939, 116.779, 123.68],
}


def clips(count=3, frames=T, size=SIZE):
    rng = np.random.default_rng(0)
    return [
        Clip(rng.integers(0, 256 >> i, (frames, *size, 3), np.uint8), np.arange(frames) / 10)
        for i in range(count)
    ]


def pixels(of):
    return np.stack([clip.pixels for clip in of]).astype(np.float64)


def clip_layers(layers, time=T):
    return [
        layers.Input((time, *SIZE, 3)),
        layers.TimeDistributed(layers.Conv2D(8, 3, strides=4, activation="relu")),
        layers.BatchNormalization(),
        layers.TimeDistributed(layers.Flatten()),
        layers.LSTM(8),
        layers.Dropout(0.5),
    ]


def image_layers(layers, size=SIZE):
    return [
        layers.Input((*size, 3)),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
    ]


def keras_model(body, *end, brightest=1.0):
    """Build a model whose answers differ, with statistics of its own, for inputs up to ``brightest``."""
    keras = keras_library()
    keras.utils.set_random_seed(3)
    model = keras.Sequential([*body(keras.layers), *end])
    rng = np.random.default_rng(1)
    first, *others = model.get_weights()
    others = [w + 0.3 * np.abs(rng.standard_normal(w.shape)) for w in others]
    model.set_weights([first / brightest, *others])
    return model


def softmax(num=3):
    return keras_library().layers.Dense(num, activation="softmax")


@with_keras
@pytest.mark.parametrize(
    ("body", "ending", "values", "order"),
    [
        (clip_layers, ".keras", "0..1", None),
        (clip_layers, ".h5", "-1..1", "BGR"),
        (image_layers, ".keras", "caffe", None),
        (image_layers, ".h5", "imagenet", "RGB"),
        (image_layers, ".keras", "imagenet", "BGR"),
    ],
)
def test_the_classifier_gives_kerass_own_probabilities(body, ending, values, order, tmp_path):
    model = keras_model(body, softmax(), brightest=128.0 if values == "caffe" else 1.0)
    model.save(tmp_path / f"model{ending}")
    declared = DeclaredInput(num_frames=T, fps=8, values=values, channel_order=order)
    import_keras(tmp_path / f"model{ending}", NAMES, declared=declared).save(tmp_path / "clf")
    classifier = Classifier.load(tmp_path / "clf")
    seen = NORMALISED[values](pixels(clips()))
    seen = seen[..., ::-1] if order == "BGR" else seen
    if body is clip_layers:
        expected = model.predict(seen, verbose=0)
    else:
        expected = model.predict(seen.reshape(-1, *SIZE, 3), verbose=0).reshape(3, T, 3).mean(1)
    got = classifier.probabilities(classifier.logits(clips()))
    assert np.ptp(expected, axis=0).max() > 1e-4, "answers that never differ test nothing"
    assert np.abs(got - expected).max() <= 1e-5
    assert (classifier.spec.num_frames, classifier.spec.height, classifier.spec.width) == (T, *SIZE)
    assert (classifier.spec.fps, classifier.classes) == (8, NAMES)
    files = {"classifier.json", "weights.safetensors", *(["step.onnx"] if classifier.model.can_step else [])}
    assert {path.name for path in (tmp_path / "clf").iterdir()} == files


@with_keras
def test_a_frame_classifier_steps_and_a_clip_classifier_says_why_not(tmp_path):
    keras_model(image_layers, softmax()).save(tmp_path / "image.keras")
    model = import_keras(tmp_path / "image.keras", NAMES, declared=DeclaredInput(num_frames=T)).model
    x = torch.rand(2, T, 3, *SIZE)
    with torch.no_grad():
        logits, _ = model.steps(x, model.initial_state(2))
        assert torch.allclose(logits[:, -1], model(x), atol=1e-5)
    keras_model(clip_layers, softmax()).save(tmp_path / "clip.keras")
    with pytest.raises(SettingError, match="keras_file has no step: it was imported from Keras"):
        import_keras(tmp_path / "clip.keras", NAMES).model.initial_state(1)


@with_keras
def test_logits_one_sigmoid_and_a_nested_softmax_are_told_apart(tmp_path):
    keras = keras_library()
    nested = keras.Sequential([keras_model(image_layers, softmax())])
    plain = keras_model(image_layers, keras.layers.Dense(3))
    one = keras_model(image_layers, keras.layers.Dense(1, activation="sigmoid"))
    seen = pixels(clips()).reshape(-1, *SIZE, 3) / 255
    nested.predict(seen, verbose=0)  # builds it
    for model, names, kind in (
        (nested, NAMES, "probabilities"),
        (plain, NAMES, "logits"),
        (one, NAMES[:2], "one_probability"),
    ):
        model.save(tmp_path / "model.keras")
        classifier = import_keras(tmp_path / "model.keras", names, declared=DeclaredInput(num_frames=T))
        assert classifier.model_options["outputs"] == kind
        logits = classifier.logits(clips())
        given = model.predict(seen, verbose=0).reshape(3, T, -1).mean(1)
        if kind == "logits":
            assert np.abs(logits - given).max() <= 1e-5
        else:
            column = slice(None) if kind == "probabilities" else slice(1, 2)
            assert np.abs(classifier.probabilities(logits)[:, column] - given).max() <= 1e-5


@with_keras
def test_a_certain_softmax_stays_finite(tmp_path):
    model = keras_model(image_layers, softmax())
    model.set_weights([*model.get_weights()[:-1], np.array([1e4, 0, 0], np.float32)])
    model.save(tmp_path / "model.keras")
    logits = import_keras(tmp_path / "model.keras", NAMES).logits(clips(frames=16))
    assert np.isfinite(logits).all()


def contradicting(tmp_path, keras):
    keras_model(clip_layers, softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(num_frames=5), "--frames is 5 but the model's input says 4"


def other_size(tmp_path, keras):
    keras_model(image_layers, softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(size=32), r"--size is \(32, 32\) but the model's input says \(24, 32\)"


def open_size(tmp_path, keras):
    body = lambda layers: image_layers(layers, (None, None))  # noqa: E731
    keras_model(body, softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(), "leaves this open; say --size"


def five_outputs(tmp_path, keras):
    keras_model(image_layers, softmax(5)).save(tmp_path / "m.keras")
    return DeclaredInput(), r"output is \(None, 5\) but 3 classes are named: fall, walk, wave"


def one_output(tmp_path, keras):
    keras_model(image_layers, keras.layers.Dense(1, activation="sigmoid")).save(tmp_path / "m.keras")
    return DeclaredInput(), r"\(None, 1\) \(one sigmoid unit stands for two classes\) but 3 classes"


def many_sigmoids(tmp_path, keras):
    keras_model(image_layers, keras.layers.Dense(3, activation="sigmoid")).save(tmp_path / "m.keras")
    return DeclaredInput(), "3 sigmoids"


def rescaled(tmp_path, keras):
    body = lambda layers: [layers.Input((*SIZE, 3)), layers.Rescaling(1 / 255), layers.Flatten()]  # noqa: E731
    keras_model(body, softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(), "rescales its input.*say --range"


def grey(tmp_path, keras):
    body = lambda layers: [layers.Input((24, 32, 1)), layers.Flatten()]  # noqa: E731
    keras_model(body, softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(), r"input is \(None, 24, 32, 1\); expected clips"


def two_inputs(tmp_path, keras):
    inputs = [keras.Input((8,)), keras.Input((8,))]
    keras.Model(inputs, softmax()(keras.layers.Add()(inputs))).save(tmp_path / "m.keras")
    return DeclaredInput(), "one input and one output"


def holds_lambda(tmp_path, keras):
    body = lambda layers: [*image_layers(layers), layers.Lambda(lambda x: 2 * x, name="double")]  # noqa: E731
    keras_model(body, softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(), "Lambda 'double'.*Python code inside the file.*unsafe"


def holds_own_layer(tmp_path, keras):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    keras_model(lambda layers: [*image_layers(layers), Own()], softmax()).save(tmp_path / "m.keras")
    return DeclaredInput(), "Own 'own'.*not part of Keras"


def calls_a_function(tmp_path, keras):
    """A description may name any function of Keras as an activation, one that downloads files too."""
    keras_model(image_layers, softmax()).save(tmp_path / "good.keras")
    evil = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "function",
    }
    with zipfile.ZipFile(tmp_path / "good.keras") as old, zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                data = data.replace(b'"activation": "relu"', b'"activation": ' + json.dumps(evil).encode())
            new.writestr(name, data)
    return DeclaredInput(), "function 'get_file' of keras.utils"


def keeps_a_state(tmp_path, keras):
    inputs = keras.Input(batch_shape=(4, T, 8, 8, 3))
    steps = keras.layers.Reshape((T, 192))(inputs)
    last = keras.layers.LSTM(8, stateful=True)(steps)
    keras.Model(inputs, softmax()(last)).save(tmp_path / "m.keras")
    return DeclaredInput(), "cannot answer an input"


def no_zip(tmp_path, keras):
    (tmp_path / "m.keras").write_bytes(b"no zip at all")
    return DeclaredInput(), "holds no description of a Keras model"


def absent(tmp_path, keras):
    return DeclaredInput(), "no such file"


@with_keras
@pytest.mark.parametrize(
    "make",
    [
        contradicting,
        other_size,
        open_size,
        five_outputs,
        one_output,
        many_sigmoids,
        rescaled,
        grey,
        two_inputs,
        holds_lambda,
        holds_own_layer,
        calls_a_function,
        keeps_a_state,
        no_zip,
        absent,
    ],
)
def test_what_cannot_be_imported_is_one_clear_error(make, tmp_path):
    declared, message = make(tmp_path, keras_library())
    with pytest.raises(VidetteError, match=message) as caught:
        import_keras(tmp_path / "m.keras", NAMES, declared=declared)
    assert isinstance(caught.value, SettingError | ClassifierError)


@with_keras
def test_an_h5_file_with_a_lambda_or_with_weights_alone_is_refused(tmp_path):
    body = lambda layers: [*image_layers(layers), layers.Lambda(lambda x: 2 * x)]  # noqa: E731
    keras_model(body, softmax()).save(tmp_path / "m.h5")
    with pytest.raises(ClassifierError, match="Python code inside the file"):
        import_keras(tmp_path / "m.h5", NAMES)
    with h5py.File(tmp_path / "m.h5", "a") as file:
        del file.attrs["model_config"]
    with pytest.raises(ClassifierError, match="not weights alone"):
        import_keras(tmp_path / "m.h5", NAMES)


@with_keras
def test_a_lambda_put_into_a_classifier_folder_is_refused(tmp_path):
    keras_model(image_layers, softmax()).save(tmp_path / "m.keras")
    import_keras(tmp_path / "m.keras", NAMES).save(tmp_path / "clf")
    path = tmp_path / "clf" / "classifier.json"
    path.write_text(path.read_text().replace('"class_name": "Conv2D"', '"class_name": "Lambda"'))
    with pytest.raises(ClassifierError, match="Python code inside the file"):
        Classifier.load(tmp_path / "clf")


def drawn_state(architecture, num_classes):
    torch.manual_seed(0)
    library, name = architecture.split(":")
    if library == "timm":
        network = timm.create_model(name, num_classes=num_classes)
    else:
        network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize(
    ("architecture", "ending", "size"),
    [("timm:test_resnet", ".pth", None), ("torchvision:shufflenet_v2_x0_5", ".safetensors", 64)],
)
def test_an_image_classifiers_state_dict_answers_as_the_network_does(architecture, ending, size, tmp_path):
    network = drawn_state(architecture, 3)
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"state_dict": {**state, "module.teacher": torch.zeros(2)}, "epoch": 3}, path)
    else:
        save_file(network.state_dict(), path)
    declared = DeclaredInput(num_frames=T, size=size)
    import_state_dict(path, NAMES, architecture=architecture, declared=declared).save(
        tmp_path / "clf", onnx=ending == ".pth"
    )
    classifier = Classifier.load(tmp_path / "clf")
    side = size or 160
    assert (classifier.spec.height, classifier.spec.width) == (side, side)
    given = clips(2, size=(side, side))
    config = timm.get_pretrained_cfg("test_resnet")
    mean, std = (config.mean, config.std) if size is None else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    seen = torch.from_numpy((pixels(given) / 255 - mean) / std).float().permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        expected = network(seen.flatten(0, 1)).unflatten(0, (2, T)).mean(1).numpy()
    assert np.abs(classifier.logits(given) - expected).max() <= 1e-4
    report = "\n".join(classifier.training_statistics["weights"])
    assert ("not in the model: teacher" in report) == (ending == ".pth")


def test_weights_that_do_not_fit_name_every_part(tmp_path):
    state = drawn_state("timm:test_resnet", 3).state_dict()
    path = tmp_path / "weights.pth"
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("layer1")}, path)
    absent = [name for name in state if name.startswith("layer1") and "num_batches" not in name]
    with pytest.raises(SettingError, match="would keep random numbers") as caught:
        import_state_dict(path, NAMES, architecture="timm:test_resnet")
    assert all(name in str(caught.value) for name in absent)
    torch.save(state, path)
    for names, architecture, message in (
        (("a", "b"), "timm:test_resnet", r"knows 3 classes \(fc.weight\) but 2 are named: a, b"),
        (NAMES, "timm:test_resnett", "did you mean 'test_resnet'"),
        (NAMES, "resnet18", "expected timm:NAME or torchvision:NAME"),
        (NAMES, "torchvision:mobilenet_v2", r"no classifier \(classifier.1.weight"),
    ):
        with pytest.raises(SettingError, match=message):
            import_state_dict(path, names, architecture=architecture)


def test_class_names_are_checked(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufefffall\n\n walk \n", encoding="utf-8")
    assert read_classes(path) == ("fall", "walk")
    for text, message in (("a\nb\na\n", "'a' twice"), ("a\n", "1 names")):
        path.write_text(text)
        with pytest.raises(SettingError, match=message):
            read_classes(path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_classes(tmp_path / "nowhere.txt")


@pytest.fixture(scope="module")
def command():
    app = typer.Typer()
    app.command()(import_model)
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


@with_keras
def test_the_command_makes_a_classifier_that_labels_videos(command, tmp_path):
    keras_model(image_layers, softmax(8)).save(tmp_path / "m.keras")
    write_motion_clips(tmp_path / "clips", num_scenes=1, size=(32, 32))
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(sorted(path.name for path in (tmp_path / "clips").iterdir() if path.is_dir())))
    arguments = ["--classes", labels, "--frames", 4, "--fps", 8, "--range", "-1..1", "--out", tmp_path / "clf"]
    done = command(tmp_path / "m.keras", *arguments)
    assert done.exit_code == 0, done.output
    for shown in ("4 frames of 24x32, 8 fps", "(0.5, 0.5, 0.5)", "outputs of the model: probabilities"):
        assert shown in done.output
    video = next((tmp_path / "clips").glob("left/*.mp4"))
    answer = predict_file(Classifier.load(tmp_path / "clf"), video)
    assert answer.label in read_classes(labels)
    assert "overwrite" in str(command(tmp_path / "m.keras", *arguments).exception)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("m.onnx", [], r"'.onnx'; expected one of .keras"),
        ("m.pth", [], "say --architecture"),
        ("m.keras", ["--architecture", "timm:resnet18"], "leave --architecture out"),
        ("m.pth", ["--architecture", "timm:resnet18"], "m.pth"),
        ("m.keras", ["--size", "64by64"], "64x96"),
        ("m.keras", ["--fps", "0"], "above 0"),
        ("m.keras", ["--range", "caffe", "--channel-order", "RGB"], "blue first"),
    ],
)
def test_the_command_tells_wrong_options(command, name, more, message, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    done = command(tmp_path / name, "--classes", labels, "--out", tmp_path / "clf", *more)
    assert isinstance(done.exception, VidetteError)
    with pytest.raises(VidetteError, match=message):
        raise done.exception
