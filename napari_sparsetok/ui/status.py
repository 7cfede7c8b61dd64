"""The lines below all tabs: what is being done, how far it is, and on which device."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_sparsetok.state import Busy, DeviceReport
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.words import Words

PATIENCE_MS = 300
PROGRESS_MS = 250
"""How often it says how far something is. Each time something is drawn anew, on the cores that work."""
_PLAIN = "padding: 0px;"  # napari's would move it out of line


class Status(QWidget):
    """What is being done.

    written : it says something else now; a brief job may be over before it is said.
    """

    written = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._busy: Busy | None = None
        self._ahead = False
        self._next = ""
        self._device_words = QLabel()
        self._device_words.setWordWrap(True)
        self._device_words.setStyleSheet(_PLAIN)
        self._words = Words(lines=2)
        self._words.setText(self._idle())
        self._progress = QProgressBar()
        self._progress.setTextVisible(False)
        self._progress.setMaximumHeight(6)
        policy = self._progress.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # or everything above jumps, and is laid out anew, at each run
        self._progress.setSizePolicy(policy)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 0, 8, 2)
        layout.setSpacing(2)
        for widget in (self._progress, self._words, self._device_words):
            layout.addWidget(widget)
        self._progress.setVisible(False)
        # A move of the slider is mostly answered in less; words that come and go with each would flicker, and every
        # change in the panel is drawn on the cores that the network needs.
        self._patience = later(self, self._write, PATIENCE_MS)
        self._progressed = later(self, self._write_late, PROGRESS_MS)  # while it runs, progress was said just now
        self._said: Busy | None = None

    @property
    def text(self) -> str:
        """What is being done, as it says."""
        return str(self._words.text())

    def set_busy(self, busy: Busy | None) -> None:
        """What is being done; None is nothing."""
        if busy == self._busy:
            return
        self._busy = busy
        if busy is not None and busy.brief and self._progress.isHidden():  # nothing is shown yet
            if not self._patience.isActive():
                self._patience.start()
            return
        self._patience.stop()
        said = self._said
        if busy and said and self._progressed.isActive() and replace(busy, done=said.done) == said:
            return  # it is said when the time has come
        self._write()

    def set_looking_ahead(self, more: bool) -> None:
        """Whether the processor has work although nobody asked for any."""
        self._ahead = more
        if self._busy is None:
            self._write()

    def set_next(self, words: str) -> None:
        """What the person has to do next, if anything must be done before there is a mask."""
        if words == self._next:
            return
        self._next = words
        if self._busy is None:
            self._write()

    def set_device(self, device: DeviceReport | None) -> None:
        """What computes. An idle GPU is said loudly."""
        loud = device is not None and bool(device.warning)
        self._device_words.setText("" if device is None else device.warning or device.name)
        self._device_words.setProperty("loud", loud)
        self._device_words.setStyleSheet(_PLAIN + "font-weight: bold;" if loud else _PLAIN)

    def _idle(self) -> str:
        if self._next:
            return f"ready: {self._next}"
        return "ready, and computing other keep ratios ahead" if self._ahead else "ready"

    def _write(self) -> None:
        busy = self._said = self._busy
        self._progressed.start()
        self._progress.setVisible(busy is not None)
        if busy is None:
            self._words.setText(self._idle())
        else:
            self._write_progress(busy)
        self.written.emit()

    def _write_late(self) -> None:
        if self._busy is not None and self._busy != self._said and not self._patience.isActive():
            self._write()

    def _write_progress(self, busy: Busy) -> None:
        counted = f"{busy.done} of\u00a0{busy.total}\u00a0{busy.unit}" if busy.unit != "%" else f"{busy.done}\u00a0%"
        counted = f": {counted}" if busy.total else "\u00a0…"
        self._words.setText(busy.what + counted)
        if (self._progress.maximum(), self._progress.value()) != (busy.total, busy.done):
            self._progress.setUpdatesEnabled(False)  # or each call would paint the whole window before it returns
            self._progress.setRange(0, busy.total)
            self._progress.setValue(busy.done)
            self._progress.setUpdatesEnabled(True)
