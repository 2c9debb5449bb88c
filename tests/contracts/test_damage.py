"""Damaged files: over 300 of them, and each one gives the clip of a full decode or a named error.

The files are drawn, damaged by seed and read in a child process, which reports one line a file. The parent
watches: no crash, no file over ``LIMIT_SECONDS``, none that takes over ``LIMIT_MIB`` of memory (and, where the
header claims pictures of an allowed size, ``LIMIT_BYTES_A_PIXEL`` of it more), no frame that a plain full
decode of the same damaged file would not pick.
"""

import functools
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from vidette import errors
from vidette.errors import VideoError
from vidette.video.clip import Clip, ClipSpec
from vidette.video.packets import DECODER_OPTIONS
from vidette.video.reader import open_video
from vidette.video.sampling import pick_frames, target_seconds
from vidette.video.transforms import FrameResizer

LIMIT_SECONDS = 20
LIMIT_MIB = 256
LIMIT_BYTES_A_PIXEL = 24
NUM_FRAMES = 24
SPEC = ClipSpec(num_frames=8, height=24, width=32)
BILLION = 10**9

# Name of the file: codec, options of the codec, options of the container.
KINDS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "b.mp4": ("libx264", {"bf": "2", "g": "8"}, {}),
    "first.mp4": ("libx264", {"bf": "2", "g": "12"}, {"movflags": "faststart"}),
    "parts.mp4": ("libx264", {"bf": "0", "g": "6"}, {"movflags": "frag_keyframe+empty_moov"}),
    "b.mkv": ("libx264", {"bf": "2", "g": "12"}, {}),
    "old.avi": ("mpeg4", {"bf": "2", "g": "8"}, {}),
    "pictures.avi": ("mjpeg", {}, {}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "g": "8"}, {}),
    "vp8.webm": ("libvpx", {"deadline": "realtime", "g": "8"}, {}),
    "disc.mpg": ("mpeg2video", {"bf": "2", "g": "8"}, {}),
    "camera.ts": ("libx264", {"bf": "1", "g": "8"}, {}),
    "drawn.gif": ("gif", {}, {}),
    "plain.y4m": ("rawvideo", {}, {}),
    "old.flv": ("flv", {"g": "8"}, {}),
}
UNDEFINED = ("pictures.avi", "disc.mpg")
"""Files whose decoders leave a part that does not decode as it was in memory: only their times are compared."""
PIX_FMTS = {"mjpeg": "yuvj420p", "gif": "rgb8"}
MAGICS = {
    "mp4": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
    "mov": b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  \x00\x00\x10\x00moov",
    "avi": b"RIFF\xff\xff\x00\x00AVI LIST\x40\x00\x00\x00hdrlavih",
    "mkv": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska\x18\x53\x80\x67",
    "mpg": b"\x00\x00\x01\xba\x44\x00\x04\x00\x04\x01",
    "m2v": b"\x00\x00\x01\xb3\x04\x00\x30\x23",
    "h264": b"\x00\x00\x00\x01\x67\x42\xc0\x1e",
    "flv": b"FLV\x01\x01\x00\x00\x00\x09\x00\x00\x00\x00",
    "gif": b"GIF89a\x40\x00\x30\x00\xf7\x00\x00",
    "webp": b"RIFF\xff\xff\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x3f\x00\x00\x2f\x00\x00",
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR",
    "y4m": b"YUV4MPEG2 W64 H48 F25:1\n",
    "ogv": b"OggS\x00\x02",
    "wmv": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "ivf": b"DKIF\x00\x00\x20\x00VP90\x40\x00\x30\x00",
}
TEXTS = {
    "words.mp4": "this is no video\n" * 50,
    "page.avi": "<!DOCTYPE html><html><body>404 not found</body></html>",
    "table.mkv": "path,label\na.mp4,wave\n" * 50,
    "list.mp4": "ffconcat version 1.0\nfile plain.y4m\nduration 1\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nplain.y4m\n#EXT-X-ENDLIST\n",
    "words.webm": '{"error": "rate limit"}',
    "titles.mov": "1\n00:00:01,000 --> 00:00:04,000\nwords\n\n",
    "words.gif": "GIF",
}


def picture(i: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    wave = 127 + 90 * np.sin((x + 3 * i) / 9) * np.cos((y - 2 * i) / 7)
    return np.stack([wave, np.roll(wave, i, axis=1), np.full_like(wave, 9 * i % 256)], axis=-1).astype(np.uint8)


def draw(path: Path, *, size: tuple[int, int] = (48, 64)) -> bytes:
    codec, options, muxer = KINDS[path.name]
    rate = 25
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(
            "wrapped_avframe" if codec == "rawvideo" else codec, rate=rate, options=options
        )
        stream.height, stream.width = size
        stream.pix_fmt = PIX_FMTS.get(codec, "yuv420p")
        stream.codec_context.thread_count = 1  # the same bytes whatever the number of cores
        for i in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(i, height=size[0], width=size[1]))
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def draw_pictures(path: Path) -> bytes:
    first, *more = [Image.fromarray(picture(i)) for i in range(NUM_FRAMES)]
    first.save(path, save_all=True, append_images=more, duration=40)
    return path.read_bytes()


# Damage: every function yields (name, content).


def truncated(content: bytes, draws: random.Random) -> Iterator[bytes]:
    for _ in range(8):
        yield content[: draws.randrange(1, len(content))]


def flipped(content: bytes, draws: random.Random) -> Iterator[bytes]:
    for num in (1, 2, 4, 8, 16, 64, 256):
        changed = bytearray(content)
        for _ in range(num):
            changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
        yield bytes(changed)


def overwritten(content: bytes, draws: random.Random) -> Iterator[bytes]:
    for share in (0.001, 0.01, 0.03, 0.1, 0.3):
        for fill in (None, 0):
            num = max(4, int(len(content) * share))
            at = draws.randrange(max(1, len(content) - num))
            run = draws.randbytes(num) if fill is None else bytes(num)
            yield content[:at] + run + content[at + num :]


def patched(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite what stands ``offset`` bytes after the start of a mark."""
    at = content.index(mark) + offset
    return content[:at] + value + content[at + len(value) :]


def four(value: int) -> bytes:
    return value.to_bytes(4, "big")


def headers_that_lie(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Headers that claim a billion frames, or pictures of 65535x65535 and near the limit."""
    huge, little = four(BILLION), BILLION.to_bytes(4, "little")
    for name in ("b.mp4", "first.mp4"):
        mp4 = whole[name]
        constant = patched(mp4, b"stsz", 8, four(1) + huge)
        for what, content in {
            "sizes": patched(mp4, b"stsz", 12, huge),
            "constant-sizes": constant,
            "constant-large-sizes": patched(mp4, b"stsz", 8, four(10**6) + huge),
            "constant-sizes-in-one-chunk": patched(constant, b"stsc", 16, huge),
            "constant-sizes-and-times": patched(patched(constant, b"stsc", 16, huge), b"stts", 12, huge),
            "times": patched(mp4, b"stts", 12, huge),
            "table-of-times": patched(mp4, b"stts", 8, huge),
            "one-chunk": patched(mp4, b"stsc", 16, huge),
            "chunks": patched(mp4, b"stco", 8, huge),
            "offsets": patched(mp4, b"ctts", 8, huge),
            "an-offset": patched(mp4, b"ctts", 12, huge),
            "keys": patched(mp4, b"stss", 8, huge),
            "edits": patched(mp4, b"elst", 8, huge),
            "long": patched(mp4, b"mdhd", 20, b"\xff" * 4),
            "track-size": patched(mp4, b"tkhd", 4 + 76, b"\xff\xff\x00\x00" * 2),
            "size": patched(mp4, b"avc1\x00", 4 + 24, b"\xff" * 4),
            "size-16384": patched(mp4, b"avc1\x00", 4 + 24, b"\x40\x00" * 2),
            "size-4096": patched(mp4, b"avc1\x00", 4 + 24, b"\x10\x00" * 2),
            "box": patched(mp4, b"mdat", -4, b"\xff" * 4),
        }.items():
            yield f"{what}.{name}", content
    for name in ("old.avi", "pictures.avi"):
        avi = whole[name]
        for what, content in {
            "frames": patched(patched(avi, b"avih", 8 + 16, little), b"strh", 8 + 32, little),
            "size": patched(avi, b"strf", 8 + 4, b"\xff\xff\x00\x00" * 2),
            "sizes": patched(
                patched(avi, b"strf", 8 + 4, b"\xff\xff\x00\x00" * 2), b"avih", 40, b"\xff\xff\0\0" * 2
            ),
            "size-4096": patched(avi, b"strf", 8 + 4, b"\x00\x10\x00\x00" * 2),
            "size-16384": patched(avi, b"strf", 8 + 4, b"\x00\x40\x00\x00" * 2),
            "list": patched(avi, b"movi", -4, b"\xff" * 4),
            "index": patched(avi, b"idx1", 4, b"\xff" * 4),
            "rate": patched(avi, b"strh", 8 + 20, b"\x00" * 8),
            "packet": patched(avi, b"00dc", 4, b"\xff\xff\xff\x7f"),
        }.items():
            yield f"{what}.{name}", content
    yield "picture-size.pictures.avi", patched(whole["pictures.avi"], b"\xff\xc0", 5, b"\xff" * 4)
    gif = whole["drawn.gif"]
    yield "screen.gif", patched(gif, b"GIF89a", 6, b"\xff" * 4)
    yield "screen-8192.gif", patched(gif, b"GIF89a", 6, b"\x00\x20" * 2)
    yield "screen-16384.gif", patched(gif, b"GIF89a", 6, b"\x00\x40" * 2)
    yield "screen-4096.gif", patched(gif, b"GIF89a", 6, b"\x00\x10" * 2)
    yield "pictures.gif", patched(gif, b"\x2c\x00\x00\x00\x00\x40\x00\x30\x00", 5, b"\xff" * 4)
    y4m = whole["plain.y4m"]
    for size in (
        b"W65535 H65535",
        b"W999999999 H9",
        b"W0 H0",
        b"W8192 H8192",
        b"W4096 H4096",
        b"W16384 H16384",
    ):
        yield f"{size.decode()}.y4m", y4m.replace(b"W64 H48", size)
    mkv = whole["wide.mkv"]
    yield (
        "size.mkv",
        mkv.replace(b"\xb0\x82\x01\x40", b"\xb0\x82\xff\xff").replace(b"\xba\x82\x01\x00", b"\xba\x82\xff\xff"),
    )
    yield "packet.mkv", patched(mkv, b"\x1f\x43\xb6\x75", 4, b"\x08\xff\xff\xff")
    yield "long.mkv", patched(mkv, b"\x44\x89\x88", 3, b"\x7f\xef" + b"\xff" * 6)
    yield "size.mpg", patched(whole["disc.mpg"], b"\x00\x00\x01\xb3", 4, b"\xff\xff\xff")
    for name, mark in (("vp8.webm", b"\x9d\x01\x2a"), ("old.flv", b"FLV")):
        yield f"size.{name}", patched(whole[name], mark, 3, b"\xff\x3f\xff\x3f")
    mjpeg = whole["pictures.avi"]
    yield "picture-16384.pictures.avi", mjpeg.replace(b"\x00\x30\x00\x40\x03", b"\x40\x00\x40\x00\x03")
    webp, png = whole["drawn.webp"], whole["drawn.png"]
    yield "screen.webp", patched(webp, b"VP8X", 12, b"\xff" * 6)
    yield "screen-8192.webp", patched(webp, b"VP8X", 12, b"\xff\x1f\x00" * 2)
    yield "screen-2048.webp", patched(webp, b"VP8X", 12, b"\xff\x07\x00" * 2)
    yield "pictures.webp", patched(webp, b"ANMF", 14, b"\xff" * 6)
    yield "chunk.webp", patched(webp, b"ANMF", 4, b"\xff\xff\xff\x7f")
    yield "screen.png", patched(png, b"IHDR", 4, b"\x00\x00\xff\xff" * 2)
    yield "screen-16384.png", patched(png, b"IHDR", 4, b"\x00\x00\x40\x00" * 2)
    yield "screen-2-31.png", patched(png, b"IHDR", 4, b"\x7f\xff\xff\xff" * 2)
    yield "frames.png", patched(png, b"acTL", 4, huge)


def write_damaged(folder: Path) -> None:
    """Write every damaged file; the same ones on every machine whose encoders give the same bytes."""
    whole = {name: draw(folder / name) for name in KINDS}
    whole |= {name: draw_pictures(folder / name) for name in ("drawn.webp", "drawn.png")}
    damaged = folder / "damaged"
    damaged.mkdir()
    for number, (name, content) in enumerate(sorted(whole.items())):
        draws = random.Random(number)
        for damage in (truncated, flipped, overwritten):
            for i, changed in enumerate(damage(content, draws)):
                (damaged / f"{damage.__name__}-{i}.{name}").write_bytes(changed)
    KINDS["wide.mkv"] = ("ffv1", {}, {})
    whole["wide.mkv"] = draw(folder / "wide.mkv", size=(256, 320))
    for name, content in headers_that_lie(whole):
        (damaged / f"lies-{name}").write_bytes(content)
    draws = random.Random(99)
    for ending, magic in MAGICS.items():
        (damaged / f"random.{ending}").write_bytes(magic + draws.randbytes(4000))
        (damaged / f"zeros.{ending}").write_bytes(magic + bytes(4000))
    for name, text in TEXTS.items():
        (damaged / f"text-{name}").write_text(text)
    for num in (0, 1, 1000, 300_000):
        (damaged / f"nothing-{num}.mp4").write_bytes(bytes(num))
    (damaged / "noise.mp4").write_bytes(draws.randbytes(50_000))


# The child: read every file, say what came of it.


def read_all(folder: Path, report: Path) -> None:
    with report.open("a") as lines:
        for path in sorted(folder.iterdir()):
            lines.write(json.dumps({"begun": path.name}) + "\n")
            lines.flush()
            lines.write(json.dumps({"name": path.name, **read(path)}) + "\n")
            lines.flush()


def read(path: Path) -> dict[str, Any]:
    forget_peak()
    before, begun = peak_mib(), time.monotonic()
    clip, window = None, None
    try:
        with open_video(path) as video:
            clip = video.clip(SPEC)
            window = video.clip(SPEC, start_seconds=0.2, stop_seconds=0.6)
        outcome, reason = "clip", ""
    except VideoError as error:
        outcome, reason = type(error).__name__, error.reason
    result: dict[str, Any] = {"outcome": outcome, "reason": reason, "lost": clip.lost_frames if clip else 0}
    result |= {"seconds": time.monotonic() - begun, "mib": peak_mib() - before}
    if clip is not None:
        result |= differences(path, clip, window)
    return {"other_frames": [], "other_pixels": 0, **result}


def differences(path: Path, clip: Clip, window: Clip | None) -> dict[str, Any]:
    """Say how the clips of a file differ from what a full decode of it picks."""
    pictures, seconds = full_decode(path)
    inside = np.flatnonzero((seconds >= 0.2 - 1e-3) & (seconds < 0.6 - 1e-3))
    frames: list[str] = []
    num_pixels = 0
    for cut, places in ((clip, np.arange(len(seconds))), (window, inside)):
        if cut is None:
            continue
        first, last = seconds[places[0]], seconds[places[-1]]
        picks = places[
            pick_frames(seconds[places], target_seconds(SPEC, first_seconds=first, last_seconds=last))
        ]
        if cut.pixels.shape != (8, 24, 32, 3) or not np.allclose(cut.seconds, seconds[picks], atol=1e-6):
            frames.append(f"{cut.seconds.tolist()}; a full decode picks {seconds[picks].tolist()}")
        elif not path.name.endswith(UNDEFINED):
            num_pixels += sum(
                not np.array_equal(a, pictures[i]) for a, i in zip(cut.pixels, picks, strict=True)
            )
    return {"other_frames": frames, "other_pixels": num_pixels}


def full_decode(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """All frames of one plain decode by one thread, resized, and when they are shown."""
    resizer = FrameResizer(SPEC)
    if path.suffix == ".webp":
        with Image.open(path) as picture:
            pairs = [
                (np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(picture)
            ]
        return [resizer(pixels) for pixels, _ in pairs], np.cumsum([0, *(d for _, d in pairs[:-1])]) / 1000
    frames: list[np.ndarray] = []
    stamps: list[float] = []
    with av.open(str(path), metadata_errors="ignore", options=DECODER_OPTIONS) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError, av.FFmpegError):
                break
            try:
                for frame in packet.decode():
                    frames.append(resizer(frame))
                    stamps.append(np.nan if frame.pts is None else frame.pts)
            except av.FFmpegError:
                continue
        rate, base = float(stream.average_rate or stream.guessed_rate or 25), float(stream.time_base or 1)
    if not np.all(np.diff(stamps) > 0):
        return frames, np.arange(len(frames)) / rate
    return frames, (np.array(stamps) - stamps[0]) * base


def forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mib() -> float:
    """Return the most memory held at once since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# The parent.


@functools.cache
def results(folder: Path) -> dict[str, dict]:
    write_damaged(folder)
    report = folder / "report.jsonl"
    report.touch()
    child = subprocess.Popen([sys.executable, __file__, str(folder / "damaged"), str(report)])
    size, since = 0, time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        if report.stat().st_size != size:
            size, since = report.stat().st_size, time.monotonic()
        if time.monotonic() - since > LIMIT_SECONDS:
            child.kill()
            child.wait()
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert child.returncode == 0, f"the child ended with {child.returncode} at {lines[-1]}"
    return {line["name"]: line for line in lines if "name" in line}


@pytest.fixture(scope="module")
def read_files(tmp_path_factory) -> dict[str, dict]:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system has not")
    return results(tmp_path_factory.mktemp("damage"))


def test_over_300_damaged_files_end_in_a_clip_or_a_named_error(read_files):
    assert len(read_files) >= 300
    names = {name for name in errors.__all__ if name.endswith("Error")}
    for result in read_files.values():
        assert result["outcome"] in {"clip", *names}, result
        assert result["outcome"] == "clip" or len(result["reason"]) > 10, result
        assert result["seconds"] < LIMIT_SECONDS, result
    outcomes = [result["outcome"] for result in read_files.values()]
    assert outcomes.count("clip") > 50
    assert outcomes.count("TruncatedVideoError") > 50


def test_no_damaged_file_takes_much_memory(read_files):
    for name, result in read_files.items():
        claimed = re.search("-(4096|2048)|W4096", name)
        extra = int(claimed.group(1) or 4096) ** 2 * LIMIT_BYTES_A_PIXEL / 2**20 if claimed else 0
        assert result["mib"] < LIMIT_MIB + extra, result


def test_frames_that_are_lost_are_counted(read_files):
    lost = [result["lost"] for result in read_files.values() if result["outcome"] == "clip"]
    assert sum(1 for number in lost if number) > 30
    assert max(lost) <= NUM_FRAMES


def test_clips_of_damaged_files_hold_the_frames_of_a_full_decode(read_files):
    assert [result for result in read_files.values() if result["other_frames"]] == []


def test_clips_of_damaged_files_hold_the_pixels_of_a_full_decode(read_files):
    """Save where damage leaves no trace: one bit may say that nothing refers to a frame, which is skipped."""
    clips = [result for result in read_files.values() if result["outcome"] == "clip"]
    unlike = [result for result in clips if result["other_pixels"]]
    assert len(unlike) <= 0.02 * len(clips), unlike


if __name__ == "__main__":
    read_all(Path(sys.argv[1]), Path(sys.argv[2]))
