import os
from pathlib import Path

import pytest
from PIL import Image

from vidette.data import export as export_module
from vidette.data.export import write_layout
from vidette.data.layouts import LAYOUTS, LayoutOptions, read_layout
from vidette.data.manifest import LabelledClip, Manifest
from vidette.errors import ManifestError, OutputExistsError, SettingError, StorageError
from vidette.video.motion import write_motion_clips
from vidette.video.reader import open_video


def manifest_of(folder, entries):
    clips = []
    for name, label, group, split in entries:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
        clips.append(LabelledClip(folder / name, label, group, split=split))
    return Manifest(folder, tuple(clips), tuple(sorted({clip.label for clip in clips})))


def facts(manifest, *, groups=True):
    rows = [
        (clip.path.resolve().as_posix(), clip.label, clip.group if groups else None, clip.split)
        for clip in manifest.clips
    ]
    return sorted(rows, key=repr)


@pytest.fixture
def hmdb51(tmp_path):
    names = [(f"{c}/{s}_{c}_f_cm_np1_ba_med_{i}.avi", c, s) for c in ("a b", "c_d") for s in "XY" for i in "01"]
    return manifest_of(tmp_path / "in", [(n, c, s, "train" if s == "X" else "test") for n, c, s in names])


@pytest.fixture
def ucf101(tmp_path):
    entries = [(f"{c}/v_{c}_g{g}_c01.avi", c, f"{c}_g{g}") for c in ("Run", "Sit") for g in ("01", "02")]
    return manifest_of(tmp_path / "in", [(*e, "train" if "g01" in e[0] else "test") for e in entries])


@pytest.fixture
def kinetics(tmp_path):
    return manifest_of(
        tmp_path / "in",
        [
            ("run, fast/abc_000010_000020.mp4", "run, fast", "abc", "train"),
            ("sit/abc_000030_000040.mp4", "sit", "abc", "validation"),
            ("sit/whole.webm", "sit", "whole", "test"),
        ],
    )


@pytest.fixture
def plain(tmp_path):
    splits = ("train", "validation", "test")
    entries = [(f"{s}{i}/same.mp4", label, None, s) for s in splits for i, label in enumerate(("x", "y z"))]
    return manifest_of(tmp_path / "in", [*entries, ("other/same.mp4", "x", None, "train")])


@pytest.mark.parametrize("layout", ["hmdb51", "csv", "tsv"])
@pytest.mark.parametrize("link", ["symlink"])
def test_hmdb51_round_trip(tmp_path, hmdb51, layout, link):
    written = write_layout(hmdb51, tmp_path / "out", layout=layout, link=link)
    assert written.lost == ()
    assert facts(read_layout(tmp_path / "out", layout=layout)) == facts(hmdb51)


@pytest.mark.parametrize("layout", ["ucf101", "csv", "tsv"])
def test_ucf101_round_trip(tmp_path, ucf101, layout):
    assert write_layout(ucf101, tmp_path / "out", layout=layout).lost == ()
    assert facts(read_layout(tmp_path / "out")) == facts(ucf101)


@pytest.mark.parametrize("layout", ["kinetics", "csv"])
def test_kinetics_round_trip(tmp_path, kinetics, layout):
    assert write_layout(kinetics, tmp_path / "out", layout=layout).lost == ()
    assert facts(read_layout(tmp_path / "out")) == facts(kinetics)


@pytest.mark.parametrize("layout", ["folders", "csv", "tsv", "something", "list", "kinetics"])
def test_plain_round_trip(tmp_path, plain, layout):
    write_layout(plain, tmp_path / "out", layout=layout)
    back = read_layout(tmp_path / "out")
    assert facts(back, groups=False) == facts(plain, groups=False)
    assert back.classes == plain.classes


def test_groups_of_any_name_survive_in_hmdb51(tmp_path):
    pairs = [(label, group) for label in ("run", "sit") for group in ("s 1", "run_run")]
    entries = [(f"{c}/{g}-{i}.mp4", c, g, "train") for c, g in pairs for i in "12"]
    manifest = manifest_of(tmp_path / "in", entries)
    assert write_layout(manifest, tmp_path / "out", layout="hmdb51").lost == ()
    assert facts(read_layout(tmp_path / "out")) == facts(manifest)


def test_motion_clips_as_ucf101_say_that_groups_span_classes(tmp_path):
    table = write_motion_clips(tmp_path / "motion", num_scenes=2, size=(32, 32))
    motion = read_layout(table)
    for i in range(len(motion)):
        assert motion.group_of(i)
    split = motion.with_splits(
        train=[i for i, clip in enumerate(motion.clips) if clip.group == "scene-000"],
        validation=[],
        test=[i for i, clip in enumerate(motion.clips) if clip.group == "scene-001"],
    )
    written = write_layout(split, tmp_path / "out", layout="ucf101")
    assert any("2 groups span classes" in text for text in written.lost)
    back = read_layout(tmp_path / "out")
    assert facts(back, groups=False) == facts(split, groups=False)
    with open_video(back.clips[0].path) as video:
        assert video.info.width == 32


def test_lost_groups_and_splits_are_told(tmp_path, hmdb51):
    lost = write_layout(hmdb51, tmp_path / "a", layout="list").lost
    assert lost == ("the group of 8 clips (a csv holds it)",)
    part = hmdb51.with_splits(train=[0], validation=[], test=[1])
    lost = write_layout(part, tmp_path / "b", layout="something").lost
    assert "the split of 2 clips: 6 others have none" in lost


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_overwritten(tmp_path, hmdb51, layout):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_layout(hmdb51, tmp_path / "out", layout=layout)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_failure_leaves_nothing(tmp_path, hmdb51, monkeypatch):
    def full(source, place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "_LINKS", {"symlink": full})
    with pytest.raises(StorageError, match="No space left"):
        write_layout(hmdb51, tmp_path / "out", layout="hmdb51")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]
    assert all(clip.path.is_file() for clip in hmdb51.clips)


def test_what_a_layout_cannot_hold_is_refused_at_once(tmp_path, plain):
    clips = (*plain.clips, LabelledClip(plain.clips[0].path, "../x", start_seconds=1.0, split="train"))
    bad = Manifest(tmp_path, clips, ("../x", "x", "y z"))
    with pytest.raises(ManifestError) as caught:
        write_layout(bad, tmp_path / "out", layout="hmdb51")
    text = str(caught.value)
    for part in ("part of a video", "split 'validation'", "label that cannot name a folder"):
        assert part in text
    assert not (tmp_path / "out").exists()


def test_segments_survive_in_tables(tmp_path, plain):
    path = plain.clips[0].path
    clips = (LabelledClip(path, "x", "g", 1.0, 2.5), LabelledClip(path, "y", "g", 2.5, None))
    write_layout(Manifest(tmp_path, clips, ("x", "y")), tmp_path / "out", layout="tsv")
    back = read_layout(tmp_path / "out" / "manifest.tsv").clips
    assert [(c.label, c.start_seconds, c.stop_seconds) for c in back] == [("x", 1.0, 2.5), ("y", 2.5, None)]


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_links_and_copies_hold_the_same_bytes(tmp_path, hmdb51, link):
    write_layout(hmdb51, tmp_path / "out", layout="hmdb51", link=link)
    back = read_layout(tmp_path / "out")
    assert sorted(c.path.read_bytes() for c in back.clips) == sorted(c.path.read_bytes() for c in hmdb51.clips)
    same = {os.stat(clip.path).st_ino for clip in back.clips} == {os.stat(c.path).st_ino for c in hmdb51.clips}
    assert same == (link == "hardlink")


@pytest.mark.parametrize("layout", ["frames", "csv"])
def test_frames_round_trip(tmp_path, layout):
    clips = []
    for split in ("train", "test"):
        for label in ("x", "y"):
            folder = tmp_path / "in" / split / label / "clip"
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
            clips.append(LabelledClip(folder, label, split=split, fps=6.25))
    manifest = Manifest(tmp_path, tuple(clips), ("x", "y"))
    write_layout(manifest, tmp_path / "out", layout=layout)
    back = read_layout(tmp_path / "out", options=LayoutOptions(fps=6.25))
    assert facts(back) == facts(manifest)
    assert {clip.fps for clip in back.clips} == {6.25}


@pytest.mark.parametrize("layout", ["folders", "hmdb51", "ucf101", "kinetics", "something"])
def test_names_that_differ_by_ending_or_case_stay_apart(tmp_path, layout):
    names = ("1/a.mp4", "2/a.avi", "3/A.mp4", "4/a_2.mp4")
    entries = [(f"{c}{n}", c, None, ("train", "test")[i % 2]) for c in "xy" for i, n in enumerate(names)]
    manifest = manifest_of(tmp_path / "in", entries)
    write_layout(manifest, tmp_path / "out", layout=layout)
    assert facts(read_layout(tmp_path / "out"), groups=False) == facts(manifest, groups=False)


def test_an_ending_that_would_not_be_read_is_refused(tmp_path):
    manifest = manifest_of(tmp_path / "in", [("a.y4m", "x", None, "train"), ("b.mp4", "y", None, "test")])
    with pytest.raises(ManifestError, match="1 fault"):
        write_layout(manifest, tmp_path / "out", layout="folders")
    write_layout(manifest, tmp_path / "out", layout="list")
    assert facts(read_layout(tmp_path / "out")) == facts(manifest)


def test_unknown_layout_and_link(tmp_path, plain):
    with pytest.raises(SettingError, match="did you mean 'kinetics'"):
        write_layout(plain, tmp_path / "out", layout="kinetic")
    with pytest.raises(SettingError, match="did you mean 'symlink'"):
        write_layout(plain, tmp_path / "out", layout="csv", link="symlnk")


def test_export_names_where_it_went(tmp_path, plain):
    written = write_layout(plain, tmp_path / "new" / "out", layout="csv")
    assert written.folder == Path(tmp_path / "new" / "out")
    assert written.num_clips == 7
