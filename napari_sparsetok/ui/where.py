"""Which part of a scan is segmented: pure functions on model, scan and region, and the words for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Region, Scan, Shape
from napari_sparsetok.tokens import tokens_left
from napari_sparsetok.weights import Card

Where = Literal["whole", "box", "cursor"]


def is_too_large(scan: Scan, card: Card) -> bool:
    """Whether the scan is more than the crop around one structure that the model was trained on."""
    return card.is_too_large([n * s for n, s in zip(scan.shape, scan.geometry.spacing, strict=True)])


def usual_where(scan: Scan | None, card: Card | None) -> Where:
    """What to begin with."""
    return "cursor" if scan is not None and card is not None and is_too_large(scan, card) else "whole"


def hint(where: Where, scan: Scan | None, card: Card | None) -> str:
    """What the person should know or do about it."""
    if card is None or scan is None:
        return ""
    size = times_xyz(card.window_mm, "{:.0f}", unbroken=True) + "\u00a0mm"
    if where == "cursor":
        return f"Click on the structure in a slice of the scan: {size} around the click are segmented."
    if where == "whole" and is_too_large(scan, card):
        return (
            f"This model works on boxes of up to {size} around the structure. In a whole scan it also marks places "
            "where the structure is not; choose “around a click”."
        )
    return ""


def region_around(voxel: Shape, scan: Scan | None, card: Card | None) -> Region | None:
    """A window of the model with the voxel in its middle."""
    return None if scan is None or card is None else scan.geometry.region_around(voxel, card.window_mm)


def expected_left(keep_ratio: float, card: Card, scan: Scan | None, region: Region | None) -> tuple[int, ...]:
    """Tokens of the first window before and after each stage, as far as one can tell before anything ran."""
    window: Sequence[int] = card.window
    if scan is not None:
        extent = region.shape if region else scan.shape
        have = [round(n * a / b) for n, a, b in zip(extent, scan.geometry.spacing, card.spacing, strict=True)]
        window = [min(a, b) for a, b in zip(have, card.window, strict=True)]
    n = int(np.prod([max(1, -(-side // card.patch)) for side in window]))
    return tokens_left(n, keep_ratio, card.stages, card.minimum_kept)


def voxel_at(world: Sequence[float], scan: Scan) -> Shape:
    """The voxel (z, y, x) nearest to a point of the viewer, whose last three coordinates are millimetres."""
    z, y, x = (int(np.clip(round(v), 0, n - 1)) for v, n in zip(_index(world, scan), scan.shape, strict=True))
    return z, y, x


def is_inside(world: Sequence[float], scan: Scan) -> bool:
    """Whether a point of the viewer lies in the scan."""
    return all(-0.5 <= v <= n - 0.5 for v, n in zip(_index(world, scan), scan.shape, strict=True))


def _index(world: Sequence[float], scan: Scan) -> list[float]:
    geometry = scan.geometry
    at = (np.asarray(world[-3:]) - np.asarray(geometry.origin)) / np.asarray(geometry.spacing)
    return [float(v) for v in at]
