"""Cameras on the network that stop and come back in mid-run, each a process of its own on loopback.

- ``rtsp``: a real RTSP server (GStreamer's, ``live_rtsp_server.py``), H.264; left out with its reason where no
  Python on this machine has GStreamer's bindings.
- ``http``: JPEG pictures, one after the other (MJPEG).
- ``udp``: MPEG transport stream with H.264, sent by PyAV.

Each sends 640x360 at 25 frames a second, and every picture carries the time at which it was drawn. A tiny
classifier answers 10 frames a second of it, with the patience that ``vidette stream`` has. The camera is
killed ``--stops`` times for ``--away`` seconds and the time that it takes to start. Printed: returns, seconds
from the camera's being ready again to its first picture (Vidette waits between attempts, twice as long each
time), pictures lost while connected (gaps between the drawn times), time from drawing to arrival, and from
arrival to answer.

    python benchmarks/live_rtsp.py [--cameras rtsp http udp] [--stops 5] [--away 3] [--up 6]
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import io
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from live_long import new_classifier
from live_rtsp_server import BITS, BOX, FPS, HEIGHT, WIDTH, stamp, stamped_luma
from PIL import Image

from vidette.classifier.stepper import Stepper
from vidette.errors import VidetteError
from vidette.streaming.base import Notify, Shown, Source
from vidette.streaming.live import run
from vidette.streaming.sources import open_source
from vidette.video.clip import ClipSpec

SIZE = 64
SERVER = Path(__file__).with_name("live_rtsp_server.py")
READY_SECONDS = 20.0


# The cameras, as this script runs them in processes of their own.


def serve_http(port: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for luma in paced():
                    out = io.BytesIO()
                    Image.fromarray(luma).save(out, "JPEG")
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {out.tell()}\r\n\r\n"
                    self.wfile.write(head.encode() + out.getvalue() + b"\r\n")

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print("ready", flush=True)
    server.serve_forever()


def send_udp(port: int) -> None:
    print("ready", flush=True)
    options = {"preset": "ultrafast", "tune": "zerolatency"}
    address = f"udp://127.0.0.1:{port}?pkt_size=1316"
    with av.open(address, "w", format="mpegts", container_options={"flush_packets": "1"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", FPS
        chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
        for number, luma in enumerate(paced()):
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))


def paced() -> Iterator[np.ndarray]:
    """Yield uint8 luma ``(H, W)``, a picture every 1 / FPS seconds."""
    begun, number = time.monotonic(), 0
    while True:
        yield np.frombuffer(stamped_luma(stamp()), np.uint8).reshape(HEIGHT, WIDTH)
        number += 1
        time.sleep(max(0.0, begun + number / FPS - time.monotonic()))


# The other side.


class Camera:
    """A camera's process, started and killed as often as wanted."""

    def __init__(self, kind: str, address: str, command: list[str]) -> None:
        self.kind, self.address, self._command = kind, address, command
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise OSError(f"the {self.kind} camera did not start: {' '.join(self._command)}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def new_camera(kind: str) -> Camera | str:
    """Return a camera, or why there is none."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if kind == "rtsp":
        python = gstreamer_python()
        if python is None:
            return (
                "no Python here has GStreamer's RTSP server (Debian: apt-get install gir1.2-gst-rtsp-server-1.0"
                " python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly)"
            )
        return Camera(kind, f"rtsp://127.0.0.1:{port}/live", [python, str(SERVER), str(port)])
    address = f"http://127.0.0.1:{port}/live" if kind == "http" else f"udp://127.0.0.1:{port}"
    return Camera(kind, address, [sys.executable, __file__, "--be", kind, "--port", str(port)])


def gstreamer_python() -> str | None:
    wanted = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    for python in (sys.executable, "/usr/bin/python3", shutil.which("python3")):
        if python and Path(python).exists():
            done = subprocess.run([python, "-c", wanted], capture_output=True, check=False)
            if done.returncode == 0:
                return python
    return None


@dataclass
class Arrivals:
    """When pictures came and when they had been drawn, both in seconds by the machine's clock."""

    arrived: list[float] = field(default_factory=list[float])
    drawn: list[float] = field(default_factory=list[float])

    def add(self, pixels: np.ndarray) -> None:
        now = time.monotonic()
        box_rows, box_columns = BOX * SIZE // HEIGHT, SIZE // BITS
        middles = pixels[box_rows // 2, box_columns // 2 :: box_columns].mean(axis=1) > 127
        stamped = int((middles * (1 << np.arange(BITS))).sum())
        self.arrived.append(now)
        self.drawn.append(now - (int(now * 1000) - stamped) % (1 << BITS) / 1000)

    def first_after(self, seconds: float) -> float:
        """Return when the first picture drawn after a moment came; nan where none did."""
        pairs = zip(self.arrived, self.drawn, strict=True)
        return next((arrived for arrived, drawn in pairs if drawn >= seconds), float("nan"))

    def lost(self, downs: list[tuple[float, float]]) -> int:
        """Count pictures that are missing between two that came, but for the times when the camera was down."""
        gaps = zip(self.drawn, self.drawn[1:], strict=False)
        up = [b - a for a, b in gaps if not any(a <= ready and b >= killed for killed, ready in downs)]
        return sum(max(0, round(gap * FPS) - 1) for gap in up)


class Stamped:
    """A source whose every picture is noted."""

    def __init__(self, source: Source) -> None:
        self._source, self.arrivals = source, Arrivals()
        self.name, self.is_live, self.counts = source.name, source.is_live, source.counts

    def frames(self, spec: ClipSpec, notify: Notify) -> Iterator[Shown]:
        for shown in self._source.frames(spec, notify):
            self.arrivals.add(shown.pixels)
            yield shown

    def stop(self) -> None:
        self._source.stop()


def measure(camera: Camera, folder: Path, *, stops: int, away: float, up: float) -> None:
    source = Stamped(open_source(camera.address))
    downs: list[tuple[float, float]] = []

    def disturb() -> None:
        """Kill the camera and start it again, so many times, then end the run."""
        try:
            _wait_for_picture(source.arrivals, after=0.0)
            for _ in range(stops):
                time.sleep(up)
                killed = time.monotonic()
                camera.kill()
                time.sleep(away)
                camera.start()
                downs.append((killed, time.monotonic()))
                _wait_for_picture(source.arrivals, after=downs[-1][1])
            time.sleep(up)
        finally:
            source.stop()

    camera.start()
    stepper = Stepper(new_classifier(size=SIZE, num_frames=8), folder=folder)
    hand = threading.Thread(target=disturb)
    hand.start()
    try:
        (report,) = run(stepper, [source])
    finally:
        hand.join()
        camera.kill()
    back = [source.arrivals.first_after(ready) - ready for _, ready in downs]
    middle, late = 1000 * np.quantile(np.subtract(source.arrivals.arrived, source.arrivals.drawn), (0.5, 0.95))
    gone = statistics.median(ready - killed for killed, ready in downs)
    print(
        f"{camera.kind}: {report.num_returns} returns after {stops} stops of {gone:.1f} s:"
        f" {'reached' if report.num_returns >= stops and report.error is None else 'NOT reached'}; back"
        f" {statistics.median(back):.2f} s after it was ready ({min(back):.2f}-{max(back):.2f})"
    )
    print(
        f"  {report.num_frames} pictures came, {source.arrivals.lost(downs)} lost while connected,"
        f" {report.num_damaged} damaged; {report.num_answered} answered, {report.num_skipped} skipped"
    )
    print(
        f"  drawn to arrived {middle:.0f} ms (p95 {late:.0f}); arrived to answered"
        f" {1000 * report.mean_lag_seconds:.1f} ms on average, at most {1000 * report.largest_lag_seconds:.0f}",
        flush=True,
    )


def _wait_for_picture(arrivals: Arrivals, *, after: float, patience: float = 60.0) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until and not arrivals.first_after(after) > 0:
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("rtsp", "http", "udp")
    parser.add_argument("--cameras", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--away", type=float, default=3.0)
    parser.add_argument("--up", type=float, default=6.0)
    parser.add_argument("--be", choices=("http", "udp"), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.be is not None:
        {"http": serve_http, "udp": send_udp}[chosen.be](chosen.port)
        return 0
    with tempfile.TemporaryDirectory(prefix="vidette-live-rtsp-") as folder:
        for kind in chosen.cameras:
            camera = new_camera(kind)
            if isinstance(camera, str):
                print(f"{kind}: not run: {camera}")
                continue
            try:
                measure(camera, Path(folder), stops=chosen.stops, away=chosen.away, up=chosen.up)
            except (OSError, VidetteError) as error:
                print(f"{kind}: not run to its end: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
