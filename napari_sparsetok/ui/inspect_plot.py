"""The drawings of the Inspect tab: agreement against keep ratio, and a grid of heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPen
from qtpy.QtWidgets import QToolTip, QWidget

from napari_sparsetok.inspection.ladder import Rung
from napari_sparsetok.ui.inspect_words import millimetres

_AGREEMENT, _REFERENCE, _COST = QColor("#009E73"), QColor("#56B4E9"), QColor("#D55E00")

COSTS: dict[str, tuple[Callable[[Rung], float], str]] = {
    "operations": (lambda rung: rung.gmac, "{:.1f} GMAC"),
    "tokens kept": (lambda rung: rung.left[-1], "{:,.0f}"),
    "time": (lambda rung: rung.seconds, "{:.2f} s"),
    "memory": (lambda rung: rung.memory / 2**20, "{:,.0f} MiB"),
}
"""What a keep ratio costs: the number of a rung, and how it is said."""


class SweepPlot(QWidget):
    """Lowest agreement with the dense run, and a cost, against the keep ratio. A click chooses a ratio."""

    ratio_chosen = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rungs: tuple[Rung, ...] = ()
        self._settled: tuple[int, ...] = ()
        self._cost = next(iter(COSTS))
        self._at = -1
        self._now = math.nan
        self.setMinimumHeight(130 + self.fontMetrics().height())
        self.setFocusPolicy(Qt.StrongFocus)
        self.setMouseTracking(True)
        self.setAccessibleName("Agreement with the dense run, and cost, against the keep ratio")
        self.setToolTip("Click a point to set its keep ratio, or Left, Right and Enter.")

    def set_rungs(self, rungs: Sequence[Rung], settled: Sequence[int] = ()) -> None:
        """Show these, from the highest ratio down, and how many voxels settle at each."""
        self._rungs, self._settled = tuple(rungs), tuple(settled)
        self._at = min(self._at, len(self._rungs) - 1)
        self.update()

    def set_cost(self, cost: str) -> None:
        """Draw another of `COSTS`."""
        self._cost = cost
        self.update()

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Colours and what they mean."""
        if not self._rungs:
            return []
        lines = [(_AGREEMENT.name(), "lowest agreement with keeping all")]
        if self._rungs[0].reference:
            lines.append((_REFERENCE.name(), "mean Dice with the reference"))
        lines.append((_COST.name(), f"{self._cost}, from 0 to {COSTS[self._cost][1].format(self._most())}"))
        return [*lines, (self._grey().name(QColor.HexArgb), "voxels that are steady down to there")]

    def _most(self) -> float:
        return max((COSTS[self._cost][0](rung) for rung in self._rungs), default=0.0) or 1.0

    def _grey(self) -> QColor:
        grey = self.palette().windowText().color()
        grey.setAlphaF(0.25)
        return grey

    def set_now(self, ratio: float) -> None:
        """Mark the ratio that is set."""
        self._now = ratio
        self.update()

    def place(self, number: int) -> QPointF:
        """Where the point of agreement of a rung is drawn."""
        rung = self._rungs[number]
        return QPointF(self._x(rung.keep_ratio), self._y(rung.worst))

    def cost_place(self, number: int) -> QPointF:
        """Where the point of the cost of a rung is drawn."""
        rung = self._rungs[number]
        return QPointF(self._x(rung.keep_ratio), self._share(COSTS[self._cost][0](rung) / self._most()))

    def paintEvent(self, event: QEvent | None) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        ink = self.palette().windowText().color()
        painter.setPen(QPen(ink, 1))
        left, top, right, bottom = self._margin
        painter.drawRect(QRectF(left, top, self.width() - left - right, self.height() - top - bottom))
        high = self.fontMetrics().height()
        for value in (self._floor(), 1.0):
            at = QRectF(0, self._y(value) - high / 2, left - 4, high)
            painter.drawText(at, Qt.AlignRight | Qt.AlignVCenter, f"{value:.2f}")
        if not self._rungs:
            painter.drawText(self.rect(), Qt.AlignCenter, "not compared yet")
            return
        self._draw_histogram(painter)
        self._draw_ratios(painter)
        self._line(painter, _COST, [self.cost_place(k) for k in range(len(self._rungs))])
        if self._rungs[0].reference:
            points = [QPointF(self._x(r.keep_ratio), self._y(r.reference_dice)) for r in self._rungs]
            self._line(painter, _REFERENCE, points)
        self._line(painter, _AGREEMENT, [self.place(k) for k in range(len(self._rungs))])
        if self._at >= 0:
            painter.setPen(QPen(ink, 2))
            painter.setBrush(Qt.NoBrush)
            painter.drawEllipse(self.place(self._at), 6, 6)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose the nearest ratio."""
        if event is not None and self._rungs:
            self._choose(self._nearest(event.pos().x()))

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Say what a point stands for."""
        if event is not None and self._rungs:
            QToolTip.showText(
                self.mapToGlobal(event.pos()), rung_words(self._rungs[self._nearest(event.pos().x())]), self
            )

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Left and Right go along, Enter chooses."""
        if event is None or not self._rungs:
            return
        step = {Qt.Key_Left: 1, Qt.Key_Right: -1}.get(event.key(), 0)
        if step:
            self._at = min(max(0, self._at + step), len(self._rungs) - 1)
            self.update()
        elif event.key() in (Qt.Key_Return, Qt.Key_Enter, Qt.Key_Space) and self._at >= 0:
            self._choose(self._at)
        else:
            super().keyPressEvent(event)

    def _choose(self, number: int) -> None:
        self._at = number
        self.update()
        self.ratio_chosen.emit(self._rungs[number].keep_ratio)

    def _nearest(self, x: float) -> int:
        return int(np.argmin([abs(self._x(rung.keep_ratio) - x) for rung in self._rungs]))

    def _draw_histogram(self, painter: QPainter) -> None:
        """How many voxels settle at each ratio; those that never change would hide the others, so not at the lowest."""
        most, grey = max(self._settled[:-1], default=0), self._grey()
        for rung, n in zip(self._rungs[:-1], self._settled[:-1], strict=False):
            if n:
                bottom, x = self._share(0), self._x(rung.keep_ratio)
                painter.fillRect(QRectF(x - 6, self._share(n / most), 12, bottom - self._share(n / most)), grey)

    def _draw_ratios(self, painter: QPainter) -> None:
        last, high = math.inf, self.fontMetrics().height()
        under = QRectF(0, self.height() - high, self.width(), high)
        painter.drawText(under, Qt.AlignCenter, "keep ratio")
        wide = self.fontMetrics().horizontalAdvance("0.15")
        for rung in self._rungs:
            x = self._x(rung.keep_ratio)
            if last - x > wide + 1:
                at = QRectF(x - wide, self.height() - 2 * high - 2, 2 * wide, high)
                painter.drawText(at, Qt.AlignCenter, f"{rung.keep_ratio:g}")
                last = x
        if math.isfinite(self._now):
            painter.setPen(QPen(self.palette().windowText().color(), 1, Qt.DashLine))
            x = self._x(self._now)
            painter.drawLine(QPointF(x, self._margin[1]), QPointF(x, self.height() - self._margin[3]))

    def _line(self, painter: QPainter, color: QColor, points: Sequence[QPointF]) -> None:
        painter.setPen(QPen(color, 2))
        painter.setBrush(color)
        for a, b in pairwise(points):
            painter.drawLine(a, b)
        for point in points:
            painter.drawEllipse(point, 3, 3)

    @property
    def _margin(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom: as much as the numbers need in the font that there is."""
        metrics = self.fontMetrics()
        return metrics.horizontalAdvance("0.00") + 6, 10, 8, 2 * metrics.height() + 4

    def _floor(self) -> float:
        known = [value for r in self._rungs for value in (r.worst, r.reference_dice) if math.isfinite(value)]
        return min(0.9, math.floor(10 * min(known, default=0.9)) / 10)

    def _x(self, ratio: float) -> float:
        low = math.log(min([r.keep_ratio for r in self._rungs] or [0.02], default=0.02)) or -1.0
        left, _, right, _ = self._margin
        place = min(1.0, max(0.0, 1 - math.log(max(ratio, 1e-3)) / low))
        return left + 8 + place * (self.width() - left - right - 16)

    def _y(self, value: float) -> float:
        floor = self._floor()
        return self._share((max(floor, value if math.isfinite(value) else floor) - floor) / (1 - floor))

    def _share(self, share: float) -> float:
        _, top, _, bottom = self._margin
        return top + 4 + (1 - share) * (self.height() - top - bottom - 8)


def rung_words(rung: Rung) -> str:
    """One ratio of a sweep in words."""
    lines = [f"Keep ratio {rung.keep_ratio:g}: {' → '.join(map(str, rung.left))} tokens"]
    lines += [
        f"{row.name}: Dice {row.dice:.3f}, HD95 {millimetres(row.hd95)} mm, {row.ml - row.other_ml:+.2f} mL"
        for row in rung.agreement
    ]
    lines.append(f"{rung.gmac:.1f} GMAC, {rung.seconds:.2f} s, {rung.memory / 2**20:.0f} MiB held at most")
    if rung.reference:
        lines.append(f"mean Dice with the reference {rung.reference_dice:.3f}")
    return "\n".join(lines)
