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
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QWidget

from napari_sparsetok.correction import Edit
from napari_sparsetok.files.autosave import CorrectionStore, Lineage
from napari_sparsetok.labels import LabelTable, Meaning
from napari_sparsetok.review import Notes
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.tool import Scene, ToolRequest
from napari_sparsetok.ui.brush_layer import Labels, without_box
from napari_sparsetok.ui.correct_panel import CorrectPanel
from napari_sparsetok.ui.corrections import CorrectionsLayer, Sheet
from napari_sparsetok.ui.given_start import GivenStart
from napari_sparsetok.ui.keeping import Keeping
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
        self._locks: dict[Meaning, set[int]] = {}
        self._hidden: frozenset[int] = frozenset()
        self._notes: WeakKeyDictionary[Scan, dict[Meaning, Notes]] = WeakKeyDictionary()  # of each table of labels
        self._last_stroke = 0.0
        without_box(viewer)
        self.layers = CorrectionsLayer(viewer)
        self.layers.changed.connect(self._on_changed)
        self.keeping = Keeping(self, session, self._store, self._notes_of)
        self.keeping.said.connect(panel.set_said)
        self._make_parts(dialogs or panel)
        self._connect_panel()
        events = session.state.events
        events.scan.connect(self._on_scan)
        events.settings.connect(self._on_settings)
        events.prediction.connect(self._on_prediction)
        viewer.layers.events.removed.connect(self._on_removed)
        self._on_scan(session.state.scan)

    def _make_parts(self, dialogs: QWidget) -> None:
        viewer, session, overlays, panel = self._viewer, self._session, self._overlays, self._panel
        self.painting = Painting(viewer, session, overlays, panel, lambda: frozenset(self._locked))
        self.tooling = Tooling(viewer, session, overlays, panel.tools, self._work_on, self._write_edit)
        self.review = Reviewing(viewer, session, overlays, panel.review, self)
        self.looks = Looks(viewer, session, overlays, panel.looks)
        self.saving = Saving(dialogs, viewer, session, lambda: self.layers.sheet, self.remarks)
        self.saving.frame = lambda: overlays.frame
        self.saving.guard.is_refused = lambda: self.keeping.refused
        self.saving.guard.settle = self.keeping.settle
        self.saving.saved.connect(self._write_saved)
        self.measuring = Measuring(dialogs, session, overlays)
        self.teaching = Teaching(session, panel.teach, lambda: self.array)
        self.kept = KeptDesk(dialogs, session, self.keeping, self.layers, self._install)
        self.kept.offered.connect(panel.set_offer)
        self.given = GivenStart(self, session, self.layers, self._begin_with)

    def _connect_panel(self) -> None:
        panel = self._panel
        panel.start_requested.connect(self.start)
        panel.bring_back_requested.connect(lambda: self.kept.bring_back())
        panel.leave_requested.connect(lambda: panel.set_offer(""))
        panel.labels.lock_toggled.connect(self._on_lock)
        panel.labels.label_chosen.connect(lambda label: self.tooling.follow())
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
    def _locked(self) -> set[int]:
        """Labels of the current model that are locked."""
        return self._locks.setdefault(self.layers.labels.meaning, set())

    @property
    def notes(self) -> Notes:
        """What is known of the person's work on the current scan, with the labels of the current model."""
        scan = self.layers.scan
        return Notes() if scan is None else self._notes.get(scan, {}).get(self.layers.labels.meaning, Notes())

    def set_notes(self, notes: Notes) -> None:
        """They are kept, and saved, with the corrections."""
        scan, sheet = self.layers.scan, self.layers.sheet
        if scan is not None and notes != self.notes:
            self._set_notes(scan, self.layers.labels, notes)
            if sheet is not None:
                self.keeping.soon(sheet)

    def _set_notes(self, scan: Scan, labels: LabelTable, notes: Notes) -> None:
        self._notes.setdefault(scan, {})[labels.meaning] = notes

    def _notes_of(self, sheet: Sheet) -> Notes:
        scan = sheet.scan
        return Notes() if scan is None else self._notes.get(scan, {}).get(sheet.labels.meaning, Notes())

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
        self.painting.begin(scan, layer, self._keys, "brush")
        self._follow_steps()

    @property
    def _keys(self) -> dict[str, Callable[[], None]]:
        return {"K": self.review.toggle_slice, "J": self.looks.toggle_blinking}

    def keep(self) -> None:
        """Write what has changed to the store, in the background."""
        self.keeping.now()

    def shut_down(self) -> None:
        """Keep what is not kept yet, and let go."""
        self.keeping.now()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        for part in (self.saving, self.tooling, self.review, self.looks, self.painting):
            part.shut_down()
        self.layers.let_go()

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        self.keeping.now()  # what is not kept yet of the scan before
        self.layers.set_labels(self._labels())
        self.layers.set_scan(scan)
        self._resume()
        self._follow_steps()
        self._overlays.set_corrections(self.layers.array)
        self._last_stroke = 0.0
        self._panel.set_active(self.layers.layer is not None)
        self._panel.set_offer("")
        self._panel.set_said(self.keeping.words)
        self._panel.set_possible(scan is not None)
        self._write_rows()
        self._write_saved()
        self.review.forget()
        if scan is not None and self.layers.array is None:
            self.kept.look()

    def _resume(self) -> None:
        """The current scan's layer comes back to the screen, as it was left; the panel drives no other."""
        layer, scan, chosen = self.layers.show_again(), self.layers.scan, self._viewer.layers.selection
        if layer is None or scan is None:
            self.painting.end()
            return
        if chosen.active is not layer and self.layers.has(chosen.active):
            self._viewer.layers.selection = {layer}
        self.painting.begin(scan, layer, self._keys)

    def _on_settings(self, settings: Any) -> None:
        """Other labels: the corrections for those before are put aside until their model is chosen again."""
        if self._labels().meaning != self.layers.labels.meaning:
            self._hidden = frozenset()
            self.looks.set_hidden(self._hidden)
            self._on_scan(self._session.state.scan)
        self._write_saved()

    def _install(self, corrections: NDArray[np.uint8], notes: Notes, name: str) -> None:
        """Go on with corrections of the current scan that were kept under this name."""
        scan = self.layers.scan
        if scan is None:
            return
        self._set_notes(scan, self.layers.labels, notes)
        self._begin_with(corrections)
        self.review.write()
        sheet = self.layers.sheet
        if sheet is not None:
            self._store.go_on(name, sheet.lineage)

    def _begin_with(self, corrections: NDArray[np.uint8]) -> None:
        """Put corrections on the current scan, in the place of what there is, as one undo step if there is anything."""
        is_there = self.layers.array is not None
        self.start(corrections)
        if is_there:
            self.layers.replace(corrections)
        sheet = self.layers.sheet
        if sheet is not None:
            sheet.lineage = Lineage()
            self._on_changed(Region.whole(corrections.shape), sheet)

    def _on_prediction(self, prediction: Any) -> None:
        self._write_rows()

    def _on_removed(self, event: Any) -> None:
        self._panel.set_active(self.layers.layer is not None)

    def _on_changed(self, box: Region, sheet: Sheet) -> None:
        if sheet is self.layers.sheet:
            self._overlays.recompose(box)
            self._write_rows()
        scan = sheet.scan
        if scan is not None:
            now = time.monotonic()
            spent = now - self._last_stroke if self._last_stroke else 0.0
            self._last_stroke = now
            notes = self._notes_of(sheet)
            seconds = notes.seconds + (spent if spent < _PAUSE else 0.0)
            self._set_notes(scan, sheet.labels, replace(notes, seconds=seconds))
            self.saving.mark(sheet)
        self.keeping.soon(sheet)

    # The person asked

    def _with_layer(self, do: Callable[[Labels], None]) -> None:
        layer = self.layers.layer
        if layer is not None:
            do(layer)

    def _follow_steps(self) -> None:
        if self.layers.layer is not None:
            self.layers.layer.stepped.connect(self._write_steps, unique=True)
        self._write_steps()

    def _write_steps(self) -> None:
        layer = self.layers.layer
        self._panel.set_steps(layer is not None and layer.can_undo, layer is not None and layer.can_redo)

    def _on_lock(self, label: int, locked: bool) -> None:
        (self._locked.add if locked else self._locked.discard)(label)
        self.tooling.follow()

    def _on_show(self, label: int, shown: bool) -> None:
        self._hidden = self._hidden - {label} if shown else self._hidden | {label}
        self.looks.set_hidden(self._hidden)

    def _work_on(self, request: ToolRequest, begun: Scene | None) -> Work | str:
        scan, mask, label = self._session.state.scan, self._overlays.mask, self._panel.chosen_label
        if scan is None or mask is None or not label or self._session.state.prediction is None:
            return "Segment the scan first: the tool works on what you see."
        chosen = tuple(x.id for x in self._labels()) if request.all_labels else (label,)
        wanted, plane = (chosen, self.plane()) if begun is None else (begun.labels, begun.plane)
        free = tuple(x for x in wanted if x not in self._locked)
        if not free:
            return "This label is locked; unlock it first." if len(wanted) == 1 else "All labels are locked."
        scene = Scene(scan.geometry.spacing, plane, free, frozenset(self._locked))
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
