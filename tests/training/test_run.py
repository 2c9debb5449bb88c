"""A whole run on drawn clips: what is left in the folder, and what a user may do wrong."""

import json
from importlib.util import find_spec

import pytest

import vidette
from vidette.classifier.classifier import Classifier
from vidette.errors import ManifestError, OutputExistsError, SettingError, SplitError
from vidette.training.recipe import with_options
from vidette.training.recipes import RECIPES
from vidette.training.run import SilentListener, fitted_recipe, new_run_folder, read_run, train

QUICK = {"size": 32, "num_frames": 8, "epochs": 2, "accelerator": "cpu"}
RECIPE = with_options(RECIPES["motion"], {**QUICK, "model": "conv3d_small"})


@pytest.fixture(scope="module")
def run(motion_clips, tmp_path_factory):
    return train(motion_clips, recipe=RECIPE, out=tmp_path_factory.mktemp("runs") / "run")


def test_the_run_folder_is_whole(run):
    names = {path.name for path in run.folder.iterdir()}
    tables = {"recipe.toml", "split.csv", "metrics.jsonl", "evaluation.json", "versions.json"}
    assert names == tables | {"curves.png", "classifier", "report.html"}
    assert 'src="http' not in (run.folder / "report.html").read_text(encoding="utf-8")
    numbers = json.loads((run.folder / "evaluation.json").read_text())["test"]["metrics"]
    assert numbers["n"] == run.metrics.n
    assert numbers["accuracy"] == run.metrics.accuracy


def test_no_group_is_on_two_sides_and_the_three_sets_cover_all(run):
    recipe, manifest, test = read_run(run.folder)
    assert recipe == RECIPE
    groups = {
        part: {c.group for c in manifest.clips if c.split == part} for part in ("train", "validation", "test")
    }
    assert all(groups.values())
    assert not groups["train"] & groups["validation"]
    assert not groups["test"] & (groups["train"] | groups["validation"])
    assert sum(c.split is None for c in manifest.clips) == 0
    assert len(test) == run.metrics.n


def test_the_saved_classifier_gives_the_reported_answers(run):
    loaded = Classifier.load(run.folder)
    assert loaded.classes == run.classifier.classes
    assert loaded.spec.trained_spans is not None
    assert 0 < loaded.spec.trained_spans.shortest_seconds <= loaded.spec.trained_spans.longest_seconds < 4


def test_api_predicts_a_file_like_the_evaluation_did(run):
    clf = vidette.load(run.folder)
    first = run.evaluation.clips[0]
    answer = clf.predict(first.path)
    logits = run.evaluation.predictions.logits[0]
    assert answer.label == clf.classes[int(logits.argmax())]
    assert answer.probability == pytest.approx(clf.probabilities(logits).max(), abs=1e-4)


def test_frozen_features_equal_the_classifier_that_is_saved(motion_clips, tmp_path):
    """What is trained on stored features answers the same from pixels."""
    recipe = with_options(RECIPES["default"], {"size": 32, "num_frames": 4, "epochs": 1, "accelerator": "cpu"})
    run = train(motion_clips, recipe=recipe, out=tmp_path / "run")
    assert run.classifier.runtime == "onnx"
    torch_logits = Classifier.load(run.folder, runtime="torch")
    from vidette.data.cache import ClipCache

    clip = ClipCache().load(run.evaluation.clips[0], run.classifier.spec)
    assert abs(torch_logits.logits([clip]) - run.classifier.logits([clip])).max() <= 1e-4


def test_folds_test_every_clip_once_and_show_the_leak_beside(motion_clips, tmp_path):
    run = train(motion_clips, recipe=with_options(RECIPE, {"epochs": 1}), out=tmp_path / "run", folds=3)
    crossed = run.cross_validation
    assert sorted(crossed.predictions.names) == sorted(c.name for c in read_run(run.folder)[1].clips)
    assert [name for name, _ in crossed.compared] == ["3 folds by grouped", "random folds (stratified)"]
    assert run.metrics is crossed.metrics
    assert not list(run.folder.rglob("checkpoint.pt"))
    assert "leak" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_window_sampling_trains_and_predicts(motion_clips, tmp_path):
    recipe = with_options(RECIPE, {"epochs": 1, "num_frames": 4, "sampling": "window", "fps": 6.0})
    run = train(motion_clips, recipe=recipe, out=tmp_path / "run")
    assert run.classifier.spec.span_seconds == pytest.approx(0.5)
    assert len(vidette.load(run.folder).predict(run.evaluation.clips[0].path).timeline.windows) > 1


def test_an_existing_run_is_kept_and_a_foreign_folder_never_replaced(run, motion_clips, tmp_path):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(motion_clips, recipe=RECIPE, out=run.folder)
    assert (run.folder / "report.html").is_file()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="not a run"):
        train(motion_clips, recipe=RECIPE, out=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_resume_needs_the_same_recipe(run, motion_clips):
    with pytest.raises(SettingError, match="another recipe"):
        train(motion_clips, recipe=with_options(RECIPE, {"epochs": 9}), out=run.folder, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 5}, "no option hidden"),
        ({"model": "cnn_gru", "weights": "none", "frozen": True}, "learns nothing"),
        ({"weights": "imagnet"}, "expected imagenet, kinetics, none, or a"),
    ],
)
def test_a_recipe_that_does_not_fit_is_named(options, message, motion_clips, tmp_path):
    with pytest.raises(SettingError, match=message):
        train(motion_clips, recipe=with_options(RECIPE, options), out=tmp_path / "run")


def test_faults_of_the_clips_are_named_before_anything_is_made(motion_clips, tmp_path):
    with pytest.raises(ManifestError):
        train(tmp_path / "nowhere", recipe=RECIPE, out=tmp_path / "run")
    one = tmp_path / "one.csv"
    path = next(motion_clips.glob("left/*.mp4"))
    one.write_text(f"path,label\n{path},left\n{next(motion_clips.glob('up/*.mp4'))},up\n")
    with pytest.raises(SplitError, match="at least 3 clips"):
        train(one, recipe=RECIPE, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mirroring_is_warned_of_once_by_names_and_by_clips_and_only_where_clips_are_mirrored(
    motion_clips, tmp_path
):
    class Lines(SilentListener):
        def __init__(self):
            self.about_flip = []

        def say(self, text):
            self.about_flip += [text] if "--no-flip" in text else []

    heard, quiet = Lines(), Lines()
    mirrored = with_options(RECIPE, {"flip": True})
    train(motion_clips, recipe=mirrored, out=tmp_path / "a", folds=2, smoke=True, listener=heard)
    by_names, by_clips = heard.about_flip
    assert "class" in by_names
    assert "left and right (told apart in" in by_clips
    train(motion_clips, recipe=RECIPE, out=tmp_path / "b", smoke=True, listener=quiet)
    assert quiet.about_flip == []


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra 'transformers'")
def test_a_network_of_transformers_is_trained_on_what_its_own_preprocessor_gives(motion_clips, tmp_path):
    import transformers

    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, num_labels=2, **tiny)
    transformers.VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "net")
    transformers.VideoMAEImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "net")
    wanted = fitted_recipe(
        motion_clips, RECIPES["default"], {"model": f"hf:{tmp_path / 'net'}", "frozen": False}
    )
    assert (wanted.clip.num_frames, wanted.clip.size) == (4, 32)
    spec = train(motion_clips, recipe=wanted, out=tmp_path / "run", smoke=True).classifier.spec
    assert spec.mean == pytest.approx((0.1, 0.2, 0.3))
    assert spec.std == pytest.approx((0.5, 0.5, 0.5))
    assert new_run_folder(tmp_path, motion_clips, "hf:some/net") == tmp_path / "clips-net"
