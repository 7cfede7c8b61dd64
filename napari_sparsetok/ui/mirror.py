"""Copies of a viewer's layers in another viewer: the same voxels in memory, kept in step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from superqt.utils import qthrottled

from napari_sparsetok.ui import brush_layer, plane_brush
from napari_sparsetok.ui.brush_preview import UNDER_BRUSH
from napari_sparsetok.ui.overlays import OVERLAY

CROSS = "cross"
"""Under the key `OVERLAY`, what marks the cross of a canvas, which is its own. Not copied."""

_EVERY_MS = 60
_OF_ALL = ("visible", "opacity", "blending", "scale", "translate")
_OF_IMAGES = ("contrast_limits", "gamma", "colormap", "interpolation2d")
_OF_LABELS = ("contour", "colormap")


class Mirror:
    """Shows the layers of `source` in `target`. Of what happens in `target`, only painting in corrections leads back.

    Voxels are shared, not copied. A layer that is written in place and refreshed is refreshed in `target` too, at most
    every few hundredths of a second.
    """

    def __init__(self, source: ViewerModel, target: ViewerModel) -> None:
        self._source, self._target = source, target
        self._copies: dict[Layer, Layer] = {}
        self._connections: dict[Layer, list[tuple[Any, Callable[..., None]]]] = {}
        self._points: dict[Layer, tuple[float, ...]] = {}
        self._stale: set[Layer] = set()
        self._soon = qthrottled(self._refresh, timeout=_EVERY_MS)
        events = source.layers.events
        self._own = [
            (events.inserted, self._on_inserted),
            (events.removed, self._on_removed),
            (events.reordered, self._on_reordered),
            (source.layers.selection.events.active, self._on_active),
        ]
        for emitter, slot in self._own:
            emitter.connect(slot)
        for layer in source.layers:
            self._add(layer)
        self._on_active()

    def copy_of(self, layer: Layer) -> Layer | None:
        """The copy of a layer, if there is one."""
        return self._copies.get(layer)

    def shut_down(self) -> None:
        """Let go of the source; the copies stay."""
        for emitter, slot in self._own:
            emitter.disconnect(slot)
        for layer in list(self._copies):
            self._let_go(layer)
        self._stale.clear()

    # The source changed

    def _on_inserted(self, event: Any) -> None:
        self._add(event.value)
        self._on_reordered()
        self._on_active()

    def _on_removed(self, event: Any) -> None:
        copy = self._copies.get(event.value)
        self._let_go(event.value)
        if copy is not None and copy in self._target.layers:
            self._target.layers.remove(copy)

    def _on_reordered(self, event: Any = None) -> None:
        wanted = [self._copies[layer] for layer in self._source.layers if layer in self._copies]
        for place, copy in enumerate(wanted):
            at = self._target.layers.index(copy)
            if at != place:
                self._target.layers.move(at, place)

    def _add(self, layer: Layer) -> None:
        if layer.metadata.get(OVERLAY) in (CROSS, UNDER_BRUSH) or layer.ndim < 3:
            return
        copy = self._copied(layer)
        self._copies[layer] = copy
        self._target.layers.append(copy)
        self._connections[layer] = []
        self._points[layer] = tuple(self._source.dims.point)
        names = (*_OF_ALL, *(_OF_IMAGES if isinstance(layer, Image) else ()))
        names = (*names, *(_OF_LABELS if isinstance(layer, Labels) else ()))
        names = (*names, *(plane_brush.FOLLOWED if isinstance(copy, plane_brush.Labels) else ()))
        for name in names:
            follow = self._follower(layer, copy, name)
            follow()  # napari does not hand on all of them when a layer is made
            self._connect(layer, name, follow)
        self._connect(layer, "data", lambda event=None: self._on_data(layer, copy))
        self._connect(layer, "set_data", lambda event=None: self._on_set_data(layer))
        if isinstance(layer, Labels):
            self._connect(layer, "labels_update", lambda event=None: self._mark(layer))

    def _copied(self, layer: Layer) -> Layer:
        data, arguments, kind = layer.as_layer_data_tuple()
        if isinstance(layer, brush_layer.Labels):
            return plane_brush.Labels(layer, self._target, **arguments)
        copy = Layer.create(data, arguments, kind)
        if isinstance(copy, Labels):
            copy.editable = False
        return copy

    def _on_active(self, event: Any = None) -> None:
        """A tool in hand in the main canvas is in hand here too."""
        active = self._source.layers.selection.active
        copy = self._copies.get(active) if active is not None else None
        if copy is None or copy in self._target.layers:
            self._target.layers.selection.active = copy

    def _connect(self, layer: Layer, name: str, slot: Callable[..., None]) -> None:
        emitter = getattr(layer.events, name)
        emitter.connect(slot)
        self._connections[layer].append((emitter, slot))

    @staticmethod
    def _follower(layer: Layer, copy: Layer, name: str) -> Callable[..., None]:
        def follow(event: Any = None) -> None:
            wanted = getattr(layer, name)
            if name == "colormap" or not np.array_equal(getattr(copy, name), wanted):  # colormaps do not compare
                setattr(copy, name, wanted)

        return follow

    def _let_go(self, layer: Layer) -> None:
        for emitter, slot in self._connections.pop(layer, []):
            emitter.disconnect(slot)
        copy = self._copies.get(layer)
        if isinstance(copy, plane_brush.Labels):
            copy.end_stroke()
        for kept in (self._copies, self._points):
            kept.pop(layer, None)
        self._stale.discard(layer)

    def _on_data(self, layer: Layer, copy: Layer) -> None:
        if copy.data is not layer.data:
            copy.data = layer.data
        else:
            self._mark(layer)

    def _on_set_data(self, layer: Layer) -> None:
        """A layer says so when it was written, and also when another slice of it is shown, which is nothing new."""
        point = tuple(self._source.dims.point)
        if self._points.get(layer) == point:
            self._mark(layer)
        self._points[layer] = point

    def _mark(self, layer: Layer) -> None:
        self._stale.add(layer)
        self._soon()

    def _refresh(self) -> None:
        stale, self._stale = self._stale, set()
        for layer in stale:
            copy = self._copies.get(layer)
            if copy is not None and copy in self._target.layers:
                copy.refresh(extent=False, thumbnail=False)
