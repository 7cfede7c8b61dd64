"""Draw how time and memory grow with the scan and with the keep ratio, from the last line of `sparsetok bench`.

python benchmarks/plot_growth.py benchmarks/results/bench.json docs/images/growth.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

UNITS = {"s": "seconds of processor time", "MiB": "MiB beyond the loaded model"}
BLUE, GREY = "#0072B2", "#999999"


def with_the_scan(axes: Axes, row: dict[str, Any]) -> None:
    values = {int(key.rstrip("³")): v for key, v in row["details"].items() if key != "unit"}
    voxels = np.array([float(side) ** 3 for side in values]) / 1e6
    axes.loglog(voxels, list(values.values()), "o-", color=BLUE, label="measured")
    axes.loglog(voxels[1:], voxels[1:] * list(values.values())[-1] / voxels[-1], "--", color=GREY, label="linear")
    axes.set_xlabel("million voxels")
    axes.set_title(f"exponent {row['value']:g}", fontsize=10)
    axes.legend(frameon=False)


def with_the_ratio(axes: Axes, row: dict[str, Any]) -> None:
    values = {float(key): v for key, v in row["details"].items() if key != "unit"}
    axes.plot(list(values), list(values.values()), "o-", color=BLUE)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("keep ratio")
    axes.set_title("one window of 96³, BTCV preset", fontsize=10)


if __name__ == "__main__":
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    grid = figure.subplots(2, 2)
    for line, draw, name in ((grid[0], with_the_scan, "growth"), (grid[1], with_the_ratio, "one window")):
        for axes, row in zip(line, [r for r in rows if name in r["name"]], strict=True):
            draw(axes, row)
            axes.set_ylabel(UNITS[row["details"]["unit"]])
    figure.savefig(sys.argv[2], dpi=110)
