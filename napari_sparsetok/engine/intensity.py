"""Intensity rules: how grey values become what a model was trained on. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import ScanError

_SAMPLE = 2_000_000  # voxels that a percentile is taken of; more would change its third digit at most

Array = NDArray[Any]


def _standardise(voxels: Array, low: float = 0.5, high: float = 99.5) -> NDArray[np.float32]:
    """Clip to two percentiles of the voxels, then to mean 0 and standard deviation 1."""
    stride = max(1, voxels.size // _SAMPLE)
    sample = voxels.ravel()[::stride].astype(np.float64)
    bottom, top = np.percentile(sample, [low, high])
    sample = sample.clip(bottom, top)
    deviation = float(sample.std())
    if not deviation > 0:
        raise ScanError("all voxels have the same value, so there is nothing to segment; check that this is the scan")
    clipped = voxels.astype(np.float64).clip(bottom, top)
    return ((clipped - sample.mean()) / deviation).astype(np.float32)


def _window(voxels: Array, low: float, high: float) -> NDArray[np.float32]:
    """Clip to a fixed window (Hounsfield units, say) and map it to -1 … 1."""
    if voxels.min() == voxels.max():
        raise ScanError("all voxels have the same value, so there is nothing to segment; check that this is the scan")
    scaled = (voxels.astype(np.float32) - low) * (2.0 / (high - low)) - 1.0
    return scaled.clip(-1.0, 1.0)


RULES: dict[str, Callable[..., NDArray[np.float32]]] = {"standardise": _standardise, "window": _window}


def apply_rule(rule: Mapping[str, Any], voxels: Array) -> NDArray[np.float32]:
    """Apply a card's intensity rule, as in ``{"name": "standardise", "low": 0.5, "high": 99.5}``.

    Raises
    ------
    ScanError : the voxels are constant, or some are NaN or infinite.
    ValueError : no rule of this name.
    """
    name = str(rule.get("name"))
    if name not in RULES:
        raise ValueError(f"no intensity rule is called “{name}”; there are {', '.join(RULES)}")
    bad = voxels.size - int(np.isfinite(voxels).sum()) if voxels.dtype.kind == "f" else 0
    if bad:
        raise ScanError(
            f"{bad} voxels are not numbers (NaN or infinity), so the model cannot run; "
            "replace them (on the command line: --replace-nonfinite 0)"
        )
    return RULES[name](voxels, **{key: value for key, value in rule.items() if key != "name"})
