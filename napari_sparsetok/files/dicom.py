"""DICOM series as scans: found, checked, and only then opened.

The array in source order runs (column, row, slice), slices sorted by position along their normal; the geometry's
`source_affine` leads from there to RAS+ millimetres. `DicomHeader.slices` names the instance behind each slice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import dicom_pixels
from napari_sparsetok.files.dicom_index import Candidate, find_series
from napari_sparsetok.files.dicom_reference import HOUNSFIELD, DicomHeader, SliceReference
from napari_sparsetok.files.reading import RepairableScanError, SeveralSeriesError, Watch, explained, oblique_note
from napari_sparsetok.files.repair import straightened
from napari_sparsetok.files.series import SeriesInfo
from napari_sparsetok.files.stack import RESAMPLE, Plane
from napari_sparsetok.scan import Geometry, Scan, ScanError, Source


def read(path: Path, series: SeriesInfo | str | None, repair: Collection[str], watch: Watch) -> Scan:
    """Open one series.

    Parameters
    ----------
    series : a candidate of `find_series`, or its key; None takes the only one that there is.
    repair : what the person agreed to, of "resample" and "drop".

    Raises
    ------
    RepairableScanError : its geometry is not that of a scan, but could be repaired.
    SeveralSeriesError : there are several, and none was chosen.
    ScanError : it cannot be opened at all.
    OpeningStopped : `watch` asked for it.
    """
    info = series if isinstance(series, SeriesInfo) else _chosen(find_series(path, watch), series)
    with explained("this DICOM series"):
        return _opened(path, info, repair, watch)


def _opened(path: Path, info: SeriesInfo, repair: Collection[str], watch: Watch) -> Scan:
    candidate: Candidate = info.handle
    _check(info, candidate, repair)
    pixels = dicom_pixels.load(candidate.volumes, watch)
    values, layout, notes = pixels.values, candidate.layout, [*candidate.notes, *pixels.notes]
    if layout is None:
        raise ScanError(f"this series cannot be opened: {'; '.join(info.problems)}")
    affine, resampled = layout.affine, RESAMPLE in candidate.needed
    if resampled:
        values, affine = straightened(values, _planes(candidate), layout, watch)
    notes = [*_repair_notes(info, candidate), *notes, *_unit_notes(candidate)]
    return _scan(path, info, candidate, _Placed(values, affine, resampled, tuple(notes)))


@dataclass(frozen=True, eq=False)
class _Placed:
    values: NDArray[np.generic]
    affine: NDArray[np.float64]
    resampled: bool
    notes: tuple[str, ...]


def _scan(path: Path, info: SeriesInfo, candidate: Candidate, placed: _Placed) -> Scan:
    _, slices, rows, columns = placed.values.shape
    geometry = Geometry((columns, rows, slices), placed.affine)
    several = len(placed.values) > 1
    if several:
        voxels = np.moveaxis(geometry.to_shown(placed.values.transpose(3, 2, 1, 0)), 3, 0)
    else:
        voxels = geometry.to_shown(placed.values[0].transpose(2, 1, 0))
    notes = [*placed.notes, *([oblique_note(geometry.obliqueness)] if geometry.is_oblique else [])]
    return Scan(
        voxels=voxels,
        geometry=geometry,
        name=info.description,
        leading="time" if several else "",
        source=Source(path.resolve(), "dicom", _header(candidate, placed.resampled)),
        notes=tuple(notes),
    )


def _header(candidate: Candidate, resampled: bool) -> DicomHeader:
    first = candidate.volumes[0][0]
    head, kept = first.head, () if resampled else _references(candidate)
    return DicomHeader(head.study, head.series, head.frame_of_reference, kept, head.sop_class, first.unit)


def _references(candidate: Candidate) -> tuple[tuple[SliceReference, ...], ...]:
    return tuple(
        tuple(SliceReference(f.head.sop_class, f.uid, f.number + 1, f.item.path, f.item.member) for f in volume)
        for volume in candidate.volumes
    )


def _chosen(found: Sequence[SeriesInfo], key: str | None) -> SeriesInfo:
    if key is not None:
        for info in found:
            if info.key == key:
                return info
        raise ScanError(f"there is no series {key}; there are {', '.join(info.key for info in found[:12])}")
    opening = [info for info in found if info.opens] or [info for info in found if info.repairs]
    if len(opening) > 1:
        listed = "; ".join(f"{info.key} is {info.in_words()}" for info in opening[:12])
        raise SeveralSeriesError(f"there are {len(opening)} scans here; choose one: {listed}", found)
    return (opening or list(found))[0]


def _check(info: SeriesInfo, candidate: Candidate, repair: Collection[str]) -> None:
    if not info.problems or (info.repairs and candidate.needed <= set(repair)):
        return
    problem = f"this series cannot be opened as it is: {'; '.join(info.problems)}"
    if not info.repairs:
        raise ScanError(problem)
    offers = "; ".join(f"“{name}” would {text}" for name, text in info.repairs.items())
    raise RepairableScanError(f"{problem}. Choose a repair: {offers}", info.repairs)


def _repair_notes(info: SeriesInfo, candidate: Candidate) -> list[str]:
    return [f"Repaired: {problem}." for problem in info.problems] if candidate.needed else []


def _unit_notes(candidate: Candidate) -> list[str]:
    """Where a CT holds no Hounsfield units, as a map of iodine, a person and a model would take them for such."""
    first = candidate.volumes[0][0]
    if first.head.modality != "CT" or first.unit in HOUNSFIELD:
        return []
    return [f"Its values are not Hounsfield units, though it is a CT (the file says {first.unit})."]


def _planes(candidate: Candidate) -> list[Plane]:
    return [frame.plane for frame in candidate.volumes[0] if frame.plane]
