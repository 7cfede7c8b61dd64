"""The viewer as the command line opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import napari
import pytest
from dicom_maker import Series, block
from fakes import PATIENCE, FakeSegmenter, make_registry
from napari.components import ViewerModel

from napari_sparsetok.scan import ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.ui import app
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.gui_thread import on_gui_thread

Opened = Callable[[Callable[[Dock], Any]], Dock]


@pytest.fixture
def opened(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """The panel that `view` opens; the window stays until something is so."""
    viewer = ViewerModel()
    dock = Dock(viewer, Session(FakeSegmenter, make_registry(), deliver=on_gui_thread))
    qtbot.addWidget(dock)

    def until(ready: Callable[[Dock], Any]) -> Dock:
        stay = lambda: qtbot.waitUntil(lambda: bool(ready(dock)), timeout=int(PATIENCE * 1000))  # noqa: E731
        monkeypatch.setattr(napari, "run", stay)
        monkeypatch.setattr(app, "open_viewer", lambda: (viewer, dock))
        return dock

    yield until
    dock.shut_down()
    assert dock.session.wait(PATIENCE)


def test_a_scan_that_is_named_is_opened_in_the_window_that_is_there(opened: Opened, tmp_path: Path) -> None:
    folder = Series(block()).write(tmp_path / "study")
    dock = opened(lambda dock: dock.session.state.scan is not None)
    app.view(folder)
    assert dock.session.state.scan.source.format == "dicom"


def test_of_several_series_the_window_asks_which(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for number in (1, 2):
        Series(block()).write(folder / str(number))
    dock = opened(lambda dock: dock.opening.dialog is not None)
    app.view(folder)
    assert dock.session.state.scan is None
    dock.opening.dialog.reject()


def test_nothing_is_opened_for_a_path_where_nothing_is(opened: Opened, tmp_path: Path) -> None:
    opened(lambda dock: True)
    with pytest.raises(ScanError, match="there is nothing at"):
        app.view(tmp_path / "gone.nii.gz")
