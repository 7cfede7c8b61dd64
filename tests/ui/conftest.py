"""A room to correct in."""

from __future__ import annotations

import gc

import pytest
from fakes import make_scan
from qtpy.QtCore import QCoreApplication, QEvent
from rooms import Room

from napari_sparsetok.files import autosave


@pytest.fixture(autouse=True, scope="module")
def collected_here():
    """Python may collect on any thread, and what it finds after a test are widgets; so that it is done here alone."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.unfreeze()
    gc.collect()
    gc.enable()


@pytest.fixture(autouse=True)
def gone_with_its_test(collected_here):
    """Widgets end on the GUI thread before the next test begins, not at some moment within it."""
    yield
    if QCoreApplication.instance() is not None:
        QCoreApplication.sendPostedEvents(None, QEvent.DeferredDelete)
    gc.collect()
    gc.freeze()  # what outlives its test, such as modules, is looked at once more, when the module ends


@pytest.fixture(autouse=True)
def kept_nowhere_else(tmp_path_factory, monkeypatch):
    """What one test keeps is not offered in the next: most open the same scan."""
    folder = tmp_path_factory.mktemp("kept-by-default")
    monkeypatch.setattr(autosave, "default_folder", lambda: folder)


@pytest.fixture
def room(qtbot, tmp_path):
    room = Room(qtbot, tmp_path / "kept")
    yield room
    room.close()


@pytest.fixture
def correcting(room):
    """A room with a segmented scan and the brush in hand."""
    room.session.set_scan(make_scan())
    room.segment()
    room.panel.start_requested.emit()
    return room


@pytest.fixture
def no_cost(monkeypatch):
    """Comparisons of a fake engine, whose card describes no network."""
    monkeypatch.setattr("napari_sparsetok.inspection.ladder.gmac_of", lambda prediction, card: 1.0)
