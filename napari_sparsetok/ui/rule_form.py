"""Which rule picks the tokens: what ranks them, and how many are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QVBoxLayout, QWidget

from napari_sparsetok.state import Selection, Settings
from napari_sparsetok.ui.inspect_part import button_of, choose_among, narrow
from napari_sparsetok.ui.inspect_words import RULES

KEEP_BY = (("a share", "share"), ("a share for each stage", "stages"), ("a threshold", "threshold"))


@dataclass(frozen=True)
class RuleRequest:
    """How tokens are to be picked from now on. `values` are ratios or a threshold, as the person wrote them."""

    selection: Selection
    keep_by: str
    values: str


class RuleForm(QWidget):
    """A choice of rule. It is asked for by the button, since it means another run."""

    chosen = Signal(object)  # a `RuleRequest`

    def __init__(self) -> None:
        super().__init__()
        self._selection, self._reference, self._keep_by = (narrow(QComboBox()) for _ in range(3))
        for name, (words, tip) in RULES.items():
            self._selection.addItem(words, name)
            self._selection.setItemData(self._selection.count() - 1, tip, Qt.ToolTipRole)
        self._selection.setToolTip("What ranks the tokens. The network is the same.")
        self._reference.setToolTip("A labels layer on the scan's voxels: to rank by, and to compare with")
        for words, name in KEEP_BY:
            self._keep_by.addItem(words, name)
        self._keep_by.setToolTip("How many tokens a stage keeps; a threshold lets the number follow the scan")
        self._values = QLineEdit()
        self._values.setToolTip("Ratios, one for each stage, as 0.5, 0.25; or the lowest score that is kept")
        self._keep_by.currentIndexChanged.connect(
            lambda: self._values.setVisible(self._keep_by.currentData() != "share")
        )
        self._values.setVisible(False)
        form = QFormLayout()
        form.addRow("Rank by", self._selection)
        form.addRow("Reference", self._reference)
        form.addRow("Keep", self._keep_by)
        form.addRow("", self._values)
        apply = button_of("Segment by this rule", "Run the same network again with these tokens")
        apply.clicked.connect(self._on_apply)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(apply)
        self._shown: tuple[object, ...] = ()

    def set_references(self, names: Sequence[str]) -> None:
        """Labels layers on the scan's voxels."""
        choose_among(self._reference, ["none", *names])

    @property
    def reference(self) -> int:
        """Which of them, counted from 0; -1 is none."""
        return int(self._reference.currentIndex()) - 1

    def set_rule(self, settings: Settings) -> None:
        """What holds now. What a person is choosing meanwhile stays, as long as that is what held before."""
        rule = (settings.selection, settings.threshold, settings.stage_ratios)
        if rule == self._shown:
            return
        self._shown = rule
        self._selection.setCurrentIndex(self._selection.findData(settings.selection))
        by = "threshold" if settings.threshold is not None else "stages" if settings.stage_ratios else "share"
        self._keep_by.setCurrentIndex(self._keep_by.findData(by))
        if settings.threshold is not None:
            self._values.setText(f"{settings.threshold:g}")
        elif settings.stage_ratios:
            self._values.setText(", ".join(f"{r:g}" for r in settings.stage_ratios))

    def _on_apply(self) -> None:
        name = cast(Selection, self._selection.currentData())
        self.chosen.emit(RuleRequest(name, str(self._keep_by.currentData()), self._values.text()))
