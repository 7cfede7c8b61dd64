"""The slider's echo: how many tokens each stage leaves, to scale, in the colours of the tokens layer."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_sparsetok.ui.style import share, stage_color, stage_name

_GAP = 3


class Funnel(QWidget):
    """One bar for each thing that can happen to a token. It is the legend of the tokens layer, too."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._left: tuple[int, ...] = ()
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)

    def set_left(self, left: Sequence[int]) -> None:
        """Tokens before the first stage and after each."""
        if tuple(left) != self._left:
            self._left = tuple(left)
            self.setAccessibleDescription(", ".join(f"{words}: {count}" for words, count, _ in self._rows()))
            self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:
        """Wide enough for the words, as high as the rows."""
        return QSize(260, max(1, len(self._left)) * (self._row_height() + _GAP))

    def minimumSizeHint(self) -> QSize:
        """The rows' height; the width gives way."""
        return QSize(180, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw a bar, its name and its count for each row."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        ink = self.palette().windowText().color()
        metrics = self.fontMetrics()
        words_width = max((metrics.horizontalAdvance(words) for words, _, _ in self._rows()), default=0) + 8
        counts_width = metrics.horizontalAdvance(f"{max(self._left, default=0)} · 100\u00a0%") + 8
        height = self._row_height()
        room = max(10, self.width() - words_width - counts_width - 1)
        total = self._left[0] if self._left else 0
        for row, (words, count, color) in enumerate(self._rows()):
            top = row * (height + _GAP)
            painter.setPen(ink)
            painter.drawText(QRectF(0, top, words_width, height), Qt.AlignVCenter | Qt.AlignLeft, words)
            painter.setPen(_thin(ink))  # so that dark bars show on a dark theme, and pale ones on a light one
            painter.setBrush(QColor(color))
            length = max(2.0, room * count / total) if count else 0.0
            painter.drawRoundedRect(QRectF(words_width + 0.5, top + 2.5, length, height - 5), 2, 2)
            painter.setPen(ink)
            text = f"{count} · {share(count, total)}"
            painter.drawText(
                QRectF(self.width() - counts_width, top, counts_width, height), Qt.AlignVCenter | Qt.AlignRight, text
            )

    def _row_height(self) -> int:
        return int(self.fontMetrics().height() + 4)

    def _rows(self) -> list[tuple[str, int, str]]:
        stages = len(self._left) - 1
        if stages < 0:
            return []
        pruned = [before - after for before, after in zip(self._left, self._left[1:], strict=False)]
        counts = [*pruned, self._left[-1]]
        return [(stage_name(k, stages), count, stage_color(k, stages)) for k, count in enumerate(counts, start=1)]


def _thin(ink: QColor) -> QPen:
    line = QColor(ink)
    line.setAlpha(150)
    return QPen(line, 1)
