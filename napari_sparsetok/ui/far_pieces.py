"""What was found far from the structure that it was taken for: left out of the mask, said, and back at a click."""

from __future__ import annotations

from math import prod

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_sparsetok.state import Prediction
from napari_sparsetok.ui.words import Words


class FarPieces(QWidget):
    """Hidden for models that leave nothing out. Emits `keep_requested(bool)`: whether all pieces are to stay."""

    keep_requested = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QCheckBox("Leave out far pieces")
        self._box.setToolTip(
            "Each of this model's structures is one connected piece in a body.\n"
            "What is found far from the largest piece is left out of the mask, here and when it is saved."
        )
        self._box.setChecked(True)
        self._box.toggled.connect(lambda on: self.keep_requested.emit(not on))
        self._words = Words(lines=0)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        row.addWidget(self._words, 1)
        self.hide()

    def set_possible(self, possible: bool) -> None:
        """Whether the model names structures of one piece."""
        self.setVisible(possible)

    def set_kept(self, kept: bool) -> None:
        """Show whether all pieces stay, without asking for anything."""
        with signals_blocked(self._box):
            self._box.setChecked(not kept)

    def set_prediction(self, prediction: Prediction | None) -> None:
        """Say what was left out of it: in few words, and in the tooltip by label."""
        if prediction is None or not prediction.left_out:
            self._words.setText("")
            self._words.setToolTip("")
            return
        millilitres = prod(prediction.scan.geometry.spacing) / 1000
        volume = sum(voxels for _, voxels in prediction.left_out) * millilitres
        self._words.setText(f"{len(prediction.left_out)}\u00a0· {volume:.2f}\u00a0mL")
        self._words.setToolTip("\n".join(["Left out of the mask:", *_by_label(prediction, millilitres)]))


def _by_label(prediction: Prediction, millilitres: float) -> list[str]:
    rows = []
    for label in prediction.labels:
        voxels = [n for number, n in prediction.left_out if number == label.id]
        if voxels:
            count = "1 piece" if len(voxels) == 1 else f"{len(voxels)} pieces"
            rows.append(f"{label.name}: {count}, {sum(voxels) * millilitres:.2f} mL")
    return rows
