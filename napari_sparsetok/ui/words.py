"""Words that change often, without laying the panel out anew each time."""

from __future__ import annotations

from qtpy.QtCore import QRectF, QSize
from qtpy.QtGui import QAbstractTextDocumentLayout, QPainter, QPaintEvent, QPalette, QTextDocument
from qtpy.QtWidgets import QSizePolicy, QWidget


class Words(QWidget):
    """A wrapped text that asks for room only when it needs more than it has.

    A QLabel has its whole window laid out at every new text; while a slider moves that took most of the GUI's time.

    Parameters
    ----------
    lines : room to begin with.
    rich : whether the text is HTML.
    """

    def __init__(self, lines: int = 1, rich: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._rich = "", rich
        self._document = QTextDocument(self)
        self._document.setDocumentMargin(0)
        self._least = lines * self.fontMetrics().lineSpacing()
        policy = QSizePolicy(QSizePolicy.Ignored, QSizePolicy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def text(self) -> str:
        """What it says."""
        return self._text

    def setText(self, text: str) -> None:
        """Say something else; nothing happens if it is the same."""
        if text == self._text:
            return
        self._text = text
        (self._document.setHtml if self._rich else self._document.setPlainText)(text)
        self.setAccessibleName(self._document.toPlainText())
        if self._needed(self.width()) > self.height():
            self.updateGeometry()
        self.update()

    def heightForWidth(self, width: int) -> int:
        """As high as its text at this width."""
        return max(self._least, self._needed(width))

    def sizeHint(self) -> QSize:
        """The width gives way, and the height follows it."""
        return QSize(0, self._least)

    def minimumSizeHint(self) -> QSize:
        """The same."""
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the text in the theme's colour and the widget's font."""
        self._needed(self.width())
        context = QAbstractTextDocumentLayout.PaintContext()
        context.palette.setColor(QPalette.Text, self.palette().windowText().color())
        context.clip = QRectF(0, 0, self.width(), self.height())
        painter = QPainter(self)
        self._document.documentLayout().draw(painter, context)

    def _needed(self, width: int) -> int:
        if not self._text:
            return 0
        self._document.setDefaultFont(self.font())
        self._document.setTextWidth(max(1, width))
        return int(self._document.size().height() + 0.99)
