"""Voxels that lie in a file as plain numbers, packed or not: read whole, or left there until a box is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_sparsetok.files.reading import Readable, Watch, check_end, read_bytes
from napari_sparsetok.files.unpacking import Unpacked
from napari_sparsetok.scan import ScanError

LARGEST_IN_MEMORY = 2 << 30
"""Bytes; a scan that takes more stays on disk where its format allows."""

_SHARE = 0.25  # of the free memory: beyond it a smaller scan stays on disk too
_STRIPES, _STRIPE = 64, 1 << 16  # bytes; what tells one file that is not read from another

Packing = Literal["", "gzip", "zlib"]
Convert = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class RawBlock:
    """Where voxels lie: `shape` of `dtype` from byte `offset` on, the first axis fastest, once they are unpacked."""

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise ValueError("voxels begin before their file")

    @property
    def bytes(self) -> int:
        """Their length, unpacked."""
        count = self.dtype.itemsize
        for extent in self.shape:
            count *= int(extent)  # in Python's numbers, which do not overflow
        return count


def stays_on_disk(needed: int) -> bool:
    """Whether a scan that takes this many bytes of memory is left in its file."""
    return needed > min(LARGEST_IN_MEMORY, _SHARE * psutil.virtual_memory().available)


def read_whole(block: RawBlock, watch: Watch, packing: Packing = "") -> NDArray[Any]:
    """The voxels in memory, in the machine's byte order, first axis fastest.

    Raises
    ------
    EOFError : the file ends before they do.
    zlib.error : it is damaged.
    OpeningStopped : `watch` asked for it.
    """
    with block.path.open("rb") as stream:
        stream.seek(block.offset)
        unpacked: Readable = Unpacked(stream, watch) if packing else stream
        data = read_bytes(unpacked, block.bytes, watch)
        if packing:
            check_end(unpacked)
    return native(data.view(block.dtype).reshape(block.shape, order="F"))


def mapped(block: RawBlock) -> NDArray[Any]:
    """The voxels where they lie, as stored; nothing is read.

    Raises
    ------
    EOFError : the file ends before they do.
    """
    if block.offset + block.bytes > block.path.stat().st_size:
        raise EOFError
    return np.asarray(np.memmap(block.path, block.dtype, "r", block.offset, block.shape, order="F"))


def native(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def identity(block: RawBlock) -> str:
    """What tells the voxels from others without reading all: a digest of 64 stripes of them, four megabytes in all."""
    digest = hashlib.sha256(str((block.shape, block.dtype.str)).encode())
    room = max(0, block.bytes - _STRIPE)
    with block.path.open("rb") as stream:
        for k in range(_STRIPES):
            stream.seek(block.offset + room * k // (_STRIPES - 1))
            digest.update(stream.read(min(_STRIPE, block.bytes)))
    return digest.hexdigest()


class StoredVoxels:
    """An array that stays in its file. Boxes of it come as arrays in memory; nothing else is kept.

    A single whole number or None as index gives a view that stays on disk too: one volume of several, or one more axis.

    Parameters
    ----------
    stored : what `mapped` gave, turned by indexing and transposing alone.
    file : the file behind it, which is looked at before each reading: what was cut off meanwhile must not be touched.
    dtype : of the values.
    convert : from stored numbers in the machine's byte order to values of this type.
    """

    def __init__(self, stored: NDArray[Any], file: Path, dtype: np.dtype[Any], convert: Convert) -> None:
        self._stored, self._file, self._convert = stored, file, convert
        self.dtype = dtype
        self._state = _state(file)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent along each axis."""
        return self._stored.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._stored.ndim

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self._stored.size

    @property
    def nbytes(self) -> int:
        """What all of it would take in memory."""
        return self._stored.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, key: Any) -> Any:
        if key is None or (isinstance(key, int | np.integer) and self.ndim > 1):
            view = StoredVoxels(self._stored[key], self._file, self.dtype, self._convert)
            view._state = self._state
            return view
        return self._read(key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self._read(...)
        return values if dtype is None else values.astype(dtype, copy=False)

    def _read(self, key: Any) -> NDArray[Any]:
        """A part of it in memory.

        Raises
        ------
        ScanError : the file is not what it was when it was opened.
        """
        if _state(self._file) != self._state:
            raise ScanError(f"{self._file.name} was changed or moved since it was opened; open it again")
        return self._convert(np.array(native(self._stored[key])))


def _state(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return status.st_size, status.st_mtime_ns
