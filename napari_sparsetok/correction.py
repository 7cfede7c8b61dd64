"""A clinician's corrections, what they compose to with a prediction, and what is written to change a mask.

Corrections are an array of the scan's shape: 0 no opinion, k label k, 255 (`NOT_TISSUE`) not any label. The model never
writes them and a person never writes a prediction, so a new prediction can never undo what a person did.
Everything here is a pure function of arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import Geometry
from napari_sparsetok.state import TokenMap

Mask = NDArray[np.uint8]
Binary = NDArray[np.bool_]

PLANES = ("axial", "coronal", "sagittal")
"""What the slices across axis 0, 1 and 2 are called."""


def compose(prediction: Mask, corrections: Mask) -> Mask:
    """The final mask: corrections where there is one, else the prediction.

    Works on any part as on the whole, so a change is composed in its box alone.
    """
    mask = prediction.copy()
    parts = zip(mask, corrections, strict=True) if mask.ndim > 1 else [(mask, corrections)]
    for part, said in parts:  # slice by slice: most have no opinion in them, and one fits the processor's cache
        if said.any():
            np.copyto(part, said, where=said != 0)
            np.copyto(part, 0, where=said == NOT_TISSUE)
    return mask


def slices_with(array: NDArray[Any]) -> list[list[int]]:
    """For each axis the slices across it in which anything is not 0.

    Reads slice by slice, so it may be painted on meanwhile.
    """
    found = [np.zeros(n, dtype=bool) for n in array.shape]
    for k, part in enumerate(array):
        found[0][k] = part.any()
        if found[0][k]:
            found[1] |= part.any(axis=1)
            found[2] |= part.any(axis=0)
    return [np.flatnonzero(has).tolist() for has in found]


def tokens_under(corrections: Mask, tokens: TokenMap, geometry: Geometry) -> Binary:
    """The tokens (d, h, w) under the voxels that have an opinion; those outside the region that was segmented are none.

    Parameters
    ----------
    corrections : (z, y, x) on the grid of `geometry`; read slice by slice, so it may be painted on meanwhile.
    """
    places: list[NDArray[np.intp]] = []  # of every voxel along each axis, on the token grid
    for axis, n in enumerate(corrections.shape):
        mm = geometry.origin[axis] + np.arange(n) * geometry.spacing[axis]
        places.append(np.round((mm - tokens.origin[axis]) / tokens.spacing[axis]).astype(np.intp))
    under: Binary = np.zeros(tokens.stage.shape, dtype=bool)
    for k, z in enumerate(places[0].tolist()):
        found = np.argwhere(np.array(corrections[k]))
        y, x = places[1][found[:, 0]], places[2][found[:, 1]]
        inside = (y >= 0) & (y < under.shape[1]) & (x >= 0) & (x < under.shape[2])
        if 0 <= z < len(under):
            under[z, y[inside], x[inside]] = True
    return under & (tokens.stage > 0)


@dataclass(frozen=True, eq=False)
class Edit:
    """Voxels of the corrections to be written in one undo step.

    at : index arrays, one for each axis.
    values : (n,) uint8, the opinions to put there.
    """

    at: tuple[NDArray[np.intp], ...]
    values: Mask

    def __len__(self) -> int:
        return len(self.values)


def edit_towards(wanted: Mask, mask: Mask) -> Edit:
    """What must be written into the corrections so that they compose to `wanted` instead of `mask`.

    Voxels that already are as wanted get no opinion from this: the model may still change its mind about them.
    """
    at = np.nonzero(wanted != mask)
    values = wanted[at]
    return Edit(at, np.where(values == 0, NOT_TISSUE, values).astype(np.uint8))


def begun_from(mask: Mask, numbers: Mapping[int, int], prediction: Mask) -> Mask:
    """Corrections that compose with a prediction to a given mask.

    Where the mask is empty, what the prediction says now is not tissue; where neither says anything, there is no
    opinion.

    Parameters
    ----------
    numbers : what the numbers in `mask` are in the corrections.
    """
    table = np.zeros(256, dtype=np.uint8)
    for number, own in numbers.items():
        table[number] = own
    corrections: Mask = table[mask]
    np.copyto(corrections, NOT_TISSUE, where=(mask == 0) & (prediction != 0))
    return corrections


def replace_label(mask: Mask, label: int, shape: Binary, protected: Collection[int] | None = None) -> Mask:
    """A mask in which `label` has another shape.

    Parameters
    ----------
    protected : labels from which it takes nothing; None protects all others, so that it takes background only.
    """
    wanted = mask.copy()
    np.copyto(wanted, 0, where=(mask == label) > shape)
    free = (mask == 0) if protected is None else ~np.isin(mask, list(protected))
    np.copyto(wanted, label, where=shape & free)
    return wanted
