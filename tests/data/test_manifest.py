from pathlib import Path

import pytest

from vidette.data.manifest import LabelledClip, read_manifest, write_manifest
from vidette.errors import ManifestError, StorageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def folder(tmp_path):
    """Two classes whose files, listed as strings, are out of order."""
    root = tmp_path / "clips"
    touch(*(root / label / f"v{i}.mp4" for label in ("run", "walk") for i in (1, 2, 10)))
    return root


@pytest.fixture
def table(tmp_path):
    """Writes a CSV beside four files a.mp4 to d.mp4; returns its path."""
    touch(*(tmp_path / f"{name}.mp4" for name in "abcd"))

    def write(text: str, name: str = "clips.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def names(manifest):
    return [clip.path.name for clip in manifest.clips]


# Folders.


def test_class_folders_become_labels_in_natural_order(folder):
    manifest = read_manifest(folder)
    assert [(c.label, c.path.name) for c in manifest.clips] == [
        (label, f"v{i}.mp4") for label in ("run", "walk") for i in (1, 2, 10)
    ]
    assert manifest.classes == ("run", "walk")
    assert manifest.counts() == {"run": 3, "walk": 3}
    assert not manifest.has_groups


def test_order_does_not_depend_on_what_the_directory_says(folder, monkeypatch):
    import os

    expected = names(read_manifest(folder))
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __iter__(self):
            return iter(self.entries)

        def __next__(self):
            if not self.entries:
                raise StopIteration
            return self.entries.pop(0)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def close(self):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert names(read_manifest(folder)) == expected


def test_deeper_files_belong_to_the_class_folder(folder):
    touch(folder / "run" / "camera 1" / "deep.mkv")
    deep = [clip for clip in read_manifest(folder).clips if clip.path.name == "deep.mkv"]
    assert [clip.label for clip in deep] == ["run"]


def test_split_folders_give_the_split(tmp_path):
    touch(*(tmp_path / s / label / "x.mp4" for s in ("train", "val", "test") for label in ("a", "b")))
    manifest = read_manifest(tmp_path)
    assert manifest.classes == ("a", "b")
    assert {(c.path.parts[-3], c.split) for c in manifest.clips} == {
        ("train", "train"),
        ("val", "validation"),
        ("test", "test"),
    }
    assert any("are the split" in note for note in manifest.notes)


def test_what_is_left_out_is_counted(folder):
    touch(
        folder / "loose.mp4", folder / "readme.txt", folder / "run" / "notes.md", folder / ".hidden" / "h.mp4"
    )
    (folder / "empty").mkdir()
    manifest = read_manifest(folder)
    assert len(manifest) == 6
    told = "\n".join(manifest.warnings)
    assert "1 videos in no class folder, left out: loose.mp4" in told
    assert "2 files that are not videos, left out" in told
    assert "1 folders without a video, no class: empty" in told
    assert "hidden" not in told


def test_link_in_a_circle_ends(folder):
    (folder / "run" / "again").symlink_to(folder / "run", target_is_directory=True)
    assert len(read_manifest(folder)) == 6


def test_missing_folder(tmp_path):
    with pytest.raises(ManifestError, match=r"nowhere: there is no such folder or CSV; give a folder"):
        read_manifest(tmp_path / "nowhere")


def test_folder_without_videos_says_what_it_holds(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "list.csv")
    with pytest.raises(ManifestError, match=r"holds 1 videos but no class folder.*list\.csv"):
        read_manifest(tmp_path)


def test_folder_of_folders_without_videos(tmp_path):
    touch(tmp_path / "a" / "x.txt")
    with pytest.raises(ManifestError, match=r"holds no video in its 1 folders \(a\)"):
        read_manifest(tmp_path)


def test_one_class_is_an_error_unless_only_scored(tmp_path):
    touch(tmp_path / "only" / "x.mp4")
    with pytest.raises(ManifestError, match=r"holds 1 class \(only, 1 clips\); expected at least 2 classes"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, min_classes=1).classes == ("only",)


def test_one_class_holding_folders_points_one_level_down(tmp_path):
    touch(*(tmp_path / "data" / label / "x.mp4" for label in ("a", "b")))
    with pytest.raises(ManifestError, match=r"did you mean .*data, which holds 2 folders"):
        read_manifest(tmp_path)


def test_manifest_csv_in_a_folder_is_used_and_said(folder):
    (folder / "manifest.csv").write_text("path,label,group\nrun/v1.mp4,run,s1\nwalk/v1.mp4,walk,s1\n")
    manifest = read_manifest(folder)
    assert len(manifest) == 2
    assert manifest.has_groups
    assert any("manifest.csv" in note for note in manifest.notes)


# Tables.


def test_every_column_is_read(table, tmp_path):
    manifest = read_manifest(
        table(
            "path,label,group,split,fold,start_seconds,end_seconds,remark\n"
            "a.mp4,x,g1,train,1,,1.5,hello\n"
            f"{tmp_path}/b.mp4,y,g2,VAL,2,0.5,,\n"
        )
    )
    assert manifest.clips == (
        LabelledClip(tmp_path / "a.mp4", "x", "g1", None, 1.5, "train", "1"),
        LabelledClip(tmp_path / "b.mp4", "y", "g2", 0.5, None, "validation", "2"),
    )
    assert [clip.name for clip in manifest.clips] == [
        f"{tmp_path}/a.mp4 [0, 1.5)",
        f"{tmp_path}/b.mp4 [0.5, end)",
    ]


def test_order_of_the_table_is_kept(table):
    assert names(read_manifest(table("path,label\nd.mp4,x\na.mp4,y\nc.mp4,x\n"))) == ["d.mp4", "a.mp4", "c.mp4"]


def test_byte_order_mark_blank_lines_and_spaces(table):
    manifest = read_manifest(table("path , label\r\n\r\n a.mp4, x\r\n\r\nb.mp4 ,y\r\n", encoding="utf-8-sig"))
    assert [(c.path.name, c.label) for c in manifest.clips] == [("a.mp4", "x"), ("b.mp4", "y")]


def test_all_faults_of_a_table_come_in_one_message(table):
    path = table(
        "path,label,split,start_seconds,end_seconds\n"
        "gone.mp4,x,train,,\n"
        "also-gone.mp4,x,train,,\n"
        ",x,train,,\n"
        "a.mp4,,train,,\n"
        "b.mp4,x,training,,\n"
        "c.mp4,x,train,soon,\n"
        "c.mp4,x,train,-1,\n"
        "d.mp4,x,train,3,2\n"
        "d.mp4,x,,nan,inf\n"
        "a.mp4,y,train,,,,extra\n"
    )
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    text = str(caught.value)
    assert "absent file (2): line 2" in text
    assert "also-gone.mp4" in text
    assert "empty path (1): line 4" in text
    assert "empty label (1): line 5" in text
    assert "unknown split (known: train, validation, val, valid, test) (1): line 6 'training'" in text
    assert "bad number (expected seconds, 0 or more) (4): line 7 start_seconds 'soon'" in text
    assert "line 10 end_seconds 'inf'" in text
    assert "end_seconds is not after start_seconds (1): line 9 [3, 2)" in text
    assert "more cells than the header (quote a comma) (1): line 11" in text
    assert "clip given twice" in text
    assert "split given for some clips only" in text
    count = int(text.split(" fault", maxsplit=1)[0].rsplit(" ", 1)[1])
    listed = text.splitlines()[1:]
    assert count == sum(int(line.split("): ")[0].rsplit("(", 1)[1]) for line in listed)


def test_many_absent_files_are_counted_and_some_named(table):
    with pytest.raises(ManifestError, match=r"absent file \(300\): line 2 .*n0\.mp4.* and 290 more"):
        read_manifest(table("path,label\n" + "".join(f"n{i}.mp4,x\n" for i in range(300))))


def test_same_clip_with_two_labels_is_named(table):
    with pytest.raises(ManifestError, match=r"lines 2 and 3: .*a\.mp4, labelled 'x' and 'y'"):
        read_manifest(table("path,label\na.mp4,x\n./a.mp4,y\n"))


def test_two_parts_of_one_file_are_two_clips_of_one_group(table):
    manifest = read_manifest(
        table("path,label,start_seconds,end_seconds\na.mp4,x,0,1\na.mp4,y,1,2\nb.mp4,x,,\n")
    )
    assert manifest.has_groups
    assert manifest.group_of(0) == manifest.group_of(1) != manifest.group_of(2)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("file,label", "missing column (1): 'path' (the header is file,label"),
        ("path,lable", "nearest is 'lable'"),
        ("Path,label", "nearest is 'Path'"),
        ("path,label,label", "column given twice (1): 'label'"),
    ],
)
def test_bad_header(table, header, said):
    with pytest.raises(ManifestError) as caught:
        read_manifest(table(f"{header}\na.mp4,x,y\n"))
    assert said in str(caught.value)


def test_misspelt_optional_column_is_warned_of(table):
    manifest = read_manifest(table("path,label,groop\na.mp4,x,1\nb.mp4,y,2\n"))
    assert manifest.warnings == ("column 'groop' is ignored; did you mean 'group'?",)


def test_groups_of_some_clips_only_are_warned_of(table):
    manifest = read_manifest(table("path,label,group\na.mp4,x,1\nb.mp4,y,\nc.mp4,x,1\n"))
    assert manifest.warnings == ("1 of 3 clips have no group; each counts as its own",)
    assert len(manifest.groups) == 2


def test_table_of_one_class(table):
    with pytest.raises(ManifestError, match=r"holds 1 class \(x, 2 clips\).*add clips of another class"):
        read_manifest(table("path,label\na.mp4,x\nb.mp4,x\n"))


@pytest.mark.parametrize("text", ["", "path,label\n", "\n\n"])
def test_empty_table(table, text):
    with pytest.raises(ManifestError, match="holds no clip; expected a header path,label"):
        read_manifest(table(text))


def test_table_that_is_not_text(table, tmp_path):
    (tmp_path / "clips.csv").write_bytes(b"path,label\n\xff\xfe\x00,x\n")
    with pytest.raises(ManifestError, match="is no CSV in UTF-8"):
        read_manifest(tmp_path / "clips.csv")


def test_a_video_is_not_a_table(table, tmp_path):
    with pytest.raises(ManifestError, match=r"a\.mp4: is a video; expected a folder of class folders or a CSV"):
        read_manifest((table(""), tmp_path / "a.mp4")[1])


# Groups from the path.


def test_group_from_takes_the_first_capture_group(folder):
    manifest = read_manifest(folder, group_from=r"v(\d)")
    assert [clip.group for clip in manifest.clips] == ["1", "2", "1"] * 2
    assert manifest.has_groups


def test_group_from_without_capture_takes_the_match_on_the_relative_path(folder):
    assert {clip.group for clip in read_manifest(folder, group_from=r"^(?:run|walk)").clips} == {"run", "walk"}


def test_group_from_that_misses_lists_the_paths(folder):
    with pytest.raises(ManifestError, match=r"finds no group in 2 of 6 paths: run/v10\.mp4, walk/v10\.mp4"):
        read_manifest(folder, group_from=r"v(\d)\.")


def test_group_from_that_is_no_expression(folder):
    with pytest.raises(ManifestError, match=r"'\(' is no regular expression"):
        read_manifest(folder, group_from="(")


# Writing.


def test_written_manifest_reads_back_the_same(table, tmp_path):
    manifest = read_manifest(
        table(
            'path,label,group,fold,start_seconds,end_seconds\na.mp4,"x, or so",g,1,0.1,0.30000000000000004\n'
            'b.mp4,"y ""z""",g,2,,\n'
        )
    )
    out = tmp_path / "elsewhere" / "copy.csv"
    out.parent.mkdir()
    write_manifest(manifest, out)
    again = read_manifest(out)
    assert again.clips == manifest.clips
    assert "split" not in out.read_text().splitlines()[0]
    assert sorted(p.name for p in out.parent.iterdir()) == ["copy.csv"]


def test_splits_are_written_and_read(table, tmp_path):
    manifest = read_manifest(table("path,label\na.mp4,x\nb.mp4,y\nc.mp4,x\n"))
    divided = manifest.with_splits(train=[2], validation=[0], test=[1])
    write_manifest(divided, tmp_path / "split.csv")
    assert [clip.split for clip in read_manifest(tmp_path / "split.csv").clips] == [
        "validation",
        "test",
        "train",
    ]
    assert "a.mp4,x,validation" in (tmp_path / "split.csv").read_text()


def test_manifest_that_cannot_be_written(table, tmp_path):
    manifest = read_manifest(table("path,label\na.mp4,x\nb.mp4,y\n"))
    with pytest.raises(StorageError, match="cannot be written"):
        write_manifest(manifest, tmp_path / "no" / "such" / "split.csv")


def test_description_tells_totals_groups_splits_and_warnings(table):
    manifest = read_manifest(
        table("path,label,group,split,groop\na.mp4,x,1,train,\nb.mp4,y,2,test,\nc.mp4,x,1,train,\n")
    )
    lines = manifest.describe()
    assert lines[0] == "3 clips, 2 classes, 2 groups"
    assert "class x: 2 clips from 1 groups" in lines
    assert "split train: 2 clips" in lines
    assert repr(manifest).startswith("Manifest(3 clips of 2 classes, ")
