"""What can be said about tokens without running a network. Pure functions on numbers and arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import lazy_loader
import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import Geometry, Region, Shape
from napari_sparsetok.state import TokenMap

ndimage = lazy_loader.load("scipy.ndimage", suppress_warning=True)  # at first use: opening a window needs none of it

LADDER = (1.0, 0.5, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02)
"""Keep ratios from all to next to nothing, for a sweep; those that the cards tell a Dice value for are among them."""

HALVINGS = 4
"""How often the step of the ladder on which a token is lost is halved: to 5 % of the ratio or less."""


def stage_ratios(keep_ratio: float | Sequence[float], stages: int) -> tuple[float, ...]:
    """One keep ratio for each stage, checked.

    Raises
    ------
    ValueError : a ratio outside (0, 1], or not one for each stage.
    """
    ratios = tuple(keep_ratio) if isinstance(keep_ratio, Sequence) else (keep_ratio,) * stages
    if len(ratios) != stages:
        raise ValueError(f"this model prunes {stages} times, but {len(ratios)} keep ratios were given")
    if not all(0 < r <= 1 for r in ratios):
        raise ValueError(f"a keep ratio must be above 0 and at most 1, not {keep_ratio}")
    return ratios


def count_kept(n: int, keep_ratio: float, minimum: int = 1) -> int:
    """How many of `n` tokens a stage keeps: the whole part of the share, at least `minimum`.

    The whole part, because the published code counts so; a share of 1 keeps all.
    """
    return n if keep_ratio >= 1 else min(n, max(minimum, int(n * keep_ratio)))


def tokens_left(n: int, keep_ratio: float | Sequence[float], stages: int, minimum: int = 1) -> tuple[int, ...]:
    """Tokens of one window before the first stage and after each: 1053, 263, 65."""
    left = [n]
    for ratio in stage_ratios(keep_ratio, stages):
        left.append(count_kept(left[-1], ratio, minimum))
    return tuple(left)


def first_stage_preview(tokens: TokenMap, keep_ratio: float) -> TokenMap:
    """The kept-token map of stage 1 at another keep ratio, from the ranks alone, without inference.

    Tokens that stage 1 keeps are shown as kept, since what later stages do is not known yet.
    """
    entered = np.asarray(tokens.window_tokens if tokens.entered is None else tokens.entered)
    # A table, as sorting the sizes of a large scan would be felt while the slider moves.
    keep = np.array([count_kept(n, keep_ratio) for n in range(int(entered.max(initial=0)) + 1)], tokens.rank.dtype)
    stage = np.where(tokens.rank < keep.take(entered), np.uint8(tokens.stages + 1), np.uint8(1))
    left, rows = _expected_left(tokens, keep_ratio)
    if tokens.forced is not None:  # what a person chose holds whatever the share
        stage[tokens.forced > 0], stage[tokens.forced < 0] = tokens.stages + 1, 1
        times = np.where(tokens.rank < 0, 0, 1 if tokens.windows is None else tokens.windows)  # that it is counted
        must, never = (int(times[chosen].sum()) for chosen in (tokens.forced > 0, tokens.forced < 0))
        left[1:] = [min(max(n, must), left[0] - never) for n in left[1:]]
    stage[tokens.rank < 0] = 0
    return replace(tokens, stage=stage, left=tuple(left), left_by_window=rows, passed=None)


def _expected_left(tokens: TokenMap, keep_ratio: float) -> tuple[list[int], NDArray[np.int64] | None]:
    """Tokens before the first stage and after each at another keep ratio, over all windows and of each that was run."""
    if tokens.left_by_window is None:
        windows = tokens.left[0] // tokens.window_tokens if tokens.window_tokens else 0
        return [n * windows for n in tokens_left(tokens.window_tokens, keep_ratio, tokens.stages)], None
    entered = tokens.left_by_window[:, 0].tolist()
    of_size = {n: tokens_left(n, keep_ratio, tokens.stages) for n in set(entered)}
    rows = np.array([of_size[n] for n in entered])
    # Windows that are still to come count as the others do on average.
    return [round(float(n) * tokens.left[0] / max(1, sum(entered))) for n in rows.sum(axis=0)], rows


# One token


@dataclass(frozen=True)
class StageStory:
    """How one token fared at one stage.

    score : what ranked it.
    rank, entered : its place among the tokens that came there, 0 the first, and how many those were.
    margin : how far above the best that was pruned, if it was kept; how far below the worst that was kept, as a
        negative number, if it was pruned. NaN if there is nobody on the other side. Tokens forced by hand do not count.
    kept : whether it went on.
    """

    score: float
    rank: int
    entered: int
    margin: float
    kept: bool

    @property
    def percentile(self) -> float:
        """Share of the others that rank below it, in per cent."""
        return 100.0 * (self.entered - 1 - self.rank) / (self.entered - 1) if self.entered > 1 else 100.0


def story(
    scores: NDArray[Any],
    stage: NDArray[Any],
    place: Shape,
    forced: NDArray[Any] | None = None,
    order: NDArray[Any] | None = None,
) -> tuple[StageStory, ...]:
    """What one window did with one token, for every stage that it came to.

    Parameters
    ----------
    scores : (stages, d, h, w) of one window; NaN where a token was gone by then.
    stage : (d, h, w), the stage that pruned a token, counted from 1; stages + 1 if it was kept to the end.
    place : the token.
    forced : (d, h, w), not 0 where a person chose.
    order : as `scores`, what ranked the tokens, if the scores are rounded from that and may be equal where it is not.
    """
    told = []
    free = np.ones(stage.shape, dtype=bool) if forced is None else forced == 0
    for k, (values, ranked) in enumerate(zip(scores, scores if order is None else order, strict=True), start=1):
        if stage[place] < k:
            break
        entered = stage >= k
        mine, at = float(values[place]), int(np.ravel_multi_index(place, stage.shape))
        # Equals keep their order.
        before = np.count_nonzero(entered.ravel()[:at] & (ranked.ravel()[:at] == ranked[place]))
        kept = bool(stage[place] > k)
        others = values[free & ((stage == k) if kept else (stage > k))]
        limit = (others.max() if kept else others.min()) if others.size else math.nan
        rank = int(np.count_nonzero(ranked[entered] > ranked[place])) + int(before)
        told.append(StageStory(mine, rank, int(entered.sum()), mine - float(limit), kept))
    return tuple(told)


def kept_from(
    survives: Callable[[float], bool], ladder: Sequence[float] = LADDER, steps: int = HALVINGS
) -> float | None:
    """The lowest keep ratio from which a token is kept to the end, at every ratio that was tried above it.

    Stages after the first see other tokens at another ratio, so this can only be found by running them. First the
    ladder, from the top until the token is lost, then halving between the last two.

    Parameters
    ----------
    survives : runs the stages at a keep ratio.

    Returns
    -------
    The ratio, at which `survives` was true; None if the token is lost even at the top of the ladder.
    """
    kept: float | None = None
    for ratio in sorted(ladder, reverse=True):
        if not survives(ratio):
            return kept if kept is None else _halved(survives, ratio, kept, steps)
        kept = ratio
    return kept


def asked_by_kept_from(ladder: Sequence[float] = LADDER, steps: int = HALVINGS) -> list[float]:
    """All ratios that `kept_from` may ask for, over all tokens; first those that most tokens need."""
    known = sorted(ladder, reverse=True)
    found = list(known)
    for _ in range(steps):
        halves = [middle(a, b) for a, b in pairwise(known)]
        found += halves
        known = sorted([*known, *halves], reverse=True)
    return found


def _halved(survives: Callable[[float], bool], lost: float, kept: float, steps: int) -> float:
    for _ in range(steps):
        half = middle(lost, kept)
        lost, kept = (lost, half) if survives(half) else (half, kept)
    return kept


def middle(a: float, b: float) -> float:
    """The keep ratio halfway between two: as much above the one as below the other, by their quotient."""
    return math.sqrt(a * b)


# Tokens and voxels


@dataclass(frozen=True, eq=False)
class Lattice:
    """Which token each voxel of a scan lies in. Along each axis for itself, because the grids are parallel.

    axes : for each axis and each voxel along it, the token; -1 beside the grid.
    grid : tokens (d, h, w).
    """

    axes: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]
    grid: Shape

    @classmethod
    def of(cls, tokens: TokenMap, geometry: Geometry, shape: Shape) -> Lattice:
        """Of a token map over a scan."""
        axes = []
        for k in range(3):
            at = np.arange(shape[k]) * geometry.spacing[k] + geometry.origin[k]
            index = np.floor((at - tokens.origin[k]) / tokens.spacing[k] + 0.5).astype(np.intp)
            axes.append(np.where((index >= 0) & (index < tokens.stage.shape[k]), index, -1))
        return cls((axes[0], axes[1], axes[2]), tuple(tokens.stage.shape))

    def within(self, region: Region) -> Lattice:
        """The same of the voxels of a region alone: its last tokens may reach beyond it."""
        axes = []
        for axis, start, stop in zip(self.axes, region.start, region.stop, strict=True):
            at = np.arange(len(axis))
            axes.append(np.where((at >= start) & (at < stop), axis, -1))
        return Lattice((axes[0], axes[1], axes[2]), self.grid)

    def token(self, voxel: Sequence[int]) -> Shape | None:
        """The token of a voxel (z, y, x); None beside the grid."""
        z, y, x = (int(axis[v]) for axis, v in zip(self.axes, voxel, strict=True))
        return None if min(z, y, x) < 0 else (z, y, x)

    def spread(self, values: NDArray[Any], outside: float = 0) -> NDArray[Any]:
        """Values of tokens (d, h, w) as values of voxels (z, y, x)."""
        laid: NDArray[Any] = values[np.ix_(*self.axes)]
        for k, axis in enumerate(self.axes):
            if (axis < 0).any():
                laid[(slice(None),) * k + (axis < 0,)] = outside
        return laid

    def count(self, mask: NDArray[Any]) -> NDArray[np.int64]:
        """How many voxels of a boolean mask (z, y, x) lie in each token: (d, h, w)."""
        counts, (_, h, w) = np.zeros(self.grid, dtype=np.int64), self.grid
        for z, part in zip(self.axes[0], mask, strict=True):  # a place takes eight bytes an axis, so not all at once
            y, x = (axis[at] for axis, at in zip(self.axes[1:], np.nonzero(part), strict=True))
            inside = (y >= 0) & (x >= 0)
            if z >= 0:
                counts[z] += np.bincount(y[inside] * w + x[inside], minlength=h * w).reshape(h, w)
        return counts

    def sizes(self) -> NDArray[np.int64]:
        """How many voxels of the scan lie in each token: (d, h, w)."""
        sides = [np.bincount(axis[axis >= 0], minlength=n) for axis, n in zip(self.axes, self.grid, strict=True)]
        sizes: NDArray[np.int64] = np.einsum("i,j,k->ijk", *sides)
        return sizes

    def share(self, mask: NDArray[Any]) -> NDArray[np.float64]:
        """Which share of each token a boolean mask (z, y, x) fills: (d, h, w). NaN where no voxel lies in a token."""
        whole = self.sizes().astype(float)
        whole[whole == 0] = np.nan
        return self.count(mask) / whole


_NOWHERE = 255
"""The stage of a place that no window covers: what is drawn there says nothing of tokens."""


@dataclass(frozen=True)
class Unseen:
    """A piece of a mask that rests only on completed tokens: every one of its tokens was pruned or never entered.

    label, voxels : what it is in the mask, and how large.
    at : a voxel of it, near its middle.
    stage : the latest stage that pruned one of its tokens, so until when the network looked there at all; 0 if none
        ever entered.
    whole : nothing of the connected structure that it belongs to lies in a token that was kept.
    """

    label: int
    voxels: int
    at: Shape
    stage: int
    whole: bool


def unseen(mask: NDArray[Any], tokens: TokenMap, lattice: Lattice) -> list[Unseen]:
    """The pieces of a mask that rest only on completed tokens, the largest first.

    Parameters
    ----------
    mask : (z, y, x), 0 is background; a prediction, or a reference.
    tokens, lattice : of the same scan.
    """
    stage = lattice.spread(np.where(tokens.covered, tokens.stage, _NOWHERE), _NOWHERE)
    found: list[Unseen] = []
    for label, box in enumerate(ndimage.find_objects(np.asarray(mask, dtype=np.uint8)), start=1):
        if box is not None:  # each label in its own box: most of a scan is background
            found += _unseen_of(label, mask[box] == label, stage[box], tokens.stages, [side.start for side in box])
    return sorted(found, key=lambda piece: -piece.voxels)


def _unseen_of(
    label: int, shape: NDArray[Any], stage: NDArray[Any], stages: int, corner: Sequence[int]
) -> Iterator[Unseen]:
    around = np.ones((3, 3, 3))
    completed = stage <= stages
    pieces, _ = ndimage.label(shape & completed, around)
    structures, count = ndimage.label(shape, around)
    seen = np.zeros(count + 1, dtype=bool)
    seen[np.unique(structures[shape & (stage == stages + 1)])] = True
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        at = np.argwhere(pieces[box] == number)
        nearest = at[np.square(at - at.mean(axis=0)).sum(axis=1).argmin()] + [side.start for side in box]
        latest = int(stage[box][pieces[box] == number].max())
        z, y, x = (int(n + c) for n, c in zip(nearest, corner, strict=True))
        yield Unseen(label, len(at), (z, y, x), latest, not seen[structures[tuple(nearest)]])


def far_from_kept(mask: NDArray[Any], tokens: TokenMap, lattice: Lattice) -> NDArray[np.float32]:
    """For each voxel of a mask, millimetres from the middle of its token to that of the nearest that was kept.

    0 beside the mask, and infinite if no token was kept.
    """
    kept = tokens.stage == tokens.stages + 1
    if kept.any():
        far = ndimage.distance_transform_edt(~kept, sampling=tokens.spacing).astype(np.float32)
    else:
        far = np.full(kept.shape, np.inf, dtype=np.float32)
    laid: NDArray[np.float32] = np.where(mask > 0, lattice.spread(far, np.inf), 0).astype(np.float32)
    return laid


# Over keep ratios


def stability(masks: Iterable[tuple[float, NDArray[Any]]]) -> Iterator[NDArray[np.float32]]:
    """Per voxel the lowest keep ratio from which its label no longer changes; after each mask, what is known so far.

    Parameters
    ----------
    masks : keep ratios and masks (z, y, x), from the highest ratio down. The first is what the others are held against.

    Returns
    -------
    Each is (z, y, x) float32: the lowest ratio such that at it, and at every higher one that was tried, the voxel has
    its first label.
    """
    first: NDArray[Any] | None = None
    last = math.inf
    for ratio, mask in masks:
        if ratio >= last:
            raise ValueError("the masks must come from the highest keep ratio down")
        last = ratio
        if first is None:
            first, same = mask, np.ones(mask.shape, dtype=bool)
            lowest = np.full(mask.shape, ratio, dtype=np.float32)
        else:
            same &= mask == first
            lowest = np.where(same, np.float32(ratio), lowest)
        yield lowest


def unstable_regions(lowest: NDArray[np.float32], above: float, least: int = 1) -> list[tuple[Region, int, float]]:
    """Connected pieces whose label still changes above a keep ratio: box, voxels, and the highest such ratio in it."""
    pieces, _ = ndimage.label(lowest > above, np.ones((3, 3, 3)))
    found = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[box] == number
        voxels = int(inside.sum())
        if voxels >= least:
            region = Region(tuple(s.start for s in box), tuple(s.stop for s in box))
            found.append((region, voxels, float(lowest[box][inside].max())))
    return sorted(found, key=lambda piece: -piece[1])


def smallest_agreeing(rows: Iterable[tuple[float, float]], least: float = 0.99) -> float | None:
    """The smallest keep ratio such that it, and every higher one that was tried, agrees at least so much.

    Parameters
    ----------
    rows : keep ratio and agreement with the dense prediction, in any order.
    least : agreement, as a Dice coefficient.
    """
    smallest = None
    for ratio, agreement in sorted(rows, reverse=True):
        if not agreement >= least:
            break
        smallest = ratio
    return smallest
