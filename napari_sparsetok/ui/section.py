"""A part of a panel that can be folded away."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

_ANY = 16_777_215  # what Qt takes for no limit
_FLAT = "text-align: left; padding: 1px 3px; font-weight: bold; border: none; background: transparent"


class Section(QCollapsible):
    """A heading that folds and unfolds what belongs to it, with the mouse or the space bar."""

    def __init__(self, title: str, content: QWidget, tip: str, open: bool = False) -> None:
        # The arrow is part of the words: a picture would keep the colour of the theme that it was drawn in.
        super().__init__("", expandedIcon=QIcon(), collapsedIcon=QIcon())
        self._title = title
        self.setDuration(0)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(2)
        self.addWidget(content)
        self.content().layout().setContentsMargins(6, 0, 0, 3)
        self.toggleButton().setToolTip(tip)
        self.toggleButton().setStyleSheet(_FLAT)
        self.toggled.connect(self._write)
        if open:
            self.expand(animate=False)
        else:
            self.collapse(animate=False)
        self._write(open)

    @property
    def is_open(self) -> bool:
        """Whether what belongs to it is seen."""
        return bool(self.isExpanded())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let what is inside take the height that it needs, also when that grows; superqt holds it to the first."""
        return False

    def _write(self, is_open: bool) -> None:
        self.content().setMaximumHeight(_ANY if is_open else 0)
        self.setText(f"{'▾' if is_open else '▸'}  {self._title}")
