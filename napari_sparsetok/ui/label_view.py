"""The table of labels in the tab "Correct"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_sparsetok.ui.icon import icon

_SHOW, _LOCK = 3, 4
_PICTURES = {_SHOW: "eye", _LOCK: "lock"}


@dataclass(frozen=True)
class LabelRow:
    """What the table says of one label. `change` is against the prediction, both in mL."""

    id: int
    name: str
    color: str
    ml: float
    change: float
    locked: bool = False
    voxels: int = 0
    shown: bool = True


class LabelView(QTableWidget):
    """One row a label; the chosen one is painted."""

    label_chosen = Signal(int)
    lock_toggled = Signal(int, bool)
    show_toggled = Signal(int, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 5, parent)
        self._rows: tuple[LabelRow, ...] = ()
        self._tint = ""
        self.setHorizontalHeaderLabels(["Label", "mL", "Δ mL", "", ""])
        self.setSelectionBehavior(QAbstractItemView.SelectRows)
        self.setSelectionMode(QAbstractItemView.SingleSelection)
        self.setEditTriggers(QAbstractItemView.NoEditTriggers)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.Stretch)
        for column, name in _PICTURES.items():
            header.setSectionResizeMode(column, QHeaderView.Fixed)
            self.setColumnWidth(column, 26)
            self.horizontalHeaderItem(column).setToolTip({"eye": "Draw it", "lock": "Lock it"}[name])
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setToolTip(
            "Choose the label to paint (- and = on the scan). Δ mL: what your corrections changed. Eye: draw it in the "
            "mask. Lock: no tool and no brush changes it."
        )
        self.setShowGrid(False)
        self.setWordWrap(True)
        self.itemSelectionChanged.connect(self._on_selected)
        self.itemChanged.connect(self._on_item_changed)

    @property
    def chosen(self) -> int:
        """The label to paint; 0 if the table is empty."""
        row = self.currentRow()
        return self._rows[row].id if 0 <= row < len(self._rows) else 0

    def set_rows(self, rows: Sequence[LabelRow]) -> None:
        """What to say; the chosen row stays chosen."""
        if tuple(rows) == self._rows:
            return
        same = [row.id for row in rows] == [row.id for row in self._rows]
        self._rows = tuple(rows)
        chosen = max(0, self.currentRow())
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for k, row in enumerate(rows):
            self._write(k, row)
        if rows and not same:
            self.selectRow(min(chosen, len(rows) - 1))
            self.resizeRowsToContents()
            self._fit()
        self.blockSignals(False)

    def choose(self, label: int) -> None:
        """Choose a label to paint."""
        ids = [row.id for row in self._rows]
        if label in ids:
            self.selectRow(ids.index(label))

    def step(self, by: int) -> None:
        """Choose the next label, or the one before."""
        if self._rows:
            self.selectRow((self.currentRow() + by) % len(self._rows))

    def changeEvent(self, event: QEvent) -> None:
        """Another theme: other colours for the pictures in the heading."""
        super().changeEvent(event)
        if event.type() in (QEvent.PaletteChange, QEvent.StyleChange):
            self._draw()

    def showEvent(self, event: QEvent) -> None:
        """Only a widget that is shown knows its style sheet's colours."""
        super().showEvent(event)
        self._draw()

    def _draw(self) -> None:
        color = self.palette().text().color()
        if color.name() != self._tint:
            self._tint = color.name()
            for column, name in _PICTURES.items():
                self.horizontalHeaderItem(column).setIcon(icon(name, color))

    def _write(self, k: int, row: LabelRow) -> None:
        name = QTableWidgetItem(row.name)
        name.setData(Qt.DecorationRole, QColor(row.color))
        name.setToolTip(row.name)
        ml = QTableWidgetItem(f"{row.ml:.2f}")
        ml.setToolTip(f"{row.voxels:,} voxels".replace(",", "\u202f"))
        change = QTableWidgetItem(f"{row.change:+.2f}" if abs(row.change) >= 0.005 else "–")
        for item in (ml, change):
            item.setTextAlignment(Qt.AlignRight | Qt.AlignVCenter)
        ticks = []
        for on in (row.shown, row.locked):
            tick = QTableWidgetItem()
            tick.setFlags(Qt.ItemIsUserCheckable | Qt.ItemIsEnabled | Qt.ItemIsSelectable)
            tick.setCheckState(Qt.Checked if on else Qt.Unchecked)
            ticks.append(tick)
        for column, item in enumerate((name, ml, change, *ticks)):
            self.setItem(k, column, item)

    def _fit(self) -> None:
        """As high as its rows, up to six."""
        heights = [self.rowHeight(k) for k in range(min(6, self.rowCount()))]
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + sum(heights) + 6)

    def _on_selected(self) -> None:
        if self.chosen:
            self.label_chosen.emit(self.chosen)

    def _on_item_changed(self, item: QTableWidgetItem) -> None:
        signals = {_SHOW: self.show_toggled, _LOCK: self.lock_toggled}
        if item.column() in signals and item.row() < len(self._rows):
            signals[item.column()].emit(self._rows[item.row()].id, item.checkState() == Qt.Checked)
