"""Corrections kept safe while a person works, and offered back when the same scan is opened again.

One file for each scan, named by the hash of the scan's content, so it is found wherever the scan lies and says nothing
of whose it is. Only voxels with an opinion are stored.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.scan import ScanError

_SUFFIX = ".corrections.npz"
_NOT_KEPT = "your corrections could not be kept safe on disk ({}); save the mask now"
_DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


def default_folder() -> Path:
    """Where they are kept if nothing else is said."""
    return platformdirs.user_data_path("napari-sparsetok", appauthor=False) / "corrections"


@dataclass(frozen=True)
class Kept:
    """One kept set of corrections, as listed: nothing of the patient's.

    scan : content hash of the scan.
    at : when it was kept, in UTC.
    voxels : how many voxels have an opinion.
    nbytes : on disk.
    shape : of the scan, (z, y, x).
    """

    scan: str
    at: datetime
    voxels: int
    nbytes: int
    shape: tuple[int, ...] = ()

    def belongs_to(self, scan: str) -> bool:
        """Whether they are of the scan with this hash, those that were set aside too."""
        return self.scan == scan or self.scan.startswith(f"{scan}-")


class CorrectionStore:
    """Keeps, lists and gives back corrections. Nothing is ever removed but by `remove`.

    What is kept for a scan is overwritten only by corrections of the same lineage: those that were kept there last, or
    that go on with what was given back. Anything else that lies there is set aside first, also what another window
    wrote: a person who starts afresh loses nothing by it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._given: dict[str, int] = {}  # when the files were written that were given back
        self._known: dict[str, tuple[object, int]] = {}  # whose corrections lie there, and when they were written

    def keep(
        self,
        scan: str,
        corrections: NDArray[np.uint8],
        notes: Mapping[str, Any] = MappingProxyType({}),
        lineage: object = None,
    ) -> Path:
        """Write the corrections (z, y, x) of a scan, whole or not at all.

        Parameters
        ----------
        scan : its content hash.
        corrections : may be painted on meanwhile; what comes too late is in the next keeping.
        notes : what else is to come back with them, ready for JSON; nothing of the patient's.
        lineage : the same object for as long as the corrections go on with what was kept before; see `go_on`.

        Raises
        ------
        ScanError : the disk refuses; what was kept before is still there.
        """
        flat, values = _opinions(corrections)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            shape=np.asarray(corrections.shape, dtype=np.int64),
            # Neighbours lie close together, so their distances compress far better than their places.
            steps=np.diff(flat, prepend=0).astype(np.uint64 if corrections.size >= 2**32 else np.uint32),
            values=values,
            at=np.asarray(datetime.now(UTC).timestamp()),
            notes=np.frombuffer(json.dumps(dict(notes)).encode(), dtype=np.uint8),
        )
        path = self._path(scan)
        written = _written_at(path)
        if written is not None and self._known.get(scan) != (lineage, written):
            self._set_aside(path, scan)
        with written_whole(path, words=_NOT_KEPT) as part:
            part.write_bytes(buffer.getvalue())
        self._known[scan] = (lineage, _written_at(path) or 0)
        return path

    def go_on(self, name: str, lineage: object) -> None:
        """The corrections of this lineage go on with what `give_back` gave last: they may be kept in its place."""
        if name in self._given:
            self._known[name] = (lineage, self._given[name])

    def goes_on(self, name: str, lineage: object) -> bool:
        """Whether what was last kept or given back under a name is of this lineage."""
        return name in self._known and self._known[name][0] is lineage

    def find(self, scan: str) -> Kept | None:
        """What is kept for a scan, if anything is."""
        path = self._path(scan)
        return self._listed(path) if path.exists() else None

    def give_back(self, scan: str) -> NDArray[np.uint8]:
        """The corrections (z, y, x) kept for a scan.

        Raises
        ------
        ScanError : nothing is kept for it, or the file is damaged.
        """
        try:
            with self._path(scan).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                written = os.fstat(file.fileno()).st_mtime_ns
                shape = tuple(int(n) for n in stored["shape"])
                corrections = np.zeros(int(np.prod(shape)), dtype=np.uint8)
                corrections[np.cumsum(stored["steps"], dtype=np.int64)] = stored["values"]
                self._given[scan] = written
                return corrections.reshape(shape)
        except (*_DAMAGED, IndexError) as error:
            raise ScanError(f"the kept corrections of this scan cannot be read ({error})") from None

    def notes(self, scan: str) -> dict[str, Any]:
        """What was noted with the corrections of a scan; nothing if it cannot be read."""
        try:
            with self._path(scan).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                found = json.loads(stored["notes"].tobytes()) if "notes" in stored else {}
        except _DAMAGED:
            return {}
        return found if isinstance(found, dict) else {}

    def all(self) -> list[Kept]:
        """Everything that is kept, newest first; files that cannot be read are left out."""
        found = [self._listed(path) for path in self.folder.glob(f"*{_SUFFIX}")]
        return sorted((kept for kept in found if kept), key=lambda kept: kept.at, reverse=True)

    def remove(self, scan: str) -> None:
        """Forget what is kept for a scan, because the person said so."""
        self._path(scan).unlink(missing_ok=True)

    def _set_aside(self, path: Path, scan: str) -> None:
        """Copy what is there to a name of its own; the original stays until the new is whole."""
        if not path.exists():
            return
        aside = self._path(f"{scan}-{path.stat().st_mtime_ns:x}")
        with written_whole(aside, words=_NOT_KEPT) as part:
            shutil.copyfile(path, part)

    def _path(self, scan: str) -> Path:
        if not scan or not set(scan) <= set("0123456789abcdef-sampled"):
            raise ValueError("corrections are kept under a hash")
        return self.folder / f"{scan}{_SUFFIX}"

    def _listed(self, path: Path) -> Kept | None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                at, voxels = float(stored["at"]), len(stored["values"])
                shape = tuple(int(n) for n in stored["shape"])
        except _DAMAGED:
            return None
        at_time = datetime.fromtimestamp(at, UTC)
        return Kept(path.name.removesuffix(_SUFFIX), at_time, voxels, path.stat().st_size, shape)


def _written_at(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _opinions(corrections: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where in the flattened array there is an opinion, and which.

    Slice by slice on copies: one may be painted on while it is looked at, and nobody waits long for the interpreter.
    """
    places, values = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for k, part in enumerate(corrections):
        now = np.array(part).ravel()
        at = np.flatnonzero(now)
        if len(at):
            places.append(at + k * now.size)
            values.append(now[at])
    return np.concatenate(places), np.concatenate(values)
