"""The bar below the tabs, keys, information: with a viewer model and no window."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_maker import SECRET, Series, block
from fakes import PATIENCE, FakeSegmenter, make_prediction, make_registry, make_scan
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtWidgets import QAbstractButton, QComboBox, QWidget

from napari_sparsetok.files import open_scan
from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.overlays import KINDS, OVERLAY, Overlays
from napari_sparsetok.ui.planes import plane_of
from napari_sparsetok.ui.scan_info import ScanInfo, facts, identifying
from napari_sparsetok.ui.scan_layer import layer_data
from napari_sparsetok.ui.shortcuts import HelpSheet, pretty, sheet
from napari_sparsetok.ui.showing import Showing
from napari_sparsetok.ui.view_bar import ViewBar

MS = int(PATIENCE * 1000)


class Room:
    def __init__(self, qtbot: Any) -> None:
        self.qtbot = qtbot
        self.viewer = ViewerModel()
        self.session = Session(make_segmenter=FakeSegmenter, registry=make_registry(), deliver=on_gui_thread)
        self.overlays = Overlays(self.viewer)
        self.widget = QWidget()
        qtbot.addWidget(self.widget)
        self.showing = Showing(self.widget, self.viewer, self.session, self.overlays)
        qtbot.addWidget(self.showing.bar)

    def add(self, scan: Scan) -> Any:
        ((data, arguments, _),) = layer_data(scan)
        layer = self.viewer.add_image(data, **arguments)
        self.session.set_scan(scan)
        self.overlays.set_scan(scan)
        self.showing.set_scan(scan, [layer])
        return layer

    def press(self, key: str) -> None:
        self.viewer.keymap[coerce_keybinding(key)](self.viewer)


@pytest.fixture
def room(qtbot: Any) -> Iterator[Room]:
    room = Room(qtbot)
    yield room
    room.showing.shut_down()
    room.session.close()
    assert room.session.wait(PATIENCE)


# Keys


def test_no_key_of_ours_is_one_that_napari_uses_for_scans_and_masks(room: Room) -> None:
    """Shapes and points have keys for their tools, which stay theirs: a layer's own key comes first."""
    taken = {
        str(binding)
        for name, bindings in default_shortcuts.items()
        for binding in bindings
        if not any(word in name for word in ("shape", "point", "activate_add", "vertex", "select_mode", "direct"))
    }
    ours = [str(coerce_keybinding(shortcut.key)) for shortcut in room.showing.shortcuts.shortcuts]
    assert len(ours) == len(set(ours))
    assert not taken & set(ours)
    for kind in (Image, Labels):
        assert not {str(key) for key in kind.class_keymap} & set(ours)
    assert not {str(key) for key in ViewerModel.class_keymap} & set(ours)


@pytest.mark.parametrize(("key", "plane"), [("9", "coronal"), ("0", "sagittal"), ("8", "axial")])
def test_keys_switch_planes(room: Room, key: str, plane: str) -> None:
    room.add(make_scan())
    room.press(key)
    assert plane_of(room.viewer) == plane


def test_keys_go_through_the_slices(room: Room) -> None:
    room.add(make_scan((40, 20, 12)))
    room.viewer.dims.set_current_step(0, 20)
    for key, expected in ((".", 21), (",", 20), ("PageUp", 30), ("PageDown", 20)):
        room.press(key)
        assert room.viewer.dims.current_step[0] == expected


def test_a_key_goes_to_the_next_window(room: Room) -> None:
    room.add(make_scan())
    box = room.showing.bar.findChild(QComboBox)
    assert box.currentText() == "usual"
    room.press("W")
    assert box.currentText() == "strong contrast"
    room.press("Shift-W")
    assert box.currentText() == "usual"


def test_overlays_are_hidden_and_come_back_as_they_were(room: Room) -> None:
    scan = make_scan()
    room.add(scan)
    prediction = make_prediction(scan, Settings(keep_ratio=0.5))
    room.overlays.show_tokens(prediction.tokens)
    room.overlays.show_mask(prediction)
    room.overlays.set_visible("tokens", False)
    ticks: list[Any] = []
    room.overlays.visibility_changed.connect(lambda *what: ticks.append(what))
    room.press("H")
    assert not any(room.overlays.layer(kind).visible for kind in KINDS)
    room.press("H")
    assert [room.overlays.layer(kind).visible for kind in KINDS] == [True, False, True]
    assert ticks == [("importance", False), ("mask", False), ("importance", True), ("mask", True)]


def test_overlays_that_were_hidden_before_stay_so(room: Room) -> None:
    scan = make_scan()
    room.add(scan)
    room.overlays.show_mask(make_prediction(scan, Settings(keep_ratio=0.5)))
    room.overlays.set_visible("mask", False)
    layer = room.viewer.add_layer(Labels(np.zeros((4, 4, 4), np.uint8), metadata={OVERLAY: "corrections"}))
    room.press("H")
    room.press("H")
    assert layer.visible
    assert not room.overlays.layer("mask").visible
    layer.visible = False
    room.press("H")  # nothing is seen, and this key hid nothing of it
    assert room.overlays.layer("mask").visible


@pytest.mark.parametrize("kind", ["corrections", "preview", "ring", "boxes", "stability", "attention"])
def test_what_is_drawn_while_correcting_and_inspecting_is_hidden_too(room: Room, kind: str) -> None:
    layer = Labels(np.zeros((4, 4, 4), np.uint8), metadata={OVERLAY: kind})
    other = Labels(np.zeros((4, 4, 4), np.uint8))  # the person's own
    for one in (layer, other):
        room.viewer.add_layer(one)
    room.press("H")
    assert (layer.visible, other.visible) == (False, True)
    room.press("H")
    assert layer.visible


def test_the_box_that_says_where_to_segment_stays(room: Room) -> None:
    layer = room.viewer.add_layer(Labels(np.zeros((4, 4, 4), np.uint8), metadata={OVERLAY: "region"}))
    room.press("H")
    assert layer.visible


def test_letting_go_frees_the_keys(room: Room) -> None:
    room.showing.shut_down()
    assert not [shortcut for shortcut in room.viewer.keymap.values() if shortcut is not None]


def test_the_sheet_lists_every_key(room: Room, qtbot: Any) -> None:
    page = sheet(room.showing.shortcuts.shortcuts)
    for shortcut in room.showing.shortcuts.shortcuts:
        assert f"<b>{pretty(shortcut.key)}</b>" in page
        assert shortcut.words.split(",")[0] in page
    room.press("F1")
    first = room.showing.dialog
    assert isinstance(first, HelpSheet)
    assert first.isVisible()
    room.press("F1")  # again is no second sheet
    assert room.showing.dialog is not first
    room.showing.dialog.close()
    assert room.showing.dialog is None


# The bar


def test_every_control_has_a_tooltip_and_can_be_reached(room: Room) -> None:
    room.add(make_scan())
    for control in room.showing.bar.findChildren(QAbstractButton) + room.showing.bar.findChildren(QComboBox):
        assert control.toolTip(), control
        assert control.text() if isinstance(control, QAbstractButton) else control.accessibleName()


def test_it_is_narrow(room: Room) -> None:
    room.add(make_scan())
    assert room.showing.bar.minimumSizeHint().width() <= 330
    room.showing.bar.set_readout(
        "LPS\u00a0−123.4, −123.4, −1234.5\u00a0mm · −1024.123\u00a0HU · a long name of a label"
    )
    assert room.showing.bar.minimumSizeHint().width() <= 330


def test_choosing_a_window_in_the_bar_windows_the_layer(room: Room) -> None:
    scan = make_scan()
    layer = room.add(scan)
    box = room.showing.bar.findChild(QComboBox)
    box.textActivated.emit("everything")
    np.testing.assert_allclose(layer.contrast_limits, (scan.voxels.min(), scan.voxels.max()), rtol=1e-6)
    layer.contrast_limits = (1, 2)
    assert box.currentText() == "by hand"
    assert "width 1" in box.toolTip()


def test_a_scan_that_lies_elsewhere_is_gone_to(room: Room) -> None:
    room.add(make_scan((16, 20, 12), name="one"))
    room.viewer.dims.point = (3.0, 4.0, 5.0)
    room.add(make_scan((16, 20, 12), name="same place"))
    assert room.viewer.dims.point == (3.0, 4.0, 5.0)
    room.add(make_scan((16, 20, 12), name="elsewhere", origin=(100.0, 200.0, 300.0)))
    assert room.viewer.dims.point == (108.0, 210.0, 306.0)


def test_without_a_scan_there_is_nothing_to_choose(room: Room) -> None:
    assert not room.showing.bar.findChild(QComboBox).isEnabled()
    room.showing.show_info()
    assert room.showing.dialog is None
    assert "Open a scan" in room.session.state.message.text


def test_requests_are_signals(qtbot: Any) -> None:
    bar = ViewBar()
    qtbot.addWidget(bar)
    buttons = {button.text().replace("&", "").strip(): button for button in bar.findChildren(QAbstractButton)}
    assert not any(buttons[words].isEnabled() for words in ("Info", "3 views"))  # of what?
    bar.set_has_scan(True)
    for words, signal in (("Info", bar.info_requested), ("?", bar.help_requested), ("3 views", bar.views_toggled)):
        with qtbot.waitSignal(signal):
            buttons[words].click()
    actions = buttons["Open"].menu().actions()
    for action, signal in zip(actions, (bar.file_requested, bar.folder_requested, bar.mask_requested), strict=True):
        with qtbot.waitSignal(signal):
            action.trigger()


# Information


def test_facts_say_geometry_and_notes() -> None:
    scan = make_scan((16, 20, 12), spacing=(2.5, 0.7, 0.9))
    noted = Scan(scan.voxels, scan.geometry, name="T1", notes=(SIDES_UNKNOWN,))
    rows = dict(facts(noted))
    assert rows["Scan"] == "T1"
    assert rows["Voxels"] == "12 × 20 × 16", "no sides are claimed"
    assert dict(facts(scan))["Voxels"] == "12 × 20 × 16 (R–L × A–P × I–S)"
    assert rows["Voxel size"] == "0.9 × 0.7 × 2.5 mm"
    assert rows["Extent"] == "11 × 14 × 40 mm"
    assert rows["Note"] == SIDES_UNKNOWN


def test_an_oblique_scan_is_named_so() -> None:
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    geometry = Geometry((3, 4, 5), affine)
    rows = dict(facts(Scan(geometry.to_shown(np.zeros((3, 4, 5))), geometry)))
    assert "17.2°" in rows["Turned by"]
    assert "oblique" in rows["Turned by"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return Series(block()).write(tmp_path / f"study_of_{SECRET}")


def test_names_are_shown_only_when_asked_for_and_never_logged(
    room: Room, study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    room.add(open_scan(study))
    room.press("I")
    dialog = room.showing.dialog
    assert isinstance(dialog, ScanInfo)
    assert SECRET not in dialog.words
    assert "4711" not in dialog.words
    dialog._names.click()
    room.qtbot.waitUntil(lambda: SECRET in dialog.words, timeout=MS)
    assert "4711-0815" in dialog.words
    assert "anonymous" in dialog.words
    assert not dialog._names.isEnabled()
    dialog.close()
    assert SECRET not in caplog.text
    assert SECRET not in str(room.session.state.message)


def test_a_zip_names_its_patient_too(study: Path, tmp_path: Path) -> None:
    import shutil

    archive = Path(shutil.make_archive(str(tmp_path / "study"), "zip", study))
    rows = dict(identifying(open_scan(archive)))
    assert rows["Name"] == SECRET
    assert rows["File"] == str(archive)


def test_a_scan_of_no_file_names_nobody() -> None:
    assert identifying(make_scan()) == [("File", "this scan comes from no file")]


def test_a_file_that_has_gone_is_said(room: Room, study: Path) -> None:
    import shutil

    room.add(open_scan(study))
    shutil.rmtree(study)
    room.showing.show_info()
    room.showing.dialog._names.click()
    room.qtbot.waitUntil(lambda: room.session.state.message is not None, timeout=MS)
    assert room.session.state.message.severity == "error"
    assert SECRET not in room.session.state.message.text
    room.qtbot.waitUntil(room.showing.dialog._names.isEnabled, timeout=MS)  # to try again
    room.showing.dialog.close()
