"""A part of a panel that can be folded away."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

_FLAT = "text-align: left; padding: 3px; font-weight: bold; border: none; background: transparent"


class Section(QCollapsible):
    """A heading that folds and unfolds what belongs to it, with the mouse or the space bar."""

    def __init__(self, title: str, content: QWidget, tip: str, open: bool = False) -> None:
        super().__init__(title, expandedIcon="▾", collapsedIcon="▸")
        self.setDuration(0)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(2)
        self.addWidget(content)
        self.content().layout().setContentsMargins(6, 2, 0, 4)
        self.toggleButton().setToolTip(tip)
        self.toggleButton().setStyleSheet(_FLAT)
        if open:
            self.expand(animate=False)
        else:
            self.collapse(animate=False)

    @property
    def is_open(self) -> bool:
        """Whether what belongs to it is seen."""
        return bool(self.isExpanded())
