"""Words for units of length, as files write them."""

from __future__ import annotations

_MILLIMETRES = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns"), 1e-3),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
    **{"decimeter": 100.0, "angstrom": 1e-7, "foot": 304.8, "yard": 914.4},  # as OME-Zarr may
}

UNIT_UNKNOWN = "It does not say in a known unit how large its voxels are; millimetres were taken."
"""A note on a scan."""


def millimetres(unit: str) -> float:
    """How many of them a unit is; 0 where it is none of length that is known."""
    return _MILLIMETRES.get(unit.strip().lower(), 0.0)
