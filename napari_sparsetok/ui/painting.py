"""Painting by hand: the ways of painting, their keys, the brush, and where it may not paint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import ref

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from napari_sparsetok.correction import compose
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.brush_layer import Labels, Places
from napari_sparsetok.ui.brush_preview import Aim, BrushPreview
from napari_sparsetok.ui.correct_panel import CorrectPanel
from napari_sparsetok.ui.corrections import RESTORE
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.paint_form import MODES, Mode

_NAPARI_MODES = {"look": "pan_zoom", "fill": "fill", "polygon": "polygon"}
_SPECIAL = {"eraser": NOT_TISSUE, "restore": RESTORE}
_NUDGE = 0.5  # mm by which the keys [ and ] change the brush


class Painting(QObject):
    """Keeps the panel's paint form and the corrections layer in step, whichever of the two the person uses.

    Parameters
    ----------
    locked : the labels that may not be changed, as of now.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        overlays: Overlays,
        panel: CorrectPanel,
        locked: Callable[[], frozenset[int]],
    ) -> None:
        super().__init__(panel)
        self._viewer, self._session, self._overlays, self._panel = viewer, session, overlays, panel
        self._locked = locked
        self._layer: Labels | None = None
        self._scan: Scan | None = None
        self._writing = False
        panel.paint.mode_chosen.connect(self.set_mode)
        panel.paint.brush_changed.connect(self._set_brush)
        panel.labels.label_chosen.connect(self._on_label)
        panel.limits.changed.connect(self._take_aim)
        viewer.dims.events.order.connect(self._set_brush)
        self.preview = BrushPreview(viewer, self)

    def begin(self, scan: Scan, layer: Labels, keys: Mapping[str, Callable[[], None]], mode: str = "") -> None:
        """Paint in this layer. `keys` are further ones that count in it; without a mode, go on in that of the layer."""
        if layer is not self._layer:
            self.end()
            self._scan, self._layer = scan, layer
            layer.allowed, layer.refused = self._allowed, self._session.say
            overlays = ref(self._overlays)
            layer.seen = lambda: found.mask if (found := overlays()) is not None else None
            self._bind(layer, keys)
            layer.events.mode.connect(self._on_napari)
            layer.events.selected_label.connect(self._on_napari)
            layer.events.brush_size.connect(self._on_brush_size)
            if not scan.is_lazy:
                low, high = np.percentile(scan.sample, (25, 75)).tolist()
                self._panel.limits.propose(low, high)
        if mode:
            self.set_mode(mode)
        else:
            self._set_brush()
            self._on_napari()

    def end(self) -> None:
        """Another scan or model was chosen: the panel and the keys drive this layer no more."""
        layer, self._layer = self._layer, None
        if layer is None:
            return
        self._take_aim()
        layer.set_aim(None)
        self._let_go(layer)
        layer.allowed = self._allowed_elsewhere
        for key in ("M", "X"):
            layer.bind_key(key, _pressed(lambda: None), overwrite=True)

    def set_mode(self, mode: str) -> None:
        """Take another way of painting in hand."""
        layer = self._layer
        if layer is None or layer not in self._viewer.layers:
            return
        with self._quietly():
            self._viewer.layers.selection = {layer}
            layer.selected_label = _SPECIAL.get(mode, self._panel.chosen_label or 1)
            layer.mode = _NAPARI_MODES.get(mode, "paint")
        self._panel.set_mode(cast(Mode, mode))
        self._set_brush()

    def shut_down(self) -> None:
        """Let go of the viewer and the layer, which stays."""
        self.preview.shut_down()
        self._viewer.dims.events.order.disconnect(self._set_brush)
        layer, self._layer = self._layer, None
        if layer is not None:
            layer.set_aim(None)
            self._let_go(layer)

    # Details

    def _let_go(self, layer: Labels) -> None:
        layer.allowed = layer.seen = layer.refused = None
        layer.events.mode.disconnect(self._on_napari)
        layer.events.selected_label.disconnect(self._on_napari)
        layer.events.brush_size.disconnect(self._on_brush_size)
        layer.keymap.clear()

    def _allowed_elsewhere(self, places: Places, value: int) -> NDArray[np.bool_]:
        """In a layer that the panel does not drive: what is locked there is not known, and what it lies on may go."""
        nowhere = np.zeros(len(places[0]), dtype=bool)
        if self._session.state.scan is None:
            self._session.say("Nothing was painted, as there is no scan now. Choose one, or wait until it is read.")
            return nowhere
        if self._locked():
            words = "Some labels are locked. Choose the scan and the model of this layer first, or unlock them."
            self._session.say(words)
            return nowhere
        return ~nowhere

    def _bind(self, layer: Labels, keys: Mapping[str, Callable[[], None]]) -> None:
        """Keys of the layer come before napari's own, which know nothing of eraser and restore."""
        bound: dict[str, Callable[[], None]] = {choice.key: _doing(self.set_mode, choice.mode) for choice in MODES}
        bound |= {"[": lambda: self._nudge(-_NUDGE), "]": lambda: self._nudge(_NUDGE)}
        bound |= {"-": lambda: self._step_label(-1), "=": lambda: self._step_label(1)}
        bound |= {"M": lambda: None, "X": lambda: None}  # napari's: a new number that no label has; swap with nothing
        for key, do in {**bound, **keys}.items():
            layer.bind_key(key, _pressed(do), overwrite=True)

    def _nudge(self, mm: float) -> None:
        self._panel.paint.set_brush_mm(self._panel.paint.brush_mm + mm)
        self._set_brush()

    def _step_label(self, by: int) -> None:
        self._panel.labels.step(by)

    def _set_brush(self, event: Any = None) -> None:
        layer, dims, paint = self._layer, self._viewer.dims, self._panel.paint
        if layer is None or dims.ndim < 3:
            return
        first = dims.ndim - 3
        layer.across = next((axis for axis in dims.order if axis >= first), first) - first
        layer.brush_mm = paint.brush_mm
        with self._quietly():
            # napari's polygon and lasso know two dimensions only
            layer.n_edit_dimensions = 3 if paint.is_ball and str(layer.mode) in ("paint", "erase") else 2
            # Only for the circle at the cursor and for the steps along a stroke: napari counts it in voxels.
            layer.brush_size = max(1, round(paint.brush_mm / self._finest(layer)))
        self._take_aim()

    def _take_aim(self) -> None:
        """Show what the brush would paint, while it keeps to grey values."""
        layer, scan = self._layer, self._scan
        aim = None
        if layer is not None and scan is not None and not scan.is_lazy and str(layer.mode) == "paint":
            value = int(layer.selected_label)
            aim = Aim(layer, scan, value, self._may) if self._limits_for(value) is not None else None
        self.preview.set_aim(aim)
        if layer is not None:
            layer.set_aim(aim)  # its copies in further canvases show it there

    def _finest(self, layer: Labels) -> float:
        return min(abs(float(step)) for axis, step in enumerate(layer.scale) if axis != layer.across)

    def _on_brush_size(self, event: Any = None) -> None:
        """The person may also use napari's own slider, or Alt and the mouse."""
        layer = self._layer
        if layer is not None and not self._writing:
            self._panel.paint.set_brush_mm(layer.brush_size * self._finest(layer))
            layer.brush_mm = self._panel.paint.brush_mm
            self._take_aim()

    def _on_label(self, label: int) -> None:
        layer = self._layer
        if layer is not None and layer.selected_label not in _SPECIAL.values():
            with self._quietly():
                layer.selected_label = label
            self._take_aim()

    def _on_napari(self, event: Any = None) -> None:
        """The person may also use napari's own buttons and keys."""
        layer = self._layer
        if layer is None or self._writing:
            return
        label, mode = layer.selected_label, str(layer.mode)
        if label not in _SPECIAL.values():
            self._panel.labels.choose(label)
        modes: dict[str, Mode] = {"erase": "restore", "fill": "fill", "polygon": "polygon", "paint": "brush"}
        found = modes.get(mode, "look")
        if mode == "paint" and label in _SPECIAL.values():
            found = "eraser" if label == NOT_TISSUE else "restore"
        self._panel.set_mode(found)
        self._take_aim()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before

    def _allowed(self, places: Places, value: int) -> NDArray[np.bool_]:
        """As `_may`, and says what is in the way of everything."""
        if value in self._locked():
            self._session.say("This label is locked; unlock it first.")
        elif self._scan is not None and self._scan.is_lazy and self._limits_for(value) is not None:
            self._session.say("The scan stays on disk, so the brush cannot look at its grey values while you paint.")
        return self._may(places, value)

    def _may(self, places: Places, value: int) -> NDArray[np.bool_]:
        """Where a value may be painted: not over locked labels, and only in the grey values that were chosen."""
        may = np.ones(len(places[0]), dtype=bool)
        locked, scan = self._locked(), self._scan
        if value in locked:
            return ~may
        if locked:
            may &= ~np.isin(self._labels_at(places), list(locked))
            prediction = self._session.state.prediction
            if value == RESTORE and prediction is not None:  # what would show again is part of a locked label too
                may &= ~np.isin(prediction.mask[places], list(locked))
        limits = self._limits_for(value)
        if limits is not None and scan is not None and not scan.is_lazy:
            voxels = scan.voxels if not scan.leading else scan.voxels[0]
            grey = voxels[places]
            may &= (grey >= limits[0]) & (grey <= limits[1])
        return may

    def _labels_at(self, places: Places) -> NDArray[np.uint8]:
        """The labels of some voxels in the final mask, also while its layer is not there."""
        mask, prediction, layer = self._overlays.mask, self._session.state.prediction, self._layer
        if mask is not None or layer is None:
            return np.zeros(len(places[0]), np.uint8) if mask is None else mask[places]
        said = np.asarray(layer.data)[places]
        return compose(np.zeros_like(said) if prediction is None else prediction.mask[places], said)

    def _limits_for(self, value: int) -> tuple[float, float] | None:
        return None if value == RESTORE else self._panel.limits.limits


def _doing(do: Callable[[str], None], what: str) -> Callable[[], None]:
    return lambda: do(what)


def _pressed(do: Callable[[], None]) -> Callable[[Any], None]:
    """What napari calls with the layer when a key is pressed."""
    return lambda layer: do()
