"""The tab Inspect, on a viewer without a window: what a person asks, and what is shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from desks import GRID, Desk, Probed
from fakes import LABELS, FakeSegmenter, expected_mask, make_prediction, make_scan
from matplotlib.colors import to_hex
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPalette

from napari_sparsetok.engine.contract import Reach
from napari_sparsetok.inspection.export import save_sweep
from napari_sparsetok.inspection.ladder import Rung
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.metrics import Agreement
from napari_sparsetok.scan import Geometry, Region, ScanError
from napari_sparsetok.state import Forced, Settings
from napari_sparsetok.tokens import LADDER, Unseen
from napari_sparsetok.ui import inspect_words as say
from napari_sparsetok.ui.inspect_asking import _in_window
from napari_sparsetok.ui.inspect_layers import DIFFERENCE, MUST, NEVER
from napari_sparsetok.ui.inspect_plot import rung_words
from napari_sparsetok.ui.layer_form import LAYERS
from napari_sparsetok.ui.rule_form import RuleRequest
from napari_sparsetok.ui.style import KEPT
from napari_sparsetok.ui.sweep_form import SweepForm


@pytest.fixture
def desk(qtbot, no_cost) -> Iterator[Desk]:
    desk = Desk(qtbot, Probed(free=True))
    yield desk
    desk.let_go()


def plain(words: str) -> str:
    """Without the marks that keep a cell of a table on one line."""
    return words.replace("\u00a0", " ").replace("\u2060", "")


def point_at(desk: Desk, voxel: tuple[int, int, int]) -> None:
    geometry = desk.scan.geometry
    world = [o + v * s for o, v, s in zip(geometry.origin, voxel, geometry.spacing, strict=True)]
    desk.viewer.dims.point = world
    desk.viewer.cursor.position = tuple(world)


def test_without_a_mask_there_is_nothing_to_inspect_and_it_says_what_to_do(desk):
    assert not desk.panel._hint.isHidden()
    assert not desk.panel._parts[0].isEnabled()
    desk.segment()
    assert desk.panel._hint.isHidden()
    assert desk.panel._parts[0].isEnabled()


def test_pointing_tells_the_story_without_asking_the_network(desk, qtbot):
    desk.segment()
    desk.panel.ask_button.click()
    point_at(desk, (0, 0, 0))
    qtbot.waitUntil(lambda: "looked here to the end" in desk.panel._story.text(), timeout=2000)
    point_at(desk, (15, 19, 11))
    qtbot.waitUntil(lambda: "stopped looking here at the first of 2 stages" in desk.panel._story.text(), timeout=2000)
    assert "60 of 60" in plain(desk.panel._story.text())  # the fake's last token is its least
    assert desk.engine.probed == []
    desk.panel.ask_button.click()
    point_at(desk, (0, 0, 0))
    qtbot.wait(120)
    assert "stopped looking" in desk.panel._story.text()  # switched off, it stays


def test_asking_puts_the_brush_down_so_that_a_click_paints_nothing(desk):
    desk.segment()
    layer = desk.viewer.add_labels(np.zeros(desk.scan.shape, np.uint8))
    layer.mode = "paint"
    desk.panel.ask_button.click()
    assert str(layer.mode) == "pan_zoom"
    layer.mode = "paint"  # whoever takes it up again means it
    desk.panel.ask_button.click()
    assert str(layer.mode) == "paint"


def test_tokens_by_hand_can_be_taken_back_only_if_there_are_any(desk):
    desk.segment()
    assert not any(button.isEnabled() for button in desk.panel._take_back)
    desk.panel.set_rule(Settings(forced=Forced.of(Region((0, 0, 0), (4, 4, 4)), np.ones((1, 1, 1), np.int8))))
    assert all(button.isEnabledTo(desk.panel) for button in desk.panel._take_back)
    desk.panel.set_rule(Settings())
    assert not any(button.isEnabled() for button in desk.panel._take_back)


def test_the_legend_of_the_comparison_follows_the_theme(qtbot):
    form = SweepForm()
    qtbot.addWidget(form)
    form.set_rungs([Rung(0.25, (100, 25, 6), 1.0, 0.1, 2**20, (Agreement("a", 1, 0.9, 1.0, 1.0, 1.0),))], [3], "")
    for ink in ("#101010", "#f0f0f0"):
        palette = form.palette()
        for role in (QPalette.Text, QPalette.WindowText):
            palette.setColor(role, QColor(ink))
        form.plot.setPalette(palette)
        assert form._legend._colors == tuple(form.plot.legend)


def test_a_click_asks_the_network_once(desk):
    desk.segment()
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    more = desk.panel._more.text()
    assert "head 75\u00a0%, background 25\u00a0%" in more
    assert "kept to the end from a keep ratio of 0.3" in more
    assert [voxel for _, voxel in desk.engine.probed] == [(4, 4, 4)]
    assert "·" in desk.panel._story.text()


def test_attention_is_laid_where_the_window_lies(desk):
    desk.segment()
    desk.panel.heads.attention_requested.emit(0, -1)
    assert "click on the scan" in desk.session.state.message.text
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    desk.panel.heads.attention_requested.emit(1, 0)
    desk.settle()
    layer = desk.shown("attention")
    assert layer.data[0].tolist() == np.full((5, 3), 2.0).tolist()
    assert not layer.data[1:].any()
    assert "block 2, head 1" in layer.name
    assert not desk.overlays.layer("importance").visible  # it would cover it
    desk.panel.heads.attention_requested.emit(2, -1)
    desk.settle()
    assert "did not get as far as that block" in desk.session.state.message.text
    desk.panel.heads.attention_requested.emit(-1, -1)
    desk.settle()
    assert "all blocks" in desk.shown("attention").name


def test_heads_are_drawn_and_the_worst_is_named(desk):
    desk.segment()
    desk.panel.heads.heads_requested.emit()
    desk.settle()
    assert "block 2, head 1, at 0.3: without it 30\u00a0%" in desk.panel.heads._words.text()
    desk.panel.heads.map.head_chosen.emit(0, 1)
    desk.settle()
    assert "block 1, head 2" in desk.shown("attention").name


def test_how_far_heads_look_is_drawn(desk, qtbot):
    desk.segment()
    assert desk.panel.heads.plot.isHidden()
    desk.panel.heads.heads_requested.emit()
    desk.settle()
    plot = desk.panel.heads.plot
    assert not plot.isHidden()
    plot.resize(300, 110)
    share = plot._reach.share[1, 0]
    assert plot.place(share, 0).x() < plot.place(share, 1).x()
    assert plot.place(share, 0).y() < plot.place(share, 1).y()  # 0.9 is drawn above 0.1
    assert plot._at == (1, 0)  # the head that matters most
    qtbot.keyClick(desk.panel.heads.map, Qt.Key_Right)
    assert plot._at == (1, 1)
    assert "head 2" in desk.panel.heads._words.text()
    plot.show()
    assert not plot.grab().isNull()


def test_the_attention_that_is_shown_follows_the_next_click(desk):
    desk.segment()
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    assert desk.shown("attention") is None
    desk.panel.heads.attention_requested.emit(1, 0)
    desk.settle()
    desk.shown("attention").data[...] = 0
    desk.desk.asking.ask_network((0, 0, 0))
    desk.settle()
    assert desk.shown("attention").data[0, 0, 0] == 2
    assert "0.3" in desk.panel._more.text()


def test_where_the_mouse_rests_the_answer_is_got_ready_and_nobody_is_told(desk, qtbot):
    desk.segment()
    told = []
    desk.session.state.events.busy.connect(told.append)
    point_at(desk, (4, 4, 4))
    qtbot.wait(300)
    assert desk.engine.probed == []  # nobody asks
    desk.panel.ask_button.click()
    qtbot.waitUntil(lambda: len(desk.engine.probed) == 1, timeout=3000)
    assert desk.engine.probed[0][1] == (4, 4, 4)
    desk.settle()
    assert not any(told)


def test_what_is_asked_for_ends_what_nobody_asked_for(desk):
    desk.segment()
    started, ended = threading.Event(), []

    def slowly(segmenter, should_stop):
        started.set()
        deadline = time.monotonic() + 10
        while not should_stop() and time.monotonic() < deadline:
            time.sleep(0.005)
        ended.append(should_stop())

    desk.session.prepare(slowly)
    assert started.wait(10)
    assert desk.session.state.busy is None
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    assert ended == [True]
    assert "0.3" in desk.panel._more.text()


def test_pieces_are_listed_and_jumped_to(desk, qtbot):
    desk.segment()
    qtbot.wait(600)
    desk.settle()
    assert desk.desk._pieces == []  # nobody sees the tab, so nothing is computed for it
    desk.panel.show()
    qtbot.waitUntil(lambda: bool(desk.mail.empty() or desk.desk._pieces), timeout=5000)
    pieces = desk.desk._pieces
    assert pieces
    assert desk.panel._pieces.count() == len(pieces)
    assert "lies in tokens that were not kept to the end" in desk.panel._unseen_words.text()
    desk.panel.piece_chosen.emit(0)
    at = [
        round((p - o) / s)
        for p, o, s in zip(desk.viewer.dims.point, desk.scan.geometry.origin, desk.scan.geometry.spacing, strict=True)
    ]
    assert tuple(at) == pieces[0].at
    assert "stopped looking here" in desk.panel._story.text()


def test_a_piece_too_small_for_its_millilitres_is_told_in_voxels() -> None:
    table, geometry = LabelTable.of(["head"]), Geometry.shown((9, 9, 9), (1.0, 1.0, 1.0))
    told = [say.unseen_line(Unseen(1, n, (0, 0, 0), 1, False), table, geometry) for n in (1, 4, 5)]
    assert told == ["1 voxel of head", "4 voxels of head", "0.01 mL of head"]


def test_pieces_of_a_reference_are_listed_as_well(desk, qtbot):
    desk.segment()
    drawn = np.zeros(desk.scan.shape, np.uint8)
    drawn[14:, 18:, 10:] = 2  # in the last token, which the fake prunes first
    desk.viewer.add_layer(Labels(drawn, name="drawn"))
    desk.panel.show()
    desk.panel._of.setCurrentText("drawn")
    qtbot.waitUntil(lambda: bool(desk.mail.empty() or len(desk.desk._pieces) == 1), timeout=5000)
    desk.settle()
    (piece,) = desk.desk._pieces
    assert (piece.label, piece.voxels, piece.stage, piece.whole) == (2, 8, 1, True)
    assert desk.panel._unseen_words.text().startswith("100\u00a0% of the reference, in 1 piece,")


def test_keep_ratios_are_compared_step_by_step_and_one_is_taken(desk):
    desk.segment()
    desk.panel.sweep.compare_requested.emit()
    desk.settle()
    found = desk.desk.sweep
    assert found is not None
    assert found.complete
    assert [r.keep_ratio for r in found.rungs] == sorted({*LADDER, 0.3}, reverse=True)
    words = plain(desk.panel.sweep._words.text())
    assert "No ratio below 1 that was tried agrees with keeping all tokens by 0.99" in words
    here = next(rung for rung in found.rungs if rung.keep_ratio == 0.3)
    for row in here.agreement:
        far = "–" if np.isnan(row.hd95) else f"{row.hd95:.1f}"
        numbers = f"<td>{row.dice:.3f}</td><td>{far}</td><td>{row.ml:.2f} "
        assert f"<td>{row.name}</td>{numbers}" in words
    desk.panel.sweep.plot.resize(300, 130)
    assert desk.panel.sweep.plot.place(0).x() > desk.panel.sweep.plot.place(1).x()
    desk.panel.sweep.ratio_chosen.emit(0.6)
    desk.settle()
    assert desk.session.state.settings.keep_ratio == 0.6
    assert desk.session.state.prediction.settings.keep_ratio == 0.6
    desk.panel.sweep.auto_requested.emit(0.999999)
    desk.settle()
    assert desk.session.state.settings.keep_ratio == 1.0
    assert desk.desk.sweep is found  # another ratio is no other question


def test_the_plot_is_used_by_keys(desk, qtbot):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    chosen = []
    desk.panel.sweep.plot.ratio_chosen.connect(chosen.append)
    for key in (Qt.Key_Left, Qt.Key_Left, Qt.Key_Return):
        qtbot.keyClick(desk.panel.sweep.plot, key)
    assert chosen == [0.5]
    desk.settle()


def test_another_rule_ends_the_comparison_and_its_doubt(desk):
    told = []
    desk.desk.doubt_changed.connect(told.append)
    desk.segment()
    desk.desk.compare()
    desk.settle()
    assert told[-1].above == 0.3
    assert told[-1].values.shape == desk.scan.shape
    desk.panel.rule.chosen.emit(RuleRequest("norm", "stages", "0.5, 0.25"))
    desk.settle()
    settings, _, _ = desk.engine.runs[-1]
    assert (settings.selection, settings.stage_ratios, settings.threshold) == ("norm", (0.5, 0.25), None)
    assert desk.desk.sweep is None
    assert told[-1] is None


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (RuleRequest("norm", "threshold", "a, b"), "write one number"),
        (RuleRequest("norm", "stages", ""), "write numbers"),
        (RuleRequest("norm", "stages", "0.5"), "this model prunes 2 times"),
        (RuleRequest("norm", "stages", "0.5, 2"), "above 0 and at most 1"),
        (RuleRequest("norm", "threshold", "-1"), "0 or more"),
        (RuleRequest("oracle", "share", ""), "Choose a labels layer"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_said_and_not_run(desk, request_, sentence):
    desk.segment()
    before, settings = len(desk.engine.runs), desk.session.state.settings
    desk.panel.rule.chosen.emit(request_)
    desk.settle()
    assert desk.session.state.settings == settings  # what is asked for next is not refused as well
    assert sentence.casefold() in desk.session.state.message.text.casefold()
    assert len(desk.engine.runs) == before


def test_a_labels_layer_on_the_scans_voxels_is_a_reference(desk):
    desk.segment()
    desk.viewer.add_layer(Labels(np.zeros((2, 2, 2), np.uint8), name="elsewhere"))
    desk.viewer.add_layer(Labels(expected_mask(desk.scan, 0.5), name="drawn"))
    assert [desk.panel.rule._reference.itemText(k) for k in range(desk.panel.rule._reference.count())] == [
        "none",
        "drawn",
    ]
    desk.panel.rule._reference.setCurrentIndex(1)
    desk.panel.rule.chosen.emit(RuleRequest("oracle", "share", ""))
    desk.settle()
    assert desk.engine.runs[-1][0].reference is not None
    desk.desk.compare()
    desk.settle()
    assert desk.desk.sweep.rungs[1].reference_dice == 1.0  # at 0.5 the fake says just this


def test_layers_come_when_asked_for_and_go(desk):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    for kind in ("boxes", "stage", "lowest", "difference"):
        desk.panel.shown.toggle(kind)
        assert desk.shown(kind) is not None, kind
        assert "sparsetok_overlay" in desk.shown(kind).metadata
    boxes = desk.shown("boxes")
    assert boxes.data.shape == (4, 5 * 16, 3 * 16)
    assert boxes.data[0, 0, 0] == desk.session.state.prediction.tokens.stage[0, 0, 0]
    assert boxes.data[0, 5, 5] == 0
    drawn, meant = (
        np.array(layer.extent.world) + np.outer([-0.5, 0.5], layer.scale)  # from middles to edges
        for layer in (boxes, desk.overlays.layer("tokens"))
    )
    assert np.allclose(drawn, meant)
    dense, here = expected_mask(desk.scan, 1.0), desk.session.state.prediction.mask
    assert np.array_equal(desk.shown("difference").data > 0, dense != here)
    desk.viewer.dims.order = (1, 0, 2)
    assert desk.shown("boxes").data.shape == (4 * 16, 5, 3 * 16)  # outlines follow the plane
    for kind in ("boxes", "stage", "lowest", "difference"):
        desk.panel.shown.toggle(kind)
        assert desk.shown(kind) is None


def test_where_windows_overlap_the_share_that_kept_a_token_is_shown_and_told(desk, qtbot):
    desk.segment()
    assert not desk.panel.shown._toggles["share"].isEnabled()  # the fake has one window
    prediction = desk.session.state.prediction
    tokens = prediction.tokens
    windows, passed = np.ones(GRID, np.uint8), np.ones((2, *GRID), np.float32)
    windows[1:3], passed[1, 1], passed[1, 2], passed[1, 3] = 4, 0.25, 0.0, 0.5
    prediction = replace(prediction, tokens=replace(tokens, windows=windows, passed=passed))
    desk.desk._on_prediction(prediction)
    assert desk.panel.shown._toggles["share"].isEnabled()
    desk.panel.shown.toggle("share")
    assert desk.shown("share").data[:, 0, 0].tolist() == [0.0, 0.25, 0.0, 0.0]  # nothing where one window decides
    assert tuple(desk.shown("share").contrast_limits) == (0.0, 1.0)
    desk.desk.asking.ask((5, 0, 0))
    assert "4 windows overlap here; 1 of them kept this token to the end" in desk.panel._story.text()
    desk.desk.asking.ask((9, 0, 0))
    assert "none of them kept" in desk.panel._story.text()
    desk.desk.asking.ask((0, 0, 0))
    assert "overlap" not in desk.panel._story.text()


def test_one_opacity_and_a_legend_for_what_is_on(desk):
    desk.segment()
    assert desk.panel.shown._legend.isHidden()
    desk.panel.shown.toggle("boxes")
    assert "pruned at stage 2" in desk.panel.shown._legend.accessibleName()
    desk.panel.shown._opacity.setValue(40)
    assert desk.shown("boxes").opacity == pytest.approx(0.4)
    desk.panel.shown.toggle("stage")
    assert desk.shown("stage").opacity == pytest.approx(0.4)
    desk.panel.shown.toggle("boxes")
    assert desk.panel.shown._legend.accessibleName() == "low score, high score"
    desk.panel.shown.toggle("stage")
    assert desk.panel.shown._legend.isHidden()


def test_a_voxel_is_found_in_its_window(desk):
    prediction = make_prediction(desk.scan, desk.session.state.settings)
    box = Region((1, 2, 0), (3, 5, 3))  # tokens
    assert _in_window(prediction, box, (6, 9, 11), (8, 12, 12)) == (2, 1, 11)
    assert _in_window(prediction, box, (6, 9, 11), (16, 24, 24)) == (5, 3, 23)  # of a model with finer voxels


def test_the_difference_says_which_of_two_masks_has_a_voxel(desk):
    here, dense = np.zeros((2, *desk.scan.shape), np.uint8)
    here[0, 0, :4], dense[0, 0, :4] = (1, 0, 1, 2), (0, 1, 2, 2)
    settings = desk.session.state.settings
    desk.desk.layers.show_difference(make_prediction(desk.scan, settings, here), dense)
    values = desk.shown("difference").data
    assert values[0, 0, :4].tolist() == [1, 2, 3, 0]
    assert [DIFFERENCE[k][1] for k in (1, 2)] == ["only here", "only where all is kept"]


@pytest.mark.filterwarnings("ignore:Contours are not displayed")
def test_in_3d_tokens_are_squares_that_one_can_see_through(desk):
    desk.segment()
    desk.panel.shown.toggle("boxes")
    desk.viewer.dims.ndisplay = 3
    points, tokens = desk.shown("boxes"), desk.session.state.prediction.tokens
    assert np.array_equal(points.data, np.argwhere(tokens.stage > 1))
    kept = tokens.stage[tuple(points.data.astype(int).T)] == 3
    assert set(points.size[kept]) == {0.75}
    assert set(points.size[~kept]) == {0.3}
    assert np.allclose(
        points.data_to_world(points.data[0]), np.asarray(tokens.origin) + points.data[0] * tokens.spacing
    )
    assert to_hex(points.face_color[kept][0])[:7].upper() == KEPT
    desk.session.set_keep_ratio(0.9)
    desk.settle()
    assert len(desk.shown("boxes").data) == (desk.session.state.prediction.tokens.stage > 1).sum()
    desk.viewer.dims.ndisplay = 2
    assert isinstance(desk.shown("boxes"), Labels)


def test_a_layer_that_the_person_deletes_is_no_error(desk):
    desk.segment()
    desk.panel.shown.toggle("boxes")
    desk.viewer.layers.remove(desk.shown("boxes"))
    desk.session.set_keep_ratio(0.5)
    desk.settle()
    assert desk.shown("boxes") is not None


def test_painted_tokens_are_run_with_and_undone(desk, qtbot):
    desk.segment()
    desk.panel.paint_requested.emit("must")
    layer = desk.shown("forced")
    assert layer.data.shape == GRID
    assert (layer.selected_label, layer.mode, layer.brush_size) == (MUST, "paint", 1)
    layer.paint((3, 4, 2), MUST)
    layer.events.paint(value=[])
    qtbot.waitUntil(lambda: desk.session.state.settings.forced is not None, timeout=3000)
    desk.settle()
    forced = desk.engine.runs[-1][0].forced
    assert forced.signs()[3, 4, 2] == 1
    assert np.count_nonzero(forced.signs()) == 1
    assert forced.region == Region.whole(desk.scan.shape)
    desk.panel.paint_requested.emit("never")
    assert layer.selected_label == NEVER
    desk.panel.paint_undo_requested.emit()
    qtbot.waitUntil(lambda: desk.session.state.settings.forced is None, timeout=3000)
    desk.settle()
    assert desk.engine.runs[-1][0].forced is None
    layer.data[0, 0, 0] = NEVER
    layer.events.paint(value=[])
    qtbot.waitUntil(lambda: desk.session.state.settings.forced is not None, timeout=3000)
    desk.settle()
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    assert desk.session.state.settings.forced is None  # they meant another part
    assert desk.shown("forced") is None


def test_blinking_swaps_two_masks_and_ends_clean(desk, qtbot):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    desk.panel.sweep.blink_button.click()
    dense = desk.shown("dense")
    assert np.array_equal(dense.data, expected_mask(desk.scan, 1.0))
    seen = set()
    for _ in range(3):
        desk.desk._on_blink()
        mask = desk.overlays.layer("mask")
        seen.add((bool(dense.visible), bool(mask.visible)))
    assert seen == {(True, False), (False, True)}
    desk.panel.sweep.blink_button.click()
    assert desk.shown("dense") is None
    assert desk.overlays.layer("mask").visible


def test_while_something_is_computed_it_says_so(qtbot, no_cost):
    desk = Desk(qtbot, Probed())
    desk.session.run()
    desk.engine.await_window()
    desk.desk.compare()
    assert "Something is being computed" in desk.session.state.message.text
    desk.engine.let()
    desk.settle()
    desk.desk.shut_down()
    desk.session.close()


def test_a_comparison_is_cancelled_and_keeps_what_it_knew(qtbot, no_cost):
    desk = Desk(qtbot, Probed())
    desk.engine.let()
    desk.segment()
    desk.desk.compare()
    desk.engine.await_window()
    desk.engine.await_window()
    desk.mail.empty()
    assert desk.session.state.busy.what == "comparing keep ratios"
    assert desk.session.state.busy.can_cancel
    desk.engine.let()
    desk.mail.until(lambda: desk.desk.sweep is not None)
    desk.session.cancel()
    desk.engine.let(20)
    desk.settle()
    assert not desk.desk.sweep.complete
    assert desk.session.state.busy is None
    desk.desk.shut_down()
    desk.session.close()


def test_an_engine_that_cannot_be_looked_into_is_said(qtbot, no_cost):
    desk = Desk(qtbot, FakeSegmenter(free=True))
    desk.segment()
    desk.desk.asking.ask_network((0, 0, 0))
    desk.settle()
    assert "does not let itself be looked into" in desk.session.state.message.text
    desk.desk.shut_down()
    desk.session.close()


@pytest.mark.parametrize("kind", ["csv", "json", "png", "svg"])
def test_a_comparison_is_exported(desk, tmp_path, kind):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    path = tmp_path / f"ratios.{kind}"
    save_sweep(desk.desk.sweep, path)
    content = path.read_bytes()
    if kind == "json":
        assert len(json.loads(content)["rungs"]) == len(desk.desk.sweep.rungs)
    starts = {"csv": b"keep_ratio,", "json": b"{", "png": b"\x89PNG", "svg": b"<?xml"}
    assert content.startswith(starts[kind])
    with pytest.raises(ScanError, match=r"\.csv, \.json"):
        save_sweep(desk.desk.sweep, tmp_path / "ratios.txt")


def test_every_control_says_what_it_does_and_the_tab_stays_narrow(desk):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QListWidget

    for kind in (QAbstractButton, QAbstractSpinBox, QComboBox, QListWidget):
        for widget in desk.panel.findChildren(kind):
            assert widget.toolTip() or "qt_" in widget.objectName(), widget
    assert all(w.toolTip() for w in desk.panel.findChildren(QLineEdit) if not w.objectName().startswith("qt_"))
    for part in desk.panel._parts:
        part.set_open(True)
        assert part.minimumSizeHint().width() <= 310  # what is wider is cut off


# Whoever does what nobody expects


def paint(desk: Desk, place: tuple[int, int, int], tool: str = "must") -> Any:
    desk.panel.paint_requested.emit(tool)
    layer = desk.shown("forced")
    layer.paint(place, layer.selected_label)
    return layer


def until_forced(desk: Desk, qtbot: Any, count: int) -> None:
    def kept() -> bool:
        desk.mail.empty()
        forced = desk.session.state.settings.forced
        return (0 if forced is None else len(forced.keep) + len(forced.drop)) == count

    qtbot.waitUntil(kept, timeout=3000)
    desk.settle()


def test_undo_and_redo_in_the_layer_itself_are_obeyed(desk, qtbot):
    desk.segment()
    layer = paint(desk, (3, 4, 2))
    until_forced(desk, qtbot, 1)
    layer.undo()  # as Ctrl+Z in the viewer does
    until_forced(desk, qtbot, 0)
    assert desk.engine.runs[-1][0].forced is None
    layer.redo()
    until_forced(desk, qtbot, 1)
    layer.fill((0, 0, 0), NEVER)
    until_forced(desk, qtbot, 1 + GRID[1] * GRID[2])


def test_looking_through_the_slices_of_painted_tokens_runs_nothing(desk, qtbot):
    desk.segment()
    paint(desk, (3, 4, 2))
    until_forced(desk, qtbot, 1)
    before = len(desk.engine.runs)
    for at in (0, 4, 8):
        desk.viewer.dims.point = (at, 0, 0)
    qtbot.wait(100)
    desk.settle()
    assert len(desk.engine.runs) == before


def test_another_model_lets_tokens_chosen_by_hand_go_with_their_layer(desk, qtbot):
    desk.session.registry.cards["other"] = replace(desk.session.card, id="other")
    desk.segment()
    paint(desk, (3, 4, 2))
    until_forced(desk, qtbot, 1)
    desk.session.choose(model="other")
    assert desk.session.state.settings.forced is None
    assert desk.shown("forced") is None
    desk.segment()
    paint(desk, (0, 0, 0))
    until_forced(desk, qtbot, 1)  # and what was painted before is not brought back


def test_tokens_chosen_elsewhere_are_painted_on_and_not_lost(desk, qtbot):
    desk.segment()
    paint(desk, (3, 4, 2))
    until_forced(desk, qtbot, 1)
    signs = np.zeros(GRID, np.int8)
    signs[3, 4, 2] = signs[0, 0, 1] = 1
    desk.session.choose(forced=Forced.of(Region.whole(desk.scan.shape), signs))  # as corrections do that teach
    layer = paint(desk, (2, 2, 2), "never")
    assert np.count_nonzero(layer.data) == 3
    until_forced(desk, qtbot, 3)
    assert desk.session.state.settings.forced.signs()[0, 0, 1] == 1


def test_a_deleted_layer_of_chosen_tokens_comes_back_with_them(desk, qtbot):
    desk.segment()
    desk.viewer.layers.remove(paint(desk, (3, 4, 2)))
    qtbot.wait(60)
    desk.settle()
    paint(desk, (0, 0, 0))
    until_forced(desk, qtbot, 1)
    desk.viewer.layers.remove(desk.shown("forced"))
    desk.panel.paint_undo_requested.emit()
    paint(desk, (1, 1, 1))
    until_forced(desk, qtbot, 2)


def test_tokens_of_a_part_that_was_not_segmented_yet_cannot_be_chosen(desk, qtbot):
    desk.segment()
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    desk.panel.paint_requested.emit("must")
    assert desk.shown("forced") is None
    assert "Segment this part" in desk.session.state.message.text
    desk.segment()
    paint(desk, (1, 1, 1))
    until_forced(desk, qtbot, 1)
    assert desk.session.state.settings.forced.grid == (2, 2, 2)


def test_a_box_that_starts_beside_the_lattice_is_asked_about_and_painted_on(desk, qtbot):
    desk.session.set_region(Region((1, 2, 3), (14, 19, 12)))
    desk.segment()
    desk.desk.asking.ask((1, 2, 3))
    assert "Token 0 · 0 · 0" in desk.panel._story.text()
    desk.desk.asking.ask((13, 18, 11))
    assert "Token 3 · 4 · 2" in desk.panel._story.text()
    desk.desk.asking.ask((0, 0, 0))
    assert "No window of the network covers this place" in desk.panel._story.text()
    paint(desk, (3, 4, 2))
    until_forced(desk, qtbot, 1)
    assert desk.engine.runs[-1][0].forced.region == Region((1, 2, 3), (14, 19, 12))


def test_what_a_comparison_is_of_is_what_is_shown_and_not_what_is_to_come(desk):
    part = Region((0, 0, 0), (8, 8, 8))
    desk.segment()
    desk.session.set_region(part)
    desk.desk.compare()
    desk.settle()
    assert desk.desk.sweep.region == Region.whole(desk.scan.shape)
    desk.segment()
    assert desk.desk.sweep is None
    desk.desk.compare()
    desk.settle()
    assert desk.desk.sweep.region == part


def test_tokens_chosen_by_hand_end_a_comparison(desk, qtbot):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    paint(desk, (3, 4, 2))
    until_forced(desk, qtbot, 1)
    assert desk.desk.sweep is None  # its numbers were without them
    desk.desk.compare()
    desk.settle()
    assert desk.desk.sweep.settings.forced is not None


@pytest.mark.parametrize("what", ["model", "scan", "rule"])
def test_what_comes_late_of_a_comparison_that_nobody_asks_for_any_more_is_not_shown(qtbot, no_cost, what):
    desk = Desk(qtbot, Probed())
    desk.session.registry.cards["other"] = replace(desk.session.card, id="other")
    desk.engine.let()
    desk.segment()
    desk.desk.compare()
    desk.engine.await_window()
    desk.engine.let(2)
    desk.engine.await_window()
    desk.engine.await_window()  # two ratios are known by now, and wait to be told
    if what == "model":
        desk.session.choose(model="other")
    elif what == "scan":
        desk.session.set_scan(make_scan(name="another"))
    else:
        desk.session.choose(selection="norm")
    desk.engine.let(30)
    desk.settle()
    assert desk.desk.sweep is None
    desk.desk.shut_down()
    desk.overlays.let_go()
    desk.session.close()


def test_layers_that_go_while_keep_ratios_are_compared_are_no_error(qtbot, no_cost):
    desk = Desk(qtbot, Probed())
    desk.engine.let()
    desk.segment()
    desk.panel.shown.toggle("boxes")
    desk.desk.compare()
    for _ in range(4):
        desk.engine.await_window()
        desk.engine.let()
        desk.mail.empty()
        for kind in ("lowest", "difference"):
            desk.panel.shown.set_layer(kind, True)
        desk.panel.sweep.blink_button.click()
        for layer in list(desk.viewer.layers):
            desk.viewer.layers.remove(layer)
    desk.engine.let(30)
    desk.settle()
    desk.desk._on_blink()
    assert desk.session.state.busy is None
    desk.desk.shut_down()
    desk.overlays.let_go()
    desk.session.close()


def test_the_story_follows_the_slider(desk):
    desk.segment()
    desk.desk.asking.ask_network((5, 0, 0))
    desk.settle()
    assert "stopped looking" in desk.panel._story.text()
    assert "head 75\u00a0%" in desk.panel._more.text()
    desk.session.set_keep_ratio(1.0)
    desk.settle()
    assert "looked here to the end" in desk.panel._story.text()
    assert "head 75\u00a0%" not in desk.panel._more.text()  # it was said at another ratio


def test_in_3d_it_says_that_pointing_needs_slices(desk, qtbot):
    desk.segment()
    desk.panel.ask_button.click()
    desk.viewer.dims.ndisplay = 3
    desk.viewer.cursor.position = (1, 1, 1)
    qtbot.waitUntil(lambda: "slices" in desk.panel._story.text(), timeout=2000)


def test_beside_the_scan_nothing_is_told_and_nothing_asked(desk, qtbot):
    desk.segment()
    desk.panel.ask_button.click()
    point_at(desk, (5, 5, 5))
    qtbot.waitUntil(lambda: "Token 1" in desk.panel._story.text(), timeout=2000)
    desk.settle()
    before = desk.panel._story.text()
    desk.viewer.cursor.position = (-500, 900, 4)
    qtbot.wait(120)
    assert desk.panel._story.text() == before


def test_where_a_window_is_still_to_come_that_is_said(desk):
    desk.segment()
    prediction = desk.session.state.prediction
    stage = prediction.tokens.stage.copy()
    stage[0] = 0
    partial = replace(prediction, complete=False, tokens=replace(prediction.tokens, stage=stage))
    desk.desk._on_prediction(partial)
    desk.desk.asking.ask((0, 0, 0))
    assert "not computed yet" in desk.panel._story.text()


def test_a_choice_of_rule_stays_while_results_come_in(desk):
    desk.segment()
    form = desk.panel.rule
    form._selection.setCurrentIndex(form._selection.findData("norm"))
    form._keep_by.setCurrentIndex(form._keep_by.findData("threshold"))
    form._values.setText("0.4")
    desk.session.set_keep_ratio(0.2)
    desk.settle()
    assert (form._selection.currentData(), form._keep_by.currentData(), form._values.text()) == (
        "norm",
        "threshold",
        "0.4",
    )
    desk.session.choose(selection="entropy")
    assert form._selection.currentData() == "entropy"
    assert form._keep_by.currentData() == "share"


def test_labels_beyond_255_are_still_a_reference(desk, qtbot):
    desk.segment()
    drawn = np.zeros(desk.scan.shape, np.int32)
    drawn[14:, 18:, 10:] = 256
    desk.viewer.add_layer(Labels(drawn, name="drawn"))
    desk.panel.rule._reference.setCurrentIndex(1)
    desk.panel.rule.chosen.emit(RuleRequest("oracle", "share", ""))
    desk.settle()
    assert np.count_nonzero(desk.engine.runs[-1][0].reference.mask) == 8
    desk.panel.show()
    desk.panel._of.setCurrentText("drawn")
    qtbot.waitUntil(lambda: bool(desk.mail.empty() or len(desk.desk._pieces) == 1), timeout=5000)
    assert desk.desk._pieces[0].voxels == 8


def test_a_labels_layer_elsewhere_is_no_reference_even_of_the_same_size(desk):
    desk.segment()
    desk.viewer.add_layer(Labels(np.zeros(desk.scan.shape, np.uint8), name="moved", translate=(0, 40, 0)))
    desk.viewer.add_layer(Labels(np.zeros(desk.scan.shape, np.uint8), name="coarse", scale=(2, 2, 2)))
    assert desk.panel.rule._reference.count() == 1


@pytest.mark.parametrize(("stage", "words"), [(1, "at its only stage"), (2, "to the end")])
def test_a_model_of_one_stage_is_told_of_in_words(stage, words):
    assert words in say.fate(stage, 1)


@pytest.mark.parametrize(
    ("ratio", "told"),
    [(0.15, "0.15"), (1.0, "1 "), (0.1501, "0.16"), (0.6484, "0.65"), (0.02, "0.02"), (0.02046, "0.021")],
)
def test_the_ratio_that_is_told_keeps_the_token(ratio, told):
    assert f"keep ratio of {told}" in say.probed(None, LABELS, ratio, True).replace(",", " ")


def test_every_layer_of_the_form_has_the_key_that_it_names(desk):
    keys = {shortcut.key.replace("-", "+"): shortcut for shortcut in desk.desk._keys()}
    desk.segment()
    desk.desk.compare()
    desk.settle()
    for kind, words, _ in LAYERS:
        key = words.replace("&", "").rpartition("(")[2].rstrip(")")
        assert key in keys, words
        if kind != "share":
            before = desk.panel.shown.wanted(kind)
            keys[key].do(desk.viewer)
            assert desk.panel.shown.wanted(kind) != before


def test_pieces_of_one_label_are_listed_alone(desk, qtbot):
    desk.segment()
    desk.panel.show()
    assert [desk.panel._of.itemText(k) for k in range(desk.panel._of.count())] == ["in the mask", "in head", "in tail"]
    desk.panel._of.setCurrentText("in tail")
    qtbot.waitUntil(lambda: bool(desk.mail.empty() or desk.desk._pieces), timeout=5000)
    desk.settle()
    assert {piece.label for piece in desk.desk._pieces} == {2}
    assert "of tail, in" in desk.panel._unseen_words.text()


def test_the_difference_may_be_from_a_reference_and_needs_no_comparison(desk):
    desk.segment()
    form, here = desk.panel.shown, desk.session.state.prediction.mask
    assert not form._toggles["difference"].isEnabled()
    drawn = here.copy()
    drawn[0, 0, :3] = (0, 2, 1)
    desk.viewer.add_layer(Labels(drawn, name="drawn"))
    form._against.setCurrentText("drawn")
    form.toggle("difference")
    layer = desk.shown("difference")
    assert np.count_nonzero(layer.data) == np.count_nonzero(drawn != here)
    assert layer.data[0, 0, 0] == 1
    assert "reference" in layer.name
    assert "only in the reference" in form._legend.accessibleName()
    desk.viewer.layers.remove(desk.desk._references[0])
    assert desk.shown("difference") is None
    assert not form._toggles["difference"].isEnabled()


def test_what_the_person_deletes_stays_away_until_something_changes(desk):
    desk.segment()
    desk.panel.shown.toggle("boxes")
    desk.viewer.layers.remove(desk.shown("boxes"))
    assert desk.shown("boxes") is None


def test_at_a_ratio_each_label_is_held_against_both_and_a_distance_without_meaning_is_a_dash(desk):
    nan = float("nan")
    rows = tuple(Agreement(k, name, 0.9, nan, 12.34, 12.5) for k, name in ((1, "head"), (2, "tail")))
    other = tuple(replace(row, hd95=2.5, other_ml=10.0) for row in rows)
    rung = Rung(0.25, (100, 25, 6), 1.0, 0.1, 2**20, rows, other)
    words = plain(say.against_dense(rung))
    assert words.count("<td>keeping all</td><td>0.900</td><td>–</td><td>12.3 (−0.2)</td>") == 2
    assert words.count("<td>reference</td><td>0.900</td><td>2.5</td><td>12.3 (+2.3)</td>") == 2
    assert "HD95 – mm" in rung_words(rung)


def test_without_a_reference_each_label_is_one_line(desk):
    rows = tuple(Agreement(k, name, 0.9, 2.5, 12.34, 12.5) for k, name in ((1, "head"), (2, "tail")))
    words = plain(say.against_dense(Rung(0.25, (100, 25, 6), 1.0, 0.1, 2**20, rows)))
    assert words.count("keeping all") == 1
    for name in ("head", "tail"):
        assert f"<td>{name}</td><td>0.900</td><td>2.5</td><td>12.3 (−0.2)</td>" in words


def test_the_plot_says_what_its_colours_mean_and_draws_the_cost_that_is_chosen(desk):
    form = desk.panel.sweep
    assert form._costs.isHidden()
    assert form._legend.isHidden()
    row = Agreement(1, "head", 0.9, 2.5, 12.34, 12.5)
    dear = Rung(1.0, (1000, 1000, 1000), 16.0, 0.4, 800 * 2**20, (replace(row, dice=1.0),))
    cheap = Rung(0.1, (1000, 100, 10), 4.0, 0.1, 1000 * 2**20, (row,))
    form.set_rungs((dear, cheap), (5, 9), "")
    form.plot.resize(300, 130)
    assert not form._costs.isHidden()
    height = form.plot.cost_place(0).y()  # of the dearest of all
    for cost, said, other in (
        ("operations", "from 0 to 16.0 GMAC", 4 / 16),
        ("tokens kept", "from 0 to 1,000", 10 / 1000),
        ("time", "from 0 to 0.40 s", 0.1 / 0.4),
    ):
        form._cost.setCurrentText(cost)
        assert said in form._legend.accessibleName()
        assert form.plot.cost_place(0).y() == height
        assert form.plot.cost_place(1).y() == pytest.approx(form.plot._share(other))
    form._cost.setCurrentText("memory")
    assert "from 0 to 1,000 MiB" in form._legend.accessibleName()
    assert form.plot.cost_place(1).y() == height
    assert "reference" not in form._legend.accessibleName()
    form.set_rungs((replace(dear, reference=(row,)), replace(cheap, reference=(replace(row, dice=0.2),))), (5, 9), "")
    assert "mean Dice with the reference" in form._legend.accessibleName()
    assert form.plot._floor() == pytest.approx(0.2)
    assert not form.plot.grab().isNull()


def test_a_long_name_has_a_line_of_its_own(desk):
    row = Agreement(1, "Posterior hippocampus", 0.9, 2.5, 12.34, 12.5)
    words = plain(say.against_dense(Rung(0.25, (100, 25, 6), 1.0, 0.1, 2**20, (row,))))
    assert "<td colspan=4><i>Posterior hippocampus</i></td></tr><tr><td></td><td>0.900</td>" in words


@pytest.mark.parametrize("referenced", [True, False])
def test_long_names_of_labels_cut_nothing_off(desk, referenced):
    long = "Left submandibular gland of a patient with a long name"
    rows = (Agreement(1, long, 0.123, 100.5, 1234.5, 1000.0),)
    rung = Rung(0.25, (10000, 2500, 600), 1.0, 0.1, 2**20, rows, rows if referenced else ())
    desk.panel.sweep.set_rungs((rung,), (1,), say.against_dense(rung))
    desk.panel.set_labels([long])
    desk.panel.set_references([long])
    desk.panel.set_unseen(say.unseen_summary([], 5, long), [f"17.87 mL of {long}, a piece of its own"])
    for part in desk.panel._parts:
        part.set_open(True)
        assert part.minimumSizeHint().width() <= 310


def test_a_block_in_which_no_token_is_left_has_a_dash_and_no_line(desk, qtbot):
    desk.segment()
    share = np.array([[[0.7, 0.3]], [[np.nan, np.nan]]], np.float32)
    edges, even = np.array([0, 10, 30], np.float32), np.array([0.4, 0.6], np.float32)
    form = desk.panel.heads
    form.set_heads(np.zeros((2, 1), np.float32), Reach(edges, share, np.array([[9], [np.nan]], np.float32), even))
    assert "9 mm far" in form._words.text()
    form.plot.resize(300, 110)
    form.map.resize(300, 40)
    assert form.plot.place(share[0, 0], 0).y() < form.plot.place(share[0, 0], 1).y()
    qtbot.keyClick(form.map, Qt.Key_Down)
    assert "no token is left" in form._words.text()
    for widget in (form.map, form.plot):
        widget.show()
        assert not widget.grab().isNull()


def test_the_frame_is_around_the_head_that_would_be_shown(desk, qtbot):
    desk.segment()
    form = desk.panel.heads
    form.set_model(3, 2)
    edges, even = np.array([0, 10, 30], np.float32), np.array([0.4, 0.6], np.float32)
    reach = Reach(edges, np.full((3, 2, 2), 0.5, np.float32), np.full((3, 2), 9.0, np.float32), even)

    def agrees() -> bool:
        return form.map._at == (form._block.value() - 1, form._head.value() - 1)

    form.set_heads(None, reach)
    assert agrees()
    loss = np.zeros((3, 2), np.float32)
    loss[2, 1] = 0.5
    form.set_heads(loss, reach)
    assert form.map._at == (2, 1)
    assert agrees()
    assert form._words.text().startswith("Most: block 3, head 2")
    form._block.setValue(1)
    assert form.map._at == (0, 1)
    assert "Block 1, head 2" in form._words.text()
    qtbot.keyClick(form.map, Qt.Key_Down)
    assert form.map._at == (1, 1)
    assert agrees()
    form.map.head_chosen.emit(2, 0)
    assert form.map._at == (2, 0)
    assert agrees()


def test_what_was_drawn_of_another_model_or_part_goes_with_it(desk):
    desk.session.registry.cards["other"] = replace(desk.session.card, id="other")
    desk.segment()
    desk.panel.shown.toggle("boxes")
    desk.panel.shown.toggle("stage")
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    desk.panel.heads.attention_requested.emit(1, 0)
    desk.settle()
    desk.session.set_keep_ratio(0.5)
    desk.settle()
    assert "at 0.3" in desk.shown("attention").name  # it was asked for at that ratio
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    desk.segment()
    assert desk.shown("attention") is None
    assert desk.shown("boxes") is not None
    desk.session.choose(model="other")
    assert [desk.shown(kind) for kind in ("boxes", "stage", "attention")] == [None] * 3
    desk.segment()
    assert desk.shown("boxes") is not None


def test_where_no_window_looked_the_network_is_not_asked(desk):
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    desk.segment()
    desk.desk.asking.ask_network((15, 19, 11))
    desk.settle()
    assert desk.engine.probed == []
    assert desk.session.state.message is None or desk.session.state.message.severity != "error"
    assert "No window" in desk.panel._story.text()
