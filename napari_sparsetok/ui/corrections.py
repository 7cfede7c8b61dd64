"""The layer that a person corrects in. The model never writes here.

Every write to the layer's array is seen, whatever made it: brush, fill, polygon, a tool, undo or redo. napari tells
of some of these by events and of others (undo) not at all; so the array itself tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.components import ViewerModel
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from psygnal import Signal

from napari_sparsetok.correction import Edit
from napari_sparsetok.files.autosave import Lineage
from napari_sparsetok.labels import NOT_TISSUE, LabelTable, Meaning
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.ui.brush_layer import Labels
from napari_sparsetok.ui.overlays import OVERLAY
from napari_sparsetok.ui.scan_choice import scan_layers
from napari_sparsetok.ui.scan_layer import placed

NOT_TISSUE_COLOR = "#FFFFFF"
RESTORE = 0


class WatchedArray(np.ndarray[Any, Any]):
    """An array that tells where it was written."""

    on_write: Callable[[Region], None] | None = None

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write, then tell the box that was written."""
        super().__setitem__(key, value)
        if self.on_write is not None:
            self.on_write(written_box(key, self.shape[-3:]))


def written_box(key: Any, shape: tuple[int, ...]) -> Region:
    """The smallest box that holds what an index of a (z, y, x) array reaches; the whole if that is not plain."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) != len(shape):
        return Region.whole(shape)
    start, stop = [], []
    for part, n in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            first, last, step = part.indices(n)
            if step != 1:
                return Region.whole(shape)
            start.append(first)
            stop.append(last)
        elif isinstance(part, np.ndarray) and part.dtype != np.bool_ and part.size:
            start.append(int(part.min()))
            stop.append(int(part.max()) + 1)
        elif isinstance(part, int | np.integer):
            start.append(int(part) % n)
            stop.append(int(part) % n + 1)
        else:
            return Region.whole(shape)
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        return Region.whole(shape)
    return Region(tuple(start), tuple(stop))  # type: ignore[arg-type]


@dataclass(eq=False)
class Sheet:
    """The corrections of one scan for one table of labels.

    labels : what the numbers mean.
    array : (z, y, x) uint8.
    mode : napari's, in which its layer was hidden.
    lineage : of what the array goes on with; see `napari_sparsetok.files.autosave.CorrectionStore.go_on`.
    """

    of: ref[Scan]  # a plain reference would keep the scan alive for ever
    labels: LabelTable
    array: WatchedArray
    lineage: Lineage = field(default_factory=Lineage)
    shown: ref[Labels] | None = None
    mode: str = ""

    @property
    def scan(self) -> Scan | None:
        """None once nobody has it any more."""
        return self.of()

    @property
    def layer(self) -> Labels | None:
        """The layer that shows it; the layer keeps its scan alive."""
        return None if self.shown is None else self.shown()


class CorrectionsLayer:
    """Keeps one sheet of corrections for each scan and table of labels, and shows the current one when it is wanted.

    The sheet outlives its layer: a person who deletes the layer loses nothing, and gets it back with `show`.

    changed : the box that was written, and in which sheet: the person may have gone on in the layer of another scan.
    """

    changed = Signal(Region, object)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._scan: Scan | None = None
        self._labels = LabelTable(())
        self._sheets: WeakKeyDictionary[Scan, dict[Meaning, Sheet]] = WeakKeyDictionary()

    def set_scan(self, scan: Scan | None) -> None:
        """From now on this scan is corrected; the layers of others are hidden.

        Without a scan all are: an image that is read, or cannot be, is not what they were drawn on. Where no image is
        left they stay in sight.
        """
        self._scan = scan
        self._hide_others()

    def set_labels(self, labels: LabelTable) -> None:
        """From now on these labels are painted; corrections for others mean something else, and are hidden."""
        self._labels = labels
        self._hide_others()

    def _hide_others(self) -> None:
        if self._scan is None and not scan_layers(self._viewer):
            return
        for sheet in self.sheets:
            layer = sheet.layer
            if sheet is not self.sheet and layer is not None and layer.visible:
                sheet.mode = str(layer.mode)  # napari gives no hidden layer a mode
                layer.visible = False

    @property
    def sheets(self) -> list[Sheet]:
        """Those of all scans that somebody still has."""
        return [sheet for of_scan in self._sheets.values() for sheet in of_scan.values()]

    @property
    def scan(self) -> Scan | None:
        """The scan that is corrected."""
        return self._scan

    @property
    def labels(self) -> LabelTable:
        """What is painted."""
        return self._labels

    @property
    def sheet(self) -> Sheet | None:
        """That of the current scan and labels; None before there is any layer."""
        return None if self._scan is None else self._sheets.get(self._scan, {}).get(self._labels.meaning)

    def has(self, layer: object) -> bool:
        """Whether a layer is one of these, of whichever scan."""
        return any(sheet.layer is layer for sheet in self.sheets)

    @property
    def array(self) -> NDArray[np.uint8] | None:
        """The current scan's corrections (z, y, x), 0 where there is no opinion; None before there is any layer."""
        return None if self.sheet is None else self.sheet.array

    @property
    def layer(self) -> Labels | None:
        """The current scan's layer, if it is in the viewer."""
        layer = None if self.sheet is None else self.sheet.layer
        return layer if layer is not None and layer in self._viewer.layers else None

    def show_again(self) -> Labels | None:
        """The current layer comes back to the screen as it was left, if there is one."""
        sheet, layer = self.sheet, self.layer
        if sheet is not None and layer is not None and not layer.visible and sheet.mode:
            layer.visible = True
            layer.mode, sheet.mode = sheet.mode, ""
        return layer

    def show(self, labels: LabelTable, given: NDArray[np.uint8] | None = None) -> Labels:
        """Add the layer on top, or bring it back, and select it.

        Parameters
        ----------
        labels : what can be painted.
        given : corrections to begin with, (z, y, x), if there are none yet.

        Raises
        ------
        RuntimeError : there is no scan.
        """
        if self._scan is None:
            raise RuntimeError("there is no scan to correct")
        self.set_labels(labels)
        layer = self.layer
        if layer is None:
            layer = self._new_layer(self._scan, labels, given)
            self._viewer.add_layer(layer)
        layer.visible = True
        self._viewer.layers.selection = {layer}
        return layer

    def apply(self, edit: Edit) -> None:
        """Write what a tool found, as one undo step.

        Raises
        ------
        RuntimeError : the layer is not shown.
        """
        if self.layer is None:
            raise RuntimeError("the corrections layer is not there")
        if len(edit):
            self.layer.data_setitem(edit.at, edit.values)

    def replace(self, corrections: NDArray[np.uint8]) -> None:
        """Put these corrections (z, y, x) in the place of those there are, as one undo step.

        Raises
        ------
        RuntimeError : the layer is not shown.
        """
        at = np.nonzero(np.asarray(self.array) != corrections)
        self.apply(Edit(at, corrections[at]))

    def let_go(self) -> None:
        """Stop listening to the arrays; the layers stay, to be looked at."""
        for sheet in self.sheets:
            if sheet.layer is not None:
                sheet.layer.retire()
                sheet.layer.name = f"{sheet.layer.name} (panel closed)"
            sheet.array.on_write = sheet.shown = None

    def _new_layer(self, scan: Scan, labels: LabelTable, given: NDArray[np.uint8] | None) -> Labels:
        sheet = self.sheet
        if sheet is None:
            values = np.zeros(scan.shape, dtype=np.uint8) if given is None else np.array(given, dtype=np.uint8)
            sheet = Sheet(ref(scan), labels, cast(WatchedArray, values.view(WatchedArray)))
            self._sheets.setdefault(scan, {})[labels.meaning] = sheet
            sheet.array.on_write = partial(self._on_write, sheet)
        layer = Labels(
            sheet.array,
            name=f"corrections · {scan.name}",
            colormap=_colormap(labels),
            features=_features(labels),
            opacity=0.6,
            metadata={OVERLAY: "corrections"},
            **placed(scan.geometry),
        )
        layer.selected_label = next((label.id for label in labels), 1)
        layer.brush_size = 5
        layer.scan, sheet.shown = scan, ref(layer)
        layer.numbers = frozenset({RESTORE, NOT_TISSUE, *(label.id for label in labels)})
        return layer

    def _on_write(self, sheet: Sheet, box: Region) -> None:
        self.changed.emit(box, sheet)


def _colormap(labels: LabelTable) -> DirectLabelColormap:
    colors: dict[int | None, str] = {0: "transparent", None: "transparent", NOT_TISSUE: NOT_TISSUE_COLOR}
    return DirectLabelColormap(color_dict=colors | {label.id: label.color for label in labels})


def _features(labels: LabelTable) -> dict[str, list[Any]]:
    return {
        "index": [0, *(label.id for label in labels), NOT_TISSUE],
        "label": ["as the model says", *(label.name for label in labels), "not tissue"],
    }
