"""What is at a path, for a person or a program. Holds no names or identifiers of a patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_sparsetok import files
from napari_sparsetok.files import formats
from napari_sparsetok.files.reading import RepairableScanError, SeveralSeriesError
from napari_sparsetok.files.series import SeriesInfo
from napari_sparsetok.scan import Scan, ScanError


def describe(
    path: Path,
    series: str | None = None,
    repair: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Look at a path and open what it holds, if that is one scan.

    Parameters
    ----------
    series, repair, on_progress : see `napari_sparsetok.files.open_scan`.

    Returns
    -------
    "format"; "series", a list of what there is to choose from; "scan", what was opened, or None; "refused", a sentence
    if it was not opened for a fault of its own, or ""; "repairs", what would help.

    Raises
    ------
    ScanError : there is nothing that could be described.
    """
    kind = formats.recognised(path)
    found = files.find_series(path, on_progress)
    document: dict[str, Any] = {
        "format": kind.value,
        "series": [_series(info) for info in found],
        "scan": None,
        "refused": "",
        "repairs": {},
    }
    handles = {info.key: info for info in found}
    chosen: SeriesInfo | str | None = handles.get(series, series) if series else None
    if chosen is None and len(found) == 1:
        chosen = found[0]
    try:
        scan = files.open_scan(path, series=chosen, repair=repair, on_progress=on_progress)
        document["scan"] = _scan(scan)
    except SeveralSeriesError:
        if not any(info.opens for info in found):
            document["refused"] = f"none of the {len(found)} series here opens as it is; see what is said of each"
    except RepairableScanError as error:
        document.update(refused=str(error), repairs=error.repairs)
    except ScanError as error:
        document["refused"] = str(error)
    return document


def _series(info: SeriesInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "description": info.description,
        "modality": info.modality,
        "voxels_zyx": info.shape,
        "spacing_mm_zyx": info.spacing,
        "slices": info.slices,
        "volumes": info.volumes,
        "opens": info.opens,
        "problems": info.problems,
        "repairs": info.repairs,
    }


def _scan(scan: Scan) -> dict[str, Any]:
    return {
        "name": scan.name,
        "voxels_zyx": scan.shape,
        "spacing_mm_zyx": scan.geometry.spacing,
        "volumes": len(scan.voxels) if scan.leading else 1,
        "leading_axis": scan.leading,
        "numbers": str(scan.voxels.dtype),
        "lazy": scan.is_lazy,
        "stored_axes": scan.geometry.source_axes,
        "oblique_degrees": round(scan.geometry.obliqueness, 2),
        "corner_ras_mm": scan.geometry.affine[:3, 3].round(4).tolist(),
        "notes": scan.notes,
    }
