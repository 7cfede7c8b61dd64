"""Keep ratios compared: the plot, what to take from it, and the two masks in turn."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sparsetok.inspection.ladder import Rung
from napari_sparsetok.ui.icon import Tint
from napari_sparsetok.ui.inspect_part import button_of, words_of
from napari_sparsetok.ui.inspect_plot import COSTS, SweepPlot
from napari_sparsetok.ui.legend import Legend


class SweepForm(QWidget):
    """Asks for a comparison, and shows it as it grows."""

    compare_requested = Signal()
    ratio_chosen = Signal(float)
    auto_requested = Signal(float)
    export_requested = Signal()
    blink_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        compare = button_of(
            "&Compare keep ratios",
            "Segment this scan at eight ratios from keeping all to next to nothing",
            self.compare_requested,
        )
        self.plot = SweepPlot()
        self.plot.ratio_chosen.connect(self.ratio_chosen)
        self._legend = Legend()
        self._tint = Tint(self.plot, lambda ink: self._legend.set_colors(self.plot.legend))  # one of them is the ink's
        self._cost = QComboBox()
        self._cost.addItems(list(COSTS))
        self._cost.setToolTip("What the orange line shows of each keep ratio")
        self._cost.currentTextChanged.connect(self._on_cost)
        self._words = words_of()
        self._least = QDoubleSpinBox()
        self._least.setRange(0.5, 1.0)
        self._least.setDecimals(3)
        self._least.setSingleStep(0.005)
        self._least.setValue(0.99)
        self._least.setToolTip("Every label must agree with keeping all tokens at least so much (Dice)")
        self._auto = button_of("Auto: agree by", "Set the smallest ratio that was tried and agrees so much")
        self._auto.clicked.connect(lambda: self.auto_requested.emit(self._least.value()))
        self._blink = button_of("&Blink (Shift+B)", "Swap the mask with the one that keeps all tokens, twice a second")
        self._blink.setCheckable(True)
        self._blink.toggled.connect(self.blink_toggled)
        self._export = button_of("E&xport…", "Write the comparison as CSV, JSON, PNG or SVG", self.export_requested)
        rows = QGridLayout()
        for place, widget in enumerate((self._auto, self._least, self._blink, self._export)):
            rows.addWidget(widget, place // 2, place % 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for item in (compare, self.plot, self._legend, self._cost_row(), self._words):
            layout.addWidget(item)
        layout.addLayout(rows)
        self.set_rungs((), (), "")

    def _cost_row(self) -> QWidget:
        self._costs = QWidget()
        row = QHBoxLayout(self._costs)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Cost drawn"))
        row.addWidget(self._cost, 1)
        return self._costs

    def _on_cost(self, cost: str) -> None:
        self.plot.set_cost(cost)
        self._legend.set_colors(self.plot.legend)

    def set_rungs(self, rungs: Sequence[Rung], settled: Sequence[int], words: str) -> None:
        """The comparison: each ratio, how many voxels settle there, and a sentence."""
        self.plot.set_rungs(rungs, settled)
        self._legend.set_colors(self.plot.legend)
        self._costs.setVisible(bool(rungs))
        self._words.setText(words)
        for widget in (self._auto, self._blink, self._export):
            widget.setEnabled(bool(rungs))

    @property
    def blink_button(self) -> QPushButton:
        """To be toggled by a key."""
        return self._blink

    @property
    def least(self) -> float:
        """The agreement that Auto asks for."""
        return float(self._least.value())
