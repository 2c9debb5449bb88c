"""Clips out of a 10-minute H.264 file, Vidette beside the usual decoders; memory and time over an hour.

The files are made once, in ``--folder``: 640x360 at 25 frames a second with up to 2 B-frames, a moving drawn
scene with grain, with a key frame every 2 s and every 20 s. Each picture carries its number as 16 black or
white boxes, so the frame that a decoder really gave is read off its pixels; a rival that gives a wrong one is
shown but not compared with. Every contender gives uint8 (16, 224, 224, 3) RGB of the frames on display at the
same times, opening included:

- uniform: 16 frames equally spaced over the whole file;
- windows: 10 random windows of 16 frames at 8 frames a second, of one open video. Vidette is asked for all ten
  at once (``Video.clips``), and in a row of its own for one after the other (``Video.clip``).

They take turns in one run, in an order that rotates from round to round; the figures are medians of the rounds.
``--hour`` instead prints memory and time over an hour, measured in fresh processes (on Linux).

    python benchmarks/long_video.py [--folder FOLDER] [--rounds 5] [--only vidette torchcodec]
    python benchmarks/long_video.py --hour [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from sampling import lend_ffmpeg

from vidette.video.clip import ClipSpec
from vidette.video.reader import open_video
from vidette.video.sampling import WindowCutter
from vidette.video.writer import replacing

T, SIZE = 16, 224
NUM_WINDOWS, WINDOW_FPS = 10, 8.0
BITS = 16
WHOLE = ClipSpec(num_frames=T, height=SIZE, width=SIZE)
WINDOW = ClipSpec(num_frames=T, height=SIZE, width=SIZE, sampling="window", fps=WINDOW_FPS)
KEY_SECONDS = (2, 20)
HOUR_MINUTES = (1, 15, 60)
THROUGH_ROUNDS = 2
"""Reading straight through takes the same time again and again; more turns would only keep the machine busy."""


# The files.


@dataclass(frozen=True)
class Made:
    """A drawn file: how it is encoded, and therefore when its frames are shown."""

    name: str
    num_frames: int
    fps: int
    width: int
    height: int
    key_seconds: int
    crf: int

    def make(self, folder: Path) -> Path:
        """Draw and encode it with one thread, unless it is there."""
        path = folder / f"{self.name}.mp4"
        if path.exists():
            return path
        began = time.perf_counter()
        options = {"preset": "veryfast", "crf": str(self.crf), "bf": "2", "sc_threshold": "0", "threads": "1"}
        with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=self.fps, options=options)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            stream.gop_size = self.key_seconds * self.fps
            for index, planes in enumerate(self._pictures()):
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, self.fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        took, size = time.perf_counter() - began, path.stat().st_size / 1e6
        print(f"made {path.name}: {self.num_frames} frames, {size:.0f} MB, {took:.0f} s", flush=True)
        return path

    def _pictures(self) -> Iterator[np.ndarray]:
        """Yield uint8 yuv420p ``(H * 3/2, W)``: a pan over a panorama, things that move, grain, the number."""
        random = np.random.default_rng(7)
        height, width = self.height, self.width
        luma, *chroma = _panorama(random, 3 * height, 3 * width)
        grain = random.normal(0, 3, (64, height + 32, width)).astype(np.int16)
        things = [_panorama(random, height // 4, height // 4)[0] for _ in range(3)]
        for index in range(self.num_frames):
            seconds = index / self.fps
            top, left = (_swing(seconds / 17), _swing(seconds / 23 + 0.3)) * np.array([height, width])
            top, left = 2 * int(top), 2 * int(left)
            picture = luma[top : top + height, left : left + width] + grain[index % 61, index % 32 :][:height]
            for number, thing in enumerate(things):
                side = len(thing)
                row = int((height - side) * _swing(seconds / (3 + number) + number / 3))
                column = int((width - side) * _swing(seconds / (5 - number) + number / 5))
                picture[row : row + side, column : column + side] = thing
            _write_number(picture, index)
            half = (slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2))
            planes = [np.clip(picture, 0, 255), *(plane[half] for plane in chroma)]
            yield np.concatenate([plane.astype(np.uint8).reshape(-1, width) for plane in planes])


def _swing(turns: float) -> float:
    """Go from 0 to 1 and back once a turn."""
    return 0.5 - 0.5 * float(np.cos(2 * np.pi * turns))


def _panorama(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Return int16 luma ``(H, W)`` and two chroma ``(H/2, W/2)``; detail falls with frequency as in nature."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / width) ** 1.2
    planes = []
    for spread in (45, 15, 15):
        noise = np.fft.irfft2(np.fft.rfft2(random.normal(size=(height, width))) * fall, (height, width))
        planes.append(np.clip(128 + spread * noise / noise.std(), 16, 235).astype(np.int16))
    return planes[0], planes[1][::2, ::2], planes[2][::2, ::2]


def _write_number(luma: np.ndarray, number: int) -> None:
    box_height, box_width = luma.shape[0] // 15, luma.shape[1] // BITS
    for bit in range(BITS):
        luma[:box_height, bit * box_width : (bit + 1) * box_width] = 235 if number >> bit & 1 else 16


def read_numbers(pixels: np.ndarray) -> np.ndarray:
    """Return the numbers that pictures ``(T, H, W, 3)`` carry, int64 ``(T,)``."""
    box_height, box_width = pixels.shape[1] // 15, pixels.shape[2] // BITS
    middles = pixels[:, box_height // 2, box_width // 2 :: box_width].mean(axis=2) > 127
    return (middles * (1 << np.arange(BITS))).sum(axis=1)


TEN_MINUTES = tuple(Made(f"key-every-{s}-s", 15_000, 25, 640, 360, key_seconds=s, crf=27) for s in KEY_SECONDS)
HOUR = Made("hour", 60 * 60 * 12, 12, 320, 180, key_seconds=4, crf=27)


# The task and who does it.


@dataclass(frozen=True)
class Task:
    """What is wanted of a file at a constant rate: the frames of each clip, and the starts of windows."""

    name: str
    clips: tuple[tuple[int, ...], ...]
    fps: int
    starts: tuple[float, ...] = ()

    def middles(self, clip: Sequence[int]) -> list[float]:
        """Return times in the middle of each frame's display, where rounding cannot lead to another."""
        return [(index + 0.5) / self.fps for index in clip]


def uniform_task(made: Made) -> Task:
    return Task("uniform", (tuple(np.linspace(0, made.num_frames - 1, T).astype(int).tolist()),), made.fps)


def windows_task(made: Made) -> Task:
    step = made.fps / WINDOW_FPS
    latest = made.num_frames - int(T * step)
    firsts = np.random.default_rng(3).integers(0, latest, NUM_WINDOWS).tolist()
    clips = tuple(tuple(first + int(k * step) for k in range(T)) for first in firsts)
    return Task("windows", clips, made.fps, tuple(first / made.fps for first in firsts))


Clips = list[np.ndarray]


def vidette(path: str, task: Task) -> Clips:
    with open_video(path) as video:
        if not task.starts:
            return [video.clip(WHOLE).pixels]
        return [clip.pixels for clip in video.clips(WINDOW, [(start, None) for start in task.starts])]


def vidette_one_by_one(path: str, task: Task) -> Clips:
    with open_video(path) as video:
        return [video.clip(WINDOW, start_seconds=start).pixels for start in task.starts]


def opencv_by_place(path: str, task: Task) -> Clips:
    return _opencv_seeking(path, task, by_time=False)


def opencv_by_time(path: str, task: Task) -> Clips:
    return _opencv_seeking(path, task, by_time=True)


def _opencv_seeking(path: str, task: Task, *, by_time: bool) -> Clips:
    """Seek to far frames, grab on to near ones (nearer than 2 s)."""
    import cv2

    capture = cv2.VideoCapture(path)
    clips = []
    for clip in task.clips:
        frames, place = [], -10_000
        for index in clip:
            if index - place > 2 * task.fps or index < place:
                if by_time:
                    capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * index / task.fps)
                else:
                    capture.set(cv2.CAP_PROP_POS_FRAMES, index)
                place = index
            while place <= index:
                capture.grab()
                place += 1
            frames.append(_opencv_picture(capture))
        clips.append(np.stack(frames))
    capture.release()
    return clips


def _opencv_picture(capture: object) -> np.ndarray:
    import cv2

    good, picture = capture.retrieve()  # pyright: ignore[reportAttributeAccessIssue]
    if not good:
        return np.zeros((SIZE, SIZE, 3), np.uint8)
    return cv2.cvtColor(cv2.resize(picture, (SIZE, SIZE)), cv2.COLOR_BGR2RGB)


def opencv_through(path: str, task: Task) -> Clips:
    """Grab every frame up to the last wanted one, retrieve only the wanted ones."""
    import cv2

    capture = cv2.VideoCapture(path)
    wanted = {index for clip in task.clips for index in clip}
    frames = {}
    for index in range(max(wanted) + 1):
        capture.grab()
        if index in wanted:
            frames[index] = _opencv_picture(capture)
    capture.release()
    return [np.stack([frames[index] for index in clip]) for clip in task.clips]


def decord2(path: str, task: Task) -> Clips:
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), width=SIZE, height=SIZE)
    return [reader.get_batch(list(clip)).asnumpy() for clip in task.clips]


def torchcodec_exact(path: str, task: Task) -> Clips:
    return _torchcodec(path, task, seek_mode="exact", num_threads=1)


def torchcodec_exact_threads(path: str, task: Task) -> Clips:
    return _torchcodec(path, task, seek_mode="exact", num_threads=0)


def torchcodec_approximate(path: str, task: Task) -> Clips:
    return _torchcodec(path, task, seek_mode="approximate", num_threads=1)


def torchcodec_approximate_threads(path: str, task: Task) -> Clips:
    return _torchcodec(path, task, seek_mode="approximate", num_threads=0)


def _torchcodec(path: str, task: Task, *, seek_mode: str, num_threads: int) -> Clips:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(
        path,
        seek_mode=seek_mode,  # pyright: ignore[reportArgumentType]
        num_ffmpeg_threads=num_threads,
        dimension_order="NHWC",
        transforms=[Resize((SIZE, SIZE))],
    )
    return [decoder.get_frames_played_at(task.middles(clip)).data.numpy() for clip in task.clips]


def pyav_through(path: str, task: Task) -> Clips:
    """Decode everything up to the last wanted frame with threads, convert only the wanted ones."""
    reformatter = VideoReformatter()
    wanted = {index for clip in task.clips for index in clip}
    frames = {}
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                frames[index] = reformatter.reformat(frame, SIZE, SIZE, "rgb24").to_ndarray()
            if index == max(wanted):
                break
    return [np.stack([frames[index] for index in clip]) for clip in task.clips]


@dataclass(frozen=True)
class Contender:
    """Who takes part, the module it needs, whether it reads straight through, and whether only windows."""

    name: str
    sample: Callable[[str, Task], Clips]
    module: str
    through: bool = False
    windows_only: bool = False


CONTENDERS = (
    Contender("vidette", vidette, "av"),
    Contender("vidette, one window at a time", vidette_one_by_one, "av", windows_only=True),
    Contender("torchcodec exact", torchcodec_exact, "torchcodec"),
    Contender("torchcodec exact, all threads", torchcodec_exact_threads, "torchcodec"),
    Contender("torchcodec approximate", torchcodec_approximate, "torchcodec"),
    Contender("torchcodec approximate, all threads", torchcodec_approximate_threads, "torchcodec"),
    Contender("decord2", decord2, "decord"),
    Contender("opencv, seeking by frame", opencv_by_place, "cv2"),
    Contender("opencv, seeking by time", opencv_by_time, "cv2"),
    Contender("opencv, straight through", opencv_through, "cv2", through=True),
    Contender("pyav, straight through", pyav_through, "av", through=True),
)


def present(only: Sequence[str]) -> list[Contender]:
    """Return the contenders that are asked for and can be imported."""
    found = []
    for contender in CONTENDERS:
        if only and contender.name.split()[0].strip(",") not in only:
            continue
        try:
            importlib.import_module(contender.module)
        except (ImportError, RuntimeError) as error:
            print(f"{contender.name}: left out, {str(error).splitlines()[0]}")
            continue
        found.append(contender)
    return found


@dataclass(frozen=True)
class Turn:
    """What one turn took, of the clock and of the processor, and how many of its frames are the right ones."""

    seconds: float
    cpu_seconds: float
    num_right: int


def measure_ten_minutes(folder: Path, contenders: Sequence[Contender], *, rounds: int) -> None:
    """Print a table for each file and each task."""
    paths = [made.make(folder) for made in TEN_MINUTES]
    for contender in contenders:
        contender.sample(str(paths[0]), Task("warm-up", ((0,),), TEN_MINUTES[0].fps, (0.0,)))
    print(f"10 minutes of 640x360, {rounds} rounds, {os.cpu_count()} cores")
    for made, path in zip(TEN_MINUTES, paths, strict=True):
        for task in (uniform_task(made), windows_task(made)):
            measure([c for c in contenders if task.starts or not c.windows_only], path, task, rounds=rounds)


def measure(contenders: Sequence[Contender], path: Path, task: Task, *, rounds: int) -> None:
    """Let the contenders take turns and print a table."""
    right = np.array(task.clips)
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for i in range(rounds):
        first = i % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            if contender.through and i >= THROUGH_ROUNDS:
                continue
            began, cpu_began = time.perf_counter(), time.process_time()
            clips = contender.sample(str(path), task)
            took, cpu_took = time.perf_counter() - began, time.process_time() - cpu_began
            num_right = int((np.array([read_numbers(clip) for clip in clips]) == right).sum())
            turns[contender.name].append(Turn(took, cpu_took, num_right))
    _print_table(f"{path.stem}, {task.name}", turns, right.size)


def _print_table(title: str, turns: dict[str, list[Turn]], num_frames: int) -> None:
    medians = {name: statistics.median(turn.seconds for turn in taken) for name, taken in turns.items()}
    num_right = {name: min(turn.num_right for turn in taken) for name, taken in turns.items()}
    rivals = [
        medians[name] for name in medians if num_right[name] == num_frames and not name.startswith("vidette")
    ]
    best = min(rivals, default=float("nan"))
    print(f"{title}: median seconds (lowest to highest), CPU seconds, right frames, speed by the best rival's")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        seconds = [turn.seconds for turn in turns[name]]
        span = f"({min(seconds):.3f} to {max(seconds):.3f})"
        cpu = statistics.median(turn.cpu_seconds for turn in turns[name])
        right = f"{num_right[name]:3d} of {num_frames}"
        print(f"  {name:36s} {median:7.3f}  {span:20s} {cpu:7.3f}  {right}  {best / median:5.2f}", flush=True)


# An hour.


def measure_hour(folder: Path) -> None:
    """Print peak memory and seconds of sampling and of reading all windows, for cuts of an hour's file."""
    whole = HOUR.make(folder)
    for minutes in HOUR_MINUTES:
        path = cut(whole, folder / f"hour-first-{minutes}.mp4", seconds=60 * minutes)
        size = path.stat().st_size / 2**20
        for action in ("uniform", "windows"):
            child = [sys.executable, __file__, "--child", action, "--folder", str(path)]
            answer = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
            grown, took, count = answer["grown_mib"], answer["seconds"], answer["clips"]
            print(
                f"{minutes:2d} min ({size:5.1f} MiB), {action}: {count} clips in {took:.2f} s,"
                f" peak memory {grown:.1f} MiB over what the imports take",
                flush=True,
            )


def cut(source: Path, path: Path, *, seconds: float) -> Path:
    """Copy the packets of the first seconds, encoding nothing, unless the file is there."""
    if path.exists():
        return path
    with (
        replacing(path) as temporary,
        av.open(str(source)) as read,
        av.open(str(temporary), "w", format="mp4") as out,
    ):
        stream = read.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in read.demux(stream):
            if packet.pts is not None and packet.time_base and packet.pts * packet.time_base < seconds:
                packet.stream = copy
                out.mux(packet)
    return path


def run_child(action: str, path: Path) -> None:
    """Do one thing to one file and print what it took, as JSON."""
    before = memory_mib("VmRSS")
    began = time.perf_counter()
    with open_video(path) as video:
        if action == "uniform":
            count = int(video.clip(WHOLE).pixels.shape[0] > 0)
        else:
            cutter = WindowCutter(WINDOW, stride_seconds=T / WINDOW_FPS)
            count = sum(cutter.push(frame) is not None for frame in video.frames(WINDOW))
    took = time.perf_counter() - began
    print(json.dumps({"grown_mib": memory_mib("VmHWM") - before, "seconds": took, "clips": count}))


def memory_mib(kind: str) -> float:
    """Return this process's memory as Linux counts it: ``VmRSS`` now, ``VmHWM`` at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{kind}:\s+(\d+) kB", status)[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the made files are kept; default a temporary folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--hour", action="store_true", help="memory and time over an hour instead")
    parser.add_argument("--make", action="store_true", help="only make the files of both")
    parser.add_argument("--child", choices=("uniform", "windows"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options.folder)
        return
    lend_ffmpeg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.make:
            for made in (*TEN_MINUTES, HOUR):
                made.make(folder)
        elif options.hour:
            measure_hour(folder)
        else:
            measure_ten_minutes(folder, present(options.only), rounds=options.rounds)


if __name__ == "__main__":
    main()
