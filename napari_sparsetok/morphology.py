"""Tools on the shape of one label: a binary mask in, one of the same shape out. Lengths are millimetres.

A mask has two axes (a slice) or three. Large ones are worked on in slabs, so that every tool can say how far it is, and
can be stopped soon: `step` is told the share that is done, 0 … 1, and may raise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lazy_loader
import numpy as np
from numpy.typing import NDArray

# At first use: opening a window needs none of it.
ndimage = lazy_loader.load("scipy.ndimage", suppress_warning=True)
csgraph = lazy_loader.load("scipy.sparse.csgraph", suppress_warning=True)
sparse = lazy_loader.load("scipy.sparse", suppress_warning=True)

_MUCH = 80_000_000  # single writes, beyond which a distance everywhere is no more work
_SLAB = 2_000_000  # voxels that are worked on without a stop; a tenth of a second or so

Binary = NDArray[np.bool_]
Step = Callable[[float], None]


def _go_on(share: float) -> None:
    """Nobody wants to know."""


def keep_largest(mask: Binary, step: Step = _go_on) -> Binary:
    """Only the largest connected part; parts that touch at an edge or corner are one."""
    pieces = _Pieces.of(mask, np.ones((3,) * mask.ndim), step)
    sizes = pieces.sizes
    if len(sizes) < 3:
        return mask
    return pieces.where(np.arange(len(sizes)) == sizes.argmax())


def remove_islands(mask: Binary, spacing: Sequence[float], smallest: float, step: Step = _go_on) -> Binary:
    """Without the connected parts that are smaller than `smallest` mm³ (mm² in a slice)."""
    pieces = _Pieces.of(mask, np.ones((3,) * mask.ndim), step)
    large = pieces.sizes * float(np.prod(spacing)) >= smallest
    large[0] = False
    return pieces.where(large)


def fill_holes(mask: Binary, step: Step = _go_on) -> Binary:
    """With everything filled that the mask encloses on all sides."""
    pieces = _Pieces.of(~mask, ndimage.generate_binary_structure(mask.ndim, 1), step)
    enclosed = np.ones(len(pieces.sizes), dtype=bool)
    for axis in range(mask.ndim):
        for face in (0, -1):
            enclosed[pieces.part_of[np.unique(np.take(pieces.numbers, face, axis=axis))]] = False
    enclosed[0] = True  # the mask itself
    return pieces.where(enclosed)


def grow(mask: Binary, spacing: Sequence[float], by: float, step: Step = _go_on) -> Binary:
    """Grown by a number of millimetres in every direction; shrunk if the number is negative.

    The border of the array counts as a continuation of what is there, so shrinking does not eat from the edge.
    """
    if by == 0 or not mask.any() or mask.all():
        return mask
    box = _around(mask, spacing, abs(by))
    result = mask.copy()
    if by > 0:
        result[box] = _reached(mask[box], spacing, by, step)
    elif not mask[box].all():
        result[box] = ~_reached(~mask[box], spacing, -by, step)
    return result


def smooth(mask: Binary, spacing: Sequence[float], width: float, step: Step = _go_on) -> Binary:
    """With corners and dents below about `width` mm rounded off. The volume stays as it was."""
    if width <= 0 or not mask.any():
        return mask
    box = _around(mask, spacing, 2 * width)
    # Smoothing the distance to the surface, not the mask: thin parts then move less than they would vanish.
    sigma = [width / 2 / s for s in spacing]
    reach = width + max(spacing)  # twice the filter's sigma: what is farther hardly moves the surface
    distance = _distance_near(mask[box], spacing, reach, lambda share: step(0.6 * share))
    smoothed = _blurred(distance, sigma, lambda share: step(0.6 + 0.3 * share))
    result = mask.copy()
    result[box] = smoothed >= _level(smoothed, int(np.count_nonzero(mask)))
    return result


def fill_between(
    mask: Binary, spacing: Sequence[float], axis: int, keys: Sequence[int] | None = None, step: Step = _go_on
) -> Binary:
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
            step((k - given[0]) / (given[-1] - given[0]))
            share = (k - first) / (last - first)
            filled[k] = (1 - share) * a + share * b > 0
    return np.moveaxis(filled, 0, axis)


# Connected parts


@dataclass(frozen=True, eq=False)
class _Pieces:
    """What hangs together in a mask, found slab by slab: pieces of slabs, and the parts that they are of.

    numbers : of the mask's shape, int32: the piece of every voxel, from 1; 0 outside the mask.
    part_of : (pieces + 1,), the number of the part that a piece is of, from 1; the first is 0.
    """

    numbers: NDArray[np.int32]
    part_of: NDArray[np.int32]

    @classmethod
    def of(cls, mask: Binary, structure: NDArray[np.generic], step: Step) -> _Pieces:
        numbers, count, joints = np.zeros(mask.shape, dtype=np.int32), 0, []
        for slab in _slabs(mask.shape):
            step(slab.start / len(mask))
            more = int(ndimage.label(mask[slab], structure, output=numbers[slab]))
            numbers[slab] += np.multiply(mask[slab], count, dtype=np.int32)
            count += more
            if slab.start:
                joints += _joints(numbers[slab.start - 1], numbers[slab.start], structure)
        a, b = np.concatenate(joints, axis=1) if joints else np.zeros((2, 0), dtype=np.int32)
        graph = sparse.coo_array((np.ones(len(a), dtype=bool), (a, b)), shape=(count + 1,) * 2)
        _, part_of = csgraph.connected_components(graph, directed=False)  # in the order of their first pieces
        return cls(numbers, part_of)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many voxels each part has; the first, which is no part, has none."""
        of_pieces = np.zeros(len(self.part_of), dtype=np.int64)
        for slab in _slabs(self.numbers.shape):
            part = self.numbers[slab]
            of_pieces += np.bincount(part[part > 0], minlength=len(of_pieces))
        sizes = np.zeros(int(self.part_of.max()) + 1, dtype=np.int64)
        np.add.at(sizes, self.part_of, of_pieces)
        return sizes

    def where(self, wanted: Binary) -> Binary:
        """The voxels of the parts that are wanted; the first says it for what is outside the mask."""
        found: Binary = wanted[self.part_of][self.numbers]
        return found


def _joints(
    before: NDArray[np.int32], after: NDArray[np.int32], structure: NDArray[np.generic]
) -> list[NDArray[np.int32]]:
    """The pairs (2, n) of pieces that touch from one slice to the next."""
    found = []
    for shift in np.argwhere(structure[2]) - 1:
        here = tuple(slice(max(0, -k), n - max(0, k)) for k, n in zip(shift, before.shape, strict=True))
        there = tuple(slice(max(0, k), n - max(0, -k)) for k, n in zip(shift, before.shape, strict=True))
        a, b = before[here], after[there]
        both = (a > 0) & (b > 0)
        pairs = np.stack([a[both], b[both]])
        new = np.ones(pairs.shape[1], dtype=bool)
        new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)  # most are the same as the one before
        found.append(pairs[:, new])
    return found


# Distances


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


def _reached(mask: Binary, spacing: Sequence[float], reach: float, step: Step) -> Binary:
    """The voxels within some millimetres of a mask, it too.

    From the mask's edge outwards, which for the usual few millimetres is much less work than a distance everywhere.
    """
    ball, edge = _Ball.of(spacing, reach), _edge(mask)
    if len(ball.mm) * int(np.count_nonzero(edge)) > _MUCH:
        far = np.empty(mask.shape, dtype=bool)
        _in_slabs(mask, ball.room[0], far, lambda part: _to(part, spacing) <= reach, step)
        return far
    reached = np.zeros(ball.padded(mask.shape), dtype=bool)
    flat, (at, steps) = reached.ravel(), ball.flat(edge)
    for done, distance in enumerate(steps):
        step(done / len(steps))
        flat[at + distance] = True
    return reached[ball.inside(mask.shape)] | mask


def _distance_near(mask: Binary, spacing: Sequence[float], reach: float, step: Step) -> NDArray[np.float32]:
    """As `_signed_distance`, but no more than about `reach` either way."""
    ball, half = _Ball.of(spacing, reach), np.float32(0.5 * min(spacing))
    edges = [_edge(mask), _edge(~mask)]
    signed = np.empty(mask.shape, dtype=np.float32)
    if len(ball.mm) * sum(int(np.count_nonzero(edge)) for edge in edges) > _MUCH:
        _in_slabs(mask, ball.room[0] + 1, signed, lambda part: _signed_distance(part, spacing), step)
        return signed.clip(-reach, reach)
    for side, edge in enumerate(edges):
        away = np.full(ball.padded(mask.shape), reach + half, dtype=np.float32)
        flat, (at, steps) = away.ravel(), ball.flat(edge)
        for done, (distance, mm) in enumerate(zip(steps, ball.mm, strict=True)):  # the nearest is written last
            step((side + done / len(steps)) / 2)
            flat[at + distance] = mm
        away = away[ball.inside(mask.shape)]
        if side == 0:
            np.subtract(half, away, out=signed)
        else:
            np.subtract(away, half, out=signed, where=mask)
    return signed


def _in_slabs(
    mask: Binary, margin: int, result: NDArray[Any], work: Callable[[Binary], NDArray[Any]], step: Step
) -> None:
    """Write what a function of a mask says, which in a voxel depends on no more than `margin` slices to either side."""
    for slab in _slabs(mask.shape, at_least=2 * margin):
        step(slab.start / len(mask))
        first = max(0, slab.start - margin)
        result[slab] = work(mask[first : slab.stop + margin])[slab.start - first : slab.stop - first]


def _blurred(values: NDArray[np.float32], sigma: Sequence[float], step: Step) -> NDArray[np.float32]:
    """By a Gaussian; beyond the border everything goes on as it is there."""
    reach = 2.5
    margin = int(reach * sigma[0] + 0.5)
    result = np.empty_like(values)
    for slab in _slabs(values.shape, at_least=2 * margin):
        step(slab.start / len(values))
        first = max(0, slab.start - margin)
        part = ndimage.gaussian_filter(values[first : slab.stop + margin], sigma, mode="nearest", truncate=reach)
        result[slab] = part[slab.start - first : slab.stop - first]
    return result


def _level(values: NDArray[np.float32], count: int) -> float:
    """The value that `count` of the values reach. A filter pulls every convex surface inwards; this undoes it."""
    half = 0.5 * max(float(values.max()), -float(values.min()))
    beyond = values >= half
    near = values[(values > -half) & ~beyond]
    wanted = count - int(np.count_nonzero(beyond))
    if not 0 < wanted <= near.size:
        near, wanted = values.ravel(), count
    return float(np.partition(near, -wanted)[-wanted])


def _to(mask: Binary, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Millimetres to the nearest voxel of a mask; without any, infinitely many."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return distance


def _signed_distance(mask: Binary, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Millimetres to the outline, positive inside; it runs between the voxels, so no voxel is at 0."""
    half = 0.5 * min(spacing)
    signed: NDArray[np.float64] = np.where(mask, _to(~mask, spacing) - half, half - _to(mask, spacing))
    return signed


# Where to work


def _around(mask: Binary, spacing: Sequence[float], margin: float) -> tuple[slice, ...]:
    """The mask's box with a margin in millimetres, for doing no work where nothing is."""
    grown = []
    for side, distance, n in zip(box_of(mask) or (), spacing, mask.shape, strict=True):
        voxels = int(np.ceil(margin / distance)) + 1
        grown.append(slice(max(0, side.start - voxels), min(n, side.stop + voxels)))
    return tuple(grown)


def box_of(mask: Binary) -> tuple[slice, ...] | None:
    """The smallest box that holds all of a mask; None if it is empty."""
    has = [mask.any(axis=tuple(range(1, mask.ndim)))]
    flat = np.asarray(mask.any(axis=0))
    has += [flat.any(axis=tuple(k for k in range(flat.ndim) if k != axis)) for axis in range(flat.ndim)]
    if not has[0].any():
        return None
    places = [np.flatnonzero(one) for one in has]
    return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in places)


def _slabs(shape: Sequence[int], at_least: int = 1) -> Iterator[slice]:
    thick = max(at_least, 1, _SLAB // max(1, int(np.prod(shape[1:]))))
    for first in range(0, shape[0], thick):
        yield slice(first, min(first + thick, shape[0]))
