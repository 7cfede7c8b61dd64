"""Where in a scan the body lies, so that no window is spent on the air around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import Region, ScanError
from napari_sparsetok.weights import Body

_AT_ONCE = 16  # slices that are read at a time; the scan may lie on disk


def body_box(voxels: NDArray[Any], region: Region, body: Body, spacing: Sequence[float]) -> Region:
    """The box around all voxels above the body's value, with its margin, within a region.

    Parameters
    ----------
    voxels : (z, y, x), or anything that is indexed like it.
    region : where to look.
    body : the value and the margin.
    spacing : (z, y, x) millimetres between voxels.

    Raises
    ------
    ScanError : no voxel is above it.
    """
    found = [np.zeros(n, dtype=bool) for n in region.shape]
    first, last = region.start[0], region.stop[0]
    for z in range(first, last, _AT_ONCE):
        slab = np.asarray(voxels[(slice(z, min(z + _AT_ONCE, last)), *region.slices[1:])])
        above: NDArray[np.bool_] = slab > body.above
        found[0][z - first : z - first + len(slab)] = np.any(above, axis=(1, 2))
        found[1] |= np.any(above, axis=(0, 2))
        found[2] |= np.any(above, axis=(0, 1))
    if not found[0].any():
        raise ScanError(
            f"no voxel here is above {body.above:g}, where this model looks for the body; choose another region, "
            "or check that the scan has the units the model expects"
        )
    start, stop = [], []
    for hits, a, n, s in zip(found, region.start, region.shape, spacing, strict=True):
        at = np.flatnonzero(hits)
        margin = math.ceil(body.margin / s)
        start.append(a + max(0, int(at[0]) - margin))
        stop.append(a + min(n, int(at[-1]) + 1 + margin))
    return Region(tuple(start), tuple(stop))  # type: ignore[arg-type]
