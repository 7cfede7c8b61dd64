"""The tab "Inspect". It shows and asks; it knows neither engine nor viewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QListWidget, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_sparsetok.state import Settings
from napari_sparsetok.ui.inspect_heads import HeadsForm
from napari_sparsetok.ui.inspect_part import Part, button_of, choose_among, column, narrow, words_of
from napari_sparsetok.ui.layer_form import LayerForm
from napari_sparsetok.ui.rule_form import RuleForm
from napari_sparsetok.ui.sweep_form import SweepForm

PAINT = (
    ("must", "Must keep", "Paint tokens that the network has to look at to the end"),
    ("never", "Never keep", "Paint tokens that the first stage has to prune"),
    ("erase", "No opinion", "Take the choice back where you paint"),
)


class InspectPanel(QWidget):
    """Requests are signals; what to show comes in through `set_…`.

    Attributes
    ----------
    sweep, shown, rule, heads : the forms that have signals and setters of their own.
    """

    ask_toggled = Signal(bool)
    piece_chosen = Signal(int)
    unfolded = Signal()  # the tab is seen, or parts of something else are wanted
    paint_requested = Signal(str)
    paint_undo_requested = Signal()
    paint_cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.sweep, self.shown, self.rule, self.heads = SweepForm(), LayerForm(), RuleForm(), HeadsForm()
        body = QVBoxLayout()
        body.setContentsMargins(4, 4, 10, 4)
        self._hint = words_of("Segment a scan first; then this tab shows what the network looked at, and what it cost.")
        body.addWidget(self._hint)
        self._parts = [
            Part("Point and ask", self._ask(), True),
            Part("Was it looked at?", self._unseen(), True),
            Part("Keep ratios compared", self.sweep, True),
            Part("Show on the scan", self.shown, True),
            Part("Choose tokens by hand", self._paint(), False),
            Part("Research: what ranks tokens", self.rule, False),
            Part("Research: attention and heads", self.heads, False),
        ]
        for part in self._parts:
            body.addWidget(part)
        body.addStretch(1)
        inner = QWidget()
        inner.setLayout(body)
        scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        scroll.setFrameShape(QScrollArea.NoFrame)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self.set_possible(False)

    # Building

    def _ask(self) -> QWidget:
        self._ask_button = button_of(
            "&Ask where I point (A)", "Move over the scan to read a token's story; click for more"
        )
        self._ask_button.setCheckable(True)
        self._ask_button.toggled.connect(self.ask_toggled)
        self._story = words_of("Switch this on and move over the scan.")
        self._more = words_of()
        return column(self._ask_button, self._story, self._more)

    def _unseen(self) -> QWidget:
        self._of = narrow(QComboBox())
        self._of.addItem("in the mask")
        self._of.setToolTip(
            "Whose parts: the mask's, one label's, or those of a labels layer on the scan's voxels, as a reference"
        )
        self._labels: list[str] = []
        self._references: list[str] = []
        self._of.currentIndexChanged.connect(lambda: self.unfolded.emit())
        self._unseen_words = words_of()
        self._pieces = QListWidget()
        self._pieces.setMaximumHeight(110)
        self._pieces.setToolTip(
            "Parts of the mask that rest only on completed tokens, the largest first. Click or Enter goes there."
        )
        self._pieces.setAccessibleName("Parts of the mask that the network did not look at to the end")
        self._pieces.setTextElideMode(Qt.ElideRight)
        self._pieces.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self._pieces.itemClicked.connect(lambda item: self.piece_chosen.emit(self._pieces.row(item)))
        self._pieces.itemActivated.connect(lambda item: self.piece_chosen.emit(self._pieces.row(item)))
        return column(self._of, self._unseen_words, self._pieces)

    def _paint(self) -> QWidget:
        row = QHBoxLayout()
        for tool, words, tip in PAINT:
            button = button_of(words, tip)
            button.clicked.connect(lambda checked=False, tool=tool: self.paint_requested.emit(tool))
            row.addWidget(button)
        second = QHBoxLayout()
        self._take_back = (
            button_of("Undo", "Take the last stroke back (Ctrl+Z in the layer)", self.paint_undo_requested),
            button_of("Clear all", "No token is chosen by hand any more", self.paint_cleared),
        )
        for button in self._take_back:
            second.addWidget(button)
        self._budget = words_of()
        words = words_of("The next mask obeys; no score changes. It goes into the record beside the mask.")
        return column(words, row, second, self._budget)

    # What to show

    def set_possible(self, possible: bool) -> None:
        """Whether there is a prediction to inspect."""
        self._hint.setVisible(not possible)
        for part in self._parts:
            part.setEnabled(possible)

    def set_asking(self, on: bool) -> None:
        """Whether pointing asks."""
        self._ask_button.setChecked(on)

    def set_story(self, words: str, more: str = "") -> None:
        """What is known of the token under the cursor, and what only the network knew."""
        self._story.setText(words)
        self._more.setText(more)

    def set_unseen(self, summary: str, lines: Sequence[str]) -> None:
        """Pieces of the mask that rest on completed tokens."""
        self._unseen_words.setText(summary)
        self._pieces.clear()
        self._pieces.addItems(list(lines))
        self._pieces.setVisible(bool(lines))

    @property
    def ask_button(self) -> QPushButton:
        """To be toggled by a key."""
        return self._ask_button

    def set_model(self, stages: int, blocks: int, heads: int) -> None:
        """What the chosen model has."""
        self.shown.set_model(stages)
        self.heads.set_model(blocks, heads)

    def set_references(self, names: Sequence[str]) -> None:
        """Labels layers on the scan's voxels."""
        self._references = list(names)
        self.rule.set_references(names)
        self.shown.set_references(names)
        self._set_of()

    def set_labels(self, names: Sequence[str]) -> None:
        """What the mask may hold."""
        self._labels = list(names)
        self._set_of()

    def _set_of(self) -> None:
        before = self._of.currentText()
        choose_among(self._of, ["in the mask", *(f"in {name}" for name in self._labels), *self._references])
        if self._of.currentText() != before:
            self.unfolded.emit()  # the list was of what is no more

    @property
    def unseen_of(self) -> tuple[int, int]:
        """Whose parts are listed: a label of the mask and a labels layer, each counted from 0; -1 is none of them."""
        at, labels = int(self._of.currentIndex()) - 1, len(self._labels)
        return (at, -1) if at < labels else (-1, at - labels)

    def set_rule(self, settings: Settings) -> None:
        """What holds now."""
        self.rule.set_rule(settings)
        for button in self._take_back:
            button.setEnabled(settings.forced is not None)

    def set_budget(self, words: str) -> None:
        """How many tokens are chosen by hand."""
        self._budget.setText(words)

    def showEvent(self, event: Any) -> None:
        """What nobody saw was not computed."""
        super().showEvent(event)
        self.unfolded.emit()
