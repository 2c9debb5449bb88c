"""An epoch from the cache or from prepared shards beside one that decodes: 16 frames at 224 from ``fight/``.

All go through the same data loader over the same clips and give the same uint8 tensors (JPEG: nearly), which is
checked; ``plain`` is PyAV decoding and converting every frame, as the tutorials do. They take turns in one run,
the first of a round changing; the figures are medians over the rounds. The cache is warm: filling it, and
writing the shards, is timed on its own.

    VIDETTE_DATA=../shared/data python benchmarks/cache_epoch.py [--every 5] [--rounds 5] [--loaders 0]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from sampling import pyav_plain
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidette.data.cache import ClipCache, read_labelled
from vidette.data.dataset import ClipDataset
from vidette.data.manifest import LabelledClip, Manifest, read_manifest
from vidette.data.prepare import ShardPlan, prepare_shards
from vidette.video.clip import ClipSpec
from vidette.video.shards import Encoding, KeptFrames

SPEC = ClipSpec(num_frames=16, height=224, width=224)
BATCH = 8


class Decoded(Dataset[tuple[Tensor, int]]):
    """The same items as ClipDataset, decoded every time: by Vidette, or plainly with PyAV."""

    def __init__(
        self, clips: Sequence[LabelledClip], class_names: Sequence[str], *, plain: bool = False
    ) -> None:
        self.clips = clips
        self.class_names = class_names
        self.plain = plain

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clip = self.clips[index]
        pixels = pyav_plain(str(clip.path)) if self.plain else read_labelled(clip, SPEC).pixels
        return torch.from_numpy(pixels), self.class_names.index(clip.label)


def seconds_of_epoch(dataset: Dataset[tuple[Tensor, int]], num_loaders: int) -> float:
    began = time.perf_counter()
    for pixels, _ in DataLoader(dataset, batch_size=BATCH, num_workers=num_loaders):
        assert pixels.shape[1:] == (16, 224, 224, 3)
    return time.perf_counter() - began


def check_same(name: str, quick: Dataset[tuple[Tensor, int]], decoded: Decoded) -> None:
    for i in range(0, len(decoded), max(1, len(decoded) // 8)):
        difference = (quick[i][0].float() - decoded[i][0].float()).abs().mean()
        assert difference <= (3 if name == "jpeg" else 0), decoded.clips[i].name
        assert quick[i][1] == decoded[i][1]


def prepared(manifest: Manifest, out: Path, encoding: Encoding) -> ClipDataset:
    began = time.perf_counter()
    done = prepare_shards(manifest, out, ShardPlan(KeptFrames(224, 224), encoding))
    print(f"{encoding} shards written in {time.perf_counter() - began:.2f} s, {done.num_bytes / 1e6:.0f} MB")
    return ClipDataset(read_manifest(out).clips, manifest.classes, SPEC, ClipCache(out / "cache"))


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
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        began = time.perf_counter()
        ClipCache(folder / "cache").prepare(clips, SPEC)
        print(f"{len(clips)} clips, cache filled in {time.perf_counter() - began:.2f} s")
        some = dataclasses.replace(manifest, clips=clips)
        decoded = Decoded(clips, manifest.classes)
        quick: dict[str, Dataset[tuple[Tensor, int]]] = {
            "cache": ClipDataset(clips, manifest.classes, SPEC, ClipCache(folder / "cache")),
            "raw": prepared(some, folder / "raw", "raw"),
            "jpeg": prepared(some, folder / "jpeg", "jpeg"),
        }
        for name, dataset in quick.items():
            check_same(name, dataset, decoded)
        plain = Decoded(clips, manifest.classes, plain=True)
        contenders = list((quick | {"decode": decoded, "plain": plain}).items())
        seconds: dict[str, list[float]] = {name: [] for name, _ in contenders}
        for turn in range(options.rounds):
            for i in range(len(contenders)):
                name, dataset = contenders[(i + turn) % len(contenders)]
                seconds[name].append(seconds_of_epoch(dataset, options.loaders))
            print(f"round {turn + 1}: " + ", ".join(f"{name} {s[-1]:.3f} s" for name, s in seconds.items()))
    for name, taken in seconds.items():
        against = [
            f"{statistics.median(ratios):.1f} times as fast as {other} ({min(ratios):.1f} to {max(ratios):.1f})"
            for other in ("decode", "plain")
            if (ratios := [theirs / ours for ours, theirs in zip(taken, seconds[other], strict=True)])
        ]
        median = statistics.median(taken)
        print(f"{name:>6}: {median:.3f} s an epoch, {len(clips) / median:.0f} clips/s; {', '.join(against)}")


if __name__ == "__main__":
    main()
