"""What to look at next in a mask, worst first, and what a person has looked at already. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import lazy_loader
import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.correction import PLANES
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Region, Shape
from napari_sparsetok.state import TokenMap

ndimage = lazy_loader.load("scipy.ndimage", suppress_warning=True)  # at first use: opening a window needs none of it

Kind = Literal["apart", "unseen", "unsettled"]
Mask = NDArray[np.uint8]
Binary = NDArray[np.bool_]

_FAR = 2.0  # token lengths from the nearest kept token, beyond which tissue rests on completed tokens alone
_MOST = 50  # findings of one kind in one label; more than that is noise, and nobody would read them


@dataclass(frozen=True)
class Finding:
    """A part of the mask that a person should look at.

    kind : "apart", a bit that hangs together with nothing; "unseen", tissue far from every token that was kept to the
        end; "unsettled", voxels of which a `Doubt` says that their label is not sure.
    label : its number in the mask; 0 is background.
    at : a voxel of it, near its middle.
    region : its box.
    voxels : how many it is made of.
    volume : in mm³.
    """

    kind: Kind
    label: int
    at: Shape
    region: Region
    voxels: int
    volume: float


@dataclass(frozen=True, eq=False)
class Doubt:
    """How unsure somebody is of each voxel: what feeds the list from elsewhere, as a stability map does.

    values : (z, y, x), 0 sure … 1 not sure at all.
    above : voxels with a larger value are in doubt.
    """

    values: NDArray[np.float32]
    above: float = 0.5


@dataclass(frozen=True)
class Mark:
    """A finding that was looked at, by what it was and one of its voxels."""

    kind: str
    label: int
    at: Shape


@dataclass(frozen=True)
class Notes:
    """What is known of a person's work on a scan besides the corrections.

    seconds : spent on corrections, pauses not counted.
    findings : those looked at.
    slices : those looked at, as (axis across, index).
    """

    seconds: float = 0.0
    findings: frozenset[Mark] = frozenset()
    slices: frozenset[tuple[int, int]] = frozenset()

    @property
    def marks(self) -> int:
        """How many findings and slices were looked at."""
        return len(self.findings) + len(self.slices)

    def with_finding(self, finding: Finding, reviewed: bool) -> Notes:
        """With a finding marked as looked at, or not."""
        others = frozenset(mark for mark in self.findings if not _means(mark, finding))
        new = {Mark(finding.kind, finding.label, finding.at)} if reviewed else set()
        return replace(self, findings=others | new)

    def with_slice(self, axis: int, index: int, reviewed: bool) -> Notes:
        """With a slice marked as looked at, or not."""
        this = {(axis, index)}
        return replace(self, slices=self.slices | this if reviewed else self.slices - this)

    def has(self, finding: Finding) -> bool:
        """Whether a finding was looked at, even if it has changed a little since."""
        return any(_means(mark, finding) for mark in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record and for keeping."""
        return {
            "seconds": round(self.seconds, 1),
            "reviewed_findings": [
                {"kind": mark.kind, "label": mark.label, "voxel_zyx": list(mark.at)}
                for mark in sorted(self.findings, key=lambda mark: (mark.kind, mark.label, mark.at))
            ],
            "reviewed_slices": {
                plane: sorted(index for across, index in self.slices if across == axis)
                for axis, plane in enumerate(PLANES)
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Notes:
        """The inverse of `to_json`; what cannot be read is left out."""
        try:
            marks = frozenset(
                Mark(str(row["kind"]), int(row["label"]), _voxel(row["voxel_zyx"]))
                for row in document.get("reviewed_findings", [])
            )
            slices = frozenset(
                (PLANES.index(plane), int(index))
                for plane, indices in document.get("reviewed_slices", {}).items()
                for index in indices
            )
            return cls(float(document.get("seconds", 0.0)), marks, slices)
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()


def findings(
    mask: Mask,
    labels: LabelTable,
    geometry: Geometry,
    tokens: TokenMap | None = None,
    doubt: Doubt | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """What to look at, the largest volume first.

    Parameters
    ----------
    mask : (z, y, x), with the corrections in it.
    geometry : of its grid.
    tokens : what became of the tokens; without them nothing can be unseen.
    doubt : of the same shape as the mask.
    step : is told labels done and labels in all; may raise to end it.
    """
    boxes: Sequence[Any] = ndimage.find_objects(mask)
    found: list[Finding] = []
    far = None if tokens is None else _far_tokens(tokens)
    for done, label in enumerate(labels):
        step(done, len(labels))
        box = boxes[label.id - 1] if label.id <= len(boxes) else None
        if box is None:
            continue
        shape: Binary = mask[box] == label.id
        found += _findings("apart", label.id, _bits(shape), box, geometry)
        if tokens is not None and far is not None and far.any():
            unseen = shape & _on_scan(far, tokens, geometry, box)
            found += _findings("unseen", label.id, _all_parts(unseen), box, geometry)
        if doubt is not None:
            unsure = shape & (doubt.values[box] > doubt.above)
            found += _findings("unsettled", label.id, _all_parts(unsure), box, geometry)
    step(len(labels), len(labels))
    return sorted(found, key=lambda finding: -finding.volume)


# Details

Parts = tuple[NDArray[np.int32], list[int]]  # numbered parts, and the numbers that count


def _bits(shape: Binary) -> Parts:
    """All connected parts but the largest; parts that touch at an edge or corner are one."""
    parts, numbers = _all_parts(shape)
    return parts, numbers[1:]


def _all_parts(shape: Binary) -> Parts:
    parts, count = ndimage.label(shape, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return parts, (np.argsort(-sizes, kind="stable") + 1).tolist()


def _findings(kind: Kind, label: int, found: Parts, within: tuple[slice, ...], geometry: Geometry) -> Iterator[Finding]:
    parts, numbers = found
    boxes = ndimage.find_objects(parts)
    for number in numbers[:_MOST]:
        box = boxes[number - 1]
        places = np.argwhere(parts[box] == number)
        middle = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
        start = [int(outer.start + inner.start) for outer, inner in zip(within, box, strict=True)]
        stop = [int(outer.start + inner.stop) for outer, inner in zip(within, box, strict=True)]
        at = _voxel([a + b for a, b in zip(start, middle.tolist(), strict=True)])
        volume = len(places) * float(np.prod(geometry.spacing))
        yield Finding(kind, label, at, Region(_voxel(start), _voxel(stop)), len(places), volume)


def _far_tokens(tokens: TokenMap) -> Binary:
    """On the token grid: the tokens that lie far from all that were kept to the end."""
    kept = tokens.stage == tokens.stages + 1
    if not kept.any():
        far: Binary = tokens.covered
        return far
    distance = ndimage.distance_transform_edt(~kept, sampling=tokens.spacing)
    beyond: Binary = (distance > _FAR * max(tokens.spacing)) & tokens.covered
    return beyond


def _on_scan(grid: Binary, tokens: TokenMap, geometry: Geometry, box: tuple[slice, ...]) -> Binary:
    """A part of the token grid's values on the scan's voxels in a box."""
    index = []
    for axis, side in enumerate(box):
        mm = geometry.origin[axis] + np.arange(side.start, side.stop) * geometry.spacing[axis]
        place = np.round((mm - tokens.origin[axis]) / tokens.spacing[axis]).astype(int)
        index.append(place.clip(0, grid.shape[axis] - 1))
    return grid[np.ix_(*index)]


def _means(mark: Mark, finding: Finding) -> bool:
    inside = all(a <= k < b for a, k, b in zip(finding.region.start, mark.at, finding.region.stop, strict=True))
    return inside and mark.kind == finding.kind and mark.label == finding.label


def _voxel(numbers: Sequence[int]) -> Shape:
    z, y, x = (int(n) for n in numbers)
    return z, y, x
