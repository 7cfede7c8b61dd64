"""How to paint: the ways of painting, the brush, and the grey values that it keeps to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QCheckBox, QDoubleSpinBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_sparsetok.ui.icon import IconButton

Mode = Literal["look", "brush", "eraser", "restore", "fill", "polygon"]


@dataclass(frozen=True)
class ModeChoice:
    """One way of painting. `key` counts while the mouse is on the scan."""

    mode: Mode
    title: str
    key: str
    words: str


MODES = (
    ModeChoice("look", "Look", "N", "Move and zoom; nothing is painted"),
    ModeChoice("brush", "Brush", "B", "Paint the label. Lasso: right click, move around an area and back"),
    ModeChoice("eraser", "Eraser", "E", "Paint “this is not tissue”: the model cannot bring it back"),
    ModeChoice("restore", "Restore", "R", "Take corrections back: what the model says shows again"),
    ModeChoice("fill", "Fill", "F", "Fill the closed area that you click on with the chosen label"),
    ModeChoice("polygon", "Polygon", "G", "Click the corners of an area; a double click ends it"),
)


class PaintForm(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    mode_chosen = Signal(str)
    brush_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(self._modes())
        layout.addLayout(self._brush())

    @property
    def brush_mm(self) -> float:
        """Diameter of the brush."""
        return float(self._size.value())

    @property
    def is_ball(self) -> bool:
        """Whether the brush paints in neighbouring slices too."""
        return bool(self._ball.isChecked())

    def set_mode(self, mode: Mode) -> None:
        """The way of painting that is chosen."""
        for button in self.buttons:
            button.setChecked(button.property("mode") == mode)

    def set_brush_mm(self, mm: float) -> None:
        """The size was changed elsewhere."""
        self._size.blockSignals(True)
        self._size.setValue(mm)
        self._size.blockSignals(False)

    def _modes(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(3)
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        for choice in MODES:
            button = IconButton(choice.mode)
            button.setCheckable(True)
            button.setToolTip(f"<b>{choice.title}</b> ({choice.key})<br>{choice.words}")
            button.setAccessibleName(choice.title)
            button.setProperty("mode", choice.mode)
            button.setStyleSheet("padding: 3px")
            self._group.addButton(button)
            row.addWidget(button)
        self.buttons = self._group.buttons()
        self._group.buttonClicked.connect(lambda button: self.mode_chosen.emit(button.property("mode")))
        return row

    def _brush(self) -> QHBoxLayout:
        self._size = _number(0.5, 100, 4, 0.5, "Diameter of the brush ([ and ] on the scan)")
        self._size.setSuffix(" mm")
        self._ball = QCheckBox("&ball (3-D)")
        self._ball.setToolTip("Paint in the neighbouring slices too, as a ball in millimetres")
        row = QHBoxLayout()
        words = QLabel("Bru&sh")
        words.setBuddy(self._size)
        for widget in (words, self._size, self._ball):
            row.addWidget(widget)
        row.setStretch(1, 1)
        self._size.valueChanged.connect(lambda mm: self.brush_changed.emit())
        self._ball.toggled.connect(lambda on: self.brush_changed.emit())
        return row


class LimitForm(QWidget):
    """The grey values that the brush keeps to."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._on = QCheckBox("&Only these grey values, from … to")
        self._on.setToolTip("The brush and the eraser paint only voxels whose grey value lies in this range")
        self._low = _number(-1e6, 1e6, 0, 10, "The lowest value that is painted")
        self._high = _number(-1e6, 1e6, 100, 10, "The highest value that is painted")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._on)
        row = QHBoxLayout()
        for widget in (self._low, self._high):
            row.addWidget(widget, 1)
        layout.addLayout(row)
        self._on.toggled.connect(lambda on: self.changed.emit())
        for number in (self._low, self._high):
            number.valueChanged.connect(lambda value: self.changed.emit())

    @property
    def limits(self) -> tuple[float, float] | None:
        """The range, or None if every value is painted."""
        if not self._on.isChecked():
            return None
        low, high = sorted((self._low.value(), self._high.value()))
        return float(low), float(high)

    def propose(self, low: float, high: float) -> None:
        """A range for a new scan; not used until it is ticked."""
        self._on.setChecked(False)
        step = max((high - low) / 50, 1e-3)
        for box, value in ((self._low, low), (self._high, high)):
            box.setDecimals(0 if step >= 1 else 3)
            box.setSingleStep(round(step) if step >= 1 else step)
            box.setValue(value)


def _number(low: float, high: float, value: float, step: float, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setDecimals(1)
    box.setSingleStep(step)
    box.setValue(value)
    box.setToolTip(tip)
    box.setMinimumWidth(40)
    return box
