"""The whole story on clips drawn for the purpose: draw, train three models, compare, read a long video.

Every step is a command that you can type; `make demo` runs this file. Results go to demo/.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path("demo")
CLIPS = FOLDER / "clips"
MODELS = {"frame_cnn": "looks at frames one by one", "cnn_gru": "CNN + GRU", "conv3d_small": "3-D CNN"}


def vidette(*arguments: str, quiet: bool = False) -> str:
    """Run one command, showing it first; return what it printed."""
    print(f"\n$ vidette {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "vidette.cli", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    if not quiet:
        print(done.stdout, end="", flush=True)
    return done.stdout


def train_all() -> dict[str, dict]:
    """Train each model from nothing; return its scores on unseen scenes."""
    results = {}
    for model, about in MODELS.items():
        print(f"\n-- {model}: {about}", flush=True)
        run = FOLDER / "runs" / model
        vidette("train", str(CLIPS), "--recipe", "motion", "--model", model, "--epochs", "6", "--out", str(run))
        results[model] = json.loads((run / "evaluation.json").read_text())["test"]
    return results


def compare(results: dict[str, dict]) -> None:
    """Print the models side by side."""
    print("\nUnseen scenes, 8 classes in 4 pairs; each clip of a pair is the other played backwards:")
    print(f"  {'model':<14}{'accuracy':>10}{'95 % interval':>20}{'frames shuffled':>18}{'clips':>7}")
    for model, result in results.items():
        m, c = result["metrics"], result["consistency"]
        low, high = m["accuracy_interval"]
        interval = f"{low:.1%} to {high:.1%}"
        print(f"  {model:<14}{m['accuracy']:>10.1%}{interval:>20}{c['shuffled_accuracy']:>18.1%}{m['n']:>7}")


def timeline() -> None:
    """Print the long video's timeline beside its truth."""
    video = next((CLIPS / "untrimmed").glob("*.mp4"))
    run = FOLDER / "runs" / "cnn_gru"
    printed = vidette("predict", str(run), str(video), "--json", "--stride-seconds", "0.5", quiet=True)
    windows = [json.loads(line) for line in printed.splitlines()]
    with next((CLIPS / "untrimmed").glob("*.csv")).open() as table:
        events = list(csv.DictReader(table))
    print(f"\n{video}: {len(windows)} windows; the window that covers each true event best says")
    right = 0
    for event in events:
        start, end = float(event["start_seconds"]), float(event["end_seconds"])
        best = max(windows, key=lambda w: overlap(w, start, end))
        right += best["label"] == event["label"]
        mark = "ok" if best["label"] == event["label"] else "WRONG"
        print(
            f"  {start:6.1f} to {end:6.1f} s   truth {event['label']:<17} answer {best['label']:<17}"
            f" {best['probability']:6.1%}  {mark}"
        )
    print(f"  {right} of {len(events)} events named rightly")


def overlap(window: dict, start: float, end: float) -> float:
    """Intersection over union of a window and an event in time."""
    common = min(window["end_seconds"], end) - max(window["start_seconds"], start)
    return common / (max(window["end_seconds"], end) - min(window["start_seconds"], start))


def main() -> None:
    """Draw, train, compare, predict."""
    start = time.perf_counter()
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    vidette("motion", str(CLIPS), "--scenes", "120", "--size", "64")
    results = train_all()
    compare(results)
    timeline()
    print(f"\nreports: {', '.join(str(FOLDER / 'runs' / model / 'report.html') for model in MODELS)}")
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
