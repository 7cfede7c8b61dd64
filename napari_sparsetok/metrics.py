"""How well two masks agree, and how large what they show is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lazy_loader
import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Scan

# At first use: opening a window needs none of it.
ndimage = lazy_loader.load("scipy.ndimage", suppress_warning=True)
spatial = lazy_loader.load("scipy.spatial", suppress_warning=True)

_ROWS = 512  # points compared with all others at a time, to bound the memory


def dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Dice coefficient of two boolean masks of one shape; NaN if both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(np.logical_and(a, b))) / total if total else float("nan")


def hausdorff95(a: NDArray[Any], b: NDArray[Any], spacing: Sequence[float]) -> float:
    """95th percentile of the distance between the surfaces of two boolean masks, the larger of both ways, in mm.

    A surface is the voxels of a mask that have a neighbour outside it. NaN if a mask is empty.
    """
    if not a.any() or not b.any():
        return math.nan
    if np.array_equal(a, b):
        return 0.0
    box = ndimage.find_objects((a | b).view(np.uint8))[0]
    edges = [_surface(mask[box]) for mask in (a, b)]
    return max(_way95(mine, theirs, spacing) for mine, theirs in (edges, edges[::-1]))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a mask (z, y, x) that have a neighbour outside it, across a face; beyond the array is outside."""
    within = np.zeros_like(mask)
    middle = (slice(1, -1),) * 3
    within[middle] = mask[middle]
    for axis in range(3):
        for neighbour in (slice(2, None), slice(None, -2)):
            at = [slice(1, -1)] * 3
            at[axis] = neighbour
            within[middle] &= mask[tuple(at)]
    return mask & ~within


def _way95(mine: NDArray[np.bool_], theirs: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """95th percentile of the way from the voxels of one surface to the nearest of the other."""
    count, apart = int(np.count_nonzero(mine)), np.argwhere(mine & ~theirs)
    if len(apart) < 0.05 * (count - 1):  # so many lie on the other surface that the percentile falls among them
        return 0.0
    # A surface is spread evenly enough for a tree that nobody balanced, which is made in half the time.
    tree = spatial.cKDTree(np.argwhere(theirs) * np.asarray(spacing), balanced_tree=False, compact_nodes=False)
    far = np.sort(tree.query(apart * np.asarray(spacing))[0])
    # Of all of them, sorted, the others come first, each 0 away. Between two ranks the percentile is interpolated.
    below, share = divmod(0.95 * (count - 1), 1)
    ranks = (int(below) + len(far) - count, min(int(below) + 1, count - 1) + len(far) - count)
    low, high = (far[rank] if rank >= 0 else 0.0 for rank in ranks)
    return float(low + share * (high - low))


@dataclass(frozen=True)
class Agreement:
    """How far one label of a mask agrees with that of another.

    dice, hd95 (mm) : NaN where undefined. If neither mask has the label, the Dice coefficient is 1: they agree.
    ml, other_ml : volumes in millilitres.
    """

    label: int
    name: str
    dice: float
    hd95: float
    ml: float
    other_ml: float


class Yardstick:
    """A mask (z, y, x) that several are compared with; what does not depend on these is computed once.

    Parameters
    ----------
    mask : not to be changed afterwards.
    spacing : of its voxels, mm.
    labels : to compare.
    """

    def __init__(self, mask: NDArray[Any], spacing: Sequence[float], labels: LabelTable) -> None:
        self._mask, self._spacing, self._labels = mask, spacing, labels
        boxes = ndimage.find_objects(mask, max_label=255)
        self._boxes = {label.id: boxes[label.id - 1] for label in labels}
        self._counts = {
            number: 0 if box is None else int(np.count_nonzero(mask[box] == number))
            for number, box in self._boxes.items()
        }

    def compare(self, mask: NDArray[Any]) -> tuple[Agreement, ...]:
        """A mask on the same grid, label by label. What it takes grows with how far the two differ."""
        if mask.shape != self._mask.shape:
            raise ValueError(
                f"masks of {mask.shape} and {self._mask.shape} voxels cannot be compared; they need one grid"
            )
        places = np.flatnonzero(mask != self._mask)
        now, before = mask.ravel()[places], self._mask.ravel()[places]
        at = np.stack(np.unravel_index(places, mask.shape), axis=1)
        millilitres = float(np.prod(self._spacing)) / 1000
        rows = []
        for label in self._labels:
            gained, lost = at[now == label.id], int(np.count_nonzero(before == label.id))
            theirs = self._counts[label.id]
            ours = theirs + len(gained) - lost
            same, far = 1.0, 0.0
            if len(gained) or lost:
                same = 2.0 * (theirs - lost) / (ours + theirs)
                box = _around([self._boxes[label.id], _box_of(gained)])
                far = hausdorff95(mask[box] == label.id, self._mask[box] == label.id, self._spacing)
            rows.append(Agreement(label.id, label.name, same, far, ours * millilitres, theirs * millilitres))
        return tuple(rows)


def _box_of(places: NDArray[np.intp]) -> tuple[slice, ...] | None:
    """The box of places (N, 3); None of none."""
    if not len(places):
        return None
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(places.min(axis=0), places.max(axis=0), strict=True))


def _around(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...]:
    """A box around those that there are, of which there must be one."""
    sides = zip(*(box for box in boxes if box is not None), strict=True)
    return tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)


@dataclass(frozen=True)
class Volume:
    """What can be measured of one label.

    ml : volume in millilitres.
    mean, sd : of the scan's values in it (standard deviation of these very voxels); None where there are none, or where
        they are no numbers.
    diameter : the largest distance between two points of it in any direction, mm.
    """

    id: int
    name: str
    voxels: int
    ml: float
    mean: float | None
    sd: float | None
    diameter: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to what they mean."""
        row = asdict(self)
        for key, digits in (("ml", 4), ("mean", 4), ("sd", 4), ("diameter", 2)):
            row[key] = None if row[key] is None else round(row[key], digits)
        names = {"mean": "mean_intensity", "sd": "sd_intensity", "diameter": "largest_diameter_mm"}
        return {names.get(key, key): value for key, value in row.items()}


def volumes(
    mask: NDArray[np.uint8],
    scan: Scan,
    labels: LabelTable,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> list[Volume]:
    """Measure every label of a mask.

    Parameters
    ----------
    mask : (z, y, x), on the scan's grid.
    scan : of several channels, the first is measured; one that stays on disk is read only where the labels are.
    step : is told labels done and labels in all, and may raise to end it.
    """
    boxes: Sequence[Any] = ndimage.find_objects(mask)
    channel = scan.voxels[0] if scan.leading == "channel" else scan.voxels
    found = []
    for done, label in enumerate(labels):
        step(done, len(labels))
        box = boxes[label.id - 1] if label.id <= len(boxes) else None
        if box is None:
            found.append(Volume(label.id, label.name, 0, 0.0, None, None, 0.0))
            continue
        shape = mask[box] == label.id
        count = int(np.count_nonzero(shape))
        values = np.asarray(channel[box])[shape].astype(np.float64)
        values = values[np.isfinite(values)]
        mean, sd = (float(values.mean()), float(values.std())) if len(values) else (None, None)
        ml = count * float(np.prod(scan.geometry.spacing)) / 1000
        diameter = largest_diameter(shape, scan.geometry.spacing)
        found.append(Volume(label.id, label.name, count, ml, mean, sd, diameter))
    step(len(labels), len(labels))
    return found


def largest_diameter(shape: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """The largest distance in mm between two points of a shape, (z, y, x); 0 if it is empty.

    Measured between the middles of the voxels' outer faces, so that n voxels in a row are n voxels long.
    """
    middles = np.argwhere(_surface(shape))
    if not len(middles):
        return 0.0
    halves = np.concatenate([0.5 * np.eye(3), -0.5 * np.eye(3)])
    points = (middles[:, None, :] + halves).reshape(-1, 3) * np.asarray(spacing)
    corners = points[spatial.ConvexHull(points).vertices]
    return max(
        float(spatial.distance.cdist(corners[k : k + _ROWS], corners).max()) for k in range(0, len(corners), _ROWS)
    )
