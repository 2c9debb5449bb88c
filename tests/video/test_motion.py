"""Drawn clips: only motion tells the class, and files hold what was drawn."""

import csv
import itertools
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from vidette.errors import OutputExistsError, SettingError, StorageError
from vidette.video.motion import CLASSES, PARTNERS, draw_clip, write_motion_clips, write_untrimmed

SCENES = range(6)
SIZE = (48, 64)


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return pixels, np.array([frame.time for frame in frames]), float(stream.average_rate)


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def object_track(frames, background):
    """Centre ``x, y`` and area of the object, a frame each: where a frame differs from the background."""
    moving = np.abs(frames.astype(int) - background).max(axis=-1) > 60
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]]
    area = np.maximum(moving.sum(axis=(1, 2)), 1)
    return np.stack([(columns * moving).sum((1, 2)) / area, (rows * moving).sum((1, 2)) / area, area], axis=1)


def background_of(scene):
    """The scene without its object, ``(64, 64, 3)``: the median over every class's frames."""
    return np.median(
        np.concatenate([draw_clip(scene, label, size=(64, 64)).frames for label in CLASSES]), axis=0
    )


def test_partners_pair_the_eight_classes():
    assert len(CLASSES) == len(set(CLASSES)) == 8
    assert all(PARTNERS[PARTNERS[label]] == label != PARTNERS[label] for label in CLASSES)


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize(("scenes", "size"), [(SCENES, SIZE), ([7, 8], None)])
def test_time_reversal_is_exactly_the_partners_clip(label, scenes, size):
    for scene in scenes:
        clip = draw_clip(scene, label, size=size)
        partner = draw_clip(scene, PARTNERS[label], size=size)
        np.testing.assert_array_equal(clip.frames[::-1], partner.frames)
        assert (clip.fps, clip.group) == (partner.fps, partner.group)


@pytest.mark.parametrize("label", CLASSES)
def test_a_classifier_blind_to_order_cannot_tell_partners_apart(label):
    def bag(name):
        return Counter(frame.tobytes() for frame in draw_clip(1, name, size=SIZE).frames)

    assert bag(label) == bag(PARTNERS[label])
    others = [name for name in CLASSES if name not in (label, PARTNERS[label])]
    assert all(bag(label) != bag(name) for name in others)


@pytest.mark.parametrize("scene", SCENES)
def test_the_object_moves_as_the_label_says(scene):
    background = background_of(scene)

    def travel(label, column):
        track = object_track(draw_clip(scene, label, size=(64, 64)).frames, background)[:, column]
        return track[-1] - track[0]

    assert travel("left", 0) < -20 < 20 < travel("right", 0)
    assert travel("up", 1) < -20 < 20 < travel("down", 1)


@pytest.mark.parametrize("scene", SCENES)
def test_the_object_turns_as_the_label_says(scene):
    track = object_track(draw_clip(scene, "clockwise", size=(64, 64)).frames, background_of(scene))
    x, y = (track[:, :2] - 31.5).T
    turned = np.unwrap(np.arctan2(y, x))  # y points down, so a growing angle is clockwise to the viewer
    assert turned[-1] - turned[0] > np.pi


@pytest.mark.parametrize("scene", SCENES)
def test_the_object_grows_as_the_label_says(scene):
    area = object_track(draw_clip(scene, "approach", size=(64, 64)).frames, background_of(scene))[:, 2]
    assert (np.diff(area) >= -6).all()
    assert area[-1] > 4 * area[0]


@pytest.mark.parametrize("label", CLASSES)
def test_motion_covers_much_of_the_picture_and_the_object_is_clear(label):
    for scene in SCENES:
        frames = draw_clip(scene, label, size=(64, 64)).frames.astype(int)
        touched = np.ptp(frames, axis=0).max(axis=-1) > 60
        assert touched.mean() > 0.1
        assert max(np.ptp(np.flatnonzero(touched.any(axis=axis))) for axis in (0, 1)) > 64 / 2


def test_nothing_but_the_object_and_mild_noise_changes():
    frames = draw_clip(2, "right", size=(64, 64)).frames.astype(int)
    quiet = np.ptp(frames, axis=0).max(axis=-1) < 60
    assert quiet.mean() > 0.3
    assert 0 < frames.std(axis=0)[quiet].mean() < 6


def test_scenes_vary_within_their_bounds():
    clips = [draw_clip(scene, "left") for scene in range(24)]
    sizes, rates = {clip.frames.shape[1:3] for clip in clips}, {clip.fps for clip in clips}
    lengths = [len(clip.frames) / clip.fps for clip in clips]
    assert len(sizes) > 3
    assert len(rates) > 6
    assert min(rates) >= 12
    assert max(rates) <= 30
    assert min(lengths) > 0.9
    assert max(lengths) < 4.1
    assert max(lengths) - min(lengths) > 2
    assert len({clip.group for clip in clips}) == 24


def test_seed_and_scene_decide_the_pixels():
    first = draw_clip(4, "up", seed=1, size=SIZE).frames
    np.testing.assert_array_equal(first, draw_clip(4, "up", seed=1, size=SIZE).frames)
    other_seed = draw_clip(4, "up", seed=2, size=SIZE).frames
    assert first.shape != other_seed.shape or (first != other_seed).any()


def test_bad_settings_are_named():
    with pytest.raises(SettingError, match="did you mean 'clockwise'"):
        draw_clip(0, "clockwize")
    with pytest.raises(SettingError, match="65x64"):
        draw_clip(0, "left", size=(65, 64))
    with pytest.raises(SettingError, match="scene is -1"):
        draw_clip(-1, "left")
    with pytest.raises(SettingError, match="num_scenes is 0"):
        write_motion_clips("unused", num_scenes=0)
    with pytest.raises(SettingError, match="num_events is 0"):
        write_untrimmed("unused", num_events=0)
    assert not Path("unused").exists()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "clips"
    progress = []
    manifest = write_motion_clips(
        folder, num_scenes=3, size=SIZE, seed=5, on_progress=lambda *counts: progress.append(counts)
    )
    return folder, manifest, progress


def test_the_manifest_lists_every_file_with_label_and_scene(written):
    folder, manifest, progress = written
    rows = read_rows(manifest)
    assert manifest == folder / "manifest.csv"
    assert {row["path"] for row in rows} == {p.relative_to(folder).as_posix() for p in folder.rglob("*.mp4")}
    assert all(row["path"] == f"{row['label']}/{row['group']}.mp4" for row in rows)
    assert Counter(row["label"] for row in rows) == dict.fromkeys(CLASSES, 3)
    assert sorted(progress) == [(8, 24), (16, 24), (24, 24)]
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_a_file_holds_the_drawn_frames_at_their_rate(written):
    folder, manifest, _ = written
    for row in read_rows(manifest):
        drawn = draw_clip(int(row["group"][-3:]), row["label"], seed=5, size=SIZE)
        pixels, seconds, fps = decode(folder / row["path"])
        assert pixels.shape == drawn.frames.shape
        assert fps == pytest.approx(drawn.fps)
        np.testing.assert_allclose(seconds, np.arange(len(pixels)) / drawn.fps, atol=1e-3)
        assert np.abs(pixels.astype(int) - drawn.frames).mean() < 6


def test_writing_twice_gives_equal_bytes(written, tmp_path):
    folder, manifest, _ = written
    again = write_motion_clips(tmp_path / "again", num_scenes=3, size=SIZE, seed=5).parent
    assert all(
        (folder / r["path"]).read_bytes() == (again / r["path"]).read_bytes() for r in read_rows(manifest)
    )


def test_a_folder_in_use_is_left_alone_unless_overwritten(tmp_path):
    write_motion_clips(tmp_path, num_scenes=2, size=(32, 32))
    (tmp_path / "left" / "mine.txt").write_text("keep")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputExistsError, match="not empty"):
        write_motion_clips(tmp_path, num_scenes=1, size=(32, 32))
    assert sorted(tmp_path.rglob("*")) == before

    write_motion_clips(tmp_path, num_scenes=1, size=(32, 32), overwrite=True)
    assert len(read_rows(tmp_path / "manifest.csv")) == len(list(tmp_path.rglob("*.mp4"))) == 8
    assert (tmp_path / "left" / "mine.txt").read_text() == "keep"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is a file"):
        write_motion_clips(tmp_path / "file")
    with pytest.raises(StorageError, match="cannot be written"):
        write_motion_clips(tmp_path / "file" / "inside", num_scenes=1, size=(32, 32))


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory):
    video, truth = write_untrimmed(tmp_path_factory.mktemp("long"), seed=3, num_events=9, size=(64, 64))
    rows = [(float(r["start_seconds"]), float(r["end_seconds"]), r["label"]) for r in read_rows(truth)]
    return *decode(video), rows


def test_untrimmed_events_are_in_order_apart_and_of_every_class(untrimmed):
    _, seconds, _, rows = untrimmed
    assert {label for _, _, label in rows} == set(CLASSES)
    assert all(1.9 < stop - start < 3.1 for start, stop, _ in rows)
    assert all(after[0] - before[1] > 1.4 for before, after in itertools.pairwise(rows))
    assert all(before[2] != after[2] for before, after in itertools.pairwise(rows))
    assert rows[0][0] > 0
    assert rows[-1][1] < seconds[-1]


def test_untrimmed_moves_in_events_and_rests_beside_them(untrimmed):
    pixels, seconds, fps, rows = untrimmed
    change = (np.abs(np.diff(pixels.astype(np.int16), axis=0)).max(axis=-1) > 60).sum(axis=(1, 2))

    def changes(spans):
        half = 0.5 / fps
        return np.concatenate([change[(seconds[1:] > a + half) & (seconds[1:] < b - half)] for a, b in spans])

    moving = changes([(start, stop) for start, stop, _ in rows])
    resting = changes(
        [(start - 0.4, start) for start, _, _ in rows] + [(stop, stop + 0.4) for _, stop, _ in rows]
    )
    assert np.percentile(moving, 10) > 0
    assert np.median(moving) > 10
    assert resting.max() == 0


@pytest.mark.parametrize(
    ("label", "column", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_untrimmed_events_are_what_the_truth_says(untrimmed, label, column, sign):
    pixels, seconds, _, rows = untrimmed
    start, stop = next((start, stop) for start, stop, name in rows if name == label)
    track = object_track(
        pixels[(seconds >= start - 1e-3) & (seconds < stop - 1e-3)], np.median(pixels, axis=0)
    )[:, column]
    assert sign * (track[-1] - track[0]) > 20


def test_untrimmed_files_are_not_overwritten(tmp_path):
    write_untrimmed(tmp_path, num_events=1, size=(32, 32))
    (tmp_path / "untrimmed.csv").unlink()
    before = (tmp_path / "untrimmed.mp4").read_bytes()
    with pytest.raises(OutputExistsError, match=r"untrimmed\.mp4 exists"):
        write_untrimmed(tmp_path, num_events=1, size=(32, 32), seed=1)
    assert (tmp_path / "untrimmed.mp4").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["untrimmed.mp4"]
    write_untrimmed(tmp_path, num_events=1, size=(32, 32), seed=1, overwrite=True)
    assert (tmp_path / "untrimmed.mp4").read_bytes() != before
