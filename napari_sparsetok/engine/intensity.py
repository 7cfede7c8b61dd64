"""Intensity rules: how grey values become what a model was trained on. Pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import ScanError

_SAMPLE = 2_000_000  # voxels that a percentile is taken of; more would change its third digit at most

Array = NDArray[Any]


def _standardise(voxels: Array, low: float = 0.5, high: float = 99.5) -> NDArray[np.float32]:
    """Clip to two percentiles of the voxels, then to mean 0 and standard deviation 1."""
    sample = voxels.flat[:: _stride(voxels.size)].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # said in words below
        bottom, top = np.percentile(sample, [low, high])
        sample = sample.clip(bottom, top)
        mean, deviation = float(sample.mean()), float(sample.std())
    if not np.isfinite([mean, deviation]).all():
        raise ScanError("the scan's values are too large to reckon with; check how it was exported")
    if bottom == top or not deviation:
        raise ScanError("almost all voxels have the same value; crop the scan to what should be segmented")
    return _by_slice(voxels, lambda values: (values.clip(bottom, top) - mean) / deviation)


def _window(voxels: Array, low: float, high: float) -> NDArray[np.float32]:
    """Clip to a fixed window (Hounsfield units, say) and map it to -1 … 1."""
    return _by_slice(voxels, lambda values: (values.clip(low, high) - low) * (2.0 / (high - low)) - 1.0)


def _by_slice(voxels: Array, rule: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float32]:
    """Apply a rule in double precision, a slice at a time, so that no large scan is held in it whole."""
    result = np.empty(voxels.shape, dtype=np.float32)
    for one, out in zip(voxels, result, strict=True):
        out[...] = rule(one.astype(np.float64))
    return result


def _stride(size: int, sample: int = 0) -> int:
    """A step through all voxels that takes about `sample` of them and keeps time with none of the axes."""
    stride = max(1, size // (sample or _SAMPLE))
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


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
    _check(voxels)
    return RULES[name](voxels, **{key: value for key, value in rule.items() if key != "name"})


def _check(voxels: Array) -> None:
    bad = voxels.size - int(np.isfinite(voxels).sum()) if voxels.dtype.kind == "f" else 0
    if bad:
        what = "1 voxel is not a number" if bad == 1 else f"{bad} voxels are not numbers"
        raise ScanError(
            f"{what} (NaN or infinity), so the model cannot run; "
            "replace them (on the command line: --replace-nonfinite 0)"
        )
    if voxels.min() == voxels.max():
        raise ScanError("all voxels have the same value, so there is nothing to segment; check that this is the scan")
