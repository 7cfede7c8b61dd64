"""Slices that do not make an even, straight stack, resampled to one. Only on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_sparsetok.files.reading import Watch, check_memory
from napari_sparsetok.files.stack import Layout, Plane, affine_of

ROUNDING = 0.1  # of a pixel: slices that are shifted by less stay where they are


def straightened(
    values: NDArray[Any], planes: Sequence[Plane], layout: Layout, watch: Watch
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Interpolate linearly onto an even stack at right angles.

    Parameters
    ----------
    values : (volumes, slices, rows, columns).
    planes : of the slices, in the same order.
    layout : what `layout_of` found.

    Returns
    -------
    Values (volumes, slices, rows, columns) and their affine, see `Layout.affine`. Where nothing was measured stands
    the lowest value.

    Raises
    ------
    ScanError : there is too little memory.
    """
    first = planes[0]
    across, down = first.spacing[1], first.spacing[0]
    pixels = layout.drift / (across, down)  # along rows, along columns
    if np.abs(pixels).max() <= ROUNDING:
        pixels = np.zeros_like(pixels)
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))
    rows = values.shape[2] + int(high[1] - low[1])
    columns = values.shape[3] + int(high[0] - low[0])
    count = round(float(layout.distances[-1]) / layout.step) + 1
    check_memory(4 * values.shape[0] * (3 * count + values.shape[1]) * rows * columns, "the repaired scan")
    fill = float(values.min())
    places = np.clip(np.arange(count) * layout.step, 0, layout.distances[-1])
    result = np.empty((values.shape[0], count, rows, columns), dtype=np.float32)
    for t, volume in enumerate(values):
        watch.step(t, len(values))
        canvas = np.full((len(volume), rows, columns), fill, dtype=np.float32)
        for z, plane in enumerate(volume):
            _place(canvas[z], plane, pixels[z] - low, fill)
        result[t] = _between(canvas, layout.distances, places)
    normal = first.axes[2]
    return result, affine_of(first, normal * layout.step, (low[0] * across, low[1] * down))


def _place(canvas: NDArray[np.float32], plane: NDArray[Any], shift: NDArray[np.float64], fill: float) -> None:
    """Put a slice into a larger one, shifted by pixels along rows and columns."""
    across, down = (float(s) for s in shift)
    whole = (int(down), int(across))
    canvas[whole[0] : whole[0] + plane.shape[0], whole[1] : whole[1] + plane.shape[1]] = plane
    rest = (down - whole[0], across - whole[1])
    if any(rest):
        canvas[...] = ndimage.shift(canvas, rest, order=1, mode="constant", cval=fill)


def _between(slices: NDArray[np.float32], have: NDArray[np.float64], want: NDArray[np.float64]) -> NDArray[np.float32]:
    """Slices at other places along the normal."""
    above = np.clip(np.searchsorted(have, want, side="right"), 1, len(have) - 1)
    share = ((want - have[above - 1]) / (have[above] - have[above - 1])).astype(np.float32)[:, None, None]
    mixed: NDArray[np.float32] = slices[above - 1] * (1 - share) + slices[above] * share
    return mixed
