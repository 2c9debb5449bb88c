"""Preparing: the frames that decoding gives, once; interrupted work goes on; nothing is lost or misnamed."""

import dataclasses
import json

import numpy as np
import pytest

import vidette.data.prepare as prepare_module
from vidette.data.cache import ClipCache, clip_key, expand_windows, read_labelled
from vidette.data.layouts import read_layout
from vidette.data.manifest import LabelledClip, Manifest, read_manifest
from vidette.data.prepare import ShardPlan, bytes_foreseen, prepare_shards
from vidette.data.prepared import DESCRIPTION, find_prepared, read_prepared
from vidette.data.store import ContentMemo
from vidette.errors import ManifestError, OutputExistsError, SettingError, StorageError
from vidette.video.clip import ClipSpec
from vidette.video.reader import open_video
from vidette.video.shards import KeptFrames, open_shard_clip

KEPT = KeptFrames(16, 24, num_frames=5)
RAW = ShardPlan(KEPT, "raw", clips_a_shard=4)
SPEC = ClipSpec(num_frames=5, height=16, width=24)


@pytest.fixture(scope="module")
def manifest(motion_clips):
    whole = read_manifest(motion_clips)
    return dataclasses.replace(whole, clips=whole.clips[::8])


@pytest.fixture(scope="module")
def prepared(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "raw"
    prepare_shards(manifest, out, RAW, num_workers=2)
    return out


def test_prepared_clips_are_those_that_decoding_gives(manifest, prepared):
    there = read_manifest(prepared)
    assert [(c.label, c.group, c.split, c.fold) for c in there.clips] == [
        (c.label, c.group, c.split, c.fold) for c in manifest.clips
    ]
    for spec in (SPEC, ClipSpec(num_frames=5, height=8, width=24)):
        for clip, original in zip(there.clips, manifest.clips, strict=True):
            got, wanted = read_labelled(clip, spec), read_labelled(original, spec)
            np.testing.assert_allclose(got.seconds, wanted.seconds, atol=1e-6)
            if spec is SPEC:
                np.testing.assert_array_equal(got.pixels, wanted.pixels)
            else:
                assert np.abs(got.pixels.astype(int) - wanted.pixels).mean() < 6


def test_a_clip_with_fewer_frames_than_wanted_repeats_the_same_ones(manifest, tmp_path):
    clip = dataclasses.replace(manifest.clips[0], start_seconds=0.2, stop_seconds=0.32)
    short = dataclasses.replace(manifest, clips=(clip, *manifest.clips[1:]))
    prepare_shards(short, tmp_path / "p", RAW)
    got = read_labelled(read_manifest(tmp_path / "p").clips[0], SPEC)
    wanted = read_labelled(clip, SPEC)
    np.testing.assert_array_equal(got.pixels, wanted.pixels)
    np.testing.assert_allclose(got.seconds, wanted.seconds - wanted.seconds[0], atol=1e-6)


def test_frames_at_a_rate_serve_windows_and_stop_at_the_last_frame(manifest, tmp_path):
    plan = ShardPlan(KeptFrames(16, 24, num_frames=None, fps=10.0), "raw")
    prepare_shards(manifest, tmp_path / "p", plan)
    spec = ClipSpec(num_frames=4, height=16, width=24, sampling="window", fps=5.0)
    for clip, original in zip(read_manifest(tmp_path / "p").clips, manifest.clips, strict=True):
        with open_shard_clip(clip.path) as shard, open_video(original.path) as video:
            np.testing.assert_allclose(shard.frame_seconds()[-1], video.frame_seconds()[-1], atol=1e-6)
            assert np.all(np.diff(shard.frame_seconds()) > 0)
            got, wanted = shard.clip(spec), video.clip(spec)
            np.testing.assert_array_equal(got.pixels, wanted.pixels)
            assert got.repeated == wanted.repeated
        assert len(expand_windows([clip], spec)) == len(expand_windows([original], spec))


def test_the_cache_reads_shards_and_keeps_no_second_copy(prepared, tmp_path):
    cache = ClipCache(tmp_path)
    clips = read_manifest(prepared).clips
    assert cache.bytes_needed(clips, SPEC) == 0
    report = cache.prepare(clips, SPEC)
    assert (report.num_decoded, report.num_cached) == (0, len(clips))
    assert report.spans is not None
    assert report.spans.shortest_seconds > 0
    np.testing.assert_array_equal(cache.load(clips[3], SPEC).pixels, read_labelled(clips[3], SPEC).pixels)
    assert not (tmp_path / "clips").exists()
    keys = {clip_key(clip, SPEC, memo=ContentMemo()) for clip in clips}
    assert len(keys) == len(clips)


def test_an_interrupted_preparation_goes_on_where_it_was(manifest, prepared, tmp_path, monkeypatch):
    out, opened = tmp_path / "p", []
    real = prepare_module.open_labelled

    def counted(clip):
        opened.append(clip.name)
        if len(opened) > 7:
            raise KeyboardInterrupt
        return real(clip)

    monkeypatch.setattr(prepare_module, "bytes_foreseen", lambda *_: 0)
    monkeypatch.setattr(prepare_module, "open_labelled", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(manifest, out, RAW, num_workers=1)
    with pytest.raises(ManifestError, match="not finished"):
        read_manifest(out)
    assert not list(out.rglob("*.partial"))
    first = len(list(out.rglob("*.tar")))
    assert 0 < first < 4
    opened.clear()
    monkeypatch.setattr(prepare_module, "open_labelled", lambda clip: opened.append(clip.name) or real(clip))
    done = prepare_shards(manifest, out, RAW, num_workers=2)
    assert len(opened) == len(manifest) - done.num_clips + done.num_written
    assert done.num_written < done.num_clips == len(manifest)
    for one, other in zip(read_manifest(out).clips, read_manifest(prepared).clips, strict=True):
        np.testing.assert_array_equal(read_labelled(one, SPEC).pixels, read_labelled(other, SPEC).pixels)
    opened.clear()
    assert prepare_shards(manifest, out, RAW).num_written == 0
    assert opened == []


def damaged(manifest, folder):
    """The manifest with one clip cut short and one that is no video."""
    folder.mkdir()
    cut, text = folder / "cut.mp4", folder / "text.mp4"
    data = manifest.clips[1].path.read_bytes()
    cut.write_bytes(data[: len(data) // 3])
    text.write_text("not a video")
    clips = list(manifest.clips)
    clips[1] = dataclasses.replace(clips[1], path=cut)
    clips[2] = dataclasses.replace(clips[2], path=text)
    return dataclasses.replace(manifest, clips=tuple(clips))


def test_damaged_clips_are_left_out_and_said(manifest, prepared, tmp_path):
    broken = damaged(manifest, tmp_path / "files")
    done = prepare_shards(broken, tmp_path / "p", RAW)
    assert done.num_clips == len(manifest) - 2
    assert [text.split(":")[0].rsplit("/")[-1] for text in done.skipped] == ["cut.mp4", "text.mp4"]
    there = read_layout(tmp_path / "p")
    assert any("2 clips were left out" in warning for warning in there.warnings)
    full = read_manifest(prepared).clips
    kept = [clip for i, clip in enumerate(full) if i not in (1, 2)]
    for one, other in zip(there.clips, kept, strict=True):
        assert one.label == other.label
        np.testing.assert_array_equal(read_labelled(one, SPEC).pixels, read_labelled(other, SPEC).pixels)


def test_raise_tells_of_every_damaged_clip_and_leaves_it_unfinished(manifest, tmp_path):
    broken = damaged(manifest, tmp_path / "files")
    with pytest.raises(ManifestError, match=r"2 of \d+ clips cannot be read(.|\n)*cut.mp4(.|\n)*text.mp4"):
        prepare_shards(broken, tmp_path / "p", RAW, on_damage="raise")
    with pytest.raises(ManifestError, match="not finished"):
        read_manifest(tmp_path / "p")
    assert prepare_shards(broken, tmp_path / "p", RAW, on_damage="skip").num_written == 0


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_text("x")
    manifest = Manifest(tmp_path, (LabelledClip(tmp_path / "a.mp4", "a"),), ("a",))
    with pytest.raises(ManifestError, match="1 of 1 clips cannot be read"):
        prepare_shards(manifest, tmp_path / "p", RAW)


def test_what_is_there_is_not_overwritten(manifest, prepared, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="no prepared clips"):
        prepare_shards(manifest, tmp_path, RAW, overwrite=True)
    before = (prepared / DESCRIPTION).read_bytes()
    other = dataclasses.replace(RAW, kept=KeptFrames(8, 8))
    with pytest.raises(OutputExistsError, match="kept differ"):
        prepare_shards(manifest, prepared, other)
    fewer = dataclasses.replace(manifest, clips=manifest.clips[1:])
    with pytest.raises(OutputExistsError, match="clips differ"):
        prepare_shards(fewer, prepared, RAW)
    assert (prepared / DESCRIPTION).read_bytes() == before
    prepare_shards(manifest, tmp_path / "p", RAW)
    assert prepare_shards(manifest, tmp_path / "p", other, overwrite=True).kept == other.kept


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_disk_use_is_foreseen(manifest, tmp_path, encoding):
    plan = ShardPlan(KeptFrames(64, 64), encoding)
    said = []
    for _ in range(2):
        size = prepare_shards(manifest, tmp_path / "p", plan, on_foreseen=said.append).num_bytes
    assert said == [bytes_foreseen(manifest.clips, plan)]  # nothing more to write the second time
    assert 0.7 < said[0] / size < 1.4
    assert size == pytest.approx(sum(t.stat().st_size for t in (tmp_path / "p").rglob("*.tar")), rel=0.1)


def test_too_little_room_is_said_before_anything_is_written(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(StorageError, match=r"need about .* MB"):
        prepare_shards(manifest, tmp_path / "p", RAW)
    assert not list(tmp_path.rglob("*.tar"))


def test_keys_are_distinct_and_plain(tmp_path, manifest):
    """Two files of one name, parts of one file, and names with dots and spaces."""
    source = manifest.clips[0].path.read_bytes()
    places = ["a/x.1.mp4", "a/x_1.mp4", "b/ä ö.mp4"]
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(source)
    clips = [LabelledClip(tmp_path / place, place[0]) for place in places]
    clips += [LabelledClip(tmp_path / places[0], "a", start_seconds=0.1, stop_seconds=0.5)]
    prepare_shards(Manifest(tmp_path, tuple(clips), ("a", "b")), tmp_path / "p", RAW, num_workers=1)
    there = read_manifest(tmp_path / "p")
    assert len({clip.path for clip in there.clips}) == 4
    assert there.clips[0].group == there.clips[3].group  # one file, so one group
    assert all(str(clip.path).isascii() for clip in there.clips)


def test_a_damaged_or_foreign_description_has_a_name(prepared, tmp_path):
    assert find_prepared(tmp_path) is None
    for text, match in (
        ("{", "cannot be read"),
        ('{"format": 99}', "another version"),
        ("[]", "cannot be read"),
    ):
        (tmp_path / DESCRIPTION).write_text(text)
        with pytest.raises(ManifestError, match=match):
            find_prepared(tmp_path)
    values = json.loads((prepared / DESCRIPTION).read_text())
    del values["kept"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(values))
    with pytest.raises(ManifestError, match="cannot be read"):
        read_prepared(tmp_path)


def test_settings_out_of_range():
    for values in ({"encoding": "png"}, {"quality": 0}, {"clips_a_shard": 0}):
        with pytest.raises(SettingError):
            ShardPlan(KEPT, **values)
