"""Which way up a scan is shown, and the letters at the canvas edges that say so."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from numpy.typing import NDArray

_ENDS = (("I", "S"), ("A", "P"), ("R", "L"))
"""Letters at the low and the high end of the shown axes."""

_EDGES = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}
_FACING = 0.35  # in 3-D an axis gets a letter if it leans at least this much (as a cosine) towards an edge


def edge_letters(viewer: ViewerModel) -> dict[str, str]:
    """The letter of each canvas edge, in any plane and in 3-D; "" where none would be true."""
    dims = viewer.dims
    if dims.ndim < 3:
        return dict.fromkeys(_EDGES, "")
    down, right = _screen_axes(viewer)
    return {
        "top": _letter(-down),
        "bottom": _letter(down),
        "left": _letter(-right),
        "right": _letter(right),
    }


def _screen_axes(viewer: ViewerModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The screen's downward and rightward directions along the last three world axes."""
    dims, camera = viewer.dims, viewer.scene.camera
    shown = [axis - (dims.ndim - 3) for axis in dims.displayed]
    down, right = np.zeros(3), np.zeros(3)
    if len(shown) == 2:
        vertical, horizontal = camera.orientation2d
        for direction, axis, sign in ((down, shown[0], vertical == "down"), (right, shown[1], horizontal == "right")):
            if axis >= 0:
                direction[axis] = 1 if sign else -1
        return down, right
    up, ahead = np.asarray(camera.up_direction), np.asarray(camera.view_direction)
    across = np.cross(ahead, up) * (1 if camera.handedness == "right" else -1)
    for k, axis in enumerate(shown):
        if axis >= 0:
            down[axis], right[axis] = -up[k], across[k]
    return down, right


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    if abs(direction[axis]) < _FACING:
        return ""
    return _ENDS[axis][int(direction[axis] > 0)]


class Orientation:
    """Shows scans as a radiologist expects, and keeps the letters true while the view turns.

    Axial: anterior up, the patient's right on the left of the screen. Coronal and sagittal: superior up. In 3-D the
    camera is set so that the anatomy is not mirrored, which napari's default would do to axes that point to S, P, L.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._letters = {edge: TextOverlay(position=position, font_size=14) for edge, position in _EDGES.items()}
        for edge, overlay in self._letters.items():
            viewer.canvas.overlays[f"sparsetok_{edge}"] = overlay
        dims, camera = viewer.dims.events, viewer.scene.camera.events
        self._connections: list[tuple[Any, Any]] = [
            *((event, self._on_plane) for event in (dims.order, dims.ndisplay, dims.ndim)),
            *((event, self._write) for event in (camera.angles, camera.orientation)),
        ]
        for event, slot in self._connections:
            event.connect(slot)
        self._shown = False

    def set_shown(self, shown: bool) -> None:
        """Whether a scan with known axes is shown; without one there are no letters."""
        self._shown = shown
        for overlay in self._letters.values():
            overlay.visible = shown
        if shown:
            self._on_plane()

    def letters(self) -> dict[str, str]:
        """What stands at the edges now."""
        return {edge: overlay.text if overlay.visible else "" for edge, overlay in self._letters.items()}

    def shut_down(self) -> None:
        """Let go of the viewer."""
        for event, slot in self._connections:
            event.disconnect(slot)
        for edge in self._letters:
            self._viewer.canvas.overlays.pop(f"sparsetok_{edge}", None)

    def _on_plane(self, event: Any = None) -> None:
        if not self._shown:
            return
        dims = self._viewer.dims
        across_superior = dims.ndisplay == 2 and dims.displayed[0] == dims.ndim - 3
        self._viewer.scene.camera.orientation = ("away", "up" if across_superior else "down", "right")
        self._write()

    def _write(self, event: Any = None) -> None:
        for edge, letter in edge_letters(self._viewer).items():
            self._letters[edge].text = letter
