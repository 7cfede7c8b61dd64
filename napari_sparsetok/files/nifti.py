"""NIfTI-1 and NIfTI-2 in one file or a pair, and Analyze 7.5, through nibabel, checked on the way.

nibabel reads header and voxels, one after the other, so that nothing is believed before it is checked: a file may
claim any size, may end early, and its checksum stands behind the last voxel, where a reader that stops at that voxel
never looks.
"""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1PairHeader
from nibabel.nifti2 import Nifti2PairHeader
from nibabel.spatialimages import HeaderDataError
from nibabel.spm99analyze import Spm99AnalyzeHeader
from nibabel.volumeutils import array_from_file
from numpy.typing import NDArray

from napari_sparsetok.files import pair, raw
from napari_sparsetok.files.pair import Files
from napari_sparsetok.files.raw import RawBlock, StoredVoxels
from napari_sparsetok.files.reading import (
    Watch,
    check_claim,
    check_end,
    check_memory,
    explained,
    oblique_note,
    size_text,
    watched,
)
from napari_sparsetok.files.unpacking import Unpacked, is_packed, opened
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Scan, ScanError, Source

SUFFIXES = (".nii", ".nii.gz")

# What a mask's header takes over from its scan's: where the voxels lie, and no word that could name a patient.
_PLACE = (
    *("pixdim", "dim_info", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # by NIfTI's code for metres, millimetres and micrometres
_UNITS = 7  # the bits of xyzt_units that speak of space
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by length in bytes
_PAIR_HEADERS = {348: Nifti1PairHeader, 540: Nifti2PairHeader}
_MAGIC_AT = {348: 344, 540: 4}  # where NIfTI says that it is one
_GREY = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # integers and floats of up to 64 bits
_ANALYZE_GREY = (2, 4, 8, 16, 64, 130, 132, 136)  # the last three are SPM's
_NOT_GREY = dict.fromkeys((128, 2304), "colours") | dict.fromkeys((32, 1792, 2048), "complex numbers")
_COMMENT = 6  # NIfTI's code for an extension that is text
_FURTHEST = 256 << 20  # bytes that may have to be unpacked before the first voxel
_LARGEST_NOTE = 1 << 20  # bytes of extensions that are looked through for label names
_FACTOR = "Its header multiplies the stored values by {slope:g}, as SPM writes it; that was done."
_TWO_PLACES = "Its header gives the voxels two places (sform and qform), up to {shift:.1f} mm apart; the sform is used."
_TWO_SIDES = (
    "Its header contradicts itself: by its sform the axes lead to {used}, by its qform to {other}. The sform is used. "
    "If it is the wrong one, {swapped}: make sure of it before you rely on this scan."
)
_APART = 0.25  # of a voxel: a qform is rounded by as much in large scans

Stream = IO[bytes] | Unpacked

# For nibabel's remarks on headers, which go to nobody: what matters of them becomes a note.
_silent = logging.Logger("silent", level=logging.CRITICAL + 1)


@dataclass(frozen=True, eq=False)
class _Found:
    """A header that was checked, and the voxels (x, y, z[, t]) as stored, in memory or still on disk."""

    path: Path
    raw: Any
    header: Any
    stored: NDArray[Any]
    block: RawBlock | None = None


def read(path: Path, watch: Watch = Watch()) -> Scan:  # noqa: B008 - frozen
    """Read one file, or either half of a pair; see `napari_sparsetok.files.open_scan`."""
    with explained(path.name):
        found = _found(path, pair.files_of(path), watch)
        header = found.header
        geometry = Geometry(tuple(header.get_data_shape()[:3]), _affine(header))
        turned = geometry.to_shown(found.stored)
        leading: Literal["", "time"] = "time" if turned.ndim == 4 else ""
        voxels = _values(np.moveaxis(turned, 3, 0) if leading else turned, found)
        return Scan(
            voxels=voxels,
            geometry=geometry,
            name=_plain_name(path),
            leading=leading,
            source=Source(path.resolve(), "nifti", _place_of(found.raw))
            if _is_nifti(header)
            else Source(path.resolve(), "analyze"),
            notes=_notes(header, geometry),
            identity=raw.identity(found.block) if found.block else "",
        )


def _found(path: Path, files: Files, watch: Watch) -> _Found:
    with opened(files.header, watch) as stream:
        unchecked = _raw_header(stream, path, paired=files.is_pair)
    _check_numbers(unchecked, path)
    header = unchecked.copy()
    header.check_fix(logger=_silent, error_level=40)
    _check_shape(unchecked, header, path)
    shape = tuple(int(n) for n in header.get_data_shape())
    kept = shape[:3] + tuple(n for n in shape[3:] if n != 1)
    block = RawBlock(files.voxels, int(header.get_data_offset()), header.get_data_dtype(), kept)
    needed = _checked_size(block, header, path)
    if not is_packed(files.voxels) and raw.stays_on_disk(needed):
        _check_range(block.dtype, _scaling(header), path)
        return _Found(path, unchecked, header, raw.mapped(block), block)
    check_memory(needed, path.name)
    return _Found(path, unchecked, header, _stored(block, watch))


def read_labels(path: str | Path) -> LabelTable | None:
    """The label names that `save_mask` wrote into a file, or None where there are none.

    Raises
    ------
    ScanError : the file cannot be read as NIfTI.
    """
    path = Path(path)
    with explained(path.name), opened(path) as stream:
        header = _raw_header(stream, path)
        if not 0 < float(header["vox_offset"]) <= _LARGEST_NOTE:
            return None
        whole = io.BytesIO(header.binaryblock + stream.read(int(header["vox_offset"]) - len(header.binaryblock)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an extension of another program, not padded to 16 bytes
        try:
            extensions = type(header).from_fileobj(whole, check=False).extensions
        except (HeaderDataError, ValueError):
            return None
    tables = (_labels_in(e.get_content()) for e in extensions if e.get_code() == _COMMENT)
    return next((table for table in tables if table), None)


def _labels_in(content: str | bytes) -> LabelTable | None:
    try:
        return LabelTable.from_json(json.loads(content)["labels"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _raw_header(stream: Stream, path: Path, *, paired: bool = False) -> Any:
    """The header as it lies in the file, without extensions; nothing in it is corrected."""
    first = stream.read(4)
    if not first:
        raise ScanError(f"{path.name} is empty; copy it again from its source")
    sizes = {int.from_bytes(first, order) for order in ("little", "big")} & _HEADERS.keys()
    if not sizes:
        kind = "of a NIfTI or Analyze pair" if paired else "a NIfTI file"
        raise ScanError(f"{path.name} is not {kind}, whatever its name says; convert the scan to NIfTI first")
    size = sizes.pop()
    block = first + stream.read(size - 4)
    if len(block) < size:
        raise EOFError
    magic = block[_MAGIC_AT[size] :][:2]
    if magic == b"ni" and not paired:
        raise ScanError(
            f"{path.name} is half of a pair of files, under the name of a whole one; "
            "copy both halves and let their names end in .hdr and .img"
        )
    if paired and magic == b"n+":
        raise ScanError(f"{path.name} is no half of a pair but a whole NIfTI file; copy it to a name that ends in .nii")
    if paired and size == 348 and magic != b"ni":
        return Spm99AnalyzeHeader(block, check=False)
    return (_PAIR_HEADERS if paired else _HEADERS)[size](block, check=False)


def _is_nifti(header: Any) -> bool:
    return "magic" in header.keys()  # noqa: SIM118 - not a mapping


def _check_numbers(header: Any, path: Path) -> None:
    code = int(header["datatype"])
    if code in _NOT_GREY:
        raise ScanError(f"{path.name} stores {_NOT_GREY[code]}; a scan needs one grey value a voxel")
    if code not in (_GREY if _is_nifti(header) else _ANALYZE_GREY):
        raise ScanError(
            f"{path.name} stores numbers of a kind that is not read (NIfTI's type {code}); "
            "export it as 16-bit integers or 32-bit floats"
        )
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"]) if _is_nifti(header) else 0.0
    if math.isinf(slope) or (math.isfinite(slope) and slope != 0 and not math.isfinite(inter)):
        raise ScanError(f"{path.name} scales its values with slope {slope:g} and intercept {inter:g}; export it again")


def _check_shape(unchecked: Any, header: Any, path: Path) -> None:
    shape = tuple(int(n) for n in header.get_data_shape())
    if any(n <= 0 for n in shape):
        raise ScanError(f"{path.name} holds no voxels (its header says {shape}); export it again")
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise ScanError(f"{path.name} holds a flat picture of {shape} voxels; a scan needs a stack of slices")
    if any(n != 1 for n in shape[4:]):
        raise ScanError(f"{path.name} has {len(shape)} axes {shape}; split it into volumes or one series over time")
    lengths = unchecked["pixdim"][1:4]
    placed = _is_nifti(header) and int(header["sform_code"]) != 0
    if not placed and not (np.isfinite(lengths).all() and (lengths != 0).all()):
        raise ScanError(f"{path.name} gives its voxels no size ({', '.join(map(str, lengths))} mm); export it again")


def _checked_size(block: RawBlock, header: Any, path: Path) -> int:
    """What the voxels take in memory, after a look at whether the file can hold them."""
    claimed = block.offset + block.bytes
    packed = is_packed(block.path)
    check_claim(claimed, block.path.stat().st_size, path.name, compressed=packed)
    if packed and block.offset > _FURTHEST:
        raise ScanError(
            f"{path.name} says that its voxels lie far behind its header ({size_text(block.offset)}); export it again"
        )
    if _scaling(header) is None:
        return block.bytes
    return block.bytes + block.bytes // block.dtype.itemsize * _float_for(block.dtype).itemsize


def _stored(block: RawBlock, watch: Watch) -> NDArray[Any]:
    """The voxels as the file has them, in its order: (x, y, z) or (x, y, z, t)."""
    with opened(block.path, watch) as stream:
        source = watched(stream, block.bytes, watch)
        stored = array_from_file(block.shape, block.dtype, source, block.offset, order="F", mmap=False)
        if isinstance(stream, Unpacked):
            check_end(stream)
    return raw.native(stored)


def _values(stored: NDArray[Any], found: _Found) -> Any:
    """The values that the stored numbers stand for, in the smallest type that keeps them apart."""
    scaling = _scaling(found.header)
    if found.block is None:
        return stored if scaling is None else _scaled_whole(stored, scaling, found.path)
    kind = stored.dtype.newbyteorder("=") if scaling is None else _float_for(stored.dtype)
    return StoredVoxels(stored, found.block.path, kind, partial(_scaled, scaling=scaling))


def _scaled(array: NDArray[Any], scaling: tuple[float, float] | None) -> NDArray[Any]:
    if scaling is None:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(_float_for(array.dtype))
        values *= scaling[0]
        values += scaling[1]
    return values


def _scaled_whole(array: NDArray[Any], scaling: tuple[float, float], path: Path) -> NDArray[Any]:
    values = _scaled(array, scaling)
    broken = ~np.isfinite(values)
    if broken.any() and np.isfinite(array[broken]).any():
        raise _out_of_range(scaling, path)
    return values


def _check_range(dtype: np.dtype[Any], scaling: tuple[float, float] | None, path: Path) -> None:
    """Of voxels that are not read: refuse a scaling that would take the largest whole numbers out of range."""
    if scaling is None or dtype.kind == "f":
        return
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype=dtype.newbyteorder("="))
    if not np.isfinite(_scaled(ends, scaling)).all():
        raise _out_of_range(scaling, path)


def _out_of_range(scaling: tuple[float, float], path: Path) -> ScanError:
    slope, inter = scaling
    return ScanError(
        f"the scaling in the header of {path.name} (slope {slope:g}, intercept {inter:g}) takes its values out "
        "of range; export the scan again"
    )


def _scaling(header: Any) -> tuple[float, float] | None:
    slope, inter = header.get_slope_inter()
    scaling = (1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))
    return None if scaling == (1.0, 0.0) else scaling


def _float_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    narrow = dtype.itemsize <= 2 or dtype.newbyteorder("=") == np.float32
    return np.dtype(np.float32 if narrow else np.float64)


def _affine(header: Any) -> NDArray[np.float64]:
    """(4, 4), from voxel indices to RAS millimetres, whatever unit the file counts in."""
    return _in_millimetres(header.get_best_affine(), header)


def _in_millimetres(matrix: NDArray[Any], header: Any) -> NDArray[np.float64]:
    affine = np.array(matrix, dtype=np.float64)
    if _is_nifti(header):
        affine[:3] *= _MILLIMETRES.get(int(header["xyzt_units"]) & _UNITS, 1.0)
    return affine


def _place_of(unchecked: Any) -> Any:
    """A header that says where the voxels lie exactly as this one does, and nothing else."""
    bare = _HEADERS[len(unchecked.binaryblock)](endianness=unchecked.endianness)
    for key in _PLACE:
        bare[key] = unchecked[key]
    bare["pixdim"][4:] = 1
    bare["xyzt_units"] = int(unchecked["xyzt_units"]) & _UNITS
    return bare


def _notes(header: Any, geometry: Geometry) -> tuple[str, ...]:
    notes = []
    if not _is_nifti(header):
        notes.append(SIDES_UNKNOWN)
        if scaling := _scaling(header):
            notes.append(_FACTOR.format(slope=scaling[0]))
    elif not int(header["sform_code"]) and not int(header["qform_code"]):
        notes.append(SIDES_UNKNOWN)
    elif contradiction := _contradiction(header, geometry):
        notes.append(contradiction)
    if geometry.is_oblique:
        notes.append(oblique_note(geometry.obliqueness))
    return tuple(notes)


def _contradiction(header: Any, geometry: Geometry) -> str:
    """What a person should know where sform and qform say different things; "" where they do not, or one is missing."""
    try:
        other = header.get_qform(coded=True)[0] if int(header["sform_code"]) else None
        there = None if other is None else Geometry(geometry.source_shape, _in_millimetres(other, header))
    except (HeaderDataError, ValueError):  # a qform that is none; the sform says it all
        return ""
    shift = 0.0 if there is None else geometry.furthest(there)
    if there is None or shift <= _APART * min(geometry.spacing):
        return ""
    if there.source_axes != geometry.source_axes:
        mirrored = _sides(there) != _sides(geometry)
        swapped = "left and right are swapped" if mirrored else "the scan lies the wrong way round"
        return _TWO_SIDES.format(used=geometry.source_axes, other=there.source_axes, swapped=swapped)
    return _TWO_PLACES.format(shift=shift)


def _sides(geometry: Geometry) -> tuple[int, ...]:
    """Where the letter of the right or left side stands among the axes."""
    return geometry.source_axes.find("L"), geometry.source_axes.find("R")


def _plain_name(path: Path) -> str:
    name = path.name
    for suffix in (".gz", ".nii", ".hdr", ".img"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name or path.name
