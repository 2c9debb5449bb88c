"""Reading: the frames are those of a full decode, and what is wrong with a file has a name."""

import contextlib
import os
import random
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidette.errors import (
    EmptyVideoError,
    MissingVideoError,
    NoVideoStreamError,
    SettingError,
    TruncatedVideoError,
    UnreadableVideoError,
    VideoError,
)
from vidette.video.clip import Clip, ClipSpec
from vidette.video.reader import open_video, probe
from vidette.video.sampling import WindowCutter, pick_frames, target_seconds
from vidette.video.transforms import FrameResizer

DATA = Path(os.environ.get("VIDETTE_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
WHOLE = ClipSpec(num_frames=16, height=48, width=64)
WINDOW = ClipSpec(num_frames=8, height=48, width=64, sampling="window", fps=7.0)

# name, file ending, codec, options, first tick (1/30 s), variable frame rate
KINDS = {
    "h264-b": ("mp4", "libx264", {"bf": "3", "g": "30"}, 0, False),
    "h264-no-b": ("mp4", "libx264", {"bf": "0", "g": "30"}, 0, False),
    "h264-late": ("mkv", "libx264", {"bf": "2"}, 47, False),
    "h264-vfr": ("mp4", "libx264", {"bf": "3"}, 0, True),
    "h264-open-gop": (
        "mkv",
        "libx264",
        {"x264-params": "open-gop=1:keyint=25:min-keyint=5:bframes=3"},
        0,
        False,
    ),
    "h264-ts": ("ts", "libx264", {"bf": "3", "g": "15"}, 90, False),
    "h264-raw": ("h264", "libx264", {"bf": "2"}, 0, False),
    "h264-refresh": ("mkv", "libx264", {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}, 0, False),
    "hevc": ("mp4", "libx265", {"x265-params": "bframes=3:log-level=none"}, 0, False),
    "mpeg4": ("avi", "mpeg4", {"g": "12"}, 0, False),
    "mpeg4-b": ("avi", "mpeg4", {"bf": "2", "g": "12"}, 0, False),
    "mpeg2": ("mpg", "mpeg2video", {"bf": "2", "g": "12"}, 0, False),
    "mjpeg": ("avi", "mjpeg", {}, 0, False),
    "vp8": ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "realtime"}, 0, False),
    "vp9": (
        "webm",
        "libvpx-vp9",
        {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "realtime"},
        5,
        True,
    ),
    "gif": ("gif", "gif", {}, 0, False),
}


def picture(i: int, *, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture that tells its number: a moving texture, so that every frame differs."""
    y, x = np.mgrid[:height, :width]
    wave = 127 + 90 * np.sin((x + 3 * i) / 9) * np.cos((y - 2 * i) / 7)
    return np.stack([wave, np.roll(wave, i, axis=1), np.full_like(wave, 6 * i % 256)], axis=-1).astype(np.uint8)


def draw(path: Path, kind: str = "h264-b", *, num: int = 75, size: tuple[int, int] = (96, 128), **more) -> Path:
    _, codec, options, first, variable = KINDS[kind]
    height, width = size
    with av.open(str(path), "w", options=more.get("muxer", {})) as container:
        stream = container.add_stream(codec, rate=30 if codec != "gif" else 25, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, more.get("pix_fmt", "yuv420p"))
        if "degrees" in more:
            stream.set_display_rotation(more["degrees"])
        tick = first
        for i in range(num):
            frame = av.VideoFrame.from_ndarray(picture(i, height=height, width=width)).reformat(
                format=stream.pix_fmt
            )
            frame.pts, frame.time_base = tick, Fraction(1, 30 if codec != "gif" else 25)
            tick += 1 + (i * 7 % 4 if variable else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drawn")
    return {kind: draw(folder / f"{kind}.{spec[0]}", kind) for kind, spec in KINDS.items()}


def decoded(path: Path) -> tuple[list[av.VideoFrame], np.ndarray]:
    """All frames of one plain decode (one thread, nothing skipped) and when they are shown."""
    frames: list[av.VideoFrame] = []
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.FFmpegError:
                continue
        stamps = [frame.pts for frame in frames]
        rate, base = float(stream.average_rate or 25), float(stream.time_base)
    if None in stamps or np.any(np.diff(stamps) <= 0):
        return frames, np.arange(len(frames)) / rate
    return frames, (np.array(stamps) - stamps[0]) * base


def naive_clip(path: Path, spec: ClipSpec, *, start: float = 0.0, stop: float = np.inf) -> Clip:
    frames, seconds = decoded(path)
    inside = np.flatnonzero((seconds >= start - 1e-3) & (seconds < stop - 1e-3))
    wanted = target_seconds(spec, first_seconds=seconds[inside[0]], last_seconds=seconds[inside[-1]])
    picks = inside[pick_frames(seconds[inside], wanted)]
    resizer = FrameResizer(spec)
    return Clip(np.stack([resizer(frames[i]) for i in picks]), seconds[picks])


def assert_same(clip: Clip, expected: Clip) -> None:
    np.testing.assert_allclose(clip.seconds, expected.seconds, atol=1e-9)
    np.testing.assert_array_equal(clip.pixels, expected.pixels)


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", KINDS)
def test_clip_is_what_a_full_decode_picks(drawn, kind, held_bytes):
    path = drawn[kind]
    with open_video(path, held_bytes=held_bytes) as video:
        for spec in (WHOLE, WINDOW, ClipSpec(num_frames=3, height=48, width=64)):
            assert_same(video.clip(spec), naive_clip(path, spec))
        for start, stop in ((0.5, 1.2), (1.61, 2.4), (0.0, 0.04)):
            clip = video.clip(WHOLE, start_seconds=start, stop_seconds=stop)
            assert clip.pixels.shape == (16, 48, 64, 3)
            assert_same(clip, naive_clip(path, WHOLE, start=start, stop=stop))


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_a_full_decode_in_time_order(drawn, kind, held_bytes):
    pictures, seconds = decoded(drawn[kind])
    resizer = FrameResizer(WHOLE)
    with open_video(drawn[kind], held_bytes=held_bytes) as video:
        np.testing.assert_allclose(video.frame_seconds(), seconds, atol=1e-9)
        frames = list(video.frames(WHOLE))
        part = list(video.frames(WHOLE, start_seconds=0.9, stop_seconds=1.4))
    assert [frame.index for frame in frames] == list(range(len(pictures)))
    np.testing.assert_allclose([frame.seconds for frame in frames], seconds, atol=1e-9)
    for frame, expected in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.pixels, resizer(expected))
    inside = [frame for frame in frames if 0.9 - 1e-3 <= frame.seconds < 1.4 - 1e-3]
    assert [frame.index for frame in part] == [frame.index for frame in inside]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(part, inside, strict=True))


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_at_are_those_that_a_full_decode_picks(drawn, kind, held_bytes):
    pictures, seconds = decoded(drawn[kind])
    resizer = FrameResizer(WHOLE)
    wanted = np.concatenate([np.arange(0, seconds[-1], 1 / 7), seconds[-1] + np.array([0, 0, 5.0])])
    picks = pick_frames(seconds, wanted)
    with open_video(drawn[kind], held_bytes=held_bytes) as video:
        frames = list(video.frames_at(WHOLE, wanted))
    assert [frame.index for frame in frames] == picks.tolist()
    np.testing.assert_allclose([frame.seconds for frame in frames], seconds[picks], atol=1e-9)
    for frame, pick in zip(frames, picks, strict=True):
        np.testing.assert_array_equal(frame.pixels, resizer(pictures[pick]))


@pytest.mark.parametrize("wanted", [[0.5, 0.2], [-0.1], [np.nan], [[0.1]], [np.inf]])
def test_wanted_times_out_of_order(drawn, wanted):
    with open_video(drawn["h264-b"]) as video:
        assert list(video.frames_at(WHOLE, np.array([]))) == []
        with pytest.raises(SettingError, match="seconds from 0"):
            next(video.frames_at(WHOLE, np.array(wanted)))


def test_few_frames_decode_of_many_key_frames(tmp_path):
    path = draw(tmp_path / "long.mp4", "h264-b", num=240)
    spec = ClipSpec(num_frames=2, height=48, width=64)
    with open_video(path) as video:
        assert_same(video.clip(spec), naive_clip(path, spec))
        assert_same(video.clip(spec, start_seconds=7.5), naive_clip(path, spec, start=7.5))


@pytest.mark.parametrize("num", [1, 2, 5, 15, 16, 17, 31])
def test_clip_always_has_exactly_num_frames_in_time_order(tmp_path, num):
    """Range arithmetic over the frame count gives 17 frames for some lengths; names sort 1, 10, 2."""
    with open_video(draw(tmp_path / "short.mp4", num=num)) as video:
        clip = video.clip(WHOLE)
        assert clip.pixels.shape == (16, 48, 64, 3)
        assert np.all(np.diff(clip.seconds) >= 0)
        np.testing.assert_allclose(clip.seconds[[0, -1]], [0, (num - 1) / 30], atol=1e-6)
        repeated = video.clip(WINDOW)
        assert len(repeated.pixels) == 8
        assert repeated.repeated == int(np.sum(np.arange(8) / 7 > (num - 1) / 30 + 1e-3))


@pytest.fixture(scope="module")
def lasting(tmp_path_factory) -> Path:
    """3000 tiny frames, 100 seconds, a key frame every two."""
    path = tmp_path_factory.mktemp("lasting") / "lasting.mp4"
    pictures = [av.VideoFrame.from_ndarray(picture(i, height=32, width=32)) for i in range(60)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "60", "bf": "2", "preset": "ultrafast"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(3000):
            frame = pictures[i * 7 % 60].reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
def test_a_window_late_in_a_long_file_decodes_from_the_key_frame_before_it(lasting, held_bytes):
    with open_video(lasting, held_bytes=held_bytes) as video:
        clip = video.clip(WINDOW, start_seconds=95.1)
        assert clip.seconds[0] == pytest.approx(95.1, abs=1 / 30)
        assert len(clip.seconds) < video.num_decoded < 120
        before = video.num_decoded
        video.clip(WHOLE, start_seconds=50.0, stop_seconds=51.0)
        assert video.num_decoded - before < 100


def test_what_a_long_file_is_does_not_change_what_is_read_from_it(lasting):
    with open_video(lasting, held_bytes=0) as video:
        info = video.info
        assert (info.num_frames, info.duration_seconds) == (None, pytest.approx(100, abs=0.1))
        assert video.num_decoded < 10
        assert len(video.frame_seconds()) == 3000
        assert next(video.frames_at(WHOLE, np.array([0.0]))).index == 0


def test_frames_at_far_apart_times_decode_only_around_them(lasting):
    with open_video(lasting, held_bytes=0) as video:
        frames = list(video.frames_at(WHOLE, np.arange(0, 100, 10.0)))
        assert [frame.index for frame in frames] == list(range(0, 3000, 300))
        assert video.num_decoded < 10 * 10


def test_memory_does_not_grow_with_length_but_for_a_few_numbers_a_frame(lasting):
    with open_video(lasting, held_bytes=0) as video:
        tracemalloc.start()
        assert sum(1 for _ in video.frames(WHOLE)) == 3000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200 * 3000 + 50 * 48 * 64 * 3


def test_pushing_a_file_through_the_cutter_gives_the_files_own_clips(drawn):
    for spec, span in ((WINDOW, 1.0), (ClipSpec(num_frames=6, height=48, width=64), 1.0)):
        with open_video(drawn["h264-late"]) as video:
            cutter = WindowCutter(spec, stride_seconds=0.4, span_seconds=None if spec.fps else span)
            clips = [clip for frame in video.frames(spec) if (clip := cutter.push(frame))]
            clips += list(iter(cutter.flush, None))
            assert len(clips) == 5
            for clip in clips:
                start = float(clip.seconds[0])
                assert_same(clip, video.clip(spec, start_seconds=start, stop_seconds=start + span + 0.01))


def test_a_file_pushed_whole_is_its_own_clip(drawn):
    with open_video(drawn["h264-b"]) as video:
        span = float(video.frame_seconds()[-1])
        cutter = WindowCutter(WHOLE, stride_seconds=1.0, span_seconds=span)
        clips = [clip for frame in video.frames(WHOLE) if (clip := cutter.push(frame))]
        assert len(clips) == 1
        assert_same(clips[0], video.clip(WHOLE))


def test_info_and_rotation(tmp_path):
    upright = draw(tmp_path / "upright.mp4", num=4, degrees=90)
    info = probe(upright)
    assert (info.width, info.height, info.rotation_degrees) == (96, 128, 90)
    assert (info.codec, info.pixel_format, info.num_frames, info.has_audio) == ("h264", "yuv420p", 4, False)
    assert info.fps == pytest.approx(30)
    assert info.duration_seconds == pytest.approx(4 / 30, abs=0.01)
    with open_video(upright) as video:
        turned = next(video.frames())
        clip = video.clip(ClipSpec(num_frames=1, height=128, width=96))
    stored = decoded(upright)[0][0].to_ndarray(format="rgb24")
    np.testing.assert_array_equal(turned.pixels, np.rot90(stored))
    assert np.abs(clip.pixels[0].astype(int) - np.rot90(stored)).mean() < 3


@pytest.mark.parametrize(
    ("size", "pix_fmt"), [((35, 33), "yuv444p"), ((64, 64), "gray"), ((36, 50), "yuv420p10le")]
)
def test_odd_sizes_grey_and_ten_bits(tmp_path, size, pix_fmt):
    path = draw(tmp_path / "odd.mkv", "h264-b", num=5, size=size, pix_fmt=pix_fmt)
    assert (probe(path).height, probe(path).width) == size
    with open_video(path) as video:
        assert_same(video.clip(WHOLE), naive_clip(path, WHOLE))
        assert next(video.frames()).pixels.shape == (*size, 3)


def test_names_that_are_not_utf8_or_look_like_addresses(tmp_path):
    path = draw(tmp_path / "a:b %03d ünï.mp4", num=3)
    with open_video(path) as video:
        assert len(video.frame_seconds()) == 3


# What is wrong has a name.


def test_missing_empty_folder_and_text(tmp_path):
    with pytest.raises(MissingVideoError):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(UnreadableVideoError, match="folder"):
        open_video(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(EmptyVideoError, match="zero bytes"):
        open_video(tmp_path / "empty.mp4")
    for name in ("text.txt", "text.mp4", "text.nfo"):
        (tmp_path / name).write_text("not a video\n" * 40)
        with pytest.raises(UnreadableVideoError):
            open_video(tmp_path / name)
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile text.mp4\n")
    with pytest.raises(UnreadableVideoError):
        open_video(tmp_path / "list.txt")


@pytest.mark.parametrize("ending", ["mp4", "wav"])
def test_sound_alone_is_no_video(tmp_path, ending):
    path = tmp_path / f"sound.{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if ending == "mp4" else "pcm_s16le", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        sound.rate = 16000
        for packet in (*stream.encode(sound), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(NoVideoStreamError, match="audio"):
        open_video(path)


def test_a_segment_outside_the_file_or_upside_down(drawn):
    with open_video(drawn["h264-b"]) as video:
        with pytest.raises(EmptyVideoError, match="75 frames"):
            video.clip(WHOLE, start_seconds=60.0)
        for start, stop in ((1.0, 1.0), (-1.0, 2.0)):
            with pytest.raises(SettingError, match="segment"):
                video.clip(WHOLE, start_seconds=start, stop_seconds=stop)


def test_a_second_reading_ends_the_first_with_an_error(drawn):
    with open_video(drawn["h264-b"]) as video:
        frames = video.frames(WHOLE)
        next(frames)
        video.clip(WHOLE)
        with pytest.raises(VideoError, match="another reading"):
            list(frames)


def cut(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    broken = path.with_name(f"cut-{fraction}-{path.name}")
    broken.write_bytes(content[: int(len(content) * fraction)])
    return broken


def test_mp4_cut_before_its_index(drawn):
    with pytest.raises(TruncatedVideoError, match="index"):
        open_video(cut(drawn["h264-b"], 0.6))


@pytest.mark.parametrize("kind", ["h264-b", "h264-late", "mpeg4", "vp9"])
def test_a_file_that_breaks_off_says_how_many_frames_decode(tmp_path, kind):
    path = draw(
        tmp_path / f"whole.{KINDS[kind][0]}", kind, muxer={"movflags": "faststart"} if kind == "h264-b" else {}
    )
    with open_video(cut(path, 0.6)) as video:
        with pytest.raises(TruncatedVideoError, match=r"\d+ of \d+ frames decode"):
            video.clip(WHOLE)
        seen = []
        with pytest.raises(TruncatedVideoError):
            seen.extend(video.frames(WHOLE))
    assert 5 < len(seen) < 75
    with open_video(cut(path, 0.6)) as video:
        at = []
        with pytest.raises(TruncatedVideoError):
            at.extend(video.frames_at(WHOLE, np.arange(0, 20, 0.25)))
        assert [frame.index for frame in at] == pick_frames(
            np.array([frame.seconds for frame in seen]), np.arange(0, seen[-1].seconds, 0.25)
        ).tolist()
    with open_video(cut(path, 0.6)) as video:
        clip = video.clip(WHOLE, stop_seconds=0.2)
    assert_same(clip, naive_clip(path, WHOLE, stop=0.2))


def overwrite(path: Path, packets: slice, byte: int) -> None:
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for position, size in spans[packets]:
        content[position : position + size] = bytes([byte]) * size
    path.write_bytes(content)


@pytest.mark.parametrize("byte", [0, 0xA5])
def test_last_frames_that_do_not_decode(tmp_path, byte):
    path = draw(tmp_path / "tail.mp4")
    overwrite(path, slice(-9, None), byte)
    with open_video(path) as video, pytest.raises(TruncatedVideoError, match=r"6\d of 75 frames decode"):
        video.clip(WHOLE)


@pytest.mark.parametrize("kind", ["h264-no-b", "h264-b"])
@pytest.mark.parametrize("packets", [slice(20, 21), slice(33, 36), slice(0, 1)])
def test_damage_in_the_middle_still_gives_what_a_full_decode_gives(tmp_path, packets, kind):
    path = draw(tmp_path / "middle.mp4", kind)
    overwrite(path, packets, 0xA5)
    with open_video(path) as video:
        assert_same(video.clip(WHOLE), naive_clip(path, WHOLE))


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("packets", [slice(20, 21), slice(33, 36), slice(0, 1)])
def test_a_clip_says_how_many_frames_it_lost(tmp_path, packets, held_bytes):
    path = draw(tmp_path / "middle.mp4", "h264-no-b")
    with open_video(path, held_bytes=held_bytes) as video:
        assert video.clip(WHOLE).lost_frames == 0
    overwrite(path, packets, 0xA5)
    frames, seconds = decoded(path)
    bad = np.array([frame.is_corrupt for frame in frames])
    num_lost = 75 - len(frames) + bad.sum()
    assert num_lost >= packets.stop - packets.start
    with open_video(path, held_bytes=held_bytes) as video:
        early = video.clip(WHOLE, stop_seconds=0.6)
        clip = video.clip(WHOLE)
        assert clip.lost_frames == video.lost_frames == num_lost
        assert early.lost_frames == (num_lost if packets.start == 0 else 0)
        window = video.clip(WINDOW, start_seconds=0.2)
        assert window.lost_frames <= num_lost
        assert_same(window, naive_clip(path, WINDOW, start=0.2))
        list(video.frames(WHOLE))
        at = [frame.index for frame in video.frames_at(WHOLE, np.arange(0, 2, 0.1))]
        assert at == pick_frames(seconds, np.arange(0, 2, 0.1)).tolist()


def test_nothing_decodes(tmp_path):
    path = draw(tmp_path / "all.mp4")
    overwrite(path, slice(None), 0xA5)
    with open_video(path) as video, pytest.raises(VideoError, match="decode"):
        video.clip(WHOLE)


def test_a_header_that_lies_about_the_number_of_frames(tmp_path):
    path = draw(tmp_path / "lies.avi", "mpeg4", num=30)
    content = bytearray(path.read_bytes())
    for at in (content.index(b"avih") + 8 + 16, content.index(b"strh") + 8 + 32):
        content[at : at + 4] = (900).to_bytes(4, "little")
    path.write_bytes(content)
    with open_video(path) as video:
        assert video.info.num_frames == 30
        assert_same(video.clip(WHOLE), naive_clip(path, WHOLE))


def one_by_one(path: Path, spec: ClipSpec, segments, held_bytes: int) -> list[Clip]:
    with open_video(path, held_bytes=held_bytes) as video:
        return [video.clip(spec, start_seconds=start, stop_seconds=stop) for start, stop in segments]


def assert_all_same(clips: list[Clip], expected: list[Clip]) -> None:
    for clip, one in zip(clips, expected, strict=True):
        assert_same(clip, one)
        assert (clip.repeated, clip.lost_frames) == (one.repeated, one.lost_frames)


class Outcome:
    """What came of cutting clips: the clips, or the kind and text of the error."""

    def __init__(self):
        self.clips, self.error = [], None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.error = (kind, str(error)) if kind else None
        return isinstance(error, VideoError)


SEGMENTS = [(1.7, None), (0.0, 1.2), (0.4, 1.5), (None, None), (2.3, None), (0.4, 1.5), (0.9, 0.95)]
"""Not in order, overlapping, the same twice, at the end and of one frame."""


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", KINDS)
def test_clips_cut_together_are_those_cut_one_by_one(drawn, kind, held_bytes):
    for spec in (WHOLE, WINDOW):
        expected = one_by_one(drawn[kind], spec, SEGMENTS, held_bytes)
        with open_video(drawn[kind], held_bytes=held_bytes) as video:
            assert_all_same(video.clips(spec, SEGMENTS), expected)
            assert video.clips(spec, []) == []


@pytest.mark.parametrize("packets", [slice(12, 13), slice(40, 43), slice(-3, None)])
@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", ["h264-no-b", "h264-b", "h264-ts", "vp9"])
def test_clips_of_a_damaged_file_cut_together_are_those_cut_one_by_one(tmp_path, kind, held_bytes, packets):
    path = draw(tmp_path / f"damaged.{KINDS[kind][0]}", kind)
    overwrite(path, packets, 0xA5)
    for segments in ([(0.0, 0.3), (0.3, 1.0), (1.4, 2.0)], [(1.0, 1.6), (0.2, 2.0), (2.0, 2.1)]):
        one, together = Outcome(), Outcome()
        with one:
            one.clips = one_by_one(path, WINDOW, segments, held_bytes)
        with together, open_video(path, held_bytes=held_bytes) as video:
            together.clips = video.clips(WINDOW, segments)
        assert together.error == one.error
        assert_all_same(together.clips, one.clips)


def test_clips_cut_together_decode_what_they_share_once(lasting):
    segments = [(10 + 0.25 * i, None) for i in range(9)] + [(50.0 + 10 * i, None) for i in range(3)]
    expected = one_by_one(lasting, WINDOW, segments, 0)
    with open_video(lasting, held_bytes=0) as video:
        assert_all_same(video.clips(WINDOW, segments), expected)
        together = video.num_decoded
        for start, stop in segments:
            video.clip(WINDOW, start_seconds=start, stop_seconds=stop)
        assert video.num_decoded - together > 2 * together


def test_the_first_clip_that_fails_is_told_as_one_by_one(drawn, tmp_path):
    with open_video(drawn["h264-b"]) as video:
        with pytest.raises(EmptyVideoError, match=r"\[60,"):
            video.clips(WHOLE, [(0.0, 1.0), (60.0, None), (70.0, None)])
        with pytest.raises(SettingError, match="segment"):
            video.clips(WHOLE, [(0.0, 1.0), (1.0, 1.0)])
        assert len(video.clips(WHOLE, [(0.0, 1.0), (1.0, 2.0)])) == 2
    path = draw(tmp_path / "tail.mp4")
    overwrite(path, slice(-9, None), 0xA5)
    with open_video(path) as video, pytest.raises(TruncatedVideoError, match=r"6\d of 75 frames decode"):
        video.clips(WHOLE, [(0.0, 1.0), (1.0, None)])


def test_cutting_clips_together_ends_another_reading(lasting):
    with open_video(lasting) as video:
        frames = video.frames(WHOLE)
        next(frames)
        video.clips(WINDOW, [(1.0, None), (50.0, None)])
        with pytest.raises(VideoError, match="another reading"):
            list(frames)


@pytest.mark.parametrize("kind", ["h264-b", "h264-late", "mpeg4-b", "gif", "h264-ts"])
def test_damage_anywhere_gives_a_clip_or_a_named_error(tmp_path, drawn, kind):
    content = drawn[kind].read_bytes()
    rng = random.Random(7)
    for i in range(12):
        broken = bytearray(content[: rng.randrange(1, len(content) + 1)] if i % 2 else content)
        for _ in range(i):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path = tmp_path / f"{i}{drawn[kind].suffix}"
        path.write_bytes(broken)
        with contextlib.suppress(VideoError), open_video(path) as video:
            assert video.clip(WHOLE).pixels.shape == (16, 48, 64, 3)


# Real clips.


def real_clips() -> list[Path]:
    fight = sorted((DATA / "fight").glob("*/*.mp4"))[::23]
    gestures = sorted((DATA / "gestures/videos").glob("**/*.mp4"))[::60]
    return [*sorted((DATA / "clips").glob("*/*")), *fight, *gestures]


def test_real_clips_give_what_a_full_decode_picks():
    paths = real_clips()
    if not paths:
        pytest.skip(f"no real clips in {DATA}; set VIDETTE_DATA")
    for path in paths:
        with open_video(path) as video:
            assert_same(video.clip(WHOLE), naive_clip(path, WHOLE))
