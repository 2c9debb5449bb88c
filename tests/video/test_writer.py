"""Files out: videos keep their frames and times, captions are seen when they should be."""

from fractions import Fraction

import av
import numpy as np
import pytest

from vidette.errors import (
    EmptyVideoError,
    MissingVideoError,
    OutputExistsError,
    SettingError,
    StorageError,
    UnreadableVideoError,
    VideoError,
)
from vidette.video.writer import Caption, replacing, write_annotated, write_srt, write_video

GREY = 150


def grey_frames(num_frames=10, height=120, width=160):
    return np.full((num_frames, height, width, 3), GREY, np.uint8)


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(int)
        return pixels, np.array([frame.time for frame in frames]), stream


def write_uneven(path, ticks):
    """A grey video whose frames are shown at ``ticks`` hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(grey_frames(1, 64, 96)[0], format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def source(tmp_path):
    return write_video(tmp_path / "source.mp4", grey_frames(20), fps=10)


def bar_rows(frame):
    """Rows that are clearly darker than the grey picture, over most of their width."""
    return np.flatnonzero((frame.mean(axis=-1) < GREY / 2).mean(axis=1) > 0.5)


class TestWriteVideo:
    @pytest.mark.parametrize("fps", [12.0, 23.0, 30000 / 1001])
    def test_frames_rate_times_and_codec(self, tmp_path, fps):
        rng = np.random.default_rng(0)
        frames = np.repeat(rng.integers(0, 255, (7, 1, 1, 3), np.uint8), 32, axis=1).repeat(48, axis=2)
        pixels, seconds, stream = decode(write_video(tmp_path / "v.mp4", iter(frames), fps=fps))
        assert stream.codec_context.name == "h264"
        assert pixels.shape == frames.shape
        assert np.abs(pixels - frames).max() < 12  # channel order and colour matrix survive
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert float(stream.duration * stream.time_base) == pytest.approx(7 / fps, abs=2e-3)
        np.testing.assert_allclose(seconds, np.arange(7) / fps, atol=2e-3)

    def test_an_odd_size_is_kept(self, tmp_path):
        pixels, _, _ = decode(write_video(tmp_path / "odd.mp4", grey_frames(3, 33, 47), fps=10))
        assert pixels.shape == (3, 33, 47, 3)
        assert np.abs(pixels - GREY).max() < 6

    def test_no_frame_is_an_error_and_leaves_nothing(self, tmp_path):
        with pytest.raises(EmptyVideoError, match="no frame"):
            write_video(tmp_path / "none.mp4", [], fps=10)
        assert not list(tmp_path.iterdir())

    def test_a_failure_half_way_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "v.mp4"
        path.write_text("old")

        def breaking():
            yield from grey_frames(5)
            raise VideoError("source.mp4", "breaks off")

        with pytest.raises(VideoError, match="breaks off"):
            write_video(path, breaking(), fps=10, overwrite=True)
        assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
        assert path.read_text() == "old"


class TestReplacing:
    def test_full_disk_is_a_storage_error_and_leaves_nothing(self, tmp_path):
        def fill_the_disk():
            with replacing(tmp_path / "a" / "b.txt") as temporary:
                temporary.write_text("half")
                raise OSError(28, "No space left on device")

        with pytest.raises(StorageError, match=r"b\.txt cannot be written: No space left"):
            fill_the_disk()
        assert not list((tmp_path / "a").iterdir())

    def test_a_folder_is_never_replaced(self, tmp_path):
        with pytest.raises(OutputExistsError, match="is a folder"), replacing(tmp_path, overwrite=True):
            pass


class TestCaption:
    @pytest.mark.parametrize("times", [(-1, 1), (2, 2), (3, 2), (0, float("inf")), (float("nan"), 1)])
    def test_times_must_run_forward(self, times):
        with pytest.raises(SettingError, match="0 <= start < stop"):
            Caption(*times, "left")

    def test_blank_text_is_refused(self):
        with pytest.raises(SettingError, match="no text"):
            Caption(0, 1, " \n ")


class TestWriteSrt:
    def test_cues_are_ordered_and_timed(self, tmp_path):
        captions = [Caption(3661.0016, 3662.9996, "zwei\n\nZeilen ä"), Caption(0, 1.5, "left 0.98")]
        path = write_srt(tmp_path / "out.srt", captions)
        assert path.read_bytes().decode("utf-8") == (
            "1\n00:00:00,000 --> 00:00:01,500\nleft 0.98\n\n2\n01:01:01,002 --> 01:01:03,000\nzwei\nZeilen ä\n"
        )

    def test_ffmpeg_reads_it(self, tmp_path):
        path = write_srt(tmp_path / "out.srt", [Caption(0.5, 1.25, "one"), Caption(1.25, 2, "two")])
        with av.open(str(path)) as container:
            cues = [packet for packet in container.demux() if packet.size]
        assert [(float(p.pts * p.time_base), bytes(p)) for p in cues] == [(0.5, b"one"), (1.25, b"two")]

    def test_an_existing_file_is_kept(self, tmp_path):
        path = write_srt(tmp_path / "out.srt", [Caption(0, 1, "one")])
        with pytest.raises(OutputExistsError, match=r"out\.srt exists"):
            write_srt(path, [Caption(0, 1, "two")])
        assert "one" in path.read_text()
        write_srt(path, [Caption(0, 1, "two")], overwrite=True)
        assert "two" in path.read_text()


class TestWriteAnnotated:
    def test_the_bar_is_at_the_bottom_while_the_caption_lasts(self, source, tmp_path):
        captions = [Caption(0.5, 1.0, "left 0.98")]
        pixels, seconds, stream = decode(write_annotated(source, tmp_path / "out.mp4", captions))
        assert stream.codec_context.name == "h264"
        assert pixels.shape == (20, 120, 160, 3)
        shown = np.array([len(bar_rows(frame)) > 0 for frame in pixels])
        np.testing.assert_array_equal(shown, (seconds >= 0.5 - 1e-6) & (seconds < 1.0 - 1e-6))
        rows = bar_rows(pixels[7])
        assert rows[-1] == 119
        assert 10 <= len(rows) <= 40
        assert pixels[7, rows[0] :].max() > 200  # white letters
        assert np.abs(pixels[7, : rows[0] - 4] - GREY).max() < 8  # the rest is as it was

    def test_different_text_is_drawn_differently(self, source, tmp_path):
        captions = [Caption(0, 1, "left"), Caption(1, 2, "counterclockwise")]
        pixels, _, _ = decode(write_annotated(source, tmp_path / "out.mp4", captions))
        bright = [(frame[-10:].mean(axis=-1) > 120).sum() for frame in pixels]
        assert bright[15] > 1.5 * bright[5] > 0

    def test_captions_at_one_time_are_stacked(self, source, tmp_path):
        captions = [Caption(0, 2, "left"), Caption(1, 2, "up")]
        pixels, _, _ = decode(write_annotated(source, tmp_path / "out.mp4", captions))
        assert len(bar_rows(pixels[15])) > 1.5 * len(bar_rows(pixels[5])) > 0

    def test_a_long_text_in_a_small_picture_stays_inside(self, tmp_path):
        small = write_video(tmp_path / "small.mp4", grey_frames(3, 32, 48), fps=10)
        pixels, _, _ = decode(
            write_annotated(small, tmp_path / "out.mp4", [Caption(0, 1, "counterclockwise " * 9)] * 9)
        )
        assert pixels.shape == (3, 32, 48, 3)
        assert np.abs(pixels[1, :8] - GREY).max() < 20

    def test_uneven_times_are_kept(self, tmp_path):
        ticks = [0, 3, 4, 20, 55, 56, 90]
        write_uneven(tmp_path / "uneven.mp4", ticks)
        _, seconds, _ = decode(write_annotated(tmp_path / "uneven.mp4", tmp_path / "out.mp4", []))
        np.testing.assert_allclose(seconds, np.array(ticks) / 100, atol=1e-3)

    def test_rate_is_kept(self, tmp_path):
        rate = 30000 / 1001
        write_video(tmp_path / "ntsc.mp4", grey_frames(30, 64, 64), fps=rate)
        _, seconds, stream = decode(write_annotated(tmp_path / "ntsc.mp4", tmp_path / "out.mp4", []))
        assert float(stream.average_rate) == pytest.approx(rate, rel=1e-4)
        np.testing.assert_allclose(seconds, np.arange(30) / rate, atol=1e-4)

    def test_outputs_in_use_and_wrong_endings_are_refused(self, source, tmp_path):
        out = tmp_path / "out.mp4"
        out.write_text("mine")
        with pytest.raises(OutputExistsError, match="exists"):
            write_annotated(source, out, [])
        assert out.read_text() == "mine"
        with pytest.raises(SettingError, match=r"must end in \.mp4"):
            write_annotated(source, tmp_path / "out.avi", [])
        write_annotated(source, out, [], overwrite=True)
        assert len(decode(out)[0]) == 20

    def test_a_source_can_be_replaced_by_its_copy(self, source):
        write_annotated(source, source, [Caption(0, 2, "left")], overwrite=True)
        assert len(bar_rows(decode(source)[0][10])) > 0

    def test_bad_sources_are_named_and_leave_nothing(self, tmp_path):
        (tmp_path / "noise.mp4").write_bytes(b"not a video" * 50)
        with pytest.raises(UnreadableVideoError, match=r"noise\.mp4"):
            write_annotated(tmp_path / "noise.mp4", tmp_path / "out.mp4", [])
        with pytest.raises(MissingVideoError, match=r"absent\.mp4"):
            write_annotated(tmp_path / "absent.mp4", tmp_path / "out.mp4", [])
        assert [path.name for path in tmp_path.iterdir()] == ["noise.mp4"]
