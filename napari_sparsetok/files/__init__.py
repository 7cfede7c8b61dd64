"""Scans in, masks out. One module a format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import nifti
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Scan, ScanError

__all__ = ["can_open", "open_scan", "save_mask"]


def can_open(path: str | Path) -> bool:
    """Whether the name is that of a format that `open_scan` reads."""
    return str(path).lower().endswith(nifti.SUFFIXES)


def open_scan(path: str | Path) -> Scan:
    """Read a scan from disk and turn it to the shown axes.

    Raises
    ------
    ScanError : in one sentence, what is wrong with the file and what to do.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ScanError(f"there is no file {path}; check the name")
    if path.is_dir() or not can_open(path):
        raise ScanError(f"{path.name} is not a NIfTI file (.nii or .nii.gz); convert it to NIfTI first")
    return nifti.read(path)


def save_mask(path: str | Path, mask: NDArray[np.integer], scan: Scan, labels: LabelTable) -> Path:
    """Write a mask (z, y, x) on the exact grid of its scan's file, whole or not at all.

    Raises
    ------
    ScanError : the mask does not fit, the name is the scan's own file, or the disk refuses.
    """
    path = Path(path).expanduser()
    if not path.name.lower().endswith(nifti.SUFFIXES):
        raise ScanError(f"a mask is saved as NIfTI; let the name end in .nii.gz, not {path.suffix or 'nothing'}")
    if mask.shape != scan.shape:
        raise ScanError(f"the mask has {mask.shape} voxels, the scan {scan.shape}; segment this scan again")
    if scan.source and path.exists() and path.samefile(scan.source.path):
        raise ScanError(f"{path.name} is the scan itself; choose another name so that it is not overwritten")
    nifti.write_mask(path, mask, scan, labels)
    return path
