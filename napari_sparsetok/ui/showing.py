"""How a scan is looked at: window, read-out, planes, keys, information. Everything that changes no result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QDialog, QWidget

from napari_sparsetok.files.reading import Watch
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.brush_preview import UNDER_BRUSH
from napari_sparsetok.ui.in_view import InView
from napari_sparsetok.ui.mirror import CROSS
from napari_sparsetok.ui.overlays import KINDS, OVERLAY, Overlays
from napari_sparsetok.ui.planes import show_plane, step_slice
from napari_sparsetok.ui.preferences import convention
from napari_sparsetok.ui.readout import Mask, Readout
from napari_sparsetok.ui.scan_info import Rows, ScanInfo, facts, identifying
from napari_sparsetok.ui.scan_layer import SCAN
from napari_sparsetok.ui.shortcuts import HelpSheet, Shortcut, Shortcuts
from napari_sparsetok.ui.view_bar import ViewBar
from napari_sparsetok.ui.views import Views
from napari_sparsetok.ui.where import is_inside
from napari_sparsetok.ui.window_level import WindowLevel

_FAR = 10  # slices
_ELSEWHERE = (*KINDS, "region", CROSS, UNDER_BRUSH)  # hidden by the overlays; or no finding, but where one is


class Showing(QObject):
    """Joins the bar below the tabs with the viewer.

    Parameters
    ----------
    widget : dialogs belong to it.
    viewer, session, overlays : what is looked at.
    """

    def __init__(self, widget: QWidget, viewer: ViewerModel, session: Session, overlays: Overlays) -> None:
        super().__init__(widget)
        self._widget, self._viewer, self._session, self._overlays = widget, viewer, session, overlays
        self._hidden: list[str] = []
        self._hidden_marks: list[Layer] = []
        self._alive = True
        self.bar = ViewBar()
        self.window = WindowLevel(viewer)
        self.readout = Readout(self._mask, convention)
        self.shortcuts = Shortcuts(self._keys())
        self.more_keys: tuple[Shortcut, ...] = ()  # bound elsewhere, listed on the sheet
        self.views = Views(viewer, self._on_view_opened, self._on_view_closing)
        self._in_view = InView(viewer, overlays)
        self._place: Geometry | None = None  # of the last scan
        self.dialog: QDialog | None = None
        self.readout.follow(viewer)
        self.shortcuts.follow(viewer)
        self._connect()

    def set_scan(self, scan: Scan | None, layers: Sequence[Layer | None]) -> None:
        """Another scan is shown, by these layers: one for each channel."""
        images = [layer for layer in layers if isinstance(layer, Image)]
        image = images[0] if images else None
        self._in_view.show(images)
        if scan is not None:
            self._in_view.show_overlays()
        self.bar.set_has_scan(scan is not None)
        self.window.set_channels(() if scan is None else _channels(scan, images))
        self.readout.set_scan(scan)
        self.views.set_reference(image if scan is not None else None, scan is not None and scan.sides_known)
        if scan is not None and image is not None:
            self._go_to(scan)
            self._fit(scan, images)

    def shut_down(self) -> None:
        """Let go of the viewer, and of the bar, which may be gone already."""
        self._alive = False
        for signal in (
            self.window.presets_changed,
            self.window.changed,
            self.readout.changed,
            self.views.shown_changed,
        ):
            signal.disconnect()
        self.views.shut_down()
        self._in_view.shut_down()
        self.shortcuts.shut_down()
        self.readout.shut_down()
        self.window.shut_down()

    # Wiring

    def _connect(self) -> None:
        bar = self.bar
        bar.window_chosen.connect(self.window.choose)
        bar.views_toggled.connect(self.views.toggle)
        bar.info_requested.connect(self.show_info)
        bar.help_requested.connect(self.show_help)
        self.window.presets_changed.connect(bar.set_presets)
        self.window.changed.connect(bar.set_window)
        self.readout.changed.connect(bar.set_readout)
        self.views.shown_changed.connect(bar.set_views)
        bar.set_views(False, getattr(self._viewer, "window", None) is not None)

    def _keys(self) -> list[Shortcut]:
        main = self._viewer
        return [
            Shortcut("8", "axial plane", lambda viewer: show_plane(main, "axial")),
            Shortcut("9", "coronal plane", lambda viewer: show_plane(main, "coronal")),
            Shortcut("0", "sagittal plane", lambda viewer: show_plane(main, "sagittal")),
            Shortcut(".", "next slice", lambda viewer: step_slice(viewer, 1)),
            Shortcut(",", "previous slice", lambda viewer: step_slice(viewer, -1)),
            Shortcut("PageUp", f"{_FAR} slices on", lambda viewer: step_slice(viewer, _FAR)),
            Shortcut("PageDown", f"{_FAR} slices back", lambda viewer: step_slice(viewer, -_FAR)),
            Shortcut("U", "three planes at once, and back", lambda viewer: self._soon(self.views.toggle)),
            Shortcut(
                "Q",
                "all the room for the plane under the mouse, and back",
                lambda viewer: self._soon(lambda: self.views.maximise(viewer)),
            ),
            Shortcut("W", "next window (soft tissue, lung, bone …)", lambda viewer: self.window.step(1)),
            Shortcut("Shift-W", "previous window", lambda viewer: self.window.step(-1)),
            Shortcut(
                "H",
                "hide all that was found or drawn on the scan, and show it again",
                lambda viewer: self.hide_or_show(),
            ),
            Shortcut("I", "what is known of this scan", lambda viewer: self.show_info()),
            Shortcut("F1", "this sheet", lambda viewer: self.show_help()),
        ]

    def _soon(self, do: Callable[[], None]) -> None:
        """Once the canvas in which the key was pressed, and which may go, is done with it."""
        QTimer.singleShot(0, lambda: do() if self._alive else None)

    def hide_or_show(self) -> None:
        """Hide what is seen on the scan, corrections and layers of *Inspect* too; once more brings the same back."""
        seen = [kind for kind in KINDS if (layer := self._overlays.layer(kind)) is not None and layer.visible]
        ours = [x for x in self._viewer.layers if OVERLAY in x.metadata and x.metadata[OVERLAY] not in _ELSEWHERE]
        marks = [x for x in ours if x.visible]
        hidden = self._hidden if self._hidden or self._hidden_marks else list(KINDS)
        kinds, on = (seen, False) if seen or marks else (hidden, True)
        for layer in [x for x in self._hidden_marks if x in self._viewer.layers] if on else marks:
            layer.visible = on
        self._hidden, self._hidden_marks = seen, marks
        for kind in kinds:
            self._overlays.set_visible(kind, on)
            self._overlays.visibility_changed.emit(kind, on)

    # Dialogs; none of these waits

    def show_help(self) -> None:
        """The sheet of keys."""
        self._show(HelpSheet((*self.shortcuts.shortcuts, *self.more_keys), self._widget))

    def show_info(self) -> None:
        """What is known of the scan."""
        scan = self._session.state.scan
        if scan is None:
            self._session.say("Open a scan first.")
            return
        dialog = ScanInfo(facts(scan), self._widget)

        def then(rows: Rows) -> None:
            if self.dialog is dialog:
                dialog.set_names(rows)

        def otherwise() -> None:
            if self.dialog is dialog:
                dialog.allow_names()

        def read(watch: Watch) -> Rows:
            return identifying(scan)

        dialog.names_requested.connect(
            lambda: self._session.follow(read, then, "reading the file's header", otherwise=otherwise)
        )
        self._show(dialog)

    def _show(self, dialog: QDialog) -> None:
        if self.dialog is not None:
            self.dialog.close()
        self.dialog = dialog
        dialog.finished.connect(lambda: self._on_closed(dialog))
        dialog.show()

    def _on_closed(self, dialog: QDialog) -> None:
        if self.dialog is dialog:
            self.dialog = None
        dialog.deleteLater()

    # Details

    def _go_to(self, scan: Scan) -> None:
        """If the slices that are shown lie beside the scan, go to its middle."""
        dims = self._viewer.dims
        if dims.ndim < 3 or is_inside(dims.point, scan):
            return
        geometry = scan.geometry
        axes = zip(geometry.origin, geometry.spacing, scan.shape, strict=True)
        dims.point = (*dims.point[:-3], *(begin + step * (n // 2) for begin, step, n in axes))

    def _fit(self, scan: Scan, images: Sequence[Layer]) -> None:
        """All of a scan is seen if it lies elsewhere than the last one; napari does so for the first layer only."""
        last, self._place = self._place, scan.geometry
        if last is not None and not last.same_grid(scan.geometry):
            self._viewer.reset_view(layers=images, reset_camera_angle=False)

    def _mask(self) -> Mask:
        prediction = self._session.state.prediction
        return self._overlays.mask, prediction.labels if prediction is not None else LabelTable(())

    def _on_view_opened(self, model: ViewerModel) -> None:
        self.readout.follow(model)
        self.shortcuts.follow(model)
        self.window.follow(model)

    def _on_view_closing(self, model: ViewerModel) -> None:
        self.readout.leave(model)
        self.shortcuts.leave(model)
        self.window.leave(model)


def _channels(scan: Scan, images: Sequence[Image]) -> list[tuple[Scan, Image]]:
    """Each layer with the scan whose grey values it shows."""
    if scan.leading != "channel":
        return [(scan, image) for image in images[:1]]
    own = [image.metadata.get(SCAN) for image in images]
    return [
        (found if isinstance(found, Scan) and not found.leading else replace(scan, voxels=voxels, leading=""), image)
        for found, voxels, image in zip(own, scan.voxels, images, strict=False)
    ]
