"""The tab "Correct". It shows and asks; it knows neither layer nor viewer."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_sparsetok.ui.label_view import LabelRow, LabelView
from napari_sparsetok.ui.look_form import LookForm
from napari_sparsetok.ui.paint_form import LimitForm, Mode, PaintForm
from napari_sparsetok.ui.review_form import ReviewForm
from napari_sparsetok.ui.section import Section
from napari_sparsetok.ui.teach_form import TeachForm
from napari_sparsetok.ui.tool_form import ToolForm


class CorrectPanel(QWidget):
    """Requests are signals, its own and those of its parts; what to show comes in through `set_…`.

    Attributes
    ----------
    labels, paint, limits, tools, review, looks, teach : its parts.
    """

    start_requested = Signal()
    bring_back_requested = Signal()
    leave_requested = Signal()
    undo_requested = Signal()
    redo_requested = Signal()
    save_requested = Signal()
    save_as_requested = Signal()
    volumes_requested = Signal()
    kept_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.labels, self.paint, self.limits = LabelView(), PaintForm(), LimitForm()
        self.tools, self.review, self.looks, self.teach = ToolForm(), ReviewForm(), LookForm(), TeachForm()
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(4, 4, 10, 4)
        for part in (self._offer(), self._start(), self._work()):
            layout.addWidget(part)
        layout.addStretch(1)
        outside = QVBoxLayout(self)
        outside.setContentsMargins(0, 0, 0, 0)
        outside.addWidget(_Scrolled(inside), 1)
        outside.addWidget(self._end())
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
        kept = QPushButton("&Kept corrections…")
        kept.setToolTip("List what is kept on this computer from earlier work, and delete what is not needed any more")
        kept.clicked.connect(self.kept_requested)
        layout = QVBoxLayout(self._start_box)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (words, self._start_button, kept):
            layout.addWidget(widget)
        return self._start_box

    def _work(self) -> QWidget:
        self._work_box = QWidget()
        layout = QVBoxLayout(self._work_box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.labels)
        layout.addWidget(self.paint)
        layout.addLayout(self._steps())
        self.tools_section = Section("Tools", self.tools, "Tools that work on a whole label", open=True)
        self.review_section = Section("What to look at next", self.review, "Doubtful parts of the mask, worst first")
        self.limits_section = Section("Grey values", self.limits, "Let the brush paint only some grey values")
        self.looks_section = Section("How it is drawn", self.looks, "Outline, opacity, blinking, difference")
        self.teach_section = Section(
            "Run again with corrections", self.teach, "What your corrections can tell the model"
        )
        self.more_section = Section("More", self._more(), "Volumes; what is kept on this computer")
        for section in (
            self.tools_section,
            self.review_section,
            self.limits_section,
            self.looks_section,
            self.teach_section,
            self.more_section,
        ):
            layout.addWidget(section)
        return self._work_box

    def _more(self) -> QWidget:
        box = QWidget()
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 0, 0, 0)
        for title, tip, signal in (
            ("&Volumes…", "Volume, intensity and size of every label; copy or save them", self.volumes_requested),
            ("&Kept…", "List and clean what is kept on this computer from earlier work", self.kept_requested),
        ):
            button = QPushButton(title)
            button.setToolTip(tip)
            button.clicked.connect(signal)
            row.addWidget(button)
        return box

    def _steps(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self._undo, self._redo = QPushButton("&Undo"), QPushButton("Re&do")
        for button, tip, key, signal in (
            (self._undo, "Take the last stroke or tool back", QKeySequence.Undo, self.undo_requested),
            (self._redo, "Do it again", QKeySequence.Redo, self.redo_requested),
        ):
            button.setToolTip(f"{tip} ({QKeySequence(key).toString()} in the layer)")
            button.clicked.connect(signal)
            row.addWidget(button)
        self.set_steps(undo=False, redo=False)
        return row

    def _end(self) -> QWidget:
        """Always in sight, below what scrolls."""
        self._end_box = QWidget()
        layout = QVBoxLayout(self._end_box)
        layout.setContentsMargins(4, 2, 10, 2)
        self._said = QLabel()
        self._said.setWordWrap(True)
        row = QHBoxLayout()
        self._save, self._save_as = QPushButton(), QPushButton("Save &as…")
        self._save.clicked.connect(self.save_requested)
        self._save_as.clicked.connect(self.save_as_requested)
        self._save_as.setToolTip("Save under another name, or in another format")
        row.addWidget(self._save, 1)
        row.addWidget(self._save_as)
        layout.addWidget(self._said)
        layout.addLayout(row)
        self.set_saved_as("")
        return self._end_box

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
        self._work_box.setVisible(active)
        self._end_box.setVisible(active)

    def set_steps(self, undo: bool, redo: bool) -> None:
        """Whether there is a step to take back, and one to do again."""
        self._undo.setEnabled(undo)
        self._redo.setEnabled(redo)

    def set_labels(self, rows: Sequence[LabelRow]) -> None:
        """The label table; the chosen row stays chosen."""
        self.labels.set_rows(rows)

    def set_said(self, words: str) -> None:
        """Whether the corrections are safe."""
        self._said.setText(words)

    def set_saved_as(self, name: str) -> None:
        """The file that *Save* writes again; "" if it has to ask first."""
        self._save.setText("Save &mask" if name else "Save corrected &mask…")
        what = "Save what you see: the prediction with your corrections, on the grid of the scan's file"
        self._save.setToolTip(f"{what}, again as {name}" if name else what)
        self._save_as.setVisible(bool(name))

    def set_mode(self, mode: Mode) -> None:
        """The way of painting that is chosen."""
        self.paint.set_mode(mode)

    @property
    def chosen_label(self) -> int:
        """The label to paint; 0 if the table is empty."""
        return self.labels.chosen


class _Scrolled(QScrollArea):
    """Scrolls up and down only, and is never narrower than what is inside."""

    def __init__(self, inside: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.setWidget(inside)

    def minimumSizeHint(self) -> QSize:
        width = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(width, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        return QSize(self.minimumSizeHint().width(), self.widget().sizeHint().height())
