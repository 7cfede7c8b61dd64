"""Scans whose axes miss a right angle: not shown as the box that they are not, but straightened, only on request."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from napari_sparsetok.files.reading import RepairableScanError, Watch, oblique_note
from napari_sparsetok.files.regrid import resampled_to
from napari_sparsetok.scan import Scan, ScanError

_RESAMPLE = "resample"
_SHIFTED = "its axes miss a right angle by {degrees:.1f}°, as with a tilted gantry: its slices are shifted, not stacked"
_REPAIR = "shift the slices back onto a straight stack; grey values between the measured ones are made up linearly"


def straight(scan: Scan, repair: Collection[str], watch: Watch) -> Scan:
    """The scan itself if its axes are at right angles; else resampled to such, if that is wished.

    Parameters
    ----------
    repair : what the person agreed to, of "resample".

    Raises
    ------
    RepairableScanError : it would have to be resampled.
    ScanError : it has several volumes, or there is too little memory.
    OpeningStopped : `watch` asked for it.
    """
    if not scan.geometry.is_skewed:
        return scan
    found = _SHIFTED.format(degrees=scan.geometry.skew)
    problem = f"“{scan.name}” cannot be opened as it is: {found}"
    if scan.leading:
        raise ScanError(f"{problem}; resample it to right angles in the program that made it, or split its volumes")
    if _RESAMPLE not in repair:
        raise RepairableScanError(f"{problem}. Choose a repair: “{_RESAMPLE}” would {_REPAIR}", {_RESAMPLE: _REPAIR})
    grid = scan.geometry.straightened()
    turned = oblique_note(scan.geometry.obliqueness)  # of the shifted slices
    notes = [f"Repaired: {found}.", *(note for note in scan.notes if note != turned)]
    if grid.is_oblique:
        notes.append(oblique_note(grid.obliqueness))
    return replace(resampled_to(scan, grid, watch), notes=tuple(notes))
