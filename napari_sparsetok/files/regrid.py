"""A scan brought to another scan's grid. Only on request: the values between voxels are made up."""

from __future__ import annotations

from dataclasses import replace

import lazy_loader
import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files.reading import Watch, check_memory, oblique_note
from napari_sparsetok.scan import Geometry, Scan, ScanError

ndimage = lazy_loader.load("scipy.ndimage", suppress_warning=True)  # at first use: opening a window needs none of it

_AT_ONCE = 1 << 20  # voxels between two looks at whether to stop
_COARSER = 1.2  # times; beyond it, what the new grid cannot hold is smoothed away first


def resampled_to(scan: Scan, geometry: Geometry, watch: Watch = Watch()) -> Scan:  # noqa: B008 - frozen
    """A scan on another grid, linearly between voxels; float32, the lowest value where the scan does not reach.

    Parameters
    ----------
    scan : one volume.
    geometry : the grid, as of the scan that is the first channel.

    Raises
    ------
    ScanError : it has several volumes, lies elsewhere, or there is too little memory.
    OpeningStopped : `watch` asked for it.
    """
    if scan.leading:
        raise ScanError("only a single volume is resampled; choose one frame of the scan first")
    if scan.geometry.same_grid(geometry):
        return scan
    needed = 4 * (2 * int(np.prod(scan.shape)) + 2 * int(np.prod(geometry.shape)))
    check_memory(needed, f"“{scan.name}” on the other grid")
    there = np.linalg.inv(scan.geometry.affine) @ geometry.affine
    _check_overlap(scan, geometry, there)
    source = np.asarray(scan.voxels, dtype=np.float32)
    fill = float(np.nanmin(source))
    factors = np.asarray(geometry.spacing) / np.asarray(scan.geometry.spacing)
    if factors.max() > _COARSER:
        source = ndimage.gaussian_filter(source, [0.4 * max(0.0, f - 1) for f in factors], mode="nearest")
    voxels = np.empty(geometry.shape, dtype=np.float32)
    rows = max(1, _AT_ONCE // (geometry.shape[1] * geometry.shape[2]))
    for z in range(0, len(voxels), rows):
        watch.step(z, len(voxels))
        slab, begin = voxels[z : z + rows], there[:3, 3] + z * there[:3, 0]
        ndimage.affine_transform(
            source, there[:3, :3], begin, slab.shape, output=slab, order=1, mode="constant", cval=fill
        )
    note = f"“{scan.name}” was resampled linearly to another scan's voxels."
    turned = oblique_note(scan.geometry.obliqueness)  # which it is no more
    notes = (*(said for said in scan.notes if said != turned), note)
    return replace(scan, voxels=voxels, geometry=geometry, source=None, notes=notes, identity="", origins=scan.files)


def _check_overlap(scan: Scan, geometry: Geometry, there: NDArray[np.float64]) -> None:
    """Refuse a grid of which a coarse raster of points lies nowhere in the scan."""
    raster = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 9) for n in geometry.shape), indexing="ij"), axis=-1)
    points = raster.reshape(-1, 3) @ there[:3, :3].T + there[:3, 3]
    if not ((points > -0.5) & (points < np.asarray(scan.shape) - 0.5)).all(axis=1).any():
        raise ScanError(f"“{scan.name}” lies somewhere else than the first scan; check that both show the same patient")
