"""What can go wrong, as one tree.

::

    VidetteError                 everything Vidette raises on purpose; the command line exits with 2
    ├── VideoError               a video file or stream; carries ``path``
    │   ├── MissingVideoError        there is no such file
    │   ├── EmptyVideoError          zero bytes, or a video stream without one frame
    │   ├── NoVideoStreamError       the container opens but holds no video (audio only)
    │   ├── UnreadableVideoError     not a video, or no decoder can open it
    │   └── TruncatedVideoError      the file breaks off or is damaged where frames were wanted
    ├── ManifestError            a folder or table of labelled clips; lists every fault
    ├── SplitError               the clips cannot be divided as asked
    ├── SettingError             a recipe key, spec field or option is unknown or out of range
    ├── ClassifierError          a saved classifier or run is absent, incomplete or unlike its description
    ├── InputMismatchError       a clip, label or tensor does not fit the classifier
    ├── OutputExistsError        writing would overwrite what is there
    └── StorageError             the disk is full or cannot be written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ClassifierError",
    "EmptyVideoError",
    "InputMismatchError",
    "ManifestError",
    "MissingVideoError",
    "NoVideoStreamError",
    "OutputExistsError",
    "SettingError",
    "SplitError",
    "StorageError",
    "TruncatedVideoError",
    "UnreadableVideoError",
    "VideoError",
    "VidetteError",
    "unknown_name",
]


class VidetteError(Exception):
    """Base of every error that Vidette raises on purpose: says what, got, expected, do."""


class VideoError(VidetteError):
    """A video cannot be used as asked.

    Args:
        path: The file or address.
        reason: What is wrong with it and what to do, without the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class MissingVideoError(VideoError):
    """There is no file at the path."""


class EmptyVideoError(VideoError):
    """The file has zero bytes, or its video stream holds no frame."""


class NoVideoStreamError(VideoError):
    """The container opens but has no video stream, for example audio only."""


class UnreadableVideoError(VideoError):
    """The file is not a video, or no decoder can open it."""


class TruncatedVideoError(VideoError):
    """The file breaks off or is damaged before the frames that were wanted."""


class ManifestError(VidetteError):
    """A folder or table of labelled clips is unusable; the message lists every fault found."""


class SplitError(VidetteError):
    """The clips cannot be divided as asked, for example one class or too few clips."""


class SettingError(VidetteError):
    """A recipe key, spec field or option is unknown or out of range."""


class ClassifierError(VidetteError):
    """A saved classifier or run is absent, incomplete or unlike its own description."""


class InputMismatchError(VidetteError):
    """A clip, label or tensor does not fit the classifier it was given to."""


class OutputExistsError(VidetteError):
    """The output is there already and overwriting was not asked for."""


class StorageError(VidetteError):
    """The disk is full or the place cannot be written."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Say that ``name`` is unknown and which known name is nearest.

    Example:
        >>> unknown_name("model", "cnn_gur", ["cnn_gru", "frame_cnn"])
        "unknown model 'cnn_gur'; did you mean 'cnn_gru'? (known: cnn_gru, frame_cnn)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} (known: {', '.join(names)})"
