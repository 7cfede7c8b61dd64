"""Where the person looks: the middle of the view, or where they last clicked in the slice that is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from napari.components import ViewerModel

from napari_sparsetok.scan import Scan, Shape
from napari_sparsetok.ui import where as places

_STILL = 4  # pixels that a click may slip


def put_tools_down(viewer: ViewerModel) -> None:
    """Let the next click be a look: with the brush in hand it would paint what was meant as a question."""
    active = viewer.layers.selection.active
    if active is not None and str(active.mode) != "pan_zoom":
        active.mode = "pan_zoom"


class Gaze:
    """Follows one viewer.

    Parameters
    ----------
    current : the scan that is looked at.
    clicked : told the voxel (z, y, x) of each click on it that is meant for no tool.
    """

    def __init__(
        self, viewer: ViewerModel, current: Callable[[], Scan | None], clicked: Callable[[Shape, Scan], None]
    ) -> None:
        self._viewer, self._current, self._tell = viewer, current, clicked
        self._last: tuple[Scan, Shape] | None = None
        viewer.mouse_drag_callbacks.append(self._on_mouse)

    def shut_down(self) -> None:
        """Let go of the viewer."""
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)

    @property
    def middle(self) -> Shape | None:
        """The scan's voxel in the middle of the view."""
        scan = self._current()
        return None if scan is None else places.voxel_at(self._view_centre(), scan)

    @property
    def voxel(self) -> Shape | None:
        """The scan's voxel that was clicked, as long as its slice is shown; else the one in the middle of the view."""
        scan, middle = self._current(), self.middle
        if middle is None or self._last is None or self._last[0] is not scan:
            return middle
        dims, last = self._viewer.dims, self._last[1]
        before = dims.ndim - len(last)  # axes of time
        hidden = [axis - before for axis in dims.not_displayed if axis >= before]
        return last if hidden and all(last[axis] == middle[axis] for axis in hidden) else middle

    def _on_mouse(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """A click, not a drag."""
        scan = self._current()
        if scan is None or event.button != 1 or not self._is_looking():
            return
        pressed = event.pos
        yield
        while event.type == "mouse_move":
            yield
        slipped = max(abs(a - b) for a, b in zip(event.pos, pressed, strict=True))
        if slipped <= _STILL and places.is_inside(event.position, scan):
            voxel = places.voxel_at(event.position, scan)
            self._last = scan, voxel
            self._tell(voxel, scan)

    def _is_looking(self) -> bool:
        """Whether a click is meant for no tool, and says where it is: in 3-D it does not."""
        active = self._viewer.layers.selection.active
        return self._viewer.dims.ndisplay == 2 and (active is None or str(active.mode) == "pan_zoom")

    def _view_centre(self) -> list[float]:
        """In the slice that is shown."""
        dims = self._viewer.dims
        world = list(dims.point)
        for axis, centre in zip(dims.displayed, self._viewer.scene.camera.center[-len(dims.displayed) :], strict=True):
            world[axis] = centre
        return world
