"""What `vidette compare --models` may name, the choice that it shows, and its runs evaluated."""

import json

import pytest
from typer.testing import CliRunner

from vidette.cli import app
from vidette.errors import SettingError
from vidette.training.recipe import read_recipe

QUICK = ["--recipe", "motion", "--size", "32", "--num-frames", "8"]


@pytest.fixture(scope="module")
def compared(motion_clips, tmp_path_factory):
    """Compare two recipes of one model on two folds; the folder and what was printed."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "wide.toml").write_text(
        "[clip]\nnum_frames = 8\nsize = 32\n[model]\nmodel = 'conv3d_small'\nweights = 'none'\nchannels = 4\n"
    )
    models = f"conv3d_small:channels=2:dropout=0.1,{folder / 'wide.toml'}"
    given = [
        "compare",
        motion_clips,
        "--models",
        models,
        *QUICK,
        "--smoke",
        "--folds",
        2,
        "--out",
        folder / "c",
    ]
    return folder / "c", vidette(*given)


def vidette(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).stdout


def test_recipes_of_one_model_are_compared_and_one_is_chosen_in_each_fold(compared):
    folder, printed = compared
    assert "channels = 2\n" in (folder / "conv3d_small-channels=2-dropout=0.1" / "recipe.toml").read_text()
    assert "channels = 4\n" in (folder / "wide" / "recipe.toml").read_text()
    lines = printed.splitlines()
    assert any(line.startswith("chosen ") for line in lines)
    assert any(line.startswith("mean of all ") for line in lines)
    assert sum("validation clips" in line and "wide" in line for line in lines) == 2


def test_own_recipes_go_by_their_names(motion_clips, tmp_path):
    models = "flow:words=4:size=32:num_frames=8,conv3d_small:channels=2"
    vidette("compare", motion_clips, "--models", models, *QUICK, "--smoke", "--out", tmp_path / "c")
    flow = read_recipe(tmp_path / "c" / "flow-words=4-size=32-num_frames=8" / "recipe.toml")
    assert (flow.model.model, flow.clip.resize, flow.train.refit) == ("flow_fisher", "motion", True)
    assert read_recipe(tmp_path / "c" / "conv3d_small-channels=2" / "recipe.toml").train.refit is False


def test_a_run_of_the_comparison_is_evaluated_on_several_views(compared):
    run = compared[0] / "wide"
    assert "the mean of 3 views" in vidette("evaluate", run, "--views", 3)
    assert json.loads(vidette("evaluate", run, "--views", 3, "--json"))["views"] == 3
    assert "views" not in vidette("evaluate", run)
    with pytest.raises(SettingError, match="--corruptions is not for --views"):
        vidette("evaluate", run, "--views", 3, "--corruptions", "dark")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("frame_cnn,conv3d_small:hidden=4", "option of model conv3d_small 'hidden'"),
        ("frame_cnn,conv3d_small:chanels=4", "did you mean 'channels'"),
        ("frame_cnn,conv3d_small:channels=many", "channels is 'many'"),
        ("frame_cnn,frame_cnn", "twice"),
        ("frame_cnn:model=x,cnn_gru", "leave out model=x"),
        ("frame_cnn,absent.toml", "cannot be read"),
    ],
)
def test_entries_that_name_no_recipe_are_refused(models, message, motion_clips, tmp_path):
    with pytest.raises(SettingError, match=message):
        vidette("compare", motion_clips, "--models", models, *QUICK, "--out", tmp_path / "c")
    assert not (tmp_path / "c").exists()
