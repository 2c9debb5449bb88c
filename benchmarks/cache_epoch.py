"""An epoch of clips from the cache beside an epoch that decodes: 16 frames at 224x224 from ``fight/``.

Both go through the same data loader over the same files and give the same uint8 tensors, which is checked. They
take turns in one run, the first of a round changing; the figures are medians over the rounds. The cache is
warm: filling it is timed on its own, and is what the first epoch or run costs.

    VIDETTE_DATA=../shared/data python benchmarks/cache_epoch.py [--every 5] [--rounds 5] [--loaders 0]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidette.data.cache import ClipCache, read_labelled
from vidette.data.dataset import ClipDataset
from vidette.data.manifest import LabelledClip, read_manifest
from vidette.video.clip import ClipSpec

SPEC = ClipSpec(num_frames=16, height=224, width=224)
BATCH = 8


class Decoded(Dataset[tuple[Tensor, int]]):
    """The same items as ClipDataset, decoded every time."""

    def __init__(self, clips: Sequence[LabelledClip], class_names: Sequence[str]) -> None:
        self.clips = clips
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clip = self.clips[index]
        return torch.from_numpy(read_labelled(clip, SPEC).pixels), self.class_names.index(clip.label)


def seconds_of_epoch(dataset: Dataset[tuple[Tensor, int]], num_loaders: int) -> float:
    began = time.perf_counter()
    for pixels, _ in DataLoader(dataset, batch_size=BATCH, num_workers=num_loaders):
        assert pixels.shape[1:] == (16, 224, 224, 3)
    return time.perf_counter() - began


def check_same(cached: Dataset[tuple[Tensor, int]], decoded: Decoded) -> None:
    for i in range(0, len(decoded), max(1, len(decoded) // 8)):
        assert torch.equal(cached[i][0], decoded[i][0]), decoded.clips[i].name
        assert cached[i][1] == decoded[i][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=5, help="take every n-th clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loaders", type=int, default=0, help="data loader processes, the same for both")
    options = parser.parse_args()
    table = Path(os.environ.get("VIDETTE_DATA", "../shared/data")) / "fight" / "fight.csv"
    if not table.is_file():
        print(f"skipped: {table} is not there; set VIDETTE_DATA to the folder that holds fight/")
        return
    torch.set_num_threads(
        1
    )  # as in loader processes: threads that wait for busy cores slow the stacking of batches
    manifest = read_manifest(table)
    clips = manifest.clips[:: options.every]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        ClipCache(folder).prepare(clips, SPEC)
        print(f"{len(clips)} clips, cache filled in {time.perf_counter() - began:.2f} s")
        contenders = {
            "cache": ClipDataset(clips, manifest.classes, SPEC, ClipCache(folder)),
            "decode": Decoded(clips, manifest.classes),
        }
        check_same(contenders["cache"], contenders["decode"])
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(options.rounds):
            for name in sorted(contenders, reverse=bool(turn % 2)):
                seconds[name].append(seconds_of_epoch(contenders[name], options.loaders))
            pair = {name: taken[-1] for name, taken in seconds.items()}
            print(f"round {turn + 1}: cache {pair['cache']:.3f} s, decode {pair['decode']:.3f} s")
    ratios = [d / c for c, d in zip(seconds["cache"], seconds["decode"], strict=True)]
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:>6}: median {median:.3f} s an epoch, {len(clips) / median:.0f} clips/s")
    spread = f"{min(ratios):.1f} to {max(ratios):.1f} over {len(ratios)} rounds"
    print(f"an epoch from cache is {statistics.median(ratios):.1f} times as fast ({spread}; goal 10)")


if __name__ == "__main__":
    main()
