"""Masks as DICOM segmentations, through highdicom. Reading them is `dicom_seg`'s business.

highdicom lays out pixels and frames from stand-ins of the source images: headers with positions and nothing else. What
refers to real images or names a patient is put in afterwards, so nothing of it can reach a log of highdicom's.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from napari_sparsetok.files.dicom_code import coded
from napari_sparsetok.files.dicom_origin import (
    STRUCTURE,
    UTF_8,
    Origin,
    SourceSlice,
    decimal,
    named,
    new_uid,
    origin_of,
    slices_of,
)
from napari_sparsetok.files.made_by import MadeBy
from napari_sparsetok.files.reading import explained
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import Concept, Label, LabelTable
from napari_sparsetok.scan import Scan, ScanError

_MR = "1.2.840.10008.5.1.4.1.1.4"  # what the stand-ins claim to be
_PROGRAM = "napari-sparsetok"
_LONGEST = 64  # characters of a name in DICOM


def write_mask(path: Path, mask: NDArray[np.integer[Any]], scan: Scan, labels: LabelTable, made_by: MadeBy) -> None:
    """Write a binary segmentation, a segment for each label; see `napari_sparsetok.files.save_mask`.

    Raises
    ------
    ScanError : highdicom is missing, or the scan is not one of DICOM, or the disk refuses.
    """
    hd = _highdicom()
    origin = origin_of(path, scan)
    pixels = slices_of(mask, scan)
    table = named(labels, pixels)
    if not table:
        raise ScanError("the mask is empty and has no label, so there is nothing to save; segment the scan first")
    with explained("the header of this DICOM series"):
        segmentation = _segmentation(hd, origin, _renumbered(pixels, table), _descriptions(hd, table, made_by))
        origin.describe(segmentation)
        segmentation.SeriesDescription = made_by.name
        _refer(segmentation, origin)
        data = io.BytesIO()
        segmentation.save_as(data, enforce_file_format=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError:
        raise ScanError(
            'saving a DICOM segmentation needs highdicom; install it with pip install "napari-sparsetok[dicom]", '
            "or save as .nii.gz"
        ) from None
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # below, it notes identifiers of images
    return highdicom


def _renumbered(pixels: NDArray[np.uint8], table: Sequence[Label]) -> NDArray[np.uint8]:
    """Numbers 1, 2, … by place in the table, since segments may not leave any out."""
    numbers = np.zeros(256, dtype=np.uint8)
    for number, label in enumerate(table, start=1):
        numbers[label.id] = number
    renumbered: NDArray[np.uint8] = numbers[pixels]
    return renumbered


def _segmentation(hd: Any, origin: Origin, pixels: NDArray[np.uint8], descriptions: Sequence[Any]) -> Dataset:
    first = origin.slices[0].plane
    measures = hd.PixelMeasuresSequence(
        pixel_spacing=first.spacing, slice_thickness=origin.thickness, spacing_between_slices=origin.step
    )
    segmentation: Dataset = hd.seg.Segmentation(
        source_images=[_stand_in(origin, part) for part in origin.slices],
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=new_uid(),
        series_number=origin.series_number,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=_PROGRAM,
        manufacturer_model_name=_PROGRAM,
        software_versions=MadeBy().version,
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description="Segmentation",
        pixel_measures=measures,
        specific_character_set=UTF_8,
    )
    return segmentation


def _stand_in(origin: Origin, part: SourceSlice) -> Dataset:
    """A source image without a patient; what lies where, and a number of its own."""
    plane = part.plane
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = _MR, _name_of(part)
    image.StudyInstanceUID, image.SeriesInstanceUID = origin.study, origin.series
    image.FrameOfReferenceUID = origin.frame_of_reference
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(image, keyword, "")
    image.StudyDate = image.StudyTime = None
    image.Modality = "MR"
    image.Rows, image.Columns = plane.shape
    image.ImagePositionPatient = [decimal(v) for v in plane.position]
    image.ImageOrientationPatient = [decimal(v) for v in origin.slices[0].plane.orientation]
    image.PixelSpacing = [decimal(v) for v in plane.spacing]
    image.SliceThickness = decimal(origin.thickness)
    return image


def _name_of(part: SourceSlice) -> str:
    return str(generate_uid(entropy_srcs=[part.sop_instance, str(part.frame)]))


def _refer(segmentation: Dataset, origin: Origin) -> None:
    """Put the real images where the stand-ins are."""
    real = {_name_of(part): part for part in origin.slices}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence") or ():
            for item in derivation.SourceImageSequence:
                part = real.get(str(item.ReferencedSOPInstanceUID))
                if part:  # else it is done: segments share these items
                    item.update(part.reference())
    segmentation.SourceImageSequence = origin.instances()
    series = Dataset()
    series.SeriesInstanceUID = origin.series
    series.ReferencedInstanceSequence = origin.instances()
    segmentation.ReferencedSeriesSequence = [series]


def _descriptions(hd: Any, table: Sequence[Label], made_by: MadeBy) -> list[Any]:
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=made_by.name, family=codes.DCM.ArtificialIntelligence, version=made_by.version
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label.name[:_LONGEST],
            segmented_property_category=_code(STRUCTURE),
            segmented_property_type=_code(label.concept or STRUCTURE),
            algorithm_type=made_by.kind,
            algorithm_identification=algorithm,
            display_color=hd.color.CIELabColor.from_string(label.color),
        )
        for number, label in enumerate(table, start=1)
    ]
    for description, label in zip(descriptions, table, strict=True):  # highdicom's own argument takes no modifier
        description.SegmentedPropertyTypeCodeSequence[0].update(coded(label.concept or STRUCTURE))
    return descriptions


def _code(concept: Concept) -> Code:
    return Code(concept.value, concept.scheme, concept.meaning[:_LONGEST])
