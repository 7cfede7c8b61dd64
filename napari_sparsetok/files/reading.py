"""What all formats share: how opening is watched, stopped, limited, and how it says no."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_sparsetok.scan import ScanError

if TYPE_CHECKING:
    from napari_sparsetok.files.series import SeriesInfo

_CHUNK = 1 << 24  # bytes between two looks at whether to stop
_LOOK = 0.05  # seconds between two looks, while a library reads in one step
T = TypeVar("T")

_TALKATIVE = ("pydicom", "tifffile", "nibabel.global", "highdicom", "ome_zarr.io", "ome_zarr.format")

DEFLATE = 1032
"""Nothing deflated unpacks to more than this many times its length."""


class OpeningStopped(Exception):
    """Opening ended because it was asked to; nothing went wrong."""


class RepairableScanError(ScanError):
    """A scan that is not opened as it is, but could be after a repair that the person agrees to.

    Attributes
    ----------
    repairs : what `open_scan(path, repair=…)` takes, each with a sentence that says what it would do.
    """

    def __init__(self, problem: str, repairs: Mapping[str, str]) -> None:
        super().__init__(problem)
        self.repairs = dict(repairs)

    @property
    def problem(self) -> str:
        """What is wrong, without the offers, for whoever makes them in another way."""
        return str(self).partition(". Choose a repair")[0]


class SeveralSeriesError(ScanError):
    """Several scans were found and none was chosen.

    Attributes
    ----------
    series : the candidates, best first, see `napari_sparsetok.files.find_series`.
    """

    def __init__(self, problem: str, series: Sequence[SeriesInfo]) -> None:
        super().__init__(problem)
        self.series = tuple(series)


@dataclass(frozen=True)
class Watch:
    """How opening talks to whoever waits for it, on the thread that opens.

    on_progress : steps done, steps in all.
    should_stop : asked at every step.
    """

    on_progress: Callable[[int, int], None] = lambda done, total: None
    should_stop: Callable[[], bool] = lambda: False

    def step(self, done: int, total: int) -> None:
        """Tell how far it is.

        Raises
        ------
        OpeningStopped : it was asked to stop.
        """
        self.look()
        self.on_progress(done, total)

    def look(self) -> None:
        """Ask whether to stop, where nothing can be said of how far it is.

        Raises
        ------
        OpeningStopped : it was asked to stop.
        """
        if self.should_stop():
            raise OpeningStopped


class Readable(Protocol):
    """What bytes come from."""

    def read(self, count: int, /) -> bytes:
        """The next bytes: at most so many."""


class Watched:
    """A stream that is read in pieces; before each, whoever waits is told, and may stop it.

    Parameters
    ----------
    stream : what is read.
    before : gets the number of bytes that were read so far.
    """

    def __init__(self, stream: Readable, before: Callable[[int], None]) -> None:
        self._stream: Any = stream
        self._before = before
        self._done = self._told = 0

    def read(self, count: int = -1) -> bytes:
        """The next bytes: so many, or all that are left."""
        if 0 <= count <= _CHUNK:
            return self._piece(count)
        pieces, left = [], count
        while left:
            piece = self._piece(_CHUNK if left < 0 else min(_CHUNK, left))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece) if left > 0 else 0
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is something to fill it with; returns how far."""
        view, at = memoryview(buffer).cast("B"), 0
        while at < len(view):
            piece = self._piece(min(_CHUNK, len(view) - at))
            if not piece:
                break
            view[at : at + len(piece)] = piece
            at += len(piece)
        return at

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the stream."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As of the stream."""
        return int(self._stream.tell())

    def _piece(self, count: int) -> bytes:
        if not self._told or self._done - self._told >= _CHUNK or count == _CHUNK:
            self._before(self._done)
            self._told = self._done or 1
        piece = self._stream.read(count)
        self._done += len(piece)
        return piece


def watched(stream: Readable, count: int, watch: Watch) -> Watched:
    """A stream of which `count` bytes are to be read."""
    total = -(-count // _CHUNK)
    return Watched(stream, lambda done: watch.step(min(done // _CHUNK, total), total))


def read_bytes(stream: Readable, count: int, watch: Watch) -> NDArray[np.uint8]:
    """The next `count` bytes, a piece at a time.

    Raises
    ------
    EOFError : the stream ends before.
    OpeningStopped : `watch` asked for it.
    """
    buffer = np.empty(count, dtype=np.uint8)
    if watched(stream, count, watch).readinto(buffer.data) < count:
        raise EOFError
    return buffer


def check_end(stream: Readable) -> None:
    """Read on to the checksum behind the last voxel, which the unzipper compares there.

    Raises
    ------
    zlib.error : it does not match.
    EOFError : it is not there.
    """
    for _ in range(8):  # what follows the voxels is seldom long, but can be made endless
        if not stream.read(_CHUNK):
            return


def in_one_step(work: Callable[[], T], watch: Watch) -> T:
    """What a library does in one step, on a thread of its own.

    If this is asked to stop meanwhile, the library is left to itself, and what it reads is dropped; until it ends then,
    it keeps the memory that it took.

    Raises
    ------
    OpeningStopped : `watch` asked for it.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="sparsetok-one-step", daemon=True).start()
    while not wait([result], timeout=_LOOK).done:
        watch.step(0, 0)
    return result.result()


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what libraries remark on headers out of every log: they quote values, and values name patients."""

    def drop(_record: logging.LogRecord) -> bool:  # one for each use, so that threads do not undo each other's
        return False

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever a library makes of a damaged file into one sentence about `what`.

    Errors that are sentences already, and a wish to stop, pass through.
    """
    try:
        with _silent(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ScanError, OpeningStopped):
        raise
    except (EOFError, zipfile.BadZipFile, zlib.error, struct.error):
        raise ScanError(f"{what} is cut short or damaged; copy it again from its source") from None
    except PermissionError:
        raise ScanError(f"{what} may not be read by you; ask its owner for permission, or copy it") from None
    except OSError as error:
        reason = error.strerror or "it is cut short or damaged"
        raise ScanError(f"{what} cannot be read ({reason}); check the disk, or copy it again") from None
    except MemoryError:
        raise ScanError(f"{what} does not fit into this computer's memory; crop it first") from None
    except Exception:  # five libraries, each with errors of its own for bytes that nobody foresaw
        raise ScanError(f"{what} is damaged or contradicts its own format; export it again") from None


def check_memory(needed: int, what: str) -> None:
    """Refuse what does not fit before anything is allocated.

    Raises
    ------
    ScanError : more than the free memory is needed.
    """
    free = psutil.virtual_memory().available
    if needed > free:
        raise ScanError(
            f"{what} needs {size_text(needed)} of memory, and {size_text(free)} are free; crop the scan first"
        )


def check_claim(claimed: int, on_disk: int, what: str, *, compressed: bool) -> None:
    """Refuse a header that claims more bytes than the file can hold.

    Raises
    ------
    ScanError : it does.
    """
    if claimed > on_disk * (DEFLATE if compressed else 1):
        raise ScanError(
            f"{what} is cut short: its header claims {size_text(claimed)}, and {size_text(on_disk)} are there; "
            "copy it again from its source"
        )


def size_text(count: int) -> str:
    """A number of bytes in words."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def oblique_note(degrees: float) -> str:
    """What a person should know about an oblique scan."""
    return (
        f"Oblique scan: its slices are turned by {degrees:.0f}° against the patient's axes. "
        "It is shown in its own planes, and a saved mask keeps the rotation."
    )
