"""Correcting as a person does it: nothing of theirs is ever lost, whatever the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE, FakeSegmenter, expected_mask, make_registry, make_scan
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_sparsetok import correction
from napari_sparsetok.engine.report import mask_hash
from napari_sparsetok.files import open_scan
from napari_sparsetok.files.autosave import CorrectionStore
from napari_sparsetok.files.record import read_record
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui import correct as module
from napari_sparsetok.ui.correct import CorrectDesk, apply_tool
from napari_sparsetok.ui.correct_panel import MODES, TOOLS, CorrectPanel, LabelRow, ToolRequest
from napari_sparsetok.ui.dock import on_gui_thread
from napari_sparsetok.ui.overlays import Overlays

MS = int(PATIENCE * 1000)


class Room:
    """A viewer model, overlays, a session with a fake engine, and the desk."""

    def __init__(self, qtbot: Any, folder: Path) -> None:
        self.qtbot, self.viewer = qtbot, ViewerModel()
        self.session = Session(
            make_segmenter=lambda: FakeSegmenter(free=True),
            registry=make_registry(),
            settings=Settings(keep_ratio=0.5),
            deliver=on_gui_thread,
        )
        self.overlays = Overlays(self.viewer)
        self.panel = CorrectPanel()
        qtbot.addWidget(self.panel)
        events = self.session.state.events
        events.scan.connect(self._on_scan)
        events.prediction.connect(self._on_prediction)
        self.store = CorrectionStore(folder)
        self.desk = CorrectDesk(self.viewer, self.session, self.overlays, self.panel, self.store)

    def _on_scan(self, scan: Any) -> None:
        self.overlays.set_scan(scan)

    def _on_prediction(self, prediction: Any) -> None:
        if prediction is not None:
            self.overlays.show_mask(prediction)

    def until(self, ready: Any) -> None:
        self.qtbot.waitUntil(lambda: bool(ready()), timeout=MS)

    def segment(self, ratio: float | None = None) -> None:
        if ratio is None:
            self.session.run()
        else:
            self.session.set_keep_ratio(ratio)
        wanted = self.session.state.settings.keep_ratio
        self.until(lambda: (p := self.session.state.prediction) is not None and p.settings.keep_ratio == wanted)
        self.until(lambda: self.session.state.busy is None)

    def settled(self) -> None:
        self.until(lambda: self.session.wait(0.01) and self.session.state.busy is None)

    def composed(self) -> np.ndarray:
        prediction = self.session.state.prediction
        return correction.compose(prediction.mask, np.asarray(self.desk.array))

    def close(self) -> None:
        self.desk.shut_down()
        self.overlays.let_go()
        self.session.close()
        assert self.session.wait(PATIENCE)


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


def paint(room: Room, at: tuple[int, int, int], label: int) -> None:
    room.desk.layers.layer.paint(at, label)


def test_a_stroke_shows_in_the_mask_and_in_the_table(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    paint(room, (5, 10, 10), NOT_TISSUE)
    assert np.array_equal(room.overlays.mask, room.composed())
    assert not np.array_equal(room.overlays.mask, before)
    assert room.overlays.mask[5, 10, 10] == 0
    counts = np.bincount(room.overlays.mask.ravel(), minlength=256)
    assert np.array_equal(room.overlays.counts, counts)
    row = room.panel._rows[1]
    assert row.ml == pytest.approx(counts[2] / 1000)
    assert row.change == pytest.approx((counts[2] - (before == 2).sum()) / 1000)


@pytest.mark.parametrize("ratio", [0.1, 0.9, 1.0])
def test_corrections_hold_through_any_slider_move(correcting, ratio):
    room = correcting
    paint(room, (5, 10, 10), NOT_TISSUE)
    paint(room, (2, 3, 3), 2)
    said = np.array(room.desk.array)
    room.segment(ratio)
    assert np.array_equal(room.desk.array, said)
    assert np.array_equal(room.overlays.mask, correction.compose(expected_mask(room.session.state.scan, ratio), said))
    room.panel.undo_requested.emit()
    assert np.array_equal(room.overlays.mask, room.composed())
    room.panel.redo_requested.emit()
    assert np.array_equal(room.desk.array, said)


def test_a_deleted_layer_is_offered_back_and_the_mask_keeps_it_meanwhile(correcting):
    room = correcting
    paint(room, (5, 10, 10), NOT_TISSUE)
    said = np.array(room.desk.array)
    room.viewer.layers.remove(room.desk.layers.layer)
    assert not room.panel._start_box.isHidden()
    assert room.panel._tool_box.isHidden()
    room.segment(0.8)
    assert np.array_equal(room.overlays.mask, room.composed())
    room.panel.start_requested.emit()
    assert np.array_equal(room.desk.layers.layer.data, said)


def test_a_deleted_mask_layer_comes_back_with_the_corrections(correcting):
    room = correcting
    paint(room, (5, 10, 10), NOT_TISSUE)
    room.viewer.layers.remove(room.overlays.layer("mask"))
    room.segment(0.3)
    assert np.array_equal(room.overlays.mask, room.composed())
    assert np.array_equal(room.overlays.counts, np.bincount(room.composed().ravel(), minlength=256))


def test_what_is_saved_is_what_is_seen(correcting, tmp_path):
    room = correcting
    paint(room, (5, 10, 10), NOT_TISSUE)
    paint(room, (2, 3, 3), 2)
    seen = np.array(room.overlays.mask)
    room.session.save_mask(tmp_path / "mask.nii.gz", room.desk.array)
    paint(room, (8, 8, 8), 1)  # painted on before it is written: not in it
    room.settled()
    assert np.array_equal(open_scan(tmp_path / "mask.nii.gz").voxels, seen)
    document = read_record(tmp_path / "mask.json")
    prediction = room.session.state.prediction.mask
    assert document["corrections"]["voxels_changed"] == (seen != prediction).sum()
    assert document["mask_sha256"] == mask_hash(seen)
    assert document["prediction_sha256"] == mask_hash(prediction)
    after = {row["id"]: row["voxels"] for row in document["labels_corrected"]}
    assert after == {k: int((seen == k).sum()) for k in (1, 2)}


def test_corrections_are_kept_by_themselves_and_offered_back_to_the_same_scan(correcting, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_KEEP_AFTER_MS", 10)
    room = correcting
    paint(room, (5, 10, 10), NOT_TISSUE)
    said = np.array(room.desk.array)
    room.until(lambda: "safe on this computer" in room.panel._said.text())
    again = Room(qtbot, tmp_path / "kept")
    try:
        again.session.set_scan(make_scan())  # the same content, opened another day
        again.until(lambda: again.panel._offer_words.text())
        assert f"{np.count_nonzero(said)} voxels" in again.panel._offer_words.text()
        again.panel.bring_back_requested.emit()
        again.until(lambda: again.desk.array is not None)
        assert np.array_equal(again.desk.array, said)
        again.segment()
        assert np.array_equal(again.overlays.mask, again.composed())
    finally:
        again.close()


def test_what_is_not_kept_yet_is_kept_when_the_scan_changes_or_the_panel_closes(correcting, tmp_path):
    room = correcting
    first = room.session.state.scan
    paint(room, (5, 10, 10), NOT_TISSUE)
    said = np.array(room.desk.array)
    other = make_scan((12, 12, 12), "other")
    room.session.set_scan(other)
    room.settled()
    assert np.array_equal(room.store.give_back(first.content_hash), said)
    room.segment()
    room.panel.start_requested.emit()
    paint(room, (3, 3, 3), 1)
    room.desk.keep()
    room.settled()
    assert room.store.find(other.content_hash).voxels == np.count_nonzero(room.desk.array)


def test_left_alone_kept_corrections_stay_kept(correcting, qtbot, tmp_path):
    room = correcting
    paint(room, (5, 10, 10), 1)
    room.desk.keep()
    room.settled()
    kept = room.store.find(room.session.state.scan.content_hash)
    again = Room(qtbot, tmp_path / "kept")
    try:
        again.session.set_scan(make_scan())
        again.until(lambda: again.panel._offer_words.text())
        again.panel.leave_requested.emit()
        assert again.panel._offer_box.isHidden()
        assert again.store.find(kept.scan) == kept
    finally:
        again.close()


def test_another_scan_starts_clean_and_the_first_gets_its_own_back(correcting):
    room = correcting
    first = room.session.state.scan
    paint(room, (5, 10, 10), 1)
    said = np.array(room.desk.array)
    room.session.set_scan(make_scan((12, 12, 12), "other"))
    assert room.desk.array is None
    assert not room.panel._start_box.isHidden()
    room.session.set_scan(first)
    assert np.array_equal(room.desk.array, said)
    room.segment()
    assert np.array_equal(room.overlays.mask, room.composed())


def test_a_tool_is_one_undo_step_and_works_on_what_is_seen(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    room.panel.tool_requested.emit(ToolRequest("shrink", 2.0, False))
    room.until(lambda: not np.array_equal(room.overlays.mask, before))
    assert (room.overlays.mask == 1).sum() < (before == 1).sum()
    assert np.array_equal(room.overlays.mask == 2, before == 2)
    room.panel.undo_requested.emit()
    assert np.array_equal(room.overlays.mask, before)


def test_a_locked_label_refuses_tools_in_words(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    room.panel.lock_toggled.emit(1, True)
    room.panel.tool_requested.emit(ToolRequest("shrink", 2.0, False))
    room.settled()
    assert "locked" in room.session.state.message.text
    assert np.array_equal(room.overlays.mask, before)


def test_filling_needs_two_corrected_slices_and_says_so(correcting):
    room = correcting
    room.panel.tool_requested.emit(ToolRequest("fill_between", 0.0, False))
    assert "at least two slices" in room.session.state.message.text
    for z in (2, 9):
        paint(room, (z, 10, 9), 1)
    room.panel.tool_requested.emit(ToolRequest("fill_between", 0.0, False))
    room.until(lambda: (room.overlays.mask[5] == 1).sum() >= (room.overlays.mask[2] == 1).sum() - 4)
    assert np.array_equal(room.overlays.mask, room.composed())


def test_modes_paint_what_they_say(correcting):
    room = correcting
    layer = room.desk.layers.layer
    for mode, label, napari_mode in (
        ("brush", 1, "paint"),
        ("eraser", NOT_TISSUE, "paint"),
        ("restore", 0, "paint"),
        ("fill", 1, "fill"),
        ("polygon", 1, "polygon"),
        ("look", 1, "pan_zoom"),
    ):
        room.panel.mode_chosen.emit(mode)
        assert (layer.selected_label, str(layer.mode)) == (label, napari_mode)
    room.panel.mode_chosen.emit("brush")
    room.panel._labels.selectRow(1)
    assert layer.selected_label == 2
    room.panel.mode_chosen.emit("eraser")
    room.panel._labels.selectRow(0)
    assert layer.selected_label == NOT_TISSUE  # the eraser stays an eraser


def test_the_brush_is_in_millimetres(room):
    room.session.set_scan(make_scan(spacing=(2.0, 0.5, 0.5)))
    room.segment()
    room.panel.start_requested.emit()
    assert room.desk.layers.layer.brush_size == 8  # 4 mm of half-millimetre voxels


def test_tools_in_one_slice_leave_the_others_alone():
    mask = np.zeros((5, 20, 20), np.uint8)
    mask[:, 5:15, 5:15] = 1
    for axis, index in ((0, 2), (1, 7), (2, 9)):
        wanted = apply_tool(ToolRequest("shrink", 1.5, True), mask, 1, (2.0, 1.0, 1.0), (axis, index), None)
        changed = np.argwhere(wanted != mask)
        assert len(changed)
        assert set(changed[:, axis]) == {index}


@pytest.mark.parametrize("tool", [t.name for t in TOOLS])
def test_every_tool_of_the_panel_exists(tool):
    mask = np.zeros((5, 20, 20), np.uint8)
    mask[[0, 4], 5:15, 5:15] = 1
    wanted = apply_tool(ToolRequest(tool, 1.5, False), mask, 1, (1.0, 1.0, 1.0), (0, 2), [0, 4])
    assert wanted.shape == mask.shape


# The panel alone


def test_the_panel_fits_and_every_control_says_what_it_does(qtbot):
    panel = CorrectPanel()
    qtbot.addWidget(panel)
    panel.set_active(True)
    panel.set_labels(
        [LabelRow(1, "Anterior hippocampus", "#E69F00", 2.39, 0.01), LabelRow(2, "Posterior", "#56B4E9", 1, -1)]
    )
    panel.show()
    assert panel.minimumSizeHint().width() <= 340
    for button in panel._buttons.buttons():
        assert button.toolTip()
        assert "&" in button.text()
    assert len(MODES) == len(panel._buttons.buttons())


def test_locking_is_a_tick_in_the_table(qtbot):
    panel = CorrectPanel()
    qtbot.addWidget(panel)
    panel.set_labels([LabelRow(7, "x", "#E69F00", 1.0, 0.0)])
    with qtbot.waitSignal(panel.lock_toggled) as caught:
        panel._labels.item(0, 3).setCheckState(Qt.Checked)
    assert caught.args == [7, True]
    assert panel.chosen_label == 7


def test_the_tool_form_asks_only_for_what_the_tool_needs(qtbot):
    panel = CorrectPanel()
    qtbot.addWidget(panel)
    panel.set_active(True)
    panel.show()
    for tool in TOOLS:
        panel._tool.value = tool.name
        assert panel._number.visible == bool(tool.number)
        assert panel._scope.visible == tool.in_slice
        with qtbot.waitSignal(panel.tool_requested) as caught:
            panel._apply.click()
        assert caught.args[0].tool == tool.name
