"""“Correct it” on a mask from a file: its labels keep their meaning, what it leaves empty stays empty."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import make_card, make_scan
from rooms import Room, paint

from napari_sparsetok.labels import NOT_TISSUE, Concept, Label, LabelTable


def drawn(scan: object) -> np.ndarray:
    """A mask with something where the model says nothing else than the fake does: everywhere 1 or 2."""
    mask = np.zeros(scan.shape, np.uint8)
    mask[3:6, 4:9, 2:6], mask[8:12, 4:9, 2:6] = 1, 2
    return mask


@pytest.fixture
def segmented(room):
    room.session.set_scan(make_scan())
    room.segment()
    return room


def test_the_mask_that_is_seen_is_the_mask_that_was_opened(segmented):
    room, scan = segmented, segmented.session.state.scan
    mask = drawn(scan)
    assert room.desk.given.begin(scan, mask, LabelTable.of(["head", "tail"])) == ""
    room.until(lambda: room.desk.array is not None)
    assert np.array_equal(room.overlays.mask, mask)  # nothing that was erased comes back
    assert (np.asarray(room.desk.array)[mask == 0] == NOT_TISSUE).all()
    assert "counts as not tissue" in room.session.state.message.text
    assert room.desk.saving.unsaved == [scan]
    room.desk.keep()
    room.settled()
    assert np.array_equal(room.store.give_back(room.store.all()[0].name), room.desk.array)


def test_names_and_codes_count_and_not_numbers(segmented):
    room, scan = segmented, segmented.session.state.scan
    mask = drawn(scan)
    assert room.desk.given.begin(scan, mask, LabelTable.of(["Tail", "Head"])) == ""
    room.until(lambda: room.desk.array is not None)
    assert np.array_equal(room.overlays.mask, np.array([0, 2, 1], np.uint8)[mask])


def test_a_code_is_enough(qtbot, tmp_path):
    code = Concept("10200004", "SCT", "Liver")
    own = LabelTable((Label(1, "Liver", "#E69F00", code),))
    room = Room(qtbot, tmp_path / "kept", make_card(labels=own))
    try:
        room.session.set_scan(make_scan())
        room.segment()
        scan = room.session.state.scan
        mask = np.where(drawn(scan) == 1, 9, 0).astype(np.uint8)
        room.desk.given.begin(scan, mask, LabelTable((Label(9, "Leber", "#E69F00", code),)))
        room.until(lambda: room.desk.array is not None)
        assert np.array_equal(np.asarray(room.desk.array) == 1, mask == 9)
    finally:
        room.close()


def test_labels_that_the_model_does_not_draw_are_refused_in_words(segmented):
    room, scan = segmented, segmented.session.state.scan
    problem = room.desk.given.begin(scan, drawn(scan), LabelTable.of(["head", "Tumour"]))
    assert "does not draw Tumour" in problem
    table = LabelTable((*LabelTable.of(["head", "tail"]), Label(3, "Tumour", "#E69F00")))
    assert room.desk.given.begin(scan, drawn(scan), table) == ""  # it is in the table, but nowhere in the mask
    room.until(lambda: room.desk.array is not None)


def test_bare_numbers_are_taken_as_the_models_and_that_is_said(segmented):
    room, scan = segmented, segmented.session.state.scan
    mask = drawn(scan)
    bare = LabelTable((Label.nameless(1), Label.nameless(2)))
    assert room.desk.given.begin(scan, mask, bare) == ""
    room.until(lambda: room.desk.array is not None)
    assert np.array_equal(room.overlays.mask, mask)
    assert "numbers were read as the model's (head, tail)" in room.session.state.message.text
    room.session.set_scan(make_scan(name="again"))
    seven = LabelTable((Label.nameless(7),))
    assert "label 7" in room.desk.given.begin(room.session.state.scan, (mask == 1).astype(np.uint8) * 7, seven)


def test_before_the_scan_is_segmented_it_waits_for_the_whole_result(room):
    room.session.set_scan(make_scan())
    scan = room.session.state.scan
    mask = drawn(scan)
    assert room.desk.given.begin(scan, mask, LabelTable.of(["head", "tail"])) == ""
    assert "Segment the scan now" in room.session.state.message.text
    assert room.desk.array is None
    room.segment()
    room.until(lambda: room.desk.array is not None)
    assert np.array_equal(room.overlays.mask, mask)


def test_corrections_that_are_there_are_not_written_over(correcting):
    room, scan = correcting, correcting.session.state.scan
    assert room.desk.given.begin(scan, drawn(scan), LabelTable.of(["head", "tail"])) == ""  # an empty layer is nothing
    room.until(lambda: np.any(room.desk.array))
    room.panel.undo_requested.emit()
    assert not np.any(room.desk.array)
    paint(room, (5, 10, 6), 2)
    said = np.array(room.desk.array)
    assert "corrections already" in room.desk.given.begin(scan, drawn(scan), LabelTable.of(["head", "tail"]))
    room.settled()
    assert np.array_equal(room.desk.array, said)


def test_a_mask_that_waits_for_a_model_that_is_left_is_not_dropped_silently(qtbot, tmp_path):
    room = Room(qtbot, tmp_path / "kept", make_card(), make_card("other", labels=LabelTable.of(["Brainstem"])))
    try:
        room.session.set_scan(make_scan())
        scan = room.session.state.scan
        assert room.desk.given.begin(scan, drawn(scan), LabelTable.of(["head", "tail"])) == ""
        said = []
        room.session.state.events.message.connect(lambda message: said.append(message.text))
        room.session.choose(model="other")
        room.segment()
        assert room.desk.array is None
        assert ["not taken over" in text for text in said] == [True]
        room.session.choose(model="fake")
        room.segment()
        assert room.desk.array is None, "and it does not come back by surprise"
    finally:
        room.close()
