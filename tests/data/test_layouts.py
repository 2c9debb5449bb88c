import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidette.data.layouts import LAYOUTS, LayoutOptions, read_layout, recognise
from vidette.data.manifest import LabelledClip
from vidette.data.split import SplitPlan, split_manifest
from vidette.errors import ManifestError, SettingError

CLIPS = Path(os.environ.get("VIDETTE_DATA", "../shared/data")) / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"no genuine clips at {CLIPS}; set VIDETTE_DATA")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def pictures(folder, count, *, ending="jpg", start=1):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(folder / f"{number:05d}.{ending}")


def facts(manifest):
    return {clip.path.name: (clip.label, clip.group, clip.split) for clip in manifest.clips}


def hmdb51(folder):
    for label in ("wave", "brush_hair"):
        for source in ("FilmA", "Film_B"):
            touch(folder, *(f"videos/{label}/{source}_{label}_f_nm_np1_fr_med_{i}.avi" for i in range(2)))
        for number in (1, 2):
            lines = [f"FilmA_{label}_f_nm_np1_fr_med_{i}.avi {number} \n" for i in range(2)]
            lines += [f"Film_B_{label}_f_nm_np1_fr_med_0.avi {3 - number} \n"]
            lines += [f"Film_B_{label}_f_nm_np1_fr_med_1.avi 0 \n"]
            write(folder, f"test_train_splits/testTrainMulti/{label}_test_split{number}.txt", "".join(lines))
    return folder


def test_hmdb51_takes_the_asked_split_and_groups_by_source_video(tmp_path):
    first = read_layout(hmdb51(tmp_path))
    assert first.classes == ("brush_hair", "wave")
    assert facts(first)["FilmA_brush_hair_f_nm_np1_fr_med_0.avi"] == ("brush_hair", "FilmA", "train")
    assert facts(first)["Film_B_wave_f_nm_np1_fr_med_0.avi"] == ("wave", "Film_B", "test")
    assert len(first) == 6
    assert any("2 clips are in neither part" in note for note in first.notes)
    second = read_layout(tmp_path, layout="hmdb51", options=LayoutOptions(split_number=2))
    assert facts(second)["FilmA_wave_f_nm_np1_fr_med_0.avi"][2] == "test"


def test_hmdb51_tells_all_faults_at_once(tmp_path):
    hmdb51(tmp_path)
    (tmp_path / "videos/wave/FilmA_wave_f_nm_np1_fr_med_0.avi").unlink()
    touch(tmp_path, "videos/more/Film_B_wave_f_nm_np1_fr_med_0.avi")
    touch(tmp_path, "videos/brush_hair/FilmA_wave_f_nm_np1_fr_med_0.avi")
    split = tmp_path / "test_train_splits/testTrainMulti/wave_test_split1.txt"
    split.write_text(split.read_text() + "x.avi 7\nFilmA_wave_f_nm_np1_fr_med_1.avi 2\n")
    with pytest.raises(ManifestError) as caught:
        read_layout(tmp_path)
    text = str(caught.value)
    assert "3 faults" in text
    assert "absent video" in text, "a video in another class's folder is never taken"
    assert "wave_test_split1.txt line 5 'x.avi 7'" in text
    assert "clip given twice" in text


def test_hmdb51_names_the_splits_there_are(tmp_path):
    hmdb51(tmp_path)
    with pytest.raises(ManifestError, match="no split 3; its splits are 1, 2"):
        read_layout(tmp_path, options=LayoutOptions(split_number=3))
    with pytest.raises(ManifestError, match="no split files"):
        read_layout(tmp_path / "videos", layout="hmdb51")


def ucf101(folder):
    names = [f"{c}/v_{c}_g{g:02d}_c01" for c in ("Archery", "HandstandPushups") for g in range(1, 9)]
    touch(folder, *(f"UCF-101/{name}.avi" for name in names))
    train = [f"{n}.avi {1 if 'Arch' in n else 2}\n" for n in names if "g01" not in n]
    write(folder, "ucfTrainTestlist/trainlist01.txt", "".join(train).replace("v_Handstand", "v_HandStand"))
    write(folder, "ucfTrainTestlist/testlist01.txt", "".join(f"{n}.avi\n" for n in names if "g01" in n))
    write(folder, "ucfTrainTestlist/classInd.txt", "1 Archery\n2 HandstandPushups\n")
    return folder


def test_ucf101_groups_are_of_one_class(tmp_path):
    manifest = read_layout(ucf101(tmp_path))
    assert facts(manifest)["v_Archery_g01_c01.avi"] == ("Archery", "Archery_g01", "test")
    assert facts(manifest)["v_HandstandPushups_g02_c01.avi"][1:] == ("HandstandPushups_g02", "train")
    split = split_manifest(manifest, SplitPlan())
    assert len(split.test) == 2
    assert not split.warnings


def test_ucf101_checks_classes_and_lists(tmp_path):
    ucf101(tmp_path)
    write(tmp_path, "ucfTrainTestlist/classInd.txt", "2 Archery\nx\n")
    (tmp_path / "ucfTrainTestlist/testlist01.txt").unlink()
    with pytest.raises(ManifestError) as caught:
        read_layout(tmp_path)
    for part in ("absent list", "not in classInd.txt", "unlike classInd.txt", "expected: number class"):
        assert part in str(caught.value)


def kinetics(folder):
    rows = ["label,youtube_id,time_start,time_end,split"]
    rows += ["arm wrestling,-abcDEF0123,10,20,train", "arm wrestling,whole000001,0,10,val"]
    rows += ["yoga,missing0001,5,15,train", "yoga,Yogayoga001,3,13,test", "yoga,yogayoga001,3,13,train"]
    write(folder, "clips.csv", "\n".join(rows))
    touch(folder, "arm_wrestling/-abcDEF0123_000010_000020.mp4", "whole000001.webm")
    touch(folder, "yoga/Yogayoga001_000003_000013.mp4", "yoga/yogayoga001_000003_000013.mp4")
    return folder


def test_kinetics_counts_missing_downloads(tmp_path):
    manifest = read_layout(kinetics(tmp_path))
    assert facts(manifest) == {
        "-abcDEF0123_000010_000020.mp4": ("arm wrestling", "-abcDEF0123", "train"),
        "whole000001.webm": ("arm wrestling", "whole000001", "validation"),
        "Yogayoga001_000003_000013.mp4": ("yoga", "Yogayoga001", "test"),
        "yogayoga001_000003_000013.mp4": ("yoga", "yogayoga001", "train"),
    }
    assert any("1 of 5 clips are not downloaded and left out: missing0001" in w for w in manifest.warnings)
    assert any("1 videos are named by their id alone" in w for w in manifest.warnings)
    assert all(clip.start_seconds is None for clip in manifest.clips)


def test_kinetics_rows_that_share_a_whole_video_are_parts(tmp_path):
    write(tmp_path, "a.csv", "label,youtube_id,time_start,time_end\nrun,vid,1,5\nsit,vid,7,9.5\n")
    touch(tmp_path, "vid.mp4")
    parts = [(c.label, c.start_seconds, c.stop_seconds) for c in read_layout(tmp_path / "a.csv").clips]
    assert parts == [("run", 1, 5), ("sit", 7, 9.5)]


def test_kinetics_without_any_video_is_an_error(tmp_path):
    write(tmp_path, "a.csv", "label,youtube_id,time_start,time_end,split\nrun,vid,1,5,train\n")
    with pytest.raises(ManifestError, match=r"none of its 1 labelled clips .* vid_000010_000020.mp4"):
        read_layout(tmp_path)


def test_kinetics_lists_bad_rows(tmp_path):
    rows = "label,youtube_id,time_start,time_end,split\nrun,vid,x,5,train\nrun,vid2,9,5,tray\nrun,,1,2,test\n"
    write(tmp_path, "a.csv", rows)
    with pytest.raises(ManifestError, match="4 faults"):
        read_layout(tmp_path)


def something(folder):
    clips = [{"id": str(i), "label": "holding a cup", "template": "Holding [something]"} for i in (1, 2)]
    write(folder, "something-something-v2-train.json", json.dumps(clips))
    write(folder, "validation.json", json.dumps([{"id": "3", "template": "Dropping [something]"}]))
    write(folder, "test.json", json.dumps([{"id": "4"}]))
    write(folder, "labels.json", json.dumps({"Holding something": "0", "Dropping something": "1"}))
    touch(folder, *(f"20bn-something-something-v2/{i}.webm" for i in range(1, 5)))
    return folder


def test_something_takes_templates_and_leaves_unlabelled_clips(tmp_path):
    manifest = read_layout(something(tmp_path))
    assert facts(manifest)["1.webm"] == ("Holding something", None, "train")
    assert facts(manifest)["3.webm"] == ("Dropping something", None, "validation")
    assert len(manifest) == 3
    assert any("1 clips have no label" in warning for warning in manifest.warnings)


def test_something_names_unknown_labels_and_absent_videos(tmp_path):
    something(tmp_path)
    write(tmp_path, "labels.json", json.dumps({"Holding somethin": "0", "Dropping something": "1"}))
    (tmp_path / "20bn-something-something-v2/3.webm").unlink()
    with pytest.raises(ManifestError) as caught:
        read_layout(tmp_path)
    assert "nearest: 'Holding somethin'" in str(caught.value)
    assert "absent video" in str(caught.value)


def annotation_list(folder):
    write(folder, "kinetics_train_list_videos.txt", "a/one.mp4 0\na/two words.mp4 1\n")
    write(folder, "kinetics_val_list_videos.txt", "b/three.mp4 1\n")
    write(folder, "label_map.txt", "left\nright\n")
    touch(folder, "a/one.mp4", "a/two words.mp4", "b/three.mp4")
    return folder


def test_list_takes_names_from_the_label_map(tmp_path):
    manifest = read_layout(annotation_list(tmp_path))
    assert facts(manifest) == {
        "one.mp4": ("left", None, "train"),
        "two words.mp4": ("right", None, "train"),
        "three.mp4": ("right", None, "validation"),
    }


def test_a_list_named_alone_has_no_split(tmp_path):
    alone = read_layout(annotation_list(tmp_path) / "kinetics_train_list_videos.txt")
    assert {clip.split for clip in alone.clips} == {None}


def test_list_with_classes_and_videos_elsewhere(tmp_path):
    write(tmp_path, "lists/all.txt", "one.mp4 7\n")
    write(tmp_path, "names.txt", "3 left\n7 right side\n")
    touch(tmp_path, "videos/one.mp4")
    options = LayoutOptions(classes_file=tmp_path / "names.txt", videos=tmp_path / "videos")
    manifest = read_layout(tmp_path / "lists", layout="list", options=options, min_classes=1)
    assert facts(manifest) == {"one.mp4": ("right side", None, None)}


def test_list_lists_every_fault(tmp_path):
    annotation_list(tmp_path)
    write(tmp_path, "kinetics_val_list_videos.txt", "b/three.mp4 2\nb/four.mp4 1\nb/three.mp4\n")
    with pytest.raises(ManifestError) as caught:
        read_layout(tmp_path, layout="list")
    assert "label that the file of class names does not have (0 to 1) (1)" in str(caught.value)
    assert "b/four.mp4" in str(caught.value)
    assert "line 3 'b/three.mp4'" in str(caught.value)
    (tmp_path / "label_map.txt").unlink()
    with pytest.raises(ManifestError, match="--classes-file"):
        read_layout(tmp_path, layout="list")


def test_frames_are_folders_with_a_rate(tmp_path):
    for place in ("train/a/clip10", "train/b/clip1", "test/a/clip2", "test/b/clip3"):
        pictures(tmp_path / place, 3)
    pictures(tmp_path / "test/a/gap", 2)
    pictures(tmp_path / "test/a/gap", 2, start=8)
    with pytest.raises(ManifestError, match="--frames-fps"):
        read_layout(tmp_path)
    manifest = read_layout(tmp_path, options=LayoutOptions(fps=12.5))
    assert facts(manifest)["clip10"] == ("a", None, "train")
    assert len(manifest) == 5
    assert {clip.fps for clip in manifest.clips} == {12.5}
    assert any("gaps in their numbers" in warning and "test/a/gap" in warning for warning in manifest.warnings)


def test_list_of_frame_folders_with_counts(tmp_path):
    pictures(tmp_path / "a/clip 1", 3)
    pictures(tmp_path / "a/clip2", 3)
    write(tmp_path, "train.txt", "a/clip 1 3 0\na/clip2 3 1\n")
    write(tmp_path, "classes.txt", "x\ny\n")
    with pytest.raises(ManifestError, match="without a rate"):
        read_layout(tmp_path)
    manifest = read_layout(tmp_path, options=LayoutOptions(fps=5))
    assert facts(manifest) == {"clip 1": ("x", None, "train"), "clip2": ("y", None, "train")}


def test_tsv_is_read_as_csv(tmp_path):
    touch(tmp_path, "a,b.mp4", "c.mp4")
    write(tmp_path, "t.tsv", "path\tlabel\tgroup\na,b.mp4\tx\tg1\nc.mp4\ty\tg2\n")
    assert facts(read_layout(tmp_path / "t.tsv"))["a,b.mp4"] == ("x", "g1", None)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (hmdb51, "hmdb51"),
        (ucf101, "ucf101"),
        (kinetics, "kinetics"),
        (something, "something"),
        (annotation_list, "list"),
    ],
)
def test_layouts_are_recognised(tmp_path, make, name):
    assert recognise(make(tmp_path)) == name
    assert any(f"recognised as layout {name}" in note for note in read_layout(tmp_path).notes)


def test_plain_sources_read_as_before(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "b/README.txt")
    assert recognise(tmp_path) == "folders"
    assert facts(read_layout(tmp_path)) == {"1.mp4": ("a", None, None), "2.mp4": ("b", None, None)}
    write(tmp_path, "manifest.csv", "path,label\na/1.mp4,x\nb/2.mp4,y\n")
    assert read_layout(tmp_path).classes == ("x", "y")
    assert read_layout(tmp_path, layout="folders").classes == ("a", "b")


def test_two_layouts_at_once_are_not_guessed(tmp_path):
    kinetics(tmp_path)
    write(tmp_path, "manifest.csv", "path,label\nwhole000001.webm,x\n")
    with pytest.raises(ManifestError, match=r"fits 2 layouts \(csv, kinetics\); say which one with --layout"):
        read_layout(tmp_path)
    assert len(read_layout(tmp_path, layout="kinetics")) == 4


def test_frames_beside_videos_are_not_guessed(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    pictures(tmp_path / "a/clip", 3)
    with pytest.raises(ManifestError, match=r"folders, frames"):
        read_layout(tmp_path)


def test_unknown_layout_names_the_nearest(tmp_path):
    with pytest.raises(SettingError, match="did you mean 'hmdb51'"):
        read_layout(tmp_path, layout="hmbd51")


def test_options_tell_all_faults(tmp_path):
    with pytest.raises(SettingError) as caught:
        LayoutOptions(split_number=0, fps=0, classes_file=tmp_path / "no", videos=tmp_path / "no")
    assert all(word in str(caught.value) for word in ("split_number", "fps", "classes_file", "videos"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_tells_of_an_absent_source(tmp_path, layout):
    with pytest.raises(ManifestError, match="no such folder"):
        read_layout(tmp_path / "absent", layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_tells_of_an_empty_folder(tmp_path, layout):
    with pytest.raises(ManifestError):
        read_layout(tmp_path, layout=layout, options=LayoutOptions(fps=5))


def test_group_from_and_one_class(tmp_path):
    manifest = read_layout(hmdb51(tmp_path), group_from=r"/(\w+)_f_nm")
    assert {clip.group for clip in manifest.clips} >= {"FilmA_brush_hair", "Film_B_wave"}
    with pytest.raises(ManifestError, match="finds no group in 6 of 6"):
        read_layout(tmp_path, group_from="nowhere")
    for file in tmp_path.rglob("wave_test_split*.txt"):
        file.unlink()
    with pytest.raises(ManifestError, match="1 class"):
        read_layout(tmp_path)
    assert read_layout(tmp_path, min_classes=1).classes == ("brush_hair",)


@needs_clips
def test_genuine_names_of_hmdb51(tmp_path):
    for label in ("cartwheel", "wave"):
        files = sorted((CLIPS / f"hmdb51_{label}").iterdir())
        (tmp_path / label).mkdir()
        for file in files:
            (tmp_path / label / file.name).symlink_to(file.resolve())
        lines = [f"{file.name} {i % 2 + 1} \n" for i, file in enumerate(files)]
        write(tmp_path, f"splits/{label}_test_split1.txt", "".join(lines))
    groups = {clip.group for clip in read_layout(tmp_path).clips}
    assert groups == {
        "hmdb51_Turnk_r_Pippi_Michel",
        "RATRACE",
        "SchoolRulesHowTheyHelpUs",
        "TrumanShow",
    }


@needs_clips
def test_genuine_names_of_ucf101(tmp_path):
    lines = []
    for label in ("CricketShot", "SoccerJuggling"):
        (tmp_path / label).mkdir()
        for file in sorted((CLIPS / f"ucf101_{label}").iterdir()):
            (tmp_path / label / file.name).symlink_to(file.resolve())
            lines.append(f"{label}/{file.name}")
    write(tmp_path, "trainlist01.txt", "\n".join(f"{line} {1 + ('Soccer' in line)}" for line in lines[:-1]))
    write(tmp_path, "testlist01.txt", lines[-1])
    groups = {clip.group for clip in read_layout(tmp_path).clips}
    assert groups == {"CricketShot_g04", "SoccerJuggling_g23", "SoccerJuggling_g24"}


def test_a_frames_clip_is_read(tmp_path):
    from vidette.data.cache import ClipCache
    from vidette.video.clip import ClipSpec

    pictures(tmp_path / "clip", 12, ending="png")
    clip = LabelledClip(tmp_path / "clip", "x", fps=4.0)
    cut = ClipCache(tmp_path / "cache").load(clip, ClipSpec(num_frames=3, height=12, width=16))
    np.testing.assert_allclose(cut.seconds, [0, 1.25, 2.75])
    assert cut.pixels[:, 0, 0, 0].tolist() == [1, 6, 12]
