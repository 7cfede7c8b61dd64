"""The text at the head of NRRD and MetaImage files, read before any library allocates what it claims."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_sparsetok.files.reading import check_claim, check_memory
from napari_sparsetok.scan import ScanError

NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")

_LONGEST = 1 << 20  # bytes of header
_NRRD_SIZES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
    **{"float": 4, "double": 8},
}
_META_SIZES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4},
    **{"MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8},
}
_UNPACKED = ("raw", "txt", "text", "ascii")


@dataclass(frozen=True)
class Claim:
    """What a header says of its voxels.

    shape : extents, fastest first.
    placed : whether it says how the patient lay.
    """

    shape: tuple[int, ...]
    placed: bool


def checked_header(path: Path) -> Claim:
    """Read and check the header of an NRRD or MetaImage file.

    Raises
    ------
    ScanError : it is none, claims more than is there or fits, or points to files elsewhere.
    """
    if path.suffix.lower() in NRRD:
        return _nrrd(path, _fields(path, b":", end=b""))
    return _meta(path, _fields(path, b"=", end=b"ElementDataFile"))


def _fields(path: Path, separator: bytes, end: bytes) -> dict[str, str]:
    """The header's lines by name; `end` begins its last line, or is empty if an empty line ends it."""
    with path.open("rb") as raw:
        block = raw.read(_LONGEST)
    if not block:
        raise ScanError(f"{path.name} is empty; copy it again from its source")
    if end == b"" and not block.startswith(b"NRRD00"):
        raise ScanError(f"{path.name} is not an NRRD file, whatever its name says; export the scan again")
    fields: dict[str, str] = {}
    for line in block.split(b"\n"):
        line = line.strip(b"\r \t")
        if not line and end == b"":
            return fields
        name, found, value = line.partition(separator)
        if found and not value.startswith(b"="):  # “key:=value” is a remark of another program
            fields.setdefault(name.strip().decode("latin-1"), value.strip().decode("latin-1"))
        if end and name.strip() == end:
            return fields
    if end:
        raise ScanError(f"{path.name} is not a MetaImage file, whatever its name says; export the scan again")
    return fields  # an .nhdr may end without an empty line


def _nrrd(path: Path, fields: dict[str, str]) -> Claim:
    lowered = {name.lower(): value for name, value in fields.items()}
    shape = _whole_numbers(lowered.get("sizes", ""), path)
    itemsize = _NRRD_SIZES.get(lowered.get("type", "").lower(), 0)
    packed = lowered.get("encoding", "raw").lower() not in _UNPACKED
    data = lowered.get("data file") or lowered.get("datafile") or ""
    if path.suffix.lower() == ".nrrd" and data:
        raise ScanError(f"{path.name} points to other files, which only .nhdr files do; export the scan again")
    if lowered.get("encoding", "raw").lower() in ("bz2", "bzip2"):
        raise ScanError(f"{path.name} is packed with bzip2, which is not read; export it with gzip")
    _check(path, (shape, itemsize), _stored_in(path, data), packed=packed)
    directions = _vectors(lowered.get("space directions", ""))
    if directions and not np.isfinite(directions).all():
        raise ScanError(f"{path.name} has an orientation that holds no numbers; export it again")
    return Claim(shape, "space" in lowered)


def _meta(path: Path, fields: dict[str, str]) -> Claim:
    shape = _whole_numbers(fields.get("DimSize", ""), path)
    itemsize = _META_SIZES.get(fields.get("ElementType", "").upper().removesuffix("_ARRAY"), 0)
    channels = _whole_numbers(fields.get("ElementNumberOfChannels", "1"), path)[0]
    packed = fields.get("CompressedData", "False").lower() in ("true", "1")
    data = fields.get("ElementDataFile", "")
    _check(path, (shape, itemsize * channels), _stored_in(path, "" if data.upper() == "LOCAL" else data), packed=packed)
    placed = any(name in fields for name in ("TransformMatrix", "Rotation", "Orientation", "AnatomicalOrientation"))
    return Claim(shape, placed)


def _check(path: Path, claim: tuple[tuple[int, ...], int], on_disk: int, *, packed: bool) -> None:
    shape, itemsize = claim
    if not itemsize:
        raise ScanError(
            f"{path.name} stores numbers of a kind that is not read; export it as 16-bit integers or 32-bit floats"
        )
    claimed = itemsize
    for extent in shape:
        claimed *= extent
    check_claim(claimed, on_disk, path.name, compressed=packed)
    check_memory(2 * claimed, path.name)


def _stored_in(path: Path, data: str) -> int:
    """Bytes in which the voxels are: of the file itself, or of the one beside it."""
    if not data:
        return path.stat().st_size
    words = data.split()
    if (len(words) != 1 and "%" in data) or data.upper().startswith("LIST"):
        raise ScanError(
            f"{path.name} is spread over many files, which is not read; convert it to one .nrrd or .mha file"
        )
    beside = path.parent / data
    if os.path.basename(data) != data or "\\" in data or not beside.is_file():
        raise ScanError(f"the voxels of {path.name} should be in another file beside it, which is not there; copy both")
    return beside.stat().st_size


def _whole_numbers(text: str, path: Path) -> tuple[int, ...]:
    words = text.split()
    if not 0 < len(words) <= 16 or not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise ScanError(f"{path.name} does not say how many voxels it has; export it again")
    return tuple(int(word) for word in words)


def _vectors(text: str) -> list[float]:
    numbers = []
    for word in text.replace("none", "").replace("(", " ").replace(")", " ").replace(",", " ").split():
        try:
            numbers.append(float(word))
        except ValueError:
            numbers.append(float("nan"))
    return numbers
