"""Where voxels lie, and boxes of them. The only place that knows axes and affines.

Inside the program arrays run ``(z, y, x)``, from inferior to **superior**, anterior to **posterior**, and the
patient's right to **left**, whatever the file's order was. Only flips and transposes lead there, so every voxel
value is the file's, and saving inverts exactly what opening did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import lazy_loader
import numpy as np
from numpy.typing import NDArray

# At first use: loading nibabel takes as long as a quarter of opening the viewer.
nib = lazy_loader.load("nibabel")

SHOWN_AXES = ("S", "P", "L")
"""Where rising indices lead along the axes of a shown array."""

AXIS_LABELS = ("z (I-S)", "y (A-P)", "x (R-L)")

# Columns of the affine are turned into napari's world, whose axes point to S, P and L.
_RAS_TO_WORLD = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]], dtype=float)

OBLIQUE_DEGREES = 0.5
"""A tilt below this is rounding in the file, not an oblique scan."""

SKEW_DEGREES = 0.1
"""Axes that miss a right angle by less count as right: directions written with three decimals are off by as much."""
_SKEW_VOXELS = 0.1  # and those that put no voxel of the scan further from its place, whatever the angle

# Millimetres that a voxel may measure: from a tenth of a nanometre to a kilometre. Beyond is rubbish in a header.
_SMALLEST, _LARGEST = 1e-7, 1e6
_SAME_PLACE = 0.01  # mm; headers in single precision differ by less
_FLATTEST = 1e-3  # volume of a voxel whose sides were of length 1: below it two axes coincide

Shape = tuple[int, int, int]


def times_xyz(zyx: Sequence[float], form: str = "{}", unbroken: bool = False) -> str:
    """Numbers of the axes (z, y, x) in the order in which people read them: "x × y × z", on one line if `unbroken`."""
    return ("\u00a0×\u00a0" if unbroken else " × ").join(form.format(n) for n in reversed(zyx))


class ScanError(ValueError):
    """A scan that cannot be used, in a sentence that says why and what to do."""


class OtherGridError(ScanError):
    """Scans that should have the same voxels in the same place do not."""


@dataclass(frozen=True)
class Region:
    """A box of voxels: from `start` up to but not including `stop`, (z, y, x)."""

    start: Shape
    stop: Shape

    def __post_init__(self) -> None:
        if any(a < 0 or b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise ScanError(f"the region from {self.start} to {self.stop} is empty; choose a box with some extent")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Region:
        """The region that holds a whole array of this shape."""
        z, y, x = shape
        return cls((0, 0, 0), (z, y, x))

    @property
    def shape(self) -> Shape:
        """Its extent in voxels."""
        (a, b, c), (d, e, f) = self.start, self.stop
        return d - a, e - b, f - c

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """For indexing the last three axes."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def clipped(self, shape: Sequence[int]) -> Region:
        """The part of it that lies within an array of this shape.

        Raises
        ------
        ScanError : no part of it does.
        """
        start = tuple(max(0, a) for a in self.start)
        stop = tuple(min(b, n) for b, n in zip(self.stop, shape, strict=True))
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            raise ScanError(
                f"the region from {self.start} to {self.stop} lies outside the scan of {tuple(shape)} voxels"
            )
        return Region(start, stop)  # type: ignore[arg-type]


def _invertible(columns: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(columns, axis=0)
    if not (lengths > _SMALLEST).all() or not (lengths < _LARGEST).all():
        return False
    return abs(float(np.linalg.det(columns / lengths))) >= _FLATTEST


def _turned(array: NDArray[Any], orientation: NDArray[np.float64]) -> NDArray[Any]:
    """Flip and transpose the first three axes; row k says where axis k goes, and whether it is flipped."""
    flips = tuple(slice(None, None, int(sign)) for sign in orientation[:, 1])
    order = np.argsort(orientation[:, 0])
    return array[flips].transpose(*order.tolist(), *range(3, array.ndim))


@dataclass(frozen=True, eq=False)
class Geometry:
    """How the shown axes relate to the source's axes and to the patient.

    Parameters
    ----------
    source_shape : extent of the array in the file, in the file's order, the three spatial axes.
    source_affine : (4, 4), from the file's voxel indices to RAS+ millimetres.
    """

    source_shape: Shape
    source_affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.asarray(self.source_affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ScanError("the file's orientation matrix holds values that are not numbers; export the scan again")
        if not _invertible(affine[:3, :3]):
            raise ScanError(
                "the file's orientation matrix cannot be inverted (two axes coincide, or a voxel has no size), "
                "so nobody can say where its voxels lie; export the scan again"
            )
        object.__setattr__(self, "source_affine", affine)

    @cached_property
    def _to_shown(self) -> NDArray[np.float64]:
        shown = nib.orientations.axcodes2ornt(SHOWN_AXES)
        turn: NDArray[np.float64] = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(self.source_affine), shown
        )
        return turn

    @cached_property
    def _to_source(self) -> NDArray[np.float64]:
        shown = nib.orientations.axcodes2ornt(SHOWN_AXES)
        turn: NDArray[np.float64] = nib.orientations.ornt_transform(
            shown, nib.orientations.io_orientation(self.source_affine)
        )
        return turn

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4), from shown indices (z, y, x) to RAS+ millimetres."""
        turned: NDArray[np.float64] = self.source_affine @ nib.orientations.inv_ornt_aff(
            self._to_shown, self.source_shape
        )
        return turned

    @cached_property
    def shape(self) -> Shape:
        """Extent of the shown array."""
        z, y, x = (self.source_shape[int(np.flatnonzero(self._to_shown[:, 0] == k)[0])] for k in range(3))
        return z, y, x

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along the shown axes."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return z, y, x

    @cached_property
    def origin(self) -> tuple[float, float, float]:
        """Where voxel (0, 0, 0) lies on the viewer's axes: millimetres towards S, P and L."""
        z, y, x = (_RAS_TO_WORLD @ self.affine[:3, 3]).tolist()
        return z, y, x

    @cached_property
    def obliqueness(self) -> float:
        """Largest angle in degrees between an axis of the scan and the patient axis it is shown as."""
        columns = self.affine[:3, :3] / np.asarray(self.spacing)
        cosines = np.abs(np.diag(_RAS_TO_WORLD @ columns)).clip(0, 1)
        return float(np.degrees(np.arccos(cosines)).max())

    @property
    def is_oblique(self) -> bool:
        """Whether the scan's axes are turned against the patient's."""
        return self.obliqueness > OBLIQUE_DEGREES

    @cached_property
    def skew(self) -> float:
        """Largest angle in degrees by which two axes miss a right angle."""
        columns = self.source_affine[:3, :3] / np.linalg.norm(self.source_affine[:3, :3], axis=0)
        cosines = np.abs(columns.T @ columns)[np.triu_indices(3, 1)]
        return float(np.degrees(np.arcsin(cosines.clip(0, 1))).max())

    @property
    def is_skewed(self) -> bool:
        """Whether its slices are shifted against each other by more than a header's rounding, so that it is no box."""
        if self.skew <= SKEW_DEGREES:
            return False
        _, upright = self._straight_axes
        shift = np.linalg.inv(upright) @ self.source_affine[:3, :3] - np.eye(3)
        shift[np.diag_indices(3)] = 0
        return float((np.abs(shift) @ (np.asarray(self.source_shape) - 1)).max()) > _SKEW_VOXELS

    @cached_property
    def _straight_axes(self) -> tuple[int, NDArray[np.float64]]:
        """Which axis is tilted, and (3, 3) axes at right angles: in its place the normal of the others."""
        columns = self.source_affine[:3, :3]
        unit = columns / np.linalg.norm(columns, axis=0)
        cosines = np.abs(unit.T @ unit)
        # Slices are at right angles in themselves; of three axes that could all be kept, the last one is not.
        tilted = min((2, 1, 0), key=lambda k: round(float(cosines[(k + 1) % 3, (k + 2) % 3]), 6))
        first, second = (k for k in range(3) if k != tilted)
        straight = columns.copy()
        straight[:, second] -= unit[:, first] * (unit[:, first] @ columns[:, second])
        normal = np.cross(straight[:, first], straight[:, second])
        normal /= np.linalg.norm(normal)
        straight[:, tilted] = normal * (normal @ columns[:, tilted])
        return tilted, straight

    def straightened(self) -> Geometry:
        """The smallest grid at right angles that holds all its voxels, on the planes of those that are shifted."""
        _, axes = self._straight_axes
        corners = np.array(list(product(*((0, n - 1) for n in self.source_shape))), dtype=float)
        places = corners @ (np.linalg.inv(axes) @ self.source_affine[:3, :3]).T
        low, high = np.floor(places.min(axis=0) + 1e-6), np.ceil(places.max(axis=0) - 1e-6)
        affine = self.source_affine.copy()
        affine[:3, :3] = axes
        affine[:3, 3] += axes @ low
        x, y, z = (int(n) + 1 for n in high - low)
        return Geometry((x, y, z), affine)

    @property
    def source_axes(self) -> str:
        """The file's own axis order, as in "RAS"."""
        return "".join(nib.orientations.aff2axcodes(self.source_affine))

    def to_shown(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array from the file's order; further axes must follow the spatial ones.

        Only indexing and transposing are used, so an array that is read piece by piece stays unread.
        """
        return _turned(array, self._to_shown)

    def to_source(self, array: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `to_shown`."""
        return _turned(array, self._to_source)

    def same_grid(self, other: Geometry) -> bool:
        """Whether both have the same voxels in the same place, to a hundredth of a millimetre."""
        return self.shape == other.shape and _furthest(self.shape, self.affine - other.affine) <= _SAME_PLACE

    def furthest(self, other: Geometry) -> float:
        """The most by which a voxel of the file lies elsewhere in the other, in millimetres along an axis."""
        return _furthest(self.source_shape, self.source_affine - other.source_affine)

    def cropped(self, region: Region) -> Geometry:
        """The geometry of a box that lies within the shown array, in the same source order."""
        to_source = nib.orientations.inv_ornt_aff(self._to_shown, self.source_shape)
        corners = np.array([(*region.start, 1), (*(n - 1 for n in region.stop), 1)]) @ to_source.T
        first, last = corners.min(axis=0)[:3], corners.max(axis=0)[:3]
        x, y, z = (last - first + 1).astype(int).tolist()
        affine = self.source_affine.copy()
        affine[:3, 3] += affine[:3, :3] @ first
        return Geometry((x, y, z), affine)

    def region_around(self, voxel: Sequence[int], extent: Sequence[float]) -> Region:
        """A box of `extent` millimetres with `voxel` in its middle, moved and cut to lie within the scan."""
        start, stop = [], []
        for at, mm, step, n in zip(voxel, extent, self.spacing, self.shape, strict=True):
            side = min(n, max(1, round(mm / step)))
            first = min(max(0, int(at) - side // 2), n - side)
            start.append(first)
            stop.append(first + side)
        return Region(tuple(start), tuple(stop))  # type: ignore[arg-type]

    @classmethod
    def shown(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        origin: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> Geometry:
        """A geometry whose own order is the shown one, for arrays that come from no file.

        `spacing` and `origin` are millimetres along S, P and L.
        """
        z, y, x = (int(n) for n in shape)
        affine = np.eye(4)
        affine[:3, :3] = _RAS_TO_WORLD.T @ np.diag(np.asarray(spacing, dtype=float))
        affine[:3, 3] = _RAS_TO_WORLD.T @ np.asarray(origin, dtype=float)
        return cls((z, y, x), affine)


def _furthest(shape: Sequence[int], difference: NDArray[np.float64]) -> float:
    """The largest that a difference of affines makes: it is in a corner."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))])
    return float(np.abs(corners @ difference.T).max())
