"""Masks as NIfTI: on the exact grid of their scan, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from numpy.typing import NDArray

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Scan, ScanError


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
        stream: IO[bytes] | gzip.GzipFile = raw
        if zipped:  # no name and no time in the zip's own header: the same mask gives the same bytes
            zipper = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6)
            stream = stack.enter_context(zipper)
        header.write_to(stream)
        stream.write(bytes(header.get_data_offset() - stream.tell()))
        for plane in np.moveaxis(array, -1, 0):
            stream.write(plane.tobytes(order="F"))
