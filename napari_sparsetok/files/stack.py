"""Slices in space, and whether they make a volume. Pure geometry; knows no file.

Positions and directions are DICOM's: millimetres towards the patient's left, posterior and superior (LPS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

SAME_PLACE = 0.01  # mm; slices that are nearer lie in one plane
_DRIFT = 0.1  # share of a pixel that slices may be shifted in their plane before it counts as a tilt
_DRIFT_MM = 0.05  # and at least this much, which is rounding in the headers
_UNEVEN = 0.1  # share of the spacing that a slice may lie off its place
_REMARKABLE = 0.01  # beyond this share it is at least said
FEWEST = 3  # slices: two have one distance between them, which nothing confirms

RESAMPLE = "resample"
DROP = "drop"

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Where one slice lies.

    Parameters
    ----------
    position : centre of its first pixel, LPS millimetres.
    orientation : unit vectors along a row and down a column, LPS.
    spacing : millimetres between rows, and between columns.
    shape : rows, columns.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    shape: tuple[int, int]

    @property
    def axes(self) -> tuple[Vector, Vector, Vector]:
        """Unit vectors along a row, down a column, and their normal."""
        row, column = np.asarray(self.orientation, dtype=float).reshape(2, 3)
        row = row / np.linalg.norm(row)
        column = column - row * (row @ column)
        column = column / np.linalg.norm(column)
        return row, column, np.cross(row, column)

    @property
    def is_sound(self) -> bool:
        """Whether all numbers are finite, the directions at right angles and the spacing positive."""
        numbers = np.asarray([*self.position, *self.orientation, *self.spacing], dtype=float)
        if len(self.position) != 3 or len(self.orientation) != 6 or not np.isfinite(numbers).all():
            return False
        row, column = np.asarray(self.orientation, dtype=float).reshape(2, 3)
        unit = abs(row @ row - 1) < 1e-2 and abs(column @ column - 1) < 1e-2
        return bool(unit and abs(row @ column) < 1e-2 and min(self.spacing) > 0)


@dataclass(frozen=True, eq=False)
class Layout:
    """How slices, one a plane and in rising order along their normal, lie.

    Parameters
    ----------
    affine : (4, 4), from (column, row, slice) to RAS+ millimetres; even if there are problems, the nearest to it.
    distances : (slices,) millimetres along the normal from the first one.
    drift : (slices, 2) millimetres that each is shifted along its rows and columns.
    step : the usual distance between two slices.
    problems, repairs, notes : in words, see `napari_sparsetok.files.series.SeriesInfo`.
    """

    affine: Vector
    distances: Vector
    drift: Vector
    step: float
    problems: tuple[str, ...] = ()
    repairs: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def along(planes: Sequence[Plane]) -> Vector:
    """How far each slice lies along the normal of the first, in millimetres: (slices,)."""
    normal = planes[0].axes[2]
    return np.asarray([plane.position for plane in planes], dtype=float) @ normal


def grouped(planes: Sequence[Plane]) -> list[list[int]]:
    """Indices of the slices, those in one plane together, planes in rising order along the normal."""
    distances = along(planes)
    groups: list[list[int]] = []
    last = -np.inf
    for index in np.argsort(distances, kind="stable").tolist():
        if distances[index] - last > SAME_PLACE:
            groups.append([])
            last = distances[index]
        groups[-1].append(index)
    return groups


def side_by_side(planes: Sequence[Plane]) -> bool:
    """Whether slices in one plane do not lie over each other."""
    places = np.asarray([plane.position for plane in planes])
    return bool(np.abs(places - places[0]).max() > max(0.1, SAME_PLACE))


def displaced(stacks: Sequence[Sequence[Plane]]) -> float:
    """How far, in millimetres, slices lie from their places in the first stack; 0.0 if that is rounding.

    Parameters
    ----------
    stacks : volumes, the first with at least as many slices as any; slices in any order. One that lacks slices is not
        displaced for that.
    """
    first = stacks[0]
    others = [plane for stack in stacks[1:] for plane in stack]
    order = np.argsort(along(first), kind="stable")
    normal = first[0].axes[2]
    have, corners = along(first)[order], _corners(first)[order]
    want = np.asarray([plane.position for plane in others]) @ normal - np.asarray(first[0].position) @ normal
    have = have - np.asarray(first[0].position) @ normal
    above = np.clip(np.searchsorted(have, want), 1, len(have) - 1)
    nearest = np.where(want - have[above - 1] < have[above] - want, above - 1, above)
    shifts = np.linalg.norm(_corners(others) - corners[nearest], axis=2).max(axis=1)
    largest = max(_DRIFT_MM, _DRIFT * min(first[0].spacing))
    bad = (np.abs(want - have[nearest]) > SAME_PLACE) | (shifts > largest)
    return float(shifts[bad].max()) if bad.any() else 0.0


def _corners(planes: Sequence[Plane]) -> Vector:
    """(slices, 3, 3), LPS millimetres: the first pixel, the last of the first row, the last of the first column."""
    places = np.asarray([plane.position for plane in planes], dtype=float)
    ways = np.asarray([plane.orientation for plane in planes], dtype=float).reshape(-1, 2, 3)
    steps = np.asarray([plane.spacing[::-1] for plane in planes]) * (np.asarray([p.shape[::-1] for p in planes]) - 1)
    far = places[:, None] + ways * steps[:, :, None]
    return np.concatenate([places[:, None], far], axis=1)


def layout_of(planes: Sequence[Plane]) -> Layout:
    """Check slices that lie one a plane, in rising order."""
    first = planes[0]
    row, column, normal = first.axes
    places = np.asarray([plane.position for plane in planes], dtype=float)
    distances = (places - places[0]) @ normal
    drift = np.stack([(places - places[0]) @ row, (places - places[0]) @ column], axis=1)
    if len(planes) < FEWEST:
        return _too_few(planes, distances, drift)
    gaps = np.diff(distances)
    step = float(np.median(gaps))
    findings = [_tilt(distances, drift, first.spacing), _gaps(gaps, step) or _uneven(distances)]
    problems = tuple(text for text in findings if text)
    vector = (places[-1] - places[0]) / (len(planes) - 1) if not problems else normal * step
    repairs = {RESAMPLE: _repair_text(findings, step)} if problems else {}
    notes = () if problems else _remarks(distances)
    return Layout(affine_of(first, vector), distances, drift, step, problems, repairs, notes)


def affine_of(first: Plane, step: Vector, shift: tuple[float, float] = (0.0, 0.0)) -> Vector:
    """(4, 4), from (column, row, slice) to RAS+ millimetres.

    Parameters
    ----------
    first : the first slice.
    step : from one slice to the next, LPS millimetres.
    shift : where the grid begins before or behind the slice's first pixel, millimetres along rows and columns.
    """
    row, column, _ = first.axes
    affine = np.eye(4)
    affine[:3, 0] = row * first.spacing[1]
    affine[:3, 1] = column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = np.asarray(first.position) + row * shift[0] + column * shift[1]
    return LPS_TO_RAS @ affine


def _too_few(planes: Sequence[Plane], distances: Vector, drift: Vector) -> Layout:
    step = float(distances[-1]) if len(planes) > 1 else 0.0
    count = "is only 1 slice" if len(planes) == 1 else f"are only {len(planes)} slices"
    problem = (
        f"there {count}, and it takes {FEWEST} to tell their spacing and whether any is missing; "
        "check that the series was exported whole"
    )
    return Layout(affine_of(planes[0], planes[0].axes[2] * (step or 1.0)), distances, drift, step, (problem,))


def _tilt(distances: Vector, drift: Vector, spacing: tuple[float, float]) -> str:
    furthest = float(np.abs(drift).max())
    if furthest <= max(_DRIFT_MM, _DRIFT * min(spacing)):
        return ""
    slope = np.linalg.norm(drift[-1]) / distances[-1]
    straight = np.abs(drift - np.outer(distances / distances[-1], drift[-1])).max()
    if straight <= max(_DRIFT_MM, 0.25 * min(spacing)):
        return f"the gantry was tilted by {np.degrees(np.arctan(slope)):.1f}°: its slices are shifted, not stacked"
    return f"the slices are shifted against each other by up to {furthest:.1f} mm"


def _gaps(gaps: Vector, step: float) -> str:
    off = np.abs(gaps - step)
    bad = np.flatnonzero(off > _UNEVEN * step)
    if not len(bad):
        return ""
    times = gaps[bad] / step
    if (np.abs(times - np.rint(times)) < _UNEVEN).all() and (times > 1.5).all():
        missing = int(np.rint(times).sum()) - len(bad)
        places = ", ".join(f"{k + 1} and {k + 2}" for k in bad[:3].tolist()) + (" …" if len(bad) > 3 else "")
        noun = "slice is" if missing == 1 else "slices are"
        return f"{missing} {noun} missing (between slices {places} of {len(gaps) + 1}, counted along the stack)"
    return f"the slices lie unevenly, {gaps.min():.2f} to {gaps.max():.2f} mm apart"


def _uneven(distances: Vector) -> str:
    """Gaps that change little from one to the next may add up."""
    even = np.linspace(0, distances[-1], len(distances))
    off = float(np.abs(distances - even).max())
    if off <= _UNEVEN * even[1]:
        return ""
    return f"the slices lie unevenly, up to {off:.2g} mm off an even spacing of {even[1]:.3g} mm"


def _repair_text(findings: Sequence[str], step: float) -> str:
    tilt, gap = findings
    parts = []
    if tilt:
        parts.append("shift the slices back onto a straight stack")
    if gap:
        parts.append(f"interpolate slices every {step:.3g} mm")
    return f"{' and '.join(parts)}; grey values between the measured ones are made up linearly"


def _remarks(distances: Vector) -> tuple[str, ...]:
    even = np.linspace(0, distances[-1], len(distances))
    off = float(np.abs(distances - even).max())
    if off <= _REMARKABLE * even[1]:
        return ()
    return (f"The slices lie up to {off:.2g} mm off an even spacing of {even[1]:.3g} mm; they are taken as even.",)
