"""Clips drawn on purpose, in which only motion tells the class.

Eight classes in four partner pairs. Any clip of a class, played backwards, is pixel for pixel the clip of
the partner class in the same scene: both hold the same frames, so a classifier that is blind to the order of
frames answers both alike and is right on at most half of them.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidette.errors import OutputExistsError, SettingError, unknown_name
from vidette.video.writer import replacing, write_video

__all__ = ["CLASSES", "PARTNERS", "DrawnClip", "draw_clip", "write_motion_clips", "write_untrimmed"]

_PAIRS = (("left", "right"), ("up", "down"), ("clockwise", "counterclockwise"), ("approach", "recede"))
CLASSES = tuple(label for pair in _PAIRS for label in pair)
"""The eight classes; directions are as the viewer sees them."""
PARTNERS = {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
"""The class that each class becomes when time runs backwards."""
_FORWARD = ("right", "down", "clockwise", "approach")
_SIZES = ((96, 128), (120, 160), (128, 128), (144, 192), (192, 144), (180, 240), (240, 320))
_SMALLEST, _LARGEST = 32, 1080
_UNTRIMMED_SCENE = 2**31
_FADE_SECONDS = 0.25
_MARGIN = 32


@dataclass(frozen=True, eq=False)
class DrawnClip:
    """One drawn clip, before encoding.

    Attributes:
        frames: uint8 ``(F, H, W, 3)``, RGB.
        fps: Frames a second.
        label: One of :data:`CLASSES`.
        group: The scene's name, equal for the eight clips of a scene.
    """

    frames: np.ndarray
    fps: float
    label: str
    group: str

    def __repr__(self) -> str:
        f, h, w, _ = self.frames.shape
        return f"DrawnClip({self.label}, {self.group}, {f} frames of {h}x{w} at {self.fps:g} fps)"


def draw_clip(scene: int, label: str, *, seed: int = 0, size: tuple[int, int] | None = None) -> DrawnClip:
    """Draw the clip of one class in one scene; equal arguments give equal pixels.

    The scene decides background, shape, colour, extent of the movement, rate (12 to 30 frames a second), length
    (1 to 4 s) and, unless ``size`` is given, the size of the picture.

    Args:
        scene: Which scene, from 0.
        label: One of :data:`CLASSES`.
        seed: Another seed gives other scenes.
        size: ``(height, width)`` in pixels, both even; None lets the scene choose, 96x128 to 240x320.

    Raises:
        SettingError: The class is unknown, or the scene, seed or size is out of range.

    Example:
        >>> clip = draw_clip(3, "left", size=(64, 64))
        >>> bool((clip.frames[::-1] == draw_clip(3, "right", size=(64, 64)).frames).all())
        True
    """
    _check_scene(scene, seed, size)
    if label not in CLASSES:
        raise SettingError(unknown_name("motion class", label, CLASSES))
    stage = _Stage(scene, seed=seed, size=size)
    forward = label if label in _FORWARD else PARTNERS[label]
    frames = stage.draw(_poses(stage, forward, stage.num_frames, variant=scene))
    return DrawnClip(frames if label == forward else frames[::-1], stage.fps, label, f"scene-{scene:03d}")


def write_motion_clips(
    folder: str | Path,
    *,
    num_scenes: int = 60,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write every class of every scene as H.264 MP4: ``folder/<label>/scene-000.mp4``, and a manifest.

    Args:
        folder: Where to; made if it is not there.
        num_scenes: Scenes, each of which gives eight clips and is one group.
        size: ``(height, width)`` in pixels, both even; None lets each scene choose.
        seed: Another seed gives other scenes.
        overwrite: Write into a folder that is not empty; drawn clips of an earlier call that this call does not
            replace are removed, other files stay.
        on_progress: Called with clips written and clips in all.

    Returns:
        The manifest, ``folder/manifest.csv``: ``path,label,group``, written last.

    Raises:
        SettingError: The number of scenes, the seed or the size is out of range.
        OutputExistsError: The folder is not empty and ``overwrite`` is false, or it is a file.
        StorageError: The place cannot be written or the disk is full.
    """
    if num_scenes < 1:
        raise SettingError(f"num_scenes is {num_scenes}; expected 1 or more")
    _check_scene(num_scenes - 1, seed, size)
    folder = Path(folder)
    _check_folder(folder, overwrite=overwrite)
    write = functools.partial(_write_scene, folder, seed=seed, size=size)
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        jobs = [pool.submit(write, scene) for scene in range(num_scenes)]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            if on_progress:
                on_progress(done * len(CLASSES), num_scenes * len(CLASSES))
    finally:
        pool.shutdown(cancel_futures=True)
    return _write_manifest(folder, num_scenes)


def write_untrimmed(
    folder: str | Path,
    *,
    seed: int = 0,
    num_events: int = 12,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Write one long video of several events, and when they happen.

    The scene is none of those that :func:`draw_clip` draws. Between events nothing moves: the object rests,
    fades, and reappears where the next event begins. An event lasts 2 to 3 s, as a typical drawn clip does;
    neighbours differ in class, and from eight events on every class occurs.

    Args:
        folder: Where to; made if it is not there.
        seed: Another seed gives another video.
        num_events: How many events.
        size: ``(height, width)`` in pixels, both even; None lets the scene choose.
        overwrite: Replace the two files if they are there.

    Returns:
        ``folder/untrimmed.mp4`` and ``folder/untrimmed.csv``: ``start_seconds,end_seconds,label``, an event
        being ``[start, end)`` in seconds since the first frame.

    Raises:
        SettingError: The number of events, the seed or the size is out of range.
        OutputExistsError: One of the files is there and ``overwrite`` is false.
        StorageError: The place cannot be written or the disk is full.
    """
    if num_events < 1:
        raise SettingError(f"num_events is {num_events}; expected 1 or more")
    _check_scene(0, seed, size)
    video, truth = Path(folder) / "untrimmed.mp4", Path(folder) / "untrimmed.csv"
    stage = _Stage(_UNTRIMMED_SCENE, seed=seed, size=size)
    poses, rows = _event_poses(stage, num_events)
    with replacing(truth, overwrite=overwrite) as temporary:
        _write_rows(temporary, ("start_seconds", "end_seconds", "label"), rows)
        write_video(video, stage.paint(poses), fps=stage.fps, overwrite=overwrite)
    return video, truth


def _check_scene(scene: int, seed: int, size: tuple[int, int] | None) -> None:
    if not 0 <= scene < _UNTRIMMED_SCENE or seed < 0:
        raise SettingError(f"scene is {scene} and seed {seed}; expected whole numbers from 0")
    if size and not all(_SMALLEST <= side <= _LARGEST and side % 2 == 0 for side in size):
        raise SettingError(
            f"size is {size[0]}x{size[1]} (height x width); "
            f"expected even numbers of pixels from {_SMALLEST} to {_LARGEST}"
        )


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder to write clips into")
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise OutputExistsError(f"{folder} is not empty; choose another folder or overwrite it (--overwrite)")


def _write_scene(folder: Path, scene: int, *, seed: int, size: tuple[int, int] | None) -> None:
    for label in _FORWARD:
        clip = draw_clip(scene, label, seed=seed, size=size)
        name = f"{clip.group}.mp4"
        write_video(folder / label / name, clip.frames, fps=clip.fps, overwrite=True)
        write_video(folder / PARTNERS[label] / name, clip.frames[::-1], fps=clip.fps, overwrite=True)


def _write_manifest(folder: Path, num_scenes: int) -> Path:
    """List the clips of this call, and remove drawn clips of an earlier call with more scenes."""
    scenes = [f"scene-{scene:03d}" for scene in range(num_scenes)]
    for label in CLASSES:
        for path in (folder / label).glob("scene-[0-9]*.mp4"):
            if path.stem not in scenes:
                path.unlink()
    with replacing(folder / "manifest.csv", overwrite=True) as temporary:
        rows = [(f"{label}/{scene}.mp4", label, scene) for label in CLASSES for scene in scenes]
        _write_rows(temporary, ("path", "label", "group"), rows)
    return folder / "manifest.csv"


def _write_rows(path: Path, header: tuple[str, ...], rows: list[tuple[str, str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


class _Stage:
    """What the clips of one scene share: picture, object, rate and length.

    A pose is ``(x, y, radius, opacity)``: centre and radius of the object in pixels, opacity in 0..1.
    """

    def __init__(self, scene: int, *, seed: int, size: tuple[int, int] | None) -> None:
        rng = np.random.default_rng((seed, scene))
        self.seed = seed
        self.fps = float(rng.integers(12, 31))
        self.num_frames = round(rng.uniform(1.0, 4.0) * self.fps)
        own_size = _SIZES[rng.integers(len(_SIZES))]
        self.height, self.width = size or own_size
        self.side = min(self.height, self.width)
        self.radius = rng.uniform(0.13, 0.19) * self.side
        self._shape = _SHAPES[rng.integers(len(_SHAPES))]
        self._turn = rng.uniform(0, 2 * np.pi)
        background, self._colour = _colours(rng)
        texture = _TEXTURES[rng.integers(len(_TEXTURES))](rng, self.height, self.width)
        self._background = np.rint(background[0] + texture[:, :, None] * (background[1] - background[0]))
        noise = rng.normal(0, rng.uniform(1, 4), (self.height + _MARGIN, self.width + _MARGIN, 1))
        self._noise = np.rint(noise).astype(np.float32)

    def draw(self, poses: np.ndarray) -> np.ndarray:
        """Draw poses ``(F, 4)`` as uint8 ``(F, H, W, 3)``."""
        frames = np.empty((len(poses), self.height, self.width, 3), np.uint8)
        for frame, pixels in zip(frames, self.paint(poses), strict=True):
            frame[:] = pixels
        return frames

    def paint(self, poses: np.ndarray) -> Iterator[np.ndarray]:
        """Draw poses ``(F, 4)`` one at a time, each uint8 ``(H, W, 3)``."""
        shifts = np.random.default_rng(self.seed).integers(0, _MARGIN, (len(poses), 2))
        for pose, (down, across) in zip(poses, shifts, strict=True):
            pixels = self._background + self._noise[down : down + self.height, across : across + self.width]
            self._put_object(pixels, *pose)
            yield np.clip(pixels, 0, 255).astype(np.uint8)

    def _put_object(self, pixels: np.ndarray, x: float, y: float, radius: float, opacity: float) -> None:
        reach = radius * 1.5
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        box = pixels[top : int(y + reach) + 2, left : int(x + reach) + 2]
        across = (np.arange(left, left + box.shape[1], dtype=np.float32) - x) / radius
        down = (np.arange(top, top + box.shape[0], dtype=np.float32)[:, None] - y) / radius
        cos, sin = np.cos(self._turn), np.sin(self._turn)
        distance = self._shape(across * cos + down * sin, down * cos - across * sin) * radius
        cover = np.clip(0.5 - distance, 0, 1)[:, :, None] * opacity
        box += cover * (self._colour - box)


def _poses(stage: _Stage, forward: str, num_frames: int, *, variant: int) -> np.ndarray:
    """Return the poses ``(F, 4)`` of a forward class, at constant speed from the first frame to the last."""
    rng = np.random.default_rng((stage.seed, variant, _FORWARD.index(forward), 1))
    progress = np.linspace(0, 1, num_frames)
    height, width, side, radius = stage.height, stage.width, stage.side, stage.radius
    x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    if forward == "right":
        x = _sweep(rng, radius, width - radius, progress)
    elif forward == "down":
        y = _sweep(rng, radius, height - radius, progress)
    elif forward == "clockwise":
        arm = rng.uniform(0.85, 1.0) * (side / 2 - radius)
        angle = rng.uniform(0, 2 * np.pi) + rng.uniform(0.75, 1.25) * 2 * np.pi * progress
        x = width / 2 + rng.uniform(-0.5, 0.5) * (width - side) + arm * np.cos(angle)
        y = height / 2 + rng.uniform(-0.5, 0.5) * (height - side) + arm * np.sin(angle)
    else:
        x, y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.65)
        radius = side * (rng.uniform(0.09, 0.12) + rng.uniform(0.24, 0.32) * progress)
    return np.stack(np.broadcast_arrays(x, y, radius, np.ones(num_frames)), axis=1)


def _sweep(rng: np.random.Generator, low: float, high: float, progress: np.ndarray) -> np.ndarray:
    """Run from somewhere near ``low`` over at least 70 % of the way to ``high``."""
    extent = rng.uniform(0.7, 1.0) * (high - low)
    start = low + rng.uniform(0, high - low - extent)
    return start + extent * progress


def _event_poses(stage: _Stage, num_events: int) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """Return the poses of an untrimmed video and the rows of its truth."""
    rng = np.random.default_rng((stage.seed, _UNTRIMMED_SCENE, 2))
    parts: list[np.ndarray] = []
    rows: list[tuple[str, str, str]] = []
    now = 0
    for event, label in enumerate(_event_labels(rng, num_events)):
        forward = label if label in _FORWARD else PARTNERS[label]
        moving = _poses(stage, forward, round(rng.uniform(2, 3) * stage.fps), variant=_UNTRIMMED_SCENE + event)
        moving = moving if label == forward else moving[::-1]
        before, after = (_rest(stage, moving[end], rng.uniform(0.75, 1.5)) for end in (0, -1))
        start = now + len(before)
        now = start + len(moving) + len(after)
        rows.append((f"{start / stage.fps:.3f}", f"{(start + len(moving)) / stage.fps:.3f}", label))
        parts += [before, moving, after[::-1]]
    return np.concatenate(parts), rows


def _rest(stage: _Stage, pose: np.ndarray, seconds: float) -> np.ndarray:
    """Hold a pose, faded in at the beginning."""
    poses = np.repeat(pose[None], max(2, round(seconds * stage.fps)), axis=0)
    num_fade = round(_FADE_SECONDS * stage.fps)
    poses[:num_fade, 3] = np.linspace(0, 1, num_fade, endpoint=False)
    return poses


def _event_labels(rng: np.random.Generator, num_events: int) -> list[str]:
    labels: list[str] = []
    while len(labels) < num_events:
        block = [str(label) for label in rng.permutation(CLASSES)]
        if labels and labels[-1] == block[0]:
            block.reverse()
        labels += block
    return labels[:num_events]


def _colours(rng: np.random.Generator) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Choose two near colours for the background and one far brighter or darker for the object."""
    dark, bright = rng.uniform(30, 75), rng.uniform(185, 230)
    ground, figure = (dark, bright) if rng.random() < 0.5 else (bright, dark)
    contrast = rng.uniform(10, 25) * np.array([-1, 1])
    tints = rng.uniform(-25, 25, (3, 3))
    tints -= tints.mean(axis=1, keepdims=True)
    pair = [(ground + contrast[i] + tints[i]).astype(np.float32) for i in (0, 1)]
    return (pair[0], pair[1]), (figure + 2 * tints[2]).astype(np.float32)


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    return _spread(x * np.cos(angle) + y * np.sin(angle))


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(rng.uniform(3, 8) * 2 * np.pi * _gradient(rng, height, width))


def _checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    tilted = (np.clip(4 * _stripes(rng, height, width) - 2, -1, 1) for _ in range(2))
    return _spread(next(tilted) * next(tilted))


def _waves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return _spread(np.mean([_stripes(rng, height, width) for _ in range(3)], axis=0))


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return _spread(np.sum([_enlarged(rng, height, width, cells) / cells for cells in (4, 8, 16)], axis=0))


def _enlarged(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Return a coarse random grid, enlarged bilinearly."""
    grid, places = rng.random((cells, cells)), np.arange(cells)
    rows, columns = np.linspace(0, cells - 1, height), np.linspace(0, cells - 1, width)
    tall = np.stack([np.interp(rows, places, column) for column in grid.T], axis=1)
    return np.stack([np.interp(columns, places, row) for row in tall])


def _spread(values: np.ndarray) -> np.ndarray:
    """Scale to 0..1, as float32."""
    low, high = values.min(), values.max()
    return ((values - low) / max(high - low, 1e-9)).astype(np.float32)


_TEXTURES = (_gradient, _stripes, _checks, _waves, _clouds)


def _box(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


# Signed distances to the edge (negative inside) of a shape of radius about 1 around the origin:
# disc, ring, square, triangle, cross, bar.
_SHAPES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    lambda u, v: np.hypot(u, v) - 1,
    lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.3,
    lambda u, v: _box(u, v, 0.85, 0.85),
    lambda u, v: np.maximum(0.87 * np.abs(u) - 0.5 * v, v) - 0.6,
    lambda u, v: np.minimum(_box(u, v, 0.95, 0.4), _box(u, v, 0.4, 0.95)),
    lambda u, v: _box(u, v, 1.0, 0.55),
)
