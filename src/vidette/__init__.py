"""Vidette: video classifiers that can be trusted on a live camera.

import vidette

run = vidette.train("clips/")              # clips/<class>/<video>, or a CSV manifest
clf = vidette.load(run.folder)
clf.predict("video.mp4")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidette.errors import VidetteError

if TYPE_CHECKING:
    from vidette.api import VideoClassifier, load, train
    from vidette.video.clip import ClipSpec

__all__ = ["ClipSpec", "VideoClassifier", "VidetteError", "__version__", "load", "train"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the heavy names when they are first asked for, so that ``import vidette`` stays quick."""
    if name in ("load", "train", "VideoClassifier"):
        from vidette import api

        return getattr(api, name)
    if name == "ClipSpec":
        from vidette.video.clip import ClipSpec

        return ClipSpec
    raise AttributeError(f"module 'vidette' has no attribute {name!r}")
