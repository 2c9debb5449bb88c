"""From a recipe to what it trains: the spec of its clips, and the model as it starts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Protocol

import torch

from vidette.errors import SettingError
from vidette.models import VideoModel, build_model, model_kind, model_options
from vidette.models.backbone import PACKAGED_BACKBONE, imagenet_channel_order
from vidette.models.huggingface import PREFIX
from vidette.models.weights import load_weights, weights_normalisation
from vidette.training.recipe import ModelSettings, Recipe
from vidette.video.clip import ClipSpec

__all__ = ["chosen_options", "is_frozen", "new_model", "recipe_spec"]


class _Told(Protocol):
    def say(self, text: str) -> None: ...


def recipe_spec(recipe: Recipe) -> ClipSpec:
    """Return the spec a recipe asks for: its clip settings and the normalisation its weights expect."""
    clip, model = recipe.clip, recipe.model
    spec = ClipSpec(
        num_frames=clip.num_frames,
        height=clip.size,
        width=clip.size,
        sampling=clip.sampling,
        fps=clip.fps,
        resize=clip.resize,
    )
    known = "backbone" in model_options(model.model)
    backbone = (model.backbone or PACKAGED_BACKBONE) if known else None
    # A file's weights are taken to expect what the published weights of their backbone do.
    weights = model.weights if model.weights in ("none", "kinetics") else "imagenet"
    expected = weights_normalisation(weights, backbone=backbone, model=model.model)
    if expected is None:
        return spec
    order = imagenet_channel_order(backbone) if backbone else "RGB"
    return replace(spec, mean=expected[0], std=expected[1], channel_order=order)


def chosen_options(settings: ModelSettings) -> dict[str, Any]:
    """Return the model options that a recipe sets.

    Raises:
        SettingError: The model is unknown, or does not take one of them.
    """
    known = model_options(settings.model)
    names = [field.name for field in fields(settings) if field.name not in ("model", "weights", "frozen")]
    chosen = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    alien = [name for name in chosen if name not in known and name not in ("backbone", "grid")]
    if alien:
        raise SettingError(
            f"model {settings.model} has no option {', '.join(alien)}; it takes {', '.join(known)}"
        )
    return {name: value for name, value in chosen.items() if name in known}


def is_frozen(recipe: Recipe) -> bool:
    """Tell whether the backbone is kept as it is: only where it looks at the pictures one by one."""
    settings = recipe.model
    return settings.frozen and model_kind(settings.model).has_backbone and settings.input in (None, "rgb")


def new_model(recipe: Recipe, *, num_classes: int, listener: _Told) -> tuple[VideoModel, dict[str, Any]]:
    """Build the recipe's model with its starting weights, the same for the same seed."""
    settings = recipe.model
    options = chosen_options(settings)
    if is_frozen(recipe) and settings.weights == "none" and "backbone" in model_options(settings.model):
        raise SettingError(
            "a frozen backbone with random weights learns nothing: use --no-frozen or --weights imagenet"
        )
    torch.manual_seed(recipe.train.seed)
    size = recipe.clip.size
    model = build_model(
        settings.model,
        num_classes=num_classes,
        num_frames=recipe.clip.num_frames,
        height=size,
        width=size,
        options=options,
    )
    for line in load_weights(model, settings.weights).lines():
        listener.say(line)
    if (
        settings.model.startswith(PREFIX)
        and weights_normalisation("", backbone=None, model=settings.model) is None
    ):
        listener.say(f"warning: {settings.model} names no mean and std of its own; those of ImageNet are taken")
    return model, {**options, **model.own_options}
