"""Where viewer, panel, overlays and session meet."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_sparsetok.sample import SAMPLES, open_sample
from napari_sparsetok.scan import Region, Scan, Shape
from napari_sparsetok.session import Session
from napari_sparsetok.state import DeviceChoice, Prediction, Settings
from napari_sparsetok.ui import where as places
from napari_sparsetok.ui.correct import CorrectDesk
from napari_sparsetok.ui.correct_panel import CorrectPanel
from napari_sparsetok.ui.gaze import Gaze, put_tools_down
from napari_sparsetok.ui.given_mask import GivenMask, mask_layer
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.inspect_panel import InspectPanel
from napari_sparsetok.ui.inspector import InspectDesk
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.lifetime import Lifetime
from napari_sparsetok.ui.messages import Messages
from napari_sparsetok.ui.model_choice import ModelChoice
from napari_sparsetok.ui.opening import Opening
from napari_sparsetok.ui.orientation import Orientation
from napari_sparsetok.ui.other_grid import ask_to_resample
from napari_sparsetok.ui.overlays import OVERLAY, Overlays
from napari_sparsetok.ui.own_window import OwnWindow
from napari_sparsetok.ui.panel import Panel
from napari_sparsetok.ui.preferences import preferences
from napari_sparsetok.ui.scan_choice import ScanChoice
from napari_sparsetok.ui.scan_layer import Frame, LayerData, layer_data
from napari_sparsetok.ui.showing import Showing
from napari_sparsetok.ui.style import BELOW_TITLE, SHEET

_BUSY_LATER_MS = 200  # while the slider moves


class Dock(QWidget):
    """The dock widget "SCD segmentation".

    Parameters
    ----------
    napari_viewer : the viewer that shows the scan; by this name napari knows to hand it in.
    session : what does the work; by default one with this package's engine. It ends with the dock.
    """

    def __init__(self, napari_viewer: ViewerModel, session: Session | None = None) -> None:
        super().__init__()
        self._viewer = viewer = napari_viewer
        self._alive = True
        self._where: places.Where = "whole"
        self._frame: Frame | None = None
        self.session = session or self._default_session()
        self._model = self.session.state.settings.model
        self.overlays = Overlays(viewer)
        self.showing = Showing(self, viewer, self.session, self.overlays)
        self.messages, self.panel = Messages(), Panel(SAMPLES)
        self.opening = Opening(self, self.session, self._show_layers, self._show_given_mask)
        self._scans = ScanChoice(viewer, self.session, self._on_scan_taken)
        self.correct_panel, self.inspect_panel = CorrectPanel(), InspectPanel()
        self._lay_out()
        self.orientation = Orientation(viewer)
        self._busy_later = later(self, self._write_busy, _BUSY_LATER_MS)
        self._connect_panel()
        self._connect_state()
        self._connect_viewer()
        self.correct = CorrectDesk(viewer, self.session, self.overlays, self.correct_panel, dialogs=self)
        self.panel.save_requested.connect(self.correct.saving.save_as)
        self.inspect = InspectDesk(viewer, self.session, self.overlays, self.inspect_panel)
        self.inspect.doubt_changed.connect(self.correct.review.set_doubt)
        self.showing.more_keys = self.inspect.shortcuts.shortcuts
        self._show_first()
        OwnWindow(self)
        self._lifetime = Lifetime(self, self.shut_down)

    def deliver(self, function: Callable[[], None]) -> None:
        """For a session that is handed in: runs its state changes on the GUI thread."""
        self._deliver(function)

    def closeEvent(self, event: Any) -> None:
        """A panel in no window ends when it is closed."""
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Stop listening and computing. Does not wait; a save that was asked for is finished all the same."""
        if not self._alive:
            return
        self._alive = False
        for emitter, slot in self._connections:
            emitter.disconnect(slot)
        self._scans.shut_down()
        self._gaze.shut_down()
        self.correct.shut_down()
        self.inspect.shut_down()
        self.showing.shut_down()
        self.orientation.shut_down()
        self.overlays.let_go()
        self.session.close()

    def _lay_out(self) -> None:
        self.setStyleSheet(SHEET)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, BELOW_TITLE, 0, 0)
        layout.setSpacing(2)
        tabs = QTabWidget()
        for tab, name in ((self.panel, "Segment"), (self.correct_panel, "Correct"), (self.inspect_panel, "Inspect")):
            tabs.addTab(tab, name)
        layout.addWidget(tabs, 1)  # napari adds a stretch below, which must take nothing
        for widget in (self.messages, self.showing.bar, self.panel.status):
            layout.addWidget(widget)

    def _show_first(self) -> None:
        """What is known before anything happens."""
        session, settings = self.session, self.session.state.settings
        self.panel.set_models(session.registry.cards, settings.model)
        self.panel.set_card(session.card)
        self.panel.ratio.set_keep_ratio(settings.keep_ratio)
        self.panel.set_device_choice(settings.device)
        self.panel.set_can_run(False)
        self._on_layers_changed()
        self._write_counts()
        for problem in session.registry.problems:
            session.say(problem)

    # Wiring

    def _default_session(self) -> Session:
        wanted = preferences()
        settings = Settings(keep_ratio=wanted.keep_ratio, device=cast(DeviceChoice, wanted.device))
        return Session(
            settings=settings, cache_bytes=wanted.cache_bytes, deliver=self._deliver, look_ahead=wanted.look_ahead
        )

    def _deliver(self, function: Callable[[], None]) -> None:
        on_gui_thread(lambda: function() if self._alive else None)

    def _connect_panel(self) -> None:
        panel, session = self.panel, self.session
        panel.scans_chosen.connect(self._scans.choose_by_hand)
        self._scans.other_grid.connect(self._on_other_grid)
        self._scans.replaced.connect(self._on_replaced)
        self._models = ModelChoice(session, panel)
        panel.device_chosen.connect(lambda device: session.choose(device=device))
        panel.where_chosen.connect(self._on_where_chosen)
        panel.region_edited.connect(session.set_region)
        panel.run_requested.connect(self._on_run)
        panel.cancel_requested.connect(session.cancel)
        panel.keep_ratio_moved.connect(self._on_keep_ratio_moved)
        panel.ratio.limit_requested.connect(session.stay_under)
        panel.pieces.keep_requested.connect(self._on_keep_pieces)
        panel.overlay_toggled.connect(self.overlays.set_visible)
        self.overlays.visibility_changed.connect(panel.set_overlay_shown)
        panel.open_requested.connect(self.opening.ask_file)
        panel.folder_requested.connect(self.opening.ask_folder)
        self.showing.bar.file_requested.connect(self.opening.ask_file)
        self.showing.bar.folder_requested.connect(self.opening.ask_folder)
        self.showing.bar.mask_requested.connect(self.opening.ask_mask)
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
        events.looking_ahead.connect(self.panel.status.set_looking_ahead)
        events.message.connect(self.messages.tell)

    def _connect_viewer(self) -> None:
        layers, dims = self._viewer.layers.events, self._viewer.dims.events
        camera, cursor = self._viewer.scene.camera.events, self._viewer.cursor.events
        self._connections = [
            (layers.inserted, self._on_inserted),
            (layers.removed, self._on_layers_changed),
            (dims.current_step, self._on_step),
            (self.overlays.mask_changed, self._write_volumes),
            *((emitter, self._on_activity) for emitter in (dims.current_step, camera, cursor.position)),
        ]
        for emitter, slot in self._connections:
            emitter.connect(slot)
        self._gaze = Gaze(self._viewer, lambda: self.session.state.scan, self._on_click)

    # The viewer changed

    def _on_inserted(self, event: Any) -> None:
        self._on_layers_changed(newest=event.value)

    def _on_layers_changed(self, event: Any = None, newest: Any = None) -> None:
        if newest is not None and OVERLAY in newest.metadata:
            return
        card = self.session.card
        self._scans.update(card.channels if card else ("",), newest)
        self.panel.set_layers(self._scans.layers, self._scans.chosen)

    def _on_step(self, event: Any = None) -> None:
        self._scans.on_step()

    def _on_activity(self, event: Any = None) -> None:
        self.session.attend()

    def _on_scan_taken(self, scan: Scan | None, frame: Frame | None, problem: str) -> None:
        self._frame = frame
        self._models.suit(scan)
        self.session.set_scan(scan)
        if scan is None:
            self.panel.set_scan(None, problem)

    def _on_replaced(self, scans: list[Scan], layer: Layer) -> None:
        """Other voxels under an old mask would make it a lie."""
        if self.session.state.prediction is not None or self.correct.array is not None:
            self.session.say(
                f"The scan changed, so it is another now: “{layer.name}” has other voxels, or lies elsewhere. "
                "The old mask is hidden; its corrections are kept."
            )
        for scan in scans:
            self.overlays.retire_scan(scan)

    def _on_other_grid(self, problem: str) -> None:
        ask_to_resample(self, problem, self._scans.resample)

    def _on_click(self, voxel: Shape, scan: Scan) -> None:
        """What lies there comes first, and alone if the person chose "around a click"."""
        self.session.set_focus(voxel)
        if self._where == "cursor" and not self._scans.were_written():
            self.session.set_region(places.region_around(voxel, scan, self.session.card))
            self.session.run()
        elif self.session.is_segmenting:  # go on there instead; what was computed already is not computed again
            self.session.run()

    # The person asked

    def _on_where_chosen(self, where: places.Where) -> None:
        self._where = where
        if where == "cursor":
            put_tools_down(self._viewer)
        scan = self.session.state.scan
        if where == "box" and scan is not None:
            region = self.session.state.region or self._around_view()
            self.session.set_region(region)
            if region is not None:
                self.panel.set_region(region, scan)
        elif where != "cursor":  # a click will say; until then the slider stays in the part that is shown
            self.session.set_region(None)
        self._write_where()

    def _on_run(self) -> None:
        if self._scans.were_written():  # it was said that they are another scan now, and no part of it is chosen yet
            return
        if self._where == "cursor" and self.session.state.region is None:
            self.session.say("Click on the structure in a slice of the scan: what lies around the click is segmented.")
            return
        self._set_focus()
        self.session.run()

    def _on_keep_pieces(self, kept: bool) -> None:
        self.session.choose(all_pieces=kept)
        if self.session.state.prediction is not None:
            self._on_run()

    def _on_keep_ratio_moved(self, ratio: float, live: bool) -> None:
        if self._alive:  # moves are told with a delay, and the window may have been closed meanwhile
            self._set_focus()
            self.session.set_keep_ratio(ratio, live=live)

    def _on_sample(self, name: str) -> None:
        self._load(lambda: open_sample(name), f"opening {SAMPLES[name]}")

    def _load(self, read: Callable[[], Scan], words: str) -> None:
        self.session.load(lambda: layer_data(read()), self._show_layers, words)

    def _show_layers(self, layers: list[LayerData]) -> None:
        for data, arguments, _ in layers:
            self._viewer.add_image(data, **arguments)

    def _show_given_mask(self, given: GivenMask, name: str, correct: bool) -> None:
        if correct and given[0] is self.session.state.scan:
            problem = self.correct.given.begin(*given)
            if not problem:
                return
            self.session.say(f"{problem} The mask is shown as a layer of its own.")
        data, arguments, _ = mask_layer(given, name)
        self._viewer.add_labels(data, **arguments)

    # The state changed

    def _on_scan(self, scan: Scan | None) -> None:
        self.overlays.set_scan(scan, self._frame)
        self.orientation.set_shown(scan is not None and scan.sides_known)
        self.showing.set_scan(scan, self._scans.chosen)
        self.panel.set_scan(scan)
        self.panel.set_can_run(scan is not None and self.session.card is not None)
        if scan is not None:
            self.session.warm_up()
        self._where = places.usual_where(scan, self.session.card)
        self._write_where()
        self._write_counts()

    def _on_settings(self, settings: Settings) -> None:
        self.panel.ratio.set_keep_ratio(settings.keep_ratio)
        self.panel.pieces.set_kept(settings.all_pieces)
        if settings.model != self._model:
            self._model = settings.model
            self._on_model()
        self._write_counts()

    def _on_model(self) -> None:
        """Another model: other channels, another window, and what the old one said is no longer the result."""
        session = self.session
        self.overlays.retire()
        self.panel.set_models(session.registry.cards, self._model)
        self.panel.set_card(session.card)
        self.panel.set_can_run(session.state.scan is not None and session.card is not None)
        self._on_layers_changed()
        self._where = places.usual_where(session.state.scan, session.card)
        session.set_region(None)
        self._write_where()

    def _on_region(self, region: Region | None) -> None:
        self.overlays.show_region(region)
        self._write_counts()

    def _on_tokens(self) -> None:
        tokens = self.session.state.tokens
        if tokens is not None:
            self.overlays.show_tokens(tokens)
        self._write_counts()

    def _on_prediction(self, prediction: Prediction | None) -> None:
        self.panel.pieces.set_prediction(prediction)
        self.panel.ratio.set_timing(None if prediction is None else prediction.timing)
        if prediction is None:
            self.panel.set_volumes([])
            return
        self.overlays.show_mask(prediction)
        self._write_volumes()

    def _on_busy(self) -> None:
        """While the slider moves, jobs come and go; telling of each would cost more than the mask."""
        if self.session.state.busy is None or not self.panel.ratio.is_moving:
            self._busy_later.stop()
            self._write_busy()
        elif not self._busy_later.isActive():
            self._busy_later.start()

    def _write_busy(self) -> None:
        self.panel.set_busy(self.session.state.busy)

    def _on_device(self) -> None:
        self.panel.status.set_device(self.session.state.device)

    # Details

    def _write_counts(self) -> None:
        state, card = self.session.state, self.session.card
        if state.tokens is not None:
            self.panel.ratio.set_left(state.tokens.left, state.tokens.empty)
        elif card is not None:
            self.panel.ratio.set_left(places.expected_left(state.settings.keep_ratio, card, state.scan, state.region))
        else:
            self.panel.ratio.set_left(())

    def _write_volumes(self, region: Region | None = None) -> None:
        """Those of what is seen, and saved: with the corrections."""
        prediction, counts = self.session.state.prediction, self.overlays.counts
        if prediction is None:
            return
        if counts is None or self.correct.array is None:
            counts = prediction.voxel_counts
        millilitres = prod(prediction.scan.geometry.spacing) / 1000
        self.panel.set_volumes([(x.name, x.color, float(counts[x.id]) * millilitres) for x in prediction.labels])

    def _write_where(self) -> None:
        self.panel.set_where(self._where, places.hint(self._where, self.session.state.scan, self.session.card))

    def _set_focus(self) -> None:
        if (voxel := self._gaze.voxel) is not None:
            self.session.set_focus(voxel)

    def _around_view(self) -> Region | None:
        scan, middle = self.session.state.scan, self._gaze.middle
        return None if middle is None else places.region_around(middle, scan, self.session.card)
