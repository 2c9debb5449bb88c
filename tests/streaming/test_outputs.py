"""Outputs: whole at any moment, one record at a time."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vidette.errors import OutputExistsError, SettingError, StorageError
from vidette.prediction.decision import Event, Window
from vidette.streaming.outputs import CsvScores, JsonLines, Subtitles, open_outputs
from vidette.streaming.records import Decided, Note, Score, Status
from vidette.streaming.view import TerminalView

CLASSES = ("idle", "[red]wave", "fall")
STATUS = Status(
    fps=7.9,
    wanted_fps=8.0,
    lag_seconds=0.0123,
    step_seconds=0.01,
    backlog=0,
    num_answered=12,
    num_skipped=3,
    num_damaged=2,
    num_returns=1,
)


def score(start=1.0, probabilities=(0.1, 0.7, 0.2), source="cam"):
    found = np.array(probabilities)
    return Score(source, Window(start, start + 2.0, found), CLASSES, found, np.log(found), 0, STATUS)


def event(start=1.0, stop=2.5, label="a < b", confidence=0.876):
    return Decided("cam", Event(start, stop, label, confidence))


LOST = Note("cam", "lost", 4.5, "cam: nothing came for 5 s; connecting again")


def test_json_lines_say_everything(tmp_path):
    out = JsonLines(tmp_path / "deep" / "a.jsonl")
    for record in (score(), event(), LOST):
        out.take(record)
    lines = [json.loads(line) for line in (tmp_path / "deep" / "a.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == ["score", "event", "note"], "written before it is closed"
    assert lines[0]["label"] == "[red]wave"
    assert lines[0]["probabilities"] == {"[red]wave": 0.7, "fall": 0.2, "idle": 0.1}
    assert (lines[0]["num_skipped"], lines[0]["lag_seconds"], lines[0]["fps"]) == (3, 0.0123, 7.9)
    assert (lines[1]["start_seconds"], lines[1]["end_seconds"], lines[1]["label"]) == (1.0, 2.5, "a < b")
    assert (lines[2]["kind"], lines[2]["run_seconds"]) == ("lost", 4.5)
    out.close()


def test_json_goes_to_an_open_stream_and_leaves_it_open():
    stream = io.StringIO()
    out = JsonLines(stream)
    out.take(event())
    out.close()
    assert json.loads(stream.getvalue())["type"] == "event"


def test_csv_has_a_row_a_score(tmp_path):
    out = CsvScores(tmp_path / "a.csv")
    for record in (score(), LOST, event(), score(2.0, (0.9, 0.05, 0.05), 'c,"am')):
        out.take(record)
    rows = list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    assert [row["label"] for row in rows] == ["[red]wave", "idle"]
    assert rows[1] == {
        "source": 'c,"am',
        "start_seconds": "2.0",
        "end_seconds": "4.0",
        "label": "idle",
        "probability": "0.9",
    }
    out.close()


SRT = """1
00:00:01,000 --> 00:00:02,500
a < b 88 %

2
01:01:01,000 --> 01:01:02,250
wave 88 %

"""
VTT = """WEBVTT

00:00:01.000 --> 00:00:02.500
a &lt; b 88 %

01:01:01.000 --> 01:01:02.250
wave 88 %

"""


@pytest.mark.parametrize(("ending", "expected"), [(".srt", SRT), (".vtt", VTT)])
def test_events_become_subtitles(tmp_path, ending, expected):
    path = tmp_path / f"a{ending}"
    out = Subtitles(path)
    for record in (score(), event(), LOST, event(5.0, 5.0), event(3661.0, 3662.25, "wave")):
        out.take(record)
    assert path.read_bytes().decode() == expected
    out.close()


def test_outputs_are_opened_by_their_ending_and_checked_before(tmp_path):
    paths = [tmp_path / name for name in ("a.jsonl", "b.csv", "c.srt", "d.vtt")]
    kinds = [type(output) for output in open_outputs(paths, num_sources=1)]
    assert kinds == [JsonLines, CsvScores, Subtitles, Subtitles]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        open_outputs([tmp_path / "new.csv", paths[0]], num_sources=1)
    assert not (tmp_path / "new.csv").exists(), "all of them or none"
    assert open_outputs(paths, num_sources=1, overwrite=True)


@pytest.mark.parametrize(
    ("names", "sources", "kind", "message"),
    [
        (["a.jsonls"], 1, SettingError, "did you mean '.jsonl'"),
        (["a.srt"], 2, SettingError, "subtitles are of one source, got 2"),
        (["a.csv", "./a.csv"], 1, SettingError, "named twice"),
        (["taken/a.csv"], 1, OutputExistsError, "exists already|cannot be written"),
    ],
)
def test_outputs_that_cannot_be(tmp_path, monkeypatch, names, sources, kind, message):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    with pytest.raises(kind, match=message):
        open_outputs(names, num_sources=sources)


def test_a_full_disk_is_told():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    out = JsonLines(full, overwrite=True)
    with pytest.raises(StorageError, match="cannot be written: No space left"):
        out.take(event())


def test_the_terminal_shows_bars_rate_lag_and_what_was_skipped():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, height=30, color_system=None)
    view = TerminalView(console)
    for record in (score(), event(), LOST, score(source="other")):
        view.take(record)
    view.close()
    shown = text.getvalue()
    for part in (
        "[red]wave 70%",
        "━",
        "7.9 of 8.0 fps",
        "lag 12 ms",
        "skipped 3",
        "damaged 2",
        "reconnected 1",
    ):
        assert part in shown
    assert "a < b  87.6%" in shown
    assert "lost: cam: nothing came" in shown
    assert "other" in shown


def test_without_a_terminal_events_and_notes_are_lines():
    text = io.StringIO()
    view = TerminalView(Console(file=text, width=200))
    for record in (score(), event(), LOST):
        view.take(record)
    view.close()
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert "1.00 to" in lines[0]
    assert lines[1].startswith("lost: cam: nothing")
