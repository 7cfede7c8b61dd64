"""How the slider answers, in a real window: from its move to the first visible change.

    scripts/with-display python benchmarks/bench_slider.py [RESULT.json]

Moves the slider over the left hippocampus of MNI152 and takes, for each move, the time to the new kept-token map and
to the first new mask; and how long single turns of the GUI's event loop took meanwhile. The last line is one JSON
document.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_sparsetok.sample import open_sample
from napari_sparsetok.ui.app import open_viewer

MOVES = 60
PAUSE = 0.02


def pump_until(ready, seconds: float, gaps: list[float]) -> bool:
    """Run the event loop until something is so, noting how long each turn took."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        QApplication.processEvents()
        gaps.append(time.perf_counter() - started)
        if ready():
            return True
        time.sleep(0.001)
    return False


def measure() -> dict[str, object]:
    """Move the slider, wait for its effects, and sum up."""
    viewer, dock = open_viewer(open_sample("hippocampus_left"))
    state, slider = dock.session.state, dock.panel.ratio.slider
    pump_until(lambda: state.scan is not None, 30, [])
    dock.panel.run_requested.emit()
    pump_until(lambda: state.prediction is not None and state.busy is None, 60, [])
    pump_until(lambda: False, 2, [])
    tokens_seconds, mask_seconds, gaps = [], [], []
    for ratio in np.random.default_rng(0).uniform(0.05, 0.9, MOVES).round(2):
        before, map_before = state.prediction, state.tokens

        def is_new(before: object = before) -> bool:
            return state.prediction is not before

        started = time.perf_counter()
        slider.setValue(float(ratio))
        tokens_seconds.append(time.perf_counter() - started if state.tokens is not map_before else float("nan"))
        if pump_until(is_new, 10, gaps):
            mask_seconds.append(time.perf_counter() - started)
        pump_until(lambda: state.busy is None, 10, gaps)
        pump_until(lambda: False, PAUSE, gaps)
    dock.shut_down()
    viewer.close()
    return {
        "benchmark": "slider",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU, software OpenGL",
        "moves": MOVES,
        "kept_map_ms": spread(tokens_seconds),
        "first_mask_ms": spread(mask_seconds),
        "event_loop_turn_ms": spread(gaps),
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and the longest, in milliseconds."""
    values = 1000 * np.asarray([s for s in seconds if not np.isnan(s)])
    names = ("median", "p95", "p99", "longest")
    return {name: round(float(v), 1) for name, v in zip(names, np.percentile(values, [50, 95, 99, 100]), strict=True)}


if __name__ == "__main__":
    document = measure()
    for name in ("kept_map_ms", "first_mask_ms", "event_loop_turn_ms"):
        print(f"{name:20}", document[name])
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))
