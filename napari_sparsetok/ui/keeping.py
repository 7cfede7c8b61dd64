"""Corrections are written to the store soon after they change, and again and again until the disk has taken them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparsetok.files.autosave import CorrectionStore
from napari_sparsetok.review import Notes
from napari_sparsetok.scan import Scan, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.ui.corrections import Sheet
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.later import later

_SOON_MS = 2000  # from the first stroke that is not kept, however many follow
_AGAIN_MS = 30_000  # after the disk refused

NOT_YET = "Not kept safe yet …"
KEPT = "Corrections kept safe on this computer."
REFUSED = "Not kept safe: the disk refused. It is tried again with every stroke; save the mask now."


class Keeping(QObject):
    """Keeps every sheet that was written to, whichever scan is the current one.

    said : whether all is safe, in words.

    Parameters
    ----------
    notes : what is to come back with the corrections on a sheet.
    """

    said = Signal(str)

    def __init__(
        self, parent: QObject, session: Session, store: CorrectionStore, notes: Callable[[Sheet], Notes]
    ) -> None:
        super().__init__(parent)
        self._session, self.store, self._notes = session, store, notes
        # Their scans too: what is not kept yet outlives a scan that was closed.
        self._changed: dict[Sheet, Scan] = {}  # since they were last handed to the disk
        self._writing: set[Sheet] = set()
        self._refused: set[Sheet] = set()
        self._timer = later(self, self._on_due)

    @property
    def refused(self) -> bool:
        """Whether the disk refused something that is not kept to this moment."""
        return bool(self._refused)

    @property
    def words(self) -> str:
        """What there is to say of corrections that are not safe; "" if all are."""
        return REFUSED if self._refused else NOT_YET if self._changed or self._writing else ""

    def holds_something(self, sheet: Sheet) -> bool:
        """Whether there is anything on a sheet that would be lost."""
        return bool(np.asarray(sheet.array).any() or self._notes(sheet).marks)

    def soon(self, sheet: Sheet) -> None:
        """It has changed."""
        scan = sheet.scan
        if scan is None:
            return
        self._changed[sheet] = scan
        self.said.emit(self.words)
        # Not put off by what follows: who paints without a pause is safe too.
        if not self._timer.isActive() or self._timer.interval() > _SOON_MS:
            self._timer.start(_SOON_MS)

    def now(self) -> None:
        """Write what has changed, in the background."""
        self._timer.stop()
        changed, self._changed = self._changed, {}
        for sheet, scan in changed.items():
            self._write(sheet, scan)

    def settle(self, then: Callable[[], None]) -> None:
        """Write what has changed, and go on once the disk has taken or refused all of it."""
        self.now()
        self._session.write(lambda: None, lambda: QTimer.singleShot(0, then), "keeping your corrections safe")

    def copy(self, sheet: Sheet, then: Callable[[], None]) -> None:
        """Write a sheet as it is at this moment; then go on, unless the disk refused."""
        scan = sheet.scan
        if scan is not None:
            store, notes, array, lineage = (
                self.store,
                self._notes(sheet).to_json(),
                np.array(sheet.array),
                sheet.lineage,
            )
            work = partial(store.keep, scan.content_hash, array, notes, lineage, sheet.labels)
            self._session.write(work, then, "keeping your corrections safe")

    # Details

    def _on_due(self) -> None:
        if self._writing:  # a slow disk: one at a time
            self._timer.start(_SOON_MS)
        else:
            self.now()

    def _write(self, sheet: Sheet, scan: Scan) -> None:
        store, notes, array, lineage = self.store, self._notes(sheet).to_json(), sheet.array, sheet.lineage
        labels = sheet.labels
        known = sheet in self._refused  # why was said by the session, and once is enough
        refused: list[BaseException] = []
        self._writing.add(sheet)

        def work() -> None:
            try:
                store.keep(scan.content_hash, array, notes, lineage, labels)
            except BaseException as error:
                refused.append(error)
                on_gui_thread(lambda: self._on_refused(sheet, scan), self)
                if not (known and isinstance(error, ScanError)):
                    raise

        def done() -> None:
            if not refused:
                self._on_kept(sheet)

        self._session.write(work, done, "keeping your corrections safe")

    def _on_kept(self, sheet: Sheet) -> None:
        self._writing.discard(sheet)
        self._refused.discard(sheet)
        self.said.emit(self.words or KEPT)

    def _on_refused(self, sheet: Sheet, scan: Scan) -> None:
        self._writing.discard(sheet)
        self._refused.add(sheet)
        self._changed.setdefault(sheet, scan)
        self.said.emit(self.words)
        if not self._timer.isActive():
            self._timer.start(_AGAIN_MS)
