"""Scans as napari layers, and layers as scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.layers import Image, Layer

from napari_sparsetok.scan import AXIS_LABELS, SIDES_UNKNOWN, Geometry, Scan, ScanError
from napari_sparsetok.ui.window_preset import OTHER

_UNITS = {"millimeter", "pixel"}  # a pixel is no length: nobody said one, and millimetres are taken

LayerData = tuple[Any, dict[str, Any], str]

SCAN = "sparsetok_scan"
"""Key of a layer's metadata: the scan that it shows or belongs to."""

MASK_LABELS = "sparsetok_labels"
"""Key of a mask layer's metadata: its label table."""


@dataclass(frozen=True)
class Frame:
    """Which volume of a layer with a time axis, and how that axis is shown."""

    index: int
    scale: float = 1.0
    translate: float = 0.0
    unit: str = "pixel"
    label: str = "t"

    def before(self, place: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that put an array with an axis of this one frame before the three of `place`."""
        return {
            "scale": (self.scale, *place["scale"]),
            "translate": (self.translate + self.index * self.scale, *place["translate"]),
            "units": (self.unit, *place["units"]),
            "axis_labels": (self.label, *place["axis_labels"]),
        }


def frame_at(layer: Layer, point: Sequence[float]) -> Frame | None:
    """The frame of a layer that is shown where the viewer's sliders stand; None if it has no time axis."""
    if layer.ndim != 4:
        return None
    scale, translate = float(layer.scale[0]), float(layer.translate[0])
    n = int((layer.data[0] if layer.multiscale else layer.data).shape[0])
    world = point[-4] if len(point) > 3 else 0.0
    index = min(max(0, round((world - translate) / scale)), n - 1)
    return Frame(index, scale, translate, str(layer.units[0]), str(layer.axis_labels[0]))


def placed(geometry: Geometry) -> dict[str, Any]:
    """The arguments that put an array of this geometry where it belongs, in millimetres."""
    return {
        "scale": geometry.spacing,
        "translate": geometry.origin,
        "units": ("mm", "mm", "mm"),
        "axis_labels": AXIS_LABELS,
    }


def lies_on(layer: Layer, scan: Scan | None) -> bool:
    """Whether a layer has the scan's voxels: as many, and in the same place. Of one frame, an axis of that may lead."""
    if scan is None or layer.multiscale or layer.data.shape[-3:] != scan.shape:
        return False
    if layer.ndim == 4 and (len(layer.data) != 1 or scan.source is None or frame_of(layer) != scan.source.frame):
        return False
    if not _is_upright(layer) or _other_units(layer):
        return False
    step = np.asarray(scan.geometry.spacing)
    off = np.asarray(layer.translate)[-3:] - scan.geometry.origin
    return bool(np.allclose(layer.scale[-3:], step, rtol=1e-3) and (np.abs(off) < step / 10).all())


def frame_of(layer: Layer) -> int:
    """Which frame a layer of one is of; see `Frame.before`."""
    return round(float(layer.translate[0]) / float(layer.scale[0]))


def layer_data(scan: Scan) -> list[LayerData]:
    """The image layers of a scan: one, with a time axis if the scan has one, or one for each channel."""
    if scan.leading == "channel":
        channels = enumerate(scan.voxels, start=1)
        return [_one(replace(scan, voxels=v, leading="", name=f"{scan.name} {k}")) for k, v in channels]
    return [_one(scan)]


def _one(scan: Scan) -> LayerData:
    voxels, place = scan.voxels, placed(scan.geometry)
    if voxels.ndim == 4:
        place = Frame(0).before(place)
    limits = {"colormap": "gray", "contrast_limits": OTHER[0].limits(scan)}
    # A few sagittal slices are not red, green and blue.
    arguments = {"name": scan.name, "metadata": {SCAN: scan}, "rgb": False, **limits, **place}
    return voxels, arguments, "image"


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
        raise ScanError(f"the layer “{layer.name}” is not an image; choose the layer that shows the scan")
    data = layer.data[0] if layer.multiscale else layer.data
    known = layer.metadata.get(SCAN)
    if isinstance(known, Scan) and known.voxels.shape == data.shape:
        # Whoever filtered the layer's voxels in place of the file's wants those to be segmented.
        return (known if data is known.voxels else replace(known, voxels=np.asarray(data))).frame(frame)
    if layer.rgb or data.ndim not in (3, 4):
        raise ScanError(f"“{layer.name}” is a flat or coloured picture; choose a scan, which is a stack of slices")
    _check_upright(layer)
    _check_units(layer)
    voxels = np.asarray(data[frame] if data.ndim == 4 else data)
    geometry = Geometry.shown(voxels.shape, tuple(layer.scale)[-3:], tuple(layer.translate)[-3:])
    return Scan(voxels, geometry, name=layer.name, notes=(SIDES_UNKNOWN,))


def is_at_hand(layer: Layer) -> bool:
    """Whether the layer's voxels are in memory, so that taking them needs neither disk nor network."""
    return isinstance(layer.data, np.ndarray)


def _is_upright(layer: Layer) -> bool:
    moved, turned = np.asarray(layer.affine.affine_matrix), np.asarray(layer.rotate)
    return (
        np.allclose(moved, np.eye(len(moved)))
        and np.allclose(turned, np.eye(len(turned)))
        and np.allclose(layer.shear, 0)
        and all(s > 0 for s in layer.scale)
    )


def _check_upright(layer: Layer) -> None:
    if not _is_upright(layer):
        raise ScanError(
            f"the layer “{layer.name}” is shown turned or mirrored, which its voxels do not follow; "
            "open the scan's own file with SparseTok"
        )


def _other_units(layer: Layer) -> list[str]:
    """What the layer is measured in besides millimetres."""
    return [unit for unit in dict.fromkeys(str(unit) for unit in layer.units[-3:]) if unit not in _UNITS]


def _check_units(layer: Layer) -> None:
    """Refuse units that are no millimetres: the viewer would count in them, unlike all that lies beside the layer."""
    if others := _other_units(layer):
        raise ScanError(
            f"the layer “{layer.name}” is measured in {', '.join(others)}, and masks are in millimetres; "
            "open the scan's own file with SparseTok, or set the layer's scale, translate and units in mm"
        )
