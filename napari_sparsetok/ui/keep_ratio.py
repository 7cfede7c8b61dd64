"""The keep-ratio slider with its echo: counts, funnel, and what the last run cost."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget
from superqt import QDoubleSlider, QLabeledDoubleSlider
from superqt.utils import signals_blocked

from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.state import Timing
from napari_sparsetok.ui.funnel import Funnel
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.style import duration, share
from napari_sparsetok.ui.words import Words

SMALLEST = 0.01
_TOKENS = (
    "A token is a small box of the scan that the network works on as a whole. Those that a score network\n"
    "finds unimportant are pruned: they are not computed any further, which saves time. The mask is drawn\n"
    "in all of the scan all the same."
)
_EMPTY = (
    "Patches of nothing but background, as the air around a body:\n"
    "this model takes none of them in, whatever the keep ratio."
)
_STEPS = {
    Qt.Key_Right: 0.01,
    Qt.Key_Up: 0.01,
    Qt.Key_Left: -0.01,
    Qt.Key_Down: -0.01,
    Qt.Key_PageUp: 0.1,
    Qt.Key_PageDown: -0.1,
    Qt.Key_Home: -1.0,
    Qt.Key_End: 1.0,
}
_SETTLED_MS = 250  # after this long without a key or wheel step the value counts as chosen


class KeepRatioBox(QWidget):
    """Emits `moved(ratio, live)`: live while the slider is held, and once more when it rests."""

    moved = Signal(float, bool)
    limit_requested = Signal(float)  # seconds

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QLabeledDoubleSlider(Qt.Horizontal)
        self._slider.setRange(SMALLEST, 1.0)
        self._slider.setSingleStep(0.01)
        self._slider.setDecimals(2)
        self._ratio = self._said
        handle = self._slider.findChild(QDoubleSlider)
        handle.installEventFilter(self)  # superqt's slider knows no keys
        self._slider.setFocusProxy(handle)
        self._slider.setAccessibleName("Keep ratio")
        self._slider.setToolTip(
            "Share of the tokens still left that each pruning stage keeps.\n"
            "1 prunes nothing; less is faster. Arrow keys move it by 0.01, Page Up and Down by 0.1."
        )
        caption = QLabel("&Keep ratio, at each stage")
        caption.setBuddy(self._slider)
        self._counts = Words(lines=1)
        self._token = ""
        self._funnel = Funnel()
        self._funnel.setToolTip("What became of the tokens. The colours are those of the tokens layer.")
        self._cost = Words(lines=2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (caption, self._slider, self._counts, self._funnel, self._cost):
            layout.addWidget(widget)
        layout.addLayout(self._build_limit())
        self._rest = later(self, self._on_rest, _SETTLED_MS)
        self._slider.valueChanged.connect(self._on_value_changed)
        self._slider.sliderReleased.connect(self._on_rest)

    def _build_limit(self) -> QHBoxLayout:
        self._limit = QSpinBox()
        self._limit.setRange(10, 60_000)
        self._limit.setSingleStep(10)
        self._limit.setValue(150)
        self._limit.setSuffix("\u00a0ms")
        self._limit.setAccessibleName("Longest time to the part of the mask in view")
        words = "The part of the mask in view should come within this time after a move of the slider"
        self._limit.setToolTip(words)
        caption = QLabel("Stay &under")
        caption.setBuddy(self._limit)
        pick = QPushButton("Se&t ratio")
        pick.setToolTip("Set the keep ratio to the largest that should stay within this time,\nby times measured here")
        pick.clicked.connect(lambda: self.limit_requested.emit(self._limit.value() / 1000))
        row = QHBoxLayout()
        for widget in (caption, self._limit, pick):
            row.addWidget(widget)
        row.addStretch(1)
        return row

    @property
    def slider(self) -> QLabeledDoubleSlider:
        """The slider itself."""
        return self._slider

    @property
    def is_moving(self) -> bool:
        """Whether the slider is held, or was moved a moment ago."""
        return self._slider.isSliderDown() or self._rest.isActive()

    def set_keep_ratio(self, ratio: float) -> None:
        """Show a ratio without asking for anything."""
        with signals_blocked(self._slider):
            self._slider.setValue(ratio)
        self._ratio = self._said

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Move the slider by keys."""
        step = _STEPS.get(event.key()) if event.type() == QEvent.KeyPress else None
        if step is None:
            return bool(super().eventFilter(watched, event))
        self._slider.setValue(self._said + step)
        return True

    @property
    def _said(self) -> float:
        """The ratio in the digits that are shown: the mouse moves the slider by less."""
        return round(float(self._slider.value()), 2)

    def set_token_size(self, size: Sequence[float]) -> None:
        """Millimetres (z, y, x) of the scan that are one token; none without a model. Said with the next counts."""
        one = len(set(size)) == 1
        self._token = times_xyz(size[:1] if one else size, "{:.3g}", unbroken=True)
        self._token += "\u00a0mm" if size else ""
        self._counts.updateGeometry()  # room for longer words of the model before would go later, under the mouse

    def set_left(self, left: Sequence[int], empty: int = 0) -> None:
        """Show tokens before the first stage and after each, and how many patches never entered, being empty."""
        self._funnel.set_left(left)
        self._funnel.setVisible(len(left) > 1)
        chain = " →\u00a0".join(str(n) for n in left)
        size = f" of\u00a0{self._token}" if self._token else ""
        words = f"{chain}\u00a0tokens{size}, {share(left[-1], left[0])}\u00a0kept" if left else ""
        self._counts.setText(f"{words}; {empty}\u00a0empty\u00a0patches left\u00a0out" if empty else words)
        self._counts.setToolTip("\n\n".join([_TOKENS, *([_EMPTY] if empty else [])]))

    def set_timing(self, timing: Timing | None) -> None:
        """Show what the last run cost."""
        if timing is None:
            self._cost.setText("")
            return
        several = timing.windows != 1
        windows = f"all\u00a0{timing.windows}\u00a0windows" if several else "1\u00a0window"
        if timing.recalled:
            text = f"mask at hand; {windows} took {duration(timing.total)}"
        else:
            whole = f"{windows} in {duration(timing.total)}, " if several else ""
            text = f"mask in {duration(timing.first)}, {whole}{100 * timing.cached:.0f}\u00a0% cached"
        more = [f"{timing.passed} of\u00a0{timing.entered}\u00a0tokens computed"] if timing.entered else []
        more += [f"{timing.memory / 2**30:.1f}\u00a0GiB"] if timing.memory else []
        text = "\n".join([text, ", ".join(more)]) if more else text
        self._cost.setText(text)
        self._cost.setToolTip(
            "Time to the first part of the mask, time for all windows, and the share of the windows\n"
            "whose part that does not depend on the keep ratio was not computed again.\n"
            "Then the tokens that were computed on after the first stage, and the memory that the program holds."
        )

    def _on_value_changed(self) -> None:
        if self._said != self._ratio:
            self._ratio = self._said
            self.moved.emit(self._ratio, True)
        if self._slider.isSliderDown():
            self._rest.stop()
        else:
            self._rest.start()

    def _on_rest(self) -> None:
        self._rest.stop()
        self.moved.emit(self._said, False)
