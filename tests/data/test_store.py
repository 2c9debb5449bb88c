import contextlib
import errno
import json
import multiprocessing
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vidette.data.store import ArrayStore, ContentMemo
from vidette.errors import MissingVideoError, StorageError, UnreadableVideoError

KEY = "ab12cd"


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def store(tmp_path):
    return ArrayStore(tmp_path / "store")


def test_arrays_come_back_with_type_and_shape(store):
    saved = [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.linspace(0, 1, 5), np.array(7)]
    store.save(KEY, saved)
    loaded = store.load(KEY)
    assert [(a.dtype, a.shape) for a in loaded] == [(a.dtype, a.shape) for a in saved]
    assert all(np.array_equal(a, b) for a, b in zip(loaded, saved, strict=True))
    assert store.has(KEY)


def test_what_is_not_there(store):
    assert store.load(KEY) is None
    assert not store.has(KEY)
    assert not store.folder.exists()


def test_saving_again_replaces(store):
    store.save(KEY, [np.zeros(3)])
    store.save(KEY, [np.ones(2)])
    assert np.array_equal(store.load(KEY)[0], np.ones(2))
    assert files_below(store.folder) == [f"ab/{KEY}.arrays"]


def test_loaded_arrays_are_the_callers_own(store):
    store.save(KEY, [np.zeros(3)])
    store.load(KEY)[0][:] = 9
    assert np.array_equal(store.load(KEY)[0], np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:5],
        lambda whole: whole[:40],
        lambda whole: whole[:-1],
        lambda whole: whole + b"junk",
        lambda whole: os.urandom(len(whole)),
        lambda whole: bytes(len(whole)),
        lambda whole: whole.replace(b"'shape'", b"'shap\x00'"),
        lambda whole: whole.replace(b"{'descr'", b"(('descr'"),
        lambda whole: whole.replace(b"|u1", b"|u,"),
        lambda whole: whole.replace(b"(1000,)", b"(-100,)"),
        lambda whole: whole.replace(b"(1000,), }", b"(10**40,)}"),
        lambda whole: whole.replace(b"(1000,), }    ", b"(9999999999,)}"),
    ],
)
def test_a_damaged_file_counts_as_absent_and_goes(store, damage):
    store.save(KEY, [np.arange(1000, dtype=np.uint8) % 7])
    path = store.path(KEY)
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    assert store.load(KEY) is None
    assert not path.exists()


def test_an_interrupted_save_leaves_nothing_under_the_key(store, monkeypatch):
    def killed(file, array, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(KEY, [np.zeros(3)])
    assert not store.has(KEY)
    assert files_below(store.folder) == []


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(store, monkeypatch):
    store.save("cd34", [np.ones(4)])

    def full(file, array, **_):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(
        StorageError, match=r"0\.8 MB could not be written to .*: the disk is full; free some space"
    ):
        store.save(KEY, [np.zeros(100_000)])
    assert files_below(store.folder) == ["cd/cd34.arrays"]
    assert np.array_equal(store.load("cd34")[0], np.ones(4))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip("no right to mount a small disk; the simulated full disk is tested above")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_really_fills_up(small_disk):
    store = ArrayStore(small_disk / "store")
    store.save("aa00", [np.zeros(600_000, np.uint8)])
    with pytest.raises(StorageError, match="the disk is full"):
        store.save("bb00", [np.zeros(600_000, np.uint8)])
    assert files_below(small_disk) == ["store/aa/aa00.arrays"]
    assert len(store.load("aa00")[0]) == 600_000
    (small_disk.parent / "v.mp4").write_bytes(b"video")
    with contextlib.suppress(OSError):
        (small_disk / "rest").write_bytes(bytes(1_000_000))
    with pytest.raises(StorageError, match=r"digests\.jsonl cannot be written: No space left"):
        ContentMemo(small_disk / "digests.jsonl").digest(small_disk.parent / "v.mp4")


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for store in (ArrayStore(tmp_path / "taken"), ArrayStore(tmp_path / "taken" / "below")):
        with pytest.raises(StorageError, match=r"could not be written to .*taken.*VIDETTE_CACHE"):
            store.save(KEY, [np.zeros(3)])
        assert store.load(KEY) is None
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            ArrayStore(tmp_path / "store").save(KEY, [np.zeros(3)])
    finally:
        tmp_path.chmod(0o700)


def _hammer(folder: Path, value: int, failures) -> None:
    store = ArrayStore(folder)
    for _ in range(60):
        store.save(KEY, [np.full(5000, value), np.full(3, value)])
        loaded = store.load(KEY)
        if loaded is None or len({int(x) for array in loaded for x in array}) != 1:
            failures.value += 1


def test_processes_that_write_one_key_at_once_never_mix(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Value("i", 0)
    workers = [context.Process(target=_hammer, args=(tmp_path, value, failures)) for value in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert failures.value == 0
    assert files_below(tmp_path) == [f"ab/{KEY}.arrays"]


# Digests of content.


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"content")
    return path


def test_digest_is_of_the_content_alone(tmp_path, video):
    memo = ContentMemo()
    twin, other = tmp_path / "twin.mp4", tmp_path / "other.mp4"
    twin.write_bytes(b"content")
    other.write_bytes(b"Content")
    assert memo.digest(video) == memo.digest(twin) != memo.digest(other)


def test_changed_content_changes_the_digest(video):
    memo = ContentMemo()
    before = memo.digest(video)
    video.write_bytes(b"changed!")
    assert memo.digest(video) != before


def test_same_length_changed_later_changes_the_digest(video):
    memo = ContentMemo()
    before = memo.digest(video)
    video.write_bytes(b"CONTENT")
    os.utime(video, ns=(1, video.stat().st_mtime_ns + 1))
    assert memo.digest(video) != before


def test_a_known_file_is_not_read_again_in_this_run_or_the_next(tmp_path, video, monkeypatch):
    kept = tmp_path / "cache" / "digests.jsonl"
    memo = ContentMemo(kept)
    digest = memo.digest(video)
    status = video.stat()
    video.write_bytes(b"CONTENT")  # same length and time: only a reader would notice
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert memo.digest(video) == digest
    assert ContentMemo(kept).digest(video) == digest
    assert ContentMemo().digest(video) != digest


def test_torn_and_foreign_lines_are_passed_over(tmp_path, video):
    kept = tmp_path / "digests.jsonl"
    digest = ContentMemo(kept).digest(video)
    good = kept.read_text()
    foreign = ["3", "null", "{}", '["a"]', "[[1], 2]", '["k", 4]', '["x", "y", "z"]', good[:20]]
    kept.write_bytes("\n".join(foreign).encode() + b"\xff\xfe\n" + good.encode() + b'["torn')
    status = video.stat()
    video.write_bytes(b"CONTENT")
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ContentMemo(kept).digest(video) == digest


def test_two_memos_append_to_one_file(tmp_path, video):
    kept = tmp_path / "digests.jsonl"
    other = tmp_path / "w.mp4"
    other.write_bytes(b"w")
    memos = ContentMemo(kept), ContentMemo(kept)
    memos[0].digest(video)
    memos[1].digest(other)
    assert len([json.loads(line) for line in kept.read_text().splitlines()]) == 2


def test_absent_file(tmp_path):
    with pytest.raises(MissingVideoError, match=r"gone\.mp4: No such file"):
        ContentMemo().digest(tmp_path / "gone.mp4")


def test_a_folder_is_no_video(tmp_path):
    with pytest.raises(UnreadableVideoError, match="cannot be read"):
        ContentMemo().digest(tmp_path)


def test_memo_that_cannot_be_kept(tmp_path, video):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StorageError, match=r"digests\.jsonl cannot be written: .*VIDETTE_CACHE"):
        ContentMemo(tmp_path / "taken" / "digests.jsonl").digest(video)
