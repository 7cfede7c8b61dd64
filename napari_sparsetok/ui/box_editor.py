"""Three range sliders that say which box of the scan is segmented."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget
from superqt import QRangeSlider
from superqt.utils import signals_blocked

from napari_sparsetok.scan import Region, Shape

_AXES = (("I – S", "inferior to superior"), ("A – P", "anterior to posterior"), ("R – L", "right to left"))


class BoxEditor(QWidget):
    """Edits a region along the shown axes. Says millimetres, keeps voxels."""

    region_changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._spacing = (1.0, 1.0, 1.0)
        self._sliders: list[QRangeSlider] = []
        self._labels: list[QLabel] = []
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(2)
        for row, (name, words) in enumerate(_AXES):
            slider = QRangeSlider(Qt.Horizontal)
            slider.setToolTip(f"First and last slice of the box, {words}")
            slider.setAccessibleName(f"Box, {words}")
            slider.valueChanged.connect(self._on_moved)
            label = QLabel()
            label.setAlignment(Qt.AlignRight | Qt.AlignVCenter)
            label.setMinimumWidth(label.fontMetrics().horizontalAdvance("888 mm"))
            layout.addWidget(QLabel(name), row, 0)
            layout.addWidget(slider, row, 1)
            layout.addWidget(label, row, 2)
            self._sliders.append(slider)
            self._labels.append(label)
        layout.setColumnStretch(1, 1)

    def set_region(self, region: Region, shape: Shape, spacing: tuple[float, float, float]) -> None:
        """Show a region of a scan of this shape and spacing."""
        self._spacing = spacing
        for slider, a, b, n in zip(self._sliders, region.start, region.stop, shape, strict=True):
            with signals_blocked(slider):
                slider.setRange(0, n)
                slider.setValue((a, b))
        self._write_labels()

    def region(self) -> Region:
        """The box, at least one voxel thick."""
        values = [slider.value() for slider in self._sliders]
        start = tuple(min(int(a), slider.maximum() - 1) for (a, _), slider in zip(values, self._sliders, strict=True))
        stop = tuple(max(int(b), a + 1) for (_, b), a in zip(values, start, strict=True))
        return Region(start, stop)

    def _on_moved(self) -> None:
        self._write_labels()
        self.region_changed.emit(self.region())

    def _write_labels(self) -> None:
        for label, length, step in zip(self._labels, self.region().shape, self._spacing, strict=True):
            label.setText(f"{length * step:.0f} mm")
