"""Recipes: TOML and options, checked."""

import pytest

from vidette.errors import SettingError
from vidette.training.recipe import Recipe, read_recipe, with_options, write_recipe
from vidette.training.recipes import RECIPES, named_recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_comes_back_from_toml(name, tmp_path):
    write_recipe(RECIPES[name], tmp_path / "r.toml")
    assert read_recipe(tmp_path / "r.toml") == named_recipe(str(tmp_path / "r.toml")) == RECIPES[name]


def test_the_tutorial_recipe_is_the_known_set_up():
    recipe = RECIPES["resnet18-rnn"]
    assert (recipe.model.backbone, recipe.model.hidden, recipe.model.layers, recipe.model.dropout) == (
        "resnet18",
        100,
        1,
        0.1,
    )
    assert (recipe.clip.num_frames, recipe.clip.size, recipe.train.batch_size, recipe.train.epochs) == (
        16,
        112,
        8,
        20,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", "did you mean 'epochs'"),
        ("[trian]\nepochs = 3", "did you mean 'train'"),
        ("[train]\nepochs = 0", "epochs is 0"),
        ("[train]\nepochs = 'many'", "epochs is 'many'"),
        ("train = 3", "expected a section"),
        ("[clip]\nsampling = 'window'", "needs fps"),
        ("[clip]\nfps = 8.0", "add --sampling window"),
        ("[train", "is not TOML"),
    ],
)
def test_a_fault_is_named(text, message, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(SettingError, match=message):
        read_recipe(tmp_path / "r.toml")


def test_unknown_recipe_option_and_absent_file():
    with pytest.raises(SettingError, match="did you mean 'motion'"):
        named_recipe("moton")
    with pytest.raises(SettingError, match="did you mean 'epochs'"):
        with_options(Recipe(), {"epoch": 3})
    with pytest.raises(SettingError, match="cannot be read"):
        named_recipe("nowhere.toml")
