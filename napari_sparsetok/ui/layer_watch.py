"""Notices when a scan's layer gets other voxels, or is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from napari.layers import Layer

from napari_sparsetok.ui.place import PARTS, Place
from napari_sparsetok.ui.scan_layer import SCAN


class LayerWatch:
    """Watches the layers that make the scan.

    A layer of which we know where the scan lies stays there: a mask is laid and saved by what the file says, and beside
    a layer that was moved it would seem to be of another place. Of any other layer nobody knows better than whoever
    moves it.

    Parameters
    ----------
    replaced : told of a layer with other voxels, or in another place.
    held : told of a layer that was put back.
    drawn_anew : told of a layer whose voxels were set again, as is done after some of them were written in place.
    """

    def __init__(
        self,
        replaced: Callable[[Layer], None],
        held: Callable[[Layer], None],
        drawn_anew: Callable[[Layer], None],
    ) -> None:
        self._replaced, self._held, self._drawn_anew = replaced, held, drawn_anew
        self._connections: list[tuple[Any, Callable[[Any], None]]] = []
        self._places: dict[Layer, Place] = {}
        self._voxels: dict[Layer, Any] = {}

    def watch(self, layers: Iterable[Layer]) -> None:
        """From now on these."""
        self.stop()
        for layer in dict.fromkeys(layers):
            self._places[layer], self._voxels[layer] = Place.of(layer), layer.data
            self._connect(layer.events.data, partial(self._on_data, layer))
            self._connect(layer.events.units, partial(self._on_units, layer))
            for part in PARTS:
                self._connect(getattr(layer.events, part), partial(self._on_moved, layer))

    def stop(self) -> None:
        """Watch nothing."""
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        self._connections.clear()
        self._places.clear()
        self._voxels.clear()

    def _connect(self, emitter: Any, slot: Callable[[Any], None]) -> None:
        emitter.connect(slot)
        self._connections.append((emitter, slot))

    def _on_data(self, layer: Layer, event: Any = None) -> None:
        if layer.data is self._voxels[layer]:
            self._drawn_anew(layer)
            return
        self._places[layer], self._voxels[layer] = Place.of(layer), layer.data  # it may have other axes now
        self._replaced(layer)

    def _on_units(self, layer: Layer, event: Any = None) -> None:
        if SCAN not in layer.metadata:  # of the others the file says it
            self._replaced(layer)

    def _on_moved(self, layer: Layer, event: Any = None) -> None:
        place = self._places[layer]
        if SCAN not in layer.metadata:
            if not place.is_of(layer):  # napari tells of one move in several events
                self._places[layer] = Place.of(layer)
                self._replaced(layer)
            return
        if place.put_back(layer):
            if str(layer.mode) == "transform":
                layer.mode = "pan_zoom"  # else the mouse, still held, says it again and again
            self._held(layer)
