"""The panel's native window: it is drawn without the canvas, and the keyboard stays outside."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QLineEdit, QWidget

from napari_sparsetok.ui.own_window import OwnWindow

WORDS = "gives no window of its own but on X11"


@pytest.fixture
def docked(make_napari_viewer, qtbot):
    if QGuiApplication.platformName() != "xcb":
        pytest.skip(WORDS)
    viewer = make_napari_viewer(show=True)
    inner = QWidget()
    QLineEdit(inner)
    OwnWindow(inner)
    dock = viewer.window.add_dock_widget(inner, name="inner")
    viewer.window._qt_window.resize(900, 600)
    qtbot.waitUntil(inner.isVisible)
    qtbot.wait(300)
    return viewer, inner, dock


def keyboard_is_outside(widget: QWidget) -> bool:
    return bool(widget.windowHandle().flags() & Qt.WindowType.WindowDoesNotAcceptFocus)


def test_drawing_the_panel_does_not_put_the_whole_window_together(docked, qtbot):
    viewer, inner, _ = docked
    together: list[None] = []
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.frameSwapped.connect(lambda: together.append(None))
    for _ in range(5):
        inner.update()
        qtbot.wait(30)
    assert not together
    canvas.update()
    qtbot.waitUntil(lambda: bool(together))


def test_the_keyboard_stays_outside_also_after_floating(docked, qtbot):
    _, inner, dock = docked
    assert keyboard_is_outside(inner)
    for floating in (True, False):
        dock.setFloating(floating)
        qtbot.wait(100)
        assert inner.isVisible()
        assert keyboard_is_outside(inner)


def test_a_panel_in_no_viewer_takes_the_keyboard(qtbot):
    if QGuiApplication.platformName() != "xcb":
        pytest.skip(WORDS)
    alone = QWidget()
    qtbot.addWidget(alone)
    OwnWindow(alone)
    alone.show()
    qtbot.waitExposed(alone)
    assert not keyboard_is_outside(alone)
