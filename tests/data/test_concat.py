"""`vidette concat`: clips of one colour each, so that every frame of the joined video tells its clip."""

import csv
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from vidette.cli_concat import concat
from vidette.data.concat import ConcatPlan, chosen_clips, concatenate
from vidette.data.manifest import LabelledClip, read_manifest
from vidette.errors import EmptyVideoError, MissingVideoError, OutputExistsError, SettingError
from vidette.video.reader import open_video
from vidette.video.writer import write_video

LEVELS = {"a": 40, "b": 120, "quiet": 220}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four clips of 1 s: two of class a, one of b, one quiet; rates and sizes differ."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for number, (label, fps, size) in enumerate(
        [("a", 10, 48), ("b", 25, 64), ("a", 15, 48), ("quiet", 12, 32)]
    ):
        frames = np.full((fps, size, size, 3), LEVELS[label], np.uint8)
        path = write_video(folder / label / f"{number}.mp4", frames, fps=fps)
        made.append(LabelledClip(path, label, group=f"g{number}"))
    return tuple(made)


def rows(path):
    with path.open(newline="") as file:
        return [(float(r["start_seconds"]), float(r["end_seconds"]), r["label"]) for r in csv.DictReader(file)]


def levels(path):
    """The brightness of every frame."""
    with open_video(path) as video:
        return [(frame.seconds, float(frame.pixels.mean())) for frame in video.frames()]


def test_clips_follow_each_other_at_one_rate_and_size(clips, tmp_path):
    made = concatenate(clips[:3], tmp_path / "long.mp4", ConcatPlan(fps=20, seed=None, rest_seconds=0.5))
    assert made.truth == tmp_path / "long.csv"
    assert made.num_events == 3
    assert made.seconds == 4.0
    assert rows(made.truth) == [(0, 1, "a"), (1.5, 2.5, "b"), (3, 4, "a")]
    seen = levels(made.video)
    assert len(seen) == 80
    assert np.allclose(np.diff([seconds for seconds, _ in seen]), 1 / 20)
    for start, stop, label in rows(made.truth):
        inside = [level for seconds, level in seen if start - 1e-6 <= seconds < stop - 1e-6]
        assert len(inside) == 20
        assert np.allclose(inside, LEVELS[label], atol=4)
    held = [level for seconds, level in seen if 1 <= seconds + 1e-6 < 1.5]
    assert np.allclose(held, LEVELS["a"], atol=4)  # the last picture of the clip before
    with open_video(made.video) as video:
        assert (video.info.height, video.info.width) == (48, 48)


def test_rests_are_clips_of_the_rest_label(clips, tmp_path):
    plan = ConcatPlan(fps=20, seed=None, rest_label="quiet", rest_seconds=0.5, height=32, width=64)
    made = concatenate(clips, tmp_path / "long.mp4", plan)
    assert rows(made.truth) == [(0, 1, "a"), (2, 3, "b"), (3.5, 4.5, "a")]
    quiet = [level for seconds, level in levels(made.video) if 1 <= seconds + 1e-6 < 2]
    assert np.allclose(quiet, LEVELS["quiet"], atol=4)
    with open_video(made.video) as video:
        assert (video.info.height, video.info.width) == (32, 64)


def test_more_rests_than_gaps_are_spread(clips, tmp_path):
    many = [clips[0], clips[1], *[clips[3]] * 5]
    plan = ConcatPlan(fps=10, seed=None, rest_label="quiet")
    assert rows(concatenate(many, tmp_path / "long.mp4", plan).truth) == [(1, 2, "a"), (4, 5, "b")]


def test_neighbours_of_one_label_without_a_rest_are_one_event(clips, tmp_path):
    plan = ConcatPlan(fps=10, seed=None, rest_seconds=0)
    made = concatenate([clips[0], clips[2], clips[1]], tmp_path / "long.mp4", plan)
    assert rows(made.truth) == [(0, 2, "a"), (2, 3, "b")]
    assert made.num_events == 2


def test_parts_of_a_video(clips, tmp_path):
    parts = [
        LabelledClip(clips[1].path, "b", start_seconds=0.2, stop_seconds=0.6),
        LabelledClip(clips[0].path, "a", start_seconds=0.5),
    ]
    made = concatenate(parts, tmp_path / "long.mp4", ConcatPlan(fps=20, seed=None, rest_seconds=0))
    assert rows(made.truth) == [(0, 0.4, "b"), (0.4, 0.9, "a")]
    with pytest.raises(EmptyVideoError, match="lies after its end"):
        concatenate([LabelledClip(clips[0].path, "a", start_seconds=5)], tmp_path / "none.mp4")


def test_the_seed_decides_the_order(clips, tmp_path):
    def labels(seed):
        plan = ConcatPlan(fps=5, seed=seed, rest_seconds=0.2)
        made = concatenate([*clips[:2]] * 4, tmp_path / "long.mp4", plan, overwrite=True)
        return [label for _, _, label in rows(made.truth)]

    assert labels(0) == labels(0)
    assert len({tuple(labels(seed)) for seed in range(4)}) > 1


def test_nothing_is_replaced_or_left_half_done(clips, tmp_path):
    out, truth = tmp_path / "long.mp4", tmp_path / "long.csv"
    truth.write_text("mine")
    with pytest.raises(OutputExistsError):
        concatenate(clips, out)
    assert truth.read_text() == "mine"
    assert not out.exists()
    gone = LabelledClip(tmp_path / "gone.mp4", "b")
    with pytest.raises(MissingVideoError):
        concatenate([clips[0], gone], out, ConcatPlan(seed=None), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["long.csv"]
    assert truth.read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [{"fps": 0}, {"rest_seconds": -1}, {"height": 8}, {"resize": "motion"}, {"rest_label": "quite"}],
)
def test_bad_plans_are_refused(clips, tmp_path, wrong):
    with pytest.raises(SettingError):
        concatenate(clips, tmp_path / "long.mp4", ConcatPlan(**wrong))


def test_what_cannot_be_joined_is_refused(clips, tmp_path):
    with pytest.raises(SettingError, match="mp4"):
        concatenate(clips, tmp_path / "long.avi")
    with pytest.raises(SettingError, match="no event"):
        concatenate(clips[3:], tmp_path / "long.mp4", ConcatPlan(rest_label="quiet"))
    with pytest.raises(SettingError, match="one of the clips"):
        concatenate(clips, clips[0].path, overwrite=True)


@pytest.fixture
def table(clips, tmp_path):
    lines = [
        f"{clip.path},{clip.label},{clip.group},{'test' if i < 2 else 'train'}" for i, clip in enumerate(clips)
    ]
    path = tmp_path / "clips.csv"
    path.write_text("path,label,group,split\n" + "\n".join(lines) + "\n")
    return path


def test_groups_and_sets_choose_clips(table):
    manifest = read_manifest(table)
    assert [clip.group for clip in chosen_clips(manifest, groups=["g1", "g3"])] == ["g1", "g3"]
    assert [clip.group for clip in chosen_clips(manifest, split="test")] == ["g0", "g1"]
    with pytest.raises(SettingError, match="group"):
        chosen_clips(manifest, groups=["g9"])
    with pytest.raises(SettingError, match="none of 4 clips"):
        chosen_clips(manifest, split="validation")


def test_the_command(table, tmp_path):
    app = typer.Typer()
    app.command()(concat)
    out = tmp_path / "made" / "long.mp4"
    arguments = [str(table), "--out", str(out), "--only-split", "test", "--fps", "10", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts == {
        "video": str(out),
        "truth": str(out.with_suffix(".csv")),
        "num_clips": 2,
        "num_events": 2,
        "seconds": 3.0,
    }
    assert isinstance(CliRunner().invoke(app, arguments).exception, OutputExistsError)
