"""What the save dialog offers, and what its choice means for the name."""

from __future__ import annotations

import re

from napari_sparsetok.files import mask_suffixes
from napari_sparsetok.scan import Scan

_MASK_FORMATS = {
    ".nii.gz": "NIfTI (*.nii.gz *.nii)",
    ".nrrd": "NRRD (*.nrrd)",
    ".mha": "MetaImage (*.mha)",
    ".dcm": "DICOM segmentation (*.dcm)",
    ".rtstruct.dcm": "DICOM structure set, outlines (*.rtstruct.dcm)",
}


_NO_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')  # on one system or another; “W/O” would lead into a folder “W”
_LONGEST = 150  # bytes; a mask's name has endings besides, and 255 are the most that there may be


def file_name(words: str) -> str:
    """A scan's name, as a file may be called on any system."""
    fit = _NO_NAME.sub("-", words).encode()[:_LONGEST].decode(errors="ignore")
    return fit.strip(" .") or "scan"


def mask_filters(scan: Scan) -> str:
    """What the dialog offers for a mask of this scan: DICOM only where it can refer to the scan's own images."""
    possible = mask_suffixes(scan)
    return ";;".join(words for suffix, words in _MASK_FORMATS.items() if suffix in possible)


def with_ending_of(path: str, chosen: str) -> str:
    """The name with the ending of the format that was chosen; a name that has it, or no known choice, stays.

    A dialog leaves the suggested ending when another format is picked, and the ending decides what is written.
    """
    wanted = next((suffix for suffix, words in _MASK_FORMATS.items() if words == chosen), "")
    known = sorted((e for suffix in _MASK_FORMATS for e in _endings(suffix)), key=len, reverse=True)
    present = next((ending for ending in known if path.lower().endswith(ending)), "")
    if not wanted or present in _endings(wanted):
        return path
    return path[: len(path) - len(present)] + wanted


def _endings(suffix: str) -> tuple[str, ...]:
    return (".nii.gz", ".nii") if suffix == ".nii.gz" else (suffix,)
