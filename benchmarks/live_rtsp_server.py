"""A camera as an RTSP server, for ``live_rtsp.py``; needs GStreamer and no package of Vidette's.

It is run by whichever Python has GStreamer's bindings, usually the system's own:

    apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
        gstreamer1.0-plugins-ugly
    python3 benchmarks/live_rtsp_server.py PORT

Prints ``ready`` once it listens on rtsp://127.0.0.1:PORT/live.
"""

from __future__ import annotations

import sys
import time

WIDTH, HEIGHT, FPS, BITS = 640, 360, 25, 16
BOX = 40


def stamped_luma(milliseconds: int) -> bytes:
    """Return a grey picture's luma, ``HEIGHT * WIDTH`` bytes; its top says a time as black and white boxes."""
    boxes = b"".join(bytes([235 if milliseconds >> bit & 1 else 16]) * BOX for bit in range(BITS))
    grey = 60 + milliseconds // 40 % 120
    return boxes * BOX + bytes([grey]) * (WIDTH * (HEIGHT - BOX))


def stamp() -> int:
    """Return the machine's clock in milliseconds, as many bits of it as a picture carries."""
    return int(time.monotonic() * 1000) % (1 << BITS)


def main(port: str) -> None:
    import gi  # pyright: ignore[reportMissingImports]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # pyright: ignore[reportMissingImports]

    Gst.init(None)
    if Gst.ElementFactory.find("x264enc") is None:
        sys.exit("GStreamer has no x264enc (Debian: gstreamer1.0-plugins-ugly)")
    size = f"video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
    chroma = bytes([128]) * (WIDTH * HEIGHT // 2)

    def configure(_: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("camera")

        def push() -> bool:
            flow = source.emit("push-buffer", Gst.Buffer.new_wrapped(stamped_luma(stamp()) + chroma))
            return flow == Gst.FlowReturn.OK

        GLib.timeout_add(1000 // FPS, push)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( appsrc name=camera is-live=true format=time do-timestamp=true caps={size}"
        f" ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={FPS} ! rtph264pay name=pay0 pt=96 )"
    )
    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        sys.exit(f"port {port} cannot be listened on")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1])
