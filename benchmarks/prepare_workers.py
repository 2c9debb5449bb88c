"""Preparing with 2 workers beside 1: every fifth clip of ``fight/``, 16 frames at 224x224, JPEG shards.

The two take turns in one run, the first of a round changing; the figure is the median ratio over the rounds. A
video decoder uses several threads of its own, so one worker already keeps more than one core busy.

    VIDETTE_DATA=../shared/data python benchmarks/prepare_workers.py [--every 5] [--rounds 5]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

from vidette.data.manifest import Manifest, read_manifest
from vidette.data.prepare import ShardPlan, prepare_shards
from vidette.video.shards import KeptFrames


def seconds_of(manifest: Manifest, num_workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        prepare_shards(manifest, Path(folder) / "out", ShardPlan(KeptFrames(224, 224)), num_workers=num_workers)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=5, help="take every n-th clip")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Path(os.environ.get("VIDETTE_DATA", "../shared/data")) / "fight" / "fight.csv"
    if not table.is_file():
        print(f"skipped: {table} is not there; set VIDETTE_DATA to the folder that holds fight/")
        return
    whole = read_manifest(table)
    manifest = dataclasses.replace(whole, clips=whole.clips[:: options.every])
    seconds: dict[int, list[float]] = {1: [], 2: []}
    seconds_of(manifest, 2)
    for turn in range(options.rounds):
        for num_workers in sorted(seconds, reverse=bool(turn % 2)):
            seconds[num_workers].append(seconds_of(manifest, num_workers))
        print(f"round {turn + 1}: 1 worker {seconds[1][-1]:.2f} s, 2 workers {seconds[2][-1]:.2f} s")
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    print(
        f"{len(manifest)} clips on {os.cpu_count()} cores: 2 workers are"
        f" {statistics.median(ratios):.2f} times as fast as 1 ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
