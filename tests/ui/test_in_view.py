"""Of several scans that are open, the picture shows the one that is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE, FakeSegmenter, make_card, make_registry, make_scan
from napari.components import ViewerModel
from napari.layers import Layer

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.given_mask import mask_layer
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.overlays import KINDS
from napari_sparsetok.ui.scan_layer import layer_data

MS = int(PATIENCE * 1000)


class Room:
    """A viewer with two patients' scans, one after the other."""

    def __init__(self, qtbot: Any) -> None:
        self.qtbot, self.viewer = qtbot, ViewerModel()
        registry = make_registry(make_card(), make_card("other"))
        session = Session(
            make_segmenter=lambda: FakeSegmenter(free=True),
            registry=registry,
            settings=Settings(keep_ratio=0.5),
            deliver=on_gui_thread,
        )
        self.dock = Dock(self.viewer, session)
        qtbot.addWidget(self.dock)
        self.state = session.state
        self.first = self.add(make_scan(name="first"))
        self.segment()
        self.overlays = self.drawn()

    def add(self, scan: Any) -> Layer:
        for data, arguments, _ in layer_data(scan):
            layer = self.viewer.add_image(data, **arguments)
        return layer

    def drawn(self) -> list[Layer]:
        return [self.dock.overlays.layer(kind) for kind in KINDS]

    def segment(self) -> None:
        self.dock.panel.run_requested.emit()
        self.qtbot.waitUntil(lambda: self.state.prediction is not None and self.state.busy is None, timeout=MS)

    def choose(self, layer: Layer) -> None:
        self.dock.panel.scans_chosen.emit([layer])

    def seen(self) -> set[str]:
        return {layer.name for layer in self.viewer.layers if layer.visible}


@pytest.fixture
def room(qtbot: Any) -> Iterator[Room]:
    room = Room(qtbot)
    yield room
    room.dock.shut_down()
    assert room.dock.session.wait(PATIENCE)


def names(scan: str) -> set[str]:
    return {scan, *(f"{kind} · {scan}" for kind in KINDS)}


def test_the_scan_that_is_chosen_is_the_one_that_is_seen(room: Room) -> None:
    second = room.add(make_scan((12, 16, 10), name="second"))
    assert room.seen() == {"second"}
    room.segment()
    assert room.seen() == names("second")
    room.choose(room.first)  # it lies below the other
    assert room.state.scan.name == "first"
    assert room.seen() == names("first")
    room.choose(second)
    assert room.seen() == names("second")


def test_what_the_person_hid_stays_hidden_and_the_panel_says_so(room: Room) -> None:
    second = room.add(make_scan((12, 16, 10), name="second"))
    room.segment()
    room.choose(room.first)
    room.dock.panel._toggles["tokens"].setChecked(False)
    room.choose(second)
    assert room.seen() == names("second")
    assert room.dock.panel._toggles["tokens"].isChecked()
    room.choose(room.first)
    assert room.seen() == names("first") - {"tokens · first"}
    assert not room.dock.panel._toggles["tokens"].isChecked()


def test_a_person_may_show_another_scan_beside_it(room: Room) -> None:
    room.add(make_scan((12, 16, 10), name="second"))
    room.first.visible = True
    room.segment()
    assert room.seen() == names("second") | {"first"}


def test_a_mask_from_a_file_goes_with_its_scan(room: Room) -> None:
    scan = room.state.scan
    data, arguments, _ = mask_layer((scan, np.ones(scan.shape, np.uint8), LabelTable.of(["a"])), "file")
    room.viewer.add_labels(data, **arguments)
    room.add(make_scan((12, 16, 10), name="second"))
    assert room.seen() == {"second"}
    room.choose(room.first)
    assert room.seen() == names("first") | {"file · first"}


def test_layers_of_others_are_left_alone(room: Room) -> None:
    room.viewer.add_points(np.zeros((1, 3)), name="landmarks")
    room.viewer.add_image(np.zeros((16, 20, 12)), name="heat")
    room.add(make_scan((12, 16, 10), name="second"))
    assert room.seen() == {"second", "landmarks", "heat"}


def test_the_mask_of_a_scan_that_was_deleted_lies_over_no_other(room: Room) -> None:
    second = room.add(make_scan((12, 16, 10), name="second"))
    room.choose(room.first)
    room.viewer.layers.remove(room.first)
    assert room.state.scan.name == second.name
    assert room.seen() == {"second"}


def test_what_a_model_said_that_was_left_meanwhile_does_not_come_back(room: Room) -> None:
    room.add(make_scan((12, 16, 10), name="second"))
    room.dock.session.choose(model="other")
    room.choose(room.first)
    assert room.seen() == {"first"}


def test_frames_of_one_series_hide_nothing_of_each_other(room: Room) -> None:
    scan = make_scan((12, 16, 10), name="series")
    room.add(replace(scan, voxels=np.stack([scan.voxels + k for k in range(3)]), leading="time"))
    room.segment()
    drawn = room.drawn()
    room.viewer.dims.set_point(0, 2)
    assert all(layer.visible for layer in drawn)


def test_a_scan_that_lies_elsewhere_is_in_sight(room: Room) -> None:
    far = make_scan((12, 16, 10), name="far", origin=(900.0, 900.0, 900.0))
    room.add(far)
    middle = [o + s * (n - 1) / 2 for o, s, n in zip(far.geometry.origin, far.geometry.spacing, far.shape, strict=True)]
    np.testing.assert_allclose(room.viewer.scene.camera.center[1:], middle[1:], atol=2)
    assert abs(room.viewer.dims.point[0] - middle[0]) < 2


def test_the_view_stays_where_it_is_if_the_next_scan_lies_in_the_same_place(room: Room) -> None:
    room.viewer.scene.camera.zoom = 17.0
    room.add(make_scan(name="again"))
    assert room.viewer.scene.camera.zoom == 17.0
