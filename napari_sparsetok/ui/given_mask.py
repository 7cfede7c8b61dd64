"""Masks that come from files: which of the open scans they belong to, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_sparsetok.files import formats, open_labels
from napari_sparsetok.files.formats import Format
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.scan import Scan, ScanError
from napari_sparsetok.ui.overlays import label_colormap, label_features
from napari_sparsetok.ui.scan_layer import MASK_LABELS, SCAN, Frame, LayerData, placed

_FEW = 64  # an image of more values than this is a mask only if it is patchy
_PATCHY = 0.6  # share of voxels beside a coloured one that have its number; of grey values a tenth at most
_LOOKED_AT = 9  # slices

GivenMask = tuple[Scan, NDArray[np.uint8], LabelTable]


def is_segmentation(path: Path) -> bool:
    """Whether a file can be nothing but a mask: a DICOM segmentation."""
    if not path.is_file() or formats.recognise(path) is not Format.DICOM:
        return False
    from napari_sparsetok.files import dicom_seg

    return dicom_seg.is_segmentation(path)


def segmentation_of(path: Path, scans: Sequence[Scan]) -> GivenMask:
    """A DICOM segmentation, as a mask of the first of these scans that it fits.

    Raises
    ------
    ScanError : it fits none of them.
    """
    trouble = ScanError("this is a DICOM segmentation; open its scan first, then drop it again")
    for scan in scans:
        try:
            return scan, *open_labels(path, scan)
        except ScanError as error:
            trouble = error
    raise trouble


def mask_of(path: Path, opened: Scan, scans: Sequence[Scan]) -> GivenMask | None:
    """A file that was opened as if it were a scan, as a mask of one of these scans; None if it is none.

    It is one if it holds label numbers, see `looks_like_labels`, on exactly the voxels of a scan from another file.
    """
    if not looks_like_labels(opened):
        return None
    for scan in scans:
        if not _same_file(opened, scan) and scan.geometry.same_grid(opened.geometry) and not looks_like_labels(scan):
            return scan, *open_labels(path, scan)
    return None


def mask_layer(given: GivenMask, name: str) -> LayerData:
    """The layer of a mask on its scan, in the colours and with the names of its labels.

    That of one frame of a series is seen with this frame alone.
    """
    scan, mask, labels = given
    place, frame = placed(scan.geometry), scan.source.frame if scan.source is not None else None
    if frame is not None:
        mask, place = mask[None], Frame(frame).before(place)
    colormap: DirectLabelColormap = label_colormap(labels)
    arguments = {
        "name": f"{name} · {scan.name}",
        "colormap": colormap,
        "features": label_features(labels),
        "opacity": 0.5,
        "metadata": {SCAN: scan, MASK_LABELS: labels},
        **place,
    }
    return mask, arguments, "labels"


def looks_like_labels(scan: Scan) -> bool:
    """Whether a scan holds label numbers, 0 among them: a few, or in patches. Many programs store them as fractions."""
    if scan.leading or scan.is_lazy:
        return False
    values = np.unique(scan.sample)
    if len(values) > NOT_TISSUE or not np.isfinite(values).all() or (np.mod(values, 1) != 0).any():
        return False
    if int(values[0]) != 0 or int(values[-1]) >= NOT_TISSUE:
        return False
    return len(values) <= _FEW or _is_patchy(scan.voxels)


def _is_patchy(voxels: NDArray[Any]) -> bool:
    """Whether neighbours in a row mostly have the same number, where there is any."""
    some = voxels[:: max(1, len(voxels) // _LOOKED_AT)]
    one, next_ = some[..., :-1], some[..., 1:]
    coloured = (one != 0) | (next_ != 0)
    return bool(coloured.any()) and float((one == next_)[coloured].mean()) >= _PATCHY


def _same_file(one: Scan, other: Scan) -> bool:
    return one.source is not None and other.source is not None and one.source.path == other.source.path
