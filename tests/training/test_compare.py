"""Comparing: one protocol for all, finished runs kept, nothing of another comparison overwritten."""

import csv
import json
import shutil

import numpy as np
import pytest

from vidette.errors import OutputExistsError, SettingError
from vidette.training import compare as compare_module
from vidette.training.compare import compare
from vidette.training.recipe import with_options
from vidette.training.recipes import named_recipe

QUICK = {"size": 32, "num_frames": 8, "epochs": 1}


def recipes(*names, **options):
    return {name: with_options(named_recipe("motion"), {**QUICK, **options, "model": name}) for name in names}


@pytest.fixture(scope="module")
def compared(motion_clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    return compare(motion_clips, recipes("frame_cnn", "conv3d_small"), out)


def test_rows_hold_the_runs_own_numbers(compared):
    assert [row.model for row in compared.rows] == ["frame_cnn", "conv3d_small"]
    for row in compared.rows:
        results = json.loads((compared.folder / row.model / "evaluation.json").read_text())["test"]
        assert row.accuracy == results["metrics"]["accuracy"]
        assert row.n == results["metrics"]["n"]
        assert row.order_gap == results["consistency"]["order_gap"]
        assert row.gflops > 0
        assert row.clip_ms > 0
        assert not row.reused
    frame_cnn, conv3d = compared.rows
    assert frame_cnn.frame_ms is not None
    assert conv3d.frame_ms is None  # it wants whole clips


def test_every_model_is_tested_on_the_same_clips(compared):
    tables = [(compared.folder / row.model / "split.csv").read_text() for row in compared.rows]
    assert tables[0] == tables[1]


def test_table_and_picture_are_written(compared):
    with (compared.folder / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [row.accuracy for row in compared.rows]
    assert json.loads((compared.folder / "comparison.json").read_text()) == compared.to_dict()
    assert (compared.folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_added_later_is_the_only_one_trained(compared, motion_clips, monkeypatch):
    trained = []
    real = compare_module.train
    monkeypatch.setattr(
        compare_module, "train", lambda *a, **k: trained.append(k["recipe"].model.model) or real(*a, **k)
    )
    again = compare(motion_clips, recipes("frame_cnn", "conv3d_small", "conv3d_causal"), compared.folder)
    assert trained == ["conv3d_causal"]
    assert [row.reused for row in again.rows] == [True, True, False]
    assert again.rows[0].accuracy == compared.rows[0].accuracy
    trained.clear()
    compare(motion_clips, recipes("frame_cnn", "conv3d_small", dropout=0.1), compared.folder)
    assert trained == ["frame_cnn", "conv3d_small"]  # other recipes, so other runs


def test_another_comparison_and_foreign_folders_are_kept(compared, motion_clips, tmp_path):
    with pytest.raises(OutputExistsError, match="folds differ"):
        compare(motion_clips, recipes("frame_cnn", "conv3d_small"), compared.folder, folds=2)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="no comparison"):
        compare(motion_clips, recipes("frame_cnn", "conv3d_small"), tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_what_cannot_be_compared_is_refused(motion_clips, tmp_path):
    with pytest.raises(SettingError, match="two or more"):
        compare(motion_clips, recipes("frame_cnn"), tmp_path / "a")
    mixed = recipes("frame_cnn") | recipes("conv3d_small", test_fraction=0.4)
    with pytest.raises(SettingError, match="different ways"):
        compare(motion_clips, mixed, tmp_path / "a")


@pytest.fixture(scope="module")
def crossed(motion_clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("crossed") / "out"
    return compare(motion_clips, recipes("frame_cnn", "conv3d_small"), out, folds=2, smoke=True)


def test_folds_give_the_scores(crossed):
    assert crossed.rows[0].n == 96
    assert "by folds" in crossed.scored_on


def test_random_folds_are_not_trained(crossed):
    trained = sorted(path.parent.name for path in crossed.folder.glob("*/folds/*") if path.name != "honest")
    assert trained == []
    assert (crossed.folder / "frame_cnn/folds/honest").is_dir()


def test_every_fold_is_answered_by_the_model_that_validates_best(crossed):
    chosen, right = crossed.chosen, []
    assert chosen.by == "validation_loss"
    for number, fold in enumerate(chosen.folds):
        kept = {
            name: json.loads((crossed.folder / name / f"folds/honest/fold-{number}/answers.json").read_text())
            for name in ("frame_cnn", "conv3d_small")
        }
        assert fold.scores == {name: answers["validation_loss"] for name, answers in kept.items()}
        assert fold.model == min(fold.scores, key=fold.scores.get)
        answers = kept[fold.model]
        right += [answers["classes"][np.argmax(row["logits"])] == row["label"] for row in answers["test"]]
    assert len(right) == chosen.metrics.n == 96
    assert chosen.metrics.accuracy == pytest.approx(np.mean(right))
    assert chosen.metrics.num_groups == 12  # the interval is over scenes
    assert json.loads((crossed.folder / "comparison.json").read_text())["chosen"] == chosen.to_dict()
    with (crossed.folder / "comparison.csv").open() as file:
        *_, last, mean = csv.DictReader(file)
    assert (last["model"], float(last["accuracy"])) == ("chosen", chosen.metrics.accuracy)
    assert (mean["model"], float(mean["accuracy"])) == ("mean of all", crossed.averaged.accuracy)
    assert crossed.averaged.n == 96


def test_a_run_without_its_folds_answers_is_trained_again(crossed, motion_clips, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(crossed.folder, out)
    (out / "frame_cnn/folds/honest/fold-1/answers.json").unlink()
    trained = []
    real = compare_module.train
    monkeypatch.setattr(
        compare_module, "train", lambda *a, **k: trained.append(k["recipe"].model.model) or real(*a, **k)
    )
    again = compare(motion_clips, recipes("frame_cnn", "conv3d_small"), out, folds=2, smoke=True)
    assert trained == ["frame_cnn"]
    assert again.chosen.to_dict() == crossed.chosen.to_dict()


def test_a_trial_is_not_taken_for_the_comparison(crossed, motion_clips):
    with pytest.raises(OutputExistsError, match="smoke differ"):
        compare(motion_clips, recipes("frame_cnn", "conv3d_small"), crossed.folder, folds=2)
