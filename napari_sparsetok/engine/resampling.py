"""From a box of a scan to the model's grid and back, without a shift.

Both grids cover the same millimetres, edge to edge; so the model's spacing is met only to within half a voxel
over the whole box, and no voxel moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_sparsetok.scan import Region, ScanError, Shape

_SAME = 0.02  # spacings that differ by less are taken as equal


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
        """The scan voxels that a region of the model's grid touches, within the box."""
        start, stop = [], []
        for a, b, n, m in zip(region.start, region.stop, self.box, self.inner, strict=True):
            start.append(min(n - 1, int(np.floor(a * n / m))))
            stop.append(min(n, int(np.ceil(b * n / m))))
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
        size = " × ".join(f"{n * s:.0f}" for n, s in zip(box, scan_spacing, strict=True))
        least = " × ".join(f"{patch * s:.0f}" for s in spacing)
        raise ScanError(f"the scan or region is only {size} mm; this model needs at least {least} mm, one patch")
    met = tuple(n * s / m for n, s, m in zip(box, scan_spacing, inner, strict=True))
    padded = tuple(-(-m // patch) * patch for m in inner)
    return ModelGrid(box, tuple(inner), padded, met)  # type: ignore[arg-type]


def to_model(voxels: NDArray[Any], grid: ModelGrid) -> NDArray[Any]:
    """Bring a box of voxels (z, y, x) to the model's grid, without its padding."""
    if not grid.resampled:
        return voxels
    source = voxels.astype(np.float32)
    factors = [n / m for n, m in zip(grid.box, grid.inner, strict=True)]
    if max(factors) > 1.2:  # going coarser: what the new grid cannot hold must go first
        source = ndimage.gaussian_filter(source, [0.4 * max(0.0, f - 1) for f in factors], mode="nearest")
    tensor = torch.from_numpy(np.ascontiguousarray(source))[None]
    whole = Region.whole(grid.inner)
    return _linear(tensor, whole, grid.inner, grid.box)[0].numpy()


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
    return _linear(values[:, :, :height, :width], box, grid.box, grid.inner, above)


def _linear(values: Tensor, box: Region, whole: Shape, stored: Shape, above: int = 0) -> Tensor:
    """Sample (channels, *stored) linearly at the voxels of `box` of a grid `whole` over the same extent.

    Of the stored slices those before `above` may be missing, and any that the box does not need.
    """
    for axis in range(3):
        low, high, share = _between(np.arange(box.start[axis], box.stop[axis]), whole[axis], stored[axis])
        first = above if axis == 0 else 0
        shape = [1] * values.ndim
        shape[axis + 1] = -1
        ends = [torch.from_numpy(ids - first).to(values.device) for ids in (low, high)]
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
