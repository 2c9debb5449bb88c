"""Which clips of a video are explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidette.diagnosis.frames_against_clips import spread_seconds
from vidette.errors import SettingError, unknown_name
from vidette.prediction.decision import Window
from vidette.prediction.files import FilePrediction
from vidette.video.clip import Clip
from vidette.video.reader import open_video

if TYPE_CHECKING:
    from vidette.classifier.classifier import Classifier

__all__ = ["clips_to_explain", "middle_clip"]

_MOST_WINDOWS, _MOST_FRAMES = 4, 16


def clips_to_explain(
    classifier: Classifier, prediction: FilePrediction, *, label: str, stream: int = 0
) -> list[Clip]:
    """Return the clips of a video that say most about a class, in order of time.

    A file that was answered as one clip gives that clip. Of a longer one, the windows in which the class is
    most probable, at most 4 that do not overlap; for a classifier of single frames, 16 frames spread over it.

    Args:
        classifier: The one that answered.
        prediction: Its answer to the file.
        label: The class.
        stream: Which of the file's video streams, from 0.

    Raises:
        SettingError: The class is unknown.
        VideoError: The file cannot be read.
    """
    if label not in classifier.classes:
        raise SettingError(unknown_name("class", label, classifier.classes)[:400])
    spec = classifier.spec
    with open_video(prediction.path, stream=stream) as video:
        if spec.num_frames == 1:
            chosen = spread_seconds(video.frame_seconds(), _MOST_FRAMES)
            return [Clip(f.pixels[None], np.array([f.seconds])) for f in video.frames_at(spec, chosen)]
        if prediction.aggregation == "whole":
            return [video.clip(spec)]
        windows = _strongest(prediction.timeline.windows, classifier.classes.index(label))
        return [
            video.clip(spec, start_seconds=window.start_seconds, stop_seconds=window.stop_seconds)
            for window in windows
        ]


def middle_clip(classifier: Classifier, path: Path, *, stream: int = 0) -> Clip:
    """Return the clip that stands for a video: the whole of a ``"whole"`` spec, else the window in its middle.

    Raises:
        VideoError: The file cannot be read.
    """
    spec = classifier.spec
    with open_video(path, stream=stream) as video:
        last = float(video.frame_seconds()[-1])
        if spec.num_frames > 1 and spec.fps is None:
            return video.clip(spec)
        span = spec.span_seconds or 0.0
        return video.clip(spec, start_seconds=max(0.0, (last - span) / 2))


def _strongest(windows: tuple[Window, ...], index: int) -> list[Window]:
    chosen: list[Window] = []
    for window in sorted(windows, key=lambda window: -float(window.probabilities[index])):
        free = all(
            window.start_seconds >= other.stop_seconds or window.stop_seconds <= other.start_seconds
            for other in chosen
        )
        if free and len(chosen) < _MOST_WINDOWS:
            chosen.append(window)
    return sorted(chosen, key=lambda window: window.start_seconds)
