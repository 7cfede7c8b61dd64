"""Tools on a whole mask: which labels, in 3-D or in one slice, and what that would change. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok import correction, morphology
from napari_sparsetok.correction import Edit, Mask
from napari_sparsetok.morphology import Binary, Step
from napari_sparsetok.scan import Region, ScanError

Spacing = Sequence[float]


@dataclass(frozen=True)
class ToolRequest:
    """What a person asked a tool to do.

    tool : one of `TOOLS`, or "fill_between".
    number : what it needs to know: mm³ (mm² in a slice) for islands, mm for others.
    in_slice : only in the slice that is shown.
    all_labels : to every label that is not locked, one after the other; else to the chosen one.
    """

    tool: str
    number: float
    in_slice: bool
    all_labels: bool = False


@dataclass(frozen=True)
class Scene:
    """What a tool is used on.

    spacing : mm along z, y, x.
    plane : the axis across the slices that are shown, and the slice.
    labels : to work on, in turn.
    locked : labels that keep all they have.
    """

    spacing: tuple[float, float, float]
    plane: tuple[int, int]
    labels: tuple[int, ...]
    locked: frozenset[int] = frozenset()


TOOLS: dict[str, Callable[[Binary, Spacing, float, Step], Binary]] = {
    "remove_islands": morphology.remove_islands,
    "keep_largest": lambda shape, spacing, number, step: morphology.keep_largest(shape, step),
    "fill_holes": lambda shape, spacing, number, step: morphology.fill_holes(shape, step),
    "smooth": morphology.smooth,
    "grow": morphology.grow,
    "shrink": lambda shape, spacing, number, step: morphology.grow(shape, spacing, -number, step),
}


_FINE = 100  # steps that are told of each label

_REACH = {"grow": 1.0, "smooth": 2.0}
"""How far beyond the label a tool looks or writes, in units of its number."""


@dataclass(frozen=True, eq=False)
class Change:
    """What a tool would do.

    region : the box that holds all of it; None if there is nothing to do.
    before, wanted : the mask in that box.
    """

    region: Region | None
    before: Mask
    wanted: Mask

    @property
    def edit(self) -> Edit:
        """What to write into the corrections of the whole scan."""
        edit = correction.edit_towards(self.wanted, self.before)
        start = self.region.start if self.region else (0, 0, 0)
        return Edit(tuple(at + first for at, first in zip(edit.at, start, strict=True)), edit.values)


def work(
    request: ToolRequest,
    mask: Mask,
    corrections: Mask | None,
    scene: Scene,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Change:
    """What a tool would change.

    Parameters
    ----------
    mask, corrections : (z, y, x); corrections are needed to fill between corrected slices.
    step : is told how much is done and of how much, often, and may raise to end it.

    Raises
    ------
    ScanError : there is no such tool, or fewer than two corrected slices to fill between; says so.
    """
    axis, index = scene.plane
    within: list[slice] = [slice(None)] * 3
    if request.in_slice and request.tool != "fill_between":
        within[axis] = slice(index, index + 1)
    box = tuple(within)
    wanted = mask[box].copy()
    keys = _keys_of_all(corrections, scene) if request.tool == "fill_between" else {}
    for done, label in enumerate(scene.labels):

        def on_share(share: float, done: int = done) -> None:
            step(round(_FINE * (done + share)), _FINE * len(scene.labels))

        on_share(0.0)
        if request.tool == "fill_between":
            _fill_between(wanted, label, keys[label], scene, on_share)
        else:
            _use(request, wanted, label, scene, on_share)
    step(_FINE * len(scene.labels), _FINE * len(scene.labels))
    return _difference(mask, wanted, within)


def _use(request: ToolRequest, wanted: Mask, label: int, scene: Scene, step: Step) -> None:
    """Use a tool on one label where it is, in place."""
    if request.tool not in TOOLS:
        raise ScanError(f"there is no tool “{request.tool}”")
    shape = wanted == label
    box = _box(shape, scene.spacing, _REACH.get(request.tool, 0.0) * request.number)
    if box is None:
        return
    part = shape[box]
    if request.in_slice:  # a slice is flat: a tool in 2-D must not look across it
        axis = scene.plane[0]
        flat = tuple(s for k, s in enumerate(scene.spacing) if k != axis)
        worked = np.expand_dims(TOOLS[request.tool](part.squeeze(axis), flat, request.number, step), axis)
    else:
        worked = TOOLS[request.tool](part, scene.spacing, request.number, step)
    wanted[box] = correction.replace_label(wanted[box], label, worked)


def _fill_between(wanted: Mask, label: int, keys: list[int], scene: Scene, step: Step) -> None:
    """Fill between the key slices of one label, in place."""
    if len(keys) < 2:
        return
    axis = scene.plane[0]
    within: list[slice] = [slice(None)] * 3
    within[axis] = slice(keys[0], keys[-1] + 1)
    part = wanted[tuple(within)]
    box = _box(part == label, scene.spacing, 0.0)
    if box is None:
        return
    sides = list(box)
    sides[axis] = slice(None)
    box = tuple(sides)
    inner = [k - keys[0] for k in keys]
    shape = morphology.fill_between(part[box] == label, scene.spacing, axis, inner, step)
    # The person drew the outlines on both sides, so what lies between them is theirs, but for locked labels.
    part[box] = correction.replace_label(part[box], label, shape, scene.locked)


def _keys_of_all(corrections: Mask | None, scene: Scene) -> dict[int, list[int]]:
    """The slices in which each label was corrected."""
    axis = scene.plane[0]
    has = {label: np.zeros(0 if corrections is None else corrections.shape[axis], bool) for label in scene.labels}
    for k, part in enumerate(() if corrections is None else corrections):  # never the interpreter's for long
        for label, found in has.items():
            said = part == label
            if axis == 0:
                found[k] = said.any()
            else:
                found |= said.any(axis=2 - axis)
    keys = {label: [int(k) for k in np.flatnonzero(found)] for label, found in has.items()}
    if max((len(found) for found in keys.values()), default=0) < 2:
        raise ScanError("correct the label in at least two slices first; the slices between them are then filled")
    return keys


def _box(shape: NDArray[np.bool_], spacing: Spacing, margin: float | None) -> tuple[slice, ...] | None:
    """The box of what is there, with a margin of so many mm and a voxel more; None for none."""
    box = morphology.box_of(shape)
    if box is None or margin is None:
        return box
    sides = []
    for side, mm, n in zip(box, spacing, shape.shape, strict=True):
        voxels = 0 if n == 1 else int(np.ceil(margin / mm)) + 1
        sides.append(slice(max(0, side.start - voxels), min(n, side.stop + voxels)))
    return tuple(sides)


def _difference(mask: Mask, wanted: Mask, within: list[slice]) -> Change:
    before = mask[tuple(within)]
    box = _box(wanted != before, (1.0, 1.0, 1.0), None)
    if box is None:
        nothing = np.zeros((0, 0, 0), np.uint8)
        return Change(None, nothing, nothing)
    offset = [side.start or 0 for side in within]
    start = tuple(int(o + side.start) for o, side in zip(offset, box, strict=True))
    stop = tuple(int(o + side.stop) for o, side in zip(offset, box, strict=True))
    return Change(Region(start, stop), before[box].copy(), wanted[box].copy())  # type: ignore[arg-type]


def gains(change: Change) -> NDArray[np.int64]:
    """Voxels that each of the numbers 0 to 255 would gain; negative for a loss."""
    counts = [np.bincount(part.ravel(), minlength=256) for part in (change.wanted, change.before)]
    difference: NDArray[np.int64] = counts[0] - counts[1]
    return difference
