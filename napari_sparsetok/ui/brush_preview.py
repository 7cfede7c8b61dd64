"""What the brush would paint around the cursor, while it keeps to a range of grey values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels as NapariLabels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import Scan, Shape
from napari_sparsetok.ui.brush_layer import Allowed, Labels, Places
from napari_sparsetok.ui.guest import Guest
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.overlays import OVERLAY
from napari_sparsetok.ui.preview import ADDED, COLORS, TAKEN
from napari_sparsetok.ui.scan_layer import placed
from napari_sparsetok.ui.where import is_inside, voxel_at

UNDER_BRUSH = "under the brush"
"""Under the key `OVERLAY`, what marks the layer that goes with a canvas's cursor."""

NEAR, HERE = 1, 2
_WIDER = 3.0  # brushes around the cursor in which it is shown what lies in the range
_LEAST, _MOST = 6, 60  # voxels to each side
_EVERY_MS = 30
_FAINT = "59"  # of 255, in hexadecimal


@dataclass(frozen=True, eq=False)
class Aim:
    """What would be painted: a value into a layer of a scan, where it may."""

    layer: Labels
    scan: Scan
    value: int
    may: Allowed

    def near(self, voxel: Shape) -> Places:
        """Around a voxel in its slice: where the brush could paint."""
        reach = [self._reach(axis) for axis in range(3)]
        sides = [
            np.arange(max(0, k - r), min(n, k + r + 1)) for k, r, n in zip(voxel, reach, self.scan.shape, strict=True)
        ]
        return self._allowed(tuple(at.ravel() for at in np.meshgrid(*sides, indexing="ij")))

    def here(self, voxel: Shape) -> Places:
        """In its slice: what a click would paint."""
        places, across = self.layer.under_brush(voxel), self.layer.across
        if places is None:
            return ()
        inside = places[across] == voxel[across]
        return self._allowed(tuple(at[inside] for at in places))

    def _allowed(self, places: Places) -> Places:
        may = self.may(places, self.value)
        return tuple(at[may] for at in places)

    def _reach(self, axis: int) -> int:
        if axis == self.layer.across:
            return 0
        voxels = round(_WIDER * self.layer.brush_mm / 2 / abs(float(self.layer.scale[axis])))
        return min(max(voxels, _LEAST), _MOST)


class BrushPreview(QObject):
    """Draws an aim around the cursor, at most every few hundredths of a second."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._guest = viewer, Guest(viewer)
        self._aim: Aim | None = None
        self._marked: Places = ()
        self._soon = later(self, self.draw, _EVERY_MS)
        self._followed = (viewer.cursor.events.position, viewer.dims.events.current_step, viewer.dims.events.ndisplay)
        for emitter in self._followed:
            emitter.connect(self._on_moved)

    @property
    def layer(self) -> NapariLabels | None:
        """What is drawn, if it is seen."""
        layer = self._guest.layer
        return layer if layer is not None and layer.visible else None

    def set_aim(self, aim: Aim | None) -> None:
        """From now on show this; None shows nothing."""
        if aim is None or (self._aim is not None and aim.scan is not self._aim.scan):
            self._soon.stop()
            self._guest.hide()
        self._aim = aim
        self._on_moved()

    def draw(self) -> None:
        """Show what a click would do now."""
        aim, voxel = self._aim, self._voxel()
        if aim is None or voxel is None:
            self._set_visible(False)
            return
        layer = self._guest.layer or self._new(aim)
        if self._marked:
            layer.data[self._marked] = 0
        self._marked = aim.near(voxel)
        layer.data[self._marked] = NEAR
        here = aim.here(voxel)
        layer.data[here] = HERE
        self._marked = tuple(np.concatenate(both) for both in zip(self._marked, here, strict=True))
        color = COLORS[TAKEN if aim.value == NOT_TISSUE else ADDED]
        if layer.metadata["color"] != color:
            layer.metadata["color"], layer.colormap = color, _colormap(color)
        layer.refresh(extent=False, thumbnail=False)
        self._set_visible(True)

    def shut_down(self) -> None:
        """Let go of the viewer."""
        self.set_aim(None)
        for emitter in self._followed:
            emitter.disconnect(self._on_moved)

    def _set_visible(self, visible: bool) -> None:
        layer = self._guest.layer
        if layer is not None and layer.visible != visible:  # napari redraws all of the window, even if it is the same
            layer.visible = visible

    def _new(self, aim: Aim) -> NapariLabels:
        """As large as the scan, so that it never moves, which takes napari long. Nearly all of it is never touched."""
        layer = NapariLabels(
            np.zeros(aim.scan.shape, dtype=np.uint8),
            name="under the brush",
            opacity=0.8,
            metadata={OVERLAY: UNDER_BRUSH, "color": ""},
            **placed(aim.scan.geometry),
        )
        self._marked = ()
        self._guest.put(layer)
        return layer

    def _voxel(self) -> Shape | None:
        """The voxel under the cursor in the slice that is shown."""
        aim, dims = self._aim, self._viewer.dims
        if aim is None or dims.ndisplay != 2 or aim.layer not in self._viewer.layers:
            return None
        world = list(self._viewer.cursor.position[-3:])
        if len(world) < 3:
            return None
        world[aim.layer.across] = dims.point[dims.ndim - 3 + aim.layer.across]
        return voxel_at(world, aim.scan) if is_inside(world, aim.scan) else None

    def _on_moved(self, event: object = None) -> None:
        if self._aim is not None and not self._soon.isActive():
            self._soon.start()


def _colormap(color: str) -> DirectLabelColormap:
    return DirectLabelColormap(color_dict={0: "transparent", None: "transparent", NEAR: color + _FAINT, HERE: color})
