"""The whole panel in a viewer, against a slow engine: what a person does, and what is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import nibabel as nib
import numpy as np
import pytest
from dicom_maker import Series, block
from fakes import LABELS, PATIENCE, FakeSegmenter, expected_mask, make_card, make_registry, make_scan
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_sparsetok.engine.contract import Hints
from napari_sparsetok.files import open_scan, regrid
from napari_sparsetok.scan import Region, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.tokens import first_stage_preview
from napari_sparsetok.ui import dock as dock_module
from napari_sparsetok.ui import scan_choice
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.overlays import KINDS, OVERLAY
from napari_sparsetok.ui.paint_form import MODES
from napari_sparsetok.ui.scan_layer import layer_data

MS = int(PATIENCE * 1000)
CARDS = (
    make_card("fake"),
    make_card("crops", needs_region=True, config={"patch": 4, "window": [8, 8, 8], "prune_after": [1, 2]}),
    make_card("pair", channels=("T1", "T2")),
)


class Desk:
    """A viewer, the panel in it, and a fake engine."""

    def __init__(self, viewer: Any, qtbot: Any, docked: bool = True, **fake: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.engine = FakeSegmenter(**fake)
        self.session = Session(
            make_segmenter=lambda: self.engine,
            registry=make_registry(*CARDS),
            settings=Settings(keep_ratio=0.5),
            deliver=on_gui_thread,
        )
        self.dock = Dock(viewer, self.session)
        self.panel, self.state = self.dock.panel, self.session.state
        if docked:
            viewer.window.add_dock_widget(self.dock, name="SCD segmentation", area="right")
        else:
            qtbot.addWidget(self.dock)

    def add(self, scan: Any) -> Any:
        for data, arguments, _ in layer_data(scan):
            layer = self.viewer.add_image(data, **arguments)
        return layer

    def until(self, ready: Any) -> None:
        self.qtbot.waitUntil(lambda: bool(ready()), timeout=MS)

    def idle(self) -> None:
        self.until(lambda: self.session._computer.is_idle and self.state.busy is None)

    def segment(self) -> None:
        self.panel.run_requested.emit()
        self.engine.await_window()
        self.engine.let(self.engine.windows)
        self.idle()
        while not self.engine.arrived.empty():
            self.engine.arrived.get_nowait()

    def mask(self) -> np.ndarray:
        return np.asarray(self.dock.overlays.layer("mask").data)

    def kept(self) -> np.ndarray:
        return np.asarray(self.dock.overlays.layer("tokens").data)

    def end(self) -> None:
        self.engine.free = True
        self.engine.let(1000)
        self.dock.shut_down()
        assert self.session.wait(PATIENCE)


@pytest.fixture
def desk(qtbot: Any) -> Iterator[Desk]:
    """Without a window, which is quicker."""
    desk = Desk(ViewerModel(), qtbot, docked=False)
    yield desk
    desk.end()


@pytest.fixture
def real(make_napari_viewer_proxy: Any, qtbot: Any) -> Iterator[Desk]:
    """In a real window, through the border that napari draws around plugins."""
    desk = Desk(make_napari_viewer_proxy(), qtbot)
    yield desk
    desk.end()


@pytest.fixture
def notices() -> Iterator[list[tuple[str, str]]]:
    """Severity and words of what napari shows."""
    found: list[tuple[str, str]] = []

    def note(notification: Any) -> None:
        found.append((str(notification.severity), notification.message))

    notification_manager.notification_ready.connect(note)
    yield found
    notification_manager.notification_ready.disconnect(note)


# Corrections


def test_the_volumes_are_those_of_the_mask_that_is_seen(desk: Desk) -> None:
    desk.add(make_scan())
    desk.segment()
    before = desk.panel._volumes.text()
    desk.dock.correct.start()
    desk.dock.correct.layers.layer.paint((5, 10, 10), 255)
    counts = np.bincount(desk.mask().ravel(), minlength=256)
    rows = [f"{counts[k] / 1000:.2f}" for k in (1, 2)]
    assert all(row in desk.panel._volumes.text() for row in rows)
    assert desk.panel._volumes.text() != before
    desk.dock.correct.layers.layer.undo()
    assert desk.panel._volumes.text() == before


# The slider


def test_dragging_the_slider_shows_the_map_at_once_and_the_last_value_at_the_end(real: Desk) -> None:
    desk = real
    scan = make_scan()
    desk.add(scan)
    desk.segment()
    np.testing.assert_array_equal(desk.mask(), expected_mask(scan, 0.5))
    tokens, slider = desk.state.prediction.tokens, desk.panel.ratio.slider
    shown: list[float] = []
    desk.state.events.prediction.connect(listen := lambda p: shown.append(p.settings.keep_ratio))

    slider.setSliderDown(True)
    values = [0.45, 0.4, 0.35, 0.3, 0.25, 0.2]
    for value in values:
        slider.setValue(value)  # the engine stands still all the while
        assert value != 0.45 or desk.engine.await_window() == 0.45
        np.testing.assert_array_equal(desk.kept(), first_stage_preview(tokens, value).stage)
    np.testing.assert_array_equal(desk.mask(), expected_mask(scan, 0.5))

    desk.engine.let()
    desk.until(lambda: shown == [0.45])
    np.testing.assert_array_equal(desk.mask(), expected_mask(scan, 0.45))
    np.testing.assert_array_equal(desk.kept(), first_stage_preview(tokens, 0.2).stage)

    slider.setSliderDown(False)
    desk.engine.let(5)
    desk.idle()
    assert shown[0] == 0.45
    assert shown[-1] == 0.2
    assert shown == [0.45, 0.2]  # those in between were never computed
    np.testing.assert_array_equal(desk.mask(), expected_mask(scan, 0.2))
    assert desk.state.prediction.complete
    assert set(np.unique(desk.kept())) == {1, 2, 3}
    assert "60 →\u00a012 →\u00a02\u00a0tokens" in desk.panel.ratio._counts.text()
    del listen


def test_nothing_waits_for_the_engine(desk: Desk) -> None:
    desk.add(make_scan())
    desk.engine.loading.clear()  # the model takes for ever to load
    started = time.perf_counter()
    desk.panel.run_requested.emit()
    for k in range(20):
        desk.panel.ratio.slider.setValue(0.3 + k / 100)
    desk.panel.model_chosen.emit("crops")
    desk.panel.cancel_requested.emit()
    assert time.perf_counter() - started < PATIENCE / 4
    desk.engine.loading.set()


def test_slider_steps_touch_neither_card_nor_layer_list(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.add(make_scan())
    desk.segment()
    for name in ("set_card", "set_layers", "set_models", "set_scan", "set_where"):
        monkeypatch.setattr(desk.panel, name, lambda *_, name=name: pytest.fail(name))
    desk.panel.ratio.slider.setValue(0.3)
    desk.engine.let(2)
    desk.idle()


def test_what_the_session_says_stands_below_the_tabs_and_asks_for_little_height(qtbot: Any) -> None:
    desk = Desk(ViewerModel(), qtbot, docked=False)
    before = desk.dock.minimumSizeHint().height()
    for reason in ("full", "gone", "slow"):
        desk.session.say(f"the mask could not be saved, since the disk is {reason}; " * 4, "error")
    assert [text[:8] for text in desk.dock.messages.texts] == ["The mask"] * 3
    desk.dock.layout().activate()
    assert desk.dock.minimumSizeHint().height() - before < 120  # the words give way where there is no room for them
    desk.end()


def test_progress_is_shown_and_can_be_cancelled(qtbot: Any) -> None:
    desk = Desk(ViewerModel(), qtbot, docked=False, windows=3)
    desk.add(make_scan())
    desk.panel.run_requested.emit()
    desk.engine.await_window()
    desk.engine.let()
    desk.until(lambda: "1 of" in desk.panel.status.text)
    assert desk.panel._run.text() == "&Cancel"
    desk.panel._run.click()
    desk.engine.let()
    desk.idle()
    assert desk.panel.status.text == "ready"
    assert desk.panel._run.text() == "&Segment"
    desk.end()


# Scans


def test_what_comes_first_is_told_and_two_clicks_lead_to_a_mask(real: Desk) -> None:
    desk = real
    assert not desk.panel._run.isEnabled()
    desk.panel.sample_requested.emit("phantom")
    assert "opening" in desk.panel.status.text
    desk.until(lambda: desk.state.scan is not None)
    desk.engine.free = True
    desk.panel._run.click()
    desk.idle()
    assert [layer.metadata.get(OVERLAY) for layer in desk.viewer.layers] == [None, *KINDS]
    assert "mL" in desk.panel._volumes.text()
    assert desk.panel._save.isEnabled()


def test_overlays_are_never_taken_for_scans(desk: Desk) -> None:
    desk.add(make_scan())
    desk.segment()
    assert [layer.name for layer in desk.panel._layers] == ["scan"]


def test_a_scan_that_was_just_opened_is_the_one_to_segment(desk: Desk) -> None:
    desk.add(make_scan(name="first"))
    second = make_scan(name="second")
    desk.add(second)
    assert desk.state.scan is second
    desk.viewer.add_image(np.zeros((4, 4, 4)), name="filtered")  # no scan of ours: the person may choose it
    assert desk.state.scan is second
    desk.viewer.layers.remove("second")
    assert desk.state.scan.name == "first"


def test_the_same_layer_is_the_same_scan_whatever_happens_around_it(desk: Desk) -> None:
    desk.viewer.add_image(np.random.default_rng(0).random((16, 20, 12)), name="plain")
    scan = desk.state.scan
    desk.segment()
    desk.viewer.add_points(np.zeros((1, 3)))
    desk.viewer.layers.remove("Points")
    desk.viewer.dims.set_point(0, 3)
    assert desk.state.scan is scan
    assert desk.state.prediction is not None


def test_other_voxels_in_the_same_layer_are_another_scan(desk: Desk, notices: list[Any]) -> None:
    layer = desk.add(make_scan())
    desk.segment()
    before, old = desk.state.scan, desk.dock.overlays.layer("mask")
    layer.data = np.asarray(layer.data) + 1
    assert desk.state.scan is not before
    np.testing.assert_array_equal(desk.state.scan.voxels, layer.data)
    assert desk.state.scan.geometry is before.geometry
    assert desk.state.prediction is None
    assert not old.visible
    assert "earlier voxels" in old.name
    assert "old mask is hidden" in notices[-1][1]
    desk.segment()
    assert desk.dock.overlays.layer("mask") is not old
    assert desk.dock.overlays.layer("mask").visible


def test_the_same_voxels_set_again_change_nothing(desk: Desk, notices: list[Any]) -> None:
    layer = desk.add(make_scan())
    desk.segment()
    scan, mask = desk.state.scan, desk.dock.overlays.layer("mask")
    layer.data = layer.data
    assert desk.state.scan is scan
    assert desk.dock.overlays.layer("mask") is mask
    assert mask.visible
    assert notices == []


@pytest.mark.parametrize("told", ["by nobody", "by setting them again"])
def test_voxels_written_in_place_are_another_scan_when_it_is_segmented_again(
    desk: Desk, notices: list[Any], told: str
) -> None:
    layer = desk.add(make_scan())
    desk.segment()
    before, old, hash_before = desk.state.scan, desk.dock.overlays.layer("mask"), desk.state.scan.content_hash
    layer.data[2:5] += 50
    if told == "by nobody":
        layer.refresh()
        desk.panel.run_requested.emit()
    else:
        layer.data = layer.data
    assert desk.state.prediction is None
    desk.segment()
    assert desk.state.scan is not before
    assert desk.state.scan.content_hash != hash_before
    assert not old.visible
    assert "earlier voxels" in old.name
    assert "other voxels" in notices[-1][1]
    scan, mask = desk.state.scan, desk.dock.overlays.layer("mask")
    desk.segment()  # nothing changed since
    assert desk.state.scan is scan
    assert desk.dock.overlays.layer("mask") is mask


def test_corrections_of_voxels_that_were_replaced_are_kept_and_not_laid_on_others(desk: Desk) -> None:
    layer = desk.add(make_scan())
    desk.segment()
    desk.dock.correct_panel.start_requested.emit()
    sheet = desk.dock.correct.layers.layer
    sheet.data_setitem((np.array([3]), np.array([3]), np.array([3])), 1)
    layer.data = np.asarray(layer.data) + 1
    assert not sheet.visible
    assert sheet.data[3, 3, 3] == 1
    assert desk.dock.correct.array is None


MOVES = {
    "scale": (2.0, 2.0, 2.0),
    "translate": (5.0, 0.0, 0.0),
    "rotate": (0.0, 0.0, 20.0),
    "shear": (0.2, 0.0, 0.0),
    "affine": np.diag([1.0, 1.0, -1.0, 1.0]),
}


@pytest.mark.parametrize("part", MOVES)
def test_a_scan_stays_where_its_file_says_that_it_lies(desk: Desk, notices: list[Any], part: str) -> None:
    layer = desk.add(make_scan())
    desk.segment()
    where, scan, result = np.asarray(getattr(layer, part)).copy(), desk.state.scan, desk.state.prediction
    layer.mode = "transform"
    setattr(layer, part, MOVES[part])
    np.testing.assert_allclose(np.asarray(getattr(layer, part)), where)
    assert desk.state.scan is scan
    assert desk.state.prediction is result
    assert [words for _, words in notices if "put back" in words] != []
    assert layer.mode == "pan_zoom"  # the mouse, still held, moves nothing more


def test_a_plain_layer_that_gets_other_voxel_sizes_is_segmented_with_these(desk: Desk, notices: list[Any]) -> None:
    layer = desk.viewer.add_image(np.random.default_rng(0).random((16, 20, 12)), name="plain")
    first = desk.state.scan
    layer.scale = (2.0, 1.0, 1.0)
    assert desk.state.scan.geometry.spacing == (2.0, 1.0, 1.0)
    assert notices == []  # nothing was found in it yet
    desk.segment()
    layer.translate = (1.0, 0.0, 0.0)
    assert "old mask is hidden" in notices[-1][1]
    layer.rotate = (0.0, 0.0, 30.0)
    assert desk.state.scan is None
    assert "turned or mirrored" in desk.panel._scan_info.text()
    layer.rotate, layer.translate, layer.scale = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert desk.state.scan.geometry.spacing == first.geometry.spacing


def test_a_plain_layer_is_taken_once_its_units_are_right_and_no_longer_when_they_are_not(desk: Desk) -> None:
    layer = desk.viewer.add_image(np.random.default_rng(0).random((16, 20, 12)), name="plain", units=("um",) * 3)
    assert desk.state.scan is None
    assert "micrometer" in desk.panel._scan_info.text()
    layer.units = ("mm",) * 3
    assert desk.state.scan is not None
    layer.units = ("um",) * 3
    assert desk.state.scan is None


def test_a_layer_that_is_no_more_the_scan_may_be_moved(desk: Desk) -> None:
    first, second = desk.add(make_scan(name="first")), desk.add(make_scan(name="second"))
    assert desk.state.scan.name == "second"
    first.translate = (5.0, 0.0, 0.0)
    assert tuple(first.translate) == (5.0, 0.0, 0.0)
    desk.dock.shut_down()
    second.translate = (5.0, 0.0, 0.0)
    assert tuple(second.translate) == (5.0, 0.0, 0.0)


def test_a_picture_is_no_scan(desk: Desk) -> None:
    desk.viewer.add_image(np.zeros((8, 8)))
    desk.viewer.add_image(np.zeros((8, 8, 3), np.uint8), rgb=True)
    assert desk.state.scan is None
    assert not desk.panel._run.isEnabled()


def test_a_turned_layer_is_refused_in_words(desk: Desk) -> None:
    desk.viewer.add_image(np.zeros((8, 8, 8)), rotate=(0, 0, 30), name="turned")
    assert desk.state.scan is None
    assert "turned or mirrored" in desk.panel._scan_info.text()


def test_a_layer_on_disk_is_read_elsewhere(desk: Desk) -> None:
    readers: list[str] = []
    go = threading.Event()

    def slow(block: np.ndarray) -> np.ndarray:
        readers.append(threading.current_thread().name)
        assert go.wait(PATIENCE)
        return block

    data = da.zeros((16, 20, 12), chunks=-1).map_blocks(slow, dtype=float, meta=np.zeros((0, 0, 0)))
    with dask.config.set(scheduler="synchronous"):
        layer = desk.viewer.add_image(np.zeros((2, 2, 2)), name="first")
        lazy = type(layer)(np.zeros((16, 20, 12)), name="lazy")
        lazy.visible = False
        go.set()
        lazy.data = data
        readers.clear()
        go.clear()
        desk.viewer.add_layer(lazy)
        desk.dock._scans.choose([lazy])
        assert desk.state.scan is None
        assert "reading lazy" in desk.panel.status.text
        go.set()
        desk.until(lambda: desk.state.scan is not None)
    assert any(name.startswith("sparsetok-read") for name in readers)
    assert desk.state.scan.shape == (16, 20, 12)


def test_only_the_newest_of_two_slow_scans_is_taken(desk: Desk) -> None:
    lazy = [da.full((4, 4, 4), k, chunks=-1) for k in (1.0, 2.0)]
    layers = [desk.viewer.add_image(data, name=str(k), contrast_limits=(0, 3)) for k, data in enumerate(lazy)]
    chosen = {layer.name: layer for layer in desk.dock._scans.layers}
    desk.dock._scans.choose([chosen[layers[0].name]])
    desk.dock._scans.choose([chosen[layers[1].name]])
    desk.until(lambda: desk.state.scan is not None and desk.state.busy is None)
    assert desk.state.scan.voxels.max() == 2.0


def test_slow_scans_that_nobody_wants_any_more_are_not_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    begun, go, real = threading.Event(), threading.Event(), scan_choice.scan_of

    def slow(layer: Any, frame: int = 0) -> Any:
        read.append(layer.name)
        begun.set()
        assert go.wait(PATIENCE)
        return real(layer, frame)

    monkeypatch.setattr(scan_choice, "scan_of", slow)
    for k in range(4):
        desk.viewer.add_image(da.full((4, 4, 4), k, chunks=-1), name=str(k), contrast_limits=(0, 3))
    chosen = {layer.name: layer for layer in desk.dock._scans.layers}
    desk.dock._scans.choose([chosen["0"]])
    assert begun.wait(PATIENCE)
    for k in (1, 2, 3):
        desk.dock._scans.choose([chosen[str(k)]])
    go.set()
    desk.until(lambda: desk.state.scan is not None and desk.state.busy is None)
    assert desk.state.scan.voxels.max() == 3.0
    assert read == ["0", "3"]


@pytest.mark.parametrize("why", ["stopped before it begins", "broken disk"])
def test_a_scan_that_was_not_read_can_be_chosen_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, notices: list[Any], why: str
) -> None:
    go, broken, real = threading.Event(), [why == "broken disk"], scan_choice.scan_of

    def read(layer: Any, frame: int = 0) -> Any:
        if broken[0]:
            raise OSError("no such device")
        return real(layer, frame)

    monkeypatch.setattr(scan_choice, "scan_of", read)
    desk.session.load(lambda: go.wait(PATIENCE), lambda _: None, "opening something large")
    scan = make_scan()
    layer = desk.add(replace(scan, voxels=da.from_array(scan.voxels), identity="lazy"))
    if why == "stopped before it begins":
        desk.session.cancel()
    go.set()
    desk.until(lambda: desk.session.wait(0.01) and desk.state.busy is None)
    assert desk.state.scan is None
    desk.until(lambda: "was not read" in desk.panel._scan_info.text())
    broken[0] = False
    desk.panel.scans_chosen.emit([layer])
    desk.until(lambda: desk.state.scan is not None)


def test_channels_are_stacked(desk: Desk, notices: list[Any]) -> None:
    first, second = make_scan(name="T1"), replace(make_scan(name="T2"), voxels=make_scan().voxels * 2)
    desk.add(first)
    desk.panel.model_chosen.emit("pair")
    assert desk.state.scan is None
    assert "needs 2 scans" in desk.panel._scan_info.text()
    desk.add(second)
    desk.until(lambda: desk.state.scan is not None)
    assert desk.state.scan.leading == "channel"
    np.testing.assert_array_equal(desk.state.scan.voxels[1], second.voxels)
    desk.viewer.layers.remove("T2")
    desk.add(make_scan((4, 4, 4), name="T3"))
    desk.until(lambda: "grid" in desk.panel._scan_info.text())


@pytest.mark.parametrize("names", [("head T2", "head-t1"), ("head-t1", "head T2")])
@pytest.mark.parametrize("model_first", [False, True])
def test_a_channel_gets_the_scan_that_has_its_name(desk: Desk, names: tuple[str, str], model_first: bool) -> None:
    scans = [replace(make_scan(name=name), voxels=make_scan().voxels * (1 + ("2" in name))) for name in names]
    steps = [lambda: desk.panel.model_chosen.emit("pair"), *(lambda scan=scan: desk.add(scan) for scan in scans)]
    for step in steps if model_first else [*steps[1:], steps[0]]:
        step()
    desk.until(lambda: desk.state.scan is not None and desk.state.scan.leading == "channel")
    assert [layer.name for layer in desk.dock._scans.chosen] == ["head-t1", "head T2"]
    np.testing.assert_array_equal(desk.state.scan.voxels[1], make_scan().voxels * 2)


def test_what_a_person_chose_stays_whatever_comes_and_goes(desk: Desk) -> None:
    layers = {name: desk.add(make_scan(name=name)) for name in ("T1", "T2")}
    desk.panel.model_chosen.emit("pair")
    desk.until(lambda: desk.state.scan is not None and desk.state.scan.leading == "channel")
    desk.panel.scans_chosen.emit([layers["T2"], layers["T1"]])
    desk.add(make_scan(name="T1 again"))
    assert [layer.name for layer in desk.dock._scans.chosen] == ["T2", "T1"]
    desk.viewer.layers.remove("T2")  # and the other stays the second
    assert [layer.name for layer in desk.dock._scans.chosen] == ["T1 again", "T1"]
    desk.viewer.layers.remove("T1 again")
    assert [layer and layer.name for layer in desk.dock._scans.chosen] == [None, "T1"]
    desk.until(lambda: desk.state.busy is None)


def test_a_scan_that_has_the_names_of_two_channels_is_neither(desk: Desk) -> None:
    desk.add(make_scan(name="T1 and T2"))
    desk.panel.model_chosen.emit("pair")
    assert [layer and layer.name for layer in desk.dock._scans.chosen] == ["T1 and T2", None]
    desk.add(make_scan(name="T2"))
    assert [layer and layer.name for layer in desk.dock._scans.chosen] == ["T1 and T2", "T2"]
    desk.until(lambda: desk.state.busy is None)


@pytest.mark.parametrize("answer", ["&Resample", "&Cancel"])
def test_channels_on_other_voxels_are_resampled_only_after_asking(desk: Desk, answer: str) -> None:
    first, second = make_scan(name="T1"), make_scan((8, 10, 6), "T2", spacing=(2.0, 2.0, 2.0), origin=(0.5, 0.5, 0.5))
    desk.add(first)
    desk.panel.model_chosen.emit("pair")
    layer = desk.add(second)
    desk.until(lambda: desk.dock.findChildren(QMessageBox))
    (box,) = desk.dock.findChildren(QMessageBox)
    assert "Bring the others to those of the first?" in box.text()
    assert box.defaultButton().text() == "&Cancel"
    assert desk.state.scan is None
    next(button for button in box.buttons() if button.text() == answer).click()
    if answer == "&Cancel":
        desk.until(lambda: desk.state.busy is None)
        assert desk.state.scan is None
        assert "--" not in desk.panel._scan_info.text()
        assert "Choose one of them here again" in desk.panel._scan_info.text()
        desk.until(lambda: not desk.dock.findChildren(QMessageBox))
        desk.panel._scans[1].native.activated.emit(1)  # the same once more
        desk.until(lambda: desk.dock.findChildren(QMessageBox))
        desk.dock.findChild(QMessageBox).close()
        return
    desk.until(lambda: desk.state.scan is not None)
    assert "“T2” was resampled" in desk.panel._scan_info.text()
    assert desk.state.scan.voxels.shape == (2, *first.shape)
    np.testing.assert_array_equal(desk.state.scan.voxels[0], first.voxels)
    assert layer.data.shape == second.shape  # the layer stays as it is


def test_a_time_series_is_segmented_at_the_current_frame(desk: Desk) -> None:
    scan = make_scan()
    series = replace(scan, voxels=np.stack([scan.voxels + k for k in range(3)]), leading="time")
    desk.add(series)
    desk.viewer.dims.set_point(0, 1)
    np.testing.assert_array_equal(desk.state.scan.voxels, series.voxels[1])
    desk.segment()
    mask = desk.dock.overlays.layer("mask")
    assert mask.data.shape == (1, *scan.shape)
    assert mask.translate[0] == 1
    desk.viewer.dims.set_point(1, 5)  # another slice is no other frame
    assert desk.state.prediction is not None
    desk.viewer.dims.set_point(0, 2)
    assert desk.state.prediction is None
    np.testing.assert_array_equal(desk.state.scan.voxels, series.voxels[2])
    desk.segment()
    desk.viewer.dims.set_point(0, 1)
    desk.segment()
    assert len(desk.viewer.layers) == 1 + 2 * len(KINDS)


@pytest.mark.parametrize("in_place", [False, True])
def test_other_voxels_in_a_time_series_hide_the_masks_of_all_its_frames(
    desk: Desk, notices: list[Any], in_place: bool
) -> None:
    scan = make_scan()
    series = replace(scan, voxels=np.stack([scan.voxels + k for k in range(3)]), leading="time")
    layer = desk.add(series)
    for frame in (1, 2):
        desk.viewer.dims.set_point(0, frame)
        desk.segment()
    masks = [x for x in desk.viewer.layers if x.metadata.get(OVERLAY) == "mask"]
    assert [mask.visible for mask in masks] == [True, True]
    if in_place:
        layer.data[...] += 1
        layer.data = layer.data
    else:
        layer.data = np.asarray(layer.data) + 1
    assert [mask.visible for mask in masks] == [False, False]
    assert all("earlier voxels" in mask.name for mask in masks)
    assert len(notices) == 1


def test_each_frame_of_a_time_series_has_its_corrections_whenever_it_is_shown(desk: Desk) -> None:
    scan = make_scan()
    desk.add(replace(scan, voxels=np.stack([scan.voxels + k for k in range(3)]), leading="time"))
    layers, said = desk.dock.correct.layers, {}
    for frame in (1, 2):
        desk.viewer.dims.set_point(0, frame)
        desk.segment()
        desk.dock.correct_panel.start_requested.emit()
        layers.layer.paint((3, 4, 5), frame)
        said[frame] = (layers.layer, np.array(layers.array))
    for frame, other in ((1, 2), (2, 1)):
        desk.viewer.dims.set_point(0, frame)
        layer, corrections = said[frame]
        assert layers.layer is layer
        assert (layer.visible, said[other][0].visible) == (True, False)
        np.testing.assert_array_equal(layers.array, corrections)
        assert desk.viewer.layers.selection.active is layer
        assert desk.dock.correct.painting._layer is layer
    desk.viewer.dims.set_point(0, 0)
    assert not any(layer.visible for layer, _ in said.values())
    assert layers.array is None


@pytest.mark.parametrize("readable", [True, False])
def test_no_stroke_lands_in_the_frame_before_while_there_is_no_scan(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    scan, go, real = make_scan(), threading.Event(), scan_choice.scan_of

    def read(layer: Any, frame: int = 0) -> Any:
        if frame == 2:
            assert go.wait(PATIENCE)
            if not readable:
                raise ScanError("this frame cannot be read")
        return real(layer, frame)

    monkeypatch.setattr(scan_choice, "scan_of", read)
    frames = da.stack([da.from_array(scan.voxels + k) for k in range(3)])
    desk.add(replace(scan, voxels=frames, leading="time", identity="series"))
    desk.viewer.dims.set_point(0, 0)
    desk.until(lambda: desk.state.scan is not None)
    first = desk.state.scan
    desk.segment()
    desk.dock.correct_panel.start_requested.emit()
    layer = desk.dock.correct.layers.layer
    layer.paint((3, 4, 5), 1)
    said = np.array(layer.data)

    desk.viewer.dims.set_point(0, 2)
    for _ in range(1 if readable else 2):  # while it is read, and once it cannot be
        assert desk.state.scan is None
        assert (layer.visible, str(layer.mode)) == (False, "pan_zoom")
        layer.paint((8, 10, 6), 2)
        np.testing.assert_array_equal(layer.data, said)
        assert "Nothing was painted" in desk.state.message.text
        go.set()
        desk.until(lambda: desk.state.scan is not None or "cannot be read" in desk.panel._scan_info.text())

    desk.viewer.dims.set_point(0, 0)
    desk.until(lambda: desk.state.scan is first)
    assert (layer.visible, str(layer.mode)) == (True, "paint")
    layer.paint((8, 10, 6), 2)
    assert not np.array_equal(layer.data, said)


def test_corrections_stay_in_sight_without_their_scan_and_are_not_painted_then(desk: Desk) -> None:
    scan_layer = desk.add(make_scan())
    desk.segment()
    desk.dock.correct_panel.start_requested.emit()
    layer = desk.dock.correct.layers.layer
    layer.paint((3, 4, 5), 1)
    said = np.array(layer.data)
    desk.viewer.layers.remove(scan_layer)
    assert desk.state.scan is None
    assert layer.visible
    layer.paint((8, 10, 6), 2)
    np.testing.assert_array_equal(layer.data, said)


def test_a_scan_is_opened_by_its_file(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(60.0, dtype=np.float32).reshape(3, 4, 5), np.diag([-1, 2, 3, 1])), path)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    desk.panel.open_requested.emit()
    desk.until(lambda: desk.state.scan is not None)
    assert desk.state.scan.source.path == path
    np.testing.assert_allclose(desk.viewer.layers[0].scale, (3, 2, 1))


def test_a_file_that_is_no_scan_is_said_as_a_notice(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[Any]
) -> None:
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"nonsense")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    desk.panel.open_requested.emit()
    desk.until(lambda: notices)
    assert notices[0][0] == "error"
    assert "head.nii.gz" in notices[0][1]
    desk.add(make_scan())
    desk.segment()  # the viewer goes on working


def test_a_dicom_folder_is_opened_by_the_panel(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Series(block()).write(tmp_path / "study")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    desk.panel.folder_requested.emit()
    desk.until(lambda: desk.state.scan is not None)
    assert desk.state.scan.source.format == "dicom"
    assert desk.dock.showing.window.presets


def test_a_mask_from_a_file_is_laid_over_the_scan_or_begins_the_corrections(desk: Desk, notices: list[Any]) -> None:
    scan = make_scan()
    desk.add(scan)
    desk.until(lambda: desk.state.scan is not None)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:5] = 1
    given = (desk.state.scan, mask, LABELS)
    desk.dock._show_given_mask(given, "drawn.nii.gz", False)
    assert desk.viewer.layers[-1].name == f"drawn.nii.gz · {scan.name}"
    assert desk.dock.correct.array is None
    desk.segment()
    desk.dock._show_given_mask(given, "drawn.nii.gz", True)
    desk.until(lambda: desk.dock.correct.array is not None)
    np.testing.assert_array_equal(desk.dock.overlays.mask, mask)
    desk.dock._show_given_mask(given, "again.nii.gz", True)  # what was corrected is not overwritten
    assert desk.viewer.layers[-1].name.startswith("again")
    assert notices


# Layers that come and go


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_deleted_while_computing_comes_back(desk: Desk, kind: str) -> None:
    scan = make_scan()
    desk.add(scan)
    desk.segment()
    desk.panel.ratio.slider.setValue(0.3)
    desk.engine.await_window()
    desk.viewer.layers.remove(desk.dock.overlays.layer(kind))
    desk.engine.let(3)
    desk.until(lambda: desk.dock.overlays.layer(kind) is not None)
    desk.idle()
    np.testing.assert_array_equal(desk.mask(), expected_mask(scan, 0.3))


def test_the_scan_deleted_while_computing_ends_it(desk: Desk) -> None:
    desk.add(make_scan())
    desk.panel.run_requested.emit()
    desk.engine.await_window()
    desk.viewer.layers.clear()
    assert desk.state.scan is None
    desk.engine.let()
    desk.idle()
    assert len(desk.viewer.layers) == 0


def test_the_eye_and_the_tick_say_the_same(desk: Desk) -> None:
    desk.add(make_scan())
    desk.segment()
    desk.dock.overlays.layer("tokens").visible = False
    assert not desk.panel._toggles["tokens"].isChecked()
    desk.panel._toggles["tokens"].click()
    assert desk.dock.overlays.layer("tokens").visible


def test_another_model_while_one_runs(desk: Desk) -> None:
    desk.add(make_scan())
    desk.segment()
    desk.panel.ratio.slider.setValue(0.3)
    desk.engine.await_window()
    desk.panel.model_chosen.emit("crops")
    assert desk.state.prediction is None
    assert not desk.panel._save.isEnabled()
    assert not any(layer.visible for layer in desk.viewer.layers if OVERLAY in layer.metadata)
    desk.engine.let(2)
    desk.idle()
    assert desk.state.prediction is None
    desk.engine.free = True
    desk.panel.where_chosen.emit("whole")
    desk.panel._run.click()
    desk.idle()
    assert desk.state.prediction.settings.model == "crops"
    assert desk.dock.overlays.layer("mask").visible


# Where


def test_a_model_of_crops_on_a_large_scan_asks_for_a_click(desk: Desk, notices: list[Any]) -> None:
    desk.panel.model_chosen.emit("crops")
    desk.add(make_scan((40, 40, 40)))
    assert desk.panel._where.value == "cursor"
    assert "Click on the structure" in desk.panel._hint.text()
    desk.panel.run_requested.emit()  # in any other place it would find what is not there
    assert "Click on the structure" in notices[0][1]
    assert not desk.engine.runs
    desk.panel.where_chosen.emit("whole")
    assert desk.state.region is None
    assert "around a click" in desk.panel._hint.text()


class Click:
    """A press, perhaps a drag, and a release, as napari hands them to a callback."""

    def __init__(self, position: tuple[float, ...], slip: int = 0, button: int = 1) -> None:
        self.position, self.button, self.type, self.pos, self.slip = position, button, "mouse_press", (50, 50), slip

    def do(self, desk: Desk) -> None:
        generator = desk.dock._gaze._on_mouse(desk.viewer, self)
        try:
            next(generator)
            self.type, self.pos = "mouse_move", (50, 50 + self.slip)
            next(generator)
            self.type = "mouse_release"
            next(generator)
        except StopIteration:
            pass


def test_a_click_sets_the_region_and_runs(desk: Desk) -> None:
    desk.add(make_scan((40, 40, 40), spacing=(1.0, 1.0, 1.0), origin=(5.0, 0.0, 0.0)))
    desk.panel.model_chosen.emit("crops")
    desk.engine.free = True
    Click((25.0, 20.0, 10.0), slip=2).do(desk)
    assert desk.state.region == Region((16, 16, 6), (24, 24, 14))
    desk.until(lambda: desk.state.prediction is not None)
    desk.idle()
    assert desk.state.focus == (20, 20, 10)
    assert desk.engine.runs[-1][1:] == (desk.state.region, desk.engine.runs[-1][2])
    assert isinstance(desk.engine.runs[-1][2], Hints)
    tint = next(layer for layer in desk.viewer.layers if layer.metadata.get(OVERLAY) == "region")
    np.testing.assert_allclose(tint.scale, (8, 8, 8))


def test_what_lies_under_a_click_comes_first_as_long_as_its_slice_is_shown(qtbot: Any) -> None:
    desk = Desk(ViewerModel(), qtbot, docked=False, windows=4)
    desk.add(make_scan((40, 40, 40)))
    desk.viewer.dims.set_point(0, 20)
    Click((20.0, 7.0, 31.0)).do(desk)
    assert desk.state.focus == (20, 7, 31)
    assert not desk.engine.runs  # the whole scan is segmented when the person says so
    desk.panel.run_requested.emit()
    desk.engine.await_window()
    assert desk.engine.runs[-1][2].focus == (20, 7, 31)
    Click((20.0, 30.0, 8.0)).do(desk)  # while it is computed: it goes on there
    desk.engine.free = True
    desk.engine.let()
    desk.idle()
    assert desk.engine.runs[-1][2].focus == (20, 30, 8)
    desk.viewer.dims.set_point(0, 5)
    desk.panel.run_requested.emit()
    assert desk.state.focus[0] == 5
    desk.idle()
    desk.end()


def test_in_3d_the_middle_of_the_view_comes_first(desk: Desk) -> None:
    desk.add(make_scan((40, 40, 40)))
    desk.engine.free = True
    desk.viewer.dims.ndisplay = 3
    desk.viewer.scene.camera.center = (9.0, 30.0, 14.0)
    desk.panel.run_requested.emit()
    desk.idle()
    assert desk.state.focus == (9, 30, 14)


@pytest.mark.parametrize(
    "click",
    [
        Click((25.0, 20.0, 10.0), slip=30),
        Click((25.0, 20.0, 10.0), button=2),
        Click((25.0, 20.0, 99.0)),
    ],
    ids=["drag", "right button", "outside"],
)
def test_what_is_no_click_on_the_scan_does_nothing(desk: Desk, click: Click) -> None:
    desk.add(make_scan((40, 40, 40)))
    desk.panel.model_chosen.emit("crops")
    click.do(desk)
    assert desk.state.region is None
    assert not desk.engine.runs


def test_a_click_is_left_to_a_brush_and_to_3d(desk: Desk) -> None:
    desk.add(make_scan((40, 40, 40)))
    desk.panel.model_chosen.emit("crops")
    labels = desk.viewer.add_labels(np.zeros((40, 40, 40), np.uint8))
    labels.mode = "paint"
    Click((20.0, 20.0, 20.0)).do(desk)
    labels.mode = "pan_zoom"
    desk.viewer.dims.ndisplay = 3
    Click((20.0, 20.0, 20.0)).do(desk)
    assert desk.state.region is None


def test_the_slider_stays_in_the_box_until_a_click_chooses_another_part(desk: Desk) -> None:
    desk.add(make_scan())
    desk.panel.where_chosen.emit("box")
    region = Region((0, 0, 0), (8, 8, 8))
    desk.panel.region_edited.emit(region)
    desk.segment()
    desk.panel.where_chosen.emit("cursor")
    desk.engine.free = True
    desk.panel.keep_ratio_moved.emit(0.8, False)
    desk.idle()
    assert desk.state.prediction.settings.keep_ratio == 0.8
    assert desk.state.prediction.region == region


def test_who_wants_to_click_on_a_structure_puts_the_brush_down(desk: Desk) -> None:
    desk.add(make_scan())
    layer = desk.viewer.add_labels(np.zeros(make_scan().shape, np.uint8))
    layer.mode = "paint"
    desk.panel.where_chosen.emit("cursor")
    assert str(layer.mode) == "pan_zoom"


def test_a_box_is_edited_and_segmented(desk: Desk) -> None:
    desk.add(make_scan())
    desk.panel.where_chosen.emit("box")
    region = Region((0, 0, 0), (8, 8, 8))
    desk.panel.region_edited.emit(region)
    desk.segment()
    assert desk.state.prediction.region == region
    assert not desk.mask()[8:].any()


# Saving


def test_a_mask_is_saved_and_opened_again(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[Any], npe2pm: Any
) -> None:
    source = tmp_path / "head.nii.gz"
    voxels = np.random.default_rng(0).normal(100, 20, (12, 20, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, 1, 2, 1])), source)
    with npe2pm.tmp_plugin(package="napari-sparsetok"):
        desk.viewer.open(source, plugin="napari-sparsetok")
    desk.segment()
    out = tmp_path / "mask.nii.gz"
    suggested: list[str] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: (suggested.append(args[2]), (str(out), ""))[1])
    desk.panel.save_requested.emit()
    desk.until(lambda: notices)
    assert suggested == [str(tmp_path / "head_mask.nii.gz")]
    assert ("info", "Saved the mask as mask.nii.gz.") in notices
    np.testing.assert_array_equal(open_scan(out).voxels, desk.state.prediction.mask)
    assert nib.load(out).shape == (12, 20, 16)


def test_a_save_that_nobody_chose_a_name_for_is_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.add(make_scan())
    desk.segment()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    desk.panel.save_requested.emit()
    assert desk.state.busy is None


# Errors


@pytest.mark.parametrize("error", [ScanError("the scan is all one value; choose another"), RuntimeError("boom")])
def test_errors_arrive_as_notices_and_work_goes_on(desk: Desk, notices: list[Any], error: Exception) -> None:
    desk.add(make_scan())
    desk.engine.fail = error
    desk.panel.run_requested.emit()
    desk.engine.await_window()
    desk.engine.let()
    desk.until(lambda: notices)
    assert notices[0][0] == "error"
    desk.idle()
    desk.segment()
    assert len(notices) == 1


def test_a_card_that_cannot_be_read_is_said(notices: list[Any], qtbot: Any) -> None:
    registry = make_registry()
    registry.problems.append("the model card bad.json cannot be read; install the model again")
    session = Session(make_segmenter=FakeSegmenter, registry=registry, deliver=on_gui_thread)
    dock = Dock(ViewerModel(), session)
    qtbot.addWidget(dock)
    assert notices == [("warning", "The model card bad.json cannot be read; install the model again.")]
    dock.shut_down()


def test_without_a_model_the_panel_says_what_to_do(qtbot: Any) -> None:
    registry = make_registry()
    registry.cards.clear()
    viewer = ViewerModel()
    dock = Dock(viewer, Session(make_segmenter=FakeSegmenter, registry=registry, deliver=on_gui_thread))
    qtbot.addWidget(dock)
    scan = make_scan()
    data, arguments, _ = layer_data(scan)[0]
    viewer.add_image(data, **arguments)
    assert "No model is installed" in dock.panel._model_info.text()
    assert not dock.panel._run.isEnabled()
    dock.shut_down()


# Ending


def compute_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sparsetok-compute"]


@pytest.mark.parametrize("how", ["dock", "viewer", "delete"])
def test_closing_while_computing_neither_hangs_nor_crashes(
    make_napari_viewer: Any, qtbot: Any, how: str, notices: list[Any]
) -> None:
    before = len(compute_threads())
    viewer = make_napari_viewer()
    desk = Desk(viewer, qtbot)
    viewer.window.resize(600, 400)
    viewer.show()
    qtbot.wait(20)
    desk.add(make_scan())
    desk.panel.run_requested.emit()
    desk.engine.await_window()
    started = time.perf_counter()
    if how == "dock":
        viewer.window.remove_dock_widget(desk.dock)
    elif how == "viewer":
        viewer.close()
    else:
        desk.dock.deleteLater()
    desk.until(lambda: not desk.dock._alive)
    assert time.perf_counter() - started < PATIENCE / 2
    desk.engine.let()  # its late result finds nobody
    desk.until(lambda: len(compute_threads()) == before)
    qtbot.wait(20)
    assert notices == []
    assert desk.state.prediction is None
    if how != "viewer":
        assert [layer.name for layer in viewer.layers] == ["scan"]
        viewer.add_image(np.zeros((4, 4, 4)), units="mm")  # nobody listens any more
        assert desk.state.scan.name == "scan"
        assert desk.dock._gaze._on_mouse not in viewer.mouse_drag_callbacks


def test_a_save_outlives_the_viewer(desk: Desk, tmp_path: Path) -> None:
    scan = make_scan()
    desk.add(scan)
    desk.segment()
    desk.session.save_mask(tmp_path / "mask.nii.gz")
    desk.dock.shut_down()
    assert desk.session.wait(PATIENCE)
    np.testing.assert_array_equal(open_scan(tmp_path / "mask.nii.gz").voxels, expected_mask(scan, 0.5))


def test_closing_twice_is_no_harm(desk: Desk) -> None:
    desk.dock.shut_down()
    desk.dock.shut_down()
    desk.dock.close()


def test_nobody_paints_in_corrections_whose_panel_is_closed_and_a_new_one_offers_them_back(qtbot: Any) -> None:
    viewer = ViewerModel()
    first = Desk(viewer, qtbot, docked=False)
    first.add(make_scan())
    first.segment()
    first.dock.correct_panel.start_requested.emit()
    layer = first.dock.correct.layers.layer
    layer.paint((5, 10, 6), 2)
    said = np.array(layer.data)
    first.end()
    assert layer.name == "corrections · scan (panel closed)"
    viewer.dims.ndisplay = 3  # after which napari would let it be edited again
    viewer.dims.ndisplay = 2
    layer.mode = "paint"
    assert (layer.editable, str(layer.mode)) == (False, "pan_zoom")
    layer.paint((9, 12, 7), 2)
    layer.undo()
    np.testing.assert_array_equal(layer.data, said)

    second = Desk(viewer, qtbot, docked=False)
    second.segment()
    correct = second.dock.correct
    second.until(second.dock.correct_panel._offer_words.text)
    second.dock.correct_panel.bring_back_requested.emit()
    second.until(lambda: correct.array is not None)
    np.testing.assert_array_equal(correct.array, said)
    assert correct.layers.layer is not layer
    correct.layers.layer.paint((9, 12, 7), 2)
    assert second.dock.overlays.mask[9, 12, 7] == 2
    second.end()


def test_a_hidden_dock_lives_on(real: Desk, qtbot: Any) -> None:
    desk = real
    desk.dock.parentWidget().hide()
    qtbot.wait(20)
    desk.add(make_scan())
    desk.segment()


# Several


def test_two_docks_in_one_viewer_do_not_take_each_others_layers(qtbot: Any) -> None:
    viewer = ViewerModel()
    desks = [Desk(viewer, qtbot, docked=False) for _ in range(2)]
    scan = make_scan()
    desks[0].add(scan)
    for desk in desks:
        desk.segment()
        assert desk.state.scan is scan
    assert len(viewer.layers) == 7
    desks[0].end()
    desks[1].panel.ratio.slider.setValue(0.3)
    desks[1].engine.let(2)
    desks[1].idle()
    np.testing.assert_array_equal(desks[1].mask(), expected_mask(scan, 0.3))
    desks[1].end()


def test_two_viewers(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    desks = [Desk(make_napari_viewer_proxy(), qtbot) for _ in range(2)]
    for k, desk in enumerate(desks):
        desk.add(make_scan(name=str(k)))
    desks[0].segment()
    assert len(desks[0].viewer.layers) == 4
    assert len(desks[1].viewer.layers) == 1
    for desk in desks:
        desk.end()


def test_the_panels_own_session_takes_the_preferences(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = dock_module.preferences()
    monkeypatch.setattr(dock_module, "preferences", lambda: replace(wanted, device="cpu", keep_ratio=0.4))
    dock = Dock(ViewerModel())
    qtbot.addWidget(dock)
    assert dock.session.state.settings.device == "cpu"
    assert dock.panel.ratio.slider.value() == pytest.approx(0.4)
    assert dock.panel._device.value == "cpu"
    dock.shut_down()


def test_the_slider_may_move_while_the_scan_s_layer_is_gone(desk: Desk) -> None:
    """Removing the last layer leaves napari with a plane and no depth for a moment; the slider may still be in hand."""
    layer = desk.add(make_scan())
    desk.until(lambda: desk.state.scan is not None)
    desk.segment()
    desk.viewer.layers.clear()
    desk.panel.keep_ratio_moved.emit(0.3, True)
    desk.panel.run_requested.emit()
    desk.viewer.add_layer(layer)
    desk.until(lambda: desk.state.scan is not None)
    desk.panel.keep_ratio_moved.emit(0.4, False)


def test_a_move_of_the_slider_that_arrives_after_the_end_is_nothing(desk: Desk) -> None:
    """Moves are told with a delay; the window may be closed, and its layers gone, before the last one is."""
    desk.add(make_scan())
    desk.until(lambda: desk.state.scan is not None)
    desk.dock.shut_down()
    desk.viewer.layers.clear()
    desk.panel.keep_ratio_moved.emit(0.3, True)
    assert desk.state.settings.keep_ratio == 0.5


def test_going_to_3d_and_back_warns_of_nothing_and_keeps_the_outline(desk: Desk) -> None:
    desk.add(make_scan((40, 40, 40)))
    desk.engine.free = True
    desk.panel.run_requested.emit()
    desk.idle()
    mask = next(layer for layer in desk.viewer.layers if layer.metadata.get(OVERLAY) == "mask")
    desk.viewer.dims.ndisplay = 3  # warnings are errors, and napari would warn that it draws no outlines here
    desk.panel.keep_ratio_moved.emit(0.5, False)
    desk.idle()
    desk.viewer.dims.ndisplay = 2
    assert mask.contour == 1


def test_no_key_means_two_things(desk: Desk) -> None:
    keys = [shortcut.key for shortcut in (*desk.dock.showing.shortcuts.shortcuts, *desk.dock.showing.more_keys)]
    keys += [choice.key for choice in MODES]  # of the brush, which has the keys while corrections are at hand
    assert len(keys) == len(set(keys)), sorted(keys)


def test_resampling_can_be_stopped_and_begun_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrid, "_AT_ONCE", 1)
    begun, go = threading.Event(), threading.Event()
    real = regrid.ndimage.affine_transform

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return real(*args, **options)

    monkeypatch.setattr(regrid.ndimage, "affine_transform", slow)
    desk.add(make_scan(name="T1"))
    desk.panel.model_chosen.emit("pair")
    desk.add(make_scan((8, 10, 6), "T2", spacing=(2.0, 2.0, 2.0), origin=(0.5, 0.5, 0.5)))
    desk.until(lambda: desk.dock.findChildren(QMessageBox))
    box = desk.dock.findChild(QMessageBox)
    next(button for button in box.buttons() if button.text() == "&Resample").click()
    desk.until(begun.is_set)
    assert desk.state.busy is not None
    assert desk.state.busy.what == "resampling to T1"
    assert desk.state.busy.can_cancel
    desk.dock.session.cancel()
    go.set()
    desk.until(lambda: desk.state.busy is None)
    assert desk.state.scan is None
    desk.panel._scans[1].native.activated.emit(1)  # the person agreed already
    desk.until(lambda: desk.state.scan is not None)
    assert desk.state.scan.leading == "channel"
