"""The tab "Correct". It shows and asks; it knows neither layer nor viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from magicgui.widgets import ComboBox, Container, FloatSpinBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

Mode = Literal["look", "brush", "eraser", "restore", "fill", "polygon"]

MODES: tuple[tuple[Mode, str, str], ...] = (
    ("look", "&Look", "Move and zoom; nothing is painted"),
    ("brush", "&Brush", "Paint the chosen label"),
    ("eraser", "&Eraser", "Paint “this is not tissue”: the model cannot bring it back"),
    ("restore", "&Restore", "Take corrections back: what the model says shows again"),
    ("fill", "F&ill", "Fill the area that you click on with the chosen label"),
    ("polygon", "&Polygon", "Draw around an area; double-click ends"),
)


@dataclass(frozen=True)
class ToolChoice:
    """One tool: what it is called, what its number means, and where that starts."""

    name: str
    title: str
    number: str
    value: float
    in_slice: bool = True


TOOLS = (
    ToolChoice("fill_between", "fill between corrected slices", "", 0.0, in_slice=False),
    ToolChoice("remove_islands", "remove islands", "Below, mm³", 20.0),
    ToolChoice("keep_largest", "keep the largest part", "", 0.0),
    ToolChoice("fill_holes", "fill holes", "", 0.0),
    ToolChoice("smooth", "smooth", "Width, mm", 2.0),
    ToolChoice("grow", "grow", "By, mm", 1.0),
    ToolChoice("shrink", "shrink", "By, mm", 1.0),
)


@dataclass(frozen=True)
class LabelRow:
    """What the table says of one label. `change` is against the prediction, both in mL."""

    id: int
    name: str
    color: str
    ml: float
    change: float
    locked: bool = False


@dataclass(frozen=True)
class ToolRequest:
    """What the person asked a tool to do to the chosen label."""

    tool: str
    number: float
    in_slice: bool


class CorrectPanel(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    start_requested = Signal()
    bring_back_requested = Signal()
    leave_requested = Signal()
    mode_chosen = Signal(str)
    label_chosen = Signal(int)
    lock_toggled = Signal(int, bool)
    brush_changed = Signal(float)
    tool_requested = Signal(object)
    undo_requested = Signal()
    redo_requested = Signal()
    save_requested = Signal()
    save_as_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[LabelRow, ...] = ()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 10, 4)
        for part in (self._offer(), self._start(), self._tools()):
            layout.addWidget(part)
        layout.addStretch(1)
        self.set_offer("")
        self.set_active(False)

    # Building

    def _offer(self) -> QWidget:
        self._offer_box = QWidget()
        self._offer_words = QLabel()
        self._offer_words.setWordWrap(True)
        back, leave = QPushButton("Bring them back"), QPushButton("Leave them")
        back.setToolTip("Put the kept corrections on this scan")
        leave.setToolTip("Start without them; they stay kept until you correct this scan again")
        back.clicked.connect(self.bring_back_requested)
        leave.clicked.connect(self.leave_requested)
        grid = QGridLayout(self._offer_box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self._offer_words, 0, 0, 1, 2)
        grid.addWidget(back, 1, 0)
        grid.addWidget(leave, 1, 1)
        return self._offer_box

    def _start(self) -> QWidget:
        self._start_box = QWidget()
        words = QLabel(
            "Corrections go into a layer of their own. The model never changes what you drew, and moving the keep "
            "ratio never loses it."
        )
        words.setWordWrap(True)
        self._start_button = QPushButton("&Correct this mask")
        self._start_button.setToolTip("Add the corrections layer and choose the brush")
        self._start_button.clicked.connect(self.start_requested)
        layout = QVBoxLayout(self._start_box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(words)
        layout.addWidget(self._start_button)
        return self._start_box

    def _tools(self) -> QWidget:
        self._tool_box = QWidget()
        layout = QVBoxLayout(self._tool_box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table())
        layout.addLayout(self._modes())
        layout.addWidget(self._brush())
        layout.addLayout(self._steps())
        layout.addWidget(self._tool_form())
        self._said = QLabel()
        self._said.setWordWrap(True)
        layout.addWidget(self._said)
        layout.addLayout(self._saving())
        return self._tool_box

    def _saving(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self._save, self._save_as = QPushButton(), QPushButton("Save &as…")
        self._save.clicked.connect(self.save_requested)
        self._save_as.clicked.connect(self.save_as_requested)
        self._save_as.setToolTip("Save under another name, or in another format")
        row.addWidget(self._save, 1)
        row.addWidget(self._save_as)
        self.set_saved_as("")
        return row

    def _table(self) -> QTableWidget:
        table = QTableWidget(0, 4)
        table.setHorizontalHeaderLabels(["Label", "mL", "Δ mL", "Lock"])
        table.setSelectionBehavior(QAbstractItemView.SelectRows)
        table.setSelectionMode(QAbstractItemView.SingleSelection)
        table.setEditTriggers(QAbstractItemView.NoEditTriggers)
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.Stretch)
        table.setToolTip(
            "Choose the label to paint. Δ mL: what your corrections changed. A locked label is not changed by tools."
        )
        table.setMaximumHeight(160)
        table.setShowGrid(False)
        table.setWordWrap(True)
        table.itemSelectionChanged.connect(self._on_selected)
        table.itemChanged.connect(self._on_item_changed)
        self._labels = table
        return table

    def _modes(self) -> QGridLayout:
        grid = QGridLayout()
        self._buttons = QButtonGroup(self)
        self._buttons.setExclusive(True)
        for place, (mode, title, tip) in enumerate(MODES):
            button = QPushButton(title)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setProperty("mode", mode)
            self._buttons.addButton(button)
            grid.addWidget(button, place // 3, place % 3)
        self._buttons.buttonClicked.connect(lambda button: self.mode_chosen.emit(button.property("mode")))
        return grid

    def _brush(self) -> QWidget:
        self._size = FloatSpinBox(
            label="Brush, mm", min=0.5, max=100, step=0.5, value=4, tooltip="Diameter of the brush"
        )
        self._size.changed.connect(lambda mm: self.brush_changed.emit(float(mm)))
        box = Container(widgets=[self._size])
        box.margins = (0, 0, 0, 0)
        self._brush_form = box
        return box.native

    def _steps(self) -> QHBoxLayout:
        row = QHBoxLayout()
        for title, tip, key, signal in (
            ("&Undo", "Take the last stroke or tool back", QKeySequence.Undo, self.undo_requested),
            ("Re&do", "Do it again", QKeySequence.Redo, self.redo_requested),
        ):
            button = QPushButton(title)
            button.setToolTip(f"{tip} ({QKeySequence(key).toString()} in the layer)")
            button.clicked.connect(signal)
            row.addWidget(button)
        return row

    def _tool_form(self) -> QWidget:
        self._tool = ComboBox(
            label="Tool", choices=[(t.title, t.name) for t in TOOLS], tooltip="Works on the chosen label"
        )
        self._number = FloatSpinBox(
            label="", min=0.1, max=10000, step=0.5, value=1, tooltip="How much; in a slice, mm² instead of mm³"
        )
        self._scope = ComboBox(
            label="Where",
            choices=[("in 3-D", False), ("in this slice", True)],
            tooltip="All slices, or only the one you see",
        )
        self._tool.changed.connect(self._on_tool)
        for choice in (self._tool, self._scope):  # a long choice is cut rather than widens the panel
            choice.native.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
            choice.native.setMinimumContentsLength(12)
        form = Container(widgets=[self._tool, self._number, self._scope])
        form.margins = (0, 0, 0, 0)
        self._form = form
        self._apply = QPushButton("&Apply the tool")
        self._apply.setToolTip("One undo step")
        self._apply.clicked.connect(self._on_apply)
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(form.native)
        layout.addWidget(self._apply)
        self._on_tool(TOOLS[0].name)
        return box

    # What to show

    def set_offer(self, words: str) -> None:
        """Corrections that were kept for this scan; "" if there are none to offer."""
        self._offer_words.setText(words)
        self._offer_box.setVisible(bool(words))

    def set_possible(self, possible: bool) -> None:
        """Whether there is a mask to correct."""
        self._start_button.setEnabled(possible)

    def set_active(self, active: bool) -> None:
        """Whether the corrections layer is there."""
        self._start_box.setVisible(not active)
        self._tool_box.setVisible(active)

    def set_labels(self, rows: Sequence[LabelRow]) -> None:
        """The label table; the chosen row stays chosen."""
        if tuple(rows) == self._rows:
            return
        self._rows = tuple(rows)
        chosen = max(0, self._labels.currentRow())
        self._labels.blockSignals(True)
        self._labels.setRowCount(len(rows))
        for k, row in enumerate(rows):
            self._write_row(k, row)
        if rows:
            self._labels.selectRow(min(chosen, len(rows) - 1))
            self._labels.resizeRowsToContents()
        self._labels.blockSignals(False)

    def _write_row(self, k: int, row: LabelRow) -> None:
        name = QTableWidgetItem(row.name)
        name.setData(Qt.DecorationRole, QColor(row.color))
        name.setToolTip(row.name)
        ml = QTableWidgetItem(f"{row.ml:.2f}")
        change = QTableWidgetItem(f"{row.change:+.2f}" if abs(row.change) >= 0.005 else "–")
        for item in (ml, change):
            item.setTextAlignment(Qt.AlignRight | Qt.AlignVCenter)
        lock = QTableWidgetItem()
        lock.setFlags(Qt.ItemIsUserCheckable | Qt.ItemIsEnabled | Qt.ItemIsSelectable)
        lock.setCheckState(Qt.Checked if row.locked else Qt.Unchecked)
        for column, item in enumerate((name, ml, change, lock)):
            self._labels.setItem(k, column, item)

    def set_saved_as(self, name: str) -> None:
        """The file that *Save* writes again; "" if it has to ask first."""
        self._save.setText("Save &mask" if name else "Save corrected &mask…")
        what = "Save what you see: the prediction with your corrections, on the grid of the scan's file"
        self._save.setToolTip(f"{what}, again as {name}" if name else what)
        self._save_as.setVisible(bool(name))

    def set_mode(self, mode: Mode) -> None:
        """The way of painting that is chosen."""
        for button in self._buttons.buttons():
            button.setChecked(button.property("mode") == mode)

    def set_said(self, words: str) -> None:
        """How much is corrected, and whether it is safe."""
        self._said.setText(words)

    @property
    def chosen_label(self) -> int:
        """The label to paint; 0 if the table is empty."""
        row = self._labels.currentRow()
        return self._rows[row].id if 0 <= row < len(self._rows) else 0

    @property
    def brush_mm(self) -> float:
        """Diameter of the brush."""
        return float(self._size.value)

    # Slots

    def _on_selected(self) -> None:
        if self.chosen_label:
            self.label_chosen.emit(self.chosen_label)

    def _on_item_changed(self, item: QTableWidgetItem) -> None:
        if item.column() == 3 and item.row() < len(self._rows):
            self.lock_toggled.emit(self._rows[item.row()].id, item.checkState() == Qt.Checked)

    def _on_tool(self, name: str) -> None:
        tool = next(t for t in TOOLS if t.name == name)
        self._number.label = tool.number or "How much"
        self._number.visible = bool(tool.number)
        if tool.number:
            self._number.value = tool.value
        self._scope.visible = tool.in_slice

    def _on_apply(self) -> None:
        tool = next(t for t in TOOLS if t.name == self._tool.value)
        in_slice = bool(self._scope.value) and tool.in_slice
        self.tool_requested.emit(ToolRequest(tool.name, float(self._number.value), in_slice))
