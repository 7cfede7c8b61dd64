"""NIfTI-1 and NIfTI-2 in one file, zipped or not; nibabel knows the header, the voxels are read here.

The voxels are read by hand so that nothing is believed before it is checked: a file may claim any size, may end
early, and its checksum stands behind the last voxel, where a reader that stops at that voxel never looks.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import os
import secrets
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import nibabel as nib
import numpy as np
import psutil
from nibabel.nifti1 import Nifti1Extension
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

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
_GREY = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # integers and floats of up to 64 bits
_NOT_GREY = dict.fromkeys((128, 2304), "colours") | dict.fromkeys((32, 1792, 2048), "complex numbers")
_GZIP = b"\x1f\x8b"
_DEFLATE = 1032  # no zipped file unpacks to more than this many times its length
_CHUNK = 1 << 24
_COMMENT = 6  # NIfTI's code for an extension that is text
_LARGEST_NOTE = 1 << 20  # bytes of extensions that are looked through for label names

Stream = IO[bytes] | gzip.GzipFile

# For nibabel's remarks on headers, which go to nobody: what matters of them becomes a note.
_silent = logging.Logger("silent", level=logging.CRITICAL + 1)


def read(path: Path) -> Scan:
    """Read one NIfTI file; see `napari_sparsetok.files.open_scan`."""
    with _explained(path), _opened(path) as stream:
        raw = _raw_header(stream, path)
        _check_numbers(raw, path)
        header = raw.copy()
        header.check_fix(logger=_silent, error_level=40)
        _check_shape(raw, header, path)
        _check_size(header, path)
        voxels = _scaled(_stored(stream, header, path), header, path)
        geometry = Geometry(tuple(header.get_data_shape()[:3]), _affine(header))
    voxels = geometry.to_shown(voxels)
    leading: Literal["", "time"] = "time" if voxels.ndim == 4 else ""
    return Scan(
        voxels=np.moveaxis(voxels, 3, 0) if leading else voxels,
        geometry=geometry,
        name=_plain_name(path),
        leading=leading,
        source=Source(path.resolve(), "nifti", _place_of(raw)),
        notes=_notes(header, geometry),
    )


def read_labels(path: str | Path) -> LabelTable | None:
    """The label names that `save_mask` wrote into a file, or None where there are none.

    Raises
    ------
    ScanError : the file cannot be read as NIfTI.
    """
    path = Path(path)
    with _explained(path), _opened(path) as stream:
        raw = _raw_header(stream, path)
        if not 0 < float(raw["vox_offset"]) <= _LARGEST_NOTE:
            return None
        whole = io.BytesIO(raw.binaryblock + stream.read(int(raw["vox_offset"]) - len(raw.binaryblock)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an extension of another program, not padded to 16 bytes
        try:
            extensions = type(raw).from_fileobj(whole, check=False).extensions
        except (HeaderDataError, ValueError):
            return None
    tables = (_labels_in(e.get_content()) for e in extensions if e.get_code() == _COMMENT)
    return next((table for table in tables if table), None)


def _labels_in(content: str | bytes) -> LabelTable | None:
    try:
        return LabelTable.from_json(json.loads(content)["labels"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong while reading into a sentence; numbers that are none are looked for, not warned of."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except ScanError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ScanError(f"{path.name} is cut short or damaged; copy it again from its source") from None
    except PermissionError:
        raise ScanError(f"{path.name} may not be read by you; ask its owner for permission, or copy it") from None
    except OSError as error:
        reason = error.strerror or "the disk failed"
        raise ScanError(f"{path.name} cannot be read ({reason}); check the disk, or copy it again") from None
    except (HeaderDataError, ValueError, OverflowError):
        raise ScanError(f"{path.name} has a header that contradicts itself or NIfTI; export it again") from None
    except MemoryError:
        raise ScanError(f"{path.name} does not fit into this computer's memory; crop it first") from None


@contextmanager
def _opened(path: Path) -> Iterator[Stream]:
    """The unzipped bytes; whether they are zipped is seen from them, not from the name."""
    with path.open("rb") as raw:
        if raw.read(2) != _GZIP:
            raw.seek(0)
            yield raw
            return
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw, mode="rb") as unzipped:
            yield unzipped


def _raw_header(stream: Stream, path: Path) -> Any:
    """The header as it lies in the file, without extensions; nothing in it is corrected."""
    first = stream.read(4)
    if not first:
        raise ScanError(f"{path.name} is empty; copy it again from its source")
    sizes = {int.from_bytes(first, order) for order in ("little", "big")} & _HEADERS.keys()
    if not sizes:
        raise ScanError(f"{path.name} is not a NIfTI file, whatever its name says; convert the scan to NIfTI first")
    size = sizes.pop()
    block = first + stream.read(size - 4)
    if len(block) < size:
        raise EOFError
    raw = _HEADERS[size](block, check=False)
    if bytes(raw["magic"])[:2] == b"ni":
        raise ScanError(f"{path.name} is half of a pair of files (.hdr and .img); convert the pair to one .nii.gz file")
    return raw


def _check_numbers(raw: Any, path: Path) -> None:
    code = int(raw["datatype"])
    if code in _NOT_GREY:
        raise ScanError(f"{path.name} stores {_NOT_GREY[code]}; a scan needs one grey value a voxel")
    if code not in _GREY:
        raise ScanError(
            f"{path.name} stores numbers of a kind that is not read (NIfTI's type {code}); "
            "export it as 16-bit integers or 32-bit floats"
        )
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if math.isinf(slope) or (math.isfinite(slope) and slope != 0 and not math.isfinite(inter)):
        raise ScanError(f"{path.name} scales its values with slope {slope:g} and intercept {inter:g}; export it again")


def _check_shape(raw: Any, header: Any, path: Path) -> None:
    shape = tuple(int(n) for n in header.get_data_shape())
    if any(n <= 0 for n in shape):
        raise ScanError(f"{path.name} holds no voxels (its header says {shape}); export it again")
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise ScanError(f"{path.name} holds a flat picture of {shape} voxels; a scan needs a stack of slices")
    if any(n != 1 for n in shape[4:]):
        raise ScanError(f"{path.name} has {len(shape)} axes {shape}; split it into volumes or one series over time")
    lengths = raw["pixdim"][1:4]
    if int(header["sform_code"]) == 0 and not (np.isfinite(lengths).all() and (lengths != 0).all()):
        raise ScanError(f"{path.name} gives its voxels no size ({', '.join(map(str, lengths))} mm); export it again")


def _check_size(header: Any, path: Path) -> None:
    """Refuse what cannot be before any memory is taken for it."""
    dtype, on_disk = header.get_data_dtype(), path.stat().st_size
    count = _count(header)
    with path.open("rb") as raw:
        possible = on_disk * _DEFLATE if raw.read(2) == _GZIP else on_disk
    claimed = header.get_data_offset() + count * dtype.itemsize
    if claimed > possible:
        raise ScanError(
            f"{path.name} is cut short: its header claims {_size(claimed)}, and {_size(on_disk)} are there; "
            "copy it again from its source"
        )
    needed = count * (dtype.itemsize + (_float_for(dtype).itemsize if _scaling(header) else 0))
    free = psutil.virtual_memory().available
    if needed > free:
        raise ScanError(f"{path.name} needs {_size(needed)} of memory, and {_size(free)} are free; crop the scan first")


def _stored(stream: Stream, header: Any, path: Path) -> NDArray[Any]:
    """The voxels as the file has them, in its order: (x, y, z) or (x, y, z, t)."""
    dtype = header.get_data_dtype()
    buffer = np.empty(_count(header) * dtype.itemsize, dtype=np.uint8)
    stream.seek(header.get_data_offset())
    filled = 0
    while filled < buffer.size:
        chunk = stream.read(min(_CHUNK, buffer.size - filled))
        if not chunk:
            raise EOFError
        buffer[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    _check_end(stream)
    shape = header.get_data_shape()
    kept = shape[:3] + tuple(n for n in shape[3:] if n != 1)
    array: NDArray[Any] = buffer.view(dtype).reshape(kept, order="F")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _check_end(stream: Stream) -> None:
    """Read on to a zipped file's checksum, which the unzipper compares there."""
    if not isinstance(stream, gzip.GzipFile):
        return
    try:
        for _ in range(8):  # what follows the voxels is seldom long, but can be made endless
            if not stream.read(_CHUNK):
                return
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):  # that is rubbish behind a whole file
            raise


def _scaled(array: NDArray[Any], header: Any, path: Path) -> NDArray[Any]:
    """The values that the stored numbers stand for, in the smallest type that keeps them apart."""
    scaling = _scaling(header)
    if scaling is None:
        return array
    slope, inter = scaling
    values = array.astype(_float_for(array.dtype))
    values *= slope
    values += inter
    broken = ~np.isfinite(values)
    if broken.any() and np.isfinite(array[broken]).any():
        raise ScanError(
            f"the scaling in the header of {path.name} (slope {slope:g}, intercept {inter:g}) takes its values out "
            "of range; export the scan again"
        )
    return values


def _scaling(header: Any) -> tuple[float, float] | None:
    slope, inter = header.get_slope_inter()
    scaling = (1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))
    return None if scaling == (1.0, 0.0) else scaling


def _float_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    narrow = dtype.itemsize <= 2 or dtype == np.float32
    return np.dtype(np.float32 if narrow else np.float64)


def _count(header: Any) -> int:
    count = 1
    for extent in header.get_data_shape():
        count *= int(extent)  # in Python's numbers, which do not overflow
    return count


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _affine(header: Any) -> NDArray[np.float64]:
    """(4, 4), from voxel indices to RAS millimetres, whatever unit the file counts in."""
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= _MILLIMETRES.get(int(header["xyzt_units"]) & _UNITS, 1.0)
    return affine


def _place_of(raw: Any) -> Any:
    """A header that says where the voxels lie exactly as this one does, and nothing else."""
    bare = type(raw)(endianness=raw.endianness)
    for key in _PLACE:
        bare[key] = raw[key]
    bare["pixdim"][4:] = 1
    bare["xyzt_units"] = int(raw["xyzt_units"]) & _UNITS
    return bare


def _notes(header: Any, geometry: Geometry) -> tuple[str, ...]:
    notes = []
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        notes.append(SIDES_UNKNOWN)
    if geometry.is_oblique:
        notes.append(
            f"Oblique scan: its slices are turned by {geometry.obliqueness:.0f}° against the patient's axes. "
            "It is shown in its own planes, and a saved mask keeps the rotation."
        )
    return tuple(notes)


def _plain_name(path: Path) -> str:
    name = path.name
    for suffix in (".gz", ".nii"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name or path.name


def write_mask(path: Path, mask: NDArray[np.integer[Any]], scan: Scan, labels: LabelTable) -> None:
    """Write a mask in the order, affine and codes of its scan; see `napari_sparsetok.files.save_mask`."""
    turned = scan.geometry.to_source(mask.astype(np.uint8))
    header = _mask_header(scan)
    header.set_data_dtype(np.uint8)
    header.set_data_shape(turned.shape)
    header.set_slope_inter(1, 0)
    header.set_intent("label")
    names = json.dumps({"labels": labels.to_json()}, ensure_ascii=True).encode()
    header.extensions.append(Nifti1Extension("comment", names))
    _write_whole(header, turned, path)


def _mask_header(scan: Scan) -> Any:
    if scan.source and scan.source.format == "nifti":
        return scan.source.header.copy()
    header = nib.Nifti1Header()
    header.set_data_shape(scan.geometry.source_shape)
    header.set_sform(scan.geometry.source_affine, code=1)
    header.set_qform(scan.geometry.source_affine, code=1)
    header.set_xyzt_units("mm")
    return header


def _write_whole(header: Any, array: NDArray[np.uint8], path: Path) -> None:
    """Write beside the target, then rename over it: a full disk leaves what was there before."""
    target = Path(os.path.realpath(path))  # a link is followed, not replaced by a file
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as raw:
                _write(header, array, raw, zipped=path.name.lower().endswith(".gz"))
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ScanError(
            f"{path.name} could not be saved ({reason}); nothing was overwritten, choose another folder or free space"
        ) from None


def _write(header: Any, array: NDArray[np.uint8], raw: IO[bytes], *, zipped: bool) -> None:
    with ExitStack() as stack:
        stream: Stream = raw
        if zipped:  # no name and no time in the zip's own header: the same mask gives the same bytes
            zipper = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6)
            stream = stack.enter_context(zipper)
        header.write_to(stream)
        stream.write(bytes(header.get_data_offset() - stream.tell()))
        for plane in np.moveaxis(array, -1, 0):
            stream.write(plane.tobytes(order="F"))
