"""A scan: voxels, where they lie, and what a person should know of them. Where they lie is `geometry`'s to say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_sparsetok.geometry import (
    AXIS_LABELS,
    OBLIQUE_DEGREES,
    SHOWN_AXES,
    Geometry,
    OtherGridError,
    Region,
    ScanError,
    Shape,
)

__all__ = [
    "AXIS_LABELS",
    "OBLIQUE_DEGREES",
    "SHOWN_AXES",
    "SIDES_UNKNOWN",
    "Geometry",
    "OtherGridError",
    "Region",
    "Scan",
    "ScanError",
    "Shape",
    "Source",
    "stack_channels",
]

SIDES_UNKNOWN = "Nothing says how the patient lay: left and right cannot be told from this scan."
"""A note on a scan. Whoever shows one with this note shows no letters for its sides."""

_SAMPLED = 500_000  # voxels


@dataclass(frozen=True, eq=False)
class Source:
    """Where a scan came from, with what is needed to write a mask back in the same format.

    frame : which volume of a file with a time axis this is; None for all of them.
    """

    path: Path
    format: str
    header: Any = None
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Scan:
    """Voxels and where they lie.

    Parameters
    ----------
    voxels : (z, y, x) or, with a leading axis, (n, z, y, x). Stored values with the file's scaling applied.
    geometry : see `Geometry`; its shape is that of the last three axes.
    name : what to call it on screen. Free of patient data.
    leading : what the leading axis is, if there is one.
    source : the file, if it came from one.
    notes : sentences that the person should read.
    identity : only for voxels that stay on disk (any array that numpy can index): what tells this scan from others
        without reading all of it.
    origins : further files that the voxels come from: other channels, or what was resampled or cropped. No mask may be
        written over them.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    name: str = "scan"
    leading: Literal["", "time", "channel"] = ""
    source: Source | None = None
    notes: tuple[str, ...] = field(default=())
    identity: str = ""
    origins: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        expected = 4 if self.leading else 3
        if self.voxels.ndim != expected:
            raise ScanError(
                f"“{self.name}” has {self.voxels.ndim} axes; a scan needs three (a stack of slices). "
                "A single slice or picture cannot be segmented"
            )
        if self.voxels.shape[-3:] != self.geometry.shape:
            raise ScanError(
                f"“{self.name}” has {self.voxels.shape[-3:]} voxels but a geometry of {self.geometry.shape}"
            )
        if 0 in self.voxels.shape:
            raise ScanError(f"“{self.name}” holds no voxels")

    @property
    def shape(self) -> Shape:
        """Voxels along z, y, x."""
        return self.geometry.shape

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the voxels come from."""
        return (*([self.source.path] if self.source else ()), *self.origins)

    def frame(self, index: int) -> Scan:
        """One volume of a scan with a time axis; a scan without one is its own only frame.

        Raises
        ------
        ScanError : it has no frame of this number.
        """
        if self.leading != "time":
            return self
        if not 0 <= index < len(self.voxels):
            raise ScanError(f"“{self.name}” has the frames 0 to {len(self.voxels) - 1}; there is no frame {index}")
        source = replace(self.source, frame=index) if self.source else None
        identity = f"{self.identity} frame {index}" if self.identity else ""
        return replace(self, voxels=self.voxels[index], leading="", source=source, identity=identity)

    def cropped(self, region: Region) -> Scan:
        """The voxels in a box, where they were; no longer the file's grid, so without its source.

        Raises
        ------
        ScanError : the box lies outside the scan.
        """
        box = region.clipped(self.shape)
        voxels = np.array(self.voxels[(..., *box.slices)])
        place = self.geometry.cropped(box)
        return replace(self, voxels=voxels, geometry=place, source=None, identity="", origins=self.files)

    @property
    def sides_known(self) -> bool:
        """Whether left and right, front and back can be told."""
        return SIDES_UNKNOWN not in self.notes

    @property
    def is_lazy(self) -> bool:
        """Whether the voxels stay on disk until they are asked for."""
        return not isinstance(self.voxels, np.ndarray)

    @cached_property
    def sample(self) -> NDArray[Any]:
        """About half a million voxel values, one-dimensional: evenly spread, or of a lazy scan 27 boxes, read once."""
        if not self.is_lazy:
            return self.voxels.flat[:: max(1, self.voxels.size // _SAMPLED)]
        side = max(1, round((_SAMPLED / 27) ** (1 / 3)))
        return np.concatenate([np.asarray(self.voxels[box]).ravel() for box in self._boxes(side)])

    @property
    def is_sampled(self) -> bool:
        """Whether `sample` can be had without reading."""
        return not self.is_lazy or "sample" in self.__dict__

    def _boxes(self, side: int) -> Iterator[tuple[Any, ...]]:
        """27 small boxes, evenly spread."""
        starts = [
            sorted({max(0, round((n - side) * share)) for share in (0.1, 0.5, 0.9)}) for n in self.voxels.shape[-3:]
        ]
        for corner in product(*starts):
            yield (..., *(slice(a, a + side) for a in corner))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of voxels and affine, the same for the same scan wherever it is stored.

        A lazy scan is not read for this: its digest is made of `identity`, the affine and 27 small boxes of voxels,
        and says so by ending in "-sampled". Two such scans that differ only elsewhere share it.
        """
        digest = hashlib.sha256(str((self.voxels.shape, self.voxels.dtype.str)).encode())
        if self.is_lazy:
            digest.update(self.identity.encode())
            for box in self._boxes(side=16):
                digest.update(np.ascontiguousarray(self.voxels[box]).data)
        else:
            digest.update(np.ascontiguousarray(self.voxels).data)
        digest.update((np.round(self.geometry.affine, 4) + 0.0).tobytes())
        return digest.hexdigest() + ("-sampled" if self.is_lazy else "")


def stack_channels(scans: Sequence[Scan]) -> Scan:
    """Several scans of one patient as the channels of one.

    Raises
    ------
    OtherGridError : their grids differ; `napari_sparsetok.files.resampled_to` makes them one.
    ScanError : there are none, one has a time axis, or those on disk do not fit into memory.
    """
    if not scans:
        raise ScanError("no scan was chosen; choose one for each channel of the model")
    first = scans[0]
    for other in scans[1:]:
        if not first.geometry.same_grid(other.geometry):
            raise OtherGridError(
                f"“{other.name}” does not lie on the grid of “{first.name}”; resample it to the same voxels first "
                "(on the command line: --resample-channels)"
            )
    if any(scan.leading for scan in scans):
        raise ScanError("a channel must be a single volume; choose one frame of the scan with a time axis")
    _check_memory(scans)
    identity = " ".join(scan.identity for scan in scans if scan.identity)
    origins = tuple(path for k, scan in enumerate(scans) for path in (scan.files if k else scan.origins))
    voxels = np.stack([scan.voxels for scan in scans])
    others = (note for scan in scans[1:] for note in scan.notes if note != SIDES_UNKNOWN)  # the first one's sides count
    notes = tuple(dict.fromkeys([*first.notes, *others]))
    return replace(first, voxels=voxels, leading="channel", identity=identity, origins=origins, notes=notes)


def _check_memory(scans: Sequence[Scan]) -> None:
    """Refuse voxels on disk that stacking would read, where they do not fit. Arrays that stack unread are no matter."""
    read = [scan for scan in scans if scan.is_lazy and not hasattr(scan.voxels, "__array_function__")]
    needed = len(scans) * max((scan.voxels.size * scan.voxels.dtype.itemsize for scan in read), default=0)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ScanError(
            f"these channels need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; "
            "crop the scans first"
        )
