"""What the forms of the tab "Inspect" are built from: headings that fold, columns, words, buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_sparsetok.ui.elided import elided

_FLAT = "text-align: left; padding: 3px; font-weight: bold; border: none; background: transparent"


class Part(QWidget):
    """A heading that folds what is under it away."""

    def __init__(self, title: str, content: QWidget, is_open: bool) -> None:
        super().__init__()
        self._title = title
        self._head = button_of("", "Fold and unfold")
        self._head.setCheckable(True)
        self._head.setStyleSheet(_FLAT)
        self._head.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Fixed)  # a heading makes nothing wider
        self._content = content
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.addWidget(self._head)
        layout.addWidget(content)
        self._head.toggled.connect(self._on_toggled)
        self._head.setChecked(is_open)
        self._on_toggled(is_open)

    def set_open(self, is_open: bool) -> None:
        """Fold or unfold."""
        self._head.setChecked(is_open)

    def _on_toggled(self, is_open: bool) -> None:
        self._head.setText(f"{'▾' if is_open else '▸'}  {self._title}")
        self._content.setVisible(is_open)


def column(*items: QWidget | QLayout) -> QWidget:
    """Widgets and rows of them, one below the other."""
    box = QWidget()
    layout = QVBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    for item in items:
        if isinstance(item, QWidget):
            layout.addWidget(item)
        else:
            layout.addLayout(item)
    return box


def words_of(text: str = "") -> QLabel:
    """A paragraph."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.RichText)
    return label


def button_of(words: str, tip: str, signal: Any = None) -> QPushButton:
    """A button that says what it does, and emits a signal without arguments if one is given."""
    button = QPushButton(words)
    button.setToolTip(tip)
    if signal is not None:
        button.clicked.connect(lambda: signal.emit())
    return button


def narrow(choice: QComboBox) -> QComboBox:
    """A choice that is no wider than the panel, however long its entries are."""
    choice.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
    choice.setMinimumContentsLength(12)
    return elided(choice)


def choose_among(choice: QComboBox, names: Sequence[str]) -> None:
    """Other entries; what was chosen stays if it is among them, or was renamed, else the first is. Nobody is told."""
    now, at = choice.currentText(), choice.currentIndex()
    before = [choice.itemText(k) for k in range(choice.count())]
    renamed = [*before[:at], *before[at + 1 :]] == [*names[:at], *names[at + 1 :]] and len(before) == len(names)
    choice.blockSignals(True)
    choice.clear()
    choice.addItems(list(names))
    choice.setCurrentIndex(at if renamed else max(0, choice.findText(now)))
    choice.blockSignals(False)
