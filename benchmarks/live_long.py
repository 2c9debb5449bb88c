"""Live runs that are long, late, cut off and killed: the real live loop with a tiny model.

- ``frames``: 100,000 drawn frames as fast as they are answered, with the drift watch, JSON lines and CSV.
  Resident memory is fitted by a line over the medians of equal parts, the first tenth left out; the slope is
  given with its 95 % interval. The p95 of the lag and of the time between answers: first and last tenth.
- ``slow``: a live source three times as fast as the model. A held step (sleeps up to 60 ms: a slow model on an
  idle machine) and a computing one (EfficientNet-Lite0 + GRU at 224, the source three times its measured rate).
  Lag as a multiple of the step's own time, backlog, frames skipped.
- ``drops``: an MJPEG camera on loopback that hangs up 20 times.
- ``kill``: a live run in a process of its own that is killed (SIGKILL) at five moments; what it wrote by then,
  JSON lines, CSV, both kinds of subtitles and annotated MP4, is read back.

    python benchmarks/live_long.py [--parts frames slow drops kill] [--frames 100000] [--seconds 30]

Reads resident memory from /proc (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import http.server
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from scipy.stats import t

from vidette.classifier.classifier import Classifier
from vidette.classifier.stepper import Stepper, StreamState
from vidette.models import build_model
from vidette.prediction.decision import DecisionPolicy
from vidette.streaming.base import Notify, Shown, SourceCounts
from vidette.streaming.live import run
from vidette.streaming.outputs import open_outputs
from vidette.streaming.records import Decided, Note, Output, Record, Score
from vidette.streaming.remote import Patience
from vidette.streaming.sources import open_source
from vidette.streaming.watch import DriftWatch
from vidette.video.clip import ClipSpec

T, SIZE, FPS = 16, 32, 10.0
CLASSES = ("fall", "walk", "wave")
NUM_PARTS = 20
SLOW_TIMES, HELD_SECONDS = 3, 0.06
NUM_DROPS, NUM_KILLS = 20, 5
LAG_STEPS = 1.2
ENDINGS = (".jsonl", ".csv", ".srt", ".vtt", ".mp4")


# What the parts share: a tiny classifier, drawn pictures, a source of them, a list of what was told.


def new_classifier(
    fps: float = FPS, *, backbone: str = "small", size: int = SIZE, num_frames: int = T
) -> Classifier:
    torch.manual_seed(0)
    spec = ClipSpec(num_frames=num_frames, height=size, width=size, sampling="window", fps=fps)
    options = {"backbone": backbone}
    shape = {"num_classes": len(CLASSES), "num_frames": num_frames, "height": size, "width": size}
    return Classifier(build_model("cnn_gru", options=options, **shape), "cnn_gru", options, spec, CLASSES)


def drawn(size: int, count: int = 64) -> np.ndarray:
    """Return uint8 ``(count, size, size, 3)``: noise that moves, so that no picture is the one before."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    return np.stack([np.roll(noise, number, axis=1) for number in range(count)])


class DrawnSource:
    """Gives drawn pictures: as fast as they are taken, or live at a rate."""

    def __init__(self, num_frames: int, *, fps: float, size: int = SIZE, is_live: bool = False) -> None:
        self.name, self.is_live, self.counts = "drawn", is_live, SourceCounts(height=size, width=size)
        self._num_frames, self._fps, self._pictures = num_frames, fps, drawn(size)
        self._stopped = threading.Event()

    def frames(self, spec: ClipSpec, notify: Notify) -> Iterator[Shown]:
        del spec, notify
        begun = time.monotonic()
        for number in range(self._num_frames):
            if self.is_live:
                self._stopped.wait(max(0.0, begun + number / self._fps - time.monotonic()))
            if self._stopped.is_set():
                return
            self.counts.num_frames += 1
            pixels = self._pictures[number % len(self._pictures)]
            yield Shown(number / self._fps, lambda pixels=pixels: pixels)

    def stop(self) -> None:
        self._stopped.set()


class Listener:
    """Calls a function with every record."""

    def __init__(self, listen: Callable[[Record], None]) -> None:
        self._listen = listen

    def take(self, record: Record) -> None:
        self._listen(record)

    def close(self) -> None:
        pass


def verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "NOT reached"


# A hundred thousand frames.


def resident_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def measure_frames(num_frames: int, folder: Path) -> None:
    lags, moments, memory = (np.full(num_frames, np.nan) for _ in range(3))  # written now, so held from now on
    count = 0

    def listen(record: Record) -> None:
        nonlocal count
        if isinstance(record, Score):
            every = max(1, num_frames // 1000)
            lags[count], moments[count] = record.status.lag_seconds, time.perf_counter()
            memory[count] = resident_kib() if count % every == 0 else memory[count - 1]
            count += 1

    classifier = new_classifier()
    outputs: list[Output] = [*open_outputs([folder / "run.jsonl", folder / "run.csv"], num_sources=1)]
    watched = DriftWatch(classifier, [*outputs, Listener(listen)], fps=FPS)
    source = DrawnSource(num_frames, fps=FPS)
    began = time.perf_counter()
    (report,) = run(Stepper(classifier, folder=folder), [source], outputs=[watched], policy="block")
    took = time.perf_counter() - began
    print(f"frames: {report.num_answered} answered of {num_frames} in {took:.0f} s, {report.num_events} events")
    lags, gaps, memory = lags[:count], np.diff(moments[:count]), memory[:count]
    slope, half = memory_slope(memory)
    early, late = memory[count // 10] / 1024, memory[-1] / 1024
    print(
        f"  resident memory {early:.1f} MiB after a tenth, {late:.1f} at the end:"
        f" {slope:+.1f} KiB every 10,000 frames (95 % interval {slope - half:+.1f} to {slope + half:+.1f})"
    )
    for what, values in (("lag", lags), ("time between answers", gaps)):
        tenth = len(values) // 10
        first, last = np.quantile(values[:tenth], 0.95), np.quantile(values[-tenth:], 0.95)
        print(
            f"  p95 of the {what}: first tenth {1000 * first:.2f} ms, last tenth {1000 * last:.2f} ms:"
            f" {last / first:.2f} times"
        )


def memory_slope(memory: np.ndarray) -> tuple[float, float]:
    """Return KiB every 10,000 frames and half of the 95 % interval.

    Least squares over the medians of equal parts, the first tenth left out; medians of long parts hang less on
    their neighbours than single values do.
    """
    kept = memory[len(memory) // 10 :]
    parts = np.array_split(kept, NUM_PARTS)
    middles = (np.cumsum([len(part) for part in parts]) - len(parts[0]) / 2) / 10_000
    medians = np.array([np.median(part) for part in parts])
    (slope, start), away = np.polyfit(middles, medians, 1), middles - middles.mean()
    error = np.sqrt(((medians - start - slope * middles) ** 2).sum() / (NUM_PARTS - 2) / (away**2).sum())
    return float(slope), float(t.ppf(0.975, NUM_PARTS - 2) * error)


# A model three times slower than its source.


class TimedStepper(Stepper):
    """Keeps how long its steps took; with ``held_seconds`` no step is shorter."""

    held_seconds = 0.0

    def __init__(self, classifier: Classifier, *, folder: Path) -> None:
        super().__init__(classifier, folder=folder)
        self.took: list[float] = []

    def push_many(
        self, frames: Sequence[np.ndarray], states: Sequence[StreamState]
    ) -> list[tuple[np.ndarray | None, StreamState]]:
        begun = time.monotonic()
        answers = super().push_many(frames, states)
        time.sleep(max(0.0, begun + self.held_seconds - time.monotonic()))
        self.took.append(time.monotonic() - begun)
        return answers


def measure_slow(name: str, classifier: Classifier, folder: Path, *, held: float, seconds: float) -> None:
    stepper = TimedStepper(classifier, folder=folder)
    stepper.held_seconds = held
    state, size = stepper.start(), classifier.spec.height
    for pixels in drawn(size, 20):
        _, state = stepper.push(pixels, state)
    fps = SLOW_TIMES / statistics.median(stepper.took)
    stepper.took.clear()
    scores: list[Score] = []
    notes: list[Note] = []

    def listen(record: Record) -> None:
        if isinstance(record, Score):
            scores.append(record)
        elif isinstance(record, Note) and record.kind == "rate":
            notes.append(record)

    source = DrawnSource(int(fps * seconds), fps=fps, size=size, is_live=True)
    (report,) = run(stepper, [source], outputs=[Listener(listen)], policy="newest", fps=fps)
    took, backlogs = np.array(stepper.took), [score.status.backlog for score in scores]
    lags = np.array([score.status.lag_seconds for score in scores]) / took[-len(scores) :]
    seen = report.num_answered + report.num_skipped
    step, slow_step = 1000 * np.quantile(took, (0.5, 0.95))
    print(
        f"slow, {name}: {fps:.0f} frames a second, a step takes {step:.1f} ms (p95 {slow_step:.1f}):"
        f" {len(took)} answered, {report.num_skipped} skipped, {seen} of {report.num_frames} accounted for"
    )
    middle, late = np.quantile(lags, (0.5, 0.95))
    print(
        f"  lag by the step's own time: median {middle:.2f}, p95 {late:.2f}, most {lags.max():.2f};"
        f" {100 * np.mean(lags <= LAG_STEPS):.1f} % at most {LAG_STEPS}: {verdict(late <= LAG_STEPS)} at p95"
    )
    print(f"  backlog at most {max(backlogs)}; notes on the rate: {[note.text for note in notes]}")


# A camera that hangs up.


class MjpegCamera:
    """Sends JPEG pictures as a camera does (``multipart/x-mixed-replace``); hangs up after so many."""

    def __init__(self, *, pictures_each: int, fps: float, num_drops: int) -> None:
        jpegs = [_jpeg(pixels) for pixels in drawn(64, 16)]
        self.num_connections = 0
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                camera.num_connections += 1
                lasts = camera.num_connections > num_drops
                with contextlib.suppress(ConnectionError):  # at the end the source hangs up
                    for number in range(10 * pictures_each if lasts else pictures_each):
                        jpeg = jpegs[number % len(jpegs)]
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                        time.sleep(1 / fps)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/live"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def measure_drops(folder: Path) -> None:
    camera = MjpegCamera(pictures_each=25, fps=25, num_drops=NUM_DROPS)
    notes: list[Note] = []
    patience = Patience(first_wait_seconds=0.2)
    source = open_source(camera.address, patience=patience)

    def listen(record: Record) -> None:
        if isinstance(record, Note):
            notes.append(record)
            if record.kind == "returned" and source.counts.num_returns >= NUM_DROPS:
                threading.Timer(2.0, source.stop).start()

    began = time.perf_counter()
    stepper = Stepper(new_classifier(num_frames=4), folder=folder)
    (report,) = run(stepper, [source], outputs=[Listener(listen)], duration_seconds=180)
    camera.close()
    lost = [note.seconds for note in notes if note.kind == "lost"]
    back = [note.seconds for note in notes if note.kind == "returned"]
    away = [after - before for before, after in zip(lost, back, strict=False)]
    print(
        f"drops: {report.num_returns} returns after {NUM_DROPS} drops in {time.perf_counter() - began:.0f} s:"
        f" {verdict(report.num_returns == NUM_DROPS and report.error is None)}; away"
        f" {statistics.median(away):.2f} s (at most {max(away):.2f}; it waits {patience.first_wait_seconds});"
        f" {report.num_answered} answers, lag {1000 * report.mean_lag_seconds:.0f} ms on average"
    )


# A killed process.


class Alternating(Stepper):
    """Answers two classes in turns, so that events begin and end."""

    def push_many(
        self, frames: Sequence[np.ndarray], states: Sequence[StreamState]
    ) -> list[tuple[np.ndarray | None, StreamState]]:
        answers = super().push_many(frames, states)
        changed = []
        for logits, state in answers:
            favoured = np.eye(len(CLASSES), dtype=np.float32)[state.num_frames // 10 % 2]
            changed.append((None if logits is None else 6 * favoured, state))
        return changed


def be_killed(folder: Path) -> None:
    """Write all kinds of files until somebody ends it."""
    outputs = open_outputs([folder / f"run{ending}" for ending in ENDINGS], num_sources=1)
    stepper = Alternating(new_classifier(fps=50.0, num_frames=4), folder=folder.parent)
    source = DrawnSource(1_000_000, fps=50.0, size=SIZE, is_live=True)
    told = Listener(lambda record: print("event", flush=True) if isinstance(record, Decided) else None)
    decision = DecisionPolicy(smoothing="none", minimum_seconds=0.0)
    run(stepper, [source], outputs=[*outputs, told], policy="block", decision=decision)


def measure_kill(folder: Path) -> None:
    chance = random.Random(0)
    whole = 0
    for number in range(NUM_KILLS):
        place = folder / f"killed-{number}"
        place.mkdir()
        process = subprocess.Popen(
            [sys.executable, __file__, "--be-killed", str(place)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5 + 3 * number):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        found = {ending: check(place / f"run{ending}") for ending in ENDINGS}
        whole += all(count is not None and count > 0 for count in found.values())
        text = ", ".join(f"{ending} {'BROKEN' if n is None else n}" for ending, n in found.items())
        print(f"  kill {number + 1}: whole entries read back: {text}")
    print(f"kill: the files of {whole} of {NUM_KILLS} killed runs are whole: {verdict(whole == NUM_KILLS)}")


def check(path: Path) -> int | None:
    """Return how many whole entries a file holds; None where an entry is cut or wrong."""
    try:
        return _CHECKS[path.suffix](path)
    except (ValueError, KeyError, OSError, av.FFmpegError) as error:
        print(f"    {path.name}: {error}")
        return None


def _text(path: Path, end: str) -> str:
    text = path.read_text(encoding="utf-8")
    if not text.endswith(end):
        raise ValueError(f"ends with {text[-40:]!r}")
    return text


def _num_lines(path: Path) -> int:
    return sum(json.loads(line)["type"] == "score" for line in _text(path, "\n").splitlines())


def _num_rows(path: Path) -> int:
    rows = list(csv.DictReader(io.StringIO(_text(path, "\n"))))
    return sum(float(row["end_seconds"]) > float(row["start_seconds"]) for row in rows)


def _num_cues(path: Path) -> int:
    blocks = [block for block in _text(path, "\n\n").split("\n\n") if block and block != "WEBVTT"]
    time_line = re.compile(r"(?:\d+\n)?\d\d:\d\d:\d\d[.,]\d{3} --> \d\d:\d\d:\d\d[.,]\d{3}\n\w+ \d+ %$")
    if not all(time_line.match(block) for block in blocks):
        raise ValueError("a cue is cut")
    return len(blocks)


def _num_pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


_CHECKS: dict[str, Callable[[Path], int]] = {
    ".jsonl": _num_lines,
    ".csv": _num_rows,
    ".srt": _num_cues,
    ".vtt": _num_cues,
    ".mp4": _num_pictures,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("frames", "slow", "drops", "kill")
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each slow run")
    parser.add_argument("--be-killed", type=Path, default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.be_killed is not None:
        be_killed(chosen.be_killed)
        return 0
    with tempfile.TemporaryDirectory(prefix="vidette-live-long-") as name:
        folder = Path(name)
        if "frames" in chosen.parts:
            measure_frames(chosen.frames, folder)
        if "slow" in chosen.parts:
            measure_slow("held", new_classifier(), folder, held=HELD_SECONDS, seconds=chosen.seconds)
            large = new_classifier(backbone="tf_efficientnet_lite0", size=224)
            measure_slow("computing", large, folder, held=0.0, seconds=chosen.seconds)
        if "drops" in chosen.parts:
            measure_drops(folder)
        if "kill" in chosen.parts:
            measure_kill(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
