"""Scans in, masks out. One module a format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import nifti
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
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
    path = _path(path)
    try:
        _check_file(path)
    except OSError as error:
        raise ScanError(f"{path} cannot be reached ({error.strerror}); check the name and your permissions") from None
    return nifti.read(path)


def save_mask(path: str | Path, mask: NDArray[np.integer[Any]], scan: Scan, labels: LabelTable) -> Path:
    """Write a mask (z, y, x) on the exact grid of its scan's file, whole or not at all.

    Parameters
    ----------
    mask : whole numbers or booleans, 0 for background and below 255.
    labels : what the numbers mean; stored in the file, see `napari_sparsetok.files.nifti.read_labels`.

    Raises
    ------
    ScanError : the mask does not fit, the name is the scan's own file, or the disk refuses.
    """
    path = _path(path)
    if not can_open(path):
        raise ScanError(f"a mask is saved as NIfTI; let the name end in .nii.gz, not {path.suffix or 'nothing'}")
    if mask.shape != scan.shape:
        raise ScanError(f"the mask has {mask.shape} voxels, the scan {scan.shape}; segment this scan again")
    _check_numbers(mask)
    if scan.source and _same_file(path, scan.source.path):
        raise ScanError(f"{path.name} is the scan itself; choose another name so that it is not overwritten")
    nifti.write_mask(path, mask, scan, labels)
    return path


def _path(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # “~someone” who has no home here
        return Path(path)


def _check_file(path: Path) -> None:
    if path.suffix.lower() in (".hdr", ".img"):
        raise ScanError(f"{path.name} is half of a pair of files (.hdr and .img); convert the pair to one .nii.gz file")
    if path.is_dir():
        raise ScanError(f"{path} is a folder; choose a NIfTI file (.nii or .nii.gz) in it")
    if not can_open(path):
        raise ScanError(f"{path.name} is not a NIfTI file (.nii or .nii.gz); convert it to NIfTI first")
    if not path.exists():
        raise ScanError(f"there is no file {path}; check the name")
    if not path.is_file():
        raise ScanError(f"{path} is not a file that can be read; choose a NIfTI file (.nii or .nii.gz)")


def _check_numbers(mask: NDArray[Any]) -> None:
    if mask.dtype.kind not in "biu":
        raise ScanError(f"a mask holds whole numbers, not {mask.dtype}; round it to label numbers first")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high >= NOT_TISSUE:
        raise ScanError(
            f"the mask holds the number {low if low < 0 else high}; labels are numbered 1 to {NOT_TISSUE - 1}"
        )


def _same_file(path: Path, source: Path) -> bool:
    """Whether both names lead to one file, by whatever links."""
    try:
        return path.samefile(source)
    except OSError:  # one of them does not exist
        return path.resolve() == source.resolve()
