"""A window on this machine's screen: the newest picture of every source with its answer painted in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from vidette.errors import SettingError
from vidette.streaming.overlay import Overlay
from vidette.streaming.records import Note, Picture, Record

if TYPE_CHECKING:
    import tkinter

__all__ = ["ScreenWindow"]

_LARGEST = (1280, 720)


class ScreenWindow:
    """Shows sources side by side in one window; closing it ends the run, as Ctrl-C does.

    It belongs to the thread that makes it; only the newest picture of a source is drawn.

    Args:
        title: Of the window.

    Raises:
        SettingError: There is no screen, or this Python has no tkinter.
    """

    def __init__(self, title: str = "vidette stream") -> None:
        try:
            import tkinter
        except ImportError as error:
            raise SettingError(
                "--window needs tkinter, which this Python lacks (Debian and Ubuntu: apt install python3-tk); "
                "write a video instead: --out live.mp4"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise SettingError(
                f"--window found no screen ({error}); leave it out, or write a video: --out live.mp4"
            ) from error
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._on_closed)
        self._overlays: dict[str, Overlay] = {}
        self._newest: dict[str, Picture] = {}
        self._labels: dict[str, tkinter.Label] = {}
        self._is_closed = False

    def take(self, record: Record) -> None:
        """Remember what is to be painted."""
        if not isinstance(record, Note):
            self._overlays.setdefault(record.source, Overlay()).take(record)

    def show(self, picture: Picture) -> None:
        """Keep the picture until the window is drawn again."""
        self._newest[picture.source] = picture

    def refresh(self) -> None:
        """Draw what has changed.

        Raises:
            KeyboardInterrupt: The window was closed.
        """
        for picture in self._newest.values():
            self._draw(picture)
        self._newest.clear()
        self._root.update()
        if self._is_closed:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Take the window away."""
        self._root.destroy()

    def _on_closed(self) -> None:
        self._is_closed = True

    def _draw(self, picture: Picture) -> None:
        import tkinter

        from PIL import ImageTk

        overlay = self._overlays.get(picture.source, Overlay())
        image = Image.fromarray(overlay.paint(picture.shown.picture(), seconds=picture.shown.seconds))
        image.thumbnail(_LARGEST)
        label = self._labels.get(picture.source)
        if label is None:
            label = self._labels[picture.source] = tkinter.Label(self._root)
            label.pack(side="left")
        photo = ImageTk.PhotoImage(image, master=self._root)
        label.configure(image=photo)  # pyright: ignore[reportArgumentType]
        label.image = photo  # pyright: ignore[reportAttributeAccessIssue]  # Tk itself keeps no reference
