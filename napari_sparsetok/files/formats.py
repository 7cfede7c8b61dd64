"""Which format a path is: by its name, or by a short look inside. Reads no scan and loads no library for it."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from enum import Enum
from pathlib import Path

from napari_sparsetok.scan import ScanError


class Format(Enum):
    """What can be opened, and what to call it."""

    NIFTI = "NIfTI"
    PAIR = "NIfTI or Analyze pair"
    DICOM = "DICOM"
    ITK = "NRRD or MetaImage"
    MGH = "FreeSurfer"
    TIFF = "TIFF"
    OME_ZARR = "OME-Zarr"


NIFTI = (".nii", ".nii.gz")

_SUFFIXES = {
    **dict.fromkeys(NIFTI, Format.NIFTI),
    **dict.fromkeys((".hdr", ".img", ".hdr.gz", ".img.gz"), Format.PAIR),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), Format.ITK),
    **dict.fromkeys((".mgz", ".mgh"), Format.MGH),
    **dict.fromkeys((".tif", ".tiff"), Format.TIFF),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), Format.DICOM),
}
_LOCKED = 1  # the bit of a zip's member that takes a password
_LONGEST_NAME = 200  # characters, in a sentence
_LIST = "DICOM, NIfTI (.nii, .nii.gz), Analyze (.hdr with .img), NRRD, MetaImage, .mgz, TIFF, OME-Zarr"


def recognise(path: Path) -> Format | None:
    """The format, or None where it is none that is read. A name with a known ending need not exist."""
    try:
        return _kind(path)
    except (OSError, ValueError, ScanError):
        return None


def _kind(path: Path) -> Format | None:
    if path.is_dir():
        return _folder(path)
    for suffix, kind in _SUFFIXES.items():
        if path.name.lower().endswith(suffix):
            return Format.DICOM if kind is Format.PAIR and _is_dicom_file(path) else kind
    if not path.is_file():
        return None
    try:
        return Format.DICOM if _holds_dicom(path) else None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError):
        return None


def recognised(path: Path) -> Format:
    """The format of a path that is there.

    Raises
    ------
    ScanError : there is nothing, or nothing that is read.
    """
    try:
        return _checked(path)
    except OSError as error:
        name = str(path) if len(str(path)) <= _LONGEST_NAME else f"…{str(path)[-_LONGEST_NAME:]}"
        raise ScanError(f"{name} cannot be reached ({error.strerror}); check the name and your permissions") from None


def _checked(path: Path) -> Format:
    if path.is_dir():
        return _checked_folder(path)
    if not path.exists() and (recognise(path) or path.suffix.lower() == ".zip" or not path.suffix):
        raise ScanError(f"there is no file {path}; check the name")
    kind = _kind(path)
    if kind is None:
        _check_zip(path)
        raise ScanError(f"{path.name} is not a scan of a kind that is read ({_LIST}); convert it to NIfTI first")
    if not path.is_file():
        raise ScanError(f"{path} is not a file that can be read; choose the file of a scan")
    return kind


def _check_zip(path: Path) -> None:
    """Say why a zip holds no scan that could be seen.

    Raises
    ------
    ScanError : it is locked, or holds further archives.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename and not info.is_dir()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, struct.error):
        return
    if any(info.flag_bits & _LOCKED for info in members):
        raise ScanError(f"{path.name} is locked with a password; unpack it with that, and open the folder")
    if any(info.filename.lower().endswith((".zip", ".7z", ".rar", ".tar", ".gz", ".tgz")) for info in members):
        raise ScanError(f"{path.name} holds further archives, which are not looked into; unpack it, and open those")


def _checked_folder(path: Path) -> Format:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries]
    except PermissionError:
        raise ScanError(f"{path} is a folder that you may not look into; ask its owner for permission") from None
    kind = _folder(path)
    if kind is None and any(name.lower().endswith(".zip") for name in names):
        raise ScanError(f"{path} is a folder without a scan, but with zip files; choose one of them")
    if kind is None:
        from napari_sparsetok.files import ome_zarr

        ome_zarr.check_documents(path)
        raise ScanError(f"{path} is a folder without a DICOM or OME-Zarr scan; choose the folder or file of a scan")
    return kind


def _folder(path: Path) -> Format | None:
    from napari_sparsetok.files import dicom_source, ome_zarr

    if ome_zarr.is_ome_zarr(path):
        return Format.OME_ZARR
    return Format.DICOM if dicom_source.quick_look(path) else None


def _is_dicom_file(path: Path) -> bool:
    """Some scanners call their slices .img."""
    from napari_sparsetok.files import dicom_source

    if not path.is_file():
        return False
    with path.open("rb") as raw:
        return dicom_source.has_preamble(raw.read(132))


def _holds_dicom(path: Path) -> bool:
    """Whether a file without a telling name is DICOM, a DICOMDIR, or a zip with DICOM in it."""
    from napari_sparsetok.files import dicom_source

    with path.open("rb") as raw:
        first = raw.read(132)
    if first[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return dicom_source.quick_look(path)
    return dicom_source.has_preamble(first)
