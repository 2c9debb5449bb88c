"""Augmentation treats a clip as one picture, is repeated by its generator, and does what its name says."""

import colorsys
from dataclasses import fields

import numpy as np
import pytest

from vidette.errors import SettingError
from vidette.video.augmentation import Augmentation, augment, flip_suggestion, view_crops

RNG = np.random.default_rng(0)
SPATIAL = {
    **{"crop_scale_min": 0.4, "flip": True, "colour": 0.5, "hue": 0.3, "blur": 3.0, "erase": 0.5},
    **{"rotate": 30.0, "translate": 0.3, "zoom": 0.5},
}
TEMPORAL = {"time_shift": 0.4, "time_jitter": 2.0, "speed": 1.0}
EACH = {**SPATIAL, **TEMPORAL, "noise": 0.2}


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 128 + 100 * np.sin(6 * x)], axis=-1).astype(np.uint8)


def moving(num_frames: int = 12) -> np.ndarray:
    """A clip whose every pixel is 10 times the number of its frame."""
    return np.repeat(10 * np.arange(num_frames, dtype=np.uint8), 8 * 8 * 3).reshape(num_frames, 8, 8, 3)


def augmented(clip: np.ndarray, seed: int, **settings) -> np.ndarray:
    return augment(clip, Augmentation(**settings), generator=np.random.default_rng(seed))


def test_every_change_has_a_case_here():
    assert set(EACH) == {field.name for field in fields(Augmentation)}


@pytest.mark.parametrize("settings", [*({name: value} for name, value in SPATIAL.items()), SPATIAL], ids=str)
def test_a_still_clip_stays_still(settings):
    still = np.repeat(RNG.integers(0, 256, (1, 32, 48, 3), dtype=np.uint8), 6, axis=0)
    changed = 0
    for seed in range(12):
        out = augmented(still, seed, **settings)
        assert out.shape == still.shape
        assert out.dtype == np.uint8
        assert out.flags.c_contiguous
        assert all(np.array_equal(out[0], other) for other in out[1:])
        changed += not np.array_equal(out, still)
    assert changed >= (2 if settings == {"flip": True} else 11)


@pytest.mark.parametrize("name", sorted(TEMPORAL))
def test_a_change_of_time_leaves_a_still_clip_as_it_is(name):
    still = np.repeat(RNG.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8), 6, axis=0)
    for seed in range(8):
        np.testing.assert_array_equal(augmented(still, seed, **{name: TEMPORAL[name]}), still)


@pytest.mark.parametrize("name", sorted(TEMPORAL))
def test_a_change_of_time_keeps_whole_frames_in_their_order(name):
    changed = 0
    for seed in range(20):
        out = augmented(moving(), seed, **{name: TEMPORAL[name]})
        frames = out[:, 0, 0, 0].astype(int)
        assert np.array_equal(out, np.broadcast_to(frames[:, None, None, None], out.shape))
        assert set(frames) <= set(range(0, 120, 10))
        assert np.all(np.diff(frames) >= 0)
        changed += not np.array_equal(out, moving())
    assert changed >= 15


def test_a_shift_moves_all_frames_by_one_number_and_holds_the_end():
    shifts = set()
    for seed in range(20):
        frames = augmented(moving(), seed, time_shift=0.25)[:, 0, 0, 0].astype(int) // 10
        (shift,) = {k for k in range(-3, 4) if np.array_equal(frames, np.clip(np.arange(12) + k, 0, 11))}
        shifts.add(shift)
    assert min(shifts) < 0 < max(shifts)


def test_speed_goes_both_ways_and_stays_in_its_range():
    rates = []
    for seed in range(40):
        frames = augmented(moving(), seed, speed=1.0)[:, 0, 0, 0].astype(int) // 10
        going = np.flatnonzero((frames > 0) & (frames < 11))
        rates.append(np.polyfit(going, frames[going], 1)[0])
    assert 0.45 < min(rates) < 0.7
    assert 1.4 < max(rates) < 2.3


def test_noise_has_one_strength_for_the_clip_but_differs_from_frame_to_frame():
    grey = np.full((6, 64, 64, 3), 128, np.uint8)
    strengths = []
    for seed in range(8):
        noise = augmented(grey, seed, noise=0.1).astype(float) - 128
        by_frame = noise.std(axis=(1, 2, 3))
        assert np.ptp(by_frame) < 0.05 * by_frame.mean() + 0.1
        assert by_frame.mean() < 0.1 * 255 + 0.5
        assert abs(noise.mean()) < 0.5
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
        strengths.append(by_frame.mean())
    assert max(strengths) > 2 * min(strengths)


@pytest.mark.parametrize("settings", [*({name: value} for name, value in EACH.items()), EACH], ids=str)
def test_augmentation_is_repeated_by_its_generator_and_changed_by_another(settings):
    clip = RNG.integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
    outs = [augmented(clip, seed, **settings) for seed in range(8)]
    for seed, out in enumerate(outs):
        np.testing.assert_array_equal(out, augmented(clip, seed, **settings))
    assert len({out.tobytes() for out in outs}) >= (2 if settings == {"flip": True} else 5)


def test_what_one_change_draws_does_not_depend_on_the_others():
    """A blurred clip is cropped as an unblurred one: black stays where it was."""
    clip = np.zeros((4, 32, 32, 3), np.uint8)
    clip[:, :, 16:] = 200
    for seed in range(8):
        alone = augmented(clip, seed, crop_scale_min=0.3)
        more = augmented(clip, seed, crop_scale_min=0.3, blur=0.5, time_jitter=1.0, speed=0.5, noise=0.02)
        assert np.abs(alone.astype(int) - more).mean() < 12


def test_augmentation_switched_off_changes_nothing():
    clip = RNG.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    before = clip.copy()
    np.testing.assert_array_equal(augmented(clip, 0), clip)
    augmented(clip, 0, **EACH)
    np.testing.assert_array_equal(clip, before)


def test_without_flip_left_stays_left():
    clip = np.zeros((2, 32, 48, 3), np.uint8)
    clip[:, :, 24:] = 200
    lefts = []
    for seed in range(40):
        kept = augmented(clip, seed, colour=0.2)
        assert kept[:, :, :20].mean() < kept[:, :, 28:].mean()
        mirrored = augmented(clip, seed, flip=True, colour=0.2)
        lefts.append(mirrored[:, :, :20].mean() < mirrored[:, :, 28:].mean())
    assert 8 < sum(lefts) < 32


def test_crop_is_a_part_of_the_picture_at_full_size():
    clip = np.repeat(smooth(64, 64)[None], 3, axis=0)
    for seed in range(20):
        out = augmented(clip, seed, crop_scale_min=0.25)
        red = out[0, :, :, 0].astype(int)
        assert np.all(np.diff(red.mean(axis=0)) > -1)
        assert np.ptp(red.mean(axis=0)) > 255 * 0.4


def blob(out: np.ndarray) -> tuple[float, float, float, float]:
    """Area, row and column of the middle, and slope in degrees of what is bright."""
    rows, columns = np.nonzero(out[0, :, :, 0] > 100)
    slope = 0.5 * np.arctan2(2 * np.cov(rows, columns)[0, 1], columns.var() - rows.var())
    return float(len(rows)), float(rows.mean()), float(columns.mean()), float(np.degrees(slope))


def test_a_clip_is_turned_moved_and_scaled_both_ways_within_what_is_asked():
    clip = np.zeros((2, 60, 90, 3), np.uint8)
    clip[:, 27:33, 33:57] = 200  # 6 x 24 pixels in the middle
    seeds = range(30)
    turned = np.array([blob(augmented(clip, seed, rotate=30.0)) for seed in seeds])
    assert turned[:, 3].min() < -15
    assert turned[:, 3].max() > 15
    assert np.abs(turned[:, 3]).max() <= 31
    np.testing.assert_allclose(turned[:, 0], 144, rtol=0.15)
    np.testing.assert_allclose(turned[:, 1:3], [[29.5, 44.5]] * 30, atol=0.6)
    moved = np.array([blob(augmented(clip, seed, translate=0.2)) for seed in seeds])
    for column, (middle, most) in zip((1, 2), ((29.5, 12), (44.5, 18)), strict=True):
        away = moved[:, column] - middle
        assert away.min() < -most / 2
        assert away.max() > most / 2
        assert np.abs(away).max() <= most + 0.6
    scaled = np.array([blob(augmented(clip, seed, zoom=0.5)) for seed in seeds])
    assert 1 / 2.4 < scaled[:, 0].min() / 144 < 0.75
    assert 1.4 < scaled[:, 0].max() / 144 < 2.4


def test_a_gap_is_filled_with_the_border():
    clip = np.full((2, 32, 32, 3), 90, np.uint8)
    for seed in range(8):
        np.testing.assert_array_equal(augmented(clip, seed, rotate=45.0, translate=0.4, zoom=0.9), clip)


def test_hue_turns_the_colour_and_keeps_grey_and_brightness():
    grey = np.full((2, 4, 4, 3), 120, np.uint8)
    orange = np.broadcast_to(np.array([180, 120, 90], np.uint8), (2, 4, 4, 3))
    hues = []
    for seed in range(12):
        assert np.abs(augmented(grey, seed, hue=0.1).astype(int) - 120).max() <= 1
        out = augmented(orange, seed, hue=0.1)[0, 0, 0] / 255
        assert out @ [0.299, 0.587, 0.114] * 255 == pytest.approx(134.5, abs=2)
        hues.append((colorsys.rgb_to_hsv(*out)[0] - 1 / 18 + 0.5) % 1 - 0.5)
    assert min(hues) < -0.04
    assert max(hues) > 0.04
    assert max(map(abs, hues)) < 0.15


def test_blur_lowers_contrast_between_neighbours_and_keeps_the_mean():
    clip = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    sharpness = []
    for seed in range(12):
        out = augmented(clip, seed, blur=3.0)
        assert abs(out.mean() - clip.mean()) < 4
        sharpness.append(
            np.abs(np.diff(out.astype(int), axis=2)).mean() / np.abs(np.diff(clip.astype(int), axis=2)).mean()
        )
    assert max(sharpness) <= 1
    assert min(sharpness) < 0.2


def test_erasing_covers_one_rectangle_no_larger_than_asked():
    clip = np.repeat(smooth(64, 64)[None], 3, axis=0)
    for seed in range(12):
        changed = np.any(augmented(clip, seed, erase=0.3) != clip, axis=-1)[0]
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0 < box <= 0.32 * 64 * 64
        assert changed.sum() > 0.9 * box


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation) if field.name != "flip"])
def test_settings_out_of_range(name):
    for wrong in (-0.1, 181.0):
        with pytest.raises(SettingError, match=name):
            Augmentation(**{name: wrong})
    with pytest.raises(SettingError):
        Augmentation(crop_scale_min=0.0)


def test_views_are_the_whole_the_centre_and_the_corners():
    clip = np.repeat(smooth(64, 64)[None], 3, axis=0)
    views = view_crops(clip, 6, side=0.5)
    assert [view.shape for view in views] == [clip.shape] * 6
    np.testing.assert_array_equal(views[0], clip)
    places = [(view[0, :, :, 1].mean(), view[0, :, :, 0].mean()) for view in views[1:]]  # down, right
    expected = [(128, 128), (64, 64), (64, 191), (191, 64), (191, 191)]
    np.testing.assert_allclose(places, expected, atol=4)
    assert all(np.array_equal(view[0], frame) for view in views for frame in view)
    np.testing.assert_array_equal(view_crops(clip, 2)[1], view_crops(clip, 6)[1])


def test_views_that_cannot_be():
    clip = np.zeros((2, 8, 8, 3), np.uint8)
    for num in (0, 7):
        with pytest.raises(SettingError, match="expected 1 to 6"):
            view_crops(clip, num)
    with pytest.raises(SettingError, match="side"):
        view_crops(clip, 2, side=0.0)


@pytest.mark.parametrize(
    "name",
    [
        "left",
        "Turn_Right",
        "swipe-left",
        "moveLeft",
        "clockwise",
        "turn counter-clockwise",
        "ccw",
        "2 leftward",
    ],
)
def test_a_class_that_names_a_side_is_told(name):
    assert f"class {name} names a side" in flip_suggestion(["stand", name])
    assert "--no-flip" in flip_suggestion(["stand", name])


def test_names_without_a_side_are_left_alone():
    assert flip_suggestion(["up", "bright", "cleft", "upright", "fight", "o'clock", "theft"]) is None
    assert flip_suggestion(["left", "right", "up"]).startswith("classes left, right name a side")
