"""What a training run is made of: checked values that are TOML on disk and options on the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from vidette.errors import SettingError, unknown_name
from vidette.video.clip import Resize

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "AugmentSettings",
    "ClipSettings",
    "ModelSettings",
    "Recipe",
    "SourceSettings",
    "SplitSettings",
    "TrainSettings",
    "read_recipe",
    "with_options",
    "write_recipe",
]

_CHECKED = ConfigDict(extra="forbid")


def _about(text: str, **limits: Any) -> Any:
    return Field(description=text, **limits)


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class SourceSettings:
    """How the labelled clips are laid out, where their files do not say."""

    layout: Annotated[str | None, _about("hmdb51, kinetics, list, ...; recognised where plain.")] = None
    split_number: Annotated[int, _about("Official split of HMDB51 or UCF101.", ge=1)] = 1
    frames_fps: Annotated[float | None, _about("Frames a second of folders of frames.", gt=0)] = None
    classes_file: Annotated[str | None, _about("Names of the integer labels of an annotation list.")] = None
    videos: Annotated[str | None, _about("Folder of the videos, where not with the annotations.")] = None
    stream: Annotated[int, _about("Which of a file's video streams, from 0.", ge=0)] = 0
    on_damage: Annotated[
        Literal["raise", "skip"], _about("A damaged file: stop, or leave it out and say so.")
    ] = "raise"


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class ClipSettings:
    """How a video becomes the clip that the model sees."""

    num_frames: Annotated[int, _about("Frames a clip.", ge=1, le=1024)] = 16
    size: Annotated[int, _about("Height and width of a frame, in pixels.", ge=8, le=4096)] = 224
    sampling: Annotated[
        Literal["whole", "window"],
        _about("whole: frames spread over the clip; window: at --fps, a fixed span."),
    ] = "whole"
    fps: Annotated[float | None, _about("Frames a second of --sampling window.", gt=0)] = None
    resize: Annotated[
        Resize,
        _about("How a picture comes to the size; motion: cut around what moves, one crop a clip."),
    ] = "stretch"


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class ModelSettings:
    """Which network; an option left out takes the model's own default."""

    model: Annotated[str, _about("A name that `vidette models` prints.")] = "cnn_gru"
    backbone: Annotated[str | None, _about("'small' or a timm CNN (models with a 2-D network).")] = None
    weights: Annotated[
        str, _about("imagenet (packaged or downloaded), kinetics (3-D CNNs), none, or a file.")
    ] = "imagenet"
    frozen: Annotated[
        bool, _about("Keep a backbone that looks at each frame alone; its features are computed once.")
    ] = True
    input: Annotated[
        Literal["rgb", "difference", "rgb+difference", "motion"] | None,
        _about("What the model reads: pictures, their change since the frame before, both, or what moves."),
    ] = None
    grid: Annotated[int | None, _about("Cells along each side of the pooled feature map.", ge=1, le=16)] = None
    levels: Annotated[
        Literal["top", "all"] | None, _about("Features of the backbone's last stage, or of those below too.")
    ] = None
    hidden: Annotated[int | None, _about("Size of the recurrent state, or of a transformer's token.", ge=1)] = (
        None
    )
    layers: Annotated[
        int | None, _about("Recurrent layers, convolutions along time, or a transformer's blocks.", ge=1)
    ] = None
    heads: Annotated[int | None, _about("Heads of each attention.", ge=1)] = None
    attention_frames: Annotated[int | None, _about("Frames that a causal transformer looks back on.", ge=1)] = (
        None
    )
    projection: Annotated[int | None, _about("Channels a grid cell is projected to; 0 for none.", ge=0)] = None
    difference: Annotated[bool | None, _about("Add the features' change between neighbouring frames.")] = None
    readout: Annotated[
        Literal["last", "mean", "attention"] | None,
        _about("Classify the last step, the steps' mean, or their mean weighted by attention."),
    ] = None
    pooling: Annotated[
        Literal["mean", "max", "attention"] | None, _about("Pooling over time of answers frame by frame.")
    ] = None
    bidirectional: Annotated[bool | None, _about("Let the recurrence read backwards too; no live steps.")] = (
        None
    )
    causal: Annotated[
        bool | None, _about("A frame sees earlier ones only (shift, transformer); off: no live steps.")
    ] = None
    shift_fraction: Annotated[
        float | None, _about("Share of the channels taken from the frame before.", gt=0, le=0.5)
    ] = None
    shift_places: Annotated[
        Literal["blocks", "stages"] | None, _about("Shift in every residual block, or the first of each stage.")
    ] = None
    channels: Annotated[int | None, _about("Channels of the first 3-D convolution.", ge=1)] = None
    dropout: Annotated[float | None, _about("Probability of dropping a feature.", ge=0, lt=1)] = None
    words: Annotated[int | None, _about("Gaussians of the codebook of movements.", ge=2)] = None


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class SplitSettings:
    """How clips are divided into training, validation and test."""

    split: Annotated[
        Literal["auto", "grouped", "stratified", "column"],
        _about("auto: column if there is one, else grouped if groups are known, else stratified."),
    ] = "auto"
    group_from: Annotated[
        str | None, _about("Regular expression on the path; its first group names the group.")
    ] = None
    validation_fraction: Annotated[float, _about("Share of the clips for validation.", gt=0, lt=1)] = 0.15
    test_fraction: Annotated[float, _about("Share of the clips for test.", gt=0, lt=1)] = 0.2
    random_folds: Annotated[
        bool, _about("Cross-validate on random folds too, whose score leaks, to show by how much.")
    ] = True


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class AugmentSettings:
    """Random changes of training clips, the same for every frame of a clip; on frozen features only mixing."""

    crop_scale_min: Annotated[
        float, _about("Smallest share of the picture that a random crop keeps.", gt=0, le=1)
    ] = 0.7
    rotate: Annotated[float, _about("Largest turn, in degrees.", ge=0, le=180)] = 0.0
    translate: Annotated[
        float, _about("Largest move, as a share of the picture's height and width.", ge=0, le=0.5)
    ] = 0.0
    zoom: Annotated[float, _about("Largest change of scale; 0.25: 1.25 times to 1/1.25 times.", ge=0, le=1)] = (
        0.0
    )
    flip: Annotated[bool, _about("Mirror left and right; not where classes tell them apart.")] = False
    colour: Annotated[
        float, _about("Strength of brightness, contrast and saturation changes.", ge=0, le=0.9)
    ] = 0.2
    hue: Annotated[float, _about("Largest turn of the hue, as a share of the circle.", ge=0, le=0.5)] = 0.0
    blur: Annotated[float, _about("Largest blur (standard deviation, pixels of the clip).", ge=0, le=10)] = 0.0
    noise: Annotated[float, _about("Largest noise (standard deviation, share of white).", ge=0, le=1)] = 0.0
    erase: Annotated[float, _about("Largest share of the picture that is covered.", ge=0, le=0.9)] = 0.0
    time_shift: Annotated[
        float, _about("Largest shift in time, as a share of the clip; end frames are held.", ge=0, le=0.5)
    ] = 0.0
    time_jitter: Annotated[float, _about("Largest shift of each frame, in frames.", ge=0, le=4)] = 0.0
    speed: Annotated[float, _about("Largest change of speed; 0.5: 1.5 times to 1/1.5 times.", ge=0, le=4)] = 0.0
    mixup: Annotated[float, _about("Blend clips and labels (alpha of mixup); 0: off.", ge=0)] = 0.0
    cutmix: Annotated[float, _about("Swap a box with another clip (alpha of CutMix); 0: off.", ge=0)] = 0.0


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class TrainSettings:
    """How the weights are found."""

    epochs: Annotated[int, _about("Passes over the training clips, at most.", ge=1)] = 40
    batch_size: Annotated[int, _about("Clips a step.", ge=1)] = 16
    optimizer: Annotated[Literal["adamw", "adam", "sgd"], _about("The optimiser.")] = "adamw"
    learning_rate: Annotated[float, _about("Largest learning rate.", gt=0)] = 1e-3
    find_learning_rate: Annotated[
        bool, _about("Try rates first, on the training clips (of each fold alone); learn at the best instead.")
    ] = False
    backbone_rate_factor: Annotated[
        float, _about("Learning rate of a fine-tuned backbone, as a share.", gt=0)
    ] = 0.1
    layer_decay: Annotated[
        float, _about("Learning rate of each backbone stage, as a share of the next one's.", gt=0, le=1)
    ] = 1.0
    unfreeze_epochs: Annotated[
        int, _about("Epochs over which a fine-tuned backbone is freed, from the top; 0: at once.", ge=0)
    ] = 0
    freeze_batchnorm: Annotated[
        bool, _about("Keep a fine-tuned backbone's BatchNorm as it is; for batches under 16.")
    ] = False
    weight_decay: Annotated[float, _about("Weight decay.", ge=0)] = 0.01
    schedule: Annotated[Literal["cosine", "plateau", "constant"], _about("Course of the learning rate.")] = (
        "cosine"
    )
    warmup_fraction: Annotated[
        float, _about("Share of the steps that raise the learning rate.", ge=0, lt=1)
    ] = 0.1
    label_smoothing: Annotated[float, _about("Label smoothing.", ge=0, lt=1)] = 0.05
    loss: Annotated[
        Literal["cross_entropy", "focal"], _about("focal: clips that are nearly right count less.")
    ] = "cross_entropy"
    focal_gamma: Annotated[float, _about("How much less; 0 is cross-entropy.", ge=0)] = 2.0
    class_weights: Annotated[bool, _about("Weigh classes by the inverse of their number of clips.")] = True
    balanced_sampling: Annotated[bool, _about("Draw every class equally often, instead of weighing.")] = False
    early_stopping: Annotated[
        int, _about("Epochs without a better validation score before stopping; 0: never.", ge=0)
    ] = 10
    select_by: Annotated[
        Literal["validation_loss", "validation_accuracy", "last"],
        _about("What the best weights are chosen by; last: those of the last epoch are taken."),
    ] = "validation_loss"
    refit: Annotated[
        bool,
        _about("Train once more, on validation clips too, for as many epochs as were best on them."),
    ] = False
    ema_decay: Annotated[
        float, _about("Keep an exponential average of the weights, such as 0.99; 0: off.", ge=0, lt=1)
    ] = 0.0
    swa_start: Annotated[
        float, _about("Share of the epochs after which weights are averaged; 0: never.", ge=0, lt=1)
    ] = 0.0
    accumulate: Annotated[int, _about("Batches whose gradients are summed for one step.", ge=1)] = 1
    gradient_clip: Annotated[float, _about("Largest norm of the gradient; 0: no limit.", ge=0)] = 1.0
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"], _about("Arithmetic, as Fabric names it.")
    ] = "32-true"
    accelerator: Annotated[
        Literal["auto", "cpu", "gpu", "mps"], _about("Where to train, as Fabric names it.")
    ] = "auto"
    devices: Annotated[int, _about("How many devices.", ge=1)] = 1
    num_workers: Annotated[int, _about("Processes that load clips; 0: none beside the trainer.", ge=0)] = 0
    seed: Annotated[int, _about("Seed of everything random.", ge=0)] = 0

    def __post_init__(self) -> None:
        if self.ema_decay > 0 and self.swa_start > 0:
            raise SettingError("ema_decay and swa_start are two averages of the weights; leave one of them out")


@dataclass(frozen=True, kw_only=True, config=_CHECKED)
class Recipe:
    """A whole training run, but for the clips themselves.

    Example:
        >>> recipe = with_options(Recipe(), {"model": "frame_cnn", "epochs": 3})
        >>> recipe.model.model, recipe.train.epochs
        ('frame_cnn', 3)
    """

    source: SourceSettings = field(default_factory=SourceSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


SECTIONS: Mapping[str, type] = {
    "source": SourceSettings,
    "clip": ClipSettings,
    "model": ModelSettings,
    "split": SplitSettings,
    "augment": AugmentSettings,
    "train": TrainSettings,
}


def with_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Return ``recipe`` with some values replaced, each named without its section.

    Raises:
        SettingError: A name is unknown (names the nearest) or a value out of range.
    """
    place = {f.name: section for section, kind in SECTIONS.items() for f in dataclasses.fields(kind)}
    sections = dataclasses.asdict(recipe)
    for name, value in options.items():
        if name not in place:
            raise SettingError(unknown_name("option", name, place))
        sections[place[name]][name] = value
    return _checked(sections, where="options")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from TOML; a value left out takes its default.

    Raises:
        SettingError: The file is absent or not TOML, a key is unknown, or a value is out of range.
    """
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(
            f"recipe {path} cannot be read: {error.strerror}; see `vidette train --help`"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"recipe {path} is not TOML: {error}") from error
    return _checked(sections, where=f"recipe {path}")


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as TOML; values left to the model's default are left out."""
    sections = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in dataclasses.asdict(recipe).items()
    }
    path.write_text(tomli_w.dumps(sections), encoding="utf-8")


def _checked(sections: Mapping[str, Any], *, where: str) -> Recipe:
    built: dict[str, Any] = {}
    for name, values in sections.items():
        if name not in SECTIONS:
            raise SettingError(f"{where}: {unknown_name('section', name, SECTIONS)}")
        known = [f.name for f in dataclasses.fields(SECTIONS[name])]
        if not isinstance(values, Mapping):
            raise SettingError(f"{where}: {name} is {values!r}; expected a section [{name}]")
        for key in values:
            if key not in known:
                raise SettingError(f"{where}: {unknown_name(f'key in [{name}]', key, known)}")
        try:
            built[name] = SECTIONS[name](**values)
        except ValidationError as error:
            raise SettingError(f"{where}: {_first_faults(error)}") from error
    recipe = Recipe(**built)
    if recipe.clip.sampling == "window" and recipe.clip.fps is None:
        raise SettingError(f"{where}: sampling 'window' needs fps, the frames a second; for example --fps 8")
    if recipe.clip.sampling == "whole" and recipe.clip.fps is not None:
        raise SettingError(f"{where}: fps goes with sampling 'window'; add --sampling window")
    return recipe


def _first_faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(p) for p in fault['loc'])} is {fault['input']!r}: {fault['msg']}"
        for fault in error.errors()
    )
