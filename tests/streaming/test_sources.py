"""Sources: times increase, the end ends, what was lost comes back, and no password is ever shown."""

import http.server
import io
import itertools
import socket
import sys
import threading
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vidette.errors import MissingVideoError, NoVideoStreamError, SettingError, UnreadableVideoError, VideoError
from vidette.streaming.base import safe_address
from vidette.streaming.clock import ManualClock, SystemClock
from vidette.streaming.remote import Patience, RemoteSource
from vidette.streaming.sources import FileSource, open_source
from vidette.video.clip import ClipSpec
from vidette.video.writer import write_video

SPEC = ClipSpec(num_frames=4, height=16, width=16, sampling="window", fps=8.0)
QUICK = Patience(open_seconds=5.0, stall_seconds=0.6, first_wait_seconds=0.02, longest_wait_seconds=0.08)
SECRET = "pa:ss@w0rd"


@dataclass
class Camera:
    """A server on loopback; ``script`` says what each connection in turn is sent."""

    script: list = field(default_factory=list)
    connections: int = 0

    def __enter__(self):
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                number, camera.connections = camera.connections, camera.connections + 1
                camera.script[min(number, len(camera.script) - 1)](self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.leave = threading.Event()
        return self

    def __exit__(self, *_):
        self.leave.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self):
        return f"http://admin:{SECRET}@127.0.0.1:{self.server.server_port}/live"


def jpeg(level, size=(48, 64)):
    out = io.BytesIO()
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def mjpeg(*pictures, wait=None):
    """Send JPEGs as cameras do, then wait for an event or drop the connection."""

    def send(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for data in pictures:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
        if wait is not None:
            wait.wait(10.0)

    return send


def whole(data, *, status=200, promised=None):
    """Send bytes with their length, or with a longer one that the connection does not live up to."""

    def send(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(promised or len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return send


def transport_stream(path, num=30):
    """An MPEG-TS file of 25 frames a second that get brighter."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(num):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * i, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def watched(source, *, until=None):
    """Read a source to its end, or until so many pictures; return them and what was told."""
    notes, shown = [], []
    for one in source.frames(SPEC, lambda kind, text: notes.append((kind, text))):
        shown.append((one.seconds, one.pixels))
        if until is not None and len(shown) >= until:
            source.stop()
    return shown, notes


def remote(camera, clock=None, **patience):
    return open_source(camera.address, clock=clock, patience=Patience(**{**QUICK.__dict__, **patience}))


def assert_increasing(shown):
    assert np.all(np.diff([seconds for seconds, _ in shown]) > 0)


def test_a_file_is_read_as_fast_as_possible_and_ends(tmp_path):
    path = write_video(tmp_path / "a.mp4", (np.full((32, 48, 3), 8 * i, np.uint8) for i in range(20)), fps=10)
    clock = ManualClock()
    shown, notes = watched(open_source(str(path), clock=clock))
    assert [seconds for seconds, _ in shown] == pytest.approx(np.arange(20) / 10)
    assert shown[3][1].shape == (16, 16, 3)
    assert abs(int(shown[10][1].mean()) - 80) < 6
    assert (clock.now(), notes) == (0.0, [])


def test_realtime_shows_a_file_at_its_own_pace(tmp_path):
    path = write_video(tmp_path / "a.mp4", np.zeros((20, 32, 48, 3), np.uint8), fps=10)
    clock, source = ManualClock(), open_source(str(path), realtime=True, clock=None)
    source.clock = clock
    for shown in source.frames(SPEC, lambda *_: None):
        assert clock.now() == pytest.approx(shown.seconds)
    assert source.is_live


def test_a_stopped_file_ends_at_once(tmp_path):
    path = write_video(tmp_path / "a.mp4", np.zeros((20, 32, 48, 3), np.uint8), fps=10)
    assert len(watched(open_source(str(path)), until=3)[0]) == 3


def test_files_that_cannot_be_read_say_so(tmp_path):
    with pytest.raises(MissingVideoError, match="no such file"):
        watched(open_source(str(tmp_path / "none.mp4")))


def test_the_screen_is_a_source(screen):
    spec = ClipSpec(num_frames=2, height=48, width=64)
    source = open_source("screen", patience=QUICK)
    assert (source.name, source.is_live) == ("screen", True)
    shown = list(itertools.islice(source.frames(spec, lambda *_: None), 3))
    assert [picture.pixels.shape for picture in shown] == [(48, 64, 3)] * 3
    assert shown[0].seconds < shown[1].seconds < shown[2].seconds
    assert (source.counts.height, source.counts.width) == (480, 640)


def test_without_a_screen_there_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SettingError, match="no screen to read: DISPLAY is not set"):
        open_source("screen")


def test_a_camera_is_lost_and_comes_back():
    """Twenty drops, all survived: the pictures go on and so do their times."""
    picture = jpeg(100)
    with Camera([mjpeg(picture, picture, picture)]) as camera:
        source = remote(camera)
        shown, notes = watched(source, until=64)
    assert source.counts.num_returns >= 20
    assert [kind for kind, _ in notes[:4]] == ["lost", "returned", "lost", "returned"]
    assert_increasing(shown)
    assert abs(float(shown[-1][1].mean()) - 100) < 4


class NotedClock(ManualClock):
    def __init__(self):
        super().__init__()
        self.naps = []

    def sleep(self, seconds):
        self.naps.append(seconds)
        super().sleep(seconds)


def test_waits_grow_while_a_camera_stays_away():
    with Camera([mjpeg(*[jpeg(9)] * 4), whole(b"", status=503)]) as camera:
        clock = NotedClock()
        source = remote(camera, clock, first_wait_seconds=0.025, longest_wait_seconds=0.2, give_up_seconds=1.0)
        with pytest.raises(VideoError, match="gone for 1 s"):
            watched(source)
    assert clock.naps[:5] == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.2], abs=1e-6)


def test_a_stalled_camera_is_connected_to_again():
    with Camera() as camera:
        camera.script = [mjpeg(jpeg(1), jpeg(2), jpeg(3), wait=camera.leave), mjpeg(jpeg(9), jpeg(9), jpeg(9))]
        source = remote(camera)
        shown, notes = watched(source, until=4)
    assert camera.connections == 2
    assert ("lost", f"{source.name}: nothing came for 0.6 s; connecting again") == notes[0]
    assert shown[-1][0] > 0.5, "time went on while nothing came"


def test_whoever_takes_their_time_is_no_stall():
    with Camera([mjpeg(*[jpeg(9)] * 8)]) as camera:
        clock, notes = ManualClock(), []
        source = open_source(camera.address, clock=clock, patience=QUICK)
        for number, _ in enumerate(source.frames(SPEC, lambda *note: notes.append(note))):
            clock.sleep(10.0)
            if number == 4:
                source.stop()
    assert notes == []


def test_pictures_may_change_their_size():
    with Camera([mjpeg(*[jpeg(50)] * 4, *[jpeg(50, (96, 80))] * 4)]) as camera:
        source = remote(camera)
        shown, notes = watched(source, until=7)
    assert all(pixels.shape == (16, 16, 3) for _, pixels in shown)
    assert ("size", f"{source.name}: pictures are now 80x96, were 64x48") in notes
    assert source.counts.num_sizes == 1


def test_damaged_pictures_are_counted_and_left_out():
    broken = jpeg(50)[:2] + b"\xff\xc0 nothing of a picture"
    with Camera([mjpeg(jpeg(50), jpeg(50), broken, jpeg(50), jpeg(50), jpeg(50))]) as camera:
        source = remote(camera)
        shown, _ = watched(source, until=4)
    assert source.counts.num_damaged >= 1
    assert len(shown) == 4


def test_a_file_over_http_is_shown_on_time_and_ends(tmp_path):
    data = transport_stream(tmp_path / "a.ts")
    with Camera([whole(data)]) as camera:
        clock = ManualClock()
        source = open_source(camera.address, clock=clock, patience=QUICK)
        shown, notes = watched(source)
    assert [seconds for seconds, _ in shown] == pytest.approx(np.arange(30) / 25, abs=1e-3)
    assert clock.now() == pytest.approx(29 / 25, abs=0.01)
    assert notes == []


def test_a_stream_that_breaks_midway_is_connected_to_again(tmp_path):
    data = transport_stream(tmp_path / "a.ts", num=50)
    with Camera([whole(data[: len(data) // 2], promised=len(data)), whole(data)]) as camera:
        source = open_source(camera.address, clock=ManualClock(), patience=QUICK)
        shown, notes = watched(source)
    assert [kind for kind, _ in notes] == ["lost", "returned"]
    assert len(shown) > 60
    assert_increasing(shown)


def test_a_playlist_over_http_is_shown_on_time_and_ends(tmp_path):
    """HLS: segments come at once, their pictures one by one; files of this machine are out of its reach."""
    (tmp_path / "secret.ts").write_bytes(transport_stream(tmp_path / "a.ts"))
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.2,\n"
    data = (tmp_path / "a.ts").read_bytes()

    def serve(segment):
        def send(handler):
            is_list = handler.path.endswith("m3u8")
            whole(f"{head}{segment}\n#EXT-X-ENDLIST\n".encode() if is_list else data)(handler)

        return send

    with Camera([serve("a.ts")]) as camera:
        clock = ManualClock()
        shown, _ = watched(open_source(f"{camera.address}.m3u8", clock=clock, patience=QUICK))
    assert len(shown) == 30
    assert clock.now() == pytest.approx(29 / 25, abs=0.05)
    with (
        Camera([serve(f"file:{tmp_path / 'secret.ts'}")]) as camera,
        pytest.raises(VideoError, match=r"cannot be opened|sends no video"),
    ):
        watched(open_source(f"{camera.address}.m3u8", clock=ManualClock(), patience=QUICK))


def test_a_stream_over_udp(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source, done = open_source(f"udp://127.0.0.1:{port}", patience=QUICK), threading.Event()
    data = transport_stream(tmp_path / "a.ts")

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not done.is_set():
                for start in range(0, len(data), 1316):
                    sender.sendto(data[start : start + 1316], ("127.0.0.1", port))
                    done.wait(0.002)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    shown, _ = watched(source, until=40)
    done.set()
    sender.join(5.0)
    assert len(shown) == 40
    assert_increasing(shown)


def faulty():
    yield "refused", None, UnreadableVideoError, "cannot be opened: Connection refused"
    yield "password", whole(b"", status=401), UnreadableVideoError, "check its user and password"
    yield "text", whole(b"<html>no video here</html>" * 20), UnreadableVideoError, "cannot be opened"
    yield "sound", "sound", NoVideoStreamError, "sends no video"


@pytest.mark.parametrize(("script", "kind", "message"), [c[1:] for c in faulty()], ids=[c[0] for c in faulty()])
def test_a_source_that_never_worked_is_one_clear_error(script, kind, message, tmp_path):
    if script == "sound":
        script = whole(tone(tmp_path / "tone.wav"))
    with Camera([script]) as camera:
        address = camera.address if script else f"http://admin:{SECRET}@127.0.0.1:9/live"
        with pytest.raises(kind, match=message) as caught:
            watched(open_source(address, patience=QUICK))
    assert_no_secret(caught.value)


def tone(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def assert_no_secret(error):
    while error is not None:
        for text in (str(error), repr(error), str(getattr(error, "path", ""))):
            assert SECRET not in text
            assert "w0rd" not in text
        error = error.__cause__ if error.__cause__ or error.__suppress_context__ else error.__context__


def test_no_note_and_no_name_shows_the_password():
    with Camera([mjpeg(jpeg(1), jpeg(2), jpeg(3))]) as camera:
        source = remote(camera)
        _, notes = watched(source, until=6)
    texts = [source.name, repr(source), *(text for _, text in notes)]
    assert not any("w0rd" in text for text in texts)
    assert all("admin:***@127.0.0.1" in text for text in texts)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://u:p@cam/live", "rtsp://u:***@cam/live"),
        ("rtsp://u:p@ss:w/rd@cam:554/live", "rtsp://u:***@cam:554/live"),
        ("http://:p@cam/", "http://:***@cam/"),
        ("http://cam/?user=a&Password=b&n=1", "http://cam/?user=a&Password=***&n=1"),
        ("http://cam/video", "http://cam/video"),
        ("clips/a@b.mp4", "clips/a@b.mp4"),
    ],
)
def test_addresses_without_their_secrets(address, shown):
    assert safe_address(address) == shown


def test_addresses_say_what_they_are():
    assert isinstance(open_source("clip.mp4"), FileSource)
    assert isinstance(open_source("RTSP://cam/1"), RemoteSource)
    assert open_source("0").name == "/dev/video0"
    assert not open_source("clip.mp4").is_live
    with pytest.raises(SettingError, match="expected a file, a camera or") as caught:
        open_source(f"gopher://u:{SECRET}@cam/")
    assert_no_secret(caught.value)


def test_a_camera_that_is_not_there_says_so():
    with pytest.raises(UnreadableVideoError, match="/dev/video99: cannot be opened: No such file"):
        watched(open_source("/dev/video99", clock=SystemClock()))


def test_impatience_is_refused():
    with pytest.raises(SettingError, match="expected seconds above 0"):
        Patience(stall_seconds=0.0)
