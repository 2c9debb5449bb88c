"""Files in, answers out: whole or by windows, in one pass; tables, subtitles and marked videos."""

import csv
import dataclasses
import json
import tracemalloc
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from vidette.errors import (
    EmptyVideoError,
    MissingVideoError,
    NoVideoStreamError,
    OutputExistsError,
    SettingError,
    UnreadableVideoError,
    VideoError,
)
from vidette.prediction.decision import DecisionPolicy
from vidette.prediction.files import check_output, predict_file, predict_files, write_output
from vidette.video.clip import ClipSpec, SpanRange
from vidette.video.names import find_videos
from vidette.video.reader import open_video, probe
from vidette.video.sampling import WindowCutter
from vidette.video.writer import write_video

FPS = 10.0
TRAINED = SpanRange(shortest_seconds=0.8, median_seconds=1.0, longest_seconds=1.2)
WHOLE = ClipSpec(num_frames=4, height=16, width=16, trained_spans=TRAINED)
WINDOW = ClipSpec(num_frames=4, height=16, width=16, sampling="window", fps=4.0)


@dataclass
class FakeClassifier:
    """Answers by brightness: its logits are linear in the mean pixel of the clip."""

    spec: ClipSpec
    classes: tuple[str, ...] = ("dark", "light")
    temperature: float = 2.0
    decision: dict[str, object] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)

    def logits(self, clips):
        self.batch_sizes.append(len(clips))
        bright = np.array([clip.pixels.mean() / 255 for clip in clips], dtype=np.float32)
        return np.stack([8 * (0.5 - bright), 8 * (bright - 0.5)], axis=1)

    def probabilities(self, logits):
        powers = np.exp(logits / self.temperature)
        return powers / powers.sum(axis=-1, keepdims=True)


def write(path: Path, *, dark: float = 0.0, light: float = 0.0, seconds: float | None = None) -> Path:
    """A video that is dark for a time, then light; `seconds` counts from first frame to last."""
    if seconds is not None:
        light = seconds + 1 / FPS
    levels = [0] * round(dark * FPS) + [255] * round(light * FPS)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, (np.full((32, 32, 3), level, np.uint8) for level in levels), fps=FPS)


def test_a_file_like_those_of_training_is_one_clip_over_the_whole_file(tmp_path):
    path = write(tmp_path / "a.mp4", seconds=1.1)
    classifier = FakeClassifier(WHOLE)
    found = predict_file(classifier, path)
    with open_video(path) as video:
        expected = classifier.probabilities(classifier.logits([video.clip(WHOLE)]))[0]
    assert found.aggregation == "whole"
    assert found.probabilities == pytest.approx(expected)
    assert (found.label, found.probability) == ("light", pytest.approx(expected[1]))
    assert [row.label for row in found.rows()] == ["light"]
    assert (found.rows()[0].start_seconds, found.rows()[0].end_seconds) == (0.0, pytest.approx(1.2, abs=0.01))
    assert found.warnings == ()


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_a_whole_clip_outside_the_trained_spans_is_reported(tmp_path, seconds):
    found = predict_file(FakeClassifier(WHOLE), write(tmp_path / "a.mp4", seconds=seconds))
    assert found.aggregation == "whole"
    assert len(found.warnings) == 1
    assert "0.80 to 1.20 s of training" in found.warnings[0]


def test_a_much_longer_file_is_the_mean_of_windows_of_the_trained_span(tmp_path):
    classifier = FakeClassifier(WHOLE)
    found = predict_file(classifier, write(tmp_path / "a.mp4", dark=3, light=6))
    assert found.aggregation == "mean_windows"
    starts = [window.start_seconds for window in found.timeline.windows]
    assert np.diff(starts)[:-1] == pytest.approx(0.5, abs=0.02)  # half of the median span
    assert [w.stop_seconds - w.start_seconds for w in found.timeline.windows] == pytest.approx(
        [1.1] * len(starts), abs=0.02
    )
    assert found.warnings == ()
    assert found.label == "light"
    logits = np.log(np.array([w.probabilities for w in found.timeline.windows])) * classifier.temperature
    centred = logits - logits.mean(axis=1, keepdims=True)
    assert found.probabilities == pytest.approx(classifier.probabilities(centred.mean(axis=0)), abs=1e-4)


def test_the_timeline_shows_when_the_light_went_on(tmp_path):
    found = predict_file(FakeClassifier(WHOLE), write(tmp_path / "a.mp4", dark=4, light=4))
    before, after = found.timeline.segments()
    assert (before.label, after.label) == ("dark", "light")
    assert before.stop_seconds == pytest.approx(4.0, abs=0.5)
    assert after.stop_seconds == pytest.approx(8.0, abs=0.02)


def test_windows_of_a_file_are_those_of_the_cutter_fed_frame_by_frame(tmp_path):
    path = write(tmp_path / "a.mp4", dark=2, light=3)
    classifier = FakeClassifier(WINDOW)
    cutter, clips = WindowCutter(WINDOW, stride_seconds=0.3), []
    with open_video(path) as video:
        for frame in video.frames(WINDOW):
            clips.append(cutter.push(frame))
    while (clip := cutter.flush()) is not None:
        clips.append(clip)
    clips = [clip for clip in clips if clip is not None]
    found = predict_file(classifier, path, stride_seconds=0.3)
    expected = classifier.probabilities(classifier.logits(clips))
    assert [w.start_seconds for w in found.timeline.windows] == [clip.seconds[0] for clip in clips]
    assert np.array([w.probabilities for w in found.timeline.windows]) == pytest.approx(expected)


def test_a_file_shorter_than_a_window_is_answered_and_reported(tmp_path):
    found = predict_file(FakeClassifier(WINDOW), write(tmp_path / "a.mp4", seconds=0.3))
    assert len(found.timeline.windows) == 1
    assert "shorter than the classifier's span" in found.warnings[0]


def test_a_stride_adds_a_timeline_to_a_whole_file_without_changing_its_answer(tmp_path):
    path = write(tmp_path / "a.mp4", dark=1.0, light=1.0)
    plain = predict_file(FakeClassifier(WHOLE), path)
    more = predict_file(FakeClassifier(WHOLE), path, stride_seconds=0.2)
    assert more.aggregation == "whole"
    assert more.probabilities == pytest.approx(plain.probabilities)
    assert len(more.timeline.windows) > 3


def test_a_stride_finer_than_the_frames_still_makes_a_timeline(tmp_path):
    found = predict_file(
        FakeClassifier(WINDOW), write(tmp_path / "a.mp4", dark=2, light=2), stride_seconds=0.01
    )
    assert [e.label for e in found.timeline.segments()] == ["dark", "light"]


def test_a_single_frame_classifier_answers_frame_by_frame(tmp_path):
    spec = ClipSpec(num_frames=1, height=16, width=16)
    found = predict_file(FakeClassifier(spec), write(tmp_path / "a.mp4", dark=2, light=3))
    assert found.aggregation == "mean_windows"
    spans = [(w.start_seconds, w.stop_seconds) for w in found.timeline.windows]
    assert np.array(spans) == pytest.approx(np.array([(i, i + 1) for i in range(5)]), abs=0.01)
    assert [e.label for e in found.timeline.segments()] == ["dark", "light"]


def test_memory_does_not_grow_with_the_file(tmp_path):
    spec = ClipSpec(num_frames=8, height=128, width=128, sampling="window", fps=8.0)
    peaks = []
    for seconds in (10, 30):
        path = write(tmp_path / f"{seconds}.mp4", light=seconds)
        tracemalloc.start()
        classifier = FakeClassifier(spec)
        predict_file(classifier, path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert max(classifier.batch_sizes) <= 8
    assert peaks[1] < 1.5 * peaks[0]


def two_streams(path: Path) -> Path:
    """One file with a dark and a light video stream."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for stream, level in zip(streams, (0, 255), strict=True):
            for _ in range(11):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_another_stream_of_the_file_gives_another_answer(tmp_path):
    path = two_streams(tmp_path / "two.mkv")
    labels = [predict_file(FakeClassifier(WHOLE), path, stream=stream).label for stream in (0, 1)]
    assert labels == ["dark", "light"]
    with pytest.raises(NoVideoStreamError, match="2"):
        predict_file(FakeClassifier(WHOLE), path, stream=2)


def test_lost_frames_are_warned_of(tmp_path):
    path = write(tmp_path / "a.mp4", seconds=1.0)
    assert predict_file(FakeClassifier(WHOLE), path).warnings == ()
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    path = write_video(tmp_path / "b.mp4", list(noise), fps=40.0)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        places = [(p.pos, p.size) for p in packets[10:13]]
    data = bytearray(path.read_bytes())
    for place, size in places:
        data[place + 5 : place + size] = bytes([255]) * (size - 5)
    path.write_bytes(data)
    every = dataclasses.replace(WHOLE, num_frames=40)
    found = predict_file(FakeClassifier(every), path).warnings
    assert any("3 frames are lost or damaged" in text for text in found)


def test_top_holds_the_best_labels_in_order(tmp_path):
    path = write(tmp_path / "a.mp4", seconds=1.0)
    found = predict_file(FakeClassifier(WHOLE), path, top=5)
    assert [label for label, _ in found.top] == ["light", "dark"]
    assert sum(p for _, p in found.top) == pytest.approx(1.0)
    assert len(predict_file(FakeClassifier(WHOLE), path, top=1).top) == 1


@pytest.mark.parametrize("setting", [{"stride_seconds": 0.0}, {"stride_seconds": float("nan")}, {"top": 0}])
def test_settings_out_of_range(tmp_path, setting):
    with pytest.raises(SettingError):
        predict_file(FakeClassifier(WHOLE), write(tmp_path / "a.mp4", seconds=1.0), **setting)


def test_a_stride_without_a_span_is_refused(tmp_path):
    spec = ClipSpec(num_frames=4, height=16, width=16)
    path = write(tmp_path / "a.mp4", seconds=1.0)
    assert predict_file(FakeClassifier(spec), path).aggregation == "whole"
    with pytest.raises(SettingError, match="no span"):
        predict_file(FakeClassifier(spec), path, stride_seconds=0.5)


def test_folders_are_searched_in_natural_order_and_files_taken_once(tmp_path):
    for name in ("10.mp4", "2.mp4", "b/1.MKV", ".hidden/3.mp4", ".4.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_videos([tmp_path, tmp_path / "2.mp4"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["2.mp4", "10.mp4", "b/1.MKV"]


def test_every_missing_path_is_named_at_once(tmp_path):
    there = write(tmp_path / "a.mp4", seconds=1.0)
    with pytest.raises(MissingVideoError) as caught:
        predict_files(FakeClassifier(WHOLE), [tmp_path / "x.mp4", there, tmp_path / "y.mp4"])
    assert "x.mp4" in str(caught.value)
    assert "y.mp4" in str(caught.value)
    assert "a.mp4" not in str(caught.value)


def test_a_folder_without_videos_is_an_error(tmp_path):
    with pytest.raises(UnreadableVideoError, match="no video file"):
        find_videos([tmp_path])


def test_a_broken_file_raises_or_is_skipped_and_counted(tmp_path):
    good = write(tmp_path / "b.mp4", seconds=1.0)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(EmptyVideoError):
        list(predict_files(FakeClassifier(WHOLE), [tmp_path]))
    skipped: list[VideoError] = []
    progress = []
    found = predict_files(
        FakeClassifier(WHOLE), [tmp_path], on_damage="skip", on_skip=skipped.append,
        on_progress=lambda *done: progress.append(done),
    )  # fmt: skip
    assert [prediction.path for prediction in found] == [good]
    assert [error.path for error in skipped] == [tmp_path / "a.mp4"]
    assert progress == [(1, 2), (2, 2)]
    with pytest.warns(UserWarning, match=r"skipped .*a\.mp4"):
        list(predict_files(FakeClassifier(WHOLE), [tmp_path], on_damage="skip"))
    with pytest.raises(SettingError):
        predict_files(FakeClassifier(WHOLE), [tmp_path], on_damage="ignore")


@pytest.fixture
def long_prediction(tmp_path):
    return predict_file(FakeClassifier(WHOLE), write(tmp_path / "in, put.mp4", dark=4, light=4))


def test_csv_and_json_lines_hold_the_same_rows(long_prediction, tmp_path):
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    write_output([long_prediction], table)
    write_output([long_prediction], lines)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parsed = [json.loads(line) for line in lines.read_text().splitlines()]
    assert list(parsed[0]) == list(rows[0]) == ["path", "start_seconds", "end_seconds", "label", "probability"]
    assert len(parsed) == len(rows) == len(long_prediction.timeline.windows)
    assert [{key: str(value) for key, value in line.items()} for line in parsed] == rows
    assert rows[0]["label"] == "dark"
    assert rows[-1]["label"] == "light"


def test_subtitles_say_what_is_on(long_prediction, tmp_path):
    text = write_output([long_prediction], tmp_path / "out.srt").read_text()
    assert text.count("-->") == 2
    assert "00:00:08,000" in text
    assert "light 98 %" in text


def test_a_classifiers_own_decision_makes_the_subtitles_and_abstains_in_the_table(tmp_path):
    path = write(tmp_path / "long.mp4", dark=8.0, light=8.0)
    quiet = DecisionPolicy(smoothing="none", quiet_labels=frozenset({"dark"}), abstain_probability=0.9)
    found = predict_file(FakeClassifier(WHOLE, decision=quiet.to_dict()), path)
    (event,) = found.timeline.events()
    assert event.label == "light"
    text = write_output([found], tmp_path / "out.srt").read_text()
    assert text.count("-->") == 1
    assert "light 98 %" in text
    labels = [row.label for row in found.rows()]
    assert {"dark", "light"} <= set(labels) <= {"dark", "light", "unknown"}
    assert ["unknown" if row.probability < 0.9 else row.label for row in found.rows()] == labels
    unsure = dataclasses.replace(quiet, abstain_probability=1.0).to_dict()
    rows = predict_file(FakeClassifier(WHOLE, decision=unsure), path).rows()
    assert {row.label for row in rows} == {"unknown"}


def test_a_decision_with_a_wrong_key_is_named(tmp_path):
    path = write(tmp_path / "short.mp4", dark=1.0)
    with pytest.raises(SettingError, match="did you mean 'smoothing'"):
        predict_file(FakeClassifier(WHOLE, decision={"smoothin": "mean"}), path)


def test_annotated_video_is_as_long_as_its_source(long_prediction, tmp_path):
    out = write_output([long_prediction], tmp_path / "out.MP4")
    assert probe(out).duration_seconds == pytest.approx(probe(long_prediction.path).duration_seconds, abs=0.11)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".srt", ".mp4"])
def test_an_output_that_exists_is_kept_unless_told(long_prediction, tmp_path, ending):
    out = tmp_path / f"out{ending}"
    out.write_text("precious")
    with pytest.raises(OutputExistsError):
        write_output([long_prediction], out)
    assert out.read_text() == "precious"
    write_output([long_prediction], out, overwrite=True)
    assert out.read_bytes() != b"precious"


def test_an_unknown_ending_names_the_nearest(long_prediction, tmp_path):
    with pytest.raises(SettingError, match=r"did you mean '\.jsonl'"):
        write_output([long_prediction], tmp_path / "out.json")


def test_subtitles_and_marked_videos_are_of_one_video(long_prediction, tmp_path):
    for count in (0, 2):
        with pytest.raises(SettingError, match="made from one video"):
            write_output([long_prediction] * count, tmp_path / "out.srt")
    with pytest.raises(SettingError, match="one of the videos"):
        write_output([long_prediction], long_prediction.path, overwrite=True)


def test_output_can_be_checked_before_the_work(tmp_path):
    check_output(tmp_path / "new.csv")
    (tmp_path / "old.csv").touch()
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "old.csv")
    check_output(tmp_path / "old.csv", overwrite=True)


def test_no_predictions_make_an_empty_table(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = write_output([], tmp_path / "out.csv")
    assert out.read_text() == "path,start_seconds,end_seconds,label,probability\n"
