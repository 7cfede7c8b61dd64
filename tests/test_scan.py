"""Axes, affines and regions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Region, Scan, ScanError, stack_channels

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order, signs, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), turn=None):
    """(4, 4): file axis k leads along patient axis order[k], R, A or S by positive sign."""
    columns = np.zeros((3, 3))
    for k, (axis, sign, step) in enumerate(zip(order, signs, spacing, strict=True)):
        columns[axis, k] = sign * step
    affine = np.eye(4)
    affine[:3, :3] = columns if turn is None else turn @ columns
    affine[:3, 3] = origin
    return affine


spacings = st.tuples(*[st.floats(0.1, 9.0)] * 3)
origins = st.tuples(*[st.floats(-500, 500)] * 3)
turns = st.builds(
    lambda axis, degrees: Rotation.from_rotvec(
        np.radians(degrees) * np.asarray(axis) / np.linalg.norm(axis)
    ).as_matrix(),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.floats(-45, 45),
)
shapes = st.tuples(*[st.integers(2, 6)] * 3)
affines = st.builds(
    lambda way, spacing, origin, turn: affine_of(*way, spacing, origin, turn),
    st.sampled_from(ORIENTATIONS),
    spacings,
    origins,
    turns,
)
geometries = st.builds(Geometry, shapes, affines)


@st.composite
def regions_within(draw, shape):
    start = [draw(st.integers(0, n - 1)) for n in shape]
    return Region(tuple(start), tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))


def scan_of(voxels, **keys):
    voxels = np.asarray(voxels)
    return Scan(voxels, Geometry.shown(voxels.shape[-3:]), **keys)


# ── geometry ─────────────────────────────────────────────────────────────────────────────────────


def test_there_are_48_orientations():
    assert len(ORIENTATIONS) == 48


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_shown_axes_lead_to_superior_posterior_and_left(order, signs):
    shape, spacing = (4, 5, 6), (0.5, 2.0, 3.0)
    affine = affine_of(order, signs, spacing, (7.0, -8.0, 9.0))
    geometry = Geometry(shape, affine)
    here = np.array([2, 3, 1])
    array = np.zeros(shape)
    array[tuple(here)] = 1.0
    (found,) = np.argwhere(geometry.to_shown(array))
    wanted = affine @ (*here, 1.0)
    np.testing.assert_allclose(geometry.affine @ (*found, 1.0), wanted, atol=1e-9)
    # A step up each shown axis goes up, back and to the left, by that axis's spacing.
    steps = geometry.affine[:3, :3]
    np.testing.assert_allclose(steps[:, 0], (0, 0, geometry.spacing[0]), atol=1e-9)
    np.testing.assert_allclose(steps[:, 1], (0, -geometry.spacing[1], 0), atol=1e-9)
    np.testing.assert_allclose(steps[:, 2], (-geometry.spacing[2], 0, 0), atol=1e-9)
    assert not geometry.is_oblique


def test_a_voxel_planted_high_in_the_back_on_the_left_is_shown_there():
    affine = affine_of((1, 2, 0), (1, -1, 1), (2.0, 2.0, 2.0), (-10.0, -10.0, 10.0))
    world = np.array([-8.0, -4.0, 8.0])  # RAS millimetres
    index = np.rint(np.linalg.inv(affine) @ (*world, 1.0)).astype(int)[:3]
    array = np.zeros((11, 11, 11), dtype=np.uint8)
    array[tuple(index)] = 9
    geometry = Geometry(array.shape, affine)
    (found,) = np.argwhere(geometry.to_shown(array) == 9)
    shown_mm = np.asarray(geometry.origin) + found * geometry.spacing
    np.testing.assert_allclose(shown_mm, (8.0, 4.0, 8.0))  # S, P, L


@given(geometries, st.data())
def test_turning_back_is_the_identity(geometry, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    array = rng.integers(0, 255, (*geometry.source_shape, 2), dtype=np.uint8)
    shown = geometry.to_shown(array)
    assert shown.shape == (*geometry.shape, 2)
    np.testing.assert_array_equal(geometry.to_source(shown), array)


@given(geometries)
def test_every_voxel_keeps_its_place_in_the_patient(geometry):
    grid = np.moveaxis(np.indices(geometry.source_shape), 0, -1)
    world = grid @ geometry.source_affine[:3, :3].T + geometry.source_affine[:3, 3]
    shown = geometry.to_shown(world)
    grid = np.moveaxis(np.indices(geometry.shape), 0, -1)
    np.testing.assert_allclose(grid @ geometry.affine[:3, :3].T + geometry.affine[:3, 3], shown, atol=1e-6)


@given(geometries)
def test_the_axes_shown_are_the_closest_to_the_patients(geometry):
    cosines = geometry.affine[:3, :3] / geometry.spacing
    towards = np.array([cosines[2, 0], -cosines[1, 1], -cosines[0, 2]])
    assert (towards > 0).all()
    assert geometry.obliqueness <= 60.0


@given(st.sampled_from(ORIENTATIONS), st.floats(1, 40))
def test_obliqueness_is_the_angle_turned(way, degrees):
    turn = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    geometry = Geometry((4, 4, 4), affine_of(*way, turn=turn))
    assert geometry.obliqueness == pytest.approx(degrees, abs=1e-4)
    assert geometry.is_oblique


def test_the_files_own_axes_are_named():
    assert Geometry((2, 2, 2), np.eye(4)).source_axes == "RAS"
    assert Geometry.shown((2, 2, 2)).source_axes == "SPL"


@given(shapes, spacings, origins)
def test_a_geometry_from_no_file_is_its_own_order(shape, spacing, origin):
    geometry = Geometry.shown(shape, spacing, origin)
    assert geometry.shape == shape
    np.testing.assert_allclose(geometry.spacing, spacing)
    np.testing.assert_allclose(geometry.origin, origin, atol=1e-9)
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(geometry.to_shown(array), array)


@given(geometries, st.data())
def test_a_crop_stays_where_it_was(geometry, data):
    region = data.draw(regions_within(geometry.shape))
    crop = geometry.cropped(region)
    assert crop.shape == region.shape
    assert crop.source_axes == geometry.source_axes
    corner, wanted = crop.affine @ (0, 0, 0, 1), geometry.affine @ (*region.start, 1)
    np.testing.assert_allclose(corner, wanted, atol=1e-6)
    np.testing.assert_allclose(crop.affine[:3, :3], geometry.affine[:3, :3], atol=1e-9)


@given(
    shapes,
    spacings,
    st.tuples(*[st.integers(-3, 9)] * 3),
    st.tuples(*[st.floats(0, 40)] * 3),
)
def test_a_region_around_a_voxel_lies_within_the_scan(shape, spacing, voxel, extent):
    region = Geometry.shown(shape, spacing).region_around(voxel, extent)
    assert region.clipped(shape) == region
    for at, first, stop, n in zip(voxel, region.start, region.stop, shape, strict=True):
        assert first <= min(max(at, 0), n - 1) < stop


def test_a_region_around_a_voxel_has_it_in_the_middle():
    geometry = Geometry.shown((40, 40, 40), (1.0, 2.0, 4.0))
    assert geometry.region_around((20, 20, 20), (8, 8, 8)) == Region((16, 18, 19), (24, 22, 21))
    assert geometry.region_around((0, 39, 20), (8, 8, 999)) == Region((0, 36, 0), (8, 40, 40))


@pytest.mark.parametrize(
    "affine",
    [
        np.full((4, 4), np.nan),
        np.diag([1.0, np.inf, 1.0, 1.0]),
        np.eye(3),
        np.zeros((4, 4)),
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        np.array([[1, 1, 1, 0], [0, 1e-9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        np.diag([1e200, 1e200, 1e200, 1.0]),
        np.diag([1e-300, 1.0, 1.0, 1.0]),
    ],
)
def test_a_matrix_that_places_nothing_is_refused(affine):
    with pytest.raises(ScanError, match=r"orientation matrix .* export the scan again"):
        Geometry((4, 4, 4), affine)


def test_one_grid_is_known_again():
    one = Geometry.shown((8, 8, 8), (1, 1, 1))
    assert one.same_grid(Geometry.shown((8, 8, 8), (1, 1, 1), (0.0004, 0, 0)))
    assert not one.same_grid(Geometry.shown((8, 8, 8), (1, 1, 1), (0.1, 0, 0)))
    assert not one.same_grid(Geometry.shown((8, 8, 9), (1, 1, 1)))


def test_one_grid_is_known_again_through_another_order():
    there = Geometry((8, 6, 4), affine_of((0, 1, 2), (1, 1, 1), (1, 2, 3), (5, 6, 7)))
    back = affine_of((2, 1, 0), (1, -1, 1), (3, 2, 1), (5, 6 + 2 * 5, 7))
    assert there.same_grid(Geometry((4, 6, 8), back))


def test_grids_that_drift_apart_over_many_voxels_differ():
    # 0.0009 mm a voxel are half a millimetre at the far end of 512.
    assert not Geometry.shown((512,) * 3).same_grid(Geometry.shown((512,) * 3, (1.0009, 1.0, 1.0)))


def test_grids_far_from_the_middle_are_compared_as_strictly():
    far = (5000.0, 0.0, 0.0)
    assert not Geometry.shown((8,) * 3, origin=far).same_grid(Geometry.shown((8,) * 3, origin=(5000.04, 0.0, 0.0)))


# ── region ───────────────────────────────────────────────────────────────────────────────────────


@given(shapes, st.data())
def test_a_region_cuts_what_it_says(shape, data):
    region = data.draw(regions_within(shape))
    assert np.zeros(shape)[region.slices].shape == region.shape
    assert region.clipped(shape) == region
    assert Region.whole(shape).clipped(shape).shape == shape


def test_a_region_is_clipped_to_the_scan():
    assert Region((1, 0, 2), (9, 3, 4)).clipped((4, 4, 4)) == Region((1, 0, 2), (4, 3, 4))


@pytest.mark.parametrize(("start", "stop"), [((0, 0, 0), (1, 0, 1)), ((2, 0, 0), (1, 4, 4)), ((-1, 0, 0), (2, 2, 2))])
def test_an_empty_region_is_refused(start, stop):
    with pytest.raises(ScanError, match="is empty; choose a box"):
        Region(start, stop)


def test_a_region_outside_is_refused():
    with pytest.raises(ScanError, match=r"outside the scan of \(4, 4, 4\) voxels"):
        Region((4, 0, 0), (6, 2, 2)).clipped((4, 4, 4))


# ── scan ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_flat_scan_is_refused():
    with pytest.raises(ScanError, match="2 axes; a scan needs three"):
        Scan(np.zeros((4, 4)), Geometry.shown((4, 4, 4)))


def test_voxels_that_do_not_fit_the_geometry_are_refused():
    with pytest.raises(ScanError, match="geometry of"):
        Scan(np.zeros((4, 4, 5)), Geometry.shown((4, 4, 4)))


def test_no_voxels_are_refused():
    with pytest.raises(ScanError, match="holds no voxels"):
        Scan(np.zeros((0, 4, 4, 4)), Geometry.shown((4, 4, 4)), leading="time")


def test_frames_of_a_scan_over_time():
    voxels = np.arange(2 * 27).reshape(2, 3, 3, 3)
    scan = scan_of(voxels, leading="time")
    assert scan.shape == (3, 3, 3)
    np.testing.assert_array_equal(scan.frame(1).voxels, voxels[1])
    assert scan.frame(1).leading == ""
    assert scan.frame(0).content_hash != scan.frame(1).content_hash
    assert scan.frame(0).frame(5).content_hash == scan.frame(0).content_hash


@pytest.mark.parametrize("index", [2, -1])
def test_a_frame_that_is_not_there_is_refused(index):
    with pytest.raises(ScanError, match="frames 0 to 1"):
        scan_of(np.zeros((2, 3, 3, 3)), leading="time").frame(index)


def test_channels_are_stacked():
    a, b = scan_of(np.zeros((3, 3, 3))), scan_of(np.ones((3, 3, 3)))
    both = stack_channels([a, b])
    assert both.voxels.shape == (2, 3, 3, 3)
    assert both.leading == "channel"
    assert both.voxels[1].all()


def test_what_is_to_be_known_of_a_channel_is_known_of_all():
    first = replace(scan_of(np.zeros((3, 3, 3))), notes=("oblique",))
    second = replace(first, notes=("oblique", "resampled", SIDES_UNKNOWN))
    assert stack_channels([first, second]).notes == ("oblique", "resampled")


def test_channels_on_other_grids_are_refused():
    other = Scan(np.zeros((3, 3, 3)), Geometry.shown((3, 3, 3), (1, 1, 2)), name="other")
    with pytest.raises(ScanError, match="“other” does not lie on the grid of"):
        stack_channels([scan_of(np.zeros((3, 3, 3))), other])


def test_channels_over_time_are_refused():
    with pytest.raises(ScanError, match="single volume"):
        stack_channels([scan_of(np.zeros((2, 3, 3, 3)), leading="time")])


def test_no_channels_are_refused():
    with pytest.raises(ScanError, match="no scan"):
        stack_channels([])


def test_a_crop_of_a_scan_holds_its_voxels_and_no_source():
    voxels = np.arange(4 * 5 * 6 * 2).reshape(2, 4, 5, 6)
    crop = scan_of(voxels, leading="time").cropped(Region((1, 2, 3), (3, 9, 5)))
    np.testing.assert_array_equal(crop.voxels, voxels[:, 1:3, 2:5, 3:5])
    assert crop.geometry.origin == (1.0, 2.0, 3.0)
    assert crop.source is None
    assert not np.shares_memory(crop.voxels, voxels)


@given(st.sampled_from(ORIENTATIONS))
def test_the_content_hash_knows_a_scan_in_any_order(way):
    shown = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    world = Geometry.shown((3, 4, 5), (1.0, 2.0, 3.0))
    order, signs = way
    spacing = tuple({0: 3.0, 1: 2.0, 2: 1.0}[axis] for axis in order)
    extents = tuple({0: 5, 1: 4, 2: 3}[axis] for axis in order)
    # The same voxels, in a file of this order: its first voxel is a corner of the same box.
    box = {0: (-12.0, 0.0), 1: (-6.0, 0.0), 2: (0.0, 2.0)}
    origin = np.zeros(3)
    for axis, sign in zip(order, signs, strict=True):
        origin[axis] = box[axis][0] if sign > 0 else box[axis][1]
    geometry = Geometry(extents, affine_of(order, signs, spacing, origin))
    assert geometry.same_grid(world)
    voxels = geometry.to_shown(geometry.to_source(shown))
    assert Scan(voxels, geometry).content_hash == Scan(shown, world).content_hash


def test_the_content_hash_sees_values_type_and_place():
    base = np.zeros((3, 3, 3), dtype=np.int16)
    other = base.copy()
    other[1, 1, 1] = 1
    moved = Scan(base, Geometry.shown((3, 3, 3), origin=(0.5, 0.0, 0.0)))
    hashes = {scan_of(base).content_hash, scan_of(other).content_hash, moved.content_hash}
    assert len(hashes | {scan_of(base.astype(np.uint16)).content_hash}) == 4
