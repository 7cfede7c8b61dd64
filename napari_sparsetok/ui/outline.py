"""Labels drawn as outlines: in slices only, because in 3-D napari has none, and warns the person at each drawing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from napari.components import ViewerModel

_WIDTH = "outline width"


def set_outline(layer: Any, width: int, viewer: ViewerModel) -> None:
    """Draw a layer of labels as outlines of so many voxels; 0 fills them."""
    layer.metadata[_WIDTH] = width
    _draw(layer, viewer)


def follow_view(layers: Iterable[Any], viewer: ViewerModel) -> None:
    """To be called when the view goes to 3-D or comes back, before its layers are drawn."""
    for layer in layers:
        if _WIDTH in layer.metadata:
            _draw(layer, viewer)


def _draw(layer: Any, viewer: ViewerModel) -> None:
    layer.contour = layer.metadata[_WIDTH] if viewer.dims.ndisplay == 2 else 0
