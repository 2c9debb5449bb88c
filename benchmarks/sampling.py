"""Clips a second: 16 frames at 224x224 from every fifth clip of ``fight/``, Vidette beside the usual decoders.

Every contender takes the same 60 files and gives uint8 (16, 224, 224, 3) RGB of frames equally spaced over
the clip, first and last included, each used as its own documentation advises. They take turns in one run, in an
order that rotates from round to round; the figures are medians over the rounds.

    VIDETTE_DATA=../shared/data python benchmarks/sampling.py [--rounds 5] [--only vidette opencv]
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from vidette.video.clip import ClipSpec
from vidette.video.reader import open_video

T, SIZE = 16, 224
SPEC = ClipSpec(num_frames=T, height=SIZE, width=SIZE)


def vidette(path: str) -> np.ndarray:
    with open_video(path) as video:
        return video.clip(SPEC).pixels


def opencv(path: str) -> np.ndarray:
    """Grab every frame, retrieve and resize only the wanted ones."""
    import cv2

    capture = cv2.VideoCapture(path)
    wanted = places(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    frames: dict[int, np.ndarray] = {}
    for i in range(wanted[-1] + 1):
        if not capture.grab():
            break
        if i in wanted:
            small = cv2.resize(capture.retrieve()[1], (SIZE, SIZE))
            frames[i] = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([frames[i] for i in wanted])


def decord2(path: str) -> np.ndarray:
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), width=SIZE, height=SIZE)
    return reader.get_batch(places(len(reader))).asnumpy()


def torchcodec(path: str) -> np.ndarray:
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, seek_mode="exact")
    frames = decoder.get_frames_at(places(decoder.metadata.num_frames)).data
    small = interpolate(frames, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).numpy()


def pyav_kept(path: str) -> np.ndarray:
    """Decode everything with threads, convert only the wanted frames, with one reformatter."""
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = set(places(stream.frames))
        frames = [
            reformatter.reformat(frame, SIZE, SIZE, "rgb24").to_ndarray()
            for i, frame in enumerate(container.decode(stream))
            if i in wanted
        ]
    return np.stack(frames)


def pyav_plain(path: str) -> np.ndarray:
    """The tutorials' way: decode everything, convert everything, then pick."""
    with av.open(path) as container:
        frames = [frame.reformat(SIZE, SIZE, "rgb24").to_ndarray() for frame in container.decode(video=0)]
    return np.stack([frames[i] for i in places(len(frames))])


def places(num_frames: int) -> list[int]:
    return np.linspace(0, num_frames - 1, T).astype(int).tolist()


CONTENDERS: dict[str, tuple[Callable[[str], np.ndarray], str]] = {
    "vidette": (vidette, "av"),
    "opencv": (opencv, "cv2"),
    "decord2": (decord2, "decord"),
    "torchcodec": (torchcodec, "torchcodec"),
    "pyav, one pass, one reformatter": (pyav_kept, "av"),
    "pyav, everything converted": (pyav_plain, "av"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    lend_ffmpeg()
    data = Path(os.environ.get("VIDETTE_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
    table = data / "fight/fight.csv"
    if not table.exists():
        sys.exit(f"{table} is absent: set VIDETTE_DATA to the folder that holds fight/")
    names = [line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    paths = [str(table.parent / name) for name in names][:: options.every]
    chosen = {k: v for k, v in CONTENDERS.items() if not options.only or k.split(",")[0] in options.only}
    report(measure(chosen, paths, rounds=options.rounds), num_clips=len(paths), rounds=options.rounds)


def lend_ffmpeg() -> None:
    """Start again with PyAV's FFmpeg libraries under their usual names, for torchcodec, which brings none."""
    libraries = Path(av.__file__).parents[1] / "av.libs"
    if "VIDETTE_LENT" in os.environ or not libraries.is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:
        for library in [*libraries.glob("libav*.so.*"), *libraries.glob("libsw*.so.*")]:
            stem, _, rest = library.name.partition("-")
            (Path(folder) / f"{stem}.so.{rest.split('.so.')[1].split('.')[0]}").symlink_to(library)
        known = os.environ.get("LD_LIBRARY_PATH", "")
        environment = {**os.environ, "VIDETTE_LENT": "1", "LD_LIBRARY_PATH": f"{folder}:{known}"}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)


def measure(
    contenders: dict[str, tuple[Callable[[str], np.ndarray], str]], paths: list[str], *, rounds: int
) -> dict[str, list[float]]:
    """Return each contender's clips a second, one figure a round."""
    rates: dict[str, list[float]] = {}
    for name, (sample, module) in contenders.items():
        try:
            importlib.import_module(module)
            assert sample(paths[0]).shape == (T, SIZE, SIZE, 3)
        except (ImportError, RuntimeError) as error:
            print(f"{name}: left out, {str(error).splitlines()[0]}")
            continue
        rates[name] = []
    for i in range(rounds):
        names = list(rates)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            sample = contenders[name][0]
            start = time.perf_counter()
            for path in paths:
                sample(path)
            rates[name].append(len(paths) / (time.perf_counter() - start))
    return rates


def report(rates: dict[str, list[float]], *, num_clips: int, rounds: int) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best_rival = max((v for name, v in medians.items() if name != "vidette"), default=float("nan"))
    print(f"{num_clips} clips, {rounds} rounds, {os.cpu_count()} cores; median clips/s (lowest to highest)")
    for name, median in sorted(medians.items(), key=lambda item: -item[1]):
        low, high = min(rates[name]), max(rates[name])
        print(f"  {name:34s} {median:6.2f}  ({low:.2f} to {high:.2f})  {median / best_rival:5.2f} x best rival")


if __name__ == "__main__":
    main()
