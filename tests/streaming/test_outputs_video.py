"""Annotated video and window: the pictures with what was answered, whole at any moment."""

import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from vidette.errors import OutputExistsError, SettingError, StorageError
from vidette.prediction.decision import Event, Window
from vidette.streaming.base import Shown
from vidette.streaming.courier import Courier
from vidette.streaming.drift import Signal
from vidette.streaming.outputs_video import AnnotatedVideo
from vidette.streaming.overlay import Overlay
from vidette.streaming.records import Decided, Drifted, Picture, Score, Status
from vidette.streaming.window import ScreenWindow
from vidette.video.reader import open_video

CLASSES = ("idle", "wave")
STATUS = Status(8.0, 8.0, 0.01, 0.01, 0, 12, 0, 0, 0)
SIGNAL = Signal("frozen", 3.0, None, "nothing in the picture changes")


def score(probability, stop=1.0):
    found = np.array([1 - probability, probability])
    return Score("cam", Window(stop - 1, stop, found), CLASSES, found, np.log(found), 0, STATUS)


def picture(seconds, *, height=120, width=160, grey=120):
    pixels = np.full((height, width, 3), grey, np.uint8)
    return Picture("cam", Shown(seconds, lambda: pixels), False)


def bar_pixels(painted):
    """Count the green pixels of the probability bar."""
    return int(((painted[:, :, 1] > 150) & (painted[:, :, 0] < 130)).sum())


def test_the_bar_is_as_long_as_the_answer_is_sure():
    lengths = []
    for probability in (0.6, 0.9):
        overlay, grey = Overlay(), picture(0).shown.picture()
        overlay.take(score(probability))
        painted = overlay.paint(grey, seconds=1.0)
        assert grey.min() == 120, "the input is unchanged"
        assert (painted[:60] == 120).all(), "the upper half is free"
        lengths.append(bar_pixels(painted))
    assert lengths[1] / lengths[0] == pytest.approx(0.9 / 0.6, rel=0.1)


def test_events_are_shown_for_a_while_and_signals_until_they_end():
    overlay, grey = Overlay(), picture(0).shown.picture()
    overlay.take(score(0.9, stop=5.0))
    plain = overlay.paint(grey, seconds=5.0)
    overlay.take(Decided("cam", Event(1.0, 4.0, "wave", 0.9)))
    with_event = overlay.paint(grey, seconds=5.0)
    assert not np.array_equal(with_event, plain)
    assert np.array_equal(overlay.paint(grey, seconds=9.0), plain)
    overlay.take(Drifted("cam", SIGNAL))
    assert not np.array_equal(overlay.paint(grey, seconds=9.0), plain)
    overlay.take(Drifted("cam", Signal("frozen", 3.0, 8.0, "")))
    assert np.array_equal(overlay.paint(grey, seconds=9.0), plain)


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (720, 1280)])
def test_pictures_of_any_size_can_be_painted(size):
    overlay = Overlay()
    for record in (
        score(0.9),
        Decided("cam", Event(0.0, 1.0, "a long label " * 20, 0.9)),
        Drifted("cam", SIGNAL),
    ):
        overlay.take(record)
    pixels = np.full((*size, 3), 120, np.uint8)
    assert overlay.paint(pixels, seconds=1.0).shape == pixels.shape


def test_the_video_has_the_sources_times_and_the_answers(tmp_path):
    out = AnnotatedVideo(tmp_path / "deep" / "live.mp4")
    times = [0.0, 0.1, 0.3, 0.35, 1.2]
    for number, seconds in enumerate(times):
        if number == 2:
            out.take(score(0.9))
        large = {"height": 240, "width": 100} if number == 4 else {}
        out.show(picture(seconds, **large))
    out.close()
    with open_video(tmp_path / "deep" / "live.mp4") as video:
        frames = list(video.frames())
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=1e-4)
    assert [bar_pixels(frame.pixels) > 50 for frame in frames] == [False, False, True, True, True]
    last = frames[-1].pixels
    assert last.shape == (120, 160, 3)
    assert last[:60, :40].max() < 30, "a picture of another shape stands between black bars"
    assert out.summary() == ""


def test_what_is_written_plays_before_it_is_ended(tmp_path):
    """As when the run is killed: all but what waits for the encoder, and the last second or so."""
    out = AnnotatedVideo(tmp_path / "live.mp4")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for number in range(80):
        pixels = np.roll(noise, number, 1)
        out.show(Picture("cam", Shown(number / 10, lambda pixels=pixels: pixels), False))
    shutil.copy(tmp_path / "live.mp4", tmp_path / "killed.mp4")
    out.close()
    with open_video(tmp_path / "killed.mp4") as video:
        assert 80 - 16 - 15 <= sum(1 for _ in video.frames()) <= 80
    with open_video(tmp_path / "live.mp4") as video:
        assert sum(1 for _ in video.frames()) == 80


def test_a_video_that_is_there_or_cannot_be(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"kept")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        AnnotatedVideo(tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"kept"
    with pytest.raises((StorageError, OutputExistsError)):
        AnnotatedVideo(tmp_path / "a.mp4" / "b.mp4")
    AnnotatedVideo(tmp_path / "a.mp4", overwrite=True).close()


def test_a_full_disk_is_told():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    out = AnnotatedVideo("/dev/full", overwrite=True)
    out.show(picture(0.0))
    with pytest.raises(StorageError, match="cannot be written"):
        out.close()


def test_a_courier_waits_or_drops_and_passes_errors_on():
    gate, got = threading.Event(), []

    def deliver(item):
        gate.wait(20)
        if item == "bad":
            raise StorageError("full")
        got.append(item)

    courier = Courier(deliver, capacity=2, name="test")
    for number in range(10):
        courier.put(number, may_drop=True)
    gate.set()
    assert courier.finish()
    assert got[-2:] == [8, 9]
    assert courier.num_lost == 10 - len(got)
    failing = Courier(deliver, capacity=1, name="test")
    failing.put("bad", may_drop=False)
    with pytest.raises(StorageError, match="full"):
        failing.finish()
    with pytest.raises(SettingError, match="capacity is 0"):
        Courier(deliver, capacity=0, name="test")


def test_without_a_screen_the_window_says_so(monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("only on Linux can a test take the screen away")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingError, match=r"no screen .*--out live\.mp4|lacks .*python3-tk"):
        ScreenWindow()


def test_the_window_shows_the_newest_picture_and_closing_it_ends_the_run(screen):
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    from PIL import ImageGrab, features

    window = ScreenWindow()
    try:
        window.take(score(0.9))
        window.show(picture(0.0, grey=10))
        window.show(picture(0.1, grey=200))
        for _ in range(20):
            window.refresh()
        if features.check("xcb"):
            seen = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB"))
            assert (seen == 200).all(axis=2).sum() > 5000, "the newest picture, not the first"
            assert bar_pixels(seen) > 50
        window._on_closed()
        with pytest.raises(KeyboardInterrupt):
            window.refresh()
    finally:
        window.close()
