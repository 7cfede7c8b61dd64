"""Masks as DICOM RT structure sets: closed outlines of each label, slice by slice."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from napari_sparsetok.files.contour import outlines
from napari_sparsetok.files.dicom_code import coded
from napari_sparsetok.files.dicom_origin import STRUCTURE, Origin, SourceSlice, named, new_uid, origin_of, slices_of
from napari_sparsetok.files.made_by import MadeBy
from napari_sparsetok.files.reading import explained
from napari_sparsetok.files.stack import Plane
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import Label, LabelTable
from napari_sparsetok.scan import Scan, ScanError

SUFFIX = ".rtstruct.dcm"

_CONTOUR_DATA = Tag("ContourData")
_STUDY = "1.2.840.10008.3.1.2.3.1"  # the retired class by which structure sets still call a study
_PROGRAM = "napari-sparsetok"
_LONGEST = 64  # characters of a name in DICOM


def write_mask(path: Path, mask: NDArray[np.integer[Any]], scan: Scan, labels: LabelTable, made_by: MadeBy) -> None:
    """Write outlines in the patient's coordinates; see `napari_sparsetok.files.save_mask`.

    Raises
    ------
    ScanError : the scan is not one of DICOM, or the disk refuses.
    """
    origin = origin_of(path, scan)
    pixels = slices_of(mask, scan)
    table = named(labels, pixels)
    if not table:
        raise ScanError("the mask is empty and has no label, so there is nothing to save; segment the scan first")
    with explained("the header of this DICOM series"):
        dataset = _structure_set(origin, made_by)
        dataset.StructureSetROISequence = [_region(label, origin, made_by) for label in table]
        dataset.ROIContourSequence = [_contours(label, pixels, origin) for label in table]
        dataset.RTROIObservationsSequence = [_observation(label) for label in table]
        data = io.BytesIO()
        dataset.save_as(data, enforce_file_format=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def _structure_set(origin: Origin, made_by: MadeBy) -> Dataset:
    """All but the outlines."""
    now = datetime.datetime.now()
    dataset = Dataset()
    dataset.file_meta = _file_meta()
    origin.describe(dataset)
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.InstanceCreationDate = dataset.StructureSetDate = f"{now:%Y%m%d}"
    dataset.InstanceCreationTime = dataset.StructureSetTime = f"{now:%H%M%S}"
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID, dataset.SeriesNumber = new_uid(), origin.series_number
    dataset.SeriesDescription, dataset.OperatorsName = made_by.name, ""
    dataset.InstanceNumber = 1
    dataset.Manufacturer = dataset.ManufacturerModelName = _PROGRAM
    dataset.SoftwareVersions = made_by.version
    dataset.StructureSetLabel = "Segmentation"
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(origin)]
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _file_meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = new_uid()
    # With explicit types an outline could not have more than 64 kB of coordinates.
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return meta


def _frame_of_reference(origin: Origin) -> Dataset:
    series, study, place = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = origin.series
    series.ContourImageSequence = [part.reference() for part in origin.slices]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, origin.study
    study.RTReferencedSeriesSequence = [series]
    place.FrameOfReferenceUID = origin.frame_of_reference
    place.RTReferencedStudySequence = [study]
    return place


def _region(label: Label, origin: Origin, made_by: MadeBy) -> Dataset:
    item = Dataset()
    item.ROINumber = label.id
    item.ReferencedFrameOfReferenceUID = origin.frame_of_reference
    item.ROIName = label.name[:_LONGEST]
    item.ROIGenerationAlgorithm = made_by.kind
    item.ROIGenerationDescription = f"{made_by.name} {made_by.version}"[:_LONGEST]
    return item


def _observation(label: Label) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = label.id
    item.RTROIIdentificationCodeSequence = [coded(label.concept or STRUCTURE)]
    item.RTROIInterpretedType, item.ROIInterpreter = "", ""
    return item


def _contours(label: Label, pixels: NDArray[np.uint8], origin: Origin) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = label.id
    item.ROIDisplayColor = [int(label.color[k : k + 2], 16) for k in (1, 3, 5)]
    found = list(_outlined(pixels == label.id, origin))
    for number, contour in enumerate(found, start=1):
        contour.ContourNumber = number
    if found:
        item.ContourSequence = found
    return item


def _outlined(mask: NDArray[np.bool_], origin: Origin) -> Iterator[Dataset]:
    for plane, part in zip(mask, origin.slices, strict=True):
        for corners in outlines(plane):
            yield _contour(corners, part)


def _contour(corners: NDArray[np.float64], part: SourceSlice) -> Dataset:
    """One outline.

    corners : (n, 2) column and row.
    """
    item = Dataset()
    item.ContourImageSequence = [part.reference()]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(corners)
    item[_CONTOUR_DATA] = _as_text(_in_patient(corners, part.plane))
    return item


def _as_text(points: NDArray[np.float64]) -> RawDataElement:
    """Coordinates as they stand in the file: pydicom looking at each of a million numbers would take half a minute."""
    text = "\\".join([f"{value:.4f}" for value in points.ravel().tolist()]).encode("ascii")
    text += b" " * (len(text) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)


def _in_patient(corners: NDArray[np.float64], plane: Plane) -> NDArray[np.float64]:
    """(n, 3) LPS millimetres."""
    row, column, _ = plane.axes
    between_rows, between_columns = plane.spacing
    return (
        np.asarray(plane.position)
        + np.outer(corners[:, 0], row * between_columns)
        + np.outer(corners[:, 1], column * between_rows)
    )
