"""NIfTI-1 and NIfTI-2, through nibabel."""

from __future__ import annotations

import gzip
import json
import logging
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Scan, ScanError, Source

SUFFIXES = (".nii", ".nii.gz")

# nibabel logs every oddity of a header to stderr; what matters of it is said to the person as a note.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read(path: Path) -> Scan:
    """Read one NIfTI file; see `napari_sparsetok.files.open_scan`."""
    try:
        image: Any = nib.load(path)
        _check_header(image, path)
        stored = _stored(image)
    except ScanError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ScanError(f"{path.name} is cut short or damaged ({error}); copy it again from its source") from None
    except (ImageFileError, HeaderDataError, OSError, ValueError) as error:
        raise ScanError(f"{path.name} cannot be read as NIfTI ({error}); export or copy it again") from None
    except MemoryError:
        raise ScanError(f"{path.name} does not fit into this computer's memory") from None
    geometry = Geometry(stored.shape[:3], image.affine)
    voxels = geometry.to_shown(stored)
    leading: Any = ""
    if voxels.ndim == 4:
        voxels, leading = np.moveaxis(voxels, 3, 0), "time"
    return Scan(
        voxels=voxels,
        geometry=geometry,
        name=_plain_name(path),
        leading=leading,
        source=Source(path.resolve(), "nifti", image.header.copy()),
        notes=_notes(image, geometry),
    )


def _check_header(image: Any, path: Path) -> None:
    shape = image.shape
    if len(shape) < 3 or (len(shape) > 3 and _spatial_extent(shape) < 2):
        raise ScanError(f"{path.name} holds a flat picture of {shape} voxels; a scan needs three axes, a stack of slices")
    if len(shape) > 4 and any(n != 1 for n in shape[4:]):
        raise ScanError(f"{path.name} has {len(shape)} axes {shape}; split it into volumes or one series over time")
    if any(n <= 0 for n in shape):
        raise ScanError(f"{path.name} holds no voxels (its header says {shape}); export it again")
    dtype = image.get_data_dtype()
    if dtype.fields or dtype.kind == "c":
        raise ScanError(f"{path.name} stores colours or complex numbers; a scan needs one grey value a voxel")
    needed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    free = psutil.virtual_memory().available
    if needed > free:
        raise ScanError(
            f"{path.name} claims {needed / 2**30:.1f} GiB of voxels, but {free / 2**30:.1f} GiB of memory are free; "
            "the file is damaged, or it needs to be cropped first"
        )


def _spatial_extent(shape: tuple[int, ...]) -> int:
    return sum(n > 1 for n in shape[:3])


def _stored(image: Any) -> NDArray[Any]:
    """The voxels with the file's scaling, in three or four axes, in the smallest exact type."""
    proxy = image.dataobj
    slope, inter = (float(v) for v in (proxy.slope, proxy.inter))
    if (slope, inter) == (1.0, 0.0):
        array = np.asanyarray(proxy)
    else:
        with np.errstate(over="ignore"):  # an overflow is said in words below
            array = image.get_fdata(caching="unchanged", dtype=np.float32)
        if np.issubdtype(image.get_data_dtype(), np.integer) and not np.isfinite(array).all():
            raise ScanError(
                f"the scaling in the file's header (slope {slope:g}, intercept {inter:g}) takes its values out of "
                "range; export the scan again"
            )
    array = array.reshape(array.shape[:3] + tuple(n for n in array.shape[3:] if n != 1))
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def _notes(image: Any, geometry: Geometry) -> tuple[str, ...]:
    notes = []
    if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
        notes.append("The file does not say how the patient lay: left and right cannot be told from it.")
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
    return name


def write_mask(path: Path, mask: NDArray[np.integer], scan: Scan, labels: LabelTable) -> None:
    """Write a mask in the order, affine and codes of its scan; see `napari_sparsetok.files.save_mask`."""
    turned = np.ascontiguousarray(scan.geometry.to_source(mask.astype(np.uint8)))
    image = _like_source(turned, scan)
    names = json.dumps({"labels": labels.to_json()}, ensure_ascii=True).encode()
    image.header.extensions.append(Nifti1Extension("comment", names))
    _write_whole(image, path)


def _like_source(turned: NDArray[np.uint8], scan: Scan) -> nib.Nifti1Image:
    header = scan.source.header if scan.source and scan.source.format == "nifti" else None
    if header is None:
        image = nib.Nifti1Image(turned, scan.geometry.source_affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(scan.geometry.source_affine, code=1)
        image.set_qform(scan.geometry.source_affine, code=1)
        return image
    header = header.copy()
    header.extensions.clear()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(turned.shape)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    kind = nib.Nifti2Image if int(header["sizeof_hdr"]) == 540 else nib.Nifti1Image
    # Without an affine nibabel takes the header's own sform, qform and codes over untouched.
    return kind(turned, None, header)


def _write_whole(image: nib.Nifti1Image, path: Path) -> None:
    """Write beside the target, then rename over it: a full disk leaves what was there before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ending = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
        handle, temporary = tempfile.mkstemp(suffix=ending, dir=path.parent)
        os.close(handle)
        try:
            nib.save(image, temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ScanError(f"{path.name} could not be saved ({error.strerror or error}); nothing was overwritten") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
