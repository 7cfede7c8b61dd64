"""A text that changes often costs its window no new layout."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QVBoxLayout, QWidget

from napari_sparsetok.ui.words import Words


class Count(QObject):
    def __init__(self) -> None:
        super().__init__()
        self.layouts = 0

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        self.layouts += event.type() == QEvent.LayoutRequest
        return False


def shown(qtbot: Any, words: Words) -> QWidget:
    window = QWidget()
    layout = QVBoxLayout(window)
    layout.addWidget(words)
    layout.addStretch(1)
    window.resize(200, 300)
    qtbot.addWidget(window)
    window.show()
    qtbot.waitExposed(window)
    QApplication.processEvents()
    return window


def test_a_text_of_the_same_length_asks_for_no_layout_and_a_longer_one_gets_its_room(qtbot: Any) -> None:
    words = Words(lines=1)
    window = shown(qtbot, words)
    count = Count()
    window.installEventFilter(count)
    words.setText("0 of 20")
    QApplication.processEvents()
    count.layouts = 0
    for n in range(20):
        words.setText(f"{n} of 20")
        QApplication.processEvents()
    assert count.layouts == 0
    before = words.height()
    words.setText("many words " * 12)
    QApplication.processEvents()
    assert count.layouts > 0
    assert words.height() >= 2 * before
    assert words.text() == words.accessibleName()


def test_rich_text_is_read_out_without_its_marks(qtbot: Any) -> None:
    words = Words(rich=True)
    window = shown(qtbot, words)
    assert words.window() is window
    words.setText("<b>1.2</b> mL")
    assert words.accessibleName() == "1.2 mL"
    assert not words.grab().toImage().isNull()


def test_it_gets_narrower_and_higher(qtbot: Any) -> None:
    words = Words()
    words.setText("many words " * 6)
    assert words.heightForWidth(80) > words.heightForWidth(300) >= words.sizeHint().height()
