"""Corrections kept safe while a person works, and offered back when the same scan is opened again.

One file for each scan and table of labels, named by the hash of the scan's content and one of the table, so it is found
wherever the scan lies and says nothing of whose it is. Only voxels with an opinion are stored.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError

_SUFFIX = ".corrections.npz"
_LABELS = "l"  # before the hash of a table, in a name; no number of a time begins with it
_NOT_KEPT = "your corrections could not be kept safe on disk ({}); save the mask now"
_DAMAGED = Exception  # zip, zlib, numpy and json each have errors of their own for what is in a damaged file


def default_folder() -> Path:
    """Where they are kept if nothing else is said."""
    return platformdirs.user_data_path("napari-sparsetok", appauthor=False) / "corrections"


@dataclass(frozen=True)
class Kept:
    """One kept set of corrections, as listed: nothing of the patient's.

    name : what they are kept under: the content hash of the scan, then what tells them from others of the scan.
    at : when it was kept, in UTC.
    voxels : how many voxels have an opinion.
    nbytes : on disk.
    shape : of the scan, (z, y, x).
    labels : what the numbers mean; None if it was not noted, as in files of the first versions.
    """

    name: str
    at: datetime
    voxels: int
    nbytes: int
    shape: tuple[int, ...] = ()
    labels: LabelTable | None = None

    @property
    def is_aside(self) -> bool:
        """Whether they were set aside."""
        last = self.name.removesuffix("-sampled").rpartition("-")
        return bool(last[0]) and not last[2].startswith(_LABELS)

    def belongs_to(self, scan: str) -> bool:
        """Whether they are of the scan with this hash, those that were set aside too."""
        return self.name == scan or self.name.startswith(f"{scan}-")


@dataclass(eq=False)
class Lineage:
    """Of corrections that go on with each other. `mark` tells it from others, in other programs too."""

    mark: str = field(default_factory=lambda: secrets.token_hex(6))


class CorrectionStore:
    """Keeps, lists and gives back corrections. Nothing is ever removed but by `remove`.

    What is kept for a scan is overwritten only by corrections of the same lineage: those that were kept there last, or
    that go on with what was given back. Anything else that lies there is set aside first, also what another window
    wrote: a person who starts afresh loses nothing by it. Of each lineage the newest is set aside, so that two windows
    that correct the same scan do not fill the disk.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._given: dict[str, int] = {}  # when the files were written that were given back
        self._known: dict[
            str, tuple[Lineage | None, int]
        ] = {}  # whose corrections lie there, and when they were written

    def keep(
        self,
        scan: str,
        corrections: NDArray[np.uint8],
        notes: Mapping[str, Any] = MappingProxyType({}),
        lineage: Lineage | None = None,
        labels: LabelTable | None = None,
    ) -> Path:
        """Write the corrections (z, y, x) of a scan, whole or not at all.

        Parameters
        ----------
        scan : its content hash.
        corrections : may be painted on meanwhile; what comes too late is in the next keeping.
        notes : what else is to come back with them, ready for JSON; nothing of the patient's.
        lineage : the same object for as long as the corrections go on with what was kept before; see `go_on`.
        labels : what the numbers mean. Corrections of the same scan for other labels are kept beside these.

        Raises
        ------
        ScanError : the disk refuses; what was kept before is still there.
        """
        flat, values = _opinions(corrections)
        table: dict[str, Any] = {"labels": _text(labels.to_json())} if labels else {}
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            shape=np.asarray(corrections.shape, dtype=np.int64),
            # Neighbours lie close together, so their distances compress far better than their places.
            steps=np.diff(flat, prepend=0).astype(np.uint64 if corrections.size >= 2**32 else np.uint32),
            values=values,
            at=np.asarray(datetime.now(UTC).timestamp()),
            notes=_text(dict(notes)),
            mark=_text("" if lineage is None else lineage.mark),
            **table,
        )
        name = _name(scan, labels)
        path = self._path(name)
        with written_whole(path, words=_NOT_KEPT) as part:
            part.write_bytes(buffer.getvalue())
            # As late as can be: another window may write to the same place.
            written = _written_at(path)
            if written is not None and self._known.get(name) != (lineage, written):
                self._set_aside(path, name)
        self._known[name] = (lineage, _written_at(path) or 0)
        return path

    def go_on(self, name: str, lineage: Lineage | None) -> None:
        """The corrections of this lineage go on with what `give_back` gave last: they may be kept in its place."""
        if name in self._given:
            self._known[name] = (lineage, self._given[name])

    def goes_on(self, name: str, lineage: Lineage | None) -> bool:
        """Whether what was last kept or given back under a name is of this lineage."""
        return name in self._known and self._known[name][0] is lineage

    def find(self, scan: str, labels: LabelTable | None = None) -> Kept | None:
        """What is kept for a scan and was not set aside, if anything is.

        Parameters
        ----------
        labels : what the numbers must mean. What an earlier version kept is found if there is nothing else: what its
            numbers mean was not noted. Without a table, what was kept last.
        """
        if labels:
            paths = [self._path(_name(scan, labels)), self._path(scan)]
            return next((kept for path in paths if path.exists() and (kept := self._listed(path))), None)
        return next((kept for kept in self.all() if kept.belongs_to(scan) and not kept.is_aside), None)

    def give_back(self, name: str) -> NDArray[np.uint8]:
        """The corrections (z, y, x) kept under a name.

        Raises
        ------
        ScanError : nothing is kept there, or the file is damaged.
        """
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                written = os.fstat(file.fileno()).st_mtime_ns
                shape = tuple(int(n) for n in stored["shape"])
                corrections = np.zeros(int(np.prod(shape)), dtype=np.uint8)
                corrections[np.cumsum(stored["steps"], dtype=np.int64)] = stored["values"]
                self._given[name] = written
                return corrections.reshape(shape)
        except _DAMAGED as error:
            raise ScanError(f"the kept corrections of this scan cannot be read ({error})") from None

    def notes(self, name: str) -> dict[str, Any]:
        """What was noted with the corrections kept under a name; nothing if it cannot be read."""
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                found = json.loads(stored["notes"].tobytes()) if "notes" in stored else {}
        except _DAMAGED:
            return {}
        return found if isinstance(found, dict) else {}

    def all(self) -> list[Kept]:
        """Everything that is kept, newest first; files that cannot be read are left out."""
        found = [self._listed(path) for path in self.folder.glob(f"*{_SUFFIX}")]
        return sorted((kept for kept in found if kept), key=lambda kept: kept.at, reverse=True)

    def remove(self, name: str) -> None:
        """Forget what is kept under a name, because the person said so."""
        self._path(name).unlink(missing_ok=True)

    def _set_aside(self, path: Path, name: str) -> None:
        """Copy what is there to a name of its own; the original stays until the new is whole."""
        if not path.exists():
            return
        mark = _mark(path)
        aside = self._path(f"{name}-{mark or format(path.stat().st_mtime_ns, 'x')}")
        if not mark and aside.exists():  # a clock that was set back
            aside = self._path(f"{name}-{secrets.token_hex(6)}")
        with written_whole(aside, words=_NOT_KEPT) as part:
            shutil.copyfile(path, part)

    def _path(self, name: str) -> Path:
        if not name or not set(name) <= set("0123456789abcdef-sampled"):
            raise ValueError("corrections are kept under a hash")
        return self.folder / f"{name}{_SUFFIX}"

    def _listed(self, path: Path) -> Kept | None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                at, voxels = float(stored["at"]), len(stored["values"])
                shape = tuple(int(n) for n in stored["shape"])
                table = LabelTable.from_json(json.loads(stored["labels"].tobytes())) if "labels" in stored else None
            at_time = datetime.fromtimestamp(at, UTC)
            return Kept(path.name.removesuffix(_SUFFIX), at_time, voxels, path.stat().st_size, shape, table)
        except _DAMAGED:
            return None


def _name(scan: str, labels: LabelTable | None) -> str:
    """What the corrections of a scan for these labels are kept under."""
    if not labels:
        return scan
    digest = hashlib.sha256(json.dumps(labels.meaning).encode()).hexdigest()
    return f"{scan}-{_LABELS}{digest[:12]}"


def _text(document: object) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)


def _mark(path: Path) -> str:
    """The mark of the lineage of what lies there; "" if it has none, or cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = json.loads(stored["mark"].tobytes()) if "mark" in stored else ""
    except _DAMAGED:
        return ""
    return found if isinstance(found, str) and set(found) <= set("0123456789abcdef") else ""


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
