"""From other threads to the GUI's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QObject, Qt, Signal, Slot

Call = Callable[[], None]


class _Door(QObject):
    """Lives on the GUI thread and calls there what comes in.

    One for the life of the program. superqt's `ensure_main_thread` makes a QObject for each call, on the calling
    thread, and has it destroyed on whichever thread lets go of it last; ours come by the hundred, and while windows
    are being closed.
    """

    _knocked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._knocked.connect(self._on_knocked, Qt.QueuedConnection)
        app = QCoreApplication.instance()
        if app is not None:  # whichever thread was the first to load this
            self.moveToThread(app.thread())

    def hand_in(self, call: Call) -> None:
        """Have it called soon; from any thread."""
        self._knocked.emit(call)

    @Slot(object)
    def _on_knocked(self, call: Call) -> None:
        call()


_door = _Door()


def on_gui_thread(call: Call, owner: QObject | None = None) -> None:
    """Call a function on the GUI thread: at once from there, soon from any other, in the order in which they came.

    If `owner` is given, only if that is not deleted by then, as happens when a window is closed meanwhile.
    """
    if owner is not None:
        call = partial(_call_while_alive, owner, call)
    if threading.current_thread() is threading.main_thread():
        call()
    else:
        _door.hand_in(call)


def _call_while_alive(owner: QObject, call: Call) -> None:
    if isalive(owner):
        call()
