"""The text at the head of NRRD and MetaImage files, read before any library allocates what it claims."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from napari_sparsetok.files.raw import Packing, RawBlock
from napari_sparsetok.files.reading import check_claim
from napari_sparsetok.files.units import millimetres
from napari_sparsetok.scan import ScanError

NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")

_LONGEST = 1 << 20  # bytes of header
_MOST_LINES = 10_000  # the library compares each with all before it
_LONGEST_NRRD_LINE, _LONGEST_META_LINE = 500, 20_000  # bytes; the library breaks down from 1,000 and 60,000 on
_LONGEST_PATH = 400  # bytes, for the same reason: it writes it into its messages
_FREE_TEXT = (b"#", b"content: ")  # lines of NRRD that it takes at any length, as it does “key:=value”
# numpy's words for their numbers
_NRRD_KINDS = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
_META_KINDS = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
_UNCLEAR = ("MET_LONG", "MET_ULONG")  # four bytes or eight, by the machine that wrote them
_NRRD_PACKINGS: dict[str, Packing] = {"raw": "", "gz": "gzip", "gzip": "gzip"}
# Where these lead is known. scanner-xyz, 3D-right-handed and -left-handed are no directions of the patient, and
# SimpleITK turns none round that has a time.
_PATIENT_SPACES = (
    *("right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "left-posterior-superior-time"),
    *("ras", "las", "lps", "lpst"),
)
_LPS = "RAI"  # as MetaImage says it, by where the axes come from
_UNSAID = ("", "?", "none", "???")  # what stands for a unit that nobody gave
_UNPACKED = ("raw", "txt", "text", "ascii")


@dataclass(frozen=True)
class Measure:
    """How a header measures.

    millimetres : of the unit that its lengths are in.
    known : whether the unit is one that is known, or left out, which means millimetres.
    sized : whether it gives its voxels a size at all.
    """

    millimetres: float = 1.0
    known: bool = True
    sized: bool = True


@dataclass(frozen=True)
class Claim:
    """What a header says of its voxels.

    shape : extents, fastest first.
    placed : whether it says how the patient lay.
    bytes : what they take unpacked.
    raw : where they lie, if they are grey values that can be taken as they are.
    packing : how they are packed there.
    measure : the unit of its lengths.
    """

    shape: tuple[int, ...]
    placed: bool
    bytes: int
    raw: RawBlock | None = None
    packing: Packing = ""
    measure: Measure = Measure()


@dataclass(frozen=True)
class _Head:
    """A header's fields by name, and where it ends."""

    fields: dict[str, str]
    end: int


def checked_header(path: Path) -> Claim:
    """Read and check the header of an NRRD or MetaImage file.

    Raises
    ------
    ScanError : it is none, claims more than is there, or points to files elsewhere.
    """
    if path.suffix.lower() in NRRD:
        return _nrrd(path, _head(path, b":", end=b""))
    return _meta(path, _head(path, b"=", end=b"ElementDataFile"))


def _head(path: Path, separator: bytes, end: bytes) -> _Head:
    """The header's lines by name; `end` begins its last line, or is empty if an empty line ends it."""
    block, further = _block(path, end)
    fields: dict[str, str] = {}
    at = 0
    for number, whole in enumerate(block.split(b"\n")):
        _check_line(path, number, whole, end)
        at += len(whole) + 1
        line = whole.strip(b"\r \t")
        if not line and end == b"":
            return _Head(fields, at)
        name, found, value = line.partition(separator)
        if found and not value.startswith(b"="):  # “key:=value” is a remark of another program
            fields.setdefault(name.strip().decode("latin-1"), value.strip().decode("latin-1"))
        if end and name.strip() == end:
            return _Head(fields, at)
    if end:
        raise ScanError(f"{path.name} is not a MetaImage file, whatever its name says; export the scan again")
    if further:
        raise _too_long(path)
    return _Head(fields, at)  # an .nhdr may end without an empty line


def _block(path: Path, end: bytes) -> tuple[bytes, bool]:
    """The beginning of the file, and whether more follows."""
    if end == b"" and len(os.fsencode(path)) > _LONGEST_PATH:
        raise ScanError(f"{path.name} lies too deep in folders to be read; copy it to one nearer to the top")
    with path.open("rb") as raw:
        block, further = raw.read(_LONGEST), bool(raw.read(1))
    if not block:
        raise ScanError(f"{path.name} is empty; copy it again from its source")
    if end == b"" and not block.startswith(b"NRRD00"):
        raise ScanError(f"{path.name} is not an NRRD file, whatever its name says; export the scan again")
    return block, further


def _check_line(path: Path, number: int, line: bytes, end: bytes) -> None:
    """Refuse what could take the library that reads it down with the whole program, or would keep it for minutes."""
    if end:
        long = len(line) > _LONGEST_META_LINE
    else:
        remark = line.startswith(_FREE_TEXT) or line.partition(b":")[2].startswith(b"=")
        long = len(line) > _LONGEST_NRRD_LINE and not remark
    if long or number >= _MOST_LINES:
        raise _too_long(path)


def _too_long(path: Path) -> ScanError:
    return ScanError(f"{path.name} has a header that is far longer than that of any scan; export it again")


def _nrrd(path: Path, head: _Head) -> Claim:
    said = {name.lower(): value for name, value in head.fields.items()}
    shape = _whole_numbers(said.get("sizes", ""), path)
    kind = _NRRD_KINDS.get(said.get("type", "").lower(), "")
    encoding = said.get("encoding", "raw").lower()
    data = said.get("data file") or said.get("datafile") or ""
    if path.suffix.lower() == ".nrrd" and data:
        raise ScanError(f"{path.name} points to other files, which only .nhdr files do; export the scan again")
    if encoding in ("bz2", "bzip2"):
        raise ScanError(f"{path.name} is packed with bzip2, which is not read; export it with gzip")
    stored = _stored_in(path, data)
    claimed = _claimed(path, (shape, kind, 1), stored, packed=encoding not in _UNPACKED)
    directions = _vectors(said.get("space directions", ""))
    if directions and not np.isfinite(directions).all():
        raise ScanError(f"{path.name} has an orientation that holds no numbers; export it again")
    order = {"little": "<", "big": ">"}.get(said.get("endian", "").lower(), "|" if kind[-1] == "1" else "")
    packing = _NRRD_PACKINGS.get(encoding)
    skip = said.get("byte skip", said.get("byteskip", "0"))
    unusual = "line skip" in said or "lineskip" in said or packing is None or not order or (packing and skip != "0")
    offset = _offset(skip, 0 if data else head.end, stored, claimed)
    placed = bool(directions) and said.get("space", "").lower() in _PATIENT_SPACES
    sizes = np.isfinite(_vectors(said.get("spacings", ""))).sum()  # “nan” where nobody knows
    measure = _nrrd_measure(said, path, sized=bool(directions) or sizes >= 3)
    if unusual or offset is None:
        return Claim(shape, placed, claimed, measure=measure)
    block = RawBlock(stored, offset, np.dtype(order + kind), shape)
    return Claim(shape, placed, claimed, block, packing or "", measure)


def _nrrd_measure(said: dict[str, str], path: Path, *, sized: bool) -> Measure:
    """From the units of space, or, where voxels have sizes without directions, of the axes."""
    text = said.get("space units") or ("" if said.get("space directions") else said.get("units", ""))
    words = re.findall(r'"([^"]*)"', text) or text.split()
    return _measure([_text(word) for word in words], path, sized=sized)


def _measure(words: Sequence[str], path: Path, *, sized: bool) -> Measure:
    found = {millimetres(word) for word in words if word.strip().lower() not in _UNSAID}
    lengths = found - {0.0}  # an axis of time has a unit too
    if len(lengths) > 1:
        raise ScanError(f"{path.name} measures its axes in different units; export it in millimetres")
    return Measure(next(iter(lengths), 1.0), bool(lengths) or not found, sized)


def _text(word: str) -> str:
    """A word of a header, which was read as Latin-1, as what it is if it is UTF-8: “Âµm” is “µm”."""
    try:
        return word.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return word


def _meta(path: Path, head: _Head) -> Claim:
    said = head.fields
    shape = _whole_numbers(said.get("DimSize", ""), path)
    kind = _META_KINDS.get(said.get("ElementType", "").upper().removesuffix("_ARRAY"), "")
    channels = _whole_numbers(said.get("ElementNumberOfChannels", "1"), path)[0]
    data = said.get("ElementDataFile", "")
    local = data.upper() == "LOCAL"
    stored = _stored_in(path, "" if local else data)
    packed = _is_true(said, "CompressedData")
    claimed = _claimed(path, (shape, kind, channels), stored, packed=packed)
    # SimpleITK does not turn by letters; these alone say what it takes anyway.
    placed = any(name in said for name in ("TransformMatrix", "Rotation", "Orientation"))
    placed = placed or said.get("AnatomicalOrientation", "").upper() == _LPS
    skip = said.get("HeaderSize", "0")
    offset = _offset(skip, head.end if local else 0, stored, claimed)
    measure = _measure([said.get("DistanceUnits", "")], path, sized="ElementSpacing" in said or "ElementSize" in said)
    if offset is None or channels != 1 or not _is_plain(said) or (packed and skip != "0"):
        return Claim(shape, placed, claimed, measure=measure)
    big = _is_true(said, "BinaryDataByteOrderMSB") or _is_true(said, "ElementByteOrderMSB")
    block = RawBlock(stored, offset, np.dtype((">" if big else "<") + kind), shape)
    return Claim(shape, placed, claimed, block, "zlib" if packed else "", measure)


def _is_plain(said: dict[str, str]) -> bool:
    """Whether a MetaImage holds binary grey values that nothing is done to."""
    altered = any(name.startswith("ElementToIntensityFunction") for name in said)
    binary = said.get("BinaryData", "True").lower() in ("true", "1")
    return not altered and binary and said.get("ElementType", "").upper() not in _UNCLEAR


def _is_true(said: dict[str, str], name: str) -> bool:
    return said.get(name, "False").lower() in ("true", "1")


def _offset(skip: str, start: int, stored: Path, claimed: int) -> int | None:
    """Where raw voxels begin: after as many bytes as the header says, or, at -1, so that they end with the file."""
    if skip.strip() == "-1":
        return stored.stat().st_size - claimed
    return start + int(skip) if skip.strip().isdecimal() and len(skip) < 12 else None


def _claimed(path: Path, claim: tuple[tuple[int, ...], str, int], stored: Path, *, packed: bool) -> int:
    shape, kind, channels = claim
    if not kind or not channels:
        raise ScanError(
            f"{path.name} stores numbers of a kind that is not read; export it as 16-bit integers or 32-bit floats"
        )
    claimed = math.prod((np.dtype(kind).itemsize, channels, *shape))
    check_claim(claimed, stored.stat().st_size, path.name, compressed=packed)
    return claimed


def _stored_in(path: Path, data: str) -> Path:
    """Where the voxels are: in the file itself, or in one beside it or in a folder there."""
    if not data:
        return path
    words = data.split()
    if (len(words) != 1 and "%" in data) or data.upper().startswith("LIST"):
        raise ScanError(
            f"{path.name} is spread over many files, which is not read; convert it to one .nrrd or .mha file"
        )
    if not _is_within(path.parent, data):
        raise ScanError(
            f"{path.name} points to voxels that are not beside it or in a folder there; copy them beside it, "
            "and correct the name in its header"
        )
    if not (stored := path.parent / data).is_file():
        raise ScanError(
            f"the voxels of {path.name} should be in another file beside it, or in a folder there, which is not there; "
            "copy both"
        )
    return stored


def _is_within(folder: Path, name: str) -> bool:
    """Whether a name means a file in a folder or below it. One right there may be a link, as archives make them."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or "\\" in name or name.startswith("/") or PureWindowsPath(name).drive:
        return False
    return len(parts) == 1 or (folder / name).resolve().is_relative_to(folder.resolve())


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
