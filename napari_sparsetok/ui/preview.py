"""What a tool would do, drawn over the scan before it is done."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_sparsetok.scan import AXIS_LABELS, Region, Scan
from napari_sparsetok.ui.guest import Guest
from napari_sparsetok.ui.overlays import OVERLAY

ADDED, TAKEN = 1, 2
COLORS = {ADDED: "#00E5FF", TAKEN: "#FF2BD6"}
"""Cyan for what would be painted or relabelled, magenta for what would go; no label has these colours."""


def change_colormap() -> DirectLabelColormap:
    """For layers that draw changes."""
    colors: dict[int | None, str] = {0: "transparent", None: "transparent"}
    return DirectLabelColormap(color_dict=colors | COLORS)


def changes(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`ADDED` where a label came or became another, `TAKEN` where it went, else 0."""
    kind = np.where(after == 0, TAKEN, ADDED).astype(np.uint8)
    kind[before == after] = 0
    return kind


class Preview(Guest):
    """Draws a change, in a layer as small as the change."""

    def show(self, scan: Scan, region: Region, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> None:
        """Draw a change in a box of a scan, instead of what was drawn before."""
        geometry = scan.geometry
        origin = np.asarray(geometry.origin) + np.asarray(region.start) * np.asarray(geometry.spacing)
        layer = Labels(
            changes(before, after),
            name="preview",
            colormap=change_colormap(),
            opacity=0.75,
            scale=geometry.spacing,
            translate=tuple(origin),
            units=("mm",) * 3,
            axis_labels=AXIS_LABELS,
            metadata={OVERLAY: "preview"},
        )
        self.put(layer)
