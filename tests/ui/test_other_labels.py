"""Another model, another scan, and back: corrections mean what they meant, and the panel drives the layer on screen."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import make_card, make_scan
from rooms import Room, paint

from napari_sparsetok.labels import NOT_TISSUE, LabelTable

OTHERS = LabelTable.of(["Brainstem", "Spinal cord"])


@pytest.fixture
def room(qtbot, tmp_path):
    room = Room(qtbot, tmp_path / "kept", make_card(), make_card("other", labels=OTHERS), make_card("again"))
    yield room
    room.close()


def chosen(room: Room, model: str) -> None:
    room.session.choose(model=model)
    room.segment()


def test_corrections_of_one_model_are_not_read_as_anothers_labels(correcting):
    room = correcting
    paint(room, (5, 10, 10), 1)
    paint(room, (9, 10, 6), NOT_TISSUE)
    said, layer = np.array(room.desk.array), room.desk.layers.layer
    room.panel.labels.lock_toggled.emit(2, True)
    chosen(room, "other")
    assert room.desk.array is None
    assert not layer.visible
    assert np.array_equal(room.overlays.mask, room.session.state.prediction.mask)
    assert room.panel._work_box.isHidden()
    room.panel.start_requested.emit()
    assert not np.any(room.desk.array)
    paint(room, (3, 3, 3), 2)  # another label 2, which is not locked
    assert np.any(room.desk.array)
    others, theirs = np.array(room.desk.array), room.desk.layers.layer
    chosen(room, "fake")
    assert np.array_equal(room.desk.array, said)
    assert layer.visible
    assert not theirs.visible
    assert not room.panel._work_box.isHidden()
    assert np.array_equal(room.overlays.mask, room.composed())
    room.panel.undo_requested.emit()
    assert (np.asarray(room.desk.array) == NOT_TISSUE).sum() == 0
    room.panel.redo_requested.emit()
    chosen(room, "again")  # another model of the very same labels
    assert np.array_equal(room.desk.array, said)
    room.desk.keep()
    room.settled()
    kept = {tuple(x.name for x in one.labels): room.store.give_back(one.name) for one in room.store.all()}
    assert np.array_equal(kept["head", "tail"], said)
    assert np.array_equal(kept["Brainstem", "Spinal cord"], others)


def test_what_is_kept_is_offered_only_for_the_labels_that_it_was_drawn_with(correcting, qtbot, tmp_path):
    paint(correcting, (5, 10, 10), 1)
    said = np.array(correcting.desk.array)
    correcting.desk.keep()
    correcting.settled()
    again = Room(qtbot, tmp_path / "kept", make_card("other", labels=OTHERS), make_card())
    try:
        again.session.set_scan(make_scan())
        again.until(lambda: again.session.state.message is not None)
        assert "other labels (head, tail)" in again.session.state.message.text
        assert not again.panel._offer_words.text()
        again.session.state.message = None
        again.desk.kept.bring_back(again.store.all()[0])  # from the list
        again.until(lambda: again.session.state.message is not None)
        assert "other labels (head, tail)" in again.session.state.message.text
        assert again.desk.array is None
        again.session.choose(model="fake")
        again.until(lambda: again.panel._offer_words.text())
        again.panel.bring_back_requested.emit()
        again.until(lambda: again.desk.array is not None)
        assert np.array_equal(again.desk.array, said)
    finally:
        again.close()


def test_what_an_earlier_version_kept_says_that_its_labels_were_not_noted(room):
    scan = make_scan()
    said = np.zeros(scan.shape, np.uint8)
    said[3, 4, 5] = 2
    room.store.keep(scan.content_hash, said)
    room.session.set_scan(scan)
    room.until(lambda: room.panel._offer_words.text())
    assert "what labels" in room.panel._offer_words.text()
    assert "head, tail" in room.panel._offer_words.text()
    room.desk.kept.bring_back(room.store.all()[0])  # from the list: asks
    room.until(lambda: room.desk.kept.question is not None)
    assert room.desk.array is None
    next(b for b in room.desk.kept.question.buttons() if "Cancel" in b.text().replace("&", "")).click()
    room.panel.bring_back_requested.emit()
    room.until(lambda: room.desk.array is not None)
    assert np.array_equal(room.desk.array, said)
    room.desk.keep()
    room.settled()
    assert {one.labels and len(one.labels) for one in room.store.all()} == {None, 2}  # the old file stays


def test_a_mask_of_another_model_is_not_saved_over_that_of_the_first(correcting, tmp_path):
    room = correcting
    saving = room.desk.saving
    paint(room, (5, 10, 10), 1)
    saving._write(tmp_path / "head.nii.gz", lambda: None)
    room.settled()
    assert saving.path == tmp_path / "head.nii.gz"
    paint(room, (9, 10, 10), 1)
    chosen(room, "other")
    assert saving.path is None
    room.panel.start_requested.emit()
    paint(room, (3, 3, 3), 2)
    saving._write(tmp_path / "stem.nii.gz", lambda: None)
    room.settled()
    assert saving.unsaved == [room.session.state.scan]  # the first model's stroke is in no mask yet
    chosen(room, "fake")
    assert saving.path == tmp_path / "head.nii.gz"


def test_back_at_a_scan_its_corrections_show_and_the_panel_drives_them(correcting):
    room = correcting
    first, layer = room.session.state.scan, room.desk.layers.layer
    paint(room, (5, 10, 10), 1)
    room.panel.paint.mode_chosen.emit("eraser")
    other = make_scan((12, 12, 12), "other")
    room.session.set_scan(other)
    assert not layer.visible
    room.panel.paint.mode_chosen.emit("fill")  # there is nothing to paint in
    assert str(layer.mode) != "fill"
    room.segment()
    room.panel.start_requested.emit()
    theirs = room.desk.layers.layer
    room.session.set_scan(first)
    assert layer.visible
    assert not theirs.visible
    assert room.viewer.layers.selection.active is layer
    assert layer.selected_label == NOT_TISSUE  # as it was left
    assert next(b for b in room.panel.paint.buttons if b.isChecked()).property("mode") == "eraser"
    room.panel.paint.mode_chosen.emit("fill")
    assert str(layer.mode) == "fill"
    assert str(theirs.mode) != "fill"
    room.panel.paint.mode_chosen.emit("brush")
    room.segment()
    room.panel.labels.selectRow(1)
    assert (layer.selected_label, theirs.selected_label) == (2, 1)
    room.panel.labels.lock_toggled.emit(2, True)
    before = np.array(room.desk.array)
    paint(room, (5, 10, 10), 2)
    assert np.array_equal(room.desk.array, before)


def test_while_labels_are_locked_the_layer_of_another_scan_refuses(correcting):
    room = correcting
    layer = room.desk.layers.layer
    room.panel.labels.lock_toggled.emit(2, True)
    room.session.set_scan(make_scan((20, 24, 16), "other"))
    room.segment()
    layer.visible = True
    layer.paint((5, 10, 10), 1)
    assert not np.any(layer.data)
    assert "Choose the scan and the model of this layer" in room.session.state.message.text
    room.panel.labels.lock_toggled.emit(2, False)
    layer.paint((5, 10, 10), 1)
    assert np.any(layer.data)
    layer.fill((5, 10, 10), 2)  # what is seen is another scan's mask, and means nothing here
    assert (np.asarray(layer.data) == 2).any()


def test_coming_back_does_not_take_the_selection_from_another_layer(correcting):
    room = correcting
    first, layer = room.session.state.scan, room.desk.layers.layer
    room.panel.paint.mode_chosen.emit("look")
    room.session.set_scan(make_scan((12, 12, 12), "other"))
    image = room.viewer.add_image(np.zeros((4, 4, 4)))
    room.viewer.layers.selection = {image}
    room.session.set_scan(first)
    assert room.viewer.layers.selection.active is image
    assert layer.visible
    assert str(layer.mode) == "pan_zoom"
