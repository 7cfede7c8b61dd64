"""A native window for the panel, so that drawing it anew does not draw the rest of the viewer's window.

napari's canvas is drawn by OpenGL, and Qt puts a window that holds such a widget together by OpenGL, all of it,
whenever anything in it changes. Without a graphics card that takes some 30 ms of the cores that the network needs, for
each step of a progress bar. A child with a native window of its own is drawn without.
"""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QWidget


class OwnWindow(QObject):
    """Gives a widget a native window where that is known to work: on X11.

    The keyboard stays with the window around it. X would hand it to whatever window was clicked, and Qt would then send
    keys to the widget that had the focus there last, whichever has it now.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        if QGuiApplication.platformName() != "xcb":
            return
        widget.setAttribute(Qt.WidgetAttribute.WA_DontCreateNativeAncestors)
        widget.setAttribute(Qt.WidgetAttribute.WA_NativeWindow)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Look again whenever the native window may be another: when the dock was made to float, or put back."""
        if event.type() in (QEvent.Type.WinIdChange, QEvent.Type.Show):
            self._leave_keyboard_outside()
        return False

    def _leave_keyboard_outside(self) -> None:
        if (window := self._widget.windowHandle()) is not None:
            window.setFlag(Qt.WindowType.WindowDoesNotAcceptFocus, not self._widget.isWindow())
