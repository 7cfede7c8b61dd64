"""Labels drawn as outlines."""

from __future__ import annotations

import warnings
from typing import Any


def set_outline(layer: Any, width: int) -> None:
    """Draw a layer of labels as outlines of so many voxels; 0 fills them. In 3-D napari always fills them."""
    # It would warn of that whenever somebody goes to 3-D, with a message over the scan that asks for nothing.
    warnings.filterwarnings("ignore", "Contours are not displayed during 3D rendering")
    layer.contour = width
