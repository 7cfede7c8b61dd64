"""What the person was told: napari's note over the canvas, and the same below the tabs, whole, until it is closed.

napari cuts a note after some forty letters and takes it away after four seconds. That a mask could not be saved, and
why, is to be read longer than that.
"""

from __future__ import annotations

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QStyle, QToolButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_sparsetok.state import Message
from napari_sparsetok.ui.later import later

INFO_MS = 20_000
"""So long what asks for nothing can be read."""

_NOTES = {"info": show_info, "warning": show_warning, "error": show_error}
_GRAVITY = ("info", "warning", "error")
_AT_MOST = 3
_EDGES = {"info": "#56B4E9", "warning": "#E69F00", "error": "#E0483E"}
_SIGNS = {
    "info": QStyle.SP_MessageBoxInformation,
    "warning": QStyle.SP_MessageBoxWarning,
    "error": QStyle.SP_MessageBoxCritical,
}
_SIGN_PIXELS = 16


class Messages(QWidget):
    """The last messages, newest below: one of them whole, the others a line each, which a click makes whole.

    Warnings and errors stay until they are closed; of more than three the least grave goes, the oldest first.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[_Row] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(9, 0, 8, 0)
        self._layout.setSpacing(2)
        self._read = later(self, self._drop_infos, INFO_MS)
        self.setVisible(False)

    @property
    def texts(self) -> list[str]:
        """What can be read now."""
        return [row.message.text for row in self._rows]

    @property
    def whole(self) -> list[str]:
        """What of it is shown whole."""
        return [row.message.text for row in self._rows if row.is_whole]

    def tell(self, message: Message | None) -> None:
        """Say something. The same words again move down instead of standing there twice."""
        if message is None:
            return
        self._drop_infos()
        for row in [row for row in self._rows if row.message.text == message.text]:
            self._drop(row)
        while len(self._rows) >= _AT_MOST:
            self._drop(min(self._rows, key=lambda row: _GRAVITY.index(row.message.severity)))
        row = _Row(message)
        row.closed.connect(lambda: self._drop(row))
        row.clicked.connect(lambda: self._show_whole(row))
        self._rows.append(row)
        self._layout.addWidget(row)
        row.setVisible(True)
        self._show_whole(row)
        self.setVisible(True)
        if message.severity == "info":
            self._read.start()
        _NOTES[message.severity](message.text)

    def _drop_infos(self) -> None:
        self._read.stop()
        for row in [row for row in self._rows if row.message.severity == "info"]:
            self._drop(row)

    def _drop(self, row: _Row) -> None:
        self._rows.remove(row)
        self._layout.removeWidget(row)
        row.setVisible(False)
        row.deleteLater()
        if self._rows and not any(other.is_whole for other in self._rows):
            self._show_whole(self._rows[-1])
        self.setVisible(bool(self._rows))

    def _show_whole(self, row: _Row) -> None:
        for other in self._rows:
            other.set_whole(other is row)


class _Row(QFrame):
    """One message, with a button that closes it."""

    closed = Signal()
    clicked = Signal()

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message
        self.is_whole = True
        self.setObjectName("message")
        edge = _EDGES[message.severity]
        self.setStyleSheet(f"#message {{ border-left: 4px solid {edge}; }} #line:focus {{ border: 1px solid {edge}; }}")
        sign = QLabel()
        sign.setPixmap(self.style().standardIcon(_SIGNS[message.severity]).pixmap(_SIGN_PIXELS))
        sign.setAccessibleName(message.severity)
        self._words = QLabel(message.text)
        self._words.setTextFormat(Qt.PlainText)
        self._words.setWordWrap(True)
        self._words.setTextInteractionFlags(Qt.TextSelectableByMouse)
        self._line = QElidingLabel(message.text)
        self._line.setTextFormat(Qt.PlainText)
        self._line.setObjectName("line")
        self._line.setFocusPolicy(Qt.TabFocus)
        close = _closer()
        close.clicked.connect(self.closed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(6, 2, 0, 2)
        layout.setSpacing(6)
        layout.addWidget(sign, 0, Qt.AlignTop)
        for widget in (self._words, self._line):
            widget.setToolTip(message.text)
            widget.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Preferred)
            widget.setMinimumHeight(self.fontMetrics().lineSpacing())  # a small window is not made higher by it
            layout.addWidget(widget, 1)
        layout.addWidget(close, 0, Qt.AlignTop)
        self.set_whole(True)

    def set_whole(self, whole: bool) -> None:
        """All of its words, or as many as fit into a line."""
        self.is_whole = whole
        self._words.setVisible(whole)
        self._line.setVisible(not whole)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A click makes it whole."""
        super().mousePressEvent(event)
        self.clicked.emit()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """So does a key on its line."""
        if event.key() in (Qt.Key_Space, Qt.Key_Return, Qt.Key_Enter):
            self.clicked.emit()
        else:
            super().keyPressEvent(event)


def _closer() -> QToolButton:
    button = QToolButton()
    button.setText("×")
    button.setAutoRaise(True)
    button.setToolTip("Close this message")
    button.setAccessibleName("Close this message")
    return button
