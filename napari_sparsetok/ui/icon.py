"""Small pictures for buttons, drawn here and tinted with the words' colour, so that they suit light and dark."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QByteArray, QEvent, QObject, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtSvg import QSvgRenderer
from qtpy.QtWidgets import QDialogButtonBox, QPushButton, QWidget

_SIDE = 40  # pixels that are drawn; shown at half of that, so they stay sharp on fine screens

# Lines on a field of 24 × 24.
DRAWINGS = {
    "look": "M12 3v18M3 12h18M12 3l-3 3M12 3l3 3M12 21l-3-3M12 21l3-3M3 12l3-3M3 12l3 3M21 12l-3-3M21 12l-3 3",
    "brush": "M21 3c-5 3-9 7-11 11l2 2c4-2 7-6 9-13zM9 15c-3 0-4 2-4 4 0 1-1 2-2 2 2 1 7 1 8-4",
    "eraser": "M14 4l6 6-9 9H7l-4-4zM8.5 9.5l6 6M11 20h10",
    "restore": "M4 4v6h6M4.5 10a8 8 0 1 1-.5 4",
    "fill": "M10 3l9 9-8 8-8-8zM4 12h14M20 15c1 2 2 3 2 4a2 2 0 0 1-4 0c0-1 1-2 2-4z",
    "eye": "M2 12c3-5 6.5-7 10-7s7 2 10 7c-3 5-6.5 7-10 7s-7-2-10-7zM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
    "lock": "M6 11h12v10H6zM8 11V7a4 4 0 0 1 8 0v4",
    "polygon": "M5 9l8-5 7 6-3 9-10-1zM5 9v.01M13 4v.01M20 10v.01M17 19v.01M7 18v.01",
}


def icon(name: str, color: QColor) -> QIcon:
    """One of the `DRAWINGS` in a colour."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke-width="1.8" '
        f'stroke-linecap="round" stroke-linejoin="round" stroke="{color.name()}"><path d="{DRAWINGS[name]}"/></svg>'
    )
    picture = QPixmap(_SIDE, _SIDE)
    picture.fill(Qt.transparent)
    painter = QPainter(picture)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, _SIDE, _SIDE))
    painter.end()
    return QIcon(picture)


def undulled(picture: QPixmap) -> QIcon:
    """A picture that keeps its colours in the row that is chosen, where Qt would tint it."""
    kept = QIcon()
    for mode in (QIcon.Normal, QIcon.Selected):
        kept.addPixmap(picture, mode)
    return kept


def without_pictures(buttons: QDialogButtonBox) -> None:
    """Qt's own pictures on the buttons of a dialog are black, and hardly seen on a dark theme."""
    for button in buttons.buttons():
        button.setIcon(QIcon())


class Tint(QObject):
    """Has pictures drawn in the colour of a widget's words, and anew with another theme.

    Parameters
    ----------
    draw : gets the colour.
    """

    _EVENTS = (QEvent.PaletteChange, QEvent.StyleChange, QEvent.Show)  # a hidden widget may not know its style sheet

    def __init__(self, widget: QWidget, draw: Callable[[QColor], None]) -> None:
        super().__init__(widget)
        self._widget, self._draw, self._name = widget, draw, ""
        widget.installEventFilter(self)
        self._follow()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Look at the colour again."""
        if event.type() in self._EVENTS:
            self._follow()
        return False

    def _follow(self) -> None:
        color = self._widget.palette().text().color()
        if color.name() != self._name:
            self._name = color.name()
            self._draw(color)


class IconButton(QPushButton):
    """A button with a picture that keeps the colour of the theme's words."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setIconSize(QSize(_SIDE // 2, _SIDE // 2))
        self._tint = Tint(self, lambda color: self.setIcon(icon(name, color)))
