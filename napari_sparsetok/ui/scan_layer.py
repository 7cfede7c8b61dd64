"""Scans as napari layers, and layers as scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Image, Layer

from napari_sparsetok.scan import AXIS_LABELS, Geometry, Scan, ScanError

LayerData = tuple[Any, dict[str, Any], str]

SCAN = "sparsetok_scan"
"""Key of a layer's metadata: the scan that it shows or belongs to."""

MASK_LABELS = "sparsetok_labels"
"""Key of a mask layer's metadata: its label table."""


def placed(geometry: Geometry) -> dict[str, Any]:
    """The arguments that put an array of this geometry where it belongs, in millimetres."""
    return {
        "scale": geometry.spacing,
        "translate": geometry.origin,
        "units": ("mm", "mm", "mm"),
        "axis_labels": AXIS_LABELS,
    }


def layer_data(scan: Scan) -> list[LayerData]:
    """The image layers of a scan: one, with a time axis if the scan has one, or one for each channel."""
    if scan.leading == "channel":
        return [_one(voxels, scan, f"{scan.name} {k}", {}) for k, voxels in enumerate(scan.voxels, start=1)]
    return [_one(scan.voxels, scan, scan.name, {SCAN: scan})]


def _one(voxels: Any, scan: Scan, name: str, metadata: Mapping[str, Any]) -> LayerData:
    place = placed(scan.geometry)
    if voxels.ndim == 4:
        place = {
            "scale": (1.0, *place["scale"]),
            "translate": (0.0, *place["translate"]),
            "units": ("pixel", *place["units"]),
            "axis_labels": ("t", *place["axis_labels"]),
        }
    low, high = _contrast(voxels)
    arguments = {"name": name, "colormap": "gray", "contrast_limits": (low, high), "metadata": dict(metadata), **place}
    return voxels, arguments, "image"


def _contrast(voxels: Any) -> tuple[float, float]:
    """Limits that a few bright voxels do not spoil."""
    stride = max(1, voxels.size // 500_000)
    sample = voxels.ravel()[::stride]
    sample = sample[np.isfinite(sample)].astype(np.float64)
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, [0.5, 99.8]))
    return (low, high) if high > low else (low, low + 1.0)


def scan_of(layer: Layer, frame: int = 0) -> Scan:
    """The scan that an image layer shows, whoever opened it.

    Parameters
    ----------
    layer : an image layer.
    frame : which volume, if the layer has a time axis.

    Raises
    ------
    ScanError : the layer is a flat picture, in colours, or not an image at all.
    """
    if not isinstance(layer, Image):
        raise ScanError(f"the layer “{layer.name}” is not an image; choose the scan")
    known = layer.metadata.get(SCAN)
    if isinstance(known, Scan):
        return known.frame(frame)
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.rgb or data.ndim not in (3, 4):
        raise ScanError(f"the layer “{layer.name}” is a flat or coloured picture; a scan needs a stack of slices")
    voxels = np.asarray(data[frame] if data.ndim == 4 else data)
    geometry = Geometry.shown(voxels.shape, tuple(layer.scale)[-3:], tuple(layer.translate)[-3:])
    note = "The layer does not say how the patient lay: left and right cannot be told from it."
    return Scan(voxels, geometry, name=layer.name, notes=(note,))
