"""What a run lays over a region of a scan before any window is run: the model's grid, the windows, the tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_sparsetok.engine.body import Outline, outline
from napari_sparsetok.engine.contract import Hints
from napari_sparsetok.engine.resampling import ModelGrid, model_grid
from napari_sparsetok.engine.selection import Lattice
from napari_sparsetok.engine.volume import BRICK, KEPT, Volume
from napari_sparsetok.engine.window import WindowPlan, plan_windows
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Region, Scan, ScanError, Shape
from napari_sparsetok.weights import Card


@dataclass(frozen=True, eq=False)
class Layout:
    """A region of a scan, ready for windows.

    key : what tells it from others; see `key_of`.
    """

    key: tuple[Any, ...]
    volume: Volume
    grid: ModelGrid
    plan: WindowPlan
    lattice: Lattice

    def order(self, region: Region, hints: Hints, card: Card, shown: bool) -> list[int]:
        """The windows in the order in which to run them; it decides what is seen first and what lies open, no voxel."""
        focus = hints.focus or tuple((a + b) // 2 for a, b in zip(region.start, region.stop, strict=True))
        point = self.grid.point_of([f - a for f, a in zip(focus, region.start, strict=True)])
        if hints.focus_only:
            return self.plan.holding(point)
        if not shown:  # row by row from one end, so that the fewest slabs of sums are open at a time
            return self.plan.by_distance((0.0, *point[1:]), in_rows=True)
        in_rows = _sums_bytes(self.grid, card) > psutil.virtual_memory().available / 8
        return self.plan.by_distance(point, in_rows=in_rows)


def key_of(scan: Scan, card: Card, region: Region, replacement: float | None) -> tuple[Any, ...]:
    """What a layout depends on."""
    return (scan.content_hash, card.id, region, replacement)


def lay_out(scan: Scan, card: Card, region: Region, replacement: float | None) -> Layout:
    """Lay a model's grid and windows over a region, and look at all voxels that must be looked at before a run.

    Parameters
    ----------
    replacement : for voxels that are NaN or infinite; None refuses them.

    Raises
    ------
    ScanError : the model cannot run on this scan or region, or there is not enough memory.
    """
    grid = _poolable(model_grid(region.shape, scan.geometry.spacing, card.spacing, card.patch), card)
    channels = _channels(scan, card)
    body = None if card.body is None else outline(channels[0], region, card.body, scan.geometry.spacing)
    _check_memory(grid, card, scan)
    volume = Volume(channels, region, grid, card.intensity, replacement)
    largest = _largest_window(card, grid)
    plan = (
        plan_windows(grid.padded, largest, card.patch, card.overlap)
        if body is None
        else _around(body, grid, largest, card)
    )
    key = key_of(scan, card, region, replacement)
    return Layout(key, volume, grid, plan, Lattice(volume, grid, plan, region))


def _poolable(grid: ModelGrid, card: Card) -> ModelGrid:
    """Made up further, where it is smaller than a window, for a network that pools its tokens two by two.

    Such a one takes an even number of them along each side, and four at least.
    """
    if not card.config.get("pooled_decoder"):
        return grid
    two = 2 * card.patch
    padded = tuple(
        n if n >= w else max(2 * two, -(-n // two) * two) for n, w in zip(grid.padded, card.window, strict=True)
    )
    return replace(grid, padded=padded)  # type: ignore[arg-type]


def _channels(scan: Scan, card: Card) -> NDArray[Any]:
    """The scan as (channels, z, y, x)."""
    if scan.leading == "time":
        raise ScanError("this scan has a time axis; choose one frame of it")
    voxels = scan.voxels if scan.leading == "channel" else scan.voxels[None]
    if len(voxels) != len(card.channels):
        raise ScanError(
            f"“{card.title}” needs {len(card.channels)} volume(s) ({', '.join(card.channels)}), "
            f"but {len(voxels)} were given"
        )
    return voxels


def _around(body: Outline, grid: ModelGrid, largest: Shape, card: Card) -> WindowPlan:
    """Windows around the body; beside the head there are none as wide as the shoulders."""

    def on_grid(box: Region | None) -> Region | None:
        if box is None:
            return None
        inside = [tuple(n - a for n, a in zip(at, body.region.start, strict=True)) for at in (box.start, box.stop)]
        return grid.region_of(Region(*inside))  # type: ignore[arg-type]

    def row(first: int, stop: int) -> Region | None:
        _, height, width = grid.inner
        slices = grid.box_of(Region((first, 0, 0), (min(stop, grid.inner[0]), height, width))).slices[0]
        return on_grid(body.box(slices.start, slices.stop))

    return plan_windows(grid.padded, largest, card.patch, card.overlap, on_grid(body.box()), row)


def _check_memory(grid: ModelGrid, card: Card, scan: Scan) -> None:
    free = psutil.virtual_memory().available
    needed = _needed_bytes(grid, card, scan)
    if needed > free:
        raise ScanError(
            f"segmenting all of this scan needs {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB "
            "are free; choose a region"
        )


def _needed_bytes(grid: ModelGrid, card: Card, scan: Scan) -> int:
    """Bytes that a run holds beside the scan and the network: sums, the masks, and what windows are read from."""
    depth, height, width = grid.padded
    rows = min(1.0, 4 * card.window[0] / depth)  # what lies open while windows are run row by row
    bricks = min(KEPT, 4 * len(card.channels) * depth * height * width)
    layer = 4 * min(BRICK, depth) * height * width  # while all is looked through, one channel after the other
    return int(rows * _sums_bytes(grid, card)) + 3 * int(np.prod(scan.shape)) + bricks + layer


def _sums_bytes(grid: ModelGrid, card: Card) -> int:
    """Bytes that the sums of all windows take, if none could be closed on the way."""
    return 4 * int(np.prod(grid.padded)) * (len(card.labels) + 3)


def _largest_window(card: Card, grid: ModelGrid) -> Shape:
    if card.config.get("positions") != "learned":
        return card.window
    if any(n < w for n, w in zip(grid.padded, card.window, strict=True)):
        raise ScanError(
            f"“{card.title}” takes windows of exactly {times_xyz(card.window)} voxels, "
            "and this scan or region is smaller; choose a larger region"
        )
    return card.window
