"""What a person chooses from when a folder holds several scans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Shape

_THUMBNAIL = 96  # pixels along the longer side


@dataclass(frozen=True, eq=False)
class SeriesInfo:
    """One scan of several: a DICOM series (or a part of one with slices that fit together), or a resolution level.

    Parameters
    ----------
    key : what `open_scan(path, series=key)` takes; free of patient data, the same at every look.
    description : what it is, free of patient data.
    modality : as in "CT" or "MR"; may be empty.
    shape : slices, rows, columns.
    spacing : millimetres between slices, rows and columns; 0 where it is unknown.
    slices : number of slices; of the level of an OME-Zarr, planes.
    volumes : how many volumes, along time, b-value or echo.
    problems : sentences that say why it is not opened as it is.
    repairs : what could be done about them, as in `RepairableScanError.repairs`; empty if nothing can.
    thumbnail : (rows, columns) uint8, of the middle slice; all 0 where it cannot be read.
    handle : what the reader needs to open it without looking again.
    """

    key: str
    description: str
    modality: str
    shape: Shape
    spacing: tuple[float, float, float]
    slices: int
    volumes: int = 1
    problems: tuple[str, ...] = ()
    repairs: dict[str, str] = field(default_factory=dict)
    thumbnail: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((1, 1), np.uint8), repr=False)
    handle: Any = field(default=None, repr=False)

    @property
    def opens(self) -> bool:
        """Whether it opens as it is."""
        return not self.problems

    def in_words(self) -> str:
        """One line for a list."""
        size, spacing = times_xyz(self.shape), times_xyz(self.spacing, "{:.3g}")
        times = f", {self.volumes} volumes" if self.volumes > 1 else ""
        return f"{self.description}: {size} voxels of {spacing} mm{times}"


def thumbnail_of(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture (rows, columns) made small, its grey values spread from 0 to 255."""
    step = max(1, -(-max(plane.shape) // _THUMBNAIL))
    small = np.nan_to_num(np.asarray(plane[::step, ::step], dtype=np.float64))
    low, high = np.percentile(small, [1, 99])
    spread = (small - low) / (high - low) if high > low else np.zeros_like(small)
    return (spread.clip(0, 1) * 255).astype(np.uint8)
