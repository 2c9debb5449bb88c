"""What is painted onto a live picture: the answer with its probability, the last event, what is doubtful."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from vidette.streaming.drift import Signal
from vidette.streaming.records import Decided, Drifted, Record, Score
from vidette.video.writer import caption_font, shortened

__all__ = ["Overlay"]

_EVENT_SECONDS = 3.0
_DARK = 0.3
_INK, _BAR, _TRACK, _EVENT, _DOUBT = (255,) * 3, (90, 200, 120), (90,) * 3, (255, 210, 80), (255, 120, 90)


class Overlay:
    """Keeps what was last told of one source, and paints it onto its pictures.

    Example:
        >>> int(Overlay().paint(np.zeros((90, 120, 3), np.uint8), seconds=0.0).max())
        0
    """

    def __init__(self) -> None:
        self._score: Score | None = None
        self._event: Decided | None = None
        self._told_seconds = 0.0
        self._signals: dict[str, Signal] = {}

    def take(self, record: Record) -> None:
        """Remember what is to be painted."""
        if isinstance(record, Score):
            self._score = record
        elif isinstance(record, Decided):
            self._event = record
            self._told_seconds = self._score.window.stop_seconds if self._score else 0.0
        elif isinstance(record, Drifted):
            self._signals.pop(record.signal.kind, None)
            if record.signal.stop_seconds is None:
                self._signals[record.signal.kind] = record.signal

    def copy(self) -> Overlay:
        """Return an overlay that later records do not change."""
        other = Overlay()
        other._score, other._event, other._told_seconds = self._score, self._event, self._told_seconds
        other._signals = dict(self._signals)
        return other

    def paint(self, pixels: np.ndarray, *, seconds: float) -> np.ndarray:
        """Return ``(H, W, 3)`` pixels with the overlay of the moment; the input is unchanged."""
        lines = self._lines(seconds)
        if not lines:
            return pixels
        height, width = pixels.shape[:2]
        size = int(np.clip(round(height * 0.05), 9, 40))
        font, pad = caption_font(size), max(2, size // 3)
        row = size + pad
        painted = pixels.copy()
        top = max(0, height - len(lines) * row - pad)
        painted[top:] = (painted[top:] * _DARK).astype(np.uint8)
        image = Image.fromarray(painted)
        draw = ImageDraw.Draw(image)
        for number, (text, ink) in enumerate(lines):
            y = top + pad // 2 + number * row
            if ink == _INK:
                self._draw_bar(draw, x=width // 2, y=y + pad // 2, width=width // 2 - pad, height=size)
            room = (width // 2 if ink == _INK else width) - 2 * pad
            draw.text((pad, y), shortened(text, font, width=room), fill=ink, font=font)
        return np.asarray(image)

    def _lines(self, seconds: float) -> list[tuple[str, tuple[int, ...]]]:
        lines: list[tuple[str, tuple[int, ...]]] = []
        for signal in self._signals.values():
            lines.append((f"doubtful: {signal.kind} since {signal.start_seconds:.0f} s", _DOUBT))
        if self._event is not None and seconds <= self._told_seconds + _EVENT_SECONDS:
            event = self._event.event
            times = f"{event.start_seconds:.1f} to {event.stop_seconds:.1f} s"
            lines.append((f"event: {event.label} {times}", _EVENT))
        if self._score is not None:
            best = int(self._score.smoothed.argmax())
            lines.append((f"{self._score.classes[best]} {self._score.smoothed[best]:.0%}", _INK))
        return lines

    def _draw_bar(self, draw: ImageDraw.ImageDraw, *, x: int, y: int, width: int, height: int) -> None:
        assert self._score is not None
        share = float(np.clip(self._score.smoothed.max(), 0, 1))
        middle, half = y + height // 2, max(1, height // 4)
        draw.rectangle((x, middle - half, x + width, middle + half), fill=_TRACK)
        draw.rectangle((x, middle - half, x + round(share * width), middle + half), fill=_BAR)
