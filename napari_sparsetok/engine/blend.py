"""Sums of overlapping windows, the same in any order, held only where windows are still to come.

A sum of floating-point numbers depends on their order in its last digits, and so would the mask on where the person
looked first. Here every window counts in each voxel with its share of the weight that all windows have there, and what
it adds is a whole number; whole numbers add up alike in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_sparsetok.engine.resampling import ModelGrid, to_scan
from napari_sparsetok.engine.window import WindowPlan
from napari_sparsetok.scan import Region

_ONE = 2**20
_LARGEST = 1000.0  # logits beyond it are far past deciding anything; the sum stays within 31 bits
_AT_ONCE = 2**18  # voxels of the scan that are brought to its grid at a time, in whole slices


@dataclass(frozen=True, eq=False)
class _Slab:
    """Slices between which no window begins or ends, over the whole width of the volume.

    total : (h, H, W) float32, weight of all windows of the plan.
    sums : (classes, h, H, W) int32, logits times shares, in units of 1 / _ONE.
    cover : (h, H, W) int32, shares of the windows that were added.
    """

    total: Tensor
    sums: Tensor
    cover: Tensor


class Blend:
    """Collects the logits of a plan's windows and says the labels on the scan's grid.

    Parameters
    ----------
    classes : labels and background.
    grid, plan : of the volume.
    """

    def __init__(self, classes: int, grid: ModelGrid, plan: WindowPlan) -> None:
        self._classes, self._grid, self._plan = classes, grid, plan
        self._weight = torch.from_numpy(plan.weight)
        self._slabs: dict[int, _Slab] = {}
        ends = {z for region in plan.regions for z in (region.start[0], region.stop[0])}
        self._edges = np.array(sorted({0, grid.padded[0], *ends}))  # slab k lies between edges k and k + 1
        self._due = np.zeros(len(self._edges) - 1, dtype=int)
        for region in plan.regions:
            self._due[self._within(region)] += 1
        self._low, self._high = grid.slices_for()
        self._first, self._last = (
            self._slab_of(self._low),
            self._slab_of(self._high),
        )  # that each slice of the box needs
        self._open = (self._due[self._first] > 0) | (self._due[self._last] > 0)

    @property
    def nbytes(self) -> int:
        """Bytes that are held just now."""
        return sum(s.total.nbytes + s.sums.nbytes + s.cover.nbytes for s in self._slabs.values())

    def add(self, index: int, logits: Tensor) -> None:
        """Add one window's logits (classes, D, H, W)."""
        region = self._plan.regions[index]
        _, rows, columns = region.slices
        logits = logits.contiguous()  # with the classes last everything below would be slow
        for k in range(self._due.size)[self._within(region)]:
            slab = self._slabs.get(k) or self._new(k)
            part = slice(self._edges[k] - region.start[0], self._edges[k + 1] - region.start[0])
            share = (self._weight[part] / slab.total[:, rows, columns]).mul_(_ONE)
            for sums, values in zip(slab.sums[:, :, rows, columns], logits[:, part], strict=True):
                # Class by class, as the memory of one is used again for the next; of all at once it takes four times.
                sums += values.clamp(-_LARGEST, _LARGEST).mul_(share).round_().to(torch.int32)
            slab.cover[:, rows, columns] += share.round_().to(torch.int32)
            self._due[k] -= 1

    def settled(self) -> Iterator[tuple[Region, NDArray[np.uint8], NDArray[np.bool_]]]:
        """What is final since the last call: boxes of the scan's box, their labels, and where there are any.

        What no slice needs any more is forgotten.
        """
        final = self._open & (self._due[self._first] == 0) & (self._due[self._last] == 0)
        _, height, width = self._grid.box
        for start, stop in _runs(final):
            box = Region((start, 0, 0), (stop, height, width))
            yield from self._labels(box)
        self._open &= ~final
        needed = set(self._first[self._open]) | set(self._last[self._open])
        for k in [k for k in self._slabs if k not in needed and self._due[k] == 0]:
            del self._slabs[k]

    def unsettled(self, box: Region) -> Iterator[tuple[Region, NDArray[np.uint8], NDArray[np.bool_]]]:
        """The same for the rest of a box, as far as it is known by now."""
        rest = np.zeros_like(self._open)
        rest[box.slices[0]] = self._open[box.slices[0]]
        for start, stop in _runs(rest):
            yield from self._labels(Region((start, *box.start[1:]), (stop, *box.stop[1:])))

    # Details

    def _slab_of(self, slices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._edges, slices, side="right") - 1

    def _within(self, region: Region) -> slice:
        """The slabs that a window consists of."""
        first, stop = np.searchsorted(self._edges, [region.start[0], region.stop[0]])
        return slice(int(first), int(stop))

    def _new(self, k: int) -> _Slab:
        (top, bottom), (_, height, width) = self._edges[k : k + 2], self._grid.padded
        total = torch.zeros(bottom - top, height, width)
        for region in self._plan.regions:  # always in this order
            if region.start[0] <= top < region.stop[0]:
                part = slice(top - region.start[0], bottom - region.start[0])
                total[(slice(None), *region.slices[1:])] += self._weight[part]
        sums = torch.zeros(self._classes, *total.shape, dtype=torch.int32)
        slab = self._slabs[k] = _Slab(total, sums, torch.zeros(total.shape, dtype=torch.int32))
        return slab

    def _labels(self, box: Region) -> Iterator[tuple[Region, NDArray[np.uint8], NDArray[np.bool_]]]:
        _, height, width = box.shape
        step = max(1, _AT_ONCE // (height * width))
        for z in range(box.start[0], box.stop[0], step):
            part = Region((z, *box.start[1:]), (min(z + step, box.stop[0]), *box.stop[1:]))
            ids = range(int(self._first[part.start[0]]), int(self._last[part.stop[0] - 1]) + 1)
            if any(k in self._slabs for k in ids):
                yield part, *self._labels_of(part, ids)

    def _labels_of(self, box: Region, ids: range) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        above, stop = int(self._low[box.start[0]]), int(self._high[box.stop[0] - 1]) + 1
        parts = [self._part(k, above, stop) for k in ids]
        sums, cover = parts[0] if len(parts) == 1 else (torch.cat(x, dim=-3) for x in zip(*parts, strict=True))
        if self._grid.resampled:  # between voxels their logits count alike, however much of their weight is there
            sums = sums / cover.clamp_min(1)
        labels = _highest(to_scan(sums, box, self._grid, above))
        covered = to_scan((cover > 0).float()[None], box, self._grid, above)[0] >= 0.5
        return labels.numpy(), covered.numpy()

    def _part(self, k: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """What of a slab lies between two slices of the volume: sums (classes, h, H, W) and cover (h, H, W)."""
        top, bottom = int(self._edges[k]), int(self._edges[k + 1])
        part = slice(max(start, top) - top, min(stop, bottom) - top)
        if k in self._slabs:
            return self._slabs[k].sums[:, part], self._slabs[k].cover[part]
        empty = torch.zeros(part.stop - part.start, *self._grid.padded[1:], dtype=torch.int32)
        return empty.expand(self._classes, *empty.shape), empty


def _highest(values: Tensor) -> Tensor:
    """The class (…) uint8 of the highest of (classes, …), the first of equals.

    `argmax` takes three times as long, and so does writing classes through a mask.
    """
    best, labels = values[0].clone(), torch.zeros(values.shape[1:], dtype=torch.uint8)
    for k in range(1, len(values)):
        higher = (values[k] > best).view(torch.uint8).mul_(k)
        torch.maximum(labels, higher, out=labels)  # classes rise, so the last that was higher stays
        torch.maximum(best, values[k], out=best)
    return labels


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where flags are set without a gap: first, and one past the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
