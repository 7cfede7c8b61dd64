"""Choices whose long names are cut in the middle, where Qt would cut them off at the end without a sign."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox, QStylePainter, QToolTip


class _Elided(QObject):
    """Paints a box; names of scans often differ in their ends, so both ends are kept. The tooltip has all of it."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if not isinstance(watched, QComboBox):
            return False
        if event.type() == QEvent.Paint:
            option = _option(watched)
            painter = QStylePainter(watched)
            painter.drawComplexControl(QStyle.CC_ComboBox, option)
            option.currentText = fitting(watched)
            painter.drawControl(QStyle.CE_ComboBoxLabel, option)
            return True
        if event.type() == QEvent.ToolTip and fitting(watched) != watched.currentText():
            words = f"{watched.currentText()}\n{watched.toolTip()}".rstrip("\n")
            QToolTip.showText(event.globalPos(), words, watched)
            return True
        return False


def elided(box: QComboBox) -> QComboBox:
    """Let this box cut the middle out of a name that is too long for it."""
    box.installEventFilter(_Elided(box))
    return box


def fitting(box: QComboBox) -> str:
    """What of the chosen name the box has room for."""
    room = box.style().subControlRect(QStyle.CC_ComboBox, _option(box), QStyle.SC_ComboBoxEditField, box).width()
    return str(box.fontMetrics().elidedText(box.currentText(), Qt.ElideMiddle, room))


def _option(box: QComboBox) -> QStyleOptionComboBox:
    option = QStyleOptionComboBox()
    box.initStyleOption(option)
    return option
