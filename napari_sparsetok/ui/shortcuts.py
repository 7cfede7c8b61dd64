"""Keys of ours that napari leaves free, and the sheet that lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget

from napari_sparsetok.ui.page_dialog import PageDialog
from napari_sparsetok.ui.paint_form import MODES


@dataclass(frozen=True)
class Shortcut:
    """A key, as napari writes it, and what it does in the viewer that it is pressed in."""

    key: str
    words: str
    do: Callable[[ViewerModel], None]


OF_NAPARI = (
    ("Mouse wheel", "zoom; with Ctrl, go through the slices"),
    ("Left / Right", "previous and next step of the slider used last"),
    ("Ctrl+Y", "2-D and 3-D"),
    ("Ctrl+R", "see all of the scan"),
    ("V", "hide and show the layer chosen in the list"),
    ("Ctrl+Z / Ctrl+Shift+Z", "undo and do again, while correcting"),
)
CORRECTING = (
    *((choice.key, f"{choice.title.lower()}: {choice.words[:1].lower()}{choice.words[1:]}") for choice in MODES),
    ("[ and ]", "smaller and larger brush"),
    ("- and =", "the label before, the next label"),
    ("J", "blink the mask"),
    ("K", "mark the slice as reviewed"),
)
MOUSE = (
    ("Shift + right button, drag", "window: to the side for width, up and down for level"),
    ("Click", "put the cross there, while the three views are open"),
    ("Drag a file or folder in", "open it"),
)


class Shortcuts:
    """Binds keys in viewers, and lets go of them."""

    def __init__(self, shortcuts: Sequence[Shortcut]) -> None:
        self.shortcuts = tuple(shortcuts)
        self._viewers: list[ViewerModel] = []

    def follow(self, viewer: ViewerModel) -> None:
        """Keys pressed in this viewer count."""
        self._viewers.append(viewer)
        for shortcut in self.shortcuts:
            viewer.bind_key(shortcut.key, shortcut.do, overwrite=True)

    def leave(self, viewer: ViewerModel) -> None:
        """The inverse of `follow`."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            for shortcut in self.shortcuts:
                viewer.bind_key(shortcut.key, None)

    def shut_down(self) -> None:
        """Let go of all."""
        for viewer in list(self._viewers):
            self.leave(viewer)


class HelpSheet(PageDialog):
    """Keys and mouse on one sheet."""

    def __init__(self, shortcuts: Sequence[Shortcut], parent: QWidget | None = None) -> None:
        super().__init__("Keys and mouse", sheet(shortcuts), parent)


def sheet(shortcuts: Sequence[Shortcut]) -> str:
    """The sheet as a page."""
    ours = [(pretty(shortcut.key), shortcut.words) for shortcut in shortcuts]
    parts = (("Looking", ours), ("Correcting", CORRECTING), ("Mouse", MOUSE), ("Of napari", OF_NAPARI))
    tables = "".join(f"<h3>{title}</h3>{_table(rows)}" for title, rows in parts)
    return f"<p>Keys count while the mouse is on the scan: click into the picture first.</p>{tables}"


def pretty(key: str) -> str:
    """A key in words."""
    names = {"PageUp": "Page Up", "PageDown": "Page Down", "Control": "Ctrl"}
    return "+".join(names.get(part, part) for part in key.split("-"))


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td><b>{escape(key)}</b>&nbsp;&nbsp;&nbsp;</td><td>{escape(words)}</td></tr>" for key, words in rows
    )
    return f"<table>{cells}</table>"
