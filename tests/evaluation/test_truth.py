"""Tables of what really happens."""

import pytest

from vidette.errors import InputMismatchError, ManifestError
from vidette.evaluation.stream import truth_of
from vidette.evaluation.truth import check_labels, read_truth
from vidette.prediction.decision import Event


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "truth.csv"
        path.write_text(text)
        return path

    return write


def test_the_truth_of_one_video(table):
    path = table("start_seconds,end_seconds,label\n4,6.5,b\n\n1,2,a\n")
    assert read_truth(path) == {"": (Event(1, 2, "a", 1.0), Event(4, 6.5, "b", 1.0))}


def test_nothing_happens(table):
    assert read_truth(table("start_seconds,end_seconds,label\n")) == {"": ()}


def test_the_truth_of_several_videos(table, tmp_path):
    path = table("path,start_seconds,end_seconds,label\nx.mp4,1,2,a\nx.mp4,1.5,3,b\nquiet.mp4,,,\n")
    found = read_truth(path)
    assert set(found) == {str(tmp_path / "x.mp4"), str(tmp_path / "quiet.mp4")}
    assert len(truth_of(tmp_path / "x.mp4", path)) == 2
    assert truth_of(tmp_path / "quiet.mp4", path) == ()
    with pytest.raises(InputMismatchError, match=r"says nothing of .*y\.mp4"):
        truth_of(tmp_path / "y.mp4", path)


def test_every_fault_is_told_at_once(table):
    rows = ["3,2,a", "x,2,a", "1,2,", "5,7,c", "6,8,c", "1,2"]
    with pytest.raises(ManifestError) as caught:
        read_truth(table("start_seconds,end_seconds,label\n" + "\n".join(rows) + "\n"))
    text = str(caught.value)
    assert "5 faults" in text
    assert "line 2" in text
    assert "line 3" in text
    assert "c at 6 s" in text
    assert "no label (2): line 4, line 7" in text


@pytest.mark.parametrize("text", ["", "start,stop,label\n1,2,a\n"])
def test_a_table_without_its_header_is_refused(table, text):
    with pytest.raises(ManifestError, match="start_seconds"):
        read_truth(table(text))


def test_no_table(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read"):
        read_truth(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ManifestError):
        read_truth(tmp_path / "binary.csv")


def test_a_label_that_the_classifier_does_not_know():
    with pytest.raises(InputMismatchError, match="did you mean 'wave'"):
        check_labels([Event(0, 1, "wvae", 1.0)], ("idle", "wave"), source="truth.csv")
