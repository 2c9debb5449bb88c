"""The recipes that have names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vidette.errors import SettingError, unknown_name
from vidette.training.recipe import (
    AugmentSettings,
    ClipSettings,
    ModelSettings,
    Recipe,
    TrainSettings,
    read_recipe,
)

__all__ = ["RECIPES", "named_recipe"]

RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(),
    "motion": Recipe(
        clip=ClipSettings(size=64),
        model=ModelSettings(backbone="small", weights="none", frozen=False, grid=4),
        train=TrainSettings(
            epochs=20, batch_size=32, learning_rate=3e-3, backbone_rate_factor=1.0, early_stopping=0
        ),
    ),
    "gesture": Recipe(
        clip=ClipSettings(size=64, resize="motion"),
        model=ModelSettings(
            backbone="small",
            weights="none",
            frozen=False,
            input="motion",
            grid=8,
            projection=32,
            hidden=128,
            bidirectional=True,
            dropout=0.3,
        ),
        augment=AugmentSettings(
            crop_scale_min=1.0,
            rotate=10.0,
            translate=0.12,
            zoom=0.3,
            speed=0.3,
            time_shift=0.1,
            time_jitter=0.5,
        ),
        train=TrainSettings(
            batch_size=32,
            learning_rate=3e-3,
            backbone_rate_factor=1.0,
            weight_decay=0.05,
            label_smoothing=0.1,
            early_stopping=0,
            select_by="last",
        ),
    ),
    "change": Recipe(
        clip=ClipSettings(num_frames=32, size=320),
        model=ModelSettings(model="change", levels="all", grid=10),
        train=TrainSettings(
            epochs=60,
            batch_size=32,
            optimizer="sgd",
            weight_decay=0.04,
            label_smoothing=0.0,
            early_stopping=0,
            gradient_clip=0.0,
            select_by="last",
            refit=True,
        ),
    ),
    "flow": Recipe(
        clip=ClipSettings(num_frames=64, size=112, resize="motion"),
        model=ModelSettings(model="flow_fisher", weights="none"),
        train=TrainSettings(
            epochs=60,
            batch_size=32,
            optimizer="sgd",
            learning_rate=3e-3,
            weight_decay=0.04,
            label_smoothing=0.0,
            early_stopping=0,
            gradient_clip=0.0,
            select_by="last",
            refit=True,
        ),
    ),
    "resnet18-rnn": Recipe(
        clip=ClipSettings(size=112),
        model=ModelSettings(
            model="cnn_lstm",
            backbone="resnet18",
            frozen=False,
            grid=1,
            hidden=100,
            layers=1,
            projection=0,
            difference=False,
            readout="last",
            dropout=0.1,
        ),
        augment=AugmentSettings(flip=True),
        train=TrainSettings(
            epochs=20,
            batch_size=8,
            optimizer="adam",
            learning_rate=3e-5,
            backbone_rate_factor=1.0,
            weight_decay=0.0,
            schedule="plateau",
            warmup_fraction=0.0,
            label_smoothing=0.0,
            class_weights=False,
            early_stopping=0,
            gradient_clip=0.0,
        ),
    ),
}


def named_recipe(name: str) -> Recipe:
    """Return a recipe by name, or read it where the name is a path ending in ``.toml``.

    Raises:
        SettingError: There is no such recipe; names the nearest.
    """
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise SettingError(unknown_name("recipe", name, RECIPES))
    return RECIPES[name]
