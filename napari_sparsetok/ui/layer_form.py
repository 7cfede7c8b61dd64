"""What of the tokens is drawn on the scan, how strongly, and what its colours mean."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sparsetok.ui.inspect_layers import HEAT_ENDS, difference_colors
from napari_sparsetok.ui.inspect_part import choose_among, narrow
from napari_sparsetok.ui.legend import Legend
from napari_sparsetok.ui.style import stage_color, stage_name

LAYERS = (
    (
        "boxes",
        "token &outlines (O)",
        "Every token as a box in the slice, in the colour of the stage that pruned it;\n"
        "in 3-D a square for each that passed the first stage, large if it was kept",
    ),
    ("stage", "scores of stage (Shift+S)", "The scores at one stage; gone tokens are left empty"),
    (
        "share",
        "kept by &windows (Shift+O)",
        "Where windows overlap, in which share of them a token was kept to the end: from none (clear) to all (full)",
    ),
    ("lowest", "steady from (&Y)", "The lowest keep ratio from which each voxel's label no longer changes"),
    (
        "difference",
        "&difference (D)",
        "Where this mask and another disagree: the one that keeps all tokens, or a reference",
    ),
)


_ALL = "keeping all"
_HEAT_WORDS = {
    "stage": ("low score", "high score"),
    "share": ("kept by few windows", "kept by all windows"),
    "lowest": ("steady from a low ratio", "steady from a high ratio"),
}


class LayerForm(QWidget):
    """A toggle for each layer, one opacity for all, and a legend for what is on."""

    layer_toggled = Signal(str, bool)
    stage_chosen = Signal(int)
    against_chosen = Signal()
    opacity_chosen = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self._stages = 0
        self._compared = False
        self._toggles: dict[str, QCheckBox] = {}
        self._legend = Legend()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._choices())
        layout.addLayout(self._difference_from())
        layout.addLayout(self._strength())
        layout.addWidget(self._legend)
        self._show_legend()

    # Building

    def _choices(self) -> QGridLayout:
        self._stage = QSpinBox()
        self._stage.setMinimum(1)
        self._stage.setToolTip("Which stage's scores")
        self._stage.valueChanged.connect(self.stage_chosen)
        grid = QGridLayout()
        for place, (kind, words, tip) in enumerate(LAYERS):
            toggle = QCheckBox(words)
            toggle.setToolTip(tip)
            toggle.toggled.connect(lambda on, kind=kind: self._on_toggled(kind, on))
            grid.addWidget(toggle, place, 0, 1, 1 if kind == "stage" else 2)
            self._toggles[kind] = toggle
        grid.addWidget(self._stage, 1, 1)
        return grid

    def _difference_from(self) -> QHBoxLayout:
        self._against = narrow(QComboBox())
        self._against.addItem(_ALL)
        self._against.setToolTip("Which mask the difference is from: keeping all tokens, or a labels layer")
        self._against.currentIndexChanged.connect(self._on_against)
        row = QHBoxLayout()
        row.addWidget(QLabel("Difference from"))
        row.addWidget(self._against, 1)
        return row

    def _strength(self) -> QHBoxLayout:
        self._opacity = QSlider(Qt.Horizontal)
        self._opacity.setRange(10, 100)
        self._opacity.setValue(85)
        self._opacity.setToolTip("How strongly these layers cover the scan")
        self._opacity.setAccessibleName("Opacity of the inspector's layers")
        self._opacity.valueChanged.connect(lambda value: self.opacity_chosen.emit(value / 100))
        row = QHBoxLayout()
        row.addWidget(QLabel("Opacity"))
        row.addWidget(self._opacity)
        return row

    # What to show

    def set_model(self, stages: int) -> None:
        """How many stages the chosen model has."""
        self._stages = stages
        self._stage.setMaximum(max(1, stages))
        self._show_legend()

    def set_compared(self, compared: bool) -> None:
        """Whether there is a comparison of keep ratios, which some layers show."""
        self._compared = compared
        self._toggles["lowest"].setEnabled(compared)
        self._toggles["difference"].setEnabled(compared or self.against >= 0)
        self._show_legend()

    def set_references(self, names: Sequence[str]) -> None:
        """Labels layers on the scan's voxels."""
        choose_among(self._against, [_ALL, *names])
        self.set_compared(self._compared)

    @property
    def against(self) -> int:
        """What the difference is from: a labels layer, counted from 0; -1 is the mask that keeps all."""
        return int(self._against.currentIndex()) - 1

    def set_overlapping(self, overlapping: bool) -> None:
        """Whether windows overlap anywhere."""
        self._toggles["share"].setEnabled(overlapping)
        self._show_legend()

    def set_layer(self, kind: str, on: bool) -> None:
        """Whether a layer is asked for."""
        self._toggles[kind].setChecked(on)

    def wanted(self, kind: str) -> bool:
        """Whether a layer is asked for."""
        return bool(self._toggles[kind].isChecked())

    def toggle(self, kind: str) -> None:
        """As a click on it."""
        if self._toggles[kind].isEnabled() and self.isEnabled():
            self._toggles[kind].toggle()

    @property
    def stage(self) -> int:
        """Whose scores are shown, counted from 1."""
        return int(self._stage.value())

    @property
    def opacity(self) -> float:
        """Of the layers, 0.1 … 1."""
        return float(self._opacity.value()) / 100

    def _on_against(self) -> None:
        self.set_compared(self._compared)
        self.against_chosen.emit()

    def _on_toggled(self, kind: str, on: bool) -> None:
        self._show_legend()
        self.layer_toggled.emit(kind, on)

    def _show_legend(self) -> None:
        colors: list[tuple[str, str]] = []
        drawn = [kind for kind, toggle in self._toggles.items() if toggle.isChecked() and toggle.isEnabledTo(self)]
        for kind in drawn:
            colors += zip(HEAT_ENDS, _HEAT_WORDS.get(kind, ()), strict=False)
        if "boxes" in drawn:
            stages = range(1, self._stages + 2)
            colors += [(stage_color(k, self._stages), stage_name(k, self._stages)) for k in stages]
        if "difference" in drawn:
            colors += difference_colors(self.against >= 0)
        self._legend.set_colors(colors)
