"""The table of labels in the tab "Correct"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_sparsetok.ui.icon import Tint, icon, undulled
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.style import ticks

_VOXELS, _SHOW, _LOCK = 1, 4, 5
_BESIDE_TITLE = 12
_BESIDE_NAME = 24  # pixels: the colour, and the space around
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
        super().__init__(0, 6, parent)
        self._rows: tuple[LabelRow, ...] = ()
        self._last = 0  # the label that was chosen last; the table may be empty meanwhile
        self.setHorizontalHeaderLabels(["Label", "Voxels", "mL", "Δ mL", "", ""])
        self.horizontalHeaderItem(3).setToolTip("What your corrections changed, in mL")
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
            self.setColumnWidth(column, 24)
            self.horizontalHeaderItem(column).setToolTip({"eye": "Draw it", "lock": "Lock it"}[name])
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setToolTip(
            "Choose the label to paint (- and = on the scan). Δ mL: what your corrections changed. Eye: draw it in the "
            "mask. Lock: no tool and no brush changes it."
        )
        self.setIconSize(QSize(12, 12))
        self.setShowGrid(False)
        self.setWordWrap(True)
        self._tint = Tint(self, self._draw)
        self._fit_later = later(self, self._fit)  # once Qt has laid out all columns
        header.sectionResized.connect(self._on_column)
        self.itemSelectionChanged.connect(self._on_selected)
        self.itemChanged.connect(self._on_item_changed)

    @property
    def chosen(self) -> int:
        """The label to paint; 0 if the table is empty."""
        row = self.currentRow()
        return self._rows[row].id if 0 <= row < len(self._rows) else 0

    def set_rows(self, rows: Sequence[LabelRow]) -> None:
        """What to say; the chosen label stays chosen, also if the table was empty meanwhile. Another one is told."""
        if tuple(rows) == self._rows:
            return
        same = [row.id for row in rows] == [row.id for row in self._rows]
        self._rows = tuple(rows)
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for k, row in enumerate(rows):
            self._write(k, row)
        if rows and not same:
            ids = [row.id for row in rows]
            self.selectRow(ids.index(self._last) if self._last in ids else 0)
            self._fit()
        self.blockSignals(False)
        if rows and not same:
            self._on_selected()

    def choose(self, label: int) -> None:
        """Choose a label to paint."""
        ids = [row.id for row in self._rows]
        if label in ids:
            self.selectRow(ids.index(label))

    def step(self, by: int) -> None:
        """Choose the next label, or the one before."""
        if self._rows:
            self.selectRow((self.currentRow() + by) % len(self._rows))

    def _draw(self, color: QColor) -> None:
        for column, name in _PICTURES.items():
            self.horizontalHeaderItem(column).setIcon(icon(name, color))
        self.setStyleSheet(ticks(color.name(), color.lightness() > 127))

    def _write(self, k: int, row: LabelRow) -> None:
        name = QTableWidgetItem(row.name)
        name.setIcon(_swatch(row.color))
        name.setToolTip(row.name)
        numbers = [QTableWidgetItem(words) for words in (short_count(row.voxels), short_ml(row.ml), _change(row))]
        for item in numbers:
            item.setTextAlignment(Qt.AlignRight | Qt.AlignVCenter)
            item.setToolTip(f"{_grouped(row.voxels)} voxels, {row.ml:.3f} mL; corrections: {row.change:+.3f} mL")
        ticks = []
        for on in (row.shown, row.locked):
            tick = QTableWidgetItem()
            tick.setFlags(Qt.ItemIsUserCheckable | Qt.ItemIsEnabled | Qt.ItemIsSelectable)
            tick.setCheckState(Qt.Checked if on else Qt.Unchecked)
            ticks.append(tick)
        for column, item in enumerate((name, *numbers, *ticks)):
            self.setItem(k, column, item)

    def _fit(self) -> None:
        """As high as its rows, up to six of one line."""
        self._make_room()
        self.resizeRowsToContents()
        heights = [self.rowHeight(k) for k in range(self.rowCount())]
        most = 6 * (self.fontMetrics().height() + 6)
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + min(sum(heights), most) + 6)

    def _make_room(self) -> None:
        """A large font, or a narrow panel, leaves no room for a name; then the voxels are in the tooltip alone."""
        words = [word for row in self._rows for word in row.name.split()]
        needed = max((self.fontMetrics().horizontalAdvance(word) for word in words), default=0) + _BESIDE_NAME
        title = self.horizontalHeader().fontMetrics().horizontalAdvance("Voxels") + _BESIDE_TITLE  # none while hidden
        voxels = max(title, self.sizeHintForColumn(_VOXELS))
        others = sum(self.columnWidth(k) for k in range(_VOXELS + 1, self.columnCount()))
        self.setColumnHidden(_VOXELS, self.viewport().width() - others - voxels < needed)

    def _on_column(self, column: int) -> None:
        """Larger numbers leave less room for the names, which then take two lines."""
        if column == 0:
            self._fit_later.start()

    def _on_selected(self) -> None:
        if self.chosen:
            self._last = self.chosen
            self.label_chosen.emit(self.chosen)

    def _on_item_changed(self, item: QTableWidgetItem) -> None:
        signals = {_SHOW: self.show_toggled, _LOCK: self.lock_toggled}
        if item.column() in signals and item.row() < len(self._rows):
            signals[item.column()].emit(self._rows[item.row()].id, item.checkState() == Qt.Checked)


def _swatch(color: str) -> QIcon:
    """A label's colour, as it is on the scan."""
    square = QPixmap(12, 12)
    square.fill(QColor(color))
    return undulled(square)


def short_count(voxels: int) -> str:
    """How many, in at most seven signs."""
    return f"{voxels / 1e6:.2f}\u202fM" if voxels >= 1_000_000 else _grouped(voxels)


def short_ml(ml: float) -> str:
    """Millilitres, in about four digits."""
    return f"{ml:.2f}" if abs(ml) < 100 else f"{ml:.1f}" if abs(ml) < 1000 else f"{ml:.0f}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _change(row: LabelRow) -> str:
    sign = "+" if row.change > 0 else "−"
    return sign + short_ml(abs(row.change)) if abs(row.change) >= 0.005 else "–"
