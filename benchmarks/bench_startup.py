"""What the panel adds to the opening of the viewer.

    scripts/with-display python benchmarks/bench_startup.py [RESULT.json]

Opens the bare viewer and the viewer with the panel in processes of their own, in turns, until the window is drawn.
Counted is the processor time of the process, so that other programs disturb less. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROUNDS = 5

OPEN = """
import os, sys, time
import napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
if sys.argv[1] == "panel":
    from napari_sparsetok.ui.dock import Dock
    dock = Dock(viewer)
    viewer.window.add_dock_widget(dock, name="SCD segmentation")
for _ in range(20):
    QApplication.processEvents()
spent = os.times()
print("torch" in sys.modules, spent.user + spent.system)
viewer.close()
"""


def opened(what: str, compiled: str) -> float:
    """Seconds of processor time. `compiled` is where Python keeps its bytecode, as an installed package has it."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": compiled}
    run = subprocess.run([sys.executable, "-c", OPEN, what], capture_output=True, text=True, check=True, env=env)
    torch, seconds = run.stdout.splitlines()[-1].split()
    if torch == "True":
        raise RuntimeError("opening the panel loaded torch")
    return float(seconds)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as compiled:
        opened("panel", compiled)  # files come from the disk only once
        rounds = [(opened("bare", compiled), opened("panel", compiled)) for _ in range(ROUNDS)]
    bare, panel = zip(*rounds, strict=True)
    ratios = np.asarray(panel) / np.asarray(bare)
    document = {
        "benchmark": "startup",
        "date": datetime.now(UTC).date().isoformat(),
        "load": round(os.getloadavg()[0], 1),
        "rounds": ROUNDS,
        "bare_s": [round(s, 2) for s in bare],
        "panel_s": [round(s, 2) for s in panel],
        "ratio": {
            "median": round(float(np.median(ratios)), 3),
            "least": round(float(ratios.min()), 3),
            "greatest": round(float(ratios.max()), 3),
        },
        "torch_loaded": False,
        "must_reach": "≤ 1.2",
    }
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, ensure_ascii=False))
