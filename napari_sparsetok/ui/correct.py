"""Where the corrections layer, the tab "Correct", the overlays and the session meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_sparsetok import correction
from napari_sparsetok.correction import Edit
from napari_sparsetok.files.autosave import CorrectionStore, Kept
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.review import Notes
from napari_sparsetok.scan import Region, Scan, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.ui.correct_panel import CorrectPanel, LabelRow, Mode, ToolRequest
from napari_sparsetok.ui.corrections import RESTORE, CorrectionsLayer
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.saving import Saving

_KEEP_AFTER_MS = 2000  # from the first stroke that is not kept, however many follow
_PAUSE = 60.0  # seconds without a stroke after which nobody is taken to be working
_NAPARI_MODES = {"look": "pan_zoom", "fill": "fill", "polygon": "polygon"}

Binary = NDArray[np.bool_]


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
        self._notes: WeakKeyDictionary[Scan, Notes] = WeakKeyDictionary()
        self._last_stroke = 0.0
        self._keeping = False
        self.layers = CorrectionsLayer(viewer)
        self.layers.changed.connect(self._on_changed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_KEEP_AFTER_MS)
        self._timer.timeout.connect(self._on_due)
        self.saving = Saving(dialogs or panel, viewer, session, lambda: self.array, self.remarks)
        self.saving.saved.connect(self._write_saved)
        self._connect_panel()
        events = session.state.events
        events.scan.connect(self._on_scan)
        events.prediction.connect(self._on_prediction)
        viewer.layers.events.removed.connect(self._on_removed)
        self._on_scan(session.state.scan)

    def _connect_panel(self) -> None:
        panel = self._panel
        panel.start_requested.connect(self.start)
        panel.bring_back_requested.connect(self._on_bring_back)
        panel.leave_requested.connect(lambda: panel.set_offer(""))
        panel.mode_chosen.connect(self._on_mode)
        panel.label_chosen.connect(self._on_label)
        panel.lock_toggled.connect(self._on_lock)
        panel.brush_changed.connect(lambda mm: self._set_brush())
        panel.tool_requested.connect(self._on_tool)
        panel.save_requested.connect(lambda: self.saving.save())
        panel.save_as_requested.connect(lambda: self.saving.save_as())
        panel.undo_requested.connect(lambda: self._with_layer(Labels.undo))
        panel.redo_requested.connect(lambda: self._with_layer(Labels.redo))

    @property
    def array(self) -> NDArray[np.uint8] | None:
        """The current scan's corrections, None if there are none."""
        return self.layers.array

    def start(self, given: NDArray[np.uint8] | None = None) -> None:
        """Show the corrections layer, with the brush in hand."""
        if self._session.state.scan is None:
            return
        self.layers.show(self._labels(), given if isinstance(given, np.ndarray) else None)
        self._overlays.set_corrections(self.layers.array)
        self._panel.set_offer("")
        self._panel.set_active(True)
        self._write_rows()
        self._on_mode("brush")

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

    def keep(self) -> None:
        """Write the corrections to the store, in the background."""
        self._timer.stop()
        scan, array, notes = self.layers.scan, self.layers.array, self.notes
        if scan is None or array is None:
            return
        store = self._store
        self._keeping = True

        def work() -> None:
            store.keep(scan.content_hash, array, notes.to_json())

        self._session.write(work, self._on_kept, "keeping your corrections safe")

    def shut_down(self) -> None:
        """Keep what is not kept yet, and let go."""
        if self._timer.isActive():
            self.keep()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self.saving.shut_down()
        self.layers.let_go()

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        if self._timer.isActive():  # what is not kept yet of the scan before
            self.keep()
        self.layers.set_scan(scan)
        self._overlays.set_corrections(self.layers.array)
        self._panel.set_active(self.layers.layer is not None)
        self._panel.set_offer("")
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

    def _on_bring_back(self) -> None:
        scan = self._session.state.scan
        if scan is None:
            return

        store, hashed = self._store, lambda: scan.content_hash

        def back(found: tuple[NDArray[np.uint8], dict[str, Any]]) -> None:
            corrections, notes = found
            if scan is self._session.state.scan and self.layers.array is None:
                self._notes[scan] = Notes.from_json(notes)
                self.start(corrections)
                self._on_changed(Region.whole(scan.shape))

        self._session.load(
            lambda: (store.give_back(hashed()), store.notes(hashed())), back, "bringing corrections back"
        )

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
            spent = min(now - self._last_stroke, _PAUSE) if self._last_stroke else 0.0
            self._last_stroke = now
            self._notes[scan] = replace(self.notes, seconds=self.notes.seconds + (spent if spent < _PAUSE else 0.0))
            self.saving.mark(scan)
        self._keep_soon()

    def _keep_soon(self) -> None:
        self._panel.set_said("Not kept safe yet …")
        if not self._timer.isActive():  # not put off by what follows: who paints without a pause is safe too
            self._timer.start()

    def _on_kept(self) -> None:
        self._keeping = False
        if not self._timer.isActive():
            self._panel.set_said("Your corrections are kept safe on this computer.")

    def _on_due(self) -> None:
        if self._keeping:  # a slow disk: one at a time
            self._timer.start()
        else:
            self.keep()

    def _write_saved(self) -> None:
        path = self.saving.path
        self._panel.set_saved_as(path.name if path is not None else "")

    # The person asked

    def _with_layer(self, do: Callable[[Labels], None]) -> None:
        layer = self.layers.layer
        if layer is not None:
            do(layer)

    def _on_mode(self, mode: str) -> None:
        layer = self.layers.layer
        if layer is None:
            return
        self._viewer.layers.selection = {layer}
        self._panel.set_mode(cast(Mode, mode))
        painted = {"eraser": NOT_TISSUE, "restore": RESTORE}.get(mode, self._panel.chosen_label or 1)
        layer.selected_label = painted
        layer.mode = _NAPARI_MODES.get(mode, "paint")
        self._set_brush()

    def _on_label(self, label: int) -> None:
        layer = self.layers.layer
        if layer is not None and layer.selected_label not in (NOT_TISSUE, RESTORE):
            layer.selected_label = label

    def _on_lock(self, label: int, locked: bool) -> None:
        (self._locked.add if locked else self._locked.discard)(label)

    def _set_brush(self) -> None:
        layer = self.layers.layer
        if layer is not None:  # napari counts the brush in voxels of the finest axis that is shown
            shown = [layer.scale[axis] for axis in self._viewer.dims.displayed if axis < layer.ndim]
            layer.brush_size = max(1, round(self._panel.brush_mm / float(min(shown, default=1.0))))

    def _on_tool(self, request: ToolRequest) -> None:
        scan, mask, label = self._session.state.scan, self._overlays.mask, self._panel.chosen_label
        if scan is None or mask is None or not label:
            self._session.say("Segment the scan first: the tool works on what you see.")
            return
        if label in self._locked:
            self._session.say("This label is locked; unlock it first.")
            return
        plane = self._plane()
        keys = self._keys(label, plane[0]) if request.tool == "fill_between" else None
        if keys is not None and len(keys) < 2:
            self._session.say(
                "Correct this label in at least two slices first; the slices between them are then filled."
            )
            return
        seen = np.array(mask)
        spacing = scan.geometry.spacing

        locked = frozenset(self._locked)

        def work() -> Edit:
            wanted = apply_tool(request, seen, label, spacing, plane, keys, locked)
            return correction.edit_towards(wanted, seen)

        self._session.load(work, lambda edit: self._on_edit(scan, edit), "working on the mask")

    def _on_edit(self, scan: Scan, edit: Edit) -> None:
        if scan is not self._session.state.scan or self.layers.layer is None:
            return
        if len(edit):
            self.layers.apply(edit)
        else:
            self._session.say("The tool found nothing to change.", "info")

    # Details

    def _plane(self) -> tuple[int, int]:
        """The axis across the slices that are shown, and which slice it is."""
        dims = self._viewer.dims
        first = dims.ndim - 3
        axis = next((a for a in dims.order if a >= first), first)
        return axis - first, int(dims.current_step[axis])

    def _keys(self, label: int, axis: int) -> list[int]:
        array = self.layers.array
        if array is None:
            return []
        others = tuple(k for k in range(3) if k != axis)
        return [int(k) for k in np.flatnonzero((np.asarray(array) == label).any(axis=others))]

    def _labels(self) -> LabelTable:
        card = self._session.card
        return card.labels if card else LabelTable(())

    def _write_rows(self) -> None:
        scan, prediction, counts = self._session.state.scan, self._session.state.prediction, self._overlays.counts
        if scan is None or counts is None:
            self._panel.set_labels([])
            return
        ml = prod(scan.geometry.spacing) / 1000
        before = prediction.voxel_counts if prediction is not None else np.zeros(256, np.int64)
        self._panel.set_labels(
            [
                LabelRow(
                    x.id,
                    x.name,
                    x.color,
                    float(counts[x.id]) * ml,
                    float(counts[x.id] - before[x.id]) * ml,
                    x.id in self._locked,
                )
                for x in self._labels()
            ]
        )


def apply_tool(  # noqa: PLR0913 - what a tool needs to know
    request: ToolRequest,
    mask: NDArray[np.uint8],
    label: int,
    spacing: tuple[float, float, float],
    plane: tuple[int, int],
    keys: list[int] | None = None,
    locked: frozenset[int] = frozenset(),
) -> NDArray[np.uint8]:
    """The mask (z, y, x) after a tool worked on one label, in 3-D or in one slice.

    Parameters
    ----------
    plane : the axis across the slices, and the slice.
    keys : the slices to fill between.
    locked : labels that keep all they have.
    """
    axis, index = plane
    if request.tool == "fill_between":
        shape = correction.fill_between(mask == label, spacing, axis, keys)
        # The person drew the outlines on both sides, so what lies between them is theirs, but for locked labels.
        return correction.replace_label(mask, label, shape, locked)
    if not request.in_slice:
        return correction.replace_label(mask, label, _worked(request, mask == label, spacing))
    wanted = mask.copy()
    at: list[Any] = [slice(None)] * 3
    at[axis] = index
    within = tuple(s for k, s in enumerate(spacing) if k != axis)
    part = mask[tuple(at)]
    wanted[tuple(at)] = correction.replace_label(part, label, _worked(request, part == label, within))
    return wanted


def _worked(request: ToolRequest, shape: Binary, spacing: tuple[float, ...]) -> Binary:
    number = request.number
    tools: dict[str, Callable[[], Binary]] = {
        "remove_islands": lambda: correction.remove_islands(shape, spacing, number),
        "keep_largest": lambda: correction.keep_largest(shape),
        "fill_holes": lambda: correction.fill_holes(shape),
        "smooth": lambda: correction.smooth(shape, spacing, number),
        "grow": lambda: correction.grow(shape, spacing, number),
        "shrink": lambda: correction.grow(shape, spacing, -number),
    }
    if request.tool not in tools:
        raise ScanError(f"there is no tool “{request.tool}”")
    return tools[request.tool]()
