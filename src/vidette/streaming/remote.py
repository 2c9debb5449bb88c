"""Cameras, of this machine and on the network: connections that break are made anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.error import ExitError, HTTPForbiddenError, HTTPUnauthorizedError
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vidette.errors import NoVideoStreamError, SettingError, UnreadableVideoError, VideoError
from vidette.streaming.base import Notify, Shown, SourceCounts, Stoppable, safe_address
from vidette.streaming.clock import Clock
from vidette.video.clip import ClipSpec
from vidette.video.packets import DECODER_OPTIONS, check_size, num_video_streams, pixel_aspect
from vidette.video.transforms import FrameResizer, Geometry, rgb_pixels

__all__ = ["Patience", "RemoteSource"]

_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtsp,rtsps,hls,crypto,data,rtmp,srt"
_TIMELESS = ("mpjpeg", "mjpeg", "image2pipe")
"""Formats whose pictures carry no times: those of their arrival are taken."""
_JUMP_SECONDS = 10.0


@dataclass(frozen=True)
class Patience:
    """How long a source that is not a file is waited for.

    Attributes:
        open_seconds: For a connection.
        stall_seconds: Without a picture, until the connection is made anew.
        first_wait_seconds: Before the first attempt to connect again; doubled after each that fails.
        longest_wait_seconds: Between attempts.
        give_up_seconds: Without a picture, until the source counts as gone; None: never.
    """

    open_seconds: float = 10.0
    stall_seconds: float = 5.0
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30.0
    give_up_seconds: float | None = None

    def __post_init__(self) -> None:
        values = (self.open_seconds, self.stall_seconds, self.first_wait_seconds, self.give_up_seconds or 1.0)
        if not all(value > 0 for value in values) or self.longest_wait_seconds < self.first_wait_seconds:
            raise SettingError(f"{self}; expected seconds above 0, and the longest wait not under the first")


class _LostError(Exception):
    """The connection is gone; says why, without the address."""


class RemoteSource(Stoppable):
    """A camera, of this machine or on the network: lost connections are made anew, again and again.

    The first connection must work. A picture's time is the camera's own within one connection, and the clock's
    from one connection to the next. What is sent ahead of its time (HLS, files over HTTP) is shown on time;
    such a file ends, anything else that ends was lost.

    Args:
        address: As FFmpeg takes it, with password.
        clock: What tells the time.
        patience: How long to wait.
        container_format: FFmpeg's name, for a camera of this machine.
        name: How it is shown; the address by default.
    """

    def __init__(
        self,
        address: str,
        *,
        clock: Clock,
        patience: Patience,
        container_format: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(clock)
        self.name = name or safe_address(address)
        self.is_live = True
        self.counts = SourceCounts()
        self._address = address
        self._patience = patience
        self._format = container_format
        self._times = _Times(clock)

    def __repr__(self) -> str:
        return f"RemoteSource({self.name})"

    def frames(self, spec: ClipSpec, notify: Notify) -> Iterator[Shown]:
        """Yield the source's pictures, over as many connections as it takes."""
        wait_seconds, seen_seconds, reason = self._patience.first_wait_seconds, self.clock.now(), ""
        while not self.stopped.is_set():
            try:
                for shown in self._connection(spec, notify):
                    if reason:
                        self.counts.num_returns += 1
                        notify("returned", f"{self.name} is back")
                    wait_seconds, reason = self._patience.first_wait_seconds, ""
                    yield shown
                    seen_seconds = self.clock.now()
                return
            except _LostError as lost:
                if not reason:
                    notify("lost", f"{self.name}: {lost}; connecting again")
                reason = str(lost)
            away = self.clock.now() - seen_seconds
            if self._patience.give_up_seconds is not None and away >= self._patience.give_up_seconds:
                raise VideoError(self.name, f"gone for {away:.0f} s ({reason}); look after it or its network")
            self.sleep_until(self.clock.now() + wait_seconds)
            wait_seconds = min(2 * wait_seconds, self._patience.longest_wait_seconds)

    def _connection(self, spec: ClipSpec, notify: Notify) -> Iterator[Shown]:
        """Yield pictures until the stream ends or is stopped; raise ``_LostError`` where it may come back."""
        container, stream = self._open()
        try:
            geometry = Geometry(pixel_aspect=pixel_aspect(stream))
            resizer = FrameResizer(spec, geometry=geometry)
            is_file = self._is_file(container)
            ahead = is_file or container.format.name == "hls"
            self._times.connect(by_arrival=container.format.name in _TIMELESS, ahead=ahead)
            for picture in self._pictures(container, stream):
                self._note_size(picture, notify)
                seconds = self._times.seconds_of(picture)
                if ahead:
                    self.sleep_until(self._times.origin + seconds)
                self.counts.num_frames += 1
                yield Shown(
                    seconds,
                    lambda picture=picture: resizer(picture),
                    read_picture=lambda picture=picture: rgb_pixels(
                        picture, reformatter=VideoReformatter(), geometry=geometry
                    ),
                )
        finally:
            container.close()
        if not is_file and not self.stopped.is_set():
            raise _LostError("the stream ended")

    def _is_file(self, container: InputContainer) -> bool:
        """Tell whether what is sent has an end that is known: its length, or that of an HLS playlist."""
        if self._format is not None:
            return False
        is_list = container.format.name == "hls"
        return bool(container.duration) or (not is_list and container.size > 0)

    def _pictures(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        last = self.clock.now()
        for packet in self._packets(container, stream):
            if packet.is_corrupt:
                self.counts.num_damaged += 1
            try:
                pictures = packet.decode()
            except av.FFmpegError:
                self.counts.num_damaged += 1
                pictures = []
            for picture in pictures:
                if picture.is_corrupt:
                    self.counts.num_damaged += not packet.is_corrupt
                    continue
                yield picture
                last = self.clock.now()  # after whoever looks at it has taken their time
            if self.clock.now() - last > self._patience.stall_seconds:
                raise _LostError(f"no picture for {self._patience.stall_seconds:g} s")

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        packets = container.demux(stream)
        while not self.stopped.is_set():
            try:
                packet = next(packets, None)
            except IndexError:
                return  # PyAV at the end of a container in which another stream has appeared on the way
            except av.FFmpegError as error:
                reason = _reason(error, self._patience.stall_seconds)
            else:
                if packet is None:
                    return
                yield packet
                continue
            raise _LostError(reason)  # here, so that FFmpeg's error, which tells the address, is left behind

    def _open(self) -> tuple[InputContainer, VideoStream]:
        """Connect; what fails the first time is an error."""
        reason = ""
        try:
            container = av.open(
                self._address,
                format=self._format,
                options=self._options(),
                timeout=(self._patience.open_seconds, self._patience.stall_seconds),
                metadata_errors="ignore",
            )
            return container, self._video_stream(container)
        except av.FFmpegError as error:
            reason = _reason(error, self._patience.open_seconds)
        except VideoError as error:
            if not self.counts.num_frames:
                raise
            reason = error.reason
        if self.counts.num_frames:
            raise _LostError(reason)
        raise UnreadableVideoError(self.name, f"cannot be opened: {reason}")

    def _options(self) -> dict[str, str]:
        if self._format is not None:
            return {"framerate": "30"} if self._format == "avfoundation" else {}
        options = {"protocol_whitelist": _PROTOCOLS}
        if self._address.lower().startswith("rtsp"):
            # Pictures bring their times: opening need not wait a second to guess the rate.
            options |= {"rtsp_transport": "tcp", "fflags": "nobuffer", "fpsprobesize": "0"}
        return options

    def _video_stream(self, container: InputContainer) -> VideoStream:
        if not num_video_streams(container):
            container.close()
            raise NoVideoStreamError(self.name, "sends no video; give the address of its picture")
        stream = container.streams.video[0]
        check_size(Path(self.name), width=stream.codec_context.width, height=stream.codec_context.height)
        stream.codec_context.options = DECODER_OPTIONS
        stream.codec_context.thread_type = "SLICE"  # frames in several threads come several frames late
        return stream

    def _note_size(self, picture: av.VideoFrame, notify: Notify) -> None:
        counts, size = self.counts, (picture.height, picture.width)
        if counts.num_frames and size != (counts.height, counts.width):
            counts.num_sizes += 1
            notify(
                "size",
                f"{self.name}: pictures are now {size[1]}x{size[0]}, were {counts.width}x{counts.height}",
            )
        counts.height, counts.width = size


class _Times:
    """Times of a source's pictures since its first one, increasing, over several connections."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.origin = 0.0
        self._last: float | None = None
        self._offset: float | None = None
        self._by_arrival = self._ahead = False

    def connect(self, *, by_arrival: bool, ahead: bool) -> None:
        """Begin a connection, whose pictures carry no times or may come ahead of them."""
        self._by_arrival, self._ahead, self._offset = by_arrival, ahead, None

    def seconds_of(self, picture: av.VideoFrame) -> float:
        """Return when the next picture is shown."""
        if self._last is None:
            self.origin = self.clock.now()
        elapsed = self.clock.now() - self.origin
        if self._last is not None:
            elapsed = max(elapsed, self._last + 1e-6)
        if self._by_arrival or picture.pts is None or picture.time_base is None:
            self._last = elapsed
            return elapsed
        stamp = float(picture.pts * picture.time_base)
        if self._offset is None:
            self._offset = elapsed - stamp
        seconds = stamp + self._offset
        passed = 1.0 if self._last is None else seconds - self._last
        strayed = not self._ahead and abs(seconds - elapsed) > _JUMP_SECONDS
        if not 0 < passed <= _JUMP_SECONDS or strayed:
            seconds, self._offset = elapsed, elapsed - stamp
        self._last = seconds
        return seconds


def _reason(error: av.FFmpegError, waited_seconds: float) -> str:
    """Say what went wrong without the address, which the error's own text holds."""
    if isinstance(error, ExitError):
        return f"nothing came for {waited_seconds:g} s"
    if isinstance(error, HTTPUnauthorizedError | HTTPForbiddenError):
        return f"{error.strerror}; check its user and password"
    return str(error.strerror)
