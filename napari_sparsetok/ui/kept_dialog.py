"""What is kept on this computer from earlier corrections: listed, brought back, deleted, by the person only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sparsetok.files.autosave import CorrectionStore, Kept
from napari_sparsetok.session import Session

_HEADINGS = ("Kept on", "Scan", "Voxels corrected", "Size")


class KeptDesk(QObject):
    """Opens the list.

    Parameters
    ----------
    bring_back : puts kept corrections on the scan that is open.
    """

    def __init__(
        self, dialogs: QWidget, session: Session, store: CorrectionStore, bring_back: Callable[[Kept], None]
    ) -> None:
        super().__init__(dialogs)
        self._dialogs, self._session, self._store, self._bring_back = dialogs, session, store, bring_back
        self.dialog: KeptDialog | None = None

    def show(self) -> None:
        """Read what is there, then show it."""
        dialog = self.dialog = KeptDialog(self._dialogs)
        dialog.delete_requested.connect(self._delete)
        dialog.bring_back_requested.connect(self._bring_back)
        dialog.show()
        self._refresh()

    def _refresh(self) -> None:
        scan, store = self._session.state.scan, self._store

        def read() -> tuple[list[Kept], str]:
            return store.all(), "" if scan is None else scan.content_hash

        def show(found: tuple[list[Kept], str]) -> None:
            if self.dialog is not None:
                self.dialog.set_kept(*found)

        self._session.load(read, show, "listing kept corrections")

    def _delete(self, kept: Sequence[Kept]) -> None:
        store = self._store

        def work() -> None:
            for one in kept:
                store.remove(one.scan)

        self._session.write(work, self._refresh, "deleting kept corrections")


class KeptDialog(QDialog):
    """The list. Nothing of the patient's is known here, so scans are told by date and size."""

    delete_requested = Signal(object)
    bring_back_requested = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Kept corrections")
        self.resize(560, 320)
        self._kept: list[Kept] = []
        self._open = ""
        self._words = QLabel("Reading …")
        self._words.setWordWrap(True)
        self._table = QTableWidget(0, len(_HEADINGS))
        self._table.setHorizontalHeaderLabels(list(_HEADINGS))
        self._table.setSelectionBehavior(QAbstractItemView.SelectRows)
        self._table.setEditTriggers(QAbstractItemView.NoEditTriggers)
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeToContents)
        self._table.horizontalHeader().setSectionResizeMode(1, QHeaderView.Stretch)
        self._table.itemSelectionChanged.connect(self._on_selected)
        layout = QVBoxLayout(self)
        layout.addWidget(self._words)
        layout.addWidget(self._table)
        layout.addLayout(self._buttons())
        self._on_selected()

    def set_kept(self, kept: Sequence[Kept], open_scan: str) -> None:
        """What there is, newest first, and the hash of the scan that is open."""
        self._kept, self._open = list(kept), open_scan
        size = sum(one.nbytes for one in kept) / 1e6
        self._words.setText(
            f"{len(kept)} kept on this computer, {size:.1f} MB. Nothing is deleted by the program; here you can."
            if kept
            else "Nothing is kept on this computer."
        )
        self._table.setRowCount(len(kept))
        for row, one in enumerate(kept):
            shape = " × ".join(str(n) for n in reversed(one.shape))
            scan = "the scan that is open" if open_scan and one.belongs_to(open_scan) else f"another, {shape} voxels"
            aside = " (set aside)" if "-" in one.scan.removesuffix("-sampled") else ""
            cells = (
                f"{one.at.astimezone():%d %B %Y, %H:%M}",
                scan + aside,
                str(one.voxels),
                f"{one.nbytes / 1e3:.0f} kB",
            )
            for column, words in enumerate(cells):
                item = QTableWidgetItem(words)
                if column > 1:
                    item.setTextAlignment(Qt.AlignRight | Qt.AlignVCenter)
                self._table.setItem(row, column, item)
        self._on_selected()

    @property
    def chosen(self) -> list[Kept]:
        """What is selected."""
        rows = sorted({index.row() for index in self._table.selectedIndexes()})
        return [self._kept[row] for row in rows if row < len(self._kept)]

    def _buttons(self) -> QHBoxLayout:
        self._back, self._delete = QPushButton("&Bring back"), QPushButton("&Delete…")
        self._back.setToolTip("Put these corrections on the scan that is open; only if it has none yet")
        self._delete.setToolTip("Delete what is selected, after asking")
        close = QPushButton("&Close")
        close.setToolTip("Close this window")
        self._back.clicked.connect(lambda: self.bring_back_requested.emit(self.chosen[0]))
        self._delete.clicked.connect(self._on_delete)
        close.clicked.connect(self.close)
        row = QHBoxLayout()
        for button in (self._back, self._delete):
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(close)
        return row

    def _on_selected(self) -> None:
        chosen = self.chosen
        self._delete.setEnabled(bool(chosen))
        self._back.setEnabled(len(chosen) == 1 and bool(self._open) and chosen[0].belongs_to(self._open))

    def _on_delete(self) -> None:
        chosen = self.chosen
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Warning)
        box.setWindowTitle("Delete kept corrections")
        box.setText(f"Delete the corrections of {len(chosen)} row{'s' if len(chosen) > 1 else ''}?")
        box.setInformativeText("This cannot be undone. Masks that you saved stay where they are.")
        delete = box.addButton("&Delete", QMessageBox.DestructiveRole)
        delete.setToolTip("Delete them for good")
        delete.clicked.connect(lambda: self.delete_requested.emit(chosen))
        box.setDefaultButton(box.addButton("&Cancel", QMessageBox.RejectRole))
        box.setAttribute(Qt.WA_DeleteOnClose)
        self.question = box
        box.open()
