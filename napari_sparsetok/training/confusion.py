"""Which structure was taken for which other: a left one for the right one, above all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.labels import LabelTable


def confusion(
    mask: NDArray[np.uint8], drawn: NDArray[np.uint8], known: Iterable[int], millilitres: float, largest: int
) -> NDArray[np.float64]:
    """What each drawn label was taken for: (1 + largest, 1 + largest) mL, rows as drawn and columns as predicted.

    Parameters
    ----------
    mask, drawn : (z, y, x), the prediction and the truth, in the same numbers.
    known : the labels that were drawn in this case. All others, and the background, have a row of zeros: under a label
        that nobody drew there is background.
    millilitres : of one voxel.
    largest : the largest label.
    """
    side = 1 + largest
    rows = drawn[drawn > 0].astype(np.intp)
    counts = np.bincount(rows * side + mask[drawn > 0], minlength=side * side).reshape(side, side)
    table: NDArray[np.float64] = np.zeros((side, side))
    at = sorted(known)
    table[at] = counts[at] * millilitres
    return table


def confusion_to_json(table: NDArray[np.float64], labels: LabelTable) -> list[dict[str, Any]]:
    """For each label its drawn volume, and how much of it was taken for what, the largest first; 0 is background."""
    names = {0: "background", **{label.id: label.name for label in labels}}
    rows = []
    for label in labels:
        row = table[label.id]
        others = [n for n in np.argsort(-row, kind="stable").tolist() if row[n] > 0 and n != label.id]
        rows.append(
            {
                "id": label.id,
                "name": label.name,
                "drawn_ml": float(row.sum()),
                "taken_for": [{"id": n, "name": names.get(n, f"label {n}"), "ml": float(row[n])} for n in others],
            }
        )
    return rows


def worst_confusion(rows: Sequence[dict[str, Any]]) -> tuple[str, str, float] | None:
    """The label of which the largest share was taken for another, that other, and the share; None if none was."""
    shares = [
        (row["name"], other["name"], other["ml"] / row["drawn_ml"])
        for row in rows
        for other in row["taken_for"]
        if other["id"]
    ]
    return max(shares, key=lambda one: one[2], default=None)
