"""What is said of the voxel under the cursor."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from fakes import LABELS, make_scan
from napari.components import ViewerModel

from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Scan
from napari_sparsetok.ui.planes import PLANES, plane_of, show_plane, step_slice
from napari_sparsetok.ui.readout import Readout, words
from napari_sparsetok.ui.scan_layer import SCAN, layer_data

NONE = (None, LabelTable(()))


def numbers(line: str) -> list[float]:
    place = line.split("\u00a0mm")[0].replace("LPS\u00a0", "").replace("RAS\u00a0", "")
    return [float(part.replace("−", "-")) for part in place.split(", ")]


@pytest.mark.parametrize("voxel", [(0, 0, 0), (3, 5, 7), (15, 19, 11)])
def test_millimetres_are_those_of_the_affine(voxel: Any) -> None:
    scan = make_scan(spacing=(2.5, 0.7, 0.9), origin=(10.0, -20.0, 30.0))
    expected = (scan.geometry.affine @ np.array([*voxel, 1]))[:3]
    np.testing.assert_allclose(numbers(words(scan, voxel, NONE, "RAS")), expected, atol=0.05)
    np.testing.assert_allclose(numbers(words(scan, voxel, NONE, "LPS")), expected * (-1, -1, 1), atol=0.05)


def test_an_oblique_scan_says_where_its_voxels_really_lie() -> None:
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (1, 2, 3), (5, 6, 7)
    stored = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5)
    geometry = Geometry((3, 4, 5), affine)
    scan = Scan(geometry.to_shown(stored), geometry)
    for index in product(range(3), range(4), range(5)):
        voxel = tuple(int(v) for v in np.argwhere(scan.voxels == stored[index])[0])
        line = words(scan, voxel, NONE, "RAS")
        np.testing.assert_allclose(numbers(line), (affine @ np.array([*index, 1]))[:3], atol=0.06)
        assert f"{stored[index]:g}" in line


def test_value_unit_and_label_are_said() -> None:
    scan = make_scan()
    mask = np.zeros(scan.shape, np.uint8)
    mask[1, 2, 3], mask[1, 2, 4] = 2, NOT_TISSUE
    line = words(scan, (1, 2, 3), (mask, LABELS), "LPS", "HU")
    assert line.endswith(f"· {float(scan.voxels[1, 2, 3]):.6g}\u00a0HU · tail")
    assert "tail" not in words(scan, (1, 2, 2), (mask, LABELS), "LPS")
    assert words(scan, (1, 2, 4), (mask, LABELS), "LPS").count("·") == 1


def test_no_sides_are_claimed_where_none_are_known() -> None:
    scan = make_scan()
    unknown = Scan(scan.voxels, scan.geometry, notes=(SIDES_UNKNOWN,))
    assert "LPS" not in words(unknown, (0, 0, 0), NONE, "LPS")


def test_channels_are_said_one_after_the_other() -> None:
    voxels = np.stack([np.zeros((2, 2, 2)), np.ones((2, 2, 2))])
    scan = Scan(voxels, Geometry.shown((2, 2, 2)), leading="channel")
    assert words(scan, (0, 0, 0), NONE, "LPS").endswith("0 / 1")


def test_hounsfield_units_are_claimed_of_one_ct_and_not_of_what_lies_beside_it(qtbot: Any) -> None:
    bench = Bench()
    ct = replace(bench.scan, voxels=np.where(bench.scan.voxels > 100, 40, -1000).astype(np.int16))
    both = replace(ct, voxels=np.stack([ct.voxels, ct.voxels]), leading="channel")
    lines = []
    for scan in (ct, both):
        bench.readout.set_scan(scan)
        bench.point_at(4, 9, 2)
        lines.append(bench.readout.text())
    assert lines[0].endswith("HU")
    assert "HU" not in lines[1]


def test_another_convention_counts_at_once(qtbot: Any) -> None:
    bench, chosen = Bench(), ["LPS"]
    bench.readout = Readout(lambda: NONE, lambda: chosen[0])
    bench.readout.follow(bench.viewer)
    bench.readout.set_scan(bench.scan)
    bench.point_at(4, 9, 2)
    chosen[0] = "RAS"
    assert bench.readout.text() == words(bench.scan, (4, 9, 2), NONE, "RAS")


class Bench:
    def __init__(self) -> None:
        self.scan = make_scan(spacing=(2.0, 1.0, 1.0), origin=(5.0, 6.0, 7.0))
        self.viewer = ViewerModel()
        for data, arguments, _ in layer_data(self.scan):
            self.viewer.add_image(data, **arguments)
        self.readout = Readout(lambda: NONE)
        self.readout.follow(self.viewer)
        self.readout.set_scan(self.scan)

    def point_at(self, z: int, y: int, x: int) -> None:
        """By the mouse, in the plane; the slice is chosen before."""
        world = [
            o + i * s for o, i, s in zip(self.scan.geometry.origin, (z, y, x), self.scan.geometry.spacing, strict=True)
        ]
        across = self.viewer.dims.order[0]
        self.viewer.dims.set_point(across, world[across])
        self.viewer.cursor.position = tuple(world)


@pytest.mark.parametrize("plane", PLANES)
def test_the_cursor_is_followed_in_every_plane(qtbot: Any, plane: str) -> None:
    bench = Bench()
    show_plane(bench.viewer, plane)
    bench.point_at(4, 9, 2)
    assert bench.readout.text() == words(bench.scan, (4, 9, 2), NONE, "LPS")


def test_scrolling_under_a_resting_cursor_counts(qtbot: Any) -> None:
    bench = Bench()
    heard: list[str] = []
    bench.readout.changed.connect(heard.append)
    bench.point_at(4, 9, 2)
    step_slice(bench.viewer, 3)
    expected = words(bench.scan, (7, 9, 2), NONE, "LPS")
    assert bench.readout.text() == expected
    qtbot.waitUntil(lambda: bool(heard) and heard[-1] == expected)


def test_beside_the_scan_and_in_3d_nothing_is_said(qtbot: Any) -> None:
    bench = Bench()
    bench.point_at(4, 9, 2)
    bench.viewer.cursor.position = (5.0, 1000.0, 7.0)
    assert bench.readout.text() == ""
    bench.point_at(4, 9, 2)
    bench.viewer.dims.ndisplay = 3
    assert bench.readout.text() == ""
    bench.readout.set_scan(None)
    assert bench.readout.text() == ""


def test_letting_go(qtbot: Any) -> None:
    bench = Bench()
    bench.readout.shut_down()
    bench.point_at(1, 1, 1)
    assert bench.readout.text() == ""


# Planes


@pytest.mark.parametrize("plane", PLANES)
def test_planes_are_shown_and_known(plane: str) -> None:
    viewer = ViewerModel(ndisplay=3)
    viewer.add_image(np.zeros((3, 4, 5)))
    assert plane_of(viewer) == ""
    show_plane(viewer, plane)
    assert plane_of(viewer) == plane
    assert viewer.dims.displayed == PLANES[plane][1:]


def test_planes_of_a_time_series_leave_time_alone() -> None:
    viewer = ViewerModel()
    viewer.add_image(np.zeros((2, 3, 4, 5)))
    show_plane(viewer, "sagittal")
    assert viewer.dims.order == (0, 3, 1, 2)
    assert plane_of(viewer) == "sagittal"
    viewer.dims.set_current_step(3, 0)
    step_slice(viewer, 2)
    assert viewer.dims.current_step[3] == 2
    step_slice(viewer, 99)
    assert viewer.dims.current_step[3] == 4
    step_slice(viewer, -99)
    assert viewer.dims.current_step[3] == 0


def test_an_empty_viewer_has_no_plane() -> None:
    viewer = ViewerModel()
    show_plane(viewer, "coronal")
    step_slice(viewer, 1)
    assert plane_of(viewer) == ""


class OnDisk:
    """Voxels that stay on disk: an array that counts how often it is read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.reads = array, 0
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size

    def __getitem__(self, key: Any) -> Any:
        self.reads += 1
        return self._array[key]


def test_the_value_of_a_scan_on_disk_is_that_on_the_screen_and_nothing_is_read_for_it(qtbot: Any) -> None:
    plain = make_scan()
    lazy = OnDisk(plain.voxels)
    bench = Bench.__new__(Bench)
    bench.scan = replace(plain, voxels=lazy, identity="a file")
    bench.viewer = ViewerModel()
    arguments = {"scale": plain.geometry.spacing, "translate": plain.geometry.origin, "contrast_limits": (0, 1)}
    bench.viewer.add_image(lazy, metadata={SCAN: bench.scan}, **arguments)
    bench.readout = Readout(lambda: NONE)
    bench.readout.follow(bench.viewer)
    bench.readout.set_scan(bench.scan)
    bench.point_at(4, 9, 2)
    reads = lazy.reads
    assert bench.readout.text() == words(plain, (4, 9, 2), NONE, "LPS")
    assert lazy.reads == reads
    bench.viewer.layers.clear()
    assert bench.readout.text() in ("", words(bench.scan, (4, 9, 2), NONE, "LPS"))
