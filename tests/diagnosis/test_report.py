"""The page holds everything in itself, in words for everybody, and takes extra sections."""

import re

import pytest

from vidette.diagnosis.findings import Diagnosis, Picture
from vidette.diagnosis.ranking import ranked
from vidette.diagnosis.report import Section, write_diagnosis_report
from vidette.diagnosis.wording import CAUSES, new_finding
from vidette.errors import OutputExistsError


def diagnosis(*findings):
    return Diagnosis(
        subject="<my> model",
        source="clips",
        findings=ranked(findings),
        facts={"clips looked at": "12"},
        notes=("a note",),
        seconds=2.0,
    )


def test_the_page_is_self_contained_and_escaped(tmp_path):
    finding = new_finding(
        "dark", "Brightness: 12.", confidence=0.9, explains=0.8, pictures=(Picture("<dark> frames", b"png"),)
    )
    follows = new_finding("over_confident", "ECE 0.3", confidence=0.7, explains=0.2, severity="warning")
    extra = Section("Frames against clips", ("They agree.",), (("a strip", "data:image/png;base64,AAAA"),))
    path = write_diagnosis_report(tmp_path / "report.html", diagnosis(finding, follows), sections=[extra])
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<my>" not in page
    assert "<dark>" not in page
    for text in (
        "The pictures are darker",
        "What to do",
        "Frames against clips",
        "They agree.",
        "What probably follows",
    ):
        assert text in page
    with pytest.raises(OutputExistsError):
        write_diagnosis_report(path, diagnosis(finding))


def test_healthy_is_an_answer(tmp_path):
    note = new_finding("order_not_used", "by design", confidence=0.9, explains=0.1, severity="note")
    found = diagnosis(note)
    assert found.healthy
    page = write_diagnosis_report(tmp_path / "r.html", found).read_text(encoding="utf-8")
    assert "Healthy" in page
    assert "Worth knowing" in page


def test_causes_come_before_what_follows_from_them():
    cause = new_finding("weights_not_loaded", "all", confidence=0.9, explains=0.6)
    symptom = new_finding("bias_driven", "one answer", confidence=0.9, explains=0.7)
    other = new_finding("train_test_leak", "same clips", confidence=0.5, explains=0.4)
    note = new_finding("order_not_used", "x", confidence=1.0, explains=1.0, severity="note")
    assert [f.name for f in ranked([note, symptom, other, cause])] == [
        "weights_not_loaded",
        "train_test_leak",
        "bias_driven",
        "order_not_used",
    ]


def test_plain_values_for_programs():
    found = diagnosis(new_finding("dark", "x", confidence=0.5, explains=0.5, numbers={"gain": float("nan")}))
    values = found.to_dict()
    assert values["healthy"] is False
    assert values["findings"][0]["numbers"] == {"gain": None}


def test_every_cause_says_what_it_is_and_what_to_do():
    for name, words in CAUSES.items():
        assert all((words.title, words.cause, words.repair)), name
        assert words.repair.endswith(".")
