"""Tables as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.state import Prediction, TokenMap
from napari_sparsetok.tokens import Lattice, Unseen


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a head, as text. Nothing known is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(["" if isinstance(x, float) and np.isnan(x) else x for x in row])
    return out.getvalue()


def sweep_table(sweep: Sweep) -> tuple[list[str], list[list[Any]]]:
    """A row for each keep ratio."""
    labels, stages = sweep.dense.labels, len(sweep.rungs[0].left) - 1
    referenced = bool(sweep.rungs[0].reference)
    head = ["keep_ratio", "tokens", *(f"left_after_stage_{k}" for k in range(1, stages + 1))]
    head += ["gmac", "seconds", "peak_memory_mib", "lowest_agreement"]
    for label in labels:
        head += [f"{label.name}: {what}" for what in ("Dice with dense", "HD95 with dense, mm", "mL")]
        if referenced:
            words = ("Dice with reference", "HD95 with reference, mm", "mL in reference")
            head += [f"{label.name}: {what}" for what in words]
    rows = []
    for rung in sweep.rungs:
        row: list[Any] = [rung.keep_ratio, *rung.left, round(rung.gmac, 4), round(rung.seconds, 4)]
        row += [round(rung.memory / 2**20, 1), round(rung.worst, 6)]
        for k, one in enumerate(rung.agreement):
            row += [round(one.dice, 6), round(one.hd95, 4), round(one.ml, 4)]
            if referenced:
                other = rung.reference[k]
                row += [round(other.dice, 6), round(other.hd95, 4), round(other.other_ml, 4)]
        rows.append(row)
    return head, rows


def token_table(prediction: Prediction, kept_from: NDArray[np.float32]) -> tuple[list[str], list[list[Any]]]:
    """A row for each token that was looked at; millimetres along the viewer's axes (z up, y back, x left).

    `kept_from` is that of the sweep.
    """
    tokens = prediction.tokens
    lattice = Lattice.of(tokens, prediction.scan.geometry, prediction.scan.shape)
    shares = [lattice.share(prediction.mask == label.id) for label in prediction.labels]
    head = ["z", "y", "x", "z_mm", "y_mm", "x_mm", "stage", "rank_in_window", "kept_from"]
    head += ["windows", *(f"share_of_windows_past_stage_{k}" for k in range(1, tokens.stages + 1))]
    head += [f"score_{k}" for k in range(1, tokens.stages + 1)]
    head += [f"share of {label.name}" for label in prediction.labels]
    rows = []
    for place in map(tuple, np.argwhere(tokens.stage > 0)):
        at = np.asarray(tokens.origin) + np.asarray(place) * tokens.spacing
        scores = [float(f"{v:.6g}") for v in tokens.importance[(slice(None), *place)]]
        row = [*map(int, place), *(round(float(v), 3) for v in at), int(tokens.stage[place]), int(tokens.rank[place])]
        row += [float(f"{kept_from[place]:.6g}"), *_by_window(tokens, place)]
        rows.append([*row, *scores, *(round(float(s[place]), 4) for s in shares)])
    return head, rows


def _by_window(tokens: TokenMap, place: Sequence[int]) -> list[Any]:
    if tokens.windows is None or tokens.passed is None:
        return [""] * (tokens.stages + 1)
    return [int(tokens.windows[tuple(place)]), *(round(float(s[tuple(place)]), 4) for s in tokens.passed)]


def unseen_table(pieces: Sequence[Unseen], prediction: Prediction) -> tuple[list[str], list[list[Any]]]:
    """A row for each piece of the mask that rests only on completed tokens."""
    names = {label.id: label.name for label in prediction.labels}
    ml = float(np.prod(prediction.scan.geometry.spacing)) / 1000
    head = ["label", "voxels", "ml", "z", "y", "x", "last_stage", "whole_structure"]
    rows = [
        [names.get(p.label, str(p.label)), p.voxels, round(p.voxels * ml, 4), *p.at, p.stage, p.whole] for p in pieces
    ]
    return head, rows


def finite(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
