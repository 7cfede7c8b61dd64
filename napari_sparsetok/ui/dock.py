"""Where viewer, panel, overlays and session meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget
from superqt.utils import ensure_main_thread

from napari_sparsetok.sample import SAMPLES, open_sample
from napari_sparsetok.scan import Region, Scan, ScanError, stack_channels
from napari_sparsetok.session import Session
from napari_sparsetok.state import DeviceChoice, Message, Prediction, Settings
from napari_sparsetok.tokens import tokens_left
from napari_sparsetok.ui.overlays import KINDS, Overlays
from napari_sparsetok.ui.panel import Panel
from napari_sparsetok.ui.preferences import preferences
from napari_sparsetok.ui.scan_layer import layer_data, scan_of
from napari_sparsetok.weights import Card

_SAY = {"info": show_info, "warning": show_warning, "error": show_error}
_CROP_SLACK = 1.5  # a scan this much larger than a model's window is no crop around one structure


@ensure_main_thread(await_return=False)
def on_gui_thread(function: Callable[[], None]) -> None:
    """Run a function on the GUI thread, soon."""
    function()


class Dock(QWidget):
    """The dock widget "SCD segmentation".

    Parameters
    ----------
    viewer : the viewer that shows the scan.
    session : what does the work; by default one with this package's engine.
    """

    def __init__(self, viewer: ViewerModel, session: Session | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._alive = True
        self.session = session or self._default_session()
        self.overlays = Overlays(viewer)
        self.panel = Panel(SAMPLES)
        self._chosen: list[Any] = []
        self._frames: dict[tuple[int, int], Scan] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.panel, 1)  # napari adds a stretch below, which must take nothing
        self._connect_panel()
        self._connect_state()
        self._connect_viewer()
        state = self.session.state
        self.panel.set_models(self.session.registry.cards, state.settings.model)
        self.panel.set_card(self.session.card)
        self.panel.ratio.set_keep_ratio(state.settings.keep_ratio)
        self.panel.set_device_choice(state.settings.device)
        self.panel.set_can_run(False)
        self._on_layers_changed()
        self._write_counts()

    def deliver(self, function: Callable[[], None]) -> None:
        """For a session that is handed in: runs its state changes on the GUI thread."""
        self._deliver(function)

    def closeEvent(self, event: Any) -> None:
        """Let go of the viewer and end the session's threads."""
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Stop listening and computing; a save that was asked for is finished first."""
        if not self._alive:
            return
        self._alive = False
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)
        self.session.close()

    # Wiring

    def _default_session(self) -> Session:
        wanted = preferences()
        settings = Settings(keep_ratio=wanted.keep_ratio, device=cast(DeviceChoice, wanted.device))
        return Session(settings=settings, cache_bytes=wanted.cache_bytes, deliver=self._deliver)

    def _deliver(self, function: Callable[[], None]) -> None:
        on_gui_thread(lambda: function() if self._alive else None)

    def _connect_panel(self) -> None:
        panel, session = self.panel, self.session
        panel.scans_chosen.connect(self._on_scans_chosen)
        panel.model_chosen.connect(lambda model: session.choose(model=model))
        panel.device_chosen.connect(lambda device: session.choose(device=device))
        panel.where_chosen.connect(self._on_where_chosen)
        panel.region_edited.connect(session.set_region)
        panel.run_requested.connect(self._on_run)
        panel.cancel_requested.connect(session.cancel)
        panel.keep_ratio_moved.connect(self._on_keep_ratio_moved)
        panel.overlay_toggled.connect(self.overlays.set_visible)
        panel.save_requested.connect(self._on_save)
        panel.open_requested.connect(self._on_open)
        panel.sample_requested.connect(self._on_sample)

    def _connect_state(self) -> None:
        events = self.session.state.events
        events.scan.connect(self._on_scan)
        events.settings.connect(self._on_settings)
        events.region.connect(self._on_region)
        events.tokens.connect(self._on_tokens)
        events.prediction.connect(self._on_prediction)
        events.busy.connect(self._on_busy)
        events.device.connect(self._on_device)
        events.message.connect(self._on_message)

    def _connect_viewer(self) -> None:
        layers, dims = self._viewer.layers.events, self._viewer.dims.events
        self._connections = [
            (layers.inserted, self._on_layers_changed),
            (layers.removed, self._on_layers_changed),
            (dims.current_step, self._on_step),
        ]
        for emitter, slot in self._connections:
            emitter.connect(slot)
        self._viewer.mouse_drag_callbacks.append(self._on_mouse)

    # The viewer changed

    def _on_layers_changed(self, event: Any = None) -> None:
        images = [x for x in self._viewer.layers if isinstance(x, Image) and not x.rgb and x.ndim > 2]
        images = [
            x for x in images if x is not self.overlays.layer("importance") and not x.name.startswith("importance · ")
        ]
        wanted = len(self.session.card.channels) if self.session.card else 1
        kept = [x for x in self._chosen if x in images][:wanted]
        free = [x for x in images if x not in kept]
        chosen = (kept + free)[:wanted] + [None] * max(0, wanted - len(images))
        self.panel.set_layers(images, chosen)
        for kind in KINDS:
            layer = self.overlays.layer(kind)
            if layer is not None:
                self.panel.set_overlay_shown(kind, bool(layer.visible))
        if chosen != self._chosen:
            self._chosen = chosen
            self._use_chosen()

    def _on_step(self, event: Any = None) -> None:
        if any(layer is not None and layer.ndim == 4 for layer in self._chosen):
            self._use_chosen()

    def _use_chosen(self) -> None:
        try:
            scan = self._scan_of_chosen()
        except ScanError as error:
            self.session.set_scan(None)
            self.panel.set_scan(None, str(error))
            return
        self.session.set_scan(scan)

    def _scan_of_chosen(self) -> Scan | None:
        if not self._chosen or any(layer is None for layer in self._chosen):
            return None
        step = self._viewer.dims.current_step
        frame = int(step[-4]) if len(step) > 3 else 0
        scans = [self._one_scan(layer, frame) for layer in self._chosen]
        return scans[0] if len(scans) == 1 else stack_channels(scans)

    def _one_scan(self, layer: Any, frame: int) -> Scan:
        key = (id(layer), frame)
        if key not in self._frames:  # one object for one frame, so that results find their scan again
            self._frames = {k: v for k, v in self._frames.items() if k[0] in {id(x) for x in self._viewer.layers}}
            self._frames[key] = scan_of(layer, frame)
        return self._frames[key]

    def _on_mouse(self, viewer: ViewerModel, event: Any) -> Any:
        """A click, not a drag, puts the window there if the person chose "at a click"."""
        moved = False
        yield
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved and self._where == "cursor" and self.session.state.scan is not None:
            voxel = self._voxel_at(viewer.cursor.position)
            self.session.set_focus(voxel)
            self.session.set_region(self._window_around(voxel))
            self.session.run()

    # The person asked

    _where = "whole"

    def _on_scans_chosen(self, layers: list[Any]) -> None:
        if layers != self._chosen:
            self._chosen = layers
            self._use_chosen()

    def _on_where_chosen(self, where: str) -> None:
        self._where = where
        scan = self.session.state.scan
        if scan is None or where == "whole":
            self.session.set_region(None)
        elif where == "box":
            region = self.session.state.region or self._window_around(self._view_centre())
            self.session.set_region(region)
            if region is not None:
                self.panel.set_region(region, scan)
        self._write_where()

    def _on_run(self) -> None:
        if self._where == "cursor" and self.session.state.region is None and self.session.state.scan is not None:
            self.session.set_region(self._window_around(self._view_centre()))
        self._set_focus()
        self.session.run()

    def _on_keep_ratio_moved(self, ratio: float, live: bool) -> None:
        self._set_focus()
        self.session.set_keep_ratio(ratio, live=live)

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", "NIfTI (*.nii *.nii.gz)")
        if path:
            self.session.open(path, self._show_scan)

    def _on_sample(self, name: str) -> None:
        self.session.load(lambda: open_sample(name), self._show_scan)

    def _show_scan(self, scan: Scan) -> None:
        for data, arguments, _ in layer_data(scan):
            self._viewer.add_image(data, **arguments)

    def _on_save(self) -> None:
        prediction = self.session.state.prediction
        if prediction is None:
            return
        source = prediction.scan.source
        folder = source.path.parent if source else Path.home()
        suggestion = folder / f"{prediction.scan.name}_mask.nii.gz"
        path, _ = QFileDialog.getSaveFileName(self, "Save the mask", str(suggestion), "NIfTI (*.nii.gz *.nii)")
        if path:
            self.session.save_mask(path)

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        self.overlays.set_scan(scan)
        self.panel.set_scan(scan)
        self.panel.set_can_run(scan is not None and self.session.card is not None)
        self.panel.set_volumes([])
        self.panel.ratio.set_timing(None)
        if scan is not None:
            self._where = "cursor" if self._is_too_large(scan) else "whole"
            self._write_where()
        self._write_counts()

    def _on_settings(self) -> None:
        settings = self.session.state.settings
        self.panel.ratio.set_keep_ratio(settings.keep_ratio)
        self.panel.set_card(self.session.card)
        self._on_layers_changed()
        self._write_counts()

    def _on_region(self, region: Region | None) -> None:
        self.overlays.show_region(region)
        self._write_counts()

    def _on_tokens(self) -> None:
        tokens = self.session.state.tokens
        if tokens is not None:
            self.overlays.show_tokens(tokens)
        self._write_counts()

    def _on_prediction(self, prediction: Prediction | None) -> None:
        if prediction is None:
            self.panel.set_volumes([])
            self.panel.ratio.set_timing(None)
            return
        self.overlays.show_mask(prediction)
        self.panel.ratio.set_timing(prediction.timing)
        voxel = float(np.prod(prediction.scan.geometry.spacing)) / 1000
        counts = np.bincount(prediction.mask.ravel(), minlength=256)
        self.panel.set_volumes([(x.name, x.color, float(counts[x.id]) * voxel) for x in prediction.labels])

    def _on_busy(self) -> None:
        self.panel.set_busy(self.session.state.busy)

    def _on_device(self) -> None:
        self.panel.set_device(self.session.state.device)

    def _on_message(self, message: Message | None) -> None:
        if message is not None:
            _SAY[message.severity](message.text)

    # Details

    def _write_counts(self) -> None:
        state, card = self.session.state, self.session.card
        if state.tokens is not None:
            self.panel.ratio.set_left(state.tokens.left)
        elif card is not None:
            window = self._expected_window(card)
            n = int(np.prod([-(-side // card.patch) for side in window]))
            left = tokens_left(n, state.settings.keep_ratio, card.stages, card.minimum_kept)
            self.panel.ratio.set_left(left)
        else:
            self.panel.ratio.set_left(())

    def _expected_window(self, card: Card) -> tuple[int, ...]:
        """Voxels of the first window, as far as one can tell before anything ran."""
        scan, region = self.session.state.scan, self.session.state.region
        if scan is None:
            return card.window
        extent = region.shape if region else scan.shape
        have = [round(n * a / b) for n, a, b in zip(extent, scan.geometry.spacing, card.spacing, strict=True)]
        return tuple(min(a, b) for a, b in zip(have, card.window, strict=True))

    def _write_where(self) -> None:
        self.panel.set_where(self._where, self._where_hint())

    def _where_hint(self) -> str:
        card, scan = self.session.card, self.session.state.scan
        if card is None or scan is None:
            return ""
        size = " × ".join(f"{mm:.0f}" for mm in card.window_mm)
        if self._where == "cursor":
            return f"Click on the structure in the scan: {size} mm around the click are segmented."
        if self._where == "whole" and self._is_too_large(scan):
            return (
                f"This model knows boxes of {size} mm around the structure; in a whole scan it finds what is not there."
            )
        return ""

    def _is_too_large(self, scan: Scan) -> bool:
        card = self.session.card
        if card is None or not card.needs_region:
            return False
        have = [n * s for n, s in zip(scan.shape, scan.geometry.spacing, strict=True)]
        return any(mm > _CROP_SLACK * window for mm, window in zip(have, card.window_mm, strict=True))

    def _window_around(self, voxel: tuple[int, int, int]) -> Region | None:
        scan, card = self.session.state.scan, self.session.card
        return None if scan is None or card is None else scan.geometry.region_around(voxel, card.window_mm)

    def _set_focus(self) -> None:
        if self.session.state.scan is not None:
            self.session.set_focus(self._view_centre())

    def _view_centre(self) -> tuple[int, int, int]:
        """The voxel in the middle of the view, in the slice that is shown."""
        dims = self._viewer.dims
        world = list(dims.point)
        for axis, centre in zip(dims.displayed, self._viewer.camera.center[-len(dims.displayed) :], strict=True):
            world[axis] = centre
        return self._voxel_at(world)

    def _voxel_at(self, world: Any) -> tuple[int, int, int]:
        scan = self.session.state.scan
        if scan is None:
            return (0, 0, 0)
        geometry = scan.geometry
        at = (np.asarray(world[-3:]) - np.asarray(geometry.origin)) / np.asarray(geometry.spacing)
        z, y, x = (int(np.clip(round(v), 0, n - 1)) for v, n in zip(at.tolist(), scan.shape, strict=True))
        return z, y, x
