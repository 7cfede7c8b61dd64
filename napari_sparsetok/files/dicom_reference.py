"""What a scan remembers of the DICOM instances that it came from. Loads no library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOUNSFIELD = ("", "HU", "US")
"""Units of a CT that may be Hounsfield's: where nothing is said they are, and “US” is unspecified."""


@dataclass(frozen=True, repr=False)
class SliceReference:
    """The instance behind one slice, and which of its frames, counted from 1 as DICOM does."""

    sop_class: str
    sop_instance: str
    frame: int
    path: Path
    member: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class DicomHeader:
    """What saving a DICOM SEG needs to refer to its images. For that only: it identifies a person.

    Parameters
    ----------
    slices : for each volume, for each slice in source order (index along the third source axis). Empty if the scan
        was resampled, since then no slice is an instance's.
    sop_class : of its images, which says what measured them.
    unit : of the values, in DICOM's word, as in "HU" or "MGML"; empty where it says none.
    """

    study: str
    series: str
    frame_of_reference: str
    slices: tuple[tuple[SliceReference, ...], ...]
    sop_class: str = ""
    unit: str = ""
