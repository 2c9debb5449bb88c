"""Every corruption does what its name says, more so at a higher level, and the same for the same generator."""

import dataclasses

import numpy as np
import pytest

from vidette.errors import SettingError
from vidette.video.clip import Clip
from vidette.video.corruption_codec import encode_h264, lost_packets
from vidette.video.corruptions import CORRUPTIONS, FAMILIES, NUM_LEVELS, corrupt, corruption_generator
from vidette.video.motion import draw_clip

NAMES = tuple(CORRUPTIONS)
ORDERS = tuple(name for name, kind in CORRUPTIONS.items() if kind.order)


def drawn(scene=3, label="right", *, num_frames=16, size=(64, 64)) -> Clip:
    clip = draw_clip(scene, label, seed=0, size=size)
    chosen = np.linspace(0, len(clip.frames) - 1, num_frames).round().astype(int)
    return Clip(clip.frames[chosen], chosen / clip.fps)


def flat(value=128, *, num_frames=8, size=(32, 48)) -> Clip:
    return Clip(np.full((num_frames, *size, 3), value, np.uint8), np.arange(num_frames) / 8)


def disturbed(clip: Clip, name: str, level: int, *, number=0) -> np.ndarray:
    return corrupt(clip, name, level, generator=corruption_generator(name, seed=0, clip_number=number)).pixels


def change(clip: Clip, name: str, level: int, *, number: int) -> float:
    return float(((disturbed(clip, name, level, number=number).astype(float) - clip.pixels) ** 2).mean())


def test_the_table_is_whole():
    assert {kind.family for kind in CORRUPTIONS.values()} == set(FAMILIES)
    for name, kind in CORRUPTIONS.items():
        assert kind.name == name
        assert (kind.change is None) != (kind.order is None)
        assert len(set(kind.strengths)) == NUM_LEVELS


@pytest.mark.parametrize("name", NAMES)
def test_severity_rises_with_the_level(name):
    clips = [drawn(3, "right"), drawn(5, "up"), drawn(8, "clockwise")]
    changes = [
        np.mean([change(clip, name, level, number=number) for number, clip in enumerate(clips)])
        for level in range(NUM_LEVELS + 1)
    ]
    assert changes[0] == 0
    assert np.all(np.diff(changes) > 0), changes


@pytest.mark.parametrize("name", NAMES)
def test_shape_times_and_the_input_are_kept(name):
    clip = drawn(num_frames=6, size=(32, 48))
    before = clip.pixels.copy()
    after = corrupt(clip, name, 3, generator=np.random.default_rng(0))
    assert after.pixels.shape == before.shape
    assert after.pixels.dtype == np.uint8
    assert np.array_equal(after.seconds, clip.seconds)
    assert np.array_equal(clip.pixels, before)


@pytest.mark.parametrize("name", NAMES)
def test_equal_generators_give_equal_clips(name):
    clip = drawn(num_frames=6, size=(32, 32))
    assert np.array_equal(disturbed(clip, name, 2), disturbed(clip, name, 2))


def test_another_clip_number_is_disturbed_otherwise():
    clip = drawn(num_frames=6, size=(32, 32))
    for name in ("gaussian_noise", "fixed_object", "frame_drop", "lost_packets"):
        assert not np.array_equal(disturbed(clip, name, 4), disturbed(clip, name, 4, number=1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 9, 13), (3, 8, 8)])
def test_odd_small_and_short_clips_pass(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seconds in (np.arange(shape[0]) / 5, np.zeros(shape[0])):
        for level in (1, NUM_LEVELS):
            after = corrupt(Clip(pixels, seconds), name, level, generator=np.random.default_rng(1))
            assert after.pixels.shape == pixels.shape


def test_level_zero_is_the_clip_itself():
    clip = flat()
    assert corrupt(clip, "dark", 0, generator=np.random.default_rng(0)) is clip


def test_unknown_names_and_levels_are_refused():
    with pytest.raises(SettingError, match="did you mean 'dark'"):
        corrupt(flat(), "drak", 1, generator=np.random.default_rng(0))
    for level in (-1, 6):
        with pytest.raises(SettingError, match=r"expected 1 \(weak\) to 5"):
            corrupt(flat(), "dark", level, generator=np.random.default_rng(0))


@pytest.mark.parametrize("name", ORDERS)
def test_time_shows_frames_of_the_clip_in_order(name):
    clip = drawn(num_frames=16)
    for level in range(1, NUM_LEVELS + 1):
        frames = CORRUPTIONS[name].frames(clip.seconds, level, generator=np.random.default_rng(level))
        assert np.all(np.diff(frames) >= 0)
        assert frames.min() >= 0
        assert frames.max() <= 15
        after = corrupt(clip, name, level, generator=np.random.default_rng(level))
        assert np.array_equal(after.pixels, clip.pixels[frames])


def frames_of(name: str, level: int, seconds: np.ndarray, seed=0) -> np.ndarray:
    return CORRUPTIONS[name].frames(seconds, level, generator=np.random.default_rng(seed))


def test_drop_freeze_and_rates_count_what_they_say():
    seconds = np.arange(21) / 10
    assert len(np.unique(frames_of("frame_drop", 3, seconds))) == 21 - 8  # 40 % of the 20 that can be lost
    frozen = frames_of("freeze", 3, seconds)
    assert np.bincount(frozen).max() in (10, 11)  # half of 2 s
    assert frozen[-1] == 20
    assert frames_of("frame_rate", 2, seconds).tolist() == [3 * (i // 3) for i in range(21)]
    assert frames_of("faster", 3, seconds).tolist() == [min(2 * i, 20) for i in range(21)]
    slow = frames_of("slower", 3, seconds)
    assert slow[-1] - slow[0] == pytest.approx(10, abs=1)


def test_time_is_read_from_the_seconds_not_counted():
    seconds = np.array([0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2, 2.3])
    assert frames_of("faster", 3, seconds).tolist() == [0, 2, 3, 3, 7, 7, 7, 7]


def test_noise_has_the_strength_it_names():
    grey = flat(128, size=(64, 64))
    assert (disturbed(grey, "gaussian_noise", 2) - 128.0).std() == pytest.approx(0.08 * 255, rel=0.05)
    photons = 128 / 255 * 12
    assert disturbed(grey, "shot_noise", 3).std() == pytest.approx(255 / 12 * photons**0.5, rel=0.05)
    hit = disturbed(grey, "impulse_noise", 5)
    assert np.mean(hit == 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(hit == 255) == pytest.approx(0.1, abs=0.01)
    assert not np.array_equal(hit[0], hit[1])


def test_blur_spreads_a_point_and_keeps_its_light():
    pixels = np.zeros((1, 65, 65, 3), np.uint8)
    pixels[0, 32, 32] = 255
    point = dataclasses.replace(flat(num_frames=1), pixels=pixels)
    disc = disturbed(point, "defocus", 5)[0, :, :, 0].astype(float)
    assert disc.sum() == pytest.approx(255, rel=0.1)
    assert np.array_equal(disc, disc.T)
    line = disturbed(point, "motion_blur", 5)[0, :, :, 0].astype(float)
    rows, columns = np.nonzero(line > 8)
    spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
    assert spread[1] > 5 * spread[0]
    assert np.array_equal(disturbed(flat(77), "defocus", 5), flat(77).pixels)


def test_light_follows_stops():
    assert disturbed(flat(200), "dark", 1).max() == pytest.approx(200 * 2 ** (-1 / 2.2), abs=1)
    assert disturbed(flat(40), "bright", 2).min() == pytest.approx(40 * 2 ** (1 / 2.2), abs=1)
    assert disturbed(flat(200), "bright", 5).min() == 255
    drift = disturbed(flat(100), "light_drift", 3).mean(axis=(1, 2, 3))
    assert drift[0] == 100
    assert len(set(np.sign(np.diff(drift)))) == 1
    jump = disturbed(flat(100), "light_jump", 3).mean(axis=(1, 2, 3))
    assert np.count_nonzero(np.diff(jump)) == 1
    assert jump[0] == 100
    red = drawn().pixels[..., 0].std()
    assert disturbed(drawn(), "low_contrast", 4)[..., 0].std() == pytest.approx(0.2 * red, rel=0.1)


def test_objects_cover_the_share_they_name():
    fixed = disturbed(flat(255, size=(60, 80)), "fixed_object", 4) < 255
    assert fixed.mean() == pytest.approx(0.25, abs=0.02)
    assert (fixed == fixed[0]).all()
    moving = disturbed(flat(255, size=(60, 80)), "moving_object", 3) < 255
    places = [np.nonzero(frame[:, :, 0].any(axis=0))[0].mean() for frame in moving]
    assert len(set(np.sign(np.diff(places)))) == 1
    assert abs(places[-1] - places[0]) > 40


def test_haze_is_thicker_at_the_top():
    hazy = disturbed(flat(0, size=(64, 64)), "haze", 2)
    assert hazy[:, :16].mean() > 1.5 * hazy[:, -16:].mean()
    assert (hazy == hazy[0]).all()


def test_low_resolution_takes_detail_away():
    stripes = flat(0, size=(64, 64))
    stripes.pixels[:, :, ::2] = 255
    assert disturbed(stripes, "low_resolution", 4).std() < 20


def test_shake_moves_each_frame_and_rotation_all_alike():
    clip = drawn(num_frames=8)
    still = dataclasses.replace(clip, pixels=np.repeat(clip.pixels[:1], 8, axis=0))
    shaken = disturbed(still, "shake", 4)
    assert not any(np.array_equal(shaken[0], frame) for frame in shaken[1:])
    turned = disturbed(flat(255, size=(64, 64)), "rotation", 5)
    assert (turned == turned[0]).all()
    assert turned[:, 0, 0].max() == 0
    assert turned[:, 32, 32].min() == 255


def test_h264_spends_fewer_bytes_at_each_level():
    pixels = drawn(size=(96, 96)).pixels
    sizes = [
        sum(map(len, encode_h264(pixels, quantiser=round(strength))))
        for strength in CORRUPTIONS["h264"].strengths
    ]
    assert np.all(np.diff(sizes) < 0)
    assert sizes[-1] < 0.7 * sizes[0]


def test_lost_packets_spare_the_key_frame_and_grow():
    clip = drawn(size=(128, 128))
    sound = lost_packets(clip.pixels, clip.seconds, 0.0, np.random.default_rng(0))
    assert np.abs(sound.astype(float) - clip.pixels).mean() < 4
    lossy = lost_packets(clip.pixels, clip.seconds, 0.4, np.random.default_rng(0))
    assert np.array_equal(lossy[0], sound[0])
    wrong = np.abs(lossy.astype(float) - sound).mean(axis=(1, 2, 3))
    assert wrong[8:].mean() > wrong[1:4].mean() > 0
    frozen = lost_packets(clip.pixels, clip.seconds, 1.1, np.random.default_rng(0))
    assert (frozen == frozen[0]).all()
