"""Where the corrections layer, the tab "Correct", the overlays and the session meet."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_sparsetok import correction
from napari_sparsetok.correction import Edit
from napari_sparsetok.files.autosave import CorrectionStore, Kept
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.scan import Region, Scan, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.ui.correct_panel import CorrectPanel, LabelRow, Mode, ToolRequest
from napari_sparsetok.ui.corrections import RESTORE, CorrectionsLayer
from napari_sparsetok.ui.overlays import Overlays

_KEEP_AFTER_MS = 2000  # without a stroke; corrections are on disk well within five seconds of the last one
_NAPARI_MODES = {"look": "pan_zoom", "fill": "fill", "polygon": "polygon"}

Binary = NDArray[np.bool_]


class CorrectDesk(QObject):
    """Corrections from the first stroke to the disk.

    Parameters
    ----------
    viewer, session, overlays, panel : what it joins.
    store : where corrections are kept safe.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        overlays: Overlays,
        panel: CorrectPanel,
        store: CorrectionStore | None = None,
    ) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._overlays, self._panel = viewer, session, overlays, panel
        self._store = store or CorrectionStore()
        self._locked: set[int] = set()
        self.layers = CorrectionsLayer(viewer)
        self.layers.changed.connect(self._on_changed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_KEEP_AFTER_MS)
        self._timer.timeout.connect(self.keep)
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

    def keep(self) -> None:
        """Write the corrections to the store, in the background."""
        self._timer.stop()
        scan, array = self.layers.scan, self.layers.array
        if scan is None or array is None:
            return
        store = self._store

        def work() -> None:
            store.keep(scan.content_hash, array)

        self._session.write(work, self._on_kept, "keeping your corrections safe")

    def shut_down(self) -> None:
        """Keep what is not kept yet, and let go."""
        if self._timer.isActive():
            self.keep()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
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
        if scan is not None and self.layers.array is None and not scan.is_lazy:
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

        def back(corrections: NDArray[np.uint8]) -> None:
            if scan is self._session.state.scan and self.layers.array is None:
                self.start(corrections)
                self._on_changed(Region.whole(scan.shape))

        self._session.load(lambda: self._store.give_back(scan.content_hash), back, "bringing corrections back")

    def _on_prediction(self, prediction: Any) -> None:
        self._write_rows()

    def _on_removed(self, event: Any) -> None:
        self._panel.set_active(self.layers.layer is not None)

    def _on_changed(self, box: Region) -> None:
        self._overlays.recompose(box)
        self._write_rows()
        self._panel.set_said("Not kept safe yet …")
        self._timer.start()

    def _on_kept(self) -> None:
        if not self._timer.isActive():
            self._panel.set_said("Your corrections are kept safe on this computer.")

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
