"""The tab Inspect speaks of the scan, the part, the rule and the ratio that are set, whatever a person does."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from desks import GRID, Desk, Probed
from fakes import expected_mask, make_scan
from napari.layers import Labels
from qtpy.QtWidgets import QComboBox, QFileDialog

from napari_sparsetok.engine.contract import Reach
from napari_sparsetok.scan import Region
from napari_sparsetok.state import Forced
from napari_sparsetok.ui import inspect_words as say
from napari_sparsetok.ui.inspect_part import choose_among
from napari_sparsetok.ui.rule_form import RuleRequest


@pytest.fixture
def desk(qtbot, no_cost) -> Iterator[Desk]:
    desk = Desk(qtbot, Probed(free=True))
    yield desk
    desk.let_go()


@pytest.mark.parametrize("kind", ["boxes", "stage"])
def test_layers_on_tokens_move_with_a_box_of_the_same_size(desk, kind):
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    desk.segment()
    desk.panel.shown.toggle(kind)
    before = np.array(desk.shown(kind).extent.world)
    desk.session.set_region(Region((4, 8, 4), (12, 16, 12)))
    desk.segment()
    assert np.allclose(desk.shown(kind).extent.world - before, (4, 8, 4))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_a_piece_comes_to_the_middle_of_the_view_in_every_plane(desk, qtbot, order):
    desk.panel.show()
    desk.segment()
    qtbot.waitUntil(lambda: bool(desk.desk.asking) and desk_pieces(desk), timeout=3000)
    desk.viewer.dims.order = order
    desk.panel.piece_chosen.emit(0)
    geometry = desk.scan.geometry
    at = desk.desk._pieces[0].at
    world = [o + v * s for o, v, s in zip(geometry.origin, at, geometry.spacing, strict=True)]
    assert desk.viewer.scene.camera.center[-2:] == pytest.approx([world[k] for k in order[-2:]])


def desk_pieces(desk):
    desk.mail.empty()
    return bool(desk.desk._pieces)


def test_attention_that_comes_late_is_not_laid_on_another_scan(desk):
    desk.segment()
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    desk.panel.heads.attention_requested.emit(1, 0)
    assert desk.session.wait(20)  # it is known, and waits to be told
    desk.session.set_scan(make_scan(name="another"))
    desk.settle()
    assert desk.shown("attention") is None


def test_attention_of_another_part_is_not_laid_on_this_one(desk):
    desk.segment()
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    desk.panel.heads.attention_requested.emit(1, 0)
    assert desk.session.wait(20)
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    desk.session.run()
    assert desk.session.wait(20)
    desk.settle()
    assert desk.shown("attention") is None


def test_leaving_far_pieces_in_ends_a_comparison_that_was_without_them(desk):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    desk.session.choose(all_pieces=True)
    desk.segment()
    assert desk.desk.sweep is None


def test_what_is_in_doubt_follows_the_ratio(desk):
    told = []
    desk.desk.doubt_changed.connect(told.append)
    desk.segment()
    desk.desk.compare()
    desk.settle()
    assert told[-1].above == 0.3
    desk.session.set_keep_ratio(0.1)
    desk.settle()
    assert told[-1].above == 0.1


@pytest.mark.parametrize("rule", [RuleRequest("learned", "threshold", "0.5"), RuleRequest("learned", "stages", "1, 1")])
def test_a_ratio_that_is_taken_holds_although_it_was_set_before_another_rule(desk, rule):
    desk.segment()
    desk.panel.rule.chosen.emit(rule)
    desk.settle()
    desk.desk.compare()
    desk.settle()
    desk.panel.sweep.ratio_chosen.emit(0.3)
    desk.settle()
    settings = desk.session.state.prediction.settings
    assert (settings.keep_ratio, settings.stage_ratios, settings.threshold) == (0.3, None, None)


def test_without_one_ratio_none_is_marked_and_told(desk):
    desk.segment()
    desk.panel.rule.chosen.emit(RuleRequest("learned", "threshold", "0.5"))
    desk.settle()
    desk.desk.compare()
    desk.settle()
    assert np.isnan(desk.panel.sweep.plot._now)
    assert "At 0.3" not in desk.panel.sweep._words.text()


def test_a_reference_that_is_renamed_stays_chosen(desk):
    desk.segment()
    drawn = desk.viewer.add_layer(Labels(expected_mask(desk.scan, 0.5), name="drawn"))
    desk.viewer.add_layer(Labels(expected_mask(desk.scan, 0.2), name="other"))
    desk.panel.rule._reference.setCurrentText("drawn")
    desk.panel.shown._against.setCurrentText("drawn")
    drawn.name = "by hand"
    desk.viewer.add_layer(Labels(np.zeros((2, 2, 2), np.uint8), name="elsewhere"))
    assert desk.panel.rule._reference.currentText() == "by hand"
    assert desk.panel.shown._against.currentText() == "by hand"
    assert desk.panel.rule.reference == 0


def test_parts_of_a_reference_that_is_gone_are_not_listed_as_the_masks(desk, qtbot):
    desk.panel.show()
    desk.segment()
    drawn = np.zeros(desk.scan.shape, np.uint8)
    drawn[12:, 16:, 8:] = 1
    layer = desk.viewer.add_layer(Labels(drawn, name="drawn"))

    def told(words):
        desk.mail.empty()
        return words in desk.panel._unseen_words.text()

    desk.panel._of.setCurrentText("drawn")
    qtbot.waitUntil(lambda: told("of the reference"), timeout=3000)
    desk.viewer.layers.remove(layer)
    assert desk.panel._of.currentText() == "in the mask"
    qtbot.waitUntil(lambda: told("of the mask"), timeout=3000)


def test_no_head_is_told_of_while_all_blocks_are_chosen(desk):
    desk.segment()
    form = desk.panel.heads
    form.set_model(2, 2)
    edges, even = np.array([0, 10, 30], np.float32), np.array([0.4, 0.6], np.float32)
    reach = Reach(edges, np.full((2, 2, 2), 0.5, np.float32), np.array([[1, 2], [3, 4]], np.float32), even)
    form.set_heads(None, reach)
    assert form._words.text() == ""
    form._block.setValue(1)
    form._head.setValue(1)
    assert "Block 1, head 1: it looks 1 mm" in form._words.text()
    form._block.setValue(0)
    assert form._words.text() == ""
    form.map.leaveEvent(None)
    assert form._words.text() == ""


def test_heads_of_a_smaller_model_are_drawn_although_a_later_one_was_chosen(desk, qtbot):
    desk.segment()
    form = desk.panel.heads
    edges, even = np.array([0, 10, 30], np.float32), np.array([0.4, 0.6], np.float32)
    form.set_model(6, 6)
    form.set_heads(None, Reach(edges, np.full((6, 6, 2), 0.5, np.float32), np.full((6, 6), 9, np.float32), even))
    form._choose(5, 5)
    form._block.setValue(0)
    form.set_heads(None, None)
    form.set_model(2, 2)
    form.set_heads(None, Reach(edges, np.full((2, 2, 2), 0.5, np.float32), np.full((2, 2), 9, np.float32), even))
    form.plot.resize(300, 110)
    form.plot.show()
    assert not form.plot.grab().isNull()


def test_what_never_is_the_same_is_not_told_as_steady(desk):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    desk.panel.shown.toggle("lowest")
    found = desk.desk.sweep
    moving = found.lowest > np.float32(found.rungs[-1].keep_ratio)
    assert moving.all()  # the fake's edge passes over every voxel
    assert np.array_equal(desk.shown("lowest").data > 0, moving)


def test_a_name_that_looks_like_markup_is_told_as_it_is():
    assert "<" not in say.unseen_summary([], 0, "<i>part")


def test_a_reference_beside_the_part_that_was_segmented_was_not_looked_at(desk, qtbot):
    desk.panel.show()
    desk.session.set_region(Region((0, 0, 0), (8, 8, 8)))
    desk.segment()
    drawn = np.zeros(desk.scan.shape, np.uint8)
    drawn[12:, 16:, 8:] = 1
    desk.viewer.add_layer(Labels(drawn, name="drawn"))
    desk.panel._of.setCurrentText("drawn")
    qtbot.waitUntil(lambda: not desk.mail.empty() and "reference" in desk.panel._unseen_words.text(), timeout=3000)
    assert "All of the reference" not in desk.panel._unseen_words.text()


def test_a_threshold_that_nothing_reaches_is_shown_in_3d(desk):
    desk.segment()
    tokens = desk.session.state.prediction.tokens
    none = replace(tokens, stage=np.ones(GRID, np.uint8))
    desk.viewer.dims.ndisplay = 3
    desk.desk.layers.show_boxes(none)
    assert len(desk.shown("boxes").data) == 0


def test_blinking_leaves_a_mask_hidden_that_the_person_hid(desk):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    told = []
    desk.overlays.visibility_changed.connect(lambda kind, on: told.append((kind, on)))
    desk.overlays.set_visible("mask", False)
    desk.panel.sweep.blink_button.click()
    desk.desk._on_blink()
    desk.panel.sweep.blink_button.click()
    assert not desk.overlays.layer("mask").visible or told[-1:] == [("mask", True)]


def test_what_is_asked_of_a_patch_that_never_entered_is_not_another_tokens_attention(desk):
    desk.segment()
    desk.desk.asking.ask_network((4, 4, 4))
    desk.settle()
    prediction = desk.session.state.prediction
    tokens = prediction.tokens
    stage = tokens.stage.copy()
    stage[3, 4, 2] = 0
    windows = np.ones(GRID, np.uint8)
    passed = np.zeros((2, *GRID), np.float32)
    desk.session._accept(replace(prediction, tokens=replace(tokens, stage=stage, windows=windows, passed=passed)))
    desk.desk.asking.ask_network((15, 19, 11))
    desk.settle()
    assert "never entered" in desk.panel._story.text()
    before = len(desk.engine.probed)
    desk.panel.heads.attention_requested.emit(1, 0)
    desk.settle()
    assert [voxel for _, voxel in desk.engine.probed[before:]] != [(4, 4, 4)]


def test_the_numbers_of_heads_say_at_which_ratio_they_were_measured(desk):
    desk.segment()
    desk.panel.heads.heads_requested.emit()
    desk.settle()
    desk.session.set_keep_ratio(0.9)
    desk.settle()
    assert "at 0.3" in desk.panel.heads._words.text() or desk.panel.heads.map._mean is None


def test_closing_the_panel_while_masks_blink_leaves_the_mask_in_sight(qtbot, no_cost):
    desk = Desk(qtbot, Probed(free=True))
    desk.segment()
    desk.desk.compare()
    desk.settle()
    desk.panel.sweep.blink_button.click()
    while desk.overlays.layer("mask").visible:
        desk.desk._on_blink()
    desk.desk.shut_down()
    assert desk.overlays.layer("mask").visible
    assert desk.shown("dense") is None
    desk.overlays.let_go()
    desk.session.close()


def test_an_entry_of_a_choice_that_is_written_anew_keeps_it_only_if_it_was_renamed(qtbot):
    choice = QComboBox()
    qtbot.addWidget(choice)
    choice.addItems(["none", "a", "b"])
    choice.setCurrentIndex(1)
    for names, kept in ((["none", "c", "b"], "c"), (["none", "b", "c"], "c"), (["none", "b"], "none")):
        choose_among(choice, names)
        assert choice.currentText() == kept


def test_the_reference_of_one_scan_ranks_no_tokens_of_another(desk):
    desk.segment()
    desk.viewer.add_layer(Labels(expected_mask(desk.scan, 0.5), name="drawn"))
    desk.panel.rule._reference.setCurrentText("drawn")
    desk.panel.rule.chosen.emit(RuleRequest("oracle", "share", ""))
    desk.settle()
    desk.session.set_scan(make_scan(name="another"))
    desk.segment()
    settings = desk.engine.runs[-1][0]
    assert (settings.selection, settings.reference) == ("learned", None)
    assert "reference" in desk.session.state.message.text


def test_ratios_of_more_stages_than_the_next_model_has_are_let_go(desk):
    card = desk.session.card
    config = {**card.config, "prune_after": [1]}
    desk.session.registry.cards["other"] = replace(card, id="other", config=config)
    desk.segment()
    desk.panel.rule.chosen.emit(RuleRequest("learned", "stages", "0.5, 0.25"))
    desk.settle()
    desk.session.choose(model="other")
    assert desk.session.state.settings.stage_ratios is None
    assert desk.session.state.settings.keep_ratio == 0.3


def test_a_mask_without_tokens_that_must_go_is_not_told_to_be_the_one_that_keeps_all(desk):
    desk.session.set_keep_ratio(1.0)
    desk.segment()
    signs = np.zeros(GRID, np.int8)
    signs[0, 0, 0] = -1
    desk.session.choose(forced=Forced.of(Region.whole(desk.scan.shape), signs))
    desk.segment()
    desk.desk.compare()
    desk.settle()
    assert "At 1 against" not in desk.panel.sweep._words.text()


def test_tokens_are_not_painted_on_after_the_panel_is_closed(qtbot, no_cost):
    desk = Desk(qtbot, Probed(free=True))
    desk.segment()
    desk.panel.paint_requested.emit("must")
    layer = desk.shown("forced")
    desk.let_go()
    assert layer not in desk.viewer.layers or not layer.editable


def test_a_rule_that_was_set_and_not_run_is_not_compared_with_what_is_shown(desk):
    desk.segment()
    desk.session.choose(selection="norm")
    desk.desk.compare()
    desk.settle()
    assert desk.desk.sweep is None
    assert "first" in desk.session.state.message.text


@pytest.mark.parametrize(
    ("given", "chosen", "written"),
    [
        ("ratios", "Picture (*.png)", "ratios.png"),
        ("keep_ratios.csv", "Drawing (*.svg)", "keep_ratios.svg"),
        ("head.v2", "All numbers (*.json)", "head.v2.json"),
        ("ratios.JSON", "All numbers (*.json)", "ratios.JSON"),
        ("ratios.png", "", "ratios.png"),
    ],
)
def test_a_comparison_is_exported_in_the_format_that_was_chosen(desk, tmp_path, monkeypatch, given, chosen, written):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / given), chosen))
    desk.panel.sweep.export_requested.emit()
    desk.settle()
    assert [path.name for path in tmp_path.iterdir()] == [written]


def test_what_the_dialog_did_not_ask_about_is_not_written_over(desk, tmp_path, monkeypatch):
    desk.segment()
    desk.desk.compare()
    desk.settle()
    (tmp_path / "ratios.svg").write_text("mine")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "ratios.csv"), "Drawing (*.svg)"))
    desk.panel.sweep.export_requested.emit()
    desk.settle()
    assert (tmp_path / "ratios.svg").read_text() == "mine"
    assert "ratios.svg" in desk.session.state.message.text


def test_a_full_disk_while_exporting_is_said_and_leaves_nothing(desk, tmp_path, monkeypatch):
    desk.segment()
    desk.desk.compare()
    desk.settle()

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "a.csv"), "Table (*.csv)"))
    desk.panel.sweep.export_requested.emit()
    desk.settle()
    assert "No space left on device" in desk.session.state.message.text
    assert list(tmp_path.iterdir()) == []


def test_the_legend_is_of_every_layer_that_is_drawn_and_of_no_other(desk):
    desk.segment()
    form = desk.panel.shown
    form.toggle("stage")
    assert "score" in form._legend.accessibleName()
    form.toggle("stage")
    form.set_layer("lowest", True)
    form.set_layer("difference", True)
    assert form._legend.accessibleName() == ""  # nothing was compared yet
    desk.desk.compare()
    desk.settle()
    assert "steady" in form._legend.accessibleName()
    assert "only here" in form._legend.accessibleName()
