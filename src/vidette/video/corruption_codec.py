"""Real codec damage: a clip is encoded as H.264 and decoded again, with few bits or with lost packets."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import Colorspace, VideoReformatter

__all__ = ["coarse_h264", "encode_h264", "lost_packets"]

_RATE = Fraction(25)
_NUM_SLICES = 8
_LOSSY_QUANTISER = 26
"""Quantiser of the stream whose packets get lost: of good quality, so that the loss is what is seen."""

_START = b"\x00\x00\x01"


def coarse_h264(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Encode with quantiser ``strength``, to 51; 6 more is about half the bits a second."""
    del seconds, generator
    return _decoded(encode_h264(pixels, quantiser=round(strength)), like=pixels)


def lost_packets(
    pixels: np.ndarray, seconds: np.ndarray, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """Lose a share ``strength`` of the packets after the first frame.

    Each frame is sent as up to 8 slices, a packet each. The decoder fills the holes with what it has, and what
    is wrong moves on from frame to frame, since only the first is a key frame.
    """
    del seconds
    packets = encode_h264(pixels, quantiser=_LOSSY_QUANTISER, num_slices=_NUM_SLICES)
    arrived = [packets[0]]
    for packet in packets[1:]:
        slices = _slices(packet)
        drawn = generator.random(_NUM_SLICES)
        arrived.append(
            b"".join(part for part, chance in zip(slices, drawn, strict=False) if chance >= strength)
        )
    return _decoded(arrived, like=pixels)


def encode_h264(pixels: np.ndarray, *, quantiser: int, num_slices: int = 1) -> list[bytes]:
    """Encode frames as H.264, one key frame first, each other frame from the one before.

    Args:
        pixels: uint8 ``(T, H, W, 3)``, RGB.
        quantiser: 0 (lossless) to 51 (coarsest).
        num_slices: Parts of each frame that can be decoded without the others.

    Returns:
        T packets in Annex B form.
    """
    even = _even(pixels)
    codec = av.CodecContext.create("libx264", "w")
    codec.height, codec.width = even.shape[1:3]
    codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", 1 / _RATE, _RATE
    codec.thread_count = 1
    codec.options = {
        "preset": "veryfast",
        "qp": str(quantiser),
        "x264-params": f"bframes=0:ref=1:keyint=infinite:scenecut=0:annexb=1:slices={num_slices}",
    }
    reformatter = VideoReformatter()
    packets: list[bytes] = []
    for number, picture in enumerate(even):
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = reformatter.reformat(rgb, format="yuv420p", dst_colorspace=Colorspace.SMPTE170M)
        frame.pts, frame.time_base = number, 1 / _RATE
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets + [bytes(packet) for packet in codec.encode(None)]


def _decoded(packets: list[bytes], *, like: np.ndarray) -> np.ndarray:
    """Decode T packets to ``like``'s shape; where a frame does not come, the one before stays on show."""
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    codec.flags |= Flags.output_corrupt
    frames: list[av.VideoFrame] = []
    for number, data in enumerate(packets):
        if data:
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            frames += codec.decode(packet)
    frames += codec.decode(None)
    shown = {frame.pts: frame for frame in frames}
    height, width = like.shape[1:3]
    out = np.empty_like(like)
    for number in range(len(like)):
        if number in shown:
            picture = shown[number].to_ndarray(format="rgb24", src_colorspace=Colorspace.SMPTE170M)
            out[number] = picture[:height, :width]
        else:
            out[number] = out[number - 1]
    return out


def _slices(packet: bytes) -> list[bytes]:
    """Cut a packet in Annex B form into its parts, each with its start code."""
    return [_START + part.rstrip(b"\x00") for part in packet.split(_START)[1:]]


def _even(pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where there is an odd number of them, as 4:2:0 colour needs."""
    down, right = pixels.shape[1] % 2, pixels.shape[2] % 2
    return np.pad(pixels, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge") if down or right else pixels
