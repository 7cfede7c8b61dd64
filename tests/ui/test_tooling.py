"""Tools do what is on the screen when *Apply* is pressed: these locks, this slice, this label."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from fakes import PATIENCE, make_card, make_scan
from rooms import Room, paint

from napari_sparsetok import tool
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.tool import ToolRequest
from napari_sparsetok.ui.label_view import LabelRow

SHRINK = ToolRequest("shrink", 1.0, False)
EVERYWHERE = ToolRequest("shrink", 1.0, False, all_labels=True)
IN_SLICE = ToolRequest("shrink", 1.0, True)


def previewed(room: Room, request: ToolRequest) -> None:
    room.panel.tools.preview_requested.emit(request)
    room.until(lambda: room.desk.tooling.preview.layer is not None)


def applied(room: Room, request: ToolRequest) -> np.ndarray:
    """Where the mask is another afterwards."""
    before = np.array(room.overlays.mask)
    room.panel.tools.apply_requested.emit(request)
    room.until(lambda: not room.desk.tooling.is_working)
    room.settled()
    return before != room.overlays.mask


def test_a_label_that_is_locked_after_the_preview_is_not_changed(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    previewed(room, EVERYWHERE)
    room.panel.labels.lock_toggled.emit(2, True)
    changed = applied(room, EVERYWHERE)
    assert set(np.unique(before[changed])) == {1}


def test_a_label_that_is_locked_while_the_tool_works_is_not_changed(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    room.panel.tools.apply_requested.emit(EVERYWHERE)
    room.panel.labels.lock_toggled.emit(2, True)
    room.until(lambda: not room.desk.tooling.is_working)
    room.settled()
    assert set(np.unique(before[before != room.overlays.mask])) == {1}


def test_the_only_label_locked_while_the_tool_works_is_not_changed(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    room.panel.tools.apply_requested.emit(SHRINK)
    room.panel.labels.lock_toggled.emit(1, True)
    room.until(lambda: not room.desk.tooling.is_working)
    room.settled()
    assert np.array_equal(room.overlays.mask, before)
    assert "locked" in room.session.state.message.text


def test_applying_changes_the_label_that_is_chosen_and_not_the_one_previewed(correcting):
    room = correcting
    before = np.array(room.overlays.mask)
    previewed(room, SHRINK)
    room.panel.labels.choose(2)
    changed = applied(room, SHRINK)
    assert set(np.unique(before[changed])) == {2}


def test_a_preview_follows_the_label_and_the_locks(correcting):
    room = correcting
    previewed(room, SHRINK)
    first = room.panel.tools._said.text()
    assert "head" in first
    room.panel.labels.choose(2)
    room.until(lambda: "tail" in room.panel.tools._said.text())
    room.panel.labels.lock_toggled.emit(2, True)
    room.until(lambda: room.desk.tooling.preview.layer is None)
    assert "locked" in room.session.state.message.text


def test_applying_changes_the_slice_on_the_screen_and_not_the_one_previewed(correcting):
    room = correcting
    room.viewer.dims.set_point(0, 4.0)
    previewed(room, IN_SLICE)
    room.viewer.dims.set_point(0, 9.0)  # and at once:
    changed = applied(room, IN_SLICE)
    assert set(np.flatnonzero(changed.any(axis=(1, 2)))) == {9}


@pytest.mark.parametrize("label", [1, 2])
def test_a_tool_that_begins_anew_changes_what_it_was_used_on(correcting, label):
    """The mask changes while it works, and the person scrolls on and chooses another label."""
    room = correcting
    room.viewer.dims.set_point(0, 4.0)
    room.panel.labels.choose(label)
    before = np.array(room.overlays.mask)
    room.panel.tools.apply_requested.emit(IN_SLICE)
    paint(room, (12, 3, 10), 1)
    painted = room.overlays.mask != before
    room.viewer.dims.set_point(0, 9.0)
    room.panel.labels.choose(3 - label)
    room.until(lambda: not room.desk.tooling.is_working)
    room.settled()
    changed = (before != room.overlays.mask) & ~painted
    assert set(np.flatnonzero(changed.any(axis=(1, 2)))) == {4}
    assert set(np.unique(before[changed])) == {label}


def test_back_at_a_scan_tools_wait_until_the_mask_is_that_of_now(correcting):
    """What was painted meanwhile is not in the mask that is still drawn, and a tool would write over it."""
    room = correcting
    first, layer = room.session.state.scan, room.desk.layers.layer
    room.session.set_scan(make_scan((12, 12, 12), "other"))
    layer.visible = True
    layer.paint((5, 10, 6), NOT_TISSUE)
    said = np.array(layer.data)
    room.session.set_scan(first)
    room.panel.labels.set_rows([LabelRow(1, "head", "#E69F00", 0.0, 0.0)])
    room.panel.tools.apply_requested.emit(ToolRequest("grow", 3.0, False))
    room.settled()
    assert "Segment the scan first" in room.session.state.message.text
    assert np.array_equal(room.desk.array, said)


def test_scrolling_does_not_make_a_tool_on_the_whole_label_work_twice(correcting, monkeypatch):
    room = correcting
    room.viewer.dims.set_point(0, 4.0)
    previewed(room, SHRINK)
    room.viewer.dims.set_point(0, 9.0)
    monkeypatch.setattr(room.session, "follow", lambda *_, **__: pytest.fail("it was computed already"))
    assert applied(room, SHRINK).any()


def slowed(monkeypatch):
    """From now on a tool says that it has begun, and waits until it may go on."""
    begun, go, work = threading.Event(), threading.Event(), tool.work

    def slow(*arguments):
        begun.set()
        assert go.wait(PATIENCE)
        return work(*arguments)

    monkeypatch.setattr(tool, "work", slow)
    return begun, go


@pytest.mark.parametrize("names", [["liver", "spleen"], ["head", "tail"]])
@pytest.mark.parametrize("apply", [True, False])
def test_a_tool_does_not_outlive_its_model(qtbot, tmp_path, monkeypatch, names, apply):
    """Number 1 may be another label by then, and even of the same labels the mask is another."""
    room = Room(qtbot, tmp_path / "kept", make_card("a"), make_card("b", labels=LabelTable.of(names)))
    room.session.set_scan(make_scan())
    room.segment()
    room.panel.start_requested.emit()
    begun, go = slowed(monkeypatch)
    (room.panel.tools.apply_requested if apply else room.panel.tools.preview_requested).emit(SHRINK)
    room.until(begun.is_set)
    room.session.choose(model="b")
    assert not room.desk.tooling.is_working
    assert "began with the model before" in room.session.state.message.text
    room.session.run()
    room.until(lambda: room.session.state.prediction is not None)
    room.panel.start_requested.emit()
    go.set()
    room.settled()
    assert not room.desk.array.any()
    assert room.desk.tooling.preview.layer is None
    room.close()


def test_a_tool_that_is_cancelled_while_it_waits_its_turn_ends(correcting, monkeypatch):
    room = correcting
    begun, go = slowed(monkeypatch)
    room.panel.tools.preview_requested.emit(SHRINK)
    room.until(begun.is_set)
    room.panel.tools.apply_requested.emit(EVERYWHERE)
    room.session.cancel()
    go.set()
    room.settled()
    assert not room.desk.tooling.is_working
    assert not room.desk.array.any()
    assert applied(room, SHRINK).any()
