"""What correcting costs on a large scan, in a real window: strokes, composing, tools, autosave.

    scripts/with-display python benchmarks/bench_corrections.py [RESULT.json]

The scan is noise of 512 × 512 × 300 voxels with a mask of two large ellipsoids; nothing is inferred. Tools work on one
label in 256³ voxels. Times are of the wall clock, and, as `cpu`, of the thread that works: on a machine that does
other things besides, the second says what the first would be without them. The last line is one JSON document.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import napari
import numpy as np
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_sparsetok import correction, tool
from napari_sparsetok.engine.contract import Hints, Watch
from napari_sparsetok.files.autosave import CorrectionStore
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import DeviceReport, Prediction, Settings, Timing, TokenMap
from napari_sparsetok.ui.dock import Dock, on_gui_thread
from napari_sparsetok.ui.scan_layer import layer_data
from napari_sparsetok.weights import Registry

SHAPE = (300, 512, 512)
SPACING = (1.0, 0.7, 0.7)
STROKES = 40
REPEATS = 3
PAUSE = 0.001
TOOLS = (
    ("remove_islands", 20.0),
    ("keep_largest", 0.0),
    ("fill_holes", 0.0),
    ("smooth", 3.0),
    ("grow", 2.0),
    ("shrink", 2.0),
    ("fill_between", 0.0),
)


def ellipsoid(shape: tuple[int, int, int], middle: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """True inside; everything in shares of the shape."""
    axes = [((np.arange(n) / n - m) / r) ** 2 for n, m, r in zip(shape, middle, radii, strict=True)]
    return axes[0][:, None, None] + axes[1][:, None] + axes[2] <= 1


class GivenMask:
    """An engine that gives the same answer at once."""

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask

    def prepare(self, settings: Settings) -> DeviceReport:
        return DeviceReport("none")

    def segment(
        self,
        scan: Scan,
        settings: Settings,
        *,
        region: Region | None = None,
        hints: Hints = Hints(),  # noqa: B008 - frozen
        watch: Watch = Watch(),  # noqa: B008 - frozen
    ) -> Prediction:
        whole, grid = Region.whole(scan.shape), (4, 4, 4)
        tokens = TokenMap(
            importance=np.ones((1, *grid), np.float32),
            stage=np.full(grid, 2, np.uint8),
            rank=np.arange(64, dtype=np.int32).reshape(grid),
            window_tokens=64,
            left=(64, 64),
            spacing=tuple(n * s / 4 for n, s in zip(scan.shape, SPACING, strict=True)),
            origin=(0.0, 0.0, 0.0),
        )
        labels = Registry()[settings.model].labels
        timing = Timing(0, 0, 0, 1, "none")
        return Prediction(scan, settings, labels, whole, self.mask, tokens, whole, True, timing, serial=1)


def pump(ready: Callable[[], bool], gaps: list[float] | None = None, seconds: float = 300) -> None:
    """Run the event loop until something is so, noting how long each turn took; waits for the interpreter count."""
    end = time.perf_counter() + seconds
    while not ready():
        started = time.perf_counter()
        QApplication.processEvents()
        time.sleep(PAUSE)
        if gaps is not None:
            gaps.append(time.perf_counter() - started - PAUSE)
        if started > end:
            raise TimeoutError


def opened(folder: Path) -> tuple[napari.Viewer, Dock]:
    """A real window in which the large scan is being corrected."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[ellipsoid(SHAPE, (0.5, 0.4, 0.5), (0.3, 0.2, 0.25))] = 1
    mask[ellipsoid(SHAPE, (0.5, 0.75, 0.5), (0.3, 0.12, 0.2))] = 2
    voxels = np.random.default_rng(0).integers(0, 2000, SHAPE, dtype=np.int16)
    viewer = napari.Viewer()
    session = Session(make_segmenter=lambda: GivenMask(mask), deliver=on_gui_thread)
    os.environ["XDG_DATA_HOME"] = str(folder)
    dock = Dock(viewer, session)
    viewer.window.add_dock_widget(dock, name="SCD segmentation", area="right")
    viewer.window.resize(1400, 860)
    for data, arguments, _ in layer_data(Scan(voxels, Geometry.shown(SHAPE, SPACING), name="large")):
        viewer.add_image(data, **arguments)
    session.set_region(None)
    session.run()
    pump(lambda: session.state.prediction is not None and session.state.busy is None)
    dock.correct_panel.start_requested.emit()
    dock.correct_panel.paint.set_brush_mm(10)
    dock.correct.painting.set_mode("brush")
    QTest.qWait(1000)
    return viewer, dock


def strokes(viewer: napari.Viewer, dock: Dock) -> dict[str, object]:
    """One dab of a 10 mm brush: until it is in the composed mask, and until the window is drawn anew."""
    layer, rng = dock.correct.layers.layer, np.random.default_rng(1)
    z = SHAPE[0] // 2
    viewer.dims.set_point(0, z * SPACING[0])
    QTest.qWait(500)
    composed, worked, drawn = [], [], []
    for _ in range(STROKES):
        at = (z, *(int(n) for n in rng.integers(100, 400, 2)))
        started, cpu = time.perf_counter(), time.thread_time()
        layer.paint(at, NOT_TISSUE)
        assert dock.overlays.mask[at] == 0
        composed.append(time.perf_counter() - started)
        worked.append(time.thread_time() - cpu)
        QApplication.processEvents()
        drawn.append(time.perf_counter() - started)
        pump(lambda: dock.session.state.busy is None)
    return {
        "stroke_to_mask_ms": spread(composed),
        "stroke_to_mask_cpu_ms": spread(worked),
        "stroke_to_drawn_ms": spread(drawn),
    }


def preview(viewer: napari.Viewer, dock: Dock) -> dict[str, object]:
    """What the threshold brush shows at each move of the mouse: the time that the GUI is held up by it."""
    limits, shown, rng = dock.correct_panel.limits, dock.correct.painting.preview, np.random.default_rng(3)
    limits._low.setValue(500)
    limits._high.setValue(1500)
    limits._on.setChecked(True)
    QTest.qWait(500)
    seconds = []
    for _ in range(STROKES):
        y, x = rng.integers(100, 400, 2)
        viewer.cursor.position = (SHAPE[0] // 2 * SPACING[0], float(y * SPACING[1]), float(x * SPACING[2]))
        shown._soon.stop()
        started = time.perf_counter()
        shown.draw()
        seconds.append(time.perf_counter() - started)
        QApplication.processEvents()
    limits._on.setChecked(False)
    return {"brush_preview_ms": spread(seconds[1:])}


def composing(dock: Dock) -> dict[str, object]:
    """The whole mask: the pure function, and what the window does when the model says something new."""
    prediction, said = dock.session.state.prediction.mask, np.asarray(dock.correct.array)
    dense = np.where(prediction == 1, 2, 0).astype(np.uint8)
    return {
        "compose_all_ms": best(lambda: correction.compose(prediction, said)),
        "compose_all_million_corrected_ms": best(lambda: correction.compose(prediction, dense)),
        "recompose_all_ms": best(lambda: dock.overlays.recompose(Region.whole(SHAPE))),
        "corrected_voxels": int(np.count_nonzero(dense)),
    }


def tools() -> dict[str, object]:
    """Each tool on one label in 256³ voxels of 1 mm, in 3-D."""
    shape = (256, 256, 256)
    mask = ellipsoid(shape, (0.5, 0.5, 0.5), (0.35, 0.3, 0.25)).astype(np.uint8)
    mask[np.random.default_rng(0).random(shape) > 0.9995] = 1
    said = np.zeros(shape, np.uint8)
    said[60:200:20] = mask[60:200:20]
    scene = tool.Scene((1.0, 1.0, 1.0), (0, 128), (1,))
    found = {
        name: best(lambda name=name, number=number: tool.work(tool.ToolRequest(name, number, False), mask, said, scene))
        for name, number in TOOLS
    }
    return {"tool_ms": found, "tool_voxels": int(np.count_nonzero(mask))}


def autosave(dock: Dock, folder: Path) -> dict[str, object]:
    """A million corrected voxels: how large the file is, and how long the window's event loop is held up by it."""
    said = np.zeros(SHAPE, np.uint8)
    said[ellipsoid(SHAPE, (0.5, 0.5, 0.5), (0.155, 0.155, 0.155))] = 1
    scattered = (np.random.default_rng(2).random(SHAPE) < 1e6 / said.size).astype(np.uint8)  # as bad as it can be
    store = CorrectionStore(folder / "kept")
    files = [store.keep(name * 64, array).stat().st_size / 1e6 for name, array in (("a", said), ("b", scattered))]
    quiet: list[float] = []
    until = time.perf_counter() + 3
    pump(lambda: time.perf_counter() > until, quiet)
    gaps: list[float] = []
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        thread = threading.Thread(target=store.keep, args=("a" * 64, said))
        thread.start()
        pump(lambda thread=thread: not thread.is_alive(), gaps)
        seconds.append(time.perf_counter() - started)
    if dock.correct.layers.sheet is not None:
        dock.correct.keeping.soon(dock.correct.layers.sheet)  # only what has changed is written
    started = time.perf_counter()
    dock.correct.keep()
    asked = time.perf_counter() - started
    pump(lambda: dock.session.state.busy is None)
    return {
        "autosave_voxels": int(np.count_nonzero(said)),
        "autosave_file_mb": round(files[0], 3),
        "autosave_scattered_file_mb": round(files[1], 3),
        "autosave_ms": spread(seconds),
        "autosave_asked_ms": round(1000 * asked, 2),
        "event_loop_turn_ms": spread(gaps),
        "event_loop_turn_without_ms": spread(quiet),
    }


def best(work: Callable[[], object]) -> dict[str, float]:
    """The shortest of a few runs, in milliseconds."""
    seconds, cpu = [], []
    for _ in range(REPEATS):
        started, worked = time.perf_counter(), time.thread_time()
        work()
        seconds.append(time.perf_counter() - started)
        cpu.append(time.thread_time() - worked)
    return {"wall": round(1000 * min(seconds), 1), "cpu": round(1000 * min(cpu), 1)}


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile and the longest, in milliseconds."""
    names = ("median", "p95", "p99", "longest")
    values = np.percentile(1000 * np.asarray(seconds), [50, 95, 99, 100])
    return {name: round(float(v), 1) for name, v in zip(names, values, strict=True)}


def measure() -> dict[str, object]:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        viewer, dock = opened(Path(name))
        found = strokes(viewer, dock) | preview(viewer, dock) | composing(dock) | autosave(dock, Path(name))
        dock.shut_down()
        dock.session.wait(30)
        viewer.close()
    return {
        "benchmark": "corrections",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU, software OpenGL",
        "load": round(os.getloadavg()[0], 1),
        "scan_zyx": SHAPE,
        **found,
        **tools(),
    }


if __name__ == "__main__":
    document = measure()
    for key, value in document.items():
        print(f"{key:34}", value)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))
