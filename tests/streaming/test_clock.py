"""Frames by time: the same clip from any camera."""

import numpy as np
import pytest

from vidette.errors import SettingError
from vidette.streaming.clock import ManualClock, RateTaker, SystemClock, live_fps
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.sampling import pick_frames

RATES = (10.0, 25.0, 29.97, 60.0)


def camera(fps, seconds=10.0, *, jitter=0.0, seed=0):
    times = np.arange(0, seconds, 1 / fps)
    return np.maximum.accumulate(
        times + np.random.default_rng(seed).uniform(0, jitter, len(times)) * (times > 0)
    )


def taken(taker, times):
    return [tick for seconds in times for tick in taker.push(float(seconds), float(seconds))]


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("jitter", [0.0, 0.015])
def test_each_tick_takes_the_frame_on_display(fps, jitter):
    times = camera(fps, jitter=jitter)
    ticks = taken(RateTaker(8.0), times)
    seconds = np.array([tick.seconds for tick in ticks])
    assert np.allclose(np.diff(seconds), 1 / 8), "equal steps of time, whatever the camera does"
    assert seconds[-1] > times[-1] - 1 / 8 - 2 / fps
    assert [tick.item for tick in ticks] == times[pick_frames(times, seconds)].tolist()


def test_a_variable_rate_gives_the_same_ticks():
    times = np.cumsum(np.random.default_rng(0).uniform(0.005, 0.12, 200)) - 0.005
    ticks = taken(RateTaker(8.0), times)
    assert np.allclose(np.diff([tick.seconds for tick in ticks]), 1 / 8)
    assert all(tick.item <= tick.seconds + 1e-3 < tick.item + 0.13 for tick in ticks)


def test_dropped_frames_leave_a_gap_and_do_not_stretch_the_clip():
    times = camera(25.0, 4.0)
    kept = times[(times < 1.0) | (times > 1.8)]
    whole, gappy = taken(RateTaker(5.0), times), taken(RateTaker(5.0), kept)
    assert [tick.seconds for tick in gappy] == [tick.seconds for tick in whole]
    held = [tick for tick in gappy if 1.0 <= tick.seconds < 1.8]
    assert [tick.item for tick in held] == pytest.approx([0.96] * 4)
    assert not any(tick.after_break for tick in gappy)


def test_a_slow_camera_repeats_its_frames():
    ticks = taken(RateTaker(10.0), camera(4.0, 3.0))
    assert np.allclose(np.diff([tick.seconds for tick in ticks]), 0.1)
    assert len({tick.item for tick in ticks}) == 11, "all its frames but the last, which is after the last tick"


def test_a_long_gap_begins_anew():
    ticks = taken(RateTaker(8.0, break_seconds=2.0), [0.0, 0.5, 30.03, 30.6])
    assert [tick.seconds for tick in ticks if tick.after_break] == [30.03]
    assert len([tick for tick in ticks if tick.seconds < 30]) <= 5, "the gap is not filled"
    assert [t.seconds for t in ticks if t.seconds > 30] == pytest.approx(
        [30.03 + i / 8 for i in range(5)], abs=1e-9
    )


def test_frames_out_of_order_are_left_out():
    taker = RateTaker(10.0)
    assert len(taken(taker, [0.0, 0.1, 0.1, 0.05])) == 2


def test_the_rate_is_the_specs():
    window = ClipSpec(num_frames=16, sampling="window", fps=8.0)
    whole = ClipSpec(num_frames=16, trained_spans=SpanRange(1.0, 2.0, 3.0))
    assert live_fps(window) == 8.0
    assert live_fps(whole) == 7.5
    assert live_fps(ClipSpec(num_frames=1), stride_seconds=0.5) == 2.0
    assert live_fps(ClipSpec(num_frames=1)) == 5.0
    with pytest.raises(SettingError, match="cannot be live"):
        live_fps(ClipSpec(num_frames=16))
    with pytest.raises(SettingError, match="expected above 0"):
        RateTaker(0.0)


def test_clocks_tell_and_wait():
    clock = ManualClock(5.0)
    clock.sleep(2.0)
    clock.sleep(-1.0)
    assert clock.now() == 7.0
    real = SystemClock()
    before = real.now()
    real.sleep(-1.0)
    assert real.now() >= before
