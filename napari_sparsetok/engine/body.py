"""Where in a scan the body lies, so that no window is spent on the air around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import Region, ScanError, Shape
from napari_sparsetok.weights import Body

_AT_ONCE = 16  # slices that are read at a time; the scan may lie on disk


@dataclass(frozen=True, eq=False)
class Outline:
    """The box around the body in each slice of a region.

    region : of the scan.
    margin : voxels (z, y, x) by which boxes are widened.
    first, stop : (slices, 2) along y and x, from the region's start; a slice without a body stops where it begins.
    """

    region: Region
    margin: Shape
    first: NDArray[np.int64]
    stop: NDArray[np.int64]

    def box(self, start: int = 0, stop: int | None = None) -> Region | None:
        """The box of the scan around the body in some slices, counted from the region's start, with its margin.

        It stays in the region, but the margin may reach other slices. None if there is no body in them.
        """
        first, last = self.first[start:stop], self.stop[start:stop]
        slices = np.flatnonzero(first[:, 0] < last[:, 0])
        if not slices.size:
            return None
        low = [start + int(slices[0]), *first[slices].min(axis=0).tolist()]
        high = [start + int(slices[-1]) + 1, *last[slices].max(axis=0).tolist()]
        places = list(zip(self.region.start, self.region.shape, self.margin, strict=True))
        return Region(
            tuple(a + max(0, n - m) for n, (a, _, m) in zip(low, places, strict=True)),
            tuple(a + min(side, n + m) for n, (a, side, m) in zip(high, places, strict=True)),
        )


def outline(voxels: NDArray[Any], region: Region, body: Body, spacing: Sequence[float]) -> Outline:
    """Look for the body in a region.

    Parameters
    ----------
    voxels : (z, y, x), or anything that is indexed like it.
    region : where to look.
    body : the value above which it lies, and the margin.
    spacing : (z, y, x) millimetres between voxels.

    Raises
    ------
    ScanError : no voxel is above it.
    """
    slabs = []
    for z in range(region.start[0], region.stop[0], _AT_ONCE):
        slab = np.asarray(voxels[(slice(z, min(z + _AT_ONCE, region.stop[0])), *region.slices[1:])])
        above: NDArray[np.bool_] = slab > body.above
        slabs.append([_ends(np.any(above, axis=axis)) for axis in (2, 1)])
    first, stop = (
        np.stack([np.concatenate([slab[side][end] for slab in slabs]) for side in range(2)], axis=1) for end in range(2)
    )
    if not (first < stop).any():
        raise ScanError(
            f"no voxel here is above {body.above:g}, where this model looks for the body; choose another region, "
            "or check that the scan has the units the model expects"
        )
    z, y, x = (math.ceil(body.margin / s) for s in spacing)
    return Outline(region, (z, y, x), first, stop)


def body_box(voxels: NDArray[Any], region: Region, body: Body, spacing: Sequence[float]) -> Region:
    """The box around all voxels above the body's value, with its margin, within a region; see `outline`."""
    box = outline(voxels, region, body, spacing).box()
    assert box is not None  # else it would have been said
    return box


def _ends(hits: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row (rows, n) the first that is set, and one past the last; 0 and 0 if none is."""
    some, n = hits.any(axis=1), hits.shape[1]
    return np.where(some, hits.argmax(axis=1), 0), np.where(some, n - hits[:, ::-1].argmax(axis=1), 0)
