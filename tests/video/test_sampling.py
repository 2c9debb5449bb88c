"""Which frames make a clip: pure arithmetic, and the cutter that files and streams share."""

import subprocess
import sys

import numpy as np
import pytest

from vidette.errors import InputMismatchError, SettingError
from vidette.video.clip import Clip, ClipSpec, Frame, SpanRange
from vidette.video.sampling import WindowCutter, pick_frames, target_seconds, uniform_seconds, window_starts

SPEC = ClipSpec(num_frames=5, height=8, width=8, sampling="window", fps=4.0)
WHOLE = ClipSpec(num_frames=5, height=8, width=8)


def frame(i: int, seconds: float) -> Frame:
    return Frame(np.full((8, 8, 3), i % 256, np.uint8), seconds, i)


def run(cutter: WindowCutter, times: list[float]) -> list[Clip]:
    clips = [clip for i, t in enumerate(times) if (clip := cutter.push(frame(i, t)))]
    return clips + list(iter(cutter.flush, None))


def every(seconds: float, num: int) -> list[float]:
    return [i * seconds for i in range(num)]


def test_uniform_includes_both_ends_exactly_num_times():
    for num in (2, 16, 17, 100):
        times = uniform_seconds(0.25, 9.75, num)
        assert times.shape == (num,)
        assert times[0] == 0.25
        assert times[-1] == 9.75
        np.testing.assert_allclose(np.diff(times), 9.5 / (num - 1))
    assert uniform_seconds(3.0, 8.0, 1).tolist() == [3.0]
    with pytest.raises(SettingError):
        uniform_seconds(2.0, 1.0, 4)
    with pytest.raises(SettingError):
        uniform_seconds(0.0, 1.0, 0)


def test_pick_is_the_frame_on_display():
    times = np.array([0.0, 0.1, 0.5, 0.6])
    wanted = np.array([-3.0, 0.0, 0.0999, 0.3, 0.4, 0.58, 0.6, 7.0])
    assert pick_frames(times, wanted).tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    with pytest.raises(InputMismatchError):
        pick_frames(np.array([]), wanted)


def test_millisecond_clocks_pick_what_exact_clocks_pick():
    exact = np.arange(300) / 30
    for step in (1, 3, 7):
        assert pick_frames(np.round(exact, 3), exact[::step]).tolist() == list(range(0, 300, step))


def test_whole_takes_first_and_last_frame_of_any_length():
    for num in range(1, 80):
        times = np.arange(num) / 30
        wanted = target_seconds(ClipSpec(num_frames=16), first_seconds=0.0, last_seconds=times[-1])
        picks = pick_frames(times, wanted)
        assert len(picks) == 16
        assert picks[0] == 0
        assert picks[-1] == num - 1
        assert np.all(np.diff(picks) >= 0)


def test_window_targets_start_at_the_first_frame():
    np.testing.assert_allclose(
        target_seconds(SPEC, first_seconds=2.0, last_seconds=2.1), [2.0, 2.25, 2.5, 2.75, 3.0]
    )


@pytest.mark.parametrize("duration", [0.0, 0.5, 2.0, 2.3, 5.0, 59.97])
@pytest.mark.parametrize("stride", [0.3, 1.0, 2.0, 5.0])
def test_window_starts_fit_and_reach_the_end(duration, stride):
    starts = window_starts(duration_seconds=duration, span_seconds=2.0, stride_seconds=stride)
    assert starts[0] == 0
    assert np.all(np.diff(starts) > 0)
    assert np.all(np.diff(starts) <= stride + 1e-9)
    assert starts[-1] == pytest.approx(max(duration - 2.0, 0.0), abs=1e-3)


def test_window_starts_refuses_a_stride_of_zero():
    with pytest.raises(SettingError, match="stride"):
        window_starts(duration_seconds=1.0, span_seconds=1.0, stride_seconds=0.0)


def test_windows_come_every_stride_as_soon_as_they_are_complete():
    cutter = WindowCutter(SPEC, stride_seconds=0.5)
    emitted = {}
    for i, t in enumerate(every(0.05, 61)):
        if clip := cutter.push(frame(i, t)):
            emitted[round(t, 6)] = clip
    assert list(emitted) == [1.0, 1.5, 2.0, 2.5, 3.0]
    for t, clip in emitted.items():
        np.testing.assert_allclose(clip.seconds, t - 1 + np.arange(5) / 4)
        assert clip.pixels[:, 0, 0, 0].tolist() == [round((t - 1) * 20) + 5 * k for k in range(5)]
    assert cutter.flush() is None


@pytest.mark.parametrize("spec", [SPEC, WHOLE], ids=["window", "whole"])
def test_dropped_frames_do_not_stretch_the_clip(spec):
    span = None if spec.fps else 1.0
    times = every(0.05, 61)
    kept = [t for t in times if not (0.3 < t < 0.45 or 1.31 < t < 2.29)]
    full = run(WindowCutter(spec, stride_seconds=1.0, span_seconds=span), times)
    gapped = run(WindowCutter(spec, stride_seconds=1.0, span_seconds=span), kept)
    assert len(full) == len(gapped) == 3
    np.testing.assert_allclose(gapped[0].seconds, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(gapped[1].seconds, [1.0, 1.25, 1.3, 1.3, 1.3])
    assert all(clip.span_seconds <= 1.0 + 1e-9 for clip in gapped)


def test_a_gap_that_ends_several_windows_loses_none():
    clips = run(WindowCutter(SPEC, stride_seconds=0.25), [*every(0.05, 20), 9.0, 9.05, 9.1, 9.15, 9.2])
    assert [round(float(clip.seconds[0]), 6) for clip in clips[:4]] == [0.0, 0.25, 0.5, 0.75]
    assert all(clip.seconds[-1] == pytest.approx(0.95) for clip in clips[:4])


def test_a_stream_shorter_than_a_window_repeats_its_last_frame_and_counts_it():
    for spec, span in ((SPEC, None), (WHOLE, 1.0)):
        clips = run(WindowCutter(spec, stride_seconds=0.5, span_seconds=span), every(0.05, 9))
        assert len(clips) == 1
        np.testing.assert_allclose(clips[0].seconds, [0.0, 0.25, 0.4, 0.4, 0.4])
        assert clips[0].repeated == 3


def test_the_last_window_reaches_the_end():
    clips = run(WindowCutter(SPEC, stride_seconds=1.0), every(0.05, 48))
    assert [round(float(clip.seconds[0]), 6) for clip in clips] == [0.0, 1.0, 1.35]
    assert clips[-1].seconds[-1] == pytest.approx(2.35)
    assert clips[-1].repeated == 0


def test_flush_gives_nothing_twice_and_nothing_from_nothing():
    cutter = WindowCutter(SPEC, stride_seconds=1.0)
    assert cutter.flush() is None
    cutter.push(frame(0, 0.0))
    assert cutter.flush() is not None
    assert cutter.flush() is None


def test_times_may_start_anywhere():
    shifted = run(WindowCutter(SPEC, stride_seconds=0.5), [t + 1234.5 for t in every(0.05, 47)])
    plain = run(WindowCutter(SPEC, stride_seconds=0.5), every(0.05, 47))
    assert len(shifted) == len(plain) > 2
    for a, b in zip(shifted, plain, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_memory_is_one_span_of_frames():
    cutter = WindowCutter(SPEC, stride_seconds=30.0)
    for i in range(4000):
        cutter.push(frame(i, i / 25))
        assert len(cutter._held) <= 27


def test_whole_takes_its_span_from_training():
    spans = SpanRange(0.5, 1.0, 2.0)
    assert WindowCutter(ClipSpec(trained_spans=spans), stride_seconds=1.0).span_seconds == 1.0
    with pytest.raises(SettingError, match="span"):
        WindowCutter(ClipSpec(), stride_seconds=1.0)
    with pytest.raises(SettingError, match="lasts"):
        WindowCutter(SPEC, stride_seconds=1.0, span_seconds=3.0)
    with pytest.raises(SettingError, match="stride"):
        WindowCutter(SPEC, stride_seconds=0.0)


def test_wrong_size_and_time_that_stands_still():
    cutter = WindowCutter(SPEC, stride_seconds=1.0)
    with pytest.raises(InputMismatchError, match="resize"):
        cutter.push(Frame(np.zeros((9, 8, 3), np.uint8), 0.0, 0))
    cutter.push(frame(0, 0.5))
    with pytest.raises(InputMismatchError, match="increase"):
        cutter.push(frame(1, 0.5))


def test_reading_does_not_import_torch():
    code = "import vidette.video.reader, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
