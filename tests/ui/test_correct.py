"""Correcting as a person does it: nothing of theirs is ever lost, whatever the model does."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE, expected_mask, make_scan
from rooms import Room, paint

from napari_sparsetok import correction
from napari_sparsetok.engine.report import mask_hash
from napari_sparsetok.files import open_scan
from napari_sparsetok.files.record import read_record
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.tool import ToolRequest
from napari_sparsetok.ui import keeping as module


def test_a_stroke_shows_in_the_mask_and_in_the_table(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    paint(room, (5, 10, 10), NOT_TISSUE)
    assert np.array_equal(room.overlays.mask, room.composed())
    assert not np.array_equal(room.overlays.mask, before)
    assert room.overlays.mask[5, 10, 10] == 0
    counts = np.bincount(room.overlays.mask.ravel(), minlength=256)
    assert np.array_equal(room.overlays.counts, counts)
    row = room.panel.labels._rows[1]
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
    assert room.panel._work_box.isHidden()
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
    at = np.nonzero(seen != prediction)
    slices = document["corrections"]["slices_corrected"]
    assert slices["axial"] == 2
    assert slices["coronal"] >= len(set(at[1])) > 2
    assert slices["sagittal"] >= len(set(at[2])) > 2
    assert document["mask_sha256"] == mask_hash(seen)
    assert document["prediction_sha256"] == mask_hash(prediction)
    after = {row["id"]: row["voxels"] for row in document["labels_corrected"]}
    assert after == {k: int((seen == k).sum()) for k in (1, 2)}


def test_corrections_are_kept_by_themselves_and_offered_back_to_the_same_scan(correcting, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SOON_MS", 10)
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


def test_what_is_drawn_while_the_disk_is_slow_is_kept_after_it(correcting, monkeypatch):
    room = correcting
    begun, go, keep = threading.Event(), threading.Event(), room.store.keep

    def slow(*arguments: Any) -> Any:
        kept = keep(*arguments)  # what comes now is too late for this one
        begun.set()
        assert go.wait(PATIENCE)
        return kept

    monkeypatch.setattr(room.store, "keep", slow)
    monkeypatch.setattr(module, "_SOON_MS", 10)
    paint(room, (5, 10, 10), NOT_TISSUE)
    room.until(begun.is_set)
    paint(room, (2, 3, 3), 2)
    room.qtbot.wait(50)  # it is due, and the disk is still at work
    go.set()
    room.until(lambda: "safe on this computer" in room.panel._said.text())
    room.settled()
    assert np.array_equal(room.store.give_back(room.store.all()[0].name), np.asarray(room.desk.array))


def test_what_is_not_kept_yet_is_kept_when_the_scan_changes_or_the_panel_closes(correcting, tmp_path):
    room = correcting
    first = room.session.state.scan
    paint(room, (5, 10, 10), NOT_TISSUE)
    said = np.array(room.desk.array)
    other = make_scan((12, 12, 12), "other")
    room.session.set_scan(other)
    room.settled()
    assert np.array_equal(room.store.give_back(room.store.find(first.content_hash).name), said)
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
        assert again.store.find(again.session.state.scan.content_hash) == kept
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
    room.panel.tools.apply_requested.emit(ToolRequest("shrink", 2.0, False))
    room.until(lambda: not np.array_equal(room.overlays.mask, before))
    assert (room.overlays.mask == 1).sum() < (before == 1).sum()
    assert np.array_equal(room.overlays.mask == 2, before == 2)
    room.panel.undo_requested.emit()
    assert np.array_equal(room.overlays.mask, before)


def steps_offered(room):
    return room.panel._undo.isEnabled(), room.panel._redo.isEnabled()


def test_undo_and_redo_are_offered_when_there_is_a_step_to_take(correcting):
    room = correcting
    assert steps_offered(room) == (False, False)
    paint(room, (5, 10, 10), 2)
    assert steps_offered(room) == (True, False)
    room.panel._undo.click()
    assert steps_offered(room) == (False, True)
    room.panel._redo.click()
    assert steps_offered(room) == (True, False)
    room.desk.layers.layer.undo()  # by the layer's own key
    assert steps_offered(room) == (False, True)
    before = np.array(room.overlays.mask)
    room.panel.tools.apply_requested.emit(ToolRequest("shrink", 2.0, False))
    room.until(lambda: not np.array_equal(room.overlays.mask, before))
    assert steps_offered(room) == (True, False)


def test_undo_and_redo_are_those_of_the_scan_that_is_corrected(correcting):
    room = correcting
    first = room.session.state.scan
    paint(room, (5, 10, 10), 2)
    room.session.set_scan(make_scan(name="other"))
    assert steps_offered(room) == (False, False)
    room.segment()
    room.panel.start_requested.emit()
    paint(room, (5, 10, 10), 1)
    room.panel._undo.click()
    assert steps_offered(room) == (False, True)
    room.session.set_scan(first)
    assert steps_offered(room) == (True, False)
    room.viewer.layers.remove(room.desk.layers.layer)
    room.panel.start_requested.emit()  # a new layer, whose steps begin anew
    assert steps_offered(room) == (False, False)


def test_a_locked_label_refuses_tools_in_words(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    room.panel.labels.lock_toggled.emit(1, True)
    room.panel.tools.apply_requested.emit(ToolRequest("shrink", 2.0, False))
    room.settled()
    assert "locked" in room.session.state.message.text
    assert np.array_equal(room.overlays.mask, before)


def test_filling_needs_two_corrected_slices_and_says_so(correcting):
    room = correcting
    room.panel.tools.apply_requested.emit(ToolRequest("fill_between", 0.0, False))
    room.settled()
    assert "at least two slices" in room.session.state.message.text
    for z in (2, 9):
        paint(room, (z, 10, 9), 1)
    room.panel.tools.apply_requested.emit(ToolRequest("fill_between", 0.0, False))
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
        room.panel.paint.mode_chosen.emit(mode)
        assert (layer.selected_label, str(layer.mode)) == (label, napari_mode)
    room.panel.paint.mode_chosen.emit("brush")
    room.panel.labels.selectRow(1)
    assert layer.selected_label == 2
    room.panel.paint.mode_chosen.emit("eraser")
    room.panel.labels.selectRow(0)
    assert layer.selected_label == NOT_TISSUE  # the eraser stays an eraser


def test_no_box_lies_behind_the_circle_of_the_brush(correcting):
    """With one, a window whose layers are all deleted while somebody paints ends in a crash of OpenGL."""
    assert not correcting.viewer.canvas.overlays["_brush_circle"].box
