"""What lies under the cursor: where it is in the patient, its grey value, its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal
from superqt.utils import qthrottled

from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.scan import Scan, Shape
from napari_sparsetok.ui.scan_layer import SCAN
from napari_sparsetok.ui.where import is_inside, voxel_at
from napari_sparsetok.ui.window_preset import modality

_EVERY_MS = 40
_TO_CONVENTION = {"RAS": (1, 1, 1), "LPS": (-1, -1, 1)}

Mask = tuple[NDArray[np.uint8] | None, LabelTable]


def words(scan: Scan, voxel: Shape, mask: Mask, convention: str, unit: str = "", *, shown: Any = None) -> str:
    """One line: millimetres, value, label.

    Parameters
    ----------
    voxel : (z, y, x).
    mask : (z, y, x) or None, and what its numbers mean.
    convention : "LPS" or "RAS": which way the numbers rise.
    unit : of the values, as in "HU".
    shown : the value on the screen, for a scan whose voxels stay on disk: reading there would make the window wait.
    """
    millimetres = scan.geometry.affine[:3] @ np.array([*voxel, 1.0])
    signed = [
        f"{round(s * float(v), 1) + 0.0:.1f}" for s, v in zip(_TO_CONVENTION[convention], millimetres, strict=True)
    ]
    place = f"{', '.join(v.replace('-', '−') for v in signed)}\u00a0mm"
    if scan.sides_known:
        place = f"{convention}\u00a0{place}"
    return " · ".join(filter(None, [place, _value(scan, voxel, unit, shown), _label(voxel, mask)]))


def _value(scan: Scan, voxel: Shape, unit: str, shown: Any) -> str:
    if scan.is_lazy and shown is None:
        return ""
    values = np.atleast_1d(shown if scan.is_lazy else scan.voxels[(..., *voxel)])
    return " / ".join(f"{float(v):.6g}".replace("-", "−") for v in values[:4]) + (f"\u00a0{unit}" if unit else "")


def _label(voxel: Shape, mask: Mask) -> str:
    array, labels = mask
    if array is None:
        return ""
    number = int(array[voxel])
    return next((label.name for label in labels if label.id == number), "") if 0 < number < NOT_TISSUE else ""


class Readout:
    """Says what lies under the cursor of the viewers it follows.

    Parameters
    ----------
    mask : the mask that is seen now.
    convention : see `words`; asked each time, since a person may change it while the window is open.
    """

    changed = Signal(str)

    def __init__(self, mask: Callable[[], Mask], convention: Callable[[], str] = lambda: "LPS") -> None:
        self._mask, self._convention = mask, convention
        self._scan: Scan | None = None
        self._unit = ""
        self._followed: list[tuple[ViewerModel, Any, Any]] = []
        self._at: ViewerModel | None = None  # the viewer that the cursor was in last
        self._soon = qthrottled(self._tell, timeout=_EVERY_MS)

    def follow(self, viewer: ViewerModel) -> None:
        """The cursor of this viewer counts."""

        def moved(event: Any = None) -> None:
            self._at = viewer
            self._soon()

        def stepped(event: Any = None) -> None:
            if self._at is viewer:
                self._soon()

        for emitter, slot in ((viewer.cursor.events.position, moved), (viewer.dims.events.current_step, stepped)):
            emitter.connect(slot)
            self._followed.append((viewer, emitter, slot))

    def leave(self, viewer: ViewerModel) -> None:
        """The inverse of `follow`."""
        for followed, emitter, slot in self._followed:
            if followed is viewer:
                emitter.disconnect(slot)
        self._followed = [entry for entry in self._followed if entry[0] is not viewer]
        if self._at is viewer:
            self._at = None

    def shut_down(self) -> None:
        """Let go."""
        for viewer, _, _ in list(self._followed):
            self.leave(viewer)
        self._soon.cancel()
        self._scan = None

    def set_scan(self, scan: Scan | None) -> None:
        """Which scan is under the cursor."""
        self._scan = scan
        # Of several channels the first one's kind says nothing of the others: the second may be a PET.
        one = scan is not None and scan.leading != "channel"
        self._unit = "HU" if one and scan is not None and modality(scan) == "CT" else ""
        self._tell()

    def text(self) -> str:
        """The line now; empty where there is no scan under the cursor."""
        scan, viewer = self._scan, self._at
        if scan is None or viewer is None or viewer.dims.ndisplay != 2:
            return ""
        world = _world(viewer)
        if len(world) < 3 or not is_inside(world, scan):
            return ""
        shown = _shown_value(viewer, scan, world) if scan.is_lazy else None
        return words(scan, voxel_at(world, scan), self._mask(), self._convention(), self._unit, shown=shown)

    def _tell(self) -> None:
        self.changed.emit(self.text())


def _shown_value(viewer: ViewerModel, scan: Scan, world: Sequence[float]) -> Any:
    """The scan's value in the slice that napari has loaded anyway; None if none of its layers is there."""
    for layer in viewer.layers:
        known = layer.metadata.get(SCAN)
        if isinstance(layer, Image) and isinstance(known, Scan) and known.identity == scan.identity:
            return layer.get_value(tuple(world), world=True)
    return None


def _world(viewer: ViewerModel) -> Sequence[float]:
    """Where the cursor is: across the screen as it says, otherwise the slice that is shown."""
    world = list(viewer.dims.point)
    position = viewer.cursor.position
    if len(position) != len(world):
        return ()
    for axis in viewer.dims.displayed:
        world[axis] = position[axis]
    return world
