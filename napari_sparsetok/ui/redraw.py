"""Drawing a layer again after its array was written."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Layer


def redraw(viewer: ViewerModel, layer: Layer) -> None:
    """Show what now stands in a layer's array.

    The list of layers is not told: its rows show nothing of it, but napari would draw all of them anew, which takes as
    long as a third of the canvas. Whoever listens to the layer itself is told as always.
    """
    with viewer.layers.events.blocker():
        layer.refresh(extent=False, thumbnail=False)
