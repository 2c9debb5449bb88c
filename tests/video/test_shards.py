"""Shards: what goes in comes out, from one file at random places, and damage has a name."""

import json
import tarfile

import numpy as np
import pytest

from vidette.errors import MissingVideoError, SettingError, UnreadableVideoError
from vidette.video.clip import ClipSpec, Frame
from vidette.video.shard_writer import ShardWriter
from vidette.video.shards import KeptFrames, is_shard_clip, open_shard_clip, shard_clip_digest

KEPT = KeptFrames(24, 32, num_frames=6)
SPEC = ClipSpec(num_frames=6, height=24, width=32)


def pictures(num, *, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (num, 6, 8, 3), dtype=np.uint8)
    return noise.repeat(4, axis=1).repeat(4, axis=2)


def write(tar, *, kept=KEPT, encoding="raw", clips=("walk/a", "run/b"), times=None):
    with ShardWriter(tar, kept, encoding=encoding) as shard:
        for number, key in enumerate(clips):
            shard.begin(key)
            for i, pixels in enumerate(pictures(6, seed=number)):
                shard.add(Frame(pixels, times[i] if times else 1.5 + i / 4, i))
            shard.end({"label": key}, duration_seconds=1.5, source_size=(48, 64), class_number=number)
    return tar


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_what_goes_in_comes_out(tmp_path, encoding):
    tar = write(tmp_path / "000.tar", encoding=encoding)
    for number, key in enumerate(("walk/a", "run/b")):
        with open_shard_clip(tar / key) as clip:
            cut = clip.clip(SPEC)
            wanted = pictures(6, seed=number)
            if encoding == "raw":
                np.testing.assert_array_equal(cut.pixels, wanted)
            else:
                grey = cut.pixels.astype(int).mean(-1) - wanted.mean(-1)
                assert np.abs(grey).mean() < 8
            np.testing.assert_allclose(cut.seconds, np.arange(6) / 4)
            assert clip.info.duration_seconds == 1.5
            assert (clip.info.height, clip.info.width) == (48, 64)


def test_the_tar_is_webdatasets(tmp_path):
    """One basename is one sample: pictures, class number and facts, in this order of the file."""
    with tarfile.open(write(tmp_path / "000.tar", encoding="jpeg")) as tar:
        names = tar.getnames()
        facts = json.load(tar.extractfile("walk/a.json"))
        number = tar.extractfile("run/b.cls").read()
    assert names[:8] == [*(f"walk/a.{i:05d}.jpg" for i in range(6)), "walk/a.json", "walk/a.cls"]
    assert all(name.split(".", 1)[0] == "run/b" for name in names[8:])
    assert facts["label"] == "walk/a"
    assert len(facts["seconds"]) == 6
    assert number == b"1"


def test_fewer_and_smaller_frames_can_be_taken_from_those_kept(tmp_path):
    tar = write(tmp_path / "000.tar")
    cut = open_shard_clip(tar / "walk/a").clip(ClipSpec(num_frames=3, height=12, width=16))
    assert cut.pixels.shape == (3, 12, 16, 3)
    np.testing.assert_allclose(cut.seconds, [0, 0.5, 1.25])


@pytest.mark.parametrize(
    ("kept", "spec", "refused"),
    [
        (KEPT, SPEC, None),
        (KEPT, ClipSpec(num_frames=7, height=24, width=32), "7 frames"),
        (KEPT, ClipSpec(num_frames=6, height=25, width=32), "24x32"),
        (KEPT, ClipSpec(num_frames=6, height=24, width=32, resize="crop"), "'crop'"),
        (KEPT, ClipSpec(num_frames=6, height=24, width=32, sampling="window", fps=4), "4 fps"),
        (KeptFrames(24, 32, "crop"), ClipSpec(height=12, width=12, resize="crop"), "shape"),
        (KeptFrames(24, 32, "crop"), ClipSpec(height=12, width=16, resize="crop"), None),
        (KeptFrames(24, 32, fps=12, num_frames=None), SPEC, None),
        (
            KeptFrames(24, 32, fps=12, num_frames=None),
            ClipSpec(height=24, width=32, sampling="window", fps=6),
            None,
        ),
        (
            KeptFrames(24, 32, fps=12, num_frames=None),
            ClipSpec(height=24, width=32, sampling="window", fps=5),
            "5 fps",
        ),
    ],
)
def test_a_spec_that_the_frames_cannot_serve_is_refused(kept, spec, refused):
    reason = kept.refusal(spec)
    assert (reason is None) if refused is None else (refused in reason)


def test_a_refused_spec_is_an_error_on_reading(tmp_path):
    tar = write(tmp_path / "000.tar")
    with pytest.raises(SettingError, match="prepare the clips again"):
        open_shard_clip(tar / "walk/a").clip(ClipSpec(num_frames=16, height=24, width=32))


def test_kept_frames_want_a_number_or_a_rate():
    for values in ({"num_frames": None}, {"num_frames": 3, "fps": 4.0}):
        with pytest.raises(SettingError, match="one of them"):
            KeptFrames(8, 8, **values)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail():
        with ShardWriter(tmp_path / "000.tar", KEPT) as shard:
            shard.begin("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_clip_begun_and_not_ended_is_not_there(tmp_path):
    tar = tmp_path / "000.tar"
    with ShardWriter(tar, KEPT, encoding="raw") as shard:
        shard.begin("broken")
        shard.add(Frame(pictures(1)[0], 0.0, 0))
        shard.begin("whole")
        shard.add(Frame(pictures(1, seed=1)[0], 0.0, 0))
        shard.end({}, duration_seconds=1, source_size=(1, 1))
    np.testing.assert_array_equal(open_shard_clip(tar / "whole").clip(SPEC).pixels[0], pictures(1, seed=1)[0])
    with pytest.raises(MissingVideoError, match="no such clip"):
        open_shard_clip(tar / "broken")


def test_absent_and_damaged_shards_have_names(tmp_path):
    tar = write(tmp_path / "000.tar", encoding="jpeg")
    assert is_shard_clip(tar / "walk/a")
    assert not is_shard_clip(tmp_path / "walk/a.mp4")
    assert not is_shard_clip(tmp_path / "111.tar" / "a")
    with pytest.raises(MissingVideoError, match="no such shard"):
        open_shard_clip(tmp_path / "111.tar" / "a")
    data = bytearray(tar.read_bytes())
    data[512:1024] = bytes(512)
    tar.write_bytes(data)
    with pytest.raises(UnreadableVideoError, match="prepare again"):
        open_shard_clip(tar / "walk/a").clip(SPEC)
    tar.with_suffix(".json").write_text("{")
    with pytest.raises(UnreadableVideoError, match="index"):
        open_shard_clip(tar / "walk/a")


def test_the_digest_tells_the_pixels(tmp_path):
    first, second = write(tmp_path / "0.tar"), write(tmp_path / "1.tar", clips=("run/b", "walk/a"))
    assert shard_clip_digest(first / "walk/a") == shard_clip_digest(second / "run/b")
    assert shard_clip_digest(first / "walk/a") != shard_clip_digest(first / "run/b")
