"""The report is one file that refers to nothing outside, says the numbers, and survives odd input."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vidette.errors import MissingVideoError, StorageError
from vidette.evaluation.consistency import Consistency
from vidette.evaluation.metrics import Interval, Predictions, measure
from vidette.evaluation.report import write_report
from vidette.evaluation.run import Evaluation
from vidette.video.clip import Clip

NASTY = "<script>alert('x')</script>&$x_1$"
USES_ORDER = Consistency(40, 0.9, 0.4, 0.5, 0.45, 0.5, 0.4, Interval(0.3, 0.5), 0.4, Interval(0.2, 0.6), 4, 3)


def evaluation(
    num_clips=40, classes=("left", "right"), *, gain=1.5, consistency=USES_ORDER, **more
) -> Evaluation:
    generator = np.random.default_rng(0)
    labels = generator.integers(len(classes), size=num_clips)
    logits = generator.normal(size=(num_clips, len(classes)))
    logits[np.arange(num_clips), labels] += gain
    groups = tuple(f"g{i % 12}" for i in range(num_clips))
    predictions = Predictions(
        classes, labels, logits, groups, tuple(f"{i}/{NASTY}.mp4" for i in range(num_clips))
    )
    return Evaluation(measure(predictions), consistency, predictions, (), "test", **more)


def picture(index: int) -> Clip:
    return Clip(np.full((16, 48, 64, 3), index % 255, np.uint8), np.arange(16) / 8)


def rendered(tmp_path, given, **more) -> str:
    options = {"title": "a run", "classifier_facts": {"model": "cnn_gru"}} | more
    return write_report(tmp_path / "report.html", evaluation=given, **options).read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.addresses, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_refers_to_nothing_outside_itself(tmp_path):
    page = rendered(tmp_path, evaluation(), frames_of=picture, compared=[("stratified", evaluation().metrics)])
    tags = parse(page)
    assert all(address.startswith("data:image/") for address in tags.addresses)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert "script" not in tags.seen
    assert "link" not in tags.seen


def test_names_from_the_outside_are_escaped(tmp_path):
    given = evaluation(classes=("left", NASTY), warnings=(NASTY,), skipped=(NASTY,))
    page = rendered(
        tmp_path, given, title=NASTY, classifier_facts={NASTY: NASTY}, compared=[(NASTY, given.metrics)]
    )
    assert "<script>" not in page
    assert "script" not in parse(page).seen
    assert NASTY in "".join(parse(page).text)


def test_says_the_numbers_in_words(tmp_path):
    given = evaluation(warnings=("beware of this",), skipped=("bad.mp4: breaks off",))
    text = " ".join(" ".join(parse(rendered(tmp_path, given)).text).split())
    assert given.metrics.headline() in text
    assert "beware of this" in text
    assert "1 damaged clip left out" in text
    assert USES_ORDER.reading()[0] in text
    assert "cnn_gru" in text
    for score in given.metrics.per_class:
        assert f"{score.label} {score.n} {100 * score.recall:.0f} %" in text


def test_shows_the_most_confident_errors_first_with_their_pictures(tmp_path):
    given = evaluation(200, gain=1.0)
    page = rendered(tmp_path, given, frames_of=picture)
    strips = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert len(strips) == 12
    with Image.open(io.BytesIO(base64.b64decode(strips[0]))) as strip:
        assert strip.width > 4 * strip.height  # four frames of 4:3
    shown = [float(p) for p in re.findall(r'class="no">\w+</span> \((\d+)\s%\)', page)]
    assert len(shown) == 12
    assert shown == sorted(shown, reverse=True)
    worst = np.argmax(np.where(given.predictions.answers() != given.predictions.labels,
                               np.abs(np.diff(given.predictions.logits, axis=1))[:, 0], -1))  # fmt: skip
    assert f"<code>{worst}/" in page.split("most confident errors")[1].split("</code>")[0] + "</code>"


def test_a_file_that_is_gone_leaves_its_picture_out(tmp_path):
    def gone(_):
        raise MissingVideoError("a.mp4", "there is no such file")

    assert "no picture: there is no such file" in rendered(tmp_path, evaluation(gain=0.5), frames_of=gone)


def test_marks_the_score_that_leaks(tmp_path):
    compared = [("stratified", evaluation(gain=5).metrics), ("folds", evaluation().metrics)]
    page = rendered(tmp_path, evaluation(), compared=compared, leaking={"stratified"})
    assert page.count("leaks: too good") == 1
    assert re.search(r"stratified <span class=\"tag\">leaks", page)
    assert "test (this report)" in page


def test_curves_are_shown_when_there_are_some(tmp_path):
    curves = io.BytesIO()
    Image.new("RGB", (4, 4)).save(curves, "PNG")
    assert base64.b64encode(curves.getvalue()).decode() in rendered(
        tmp_path, evaluation(), curves_png=curves.getvalue()
    )


@pytest.mark.parametrize("num_classes", [1, 2, 20, 60])
def test_any_number_of_classes(tmp_path, num_classes):
    classes = tuple(f"$class_{i}^ {NASTY}" for i in range(num_classes))
    parse(rendered(tmp_path, evaluation(50, classes)))


def test_one_clip_and_no_probe(tmp_path):
    text = " ".join(parse(rendered(tmp_path, evaluation(1, consistency=None))).text)
    assert "nan" not in text
    assert "no interval" in text
    assert "Does it use motion" not in text


def test_no_clips(tmp_path):
    assert "no clips" in rendered(tmp_path, evaluation(0, consistency=None))


def test_a_perfect_score_is_not_called_proven(tmp_path):
    page = rendered(tmp_path, evaluation(gain=50))
    assert "does not prove" in page
    assert "every clip was answered rightly" in page


def test_undefined_order_gap(tmp_path):
    nan = float("nan")
    single = dataclasses.replace(
        USES_ORDER,
        order_gap=nan,
        order_gap_interval=Interval(nan, nan),
        undefined={"order_gap": "one frame only"},
    )
    assert "one frame only" in rendered(tmp_path, evaluation(consistency=single))


def test_replaces_an_old_report_and_leaves_nothing_half_written(tmp_path):
    rendered(tmp_path, evaluation(), title="first")
    assert "second" in rendered(tmp_path, evaluation(), title="second")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(StorageError):
        write_report(
            tmp_path / "report.html" / "x.html", title="t", evaluation=evaluation(), classifier_facts={}
        )
