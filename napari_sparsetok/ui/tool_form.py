"""The tools on a whole label: which, how much, where; preview and apply."""

from __future__ import annotations

from dataclasses import dataclass

from magicgui.widgets import ComboBox, Container, FloatSpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_sparsetok.tool import ToolRequest


@dataclass(frozen=True)
class ToolChoice:
    """One tool: what it is called, what its number means, and where that starts."""

    name: str
    title: str
    number: str
    value: float
    in_slice: bool = True


TOOLS = (
    ToolChoice("fill_between", "fill between slices", "", 0.0, in_slice=False),
    ToolChoice("remove_islands", "remove islands", "Below, mm³", 20.0),
    ToolChoice("keep_largest", "keep the largest part", "", 0.0),
    ToolChoice("fill_holes", "fill holes", "", 0.0),
    ToolChoice("smooth", "smooth", "Width, mm", 2.0),
    ToolChoice("grow", "grow", "By, mm", 1.0),
    ToolChoice("shrink", "shrink", "By, mm", 1.0),
)


class ToolForm(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    preview_requested = Signal(object)
    apply_requested = Signal(object)
    drop_requested = Signal()
    cancel_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_previewed = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self._choices())
        layout.addLayout(self._buttons())
        layout.addWidget(self._waiting())
        self._said = QLabel()
        self._said.setWordWrap(True)
        layout.addWidget(self._said)
        self._on_tool(TOOLS[0].name)
        self.set_previewed("")
        self.set_working(False)
        for part in (self._number, self._scope, self._labels):
            part.changed.connect(self._on_changed)

    @property
    def request(self) -> ToolRequest:
        """What is chosen."""
        tool = next(t for t in TOOLS if t.name == self._tool.value)
        in_slice = bool(self._scope.value) and tool.in_slice
        return ToolRequest(tool.name, float(self._number.value), in_slice, bool(self._labels.value))

    def set_previewed(self, words: str) -> None:
        """What the previewed tool would change; "" if none is."""
        self._is_previewed = bool(words)
        self._said.setText(words)
        self._said.setVisible(bool(words))
        self._preview.setText("Drop &preview" if words else "&Preview")
        self._preview.setToolTip(
            "Take the preview away; nothing was changed" if words else "Show what the tool would do, before it is done"
        )

    def set_working(self, working: bool, done: int = 0, total: int = 0) -> None:
        """Whether a tool is at work, and how far it is."""
        self._wait_box.setVisible(working)
        self._bar.setRange(0, total)
        self._bar.setValue(done)

    # Building

    def _choices(self) -> QWidget:
        self._tool = ComboBox(label="Tool", choices=[(t.title, t.name) for t in TOOLS], tooltip="What to do")
        self._number = FloatSpinBox(
            label="", min=0.1, max=10000, step=0.5, value=1, tooltip="How much; in a slice, mm² instead of mm³"
        )
        self._scope = ComboBox(
            label="Where",
            choices=[("in 3-D", False), ("in this slice", True)],
            tooltip="All slices, or only the one you see",
        )
        self._labels = ComboBox(
            label="Labels",
            choices=[("the chosen one", False), ("all that are not locked", True)],
            tooltip="What it works on; a locked label is never changed",
        )
        self._tool.changed.connect(self._on_tool)
        for choice in (self._tool, self._scope, self._labels):  # a long choice is cut rather than widens the panel
            choice.native.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
            choice.native.setMinimumContentsLength(12)
        form = Container(widgets=[self._tool, self._number, self._scope, self._labels])
        form.margins = (0, 0, 0, 0)
        self._form = form
        return form.native

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self._preview, self._apply = QPushButton(), QPushButton("&Apply")
        self._apply.setToolTip("Do it, as one undo step")
        self._preview.clicked.connect(self._on_preview)
        self._apply.clicked.connect(lambda: self.apply_requested.emit(self.request))
        row.addWidget(self._preview)
        row.addWidget(self._apply)
        return row

    def _waiting(self) -> QWidget:
        self._wait_box = QWidget()
        row = QHBoxLayout(self._wait_box)
        row.setContentsMargins(0, 0, 0, 0)
        self._bar = QProgressBar()
        self._bar.setToolTip("The tool works; you can go on meanwhile")
        stop = QPushButton("Cancel")
        stop.setToolTip("Stop the tool; nothing is changed")
        stop.clicked.connect(self.cancel_requested)
        row.addWidget(self._bar, 1)
        row.addWidget(stop)
        return self._wait_box

    # Slots

    def _on_tool(self, name: str) -> None:
        tool = next(t for t in TOOLS if t.name == name)
        self._number.label = tool.number or "How much"
        self._number.visible = bool(tool.number)
        if tool.number:
            self._number.value = tool.value
        self._scope.visible = tool.in_slice
        self._on_changed()

    def _on_changed(self, value: object = None) -> None:
        """A preview follows what is chosen, and so does the unit."""
        tool = next(t for t in TOOLS if t.name == self._tool.value)
        if tool.number:
            self._number.label = tool.number.replace("mm³", "mm²") if self._scope.value else tool.number
        if self._is_previewed:
            self.preview_requested.emit(self.request)

    def _on_preview(self) -> None:
        if self._is_previewed:
            self.drop_requested.emit()
        else:
            self.preview_requested.emit(self.request)
