"""``vidette explain``: its files, its words, its JSON, and what it refuses."""

import json

import pytest
import torch
from typer.testing import CliRunner

from vidette.classifier.classifier import Classifier
from vidette.cli import app
from vidette.errors import ManifestError, MissingVideoError, OutputExistsError, SettingError
from vidette.models import build_model
from vidette.video.clip import ClipSpec
from vidette.video.motion import CLASSES

NAMES = ("contact_sheet.png", "frames_against_clips.png", "overlay.mp4")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("explain") / "classifier"
    model = build_model("conv3d_small", num_classes=8, num_frames=4, height=32, width=32)
    spec = ClipSpec(num_frames=4, height=32, width=32)
    return Classifier(model, "conv3d_small", {}, spec, CLASSES).save(folder)


@pytest.fixture(scope="module")
def videos(motion_clips):
    return sorted(motion_clips.glob("left/*.mp4"))[:2]


def vidette(*arguments):
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_one_video_with_its_place_among_training_clips(classifier, videos, motion_clips, tmp_path):
    out = tmp_path / "out"
    done = vidette(
        classifier, videos[0], "--out", out, "--reference", motion_clips, "--label", "left", "--json"
    )
    told = json.loads(done.stdout)
    assert sorted(path.name for path in out.iterdir()) == sorted([*NAMES, "feature_space.png"])
    (video,) = told["videos"]
    assert video["asked"] == video["clips"][0]["label"] == "left"
    assert video["clips"][0]["where"]["layer"].startswith("head.net")
    assert len(video["clips"][0]["when"]["per_frame"]) == 4
    assert -1 <= video["map_similarity_when_randomised"] <= 1
    assert told["feature_space"]["num_training"] == 96
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OutputExistsError, match="--overwrite"):
        vidette(classifier, videos[0], "--out", out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_several_videos_have_a_folder_each_and_are_told_in_words(classifier, videos, tmp_path):
    same_name = videos[0].parents[1] / "right" / videos[0].name
    done = vidette(classifier, videos[0], same_name, "--out", tmp_path / "out")
    folders = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert set(folders) == {videos[0].stem, f"{videos[0].stem}-2"}
    for folder in folders.values():
        assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    for words in ("The whole video is", "Where:", "When:", "Check:"):
        assert done.stdout.count(words) == 2


def test_bad_input_is_refused_and_nothing_is_written(classifier, videos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(MissingVideoError):
        vidette(classifier, tmp_path / "absent.mp4", "--out", out)
    with pytest.raises(SettingError, match="unknown class"):
        vidette(classifier, videos[0], "--out", out, "--label", "lefft")
    with pytest.raises(ManifestError):
        vidette(classifier, videos[0], "--out", out, "--reference", tmp_path / "none")
    assert not out.exists()
