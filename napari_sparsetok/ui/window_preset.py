"""Windows that have a name, and which of them suit a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files.dicom_reference import HOUNSFIELD, DicomHeader
from napari_sparsetok.scan import Scan

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MODALITIES = {
    **dict.fromkeys((_STORAGE + "2", _STORAGE + "2.1", _STORAGE + "2.2"), "CT"),
    **dict.fromkeys((_STORAGE + "4", _STORAGE + "4.1", _STORAGE + "4.3", _STORAGE + "4.4"), "MR"),
    **dict.fromkeys((_STORAGE + "128", _STORAGE + "130", _STORAGE + "128.1"), "PT"),
    _STORAGE + "20": "NM",
    **dict.fromkeys((_STORAGE + "3.1", _STORAGE + "6.1", _STORAGE + "6.2"), "US"),
}
"""What each kind of DICOM image is."""

# Hounsfield units. Nothing is thinner than air, but for noise; phase maps and other values with a sign have no floor.
_AIR = (-1100, -900)
_LEAST_AIR = 0.01  # share of voxels: around or within the patient
_MOST_BELOW = 0.02  # where padding was interpolated


@dataclass(frozen=True)
class Preset:
    """A window with a name: of fixed level and width, or from one percentile of the voxels to another."""

    name: str
    level: float = 0.0
    width: float = 0.0
    percentiles: tuple[float, float] | None = None

    def limits(self, scan: Scan) -> tuple[float, float]:
        """The values shown black and white."""
        if self.percentiles is None:
            return self.level - self.width / 2, self.level + self.width / 2
        values = scan.sample[np.isfinite(scan.sample)]
        if not values.size:
            return 0.0, 1.0
        low, high = (float(v) for v in np.percentile(values, self.percentiles))
        return (low, high) if high > low else (low, low + 1.0)

    @property
    def words(self) -> str:
        """What it does, for a tooltip."""
        if self.percentiles is None:
            return f"level {self.level:g}, width {self.width:g} HU"
        low, high = self.percentiles
        return f"from the {low:g}th to the {high:g}th percentile of the grey values"


CT = (
    Preset("soft tissue", 40, 400),
    Preset("lung", -600, 1500),
    Preset("bone", 400, 1800),
    Preset("brain", 40, 80),
    Preset("stroke", 32, 8),
    Preset("subdural", 75, 215),
    Preset("liver", 60, 160),
    Preset("vessels", 300, 600),
    Preset("everything", percentiles=(0, 100)),
)
OTHER = (
    Preset("usual", percentiles=(0.5, 99.8)),
    Preset("strong contrast", percentiles=(5, 98)),
    Preset("bright parts", percentiles=(50, 99.9)),
    Preset("dark parts", percentiles=(0.5, 75)),
    Preset("everything", percentiles=(0, 100)),
)


def modality(scan: Scan) -> str:
    """As the file says, as in "MR"; "CT" where the values end at air in Hounsfield units; "" where nobody knows.

    A CT whose values are none of Hounsfield's, as a map of iodine, is not "CT": its windows and models are for these.
    """
    header = scan.source.header if scan.source is not None else None
    if isinstance(header, DicomHeader) and header.sop_class:
        kind = _MODALITIES.get(header.sop_class, "")
        return "" if kind == "CT" and header.unit not in HOUNSFIELD else kind
    if not scan.is_sampled:
        return ""
    return "CT" if _looks_like_ct(scan.sample[:: max(1, len(scan.sample) // 20_000)]) else ""


def _looks_like_ct(values: NDArray[Any]) -> bool:
    """Whether values are Hounsfield units, as far as they tell: there is air, and nothing below it but padding.

    A CT cut so that no air is left is not known as one: its values could be anything's.
    """
    values = values[~np.isnan(values)]
    if not values.size or np.isinf(values).any():
        return False
    low, high = _AIR
    lowest = values.min()
    measured = values[values > lowest] if lowest < low else values  # scanners fill corners with one value, as -2048
    below, air = (measured < low).sum(), ((measured >= low) & (measured <= high)).sum()
    return bool(air >= max(1, _LEAST_AIR * measured.size) and below <= _MOST_BELOW * measured.size)


def presets(scan: Scan) -> tuple[Preset, ...]:
    """What there is to choose from. Nothing for a scan on disk of which no sample was read: this must not read."""
    if not scan.is_sampled:
        return ()
    return CT if modality(scan) == "CT" else OTHER
