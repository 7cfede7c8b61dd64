"""A choice among the scans that lie in one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sparsetok.files import SeriesInfo
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.ui.icon import undulled, without_pictures

COLUMNS = ("Scan", "Kind", "Size", "Voxel (mm)", "Slices", "Before it opens")
_PICTURE = 64  # pixels
_READY, _REPAIR, _NOT = "ready", "needs a repair", "cannot be opened"
_MARK = QColor(230, 159, 0)


class SeriesDialog(QDialog):
    """Lists series, the best candidate first and chosen. Opening is by the button, Enter or a double click.

    Parameters
    ----------
    series : as `napari_sparsetok.files.find_series` gives them.
    """

    series_chosen = Signal(object)

    def __init__(self, series: Sequence[SeriesInfo], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._series = list(series)
        self.setWindowTitle("Choose a scan")
        self.resize(760, 420)
        words = QLabel(f"{len(self._series)} scans were found here. The first is the likeliest one.")
        self._table = self._build_table()
        self._details = QLabel()
        self._details.setWordWrap(True)
        self._details.setMinimumHeight(3 * self._details.fontMetrics().height())
        self._details.setAlignment(Qt.AlignTop | Qt.AlignLeft)
        self._buttons = QDialogButtonBox(QDialogButtonBox.Open | QDialogButtonBox.Cancel)
        without_pictures(self._buttons)
        self._buttons.button(QDialogButtonBox.Open).setToolTip("Open the chosen scan (Enter, or a double click on it)")
        self._buttons.button(QDialogButtonBox.Cancel).setToolTip("Open none of them (Esc)")
        self._buttons.accepted.connect(self._on_open)
        self._buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        for widget in (words, self._table, self._details, self._buttons):
            layout.addWidget(widget)
        self._table.currentCellChanged.connect(lambda *_: self._write_details())
        self._table.selectRow(0)
        self._write_details()

    @property
    def chosen(self) -> SeriesInfo | None:
        """The series under the cursor."""
        row = self._table.currentRow()
        return self._series[row] if 0 <= row < len(self._series) else None

    @property
    def table(self) -> QTableWidget:
        """The list itself."""
        return self._table

    def choose(self, row: int) -> None:
        """Put the cursor on a row."""
        self._table.selectRow(row)

    def _build_table(self) -> QTableWidget:
        table = QTableWidget(len(self._series), len(COLUMNS))
        table.setHorizontalHeaderLabels(COLUMNS)
        table.setAccessibleName("Scans to choose from")
        table.setSelectionBehavior(QAbstractItemView.SelectRows)
        table.setSelectionMode(QAbstractItemView.SingleSelection)
        table.setEditTriggers(QAbstractItemView.NoEditTriggers)
        table.setIconSize(QSize(_PICTURE, _PICTURE))
        table.setTabKeyNavigation(False)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(_PICTURE + 4)
        for row, info in enumerate(self._series):
            for column, item in enumerate(_items(info)):
                table.setItem(row, column, item)
        table.resizeColumnsToContents()
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.Stretch)
        header.setHighlightSections(False)
        table.cellDoubleClicked.connect(lambda *_: self._on_open())
        return table

    def _write_details(self) -> None:
        info = self.chosen
        can_open = info is not None and _state(info) != _NOT
        self._buttons.button(QDialogButtonBox.Open).setEnabled(can_open)
        self._buttons.button(QDialogButtonBox.Open).setDefault(True)
        self._details.setText("" if info is None else _details(info))

    def _on_open(self) -> None:
        info = self.chosen
        if info is not None and _state(info) != _NOT:
            self.accept()
            self.series_chosen.emit(info)


def _items(info: SeriesInfo) -> list[QTableWidgetItem]:
    size = times_xyz(info.shape[1:])
    spacing = " × ".join(f"{s:.3g}" if s > 0 else "?" for s in reversed(info.spacing))
    slices = f"{info.slices} in {info.volumes} volumes" if info.volumes > 1 else str(info.slices)
    state = _state(info)
    items = [QTableWidgetItem(words) for words in (info.description, info.modality, size, spacing, slices, state)]
    items[0].setIcon(undulled(picture(info)))
    for item in items:
        item.setToolTip(_details(info))
        if state == _NOT:  # it can be looked at all the same, and says why
            item.setForeground(QColor(128, 128, 128))
    if state == _REPAIR:
        items[-1].setForeground(_MARK)
    return items


def picture(info: SeriesInfo) -> QPixmap:
    """The middle slice, its voxels as wide and high as they are."""
    grey = np.ascontiguousarray(info.thumbnail)
    rows, columns = grey.shape
    image = QImage(grey.data, columns, rows, columns, QImage.Format_Grayscale8).copy()
    down, across = (s if s > 0 else 1.0 for s in info.spacing[1:])
    high, wide = info.shape[1] * down, info.shape[2] * across
    scale = _PICTURE / max(high, wide)
    size = QSize(max(1, round(wide * scale)), max(1, round(high * scale)))
    return QPixmap.fromImage(image.scaled(size, Qt.IgnoreAspectRatio, Qt.SmoothTransformation))


def _state(info: SeriesInfo) -> str:
    if info.opens:
        return _READY
    return _REPAIR if info.repairs else _NOT


def _details(info: SeriesInfo) -> str:
    if info.opens:
        return "It opens as it is."
    problems = "; ".join(info.problems)
    if not info.repairs:
        return f"It cannot be opened: {problems}."
    return f"It does not open as it is: {problems}. You will be asked whether it may be repaired."
