"""Scans as layers and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from fakes import make_scan
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Scan, ScanError, Source
from napari_sparsetok.ui.given_mask import mask_layer
from napari_sparsetok.ui.scan_layer import Frame, frame_at, is_at_hand, layer_data, lies_on, placed, scan_of


def image(scan: Scan) -> Image:
    ((data, arguments, _),) = layer_data(scan)
    return Image(data, **arguments)


def series() -> Scan:
    scan = make_scan(spacing=(3.0, 2.0, 1.0), origin=(1.0, 2.0, 3.0))
    return replace(scan, voxels=np.stack([scan.voxels + k for k in range(3)]), leading="time")


def test_a_scan_comes_back_as_itself() -> None:
    scan = make_scan(spacing=(3.0, 2.0, 1.0), origin=(1.0, 2.0, 3.0))
    layer = image(scan)
    assert scan_of(layer) is scan
    np.testing.assert_allclose(layer.scale, scan.geometry.spacing)
    np.testing.assert_allclose(layer.translate, scan.geometry.origin)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert is_at_hand(layer)


def test_a_time_series_is_one_layer_with_a_time_axis() -> None:
    scan = series()
    layer = image(scan)
    assert layer.ndim == 4
    frame = scan_of(layer, 2)
    np.testing.assert_array_equal(frame.voxels, scan.voxels[2])
    assert frame.geometry is scan.geometry
    assert frame.leading == ""


def test_channels_are_layers_that_know_their_file() -> None:
    scan = make_scan()
    scan = replace(scan, voxels=np.stack([scan.voxels, scan.voxels * 2]), leading="channel")
    layers = [Image(data, **arguments) for data, arguments, _ in layer_data(scan)]
    assert [layer.name for layer in layers] == ["scan 1", "scan 2"]
    second = scan_of(layers[1])
    np.testing.assert_array_equal(second.voxels, scan.voxels[1])
    assert second.geometry is scan.geometry
    assert second.source is scan.source


@pytest.mark.parametrize(("point", "index"), [((2.0, 0, 0, 0), 2), ((-7.0, 0, 0, 0), 0), ((99.0, 0, 0, 0), 2)])
def test_the_frame_is_where_the_slider_stands(point: tuple[float, ...], index: int) -> None:
    assert frame_at(image(series()), point) == Frame(index)


def test_a_time_axis_in_seconds_counts_its_own_steps() -> None:
    layer = Image(np.zeros((4, 3, 3, 3)), scale=(2.5, 1, 1, 1), translate=(10, 0, 0, 0))
    frame = frame_at(layer, (15.0, 0, 0, 0))
    assert frame is not None
    assert frame.index == 2
    placed = frame.before({"scale": (1.0,) * 3, "translate": (0.0,) * 3, "units": ("mm",) * 3, "axis_labels": "zyx"})
    assert placed["scale"] == (2.5, 1.0, 1.0, 1.0)
    assert placed["translate"] == (15.0, 0.0, 0.0, 0.0)


def test_a_volume_has_no_frame() -> None:
    assert frame_at(image(make_scan()), (0, 0, 0, 0)) is None


def test_a_plain_layer_of_another_reader_keeps_its_place() -> None:
    layer = Image(np.zeros((3, 4, 5)), scale=(3, 2, 1), translate=(10, 20, 30), name="plain")
    scan = scan_of(layer)
    assert scan.shape == (3, 4, 5)
    np.testing.assert_allclose(scan.geometry.spacing, (3, 2, 1))
    np.testing.assert_allclose(scan.geometry.origin, (10, 20, 30))
    assert scan.name == "plain"
    assert any("left and right cannot be told" in note for note in scan.notes)


@pytest.mark.parametrize("unit", ["um", "cm", "m", "s"])
def test_a_layer_in_another_unit_is_refused(unit: str) -> None:
    """The viewer would count in the finer of both units, and not in the millimetres of all that is beside it."""
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 4, 5)), scale=(500, 500, 500), units=(unit,) * 3, name="plain")
    with pytest.raises(ScanError, match="masks are in millimetres"):
        scan_of(layer)
    layer.units = ("mm",) * 3
    assert scan_of(layer).geometry.spacing == (500, 500, 500)


def test_a_mask_in_millimetres_would_not_be_where_a_layer_in_micrometres_is_asked() -> None:
    """Why such a layer is refused: napari draws both in one place, but counts in micrometres."""
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5)), scale=(500, 500, 500), units=("um",) * 3)
    viewer.add_labels(np.zeros((3, 4, 5), np.uint8), **placed(Geometry.shown((3, 4, 5), (0.5, 0.5, 0.5))))
    assert viewer.dims.range[0].step == 500


def test_a_time_axis_may_be_in_seconds() -> None:
    layer = Image(np.zeros((2, 3, 4, 5)), scale=(2, 3, 2, 1), units=("s", "mm", "mm", "mm"))
    assert scan_of(layer, 1).geometry.spacing == (3, 2, 1)


def test_a_plain_series_gives_the_frame() -> None:
    voxels = np.arange(2 * 27.0).reshape(2, 3, 3, 3)
    np.testing.assert_array_equal(scan_of(Image(voxels), 1).voxels, voxels[1])


def test_a_multiscale_layer_gives_its_finest_level() -> None:
    voxels = np.random.default_rng(0).random((8, 8, 8))
    scan = scan_of(Image([voxels, voxels[::2, ::2, ::2]], multiscale=True))
    np.testing.assert_array_equal(scan.voxels, voxels)


def test_voxels_on_disk_are_known_as_such() -> None:
    voxels = da.from_array(np.random.default_rng(0).random((8, 8, 8)))
    layer = Image(voxels, contrast_limits=(0, 1))
    assert not is_at_hand(layer)
    np.testing.assert_array_equal(scan_of(layer).voxels, voxels.compute())


def test_voxels_that_were_replaced_are_the_ones_that_count() -> None:
    scan = make_scan()
    layer = image(scan)
    layer.data = scan.voxels * 2
    found = scan_of(layer)
    np.testing.assert_array_equal(found.voxels, scan.voxels * 2)
    assert found.geometry is scan.geometry
    layer.data = scan.voxels[:4]
    assert scan_of(layer).shape == (4, 20, 12)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Image(np.zeros((5, 5)), name="flat"), "flat or coloured"),
        (Image(np.zeros((5, 5, 5, 3), np.uint8), rgb=True, name="rgb"), "flat or coloured"),
        (Image(np.zeros((2, 2, 5, 5, 5)), name="five"), "flat or coloured"),
        (Labels(np.zeros((5, 5, 5), np.uint8), name="labels"), "is not an image"),
        (Image(np.zeros((5, 5, 5)), rotate=(0, 0, 30)), "turned or mirrored"),
        (Image(np.zeros((5, 5, 5)), shear=(0.5, 0, 0)), "turned or mirrored"),
        (Image(np.zeros((5, 5, 5)), affine=np.diag([1, 2, 1, 1])), "turned or mirrored"),
        (Image(np.zeros((5, 5, 5)), scale=(1, -1, 1)), "turned or mirrored"),
    ],
)
def test_what_is_no_scan_is_refused_in_words(layer: Any, words: str) -> None:
    with pytest.raises(ScanError, match=words):
        scan_of(layer)


@pytest.mark.parametrize(
    "voxels",
    [np.full((4, 4, 4), 7.0), np.full((4, 4, 4), np.nan), np.zeros((4, 4, 4), np.uint8)],
    ids=["constant", "nan", "zeros"],
)
def test_contrast_limits_are_always_usable(voxels: np.ndarray) -> None:
    scan = make_scan((4, 4, 4))
    low, high = layer_data(replace(scan, voxels=voxels))[0][1]["contrast_limits"]
    assert np.isfinite([low, high]).all()
    assert low < high


class OnDisk:
    """Voxels that say how many of them were read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.ndim, self.size, self.dtype = shape, len(shape), int(np.prod(shape)), np.dtype("i2")
        self.read = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        box = np.broadcast_to(np.int16(7), self.shape)[key]
        self.read += box.size
        return np.array(box)


def test_of_a_scan_on_disk_a_layer_reads_a_few_boxes_once() -> None:
    voxels = OnDisk((600, 1000, 1000))
    scan = Scan(voxels, Geometry.shown(voxels.shape), identity="x")
    layer_data(scan)
    layer_data(scan)
    assert 0 < voxels.read < voxels.size / 1000


@pytest.mark.parametrize("slices", [3, 4])
@pytest.mark.parametrize("leading", ["", "time"])
def test_a_few_sagittal_slices_are_no_colours(slices: int, leading: Any) -> None:
    """Of which napari takes the last axis for red, green and blue."""
    scan = make_scan((40, 40, slices))
    if leading:
        scan = replace(scan, voxels=np.stack([scan.voxels] * 2), leading=leading)
    layer = image(scan)
    assert not layer.rgb
    assert layer.ndim == scan.voxels.ndim
    assert scan_of(layer).shape == scan.shape


def test_a_mask_of_one_frame_is_not_seen_with_the_others(tmp_path: Path) -> None:
    moving = replace(series(), source=Source(tmp_path / "a.nii", "nifti"))
    viewer = ViewerModel()
    ((data, arguments, _),) = layer_data(moving)
    layer = viewer.add_image(data, **arguments)
    frames = [scan_of(layer, k) for k in range(3)]
    mask, arguments, _ = mask_layer((frames[1], np.ones(moving.shape, np.uint8), LabelTable.of(["a"])), "mask")
    drawn = viewer.add_labels(mask, **arguments)
    for k in range(3):
        viewer.dims.set_point(0, k)
        viewer.dims.set_point(1, 4.0)
        value = drawn.get_value((k, 4.0, 6.0, 5.0), world=True)
        assert value == (1 if k == 1 else None)
        assert lies_on(drawn, frames[k]) == (k == 1)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        *[("rotate", 30.0), ("shear", [0.2, 0.0, 0.0]), ("affine", np.diag([1.0, -1.0, 1.0, 1.0]))],
        *[("units", ("um", "um", "um")), ("translate", (1.0, 2.0, 9.0)), ("scale", (3.0, 2.0, 1.5))],
    ],
)
def test_a_layer_that_was_turned_or_moved_is_no_mask_of_the_scan(change: str, value: Any) -> None:
    scan = make_scan(spacing=(3.0, 2.0, 1.0), origin=(1.0, 2.0, 3.0))
    place = placed(scan.geometry)
    assert lies_on(Labels(np.zeros(scan.shape, np.uint8), **place), scan)
    assert not lies_on(Labels(np.zeros(scan.shape, np.uint8), **(place | {change: value})), scan)
