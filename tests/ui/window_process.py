"""A program with a real window, for tests that end it by force: `window_process.py draw|reopen SCAN FOLDER`.

draw    corrects with real mouse strokes, for ever; writes the corrections after each stroke and says so.
reopen  opens the scan anew, takes back what was kept, writes it and ends.
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
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

from napari_sparsetok.files import open_scan
from napari_sparsetok.ui.app import open_viewer

PATIENCE = 60.0


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


def main(what: str, scan: str, folder: str) -> None:
    viewer, dock = open_viewer(open_scan(scan))
    viewer.window.resize(1100, 800)
    QTest.qWait(500)
    {"draw": draw, "reopen": reopen}[what](dock, Path(folder))
    dock.shut_down()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
