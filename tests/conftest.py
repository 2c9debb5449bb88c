"""Shared by the suite: the user's cache is never touched."""

import os
import tempfile

import pytest

os.environ["VIDETTE_CACHE"] = tempfile.mkdtemp(prefix="vidette-tests-")


@pytest.fixture(scope="session")
def motion_clips(tmp_path_factory):
    """Draw 12 scenes of 8 classes at 32x32; groups are scenes."""
    from vidette.video.motion import write_motion_clips

    folder = tmp_path_factory.mktemp("motion") / "clips"
    write_motion_clips(folder, num_scenes=12, size=(32, 32))
    return folder
