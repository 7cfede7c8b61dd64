"""What a scan remembers of the DICOM instances that it came from. Loads no library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    """

    study: str
    series: str
    frame_of_reference: str
    slices: tuple[tuple[SliceReference, ...], ...]
    sop_class: str = ""
