"""The tab "Inspect". It shows and asks; it knows neither engine nor viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sparsetok.inspection.ladder import Rung
from napari_sparsetok.state import Selection, Settings
from napari_sparsetok.ui.inspect_plot import HeadMap, SweepPlot
from napari_sparsetok.ui.inspect_words import RULES

LAYERS = (
    ("boxes", "token &outlines (O)", "Every token as a box in the slice, in the colour of the stage that pruned it"),
    ("stage", "scores of stage", "The scores at one stage; gone tokens are left empty"),
    ("lowest", "steady from (&Y)", "The lowest keep ratio from which each voxel's label no longer changes"),
    ("difference", "&difference (D)", "Where this mask and the one that keeps all tokens disagree"),
)
KEEP_BY = (("a share", "share"), ("a share for each stage", "stages"), ("a threshold", "threshold"))
PAINT = (
    ("must", "Must keep", "Paint tokens that the network has to look at to the end"),
    ("never", "Never keep", "Paint tokens that the first stage has to prune"),
    ("erase", "No opinion", "Take the choice back where you paint"),
)


_FLAT = "text-align: left; padding: 3px; font-weight: bold; border: none; background: transparent"


@dataclass(frozen=True)
class RuleRequest:
    """How tokens are to be picked from now on. `values` are ratios or a threshold, as the person wrote them."""

    selection: Selection
    keep_by: str
    values: str


class InspectPanel(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    ask_toggled = Signal(bool)
    attention_requested = Signal(int, int)  # block, or -1 for all; head, or -1 for their mean
    piece_chosen = Signal(int)
    unfolded = Signal()  # the tab is seen, or parts of something else are wanted
    paint_requested = Signal(str)
    paint_undo_requested = Signal()
    paint_cleared = Signal()
    sweep_requested = Signal()
    ratio_chosen = Signal(float)
    auto_requested = Signal(float)
    export_requested = Signal()
    blink_toggled = Signal(bool)
    layer_toggled = Signal(str, bool)
    stage_chosen = Signal(int)
    rule_chosen = Signal(object)
    heads_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        body = QVBoxLayout()
        body.setContentsMargins(4, 4, 10, 4)
        self._hint = QLabel("Segment a scan first; then this tab shows what the network looked at, and what it cost.")
        self._hint.setWordWrap(True)
        body.addWidget(self._hint)
        self._parts = [
            Part("Point and ask", self._ask(), True),
            Part("Was it looked at?", self._unseen(), True),
            Part("Keep ratios compared", self._sweep(), True),
            Part("Show on the scan", self._layers(), True),
            Part("Choose tokens by hand", self._paint(), False),
            Part("For researchers: what ranks tokens", self._rule(), False),
            Part("For researchers: attention and heads", self._attention(), False),
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
        self._ask_button = _button(
            "&Ask where I point (A)", "Move over the scan to read a token's story; click for more", None
        )
        self._ask_button.setCheckable(True)
        self._ask_button.toggled.connect(self.ask_toggled)
        self._story = _words("Switch this on and move over the scan.")
        self._more = _words("")
        return _column(self._ask_button, self._story, self._more)

    def _unseen(self) -> QWidget:
        self._of = QComboBox()
        self._of.addItem("in the mask")
        self._of.setToolTip("Whose parts: the mask's, or those of a labels layer on the scan's voxels, as a reference")
        self._of.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._of.setMinimumContentsLength(12)
        self._of.currentIndexChanged.connect(lambda: self.unfolded.emit())
        self._unseen_words = _words("")
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
        return _column(self._of, self._unseen_words, self._pieces)

    def _sweep(self) -> QWidget:
        self._sweep_button = _button(
            "&Compare keep ratios",
            "Segment this scan at eight ratios from keeping all to next to nothing",
            self.sweep_requested,
        )
        self.plot = SweepPlot()
        self.plot.ratio_chosen.connect(self.ratio_chosen)
        self._agreement = _words("")
        self._least = QDoubleSpinBox()
        self._least.setRange(0.5, 1.0)
        self._least.setDecimals(3)
        self._least.setSingleStep(0.005)
        self._least.setValue(0.99)
        self._least.setToolTip("Every label must agree with keeping all tokens at least so much (Dice)")
        self._auto = _button("Auto", "Set the smallest ratio that was tried and agrees so much", None)
        self._auto.clicked.connect(lambda: self.auto_requested.emit(self._least.value()))
        self._blink = _button("&Blink (B)", "Swap the mask with the one that keeps all tokens, twice a second", None)
        self._blink.setCheckable(True)
        self._blink.toggled.connect(self.blink_toggled)
        self._export = _button("E&xport…", "Write the comparison as CSV, JSON, PNG or SVG", self.export_requested)
        row = QHBoxLayout()
        for widget in (self._auto, self._least, self._blink, self._export):
            row.addWidget(widget)
        column = _column(self._sweep_button, self.plot, self._agreement)
        column.layout().addLayout(row)
        return column

    def _layers(self) -> QWidget:
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        self._toggles: dict[str, QCheckBox] = {}
        self._stage = QSpinBox()
        self._stage.setMinimum(1)
        self._stage.setToolTip("Which stage's scores")
        self._stage.valueChanged.connect(self.stage_chosen)
        for place, (kind, words, tip) in enumerate(LAYERS):
            toggle = QCheckBox(words)
            toggle.setToolTip(tip)
            toggle.toggled.connect(lambda on, kind=kind: self.layer_toggled.emit(kind, on))
            grid.addWidget(toggle, place, 0)
            self._toggles[kind] = toggle
        grid.addWidget(self._stage, 1, 1)
        return box

    def _paint(self) -> QWidget:
        row = QHBoxLayout()
        for tool, words, tip in PAINT:
            button = _button(words, tip, None)
            button.clicked.connect(lambda checked=False, tool=tool: self.paint_requested.emit(tool))
            row.addWidget(button)
        second = QHBoxLayout()
        second.addWidget(_button("Undo", "Take the last stroke back (Ctrl+Z in the layer)", self.paint_undo_requested))
        second.addWidget(_button("Clear all", "No token is chosen by hand any more", self.paint_cleared))
        self._budget = _words("")
        words = _words("The next mask obeys; no score changes. It goes into the record beside the mask.")
        column = _column(words)
        for line in (row, second):
            column.layout().addLayout(line)
        column.layout().addWidget(self._budget)
        return column

    def _rule(self) -> QWidget:
        self._selection = QComboBox()
        for name, (words, tip) in RULES.items():
            self._selection.addItem(words, name)
            self._selection.setItemData(self._selection.count() - 1, tip, Qt.ToolTipRole)
        self._selection.setToolTip("What ranks the tokens. The network is the same.")
        self._reference = QComboBox()
        self._reference.setToolTip("A labels layer on the scan's voxels: to rank by, and to compare with")
        self._keep_by = QComboBox()
        for words, name in KEEP_BY:
            self._keep_by.addItem(words, name)
        self._keep_by.setToolTip("How many tokens a stage keeps; a threshold lets the number follow the scan")
        self._values = QLineEdit()
        self._values.setToolTip("Ratios, one for each stage, as 0.5, 0.25; or the lowest score that is kept")
        self._keep_by.currentIndexChanged.connect(
            lambda: self._values.setVisible(self._keep_by.currentData() != "share")
        )
        self._values.setVisible(False)
        for choice in (self._selection, self._reference, self._keep_by):
            choice.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
            choice.setMinimumContentsLength(12)
        form = QFormLayout()
        form.addRow("Rank by", self._selection)
        form.addRow("Reference", self._reference)
        form.addRow("Keep", self._keep_by)
        form.addRow("", self._values)
        column = _column()
        column.layout().addLayout(form)
        apply = _button("Segment by this rule", "Run the same network again with these tokens", None)
        apply.clicked.connect(self._on_rule)
        column.layout().addWidget(apply)
        return column

    def _attention(self) -> QWidget:
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
        show = _button("Show where the token looked", "For the token that you clicked last, as a layer", None)
        show.clicked.connect(lambda: self.attention_requested.emit(self._block.value() - 1, self._head.value() - 1))
        heads = _button(
            "Which heads matter?", "Silence each head in turn, in the window of that token", self.heads_requested
        )
        self.head_map = HeadMap()
        self.head_map.head_chosen.connect(self._on_head)
        self._head_words = _words("")
        column = _column()
        column.layout().addLayout(form)
        for widget in (show, heads, self.head_map, self._head_words):
            column.layout().addWidget(widget)
        return column

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

    def set_rungs(self, rungs: Sequence[Rung], settled: Sequence[int], words: str) -> None:
        """The comparison of keep ratios: each, how many voxels settle there, and a sentence."""
        self.plot.set_rungs(rungs, settled)
        self._agreement.setText(words)
        for widget in (self._auto, self._blink, self._export, self._toggles["lowest"], self._toggles["difference"]):
            widget.setEnabled(bool(rungs))

    def set_layer(self, kind: str, on: bool) -> None:
        """Whether a layer is asked for."""
        self._toggles[kind].setChecked(on)

    def layer_wanted(self, kind: str) -> bool:
        """Whether a layer is asked for."""
        return bool(self._toggles[kind].isChecked())

    def toggle_layer(self, kind: str) -> None:
        """As a click on it."""
        if self._toggles[kind].isEnabled() and self.isEnabled():
            self._toggles[kind].toggle()

    @property
    def blink_button(self) -> QPushButton:
        """To be toggled by a key."""
        return self._blink

    @property
    def ask_button(self) -> QPushButton:
        """To be toggled by a key."""
        return self._ask_button

    @property
    def stage(self) -> int:
        """Whose scores are shown, counted from 1."""
        return int(self._stage.value())

    @property
    def least(self) -> float:
        """The agreement that Auto asks for."""
        return float(self._least.value())

    def set_model(self, stages: int, blocks: int, heads: int) -> None:
        """What the chosen model has."""
        self._stage.setMaximum(max(1, stages))
        self._block.setMaximum(blocks)
        self._head.setMaximum(heads)

    def set_references(self, names: Sequence[str]) -> None:
        """Labels layers on the scan's voxels."""
        for choice, first in ((self._reference, "none"), (self._of, "in the mask")):
            now = choice.currentText()
            choice.blockSignals(True)
            choice.clear()
            choice.addItems([first, *names])
            choice.setCurrentIndex(max(0, choice.findText(now)))
            choice.blockSignals(False)

    @property
    def reference(self) -> int:
        """Which of them, counted from 0; -1 is none."""
        return int(self._reference.currentIndex()) - 1

    @property
    def unseen_of(self) -> int:
        """Whose parts are listed: a labels layer, counted from 0; -1 is the mask."""
        return int(self._of.currentIndex()) - 1

    def set_rule(self, settings: Settings) -> None:
        """What holds now."""
        self._selection.setCurrentIndex(self._selection.findData(settings.selection))
        by = "threshold" if settings.threshold is not None else "stages" if settings.stage_ratios else "share"
        self._keep_by.setCurrentIndex(self._keep_by.findData(by))
        if settings.threshold is not None:
            self._values.setText(f"{settings.threshold:g}")
        elif settings.stage_ratios:
            self._values.setText(", ".join(f"{r:g}" for r in settings.stage_ratios))

    def set_budget(self, words: str) -> None:
        """How many tokens are chosen by hand."""
        self._budget.setText(words)

    def set_heads(self, loss: Any, reach: Any, words: str) -> None:
        """What silencing heads did."""
        self.head_map.set_heads(loss, reach)
        self._head_words.setText(words)

    def showEvent(self, event: Any) -> None:
        """What nobody saw was not computed."""
        super().showEvent(event)
        self.unfolded.emit()

    # Slots

    def _on_rule(self) -> None:
        name = cast(Selection, self._selection.currentData())
        self.rule_chosen.emit(RuleRequest(name, str(self._keep_by.currentData()), self._values.text()))

    def _on_head(self, block: int, head: int) -> None:
        self._block.setValue(block + 1)
        self._head.setValue(head + 1)
        self.attention_requested.emit(block, head)


class Part(QWidget):
    """A heading that folds what is under it away."""

    def __init__(self, title: str, content: QWidget, is_open: bool) -> None:
        super().__init__()
        self._title = title
        self._head = _button("", "Fold and unfold", None)
        self._head.setCheckable(True)
        self._head.setStyleSheet(_FLAT)
        self._content = content
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.addWidget(self._head)
        layout.addWidget(content)
        self._head.toggled.connect(self._on_toggled)
        self._head.setChecked(is_open)
        self._on_toggled(is_open)

    def set_open(self, is_open: bool) -> None:
        """Fold or unfold."""
        self._head.setChecked(is_open)

    def _on_toggled(self, is_open: bool) -> None:
        self._head.setText(f"{'▾' if is_open else '▸'}  {self._title}")
        self._content.setVisible(is_open)


def _column(*widgets: QWidget) -> QWidget:
    box = QWidget()
    layout = QVBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return box


def _words(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.RichText)
    return label


def _button(words: str, tip: str, signal: Any) -> QPushButton:
    button = QPushButton(words)
    button.setToolTip(tip)
    if signal is not None:
        button.clicked.connect(lambda: signal.emit())
    return button
