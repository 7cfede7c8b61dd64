"""A program with a real window, for tests that need a process of its own: `window_process.py WHAT SCAN FOLDER`.

draw    corrects with real mouse strokes, for ever; writes the corrections after each stroke and says so.
reopen  opens the scan anew, takes back what was kept, writes it and ends.
work    a day's work by mouse and buttons: open, segment, correct two slices, fill between them, save as SEG, close.
again   another day: open the scan and the saved mask, write what is seen and what is kept.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QPushButton, QTabWidget, QWidget

from napari_sparsetok.files import open_scan
from napari_sparsetok.ui.app import open_viewer

PATIENCE = 120.0


def canvas(dock: QWidget) -> QWidget:
    """What the mouse draws on."""
    found = [w for w in dock.window().findChildren(QWidget) if "Canvas" in type(w).__name__ and w.isVisible()]
    return max(found, key=lambda widget: widget.width() * widget.height())


def until(ready: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(ready)
        QApplication.processEvents()
        time.sleep(0.005)


def stroke(widget: QWidget, points: list[QPoint]) -> None:
    """Press, drag, let go."""
    QTest.mouseMove(widget, points[0])
    QTest.mousePress(widget, Qt.LeftButton, Qt.NoModifier, points[0])
    for point in points[1:]:
        QTest.mouseMove(widget, point)
        QApplication.processEvents()
    QTest.mouseRelease(widget, Qt.LeftButton, Qt.NoModifier, points[-1])
    QApplication.processEvents()


def write(folder: Path, name: str, array: Any) -> None:
    part = folder / "part.npy"
    np.save(part, np.asarray(array))
    os.replace(part, folder / f"{name}.npy")


def draw(dock: Any, folder: Path) -> None:
    dock.correct_panel.start_requested.emit()
    until(lambda: dock.correct.array is not None)
    QTest.qWait(300)
    widget, random = canvas(dock), np.random.default_rng(0)
    write(folder, "state-0", dock.correct.array)
    print("drawn 0", time.time(), flush=True)
    for k in range(1, 10_000):
        middle = np.array([widget.width(), widget.height()]) / 2
        steps = random.uniform(-0.12, 0.12, (4, 2)) * min(widget.width(), widget.height())
        stroke(widget, [QPoint(*(int(n) for n in middle + step)) for step in steps])
        write(folder, f"state-{k}", dock.correct.array)
        print(f"drawn {k} {time.time()}", flush=True)
        QTest.qWait(40)


def reopen(dock: Any, folder: Path) -> None:
    panel = dock.correct_panel
    until(lambda: panel._offer_words.text())
    (folder / "offer.txt").write_text(panel._offer_words.text(), encoding="utf-8")
    button = next(b for b in panel.findChildren(QPushButton) if b.text() == "Bring them back")
    button.click()
    until(lambda: dock.correct.array is not None)
    write(folder, "back", dock.correct.array)


def at_voxel(dock: Any, voxel: tuple[int, int, int]) -> QPoint:
    """Where a voxel of the slice on the screen lies on the canvas."""
    viewer, geometry, widget = dock._viewer, dock.session.state.scan.geometry, canvas(dock)
    world = [o + k * step for o, k, step in zip(geometry.origin, voxel, geometry.spacing, strict=True)]
    camera, shown = viewer.scene.camera, viewer.dims.displayed
    down, right = ((world[axis] - middle) * camera.zoom for axis, middle in zip(shown, camera.center[-2:], strict=True))
    return QPoint(round(widget.width() / 2 + right), round(widget.height() / 2 + down))


def answering(name: str, path: Path) -> None:
    """The next file dialogs are answered so."""
    setattr(
        QFileDialog, name, staticmethod(lambda *_: str(path) if name == "getExistingDirectory" else (str(path), ""))
    )


def open_folder(dock: Any, scan: Path) -> None:
    answering("getExistingDirectory", scan)
    dock.panel.folder_requested.emit()
    until(lambda: dock.session.state.scan is not None and dock.session.state.busy is None)


def show_slice(dock: Any, z: int) -> None:
    geometry = dock.session.state.scan.geometry
    dock._viewer.dims.set_point(0, geometry.origin[0] + z * geometry.spacing[0])
    QTest.qWait(200)


def segment(dock: Any) -> None:
    dock.panel.run_requested.emit()
    state = dock.session.state
    until(lambda: state.prediction is not None and state.prediction.complete and state.busy is None)
    dock.findChild(QTabWidget).setCurrentIndex(1)


def correct(dock: Any) -> tuple[int, int]:
    """Draw with the mouse beside the mask in two slices; they are returned."""
    dock.correct_panel.start_requested.emit()
    QTest.qWait(300)
    mask = dock.session.state.prediction.mask
    slices = np.flatnonzero((mask == 1).any(axis=(1, 2)))
    first, last = int(slices[len(slices) // 3]), int(slices[len(slices) // 3] + 4)
    for z in (first, last):
        show_slice(dock, z)
        y, x = (int(n) for n in np.argwhere(mask[z] == 1).mean(axis=0))
        stroke(canvas(dock), [at_voxel(dock, (z, y + dy, x + dy)) for dy in (-8, -6, -4, -2, 0)])
    return first, last


def fill_between(dock: Any) -> None:
    form = dock.correct_panel.tools
    form._tool.value = "fill_between"
    form._preview.click()
    until(lambda: dock.correct.tooling.preview.layer is not None)
    form._apply.click()
    until(lambda: dock.correct.tooling.preview.layer is None)


def work(dock: Any, folder: Path) -> None:
    segment(dock)
    write(folder, "prediction", dock.session.state.prediction.mask)
    slices = correct(dock)
    write(folder, "drawn", dock.correct.array)
    fill_between(dock)
    write(folder, "filled", dock.correct.array)
    write(folder, "seen", dock.overlays.mask)
    (folder / "slices.txt").write_text(f"{slices[0]} {slices[1]}")
    answering("getSaveFileName", folder / "mask.dcm")
    title = dock.window().windowTitle()
    dock.correct_panel.save_requested.emit()
    until(lambda: dock.window().windowTitle() != title)
    dock.correct.keep()
    until(lambda: dock.session.state.busy is None)
    dock.window().close()
    assert dock.correct.saving.guard.question is None
    assert not dock.window().isVisible()


def again(dock: Any, folder: Path) -> None:
    reopen(dock, folder)
    answering("getOpenFileName", folder / "mask.dcm")
    dock.opening.ask_mask()
    until(lambda: dock.opening.dialog is not None)
    next(b for b in dock.opening.dialog.buttons() if "Look" in b.text()).click()
    until(lambda: any("mask.dcm" in layer.name for layer in dock._viewer.layers))
    write(folder, "opened", next(layer for layer in dock._viewer.layers if "mask.dcm" in layer.name).data)
    segment(dock)
    write(folder, "seen-again", dock.overlays.mask)


def main(what: str, scan: str, folder: str) -> None:
    viewer, dock = open_viewer(open_scan(scan) if what in ("draw", "reopen") else None)
    viewer.window.resize(1100, 800)
    QTest.qWait(500)
    if what in ("work", "again"):
        open_folder(dock, Path(scan))
    {"draw": draw, "reopen": reopen, "work": work, "again": again}[what](dock, Path(folder))
    dock.shut_down()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
