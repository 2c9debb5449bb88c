"""What an explanation looks like: the evidence laid over the frames, as a contact sheet and as a video."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from vidette.diagnosis.attribution import Explanation
from vidette.diagnosis.findings import Picture
from vidette.errors import InputMismatchError
from vidette.video.writer import write_video

__all__ = ["ACCENT", "INK", "contact_sheet", "overlay", "png", "write_overlay"]

INK, ACCENT = "#1f2933", "#1f6feb"
_AGAINST, _CURSOR = "#8a94a6", "#d1242f"
_MOST_TILES, _COLUMNS = 16, 8
_TILE_HEIGHT, _GAP = 160, 6
_VIDEO_HEIGHT, _STRIP, _BANNER = 320, 64, 30
_SLOWEST_FPS, _FASTEST_FPS, _STILL_FPS = 1.0, 60.0, 2.0
_STRENGTH, _DIMMED = 0.6, 0.55
_HIGHEST = 99.5


def overlay(pixels: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Lay maps over frames: the evidence glows from violet to yellow, the rest is dimmed and grey.

    Args:
        pixels: uint8 ``(T, H, W, 3)``, RGB.
        maps: ``(T, H, W)``, 0 and above, of one scale; the clip's strongest evidence is brightest.

    Returns:
        uint8 ``(T, H, W, 3)``.

    Raises:
        InputMismatchError: The shapes do not belong together.
    """
    if pixels.shape[:3] != maps.shape:
        raise InputMismatchError(
            f"maps have shape {maps.shape} but the frames {pixels.shape[:3]}; expected the same"
        )
    highest = float(np.percentile(maps, _HIGHEST)) or float(maps.max())
    level = np.clip(maps / highest, 0, 1) if highest > 0 else np.zeros(maps.shape)
    grey = pixels.mean(axis=-1, keepdims=True) * _DIMMED
    glow = matplotlib.colormaps["plasma"](level)[..., :3] * 255
    weight = (_STRENGTH * level**0.8)[..., None]
    lit = (1 - level[..., None]) * grey + level[..., None] * pixels
    return np.clip((1 - weight) * lit + weight * glow + 0.5, 0, 255).astype(np.uint8)


def png(figure: Figure, *, dpi: int = 110) -> bytes:
    """Return a figure as the bytes of a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, metadata={"Software": None})
    return picture.getvalue()


def contact_sheet(explanations: Sequence[Explanation], *, title: str = "") -> Picture:
    """Return the frames above themselves with the evidence laid over, and the importance along time.

    Args:
        explanations: Of clips of one video and one class, in order of time; at most 16 frames in all are shown.
        title: What stands above; the first reading by default.

    Raises:
        InputMismatchError: There is no explanation.
    """
    if not explanations:
        raise InputMismatchError("there is no explanation to show; expected one or more")
    shown = _spread(explanations, _MOST_TILES)
    columns = min(_COLUMNS, len(shown))
    rows = [shown[first : first + columns] for first in range(0, len(shown), columns)]
    has_maps = any(explanation.maps is not None for explanation in explanations)
    has_time = any(explanation.importance is not None for explanation in explanations)
    lines = 2 if has_maps else 1
    h, w = explanations[0].clip.pixels.shape[1:3]
    width = 13.0
    tile = width / columns * h / w
    heights = [tile * lines + 0.3] * len(rows) + ([2.2] if has_time else [])
    figure = Figure(figsize=(width, sum(heights) + 0.9), layout="constrained")
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, row in zip(axes, rows, strict=False):
        _draw_row(axis, explanations, row, columns=columns, has_maps=has_maps)
    if has_time:
        _draw_importance(axes[-1], explanations)
    sentence = " ".join(explanations[_strongest(explanations)].reading())
    figure.suptitle(
        title or f"What speaks for {explanations[0].label!r}", fontsize=14, color=INK, parse_math=False
    )
    return Picture(sentence, png(figure))


def write_overlay(path: str | Path, explanations: Sequence[Explanation], *, overwrite: bool = False) -> Path:
    """Write the clips as an MP4 at their own pace: as they are, with the evidence, and the importance below.

    Args:
        path: The file.
        explanations: Of clips of one video and one class, in order of time.
        overwrite: Replace a file that is there.

    Raises:
        InputMismatchError: There is no explanation.
        OutputExistsError: The file is there and ``overwrite`` is false.
        StorageError: The place cannot be written or the disk is full.
    """
    if not explanations:
        raise InputMismatchError("there is no explanation to show; expected one or more")
    return write_video(path, _video_frames(explanations), fps=_pace(explanations), overwrite=overwrite)


def _strongest(explanations: Sequence[Explanation]) -> int:
    return int(np.argmax([explanation.probability for explanation in explanations]))


def _spread(explanations: Sequence[Explanation], most: int) -> list[tuple[int, int]]:
    """Return at most ``most`` frames, spread evenly: number of the clip and of its frame."""
    every = [(i, t) for i, explanation in enumerate(explanations) for t in range(len(explanation.clip.pixels))]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int))
    return [every[i] for i in chosen]


def _draw_row(
    axis: Axes,
    explanations: Sequence[Explanation],
    row: Sequence[tuple[int, int]],
    *,
    columns: int,
    has_maps: bool,
) -> None:
    """Draw one row of frames, above their overlays."""
    parts = [explanations[i] for i, _ in row]
    upper = [part.clip.pixels[t] for part, (_, t) in zip(parts, row, strict=True)]
    lower = [_laid_over(part)[t] for part, (_, t) in zip(parts, row, strict=True)]
    lines = [upper, lower] if has_maps else [upper]
    sheet = np.concatenate([_side_by_side(line, columns) for line in lines])
    axis.imshow(sheet, interpolation="nearest")
    width = sheet.shape[1] / columns
    for i, (part, (_, t)) in enumerate(zip(parts, row, strict=True)):
        text = f"{part.clip.seconds[t]:.2f} s"
        axis.text((i + 0.5) * width, -4, text, ha="center", va="bottom", fontsize=9, color=INK)
    axis.set_axis_off()


def _side_by_side(frames: Sequence[np.ndarray], columns: int) -> np.ndarray:
    h, w = frames[0].shape[:2]
    scale = max(1, round(_TILE_HEIGHT / h))
    h, w = h * scale, w * scale
    line = np.full((h + _GAP, columns * (w + _GAP), 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        left = i * (w + _GAP) + _GAP // 2
        line[:h, left : left + w] = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    return line


def _laid_over(explanation: Explanation) -> np.ndarray:
    pixels = explanation.clip.pixels
    return pixels if explanation.maps is None else overlay(pixels, explanation.maps.maps)


def _draw_importance(axis: Axes, explanations: Sequence[Explanation]) -> None:
    """Draw how far the log odds fall without each frame, along time."""
    label = explanations[0].label
    for explanation in explanations:
        if explanation.importance is None:
            continue
        seconds, drops = explanation.clip.seconds, explanation.importance.per_frame
        width = 0.85 * _frame_seconds(explanation)
        colours = [ACCENT if drop > 0 else _AGAINST for drop in drops]
        axis.bar(seconds, drops, width=width, color=colours)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_xlabel("seconds", color=INK)
    axis.set_ylabel("log odds lost\nwithout the frame", color=INK)
    axis.set_title(
        f"When: blue frames speak for {label!r}, grey ones against", fontsize=10, color=INK, parse_math=False
    )
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -0.1), max(high, 0.5))
    axis.spines[["top", "right"]].set_visible(False)


def _frame_seconds(explanation: Explanation) -> float:
    seconds = explanation.clip.seconds
    return max(float(np.median(np.diff(seconds))), 1e-3) if len(seconds) > 1 else 1.0


def _pace(explanations: Sequence[Explanation]) -> float:
    """Return the frames a second at which the clips move as they did; two where a clip is one frame."""
    if len(explanations[0].clip.pixels) == 1 or explanations[0].clip.span_seconds <= 0:
        return _STILL_FPS
    return float(np.clip(1 / _frame_seconds(explanations[0]), _SLOWEST_FPS, _FASTEST_FPS))


def _video_frames(explanations: Sequence[Explanation]) -> Iterator[np.ndarray]:
    values = np.concatenate([_importance_of(explanation) for explanation in explanations])
    position = 0
    for explanation in explanations:
        lit = _laid_over(explanation)
        for t, (pixels, over) in enumerate(zip(explanation.clip.pixels, lit, strict=True)):
            yield _video_frame(explanation, t, (pixels, over), values=values, position=position)
            position += 1


def _importance_of(explanation: Explanation) -> np.ndarray:
    if explanation.importance is None:
        return np.zeros(len(explanation.clip.pixels))
    return explanation.importance.per_frame


def _video_frame(
    explanation: Explanation,
    t: int,
    pair: tuple[np.ndarray, np.ndarray],
    *,
    values: np.ndarray,
    position: int,
) -> np.ndarray:
    """Return one picture: a line of text, the frame and its overlay, and bars of importance with a cursor."""
    h, w = pair[0].shape[:2]
    height = _VIDEO_HEIGHT
    width = max(2, 2 * round(height * w / h / 2))
    canvas = Image.new("RGB", (2 * width, _BANNER + height + _STRIP), "white")
    for i, pixels in enumerate(pair):
        canvas.paste(
            Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), (i * width, _BANNER)
        )
    draw = ImageDraw.Draw(canvas)
    what = f"what speaks for {explanation.label!r} ({explanation.probability:.2f})"
    text = f"{explanation.clip.seconds[t]:.2f} s   {what}"
    draw.text((8, 6), text, fill=INK, font=_font(15))
    _draw_bars(
        draw, values, position, box=(8, _BANNER + height + 4, 2 * width - 8, _BANNER + height + _STRIP - 6)
    )
    return np.asarray(canvas)


def _draw_bars(draw: ImageDraw.ImageDraw, values: np.ndarray, position: int, *, box: tuple[int, ...]) -> None:
    left, top, right, bottom = box
    high, low = max(float(values.max()), 0.5), min(float(values.min()), -0.1)
    scale = (bottom - top) / (high - low)
    zero, step = top + high * scale, (right - left) / len(values)
    for i, value in enumerate(values.tolist()):
        edge = zero - value * scale
        colour = ACCENT if value > 0 else _AGAINST
        x = left + i * step
        draw.rectangle((x + 1, min(zero, edge), max(x + 1, x + step - 1), max(zero, edge)), fill=colour)
    draw.line((left, zero, right, zero), fill=INK)
    x = left + (position + 0.5) * step
    draw.line((x, top - 2, x, bottom + 2), fill=_CURSOR, width=2)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
