"""How the mask is drawn while it is corrected: outline or filled, how strongly, which labels, blinking, differences."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction
from napari_sparsetok.ui.guest import Guest
from napari_sparsetok.ui.look_form import LookForm
from napari_sparsetok.ui.outline import set_outline
from napari_sparsetok.ui.overlays import OVERLAY, Overlays, label_colormap
from napari_sparsetok.ui.preview import change_colormap, changes
from napari_sparsetok.ui.scan_layer import placed

_BLINK_MS = 500


class Looks(QObject):
    """Draws the mask as the look form says, whatever becomes of its layer."""

    def __init__(self, viewer: ViewerModel, session: Session, overlays: Overlays, form: LookForm) -> None:
        super().__init__(form)
        self._viewer, self._session, self._overlays, self._form = viewer, session, overlays, form
        self._filled, self._opacity = False, 0.95
        self._hidden: frozenset[int] = frozenset()
        self._layer: Labels | None = None  # the mask layer that already looks so
        self._difference = Guest(viewer)
        self._blink = QTimer(self)
        self._blink.setInterval(_BLINK_MS)
        self._blink.timeout.connect(self._on_blink)
        form.filled_chosen.connect(self.set_filled)
        form.opacity_changed.connect(self.set_opacity)
        form.blink_toggled.connect(self.set_blinking)
        form.difference_toggled.connect(self.set_difference)
        overlays.mask_changed.connect(self._on_mask)
        session.state.events.scan.connect(self._on_scan)
        session.state.events.prediction.connect(self._on_prediction)

    @property
    def difference(self) -> Labels | None:
        """The layer that draws the difference, if it is there."""
        return self._difference.layer

    def set_filled(self, filled: bool) -> None:
        """Draw areas instead of outlines."""
        self._filled = filled
        self._draw()

    def set_opacity(self, opacity: float) -> None:
        """How strongly, 0 … 1."""
        self._opacity = opacity
        self._draw()

    def set_hidden(self, hidden: frozenset[int]) -> None:
        """Labels that are not drawn."""
        self._hidden = hidden
        self._color()

    def set_blinking(self, on: bool) -> None:
        """Show and hide in turn."""
        if on:
            self._blink.start()
        else:
            self._blink.stop()
            self._draw()

    def toggle_blinking(self) -> None:
        """As the key does."""
        self._form.set_blinking(not self._form.is_blinking)

    def set_difference(self, on: bool) -> None:
        """Draw only where the mask differs from the prediction."""
        scan, prediction, mask = self._session.state.scan, self._session.state.prediction, self._overlays.mask
        if not on:
            self._drop_difference()
            return
        if scan is None or prediction is None or mask is None:
            self._session.say("There is no mask yet: segment the scan first.")
            self._form.set_difference(False)
            return

        def work() -> NDArray[np.uint8]:
            return changes(prediction.mask, np.array(mask))

        what = "comparing mask and prediction"
        self._session.load(work, lambda found: self._show_difference(scan, found), what, lane="look")

    def shut_down(self) -> None:
        """Let go of layers and viewer; the mask is left as it is drawn."""
        self._form.set_blinking(False)
        self._drop_difference()
        self._overlays.mask_changed.disconnect(self._on_mask)
        self._layer = None

    # Details

    def _draw(self, faint: bool = False) -> None:
        layer = self._overlays.layer("mask")
        if layer is not None:
            set_outline(layer, 0 if self._filled else 1)
            layer.opacity = 0.0 if faint else self._opacity

    def _color(self) -> None:
        layer, prediction = self._overlays.layer("mask"), self._session.state.prediction
        if layer is not None and prediction is not None:
            shown = tuple(label for label in prediction.labels if label.id not in self._hidden)
            layer.colormap = label_colormap(LabelTable(shown))

    def _on_mask(self, region: Region) -> None:
        layer = self._overlays.layer("mask")
        if layer is not self._layer:  # a new layer looks as the old one did
            self._layer = layer
            self._draw()
            if self._hidden:
                self._color()
        self._compare(region)

    def _on_blink(self) -> None:
        layer = self._overlays.layer("mask")
        if layer is not None:
            self._draw(faint=layer.opacity > 0)

    def _on_scan(self, scan: Any) -> None:
        self._form.set_difference(False)
        self._form.set_blinking(False)
        self._layer = None

    def _on_prediction(self, prediction: Prediction | None) -> None:
        if prediction is None:  # of another model, or none: there is nothing to differ from
            self._form.set_difference(False)

    def _show_difference(self, scan: Scan, found: NDArray[np.uint8]) -> None:
        if scan is not self._session.state.scan or not self._form.is_different:  # no more by now
            return
        self._drop_difference()
        layer = Labels(
            found,
            name=f"difference · {scan.name}",
            colormap=change_colormap(),
            opacity=0.8,
            metadata={OVERLAY: "difference"},
            **placed(scan.geometry),
        )
        self._difference.put(layer)
        self._compare(Region.whole(scan.shape))  # what changed while it was computed
        self._overlays.set_visible("mask", False)
        self._overlays.visibility_changed.emit("mask", False)

    def _drop_difference(self) -> None:
        if self.difference is not None:
            self._difference.hide()
            self._overlays.set_visible("mask", True)
            self._overlays.visibility_changed.emit("mask", True)

    def _compare(self, region: Region) -> None:
        layer, prediction, mask = self.difference, self._session.state.prediction, self._overlays.mask
        if layer is None or prediction is None or mask is None:
            return
        box = region.slices
        layer.data[box] = changes(prediction.mask[box], mask[box])
        layer.refresh(extent=False, thumbnail=False)
