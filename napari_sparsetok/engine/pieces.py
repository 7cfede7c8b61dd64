"""Of a structure that is one piece in a body, the pieces that were found far from it.

A network that sees a window at a time finds now and then a piece of something where it cannot be. A card names the
labels that are one connected structure (`Card.one_piece`); of each the largest piece stays. Pieces are told apart on
the token grid: what lies within a token of each other hangs together. That leaves rough edges alone, and costs next to
nothing, since no mask is searched: its voxels are counted token by token while it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_sparsetok.scan import Region
from napari_sparsetok.tokens import Lattice

_AROUND = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece that is left out.

    label, voxels : what it was taken for, and how large it is.
    box : of the scan, that it lies in.
    tokens : the box of tokens, and which of these hold it.
    """

    label: int
    voxels: int
    box: Region
    tokens: tuple[tuple[slice, ...], NDArray[np.bool_]]

    @property
    def key(self) -> tuple[int, int, Region]:
        """Tells pieces apart."""
        return self.label, self.voxels, self.box


class Pieces:
    """Counts the voxels of some labels in each token of a mask, as it is written.

    Parameters
    ----------
    labels : those that are one piece.
    lattice : which token each voxel of the scan lies in.
    counts : (labels, d, h, w) of the mask as it is to begin with; None if it is empty.
    """

    def __init__(self, labels: Sequence[int], lattice: Lattice, counts: NDArray[np.int32] | None = None) -> None:
        self._labels, self._lattice = tuple(labels), lattice
        shape = (len(self._labels), *lattice.grid)
        self._counts = np.zeros(shape, dtype=np.int32) if counts is None else counts.copy()
        self._row = np.full(256, -1, dtype=np.intp)
        self._row[list(self._labels)] = np.arange(len(self._labels))

    def rewrite(self, box: Region, old: NDArray[np.uint8], new: NDArray[np.uint8]) -> None:
        """A box of the mask is written anew: what was there, and what comes."""
        self._add(box, old, -1)
        self._add(box, new, 1)

    def _add(self, box: Region, labels: NDArray[np.uint8], sign: int) -> None:
        flat = labels.ravel()
        places = np.flatnonzero(flat)
        rows = self._row[flat[places]]
        known = rows >= 0
        if not known.any():
            return
        voxels = np.unravel_index(places[known], labels.shape)
        at = [axis[v + a] for axis, v, a in zip(self._lattice.axes, voxels, box.start, strict=True)]
        cells = np.ravel_multi_index((rows[known], *at), self._counts.shape)
        self._counts += sign * np.bincount(cells, minlength=self._counts.size).astype(np.int32).reshape(
            self._counts.shape
        )

    def left_out(self) -> list[Piece]:
        """All pieces but the largest of each label, the first of equals."""
        return [
            piece for label, counts in zip(self._labels, self._counts, strict=True) for piece in self._of(label, counts)
        ]

    def _of(self, label: int, counts: NDArray[np.int32]) -> Iterator[Piece]:
        parts, many = ndimage.label(counts, _AROUND)
        if many < 2:
            return
        sizes = np.bincount(parts.ravel(), counts.ravel(), minlength=many + 1)[1:].astype(int)
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            if number != 1 + int(sizes.argmax()):
                yield Piece(label, int(sizes[number - 1]), self._voxels(box), (box, parts[box] == number))

    def _voxels(self, tokens: tuple[slice, ...]) -> Region:
        """The voxels that lie in a box of tokens."""
        found = [
            np.flatnonzero((axis >= side.start) & (axis < side.stop))
            for axis, side in zip(self._lattice.axes, tokens, strict=True)
        ]
        return Region(*(tuple(int(n) for n in ends) for ends in zip(*((f[0], f[-1] + 1) for f in found), strict=True)))  # type: ignore[arg-type]

    def remove(self, mask: NDArray[np.uint8], pieces: Sequence[Piece]) -> None:
        """Make background of pieces in a mask (z, y, x)."""
        for piece in pieces:
            (tokens, there), part = piece.tokens, mask[piece.box.slices]
            index = [
                axis[s] - side.start for axis, s, side in zip(self._lattice.axes, piece.box.slices, tokens, strict=True)
            ]
            part[(part == piece.label) & there[np.ix_(*index)]] = 0

    def counts_without(self, pieces: Sequence[Piece]) -> NDArray[np.int32]:
        """(labels, d, h, w) of the mask that pieces were removed from."""
        counts = self._counts.copy()
        for piece in pieces:
            tokens, there = piece.tokens
            counts[self._labels.index(piece.label)][tokens][there] = 0
        return counts
