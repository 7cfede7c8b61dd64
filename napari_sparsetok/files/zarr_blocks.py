"""Blocks of a Zarr array, looked at before they are unpacked: one may hold far more than a block should.

The libraries that unpack them take as much memory as that is. Blosc, Zstandard and LZ4 say at the beginning of what
they packed how large it was; gzip and zlib do not, so what could be too large is unpacked piece by piece before.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from napari_sparsetok.scan import ScanError

_MOST_PACKED = 1032  # what deflate makes of a byte at best
_FEW = 64 << 20  # bytes that harm nobody
_PIECE = 1 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_ANY_HEADER = 32 + zlib.MAX_WBITS  # gzip's or zlib's


class BoundedStore(LocalStore):
    """A folder whose blocks must not be larger, unpacked, than its arrays say; for reading."""

    def __init__(self, root: str) -> None:
        super().__init__(root, read_only=True)
        self._arrays: dict[str, tuple[str, int]] = {}

    def bound(self, array: Any) -> None:
        """Look at the blocks of an array from now on. Those of shards, which are read in parts, are not."""
        codecs = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
        if codecs and array.shards is None:
            size = math.prod(array.chunks) * array.dtype.itemsize
            self._arrays[array.path.strip("/") + "/"] = codecs[-1], size  # the last one packed what is stored

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See `zarr.abc.store.Store.get`.

        Raises
        ------
        ScanError : it is a block that unpacks to more than it should.
        """
        found = await super().get(key, prototype, byte_range)
        array = next((about for path, about in self._arrays.items() if key.startswith(path)), None)
        if found is not None and array is not None:  # whole: only shards are read in parts
            packer, size = array
            if unpacked_size(packer, found.to_bytes(), most=max(2 * size, _FEW)) > max(2 * size, _FEW):
                raise ScanError("a block of this OME-Zarr unpacks to far more than it should; copy it from its source")
        return found


def unpacked_size(packer: str, packed: bytes, most: int) -> int:
    """How many bytes come out of what was packed, or some number above `most`; 0 if nobody can say.

    Parameters
    ----------
    packer : "blosc", "zstd", "lz4", "gzip" or "zlib".
    """
    if packer == "blosc":
        return int.from_bytes(packed[4:8], "little")
    if packer == "lz4":
        return int.from_bytes(packed[:4], "little")
    if packer == "zstd":
        return _zstd_size(packed)
    if packer in ("gzip", "zlib") and len(packed) * _MOST_PACKED > most:
        return _inflated_size(packed, most)
    return 0


def _zstd_size(packed: bytes) -> int:
    """By the frame's header (RFC 8878)."""
    if packed[:4] != _ZSTD or len(packed) < 5:
        return 0
    kind = packed[4]
    single, flag = bool(kind & 0x20), kind >> 6
    length = (1 if single else 0, 2, 4, 8)[flag]
    at = 5 + (not single) + (0, 1, 2, 4)[kind & 3]
    return int.from_bytes(packed[at : at + length], "little") + (256 if length == 2 else 0)


def _inflated_size(packed: bytes, most: int) -> int:
    total, unpacker = 0, zlib.decompressobj(_ANY_HEADER)
    while packed and total <= most:
        try:
            total += len(unpacker.decompress(packed, _PIECE))
        except zlib.error:
            return 0  # that it is damaged is said when it is read
        packed = unpacker.unconsumed_tail
        if unpacker.eof:  # one member after the other
            packed, unpacker = unpacker.unused_data, zlib.decompressobj(_ANY_HEADER)
    return total
