"""Intensity rules: how grey values become what a model was trained on, of whole arrays or a part at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import ScanError

_SAMPLE = 2_000_000  # voxels that a percentile is taken of; more would change its third digit at most

Array = NDArray[Any]
Values = NDArray[np.float64]
Mapped = Callable[[Array], NDArray[np.float32]]
"""From grey values to what the model takes, voxel by voxel."""


def _standardise(sample: Values, low: float = 0.5, high: float = 99.5) -> Callable[[Values], Values]:
    """Clip to two percentiles of the voxels, then to mean 0 and standard deviation 1."""
    with np.errstate(over="ignore", invalid="ignore"):  # said in words below
        bottom, top = np.percentile(sample, [low, high])
        sample = sample.clip(bottom, top)
        mean, deviation = float(sample.mean()), float(sample.std())
    if not np.isfinite([mean, deviation]).all():
        raise ScanError("the scan's values are too large to reckon with; check how it was exported")
    if bottom == top or not deviation:
        raise ScanError("almost all voxels have the same value; crop the scan to what should be segmented")
    return lambda values: (values.clip(bottom, top) - mean) / deviation


def _window(sample: Values, low: float, high: float) -> Callable[[Values], Values]:
    """Clip to a fixed window (Hounsfield units, say) and map it to -1 … 1."""
    return lambda values: (values.clip(low, high) - low) * (2.0 / (high - low)) - 1.0


def _by_slice(voxels: Array, rule: Callable[[Values], Values]) -> NDArray[np.float32]:
    """Apply a rule in double precision, a slice at a time, so that no large scan is held in it whole."""
    result = np.empty(voxels.shape, dtype=np.float32)
    for one, out in zip(voxels, result, strict=True):
        out[...] = rule(one.astype(np.float64))
    return result


def even_step(size: int, sample: int = 0) -> int:
    """A step through all voxels that takes about `sample` of them and keeps time with none of the axes."""
    stride = max(1, size // (sample or _SAMPLE))
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


RULES: dict[str, Callable[..., Callable[[Values], Values]]] = {"standardise": _standardise, "window": _window}
"""Each takes a sample of all voxels, (n,), and what the card says besides."""

_FIXED = {"window"}  # the same for every scan, so they need no sample


def is_fixed(rule: Mapping[str, Any]) -> bool:
    """Whether the rule is the same whatever the voxels are."""
    return rule.get("name") in _FIXED


def check_rule(rule: Mapping[str, Any], cropped: bool) -> None:
    """Look at a card's intensity rule before any voxel is.

    Parameters
    ----------
    cropped : whether the model was trained on a part of each scan, the box around the body.

    Raises
    ------
    ValueError : there is no such rule, its limits cannot be, or it depends on more of a scan than was trained on.
    """
    name = str(rule.get("name"))
    if name not in RULES:
        raise ValueError(f"no intensity rule is called “{name}”; there are {', '.join(RULES)}")
    low, high = rule.get("low", 0.5), rule.get("high", 99.5)
    given = set(rule) - {"name"}
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (low, high))
    within = numbers and (is_fixed(rule) or (low >= 0 and high <= 100))
    if given - {"low", "high"} or (is_fixed(rule) and len(given) < 2) or not within or low >= high:
        limits = "two numbers" if is_fixed(rule) else "two percentiles"
        raise ValueError(f"the intensity rule “{name}” has {limits}, “low” below “high”, not {dict(rule)}")
    if cropped and not is_fixed(rule):
        raise ValueError(
            f"“body” needs an intensity rule that is the same for all scans (“window”), not “{name}”: "
            "that depends on the air around the body, too"
        )


def apply_rule(rule: Mapping[str, Any], voxels: Array) -> NDArray[np.float32]:
    """Apply a card's intensity rule, as in ``{"name": "standardise", "low": 0.5, "high": 99.5}``.

    Raises
    ------
    ScanError : the voxels are constant, or some are NaN or infinite.
    ValueError : no rule of this name.
    """
    return fitted(rule, [voxels], voxels.size)(voxels)


def fitted(rule: Mapping[str, Any], parts: Iterable[Array], size: int, finite: bool = False) -> Mapped:
    """Look at all voxels once, and say what the rule makes of any of them.

    Parameters
    ----------
    rule : see `apply_rule`.
    parts : the voxels, a part at a time, in their order unless the rule is fixed. No more are taken than must be seen.
    size : voxels in all parts.
    finite : none is NaN or infinite, that is known.

    Raises
    ------
    ScanError, ValueError : as `apply_rule`.
    """
    check_rule(rule, cropped=False)
    sample = _looked_through(parts, 0 if is_fixed(rule) else even_step(size), finite)
    exact = RULES[rule["name"]](sample, **{key: value for key, value in rule.items() if key != "name"})
    return lambda voxels: _by_slice(voxels, exact)


def _looked_through(parts: Iterable[Array], stride: int, finite: bool) -> Values:
    """Every so many voxels of all, none for a stride of 0. Refuses what no rule can map."""
    bad, before, sample = 0, 0, [np.empty(0)]
    low, high = np.inf, -np.inf
    for part in parts:
        if not finite and part.dtype.kind == "f":
            bad += part.size - int(np.isfinite(part).sum())
        if not bad:
            low, high = min(low, part.min()), max(high, part.max())
        if stride:
            sample.append(part.flat[-before % stride :: stride].astype(np.float64))
            before += part.size
        elif low < high and (finite or part.dtype.kind != "f"):
            break  # nothing that is still to come could be wrong
    if bad:
        what = "1 voxel is not a number" if bad == 1 else f"{bad} voxels are not numbers"
        raise ScanError(
            f"{what} (NaN or infinity), so the model cannot run; "
            "replace them (on the command line: --replace-nonfinite 0)"
        )
    if low == high:
        raise ScanError("all voxels have the same value, so there is nothing to segment; check that this is the scan")
    return np.concatenate(sample)
