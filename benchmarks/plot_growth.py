"""Draw how time and memory grow with the scan, from the last line of `sparsetok bench`.

    python benchmarks/plot_growth.py benchmarks/results/bench.json docs/images/growth.png

Needs matplotlib, which comes with the extra `training`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

if __name__ == "__main__":
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    for axes, row in zip(figure.subplots(1, 2), [r for r in rows if r["name"].startswith("growth")], strict=True):
        values = {int(key.rstrip("³")): v for key, v in row["details"].items() if key != "unit"}
        voxels = np.array([float(side) ** 3 for side in values]) / 1e6
        axes.loglog(voxels, list(values.values()), "o-", color="#0072B2", label="measured")
        axes.loglog(
            voxels[1:], voxels[1:] * list(values.values())[-1] / voxels[-1], "--", color="#999999", label="linear"
        )
        axes.set_xlabel("million voxels")
        axes.set_ylabel(
            {"s": "seconds of processor time", "MiB": "MiB beyond the loaded model"}[row["details"]["unit"]]
        )
        axes.set_title(f"exponent {row['value']:g}", fontsize=10)
        axes.legend(frameon=False)
    figure.savefig(sys.argv[2], dpi=110)
