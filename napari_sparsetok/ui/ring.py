"""A ring around the place that a person was sent to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.layers import Points

from napari_sparsetok.scan import AXIS_LABELS
from napari_sparsetok.ui.guest import Guest
from napari_sparsetok.ui.overlays import OVERLAY

_ROOM = 1.5  # the ring is this much larger than what it surrounds, so that it hides nothing
_SMALLEST = 6.0  # mm
_LINE = 4.0  # pixels of the screen as it is now: a share of the ring alone would hide tissue where it is large


class Ring(Guest):
    """Seen only in the slice of its place."""

    def show(self, world: Sequence[float], size: float) -> None:
        """Draw it around something of `size` mm at a point of the viewer."""
        wide = max(_SMALLEST, _ROOM * size)
        line = _LINE / max(self._viewer.scene.camera.zoom, 1e-6)
        layer = Points(
            np.asarray([world[-3:]], dtype=float),
            name="look here",
            size=wide,
            face_color="transparent",
            border_color="#FFFFFF",
            border_width=min(0.06, line / wide),
            units=("mm",) * 3,
            axis_labels=AXIS_LABELS,
            metadata={OVERLAY: "ring"},
        )
        self.put(layer)
