"""napari's own menus, numbers and modes on the layer of corrections: nothing is lost, and nothing lands elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import LABELS, make_card, make_scan
from rooms import Room, paint

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.ui.brush_layer import Labels


def test_what_is_drawn_after_napari_converted_the_numbers_is_kept(correcting):
    room, layer = correcting, correcting.desk.layers.layer
    paint(room, (5, 10, 6), 2)
    layer.data = layer.data.astype("int32")  # what its menu does
    paint(room, (9, 3, 3), 1)
    assert np.asarray(room.desk.array)[9, 3, 3] == 1
    assert np.array_equal(room.overlays.mask, room.composed())
    layer.undo()
    layer.undo()
    assert not np.any(room.desk.array)


def test_voxels_that_somebody_puts_into_the_layer_are_one_undo_step(correcting):
    room, layer = correcting, correcting.desk.layers.layer
    paint(room, (5, 10, 6), 2)
    said = np.array(room.desk.array)
    new = said.copy()
    new[0, :2, 0] = (1, 2)
    layer.data = new
    assert np.array_equal(room.desk.array, new)
    assert np.array_equal(room.overlays.mask, room.composed())
    layer.undo()
    assert np.array_equal(room.desk.array, said)
    layer.data = new[1:]
    assert np.array_equal(room.desk.array, said)
    assert "not those of the scan" in room.session.state.message.text


def test_a_locked_label_is_not_put_into_the_layer_either(correcting):
    room, layer = correcting, correcting.desk.layers.layer
    room.panel.labels.lock_toggled.emit(2, True)
    layer.data = np.full_like(np.asarray(layer.data), 2)
    assert not np.any(room.desk.array)


def test_a_number_that_no_label_has_is_not_painted(correcting):
    room, layer = correcting, correcting.desk.layers.layer
    layer.selected_label = 77  # napari's own box takes any
    paint(room, (5, 10, 6), 77)
    layer.fill((5, 10, 3), 77)
    assert not np.any(room.desk.array)
    assert "No label has the number 77" in room.session.state.message.text


@pytest.mark.parametrize("name", ["translate", "scale", "affine", "rotate", "shear"])
def test_the_layer_stays_on_the_scan(correcting, name):
    room, layer = correcting, correcting.desk.layers.layer
    before = layer.data_to_world((5, 10, 6))
    moved = {
        "translate": (3, 0, 0),
        "scale": (2, 2, 2),
        "rotate": 10,
        "shear": (0.1, 0, 0),
        "affine": np.diag([1.0, 2.0, 1.0, 1.0]),
    }
    setattr(layer, name, moved[name])
    assert np.allclose(layer.data_to_world((5, 10, 6)), before)
    assert "cannot be moved" in room.session.state.message.text


def test_moving_layers_by_mouse_is_no_mode_of_it(correcting):
    room, layer = correcting, correcting.desk.layers.layer
    told = []
    layer.events.mode.connect(lambda event: told.append(event.mode))
    layer.mode = "transform"
    assert (layer.mode, told) == ("paint", ["paint"])
    assert "cannot be moved" in room.session.state.message.text


def test_a_layer_of_nobodys_is_as_naparis():
    layer = Labels(np.zeros((2, 3, 4), np.uint8))
    layer.paint((0, 1, 1), 200)
    assert layer.data[0, 1, 1] == 200


@pytest.fixture
def two_models(qtbot, tmp_path):
    other = LabelTable.of(["liver"])
    room = Room(qtbot, tmp_path / "kept", make_card("a"), make_card("b"), make_card("other", labels=other))
    room.session.set_scan(make_scan())
    room.segment()
    room.panel.start_requested.emit()
    yield room
    room.close()


def test_thirty_steps_are_undone_across_models(two_models):
    room, random = two_models, np.random.default_rng(0)
    states = [np.array(room.desk.array)]
    while len(states) < 31:
        paint(room, tuple(random.integers(0, 12, 3).tolist()), int(random.choice([0, 1, 2, 255])))
        if not np.array_equal(states[-1], room.desk.array):
            states.append(np.array(room.desk.array))
        if len(states) % 7 == 0:
            for model in ("other", "b", "a")[len(states) % 3 :]:
                room.session.choose(model=model)
                room.segment()
    assert room.session.card.labels is LABELS
    for k in reversed(range(30)):
        room.panel.undo_requested.emit()
        assert np.array_equal(room.desk.array, states[k])
        if k % 6 == 0:
            room.session.choose(model="ab"[k // 6 % 2])
            room.segment()
        assert np.array_equal(room.overlays.mask, room.composed())
    for state in states[1:]:
        room.panel.redo_requested.emit()
        assert np.array_equal(room.desk.array, state)


def test_what_was_reviewed_belongs_to_the_labels_that_were_looked_at(two_models):
    room = two_models
    room.desk.review.mark_slice(True)
    marked = room.desk.notes
    room.session.choose(model="other")
    room.segment()
    room.panel.start_requested.emit()
    assert not room.desk.notes.slices
    assert not room.panel.review._slice.isChecked()
    paint(room, (5, 10, 6), 1)
    room.desk.keep()
    room.session.choose(model="b")  # of the same labels as the first
    room.segment()
    assert room.desk.notes.slices == marked.slices
    room.desk.keep()
    room.settled()
    kept = {one.labels.words: room.store.notes(one.name)["reviewed_slices"]["axial"] for one in room.store.all()}
    assert kept == {"head, tail": [7], "liver": []}
