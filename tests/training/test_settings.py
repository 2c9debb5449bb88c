"""The settings of training and augmentation: one name one place, limits as the code has them, old defaults."""

import dataclasses
import typing

import pytest

from vidette.training.recipe import SECTIONS, AugmentSettings, TrainSettings
from vidette.video.augmentation import Augmentation

NEW_AND_OFF = {
    AugmentSettings: ("hue", "blur", "noise", "erase", "time_shift", "time_jitter", "speed", "mixup", "cutmix"),
    TrainSettings: (
        "find_learning_rate",
        "unfreeze_epochs",
        "freeze_batchnorm",
        "balanced_sampling",
        "ema_decay",
        "swa_start",
    ),
}


def test_no_option_is_in_two_sections():
    names = [field.name for kind in SECTIONS.values() for field in dataclasses.fields(kind)]
    assert len(names) == len(set(names))


def test_everything_that_changes_the_course_of_training_is_off_unless_asked():
    for kind, names in NEW_AND_OFF.items():
        assert not any(getattr(kind(), name) for name in names)
    train = TrainSettings()
    assert (train.layer_decay, train.accumulate, train.loss) == (1.0, 1, "cross_entropy")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Augmentation)])
def test_augmentation_takes_all_that_the_settings_allow(name):
    hints = typing.get_type_hints(AugmentSettings, include_extras=True)
    kind, about = typing.get_args(hints[name])
    if kind is bool:
        return
    most = next(limit.le for limit in about.metadata if hasattr(limit, "le"))
    assert getattr(Augmentation(**{name: most}), name) == most
