"""What the colours of a drawing mean."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QWidget


class Legend(QWidget):
    """What colours mean, one in a line, each in a thin frame so that it shows on a dark and on a light theme."""

    def __init__(self) -> None:
        super().__init__()
        self._colors: Sequence[tuple[str, str]] = ()
        self.set_colors(())

    def set_colors(self, colors: Sequence[tuple[str, str]]) -> None:
        """Colours and words."""
        self._colors = tuple(colors)
        self.setAccessibleName(", ".join(words for _, words in colors))
        self.setFixedHeight(len(colors) * self._row())
        self.setVisible(bool(colors))
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        painter, row = QPainter(self), self._row()
        ink = self.palette().windowText().color()
        for k, (color, words) in enumerate(self._colors):
            painter.setPen(ink)
            painter.fillRect(2, k * row + 3, row - 6, row - 6, QColor(color))
            painter.drawRect(2, k * row + 3, row - 6, row - 6)
            box = QRectF(row + 4, k * row, self.width() - row - 4, row)
            painter.drawText(box, Qt.AlignVCenter | Qt.AlignLeft, words)

    def _row(self) -> int:
        return int(self.fontMetrics().height() + 2)
