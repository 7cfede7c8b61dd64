"""The two planes beside the one in the main canvas, with a cross that links all three."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer, Vectors
from napari.qt import QtViewer
from psygnal import Signal
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QSplitter, QVBoxLayout, QWidget

from napari_sparsetok.ui.brush_layer import without_box
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.lifetime import Lifetime
from napari_sparsetok.ui.mirror import CROSS, Mirror
from napari_sparsetok.ui.orientation import Orientation
from napari_sparsetok.ui.overlays import OVERLAY
from napari_sparsetok.ui.planes import PLANES, plane_of, show_plane

NAME = "Other planes"
_STILL = 4  # pixels that a click may slip
_HEIGHT = 330
_NARROWEST = 200
_SETTLED_MS = 100  # until the window has given the canvas its size


def _only_below_the_canvas(panel: QWidget) -> None:
    """Below the docks at the sides too, the planes would make the window higher than a small screen."""
    window = panel.window()
    if isinstance(window, QMainWindow):
        window.setCorner(Qt.BottomLeftCorner, Qt.LeftDockWidgetArea)
        window.setCorner(Qt.BottomRightCorner, Qt.RightDockWidgetArea)
        docks = [dock for dock in window.findChildren(QDockWidget) if dock.isAncestorOf(panel)]
        # Or they take what they would like from the canvas.
        window.resizeDocks(docks, [_HEIGHT] * len(docks), Qt.Vertical)


class Cross:
    """Two lines across a viewer's picture, where the slices of the other planes run.

    Parameters
    ----------
    reference : a layer on whose grid the lines lie, so that the viewer's sliders keep their steps.
    """

    def __init__(self, viewer: ViewerModel, reference: Layer) -> None:
        self._viewer = viewer
        selected = set(viewer.layers.selection)
        n = reference.ndim
        self._layer = Vectors(
            np.zeros((2, 2, n)),
            name="cross",
            scale=reference.scale,
            translate=reference.translate,
            units=reference.units,
            axis_labels=reference.axis_labels,
            edge_color="#FFD54A",
            edge_width=0.5,
            opacity=0.55,
            vector_style="line",
            blending="translucent_no_depth",
            metadata={OVERLAY: CROSS},
        )
        viewer.layers.append(self._layer)
        viewer.layers.selection = selected
        dims = viewer.dims.events
        self._emitters = (dims.current_step, dims.order, dims.ndisplay)
        for emitter in self._emitters:
            emitter.connect(self._draw)
        self._draw()

    def shut_down(self) -> None:
        """Take the lines away."""
        for emitter in self._emitters:
            emitter.disconnect(self._draw)
        if self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)

    def _draw(self, event: Any = None) -> None:
        layer, dims = self._layer, self._viewer.dims
        if layer not in self._viewer.layers or dims.ndim != layer.ndim:
            return
        if layer.visible != (dims.ndisplay == 2):  # napari builds the whole scene anew whenever it is set
            layer.visible = dims.ndisplay == 2
        scale, begin = np.asarray(layer.scale), np.asarray(layer.translate)
        point = (np.asarray(dims.point) - begin) / scale
        ends = np.array([(np.array([r.start, r.stop])) for r in dims.range]).T
        low, high = (ends - begin) / scale
        lines = np.zeros((2, 2, layer.ndim))
        for line, axis in zip(lines, dims.displayed[-2:], strict=True):
            line[0] = point
            line[0, axis] = low[axis]
            line[1, axis] = high[axis] - low[axis]
        if not np.array_equal(lines, layer.data):
            layer.data = lines


class PlaneView(QWidget):
    """One more canvas on the same scan."""

    def __init__(self, main: ViewerModel, plane: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._main = main
        self.setMinimumWidth(_NARROWEST)  # two of them beside each other have to fit under the canvas
        self.model = ViewerModel(title=plane)
        without_box(self.model)
        self.mirror = Mirror(main, self.model)
        self.orientation = Orientation(self.model)
        self._canvas = QtViewer(self.model)
        self._canvas.setAcceptDrops(False)
        self._title = QLabel()
        self._title.setAlignment(Qt.AlignCenter)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._title)
        layout.addWidget(self._canvas, 1)
        self._fit = later(self, self.fit)  # once the window has given it its size
        self.model.dims.events.ndim.connect(self._on_ndim)
        main.events.theme.connect(self._on_theme)
        self._on_theme()
        self.set_plane(plane)

    def resizeEvent(self, event: Any) -> None:
        """All of the slice is seen again."""
        super().resizeEvent(event)
        self._fit.start(50)

    def set_plane(self, plane: str) -> None:
        """Show this plane."""
        self.plane = plane
        self._title.setText(plane.capitalize())
        if plane_of(self.model) != plane:
            show_plane(self.model, plane)
            self.fit()

    def fit(self) -> None:
        """Let all of what is seen be seen, and no room be left for scans that are hidden."""
        seen = [layer for layer in self.model.layers if isinstance(layer, Image) and layer.visible]
        self.model.reset_view(layers=seen or None)

    def shut_down(self) -> None:
        """Let go of the main viewer, and of the canvas."""
        self._fit.stop()
        self.model.dims.events.ndim.disconnect(self._on_ndim)
        self._main.events.theme.disconnect(self._on_theme)
        self.mirror.shut_down()
        self.orientation.shut_down()
        self._canvas.close()
        del self._canvas

    def _on_theme(self, event: Any = None) -> None:
        self.model.theme = self._main.theme

    def _on_ndim(self, event: Any = None) -> None:
        self.set_plane(self.plane)


class Views:
    """Opens and closes the other planes below the main canvas, and links the three.

    Parameters
    ----------
    viewer : the main one. Without a window nothing can be opened.
    opened, closing : called with the model of each further canvas.
    """

    shown_changed = Signal(bool)

    def __init__(
        self,
        viewer: ViewerModel,
        opened: Callable[[ViewerModel], None] = lambda model: None,
        closing: Callable[[ViewerModel], None] = lambda model: None,
    ) -> None:
        self._viewer, self._opened, self._closing = viewer, opened, closing
        self._sides_known = False
        self._reference: Layer | None = None
        self._panel: QSplitter | None = None
        self._planes: list[PlaneView] = []
        self._settling: QTimer | None = None
        self._height = 1  # of the canvas, before it changed
        self._crosses: list[Cross] = []
        self._connections: list[tuple[Any, Any]] = []
        self._before = "axial"
        self._linking = False

    @property
    def is_shown(self) -> bool:
        """Whether the other planes are open."""
        return self._panel is not None

    @property
    def models(self) -> list[ViewerModel]:
        """Of the further canvases."""
        return [view.model for view in self._planes]

    def set_reference(self, layer: Layer | None, sides_known: bool) -> None:
        """The layer of the scan that is shown now, and whether its sides have letters."""
        self._reference, self._sides_known = layer, sides_known
        if layer is None:
            self.close()
        elif self.is_shown:
            self._set_crosses()
            for view in self._planes:
                view.orientation.set_shown(sides_known)
                view.fit()

    def toggle(self, on: bool | None = None) -> None:
        """Open or close the other planes."""
        if (not self.is_shown) if on is None else on:
            self.open()
        else:
            self.close()

    def maximise(self, model: ViewerModel) -> None:
        """Give all the room to the plane of this canvas; once more brings the three back."""
        if not self.is_shown:
            show_plane(self._viewer, self._before)
            self.open()
            return
        self._before = plane_of(self._viewer) or "axial"
        wanted = next((view.plane for view in self._planes if view.model is model), "")
        self.close()
        if wanted:
            show_plane(self._viewer, wanted)

    def open(self) -> None:
        """Open the planes that the main canvas does not show."""
        window = getattr(self._viewer, "window", None)
        if self.is_shown or window is None or self._reference is None or self._viewer.dims.ndim < 3:
            self.shown_changed.emit(self.is_shown)
            return
        panel = QSplitter(Qt.Horizontal)
        panel.setMinimumHeight(_HEIGHT)
        for plane in self._others():
            view = PlaneView(self._viewer, plane)
            view.orientation.set_shown(self._sides_known)
            panel.addWidget(view)
            self._planes.append(view)
        self._panel = panel
        window.add_dock_widget(panel, name=NAME, area="bottom")
        self._keep_in_view(panel.window())
        _only_below_the_canvas(panel)
        self._lifetime = Lifetime(panel, self._on_gone)
        self._connect()
        self._set_crosses()
        self._link(self._viewer)
        for view in self._planes:
            view.fit()
            self._opened(view.model)
        self.shown_changed.emit(True)

    def close(self) -> None:
        """Close them."""
        panel = self._panel
        if panel is None:
            return
        self._let_go()
        with suppress(LookupError, AttributeError, RuntimeError):  # the person, or the end of the window, was quicker
            self._keep_in_view(panel.window())
            self._viewer.window.remove_dock_widget(panel)
            panel.deleteLater()
        self.shown_changed.emit(False)

    def shut_down(self) -> None:
        """Let go of everything; the window takes care of its docks."""
        self.close()

    # Details

    def _keep_in_view(self, window: QWidget) -> None:
        """What is seen of the main plane, from top to bottom, stays in view on a canvas that gets lower or higher."""
        middle = window.centralWidget() if isinstance(window, QMainWindow) else None
        if middle is None:
            return
        if self._settling is None:
            self._settling = later(window, lambda: self._follow_height(middle), _SETTLED_MS)
        if not self._settling.isActive():  # opened and closed at once is one change
            self._height = max(1, middle.height())
        self._settling.start()

    def _follow_height(self, middle: QWidget) -> None:
        self._viewer.scene.camera.zoom *= max(1, middle.height()) / self._height

    def _others(self) -> list[str]:
        return [plane for plane in PLANES if plane != (plane_of(self._viewer) or "axial")][:2]

    def _set_crosses(self) -> None:
        for cross in self._crosses:
            cross.shut_down()
        reference = self._reference
        self._crosses = [] if reference is None else [Cross(m, reference) for m in (self._viewer, *self.models)]

    def _connect(self) -> None:
        for model in (self._viewer, *self.models):
            self._listen(model.dims.events.current_step, lambda event=None, model=model: self._link(model))
            model.mouse_drag_callbacks.append(self._on_click)
        for emitter in (self._viewer.dims.events.order, self._viewer.dims.events.ndisplay):
            self._listen(emitter, self._on_plane)

    def _listen(self, emitter: Any, slot: Callable[..., None]) -> None:
        emitter.connect(slot)
        self._connections.append((emitter, slot))

    def _link(self, source: ViewerModel) -> None:
        """Every canvas shows the slices through the point of the one that moved."""
        if self._linking:
            return
        self._linking = True
        try:
            for model in (self._viewer, *self.models):
                if model is not source and model.dims.ndim == source.dims.ndim:
                    model.dims.point = source.dims.point
        finally:
            self._linking = False

    def _on_plane(self, event: Any = None) -> None:
        if self._viewer.dims.ndisplay == 2:
            for view, plane in zip(self._planes, self._others(), strict=True):
                view.set_plane(plane)

    def _on_click(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """A click, not a drag, puts the cross there."""
        active = viewer.layers.selection.active
        is_free = active is None or str(active.mode) == "pan_zoom"
        if event.button != 1 or event.modifiers or viewer.dims.ndisplay != 2 or not is_free:
            return
        pressed = event.pos
        yield
        while event.type == "mouse_move":
            yield
        if max(abs(a - b) for a, b in zip(event.pos, pressed, strict=True)) <= _STILL:
            viewer.dims.point = tuple(event.position)

    def _on_gone(self) -> None:
        """The person closed the dock."""
        if self._panel is not None:
            self._let_go()
            self.shown_changed.emit(False)

    def _let_go(self) -> None:
        self._panel = None
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        self._connections.clear()
        for cross in self._crosses:
            cross.shut_down()
        self._crosses = []
        views, self._planes = self._planes, []
        for model in (self._viewer, *(view.model for view in views)):
            if self._on_click in model.mouse_drag_callbacks:
                model.mouse_drag_callbacks.remove(self._on_click)
        for view in views:
            self._closing(view.model)
            view.shut_down()
