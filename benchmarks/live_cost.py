"""What a new frame costs: one step beside the tutorial's way, and how many cameras one machine serves.

The tutorial's way, on every new frame, prepares the last 16 frames and sends all of them through the same
network in torch. Vidette prepares the new frame and takes one step (``Stepper.push``, at defaults: ONNX Runtime
on a CPU, two states of the stream, so that an answer has seen one to two spans). Beside them a 16-frame r3d_18
at 112, sliding by one, as it is in torch. All take uint8 pictures at the network's size and give logits; the
weights are random, which does not change what a frame costs. Logits of a clip must agree within 1e-4.

They take turns in one run; a round is one window of each rival and 16 steps, and its ratio is that of its own
times. Printed are medians over the rounds, with their range, of elapsed time and of CPU time: on a busy machine
trust the second, which says how much work it is.

    python benchmarks/live_cost.py [--models resnet18-lstm] [--rounds 15] [--threads 2] [--camera-seconds 10]

Cameras: first the model alone (the most streams that one batched step answers within a tenth of a second), then
whole live runs of files shown at their own pace (640x360 H.264, 10 frames a second, decoded and resized), so
many at once, of which fewer than 1 % of the frames may be skipped. ``--camera-seconds 0`` leaves those out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vidette.classifier.classifier import Classifier
from vidette.classifier.stepper import Stepper, StreamState
from vidette.models import build_model
from vidette.streaming.live import run
from vidette.streaming.sources import FileSource
from vidette.video.clip import Clip, ClipSpec
from vidette.video.writer import write_video

T, FPS, NUM_CLASSES = 16, 10.0, 6
PAUSE_SECONDS = 0.05
CAMERA_HEIGHT, CAMERA_WIDTH = 360, 640
MOST_STREAMS = 256
SKIPPED_SHARE = 0.01
SHARES = (0.9, 0.75, 0.6, 0.45, 0.3, 0.15)
"""Of what the model alone could serve: so many cameras are tried, one after the other."""


@dataclass(frozen=True)
class Subject:
    """A model that steps, its picture size, and how many times cheaper than a window a step has to be."""

    model: str
    backbone: str
    size: int
    goal: float


SUBJECTS = {
    "resnet18-lstm": Subject("cnn_lstm", "resnet18", 112, 20),
    "mobilenetv2-gru": Subject("cnn_gru", "mobilenetv2_100", 224, 50),
    "efficientnet-lite0-gru": Subject("cnn_gru", "tf_efficientnet_lite0", 224, 50),
}


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock and of CPU time."""

    elapsed: float
    cpu: float

    def __truediv__(self, other: Cost) -> Cost:
        return Cost(self.elapsed / other.elapsed, self.cpu / other.cpu)


def timed(work: Callable[[], object], *, repeats: int = 1) -> Cost:
    """Return what one of ``repeats`` costs; first the threads of the rival before are left to fall asleep."""
    time.sleep(PAUSE_SECONDS)
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return Cost(elapsed / repeats, cpu / repeats)


def new_classifier(model: str, size: int, options: dict[str, object]) -> Classifier:
    torch.manual_seed(0)
    spec = ClipSpec(num_frames=T, height=size, width=size, sampling="window", fps=FPS)
    shape = {"num_classes": NUM_CLASSES, "num_frames": T, "height": size, "width": size}
    network = build_model(model, options=options, **shape)
    return Classifier(network, model, options, spec, tuple(f"class {k}" for k in range(NUM_CLASSES)))


def pictures(classifier: Classifier) -> np.ndarray:
    spec = classifier.spec
    return np.random.default_rng(0).integers(0, 256, (T, spec.height, spec.width, 3), np.uint8)


class Rolling:
    """A stream whose last 16 pictures are known: one more picture, then an answer."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.pixels = classifier, pictures(classifier)

    def window(self) -> np.ndarray:
        """Answer the last 16 pictures, all of them prepared and looked at again."""
        self.pixels = np.roll(self.pixels, -1, axis=0)
        return self.classifier.logits([Clip(self.pixels, np.arange(T) / FPS)])


class Stepping:
    """The same stream, frame by frame."""

    def __init__(self, classifier: Classifier, stepper: Stepper) -> None:
        self.stepper, self.pixels = stepper, pictures(classifier)
        self.state, self.number = stepper.start(), 0

    def step(self) -> np.ndarray | None:
        answer, self.state = self.stepper.push(self.pixels[self.number % T], self.state)
        self.number += 1
        return answer


def spread(values: Sequence[float], form: str = ".1f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def compare(name: str, subject: Subject, stepper: Stepper, *, rounds: int) -> None:
    """Print what a step and the rivals cost."""
    classifier = stepper.classifier
    stepping, tutorial = Stepping(classifier, stepper), Rolling(classifier)
    r3d = Rolling(new_classifier("r3d_18", 112, {}))
    answers = [stepping.step() for _ in range(T)]
    of_clip = classifier.logits([Clip(stepping.pixels, np.arange(T) / FPS)])[0]
    off = float(np.abs(np.asarray(answers[-1]) - of_clip).max())
    for warm in (stepping.step, tutorial.window, r3d.window):
        timed(warm, repeats=2)
    steps: list[Cost] = []
    windows: list[Cost] = []
    slides: list[Cost] = []
    for number in range(rounds):
        turns = [
            lambda: steps.append(timed(stepping.step, repeats=T)),
            lambda: windows.append(timed(tutorial.window)),
            lambda: slides.append(timed(r3d.window)),
        ]
        for turn in turns[number % 3 :] + turns[: number % 3]:
            turn()
    print(f"{name} ({subject.model}, {subject.backbone} at {subject.size}): step by {stepper.runtime}")
    rows = {"one step": steps, "16-frame window in torch": windows, "16-frame r3d_18 at 112": slides}
    for what, costs in rows.items():
        elapsed, cpu = [1000 * c.elapsed for c in costs], [1000 * c.cpu for c in costs]
        print(
            f"  {what:25} {spread(elapsed)} ms, CPU {spread(cpu)} ms:"
            f" {1000 / statistics.median(elapsed):.1f} frames a second"
        )
    for what, costs, goal in (("the window", windows, subject.goal), ("r3d_18", slides, None)):
        ratios = [cost / step for cost, step in zip(costs, steps, strict=True)]
        elapsed, cpu = [r.elapsed for r in ratios], [r.cpu for r in ratios]
        is_reached = goal is not None and statistics.median(elapsed) >= goal
        reached = "" if goal is None else f"; goal {goal:.0f}: {'reached' if is_reached else 'NOT reached'}"
        print(f"  a step is cheaper than {what} {spread(elapsed)} times, by CPU time {spread(cpu)}{reached}")
    print(f"  logits of a clip differ by {off:.1e} (at most 1e-4)", flush=True)


def batched_seconds(stepper: Stepper, num_streams: int, *, repeats: int = 7) -> float:
    """Return the median time of one step of several streams together."""
    pixels = pictures(stepper.classifier)
    states: list[StreamState] = [stepper.start()] * num_streams
    times = []
    for number in range(repeats + 2):
        began = time.perf_counter()
        states = [state for _, state in stepper.push_many([pixels[number % T]] * num_streams, states)]
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def most_streams(stepper: Stepper) -> int:
    """Return how many streams one batched step answers within the time between two of their frames."""
    fits, fails = 0, 1
    while fails <= MOST_STREAMS and batched_seconds(stepper, fails) <= 1 / FPS:
        fits, fails = fails, 2 * fails
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if batched_seconds(stepper, middle) <= 1 / FPS:
            fits = middle
        else:
            fails = middle
    return fits


def draw_camera(path: Path, seconds: float) -> None:
    """Write a file that moves and has grain, as a camera's picture does."""
    random = np.random.default_rng(1)
    scene = random.integers(0, 256, (CAMERA_HEIGHT // 8, CAMERA_WIDTH // 4, 3), np.uint8)
    scene = np.kron(scene, np.ones((8, 8, 1), np.uint8))

    def picture(number: int) -> np.ndarray:
        left = 4 * number % (scene.shape[1] - CAMERA_WIDTH)
        grain = random.integers(-6, 7, (CAMERA_HEIGHT, CAMERA_WIDTH, 1))
        return np.clip(scene[:, left : left + CAMERA_WIDTH] + grain, 0, 255).astype(np.uint8)

    write_video(path, (picture(number) for number in range(int(FPS * seconds))), fps=FPS)


def serve(stepper: Stepper, file: Path, num_cameras: int) -> tuple[float, float]:
    """Run so many cameras live; return the share of their frames that was skipped, and the mean lag."""
    reports = run(stepper, [FileSource(file, realtime=True) for _ in range(num_cameras)], fps=FPS)
    answered, skipped = sum(r.num_answered for r in reports), sum(r.num_skipped for r in reports)
    lag = sum(r.mean_lag_seconds * r.num_answered for r in reports) / max(answered, 1)
    return skipped / max(answered + skipped, 1), lag


def cameras(stepper: Stepper, folder: Path, *, seconds: float) -> None:
    alone = most_streams(stepper)
    each = 1000 * batched_seconds(stepper, max(alone, 1)) / max(alone, 1)
    print(
        f"  {alone} cameras of {FPS:.0f} frames a second by the model alone ({each:.1f} ms a frame in a batch)"
    )
    if not seconds or not alone:
        return
    file = folder / "camera.mp4"
    if not file.exists():
        draw_camera(file, seconds)
    for num_cameras in sorted({max(1, int(alone * share)) for share in SHARES}, reverse=True):
        skipped, lag = serve(stepper, file, num_cameras)
        print(
            f"    {num_cameras} live: {100 * skipped:.1f} % of the frames skipped, lag {1000 * lag:.0f} ms",
            flush=True,
        )
        if skipped < SKIPPED_SHARE:
            print(f"  {num_cameras} cameras live, decoding included")
            return
    print("  no number of cameras that was tried kept up live")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--threads", type=int, default=None, help="of torch and ONNX Runtime; all cores by default"
    )
    parser.add_argument("--camera-seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="vidette-live-cost-") as folder:
        for name in chosen.models:
            subject = SUBJECTS[name]
            classifier = new_classifier(subject.model, subject.size, {"backbone": subject.backbone})
            stepper = Stepper(classifier, folder=Path(folder) / "steps")
            compare(name, subject, stepper, rounds=chosen.rounds)
            cameras(stepper, Path(folder), seconds=chosen.camera_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
