"""What a split's training passes on: mixing, stages, warnings."""

from dataclasses import replace

import pytest
import torch

from vidette.data.cache import ClipCache, expand_windows
from vidette.data.manifest import read_manifest
from vidette.data.split import SplitPlan, split_manifest
from vidette.evaluation.abstain import find_abstaining
from vidette.evaluation.reference import find_reference
from vidette.training.fold import train_fold
from vidette.training.lr_finder import RateSearch
from vidette.training.recipe import with_options
from vidette.training.recipes import RECIPES


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine the threads of such small steps wait for one another most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Lines:
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def progress(self, stage, done, total):
        pass

    def epoch(self, record, total):
        pass


@pytest.fixture(scope="module")
def manifest(motion_clips):
    return read_manifest(motion_clips)


def trained(manifest, folder, **options):
    quick = {"size": 32, "num_frames": 4, "epochs": 1, "accelerator": "cpu", "batch_size": 16, "grid": 1}
    recipe = with_options(RECIPES["motion"], {**quick, **options})
    folder.mkdir()
    lines = Lines()
    split = split_manifest(manifest, SplitPlan())
    result = train_fold(manifest, split, recipe, cache=ClipCache(), folder=folder, listener=lines, smoke=True)
    reference = find_reference(result.classifier)
    assert reference is not None
    assert reference.n == len(split.validation)
    record = result.fit.history[0]
    return (record.train_loss, record.validation_loss), lines.said


def test_refit_learns_from_the_validation_clips_too_for_as_many_epochs_as_were_best(manifest, tmp_path):
    quick = {"size": 32, "num_frames": 4, "epochs": 3, "accelerator": "cpu", "batch_size": 16, "grid": 1}
    split, said, results = split_manifest(manifest, SplitPlan()), {}, {}
    for refit in (False, True):
        folder, lines = tmp_path / str(refit), Lines()
        folder.mkdir()
        recipe = with_options(RECIPES["motion"], {**quick, "refit": refit})
        results[refit] = train_fold(manifest, split, recipe, cache=ClipCache(), folder=folder, listener=lines)
        said[refit] = lines.said
    once, again = results[False], results[True]
    assert once.fit.history[-1].validation_loss == again.fit.history[-1].validation_loss
    assert once.classifier.temperature == again.classifier.temperature
    weights = [result.classifier.model.state_dict() for result in (once, again)]
    assert any(not torch.equal(weights[0][name], value) for name, value in weights[1].items())
    num_epochs = once.fit.best_epoch + 1
    assert f"once more with the validation clips, {num_epochs} epochs" in said[True]
    lines = (tmp_path / "True" / "refit" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == num_epochs


def test_a_head_with_a_summary_learns_from_it_and_answers_as_on_the_clips(manifest, tmp_path):
    options = {"size": 32, "num_frames": 4, "epochs": 2, "accelerator": "cpu", "refit": False, "grid": 2}
    recipe = with_options(RECIPES["change"], options)
    cache = ClipCache()
    result = train_fold(
        manifest, split_manifest(manifest, SplitPlan()), recipe, cache=cache, folder=tmp_path, listener=Lines()
    )
    assert result.features is not None
    clips = list(manifest.clips[:3])
    assert result.features.load(clips[0]).dim() == 1
    from_clips = result.classifier.logits([cache.load(clip, result.classifier.spec) for clip in clips])
    assert abs(from_clips - result.features.logits(clips)).max() < 1e-3
    reference = find_reference(result.classifier)
    assert reference is not None
    assert reference.features is not None


def test_a_codebook_is_learnt_from_training_clips_alone_and_stays_in_the_refit(manifest, tmp_path):
    options = {"size": 32, "num_frames": 8, "words": 4, "projection": 8, "epochs": 2, "resize": "stretch"}
    recipe = with_options(RECIPES["flow"], {**options, "accelerator": "cpu"})
    split, cache = split_manifest(manifest, SplitPlan()), ClipCache()
    books, results = {}, {}
    ways = {"refit": {}, "once": {"refit": False}, "pixels": {"frozen": False, "epochs": 1}}
    for name, changed in ways.items():
        (tmp_path / name).mkdir()
        asked = with_options(recipe, changed)
        result = train_fold(manifest, split, asked, cache=cache, folder=tmp_path / name, listener=Lines())
        books[name], results[name] = result.classifier.model.head.codebook.state_dict(), result
    for name in ("once", "pixels"):
        assert all(torch.equal(books["refit"][key], books[name][key]) for key in books["refit"])
    assert results["pixels"].features is None
    clips = list(manifest.clips[:3])
    made = results["refit"].classifier
    from_clips = made.logits([cache.load(clip, made.spec) for clip in clips])
    assert abs(from_clips - results["refit"].features.logits(clips)).max() < 1e-3
    fewer = replace(split, train=split.train[: len(split.train) // 2])
    (tmp_path / "fewer").mkdir()
    asked = with_options(recipe, {"refit": False})
    other = train_fold(manifest, fewer, asked, cache=cache, folder=tmp_path / "fewer", listener=Lines())
    assert not torch.equal(other.classifier.model.head.codebook.means, books["once"]["means"])


@pytest.mark.parametrize("timing", [{"sampling": "whole"}, {"sampling": "window", "fps": 8.0}])
def test_abstaining_is_promised_of_whole_clips(manifest, tmp_path, timing):
    """A clip cut into windows counts once."""
    quick = {"size": 32, "num_frames": 4, "epochs": 1, "accelerator": "cpu", "batch_size": 16, "grid": 1}
    recipe = with_options(RECIPES["motion"], {**quick, **timing})
    split = split_manifest(manifest, SplitPlan())
    result = train_fold(
        manifest, split, recipe, cache=ClipCache(), folder=tmp_path, listener=Lines(), smoke=True
    )
    answered = expand_windows([manifest.clips[i] for i in split.validation], result.classifier.spec)[:16]
    made = find_abstaining(result.classifier.training_statistics)
    assert made.num_clips == len({clip.part_of or clip.name for clip in answered})
    assert made.num_groups == len({clip.group for clip in answered})
    assert (made.num_clips < 16) == (timing["sampling"] == "window")


def test_every_setting_reaches_the_training(manifest, tmp_path):
    """Each changes what one batch of the same seed teaches."""
    plain, _ = trained(manifest, tmp_path / "plain", crop_scale_min=1.0, colour=0.0)
    each = [
        {"noise": 0.5},
        {"speed": 2.0},
        {"mixup": 1.0},
        {"cutmix": 1.0},
        {"loss": "focal"},
        {"unfreeze_epochs": 1},
    ]
    for number, options in enumerate(each):
        losses, _ = trained(manifest, tmp_path / f"{number}", crop_scale_min=1.0, colour=0.0, **options)
        assert losses != plain, options
    again, _ = trained(manifest, tmp_path / "again", crop_scale_min=1.0, colour=0.0)
    assert again == plain


def test_a_fold_learns_at_the_rate_found_on_its_own_training_clips(manifest, tmp_path):
    quick = {"size": 32, "num_frames": 4, "epochs": 1, "accelerator": "cpu", "batch_size": 16, "grid": 1}
    more = {"find_learning_rate": True, "schedule": "constant", "warmup_fraction": 0.0}
    recipe = with_options(RECIPES["motion"], {**quick, **more})
    split, lines = split_manifest(manifest, SplitPlan()), Lines()

    def learning_rate(**resume):
        result = train_fold(
            manifest, split, recipe, cache=ClipCache(), folder=tmp_path, listener=lines, **resume
        )
        (tmp_path / "checkpoint.pt").unlink()
        kept = RateSearch.read(tmp_path / "learning_rate.json")
        assert result.classifier.training_statistics["learning_rate"] == kept.suggestion
        assert result.fit.history[0].learning_rate == pytest.approx(kept.suggestion)
        assert kept.line() in lines.said
        return kept.suggestion

    found = learning_rate()
    assert found != recipe.train.learning_rate
    kept = RateSearch((1e-4, 1e-3), (1.0, 0.5), 1e-3)
    kept.write(tmp_path / "learning_rate.json")
    assert learning_rate(resume=True) == 1e-3  # an interrupted run goes on at its rate
    assert learning_rate() == found
