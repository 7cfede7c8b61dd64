"""Masks as NIfTI: on the exact grid of their scan, whole or not at all."""

from __future__ import annotations

import gzip
import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from numpy.typing import NDArray

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Scan


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
    with written_whole(path) as part, part.open("xb") as raw:
        _write(header, turned, raw, zipped=path.name.lower().endswith(".gz"))


def _mask_header(scan: Scan) -> Any:
    if scan.source and scan.source.format == "nifti":
        return scan.source.header.copy()
    header = nib.Nifti1Header()
    header.set_data_shape(scan.geometry.source_shape)
    header.set_sform(scan.geometry.source_affine, code=1)
    header.set_qform(scan.geometry.source_affine, code=1)
    header.set_xyzt_units("mm")
    return header


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
