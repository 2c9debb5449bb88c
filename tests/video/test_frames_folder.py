import numpy as np
import pytest
from PIL import Image

from vidette.errors import EmptyVideoError, MissingVideoError, SettingError, UnreadableVideoError
from vidette.video.clip import ClipSpec
from vidette.video.frames_folder import frames_digest, open_frames, picture_files

SPEC = ClipSpec(num_frames=4, height=12, width=16)


@pytest.fixture
def folder(tmp_path):
    for number in range(1, 13):
        Image.new("RGB", (16, 12), (10 * number, 0, 0)).save(tmp_path / f"img_{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_natural_order_and_times(folder):
    assert [file.stem for file in picture_files(folder)] == [f"img_{i}" for i in range(1, 13)]
    with open_frames(folder, fps=4) as video:
        assert video.info.num_frames == 12
        assert (video.info.width, video.info.height, video.info.duration_seconds) == (16, 12, 3.0)
        np.testing.assert_allclose(video.frame_seconds(), np.arange(12) / 4)


def test_a_clip_is_what_reading_all_frames_gives(folder):
    with open_frames(folder, fps=4) as video:
        whole = video.clip(SPEC)
        assert whole.pixels[:, 0, 0, 0].tolist() == [10, 40, 80, 120]
        frames = {frame.index: frame.pixels for frame in video.frames(SPEC)}
        for pixels, seconds in zip(whole.pixels, whole.seconds, strict=True):
            np.testing.assert_array_equal(pixels, frames[round(seconds * 4)])


def test_windows_repeat_and_segments(folder):
    window = ClipSpec(num_frames=4, height=12, width=16, sampling="window", fps=1.0)
    with open_frames(folder, fps=4) as video:
        cut = video.clip(window, start_seconds=0.5)
        assert cut.repeated == 1
        assert cut.pixels[:, 0, 0, 0].tolist() == [30, 70, 110, 120]
        shown = [f.index for f in video.frames(start_seconds=0.5, stop_seconds=1.25)]
        assert shown == [2, 3, 4]
        with pytest.raises(EmptyVideoError, match="no frame lies in the segment"):
            video.clip(SPEC, start_seconds=7)
        with pytest.raises(SettingError, match="expected a start from 0"):
            video.clip(SPEC, start_seconds=2, stop_seconds=1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_any_kind_are_rgb(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (16, 12), "white").convert(mode).save(tmp_path / f"0.{ending}")
    with open_frames(tmp_path, fps=1) as video:
        frame = next(video.frames())
    assert frame.pixels.shape == (12, 16, 3)
    assert frame.pixels.min() > 250


def test_faults_have_names(tmp_path, folder):
    with pytest.raises(MissingVideoError):
        open_frames(folder / "absent", fps=1)
    with pytest.raises(UnreadableVideoError, match="is a file"):
        open_frames(folder / "notes.txt", fps=1)
    with pytest.raises(SettingError, match="fps"):
        open_frames(folder, fps=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyVideoError, match="no picture"):
        open_frames(tmp_path / "empty", fps=1)
    with pytest.raises(MissingVideoError):
        frames_digest(folder / "absent")


@pytest.mark.parametrize("damage", ["truncated", "text", "other size"])
def test_a_damaged_picture_is_an_error(folder, damage):
    file = folder / "img_12.png"
    if damage == "other size":
        Image.new("RGB", (8, 8)).save(file)
    else:
        file.write_bytes(b"text" if damage == "text" else file.read_bytes()[:40])
    with open_frames(folder, fps=4) as video, pytest.raises(UnreadableVideoError, match=r"img_12\.png"):
        video.clip(SPEC)


def test_the_digest_changes_with_the_pictures(folder):
    before = frames_digest(folder)
    assert frames_digest(folder) == before
    Image.new("RGB", (16, 12), (255, 255, 0)).save(folder / "img_3.jpg")
    assert frames_digest(folder) != before


def test_frames_at_wanted_times(folder):
    with open_frames(folder, fps=4) as video:
        frames = list(video.frames_at(SPEC, np.array([0.0, 0.2, 0.5, 0.5, 9.0])))
        assert [frame.index for frame in frames] == [0, 0, 2, 2, 11]
        assert [frame.seconds for frame in frames] == [0.0, 0.0, 0.5, 0.5, 2.75]
        assert [frame.pixels[0, 0, 0] for frame in frames] == [10, 10, 30, 30, 120]
        with pytest.raises(SettingError, match="not decreasing"):
            next(video.frames_at(SPEC, np.array([0.5, 0.2])))
