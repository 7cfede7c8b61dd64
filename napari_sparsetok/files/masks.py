"""Masks of an open scan, from whatever program: read as labels on the scan's own grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import dicom_seg, itk, nifti
from napari_sparsetok.files.reading import check_memory
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.labels import NOT_TISSUE, Label, LabelTable
from napari_sparsetok.scan import Scan, ScanError


def as_labels(path: Path, stored: Scan, scan: Scan) -> tuple[NDArray[np.uint8], LabelTable]:
    """What a file holds, as a mask of `scan`; see `napari_sparsetok.files.open_labels`.

    Parameters
    ----------
    stored : the file, opened as if it were a scan.
    """
    if stored.leading:
        raise ScanError(f"{path.name} holds several volumes; a mask has one label a voxel")
    if not stored.geometry.same_grid(scan.geometry):
        raise ScanError(
            f"{path.name} lies on other voxels ({_grid(stored)}) than “{scan.name}” ({_grid(scan)}); "
            "open the mask's own scan, or resample the mask in the program that made it"
        )
    if stored.is_lazy:
        check_memory(4 * math.prod(stored.shape) * stored.voxels.dtype.itemsize, path.name)
    values = np.asarray(stored.voxels)
    if values.dtype.kind not in "biu" and not np.equal(np.mod(values, 1), 0).all():
        raise ScanError(f"{path.name} holds fractions, so it is no mask; choose a file of whole label numbers")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= NOT_TISSUE:
        raise ScanError(
            f"{path.name} holds the number {low if low < 0 else high}; labels are numbered 1 to {NOT_TISSUE - 1}"
        )
    mask = values.astype(np.uint8)
    return mask, _complete(_read_labels(path), mask)


def read_segmentation(path: Path, scan: Scan) -> tuple[NDArray[np.uint8], LabelTable]:
    """A DICOM SEG as a mask of `scan`; see `napari_sparsetok.files.open_labels`."""
    mask, table = dicom_seg.read(path, scan)
    return mask, _complete(table, mask)


def _read_labels(path: Path) -> LabelTable | None:
    name = path.name.lower()
    if name.endswith(nifti.SUFFIXES):
        return nifti.read_labels(path)
    return itk.read_labels(path) if name.endswith(itk.SUFFIXES) else None


def _complete(table: LabelTable | None, mask: NDArray[Any]) -> LabelTable:
    """The table, with a plain name for every number in the mask that it does not name."""
    named = {label.id: label for label in table or ()}
    for number in np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist():
        if number and number not in named:
            named[number] = Label.nameless(number)
    return LabelTable(tuple(named[k] for k in sorted(named)))


def _grid(scan: Scan) -> str:
    return f"{times_xyz(scan.shape)} of {times_xyz(scan.geometry.spacing, '{:.3g}')} mm"
