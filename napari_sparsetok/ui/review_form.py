"""The list of what to look at next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_sparsetok.ui.icon import Tint
from napari_sparsetok.ui.style import ticks

_HIGHEST = 130  # pixels of the list; what is longer scrolls


@dataclass(frozen=True)
class ReviewRow:
    """One thing to look at, in words, with more words for the tooltip."""

    words: str
    tip: str
    reviewed: bool


class ReviewForm(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    find_requested = Signal()
    jump_requested = Signal(int)
    reviewed_toggled = Signal(int, bool)
    slice_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self._list = QListWidget()
        self._list.setToolTip(
            "Worst first. Click or Enter goes there; the tick (Space) says that you have looked at it"
        )
        self._tint = Tint(self._list, lambda ink: self._list.setStyleSheet(ticks(ink.name(), ink.lightness() > 127)))
        self._list.setTextElideMode(Qt.ElideRight)
        self._list.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self._list.itemClicked.connect(self._on_jump)
        self._list.itemActivated.connect(self._on_jump)
        self._list.itemChanged.connect(self._on_ticked)
        self._said = QLabel()
        self._said.setWordWrap(True)
        self._counts = QLabel()
        self._counts.setWordWrap(True)
        layout.addWidget(self._said)
        layout.addWidget(self._list)
        layout.addLayout(self._buttons())
        layout.addWidget(self._counts)
        self.set_rows([], "")

    def set_rows(self, rows: Sequence[ReviewRow], said: str) -> None:
        """What to look at, worst first, and what is to be said of it."""
        self._list.blockSignals(True)
        at = self._list.currentRow()
        self._list.clear()
        for row in rows:
            item = QListWidgetItem(row.words)
            item.setToolTip(row.tip)
            item.setFlags(item.flags() | Qt.ItemIsUserCheckable)
            item.setCheckState(Qt.Checked if row.reviewed else Qt.Unchecked)
            self._list.addItem(item)
        if 0 <= at < len(rows):
            self._list.setCurrentRow(at)
        self._list.blockSignals(False)
        self._list.setVisible(bool(rows))
        self._list.setFixedHeight(min(_HIGHEST, max(1, len(rows)) * self._list.sizeHintForRow(0) + 6))
        self._said.setText(said)
        self._said.setVisible(bool(said))

    def set_counts(self, words: str) -> None:
        """How much was corrected and looked at."""
        self._counts.setText(words)

    def set_slice(self, reviewed: bool) -> None:
        """Whether the slice on the screen was looked at."""
        self._slice.blockSignals(True)
        self._slice.setChecked(reviewed)
        self._slice.blockSignals(False)

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        find = QPushButton("Look &again")
        find.setToolTip("Go through the mask as it is now")
        find.clicked.connect(self.find_requested)
        self._slice = QPushButton("Slice &reviewed")
        self._slice.setCheckable(True)
        self._slice.setToolTip("<b>Slice reviewed</b> (K)<br>Mark the slice on the screen as looked at")
        self._slice.toggled.connect(self.slice_toggled)
        row.addWidget(find)
        row.addWidget(self._slice)
        return row

    def _on_jump(self, item: QListWidgetItem) -> None:
        self.jump_requested.emit(self._list.row(item))

    def _on_ticked(self, item: QListWidgetItem) -> None:
        self.reviewed_toggled.emit(self._list.row(item), item.checkState() == Qt.Checked)
