"""Disturbed clips are scored as the formulas say, decoded once, and told in tables and pictures."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from vidette.classifier.classifier import Classifier
from vidette.cli_evaluate import evaluate
from vidette.cli_robustness import disturbance
from vidette.data.manifest import LabelledClip
from vidette.errors import InputMismatchError, SettingError, TruncatedVideoError
from vidette.evaluation.metrics import Predictions, measure
from vidette.evaluation.report import write_report
from vidette.evaluation.robustness import choose_clips, chosen_corruptions, measure_robustness
from vidette.evaluation.robustness_plot import robustness_png
from vidette.evaluation.robustness_scores import DisturbedAnswers, robustness_of
from vidette.evaluation.run import Evaluation
from vidette.models import build_model
from vidette.video.clip import Clip, ClipSpec
from vidette.video.corruptions import CORRUPTIONS
from vidette.video.motion import CLASSES

SPEC = ClipSpec(num_frames=8, height=8, width=8)


class Shelf:
    """Clips by name, as a cache gives them; counts how often each was asked for."""

    def __init__(self, clips: dict[str, Clip]):
        self.clips, self.asked = clips, []

    def load(self, clip, spec):
        self.asked.append(clip.name)
        if clip.name not in self.clips:
            raise TruncatedVideoError(clip.path, "breaks off")
        return self.clips[clip.name]


def labelled(name: str, label: str, group: str | None = None) -> LabelledClip:
    return LabelledClip(path=Path(name), label=label, group=group)


def level_clips(values, *, num_frames=8) -> tuple[list[LabelledClip], Shelf]:
    """One clip of one brightness a value; those above the middle are labelled rise."""
    clips = [labelled(f"{i}.mp4", "rise" if v > 127 else "fall", f"g{i // 2}") for i, v in enumerate(values)]
    pixels = {
        clip.name: Clip(np.full((num_frames, 8, 8, 3), v, np.uint8), np.arange(num_frames) / 8)
        for clip, v in zip(clips, values, strict=True)
    }
    return clips, Shelf(pixels)


def test_choosing_keeps_each_class_its_share_and_the_order():
    clips = [labelled(f"{i}.mp4", "rare" if i % 5 == 0 else "common") for i in range(100)]
    chosen = choose_clips(clips, 20)
    assert [clip.label for clip in chosen].count("rare") == 4
    assert [clips.index(clip) for clip in chosen] == sorted(clips.index(clip) for clip in chosen)
    assert chosen == choose_clips(clips, 20)
    assert chosen != choose_clips(clips, 20, seed=1)
    assert choose_clips(clips, 200) == clips
    with pytest.raises(SettingError, match="expected 1 or more"):
        choose_clips(clips, 0)


def test_names_are_checked_and_put_in_order():
    assert [kind.name for kind in chosen_corruptions(["freeze", "dark"])] == ["dark", "freeze"]
    assert len(chosen_corruptions()) == len(CORRUPTIONS)
    with pytest.raises(SettingError, match="did you mean 'dark'"):
        chosen_corruptions(["drak"])


def hand_made(num_groups=4):
    """Four clips, two levels, two corruptions: right clean 4 of 4; dark 3 and 1 of 4; haze 4 and 2 of 4."""
    labels = np.array([0, 0, 1, 1])

    def logits(right):
        return np.where(np.eye(2)[np.where(right, labels, 1 - labels)] > 0, 2.0, 0.0)

    def answers(*rows):
        clips = np.stack([logits(np.array(row, bool)) for row in rows])
        return DisturbedAnswers(clips, np.stack([clips, clips], axis=2))

    disturbed = {
        CORRUPTIONS["dark"]: answers([1, 1, 1, 0], [1, 0, 0, 0]),
        CORRUPTIONS["haze"]: answers([1, 1, 1, 1], [1, 1, 0, 0]),
    }
    whole = answers([1, 1, 1, 1])
    clean = DisturbedAnswers(whole.clip_logits[0], whole.frame_logits[0])
    groups = [str(i % num_groups) for i in range(4)]
    return robustness_of(clean, disturbed, labels, levels=(1, 2), groups=groups, temperature=1.0)


def test_rpc_is_the_mean_over_levels_then_corruptions_over_clean():
    scored = hand_made()
    dark, haze = scored.corruptions
    assert (dark.accuracy, haze.accuracy) == (0.5, 0.75)
    assert dark.relative == 0.5
    assert scored.accuracy == 0.625
    assert scored.relative == 0.625
    assert scored.relative_interval.low <= 0.625 <= scored.relative_interval.high
    assert scored.guessing == 0.5
    assert [level.accuracy for level in dark.levels] == [0.75, 0.25]
    assert [level.changed for level in dark.levels] == [0.25, 0.75]
    confidence = np.exp(2) / (np.exp(2) + 1)
    assert dark.levels[0].ece == pytest.approx(abs(0.75 - confidence))
    assert dark.levels[0].strength == -1
    assert "Hardest, mean over the levels: dark (50%), haze (75%)" in scored.reading()[2]


def test_nothing_right_makes_rpc_undefined():
    wrong = DisturbedAnswers(np.eye(2)[[1, 1]] * 2, np.eye(2)[[[1], [1]]] * 2)
    disturbed = {CORRUPTIONS["dark"]: DisturbedAnswers(wrong.clip_logits[None], wrong.frame_logits[None])}
    labels = np.array([0, 0])
    scored = robustness_of(wrong, disturbed, labels, levels=(1,), groups=("a", "b"), temperature=1.0)
    assert np.isnan(scored.relative)
    assert np.isnan(scored.clean.flicker)
    values = json.loads(json.dumps(scored.to_dict(), allow_nan=False))
    assert values["relative"] is None
    assert "undefined" in scored.reading()[0]


def test_one_group_has_no_interval():
    scored = hand_made(num_groups=1)
    assert not scored.relative_interval.defined
    assert "interval" not in scored.reading()[0]


def test_what_darkness_does_to_a_classifier_of_brightness(fake_classifier):
    clips, shelf = level_clips([20, 200, 40, 220, 60, 240])
    scored = measure_robustness(
        fake_classifier(SPEC, looks_at="mean"), clips, cache=shelf, corruptions=["dark", "faster"]
    )
    dark, faster = scored.corruptions
    assert scored.clean.accuracy == 1
    assert [level.accuracy for level in dark.levels][-1] == 0.5
    assert [level.accuracy for level in faster.levels] == [1] * 5
    assert dark.relative < 1 == faster.relative
    assert dark.levels[-1].ece > scored.clean.ece
    assert (scored.n, scored.num_groups) == (6, 3)
    assert shelf.asked == [clip.name for clip in clips]


def test_corruptions_of_time_reuse_what_was_seen_of_each_frame(fake_classifier, ramp):
    clips = [labelled("up.mp4", "rise"), labelled("down.mp4", "fall")]
    shelf = Shelf({"up.mp4": ramp(rising=True), "down.mp4": ramp(rising=False)})
    classifier = fake_classifier(SPEC)
    scored = measure_robustness(classifier, clips, cache=shelf, corruptions=["freeze", "slower", "frame_drop"])
    assert classifier.frames_seen == 2 * 8
    assert scored.relative == 1


def test_flicker_counts_neighbouring_frames_answered_otherwise(fake_classifier, ramp):
    clips = [labelled("up.mp4", "rise")]
    scored = measure_robustness(
        fake_classifier(SPEC, looks_at="mean"),
        clips,
        cache=Shelf({"up.mp4": ramp(rising=True)}),
        corruptions=["freeze"],
        levels=[5],
    )
    assert scored.frames_per_clip == 4
    assert scored.clean.flicker == pytest.approx(1 / 3)
    assert scored.clean.frame_accuracy == 0.5


def test_levels_are_those_asked_for(fake_classifier):
    clips, shelf = level_clips([20, 200])
    classifier = fake_classifier(SPEC, looks_at="mean")
    scored = measure_robustness(classifier, clips, cache=shelf, corruptions=["dark"], levels=[5, 1])
    assert [level.level for level in scored.corruptions[0].levels] == [1, 5]
    for levels in ([0], [6], []):
        with pytest.raises(SettingError, match="expected some of 1"):
            measure_robustness(classifier, clips, cache=shelf, corruptions=["dark"], levels=levels)


def test_a_classifier_of_one_frame_is_not_asked_about_time(fake_classifier):
    clips, shelf = level_clips([20, 200], num_frames=1)
    spec = dataclasses.replace(SPEC, num_frames=1)
    classifier = fake_classifier(spec, looks_at="mean")
    scored = measure_robustness(classifier, clips, cache=shelf, corruptions=["dark", "freeze"])
    assert [score.name for score in scored.corruptions] == ["dark"]
    with pytest.raises(SettingError, match="one frame"):
        measure_robustness(classifier, clips, cache=shelf, corruptions=["freeze"])


def test_foreseen_once_and_progress_to_the_end(fake_classifier):
    clips, shelf = level_clips([20, 200, 210])
    foreseen, progress = [], []
    measure_robustness(
        fake_classifier(SPEC, looks_at="mean"),
        clips,
        cache=shelf,
        corruptions=["dark", "freeze"],
        levels=[1, 3],
        on_foreseen=foreseen.append,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert len(foreseen) == 1
    assert foreseen[0] > 0
    assert progress[-1] == (12, 12)
    assert [done for done, _ in progress] == [2, 4, 6, 8, 10, 12]


def test_damage_is_raised_or_left_out_and_listed(fake_classifier):
    clips, shelf = level_clips([20, 200])
    clips.insert(1, labelled("broken.mp4", "rise"))
    classifier = fake_classifier(SPEC, looks_at="mean")
    with pytest.raises(TruncatedVideoError):
        measure_robustness(classifier, clips, cache=shelf, corruptions=["dark"])
    scored = measure_robustness(classifier, clips, cache=shelf, corruptions=["dark"], on_damage="skip")
    assert scored.n == 2
    assert "broken.mp4" in scored.skipped[0]
    with pytest.raises(InputMismatchError, match="none of the 1 clips"):
        measure_robustness(classifier, clips[1:2], cache=shelf, corruptions=["dark"], on_damage="skip")


def test_unknown_labels_and_no_clips_are_refused(fake_classifier):
    classifier = fake_classifier(SPEC)
    with pytest.raises(InputMismatchError, match="there is no clip"):
        measure_robustness(classifier, [], cache=Shelf({}))
    with pytest.raises(InputMismatchError, match="unknown label"):
        measure_robustness(classifier, [labelled("a.mp4", "jump")], cache=Shelf({}))


def test_options_are_read_or_refused():
    wanted = disturbance(corruptions="all", levels="3,1,3", adversarial=None, num_clips=None)
    assert len(wanted.corruptions) == len(CORRUPTIONS)
    assert wanted.levels == (1, 3)
    assert wanted.num_clips == 100
    for options, message in (
        ({"levels": "1"}, "--levels is for --corruptions"),
        ({"num_clips": 3}, "--num-clips is for"),
        ({"corruptions": ","}, "names with commas"),
        ({"corruptions": "dark", "levels": "0"}, "from 1 to 5"),
        ({"corruptions": "dark", "levels": "x"}, "from 1 to 5"),
        ({"adversarial": "pdg"}, "unknown attack"),
    ):
        given = {"corruptions": None, "levels": None, "adversarial": None, "num_clips": None} | options
        with pytest.raises(SettingError, match=message):
            disturbance(**given)


def test_picture_and_report_show_it(tmp_path):
    scored = hand_made()
    assert Image.open(io.BytesIO(robustness_png(scored))).size[0] > 400
    labels = np.array([0, 1, 0, 1])
    predictions = Predictions(("a", "b"), labels, np.eye(2)[labels], ("g", "h", "i", "j"), tuple("wxyz"))
    evaluation = Evaluation(measure(predictions), None, predictions, (), "test")
    path = tmp_path / "report.html"
    write_report(path, title="t", evaluation=evaluation, classifier_facts={}, robustness=scored)
    page = path.read_text(encoding="utf-8")
    assert "What if the video is disturbed?" in page
    assert '<td title="weather">haze</td>' in page
    assert page.count("data:image/png") == 3
    write_report(path, title="t", evaluation=evaluation, classifier_facts={})
    assert "disturbed" not in path.read_text(encoding="utf-8")


def test_the_command_disturbs_and_attacks(motion_clips, tmp_path):
    model = build_model(
        "cnn_gru", num_classes=8, num_frames=4, height=32, width=32, options={"backbone": "small"}
    )
    spec = ClipSpec(num_frames=4, height=32, width=32)
    Classifier(model, "cnn_gru", {"backbone": "small"}, spec, CLASSES).save(tmp_path / "clf", onnx=False)
    rows = [f"{motion_clips}/{name}/scene-00{i}.mp4,{name},g{i}" for name in CLASSES[:2] for i in range(3)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group", *rows]), encoding="utf-8")
    app = typer.Typer()
    app.command()(evaluate)
    options = ["--corruptions", "dark,freeze", "--levels", "1,5", "--adversarial", "fgsm", "--num-clips", "4"]
    paths = [str(tmp_path / "clf"), str(tmp_path / "clips.csv"), "--report", str(tmp_path / "report.html")]
    done = CliRunner().invoke(app, [*paths, *options, "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["metrics"]["n"] == 6
    assert values["robustness"]["n"] == 4
    assert [score["name"] for score in values["robustness"]["corruptions"]] == ["dark", "freeze"]
    assert [score["strength"] for score in values["attacks"]] == [0, 1, 2, 4, 8]
    assert "Can it be fooled on purpose?" in (tmp_path / "report.html").read_text(encoding="utf-8")
    plain = CliRunner().invoke(app, [*paths[:2], *options])
    assert "rPC" in plain.stdout
    assert "4 of 6 clips, drawn by a fixed seed" in plain.stderr
    assert "2 corruptions at 2 levels: 16 disturbed clips" in plain.stderr
