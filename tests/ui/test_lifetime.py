"""A docked widget that is gone is noticed, and one that is only hidden lives."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_sparsetok.ui.lifetime import Lifetime


@pytest.fixture
def docked(qtbot: Any) -> tuple[QMainWindow, QDockWidget, QWidget, list[str]]:
    window, dock, widget, ended = QMainWindow(), QDockWidget(), QWidget(), []
    qtbot.addWidget(window)
    Lifetime(widget, lambda: ended.append("ended"))
    dock.setWidget(widget)
    window.addDockWidget(Qt.RightDockWidgetArea, dock)
    window.show()
    qtbot.waitExposed(window)
    qtbot.wait(20)
    return window, dock, widget, ended


def test_hidden_and_floating_is_alive(docked: Any, qtbot: Any) -> None:
    window, dock, _, ended = docked
    dock.close()
    qtbot.wait(20)
    dock.show()
    dock.setFloating(True)
    qtbot.wait(20)
    dock.close()
    qtbot.wait(20)
    dock.setFloating(False)
    dock.show()
    window.showMinimized()
    qtbot.wait(20)
    assert ended == []


def test_its_window_is_closed(docked: Any, qtbot: Any) -> None:
    window, _, _, ended = docked
    window.close()
    qtbot.waitUntil(lambda: bool(ended))
    qtbot.wait(20)
    assert ended == ["ended"]


def test_its_window_is_closed_while_its_dock_floats(docked: Any, qtbot: Any) -> None:
    window, dock, _, ended = docked
    dock.setFloating(True)
    window.close()
    dock.close()
    qtbot.waitUntil(lambda: bool(ended))


def test_it_is_taken_out(docked: Any, qtbot: Any) -> None:
    window, dock, widget, ended = docked
    widget.setParent(None)
    window.removeDockWidget(dock)
    qtbot.waitUntil(lambda: bool(ended))


def test_it_moves_to_another_window(docked: Any, qtbot: Any) -> None:
    _, _, widget, ended = docked
    other = QMainWindow()
    qtbot.addWidget(other)
    other.setCentralWidget(widget)
    other.show()
    qtbot.waitExposed(other)
    qtbot.wait(20)
    assert ended == []
    other.close()
    qtbot.waitUntil(lambda: bool(ended))


def test_it_is_destroyed(docked: Any, qtbot: Any) -> None:
    _, _, widget, ended = docked
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(ended))
    qtbot.wait(20)
    assert ended == ["ended"]


def test_in_no_window_yet_it_is_alive(qtbot: Any) -> None:
    widget, ended = QWidget(), []
    qtbot.addWidget(widget)
    Lifetime(widget, lambda: ended.append("ended"))
    qtbot.wait(20)
    assert ended == []


def test_in_a_window_that_is_never_shown_it_is_alive(qtbot: Any) -> None:
    window, widget, ended = QMainWindow(), QWidget(), []
    qtbot.addWidget(window)
    Lifetime(widget, lambda: ended.append("ended"))
    window.setCentralWidget(widget)
    qtbot.wait(20)
    assert ended == []
