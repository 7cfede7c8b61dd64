"""What a person corrected is kept, whatever happens next: another day, another scan, a full disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes import make_scan
from rooms import Room, paint

from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import ScanError
from napari_sparsetok.ui import keeping


def everything(room: Room) -> list[bytes]:
    """All that is kept, whatever it is called."""
    return [room.store.give_back(kept.name).tobytes() for kept in room.store.all()]


def yesterdays(room: Room, folder: Path) -> np.ndarray:
    """Correct the scan and leave."""
    day = Room(room.qtbot, folder)
    day.session.set_scan(make_scan())
    day.segment()
    day.panel.start_requested.emit()
    paint(day, (5, 10, 6), 2)
    paint(day, (9, 10, 6), NOT_TISSUE)
    said = np.array(day.desk.array)
    day.close()
    return said


def test_who_starts_first_and_brings_back_then_has_what_was_kept(room, tmp_path):
    said = yesterdays(room, tmp_path / "kept")
    room.session.set_scan(make_scan())
    room.segment()
    room.panel.start_requested.emit()  # an empty array is there
    room.panel.bring_back_requested.emit()
    room.until(lambda: np.array_equal(room.desk.array, said))
    assert np.array_equal(room.overlays.mask, room.composed())
    paint(room, (2, 3, 3), 1)
    room.desk.keep()
    room.settled()
    assert everything(room) == [np.asarray(room.desk.array).tobytes()]  # gone on with: nothing had to be set aside
    room.panel.undo_requested.emit()
    room.panel.undo_requested.emit()
    assert not np.any(room.desk.array)  # bringing back is one step
    room.panel.redo_requested.emit()
    assert np.array_equal(room.desk.array, said)


def bring_back(room: Room) -> None:
    room.panel.bring_back_requested.emit()
    room.until(lambda: room.desk.kept.question is not None)
    next(b for b in room.desk.kept.question.buttons() if "Bring" in b.text()).click()
    room.settled()


def test_what_was_offered_comes_back_and_not_what_was_drawn_since(room, tmp_path):
    theirs = yesterdays(room, tmp_path / "kept")
    room.session.set_scan(make_scan())
    room.panel.start_requested.emit()
    room.until(room.panel._offer_words.text)
    paint(room, (2, 3, 3), 1)
    own = np.array(room.desk.array)
    room.desk.keep()  # which sets aside what was offered
    room.settled()
    bring_back(room)
    assert np.array_equal(room.desk.array, theirs)
    assert own.tobytes() in everything(room)
    paint(room, (7, 3, 3), 1)
    room.desk.keep()
    room.settled()
    assert {theirs.tobytes(), own.tobytes(), room.desk.array.tobytes()} <= set(everything(room))


def test_what_was_offered_and_is_gone_is_said_and_nothing_else_comes_back(room, tmp_path):
    yesterdays(room, tmp_path / "kept")
    room.session.set_scan(make_scan())
    room.panel.start_requested.emit()
    room.until(room.panel._offer_words.text)
    (kept,) = room.store.all()
    room.store.remove(kept.name)
    paint(room, (2, 3, 3), 1)
    own = np.array(room.desk.array)
    room.desk.keep()
    room.settled()
    room.panel.bring_back_requested.emit()
    room.settled()
    assert "are no longer kept" in room.session.state.message.text
    assert room.desk.kept.question is None
    assert np.array_equal(room.desk.array, own)


def test_bringing_back_over_corrections_asks_and_loses_neither(room, tmp_path):
    said = yesterdays(room, tmp_path / "kept")
    room.session.set_scan(make_scan())
    room.segment()
    room.panel.start_requested.emit()
    paint(room, (2, 3, 3), 1)
    mine = np.array(room.desk.array)
    for words in ("Cancel", "Bring back"):
        room.panel.bring_back_requested.emit()
        room.until(lambda: room.desk.kept.question is not None)
        assert np.array_equal(room.desk.array, mine)
        next(b for b in room.desk.kept.question.buttons() if words in b.text().replace("&", "")).click()
        room.until(lambda: room.desk.kept.question is None)
    room.until(lambda: np.array_equal(room.desk.array, said))
    paint(room, (12, 3, 3), 1)
    room.desk.keep()
    room.settled()
    kept = everything(room)
    assert {mine.tobytes(), said.tobytes(), np.asarray(room.desk.array).tobytes()} == set(kept)


def test_the_same_scan_opened_again_and_begun_afresh_overwrites_nothing(correcting):
    room = correcting
    paint(room, (5, 10, 6), 2)
    said = np.array(room.desk.array)
    room.desk.keep()
    room.settled()
    room.session.set_scan(make_scan())  # the same file, opened again
    room.until(lambda: room.panel._offer_words.text())
    room.segment()
    room.panel.leave_requested.emit()
    room.panel.start_requested.emit()
    paint(room, (2, 3, 3), 1)
    room.desk.keep()
    room.settled()
    assert said.tobytes() in everything(room)
    assert np.asarray(room.desk.array).tobytes() in everything(room)


def test_what_is_kept_is_offered_also_to_who_began_before_it_was_found(room, tmp_path):
    said = yesterdays(room, tmp_path / "kept")
    room.session.set_scan(make_scan())
    room.panel.start_requested.emit()  # before the scan's hash is known
    room.until(lambda: room.panel._offer_words.text())
    room.panel.bring_back_requested.emit()
    room.until(lambda: np.array_equal(room.desk.array, said))
    assert room.panel._offer_box.isHidden()


def test_strokes_in_the_layer_of_another_scan_are_kept_and_asked_about(correcting):
    room = correcting
    first, layer = room.session.state.scan, room.desk.layers.layer
    paint(room, (5, 10, 6), 1)
    room.desk.saving._changes.clear()  # as after saving its mask
    other = make_scan((12, 12, 12), "other")
    room.session.set_scan(other)
    room.settled()
    layer.visible = True  # the person clicks its eye, and goes on
    layer.paint((9, 10, 6), 2)
    assert room.desk.saving.unsaved == [first]
    assert room.desk.array is None
    assert "Not kept safe yet" in room.panel._said.text()
    room.desk.keep()
    room.settled()
    assert np.array_equal(room.store.give_back(room.store.find(first.content_hash).name), np.asarray(layer.data))


def test_a_disk_that_refused_is_tried_again_by_itself_and_on_the_way_out(correcting, monkeypatch):
    room = correcting
    refusals: list[str] = []

    def refuse(*_: object) -> None:
        refusals.append("once more")
        raise ScanError("your corrections could not be kept safe on disk (no space left); save the mask now")

    monkeypatch.setattr(keeping, "_AGAIN_MS", 20)
    paint(room, (5, 10, 6), 2)
    said, scan = np.array(room.desk.array), room.session.state.scan
    with monkeypatch.context() as full:
        full.setattr(room.store, "keep", refuse)
        room.desk.keep()
        room.until(lambda: "Not kept safe: the disk refused" in room.panel._said.text())
        assert room.desk.keeping.refused
        message = room.session.state.message
        room.until(lambda: len(refusals) > 3)  # without a stroke
        assert room.session.state.message is message  # said once
        room.session.set_scan(make_scan((12, 12, 12), "other"))
        assert "Not kept safe" in room.panel._said.text()  # of the other scan, still
    room.until(lambda: "kept safe on this computer" in room.panel._said.text())
    assert not room.desk.keeping.refused
    assert np.array_equal(room.store.give_back(room.store.find(scan.content_hash).name), said)


def test_what_the_disk_refused_is_tried_once_more_when_the_panel_closes(room, tmp_path, monkeypatch):
    day = Room(room.qtbot, tmp_path / "kept")
    day.session.set_scan(make_scan())
    day.segment()
    day.panel.start_requested.emit()
    paint(day, (5, 10, 6), 2)

    def refuse(*_: object) -> None:
        raise ScanError("no space left")

    with monkeypatch.context() as full:
        full.setattr(day.store, "keep", refuse)
        day.desk.keep()
        day.until(lambda: "Not kept safe: the disk refused" in day.panel._said.text())
    day.close()
    assert everything(room) == [np.asarray(day.desk.array).tobytes()]


def delete_all(room: Room) -> None:
    """In the list, as a person does."""
    room.desk.kept.show()
    dialog = room.desk.kept.dialog
    room.until(dialog._table.rowCount)
    dialog._table.selectAll()
    dialog._delete.click()
    next(b for b in dialog.question.buttons() if "Delete" in b.text()).click()
    room.settled()
    room.settled()  # what was kept anew, and the list of it


def test_what_is_on_the_screen_is_kept_anew_when_its_row_is_deleted(correcting):
    room = correcting
    first = room.session.state.scan
    paint(room, (5, 10, 6), 2)
    said = np.array(room.desk.array)
    room.session.set_scan(make_scan((8, 9, 10), "another"))
    room.segment()
    room.panel.start_requested.emit()
    paint(room, (5, 5, 6), 2)
    room.desk.keep()
    room.settled()
    room.store.keep("a" * 64, np.ones((3, 3, 3), np.uint8))
    names = {kept.name for kept in room.store.all()}

    delete_all(room)
    assert {kept.name for kept in room.store.all()} == names - {"a" * 64}
    assert "kept anew" in room.session.state.message.text
    assert room.desk.kept.dialog._table.rowCount() == 2
    assert "safe on this computer" in room.panel._said.text()
    (of_first,) = [kept for kept in room.store.all() if kept.belongs_to(first.content_hash)]
    assert np.array_equal(room.store.give_back(of_first.name), said)
    room.desk.kept.dialog.close()


def test_what_was_emptied_stays_deleted(correcting):
    room = correcting
    paint(room, (5, 10, 6), 2)
    room.desk.layers.layer.undo()
    room.desk.keep()
    room.settled()
    delete_all(room)
    assert not room.store.all()
    room.desk.kept.dialog.close()


def test_what_was_reviewed_is_offered_another_day_even_if_nothing_was_drawn(room, tmp_path):
    day = Room(room.qtbot, tmp_path / "kept")
    day.session.set_scan(make_scan())
    day.segment()
    day.panel.start_requested.emit()
    day.desk.review.mark_slice(True)
    marked = day.desk.notes
    day.close()
    room.session.set_scan(make_scan())
    room.until(lambda: "1 mark of what you reviewed" in room.panel._offer_words.text())
    room.panel.bring_back_requested.emit()
    room.until(lambda: room.desk.notes == marked)
    assert not np.any(room.desk.array)
