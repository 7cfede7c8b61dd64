"""A Labels layer whose brush counts in millimetres and can be told where it may not paint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import napari.layers
import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from psygnal import Signal

from napari_sparsetok.scan import Scan
from napari_sparsetok.ui.place import PARTS, Place

Places = tuple[NDArray[np.intp], ...]
Allowed = Callable[[Places, int], NDArray[np.bool_]]
Seen = Callable[[], NDArray[np.uint8] | None]

_STAYS = "Corrections lie on the scan, voxel by voxel, so their layer cannot be moved."


def without_box(viewer: ViewerModel) -> None:
    """Draw the circle of the brush without a box behind it.

    napari 0.9 lays one into the corner of the canvas; if every layer goes while one paints, it is drawn without its
    corners, and OpenGL ends the program, with all that was not kept yet.
    """
    circle = viewer.canvas.overlays.get("_brush_circle")
    if circle is not None:
        circle.box = False


class Labels(napari.layers.Labels):
    """It has its parent's name because napari tells kinds of layers by the names of their classes.

    Strokes, fills and polygons all end in `data_setitem`, which keeps napari's undo exact. The array stays the one that
    it was made with, and the layer where it was made.

    Attributes
    ----------
    brush_mm : diameter of the brush, mm; that of a ball if `n_edit_dimensions` is 3.
    across : the axis across the slices that are shown.
    allowed : says which of some voxels may get a value; None allows all.
    seen : the mask (z, y, x) that a person sees and so means when filling an area; None means this layer.
    refused : is told, in words, why something was not done.
    numbers : that may be painted; None allows all.
    scan : what is painted on; it lives as long as the layer does.
    aim : what the brush would paint, while that is shown; `aimed` tells of another. See `brush_preview.Aim`.

    stepped : there may be other steps to take back, or to do again, than before.
    """

    aimed = Signal(object)
    stepped = Signal()

    brush_mm: float = 4.0
    across: int = 0
    allowed: Allowed | None = None
    seen: Seen | None = None
    refused: Callable[[str], None] | None = None
    numbers: Collection[int] | None = None
    scan: Scan | None = None
    aim: Any = None

    def __init__(self, data: Any, **arguments: Any) -> None:
        super().__init__(data, **arguments)
        self._own_place = Place.of(self)
        for part in PARTS:
            getattr(self.events, part).connect(self._stay)
        self.events.paint.connect(self._tell_steps)  # a step has ended
        self.events.editable.connect(self._tell_steps)  # napari forgets all steps

    @property
    def data(self) -> Any:
        """The voxels (z, y, x)."""
        return napari.layers.Labels.data.fget(self)

    @data.setter
    def data(self, data: Any) -> None:
        """Write other voxels into the same array, as one undo step.

        napari's menu for other types of numbers puts a copy in the place of the array; what is painted would then
        reach nobody.
        """
        values = np.asarray(data)
        if values.shape != self.data.shape:
            self._refuse("These voxels are not those of the scan, so they were not taken over.")
            return
        at = np.nonzero(values != np.asarray(self.data))
        with self.block_history():
            for value in np.unique(values[at]).tolist():
                chosen = values[at] == value
                self._put(tuple(side[chosen] for side in at), value, True)

    @property
    def mode(self) -> str:
        """How the mouse works on it, in napari's words."""
        return str(napari.layers.Labels.mode.fget(self))

    @mode.setter
    def mode(self, mode: Any) -> None:
        """All but napari's way of moving layers."""
        if str(mode) == "transform":
            self._refuse(_STAYS)
            self.events.mode(mode=self.mode)  # for the buttons
            return
        napari.layers.Labels.mode.fset(self, mode)

    def retire(self) -> None:
        """From now on nobody keeps what is painted here, and so nothing can be."""
        self.allowed = _nowhere
        self._lock()
        self.events.editable.connect(self._lock)

    def _lock(self, event: Any = None) -> None:
        """Also after each visit to 3-D, when napari unlocks it. The history of steps goes."""
        napari.layers.Labels.editable.fset(self, False)

    def set_aim(self, aim: Any) -> None:
        """From now on this would be painted; None shows nothing."""
        self.aim = aim
        self.aimed.emit(aim)

    def paint(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        """Paint a disc in the slice, or a ball."""
        places = self.under_brush(coord)
        if places is not None:
            self._put(places, new_label, refresh)

    def under_brush(self, coord: Sequence[float]) -> Places | None:
        """The voxels whose middles lie in the brush; at least the one under the cursor."""
        axes, middle = self._painted_axes(), [round(float(c)) for c in coord]
        radius = max(self.brush_mm / 2, 1e-6)
        ranges: list[NDArray[np.intp]] = []
        distance: Any = 0.0
        for axis, (k, n) in enumerate(zip(middle, self.data.shape, strict=True)):
            step = abs(float(self.scale[axis]))
            reach = int(radius / step) if axis in axes else 0
            side = np.arange(max(0, k - reach), min(n, k + reach + 1))
            ranges.append(side)
            shape = [1] * self.ndim
            shape[axis] = -1
            distance = distance + (((side - k) * step) ** 2).reshape(shape)
        if any(len(side) == 0 for side in ranges):
            return None
        inside = np.nonzero(distance <= radius**2)
        return tuple(side[at] for side, at in zip(ranges, inside, strict=True))

    def fill(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        """Fill the area of one label that is seen at a voxel in its slice; not the open background."""
        at = tuple(round(float(c)) for c in coord)
        if any(not 0 <= k < n for k, n in zip(at, self.data.shape, strict=True)):
            return
        mask = self.seen() if self.seen is not None else None
        source = np.asarray(self.data if mask is None else mask)
        axes = [axis for axis in range(self.ndim) if axis != self.across]
        box = tuple(slice(None) if axis in axes else slice(k, k + 1) for axis, k in enumerate(at))
        from skimage.segmentation import flood  # slow to load, and not needed to open the window

        area = flood(source[box], tuple(k if axis in axes else 0 for axis, k in enumerate(at)), connectivity=1)
        if source[at] == 0 and _touches_the_edge(area, axes):
            self._refuse("This area is open to the edge of the scan; close its outline first, then fill it.")
            return
        places = np.nonzero(area)
        self._put(tuple(p + (0 if a in axes else at[a]) for a, p in enumerate(places)), new_label, refresh)

    def paint_polygon(self, points: Any, new_label: int) -> None:
        """Paint a polygon in the slice that is shown where its corners lie; outside of all slices, nothing."""
        corners = np.asarray(points, dtype=float)
        slice_ = round(float(corners[0][self.across]))  # as napari chooses the slice that it shows
        if not 0 <= slice_ < self.data.shape[self.across]:
            return
        axes = [axis for axis in range(self.ndim) if axis != self.across]
        shape = tuple(self.data.shape[axis] for axis in axes)
        from skimage.draw import polygon2mask

        area = polygon2mask(shape, np.floor(corners[:, axes]))
        flat = np.nonzero(area)
        level = np.full(len(flat[0]), slice_, dtype=np.intp)
        places = list(flat)
        places.insert(self.across, level)
        self._put(tuple(places), new_label, True)

    def undo(self) -> None:
        """Take back the last step; not the one before a stroke that is under way."""
        if self._is_at_rest():
            super().undo()
            self.stepped.emit()

    def redo(self) -> None:
        """Do again what was taken back last, but not in the middle of a stroke."""
        if self._is_at_rest():
            super().redo()
            self.stepped.emit()

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._undo_history)

    @property
    def can_redo(self) -> bool:
        """Whether there is one to do again."""
        return bool(self._redo_history)

    # Details

    def _tell_steps(self, event: Any = None) -> None:
        self.stepped.emit()

    def _is_at_rest(self) -> bool:
        if self._block_history:
            self._refuse("A stroke is under way: end it first, or take it back with Escape.")
        return not self._block_history

    def _painted_axes(self) -> list[int]:
        return [axis for axis in range(self.ndim) if self.n_edit_dimensions == 3 or axis != self.across]

    def _stay(self, event: Any = None) -> None:
        """Where it lies is where the scan lies; painting in a layer that was moved would hit other voxels."""
        if self._own_place.put_back(self):
            self._refuse(_STAYS)

    def _put(self, places: Places, value: int, refresh: bool) -> None:
        if self.numbers is not None and value not in self.numbers:
            self._refuse(f"No label has the number {value}; choose one in the table.")
            return
        if self.allowed is not None:
            may = self.allowed(places, value)
            places = tuple(at[may] for at in places)
        if len(places[0]):
            self.data_setitem(places, value, refresh)

    def _refuse(self, words: str) -> None:
        if self.refused is not None:
            self.refused(words)


def _nowhere(places: Places, value: int) -> NDArray[np.bool_]:
    return np.zeros(len(places[0]), dtype=bool)


def _touches_the_edge(area: NDArray[np.bool_], axes: Sequence[int]) -> bool:
    return any(np.take(area, (0, -1), axis=axis).any() for axis in axes)
