import dataclasses
import errno
import multiprocessing
import os
import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from vidette.data.cache import ClipCache, clip_key, expand_windows, read_labelled
from vidette.data.manifest import LabelledClip
from vidette.data.store import ContentMemo
from vidette.errors import (
    EmptyVideoError,
    ManifestError,
    MissingVideoError,
    SettingError,
    StorageError,
    UnreadableVideoError,
    VideoError,
)
from vidette.video.clip import Clip, ClipSpec
from vidette.video.motion import draw_clip
from vidette.video.writer import write_video

SPEC = ClipSpec(num_frames=4, height=8, width=12)
WINDOW = ClipSpec(num_frames=4, height=8, width=12, sampling="window", fps=4)


class Reader:
    """Stands in for decoding: the pixels tell the file's content; counts what it reads."""

    def __init__(self, *, damaged: tuple[str, ...] = (), stop_after: int | None = None) -> None:
        self.read: list[str] = []
        self.damaged = damaged
        self.stop_after = stop_after
        self.lock = threading.Lock()

    def __call__(self, clip: LabelledClip, spec: ClipSpec) -> Clip:
        with self.lock:
            if self.stop_after is not None and len(self.read) >= self.stop_after:
                raise KeyboardInterrupt
            self.read.append(clip.path.name)
        if clip.path.name in self.damaged:
            raise UnreadableVideoError(clip.path, "is damaged")
        level = sum(clip.path.read_bytes()) % 256
        pixels = np.full((spec.num_frames, spec.height, spec.width, 3), level, np.uint8)
        return Clip(pixels, np.linspace(0, level / 10, spec.num_frames), repeated=level % 3)


def make_clips(folder: Path, count: int) -> list[LabelledClip]:
    """Files whose content, so whose pixels, is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"v{i}.mp4").write_bytes(bytes([i + 1]))
    return [LabelledClip(folder / f"v{i}.mp4", "ab"[i % 2]) for i in range(count)]


def entries(cache: ClipCache) -> list[Path]:
    return sorted(p for p in (cache.folder / "clips").rglob("*") if p.is_file())


@pytest.fixture
def clips(tmp_path):
    return make_clips(tmp_path / "videos", 6)


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def cache(tmp_path, reader):
    return ClipCache(tmp_path / "cache", read=reader)


def test_second_epoch_and_second_run_decode_nothing(cache, clips, reader):
    report = cache.prepare(clips, SPEC)
    assert (report.num_clips, report.num_decoded, report.num_cached) == (6, 6, 0)
    for _ in range(2):
        for clip in clips:
            cache.load(clip, SPEC)
    report = cache.prepare(clips, SPEC)
    assert (report.num_clips, report.num_decoded, report.num_cached) == (6, 0, 6)
    next_run = Reader()
    report = ClipCache(cache.folder, read=next_run).prepare(clips, SPEC)
    assert report.num_cached == 6
    assert next_run.read == []
    assert sorted(reader.read) == sorted(clip.path.name for clip in clips)


def test_what_comes_back_is_what_was_decoded(cache, clips, reader):
    cache.prepare(clips, SPEC)
    for clip in clips:
        expected, got = Reader()(clip, SPEC), cache.load(clip, SPEC)
        assert np.array_equal(got.pixels, expected.pixels)
        assert np.array_equal(got.seconds, expected.seconds)
        assert got.repeated == expected.repeated


def test_load_without_prepare_decodes_and_keeps(cache, clips, reader):
    for _ in range(3):
        cache.load(clips[0], SPEC)
    assert reader.read == ["v0.mp4"]


def test_report_tells_spans_and_repeated_frames(cache, clips):
    report = cache.prepare(clips, SPEC)
    assert report.spans is not None
    assert report.spans.shortest_seconds == pytest.approx(0.1)
    assert report.spans.median_seconds == pytest.approx(0.35)
    assert report.spans.longest_seconds == pytest.approx(0.6)
    assert report.repeated_frames == sum((i + 1) % 3 for i in range(6))
    assert cache.prepare(clips, SPEC) == ClipCache(cache.folder, read=Reader()).prepare(clips, SPEC)


def test_no_clips_at_all(cache):
    report = cache.prepare([], SPEC)
    assert (report.num_clips, report.spans) == (0, None)


def test_progress_counts_every_clip(cache, clips):
    seen = []
    cache.prepare(clips, SPEC, num_workers=2, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_clips_are_decoded_side_by_side(tmp_path, clips):
    meeting = threading.Barrier(3)
    reader = Reader()

    def read(clip, spec):
        meeting.wait(timeout=20)
        return reader(clip, spec)

    assert ClipCache(tmp_path / "c", read=read).prepare(clips, SPEC, num_workers=3).num_decoded == 6


# Keys.


def test_renamed_or_copied_file_is_known(cache, clips, reader, tmp_path):
    cache.prepare(clips, SPEC)
    moved = tmp_path / "elsewhere.mkv"
    clips[0].path.rename(moved)
    cache.load(LabelledClip(moved, "other label", "other group"), SPEC)
    assert len(reader.read) == 6


def test_changed_content_is_decoded_again(cache, clips, reader):
    before = cache.load(clips[0], SPEC)
    clips[0].path.write_bytes(b"another video")
    after = cache.load(clips[0], SPEC)
    assert len(reader.read) == 2
    assert not np.array_equal(before.pixels, after.pixels)


def test_other_content_under_an_old_name_is_not_mistaken(cache, clips, reader):
    first, second = (cache.load(clip, SPEC).pixels for clip in clips[:2])
    swap = clips[0].path.with_name("swap")
    clips[0].path.rename(swap)
    clips[1].path.rename(clips[0].path)
    swap.rename(clips[1].path)
    assert np.array_equal(cache.load(clips[0], SPEC).pixels, second)
    assert np.array_equal(cache.load(clips[1], SPEC).pixels, first)


def test_key_follows_pixels_and_part_alone(clips):
    def key(clip=clips[0], spec=SPEC):
        return clip_key(clip, spec, memo=ContentMemo())

    part = LabelledClip(clips[0].path, "a", start_seconds=0.5, stop_seconds=1.0)
    different = [
        key(),
        key(clips[1]),
        key(part),
        key(LabelledClip(clips[0].path, "a", start_seconds=0.5)),
        key(spec=ClipSpec(num_frames=5, height=8, width=12)),
        key(spec=ClipSpec(num_frames=4, height=12, width=8)),
        key(spec=ClipSpec(num_frames=4, height=8, width=12, resize="crop")),
        key(spec=WINDOW),
    ]
    assert len(set(different)) == len(different)
    assert key(spec=ClipSpec(num_frames=4, height=8, width=12, mean=(0, 0, 0), channel_order="BGR")) == key()
    assert key(LabelledClip(clips[0].path, "b", "group", split="test", fold="1", part_of="x")) == key()


# Interruptions and damage.


def test_interrupted_preparation_resumes(tmp_path, clips):
    stopped = Reader(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        ClipCache(tmp_path / "cache", read=stopped).prepare(clips, SPEC, num_workers=1)
    again = Reader()
    report = ClipCache(tmp_path / "cache", read=again).prepare(clips, SPEC)
    assert (report.num_cached, report.num_decoded) == (2, 4)
    assert sorted([*stopped.read, *again.read]) == sorted(clip.path.name for clip in clips)


def _prepare_slowly(folder: Path, clips: list[LabelledClip], started) -> None:
    def read(clip: LabelledClip, spec: ClipSpec) -> Clip:
        started.release()
        time.sleep(0.05)
        return Reader()(clip, spec)

    ClipCache(folder, read=read).prepare(clips, SPEC, num_workers=1)


def test_killed_preparation_resumes(tmp_path):
    clips = make_clips(tmp_path / "videos", 40)
    context = multiprocessing.get_context("fork")
    started = context.Semaphore(0)
    process = context.Process(target=_prepare_slowly, args=(tmp_path / "cache", clips, started))
    process.start()
    for _ in range(3):
        assert started.acquire(timeout=30)
    process.kill()
    process.join(30)
    again = Reader()
    cache = ClipCache(tmp_path / "cache", read=again)
    report = cache.prepare(clips, SPEC)
    assert 2 <= report.num_cached < 40
    assert report.num_clips == 40
    for i, clip in enumerate(clips):
        assert (cache.load(clip, SPEC).pixels == i + 1).all()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: os.urandom(len(b))])
def test_damaged_entry_is_rebuilt(cache, clips, reader, damage):
    cache.prepare(clips, SPEC)
    path = entries(cache)[0]
    path.write_bytes(damage(path.read_bytes()))
    report = cache.prepare(clips, SPEC)
    assert (report.num_decoded, report.num_cached) == (1, 5)
    for clip in clips:
        assert np.array_equal(cache.load(clip, SPEC).pixels, Reader()(clip, SPEC).pixels)
    assert len(reader.read) == 7


def test_entry_without_its_last_array_is_rebuilt(cache, clips, reader):
    cache.load(clips[0], SPEC)
    (path,) = entries(cache)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\x93NUMPY")])
    assert cache.load(clips[0], SPEC).repeated == Reader()(clips[0], SPEC).repeated
    assert len(reader.read) == 2


def _prepare(folder: Path, clips: list[LabelledClip], gate, results) -> None:
    gate.wait(30)
    report = ClipCache(folder, read=Reader()).prepare(clips, SPEC, num_workers=2)
    results.put((report.num_clips, report.num_decoded))


def test_two_processes_preparing_at_once(tmp_path):
    clips = make_clips(tmp_path / "videos", 30)
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_prepare, args=(tmp_path / "cache", clips, gate, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    done = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [num_clips for num_clips, _ in done] == [30, 30]
    reader = Reader()
    cache = ClipCache(tmp_path / "cache", read=reader)
    for i, clip in enumerate(clips):
        assert (cache.load(clip, SPEC).pixels == i + 1).all()
    assert reader.read == []
    assert [path.suffix for path in entries(cache)] == [".arrays"] * 30


# Bad input.


def test_unreadable_clips_come_in_one_error_after_the_others_are_ready(tmp_path, clips):
    reader = Reader(damaged=("v1.mp4", "v4.mp4"))
    cache = ClipCache(tmp_path / "cache", read=reader)
    clips.append(LabelledClip(tmp_path / "gone.mp4", "a"))
    with pytest.raises(ManifestError) as caught:
        cache.prepare(clips, SPEC)
    text = str(caught.value)
    assert text.startswith("3 of 7 clips cannot be read; repair them or take them out:\n")
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in text.splitlines()[1:]] == [
        "v1.mp4",
        "v4.mp4",
        "gone.mp4",
    ]
    assert len(entries(cache)) == 4


def test_lost_frames_are_counted_now_and_from_the_cache(tmp_path, clips):
    def read(clip, spec):
        pixels = np.zeros((spec.num_frames, spec.height, spec.width, 3), np.uint8)
        return Clip(pixels, np.arange(spec.num_frames) / 4, lost_frames=3 * (clip.path.name == "v2.mp4"))

    for _ in range(2):
        report = ClipCache(tmp_path / "cache", read=read).prepare(clips, SPEC)
        assert report.damaged == {2: 3}


def test_another_stream_is_another_clip(tmp_path, clips):
    other = dataclasses.replace(clips[0], stream=1)
    memo = ContentMemo()
    assert clip_key(clips[0], SPEC, memo=memo) != clip_key(other, SPEC, memo=memo)


def test_unreadable_clips_can_be_skipped_and_are_listed(tmp_path, clips):
    cache = ClipCache(tmp_path / "cache", read=Reader(damaged=("v1.mp4",)))
    report = cache.prepare(clips, SPEC, on_damage="skip")
    assert report.num_clips == 5
    assert {i: text.rsplit("/", 1)[1] for i, text in report.skipped.items()} == {1: "v1.mp4: is damaged"}


def test_many_unreadable_clips_are_counted(tmp_path):
    clips = make_clips(tmp_path / "videos", 15)
    reader = Reader(damaged=tuple(clip.path.name for clip in clips))
    with pytest.raises(ManifestError, match=r"15 of 15 clips(.|\n)*and 5 more"):
        ClipCache(tmp_path / "cache", read=reader).prepare(clips, SPEC)


def test_loading_an_absent_clip(cache, tmp_path):
    with pytest.raises(MissingVideoError, match=r"gone\.mp4"):
        cache.load(LabelledClip(tmp_path / "gone.mp4", "a"), SPEC)


def test_unknown_policy(cache, clips):
    with pytest.raises(SettingError, match="on_damage is 'ignore'; expected raise or skip"):
        cache.prepare(clips, SPEC, on_damage="ignore")


def test_too_little_room_is_told_before_anything_is_decoded(cache, clips, reader, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(StorageError, match=r"decoded clips need 0 MB in .*cache.*VIDETTE_CACHE"):
        cache.prepare(clips, SPEC)
    assert reader.read == []


def test_a_full_disk_needs_no_room_for_what_is_there(cache, clips, monkeypatch):
    cache.prepare(clips, SPEC)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
    assert cache.prepare(clips, SPEC).num_cached == 6


def test_disk_filling_up_while_caching_loses_nothing(cache, clips, reader, monkeypatch):
    save, saved = np.save, []

    def filling(file, array, **options):
        if array.ndim == 4:
            if len(saved) == 3:
                file.write(b"half of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            saved.append(array)
        save(file, array, **options)

    monkeypatch.setattr(np, "save", filling)
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        cache.prepare(clips, SPEC, num_workers=1)
    assert [path.suffix for path in entries(cache)] == [".arrays"] * 3
    monkeypatch.undo()
    report = cache.prepare(clips, SPEC)
    assert (report.num_cached, report.num_decoded) == (3, 3)


def test_cache_in_a_place_that_cannot_be_written(tmp_path, clips):
    (tmp_path / "taken").write_text("mine")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        cache = ClipCache(place, read=Reader())
        with pytest.raises(StorageError, match=r"taken.*VIDETTE_CACHE"):
            cache.prepare(clips, SPEC)


def test_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDETTE_CACHE", str(tmp_path / "here"))
    assert ClipCache().folder == tmp_path / "here"
    assert ClipCache(tmp_path / "there").folder == tmp_path / "there"
    assert repr(ClipCache()) == f"ClipCache({tmp_path}/here)"


def test_bytes_needed_counts_what_is_missing(cache, clips):
    one = 4 * (8 * 12 * 3 + 8)
    assert cache.bytes_needed(clips, SPEC) == 6 * one
    cache.load(clips[0], SPEC)
    assert cache.bytes_needed(clips, SPEC) == 5 * one


# Real files.


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """A drawn clip of 24 frames at 12 a second: two seconds."""
    path = tmp_path_factory.mktemp("motion") / "left.mp4"
    frames = draw_clip(0, "left", size=(32, 48)).frames
    frames = np.concatenate([frames] * 3)[:24]
    write_video(path, frames, fps=12)
    return path


def test_a_real_clip_is_cached_as_decoded(tmp_path, motion):
    clip = LabelledClip(motion, "left")
    cache = ClipCache(tmp_path)
    cache.prepare([clip], SPEC)
    expected, got = read_labelled(clip, SPEC), cache.load(clip, SPEC)
    assert np.array_equal(got.pixels, expected.pixels)
    assert got.seconds.tolist() == pytest.approx([0, 7 / 12, 15 / 12, 23 / 12])


def test_a_part_of_a_real_clip_holds_its_own_frames(tmp_path, motion):
    cache = ClipCache(tmp_path)
    parts = [LabelledClip(motion, "left", start_seconds=a, stop_seconds=a + 1.0) for a in (0.0, 1.0)]
    first, second = (cache.load(part, SPEC) for part in parts)
    assert first.seconds[-1] < 1.0 <= second.seconds[0]
    assert not np.array_equal(first.pixels, second.pixels)


# Windows.


def test_windows_of_one_file_are_prepared_together_as_they_are_one_by_one(tmp_path, motion):
    windows = expand_windows([LabelledClip(motion, "left")], WINDOW)
    cache = ClipCache(tmp_path)
    cache.load(windows[1], WINDOW)
    report = cache.prepare(windows, WINDOW)
    assert (report.num_decoded, report.num_cached) == (2, 1)
    for window in windows:
        expected, got = read_labelled(window, WINDOW), cache.load(window, WINDOW)
        np.testing.assert_array_equal(got.pixels, expected.pixels)
        assert (got.seconds.tolist(), got.repeated) == (expected.seconds.tolist(), expected.repeated)


def test_one_window_that_cannot_be_read_takes_no_other_with_it(tmp_path, motion):
    windows = expand_windows([LabelledClip(motion, "left")], WINDOW)
    windows.insert(1, dataclasses.replace(windows[0], start_seconds=9.0, stop_seconds=10.0))
    report = ClipCache(tmp_path / "a").prepare(windows, WINDOW, on_damage="skip")
    assert (report.num_decoded, list(report.skipped)) == (3, [1])
    loaded = ClipCache(tmp_path / "b").load_together(windows, WINDOW)
    assert [type(one) for one in loaded] == [Clip, EmptyVideoError, Clip, Clip]
    gone = [dataclasses.replace(window, path=tmp_path / "gone.mp4") for window in windows[:2]]
    assert all(isinstance(one, MissingVideoError) for one in ClipCache(tmp_path).load_together(gone, WINDOW))


def test_groups_are_clips_of_one_file_and_few(tmp_path, motion, clips, reader):
    windows = expand_windows(
        [LabelledClip(motion, "left", start_seconds=s, stop_seconds=s + 1) for s in (0, 1)], WINDOW
    )
    cache, mixed = ClipCache(tmp_path), [*clips[:2], *windows * 5, clips[0]]
    groups = cache.groups(mixed, WINDOW)
    assert [clip for group in groups for clip in group] == mixed
    assert [len(group) for group in groups] == [1, 1, 8, 2, 1]
    assert {len(group) for group in cache.groups(mixed, ClipSpec(num_frames=64, height=512, width=512))} == {1}
    assert {len(group) for group in ClipCache(tmp_path, read=reader).groups(mixed, WINDOW)} == {1}


def test_whole_clips_are_not_cut(clips):
    assert expand_windows(clips, SPEC) == clips


def test_windows_cover_the_clip_at_half_a_span(motion):
    windows = expand_windows([LabelledClip(motion, "left", "g", split="train", fold="2")], WINDOW)
    assert [(w.start_seconds, w.stop_seconds) for w in windows] == [(0, 1), (0.5, 1.5), (1, 2)]
    assert {(w.label, w.group, w.split, w.fold, w.part_of) for w in windows} == {
        ("left", "g", "train", "2", motion.as_posix())
    }


def test_last_window_reaches_the_end(motion):
    spec = ClipSpec(num_frames=3, height=8, width=12, sampling="window", fps=4)
    windows = expand_windows([LabelledClip(motion, "left")], spec)
    assert [w.start_seconds for w in windows] == pytest.approx([0, 0.375, 0.75, 1.125, 1.25])
    assert windows[-1].stop_seconds == pytest.approx(2.0)


def test_windows_stay_in_the_part(motion):
    part = LabelledClip(motion, "left", start_seconds=0.25, stop_seconds=1.5)
    windows = expand_windows([part], WINDOW)
    assert [(w.start_seconds, w.stop_seconds) for w in windows] == [(0.25, 1.25), (0.5, 1.5)]
    assert {w.part_of for w in windows} == {part.name}


def test_windows_end_with_the_file_though_the_table_says_later(tmp_path, motion):
    windows = expand_windows([LabelledClip(motion, "left", start_seconds=0.5, stop_seconds=60.0)], WINDOW)
    assert [(w.start_seconds, w.stop_seconds) for w in windows] == [(0.5, 1.5), (1, 2)]
    assert ClipCache(tmp_path).prepare(windows, WINDOW).num_clips == 2


def test_a_clip_shorter_than_a_span_is_one_window(tmp_path, motion):
    spec = ClipSpec(num_frames=8, height=8, width=12, sampling="window", fps=2)
    windows = expand_windows([LabelledClip(motion, "left")], spec)
    assert [(w.start_seconds, w.stop_seconds) for w in windows] == [(0, 2)]
    assert ClipCache(tmp_path).prepare(windows, spec).repeated_frames == 4


def test_each_window_is_decoded_once_under_its_own_key(tmp_path, motion):
    cache = ClipCache(tmp_path)
    windows = expand_windows([LabelledClip(motion, "left")], WINDOW)
    assert cache.prepare(windows, WINDOW).num_decoded == 3
    assert [cache.load(w, WINDOW).seconds[0] for w in windows] == pytest.approx([0, 0.5, 1])
    again = expand_windows([LabelledClip(motion, "left")], WINDOW)
    assert cache.prepare(again, WINDOW).num_cached == 3


def test_files_that_cannot_be_cut_are_told_together(tmp_path, motion):
    (tmp_path / "junk.mp4").write_bytes(b"no video")
    (tmp_path / "empty.mp4").touch()
    bad = [LabelledClip(tmp_path / f"{name}.mp4", "x") for name in ("junk", "empty", "gone")]
    late = LabelledClip(motion, "left", start_seconds=5.0, stop_seconds=6.0)
    windows = expand_windows([*bad, LabelledClip(motion, "left"), late], WINDOW)
    assert windows[:3] == bad
    assert windows[-1] == late
    with pytest.raises(ManifestError, match="4 of 7 clips cannot be read") as caught:
        ClipCache(tmp_path / "cache").prepare(windows, WINDOW)
    assert all(f"{name}.mp4: " in str(caught.value) for name in ("junk", "empty", "gone", "left"))
    with pytest.raises(EmptyVideoError):
        ClipCache(tmp_path / "cache").load(late, WINDOW)
    with pytest.raises(VideoError):
        ClipCache(tmp_path / "cache").load(bad[0], WINDOW)
