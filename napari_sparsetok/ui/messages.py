"""What the person was told: napari's note over the canvas, and the same below the tabs, whole, until it is closed.

napari cuts a note after some forty letters and takes it away after four seconds. That a mask could not be saved, and
why, is to be read longer than that.
"""

from __future__ import annotations

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QStyle, QToolButton, QVBoxLayout, QWidget

from napari_sparsetok.state import Message

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
    """The last messages, newest below; no more than three, and of more the least grave goes, the oldest first."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[_Row] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(9, 0, 8, 0)
        self._layout.setSpacing(2)
        self.setVisible(False)

    @property
    def texts(self) -> list[str]:
        """What can be read now."""
        return [row.message.text for row in self._rows]

    def tell(self, message: Message | None) -> None:
        """Say something. The same words again move down instead of standing there twice."""
        if message is None:
            return
        for row in [row for row in self._rows if row.message.text == message.text]:
            self._drop(row)
        while len(self._rows) >= _AT_MOST:
            self._drop(min(self._rows, key=lambda row: _GRAVITY.index(row.message.severity)))
        row = _Row(message)
        row.closed.connect(lambda: self._drop(row))
        self._rows.append(row)
        self._layout.addWidget(row)
        row.setVisible(True)
        self.setVisible(True)
        _NOTES[message.severity](message.text)

    def _drop(self, row: _Row) -> None:
        self._rows.remove(row)
        self._layout.removeWidget(row)
        row.setVisible(False)
        row.deleteLater()
        self.setVisible(bool(self._rows))


class _Row(QFrame):
    """One message, with a button that closes it."""

    closed = Signal()

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message
        self.setObjectName("message")
        self.setStyleSheet(f"#message {{ border-left: 4px solid {_EDGES[message.severity]}; }}")
        sign = QLabel()
        sign.setPixmap(self.style().standardIcon(_SIGNS[message.severity]).pixmap(_SIGN_PIXELS))
        sign.setAccessibleName(message.severity)
        words = QLabel(message.text)
        words.setTextFormat(Qt.PlainText)
        words.setWordWrap(True)
        words.setTextInteractionFlags(Qt.TextSelectableByMouse)
        words.setToolTip(message.text)
        words.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Preferred)
        words.setMinimumHeight(words.fontMetrics().lineSpacing())  # a small window is not made higher by it
        close = QToolButton()
        close.setText("×")
        close.setAutoRaise(True)
        close.setToolTip("Close this message")
        close.setAccessibleName("Close this message")
        close.clicked.connect(self.closed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(6, 2, 0, 2)
        layout.setSpacing(6)
        layout.addWidget(sign, 0, Qt.AlignTop)
        layout.addWidget(words, 1)
        layout.addWidget(close, 0, Qt.AlignTop)
