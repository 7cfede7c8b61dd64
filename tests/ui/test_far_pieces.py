"""What is said of pieces that were left out of the mask, and how they come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes import PATIENCE, FakeSegmenter, make_card, make_prediction, make_registry, make_scan
from napari.components import ViewerModel
from qtpy.QtWidgets import QCheckBox

from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.far_pieces import FarPieces
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.scan_layer import layer_data

MS = int(PATIENCE * 1000)


@pytest.fixture
def pieces(qtbot: Any) -> FarPieces:
    widget = FarPieces()
    qtbot.addWidget(widget)
    return widget


def words(pieces: FarPieces) -> str:
    return pieces._words.text().replace("\u00a0", " ")


def test_what_was_left_out_is_said_by_label_with_its_volume(pieces: FarPieces) -> None:
    scan = make_scan(spacing=(2.0, 5.0, 10.0))  # a tenth of a millilitre each
    prediction = make_prediction(scan, Settings("fake"))
    pieces.set_prediction(replace(prediction, left_out=((2, 12), (1, 7), (2, 3))))
    assert words(pieces) == "3 · 2.20 mL"
    rows = pieces._words.toolTip().split("\n")
    assert rows == ["Left out of the mask:", "head: 1 piece, 0.70 mL", "tail: 2 pieces, 1.50 mL"]
    pieces.set_prediction(prediction)
    assert words(pieces) == pieces._words.toolTip() == ""
    pieces.set_prediction(None)
    assert words(pieces) == pieces._words.toolTip() == ""


def test_only_a_model_of_such_structures_shows_it(pieces: FarPieces) -> None:
    assert pieces.isHidden()
    pieces.set_possible(True)
    assert not pieces.isHidden()


def test_showing_the_settings_asks_for_nothing(pieces: FarPieces, qtbot: Any) -> None:
    box = pieces.findChild(QCheckBox)
    asked = []
    pieces.keep_requested.connect(asked.append)
    pieces.set_kept(True)
    assert not box.isChecked()
    pieces.set_kept(False)
    assert asked == []
    box.click()
    box.click()
    assert asked == [True, False]


@pytest.fixture
def dock(qtbot: Any) -> Iterator[Dock]:
    cards = make_card("whole", one_piece=(1,)), make_card("loose")
    engine = FakeSegmenter(free=True)
    session = Session(lambda: engine, make_registry(*cards), Settings("whole", 0.5), deliver=on_gui_thread)
    dock = Dock(ViewerModel(), session)
    dock.engine = engine
    qtbot.addWidget(dock)
    yield dock
    dock.shut_down()
    assert session.wait(PATIENCE)


def test_a_click_brings_them_back_and_segments_anew(dock: Dock, qtbot: Any) -> None:
    for data, arguments, _ in layer_data(make_scan()):
        dock._viewer.add_image(data, **arguments)
    state, box = dock.session.state, dock.panel.pieces.findChild(QCheckBox)
    qtbot.waitUntil(lambda: state.scan is not None, timeout=MS)
    assert not dock.panel.pieces.isHidden()
    box.click()  # nothing is segmented yet, so nothing is segmented anew
    assert state.settings.all_pieces
    assert dock.engine.runs == []
    dock.panel.run_requested.emit()
    qtbot.waitUntil(lambda: state.prediction is not None and state.busy is None, timeout=MS)
    box.click()
    qtbot.waitUntil(lambda: not state.prediction.settings.all_pieces, timeout=MS)
    assert [settings.all_pieces for settings, _, _ in dock.engine.runs] == [True, False]
    dock.session.choose(model="loose")
    assert dock.panel.pieces.isHidden()
