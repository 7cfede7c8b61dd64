"""Once, a little later."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer


def later(owner: QObject, slot: Callable[[], None], milliseconds: int = 0) -> QTimer:
    """A timer that calls a function each time it runs out; to start it again puts that off. It dies with its owner."""
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer
