"""A whole audit, on drawn clips whose scenes are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from vidette.cli_audit import audit as audit_command
from vidette.data.audit import audit, write_groups
from vidette.data.audit_report import write_audit_report
from vidette.data.cache import ClipCache
from vidette.data.manifest import read_manifest
from vidette.data.split import SplitPlan, split_manifest
from vidette.errors import ManifestError, OutputExistsError
from vidette.video.motion import write_motion_clips


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    write_motion_clips(folder / "clips", num_scenes=3, size=(96, 128))
    return folder


@pytest.fixture(scope="module")
def cache(place):
    return ClipCache(place / "cache")


@pytest.fixture(scope="module")
def audits(place, cache):
    manifest = read_manifest(place / "clips")
    splits = {name: split_manifest(manifest, SplitPlan(strategy=name)) for name in ("grouped", "stratified")}
    return {name: audit(manifest, split, cache=cache) for name, split in splits.items()}


def test_scenes_are_found_from_pictures_alone(audits):
    known = audits["grouped"].known
    truth = [clip.group for clip in known.clips]
    found = known.scenes.scene_of
    same = np.array(truth)[:, None] == np.array(truth)
    assert ((found[:, None] == found) == same).all()


def test_a_grouped_split_is_clean_and_a_stratified_one_leaks(audits):
    assert audits["grouped"].finding("scene_leak") is None
    leak = audits["stratified"].finding("scene_leak")
    assert leak is not None
    assert leak.severity == "alarm"
    assert "8 of 8 test clips (100%" in leak.evidence[0]
    sides = audits["stratified"].known.sides
    scene_of = audits["stratified"].known.scenes.scene_of
    for example in leak.examples:
        assert len({scene_of[i] for i in example.clips}) == 1
        assert len({str(sides[i]) for i in example.clips}) > 1


def test_equal_places_and_files_give_no_label_away(audits):
    assert audits["grouped"].finding("shortcut_files") is None
    assert audits["grouped"].finding("shortcut_background") is None


def test_without_a_split_nothing_is_said_of_one(place, cache):
    report = audit(read_manifest(place / "clips"), cache=cache)
    assert report.finding("scene_leak") is None
    assert report.known.sides is None


def test_found_groups_are_a_manifest_that_splits_by_scene(audits, place):
    path = place / "groups.csv"
    write_groups(audits["stratified"], path)
    assert path.read_text().splitlines()[0] == "path,label,group"
    manifest = read_manifest(path)
    assert len(manifest.groups) == 3
    split = split_manifest(manifest, SplitPlan())
    assert split.name == "grouped"
    assert not {manifest.group_of(i) for i in split.test} & {manifest.group_of(i) for i in split.train}
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="overwrite"):
        write_groups(audits["stratified"], path)
    assert path.read_bytes() == before
    write_groups(audits["stratified"], path, overwrite=True)


def test_the_report_is_one_page_with_pictures(audits, place, cache):
    path = write_audit_report(audits["stratified"], place / "report.html", cache=cache)
    page = path.read_text()
    assert "Most test clips share a scene" in page
    assert page.count("data:image/jpeg") > 10
    assert "http://" not in page
    assert "https://" not in page
    with pytest.raises(OutputExistsError):
        write_audit_report(audits["stratified"], path, cache=cache)


def test_json_is_strict_and_names_clips(audits):
    values = json.loads(json.dumps(audits["stratified"].to_dict(), allow_nan=False))
    assert values["findings"][0]["name"] == "scene_leak"
    assert values["findings"][0]["examples"][0]["clips"][0].endswith(".mp4")
    assert sum(len(scene["clips"]) for scene in values["scenes"]) == 24


def test_unreadable_clips_are_left_out_and_named(place, cache, tmp_path):
    clips = sorted((place / "clips" / "left").glob("*.mp4")) + sorted((place / "clips" / "up").glob("*.mp4"))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 40)
    rows = [f"{clip},{clip.parent.name}" for clip in clips] + [f"{broken},up"]
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    report = audit(read_manifest(table), cache=cache)
    assert len(report.known.clips) == 6
    assert len(report.unreadable) == 1
    finding = report.finding("unreadable_clips")
    assert finding is not None
    assert "broken.mp4" in finding.evidence[0]
    table.write_text(f"path,label\n{broken},up\n")
    with pytest.raises(ManifestError, match="none of 1 clips"):
        audit(read_manifest(table, min_classes=1), cache=cache)


def test_the_command_writes_what_was_asked(place, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDETTE_CACHE", str(cache.folder))
    app = Typer()
    app.command()(audit_command)
    groups, page = tmp_path / "groups.csv", tmp_path / "report.html"
    asked = [
        str(place / "clips"),
        "--split",
        "stratified",
        "--write-groups",
        str(groups),
        "--report",
        str(page),
    ]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "Most test clips share a scene" in done.output
    assert groups.is_file()
    assert page.is_file()
    again = CliRunner().invoke(app, asked)
    assert isinstance(again.exception, OutputExistsError)
