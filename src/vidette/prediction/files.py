"""Video files in, answers out: one label a file, a timeline of windows; tables, subtitles, a marked video."""

from __future__ import annotations

import csv
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vidette.errors import (
    OutputExistsError,
    SettingError,
    VideoError,
    unknown_name,
)
from vidette.prediction.decision import UNKNOWN, Timeline, Window, given_answer
from vidette.prediction.policy import own_policy
from vidette.video.clip import Clip, ClipSpec
from vidette.video.names import find_videos
from vidette.video.reader import Video, open_video
from vidette.video.sampling import WindowCutter
from vidette.video.writer import Caption, replacing, write_annotated, write_srt

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = [
    "OUTPUT_ENDINGS",
    "FilePrediction",
    "Row",
    "check_output",
    "predict_file",
    "predict_files",
    "write_output",
]

OUTPUT_ENDINGS = (".csv", ".jsonl", ".mp4", ".srt")
_COLUMNS = ("path", "start_seconds", "end_seconds", "label", "probability")
_BATCH = 8
_LONG = 2.0
_FRAME_STRIDE_SECONDS = 1.0

Aggregation = Literal["whole", "mean_windows"]
_Answer = tuple[np.ndarray, tuple[Window, ...], tuple[str, ...]]  # logits (K,), windows, warnings


@dataclass(frozen=True)
class Row:
    """One line of output: the best label of one window ``[start_seconds, end_seconds)`` of a file."""

    path: str
    start_seconds: float
    end_seconds: float
    label: str
    probability: float

    def to_json(self) -> str:
        """Return one JSON object without line breaks."""
        return json.dumps({name: getattr(self, name) for name in _COLUMNS}, ensure_ascii=False)


@dataclass(frozen=True, eq=False)
class FilePrediction:
    """What a classifier says of one file.

    Attributes:
        path: The file.
        label: The most probable class of the whole file.
        probability: Its probability.
        probabilities: float ``(K,)``, calibrated, of the whole file.
        aggregation: Where they come from: ``"whole"``: one clip over the whole file, as in training;
            ``"mean_windows"``: the mean of the logits of the timeline's windows.
        top: The best labels with their probabilities, best first.
        timeline: The windows; a single one over the whole file unless the file is long.
        warnings: Sentences about what makes the answer doubtful.
    """

    path: Path
    label: str
    probability: float
    probabilities: np.ndarray
    aggregation: Aggregation
    top: tuple[tuple[str, float], ...]
    timeline: Timeline
    warnings: tuple[str, ...] = ()

    def rows(self) -> tuple[Row, ...]:
        """One row a window, seconds to the millisecond; "unknown" where the classifier's policy abstains."""
        return tuple(self._row(window) for window in self.timeline.windows)

    def _row(self, window: Window) -> Row:
        best = int(window.probabilities.argmax())
        start, stop = round(window.start_seconds, 3), round(window.stop_seconds, 3)
        label, probability = self.timeline.classes[best], round(float(window.probabilities[best]), 6)
        policy = self.timeline.policy
        if policy is not None and not given_answer(window, policy.abstain_probability)[1]:
            label = UNKNOWN
        return Row(str(self.path), start, stop, label, probability)

    def __repr__(self) -> str:
        windows = f"{len(self.timeline.windows)} windows, {self.aggregation}"
        return f"FilePrediction({self.path}: {self.label} {self.probability:.2f}, {windows})"


@dataclass(frozen=True)
class _Plan:
    """How one file is answered; ``stride_seconds`` is None where one window over the whole file will do."""

    aggregation: Aggregation
    end_seconds: float
    span_seconds: float | None
    stride_seconds: float | None
    frame_seconds: float


def predict_file(
    classifier: Classifier,
    path: str | Path,
    *,
    stride_seconds: float | None = None,
    top: int = 5,
    stream: int = 0,
) -> FilePrediction:
    """Answer one video file.

    A ``"whole"`` classifier sees the file as one clip, as in training, unless the file lasts more than twice
    the longest training clip; such a file, and every file of a ``"window"`` or single-frame classifier, is cut
    into windows in one pass, and the file's answer is the mean of their logits.

    Args:
        classifier: What answers.
        path: The file.
        stride_seconds: From the start of one window to the next; half a span when None (1 s for single frames).
            Given for a file that is answered whole, it adds a timeline.
        top: How many of the best labels to keep in ``top``.
        stream: Which of the file's video streams, from 0.

    Raises:
        VideoError: The file is absent, empty, damaged or no video.
        SettingError: ``stride_seconds`` is not above 0, or the classifier has no span to cut windows by.
    """
    if stride_seconds is not None and not 0 < stride_seconds < float("inf"):
        raise SettingError(f"stride_seconds is {stride_seconds}; expected above 0")
    if top < 1:
        raise SettingError(f"top is {top}; expected 1 or more")
    policy = own_policy(classifier) if classifier.decision else None
    with open_video(path, stream=stream) as video:
        plan = _plan(video, classifier.spec, stride_seconds)
        answer = _answer_whole if plan.aggregation == "whole" else _answer_windows
        logits, windows, found = answer(classifier, video, plan)
        if video.lost_frames:
            found = (*found, f"{video.lost_frames} frames are lost or damaged")
    probabilities = classifier.probabilities(logits)
    best = np.argsort(-probabilities, kind="stable")[:top]
    ranked = tuple((classifier.classes[k], float(probabilities[k])) for k in best)
    return FilePrediction(
        path=Path(path),
        label=ranked[0][0],
        probability=ranked[0][1],
        probabilities=probabilities,
        aggregation=plan.aggregation,
        top=ranked,
        timeline=Timeline(windows, tuple(classifier.classes), policy),
        warnings=found,
    )


def predict_files(
    classifier: Classifier,
    paths: Iterable[str | Path],
    *,
    stride_seconds: float | None = None,
    top: int = 5,
    stream: int = 0,
    on_damage: Literal["raise", "skip"] = "raise",
    on_skip: Callable[[VideoError], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[FilePrediction]:
    """Answer files and the video files in folders, one after the other as they are asked for.

    Args:
        classifier: What answers.
        paths: Files and folders; folders are searched to the bottom, in natural order.
        stride_seconds: As for :func:`predict_file`.
        top: As for :func:`predict_file`.
        stream: As for :func:`predict_file`.
        on_damage: ``"raise"`` stops at a file that cannot be read, ``"skip"`` goes on to the next.
        on_skip: Called with the error of a file that was skipped; a Python warning is given when None.
        on_progress: Called with (files done, files in all).

    Raises:
        MissingVideoError: At once, naming every path that is not there.
        VideoError: While iterating, a file cannot be read and ``on_damage`` is ``"raise"``.
    """
    if on_damage not in ("raise", "skip"):
        raise SettingError(f"on_damage is {on_damage!r}; expected raise or skip")
    videos = find_videos(paths)

    def answers() -> Iterator[FilePrediction]:
        for done, path in enumerate(videos, start=1):
            try:
                prediction = predict_file(
                    classifier, path, stride_seconds=stride_seconds, top=top, stream=stream
                )
            except VideoError as error:
                if on_damage == "raise":
                    raise
                (on_skip or _warn)(error)
            else:
                yield prediction
            if on_progress is not None:
                on_progress(done, len(videos))

    return answers()


def check_output(out: str | Path, *, overwrite: bool = False, videos: Sequence[Path] = ()) -> None:
    """Find out before the work whether its result can be written.

    Args:
        out: The file to write; its ending says what: ``.csv``, ``.jsonl``, ``.srt`` or ``.mp4``.
        overwrite: Whether a file that is there may be replaced.
        videos: The videos that will be answered.

    Raises:
        SettingError: The ending is unknown, subtitles or a marked video are asked for several videos, or
            ``out`` is one of the videos.
        OutputExistsError: The file is there and ``overwrite`` is false.
    """
    out = Path(out)
    ending = out.suffix.lower()
    if ending not in OUTPUT_ENDINGS:
        raise SettingError(f"{out}: {unknown_name('output ending', ending, OUTPUT_ENDINGS)}")
    if ending in (".srt", ".mp4") and len(videos) > 1:
        raise SettingError(f"{out}: {ending} is made from one video, got {len(videos)}; write .csv or .jsonl")
    if out.exists() and any(video.exists() and out.samefile(video) for video in videos):
        raise SettingError(f"{out} is one of the videos to answer; choose another output")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already; choose another name or overwrite it (--overwrite)")


def write_output(predictions: Sequence[FilePrediction], out: str | Path, *, overwrite: bool = False) -> Path:
    """Write predictions as the ending of ``out`` says; the file appears when it is complete.

    ``.csv`` and ``.jsonl``: one line a window with ``path,start_seconds,end_seconds,label,probability``.
    ``.srt`` and ``.mp4``: the events of one video where the classifier has a decision of its own, else the best
    label of each stretch; as subtitles or burnt into a copy.

    Raises:
        SettingError: See :func:`check_output`; or there is no prediction to make subtitles or a video of.
        OutputExistsError: ``out`` is there and ``overwrite`` is false.
        StorageError: The disk is full or cannot be written.
    """
    out = Path(out)
    check_output(out, overwrite=overwrite, videos=[prediction.path for prediction in predictions])
    ending = out.suffix.lower()
    if ending in (".srt", ".mp4"):
        if not predictions:
            raise SettingError(f"{out}: {ending} is made from one video, got none")
        captions = _captions(predictions[0])
        if ending == ".srt":
            return write_srt(out, captions, overwrite=overwrite)
        return write_annotated(predictions[0].path, out, captions, overwrite=overwrite)
    rows = [row for prediction in predictions for row in prediction.rows()]
    with replacing(out, overwrite=overwrite) as new, new.open("w", encoding="utf-8", newline="") as file:
        if ending == ".jsonl":
            file.writelines(row.to_json() + "\n" for row in rows)
        else:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(_COLUMNS)
            table.writerows([getattr(row, name) for name in _COLUMNS] for row in rows)
    return out


def _captions(prediction: FilePrediction) -> list[Caption]:
    timeline = prediction.timeline
    return [
        Caption(part.start_seconds, part.stop_seconds, f"{part.label} {100 * part.confidence:.0f} %")
        for part in (timeline.segments() if timeline.policy is None else timeline.events())
        if part.start_seconds < part.stop_seconds
    ]


def _plan(video: Video, spec: ClipSpec, stride_seconds: float | None) -> _Plan:
    seconds = video.frame_seconds()
    period = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / (video.info.fps or 25.0)
    end_seconds = float(seconds[-1]) + period
    spans = spec.trained_spans
    by_frame, by_window = spec.num_frames == 1, spec.sampling == "window"
    long = spans is not None and spans.median_seconds > 0 and seconds[-1] > _LONG * spans.longest_seconds
    span = 0.0 if by_frame else spec.span_seconds
    if not (by_frame or by_window or long) and stride_seconds is None:
        return _Plan("whole", end_seconds, span, None, period)
    if span is None or (span <= 0 and not by_frame):
        raise SettingError("this classifier has no span to cut windows by; leave stride_seconds out")
    stride = stride_seconds or _default_stride_seconds(spec, span)
    aggregation = "mean_windows" if by_frame or by_window or long else "whole"
    return _Plan(aggregation, end_seconds, span, stride, period)


def _default_stride_seconds(spec: ClipSpec, span_seconds: float) -> float:
    if spec.fps is not None:
        return spec.num_frames / spec.fps / 2  # as evaluation cuts its windows, so that both give one answer
    return span_seconds / 2 if spec.num_frames > 1 else _FRAME_STRIDE_SECONDS


def _answer_whole(classifier: Classifier, video: Video, plan: _Plan) -> _Answer:
    clip = video.clip(classifier.spec)
    logits = classifier.logits([clip])[0]
    windows = (Window(0.0, plan.end_seconds, classifier.probabilities(logits)),)
    if plan.stride_seconds is not None:
        windows = _answer_windows(classifier, video, plan)[1]
    return logits, windows, tuple(_doubts([clip], classifier.spec).values())


def _answer_windows(classifier: Classifier, video: Video, plan: _Plan) -> _Answer:
    """Answer every window in one pass over the frames; at most a batch of clips is held."""
    total, windows, doubts = np.zeros(len(classifier.classes)), list[Window](), dict[str, str]()
    clips = _cut(video, classifier.spec, plan)
    while batch := list(itertools.islice(clips, _BATCH)):
        logits = classifier.logits(batch)
        total += logits.sum(axis=0, dtype=np.float64)
        probabilities = classifier.probabilities(logits)
        windows += [_window(clip, row, plan) for clip, row in zip(batch, probabilities, strict=True)]
        doubts = _doubts(batch, classifier.spec) | doubts
    return total / len(windows), tuple(windows), tuple(doubts.values())


def _cut(video: Video, spec: ClipSpec, plan: _Plan) -> Iterator[Clip]:
    assert plan.stride_seconds is not None
    cutter = WindowCutter(spec, stride_seconds=plan.stride_seconds, span_seconds=plan.span_seconds)
    for frame in video.frames(spec):
        clip = cutter.push(frame)
        if clip is not None:
            yield clip
    if plan.span_seconds == 0:
        return  # single frames are out already; flushing would add the last frame beside its neighbour
    while (clip := cutter.flush()) is not None:
        yield clip


def _window(clip: Clip, probabilities: np.ndarray, plan: _Plan) -> Window:
    start, stop = float(clip.seconds[0]), float(clip.seconds[-1]) + plan.frame_seconds
    if len(clip.seconds) == 1 and plan.stride_seconds is not None:
        stop = start + plan.stride_seconds
    return Window(start, max(start, min(stop, plan.end_seconds)), probabilities)


def _doubts(clips: Sequence[Clip], spec: ClipSpec) -> dict[str, str]:
    """What makes answers to these clips doubtful: a sentence for each kind of doubt."""
    found: dict[str, str] = {}
    repeated = max(clip.repeated for clip in clips)
    if repeated:
        found["repeated"] = (
            f"the video is shorter than the classifier's span: {repeated} of {spec.num_frames} frames repeat "
            "the last one"
        )
    spans = spec.trained_spans
    outside = [clip.span_seconds for clip in clips if spans is not None and not spans.holds(clip.span_seconds)]
    if spans is not None and outside and spec.num_frames > 1:
        found["span"] = (
            f"a clip spans {outside[0]:.2f} s, outside the {spans.shortest_seconds:.2f} to "
            f"{spans.longest_seconds:.2f} s of training; the classifier sees another pace than it learnt"
        )
    return found


def _warn(error: VideoError) -> None:
    warnings.warn(f"skipped {error}", stacklevel=3)
