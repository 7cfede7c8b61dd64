"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import PALETTE
from napari_sparsetok.model import SCD
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.case import Case
from napari_sparsetok.training.validation import predict

KINDS = (".png", ".svg", ".pdf")
_PICTURED = 2  # cases in a picture


def check_kind(path: Path) -> None:
    """Refuse a plot that could not be written, before there is anything to draw.

    Raises
    ------
    ScanError : the file's ending is no kind of picture.
    """
    if path.suffix not in KINDS:
        raise ScanError(f"a plot is written as {', '.join(KINDS)}, not as “{path.name}”")


def plot_dice(document: Mapping[str, Any], path: Path) -> None:
    """Draw an evaluation: Dice against keep ratio, one line for each label, with its 95 % interval.

    Raises
    ------
    ScanError : the file's ending is no kind of picture, or the disk refuses.
    """
    check_kind(path)
    first = document["keep_ratios"][0]["selection"]
    by_ratio = [r for r in document["keep_ratios"] if r["selection"] == first and r["keep_ratio"] is not None]
    rows = sorted(by_ratio, key=lambda row: row["keep_ratio"])
    ratios = [row["keep_ratio"] for row in rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for number, label in enumerate(rows[0]["labels"]):
        found = [row["labels"][number]["dice"] for row in rows]
        colour = PALETTE[number % len(PALETTE)]
        axis.plot(ratios, [d["mean"] for d in found], "o-", color=colour, label=label["name"])
        axis.fill_between(ratios, [d["low"] for d in found], [d["high"] for d in found], color=colour, alpha=0.15, lw=0)
    axis.set_xscale("log")
    axis.set_xticks(ratios)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.set_xlabel("keep ratio (share of the tokens left that each stage keeps)")
    axis.set_ylabel("Dice")
    axis.set_title(
        f"{document['model']['id']}, {first}, {document['cases']} scans, mean and 95 % interval", fontsize=10
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="best")
    with written_whole(path, suffix=path.suffix) as temporary:
        figure.savefig(temporary, dpi=150)


def picture(model: SCD, cases: Sequence[Case], keep_ratio: float) -> Figure | None:
    """What a network makes of some cases: the scan, what was drawn, what is seen, which tokens were kept."""
    cases = cases[:_PICTURED]
    if not cases:
        return None
    figure = Figure(figsize=(9, 3 * len(cases)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(cases), 3, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        seen = predict(model, case, keep_ratio)
        z = int((case.labels > 0).sum(axis=(1, 2)).argmax())
        shown = (case.labels[z], seen.labels[z], None)
        for axis, title, labels in zip(row, ("drawn", f"seen at {keep_ratio:g}", "tokens kept"), shown, strict=True):
            axis.imshow(case.image[0, z], cmap="gray")
            axis.set_title(f"{case.name}: {title}", fontsize=7)
            axis.set_axis_off()
            if labels is not None:
                axis.imshow(_coloured(labels), interpolation="nearest")
        kept = seen.stage[z] == model.config.stages + 1
        row[2].imshow(np.where(kept, 1.0, np.nan), alpha=0.5, cmap="autumn", interpolation="nearest")
    return figure


def _coloured(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    table = np.zeros((256, 4))
    for label in range(1, 256):
        colour = PALETTE[(label - 1) % len(PALETTE)]
        table[label] = [*(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)), 0.6]
    coloured: NDArray[np.float64] = table[labels]
    return coloured
