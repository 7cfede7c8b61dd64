"""What is kept on this computer from earlier corrections: listed, brought back, deleted, by the person only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
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

from napari_sparsetok.files.autosave import Kept
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.labels import LabelTable, Meaning
from napari_sparsetok.review import Notes
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.corrections import CorrectionsLayer
from napari_sparsetok.ui.keeping import Keeping

_HEADINGS = ("Kept on", "Scan", "Voxels", "Size", "Labels")


@dataclass(frozen=True, eq=False)
class _Back:
    """Corrections of a scan that were read, and the name that they were kept under."""

    scan: Scan
    labels: LabelTable
    name: str
    corrections: NDArray[np.uint8]
    notes: Notes


class KeptDesk(QObject):
    """Offers what is kept, brings it back, and opens the list.

    offered : what is kept for the current scan, in words; "" takes the offer back.

    Parameters
    ----------
    keeping : whose store it is.
    layers : the corrections that there are.
    install : puts corrections on the current scan; with the notes on them, and the name that they were kept under.
    """

    offered = Signal(str)

    def __init__(
        self,
        dialogs: QWidget,
        session: Session,
        keeping: Keeping,
        layers: CorrectionsLayer,
        install: Callable[[NDArray[np.uint8], Notes, str], None],
    ) -> None:
        super().__init__(dialogs)
        self._dialogs, self._session, self._keeping, self._layers = dialogs, session, keeping, layers
        self._store = keeping.store
        self._install = install
        self._offers: WeakKeyDictionary[Scan, dict[Meaning, Kept]] = WeakKeyDictionary()
        self.dialog: KeptDialog | None = None
        self.question: QMessageBox | None = None

    def look(self) -> None:
        """Offer what is kept for the current scan."""
        scan, store, labels = self._session.state.scan, self._store, self._layers.labels
        if scan is None:
            return

        def read() -> tuple[Kept | None, Notes]:
            kept = store.find(scan.content_hash, labels) or store.find(scan.content_hash)
            return kept, Notes() if kept is None else Notes.from_json(store.notes(kept.name))

        def offer(found: tuple[Kept | None, Notes]) -> None:
            kept, notes = found
            if kept is None or not (kept.voxels or notes.marks) or not self._is_current(scan, labels):
                return
            sheet = self._layers.sheet
            if kept.labels and kept.labels.meaning != labels.meaning:
                words = f"Corrections of this scan are kept for other labels ({kept.labels.words})."
                self._session.say(f"{words} Choose the model that draws these, and they are offered.", "info")
            elif sheet is None or not store.goes_on(kept.name, sheet.lineage):  # these are not those on the screen
                when = kept.at.astimezone().strftime("%d %B %Y, %H:%M")
                marks = f"{notes.marks} mark{'s' if notes.marks > 1 else ''}"
                reviewed = f", {marks} of what you reviewed" if notes.marks else ""
                words = f"Corrections of this scan were kept on {when}: {kept.voxels} voxels{reviewed}."
                self._offers.setdefault(scan, {})[labels.meaning] = kept
                self.offered.emit(words if kept.labels else f"{words} {_not_noted(labels)}")

        self._session.load(read, offer, "looking for kept corrections")

    def bring_back(self, kept: Kept | None = None) -> None:
        """Those that were offered, or others from the list."""
        scan, store, labels = self._session.state.scan, self._store, self._layers.labels
        if scan is None:
            return
        if kept is not None and kept.labels and kept.labels.meaning != labels.meaning:
            words = f"These corrections are for other labels ({kept.labels.words})."
            self._session.say(f"{words} Choose the model that draws these first, then bring them back.")
            return

        wanted = kept or self._offers.get(scan, {}).get(labels.meaning)

        def find() -> Kept | None:
            return store.find(scan.content_hash, labels) if wanted is None else self._now(wanted)

        def read() -> _Back | None:
            found = find()
            while found is not None:
                name = found.name
                back = _Back(scan, labels, name, store.give_back(name), Notes.from_json(store.notes(name)))
                before, found = found, find()
                if found == before:  # and was not set aside while it was read
                    return back
            return None

        # Of what was offered it was said that its labels were not noted.
        noted = kept is None or bool(kept.labels)
        self._session.load(read, lambda back: self._on_read(back, noted), "bringing corrections back")

    def _now(self, wanted: Kept) -> Kept | None:
        """The same corrections, wherever they lie now: what is drawn may have been kept in their place meanwhile."""
        moved = (one for one in self._store.all() if one.belongs_to(wanted.name))
        return next((one for one in moved if replace(one, name=wanted.name) == wanted), None)

    def _on_read(self, back: _Back | None, noted: bool) -> None:
        sheet = self._layers.sheet
        if back is None:
            self._session.say("These corrections are no longer kept. “Kept corrections…” lists all that there are.")
            return
        if not self._is_current(back.scan, back.labels):
            return
        if sheet is not None and np.asarray(sheet.array).any():
            also = "" if noted else f" {_not_noted(back.labels)}"
            self._ask(
                "This scan has other corrections now. Put the kept ones in their place?",
                f"Those you have now are set aside first. You find them in the list of kept corrections.{also}",
                lambda: self._keeping.copy(sheet, lambda: self._put(back)),
            )
        elif not noted:
            self._ask("Bring these corrections back?", _not_noted(back.labels), lambda: self._put(back))
        else:
            self._put(back)

    def _is_current(self, scan: Scan, labels: LabelTable) -> bool:
        """Whether nobody chose another scan or model meanwhile."""
        return scan is self._session.state.scan and labels.meaning == self._layers.labels.meaning

    def _ask(self, words: str, more: str, then: Callable[[], None]) -> None:
        box = self.question = QMessageBox(self._dialogs)
        box.setIcon(QMessageBox.Question)
        box.setWindowTitle("Kept corrections")
        box.setText(words)
        box.setInformativeText(more)
        put = box.addButton("&Bring back", QMessageBox.AcceptRole)
        put.setToolTip("Put the kept corrections on this scan; one undo takes them away again")
        put.clicked.connect(then)
        cancel = box.addButton("&Cancel", QMessageBox.RejectRole)
        cancel.setToolTip("Leave everything as it is")
        box.setDefaultButton(cancel)
        box.setAttribute(Qt.WA_DeleteOnClose)
        box.finished.connect(self._on_answered)
        box.open()

    def _on_answered(self, result: int) -> None:
        self.question = None

    def _put(self, back: _Back) -> None:
        if self._is_current(back.scan, back.labels):
            self.offered.emit("")
            self._install(back.corrections, back.notes, back.name)

    def show(self) -> None:
        """Read what is there, then show it."""
        dialog = self.dialog = KeptDialog(self._dialogs)
        dialog.delete_requested.connect(self._delete)
        dialog.bring_back_requested.connect(self.bring_back)
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
                store.remove(one.name)

        what = "deleting kept corrections"
        self._session.write(work, lambda: None, what)
        # In turn, and so also if the disk did not let all of them go.
        self._session.write(lambda: None, lambda: self._keep_anew(kept), what)

    def _keep_anew(self, deleted: Sequence[Kept]) -> None:
        """It was said of the corrections that are open that they are kept safe, and so they are."""
        sheets = [sheet for sheet in self._layers.sheets if self._keeping.holds_something(sheet)]
        bereft = [x for x in sheets if any(self._store.goes_on(one.name, x.lineage) for one in deleted)]
        for sheet in bereft:
            self._keeping.soon(sheet)
        if bereft:
            self._session.say("Corrections that are open were kept anew, so that they stay safe.", "info")
        self._keeping.settle(self._refresh)


class KeptDialog(QDialog):
    """The list. Nothing of the patient's is known here, so scans are told by date and size."""

    delete_requested = Signal(object)
    bring_back_requested = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Kept corrections")
        self.resize(860, 320)
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
        self._table.horizontalHeader().setSectionResizeMode(len(_HEADINGS) - 1, QHeaderView.Stretch)
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
            voxels = times_xyz(one.shape)
            scan = "the scan that is open" if open_scan and one.belongs_to(open_scan) else f"another, {voxels} voxels"
            aside = " (set aside)" if one.is_aside else ""
            cells = (
                f"{one.at.astimezone():%d %B %Y, %H:%M}",
                scan + aside,
                str(one.voxels),
                f"{one.nbytes / 1e3:.0f} kB",
                one.labels.words if one.labels else "not noted",
            )
            for column, words in enumerate(cells):
                item = QTableWidgetItem(words)
                item.setToolTip(words)
                if column in (2, 3):
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
        self._back.setToolTip("Put these corrections on the scan that is open; asks if it has others")
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


def _not_noted(labels: LabelTable) -> str:
    return (
        "The kept ones come from an earlier version of the program, which did not note what labels they are for. Bring "
        f"them back only if you drew them for the labels of this model: {labels.words}."
    )
