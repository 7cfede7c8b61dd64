"""Where corrections are tested: a viewer model, overlays, a session with a fake engine, and the desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fakes import PATIENCE, FakeSegmenter, make_registry
from napari.components import ViewerModel
from qtpy.QtCore import QCoreApplication

from napari_sparsetok import correction
from napari_sparsetok.files.autosave import CorrectionStore
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.correct import CorrectDesk
from napari_sparsetok.ui.correct_panel import CorrectPanel
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.weights import Card

MS = int(PATIENCE * 1000)


class Room:
    """A viewer model, overlays, a session with a fake engine, and the desk."""

    def __init__(self, qtbot: Any, folder: Path, *cards: Card) -> None:
        self.qtbot, self.viewer = qtbot, ViewerModel()
        self.session = Session(
            make_segmenter=lambda: FakeSegmenter(free=True),
            registry=make_registry(*cards),
            settings=Settings(keep_ratio=0.5),
            deliver=on_gui_thread,
        )
        self.overlays = Overlays(self.viewer)
        self.panel = CorrectPanel()
        qtbot.addWidget(self.panel)
        events = self.session.state.events
        events.scan.connect(self._on_scan)
        events.settings.connect(self._on_settings)
        self._model = self.session.state.settings.model
        events.prediction.connect(self._on_prediction)
        self.store = CorrectionStore(folder)
        self.desk = CorrectDesk(self.viewer, self.session, self.overlays, self.panel, self.store)

    def _on_scan(self, scan: Any) -> None:
        self.overlays.set_scan(scan)

    def _on_settings(self, settings: Settings) -> None:
        if settings.model != self._model:
            self._model = settings.model
            self.overlays.retire()

    def _on_prediction(self, prediction: Any) -> None:
        if prediction is not None:
            self.overlays.show_mask(prediction)

    def until(self, ready: Any) -> None:
        self.qtbot.waitUntil(lambda: bool(ready()), timeout=MS)

    def segment(self, ratio: float | None = None) -> None:
        if ratio is None:
            self.session.run()
        else:
            self.session.set_keep_ratio(ratio)
        wanted = self.session.state.settings.keep_ratio
        self.until(lambda: (p := self.session.state.prediction) is not None and p.settings.keep_ratio == wanted)
        self.until(lambda: self.session.state.busy is None)

    def settled(self) -> None:
        self.until(lambda: self.session.wait(0.01) and self.session.state.busy is None)
        QCoreApplication.processEvents()  # what a quick errand has handed over may lie there still

    def composed(self) -> np.ndarray:
        prediction = self.session.state.prediction
        return correction.compose(prediction.mask, np.asarray(self.desk.array))

    def close(self) -> None:
        self.desk.shut_down()
        self.overlays.let_go()
        self.session.close()
        assert self.session.wait(PATIENCE)


def paint(room: Room, at: tuple[int, int, int], label: int) -> None:
    room.desk.layers.layer.paint(at, label)
