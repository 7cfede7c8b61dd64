"""The volumes report: measured in the background, shown in a table, copied or saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sparsetok.engine.report import mask_hash
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.files.volume_table import as_text, save_volumes
from napari_sparsetok.metrics import volumes
from napari_sparsetok.session import Session
from napari_sparsetok.ui.export_formats import TABLES, with_ending_of
from napari_sparsetok.ui.mask_formats import file_name
from napari_sparsetok.ui.overlays import Overlays

_HEADINGS = ("Label", "Volume, mL", "Voxels", "Mean", "SD", "Largest diameter, mm")
_KEYS = ("name", "ml", "voxels", "mean_intensity", "sd_intensity", "largest_diameter_mm")


class Measuring(QObject):
    """Measures the mask that is seen, when asked to."""

    def __init__(self, dialogs: QWidget, session: Session, overlays: Overlays) -> None:
        super().__init__(dialogs)
        self._dialogs, self._session, self._overlays = dialogs, session, overlays
        self.dialog: VolumesDialog | None = None

    def show(self) -> None:
        """Measure, then show."""
        prediction, mask = self._session.state.prediction, self._overlays.mask
        if prediction is None or mask is None:
            self._session.say("There is no mask yet: segment the scan first.")
            return
        if not prediction.complete:
            self._session.say("Parts of the scan were not segmented yet: these are not the volumes of all of it.")
        scan, labels = prediction.scan, prediction.labels

        def read(watch: Watch) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            now = np.array(mask)
            rows = [row.to_json() for row in volumes(now, scan, labels, watch.step)]
            about = {
                "scan": {"sha256": scan.content_hash, "spacing_mm_zyx": scan.geometry.spacing},
                "model": prediction.settings.model,
                "mask_sha256": mask_hash(now),
                "complete": prediction.complete,
            }
            return rows, about

        folder = scan.source.path.parent if scan.source else Path.home()
        suggestion = folder / f"{file_name(scan.name)}_volumes.csv"
        what = "measuring the labels"
        self._session.follow(read, lambda found: self._open(scan.name, suggestion, *found), what, lane="look")

    def _open(self, name: str, suggestion: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
        dialog = self.dialog = VolumesDialog(name, rows, self._dialogs)
        dialog.save_requested.clicked.connect(lambda: self._save(dialog, suggestion, rows, about))
        dialog.show()

    def _save(self, dialog: QDialog, suggestion: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
        path, chosen = QFileDialog.getSaveFileName(dialog, "Save the volumes", str(suggestion), ";;".join(TABLES))
        if not path:
            return
        known = path.lower().endswith(tuple(TABLES.values()))
        target = Path(with_ending_of(path, chosen or ("" if known else next(iter(TABLES))), TABLES))
        if target != Path(path) and os.path.exists(target):  # of which the dialog did not ask
            self._session.say(f"There is a {target.name} already; write that name in the dialog to replace it.")
            return

        def done() -> None:
            self._session.say(f"Saved the volumes as {target.name}.", "info")

        self._session.write(lambda: save_volumes(target, rows, about), done, f"saving {target.name}")


class VolumesDialog(QDialog):
    """The table. It waits for nothing and nothing waits for it."""

    def __init__(self, name: str, rows: list[dict[str, Any]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Volumes · {name}")
        self.setAttribute(Qt.WA_DeleteOnClose)
        self.resize(620, 260)
        self._rows = rows
        self.table = _table(rows)
        words = QLabel(
            "Of the mask that you see, with your corrections. Mean and SD are of the scan's values; the diameter "
            "is that of the longest straight line in any direction."
        )
        words.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(self.table)
        layout.addWidget(words)
        layout.addLayout(self._buttons())

    def _buttons(self) -> QHBoxLayout:
        copy = QPushButton("&Copy")
        copy.setToolTip("Copy the table for a spreadsheet or a report")
        copy.clicked.connect(self.copy)
        self.save_requested = QPushButton("&Save…")
        self.save_requested.setToolTip("Save as CSV or JSON")
        close = QPushButton("C&lose")
        close.setToolTip("Close this window")
        close.clicked.connect(self.close)
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        for button in (copy, self.save_requested, close):
            buttons.addWidget(button)
        return buttons

    def copy(self) -> None:
        """Put the table on the clipboard."""
        QGuiApplication.clipboard().setText(as_text(self._rows, "\t"))


def _table(rows: list[dict[str, Any]]) -> QTableWidget:
    table = QTableWidget(len(rows), len(_HEADINGS))
    table.setHorizontalHeaderLabels(list(_HEADINGS))
    table.setEditTriggers(QAbstractItemView.NoEditTriggers)
    table.verticalHeader().hide()
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeToContents)
    table.horizontalHeader().setSectionResizeMode(0, QHeaderView.Stretch)
    for k, row in enumerate(rows):
        for column, key in enumerate(_KEYS):
            item = QTableWidgetItem(_written(key, row[key]))
            if column:
                item.setTextAlignment(Qt.AlignRight | Qt.AlignVCenter)
            table.setItem(k, column, item)
    return table


def _written(key: str, value: Any) -> str:
    if value is None:
        return "–"
    forms = {"ml": ".2f", "mean_intensity": ".4g", "sd_intensity": ".3g", "largest_diameter_mm": ".1f"}
    return format(value, forms.get(key, ""))
