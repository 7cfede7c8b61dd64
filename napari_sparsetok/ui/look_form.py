"""How the mask is drawn while it is corrected."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QSlider, QWidget


class LookForm(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    filled_chosen = Signal(bool)
    opacity_changed = Signal(float)
    blink_toggled = Signal(bool)
    difference_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._style = QComboBox()
        self._style.addItems(["outline", "filled"])
        self._style.setToolTip("Draw the mask as an outline, or filled")
        self._opacity = QSlider(Qt.Horizontal)
        self._opacity.setRange(5, 100)
        self._opacity.setValue(95)
        self._opacity.setToolTip("How strongly the mask is drawn")
        self._blink = QCheckBox("Blin&k")
        self._blink.setToolTip("Show and hide the mask in turn, twice a second (J)")
        self._difference = QCheckBox("Only what you &changed")
        self._difference.setToolTip(
            "Hide the mask, and draw only where it differs from the prediction: cyan was added or relabelled, "
            "magenta was taken away"
        )
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for row, (words, widget) in enumerate((("Mas&k", self._style), ("O&pacity", self._opacity))):
            label = QLabel(words)
            label.setBuddy(widget)
            grid.addWidget(label, row, 0)
            grid.addWidget(widget, row, 1)
        grid.addWidget(self._blink, 2, 0)
        grid.addWidget(self._difference, 2, 1)
        grid.setColumnStretch(1, 1)
        self._style.currentIndexChanged.connect(lambda index: self.filled_chosen.emit(index == 1))
        self._opacity.valueChanged.connect(lambda value: self.opacity_changed.emit(value / 100))
        self._blink.toggled.connect(self.blink_toggled)
        self._difference.toggled.connect(self.difference_toggled)

    def set_look(self, filled: bool, opacity: float) -> None:
        """How the mask is drawn now."""
        for widget in (self._style, self._opacity):
            widget.blockSignals(True)
        self._style.setCurrentIndex(int(filled))
        self._opacity.setValue(round(100 * opacity))
        for widget in (self._style, self._opacity):
            widget.blockSignals(False)

    def set_blinking(self, on: bool) -> None:
        """Tick or clear the box, as if the person had."""
        self._blink.setChecked(on)

    @property
    def is_blinking(self) -> bool:
        """Whether the mask blinks."""
        return bool(self._blink.isChecked())

    @property
    def is_different(self) -> bool:
        """Whether only what was changed is drawn."""
        return bool(self._difference.isChecked())

    def set_difference(self, on: bool) -> None:
        """Tick or clear the box, as if the person had."""
        self._difference.setChecked(on)
