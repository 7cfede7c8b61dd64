"""Packed bytes, unpacked a piece at a time: gzip in one member or many, and zlib.

Python's own reader of gzip takes the name and the remark in a member's header, and what lies between members, byte by
byte, and cannot be stopped there; a file can be made of nothing else. zlib passes over them at the speed of the disk.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from napari_sparsetok.files.reading import Readable, Watch

_GZIP = b"\x1f\x8b"  # how a member of gzip begins
_PIECE = 1 << 18  # packed bytes between two looks at whether to stop
_STEP = 1 << 20  # unpacked bytes that are passed over at once
_ANY_HEADER = 32 + zlib.MAX_WBITS  # some programs write gzip's where zlib's is said
_LONGEST_NOTHING = 1 << 20  # packed bytes without one that comes out of them: names, remarks, empty members
# Programs that pack in members put 64 kB into each; each costs as much time as to unpack a few.
_ANY_MEMBERS, _LEAST_IN_MEMBER = 50_000, 4096


class Unpacked:
    """What a packed stream holds, from where it stands. Members of gzip follow each other, with zeros between them.

    Parameters
    ----------
    watch : asked for each piece whether to stop; it is not told how far it is.
    """

    def __init__(self, stream: Readable, watch: Watch = Watch()) -> None:  # noqa: B008 - frozen
        self._stream, self._watch = stream, watch
        self._packed = b""
        self._unpacker: Any = zlib.decompressobj(_ANY_HEADER)
        self._at = self._nothing = 0
        self._members = 1

    def read(self, count: int) -> bytes:
        """The next bytes: `count`, or as many as there are.

        Raises
        ------
        EOFError, zlib.error : what is packed is cut short or damaged, or hardly more than headers.
        OpeningStopped : `watch` asked for it.
        """
        pieces, left = [], count
        while left and (piece := self._piece(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go on to `offset`, or to the end where that comes first.

        Raises
        ------
        ValueError : it lies behind; nothing is unpacked twice.
        """
        if whence or offset < self._at:
            raise ValueError("packed bytes are read once, in their order")
        while self._at < offset and self._piece(min(_STEP, offset - self._at)):
            pass
        return self._at

    def tell(self) -> int:
        """How many bytes were read."""
        return self._at

    def _piece(self, most: int) -> bytes:
        """Some of the next bytes; empty at the end."""
        while self._unpacker:
            self._watch.look()
            packed = self._packed or self._stream.read(_PIECE)
            piece: bytes = self._unpacker.decompress(packed, most)
            ended = self._unpacker.eof
            self._packed = self._unpacker.unused_data if ended else self._unpacker.unconsumed_tail
            if not (packed or piece or ended):
                raise EOFError
            self._count(len(packed) - len(self._packed), len(piece))
            if ended:
                self._unpacker = zlib.decompressobj(_ANY_HEADER) if self._another() else None
            if piece:
                return piece
        return b""

    def _count(self, taken: int, given: int) -> None:
        self._at += given
        self._nothing = 0 if given else self._nothing + taken
        if self._nothing > _LONGEST_NOTHING or self._members > _ANY_MEMBERS + self._at // _LEAST_IN_MEMBER:
            raise zlib.error("hardly more than headers")

    def _another(self) -> bool:
        """Whether a further member follows. Zeros may, which are passed over, or rubbish, which is left."""
        passed = 0
        while passed <= _LONGEST_NOTHING:
            self._packed = self._packed.lstrip(b"\0")
            if len(self._packed) >= len(_GZIP) or not (more := self._stream.read(_PIECE)):
                break
            passed += len(more)
            self._packed += more
        self._members += 1
        return self._packed.startswith(_GZIP)


@contextmanager
def opened(path: Path, watch: Watch = Watch()) -> Iterator[IO[bytes] | Unpacked]:  # noqa: B008 - frozen
    """The unzipped bytes of a file; whether they are zipped is seen from them, not from the name."""
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP
        stream.seek(0)
        yield Unpacked(stream, watch) if packed else stream


def is_packed(path: Path) -> bool:
    """Whether a file is zipped."""
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP
