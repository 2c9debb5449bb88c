"""A training step with and without glibc keeping freed memory; each in processes of their own, by turns.

python benchmarks/training_memory.py [--rounds 5] [--steps 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

from vidette.models import build_model
from vidette.training.memory import keep_freed_memory

CASES = {
    "small CNN + GRU, 32 clips of 16x64x64": ("cnn_gru", {"backbone": "small", "grid": 4}, 32, 64),
    "small 3-D CNN, 32 clips of 16x64x64": ("conv3d_small", {}, 32, 64),
    "EfficientNet-Lite0 + GRU, fine-tuned, 4 clips of 16x112x112": ("cnn_gru", {}, 4, 112),
}


def seconds_a_step(case: str, keep: bool, steps: int) -> float:
    if keep and not keep_freed_memory():
        raise SystemExit("no glibc here, or MALLOC_ variables are set")
    name, options, batch, size = CASES[case]
    model = build_model(name, num_classes=8, num_frames=16, height=size, width=size, options=options)
    optimizer = torch.optim.AdamW(model.parameters())
    x, y = torch.randn(batch, 16, 3, size, size), torch.randint(0, 8, (batch,))
    times = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(seconds_a_step(given.one[0], given.one[1] == "keep", given.steps))
        return
    for case in CASES:
        found: dict[str, list[float]] = {"leave": [], "keep": []}
        for _ in range(given.rounds):
            for how, times in found.items():
                command = [sys.executable, __file__, "--steps", str(given.steps), "--one", case, how]
                times.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        ratios = [a / b for a, b in zip(found["leave"], found["keep"], strict=True)]
        plain, kept = (statistics.median(times) for times in found.values())
        print(
            f"{case}: {1000 * plain:.0f} ms a step, kept {1000 * kept:.0f} ms:"
            f" {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
