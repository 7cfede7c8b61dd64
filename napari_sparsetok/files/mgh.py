"""FreeSurfer's .mgh and .mgz through nibabel, checked first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.volumeutils import array_from_file
from numpy.typing import NDArray

from napari_sparsetok.files import raw
from napari_sparsetok.files.reading import (
    Watch,
    check_claim,
    check_end,
    check_memory,
    explained,
    oblique_note,
    watched,
)
from napari_sparsetok.files.unpacking import Unpacked, opened
from napari_sparsetok.scan import Geometry, Scan, ScanError, Source

SUFFIXES = (".mgz", ".mgh")

_HEADER = 284  # bytes
_UNPLACED = "The file does not say how the patient lay; FreeSurfer's usual orientation is taken."


def read(path: Path, watch: Watch) -> Scan:
    """Read one file; see `napari_sparsetok.files.open_scan`."""
    with explained(path.name):
        header, array = _read(path, watch)
        geometry = Geometry(array.shape[:3], header.get_affine())
    several = array.ndim == 4
    shown = geometry.to_shown(array)
    leading: Literal["", "time"] = "time" if several else ""
    notes = [] if int(header["goodRASFlag"]) else [_UNPLACED]
    if geometry.is_oblique:
        notes.append(oblique_note(geometry.obliqueness))
    return Scan(
        voxels=np.moveaxis(shown, 3, 0) if several else shown,
        geometry=geometry,
        name=path.stem,
        leading=leading,
        source=Source(path.resolve(), "mgh"),
        notes=tuple(notes),
    )


def _read(path: Path, watch: Watch) -> tuple[Any, NDArray[Any]]:
    with opened(path, watch) as stream:
        packed = isinstance(stream, Unpacked)
        block = stream.read(_HEADER)
        if len(block) < _HEADER:
            raise EOFError
        header = MGHHeader(block)
        shape = _shape(header, path, packed=packed)
        count = math.prod(shape)
        dtype = header.get_data_dtype()
        source = watched(stream, count * dtype.itemsize, watch)
        array = array_from_file(shape, dtype, source, _HEADER, order="F", mmap=False)
        if isinstance(stream, Unpacked):
            check_end(stream)
    return header, raw.native(array)


def _shape(header: Any, path: Path, *, packed: bool) -> tuple[int, ...]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape[:3]) < 2 or min(shape) < 1:
        raise ScanError(f"{path.name} holds a flat picture of {shape} voxels; a scan needs a stack of slices")
    claimed = header.get_data_dtype().itemsize
    for extent in shape:
        claimed *= extent
    check_claim(claimed, path.stat().st_size, path.name, compressed=packed)
    check_memory(2 * claimed, path.name)
    return shape
