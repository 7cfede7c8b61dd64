"""The viewer with the panel, opened from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import napari
import napari.settings
from qtpy.QtWidgets import QApplication

from napari_sparsetok.engine.report import report
from napari_sparsetok.files import save_mask
from napari_sparsetok.files.token_arrays import save_tokens
from napari_sparsetok.sample import open_sample
from napari_sparsetok.scan import Scan, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.scan_layer import layer_data

TITLE = "SCD segmentation"
_PATIENCE = 120.0  # seconds that the demonstration waits for its result


def open_viewer(scan: Scan | None = None, session: Session | None = None) -> tuple[napari.Viewer, Dock]:
    """A viewer with the panel docked, on a session of its own if none is given, and a scan in it if there is one."""
    with _only_errors_pop_up():
        viewer = napari.Viewer(title="napari-sparsetok")
    dock = Dock(viewer, session)
    viewer.window.add_dock_widget(dock, name=TITLE, area="right")
    if scan is not None:
        for data, arguments, _ in layer_data(scan):
            viewer.add_image(data, **arguments)
    return viewer, dock


@contextmanager
def _only_errors_pop_up() -> Iterator[None]:
    """What napari remarks on the Qt binding is for whoever installed it, not for the person at the scan."""
    application = napari.settings.get_settings().application
    level = application.gui_notification_level
    application.gui_notification_level = "error"
    try:
        yield
    finally:
        application.gui_notification_level = level


def view(path: Path | None) -> None:
    """Open the viewer, with a scan if one is named, and stay until it is closed.

    The scan is opened as if it had been chosen in the window, which is there at once and asks what must be asked.

    Raises
    ------
    ScanError : there is nothing at the path.
    """
    if path is not None and not path.exists():
        raise ScanError(f"there is nothing at {path}")
    _, dock = open_viewer()
    if path is not None:
        dock.opening.open(path)
    napari.run()
    dock.shut_down()


def demo(folder: Path | None) -> Path | None:
    """Do the main job on a sample.

    Parameters
    ----------
    folder : write mask, report, token map and a screenshot here and end; None leaves the viewer open instead.

    Returns
    -------
    The folder.
    """
    viewer, dock = open_viewer(_demo_scan())
    viewer.window.resize(1400, 860)
    dock.panel.run_requested.emit()
    prediction = _wait_for(lambda: _finished(dock))
    _show_largest_slice(viewer, prediction)
    if folder is None:
        napari.run()
        dock.shut_down()
        return None
    folder.mkdir(parents=True, exist_ok=True)
    _pump(1.0)
    QApplication.processEvents()
    dock.window().grab().save(str(folder / "window.png"))
    save_mask(folder / "mask.nii.gz", prediction.mask, prediction.scan, prediction.labels)
    save_tokens(folder / "tokens.npz", prediction.tokens)
    card = dock.session.registry[prediction.settings.model]
    (folder / "report.json").write_text(json.dumps(report(prediction, card), indent=1) + "\n", encoding="utf-8")
    dock.shut_down()
    viewer.close()
    return folder


def _demo_scan() -> Scan:
    try:
        return open_sample("hippocampus_left")
    except ScanError:  # nilearn is an extra
        return open_sample("phantom")


def _finished(dock: Dock) -> Prediction | None:
    state = dock.session.state
    if state.message is not None and state.message.severity == "error":
        raise ScanError(state.message.text)
    return state.prediction if state.prediction is not None and state.prediction.complete else None


def _wait_for(ready: Callable[[], Prediction | None]) -> Prediction:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        QApplication.processEvents()
        prediction = ready()
        if prediction is not None:
            return prediction
        time.sleep(0.01)
    raise ScanError(f"the sample was not segmented within {_PATIENCE:.0f} seconds")


def _pump(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.01)


def _show_largest_slice(viewer: napari.Viewer, prediction: Prediction) -> None:
    """Go to the axial slice that holds most of the mask."""
    areas = (prediction.mask > 0).sum(axis=(1, 2))
    geometry = prediction.scan.geometry
    viewer.dims.set_point(0, geometry.origin[0] + int(areas.argmax()) * geometry.spacing[0])
