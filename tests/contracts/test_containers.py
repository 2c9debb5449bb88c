"""Containers and streams: whatever holds the frames, they are those of a plain full decode, by hash."""

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image

from vidette.errors import NoVideoStreamError, SettingError, TruncatedVideoError
from vidette.video.clip import Clip, ClipSpec
from vidette.video.reader import open_video, probe
from vidette.video.sampling import pick_frames, target_seconds
from vidette.video.transforms import FrameResizer, Geometry, rgb_pixels

WHOLE = ClipSpec(num_frames=12, height=24, width=32)
WINDOW = ClipSpec(num_frames=6, height=24, width=32, sampling="window", fps=9.0)
NUM_FRAMES, FPS = 50, 25

# Name of the file: codec, options, pixel format, (rows, columns).
KINDS: dict[str, tuple[str, dict[str, str], str, tuple[int, int]]] = {
    "h264.mov": ("libx264", {"bf": "3", "g": "20"}, "yuv420p", (48, 64)),
    "h264.mp4": ("libx264", {"bf": "3", "g": "20"}, "yuv420p", (48, 64)),
    "h264.flv": ("libx264", {"bf": "2", "g": "20"}, "yuv420p", (48, 64)),
    "h264.m2ts": ("libx264", {"bf": "2", "g": "20"}, "yuv420p", (48, 64)),
    "phone.3gp": ("mpeg4", {"g": "12"}, "yuv420p", (48, 64)),
    "hevc-10-bit.mp4": ("libx265", {"x265-params": "log-level=none:keyint=20"}, "yuv420p10le", (48, 64)),
    "av1.mp4": ("libsvtav1", {"preset": "12", "g": "20"}, "yuv420p", (64, 64)),
    "av1-10-bit.webm": ("libsvtav1", {"preset": "12", "g": "20"}, "yuv420p10le", (64, 64)),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "g": "20"}, "yuv420p", (48, 64)),
    "vp8.mkv": ("libvpx", {"deadline": "realtime", "g": "20"}, "yuv420p", (48, 64)),
    "grey.mkv": ("ffv1", {}, "gray", (48, 64)),
    "grey-10-bit.mkv": ("ffv1", {}, "gray10le", (48, 64)),
    "odd.mkv": ("ffv1", {}, "yuv420p", (47, 63)),
    "odd.avi": ("mjpeg", {}, "yuvj420p", (33, 35)),
    "with-alpha.mov": ("qtrle", {}, "argb", (48, 64)),
    "edit.mov": ("prores_ks", {}, "yuv422p10le", (48, 64)),
    "old.wmv": ("wmv2", {"g": "12"}, "yuv420p", (48, 64)),
    "disc.mpg": ("mpeg1video", {"bf": "2", "g": "12"}, "yuv420p", (48, 64)),
    "disc.vob": ("mpeg2video", {"bf": "2", "g": "12"}, "yuv420p", (48, 64)),
    "camera.ts": ("mpeg2video", {"bf": "2", "g": "12"}, "yuv420p", (48, 64)),
    "halves.ts": ("mpeg2video", {"bf": "2", "g": "12", "flags": "+ilme+ildct"}, "yuv420p", (48, 64)),
    "halves.mp4": ("libx264", {"bf": "2", "g": "12", "x264-params": "tff=1"}, "yuv420p", (48, 64)),
    "halves.mkv": ("libx264", {"bf": "2", "g": "12", "x264-params": "bff=1"}, "yuv420p", (48, 64)),
    "drawn.gif": ("gif", {}, "rgb8", (48, 64)),
    "drawn.apng": ("apng", {}, "rgb24", (48, 64)),
    "plain.y4m": ("wrapped_avframe", {}, "yuv444p", (48, 64)),
    "raw.avi": ("rawvideo", {}, "yuv420p", (48, 64)),
}


def picture(i: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture that tells its number and which way is up."""
    y, x = np.mgrid[: size[0], : size[1]]
    wave = 110 + 80 * np.sin((x + 3 * i) / 9) * np.cos((y - 2 * i) / 7) + x / 2
    return np.stack([wave, np.roll(wave, i, axis=1), np.full_like(wave, 5 * i % 256)], -1).astype(np.uint8)


def video_stream(container, codec: str, options=None, pix_fmt: str = "yuv420p", size=(48, 64)):
    stream = container.add_stream(codec, rate=FPS, options=options or {})
    stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
    return stream


def encode(container, stream, *, num: int = NUM_FRAMES, first: int = 0, step=lambda i: i) -> None:
    for i in range(num):
        frame = av.VideoFrame.from_ndarray(picture(first + i, (stream.height, stream.width)))
        frame = frame.reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = step(i), Fraction(1, FPS)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def draw(path: Path, kind: str | None = None, **more) -> Path:
    codec, options, pix_fmt, size = KINDS[kind or path.name]
    with av.open(str(path), "w") as container:
        encode(container, video_stream(container, codec, options, pix_fmt, size), **more)
    return path


def decoded(path: Path, number: int = 0) -> tuple[list[av.VideoFrame], np.ndarray]:
    """All frames of one plain decode of a stream, by one thread, and when they are shown."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[number]
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
        stamps = np.array([np.nan if frame.pts is None else frame.pts for frame in frames])
        rate, base = float(stream.average_rate or FPS), float(stream.time_base or 1)
    if not np.all(np.diff(stamps) > 0):
        return frames, np.arange(len(frames)) / rate
    return frames, (stamps - stamps[0]) * base


def naive(path: Path, spec: ClipSpec, *, start: float = 0.0, stop: float = np.inf, number: int = 0) -> Clip:
    frames, seconds = decoded(path, number)
    inside = np.flatnonzero((seconds >= start - 1e-3) & (seconds < stop - 1e-3))
    wanted = target_seconds(spec, first_seconds=seconds[inside[0]], last_seconds=seconds[inside[-1]])
    picks = inside[pick_frames(seconds[inside], wanted)]
    resizer = FrameResizer(spec)
    return Clip(np.stack([resizer(frames[i]) for i in picks]), seconds[picks])


def hashes(clip: Clip) -> list[str]:
    return [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in clip.pixels]


def assert_same(clip: Clip, expected: Clip) -> None:
    np.testing.assert_allclose(clip.seconds, expected.seconds, atol=1e-9)
    assert hashes(clip) == hashes(expected)
    assert clip.lost_frames == 0


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_frames_of_a_full_decode(tmp_path, kind, held_bytes):
    path = draw(tmp_path / kind)
    seconds = decoded(path)[1]
    with open_video(path, held_bytes=held_bytes) as video:
        np.testing.assert_allclose(video.frame_seconds(), seconds, atol=1e-9)
        assert len(seconds) == NUM_FRAMES
        for spec in (WHOLE, WINDOW):
            assert_same(video.clip(spec), naive(path, spec))
        clip = video.clip(WHOLE, start_seconds=0.9, stop_seconds=1.7)
        assert_same(clip, naive(path, WHOLE, start=0.9, stop=1.7))
        wanted = np.arange(0.1, 1.9, 0.31)
        at = list(video.frames_at(WHOLE, wanted))
        assert [frame.index for frame in at] == pick_frames(seconds, wanted).tolist()
    info = probe(path)
    rows, columns = KINDS[kind][3]
    assert (info.height, info.width, info.num_frames, info.num_video_streams) == (rows, columns, NUM_FRAMES, 1)
    assert info.interlaced == kind.startswith("halves")


# Time.


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", ["h264.mp4", "h264.mov", "vp9.webm", "vp8.mkv", "h264.m2ts"])
def test_variable_rate_and_a_late_first_frame(tmp_path, kind, held_bytes):
    path = draw(tmp_path / kind, step=lambda i: 37 + i + i * i // 9)
    with open_video(path, held_bytes=held_bytes) as video:
        assert video.frame_seconds()[0] == 0
        assert np.ptp(np.diff(video.frame_seconds())) > 0.3
        assert_same(video.clip(WHOLE), naive(path, WHOLE))
        assert_same(video.clip(WINDOW, start_seconds=3.3), naive(path, WINDOW, start=3.3))


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
def test_an_edit_list_that_starts_inside_a_group_of_pictures(tmp_path, held_bytes):
    path = draw(tmp_path / "h264.mp4")
    content = path.read_bytes()
    at = content.index(b"elst") + 16
    late = int.from_bytes(content[at : at + 4], "big") + 7 * 512
    path.write_bytes(content[:at] + late.to_bytes(4, "big") + content[at + 4 :])
    assert len(decoded(path)[1]) == NUM_FRAMES - 7
    with open_video(path, held_bytes=held_bytes) as video:
        assert len(video.frame_seconds()) == NUM_FRAMES - 7
        assert_same(video.clip(WHOLE), naive(path, WHOLE))
        assert_same(video.clip(WINDOW, start_seconds=0.4), naive(path, WINDOW, start=0.4))


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
@pytest.mark.parametrize("kind", ["camera.ts", "h264.m2ts"])
def test_a_recording_that_starts_inside_a_group_of_pictures(tmp_path, kind, held_bytes):
    path = draw(tmp_path / kind)
    packet_bytes = 192 if kind.endswith("m2ts") else 188
    tables, rest = 4 * packet_bytes, len(path.read_bytes()) // packet_bytes // 3 * packet_bytes
    content = path.read_bytes()
    path.write_bytes(content[:tables] + content[rest:])
    expected = decoded(path)[1]
    with open_video(path, held_bytes=held_bytes) as video:
        np.testing.assert_allclose(video.frame_seconds(), expected, atol=1e-9)
        clip, other = video.clip(WHOLE), naive(path, WHOLE)
        assert hashes(clip) == hashes(other)


# What is shown.


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_and_mirrored_pictures(tmp_path, degrees, mirrored):
    path = tmp_path / "turned.mov"
    with av.open(str(path), "w") as container:
        stream = video_stream(container, "libx264")
        stream.set_display_rotation(degrees, hflip=mirrored)
        encode(container, stream, num=4)
    stored = decoded(path)[0][0].to_ndarray(format="rgb24")
    expected = np.rot90(stored, degrees // 90)
    expected = expected[:, ::-1] if mirrored else expected
    info = probe(path)
    assert (info.height, info.width) == expected.shape[:2]
    assert info.mirrored == mirrored
    with open_video(path) as video:
        frame = next(video.frames())
        clip = video.clip(ClipSpec(num_frames=1, height=expected.shape[0], width=expected.shape[1]))
    np.testing.assert_array_equal(frame.pixels, expected)
    assert np.abs(clip.pixels[0].astype(int) - expected).mean() < 3


def anamorphic(path: Path, *, degrees: int = 0) -> Path:
    """Draw a round disc as it is stored with pixels twice as wide as high: 32 columns for 64."""
    y, x = np.mgrid[:48, :64]
    disc = np.where((y - 23.5) ** 2 + (x - 31.5) ** 2 < 16**2, 255, 40).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = video_stream(container, "mpeg4" if path.suffix == ".avi" else "libx264", size=(48, 32))
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        if degrees:
            stream.set_display_rotation(degrees)
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(np.repeat(disc[:, ::2, None], 3, axis=2)).reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def extent(pixels: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the bright disc."""
    bright = pixels[..., 1] > 150
    return int(bright.any(axis=1).sum()), int(bright.any(axis=0).sum())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mov"])
def test_anamorphic_pictures_are_cut_and_padded_as_shown(tmp_path, ending):
    path = anamorphic(tmp_path / f"wide.{ending}")
    info = probe(path)
    assert (info.height, info.width) == (48, 64)
    with open_video(path) as video:
        shown = next(video.frames()).pixels
        assert shown.shape == (48, 64, 3)
        sizes = [extent(shown)]
        for resize in ("crop", "pad"):
            clip = video.clip(ClipSpec(num_frames=1, height=48, width=48, resize=resize))
            sizes.append(extent(clip.pixels[0]))
            assert (clip.pixels[0, 0] == 0).all() == (resize == "pad")
        stretched = video.clip(ClipSpec(num_frames=2, height=48, width=32))
    for rows, columns in sizes:
        assert abs(rows - columns) <= 2
    assert_same(stretched, naive(path, ClipSpec(num_frames=2, height=48, width=32)))


def test_anamorphic_pictures_that_are_turned(tmp_path):
    path = anamorphic(tmp_path / "turned.mp4", degrees=90)
    info = probe(path)
    assert (info.height, info.width, info.rotation_degrees) == (64, 48, 90)
    with open_video(path) as video:
        assert next(video.frames()).pixels.shape == (64, 48, 3)
        clip = video.clip(ClipSpec(num_frames=1, height=64, width=48, resize="crop"))
    rows, columns = extent(clip.pixels[0])
    assert abs(rows - columns) <= 2


# Streams.


@pytest.fixture
def two_streams(tmp_path) -> Path:
    """A cover picture, then one stream of pictures 0 to 49 and another of 100 to 149."""
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        first, second = video_stream(container, "libx264"), video_stream(container, "mpeg4", size=(32, 48))
        frame = av.VideoFrame.from_ndarray(picture(0, (32, 32))).reformat(format="yuvj420p")
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
        encode(container, first)
        encode(container, second, first=100)
    return path


@pytest.mark.parametrize("held_bytes", [2**25, 0], ids=["kept", "seeking"])
def test_one_of_several_video_streams(two_streams, held_bytes):
    with av.open(str(two_streams)) as container:
        numbers = [
            i for i, s in enumerate(container.streams.video) if not s.disposition & Disposition.attached_pic
        ]
        assert len(container.streams.video) - len(numbers) == 1
    for stream, number in enumerate(numbers):
        with open_video(two_streams, stream=stream, held_bytes=held_bytes) as video:
            assert video.info.num_video_streams == 2
            assert (video.info.height, video.info.width) == [(48, 64), (32, 48)][stream]
            assert_same(video.clip(WHOLE), naive(two_streams, WHOLE, number=number))
            assert_same(
                video.clip(WINDOW, start_seconds=1.1), naive(two_streams, WINDOW, start=1.1, number=number)
            )
    with open_video(two_streams) as video:
        assert_same(video.clip(WHOLE), naive(two_streams, WHOLE, number=numbers[0]))


def test_a_stream_that_is_not_there(two_streams, tmp_path):
    for stream in (2, -1):
        with pytest.raises(NoVideoStreamError, match="it holds 2; expected 0 to 1"):
            open_video(two_streams, stream=stream)
    with pytest.raises(NoVideoStreamError, match="it holds 1; expected 0"):
        open_video(webp(tmp_path / "a.webp"), stream=1)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_metadata_that_is_not_utf8(tmp_path, ending):
    path = tmp_path / f"titled.{ending}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "A TITLE OF TODAY"
        encode(container, video_stream(container, "libx264", {"bf": "0"}))
    content = path.read_bytes()
    assert b"A TITLE OF TODAY" in content
    path.write_bytes(content.replace(b"A TITLE OF TODAY", b"A T\xeftl\xe9 \xff\xfe\x80OF MY"))
    with open_video(path) as video:
        assert video.info.num_frames == NUM_FRAMES
        assert_same(video.clip(WHOLE), naive(path, WHOLE))


# Animated pictures.


def webp(path: Path, *, durations=(100, 40, 60, 200, 80, 80)) -> Path:
    first, *more = [Image.fromarray(picture(5 * i)) for i in range(len(durations))]
    first.save(path, save_all=True, append_images=more, duration=list(durations), lossless=True)
    return path


def test_animated_webp_is_shown_by_its_durations(tmp_path):
    path = webp(tmp_path / "drawn.webp")
    starts = np.array([0, 0.1, 0.14, 0.2, 0.4, 0.48])
    with open_video(path) as video:
        np.testing.assert_allclose(video.frame_seconds(), starts)
        info = video.info
        assert (info.codec, info.height, info.width, info.num_frames) == ("webp", 48, 64, 6)
        assert info.duration_seconds == pytest.approx(0.56)
        frames = list(video.frames())
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.pixels, picture(5 * i))
        resizer = FrameResizer(WHOLE)
        clip = video.clip(WHOLE, start_seconds=0.1)
        picks = 1 + pick_frames(starts[1:], np.linspace(0.1, 0.48, 12))
        np.testing.assert_allclose(clip.seconds, starts[picks])
        for pixels, pick in zip(clip.pixels, picks, strict=True):
            np.testing.assert_array_equal(pixels, resizer(picture(5 * int(pick))))
        assert [frame.index for frame in video.frames_at(WHOLE, np.array([0.0, 0.39, 0.41]))] == [0, 3, 4]
        assert [frame.index for frame in video.frames(start_seconds=0.14, stop_seconds=0.41)] == [2, 3, 4]
        with pytest.raises(SettingError, match="not decreasing"):
            next(video.frames_at(WHOLE, np.array([0.3, 0.1])))


def test_webp_of_one_picture_is_a_video_of_one_frame(tmp_path):
    Image.fromarray(picture(3)).save(tmp_path / "still.webp", lossless=True)
    with open_video(tmp_path / "still.webp") as video:
        assert video.info.num_frames == 1
        assert video.clip(WHOLE).pixels.shape == (12, 24, 32, 3)


def test_an_avif_sequence_is_not_its_cover(tmp_path):
    first, *more = [Image.fromarray(picture(5 * i)) for i in range(6)]
    first.save(tmp_path / "a.avif", save_all=True, append_images=more, duration=40)
    with open_video(tmp_path / "a.avif") as video:
        assert (video.info.num_frames, video.info.num_video_streams) == (6, 1)
        assert_same(video.clip(WHOLE), naive(tmp_path / "a.avif", WHOLE, number=1))


@pytest.mark.parametrize("name", ["drawn.gif", "drawn.webp"])
def test_animated_pictures_that_break_off(tmp_path, name):
    path = tmp_path / name
    content = (webp if path.suffix == ".webp" else draw)(path).read_bytes()
    for share in (0.3, 0.6, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(TruncatedVideoError), open_video(path) as video:
            video.clip(WHOLE)


def test_pictures_at_their_shown_size():
    frame = av.VideoFrame.from_ndarray(picture(0))
    reformatter = VideoReformatter()
    same = rgb_pixels(frame, reformatter=reformatter, geometry=Geometry())
    np.testing.assert_array_equal(same, picture(0))
    wide = rgb_pixels(frame, reformatter=reformatter, geometry=Geometry(pixel_aspect=1.5))
    assert wide.shape == (48, 96, 3)
