"""When a docked widget is gone for good: Qt has no single event for it, and napari does not say."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget

from napari_sparsetok.ui.later import later


class Lifetime(QObject):
    """Calls `ended` once: when the widget was taken out of its window, its window was closed, or it was destroyed.

    A widget that was in no window yet, or whose dock floats or is hidden, lives on.
    """

    def __init__(self, widget: QWidget, ended: Callable[[], None]) -> None:
        super().__init__(widget)
        self._widget, self._ended = widget, ended
        self._window: QWidget | None = None
        self._over = False
        self._look = later(self, self._on_look)  # once Qt and napari have finished with what they are doing
        widget.installEventFilter(self)
        widget.destroyed.connect(lambda: self._end())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Watch the widget change its parent, and its window close."""
        if event.type() in (QEvent.ParentChange, QEvent.Show, QEvent.Close):
            self._look.start(0)
        return False

    def _on_look(self) -> None:
        window = outermost(self._widget)
        was_docked = self._window is not None
        if was_docked and (window is self._widget or not window.isVisible()) and not self._widget.isVisible():
            self._end()
        elif window is not self._widget and window is not self._window and window.isVisible():
            self._window = window
            window.installEventFilter(self)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._ended()


def outermost(widget: QWidget) -> QWidget:
    """The window that a widget belongs to, also while its dock floats."""
    while widget.parentWidget() is not None:
        widget = widget.parentWidget()
    return widget
