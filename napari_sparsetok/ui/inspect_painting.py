"""Tokens that a person paints: they must be kept, or must not."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Forced, Prediction, Settings
from napari_sparsetok.ui.inspect_layers import MUST, NEVER, InspectLayers
from napari_sparsetok.ui.inspect_panel import InspectPanel
from napari_sparsetok.ui.later import later

_PAINT_MS = 20  # after a stroke; what paints in several steps is run once


class TokenPainting(QObject):
    """A layer on the token grid to paint on, with napari's own undo; after a stroke the scan is segmented again."""

    def __init__(self, viewer: ViewerModel, session: Session, layers: InspectLayers, panel: InspectPanel) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._layers = viewer, session, layers
        self._stroke = later(self, self._on_painted, _PAINT_MS)
        self._painted: Forced | None = None  # what the layer says, as it was last taken
        self._model = session.state.settings.model
        panel.paint_requested.connect(self._on_paint)
        panel.paint_undo_requested.connect(self._on_paint_undo)
        panel.paint_cleared.connect(self._on_paint_cleared)
        session.state.events.scan.connect(self._on_scan)
        session.state.events.region.connect(self._on_region)
        session.state.events.settings.connect(self._on_settings)

    def shut_down(self) -> None:
        """Let go. What is painted from now on would be obeyed by nobody."""
        self._stroke.stop()
        self._layers.drop("forced")

    def _on_scan(self, scan: Scan | None) -> None:
        self._stroke.stop()
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)

    def _on_region(self, region: Region | None) -> None:
        forced, scan = self._session.state.settings.forced, self._session.state.scan
        if forced is not None and scan is not None and forced.region != (region or Region.whole(scan.shape)):
            self._session.choose(forced=None)
            self._session.say("The tokens chosen by hand belonged to the part before; they are let go.", "info")
        self._layers.drop("forced")

    def _on_settings(self, settings: Settings) -> None:
        """Whoever else chose tokens, or let them go, is not contradicted by what was painted before."""
        changed = settings.model != self._model
        self._model = settings.model
        if changed or settings.forced != self._painted:
            self._stroke.stop()
            self._layers.drop("forced")
            self._painted = settings.forced
        if changed and settings.forced is not None:
            self._session.choose(forced=None)

    def _on_paint(self, tool: str) -> None:
        prediction = self._session.state.prediction
        if prediction is None:
            return
        if not self._is_of_now(prediction):
            self._session.say("Segment this part of the scan first; then choose its tokens.", "info")
            return
        layer = self._layers.get("forced")
        if layer is None:
            tokens, forced = prediction.tokens, self._session.state.settings.forced
            signs = np.zeros(tokens.stage.shape, np.int8) if forced is None else forced.signs()
            layer = self._layers.show_forced(signs, tokens)
            self._painted = forced
            layer.events.paint.connect(lambda event: self._stroke.start())
            layer.events.set_data.connect(lambda event: self._stroke.start())  # all that tells of an undo
        self._viewer.layers.selection = {layer}
        layer.selected_label = {"must": MUST, "never": NEVER}.get(tool, 0)
        layer.brush_size = 1
        layer.mode = "paint" if tool != "erase" else "erase"

    def _on_paint_undo(self) -> None:
        layer = self._layers.get("forced")
        if layer is not None:
            layer.undo()
            self._stroke.start()

    def _on_paint_cleared(self) -> None:
        self._layers.drop("forced")
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)
            self._session.run()

    def _on_painted(self) -> None:
        layer, prediction = self._layers.get("forced"), self._session.state.prediction
        if layer is None or prediction is None or not self._is_of_now(prediction):
            return
        data = np.asarray(layer.data).reshape(layer.data.shape[-3:])
        signs = np.where(data == MUST, 1, np.where(data == NEVER, -1, 0))
        forced = Forced.of(prediction.region, signs)
        if forced != self._session.state.settings.forced:
            self._painted = forced
            self._session.choose(forced=forced)
            self._session.run()

    def _is_of_now(self, prediction: Prediction) -> bool:
        """Whether a prediction is of the part of the scan that will be segmented next."""
        return prediction.region == (self._session.state.region or Region.whole(prediction.scan.shape))
