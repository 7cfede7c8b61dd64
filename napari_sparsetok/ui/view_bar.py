"""The two lines below the tabs: opening, window, views, information, help; and what lies under the cursor."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QMenu, QSizePolicy, QToolButton, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_sparsetok.ui.window_level import CUSTOM
from napari_sparsetok.ui.window_preset import Preset

_NOTHING = "Point at the scan to read position and value."
_WINDOW = (
    "Which grey values are spread from black to white. Next and previous: W and Shift+W.\n"
    "By hand: hold Shift and the right mouse button on the scan; to the side for width, up and down for level."
)


class ViewBar(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    file_requested = Signal()
    folder_requested = Signal()
    mask_requested = Signal()
    window_chosen = Signal(str)
    views_toggled = Signal(bool)
    info_requested = Signal()
    help_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._has_scan, self._can_open_views = False, True
        self._window = self._build_window()
        self._views = _button("&3 views", "Axial, coronal and sagittal at once, with a linked cross (U)")
        self._views.setCheckable(True)
        self._views.setEnabled(False)
        self._views.setStyleSheet("QToolButton:checked { border: 1px solid palette(highlight); }")
        self._views.clicked.connect(self.views_toggled)
        self._info = _button("I&nfo", "What is known of this scan; nothing of the patient unless you ask (I)")
        self._info.clicked.connect(self.info_requested)
        self._info.setEnabled(False)
        ask = _button("?", "Keys and mouse, on one sheet (F1)")
        ask.setAccessibleName("Keys and mouse")
        ask.clicked.connect(self.help_requested)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self._build_open())
        row.addWidget(self._window, 1)
        for widget in (self._views, self._info, ask):
            row.addWidget(widget)
        self._readout = _readout_label()
        self._readout.setContentsMargins(5, 0, 0, 0)  # as far in as the lines below
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 0)
        layout.addLayout(row)
        layout.addWidget(self._readout)

    def set_presets(self, presets: Sequence[Preset]) -> None:
        """The windows that there are for this scan."""
        with signals_blocked(self._window):
            self._window.clear()
            for row, preset in enumerate(presets):
                self._window.addItem(preset.name)
                self._window.setItemData(row, preset.words, Qt.ToolTipRole)
        self._window.setEnabled(bool(presets))

    def set_window(self, name: str, level: float, width: float) -> None:
        """The window in use."""
        with signals_blocked(self._window):
            custom = self._window.findText(CUSTOM)
            if name == CUSTOM and custom < 0:
                self._window.addItem(CUSTOM)
            elif name != CUSTOM and custom >= 0:
                self._window.removeItem(custom)
            self._window.setCurrentText(name)
        self._window.setToolTip(f"Level {level:.4g}, width {width:.4g}\n{_WINDOW}")

    def set_views(self, shown: bool, possible: bool = True) -> None:
        """Whether the three views are open, and can be."""
        self._can_open_views = possible
        self._views.setChecked(shown)
        self._views.setEnabled(possible and self._has_scan)

    def set_has_scan(self, there: bool) -> None:
        """Whether there is a scan to tell about."""
        self._has_scan = there
        self._views.setEnabled(there and self._can_open_views)
        self._info.setEnabled(there)
        self._mask.setEnabled(there)

    def set_readout(self, text: str) -> None:
        """What lies under the cursor."""
        self._readout.setText(text or _NOTHING)

    @property
    def readout(self) -> str:
        """The line that is shown."""
        return str(self._readout.text())

    def _build_window(self) -> QComboBox:
        box = QComboBox()
        box.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)
        box.setAccessibleName("Window and level")
        box.setToolTip(_WINDOW)
        box.setEnabled(False)
        box.textActivated.connect(self._on_chosen)
        return box

    def _build_open(self) -> QToolButton:
        button = _button("Open\u00a0\u00a0", "Open another scan, or a mask of this one")
        button.setPopupMode(QToolButton.InstantPopup)
        menu = QMenu(button)
        menu.setToolTipsVisible(True)
        for words, tip, signal in (
            ("A &file…", "DICOM, NIfTI, NRRD, MetaImage, .mgz, TIFF, or a zip of DICOM", self.file_requested),
            ("A f&older…", "The folder of a DICOM scan, or an OME-Zarr image", self.folder_requested),
            ("A &mask of this scan…", "To look at it, or to correct it", self.mask_requested),
        ):
            self._mask = menu.addAction(words, signal.emit)
            self._mask.setToolTip(tip)
        self._mask.setEnabled(False)
        button.setMenu(menu)
        return button

    def _on_chosen(self, name: str) -> None:
        if name != CUSTOM:
            self.window_chosen.emit(name)


def _button(words: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(words)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.StrongFocus)
    return button


def _readout_label() -> QLabel:
    label = QLabel(_NOTHING)
    label.setWordWrap(True)
    label.setAccessibleName("Under the cursor")
    label.setToolTip("Position in the patient, grey value, and label under the cursor")
    label.setMinimumHeight(2 * label.fontMetrics().lineSpacing())  # so that nothing jumps
    label.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Minimum)
    label.setAlignment(Qt.AlignTop | Qt.AlignLeft)
    return label
