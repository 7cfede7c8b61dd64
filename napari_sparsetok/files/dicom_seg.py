"""DICOM segmentations of an open scan, laid on its grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from napari_sparsetok.files.dicom_code import concept_of
from napari_sparsetok.files.dicom_header import SEGMENTATION, Frame, is_compressed, read_frames
from napari_sparsetok.files.dicom_pixels import check_decoders
from napari_sparsetok.files.dicom_reference import DicomHeader
from napari_sparsetok.files.dicom_source import Item
from napari_sparsetok.files.reading import check_memory, explained
from napari_sparsetok.files.stack import affine_of
from napari_sparsetok.labels import NOT_TISSUE, PALETTE, Label, LabelTable
from napari_sparsetok.scan import Scan, ScanError

_NAME = "this segmentation"
_OFF_GRID = 0.1  # voxels that a pixel may lie beside a voxel; a scan's own slices may lie as far off their place
_ELSEWHERE = (
    "this segmentation lies on other voxels than the scan; open the scan that it was drawn on, "
    "or let its program export it on this one"
)


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation."""
    try:
        with explained(_NAME), path.open("rb") as raw:
            frames = read_frames(Item(path, path.stat().st_size), raw)
    except ScanError:
        return False
    return bool(frames) and frames[0].head.sop_class in SEGMENTATION


def read(path: Path, scan: Scan) -> tuple[NDArray[np.uint8], LabelTable]:
    """Lay the segments on a scan's grid; see `napari_sparsetok.files.open_labels`."""
    with explained(_NAME):
        item = Item(path, path.stat().st_size)
        with path.open("rb") as raw:
            frames = read_frames(item, raw)
        _check_reference(frames, scan)
        if any(frame.head.trouble for frame in frames):
            raise ScanError(f"{_NAME} cannot be used: {frames[0].head.trouble}")
        if any(is_compressed(frame.head.transfer_syntax) for frame in frames):
            check_decoders(frames)
        check_memory(frames[0].head.expected * 10 + int(np.prod(scan.shape)), _NAME)
        dataset = dcmread(path)
        mask = np.zeros(scan.shape, dtype=np.uint8)
        pixels = pixel_array(dataset, raw=True).reshape(len(frames), *frames[0].shape)
        for frame, plane in _segments(dataset, frames, pixels):
            _lay(mask, scan, frame, plane)
        return mask, _table(dataset)


def _check_reference(frames: Sequence[Frame], scan: Scan) -> None:
    """Places count only within one frame of reference: in another, the same numbers are another patient's."""
    header = scan.source.header if scan.source else None
    own = header.frame_of_reference if isinstance(header, DicomHeader) else ""
    theirs = frames[0].head.frame_of_reference if frames else ""
    if own and theirs and own != theirs:
        raise ScanError(
            f"{_NAME} belongs to another examination (its frame of reference is not that of this scan); "
            "open the scan that it was drawn on"
        )


def _segments(
    dataset: Dataset, frames: Sequence[Frame], pixels: NDArray[Any]
) -> Iterator[tuple[Frame, NDArray[np.uint8]]]:
    """Each frame with the label number of every pixel."""
    kind = str(dataset.get("SegmentationType", ""))
    threshold = float(dataset.get("MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 0.0
    for frame in frames:
        plane = pixels[frame.number]
        if kind == "LABELMAP":
            if int(plane.max()) >= NOT_TISSUE:
                raise ScanError(f"{_NAME} numbers its segments above {NOT_TISSUE - 1}; renumber them first")
            yield frame, plane.astype(np.uint8)
            continue
        group = dataset.PerFrameFunctionalGroupsSequence[frame.number]
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        identification = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        number = int(identification[0].ReferencedSegmentNumber)
        if not 1 <= number < NOT_TISSUE:
            raise ScanError(f"{_NAME} has a segment {number}; labels are numbered 1 to {NOT_TISSUE - 1}")
        yield frame, np.where(plane > threshold, np.uint8(number), np.uint8(0))


def _lay(mask: NDArray[np.uint8], scan: Scan, frame: Frame, plane: NDArray[np.uint8]) -> None:
    """Write the pixels of one frame into the voxels that they lie in."""
    if frame.plane is None:
        raise ScanError(f"{_NAME} does not say where it lies; export it again")
    to_voxel = np.linalg.inv(scan.geometry.affine) @ affine_of(frame.plane, frame.plane.axes[2])
    rows, columns = plane.shape
    corners = np.array([(0, 0, 0, 1), (columns - 1, 0, 0, 1), (0, rows - 1, 0, 1)]) @ to_voxel.T
    if np.abs(corners - np.rint(corners)).max() > _OFF_GRID or not _is_turned(to_voxel[:3, :2]):
        raise ScanError(_ELSEWHERE)
    row, column = np.nonzero(plane)
    if not len(row):
        return
    points = np.stack([column, row, np.zeros_like(row), np.ones_like(row)], axis=1) @ to_voxel.T
    voxels = np.rint(points[:, :3]).astype(np.intp)
    if (voxels < 0).any() or (voxels >= np.asarray(mask.shape)).any():
        raise ScanError(_ELSEWHERE)
    z, y, x = voxels.T
    there, new = mask[z, y, x], plane[row, column]
    if ((there != 0) & (there != new)).any():
        raise ScanError(
            "the segments of this segmentation overlap, and a mask has one label a voxel; export them apart"
        )
    mask[z, y, x] = new


def _is_turned(columns: NDArray[np.float64]) -> bool:
    """Whether pixels step from voxel to voxel."""
    return bool(np.abs(np.abs(columns).sum(axis=0) - 1).max() < 1e-3)


def _table(dataset: Dataset) -> LabelTable:
    labels = {}
    for segment in dataset.get("SegmentSequence") or ():
        number = int(segment.get("SegmentNumber") or 0)
        if 1 <= number < NOT_TISSUE:
            name = str(segment.get("SegmentLabel") or f"segment {number}")
            labels[number] = Label(number, name, PALETTE[(number - 1) % len(PALETTE)], concept_of(segment))
    return LabelTable(tuple(labels[k] for k in sorted(labels)))
