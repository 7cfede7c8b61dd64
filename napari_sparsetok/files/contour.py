"""The outline of a mask in one slice, as closed polygons along the edges of its pixels. Pure numpy and scipy.

Pixels that touch at a corner only are apart. A hole is joined to the outline around it by a channel without width,
since a polygon of DICOM has no holes: filled by either rule, even-odd or winding, the polygons give back the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_RIGHT, _DOWN, _LEFT, _UP = range(4)


def outlines(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Trace a mask (rows, columns).

    Yields
    ------
    (n, 2) corners as (column, row), a polygon for each piece of the mask. Pixel centres are whole numbers, so corners
    lie at halves. Filled pixels are on the right of the way, on a screen with rows going down.
    """
    pieces, _ = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        corners = _outline(pieces[box] == number)
        rows, columns = box
        yield corners + np.array([columns.start - 0.5, rows.start - 0.5])


def _outline(piece: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One polygon around a piece whose pixels hang together by their sides."""
    width = piece.shape[1] + 1
    exits = _exits(piece)
    boundary = exits > 0
    loops = list(_loops(exits, width))
    path = _joined(loops, _channels(loops[1:], boundary, width))
    corners = np.array([(vertex % width, vertex // width) for vertex in path], dtype=np.float64)
    return _corners_only(corners)


def _exits(piece: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """For each lattice point, flat, the directions in which the boundary leaves it, as bits."""
    rows, columns = piece.shape
    padded = np.pad(piece, 1)
    inside, above, left = padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[1:-1, :-2]
    below, right = padded[2:, 1:-1], padded[1:-1, 2:]
    exits = np.zeros((rows + 1, columns + 1), dtype=np.uint8)
    exits[:-1, :-1] |= (inside & ~above).astype(np.uint8) << _RIGHT
    exits[:-1, 1:] |= (inside & ~right).astype(np.uint8) << _DOWN
    exits[1:, 1:] |= (inside & ~below).astype(np.uint8) << _LEFT
    exits[1:, :-1] |= (inside & ~left).astype(np.uint8) << _UP
    return exits.ravel()


def _loops(exits: NDArray[np.uint8], width: int) -> Iterator[list[int]]:
    """The closed ways along the boundary, as lattice points; the outer one first."""
    steps = (1, width, -1, -width)
    left = bytearray(exits.tobytes())
    for start in np.flatnonzero(exits).tolist():
        while left[start]:
            yield _loop(left, start, steps)


def _loop(left: bytearray, start: int, steps: tuple[int, ...]) -> list[int]:
    """Walk until back at the first step, always turning right where there is a choice, and wipe out the way."""
    first = direction = (left[start] & -left[start]).bit_length() - 1
    vertex, path = start, []
    while True:
        left[vertex] &= ~(1 << direction)
        path.append(vertex)
        vertex += steps[direction]
        turns = ((direction + 1) % 4, direction, (direction + 3) % 4)
        if vertex == start and (not left[vertex] or turns[0] == first):
            return path
        direction = next(turn for turn in turns if left[vertex] >> turn & 1)


def _channels(holes: list[list[int]], boundary: NDArray[np.bool_], width: int) -> dict[int, list[list[int]]]:
    """Where each hole is joined: the first point of the boundary to the left of its leftmost point."""
    channels: dict[int, list[list[int]]] = {}
    for hole in holes:
        at = min(range(len(hole)), key=lambda k: (hole[k] % width, hole[k] // width))
        gate = hole[at] - 1
        while not boundary[gate]:
            gate -= 1
        channels.setdefault(gate, []).append([*hole[at:], *hole[: at + 1], gate])
    return channels


def _joined(loops: list[list[int]], channels: dict[int, list[list[int]]]) -> list[int]:
    """One way along all loops, through the channels and back."""
    path: list[int] = []
    stack = [iter(loops[0])]
    while stack:
        vertex = next(stack[-1], None)
        if vertex is None:
            stack.pop()
            continue
        path.append(vertex)
        stack += [iter(hole) for hole in channels.pop(vertex, [])]
    return path


def _corners_only(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out points that a straight way passes through."""
    arriving = np.sign(points - np.roll(points, 1, axis=0))
    leaving = np.sign(np.roll(points, -1, axis=0) - points)
    kept: NDArray[np.float64] = points[(arriving != leaving).any(axis=1)]
    return kept
