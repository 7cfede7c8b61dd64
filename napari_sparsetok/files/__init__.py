"""Scans in, masks out. One module a format."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import formats
from napari_sparsetok.files.formats import Format
from napari_sparsetok.files.made_by import MadeBy
from napari_sparsetok.files.reading import OpeningStopped, RepairableScanError, SeveralSeriesError, Watch
from napari_sparsetok.files.regrid import resampled_to
from napari_sparsetok.files.series import SeriesInfo
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.scan import Scan, ScanError

__all__ = [
    "can_open",
    "check_mask_name",
    "check_not_of",
    "is_file_of",
    "find_series",
    "open_scan",
    "open_labels",
    "resampled_to",
    "save_mask",
    "mask_suffixes",
    "MASK_SUFFIXES",
    "MadeBy",
    "SeriesInfo",
    "OpeningStopped",
    "RepairableScanError",
    "SeveralSeriesError",
]

MASK_SUFFIXES = (*formats.NIFTI, ".nrrd", ".mha")
"""How the name of a saved mask may end, whatever its scan is; see also `mask_suffixes`."""

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # longer than a drive's letter; Path takes one stroke of two away
_DICOM = (".dcm", ".rtstruct.dcm")


def can_open(path: str | Path) -> bool:
    """Whether `open_scan` would try: by the name, or a short look inside where the name says nothing.

    A folder counts only if it holds DICOM, as far as a few dozen of its files tell, or is an OME-Zarr image.
    """
    return str(path) != "" and formats.recognise(_path(path)) is not None


def find_series(
    path: str | Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[SeriesInfo]:
    """What there is to choose from: the series of a DICOM folder, zip, DICOMDIR or file, the levels of an OME-Zarr.

    Parameters
    ----------
    on_progress : files looked at, files in all (0 while they are counted).
    should_stop : asked between files.

    Returns
    -------
    Best candidate first; empty for a format that holds one scan a file.

    Raises
    ------
    ScanError : nothing can be read there.
    OpeningStopped : `should_stop` asked for it.
    """
    path, kind = _recognised(path)
    watch = Watch(on_progress, should_stop)
    if kind is Format.DICOM:
        from napari_sparsetok.files import dicom_index

        return dicom_index.find_series(path, watch)
    if kind is Format.OME_ZARR:
        from napari_sparsetok.files import ome_zarr

        return ome_zarr.find_levels(path, watch)
    return []


def open_scan(
    path: str | Path,
    *,
    series: SeriesInfo | str | None = None,
    repair: str | Collection[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scan:
    """Read a scan from disk and turn it to the shown axes.

    Parameters
    ----------
    path : a file, or the folder of a DICOM study or an OME-Zarr image.
    series : one of `find_series`, or its key. None takes the only one that there is; of an OME-Zarr, the finest level.
    repair : what the person agreed to, of the names in `RepairableScanError.repairs`.
    on_progress, should_stop : as for `find_series`; in a large file, frames or pieces of it are counted.

    Raises
    ------
    RepairableScanError : the slices do not make a volume; it says what could be done.
    SeveralSeriesError : there are several scans and none was chosen; it lists them.
    ScanError : in one sentence, what is wrong with the file and what to do.
    OpeningStopped : `should_stop` asked for it.
    """
    path, kind = _recognised(path)
    watch = Watch(on_progress, should_stop)
    watch.step(0, 1)
    scan = _read(path, kind, series, _Opening(frozenset(_names(repair)), watch))
    watch.step(1, 1)
    return scan


def open_labels(
    path: str | Path, scan: Scan, *, should_stop: Callable[[], bool] = lambda: False
) -> tuple[NDArray[np.uint8], LabelTable]:
    """Read a mask of a scan that is open: NIfTI, NRRD, MetaImage or .mgz on the same voxels, or a DICOM SEG.

    Returns
    -------
    The mask (z, y, x) on the scan's grid, uint8, and what its numbers mean.

    Raises
    ------
    ScanError : it lies on other voxels, is no mask, or cannot be read.
    OpeningStopped : `should_stop` asked for it.
    """
    from napari_sparsetok.files import dicom_seg, masks

    path, kind = _recognised(path)
    if kind is Format.DICOM and path.is_file() and dicom_seg.is_segmentation(path):
        return masks.read_segmentation(path, scan)
    stored = _read(path, kind, None, _Opening(frozenset(), Watch(should_stop=should_stop)))
    return masks.as_labels(path, stored, scan)


def mask_suffixes(scan: Scan) -> tuple[str, ...]:
    """How the name of a saved mask of this scan may end: `MASK_SUFFIXES`, and of a DICOM series those of DICOM."""
    if scan.source is None or scan.source.format != "dicom":
        return MASK_SUFFIXES
    from napari_sparsetok.files import dicom_origin

    return (*MASK_SUFFIXES, *_DICOM) if dicom_origin.can_refer(scan) else MASK_SUFFIXES


def save_mask(
    path: str | Path,
    mask: NDArray[np.integer[Any]],
    scan: Scan,
    labels: LabelTable,
    made_by: MadeBy | None = None,
) -> Path:
    """Write a mask (z, y, x) on the exact grid of its scan's file, whole or not at all.

    Parameters
    ----------
    path : ends in one of `mask_suffixes(scan)`: .rtstruct.dcm for outlines, other .dcm for a segmentation.
    mask : whole numbers or booleans, 0 for background and below 255.
    labels : what the numbers mean; stored in the file, see `napari_sparsetok.files.open_labels`.
    made_by : what drew it, which DICOM files tell.

    Raises
    ------
    ScanError : the mask does not fit, the name is that of one of the scan's own files, or the disk refuses.
    """
    path = _path(path)
    check_mask_name(path, scan)
    if mask.shape != scan.shape:
        raise ScanError(f"the mask has {mask.shape} voxels, the scan {scan.shape}; segment this scan again")
    _check_numbers(mask)
    if str(path).lower().endswith(_DICOM):
        _write_dicom(path, mask, scan, labels, made_by or MadeBy())
    elif str(path).lower().endswith(formats.NIFTI):
        from napari_sparsetok.files import nifti_mask

        nifti_mask.write_mask(path, mask, scan, labels)
    else:
        from napari_sparsetok.files import itk

        itk.write_mask(path, mask, scan, labels)
    return path


def check_mask_name(path: str | Path, scan: Scan) -> None:
    """Look at the name that a mask of a scan is to have, before it is made.

    Raises
    ------
    ScanError : it ends in no format of masks, or is that of one of the scan's own files.
    """
    path = _path(path)
    if not str(path).lower().endswith((*MASK_SUFFIXES, *_DICOM)):
        raise ScanError(
            f"a mask is saved as NIfTI, NRRD or MetaImage, that of a DICOM series also as DICOM; "
            f"let the name end in .nii.gz, .nrrd, .mha or .dcm, not {path.suffix or 'nothing'}"
        )
    check_not_of(path, scan)


def check_not_of(path: str | Path, scan: Scan) -> None:
    """Refuse to write over one of the files that a scan was read from.

    Raises
    ------
    ScanError : the name leads to one.
    """
    if is_file_of(path, scan):
        raise ScanError(f"{_path(path).name} is the scan itself; choose another name so that it is not overwritten")


def is_file_of(path: str | Path, scan: Scan) -> bool:
    """Whether a name leads to one of the files that a scan was read from, by whatever links."""
    if any(_same_file(_path(path), file) for file in scan.files):
        return True
    if scan.source is None or scan.source.format != "dicom":
        return False
    from napari_sparsetok.files import dicom_origin

    return dicom_origin.is_image_of(_path(path), scan)


def _write_dicom(path: Path, mask: NDArray[np.integer[Any]], scan: Scan, labels: LabelTable, made_by: MadeBy) -> None:
    from napari_sparsetok.files import dicom_rtstruct, dicom_seg_write

    outlines = path.name.lower().endswith(dicom_rtstruct.SUFFIX)
    write = dicom_rtstruct.write_mask if outlines else dicom_seg_write.write_mask
    write(path, mask, scan, labels, made_by)


@dataclass(frozen=True)
class _Opening:
    repair: frozenset[str]
    watch: Watch


def _recognised(path: str | Path) -> tuple[Path, Format]:
    if str(path) == "":  # which Path takes for the current folder
        raise ScanError("no name was given; choose the file or folder of a scan")
    if _ADDRESS.match(str(path)):
        raise ScanError("only files on this computer are opened, no network addresses; copy the scan here first")
    path = _path(path)
    return path, formats.recognised(path)


def _read(path: Path, kind: Format, series: SeriesInfo | str | None, opening: _Opening) -> Scan:
    """Open with the module of the format, which is loaded only now."""
    if kind is Format.DICOM:
        from napari_sparsetok.files import dicom

        return dicom.read(path, series, opening.repair, opening.watch)
    if kind is Format.OME_ZARR:
        from napari_sparsetok.files import ome_zarr

        return ome_zarr.read(path, series.key if isinstance(series, SeriesInfo) else series, opening.watch)
    if series is not None:
        raise ScanError(f"{path.name} holds one scan, so there is no series {series} to choose")
    from napari_sparsetok.files import skew

    return skew.straight(_one_file_reader(kind)(path, opening.watch), opening.repair, opening.watch)


def _one_file_reader(kind: Format) -> Callable[[Path, Watch], Scan]:
    if kind is Format.ITK:
        from napari_sparsetok.files import itk

        return itk.read
    if kind is Format.MGH:
        from napari_sparsetok.files import mgh

        return mgh.read
    if kind is Format.TIFF:
        from napari_sparsetok.files import tiff

        return tiff.read
    from napari_sparsetok.files import nifti

    return nifti.read


def _names(repair: str | Collection[str]) -> list[str]:
    return [name.strip() for name in repair.split(",")] if isinstance(repair, str) else list(repair)


def _path(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # “~someone” who has no home here
        return Path(path)


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
