"""The parts of the tab "Correct" at work on a real layer: brush, previews, review list, looks, volumes, kept ones."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import dask.array
import numpy as np
import pytest
from fakes import PATIENCE, make_prediction, make_scan
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QFont, QGuiApplication, QIcon
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QFileDialog, QSlider
from rooms import Room, paint

from napari_sparsetok import tool
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.review import Doubt
from napari_sparsetok.scan import ScanError
from napari_sparsetok.tool import ToolRequest
from napari_sparsetok.ui.brush_layer import Labels
from napari_sparsetok.ui.brush_preview import HERE, NEAR
from napari_sparsetok.ui.correct_panel import CorrectPanel
from napari_sparsetok.ui.icon import DRAWINGS
from napari_sparsetok.ui.label_view import LabelRow, LabelView, _change
from napari_sparsetok.ui.paint_form import MODES
from napari_sparsetok.ui.preview import ADDED, COLORS, TAKEN
from napari_sparsetok.ui.style import signed
from napari_sparsetok.ui.tool_form import TOOLS

SHRINK = ToolRequest("shrink", 1.0, False)


# Brush


def test_the_brush_is_a_disc_in_millimetres_in_every_plane(correcting):
    desk = correcting
    desk.panel.paint._size.setValue(6)
    layer = desk.desk.layers.layer
    for order, axis in (((0, 1, 2), 0), ((1, 0, 2), 1), ((2, 0, 1), 2)):
        desk.viewer.dims.order = order
        layer.paint((8, 10, 6), 1)
        painted = np.argwhere(np.asarray(desk.desk.array) == 1)
        assert set(painted[:, axis]) == {(8, 10, 6)[axis]}
        distance = np.linalg.norm(painted - (8, 10, 6), axis=1)
        assert distance.max() <= 3.0
        assert len(painted) == 29  # voxels within 3 mm of the middle one
        layer.undo()


def test_a_ball_reaches_into_neighbouring_slices_and_is_one_undo_step(room):
    room.session.set_scan(make_scan(spacing=(2.0, 1.0, 1.0)))
    room.segment()
    room.panel.start_requested.emit()
    room.panel.paint._ball.setChecked(True)
    room.panel.paint._size.setValue(6)
    layer = room.desk.layers.layer
    assert layer.n_edit_dimensions == 3
    layer.paint((8, 10, 6), 1)
    painted = np.argwhere(np.asarray(room.desk.array) == 1)
    assert np.linalg.norm((painted - (8, 10, 6)) * (2, 1, 1), axis=1).max() <= 3.0
    assert set(painted[:, 0]) == {7, 8, 9}
    layer.undo()
    assert not np.any(room.desk.array)


def test_the_threshold_brush_paints_only_the_chosen_grey_values(correcting):
    desk, scan = correcting, correcting.session.state.scan
    form = desk.panel.limits
    form._low.setValue(100)
    form._high.setValue(1000)
    form._on.setChecked(True)
    desk.panel.paint._size.setValue(8)
    desk.desk.layers.layer.paint((8, 10, 6), 1)
    painted = np.asarray(desk.desk.array) == 1
    assert 10 < np.count_nonzero(painted) < 49
    assert scan.voxels[painted].min() >= 100
    desk.desk.layers.layer.paint((8, 10, 6), 0)  # taking back is never limited
    assert not np.any(desk.desk.array)
    form._on.setChecked(False)
    desk.desk.layers.layer.paint((8, 10, 6), 1)
    assert np.count_nonzero(desk.desk.array) == 49


def test_both_ends_of_the_range_are_painted(room):
    voxels = np.zeros((16, 20, 12), np.int16)
    voxels[8, 10, 2:10] = [98, 99, 100, 101, 149, 150, 151, 152]
    room.session.set_scan(replace(make_scan(), voxels=voxels))
    room.segment()
    room.panel.start_requested.emit()
    form = room.panel.limits
    form._low.setValue(100)
    form._high.setValue(150)
    form._on.setChecked(True)
    room.panel.paint._size.setValue(30)
    room.desk.layers.layer.paint((8, 10, 6), 1)
    assert np.flatnonzero(np.asarray(room.desk.array)[8, 10] == 1).tolist() == [4, 5, 6, 7]
    form._low.setValue(150)  # the wrong way round means the same
    form._high.setValue(100)
    room.desk.layers.layer.paint((8, 10, 6), 2)
    assert np.flatnonzero(np.asarray(room.desk.array)[8, 10] == 2).tolist() == [4, 5, 6, 7]


def keeping_to_bright(desk: Room) -> Any:
    """The brush keeps to some grey values; its preview."""
    form = desk.panel.limits
    form._low.setValue(100)
    form._high.setValue(1000)
    form._on.setChecked(True)
    return desk.desk.painting.preview


def drawn(desk: Room, kind: int) -> set[tuple[int, ...]]:
    """The voxels of the scan that the preview marks."""
    layer, geometry = desk.desk.painting.preview.layer, desk.session.state.scan.geometry
    start = np.round((np.asarray(layer.translate) - geometry.origin) / geometry.spacing).astype(int)
    return {tuple(int(n) for n in at) for at in np.argwhere(np.asarray(layer.data) == kind) + start}


@pytest.mark.parametrize("voxel", [(8, 10, 6), (0, 0, 0), (15, 19, 11)])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("ball", [False, True])
def test_the_threshold_brush_shows_what_a_click_would_paint(correcting, voxel, order, ball):
    desk, scan = correcting, correcting.session.state.scan
    desk.viewer.dims.order = order
    desk.viewer.dims.point = voxel
    desk.panel.paint._size.setValue(7)
    desk.panel.paint._ball.setChecked(ball)
    preview = keeping_to_bright(desk)
    desk.viewer.cursor.position = [float(k) for k in voxel]
    desk.until(lambda: preview.layer is not None)
    preview.draw()
    here, near = drawn(desk, HERE), drawn(desk, NEAR)
    assert desk.viewer.layers.selection.active is desk.desk.layers.layer
    desk.desk.layers.layer.paint(voxel, 1)
    painted = {tuple(int(n) for n in at) for at in np.argwhere(np.asarray(desk.desk.array) == 1)}
    across = order[0]
    assert here == {at for at in painted if at[across] == voxel[across]}
    assert here
    assert near
    assert not here & near
    assert all(scan.voxels[at] >= 100 for at in near)
    assert {at[across] for at in near | here} == {voxel[across]}
    missed = {at for at in np.ndindex(scan.shape) if scan.voxels[at] >= 100 and at[across] == voxel[across]}
    close = {at for at in missed if max(abs(a - b) for a, b in zip(at, voxel, strict=True)) <= 6}
    assert close <= near | here


@pytest.mark.filterwarnings("ignore:Contours are not displayed")
def test_the_preview_of_the_brush_is_there_only_while_it_keeps_to_grey_values(correcting):
    desk = correcting
    preview = keeping_to_bright(desk)
    desk.viewer.cursor.position = (8.0, 10.0, 6.0)
    desk.until(lambda: preview.layer is not None)
    count = len(desk.viewer.layers)
    for mode in ("look", "restore", "fill", "polygon"):
        desk.desk.painting.set_mode(mode)
        assert preview.layer is None, mode
        assert len(desk.viewer.layers) == count - 1
    desk.desk.painting.set_mode("eraser")
    desk.until(lambda: preview.layer is not None)
    assert preview.layer.metadata["color"] == COLORS[TAKEN]
    desk.desk.painting.set_mode("brush")
    desk.until(lambda: preview.layer is not None and preview.layer.metadata["color"] == COLORS[ADDED])
    desk.panel.labels.lock_toggled.emit(1, True)
    preview.draw()
    assert not np.any(preview.layer.data)
    desk.panel.labels.lock_toggled.emit(1, False)
    desk.viewer.cursor.position = (8.0, 400.0, 6.0)
    desk.until(lambda: preview.layer is None)
    desk.viewer.cursor.position = (8.0, 10.0, 6.0)
    desk.until(lambda: preview.layer is not None)
    desk.viewer.dims.ndisplay = 3
    desk.until(lambda: preview.layer is None)
    desk.viewer.dims.ndisplay = 2
    desk.until(lambda: preview.layer is not None)
    desk.viewer.layers.remove(preview.layer)  # a person may
    desk.viewer.cursor.position = (8.0, 11.0, 6.0)
    desk.until(lambda: preview.layer is not None)
    desk.panel.limits._on.setChecked(False)
    assert preview.layer is None
    assert desk.session.state.message is None


def test_no_brush_changes_a_locked_label(correcting):
    desk = correcting
    before = np.array(desk.overlays.mask)
    desk.panel.labels.lock_toggled.emit(2, True)
    desk.panel.paint._size.setValue(60)
    layer = desk.desk.layers.layer
    for value in (1, NOT_TISSUE, 0):
        layer.paint((8, 10, 6), value)
        assert np.array_equal(desk.overlays.mask == 2, before == 2)
    layer.paint((8, 10, 6), 2)
    assert np.array_equal(desk.overlays.mask == 2, before == 2)
    assert "locked" in desk.session.state.message.text


def test_restoring_brings_nothing_of_a_locked_label_back(correcting):
    desk = correcting
    layer = desk.desk.layers.layer
    desk.panel.paint._size.setValue(60)
    layer.paint((8, 10, 6), NOT_TISSUE)
    desk.panel.labels.lock_toggled.emit(2, True)
    layer.paint((8, 10, 6), 0)
    assert not (desk.overlays.mask[8] == 2).any()
    assert (desk.overlays.mask[8] == 1).any()
    desk.panel.labels.lock_toggled.emit(2, False)
    layer.paint((8, 10, 6), 0)
    assert (desk.overlays.mask[8] == 2).any()


def test_fill_fills_what_is_seen_and_not_the_open_background(correcting):
    desk = correcting
    layer = desk.desk.layers.layer
    layer.data[...] = NOT_TISSUE  # nothing is seen
    ring = np.zeros((20, 12), bool)
    ring[5:12, 3:10] = True
    ring[7:10, 5:8] = False
    layer.data[(np.full(ring.sum(), 8), *np.nonzero(ring))] = 1
    layer.fill((8, 8, 6), 1)
    filled = np.asarray(desk.desk.array)[8] == 1
    assert filled[5:12, 3:10].all()
    assert filled.sum() == 49
    assert not (np.asarray(desk.desk.array)[[7, 9]] == 1).any()
    layer.fill((8, 1, 1), 1)
    assert "open to the edge" in desk.session.state.message.text
    assert np.array_equal(np.asarray(desk.desk.array)[8] == 1, filled)
    layer.undo()
    assert (np.asarray(desk.desk.array)[8] == 1).sum() == 49 - 9


def test_a_polygon_is_filled_to_its_corners(correcting):
    layer = correcting.desk.layers.layer
    layer.paint_polygon([(8, 4.5, 3.5), (8, 4.5, 8.5), (8, 9.5, 8.5), (8, 9.5, 3.5)], 2)
    painted = np.argwhere(np.asarray(correcting.desk.array) == 2)
    assert (painted.min(axis=0).tolist(), painted.max(axis=0).tolist()) == ([8, 4, 3], [8, 9, 8])
    assert len(painted) == 36


@pytest.mark.parametrize(("spacing", "origin"), [(0.7, 12.34), (1.0, -3.3), (3.3, 0.1)])
def test_a_polygon_lands_on_the_slice_that_is_shown(spacing, origin):
    """In millimetres a slice is hardly ever where counting it says exactly, and other planes look between slices."""
    layer = Labels(np.zeros((300, 6, 5), np.uint8), scale=(spacing, 1.0, 1.0), translate=(origin, 0.0, 0.0))
    for k in range(300):
        for between in (0.0, 0.45, -0.45):
            z = layer.world_to_data((origin + (k + between) * spacing, 0.0, 0.0))[0]
            layer.paint_polygon([(z, 1, 1), (z, 1, 4), (z, 4, 4), (z, 4, 1)], 1)
            assert np.flatnonzero(layer.data.any(axis=(1, 2))).tolist() == [k]
            layer.undo()
    for outside in (-0.6, 299.6, 400.0):
        layer.paint_polygon([(outside, 1, 1), (outside, 1, 4), (outside, 4, 4)], 1)
    assert not layer.data.any()


def test_keys_choose_ways_of_painting_and_steps(correcting):
    desk, layer = correcting, correcting.desk.layers.layer
    keys = {str(key): do for key, do in layer.keymap.items()}
    for choice in MODES:
        keys[choice.key](layer)
        assert next(b for b in desk.panel.paint.buttons if b.isChecked()).property("mode") == choice.mode
    keys["B"](layer)
    keys["]"](layer)
    assert desk.panel.paint.brush_mm == 4.5
    assert layer.brush_mm == 4.5
    keys["="](layer)
    assert desk.panel.chosen_label == 2
    assert layer.selected_label == 2
    keys["M"](layer)  # napari's: a number that no label has
    assert layer.selected_label == 2


def test_a_ball_is_no_hindrance_to_polygons(correcting):
    desk, layer = correcting, correcting.desk.layers.layer
    desk.panel.paint._ball.setChecked(True)
    for mode, dimensions in (("brush", 3), ("polygon", 2), ("fill", 2), ("eraser", 3)):
        desk.panel.paint.mode_chosen.emit(mode)
        assert layer.n_edit_dimensions == dimensions


def test_a_disk_that_refuses_is_said_and_nothing_is_lost(correcting, monkeypatch):
    desk = correcting

    def refuse(*_: object) -> None:
        raise ScanError("no space left")

    paint(desk, (5, 10, 6), 2)
    said = np.array(desk.desk.array)
    monkeypatch.setattr(desk.store, "keep", refuse)
    desk.desk.keep()
    desk.until(lambda: "Not kept safe: the disk refused" in desk.panel._said.text())
    assert np.array_equal(desk.desk.array, said)
    monkeypatch.undo()
    paint(desk, (9, 10, 6), 2)
    desk.desk.keep()
    desk.until(lambda: "kept safe on this computer" in desk.panel._said.text())


def test_the_panel_follows_naparis_own_buttons(correcting):
    desk, layer = correcting, correcting.desk.layers.layer

    def chosen() -> str:
        return next(b for b in desk.panel.paint.buttons if b.isChecked()).property("mode")

    layer.mode = "erase"  # paints nothing, which here takes corrections back
    assert chosen() == "restore"
    layer.mode = "polygon"
    assert chosen() == "polygon"
    layer.mode = "paint"
    layer.selected_label = NOT_TISSUE
    assert chosen() == "eraser"
    layer.selected_label = 2
    assert chosen() == "brush"
    assert desk.panel.chosen_label == 2
    layer.brush_size = 9
    assert desk.panel.paint.brush_mm == 9


# Tools


def previewed(desk: Room) -> bool:
    return desk.desk.tooling.preview.layer is not None


def test_a_preview_shows_what_applying_does_and_changes_nothing(correcting):
    desk = correcting
    before = np.array(desk.overlays.mask)
    desk.panel.tools.preview_requested.emit(SHRINK)
    desk.until(lambda: previewed(desk))
    assert np.array_equal(desk.overlays.mask, before)
    assert not np.any(desk.desk.array)
    assert "mL" in desk.panel.tools._said.text()
    layer = desk.desk.tooling.preview.layer
    taken = np.count_nonzero(np.asarray(layer.data) == TAKEN)
    assert not (np.asarray(layer.data) == ADDED).any()
    desk.panel.tools.apply_requested.emit(SHRINK)
    assert np.count_nonzero(desk.overlays.mask != before) == taken
    assert not previewed(desk)
    assert desk.desk.layers.layer.mode == "paint"  # the brush is still in hand
    desk.panel.undo_requested.emit()
    assert np.array_equal(desk.overlays.mask, before)


def test_a_preview_follows_the_mask_and_the_numbers(correcting):
    desk = correcting
    form = desk.panel.tools
    form._tool.value = "shrink"
    form._preview.click()
    desk.until(lambda: previewed(desk))
    first = form._said.text()
    form._number.value = 3.0
    desk.until(lambda: form._said.text() not in (first, ""))
    second = form._said.text()
    desk.panel.paint._size.setValue(30)
    paint(desk, (8, 10, 6), 1)
    desk.until(lambda: form._said.text() not in (second, ""))
    form._preview.click()
    assert not previewed(desk)
    assert form._said.isHidden()


def test_what_is_painted_while_a_tool_works_is_not_lost(correcting):
    desk = correcting
    desk.panel.tools.apply_requested.emit(ToolRequest("keep_largest", 0, False))
    paint(desk, (1, 1, 1), 2)  # before it has finished
    said = np.array(desk.desk.array)
    desk.settled()
    desk.until(lambda: not desk.desk.tooling.is_working)
    assert (np.asarray(desk.desk.array)[said > 0] == said[said > 0]).all()


def slowed(monkeypatch: Any) -> tuple[threading.Event, threading.Event]:
    """Tools wait with what they found. Returns: set when one has found it, to be set so that it goes on."""
    begun, go, work = threading.Event(), threading.Event(), tool.work

    def slow(*arguments: Any) -> Any:
        change = work(*arguments)
        begun.set()
        assert go.wait(PATIENCE)
        return change

    monkeypatch.setattr(tool, "work", slow)
    return begun, go


def test_a_tool_that_began_before_a_stroke_begins_anew(correcting, monkeypatch):
    desk = correcting
    begun, go = slowed(monkeypatch)
    desk.panel.tools.apply_requested.emit(ToolRequest("keep_largest", 0, False))
    assert begun.wait(PATIENCE)
    desk.panel.paint._size.setValue(1)
    paint(desk, (2, 3, 11), 1)  # an island, which the tool has not seen
    assert desk.overlays.mask[2, 3, 11] == 1
    go.set()
    desk.until(lambda: not desk.desk.tooling.is_working)
    assert desk.overlays.mask[2, 3, 11] == 0


def test_a_result_for_another_scan_is_dropped(correcting, monkeypatch):
    desk = correcting
    begun, go = slowed(monkeypatch)
    desk.panel.tools.apply_requested.emit(SHRINK)
    assert begun.wait(PATIENCE)
    desk.session.set_scan(make_scan(name="another"))
    desk.session.run()  # and is not waited for to its end, which is that of the tool as well
    desk.until(lambda: desk.session.state.prediction is not None)
    desk.panel.start_requested.emit()
    go.set()
    desk.settled()
    assert not np.any(desk.desk.array)


def test_a_cancelled_tool_does_nothing(correcting):
    desk = correcting
    before = np.array(desk.overlays.mask)
    desk.panel.tools.apply_requested.emit(SHRINK)
    assert not desk.panel.tools._wait_box.isHidden()
    desk.panel.tools.cancel_requested.emit()
    assert desk.panel.tools._wait_box.isHidden()
    desk.settled()
    assert np.array_equal(desk.overlays.mask, before)
    assert not desk.desk.tooling.is_working


def test_tools_work_on_all_labels_that_are_not_locked(correcting):
    desk = correcting
    desk.panel.labels.lock_toggled.emit(1, True)
    before = np.array(desk.overlays.mask)
    desk.panel.tools.apply_requested.emit(ToolRequest("shrink", 1.0, False, all_labels=True))
    desk.until(lambda: not np.array_equal(desk.overlays.mask, before))
    assert np.array_equal(desk.overlays.mask == 1, before == 1)
    desk.panel.labels.lock_toggled.emit(2, True)
    desk.panel.tools.apply_requested.emit(ToolRequest("shrink", 1.0, False, all_labels=True))
    assert "All labels are locked" in desk.session.state.message.text


# Review list


def reviewing(desk: Room) -> Any:
    layer = desk.desk.layers.layer
    layer.data[...] = NOT_TISSUE
    layer.data[2:6, 2:8, 2:8] = 1
    layer.data[12, 15, 9] = 1
    layer.data[10:12, 15, 2] = 1
    desk.panel.review_section.expand(animate=False)
    desk.panel.review.find_requested.emit()
    desk.until(lambda: desk.desk.review.findings)
    return desk.desk.review


def test_the_list_is_worst_first_and_a_click_goes_there(correcting):
    desk = correcting
    review = reviewing(desk)
    apart = [k for k, x in enumerate(review.findings) if x.kind == "apart"]
    assert [review.findings[k].voxels for k in apart] == [2, 1]
    volumes = [x.volume for x in review.findings]
    assert volumes == sorted(volumes, reverse=True)
    desk.panel.review.jump_requested.emit(apart[1])
    assert tuple(desk.viewer.dims.point[-3:]) == (12.0, 15.0, 9.0)
    assert review.ring.layer in desk.viewer.layers


def test_marks_are_counted_kept_and_recorded(correcting, tmp_path):
    desk = correcting
    review = reviewing(desk)
    desk.panel.review._list.item(0).setCheckState(Qt.Checked)
    desk.until(lambda: f"1 of {len(review.findings)} looked at" in desk.panel.review._said.text())
    desk.viewer.dims.set_point(0, 4.0)
    desk.panel.review._slice.setChecked(True)
    assert "1 of 7 with a mask reviewed, 16 corrected" in desk.panel.review._counts.text()
    desk.session.save_mask(tmp_path / "m.nii.gz", desk.desk.array, remarks=desk.desk.remarks())
    desk.desk.keep()
    desk.settled()
    record = json.loads((tmp_path / "m.json").read_text())["correcting"]
    assert record["reviewed_slices"]["axial"] == [4]
    assert len(record["reviewed_findings"]) == 1
    kept = desk.store.notes(desk.store.all()[0].name)
    assert kept["reviewed_slices"] == record["reviewed_slices"]


def test_doubt_from_elsewhere_comes_into_the_list(correcting):
    desk = correcting
    review = reviewing(desk)
    values = np.zeros(desk.session.state.scan.shape, np.float32)
    values[2:6, 2:8, 2:4] = 1.0
    review.set_doubt(Doubt(values))
    review.find()
    desk.until(lambda: any(x.kind == "unsettled" for x in review.findings))
    assert next(x for x in review.findings if x.kind == "unsettled").voxels == 48


# Looks


def test_the_mask_is_drawn_as_chosen_and_stays_so_when_its_layer_comes_back(correcting):
    desk = correcting
    form = desk.panel.looks
    form._style.setCurrentIndex(1)
    form._opacity.setValue(40)
    desk.panel.labels.show_toggled.emit(1, False)
    for again in (False, True):
        if again:
            desk.viewer.layers.remove(desk.overlays.layer("mask"))
            desk.segment(0.3)
        layer = desk.overlays.layer("mask")
        assert layer.contour == 0
        assert layer.opacity == pytest.approx(0.4)
        assert tuple(layer.colormap.color_dict[None]) == (0, 0, 0, 0)
        assert 1 not in layer.colormap.color_dict
        assert 2 in layer.colormap.color_dict


def test_blinking_leaves_the_mask_as_it_was(correcting):
    desk = correcting
    layer = desk.overlays.layer("mask")
    desk.panel.looks._blink.setChecked(True)
    desk.until(lambda: layer.opacity == 0)
    desk.until(lambda: layer.opacity > 0)
    desk.until(lambda: layer.opacity == 0)
    desk.panel.looks._blink.setChecked(False)
    assert layer.opacity == pytest.approx(0.95)


def test_only_the_difference_is_drawn_and_follows_every_stroke(correcting):
    desk = correcting

    def expected() -> np.ndarray:
        mask, prediction = np.asarray(desk.overlays.mask), desk.session.state.prediction.mask
        kind = np.where(mask == 0, TAKEN, ADDED)
        return np.where(mask == prediction, 0, kind)

    paint(desk, (5, 10, 6), NOT_TISSUE)
    desk.panel.looks._difference.setChecked(True)
    desk.until(lambda: desk.desk.looks.difference is not None)
    assert not desk.overlays.layer("mask").visible
    for at, label in (((8, 10, 6), 2), ((8, 3, 3), NOT_TISSUE), ((8, 10, 6), 0)):
        paint(desk, at, label)
        assert np.array_equal(desk.desk.looks.difference.data, expected())
    desk.segment(0.8)
    assert np.array_equal(desk.desk.looks.difference.data, expected())
    desk.panel.looks._difference.setChecked(False)
    assert desk.desk.looks.difference is None
    assert desk.overlays.layer("mask").visible


def test_a_difference_that_is_not_wanted_any_more_when_it_is_known_is_not_drawn(correcting):
    desk = correcting
    desk.panel.looks._difference.setChecked(True)
    desk.panel.looks._difference.setChecked(False)
    desk.settled()
    assert desk.desk.looks.difference is None
    assert desk.overlays.layer("mask").visible


def test_the_difference_from_another_models_mask_goes_with_it(correcting):
    desk = correcting
    desk.session.registry.cards["other"] = replace(desk.session.card, id="other")
    paint(desk, (5, 10, 6), NOT_TISSUE)
    desk.panel.looks._difference.setChecked(True)
    desk.until(lambda: desk.desk.looks.difference is not None)
    desk.session.choose(model="other")
    assert desk.desk.looks.difference is None
    desk.segment()
    assert desk.overlays.layer("mask").visible


# Volumes


def test_volumes_are_of_what_is_seen_and_can_be_copied_and_saved(correcting, tmp_path, monkeypatch):
    desk = correcting
    paint(desk, (5, 10, 6), 2)
    desk.panel.volumes_requested.emit()
    desk.until(lambda: desk.desk.measuring.dialog is not None)
    dialog = desk.desk.measuring.dialog
    counts = np.bincount(desk.overlays.mask.ravel(), minlength=256)
    assert dialog.table.item(1, 2).text() == str(counts[2])
    dialog.copy()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:4] == ["id", "name", "voxels", "ml"]
    assert lines[2].split("\t")[2] == str(counts[2])
    for name in ("v.csv", "v.json"):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (str(tmp_path / name), ""))
        dialog.save_requested.click()
        desk.settled()
    assert (tmp_path / "v.csv").read_text().splitlines()[2].split(",")[2] == str(counts[2])
    document = json.loads((tmp_path / "v.json").read_text())
    assert document["volumes"][1]["voxels"] == counts[2]
    assert document["scan"]["sha256"] == desk.session.state.scan.content_hash
    dialog.close()


def test_volumes_are_written_over_nothing_that_was_not_asked_about(correcting, tmp_path, monkeypatch):
    desk = correcting
    desk.panel.volumes_requested.emit()
    desk.until(lambda: desk.desk.measuring.dialog is not None)
    dialog = desk.desk.measuring.dialog
    for there in ("v.csv", "v.json", "scan.nii.gz"):
        (tmp_path / there).write_bytes(b"somebody's work")
    for typed, chosen in (("v", ""), ("v", "Table (*.csv)"), ("v.csv", "JSON (*.json)"), ("scan.nii.gz", "")):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, a=typed, b=chosen: (str(tmp_path / a), b))
        dialog.save_requested.click()
        desk.settled()
    assert all((tmp_path / there).read_bytes() == b"somebody's work" for there in ("v.csv", "v.json", "scan.nii.gz"))
    assert (tmp_path / "scan.nii.gz.csv").read_text().startswith("id,name")
    dialog.close()


def test_volumes_of_an_unfinished_mask_say_so(correcting, tmp_path, monkeypatch):
    desk = correcting
    shown = desk.session.state.prediction
    desk.session._accept(make_prediction(shown.scan, shown.settings, complete=False))
    desk.panel.volumes_requested.emit()
    assert "not segmented yet" in desk.session.state.message.text
    desk.until(lambda: desk.desk.measuring.dialog is not None)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "v.json"), ""))
    desk.desk.measuring.dialog.save_requested.click()
    desk.settled()
    assert json.loads((tmp_path / "v.json").read_text())["complete"] is False
    desk.desk.measuring.dialog.close()


# What is kept


def test_kept_corrections_are_listed_brought_back_and_deleted_by_the_person_only(correcting):
    desk = correcting
    paint(desk, (5, 10, 6), 2)
    said, scan = np.array(desk.desk.array), desk.session.state.scan
    desk.desk.keep()
    desk.settled()
    desk.store.keep("a" * 64, np.ones((3, 3, 3), np.uint8))
    desk.panel.kept_requested.emit()
    dialog = desk.desk.kept.dialog
    desk.until(lambda: dialog._table.rowCount() == 2)
    texts = [dialog._table.item(k, 1).text() for k in range(2)]
    assert sorted(texts) == ["another, 3 × 3 × 3 voxels", "the scan that is open"]
    dialog._table.selectRow(texts.index("another, 3 × 3 × 3 voxels"))
    assert not dialog._back.isEnabled()
    dialog._delete.click()
    assert len(desk.store.all()) == 2  # it asks first
    next(b for b in dialog.question.buttons() if "Delete" in b.text()).click()
    desk.until(lambda: dialog._table.rowCount() == 1)
    (kept,) = desk.store.all()
    assert kept.belongs_to(scan.content_hash)
    assert np.array_equal(desk.store.give_back(kept.name), said)
    dialog.close()


# The panel alone


@pytest.fixture
def panel(qtbot):
    panel = CorrectPanel()
    qtbot.addWidget(panel)
    panel.set_active(True)
    panel.set_labels(
        [LabelRow(1, "Anterior hippocampus", "#E69F00", 2.39, 0.01), LabelRow(2, "Posterior", "#56B4E9", 1, -1)]
    )
    for section in panel.findChildren(type(panel.tools_section)):
        section.expand(animate=False)
    panel.show()
    return panel


def test_the_panel_fits_and_every_control_says_what_it_does(panel):
    assert panel.minimumSizeHint().width() <= 340
    assert panel._work_box.minimumSizeHint().width() <= panel.minimumSizeHint().width()
    for kind in (QAbstractButton, QAbstractSpinBox, QComboBox, QSlider):
        for control in panel.findChildren(kind):
            mine = control.parent() and not control.objectName().startswith("qt_")
            assert control.toolTip() or control.parent().toolTip() or not mine, control
    assert all(
        choice.mode in DRAWINGS and not b.icon().isNull() for choice, b in zip(MODES, panel.paint.buttons, strict=True)
    )
    assert all(f"({choice.key})" in b.toolTip() for choice, b in zip(MODES, panel.paint.buttons, strict=True))


def test_ticks_in_the_table_lock_and_hide(panel, qtbot):
    for column, signal, state in ((5, panel.labels.lock_toggled, True), (4, panel.labels.show_toggled, False)):
        with qtbot.waitSignal(signal) as caught:
            panel.labels.item(1, column).setCheckState(Qt.Checked if state else Qt.Unchecked)
        assert caught.args == [2, state]
    assert panel.chosen_label == 1


def test_the_tool_form_asks_only_for_what_the_tool_needs(panel, qtbot):
    form = panel.tools
    for choice in TOOLS:
        form._tool.value = choice.name
        assert form._number.visible == bool(choice.number)
        assert form._scope.visible == choice.in_slice
        with qtbot.waitSignal(form.apply_requested) as caught:
            form._apply.click()
        assert caught.args[0].tool == choice.name


# A scan that stays on disk


def test_corrections_of_a_scan_that_stays_on_disk_are_kept_and_offered_back(room, qtbot, tmp_path):
    voxels = dask.array.from_array(make_scan().voxels, chunks=7)
    lazy = replace(make_scan(), voxels=voxels, identity="on disk")
    room.session.set_scan(lazy)
    room.segment()
    room.panel.start_requested.emit()
    paint(room, (5, 10, 6), 2)
    room.panel.limits._on.setChecked(True)
    paint(room, (9, 10, 6), 2)  # grey values on disk are not looked at while painting, and it says so
    assert "stays on disk" in room.session.state.message.text
    said = np.array(room.desk.array)
    assert said[9].any()
    room.desk.keep()
    room.settled()
    again = Room(qtbot, tmp_path / "kept")
    try:
        again.session.set_scan(replace(make_scan(), voxels=voxels, identity="on disk"))
        again.until(lambda: again.panel._offer_words.text())
        again.panel.bring_back_requested.emit()
        again.until(lambda: again.desk.array is not None)
        assert np.array_equal(again.desk.array, said)
    finally:
        again.close()


def test_the_table_and_the_brush_stay_with_one_label_while_the_mask_goes_and_comes(correcting):
    desk, layer = correcting, correcting.desk.layers.layer
    desk.panel.labels.choose(2)
    assert layer.selected_label == 2
    desk.viewer.layers.remove(desk.overlays.layer("mask"))
    desk.desk._write_rows()  # as the next result does
    desk.segment(0.3)
    assert desk.panel.chosen_label == layer.selected_label == 2
    desk.panel.labels.set_rows([])
    desk.panel.labels.set_rows([LabelRow(7, "another", "#E69F00", 0.0, 0.0)])
    assert desk.panel.chosen_label == layer.selected_label == 7


def test_locks_hold_without_the_layer_of_the_mask(correcting):
    desk = correcting
    desk.panel.paint._size.setValue(60)
    layer, before = desk.desk.layers.layer, np.array(desk.overlays.mask)
    layer.data[12:, ...] = 2  # said by hand
    desk.panel.labels.lock_toggled.emit(2, True)
    desk.viewer.layers.remove(desk.overlays.layer("mask"))
    for value in (1, NOT_TISSUE, 0):
        layer.paint((8, 10, 6), value)
        said = np.asarray(desk.desk.array)
        assert not said[:12][before[:12] == 2].any()
        assert (said[12:] == 2).all()
    layer.paint((8, 10, 2), 1)
    assert (np.asarray(desk.desk.array)[8] == 1).any()


def test_back_at_a_scan_locks_and_fill_go_by_what_was_drawn_until_it_is_segmented(correcting):
    """The mask that is still on the screen is the one of before, without the newest strokes."""
    desk = correcting
    scan, layer = desk.session.state.scan, desk.desk.layers.layer
    desk.session.set_scan(make_scan(name="other"))
    desk.session.set_scan(scan)
    assert desk.overlays.layer("mask") is not None
    assert desk.overlays.mask is None
    assert desk.overlays.counts is None
    ring = np.zeros((20, 12), np.uint8)
    ring[5:10, 3:8] = 1
    ring[6:9, 4:7] = 0
    layer.data[5] = ring
    desk.panel.labels.lock_toggled.emit(1, True)
    layer.brush_mm = 1.0
    layer.paint((5, 5, 5), 2)
    assert np.array_equal(layer.data[5], ring)
    layer.fill((5, 7, 5), 2)
    assert set(np.unique(layer.data[5][6:9, 4:7])) == {2}
    assert np.count_nonzero(layer.data[5] == 2) == 9
    desk.segment()
    assert np.array_equal(desk.overlays.mask, desk.composed())


def test_the_unit_of_an_island_is_that_of_where_it_is_looked_for(correcting):
    form = correcting.panel.tools
    form._tool.value = "remove_islands"
    assert form._number.label == "Below, mm³"
    form._scope.value = True
    assert form._number.label == "Below, mm²"
    form._scope.value = False
    assert form._number.label == "Below, mm³"


def test_the_colour_of_the_chosen_label_is_that_on_the_scan(correcting):
    table = correcting.panel.labels
    assert table.chosen == table._rows[0].id
    for mode in (QIcon.Normal, QIcon.Selected):
        picture = table.item(0, 0).icon().pixmap(QSize(12, 12), mode).toImage()
        assert picture.pixelColor(6, 6) == QColor(table._rows[0].color)


def test_an_empty_box_has_a_frame_in_the_colour_of_the_words(correcting):
    for view in (correcting.panel.labels, correcting.panel.review._list):
        assert f"border: 1px solid {view.palette().text().color().name()}" in view.styleSheet()


def test_a_change_is_written_with_a_true_minus():
    assert (signed(-0.014), signed(0.04)) == ("−0.01", "+0.04")
    assert _change(LabelRow(1, "a", "#fff", 1.0, -0.25)) == "−0.25"


def test_a_large_ring_is_a_thin_line(correcting):
    ring = correcting.desk.review.ring
    correcting.viewer.scene.camera.zoom = 10.0
    ring.show((0.0, 0.0, 0.0), 40.0)
    layer = ring.layer
    assert float(layer.border_width[0]) * float(np.max(layer.size)) * 10.0 == pytest.approx(4.0, rel=0.01)


def test_a_large_font_leaves_room_for_the_names_of_labels(qtbot):
    table = LabelView()
    qtbot.addWidget(table)
    table.resize(300, 200)
    table.show()
    row = LabelRow(1, "Brainstem", "#E69F00", 21.26, 0.0, voxels=559)
    for points, hidden in ((9, False), (18, True), (18, True), (9, False)):
        table.setFont(QFont(table.font().family(), points))
        table.horizontalHeader().setFont(table.font())
        table.set_rows([])
        table.set_rows([row])
        qtbot.waitUntil(lambda hidden=hidden: table.isColumnHidden(1) == hidden, timeout=2000)
    assert "559 voxels" in table.item(0, 2).toolTip()
