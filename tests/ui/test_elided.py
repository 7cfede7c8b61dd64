"""Names that are too long for their box."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QEvent, QPoint
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication, QComboBox, QToolTip

from napari_sparsetok.ui.elided import elided, fitting

NAME = "MNI152 T1 template, left hippocampus, second visit"


@pytest.fixture
def box(qtbot) -> QComboBox:
    box = QComboBox()
    qtbot.addWidget(box)
    box.addItems([NAME, "short"])
    box.setToolTip("The layer to segment")
    box.resize(180, 28)
    return elided(box)


def test_a_long_name_keeps_both_its_ends(box: QComboBox) -> None:
    start, end = fitting(box).split("…")
    assert start == NAME[: len(start)] != ""
    assert end == NAME[-len(end) :] != ""
    box.resize(800, 28)
    assert fitting(box) == NAME


def test_what_is_drawn_is_what_fits(box: QComboBox, qtbot) -> None:
    plain = QComboBox()
    qtbot.addWidget(plain)
    plain.resize(box.size())
    plain.addItem(fitting(box))
    assert box.grab().toImage() == plain.grab().toImage()


def test_the_tooltip_has_all_of_it(box: QComboBox) -> None:
    def hover() -> str:
        QApplication.sendEvent(box, QHelpEvent(QEvent.ToolTip, QPoint(5, 5), QPoint(5, 5)))
        return QToolTip.text()

    assert hover() == f"{NAME}\nThe layer to segment"
    box.setCurrentText("short")
    assert hover() == "The layer to segment"
    QToolTip.hideText()
