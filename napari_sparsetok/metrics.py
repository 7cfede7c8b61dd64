"""How well two masks agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_sparsetok.labels import LabelTable


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
    box = tuple(slice(max(0, int(at.min()) - 1), int(at.max()) + 2) for at in np.nonzero(a | b))
    a, b = a[box], b[box]
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    ways = []
    for mine, theirs in (edges, edges[::-1]):
        far = ndimage.distance_transform_edt(~theirs, sampling=spacing)
        ways.append(float(np.percentile(far[mine], 95)))
    return max(ways)


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


def compare(
    mask: NDArray[Any], other: NDArray[Any], spacing: Sequence[float], labels: LabelTable
) -> tuple[Agreement, ...]:
    """Two masks (z, y, x) on one grid, label by label."""
    if mask.shape != other.shape:
        raise ValueError(f"masks of {mask.shape} and {other.shape} voxels cannot be compared; they need one grid")
    millilitres = float(np.prod(spacing)) / 1000
    rows = []
    for label in labels:
        a, b = mask == label.id, other == label.id
        ours, theirs = int(a.sum()), int(b.sum())
        same = 1.0 if not ours and not theirs else dice(a, b)
        far = 0.0 if not ours and not theirs else hausdorff95(a, b, spacing)
        rows.append(Agreement(label.id, label.name, same, far, ours * millilitres, theirs * millilitres))
    return tuple(rows)
