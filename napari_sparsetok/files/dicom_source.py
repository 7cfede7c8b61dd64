"""Where DICOM files lie: in a folder, a zip, or what a DICOMDIR lists. Finds them and opens them, nothing more.

Nothing is unpacked to disk, so no name in an archive can lead anywhere. Links to folders are not followed.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, cast

from pydicom import dcmread
from pydicom.tag import Tag

from napari_sparsetok.files.dicom_bounds import Bounded
from napari_sparsetok.files.reading import Watch, Watched, check_memory
from napari_sparsetok.scan import ScanError

MOST_FILES = 200_000
_LARGEST_MEMBER = 4 << 30  # bytes of one file in a zip
_SUSPICIOUS = 200  # times that an image of some size is never deflated
_SMALL = 64 << 20  # bytes that may be deflated as much as they like
_LARGE = 1 << 22  # bytes: a file of more says how far it is
_LOOKS = 5000  # files that a quick look opens
_LOOK_SECONDS = 1.0  # and how long it takes at most; a window may wait for it
_MOST_MEMBERS = 15_000  # of a zip; each has to be listed, found and unpacked by itself
_LONGEST_LIST = 32 << 20  # bytes of a zip's list of members; that of as many is shorter
_MEMBER, _END, _LOCATOR = b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x07"  # how parts of that list begin
_MOST_RECORDS = 10_000  # of a DICOMDIR; each is taken apart and looked for on the disk
_LONG_DIRECTORY = "this DICOMDIR lists more files than are read from one; choose the folder of one study instead"

# How a data set without the 128 bytes of preamble begins: group 8, elements that stand first.
_BARE = tuple(bytes([8, 0, element, 0]) for element in (0x00, 0x05, 0x08, 0x16))


@dataclass(frozen=True)
class Item:
    """One file: on disk, or a member of a zip; or a folder that may not be looked into.

    Its name may hold a patient's name: it is never shown.
    """

    path: Path
    size: int
    member: str = ""

    def __repr__(self) -> str:
        return "Item(…)"

    @property
    def pattern(self) -> str:
        """Its name without the folder and with one sign for all numbers: the same for the slices of an export."""
        return re.sub(r"[\d.]*\d", "#", PurePosixPath(self.member or self.path.name).name.casefold())


class Opener:
    """Opens items; keeps each zip open while it is in use as a context."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._archives: dict[Path, zipfile.ZipFile] = {}

    def __enter__(self) -> Opener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archives.clear()
        self._stack.close()

    @contextmanager
    def open(self, item: Item, before: Callable[[int], None] = lambda done: None) -> Iterator[BinaryIO]:
        """The bytes of an item, seekable.

        Parameters
        ----------
        before : gets the number of bytes that were read so far, before each piece of them.
        """
        if not item.member:
            with item.path.open("rb") as raw:
                yield cast(BinaryIO, Watched(raw, before)) if item.size > _LARGE else raw
            return
        check_memory(2 * item.size, "a file in this zip")
        with self._archive(item.path).open(item.member) as stream:
            whole = Watched(stream, before).read(item.size)
        yield io.BytesIO(whole)

    @contextmanager
    def open_head(self, item: Item) -> Iterator[BinaryIO]:
        """The bytes of an item of which only the first are needed."""
        if not item.member:
            with item.path.open("rb") as raw:
                yield raw
            return
        with self._archive(item.path).open(item.member) as stream:
            yield cast(BinaryIO, stream)

    def first_bytes(self, item: Item, count: int = 132) -> bytes:
        """How an item begins; nothing more of it is read."""
        if not item.member:
            with item.path.open("rb") as raw:
                return raw.read(count)
        with self._archive(item.path).open(item.member) as stream:
            return stream.read(count)

    def _archive(self, path: Path) -> zipfile.ZipFile:
        if path not in self._archives:
            self._archives[path] = self._stack.enter_context(zipfile.ZipFile(path))
        return self._archives[path]


def is_dicom(first: bytes) -> bool:
    """Whether a file that begins with these 132 bytes is DICOM."""
    return first[128:132] == b"DICM" or first[:4] in _BARE


def has_preamble(first: bytes) -> bool:
    """Whether the mark of a DICOM file stands where it belongs."""
    return first[128:132] == b"DICM"


def quick_look(path: Path) -> bool:
    """Whether a folder or zip holds DICOM, as far as can be told within a second.

    A disc from a hospital holds a viewer of some hundred files beside the scan, several folders down.
    """
    end = time.monotonic() + _LOOK_SECONDS
    with Opener() as opener:
        items = _members(path) if path.is_file() else _walk(path)
        for looks, item in enumerate(items):
            if looks >= _LOOKS or time.monotonic() > end:
                return False
            try:
                if is_dicom(opener.first_bytes(item)):
                    return True
            except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError):
                continue
    return False


def items_at(path: Path, watch: Watch) -> list[Item]:
    """All files that might be DICOM: in a folder and below, in a zip, listed by a DICOMDIR, or beside a file.

    Raises
    ------
    ScanError : there are too many, or the archive is no archive.
    """
    if path.is_dir():
        return _limited(_walk(path), watch)
    with path.open("rb") as raw:
        first = raw.read(132)
    if first[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _limited(_members(path), watch)
    if path.name.upper() == "DICOMDIR":
        return _listed(path, watch)
    return [Item(path, path.stat().st_size)]


def beside(path: Path, watch: Watch) -> list[Item]:
    """The files in the folder of a file."""
    return _limited(_walk(path.parent, depth=1), watch)


def _limited(items: Iterator[Item], watch: Watch) -> list[Item]:
    found = []
    for item in items:
        found.append(item)
        if len(found) > MOST_FILES:
            raise ScanError(f"there are more than {MOST_FILES} files here; choose the folder of one study")
        if len(found) % 256 == 0:
            watch.step(0, 0)
    return found


def _walk(folder: Path, depth: int | None = None) -> Iterator[Item]:
    top = str(folder)
    closed: list[OSError] = []
    for where, folders, names in os.walk(top, onerror=closed.append, followlinks=False):
        folders.sort()
        if depth is not None and where[len(top) :].count(os.sep) + 1 >= depth:
            folders.clear()
        for name in sorted(names):
            path = Path(where, name)
            try:
                status = path.stat()
            except OSError:  # a link that leads nowhere, or in a circle
                continue
            if stat.S_ISREG(status.st_mode):
                yield Item(path, status.st_size)
    for error in closed:
        if isinstance(error, PermissionError) and error.filename:
            yield Item(Path(error.filename), 1)  # whoever opens it is told so; what lies there may be missed


def _members(path: Path) -> Iterator[Item]:
    _check_list(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename or info.is_dir():
                continue
            if info.flag_bits & 1:  # it takes a password
                continue
            if info.file_size > _LARGEST_MEMBER or _is_bomb(info):
                raise ScanError(
                    "this zip unpacks to far more than scans do; unpack it yourself and open the folder if you trust it"
                )
            yield Item(path, info.file_size, info.filename)


def _check_list(path: Path) -> None:
    """Refuse a zip whose list of members alone would take long: it is read as a whole, and cannot be stopped."""
    with path.open("rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - 65_557 - 76))  # the end of the list, with the longest remark there can be after it
        tail = raw.read()
        plain = tail[-22:].startswith(_END) and tail.endswith(b"\0\0")  # without a remark
        at = len(tail) - 22 if plain else tail.rfind(_END)
        length = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
        if at >= 76 and tail[at - 20 :].startswith(_LOCATOR):  # of a large zip, it stands in a record of its own
            at -= 76
            length = int.from_bytes(tail[at + 40 : at + 48], "little")
        raw.seek(max(0, size - len(tail) + at - length))
        long = length > _LONGEST_LIST or raw.read(length).count(_MEMBER) > _MOST_MEMBERS
    if long:
        raise ScanError(
            f"there are more than {_MOST_MEMBERS} files in this zip; unpack it, and choose a study's folder"
        )


def _is_bomb(info: zipfile.ZipInfo) -> bool:
    return info.file_size > _SMALL and info.file_size > _SUSPICIOUS * max(1, info.compress_size)


def _listed(path: Path, watch: Watch) -> list[Item]:
    """What a DICOMDIR lists, also images that are not there. Names that would lead out of its folder are skipped."""
    return _limited(_records(path, watch), watch)


def _records(path: Path, watch: Watch) -> Iterator[Item]:
    folders: dict[Path, dict[str, Path]] = {}
    with path.open("rb") as raw, Bounded(raw, watch, _LONG_DIRECTORY, _MOST_RECORDS) as bounded:
        directory = dcmread(cast(BinaryIO, bounded), force=True)
        bounded.check_sequence(directory, Tag("DirectoryRecordSequence"))
    for record in directory.get("DirectoryRecordSequence") or ():
        names = record.get("ReferencedFileID")
        if not names:
            continue
        parts = PurePosixPath(*([names] if isinstance(names, str) else list(names))).parts
        if ".." in parts or PurePosixPath(*parts).is_absolute():
            continue
        target = _below(path.parent, parts, folders)
        if target.is_file():
            yield Item(target, target.stat().st_size)
        elif record.get("DirectoryRecordType") == "IMAGE":
            yield Item(target, 1)  # whoever opens it is told that it is missing


def _below(folder: Path, parts: Sequence[str], known: dict[Path, dict[str, Path]]) -> Path:
    """A path below a folder; where there is none of these letters, one that differs in small and capital ones only."""
    for part in parts:
        path = folder / part
        if not path.exists() and folder.is_dir():
            if folder not in known:
                known[folder] = {child.name.casefold(): child for child in folder.iterdir()}
            path = known[folder].get(part.casefold(), path)
        folder = path
    return folder
