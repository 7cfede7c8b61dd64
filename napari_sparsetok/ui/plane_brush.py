"""The corrections in a further canvas: what is painted there is painted in the main canvas's layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from napari.components import ViewerModel

from napari_sparsetok.ui import brush_layer
from napari_sparsetok.ui.brush_preview import BrushPreview

FOLLOWED = ("mode", "selected_label", "brush_size", "n_edit_dimensions")
"""What the copy takes over from the layer of the main canvas."""


class Labels(brush_layer.Labels):
    """A copy that owns nothing: strokes, fills, polygons and undo all go to its source, in the plane of its own canvas.

    So there is one history, in the order in which things were done, whichever canvas they were done in.

    Parameters
    ----------
    source : the layer of the main canvas; its voxels are shared.
    viewer : the canvas that this copy is shown in.
    """

    def __init__(self, source: brush_layer.Labels, viewer: ViewerModel, **arguments: Any) -> None:
        self._main_layer, self._canvas_viewer = source, viewer
        self._preview: BrushPreview | None = None
        self._is_stroking = False
        super().__init__(source.data, **arguments)
        source.aimed.connect(self._on_aim)
        viewer.dims.events.order.connect(self._on_aim)
        viewer.layers.events.removed.connect(self._on_removed)
        self._on_aim()

    @property
    def keymap(self) -> Any:
        """Keys that count in the main canvas count here."""
        return self._main_layer.keymap

    @keymap.setter
    def keymap(self, value: Any) -> None:
        """It has none of its own."""

    def paint(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        """Paint in the source."""
        self._in_this_plane(lambda: self._main_layer.paint(coord, new_label))

    def fill(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        """Fill in the source."""
        self._in_this_plane(lambda: self._main_layer.fill(coord, new_label))

    def paint_polygon(self, points: Any, new_label: int) -> None:
        """Paint a polygon in the source."""
        self._in_this_plane(lambda: self._main_layer.paint_polygon(points, new_label))

    def undo(self) -> None:
        """Undo what was done last, wherever."""
        self._main_layer.undo()

    def redo(self) -> None:
        """Do again what was undone last."""
        self._main_layer.redo()

    @contextmanager
    def block_history(self) -> Iterator[None]:
        """What is painted meanwhile is one step of the source's history."""
        with self._main_layer.block_history():
            yield

    # A stroke that spans many events of the mouse, for which napari has no public names.

    def _begin_stroke(self) -> None:
        self._is_stroking = True
        self._main_layer._begin_stroke()

    def _commit_stroke(self) -> None:
        self._is_stroking = False
        self._main_layer._commit_stroke()

    def _abort_stroke(self) -> None:
        self._is_stroking = False
        self._main_layer._abort_stroke()

    def end_stroke(self) -> None:
        """The canvas goes: what was painted in it is a step, or the next strokes would all belong to it."""
        if self._is_stroking:
            self._commit_stroke()

    def _on_aim(self, event: Any = None) -> None:
        """Show around this canvas's cursor what the brush would paint here."""
        aim = self._main_layer.aim
        if aim is None and self._preview is None:
            return
        if self._preview is None:
            self._preview = BrushPreview(self._canvas_viewer)
        self.brush_mm, self.across = self._main_layer.brush_mm, self._across_here
        self._preview.set_aim(None if aim is None else replace(aim, layer=self))

    def _on_removed(self, event: Any) -> None:
        if event.value is self:
            self.end_stroke()
            self._main_layer.aimed.disconnect(self._on_aim)
            if self._preview is not None:
                self._preview.shut_down()

    @property
    def _across_here(self) -> int:
        """The axis across the slices of this canvas."""
        dims = self._canvas_viewer.dims
        first = dims.ndim - 3
        return next((axis for axis in dims.order if axis >= first), first) - first

    def _in_this_plane(self, do: Callable[[], None]) -> None:
        source, before = self._main_layer, self._main_layer.across
        source.across = self._across_here
        try:
            do()
        finally:
            source.across = before
