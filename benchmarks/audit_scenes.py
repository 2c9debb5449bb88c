"""Scenes found from pictures alone, against the truth: pair precision, pair recall, adjusted Rand index.

The threshold is the same on every data set (``vidette.data.audit_scenes.SAME_SCENE``). Threshold and
constants were chosen on drawn clips of seed 0 and on the odd sources of ``fight/``; the even sources and
drawn clips of seed 7 were kept apart for that. Which features to compare was chosen on all of ``fight/``, so
its even sources are not wholly unseen. A source of ``fight/`` is often a compilation of several places, so
its pairs cannot all be found. ``gestures/`` has no truth about rooms: its groups are people, six of whom
stand in one, so scenes are listed there.

    VIDETTE_DATA=../shared/data python benchmarks/audit_scenes.py [--only fight motion]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix

from vidette.data.audit_looks import read_looks
from vidette.data.audit_scenes import SAME_SCENE, find_scenes
from vidette.data.cache import ClipCache
from vidette.data.manifest import Manifest, read_manifest
from vidette.video.motion import write_motion_clips

DATA = Path(os.environ.get("VIDETTE_DATA", "../shared/data"))


def row(name: str, truth: np.ndarray, found: np.ndarray) -> None:
    (_, false), (missed, right) = pair_confusion_matrix(truth, found)
    precision = right / (right + false) if right + false else float("nan")
    recall = right / (right + missed) if right + missed else float("nan")
    print(
        f"{name:32s} {len(truth):4d} clips {len(set(truth.tolist())):4d} groups "
        f"{len(set(found.tolist())):4d} scenes   precision {precision:.3f}   recall {recall:.3f}   "
        f"adjusted Rand index {adjusted_rand_score(truth, found):.3f}"
    )


def scenes_of(manifest: Manifest, cache: ClipCache) -> tuple[np.ndarray, np.ndarray]:
    begin = time.perf_counter()
    looks, faults = read_looks(manifest.clips, cache)
    read = time.perf_counter()
    assert not faults, faults
    scenes = find_scenes([look for look in looks if look])
    done = time.perf_counter()
    print(f"{manifest.source}: looked in {read - begin:.1f} s, scenes in {done - read:.1f} s")
    truth = np.array([manifest.group_of(i) for i in range(len(manifest))])
    return truth, scenes.scene_of


def fight(cache: ClipCache) -> None:
    truth, found = scenes_of(read_manifest(DATA / "fight" / "fight.csv"), cache)
    odd = np.array([int(name.rsplit("-", 1)[1]) % 2 == 1 for name in truth])
    row("fight, all", truth, found)
    row("fight, odd sources (chosen on)", truth[odd], found[odd])
    row("fight, even sources (kept apart)", truth[~odd], found[~odd])


def gestures(cache: ClipCache) -> None:
    manifest = read_manifest(DATA / "gestures" / "gestures.csv")
    truth, found = scenes_of(manifest, cache)
    row("gestures, against people", truth, found)
    for scene, count in Counter(found.tolist()).most_common(8):
        people = Counter(truth[found == scene].tolist())
        print(f"    a scene of {count} clips: {dict(sorted(people.items()))}")


def motion(cache: ClipCache) -> None:
    for seed, note in ((0, "chosen on"), (7, "kept apart")):
        with tempfile.TemporaryDirectory() as folder:
            manifest = read_manifest(write_motion_clips(folder, num_scenes=12, seed=seed))
            row(f"motion, seed {seed} ({note})", *scenes_of(manifest, cache))


SETS = {"fight": fight, "gestures": gestures, "motion": motion}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    print(f"threshold {SAME_SCENE} everywhere")
    for name in parser.parse_args().only:
        if name != "motion" and not (DATA / name).is_dir():
            print(f"{name}: skipped, {DATA / name} is not there (set VIDETTE_DATA)")
            continue
        SETS[name](ClipCache())


if __name__ == "__main__":
    main()
