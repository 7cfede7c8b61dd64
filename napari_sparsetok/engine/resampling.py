"""From a box of a scan to the model's grid and back, without a shift.

Both grids cover the same millimetres, edge to edge; so the model's spacing is met only to within half a voxel
over the whole box, and no voxel moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Region, ScanError, Shape

_SAME = 0.02  # spacings that differ by less are taken as equal
_FILTER_REACH = 4.0  # standard deviations; what lies farther off does not count


@dataclass(frozen=True)
class ModelGrid:
    """The model's voxels over a box of a scan.

    box : voxels of the box on the scan's grid.
    inner : voxels over the same millimetres on the model's grid.
    padded : `inner`, made up to whole patches at the far end.
    spacing : millimetres between the model's voxels, as met.
    """

    box: Shape
    inner: Shape
    padded: Shape
    spacing: tuple[float, float, float]

    @property
    def resampled(self) -> bool:
        """Whether the two grids differ."""
        return self.box != self.inner

    def box_of(self, region: Region) -> Region:
        """The scan voxels, within the box, that depend on a region of the model's grid, if only by interpolation."""
        start, stop = [], []
        for a, b, n, m in zip(region.start, region.stop, self.box, self.inner, strict=True):
            first, last = (a - 0.5) * n / m - 0.5, (b + 0.5) * n / m - 0.5  # both themselves not any more
            start.append(max(0, min(int(np.floor(first)) + 1, int(np.floor(a * n / m)), n - 1)))
            stop.append(min(n, max(int(np.ceil(last)), int(np.ceil(b * n / m)))))
        return Region(tuple(start), tuple(stop))  # type: ignore[arg-type]

    def slices_for(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each slice of the box, the first and the last of the model's slices that it is made of."""
        voxels = np.arange(self.box[0])
        if not self.resampled:
            return voxels, voxels
        low, high, _ = _between(voxels, self.box[0], self.inner[0])
        return low, high

    def region_of(self, box: Region) -> Region:
        """The model's voxels that a region of the box touches."""
        start, stop = [], []
        for a, b, n, m in zip(box.start, box.stop, self.box, self.inner, strict=True):
            start.append(min(m - 1, int(np.floor(a * m / n))))
            stop.append(min(m, int(np.ceil(b * m / n))))
        return Region(tuple(start), tuple(stop))  # type: ignore[arg-type]

    def point_of(self, voxel: Sequence[float]) -> tuple[float, ...]:
        """Where a voxel of the box lies on the model's grid."""
        return tuple((v + 0.5) * m / n - 0.5 for v, n, m in zip(voxel, self.box, self.inner, strict=True))


def model_grid(box: Shape, scan_spacing: Sequence[float], spacing: Sequence[float], patch: int) -> ModelGrid:
    """Lay the model's grid over a box.

    Raises
    ------
    ScanError : the box is thinner than one patch.
    """
    inner = []
    for n, have, want in zip(box, scan_spacing, spacing, strict=True):
        inner.append(n if abs(have / want - 1) < _SAME else max(1, round(n * have / want)))
    if any(m < patch for m in inner):
        size = times_xyz([n * s for n, s in zip(box, scan_spacing, strict=True)], "{:.0f}")
        least = times_xyz([patch * s for s in spacing], "{:.0f}")
        raise ScanError(f"the scan or region is only {size} mm; this model needs at least {least} mm, one patch")
    met = tuple(n * s / m for n, s, m in zip(box, scan_spacing, inner, strict=True))
    padded = tuple(-(-m // patch) * patch for m in inner)
    return ModelGrid(box, tuple(inner), padded, met)  # type: ignore[arg-type]


def to_model(voxels: NDArray[Any], grid: ModelGrid) -> NDArray[Any]:
    """Bring a box of voxels (z, y, x) to the model's grid, without its padding."""
    return part_to_model(lambda box: voxels[box.slices], grid, Region.whole(grid.inner)) if grid.resampled else voxels


def part_to_model(read: Callable[[Region], NDArray[Any]], grid: ModelGrid, part: Region) -> NDArray[Any]:
    """A part of what `to_model` makes of the whole box, the same to the last bit.

    Parameters
    ----------
    read : gives the voxels (z, y, x) in a box within the grid's box; asked once, for what the part depends on.
    part : voxels of `grid.inner`.

    Returns
    -------
    (z, y, x) of the part: float32, or as they were read if the two grids are the same.
    """
    if not grid.resampled:
        return read(part)
    factors = [n / m for n, m in zip(grid.box, grid.inner, strict=True)]
    # Going coarser, what the new grid cannot hold must go first.
    sigmas = [0.4 * max(0.0, f - 1) if max(factors) > 1.2 else 0.0 for f in factors]
    start, stop = [], []
    for axis, sigma in enumerate(sigmas):
        n, m, reach = grid.box[axis], grid.inner[axis], int(_FILTER_REACH * sigma + 0.5)
        low, high, _ = _between(np.array([part.start[axis], part.stop[axis] - 1]), m, n)
        start.append(max(0, int(low[0]) - reach))
        stop.append(min(n, int(high[1]) + 1 + reach))
    source = read(Region(tuple(start), tuple(stop))).astype(np.float32)  # type: ignore[arg-type]
    if any(sigmas):
        source = ndimage.gaussian_filter(source, sigmas, mode="nearest", truncate=_FILTER_REACH)
    tensor = torch.from_numpy(np.ascontiguousarray(source))[None]
    return _linear(tensor, part, grid.inner, grid.box, start)[0].numpy()


def to_scan(values: Tensor, box: Region, grid: ModelGrid, above: int = 0) -> Tensor:
    """Bring values on the model's grid to a box of the scan's grid.

    Parameters
    ----------
    values : (channels, slices, padded H, padded W); at least the slices that the box needs.
    box : voxels of the grid's box.
    above : slices of the model's grid that come before the first of the values.

    Returns
    -------
    (channels, *box).
    """
    if not grid.resampled:
        _, rows, columns = box.slices
        return values[:, box.start[0] - above : box.stop[0] - above, rows, columns]
    _, height, width = grid.inner
    return _linear(values[:, :, :height, :width], box, grid.box, grid.inner, (above, 0, 0))


def _linear(values: Tensor, box: Region, whole: Shape, stored: Shape, first: Sequence[int]) -> Tensor:
    """Sample (channels, *stored) linearly at the voxels of `box` of a grid `whole` over the same extent.

    Of the stored values those before `first` along each axis may be missing, and any at the far end that the box does
    not need.
    """
    for axis in range(3):
        low, high, share = _between(np.arange(box.start[axis], box.stop[axis]), whole[axis], stored[axis])
        shape = [1] * values.ndim
        shape[axis + 1] = -1
        ends = [torch.from_numpy(ids - first[axis]).to(values.device) for ids in (low, high)]
        weight = torch.from_numpy(share).to(values.dtype).to(values.device).reshape(shape)
        values = values.index_select(axis + 1, ends[0]).lerp(values.index_select(axis + 1, ends[1]), weight)
    return values


def _between(
    voxels: NDArray[np.int64], whole: int, stored: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For voxels along one side of a grid, the two stored ones that each lies between, and the share of the second."""
    at = ((voxels + 0.5) * stored / whole - 0.5).clip(0, stored - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, stored - 1), at - low
