"""Where the corrections layer, the tab "Correct", the overlays and the session meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QWidget
from superqt.utils import ensure_main_thread

from napari_sparsetok.correction import Edit
from napari_sparsetok.files.autosave import CorrectionStore, Kept
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.review import Notes
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.tool import Scene, ToolRequest
from napari_sparsetok.ui.brush_layer import Labels
from napari_sparsetok.ui.correct_panel import CorrectPanel
from napari_sparsetok.ui.corrections import CorrectionsLayer
from napari_sparsetok.ui.kept_dialog import KeptDesk
from napari_sparsetok.ui.label_view import LabelRow
from napari_sparsetok.ui.looks import Looks
from napari_sparsetok.ui.measuring import Measuring
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.painting import Painting
from napari_sparsetok.ui.reviewing import Reviewing
from napari_sparsetok.ui.saving import Saving
from napari_sparsetok.ui.teaching import Teaching
from napari_sparsetok.ui.tooling import Tooling, Work
from napari_sparsetok.ui.where import voxel_at

_KEEP_AFTER_MS = 2000  # from the first stroke that is not kept, however many follow
_PAUSE = 60.0  # seconds without a stroke after which nobody is taken to be working


class CorrectDesk(QObject):
    """Corrections from the first stroke to the disk.

    Parameters
    ----------
    viewer, session, overlays, panel : what it joins.
    store : where corrections are kept safe.
    dialogs : the widget that dialogs belong to; by default the panel.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        overlays: Overlays,
        panel: CorrectPanel,
        store: CorrectionStore | None = None,
        *,
        dialogs: QWidget | None = None,
    ) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._overlays, self._panel = viewer, session, overlays, panel
        self._store = store or CorrectionStore()
        self._locked: set[int] = set()
        self._hidden: frozenset[int] = frozenset()
        self._notes: WeakKeyDictionary[Scan, Notes] = WeakKeyDictionary()
        self._last_stroke = 0.0
        self._keeping = False
        self.layers = CorrectionsLayer(viewer)
        self.layers.changed.connect(self._on_changed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_KEEP_AFTER_MS)
        self._timer.timeout.connect(self._on_due)
        self._make_parts(dialogs or panel)
        self._connect_panel()
        events = session.state.events
        events.scan.connect(self._on_scan)
        events.prediction.connect(self._on_prediction)
        viewer.layers.events.removed.connect(self._on_removed)
        self._on_scan(session.state.scan)

    def _make_parts(self, dialogs: QWidget) -> None:
        viewer, session, overlays, panel = self._viewer, self._session, self._overlays, self._panel
        self.painting = Painting(viewer, session, overlays, panel, lambda: frozenset(self._locked))
        self.tooling = Tooling(viewer, session, overlays, panel.tools, self._work_on, self._write_edit)
        self.review = Reviewing(viewer, session, overlays, panel.review, self)
        self.looks = Looks(viewer, session, overlays, panel.looks)
        self.saving = Saving(dialogs, viewer, session, lambda: self.array, self.remarks)
        self.saving.saved.connect(self._write_saved)
        self.measuring = Measuring(dialogs, session, overlays)
        self.teaching = Teaching(session, panel.teach, lambda: self.array)
        self.kept = KeptDesk(dialogs, session, self._store, self._on_bring_back)

    def _connect_panel(self) -> None:
        panel = self._panel
        panel.start_requested.connect(self.start)
        panel.bring_back_requested.connect(self._on_bring_back)
        panel.leave_requested.connect(lambda: panel.set_offer(""))
        panel.labels.lock_toggled.connect(self._on_lock)
        panel.labels.show_toggled.connect(self._on_show)
        panel.review_section.toggled.connect(self.review.set_wanted)
        panel.save_requested.connect(lambda: self.saving.save())
        panel.save_as_requested.connect(lambda: self.saving.save_as())
        panel.volumes_requested.connect(self.measuring.show)
        panel.kept_requested.connect(self.kept.show)
        panel.undo_requested.connect(lambda: self._with_layer(Labels.undo))
        panel.redo_requested.connect(lambda: self._with_layer(Labels.redo))

    @property
    def array(self) -> NDArray[np.uint8] | None:
        """The current scan's corrections, None if there are none."""
        return self.layers.array

    @property
    def notes(self) -> Notes:
        """What is known of the person's work on the current scan."""
        scan = self.layers.scan
        return Notes() if scan is None else self._notes.get(scan, Notes())

    def set_notes(self, notes: Notes) -> None:
        """They are kept, and saved, with the corrections."""
        scan = self.layers.scan
        if scan is not None and notes != self.notes:
            self._notes[scan] = notes
            self._keep_soon()

    def remarks(self) -> dict[str, Any]:
        """What the record of a mask says of how it was corrected."""
        return {} if self.array is None else {"correcting": self.notes.to_json()}

    def plane(self) -> tuple[int, int]:
        """The axis across the slices that are shown, and which slice of the scan it is."""
        dims, scan = self._viewer.dims, self._session.state.scan
        first = dims.ndim - 3
        axis = next((a for a in dims.order if a >= first), first) - first
        return axis, (0 if scan is None or dims.ndim < 3 else int(voxel_at(dims.point, scan)[axis]))

    def start(self, given: NDArray[np.uint8] | None = None) -> None:
        """Show the corrections layer, with the brush in hand."""
        scan = self._session.state.scan
        if scan is None:
            return
        layer = self.layers.show(self._labels(), given if isinstance(given, np.ndarray) else None)
        self._overlays.set_corrections(self.layers.array)
        self._panel.set_offer("")
        self._panel.set_active(True)
        self._write_rows()
        self.painting.begin(scan, layer, {"K": self.review.toggle_slice, "J": self.looks.toggle_blinking})

    def keep(self) -> None:
        """Write the corrections to the store, in the background."""
        self._timer.stop()
        scan, array, notes = self.layers.scan, self.layers.array, self.notes
        if scan is None or array is None:
            return
        store = self._store
        self._keeping = True

        def work() -> None:
            try:
                store.keep(scan.content_hash, array, notes.to_json())
            except BaseException:
                self._tell_not_kept()  # why is said by the session
                raise
            finally:
                self._keeping = False

        self._session.write(work, self._on_kept, "keeping your corrections safe")

    def shut_down(self) -> None:
        """Keep what is not kept yet, and let go."""
        if self._timer.isActive():
            self.keep()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        for part in (self.saving, self.tooling, self.review, self.looks, self.painting):
            part.shut_down()
        self.layers.let_go()

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        if self._timer.isActive():  # what is not kept yet of the scan before
            self.keep()
        self.layers.set_scan(scan)
        self._overlays.set_corrections(self.layers.array)
        self._last_stroke = 0.0
        self._panel.set_active(self.layers.layer is not None)
        self._panel.set_offer("")
        self._panel.set_said("")
        self._panel.set_possible(scan is not None)
        self._write_rows()
        self._write_saved()
        if scan is not None and self.layers.array is None:
            self._look_for_kept(scan)

    def _look_for_kept(self, scan: Scan) -> None:
        def found(kept: Kept | None) -> None:
            if kept is not None and kept.voxels and scan is self._session.state.scan and self.layers.array is None:
                when = kept.at.astimezone().strftime("%d %B %Y, %H:%M")
                self._panel.set_offer(f"Corrections of this scan were kept on {when}: {kept.voxels} voxels.")

        self._session.load(lambda: self._store.find(scan.content_hash), found, "looking for kept corrections")

    def _on_bring_back(self, kept: Kept | None = None) -> None:
        """Those that were kept last, or others that were set aside."""
        scan = self._session.state.scan
        if scan is None:
            return
        store = self._store

        def read() -> tuple[NDArray[np.uint8], dict[str, Any]]:
            name = kept.scan if isinstance(kept, Kept) else scan.content_hash
            return store.give_back(name), store.notes(name)

        def back(found: tuple[NDArray[np.uint8], dict[str, Any]]) -> None:
            corrections, notes = found
            if scan is self._session.state.scan and self.layers.array is None:
                self._notes[scan] = Notes.from_json(notes)
                self.start(corrections)
                self._on_changed(Region.whole(scan.shape))

        self._session.load(read, back, "bringing corrections back")

    def _on_prediction(self, prediction: Any) -> None:
        self._write_rows()

    def _on_removed(self, event: Any) -> None:
        self._panel.set_active(self.layers.layer is not None)

    def _on_changed(self, box: Region) -> None:
        self._overlays.recompose(box)
        self._write_rows()
        scan = self.layers.scan
        if scan is not None:
            now = time.monotonic()
            spent = now - self._last_stroke if self._last_stroke else 0.0
            self._last_stroke = now
            self._notes[scan] = replace(self.notes, seconds=self.notes.seconds + (spent if spent < _PAUSE else 0.0))
            self.saving.mark(scan)
        self._keep_soon()

    def _keep_soon(self) -> None:
        self._panel.set_said("Not kept safe yet …")
        if not self._timer.isActive():  # not put off by what follows: who paints without a pause is safe too
            self._timer.start()

    def _on_kept(self) -> None:
        if not self._timer.isActive():
            self._panel.set_said("Your corrections are kept safe on this computer.")

    @ensure_main_thread(await_return=False)
    def _tell_not_kept(self) -> None:
        self._panel.set_said("Not kept safe: the disk refused. The next stroke tries again; save the mask now.")

    def _on_due(self) -> None:
        if self._keeping:  # a slow disk: one at a time
            self._timer.start()
        else:
            self.keep()

    # The person asked

    def _with_layer(self, do: Callable[[Labels], None]) -> None:
        layer = self.layers.layer
        if layer is not None:
            do(layer)

    def _on_lock(self, label: int, locked: bool) -> None:
        (self._locked.add if locked else self._locked.discard)(label)

    def _on_show(self, label: int, shown: bool) -> None:
        self._hidden = self._hidden - {label} if shown else self._hidden | {label}
        self.looks.set_hidden(self._hidden)

    def _work_on(self, request: ToolRequest) -> Work | str:
        scan, mask, label = self._session.state.scan, self._overlays.mask, self._panel.chosen_label
        if scan is None or mask is None or not label:
            return "Segment the scan first: the tool works on what you see."
        wanted = tuple(x.id for x in self._labels()) if request.all_labels else (label,)
        free = tuple(x for x in wanted if x not in self._locked)
        if not free:
            return "This label is locked; unlock it first." if len(wanted) == 1 else "All labels are locked."
        scene = Scene(scan.geometry.spacing, self.plane(), free, frozenset(self._locked))
        return Work(scan, mask, self.layers.array, scene, self._labels())

    def _write_edit(self, edit: Edit) -> None:
        if self.layers.layer is None:
            self._session.say("The corrections layer is gone; press “Correct this mask” to have it back.")
            return
        self.layers.apply(edit)

    # Details

    def _labels(self) -> LabelTable:
        card = self._session.card
        return card.labels if card else LabelTable(())

    def _write_saved(self) -> None:
        path = self.saving.path
        self._panel.set_saved_as(path.name if path is not None else "")

    def _write_rows(self) -> None:
        scan, prediction, counts = self._session.state.scan, self._session.state.prediction, self._overlays.counts
        if scan is None or counts is None:
            self._panel.set_labels([])
            return
        ml = prod(scan.geometry.spacing) / 1000
        before = prediction.voxel_counts if prediction is not None else np.zeros(256, np.int64)
        rows = []
        for x in self._labels():
            voxels, change = int(counts[x.id]), int(counts[x.id] - before[x.id])
            locked, shown = x.id in self._locked, x.id not in self._hidden
            rows.append(LabelRow(x.id, x.name, x.color, voxels * ml, change * ml, locked, voxels, shown))
        self._panel.set_labels(rows)
