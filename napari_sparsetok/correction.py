"""A clinician's corrections, what they compose to with a prediction, and tools that work on masks.

Corrections are an array of the scan's shape: 0 no opinion, k label k, 255 (`NOT_TISSUE`) not any label. The model never
writes them and a person never writes a prediction, so a new prediction can never undo what a person did.
Everything here is a pure function of arrays; masks of one label may have two axes (a slice) or three.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import lazy_loader
import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import Geometry
from napari_sparsetok.state import TokenMap

ndimage = lazy_loader.load("scipy.ndimage", suppress_warning=True)  # at first use: opening a window needs none of it

_MUCH = 80_000_000  # single writes, beyond which a distance everywhere is no more work

Mask = NDArray[np.uint8]
Binary = NDArray[np.bool_]

PLANES = ("axial", "coronal", "sagittal")
"""What the slices across axis 0, 1 and 2 are called."""


def compose(prediction: Mask, corrections: Mask) -> Mask:
    """The final mask: corrections where there is one, else the prediction.

    Works on any part as on the whole, so a change is composed in its box alone.
    """
    mask = prediction.copy()
    parts = zip(mask, corrections, strict=True) if mask.ndim > 1 else [(mask, corrections)]
    for part, said in parts:  # slice by slice: most have no opinion in them, and one fits the processor's cache
        if said.any():
            np.copyto(part, said, where=said != 0)
            np.copyto(part, 0, where=said == NOT_TISSUE)
    return mask


def count_labels(mask: Mask) -> NDArray[np.int64]:
    """How many voxels have each of the numbers 0 to 255."""
    counts = np.zeros(256, dtype=np.int64)
    for part in mask if mask.ndim > 1 else [mask]:
        some = part[part != 0]  # most are 0, and comparing is much quicker than counting
        if some.size:
            counts += np.bincount(some, minlength=256)
    counts[0] = mask.size - counts.sum()
    return counts


def slices_with(array: NDArray[Any]) -> list[list[int]]:
    """For each axis the slices across it in which anything is not 0.

    Reads slice by slice, so it may be painted on meanwhile.
    """
    found = [np.zeros(n, dtype=bool) for n in array.shape]
    for k, part in enumerate(array):
        found[0][k] = part.any()
        if found[0][k]:
            found[1] |= part.any(axis=1)
            found[2] |= part.any(axis=0)
    return [np.flatnonzero(has).tolist() for has in found]


def tokens_under(corrections: Mask, tokens: TokenMap, geometry: Geometry) -> Binary:
    """The tokens (d, h, w) under the voxels that have an opinion; those outside the region that was segmented are none.

    Parameters
    ----------
    corrections : (z, y, x) on the grid of `geometry`; read slice by slice, so it may be painted on meanwhile.
    """
    places: list[NDArray[np.intp]] = []  # of every voxel along each axis, on the token grid
    for axis, n in enumerate(corrections.shape):
        mm = geometry.origin[axis] + np.arange(n) * geometry.spacing[axis]
        places.append(np.round((mm - tokens.origin[axis]) / tokens.spacing[axis]).astype(np.intp))
    under: Binary = np.zeros(tokens.stage.shape, dtype=bool)
    for k, z in enumerate(places[0].tolist()):
        found = np.argwhere(np.array(corrections[k]))
        y, x = places[1][found[:, 0]], places[2][found[:, 1]]
        inside = (y >= 0) & (y < under.shape[1]) & (x >= 0) & (x < under.shape[2])
        if 0 <= z < len(under):
            under[z, y[inside], x[inside]] = True
    return under & (tokens.stage > 0)


@dataclass(frozen=True, eq=False)
class Edit:
    """Voxels of the corrections to be written in one undo step.

    at : index arrays, one for each axis.
    values : (n,) uint8, the opinions to put there.
    """

    at: tuple[NDArray[np.intp], ...]
    values: Mask

    def __len__(self) -> int:
        return len(self.values)


def edit_towards(wanted: Mask, mask: Mask) -> Edit:
    """What must be written into the corrections so that they compose to `wanted` instead of `mask`.

    Voxels that already are as wanted get no opinion from this: the model may still change its mind about them.
    """
    at = np.nonzero(wanted != mask)
    values = wanted[at]
    return Edit(at, np.where(values == 0, NOT_TISSUE, values).astype(np.uint8))


def replace_label(mask: Mask, label: int, shape: Binary, protected: Collection[int] | None = None) -> Mask:
    """A mask in which `label` has another shape.

    Parameters
    ----------
    protected : labels from which it takes nothing; None protects all others, so that it takes background only.
    """
    wanted = mask.copy()
    wanted[(mask == label) & ~shape] = 0
    kept = (mask != 0) if protected is None else np.isin(mask, list(protected))
    wanted[shape & ~kept] = label
    return wanted


# Tools: a binary mask in, one of the same shape out. Lengths are millimetres.


def keep_largest(mask: Binary) -> Binary:
    """Only the largest connected part; parts that touch at an edge or corner are one."""
    parts, count = _parts(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def remove_islands(mask: Binary, spacing: Sequence[float], smallest: float) -> Binary:
    """Without the connected parts that are smaller than `smallest` mm³ (mm² in a slice)."""
    parts, _ = _parts(mask)
    sizes = np.bincount(parts.ravel()) * float(np.prod(spacing))
    large = sizes >= smallest
    large[0] = False
    kept: Binary = large[parts]
    return kept


def fill_holes(mask: Binary) -> Binary:
    """With everything filled that the mask encloses on all sides."""
    filled: Binary = ndimage.binary_fill_holes(mask)
    return filled


def grow(mask: Binary, spacing: Sequence[float], by: float) -> Binary:
    """Grown by a number of millimetres in every direction; shrunk if the number is negative.

    The border of the array counts as a continuation of what is there, so shrinking does not eat from the edge.
    """
    if by == 0 or not mask.any() or mask.all():
        return mask
    box = _around(mask, spacing, abs(by))
    result = mask.copy()
    if by > 0:
        result[box] = _reached(mask[box], spacing, by)
    elif not mask[box].all():
        result[box] = ~_reached(~mask[box], spacing, -by)
    return result


def smooth(mask: Binary, spacing: Sequence[float], width: float) -> Binary:
    """With corners and dents below about `width` mm rounded off. The volume stays as it was."""
    if width <= 0 or not mask.any():
        return mask
    box = _around(mask, spacing, 2 * width)
    # Smoothing the distance to the surface, not the mask: thin parts then move less than they would vanish.
    sigma = [width / 2 / s for s in spacing]
    reach = width + max(spacing)  # twice the filter's sigma: what is farther hardly moves the surface
    distance = _distance_near(mask[box], spacing, reach)
    smoothed = ndimage.gaussian_filter(distance, sigma, mode="nearest", truncate=2.5)
    result = mask.copy()
    result[box] = smoothed >= _level(smoothed, int(np.count_nonzero(mask)))
    return result


def fill_between(mask: Binary, spacing: Sequence[float], axis: int, keys: Sequence[int] | None = None) -> Binary:
    """With the slices between key slices interpolated by shape.

    Parameters
    ----------
    mask : (z, y, x).
    spacing : millimetres along the axes.
    axis : across the slices.
    keys : the slices that are right; None takes all that are not empty. Slices outside them stay as they are.

    Returns
    -------
    The signed distance to the outline runs linearly from key to key (Raya and Udupa, 1990).
    """
    slices = np.moveaxis(mask, axis, 0)
    within = [s for k, s in enumerate(spacing) if k != axis]
    filled = slices.copy()
    given = sorted(set(keys)) if keys is not None else np.flatnonzero(slices.any(axis=(1, 2))).tolist()
    for first, last in itertools.pairwise(given):
        if last - first < 2 or not (slices[first].any() and slices[last].any()):
            continue
        a, b = (_signed_distance(slices[k], within) for k in (first, last))
        for k in range(first + 1, last):
            share = (k - first) / (last - first)
            filled[k] = (1 - share) * a + share * b > 0
    return np.moveaxis(filled, 0, axis)


def _parts(mask: Binary) -> tuple[NDArray[np.int32], int]:
    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return parts, int(count)


def _edge(mask: Binary) -> Binary:
    """The voxels of a mask that have a neighbour outside it across a face; the array's own border is no outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        low, high = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        inner[tuple(low)] &= mask[tuple(high)]
        inner[tuple(high)] &= mask[tuple(low)]
    return mask & ~inner


@dataclass(frozen=True, eq=False)
class _Ball:
    """The steps from a voxel to all within some millimetres.

    room : voxels along each axis.
    steps : (n, axes), the farthest first.
    mm : (n,), how far.
    """

    room: tuple[int, ...]
    steps: NDArray[np.intp]
    mm: NDArray[np.float64]

    @classmethod
    def of(cls, spacing: Sequence[float], reach: float) -> _Ball:
        room = tuple(int(reach / step + 1e-9) for step in spacing)
        steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in room), indexing="ij"), -1).reshape(-1, len(room))
        mm = np.sqrt(((steps * np.asarray(spacing)) ** 2).sum(axis=1))
        order = np.argsort(-mm, kind="stable")
        order = order[mm[order] <= reach]
        return cls(room, steps[order], mm[order])

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """An array's shape with room for a step from any voxel."""
        return tuple(n + 2 * r for n, r in zip(shape, self.room, strict=True))

    def inside(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """Where the array lies in the padded one."""
        return tuple(slice(r, r + n) for n, r in zip(shape, self.room, strict=True))

    def flat(self, seeds: Binary) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """In the flattened padded array: where the seeds lie, and how far each step goes."""
        shape = self.padded(seeds.shape)
        at = np.ravel_multi_index(tuple(k + r for k, r in zip(np.nonzero(seeds), self.room, strict=True)), shape)
        strides = np.array([int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))])
        return at, self.steps @ strides


def _reached(mask: Binary, spacing: Sequence[float], reach: float) -> Binary:
    """The voxels within some millimetres of a mask, it too.

    From the mask's edge outwards, which for the usual few millimetres is much less work than a distance everywhere.
    """
    ball, edge = _Ball.of(spacing, reach), _edge(mask)
    if len(ball.mm) * int(np.count_nonzero(edge)) > _MUCH:
        far: Binary = ndimage.distance_transform_edt(~mask, sampling=spacing) <= reach
        return far
    reached = np.zeros(ball.padded(mask.shape), dtype=bool)
    flat, (at, steps) = reached.ravel(), ball.flat(edge)
    for step in steps:
        flat[at + step] = True
    return reached[ball.inside(mask.shape)] | mask


def _distance_near(mask: Binary, spacing: Sequence[float], reach: float) -> NDArray[np.float32]:
    """As `_signed_distance`, but no more than about `reach` either way."""
    ball, half = _Ball.of(spacing, reach), 0.5 * min(spacing)
    edges = [_edge(mask), _edge(~mask)]
    if len(ball.mm) * sum(int(np.count_nonzero(edge)) for edge in edges) > _MUCH:
        return _signed_distance(mask, spacing).clip(-reach, reach).astype(np.float32)
    found = []
    for edge in edges:
        away = np.full(ball.padded(mask.shape), reach + half, dtype=np.float32)
        flat, (at, steps) = away.ravel(), ball.flat(edge)
        for step, mm in zip(steps, ball.mm, strict=True):  # the nearest is written last, and stays
            flat[at + step] = mm
        found.append(away[ball.inside(mask.shape)])
    to_mask, to_outside = found
    return np.where(mask, to_outside - half, half - to_mask)


def _level(values: NDArray[np.float32], count: int) -> float:
    """The value that `count` of the values reach. A filter pulls every convex surface inwards; this undoes it."""
    near = values[np.abs(values) < 0.5 * float(np.abs(values).max())]
    wanted = count - int(np.count_nonzero(values >= 0.5 * float(np.abs(values).max())))
    if not 0 < wanted <= near.size:
        near, wanted = values.ravel(), count
    return float(np.partition(near, -wanted)[-wanted])


def _signed_distance(mask: Binary, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Millimetres to the outline, positive inside; it runs between the voxels, so no voxel is at 0."""
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    half = 0.5 * min(spacing)
    signed: NDArray[np.float64] = np.where(mask, inside - half, half - outside)
    return signed


def _around(mask: Binary, spacing: Sequence[float], margin: float) -> tuple[slice, ...]:
    """The mask's box with a margin in millimetres, for doing no work where nothing is."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    grown = []
    for side, step, n in zip(box, spacing, mask.shape, strict=True):
        voxels = int(np.ceil(margin / step)) + 1
        grown.append(slice(max(0, side.start - voxels), min(n, side.stop + voxels)))
    return tuple(grown)
