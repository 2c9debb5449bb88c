"""What the file of a foreign model does not say: the input it was trained on, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidette.errors import SettingError, unknown_name
from vidette.models.keras_backbone import CAFFE_MEAN
from vidette.video.clip import ClipSpec

__all__ = ["DeclaredInput", "ValueRange", "class_names", "read_classes", "turned"]

ValueRange = Literal["0..1", "-1..1", "0..255", "imagenet", "caffe"]
_Triple = tuple[float, float, float]
_RANGES: Mapping[str, tuple[_Triple, _Triple]] = {
    "0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "-1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (CAFFE_MEAN, (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True, kw_only=True)
class DeclaredInput:
    """What a foreign model was trained to see, as far as its file does not say.

    Attributes:
        num_frames: Frames a clip, T; an image model's answers to them are averaged.
        fps: Frames a second; None for T frames spread over the whole clip.
        size: Height and width in pixels; one number for both.
        values: What becomes of a pixel: ``"0..1"``, ``"-1..1"``, ``"0..255"``, ``"imagenet"`` (0..1 less
            ImageNet's mean, over its deviation), or ``"caffe"`` (0..255 less ImageNet's mean, blue first).
        channel_order: Order of the channels.
        resize: How a picture comes to the size.
    """

    num_frames: int | None = None
    fps: float | None = None
    size: int | tuple[int, int] | None = None
    values: ValueRange | None = None
    channel_order: Literal["RGB", "BGR"] | None = None
    resize: Literal["stretch", "crop", "pad"] = "stretch"

    def __post_init__(self) -> None:
        if self.values is not None and self.values not in _RANGES:
            raise SettingError(unknown_name("range of values", self.values, _RANGES))
        if self.values == "caffe" and self.channel_order == "RGB":
            raise SettingError("range 'caffe' is blue first but the channel order is RGB; leave the order out")

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The size as two numbers."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def spec(self, *, num_frames: int, height: int, width: int) -> ClipSpec:
        """Return the spec of these and the model's own shape."""
        values = self.values or "0..1"
        order = self.channel_order or ("BGR" if values == "caffe" else "RGB")
        mean, std = _RANGES[values]
        if order == "BGR" and values != "caffe":
            mean, std = turned(mean), turned(std)
        return ClipSpec(
            num_frames=num_frames,
            height=height,
            width=width,
            sampling="window" if self.fps else "whole",
            fps=self.fps,
            resize=self.resize,
            mean=mean,
            std=std,
            channel_order=order,
        )


def turned(values: _Triple) -> _Triple:
    """Return values a channel in the opposite order of channels."""
    return values[2], values[1], values[0]


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read class names, one a line, in the order of the model's outputs; empty lines do not count.

    Raises:
        SettingError: The file cannot be read, or holds fewer than two names, or one twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"class names {path} cannot be read: {error}; give a text file, one a line"
        ) from error
    return _checked_classes([line.strip() for line in lines if line.strip()], where=str(path))


def _checked_classes(names: Sequence[str], *, where: str) -> tuple[str, ...]:
    double = sorted({name for name in names if names.count(name) > 1})
    if double or len(names) < 2:
        what = f"{', '.join(map(repr, double))} twice" if double else f"{len(names)} names"
        raise SettingError(f"{where} holds {what}; expected two or more different class names, one a line")
    return tuple(names)


def class_names(classes: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Return class names that are given as such, or as the path of a file for :func:`read_classes`."""
    if isinstance(classes, str | Path):
        return read_classes(classes)
    return _checked_classes(list(classes), where="the list of classes")
