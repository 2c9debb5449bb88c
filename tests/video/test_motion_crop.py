"""The crop that follows motion: around what moves, one a clip, the same from files, shards and live."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.main import get_command

from vidette.classifier.classifier import Classifier
from vidette.classifier.stepper import Stepper
from vidette.cli import app
from vidette.data.cache import ClipCache, read_labelled
from vidette.data.manifest import LabelledClip, read_manifest
from vidette.data.prepare import ShardPlan, prepare_shards
from vidette.errors import InputMismatchError, SettingError
from vidette.models import build_model
from vidette.streaming.live import run
from vidette.streaming.records import Note, Score
from vidette.streaming.sources import FileSource
from vidette.training.recipe import Recipe, with_options
from vidette.training.run import fitted_recipe
from vidette.training.start import recipe_spec
from vidette.video.clip import Clip, ClipSpec, SpanRange
from vidette.video.frames_folder import open_frames
from vidette.video.motion_crop import clip_pixels, motion_box, motion_energy
from vidette.video.reader import open_video
from vidette.video.sampling import WindowCutter
from vidette.video.shards import KeptFrames, open_shard_clip
from vidette.video.transforms import FrameResizer
from vidette.video.writer import write_video

ROWS, COLUMNS, T = 240, 320, 6
SPEC = ClipSpec(num_frames=T, height=32, width=32, resize="motion")
LIVE = replace(SPEC, sampling="window", fps=5.0)
WALL = np.random.default_rng(7).integers(40, 200, (ROWS // 8 + 4, COLUMNS // 8 + 4)).astype(np.float64)
WALL = np.kron(WALL, np.ones((8, 8)))


def scene(
    num=T, *, start=(60, 200), step=(0, 8), size=24, shake=0, light=0.0, noise=0.0, second=None, seed=0
) -> np.ndarray:
    """Pictures of a bright square that moves over a wall, seen by a camera that may shake and see badly."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((num, ROWS, COLUMNS, 3), np.uint8)
    for i in range(num):
        down, right = rng.integers(-shake, shake + 1, 2) if shake else (0, 0)
        wall = WALL[16 + down : 16 + down + ROWS, 16 + right : 16 + right + COLUMNS].copy()
        for (top, left), (dy, dx) in [(start, step)] + ([second] if second else []):
            y, x = top + i * dy - down, left + i * dx - right
            wall[max(0, y) : max(0, y + size), max(0, x) : max(0, x + size)] = 250
        seen = wall * (1 + light * i) + rng.normal(0, noise, (ROWS, COLUMNS))
        pictures[i] = np.clip(seen, 0, 255)[:, :, None]
    return pictures


def box_of(pictures, *, aspect=1.0):
    grey = np.ascontiguousarray(pictures[:, :, :, 0])
    return motion_box(motion_energy(grey), shape=grey.shape[1:], aspect=aspect)


def holds(box, top, left, bottom, right):
    return (
        box.top * ROWS <= top
        and box.left * COLUMNS <= left
        and box.bottom * ROWS >= bottom
        and box.right * COLUMNS >= right
    )


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {"light": 0.04},
        {"noise": 3.0},
        {"shake": 5},
        {"shake": 3, "light": -0.03, "noise": 2.0},
    ],
)
def test_the_crop_holds_what_moves_and_little_else(trouble):
    """Light that changes, a camera that shakes, and noise leave it where it is."""
    box = box_of(scene(**trouble))
    assert holds(box, 60, 200, 84, 264)
    assert (box.bottom - box.top) * ROWS <= 0.6 * ROWS
    assert (box.right - box.left) * COLUMNS == pytest.approx((box.bottom - box.top) * ROWS)


@pytest.mark.parametrize("trouble", [{}, {"light": 0.04}, {"noise": 3.0}, {"shake": 5}])
def test_without_motion_it_is_the_whole_picture(trouble):
    assert box_of(scene(step=(0, 0), **trouble)) == (0, 0, 1, 1)
    still = list(scene(step=(0, 0), **trouble))
    resizer = FrameResizer(replace(SPEC, resize="stretch"))
    np.testing.assert_array_equal(clip_pixels(still, SPEC), [resizer(picture) for picture in still])


@pytest.mark.parametrize("start", [(0, 0), (0, 270), (216, 0), (210, 260)])
@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.5])
def test_it_lies_inside_and_has_the_wanted_shape_and_a_least_size(start, aspect):
    box = box_of(scene(start=start, step=(0, 3), size=8), aspect=aspect)
    tall, wide = (box.bottom - box.top) * ROWS, (box.right - box.left) * COLUMNS
    assert min(box) >= 0
    assert max(box) <= 1
    assert min(tall, wide) == pytest.approx(ROWS / 2), "a hand brings its person along"
    if tall < ROWS - 1 and wide < COLUMNS - 1:
        assert wide / tall == pytest.approx(aspect)


def test_two_that_move_are_both_held_and_a_flicker_is_not():
    both = box_of(scene(start=(30, 40), second=((180, 250), (0, -8))))
    assert holds(both, 30, 40, 204, 274)
    pictures = scene()
    pictures[::2, 224:228, 8:12] = 255  # a lamp far away
    assert box_of(pictures).left * COLUMNS > 100


def test_a_clip_is_cut_from_the_large_pictures_all_frames_alike():
    """The crop of a clip of its own size holds the very pixels of the picture."""
    pictures = scene(step=(0, 4), size=20)
    spec = replace(SPEC, height=ROWS // 2, width=ROWS // 2)
    pixels = clip_pixels(list(pictures), spec)
    box = box_of(pictures)
    top, left = round(box.top * ROWS), round(box.left * COLUMNS)
    np.testing.assert_array_equal(pixels, pictures[:, top : top + ROWS // 2, left : left + ROWS // 2])


@pytest.mark.parametrize(
    ("size", "held"), [((90, 160), (90, 160)), ((960, 1280), (480, 640)), ((2000, 500), (640, 160))]
)
def test_pictures_are_held_in_their_shape_and_bounded(size, held):
    assert FrameResizer(SPEC)(np.zeros((*size, 3), np.uint8)).shape == (*held, 3)
    large = FrameResizer(replace(SPEC, height=224))
    assert large(np.zeros((1080, 1920, 3), np.uint8)).shape == (504, 896, 3)


def test_pictures_may_change_their_size_on_the_way():
    pictures = list(scene())
    pictures[3] = FrameResizer(ClipSpec(height=120, width=160))(pictures[3])
    pixels = clip_pixels(pictures, SPEC)
    assert pixels.shape == (T, 32, 32, 3)
    assert np.abs(pixels[3].astype(int) - clip_pixels(list(scene()), SPEC)[3]).mean() < 6


def test_the_spec_names_it():
    assert SPEC.follows_motion
    assert not replace(SPEC, resize="crop").follows_motion
    assert SPEC.pixel_key != replace(SPEC, resize="stretch").pixel_key
    assert ClipSpec.from_dict(SPEC.to_dict()) == SPEC
    with pytest.raises(SettingError, match="one frame has no motion: use 2 or more"):
        ClipSpec(num_frames=1, resize="motion")
    with pytest.raises(InputMismatchError, match="no picture"):
        clip_pixels([], SPEC)


# The same clip wherever it comes from.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of two labelled videos of 2 s."""
    folder = tmp_path_factory.mktemp("crop") / "clips"
    for label, step in (("left", (0, -4)), ("right", (0, 4))):
        (folder / label).mkdir(parents=True)
        write_video(folder / label / "a.mp4", scene(20, start=(60, 150), step=step, noise=1.0), fps=10)
    return folder


def test_a_cache_a_shard_and_a_folder_of_frames_give_the_video_s_clip(source, tmp_path):
    path = source / "right" / "a.mp4"
    with open_video(path) as video:
        clip, pictures = video.clip(SPEC), [frame.pixels for frame in video.frames()]
    assert clip.pixels.shape == (T, 32, 32, 3)
    with open_video(path) as video:
        stretched = video.clip(replace(SPEC, resize="stretch"))
    assert np.abs(clip.pixels.astype(int) - stretched.pixels).mean() > 5

    cache, labelled = ClipCache(tmp_path / "cache"), LabelledClip(path, "right")
    for _ in range(2):
        np.testing.assert_array_equal(cache.load(labelled, SPEC).pixels, clip.pixels)

    frames = tmp_path / "frames"
    frames.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(frames / f"{i:03}.png")
    np.testing.assert_allclose(open_frames(frames, fps=10).clip(SPEC).pixels, clip.pixels, atol=2)

    for kept in (KeptFrames(32, 32, "motion", T), KeptFrames(48, 32, "motion", None, 10.0)):
        plan = ShardPlan(kept, "raw")
        prepared = prepare_shards(read_manifest(source), tmp_path / f"{kept.fps}", plan)
        (found,) = [
            one for one in read_manifest(prepared.folder / "manifest.csv").clips if one.label == "right"
        ]
        np.testing.assert_array_equal(read_labelled(found, SPEC).pixels, clip.pixels)
        assert fitted_recipe(prepared.folder, Recipe(), {}).clip.resize == "motion"
        with (
            open_shard_clip(found.path) as shard,
            pytest.raises(SettingError, match="resize 'motion', not 'pad'"),
        ):
            shard.clip(replace(SPEC, resize="pad"))


def test_windows_of_a_long_file_are_the_windows_own_clips(source):
    with open_video(source / "left" / "a.mp4") as video:
        cutter, cut = WindowCutter(LIVE, stride_seconds=0.4), []
        for frame in video.frames(LIVE):
            cut += [clip] if (clip := cutter.push(frame)) else []
        assert len(cut) == 3
        for clip in cut:
            own = video.clip(LIVE, start_seconds=float(clip.seconds[0]))
            np.testing.assert_array_equal(clip.pixels, own.pixels)


# Live: every answer crops its last frames anew.


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(name="cnn_gru", spec=LIVE):
    torch.manual_seed(0)
    options = {"backbone": "small"} if name == "cnn_gru" else {}
    size = {"num_frames": T, "height": spec.height, "width": spec.width}
    return Classifier(
        build_model(name, num_classes=2, options=options, **size), name, options, spec, ("a", "b")
    )


@pytest.mark.parametrize("name", ["cnn_gru", "conv3d_small"])
def test_frame_by_frame_it_gives_the_clips_own_logits(name):
    model = classifier(name)
    stepper = Stepper(model, runtime="torch", stride_frames=1)
    pictures = scene(10, start=(30, 60), step=(12, 16))
    states, answers = [stepper.start(), stepper.start()], []
    for frames in zip(pictures, pictures[::-1], strict=True):  # two streams do not mix
        pushed = stepper.push_many(frames, states)
        states = [state for _, state in pushed]
        answers.append([logits for logits, _ in pushed])
    assert [pair[0] is None for pair in answers] == [i < T - 1 for i in range(10)]
    for stream, shown in enumerate((pictures, pictures[::-1])):
        clips = [clip_pixels(list(shown[i - T : i]), LIVE) for i in range(T, 11)]
        own = model.logits([Clip(pixels, np.arange(T) / 5) for pixels in clips])
        np.testing.assert_allclose([pair[stream] for pair in answers[T - 1 :]], own, atol=1e-4)
        assert np.ptp(own, axis=0).max() > 1e-3, "the answers differ, or nothing is tested"
    assert stepper.state_policy == "clip"
    assert "looks at all of them anew" in stepper.notes[0]


def test_a_short_stream_repeats_its_last_frame_and_a_new_size_goes_on():
    stepper, state = Stepper(classifier(), runtime="torch"), None
    state = stepper.start()
    for frame in [*scene(3), np.zeros((48, 64, 3), np.uint8)]:
        answer, state = stepper.push(frame, state)
        assert answer is None
    logits, repeated = stepper.finish(state)
    assert logits.shape == (2,)
    assert repeated == 2


def test_what_needs_the_features_of_old_frames_is_refused():
    for policy in ("window", "carry"):
        with pytest.raises(
            SettingError, match=f"'{policy}' but cnn_gru has no step .*follows the motion.*'clip'"
        ):
            Stepper(classifier(), state=policy)
    stepper = Stepper(classifier(), runtime="torch")
    assert stepper.stride_frames == T // 2
    with pytest.raises(InputMismatchError, match="frame is float64"):
        stepper.push(np.zeros((32, 32, 3)), stepper.start())


class Remembered:
    """An output that keeps what it is told."""

    def __init__(self):
        self.records = []

    def take(self, record):
        self.records.append(record)

    def close(self):
        pass


@pytest.mark.parametrize("sampling", ["window", "whole"])
def test_a_live_run_answers_as_the_file_does(source, sampling):
    spec = LIVE if sampling == "window" else replace(SPEC, trained_spans=SpanRange(1.0, 1.0, 1.0))
    model, out, path = classifier(spec=spec), Remembered(), source / "left" / "a.mp4"
    run(Stepper(model, runtime="torch", stride_frames=1), [FileSource(path)], outputs=[out])
    scores = [record for record in out.records if isinstance(record, Score)]
    assert [record.kind for record in out.records if isinstance(record, Note)] == ["runtime"]
    assert len(scores) == 5
    with open_video(path) as video:
        for score in scores:
            stop = score.window.stop_seconds - 0.2
            own = video.clip(LIVE, start_seconds=stop - 1.0)
            np.testing.assert_allclose(score.logits, model.logits([own])[0], atol=1e-4)


def test_train_and_prepare_take_it_by_name():
    commands = get_command(app).commands
    for args in (
        ["train", "clips", "--crop", "motion"],
        ["prepare", "clips", "--out", "x", "--resize", "motion"],
    ):
        assert commands[args[0]].make_context(args[0], args[1:]).params["resize"] == "motion"
    with pytest.raises(typer.BadParameter, match="hand"):
        commands["train"].make_context("train", ["clips", "--crop", "hand"])
    recipe = with_options(Recipe(), {"resize": "motion", "weights": "none"})
    assert recipe_spec(recipe).follows_motion
