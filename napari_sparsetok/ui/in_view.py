"""One scan at a time: what belongs to another than the current one is out of sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_sparsetok.ui.overlays import KINDS, OVERLAY, Overlays
from napari_sparsetok.ui.scan_layer import SCAN


class InView:
    """Hides the layers of the scans that are not the current one; they come back with their scan.

    Else the picture could be of one patient, and the mask and all numbers of another. A person may show any of them
    with the eye in the list, as to compare; that holds until another scan is chosen. Only what is ours is touched:
    scans that this program opened, what was computed for them, and masks of them.
    """

    def __init__(self, viewer: ViewerModel, overlays: Overlays) -> None:
        self._viewer, self._overlays = viewer, overlays
        self._now: list[ref[Layer]] = []  # the layers that make the current scan
        self._homes: WeakKeyDictionary[Layer, ref[Layer]] = WeakKeyDictionary()  # of each layer that lies over a scan
        self._hidden: WeakSet[Layer] = WeakSet()  # by us, and not by the person
        viewer.layers.events.inserted.connect(self._on_inserted)

    def shut_down(self) -> None:
        """Let go of the viewer; what is hidden stays so."""
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)

    def show(self, layers: Sequence[Layer]) -> None:
        """These make the current scan now; without any, nothing changes."""
        if not layers or [kept() for kept in self._now] == list(layers):
            return
        self._now = [ref(layer) for layer in layers]
        for layer in list(self._viewer.layers):
            if not self._is_of_a_scan(layer):
                continue
            if self._is_of_another(layer, layers):
                if layer.visible:
                    self._hidden.add(layer)
                    layer.visible = False
            elif layer in self._hidden and layer.metadata.get(OVERLAY) not in KINDS:
                self._hidden.discard(layer)
                layer.visible = True

    def show_overlays(self) -> None:
        """Those of the current scan come back as they were left. What a model said that was given up does not."""
        for kind in KINDS:
            layer = self._overlays.layer(kind)
            if layer is not None:
                on = bool(layer.visible) or layer in self._hidden
                self._hidden.discard(layer)
                self._overlays.set_visible(kind, on)
                self._overlays.visibility_changed.emit(kind, on)

    def _on_inserted(self, event: Any) -> None:
        layer: Layer = event.value
        if self._now and (layer.metadata.get(OVERLAY) in KINDS or _is_given_mask(layer)):
            self._homes[layer] = self._now[0]

    def _is_of_a_scan(self, layer: Layer) -> bool:
        return layer in self._homes or _is_scan(layer)

    def _is_of_another(self, layer: Layer, layers: Sequence[Layer]) -> bool:
        home = self._homes[layer]() if layer in self._homes else layer
        return home not in layers


def _is_scan(layer: Layer) -> bool:
    return isinstance(layer, Image) and SCAN in layer.metadata and OVERLAY not in layer.metadata


def _is_given_mask(layer: Layer) -> bool:
    return SCAN in layer.metadata and OVERLAY not in layer.metadata and not isinstance(layer, Image)
