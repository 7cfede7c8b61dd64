"""Attention heads: which matter, how far each looks, and where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QFormLayout, QSpinBox, QToolTip, QWidget

from napari_sparsetok.engine.contract import Reach
from napari_sparsetok.ui.inspect_part import button_of, column, words_of
from napari_sparsetok.ui.style import share as per_cent

_COST, _FAR = QColor("#D55E00"), QColor("#56B4E9")
_MARGIN = (8, 6, 8, 18)  # left, top, right, bottom


class HeadMap(QWidget):
    """A cell for each head of each block: how far it looks, and the more orange the more it matters.

    A click shows where that head looks.
    """

    head_chosen = Signal(int, int)
    head_framed = Signal(int, int)  # by keys
    head_pointed = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._loss: NDArray[np.float32] | None = None
        self._mean: NDArray[np.float32] | None = None
        self._at = (0, 0)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.StrongFocus)
        self.setAccessibleName("How much each attention head matters, and how far it looks")
        self.setToolTip(
            "A row for each block, a cell for each head: how far it looks, and the more orange the more it matters.\n"
            "Arrow keys move, Enter shows where the head looks."
        )
        self.set_heads(None, None)

    def set_heads(self, loss: NDArray[np.float32] | None, mean: NDArray[np.float32] | None, when: str = "") -> None:
        """(blocks, heads): loss of agreement without the head, None until it is known; mean distance in mm.

        `when` says how many tokens were kept: the slider may have moved on since.
        """
        self._loss, self._mean, self._when = loss, mean, when
        self.setVisible(mean is not None)
        self.setMinimumHeight(20 if mean is None else min(180, 17 * len(mean)))
        self.set_at(0, 0)

    def knows(self, block: int, head: int) -> bool:
        """Whether there is something to say of a head."""
        return self._mean is not None and 0 <= block < self._mean.shape[0] and 0 <= head < self._mean.shape[1]

    def set_at(self, block: int, head: int) -> None:
        """The head with the frame."""
        self._at = (block, head)
        self.update()

    def words(self, block: int, head: int) -> str:
        """One head in words."""
        if self._mean is None:
            return ""
        mean = float(self._mean[block, head])
        far = f"it looks {mean:.0f} mm far on average" if np.isfinite(mean) else "no token is left for it to look from"
        if self._loss is not None:
            far = f"without it {per_cent(self._loss[block, head], 1)} of the labels change; {far}"
        return f"Block {block + 1}, head {head + 1}{f', {self._when}' if self._when else ''}: {far}"

    def paintEvent(self, event: QEvent | None) -> None:
        """Draw."""
        if self._mean is None:
            return
        painter = QPainter(self)
        ink = self.palette().windowText().color()
        for block, head in np.ndindex(self._mean.shape):
            cell = self._cell(block, head)
            painter.fillRect(cell, self._color(block, head))
            if cell.width() > 40 and cell.height() > 12:
                painter.setPen(ink)
                painter.drawText(cell, Qt.AlignCenter, _far(float(self._mean[block, head])))
        painter.setPen(QPen(ink, 2 if self.hasFocus() else 1))
        painter.drawRect(self._cell(*self._at))

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose a head."""
        if event is not None and self._mean is not None:
            self.set_at(*self._under(event.pos().x(), event.pos().y()))
            self.head_chosen.emit(*self._at)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Say what a cell stands for."""
        if event is not None and self._mean is not None:
            under = self._under(event.pos().x(), event.pos().y())
            self.head_pointed.emit(*under)
            QToolTip.showText(self.mapToGlobal(event.pos()), self.words(*under), self)

    def leaveEvent(self, event: QEvent | None) -> None:
        """Back to the head that was chosen."""
        if self._mean is not None:
            self.head_pointed.emit(*self._at)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Arrow keys go from head to head, Enter chooses."""
        if event is None or self._mean is None:
            return
        steps = {Qt.Key_Up: (-1, 0), Qt.Key_Down: (1, 0), Qt.Key_Left: (0, -1), Qt.Key_Right: (0, 1)}
        if event.key() in steps:
            moved = np.clip(np.add(self._at, steps[event.key()]), 0, np.subtract(self._mean.shape, 1))
            self.set_at(int(moved[0]), int(moved[1]))
            self.head_framed.emit(*self._at)
        elif event.key() in (Qt.Key_Return, Qt.Key_Enter, Qt.Key_Space):
            self.head_chosen.emit(*self._at)
        else:
            super().keyPressEvent(event)

    def _color(self, block: int, head: int) -> QColor:
        color = QColor(_COST)
        most = float(self._loss.max()) if self._loss is not None else 0.0
        share = float(self._loss[block, head]) / most if self._loss is not None and most else 0.0
        color.setAlphaF(0.08 + 0.82 * min(1.0, max(0.0, share)))
        return color

    def _under(self, x: float, y: float) -> tuple[int, int]:
        blocks, heads = self._mean.shape if self._mean is not None else (1, 1)
        return min(blocks - 1, max(0, int(y * blocks / self.height()))), min(
            heads - 1, max(0, int(x * heads / self.width()))
        )

    def _cell(self, block: int, head: int) -> QRectF:
        blocks, heads = self._mean.shape if self._mean is not None else (1, 1)
        w, h = self.width() / heads, self.height() / blocks
        return QRectF(head * w + 1, block * h + 1, w - 2, h - 2)


class ReachPlot(QWidget):
    """How a head's attention falls with distance: one thin line for each head, the chosen one thick.

    The dashed line is attention spread evenly: how many tokens there are at that distance.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._reach: Reach | None = None
        self._at = (0, 0)
        self.setMouseTracking(True)
        self.setAccessibleName("Share of the attention against distance, for each head")
        self.setToolTip("Share of the attention against distance. Thick: the chosen head; dashed: evenly spread.")
        self.set_reach(None)

    def set_reach(self, reach: Reach | None) -> None:
        """Show how far heads look; None empties it."""
        self._reach, self._at = reach, (0, 0)
        self.setVisible(reach is not None)
        self.setMinimumHeight(110)
        self.update()

    def set_at(self, block: int, head: int) -> None:
        """The head that is drawn thick."""
        self._at = (block, head)
        self.update()

    def place(self, share: NDArray[np.float32], number: int) -> QPointF:
        """Where a bin of a head's line is drawn."""
        reach = self._reach
        if reach is None:
            return QPointF()
        left, top, right, bottom = _MARGIN
        middle = float(reach.edges[number] + reach.edges[number + 1]) / 2 / float(reach.edges[-1])
        most = float(np.nanmax([*reach.share.ravel(), *reach.even])) or 1.0
        x = left + middle * (self.width() - left - right)
        return QPointF(x, top + (1 - float(share[number]) / most) * (self.height() - top - bottom))

    def paintEvent(self, event: QEvent | None) -> None:
        """Draw."""
        reach = self._reach
        if reach is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        ink = self.palette().windowText().color()
        thin = QColor(ink)
        thin.setAlphaF(0.25)
        for row in reach.share.reshape(-1, reach.share.shape[-1]):
            self._line(painter, QPen(thin, 1), row)
        self._line(painter, QPen(ink, 1, Qt.DashLine), reach.even)
        self._line(painter, QPen(_FAR, 3), reach.share[self._at])
        painter.setPen(QPen(ink, 1))
        left, _, right, bottom = _MARGIN
        floor = self.height() - bottom
        painter.drawLine(QPointF(left, floor), QPointF(self.width() - right, floor))
        far = float(reach.edges[-1])
        for share, side in ((0.0, Qt.AlignLeft), (0.5, Qt.AlignHCenter), (1.0, Qt.AlignRight)):
            box = QRectF(left, floor, self.width() - left - right, bottom)
            painter.drawText(box, side | Qt.AlignVCenter, f"{share * far:.0f} mm")

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Say what lies under the mouse."""
        reach = self._reach
        if event is None or reach is None:
            return
        left, _, right, _ = _MARGIN
        far = (event.pos().x() - left) / max(1, self.width() - left - right) * float(reach.edges[-1])
        number = int(np.clip(np.searchsorted(reach.edges, far) - 1, 0, len(reach.even) - 1))
        low, high = reach.edges[number : number + 2]
        block, head = self._at
        if np.isnan(reach.share[block, head, number]):
            return
        words = (
            f"Block {block + 1}, head {head + 1}: {per_cent(reach.share[block, head, number], 1)} of its attention "
            f"goes {low:.0f} to {high:.0f} mm far; {per_cent(reach.even[number], 1)} if it were spread evenly"
        )
        QToolTip.showText(self.mapToGlobal(event.pos()), words, self)

    def _line(self, painter: QPainter, pen: QPen, share: NDArray[np.float32]) -> None:
        if np.isnan(share).any():  # no token was left in that block
            return
        painter.setPen(pen)
        painter.drawPolyline(QPolygonF([self.place(share, k) for k in range(len(share))]))


def _far(mean: float) -> str:
    return f"{mean:.0f} mm" if np.isfinite(mean) else "–"


class HeadsForm(QWidget):
    """Where a token looked, which heads matter, and how far they look."""

    attention_requested = Signal(int, int)  # block, or -1 for all; head, or -1 for their mean
    heads_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._block, self._head = QSpinBox(), QSpinBox()
        self._block.setSpecialValueText("all (rollout)")
        self._head.setSpecialValueText("mean")
        for spin, tip in (
            (self._block, "Which block; 0 is all, by attention rollout"),
            (self._head, "Which head; 0 is their mean"),
        ):
            spin.setMinimum(0)
            spin.setToolTip(tip)
        form = QFormLayout()
        form.addRow("Block", self._block)
        form.addRow("Head", self._head)
        show = button_of(
            "Show where the token looked", "For the token that you clicked last, as a layer; it follows further clicks"
        )
        show.clicked.connect(lambda: self.attention_requested.emit(self._block.value() - 1, self._head.value() - 1))
        heads = button_of(
            "How far heads look, and which matter",
            "Measure how far each head looks, then silence each in turn, in the window of that token",
            self.heads_requested,
        )
        self.map, self.plot = HeadMap(), ReachPlot()
        self.map.head_chosen.connect(self._on_head)
        self.map.head_framed.connect(self._choose)
        self.map.head_pointed.connect(self._on_pointed)
        for number in (self._block, self._head):
            number.valueChanged.connect(self._on_number)
        self._words = words_of()
        box = column(form, show, heads, self.map, self._words, self.plot)
        self.setLayout(box.layout())
        self.set_heads(None, None)

    def set_model(self, blocks: int, heads: int) -> None:
        """What the chosen model has."""
        self._block.setMaximum(blocks)
        self._head.setMaximum(heads)

    def set_heads(self, loss: NDArray[np.float32] | None, reach: Reach | None, when: str = "") -> None:
        """(blocks, heads): what changes without a head, None until that is known; how far heads look; see `HeadMap`."""
        self.map.set_heads(loss, None if reach is None else reach.mean, when)
        self.plot.set_reach(reach)
        self._words.setText("")
        if reach is None:
            return
        if loss is None:
            self._on_number()
            return
        block, head = (int(k) for k in np.unravel_index(int(loss.argmax()), loss.shape))
        self._choose(block, head)
        words = self.map.words(block, head)
        self._words.setText(f"Most: {words[:1].lower()}{words[1:]}")

    def _on_pointed(self, block: int, head: int) -> None:
        known = self.map.knows(block, head)  # not of all blocks, or of the mean of the heads
        if known:
            self.plot.set_at(block, head)
        self._words.setText(self.map.words(block, head) if known else "")

    def _on_number(self) -> None:
        """The frame is always around the head whose numbers stand there, and which would be shown, if it is one."""
        block, head = self._block.value() - 1, self._head.value() - 1
        self.map.set_at(block, head)
        self._on_pointed(block, head)

    def _choose(self, block: int, head: int) -> None:
        self._block.setValue(block + 1)
        self._head.setValue(head + 1)
        self.map.set_at(block, head)
        self._on_pointed(block, head)

    def _on_head(self, block: int, head: int) -> None:
        self._choose(block, head)
        self.attention_requested.emit(block, head)
