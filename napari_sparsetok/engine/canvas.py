"""Where the results of windows are put together: one mask, one token map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_sparsetok.engine.blend import Blend
from napari_sparsetok.engine.pieces import Piece, Pieces
from napari_sparsetok.engine.resampling import ModelGrid
from napari_sparsetok.engine.selection import Selector
from napari_sparsetok.model import Rule, TokenRecord
from napari_sparsetok.scan import Region, Scan, ScanError
from napari_sparsetok.state import Prediction, TokenMap
from napari_sparsetok.tokens import Lattice, tokens_left
from napari_sparsetok.weights import Card


class Canvas:
    """Collects windows of one region of one scan.

    Parameters
    ----------
    scan, region : what is segmented.
    card : of the model. Of its labels of one piece only the largest piece stays.
    grid, selector : the model's grid over the region, and how tokens are picked in its windows.
    base : an earlier prediction, kept where no window was added yet.

    Attributes
    ----------
    builds_on : serial number of the prediction that the next mask differs from only in its changed box.
    left_out : the pieces that are not in the last mask.
    """

    def __init__(
        self, scan: Scan, region: Region, card: Card, grid: ModelGrid, selector: Selector, base: Prediction | None
    ) -> None:
        self.scan, self.region = scan, region
        self._card, self._grid, self._selector, self._plan = card, grid, selector, selector.plan
        self._blend = Blend(len(card.labels) + 1, grid, self._plan)
        self._fresh: list[int] = []
        self._left: dict[int, NDArray[np.int64]] = {}  # of each window, tokens before the first stage and after each
        self.builds_on = base.serial if base else 0
        self._mask = np.zeros(scan.shape, dtype=np.uint8) if base is None else base.mask.copy()
        self._start_tokens(base.tokens if base else None)
        self.left_out: list[Piece] = []
        self._pieces = self._counted(card.one_piece, base) if card.one_piece else None

    def _start_tokens(self, base: TokenMap | None) -> None:
        shape, stages = self._plan.owner.shape, self._card.stages
        self._windows, self._passed = np.zeros(shape, np.uint16), np.zeros((stages, *shape), np.uint16)
        if base is not None and (base.stage.shape != shape or base.selection != self._selector.selection):
            base = None  # scores of two selections have no unit in common
        self._base = base
        if base is not None:
            self._importance, self._stage, self._rank = base.importance.copy(), base.stage.copy(), base.rank.copy()
            self._entered = np.full(shape, base.window_tokens) if base.entered is None else base.entered.copy()
            return
        self._importance = np.full((stages, *shape), np.nan, dtype=np.float32)
        self._stage = np.zeros(shape, dtype=np.uint8)
        self._rank = np.full(shape, -1, dtype=np.int32)
        self._entered = np.zeros(shape, dtype=np.int32)

    def _counted(self, one_piece: Sequence[int], base: Prediction | None) -> Pieces:
        lattice = Lattice.of(self.tokens(), self.scan.geometry, self.scan.shape)
        known = None if base is None else base.by_token
        pieces = Pieces(one_piece, lattice, known if known is not None and known.shape[0] == len(one_piece) else None)
        if base is not None and known is None:  # of other settings, under which nothing was counted
            pieces.rewrite(Region.whole(self.scan.shape), np.zeros_like(self._mask), self._mask)
        return pieces

    @property
    def by_token(self) -> NDArray[np.int32] | None:
        """Voxels of the last mask in each token; see `Prediction`."""
        return None if self._pieces is None else self._pieces.counts_without(self.left_out)

    def add(self, index: int, logits: Tensor, record: TokenRecord) -> None:
        """Add one window: logits (1, classes, D, H, W) and what happened to its tokens.

        Raises
        ------
        ScanError : some logits are NaN or infinite, so no mask could be made of them.
        """
        logits = logits[0].cpu()
        if not _all_finite(logits):
            raise ScanError(
                "the model returned no numbers (NaN or infinity) for a part of the scan, so there is no mask of it; "
                "choose the device “CPU” if a GPU computed, else another model"
            )
        self._blend.add(index, logits)
        for box, labels, covered in self._blend.settled():
            self._write(box, labels, covered)
        self._add_tokens(index, record)
        self._fresh.append(index)

    def _add_tokens(self, index: int, record: TokenRecord) -> None:
        box = self._plan.tokens(index).slices
        mine = self._plan.owner[box] == index
        stage = record.stage[0].cpu().numpy()
        self._stage[box][mine] = stage[mine]
        self._windows[box] += 1
        for k, passed in enumerate(self._passed, start=1):
            passed[box] += stage > k
        self._left[index] = np.array([np.count_nonzero(stage > k) for k in range(self._card.stages + 1)])
        for k, scores in enumerate(record.scores):
            values = scores[0].cpu().numpy()
            self._importance[k][box][mine] = (np.exp(values) if self._selector.selection == "learned" else values)[mine]
        self._entered[box][mine] = self._left[index][0]
        first = record.scores[0][0].cpu().numpy() if record.scores else np.zeros(mine.shape, np.float32)
        forced = None if self._selector.forced is None else self._selector.forced[box]
        self._rank[box][mine] = _ranks(first, forced, stage > 0)[mine]

    @property
    def entered(self) -> int:
        """Tokens of the windows that were added."""
        return sum(int(left[0]) for left in self._left.values())

    @property
    def passed(self) -> int:
        """Those of them that the first stage let on."""
        return sum(int(left[min(1, len(left) - 1)]) for left in self._left.values())

    def mask(self) -> tuple[NDArray[np.uint8], Region]:
        """The mask (z, y, x) on the scan's grid so far, and the box that changed since the last call."""
        changed = self._changed_box()
        inner = Region(
            tuple(a - o for a, o in zip(changed.start, self.region.start, strict=True)),  # type: ignore[arg-type]
            tuple(b - o for b, o in zip(changed.stop, self.region.start, strict=True)),  # type: ignore[arg-type]
        )
        for box, labels, covered in self._blend.unsettled(inner):
            self._write(box, labels, covered)
        mask = self._mask.copy()
        if self._pieces is not None:
            changed = self._without_pieces(self._pieces, mask, changed)
        mask.flags.writeable = False
        self._fresh.clear()
        return mask, changed

    def _without_pieces(self, pieces: Pieces, mask: NDArray[np.uint8], changed: Region) -> Region:
        """Take far pieces out of a mask; returns the box that changed since the last one, some having come or gone."""
        found = pieces.left_out()
        pieces.remove(mask, found)
        before, now = ({piece.key for piece in some} for some in (self.left_out, found))
        self.left_out = found
        boxes = [changed, *(box for _, _, box in before ^ now)]
        start, stop = np.min([b.start for b in boxes], axis=0), np.max([b.stop for b in boxes], axis=0)
        return Region(tuple(start.tolist()), tuple(stop.tolist()))

    def _write(self, box: Region, labels: NDArray[np.uint8], covered: NDArray[np.bool_]) -> None:
        at = Region(_plus(box.start, self.region.start), _plus(box.stop, self.region.start))  # type: ignore[arg-type]
        part: NDArray[np.uint8] = self._mask[at.slices]
        if self._pieces is not None:
            self._pieces.rewrite(at, part, np.where(covered, labels, part))
        np.copyto(part, labels, where=covered)

    def _changed_box(self) -> Region:
        boxes = [self._plan.regions[i] for i in self._fresh] or list(self._plan.regions)
        start = tuple(min(b.start[k] for b in boxes) for k in range(3))
        stop = tuple(min(self._grid.inner[k], max(b.stop[k] for b in boxes)) for k in range(3))
        box = self._grid.box_of(Region(start, stop))  # type: ignore[arg-type]
        return Region(_plus(box.start, self.region.start), _plus(box.stop, self.region.start))  # type: ignore[arg-type]

    def tokens(self) -> TokenMap:
        """The token map so far."""
        card, grid = self._card, self._grid
        d, h, w = (side // card.patch for side in self._plan.window)
        n = d * h * w
        spacing = tuple(card.patch * s for s in grid.spacing)
        have, at = self.scan.geometry.spacing, self.scan.geometry.origin
        edge = [o + (a - 0.5) * s for o, a, s in zip(at, self.region.start, have, strict=True)]
        return TokenMap(
            importance=self._importance.copy(),
            stage=self._stage.copy(),
            rank=self._rank.copy(),
            window_tokens=n,
            left=self._all_left(n),
            spacing=spacing,  # type: ignore[arg-type]
            origin=tuple(e + 0.5 * t for e, t in zip(edge, spacing, strict=True)),  # type: ignore[arg-type]
            selection=self._selector.selection,
            forced=self._selector.forced,
            window_grid=(d, h, w),
            entered=self._entered.astype(np.int32),
            left_by_window=np.array(list(self._left.values())) if self._left else None,
            **self._shares(),
        )

    def _shares(self) -> dict[str, NDArray[Any]]:
        """In how many windows a token lies, and in which share of them it passed each stage."""
        seen, base = self._windows > 0, self._base
        windows, passed = self._windows.copy(), np.full(self._passed.shape, np.nan, dtype=np.float32)
        if base is not None and base.windows is not None and base.passed is not None:
            windows[~seen], passed[:, ~seen] = base.windows[~seen], base.passed[:, ~seen]
        passed[:, seen] = self._passed[:, seen] / self._windows[seen]
        return {"windows": windows, "passed": passed}

    def _all_left(self, n: int) -> tuple[int, ...]:
        """Tokens before the first stage and after each; windows still to come count as the mean of the others."""
        windows = len(self._plan.regions)
        if self._left:
            mean = np.mean(list(self._left.values()), axis=0)
            return tuple(round(float(count) * windows) for count in mean)
        left = tokens_left(n, self._selector.ratios, self._card.stages, self._card.minimum_kept)
        return tuple(count * windows for count in left)


def _all_finite(values: Tensor) -> bool:
    if values.sum().isfinite():  # a sum is quick, and is none if any of them is none; but it may be too large itself
        return True
    return all(bool(end.isfinite()) for end in values.aminmax())  # either is NaN if any of them is


def _ranks(
    scores: NDArray[np.float32], forced: NDArray[np.int8] | None, entered: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Place of each token in its window, 0 for the first that is kept; the order that pruning uses. -1 if not there."""
    flat = torch.from_numpy(scores[entered])[None]
    rule = Rule(forced=None if forced is None else torch.from_numpy(forced[entered])[None])
    order = rule.priority(flat)[0].argsort(descending=True, stable=True).numpy()
    there = np.empty(order.size, dtype=np.int32)
    there[order] = np.arange(order.size, dtype=np.int32)
    ranks = np.full(scores.shape, -1, dtype=np.int32)
    ranks[entered] = there
    return ranks


def _plus(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
