"""What all formats share: how opening is watched, stopped, limited, and how it says no."""

from __future__ import annotations

import gzip
import logging
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_sparsetok.scan import ScanError

if TYPE_CHECKING:
    from napari_sparsetok.files.series import SeriesInfo

_CHUNK = 1 << 24  # bytes between two looks at whether to stop
_TALKATIVE = ("pydicom", "tifffile", "nibabel.global", "highdicom")

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
        if self.should_stop():
            raise OpeningStopped
        self.on_progress(done, total)


def read_bytes(stream: IO[bytes] | gzip.GzipFile, count: int, watch: Watch) -> NDArray[np.uint8]:
    """The next `count` bytes, a piece at a time.

    Raises
    ------
    EOFError : the stream ends before.
    OpeningStopped : `watch` asked for it.
    """
    buffer = np.empty(count, dtype=np.uint8)
    pieces = -(-count // _CHUNK)
    filled = 0
    while filled < count:
        watch.step(filled // _CHUNK, pieces)
        chunk = stream.read(min(_CHUNK, count - filled))
        if not chunk:
            raise EOFError
        buffer[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    return buffer


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
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, struct.error):
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
