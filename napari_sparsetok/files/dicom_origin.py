"""The DICOM images under a mask: where each of its slices lies, and what a new object of the same study says of them.

Here, and nowhere else, data of a patient is taken from one file to another: an object that belongs to a study must name
its patient. Nothing of it is logged or shown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DSfloat

from napari_sparsetok.files.dicom_header import Frame, read_frames
from napari_sparsetok.files.dicom_reference import DicomHeader, SliceReference
from napari_sparsetok.files.dicom_source import Item, Opener, items_at
from napari_sparsetok.files.reading import Watch, explained
from napari_sparsetok.files.stack import Plane
from napari_sparsetok.labels import PALETTE, Concept, Label, LabelTable
from napari_sparsetok.scan import Scan, ScanError

SOURCE = "the DICOM series of this scan"
STRUCTURE = Concept("91723000", "SCT", "Anatomical Structure")
"""What a label without a concept of its own is."""

UTF_8 = "ISO_IR 192"

# Present even where the source lacks them, empty then.
_ALWAYS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_IF_THERE = (
    *("IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    "StudyDescription",
)
_OF_THE_SERIES = ("PositionReferenceIndicator", "SliceThickness", "SeriesNumber", "SharedFunctionalGroupsSequence")
_TAGS = [*_ALWAYS, *_IF_THERE, *_OF_THE_SERIES]


@dataclass(frozen=True, repr=False)
class SourceSlice:
    """One slice of the mask and the image under it.

    frame : its frame number, counted from 1; 0 if the file has only one.
    """

    sop_class: str
    sop_instance: str
    frame: int
    plane: Plane

    def reference(self) -> Dataset:
        """What a sequence of references says of it."""
        item = Dataset()
        item.ReferencedSOPClassUID = self.sop_class
        item.ReferencedSOPInstanceUID = self.sop_instance
        if self.frame:
            item.ReferencedFrameNumber = self.frame
        return item


@dataclass(frozen=True, eq=False, repr=False)
class Origin:
    """The series that a mask was drawn on.

    Parameters
    ----------
    slices : by index along the third source axis.
    step : millimetres from slice to slice.
    head : header of the first image; names a patient.
    """

    study: str
    series: str
    frame_of_reference: str
    slices: tuple[SourceSlice, ...]
    step: float
    head: Dataset = field(default_factory=Dataset)

    @property
    def series_number(self) -> int:
        """A number for the new series, above those that scanners use."""
        return 1000 + max(0, int(self.head.get("SeriesNumber") or 0))

    @property
    def thickness(self) -> float:
        """Millimetres that a slice is thick; the distance to the next where nothing is said."""
        shared = self.head.get("SharedFunctionalGroupsSequence") or [Dataset()]
        measures = shared[0].get("PixelMeasuresSequence") or [Dataset()]
        return float(self.head.get("SliceThickness") or measures[0].get("SliceThickness") or self.step)

    def describe(self, dataset: Dataset) -> None:
        """Write whose study it is, and no more than an archive needs to file it there."""
        dataset.SpecificCharacterSet = UTF_8
        for keyword in _ALWAYS:
            setattr(dataset, keyword, _value(self.head, keyword))
        for keyword in _IF_THERE:
            if self.head.get(keyword):
                setattr(dataset, keyword, _value(self.head, keyword))
        dataset.StudyInstanceUID = self.study
        dataset.FrameOfReferenceUID = self.frame_of_reference
        dataset.PositionReferenceIndicator = _value(self.head, "PositionReferenceIndicator")

    def instances(self) -> list[Dataset]:
        """A reference to each image once, whatever frames of it are used."""
        unique = {part.sop_instance: part for part in self.slices}
        found = []
        for part in unique.values():
            item = part.reference()
            item.pop("ReferencedFrameNumber", None)
            found.append(item)
        return found


def can_refer(scan: Scan) -> bool:
    """Whether each slice of a scan is an image of a DICOM series that was opened."""
    return not _obstacle(scan)


def is_image_of(path: Path, scan: Scan) -> bool:
    """Whether a name leads to a file of the DICOM series that a scan was read from."""
    header = scan.source.header if scan.source else None
    if not isinstance(header, DicomHeader) or not os.path.exists(path):  # Path's own stumbles over names too long
        return False
    files = {part.path for volume in header.slices for part in volume}
    return any(file.exists() and path.samefile(file) for file in files)


def origin_of(path: Path, scan: Scan) -> Origin:
    """The images under a mask of `scan` that is saved at `path`.

    Raises
    ------
    ScanError : there are none, or they have changed.
    """
    obstacle = _obstacle(scan)
    if obstacle or not scan.source:
        raise ScanError(f"{path.name} cannot be saved as DICOM: {obstacle}; save it as .nii.gz or .nrrd")
    header: DicomHeader = scan.source.header
    references = header.slices[scan.source.frame or 0]
    with explained(SOURCE):
        slices, head = _read(references)
    step = float(np.linalg.norm(scan.geometry.source_affine[:3, 2]))
    place = header.frame_of_reference or str(generate_uid(entropy_srcs=[header.series]))
    return Origin(header.study, header.series, place, slices, step, head)


def slices_of(mask: NDArray[np.integer[Any]], scan: Scan) -> NDArray[np.uint8]:
    """A mask (z, y, x) as the scanner's own pictures: (slices, rows, columns)."""
    return np.ascontiguousarray(scan.geometry.to_source(mask).transpose(2, 1, 0).astype(np.uint8))


def named(labels: LabelTable, mask: NDArray[np.uint8]) -> list[Label]:
    """The labels of a table, and a plain name for every other number in a mask."""
    table = {label.id: label for label in labels}
    for number in np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist():
        if number and number not in table:
            table[number] = Label(number, f"label {number}", PALETTE[(number - 1) % len(PALETTE)])
    return [table[number] for number in sorted(table)]


def decimal(value: float) -> DSfloat:
    """A number in the sixteen characters that DICOM gives it."""
    return DSfloat(float(value), auto_format=True)


def new_uid() -> UID:
    """An identifier that says nothing of this computer."""
    return generate_uid(prefix=None)


def _obstacle(scan: Scan) -> str:
    source = scan.source
    if source is None or source.format != "dicom" or not isinstance(source.header, DicomHeader):
        return "the scan was not opened from DICOM, so there is no study that it could belong to"
    volumes = source.header.slices
    if not volumes:
        return "the scan was resampled when it was opened, so no DICOM image lies under its slices"
    if source.frame is None and len(volumes) > 1:
        return "the scan has several volumes, and the mask does not say which of them it belongs to"
    return ""


def _read(references: tuple[SliceReference, ...]) -> tuple[tuple[SourceSlice, ...], Dataset]:
    """Where each image lies by its own header, and the header of the first."""
    frames: dict[tuple[str, int], tuple[Frame, bool]] = {}
    head = Dataset()
    with Opener() as opener:
        for item in _items(references):
            with opener.open(item) as stream:
                found = read_frames(item, stream)
                if not head:
                    stream.seek(0)
                    head = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            frames |= {(frame.uid, frame.number + 1): (frame, len(found) > 1) for frame in found}
    return tuple(_slice(part, frames) for part in references), head


def _items(references: tuple[SliceReference, ...]) -> list[Item]:
    """The files of the slices, each once."""
    files = dict.fromkeys((part.path, part.member) for part in references)
    if not any(member for _, member in files):
        return [Item(path, path.stat().st_size) for path, _ in files]
    archives = {path for path, _ in files}
    there = {(item.path, item.member): item for path in archives for item in items_at(path, Watch())}
    return [there[key] for key in files if key in there]


def _slice(part: SliceReference, frames: dict[tuple[str, int], tuple[Frame, bool]]) -> SourceSlice:
    frame, several = frames.get((part.sop_instance, part.frame), (None, False))
    if frame is None or frame.plane is None:
        raise ScanError(f"{SOURCE} has changed on disk since it was opened; open it again")
    return SourceSlice(part.sop_class, part.sop_instance, part.frame if several else 0, frame.plane)


def _value(head: Dataset, keyword: str) -> Any:
    """A value that is free of the source's character set."""
    value = head.get(keyword)
    if value is None or value == "":
        return None if keyword in ("StudyDate", "StudyTime", "PatientBirthDate") else ""
    return str(value) if dictionary_VR(keyword) == "PN" else value
