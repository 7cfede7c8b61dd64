"""A layer of ours that comes and goes: nobody paints on it, and it takes no selection from the layer in hand."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Layer


class Guest:
    """At most one layer in a viewer; a person may delete it at any time."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Layer | None = None

    @property
    def layer(self) -> Layer | None:
        """The layer, while it is in the viewer."""
        return self._layer if self._layer is not None and self._layer in self._viewer.layers else None

    def put(self, layer: Layer) -> None:
        """Show this one instead."""
        self.hide()
        layer.editable = False
        selected = set(self._viewer.layers.selection)
        self._layer = self._viewer.add_layer(layer)
        self._viewer.layers.selection = selected

    def hide(self) -> None:
        """Take it away."""
        layer, self._layer = self.layer, None
        if layer is not None:
            self._viewer.layers.remove(layer)
