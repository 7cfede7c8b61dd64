"""Windows: where they lie on the token lattice, how they blend, and which token belongs to which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import Region, Shape

_SIGMA = 0.125  # of a window's side, as in MONAI's Gaussian importance map
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """All windows of a volume.

    regions : one box of voxels for each window, all of one shape, starting at multiples of the patch.
    owner : (d, h, w) int32, for each token the window in whose middle it lies; -1 if no window holds it.
    weight : (D, H, W) float32 of one window, how much its voxels count where windows overlap.
    """

    regions: tuple[Region, ...]
    owner: NDArray[np.int32]
    weight: NDArray[np.float32]
    patch: int

    @property
    def window(self) -> Shape:
        """Voxels of one window."""
        return self.regions[0].shape

    def tokens(self, index: int) -> Region:
        """The box of tokens that a window covers."""
        region = self.regions[index]
        return Region(
            tuple(a // self.patch for a in region.start),  # type: ignore[arg-type]
            tuple(b // self.patch for b in region.stop),  # type: ignore[arg-type]
        )

    def by_distance(self, point: Sequence[float], in_rows: bool = False) -> list[int]:
        """The windows' indices, nearest to a voxel first; or row by row along z, so that few are open at a time."""
        middles = np.array([[(a + b) / 2 for a, b in zip(r.start, r.stop, strict=True)] for r in self.regions])
        far = np.abs(middles - np.asarray(point)) / np.asarray(self.window)
        nearest = np.argsort(far.max(axis=1), kind="stable")
        if in_rows:
            row = np.array([r.start[0] for r in self.regions])
            nearest = nearest[np.lexsort((row[nearest], far[nearest, 0]))]
        return [int(i) for i in nearest]

    def holding(self, point: Sequence[float]) -> list[int]:
        """The windows that hold a voxel; the nearest one if none does."""
        ordered = self.by_distance(point)
        inside = [
            i
            for i in ordered
            if all(a <= p < b for a, p, b in zip(self.regions[i].start, point, self.regions[i].stop, strict=True))
        ]
        return inside or ordered[:1]


def plan_windows(
    volume: Shape,
    largest: Shape,
    patch: int,
    overlap: float,
    within: Region | None = None,
    narrowed: Callable[[int, int], Region | None] | None = None,
) -> WindowPlan:
    """Cover a volume, or a box in it, with equal windows.

    Parameters
    ----------
    volume : voxels, multiples of the patch.
    largest : the largest window; a smaller volume gets a smaller one.
    patch : voxels along the edge of a patch; windows start at multiples of it.
    overlap : share of a window's side that the next one covers too, at least.
    within : the box; it is widened to whole patches and to one window. None is the whole volume.
    narrowed : for the row of windows between two slices z, the box that is to be covered there, of which only the sides
        along y and x count; None if nothing is. Without it all rows cover the whole box.
    """
    window = tuple(min(n, w) for n, w in zip(volume, largest, strict=True))
    box = _on_lattice(within or Region.whole(volume), volume, window, patch)
    rows = [z + box.start[0] for z in _starts(box.stop[0] - box.start[0], window[0], patch, overlap)]
    regions = tuple(
        Region((z, *start), tuple(a + w for a, w in zip((z, *start), window, strict=True)))  # type: ignore[arg-type]
        for z in rows
        if (there := narrowed(z, z + window[0]) if narrowed else box) is not None
        for start in itertools.product(*_sides(there, volume, window, patch, overlap))
    )
    weight = _gaussian(window)
    owner = _owners(volume, regions, weight, patch)
    return WindowPlan(regions, owner, weight, patch)


def _sides(box: Region, volume: Shape, window: Sequence[int], patch: int, overlap: float) -> Iterator[list[int]]:
    """Where the windows of a row start along y, and along x."""
    on_lattice = _on_lattice(box, volume, window, patch)
    for a, b, w in list(zip(on_lattice.start, on_lattice.stop, window, strict=True))[1:]:
        yield [a + start for start in _starts(b - a, w, patch, overlap)]


def _on_lattice(box: Region, volume: Shape, window: Sequence[int], patch: int) -> Region:
    """The box of whole patches, at least one window large, around a box in a volume."""
    starts, stops = [], []
    for a, b, n, w in zip(box.start, box.stop, volume, window, strict=True):
        start, stop = a // patch * patch, min(n, -(-b // patch) * patch)
        lacking = max(0, w - (stop - start)) // patch
        start = max(0, start - lacking // 2 * patch)
        start = min(start, n - max(w, stop - start))
        starts.append(start)
        stops.append(max(stop, start + w))
    return Region(tuple(starts), tuple(stops))  # type: ignore[arg-type]


def _starts(length: int, window: int, patch: int, overlap: float) -> list[int]:
    """Evenly spread starts on the lattice, the last one flush with the end."""
    last = length - window
    step = max(patch, int(window * (1 - overlap)) // patch * patch)
    count = -(-last // step) + 1
    if count == 1:
        return [0]
    return sorted({round(last * i / (count - 1) / patch) * patch for i in range(count)})


def _gaussian(window: Sequence[int]) -> NDArray[np.float32]:
    sides = []
    for n in window:
        distance = (np.arange(n) - (n - 1) / 2) / (_SIGMA * n)
        sides.append(np.exp(-0.5 * distance**2))
    weight = np.einsum("i,j,k->ijk", *sides)
    floored: NDArray[np.float32] = np.maximum(weight / weight.max(), _LEAST_WEIGHT).astype(np.float32)
    return floored


def _owners(volume: Shape, regions: Sequence[Region], weight: NDArray[np.float32], patch: int) -> NDArray[np.int32]:
    grid = tuple(n // patch for n in volume)
    # A window's weight at its tokens; both have their peak in the middle and fall alike.
    coarse = _gaussian([n // patch for n in weight.shape])
    best = np.zeros(grid, dtype=np.float32)
    owner = np.full(grid, -1, dtype=np.int32)
    for index, region in enumerate(regions):
        box = tuple(slice(a // patch, b // patch) for a, b in zip(region.start, region.stop, strict=True))
        nearer = coarse > best[box]
        owner[box][nearer] = index
        best[box][nearer] = coarse[nearer]
    return owner
