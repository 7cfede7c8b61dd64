"""What corrections can tell the model: which tokens to keep."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget


class TeachForm(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    keep_requested = Signal()
    release_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._said = QLabel()
        self._said.setWordWrap(True)
        self._keep, self._release = QPushButton("Keep &these tokens"), QPushButton("&Let go")
        self._keep.setToolTip(
            "Keep the tokens under your corrections at every stage, whatever they score, and run the model again; "
            "your corrections stay as they are"
        )
        self._release.setToolTip("Choose by score alone again, and run the model again")
        self._keep.clicked.connect(self.keep_requested)
        self._release.clicked.connect(self.release_requested)
        row = QHBoxLayout()
        row.addWidget(self._keep, 1)
        row.addWidget(self._release)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self._said)
        layout.addLayout(row)
        self.set_forced(0, 0)

    def set_forced(self, kept: int, total: int) -> None:
        """How many tokens are kept by hand, of how many."""
        self._said.setText(
            f"{kept} of {total} tokens are kept by hand."
            if kept
            else "Tell the model to look closely where you corrected it."
        )
        self._release.setEnabled(bool(kept))
