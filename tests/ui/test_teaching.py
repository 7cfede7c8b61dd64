"""Corrections teach: tokens under them are kept by hand, said in the settings, and let go with what they belong to."""

from __future__ import annotations

import threading

import numpy as np
from fakes import PATIENCE, make_card, make_scan
from rooms import Room, paint

from napari_sparsetok.scan import Region
from napari_sparsetok.state import Forced
from napari_sparsetok.ui import teaching


def forced(room: Room) -> Forced | None:
    return room.session.state.settings.forced


def test_the_model_runs_again_with_the_tokens_under_the_corrections(correcting):
    room = correcting
    paint(room, (5, 10, 6), 2)
    said = np.array(room.desk.array)
    room.panel.teach.keep_requested.emit()
    room.until(lambda: (p := room.session.state.prediction) is not None and p.settings.forced is not None)
    chosen = forced(room)
    assert chosen.region == Region.whole(said.shape)
    assert chosen.grid == room.session.state.prediction.tokens.stage.shape
    expected = {tuple(int(n) // 4 for n in at) for at in np.argwhere(said)}
    assert {tuple(at) for at in np.argwhere(chosen.signs() == 1).tolist()} == expected
    assert f"{len(expected)} of" in room.panel.teach._said.text()
    assert room.session.state.focus == (5, 10, 6)
    assert np.array_equal(room.desk.array, said)

    paint(room, (13, 17, 9), 1)  # more come to those that there are
    room.panel.teach.keep_requested.emit()
    room.until(lambda: len(forced(room).keep) > len(chosen.keep))
    assert set(chosen.keep) < set(forced(room).keep)
    room.settled()

    room.panel.teach.release_requested.emit()
    room.until(lambda: room.session.state.prediction.settings.forced is None)
    assert not room.panel.teach._release.isEnabled()


def test_they_are_let_go_with_their_scan_and_their_region(correcting):
    room = correcting
    first = room.session.state.scan
    for change in (
        lambda: room.session.set_region(Region((0, 0, 0), (8, 8, 8))),
        lambda: room.session.set_scan(make_scan(first.shape, "another of the same size")),
    ):
        room.session.choose(forced=Forced(Region.whole(first.shape), (4, 5, 3), keep=(1, 2)))
        change()
        assert forced(room) is None


def test_tokens_of_the_model_before_are_not_forced_on_another(qtbot, tmp_path, monkeypatch):
    room = Room(qtbot, tmp_path / "kept", make_card("a"), make_card("b"))
    room.session.set_scan(make_scan())
    room.segment()
    room.panel.start_requested.emit()
    paint(room, (5, 10, 6), 2)
    go, find = threading.Event(), teaching.tokens_under

    def slow(*arguments):
        assert go.wait(PATIENCE)
        return find(*arguments)

    monkeypatch.setattr(teaching, "tokens_under", slow)
    room.panel.teach.keep_requested.emit()
    room.session.choose(model="b")
    go.set()
    room.settled()
    assert forced(room) is None
    assert room.session.state.prediction is None
    room.close()


def test_nothing_under_the_corrections_says_so(correcting):
    room = correcting
    room.panel.teach.keep_requested.emit()
    room.until(lambda: room.session.state.message is not None)
    assert "No token lies under" in room.session.state.message.text
    assert forced(room) is None
