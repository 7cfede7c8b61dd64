"""A region of a scan on the model's grid, brought there brick by brick, when a window needs it.

No float copy of the scan is made: a window reads the voxels under its bricks, in boxes, and the bricks that were used
last are kept, since windows overlap. What a window gets does not depend on that: it is, to the last bit, its part of
the whole scan brought to the model's grid at once.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_sparsetok.engine.intensity import Mapped, fitted, is_fixed
from napari_sparsetok.engine.resampling import ModelGrid, part_to_model
from napari_sparsetok.scan import Region

KEPT = 64 * 2**20
"""Bytes of bricks that are kept: 16 million voxels, so most scans at most models' spacing as a whole."""

BRICK = 32
"""Voxels along the side of a brick: smaller ones read more of their neighbours, larger ones what no window needs."""

_AT_ONCE = 16  # slices of the scan that are looked at together
_TAME = 1e30  # between values up to it interpolation stays finite


class Volume:
    """What a network takes of a scan. All voxels that must be looked at before are looked at when it is made.

    Parameters
    ----------
    channels : (channels, z, y, x) of the scan, or anything that is indexed like it; it may lie on disk.
    region : the box of the scan.
    grid : the model's, over that box.
    rule : a card's intensity rule.
    replacement : for voxels that are NaN or infinite; None refuses them.

    Raises
    ------
    ScanError : the voxels of a channel are constant, or some are NaN or infinite.
    """

    def __init__(
        self,
        channels: NDArray[Any],
        region: Region,
        grid: ModelGrid,
        rule: Mapping[str, Any],
        replacement: float | None = None,
    ) -> None:
        self._channels = [channels[k] for k in range(len(channels))]
        self._region, self._grid, self._replacement = region, grid, replacement
        self._kept = _Kept()
        self._rules = [self._fitted(rule, k) for k in range(len(channels))]

    @property
    def channels(self) -> int:
        """How many."""
        return len(self._channels)

    @property
    def size(self) -> int:
        """Voxels of a channel, padding and all."""
        return int(np.prod(self._grid.padded))

    @property
    def nbytes(self) -> int:
        """Bytes of bricks that are held just now."""
        return self._kept.nbytes

    def read(self, box: Region) -> torch.Tensor:
        """The voxels (channels, d, h, w) in a box of the padded grid, as the network takes them."""
        image = torch.empty(self.channels, *box.shape)
        inner = self._grid.inner
        start = tuple(min(a, m - 1) for a, m in zip(box.start, inner, strict=True))
        filled = Region(start, tuple(min(b, m) for b, m in zip(box.stop, inner, strict=True)))  # type: ignore[arg-type]
        for channel, (rule, out) in enumerate(zip(self._rules, image, strict=True)):
            _lay(rule(self._resampled(channel, filled)), out.numpy())
        return image

    def layers(self, thickness: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All of it, a few slices at a time: the first one's number, and (channels, up to `thickness`, H, W)."""
        depth, height, width = self._grid.padded
        for z in range(0, depth, thickness):
            yield z, self.read(Region((z, 0, 0), (min(z + thickness, depth), height, width)))

    # Before the intensity rule, without padding

    def _fitted(self, rule: Mapping[str, Any], channel: int) -> Mapped:
        fixed = is_fixed(rule)
        finite = self._is_finite(channel, fixed)
        parts = self._parts(channel, any_order=fixed and finite)
        return fitted(rule, parts, int(np.prod(self._grid.inner)), finite)

    def _parts(self, channel: int, any_order: bool) -> Iterator[NDArray[Any]]:
        """All voxels of a channel: in layers, and so in their order, or brick by brick, if only some may be asked for.

        The bricks begin in the middle, where voxels differ soonest; around a body there may be much of one value.
        """
        whole = Region.whole(self._grid.inner)
        if any_order:
            parts = sorted(_tiles(whole, (BRICK,) * 3), key=self._off_middle)
        else:
            parts = list(_tiles(whole, (BRICK, *self._grid.inner[1:])))
        for part in parts:
            yield self._resampled(channel, part)

    def _off_middle(self, part: Region) -> float:
        return max(abs(a + b - n) for a, b, n in zip(part.start, part.stop, self._grid.inner, strict=True))

    def _resampled(self, channel: int, box: Region) -> NDArray[Any]:
        if not self._grid.resampled and isinstance(self._channels[channel], np.ndarray):
            return self._source(channel, box)  # nothing to save by keeping it
        values = np.empty(box.shape, np.float32 if self._grid.resampled else self._channels[channel].dtype)
        ranges = [range(a // BRICK, -(-b // BRICK)) for a, b in zip(box.start, box.stop, strict=True)]
        for place in itertools.product(*ranges):
            brick, corner = self._brick(channel, place), [BRICK * k for k in place]
            values[_shared(box, corner, brick.shape, box.start)] = brick[_shared(box, corner, brick.shape, corner)]
        return values

    def _brick(self, channel: int, place: tuple[int, ...]) -> NDArray[Any]:
        known = self._kept.get((channel, place))
        if known is None:
            start = tuple(BRICK * k for k in place)
            stop = tuple(min(a + BRICK, m) for a, m in zip(start, self._grid.inner, strict=True))
            box = Region(start, stop)  # type: ignore[arg-type]
            known = part_to_model(lambda needed: self._source(channel, needed), self._grid, box)
            self._kept.put((channel, place), known)
        return known

    def _source(self, channel: int, box: Region) -> NDArray[Any]:
        """The scan's voxels in a box of the region."""
        at = tuple(slice(a + o, b + o) for a, b, o in zip(box.start, box.stop, self._region.start, strict=True))
        voxels = np.asarray(self._channels[channel][at])
        if self._replacement is None or voxels.dtype.kind != "f":
            return voxels
        return np.where(np.isfinite(voxels), voxels, np.asarray(self._replacement, dtype=voxels.dtype))

    def _is_finite(self, channel: int, fixed: bool) -> bool:
        """Whether it is known of a channel on the model's grid that no voxel is NaN or infinite.

        Where all would be brought to that grid only to find this out, it is seen quicker from the scan itself.
        """
        if self._channels[channel].dtype.kind != "f":
            return True
        if not (fixed and self._grid.resampled):
            return False
        slabs = _tiles(Region.whole(self._grid.box), (_AT_ONCE, *self._grid.box[1:]))
        tame = min(_TAME, float(np.finfo(self._channels[channel].dtype).max))  # half precision ends far below it
        return all(bool((np.abs(self._source(channel, slab)) <= tame).all()) for slab in slabs)


class _Kept:
    """Bricks within `KEPT` bytes; what was used longest ago goes first."""

    def __init__(self) -> None:
        self._bricks: OrderedDict[object, NDArray[Any]] = OrderedDict()
        self.nbytes = 0

    def get(self, key: object) -> NDArray[Any] | None:
        if key in self._bricks:
            self._bricks.move_to_end(key)
        return self._bricks.get(key)

    def put(self, key: object, brick: NDArray[Any]) -> None:
        self._bricks[key] = brick
        self.nbytes += brick.nbytes
        while self.nbytes > KEPT:
            self.nbytes -= self._bricks.popitem(last=False)[1].nbytes


def _tiles(box: Region, sides: Sequence[int]) -> Iterator[Region]:
    """Boxes of these sides, smaller at the far ends, that make up a box; in the order of its voxels."""
    ranges = [range(a, b, side) for a, b, side in zip(box.start, box.stop, sides, strict=True)]
    for start in itertools.product(*ranges):
        stop = tuple(min(a + side, b) for a, side, b in zip(start, sides, box.stop, strict=True))
        yield Region(start, stop)  # type: ignore[arg-type]


def _shared(box: Region, corner: Sequence[int], shape: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    """What a box and a brick at a corner have in common, counted from an origin."""
    return tuple(
        slice(max(a, c) - o, min(b, c + n) - o)
        for a, b, c, n, o in zip(box.start, box.stop, corner, shape, origin, strict=True)
    )


def _lay(values: NDArray[np.float32], padded: NDArray[np.float32]) -> None:
    """Copy values (d, h, w) to the near corner of (D, H, W), and their far faces on from there to its end."""
    d, h, w = values.shape
    padded[:d, :h, :w] = values
    padded[:d, :h, w:] = padded[:d, :h, w - 1 : w]
    padded[:d, h:] = padded[:d, h - 1 : h]
    padded[d:] = padded[d - 1 : d]
