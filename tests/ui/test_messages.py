"""What the person was told can be read whole, until they close it."""

from __future__ import annotations

from typing import Any

import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QToolButton

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
    words = next(label for label in messages.findChildren(QLabel) if label.text() == LONG)
    qtbot.waitUntil(lambda: words.height() >= words.heightForWidth(words.width()))
    assert words.heightForWidth(words.width()) > 4 * words.fontMetrics().lineSpacing()


def test_a_message_stays_until_it_is_closed(messages: Messages) -> None:
    messages.tell(Message("First.", "error"))
    messages.tell(Message("Second."))
    assert messages.texts == ["First.", "Second."]
    closers(messages)[0].click()
    assert messages.texts == ["Second."]
    assert not messages.isHidden()
    closers(messages)[0].click()
    assert messages.texts == []
    assert messages.isHidden()


def test_of_too_many_the_least_grave_and_oldest_goes(messages: Messages) -> None:
    for text, severity in (("E", "error"), ("i", "info"), ("W", "warning"), ("V", "warning")):
        messages.tell(Message(text, severity))
    assert messages.texts == ["E", "W", "V"]
    messages.tell(Message("i", "info"))
    assert messages.texts == ["E", "V", "i"]
    messages.tell(Message("E", "error"))
    assert messages.texts == ["V", "i", "E"]


def test_markup_in_a_message_is_text(messages: Messages) -> None:
    messages.tell(Message("<b>scan</b>"))
    words = next(label for label in messages.findChildren(QLabel) if label.text() == "<b>scan</b>")
    assert words.textFormat() == Qt.PlainText
