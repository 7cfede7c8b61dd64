"""How much of a DICOM header is read: a file can repeat its parts without end, and each costs time and memory."""

from __future__ import annotations

from typing import Any, BinaryIO

from pydicom import Dataset, FileDataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset, read_partial

from napari_sparsetok.files.reading import OpeningStopped, Watch
from napari_sparsetok.scan import ScanError

# Pieces that a header is read in, a few for each element; and items of its sequences, with those within them. Scanners
# write up to 1500 pieces and 30 items a frame, and objects of up to some ten thousand frames.
_PIECES, _PIECES_OF_A_FRAME, _MOST_PIECES = 200_000, 3000, 20_000_000
_ITEMS, _ITEMS_OF_A_FRAME, _MOST_ITEMS = 20_000, 50, 500_000
_MOST_BYTES = 256 << 20
_BETWEEN = 1000  # pieces between two looks at whether to stop
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how an item begins, in either order of bytes
# What says how large the pictures are lies before it, and behind it descriptions of frames, outlines, pixels.
_BEHIND_THE_SIZE = 0x20020000
_TOO_LONG = "a file here has a header that is far longer than that of any scan; export it again"


class Bounded:
    """A stream of a header of which only so much is read, and which can be stopped.

    It is used as a context, which raises anew what ended it: pydicom makes an OSError of anything that is raised where
    an item should begin.

    Parameters
    ----------
    too_long : what is said of one that is.
    items : of its sequences, before it is known how many frames they describe.
    """

    def __init__(self, stream: BinaryIO, watch: Watch, too_long: str = _TOO_LONG, items: int = _ITEMS) -> None:
        self._stream, self._watch, self._too_long = stream, watch, too_long
        self._pieces, self._items, self._bytes = _PIECES, items, _MOST_BYTES
        self.seek, self.tell = stream.seek, stream.tell
        self._ended: Exception | None = None

    def __enter__(self) -> Bounded:
        return self

    def __exit__(self, *_of_what: object) -> None:
        if self._ended:
            raise self._ended from None

    def allow_frames(self, count: int) -> None:
        """Let it be as long as the header of an object of so many frames."""
        self._pieces = min(_PIECES + count * _PIECES_OF_A_FRAME, _MOST_PIECES)
        self._items = min(_ITEMS + count * _ITEMS_OF_A_FRAME, _MOST_ITEMS)

    def read(self, count: int) -> bytes:
        """The next bytes, at most so many.

        Raises
        ------
        ScanError : that is more than there is in any scan's header.
        OpeningStopped : `watch` asked for it.
        """
        try:
            return self._read(count)
        except (ScanError, OpeningStopped) as error:
            self._ended = error
            raise

    def _read(self, count: int) -> bytes:
        self._pieces -= 1
        self._bytes -= count
        if self._pieces % _BETWEEN == 0:
            self._watch.look()
        self._check()
        found = self._stream.read(count)
        if count == 8 and found[:4] in _ITEM:
            self._items -= 1
        return found

    def _check(self) -> None:
        if min(self._pieces, self._items, self._bytes) < 0:
            raise ScanError(self._too_long)

    def check_sequence(self, dataset: Dataset, tag: Any) -> None:
        """Look at a sequence that was read whole and not taken apart yet.

        Raises
        ------
        ScanError : it holds more items than any scan's.
        """
        stored = dataset.get_item(tag) if tag in dataset else None
        if isinstance(stored, RawDataElement) and stored.value:
            self._items -= max(map(stored.value.count, _ITEM))
        self._check()


def read_up_to_size(stream: Any, tags: list[Any] | None = None) -> FileDataset:
    """A data set up to what says how large its pictures are; what follows may be long."""
    return read_partial(
        stream, stop_when=lambda tag, _vr, _length: tag >= _BEHIND_THE_SIZE, specific_tags=tags, force=True
    )


def go_on(dataset: FileDataset, stream: Any, until: Any, tags: list[Any] | None = None) -> None:
    """Read on, into the same data set, from where the stream stands; see pydicom's `stop_when`."""
    implicit, little = dataset.original_encoding
    dataset.update(read_dataset(stream, bool(implicit), bool(little), stop_when=until, specific_tags=tags))
