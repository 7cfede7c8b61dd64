"""What the person was told can be read whole, until they close it."""

from __future__ import annotations

from typing import Any

import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QToolButton
from superqt import QElidingLabel

from napari_sparsetok.state import Message
from napari_sparsetok.ui.messages import Messages

LONG = "The mask could not be saved to /a/long/way/to/it.nii.gz: the disk is full. " * 3


@pytest.fixture
def messages(qtbot: Any) -> Messages:
    widget = Messages()
    qtbot.addWidget(widget)
    widget.resize(300, 200)
    return widget


def closers(messages: Messages) -> list[QToolButton]:
    return [button for button in messages.findChildren(QToolButton) if button.isVisibleTo(messages)]


def test_a_long_message_is_shown_whole_beside_the_note_of_napari(messages: Messages, qtbot: Any) -> None:
    assert messages.isHidden()
    messages.tell(None)
    assert messages.isHidden()
    before = len(notification_manager.records)
    messages.tell(Message(LONG, "error"))
    assert not messages.isHidden()
    assert [record.message for record in notification_manager.records[before:]] == [LONG]
    messages.show()
    messages.adjustSize()
    messages.resize(300, messages.heightForWidth(300) if messages.hasHeightForWidth() else 300)
    words = next(label for label in messages.findChildren(QLabel) if label.text() == LONG and label.isVisible())
    qtbot.waitUntil(lambda: words.height() >= words.heightForWidth(words.width()))
    assert words.heightForWidth(words.width()) > 4 * words.fontMetrics().lineSpacing()


def test_a_message_stays_until_it_is_closed(messages: Messages) -> None:
    messages.tell(Message("First.", "error"))
    messages.tell(Message("Second.", "warning"))
    assert messages.texts == ["First.", "Second."]
    closers(messages)[0].click()
    assert messages.texts == ["Second."]
    assert not messages.isHidden()
    closers(messages)[0].click()
    assert messages.texts == []
    assert messages.isHidden()


def test_of_too_many_the_least_grave_and_oldest_goes(messages: Messages) -> None:
    for text, severity in (("E", "error"), ("W", "warning"), ("F", "error"), ("V", "warning")):
        messages.tell(Message(text, severity))
    assert messages.texts == ["E", "F", "V"]
    messages.tell(Message("i", "info"))
    assert messages.texts == ["E", "F", "i"]
    messages.tell(Message("E", "error"))
    assert messages.texts == ["F", "E"]


def test_what_asks_for_nothing_goes_by_itself_or_with_the_next(messages: Messages, qtbot: Any) -> None:
    messages.tell(Message("Saved a.", "info"))
    messages.tell(Message("W", "warning"))
    assert messages.texts == ["W"]
    messages.tell(Message("Saved b.", "info"))
    assert messages.texts == ["W", "Saved b."]
    messages._read.start(1)
    qtbot.waitUntil(lambda: messages.texts == ["W"])
    assert messages.whole == ["W"]


def test_one_is_whole_the_newest_or_the_one_that_was_clicked(messages: Messages, qtbot: Any) -> None:
    messages.tell(Message("E" * 300, "error"))
    messages.tell(Message("W" * 300, "warning"))
    messages.show()
    assert messages.whole == ["W" * 300]
    line = next(label for label in messages.findChildren(QElidingLabel) if label.isVisible())
    assert line.text() == "E" * 300
    qtbot.mouseClick(line, Qt.LeftButton)
    assert messages.whole == ["E" * 300]
    next(button for button in closers(messages)).click()
    assert messages.whole == messages.texts == ["W" * 300]


def test_keys_do_what_the_mouse_does(messages: Messages, qtbot: Any) -> None:
    for text, severity in (("E", "error"), ("W", "warning")):
        messages.tell(Message(text, severity))
    messages.show()
    qtbot.waitExposed(messages)
    line = next(label for label in messages.findChildren(QElidingLabel) if label.isVisible())
    assert line.focusPolicy() & Qt.TabFocus
    qtbot.keyClick(line, Qt.Key_Space)
    assert messages.whole == ["E"]
    button = closers(messages)[0]
    assert button.focusPolicy() & Qt.TabFocus
    qtbot.keyClick(button, Qt.Key_Space)
    assert messages.texts == ["W"]


def test_markup_in_a_message_is_text(messages: Messages) -> None:
    messages.tell(Message("<b>scan</b>"))
    words = next(label for label in messages.findChildren(QLabel) if label.text() == "<b>scan</b>")
    assert words.textFormat() == Qt.PlainText
