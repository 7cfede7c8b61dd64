"""How the slider answers, in a real window: from its move to the first visible change, and how smooth a drag is.

    scripts/with-display python benchmarks/bench_slider.py [RESULT.json] [--quick]

First it moves the slider over the left hippocampus of MNI152 and takes, for each move, the time to the new kept-token
map and to the first new mask: once with nothing computed ahead, and once after the window was left alone until all keep
ratios were. Then it holds the slider and drags it over a scan of 256³ voxels for ten seconds, and
takes how long single turns of the GUI's event loop are, and how much of them the GUI's thread was computing. The window
has a size of its own, not the one that napari was left with: with software OpenGL each pixel counts. The last line is
one JSON document.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_sparsetok.sample import open_sample
from napari_sparsetok.scan import Geometry, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.app import open_viewer
from napari_sparsetok.ui.gui_thread import on_gui_thread

WINDOW = (1280, 800)
MOVES = 60
PAUSE = 0.02
DRAG_SIDE = 256
DRAG_SECONDS = 10.0
DRAG_STEP = 1 / 60  # seconds between two events of a mouse


def pump_until(ready: Callable[[], bool], seconds: float, gaps: list[float]) -> bool:
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


def opened(scan: Scan, until_complete: bool, look_ahead: bool) -> tuple[Any, Any]:
    """A viewer and a dock with a segmented scan."""
    viewer, dock = open_viewer(scan, Session(deliver=on_gui_thread, look_ahead=look_ahead))
    viewer.window.resize(*WINDOW)
    state = dock.session.state
    pump_until(lambda: state.scan is not None, 60, [])
    dock.panel.where_chosen.emit("whole")
    dock.panel.run_requested.emit()
    pump_until(lambda: state.prediction is not None and not (until_complete and state.busy), 120, [])
    pump_until(lambda: False, 2, [])
    return viewer, dock


def rested(session: Session, since: list[float] = []) -> bool:  # noqa: B006 - from one call to the next
    """Whether nothing was computed for a second."""
    if not session.is_at_rest or not since:
        since[:] = [time.perf_counter()]
    return time.perf_counter() - since[0] > 1


def measure_moves(moves: int, look_ahead: bool) -> dict[str, Any]:
    """Single moves, each waited for."""
    viewer, dock = opened(open_sample("hippocampus_left"), until_complete=True, look_ahead=look_ahead)
    started = time.perf_counter()
    if look_ahead:
        pump_until(lambda: rested(dock.session), 300, [])
    alone = time.perf_counter() - started
    state, slider = dock.session.state, dock.panel.ratio.slider
    tokens_seconds, mask_seconds, gaps, unanswered = [], [], [], 0
    for ratio in np.random.default_rng(0).uniform(0.05, 0.9, moves).round(2):
        if ratio == round(slider.value(), 2):  # no move
            continue
        before, map_before = state.prediction, state.tokens

        def is_new(before: object = before) -> bool:
            return state.prediction is not before

        started = time.perf_counter()
        slider.setValue(float(ratio))
        tokens_seconds.append(time.perf_counter() - started if state.tokens is not map_before else float("nan"))
        if pump_until(is_new, 10, gaps):
            mask_seconds.append(time.perf_counter() - started)
        else:
            unanswered += 1
        pump_until(lambda: state.busy is None, 10, gaps)
        pump_until(lambda: False, PAUSE, gaps)
    dock.shut_down()
    viewer.close()
    return {
        "moves": len(tokens_seconds),
        "without_a_mask_within_10_s": unanswered,
        "left_alone_s": round(alone, 1),
        "kept_map_ms": spread(tokens_seconds),
        "first_mask_ms": spread(mask_seconds),
        "event_loop_turn_ms": spread(gaps),
    }


def measure_drag(seconds: float) -> dict[str, Any]:
    """The slider held and drawn to and fro, as fast as a mouse says."""
    voxels = np.random.default_rng(0).normal(100, 20, (DRAG_SIDE,) * 3).astype(np.int16)
    viewer, dock = opened(Scan(voxels, Geometry.shown(voxels.shape), name="noise"), False, look_ahead=True)
    state, slider = dock.session.state, dock.panel.ratio.slider
    masks: list[int] = []
    state.events.prediction.connect(lambda prediction: masks.append(prediction.serial))
    gaps, handled, spent = [], [], []
    slider._slider.setSliderDown(True)
    start = time.perf_counter()
    while (now := time.perf_counter() - start) < seconds:
        ratio = 0.475 + 0.425 * np.sin(2 * np.pi * now / 4)
        began, used = time.perf_counter(), time.thread_time()
        slider.setValue(round(float(ratio), 2))
        QApplication.processEvents()
        turn = time.perf_counter() - began
        spent.append(time.thread_time() - used)
        gaps.append(turn)
        handled.append(turn)
        pump_until(lambda: False, max(0.001, DRAG_STEP - turn), gaps)
    slider._slider.setSliderDown(False)
    shown = len(masks)
    asked = round(float(slider.value()), 2)
    pump_until(lambda: state.prediction.settings.keep_ratio == asked, 30, [])
    settled = time.perf_counter() - start - seconds
    dock.shut_down()
    viewer.close()
    return {
        "voxels": DRAG_SIDE**3,
        "seconds": seconds,
        "events": len(handled),
        "masks_shown": shown,
        "last_value_shown_after_s": round(settled, 2),
        "event_loop_turn_ms": spread(gaps),
        "turn_with_an_event_ms": spread(handled),
        "of_which_the_gui_thread_computed_ms": spread(spent),
        "turns_over_50_ms": int(np.sum(np.asarray(gaps) > 0.05)),
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and the longest, in milliseconds."""
    values = 1000 * np.asarray([s for s in seconds if not np.isnan(s)])
    names = ("median", "p95", "p99", "longest")
    return {name: round(float(v), 1) for name, v in zip(names, np.percentile(values, [50, 95, 99, 100]), strict=True)}


def measure(quick: bool = False) -> dict[str, Any]:
    """Both, and where."""
    before = os.getloadavg()[0]
    return {
        "benchmark": "slider",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU, software OpenGL",
        "window_pixels": WINDOW,
        "load_before": round(before, 1),
        **measure_moves(10 if quick else MOVES, look_ahead=False),
        "computed_ahead": measure_moves(10 if quick else MOVES, look_ahead=True),
        "drag": measure_drag(3.0 if quick else DRAG_SECONDS),
        "load_after": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--quick"]
    document = measure(quick="--quick" in sys.argv)
    for name in ("kept_map_ms", "first_mask_ms", "event_loop_turn_ms", "computed_ahead", "drag"):
        print(f"{name:20}", document[name])
    if arguments:
        Path(arguments[0]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))
