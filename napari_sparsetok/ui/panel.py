"""The panel "SCD segmentation". It shows and asks; it knows neither engine nor viewer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.state import Busy
from napari_sparsetok.ui.box_editor import BoxEditor
from napari_sparsetok.ui.elided import elided
from napari_sparsetok.ui.far_pieces import FarPieces
from napari_sparsetok.ui.keep_ratio import KeepRatioBox
from napari_sparsetok.ui.overlays import KINDS
from napari_sparsetok.ui.status import Status
from napari_sparsetok.ui.words import Words
from napari_sparsetok.weights import Card
from napari_sparsetok.weights.registry import user_folder

WIDTH = 330
_GAP = 3
_BESIDE_BAR = 10  # so that the scroll bar covers nothing
DEVICES = [("automatic", "auto"), ("CPU", "cpu"), ("NVIDIA GPU", "cuda"), ("Apple GPU", "mps")]
WHERE = [("the whole scan", "whole"), ("a box", "box"), ("around a click", "cursor")]
_TOGGLES = {
    "importance": "Scores of the first stage: how much each token matters to the network",
    "tokens": "Which tokens were pruned, at which stage, and which were kept",
    "mask": "The segmentation",
}


_RUN = "Segment the scan, or the chosen part of it"
_CANCEL = "Stop after the part that is being computed; what is shown stays"


class Panel(QWidget):
    """Requests are signals; what to show comes in through `set_…`."""

    scans_chosen = Signal(list)  # one layer for each channel of the model
    model_chosen = Signal(str)
    device_chosen = Signal(str)
    where_chosen = Signal(str)
    region_edited = Signal(object)
    run_requested = Signal()
    cancel_requested = Signal()
    keep_ratio_moved = Signal(float, bool)
    overlay_toggled = Signal(str, bool)
    save_requested = Signal()
    open_requested = Signal()
    folder_requested = Signal()
    sample_requested = Signal(str)

    def __init__(self, samples: dict[str, str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[Any] = []
        self._can_run = False
        self._busy: Busy | None = None
        self._body = QVBoxLayout()
        self._build_start(samples)
        self._build_form()
        self._build_ratio()
        self._build_results()
        self._body.addStretch(1)
        inner = QWidget()
        inner.setLayout(self._body)
        scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 4)
        layout.setSpacing(_GAP)
        layout.addWidget(scroll)
        layout.addLayout(self._build_end())
        self.status = Status()  # the window puts it below all tabs
        self.status.written.connect(self._write_run)
        layout.addWidget(self.status)
        self.setMinimumWidth(WIDTH)
        self._body.setContentsMargins(4, 2, _BESIDE_BAR, 2)
        self._body.setSpacing(_GAP)
        self.set_layers([], [])

    # Building

    def _build_start(self, samples: dict[str, str]) -> None:
        self._start = QWidget()
        words = QLabel("Drop a scan or a DICOM folder into the window, open one, or try a sample.")
        words.setWordWrap(True)
        opener = QPushButton("&Open a scan…")
        opener.setToolTip("Choose a file: DICOM, NIfTI, NRRD, MetaImage, .mgz, TIFF, or a zip of DICOM")
        opener.clicked.connect(self.open_requested)
        folder = QPushButton("Folde&r…")
        folder.setToolTip("Choose the folder of a DICOM scan, or of an OME-Zarr image")
        folder.clicked.connect(self.folder_requested)
        sample = QPushButton("S&ample")
        sample.setToolTip("Open a scan that comes with the program")
        menu = QMenu(sample)
        for key, title in samples.items():
            menu.addAction(title, lambda key=key: self.sample_requested.emit(key))
        sample.setMenu(menu)
        buttons = QHBoxLayout()
        buttons.addWidget(opener)
        buttons.addWidget(folder)
        buttons.addWidget(sample)
        layout = QVBoxLayout(self._start)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(words)
        layout.addLayout(buttons)
        self._body.addWidget(self._start)

    def _build_form(self) -> None:
        self._scans: list[Any] = []
        self._scan_info = _small_label()
        self._where = _combo(WHERE, "Which part of the scan to segment")
        self._where.changed.connect(self.where_chosen.emit)
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setVerticalSpacing(_GAP)
        self._form.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)
        self._form.addRow(self._scan_info)
        self._build_model()
        self._form.addRow("Wh&ere", self._where.native)
        self._body.addLayout(self._form)
        self._build_run()

    def _build_model(self) -> None:
        self._card: Card | None = None
        self._model = _combo([], "What is to be segmented")
        self._model.changed.connect(lambda value: value and self.model_chosen.emit(value))
        self._model_info = _small_label(QElidingLabel())
        self._model_info.setElideMode(Qt.ElideRight)
        # Or the panel wants to be as wide as the whole sentence, and takes that room from the scan.
        self._model_info.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Fixed)
        self._about = QToolButton()
        self._about.setText("A&bout")
        self._about.setToolTip("What the model is for, what it was trained on, how good it was, and its licence")
        self._about.clicked.connect(self._on_about)
        row = QHBoxLayout()
        row.addWidget(self._model.native, 1)
        row.addWidget(self._about)
        self._form.addRow(_caption("Mo&del", self._model.native), row)
        self._form.addRow(self._model_info)

    def _build_run(self) -> None:
        self._box = BoxEditor()
        self._box.region_changed.connect(self.region_edited)
        self._box.hide()
        self._hint = _small_label()
        self._run = QPushButton()
        self._run.clicked.connect(self._on_run)
        self._device = _combo(DEVICES, "Where the network runs")
        self._device.changed.connect(self.device_chosen.emit)
        self._device.native.setSizePolicy(QSizePolicy.Ignored, QSizePolicy.Fixed)
        self._write_run()
        self._body.addWidget(self._box)
        self._body.addWidget(self._hint)
        row = QHBoxLayout()
        row.addWidget(self._run, 1)
        row.addWidget(_caption("Dev&ice", self._device.native))
        row.addWidget(self._device.native, 1)
        self._body.addLayout(row)

    def _build_ratio(self) -> None:
        self._body.addWidget(_line())
        self.ratio = KeepRatioBox()
        self.ratio.moved.connect(self.keep_ratio_moved)
        self._body.addWidget(self.ratio)

    def _build_results(self) -> None:
        self._body.addWidget(_line())
        row = QHBoxLayout()
        row.addWidget(QLabel("Show"))
        self._toggles: dict[str, QCheckBox] = {}
        for kind in KINDS:
            box = QCheckBox(kind)
            box.setChecked(True)
            box.setToolTip(_TOGGLES[kind])
            box.toggled.connect(lambda on, kind=kind: self.overlay_toggled.emit(kind, on))
            row.addWidget(box)
            self._toggles[kind] = box
        row.addStretch(1)
        self._body.addLayout(row)
        self._volumes = Words(lines=0, rich=True)
        self._body.addWidget(self._volumes)
        self.pieces = FarPieces()
        self._body.addWidget(self.pieces)

    def _build_end(self) -> QHBoxLayout:
        """Always in sight, below what scrolls in a low window."""
        self._save = QPushButton("Save &mask…")
        self._save.setToolTip("Save the mask on exactly the grid of the scan's file")
        self._save.setEnabled(False)
        self._save.clicked.connect(self.save_requested)
        row = QHBoxLayout()
        row.setContentsMargins(4, 0, _BESIDE_BAR, 0)
        row.addWidget(self._save)
        return row

    # What to show

    def set_layers(self, layers: Sequence[Any], chosen: Sequence[Any]) -> None:
        """The layers that can be segmented, and the one chosen for each channel."""
        self._layers = list(layers)
        choices = [(layer.name, layer) for layer in layers]
        for box, layer in zip(self._scans, chosen, strict=False):
            with box.changed.blocked():
                box.choices = choices if layer is not None else [("–", None), *choices]
                box.value = layer
        self._start.setVisible(not layers)

    def set_card(self, card: Card | None) -> None:
        """The chosen model: one scan box for each of its channels, and what it is for."""
        self._card = card
        names = card.channels if card else ("Scan",)
        labels = ["Scan"] if len(names) == 1 else list(names)
        if [box.label for box in self._scans] != labels:
            for box in self._scans:
                self._form.removeRow(box.native)
            self._scans = [self._scan_box(row, label) for row, label in enumerate(labels)]
        self._model_info.setText(card.purpose if card else _no_model())
        self._model_info.setToolTip(card.purpose if card else "")
        # One line: the rest is in the tooltip and under “About”. But where to put a model is said in full.
        self._model_info.setWordWrap(card is None)
        self._about.setEnabled(card is not None)
        self.pieces.set_possible(card is not None and bool(card.one_piece))
        self.ratio.set_token_size(() if card is None else tuple(card.patch * mm for mm in card.spacing))

    def _scan_box(self, row: int, label: str) -> ComboBox:
        box = _combo([(x.name, x) for x in self._layers], "The layer to segment")
        box.label = label
        box.changed.connect(lambda _: self.scans_chosen.emit([b.value for b in self._scans]))
        # Also the one that stands there already, which may have made no scan.
        box.native.activated.connect(lambda _: self.scans_chosen.emit([b.value for b in self._scans]))
        self._form.insertRow(row, label, box.native)
        return box

    def set_models(self, cards: dict[str, Card], chosen: str) -> None:
        """The models that there are."""
        with self._model.changed.blocked():
            self._model.choices = [(card.title, key) for key, card in cards.items()]
            if chosen in cards:
                self._model.value = chosen

    def set_device_choice(self, device: str) -> None:
        """The device that was asked for."""
        with self._device.changed.blocked():
            self._device.value = device

    def set_scan(self, scan: Scan | None, problem: str = "") -> None:
        """Size, spacing and orientation of the scan, and what the person should know of it; or why it is none."""
        if scan is None:
            self._scan_info.setText(problem)
            return
        size = times_xyz(scan.shape, unbroken=True)
        spacing = times_xyz(scan.geometry.spacing, "{:.3g}", unbroken=True) + "\u00a0mm"
        facts = f"{size}\u00a0voxels\u00a0· {spacing}\u00a0· stored\u00a0{scan.geometry.source_axes}"
        self._scan_info.setText("\n".join([facts, *scan.notes]))

    def set_where(self, where: str, hint: str) -> None:
        """Whole scan, box or click, and what that means just now."""
        with self._where.changed.blocked():
            self._where.value = where
        self._box.setVisible(where == "box")
        self._hint.setText(hint)
        self._hint.setVisible(bool(hint))
        self._write_next()

    def set_region(self, region: Region, scan: Scan) -> None:
        """The box."""
        self._box.set_region(region, scan.shape, scan.geometry.spacing)

    def set_can_run(self, possible: bool) -> None:
        """Whether there is anything to segment."""
        self._can_run = possible
        self._write_run()
        self._write_next()

    def set_busy(self, busy: Busy | None) -> None:
        """What is being done; None is idle."""
        self._busy = busy
        self.status.set_busy(busy)

    def set_volumes(self, rows: Sequence[tuple[str, str, float]]) -> None:
        """Name, colour and millilitres of each label."""
        cells = [
            f'<span style="color:{color}">■</span>\u00a0{_unbroken(name)}\u00a0<b>{ml:.2f}\u00a0mL</b>'
            for name, color, ml in rows
        ]
        self._volumes.setText(" ".join(cells))  # as many in a line as fit: a model may have many labels
        self._save.setEnabled(bool(rows))
        self._write_next()

    def set_overlay_shown(self, kind: str, shown: bool) -> None:
        """Whether an overlay's layer is visible."""
        box = self._toggles[kind]
        box.blockSignals(True)
        box.setChecked(shown)
        box.blockSignals(False)

    # Slots

    def _on_run(self) -> None:
        (self.cancel_requested if self._cancels else self.run_requested).emit()

    def _write_run(self) -> None:
        self._cancels = self._busy is not None and self._busy.can_cancel  # until the button says something else
        words = "&Cancel" if self._cancels else "&Segment"
        if self._run.text() != words:
            self._run.setText(words)
            self._run.setToolTip(_CANCEL if self._cancels else _RUN)
        self._run.setEnabled(self._cancels or self._can_run)

    def _write_next(self) -> None:
        """Without a mask, what brings one; of a click its own hint speaks."""
        waits = self._can_run and not self._save.isEnabled() and self._where.value != "cursor"
        self.status.set_next("press Segment" if waits else "")

    def _on_about(self) -> None:
        if self._card is not None:
            from napari_sparsetok.ui.card_dialog import CardDialog

            CardDialog(self._card, self).exec()


def _no_model() -> str:
    return (
        f"No model is installed. Put the two files of a model (.json and .safetensors) into {user_folder()}, "
        "then close this panel and open it again."
    )


def _unbroken(name: str) -> str:
    return escape(name).replace(" ", "\u00a0")


def _caption(words: str, of: QWidget) -> QLabel:
    caption = QLabel(words)
    caption.setBuddy(of)
    return caption


def _combo(choices: list[Any], tooltip: str) -> ComboBox:
    """A box whose long names are cut rather than widen the panel."""
    box = ComboBox(choices=choices, tooltip=tooltip)
    elided(box.native)
    box.native.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
    box.native.setMinimumContentsLength(10)
    return box


def _small_label(label: QLabel | None = None) -> QLabel:
    label = label or QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextSelectableByMouse)
    font = label.font()
    font.setPointSizeF(max(7.0, font.pointSizeF() * 0.9))
    label.setFont(font)
    return label


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.HLine)
    line.setFrameShadow(QFrame.Sunken)
    return line
