"""Opening inverts saving: every order, tilt, byte order and number type."""

from __future__ import annotations

import gzip
import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_sparsetok.files import can_open, open_scan, save_mask
from napari_sparsetok.labels import LabelTable

LABELS = LabelTable.of(["Anterior", "Posterior"])
GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "dim_info"),
)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
DATA = Path(os.environ.get("SPARSETOK_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

one_folder_will_do = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def affine_of(way, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), turn=None):
    """(4, 4): file axis k leads along patient axis way[0][k], R, A or S where way[1][k] is 1."""
    columns = np.zeros((3, 3))
    for k, (axis, sign, step) in enumerate(zip(*way, spacing, strict=True)):
        columns[axis, k] = sign * step
    affine = np.eye(4)
    affine[:3, :3] = columns if turn is None else turn @ columns
    affine[:3, 3] = origin
    return affine


def raw_header(path):
    """The header as it lies in the file, corrected by nobody."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    size, kind = (540, nib.Nifti2Header) if 540 in sizes else (348, nib.Nifti1Header)
    return kind(data[:size], check=False)


def assert_same_place(one, other):
    for field in GEOMETRY_FIELDS:
        assert one[field].tobytes() == other[field].tobytes(), field
    assert one["pixdim"][:4].tobytes() == other["pixdim"][:4].tobytes()
    assert one.endianness == other.endianness
    assert type(one) is type(other)


def voxels_of(shape, dtype="i2", seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def some_mask(scan, seed=1):
    return np.random.default_rng(seed).integers(0, 3, scan.shape).astype(np.uint8)


def mask_in_file_order(path):
    return np.asanyarray(nib.load(path).dataobj)


# ── property tests ───────────────────────────────────────────────────────────────────────────────

turns = st.builds(
    lambda axis, degrees: Rotation.from_rotvec(
        np.radians(degrees) * np.asarray(axis) / np.linalg.norm(axis)
    ).as_matrix(),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.floats(-45, 45),
)
places = st.tuples(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(0.1, 9.0)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
    st.none() | turns,
)
codes = st.integers(0, 5)


@st.composite
def images(draw):
    """An image whose sform and qform may differ, of either NIfTI and byte order."""
    shape = draw(st.tuples(*[st.integers(2, 5)] * 3))
    kind = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))
    header = kind.header_class(endianness=draw(st.sampled_from("<>")))
    dtype = np.dtype(draw(st.sampled_from(["u1", "i1", "i2", "u2", "i4", "f4", "f8"])))
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_qform(affine_of(*draw(places)), draw(codes))
    header.set_sform(affine_of(*draw(places)), draw(codes))
    header.set_xyzt_units("mm")
    header["dim_info"] = draw(st.integers(0, 63))
    return kind(voxels_of(shape, dtype, draw(st.integers(0, 99))), None, header)


@one_folder_will_do
@given(image=images(), ending=st.sampled_from([".nii", ".nii.gz"]))
def test_saving_inverts_opening(image, ending, tmp_path):
    source, target = tmp_path / f"scan{ending}", tmp_path / f"mask{ending}"
    nib.save(image, source)
    scan = open_scan(source)
    stored = np.asanyarray(image.dataobj)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), stored)
    assert scan.voxels.dtype.isnative
    np.testing.assert_allclose(scan.geometry.source_affine, nib.load(source).affine, atol=1e-6)

    mask = some_mask(scan)
    save_mask(target, mask, scan, LABELS)
    again = open_scan(target)
    np.testing.assert_array_equal(again.voxels, mask)
    np.testing.assert_array_equal(again.geometry.affine, scan.geometry.affine)
    np.testing.assert_array_equal(mask_in_file_order(target), scan.geometry.to_source(mask))
    assert_same_place(raw_header(target), raw_header(source))


@pytest.mark.parametrize("way", ORIENTATIONS)
def test_every_orientation_comes_back(way, tmp_path):
    affine = affine_of(way, (1.0, 2.0, 3.0), (-9.0, 8.0, 7.0))
    source, target = tmp_path / "scan.nii", tmp_path / "mask.nii"
    nib.save(nib.Nifti1Image(voxels_of((4, 5, 6)), affine), source)
    scan = open_scan(source)
    assert scan.geometry.affine[2, 0] > 0 > max(scan.geometry.affine[1, 1], scan.geometry.affine[0, 2])
    mask = some_mask(scan)
    save_mask(target, mask, scan, LABELS)
    np.testing.assert_array_equal(nib.load(target).affine, nib.load(source).affine)
    np.testing.assert_array_equal(open_scan(target).voxels, mask)
    assert_same_place(raw_header(target), raw_header(source))


@pytest.mark.parametrize("tilt", [None, (10, 0, 0), (3, -20, 8), (0, 0, 44)])
@pytest.mark.parametrize("way", ORIENTATIONS[::5])
def test_another_reader_finds_the_mask_in_the_same_place(way, tilt, tmp_path):
    turn = None if tilt is None else Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
    source, target = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    image = nib.Nifti1Image(voxels_of((5, 6, 7)), None)
    image.set_sform(affine_of(way, (1.0, 2.0, 1.5), (12.0, -30.0, 40.0), turn), 1)
    image.set_qform(affine_of(way, (1.0, 2.0, 1.5), (12.0, -30.0, 40.0), turn), 1)
    nib.save(image, source)
    scan = open_scan(source)
    mask = np.zeros(scan.shape, dtype=np.uint8)
    here = tuple(n - 2 for n in scan.shape)
    mask[here] = 2
    save_mask(target, mask, scan, LABELS)

    theirs, ours = sitk.ReadImage(str(source)), sitk.ReadImage(str(target))
    assert ours.GetSize() == theirs.GetSize()
    for index in itertools.product((0, 4), (0, 5), (0, 6)):
        np.testing.assert_array_equal(
            ours.TransformIndexToPhysicalPoint(index), theirs.TransformIndexToPhysicalPoint(index)
        )
    (found,) = np.argwhere(sitk.GetArrayFromImage(ours) == 2)
    point = np.array(ours.TransformIndexToPhysicalPoint([int(i) for i in found[::-1]]))  # LPS
    wanted = (scan.geometry.affine @ (*here, 1.0))[:3] * (-1, -1, 1)
    np.testing.assert_allclose(point, wanted, atol=1e-4)


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_stored_numbers_are_not_touched(dtype, order, tmp_path):
    info = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
    stored = voxels_of((3, 4, 5), dtype)
    stored[0, 0, 0], stored[1, 1, 1] = info.min, info.max
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(stored, np.eye(4), header), tmp_path / "scan.nii.gz")
    scan = open_scan(tmp_path / "scan.nii.gz")
    assert scan.voxels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), stored)


def scaled_file(path, stored, slope, inter):
    header = nib.Nifti1Image(stored, np.eye(4)).header.copy()
    header["scl_slope"], header["scl_inter"] = slope, inter
    with path.open("wb") as file:
        header.write_to(file)
        file.write(stored.tobytes(order="F"))


@one_folder_will_do
@given(
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    slope=st.floats(2**-10, 1024, width=32),
    inter=st.floats(-8192, 8192, width=32),
)
def test_scaling_is_applied_as_the_reference_reader_does(dtype, slope, inter, tmp_path):
    path = tmp_path / "scan.nii"
    scaled_file(path, voxels_of((3, 4, 5), dtype), slope, inter)
    scan = open_scan(path)
    wanted = nib.load(path).get_fdata()
    bound = 1e-6 * (abs(slope) * 100 + abs(inter))
    np.testing.assert_allclose(scan.geometry.to_source(scan.voxels), wanted, rtol=0, atol=bound)


def test_a_scaled_32_bit_scan_keeps_its_steps(tmp_path):
    stored = (2**30 + np.arange(60, dtype=np.int32)).reshape(3, 4, 5)
    scaled_file(tmp_path / "scan.nii", stored, 0.5, 0.0)
    assert len(np.unique(open_scan(tmp_path / "scan.nii").voxels)) == 60


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 7.0), (np.nan, np.nan), (1.0, 0.0)])
def test_no_scaling_keeps_the_stored_type(slope, inter, tmp_path):
    scaled_file(tmp_path / "scan.nii", voxels_of((3, 4, 5)), slope, inter)
    scan = open_scan(tmp_path / "scan.nii")
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels_of((3, 4, 5)))
    assert scan.voxels.dtype == np.int16


def test_hounsfield_units_are_what_they_should_be(tmp_path):
    scaled_file(tmp_path / "ct.nii", np.full((3, 4, 5), 24, dtype=np.uint16), 1.0, -1024.0)
    assert (open_scan(tmp_path / "ct.nii").voxels == -1000).all()


def test_nan_in_a_float_scan_is_left_for_the_intensity_rule(tmp_path):
    stored = np.ones((3, 4, 5), dtype=np.float32)
    stored[1, 1, 1] = np.nan
    scaled_file(tmp_path / "scan.nii", stored, 2.0, 0.0)
    scan = open_scan(tmp_path / "scan.nii")
    assert np.isnan(scan.voxels).sum() == 1
    assert (scan.voxels[np.isfinite(scan.voxels)] == 2).all()


# ── time, trailing axes, units, notes, names ─────────────────────────────────────────────────────


def test_time_comes_first(tmp_path):
    stored = voxels_of((3, 4, 5, 6))
    nib.save(nib.Nifti1Image(stored, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "series.nii.gz")
    scan = open_scan(tmp_path / "series.nii.gz")
    assert scan.leading == "time"
    assert scan.voxels.shape == (6, 5, 4, 3)
    assert scan.shape == (5, 4, 3)
    frame = scan.frame(4)
    np.testing.assert_array_equal(frame.geometry.to_source(frame.voxels), stored[..., 4])
    mask = some_mask(scan)
    target = save_mask(tmp_path / "mask.nii.gz", mask, frame, LABELS)
    np.testing.assert_array_equal(open_scan(target).voxels, mask)
    header = raw_header(target)
    assert header["dim"].tolist() == [3, 3, 4, 5, 1, 1, 1, 1]
    assert header["pixdim"][4] == 1.0


@pytest.mark.parametrize("tail", [(1,), (1, 1), (1, 1, 1)])
def test_trailing_axes_of_one_voxel_are_dropped(tail, tmp_path):
    stored = voxels_of((3, 4, 5))
    nib.save(nib.Nifti1Image(stored.reshape(3, 4, 5, *tail), np.eye(4)), tmp_path / "scan.nii")
    scan = open_scan(tmp_path / "scan.nii")
    assert scan.leading == ""
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), stored)


def test_trailing_axes_behind_time_are_dropped(tmp_path):
    nib.save(nib.Nifti1Image(voxels_of((3, 4, 5, 2, 1)), np.eye(4)), tmp_path / "scan.nii")
    assert open_scan(tmp_path / "scan.nii").voxels.shape == (2, 5, 4, 3)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_millimetres_whatever_the_file_counts_in(unit, factor, tmp_path):
    source, target = tmp_path / "scan.nii", tmp_path / "mask.nii"
    image = nib.Nifti1Image(voxels_of((3, 4, 5)), np.diag([2.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, source)
    scan = open_scan(source)
    np.testing.assert_allclose(scan.geometry.spacing, np.array((3.0, 2.0, 2.0)) * factor)
    save_mask(target, some_mask(scan), scan, LABELS)
    assert_same_place(raw_header(target), raw_header(source))
    assert open_scan(target).geometry.same_grid(scan.geometry)


def test_a_file_without_position_opens_with_a_note(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((3, 4, 5))
    header.set_zooms((2.0, 2.0, 3.0))
    source = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of((3, 4, 5)), None, header), source)
    assert raw_header(source)["sform_code"] == raw_header(source)["qform_code"] == 0
    scan = open_scan(source)
    assert "left and right cannot be told" in " ".join(scan.notes)
    assert scan.geometry.spacing == (3.0, 2.0, 2.0)
    save_mask(tmp_path / "mask.nii", some_mask(scan), scan, LABELS)
    assert_same_place(raw_header(tmp_path / "mask.nii"), raw_header(source))


def test_an_oblique_file_opens_with_a_note(tmp_path):
    turn = Rotation.from_euler("x", 17, degrees=True).as_matrix()
    nib.save(nib.Nifti1Image(voxels_of((3, 4, 5)), affine_of(ORIENTATIONS[0], turn=turn)), tmp_path / "scan.nii")
    (note,) = open_scan(tmp_path / "scan.nii").notes
    assert "turned by 17°" in note


def with_two_places(path, sform, qform):
    image = nib.Nifti1Image(voxels_of((5, 6, 7)), None)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return open_scan(path)


def test_two_places_in_one_header_are_told(tmp_path):
    one, there = np.diag([1.0, 1.0, 2.0, 1.0]), np.diag([1.0, 1.0, 2.0, 1.0])
    there[0, 3] = 40
    scan = with_two_places(tmp_path / "moved.nii", one, there)
    assert [note for note in scan.notes if "up to 40.0 mm apart; the sform is used" in note]
    np.testing.assert_array_equal(scan.geometry.source_affine, one)
    (note,) = with_two_places(tmp_path / "flip.nii", one, np.diag([-1.0, 1.0, 2.0, 1.0])).notes
    assert "by its sform the axes lead to RAS, by its qform to LAS" in note
    assert "left and right are swapped" in note
    (note,) = with_two_places(tmp_path / "back.nii", one, np.diag([1.0, -1.0, 2.0, 1.0])).notes
    assert "lies the wrong way round" in note


@pytest.mark.parametrize("angle", [0, 20, 44.999, 179.99])
def test_a_qform_that_is_rounded_is_no_second_place(angle, tmp_path):
    turn = np.eye(4)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn[:2, :2] = [[cos, -sin], [sin, cos]]
    image = nib.Nifti1Image(np.zeros((400, 400, 3), np.uint8), None)
    image.set_sform(turn, 2)
    image.set_qform(turn, 1)
    nib.save(image, tmp_path / "scan.nii.gz")
    assert not any("sform" in note for note in open_scan(tmp_path / "scan.nii.gz").notes)


def test_a_straight_file_opens_without_notes(tmp_path):
    nib.save(nib.Nifti1Image(voxels_of((3, 4, 5)), np.eye(4)), tmp_path / "scan.nii")
    assert open_scan(tmp_path / "scan.nii").notes == ()


def test_a_tilt_sign_that_is_zero_means_one_and_is_kept(tmp_path):
    source, target = tmp_path / "scan.nii", tmp_path / "mask.nii"
    image = nib.Nifti1Image(voxels_of((3, 4, 5)), None)
    image.set_qform(np.diag([2.0, 2.0, 3.0, 1.0]), 1)
    nib.save(image, source)
    data = bytearray(source.read_bytes())
    data[76:80] = bytes(4)  # pixdim[0], as some programs leave it
    source.write_bytes(data)
    scan = open_scan(source)
    assert scan.geometry.source_axes == "RAS"
    save_mask(target, some_mask(scan), scan, LABELS)
    assert_same_place(raw_header(target), raw_header(source))


@pytest.mark.parametrize(
    ("file", "name"), [("t1.nii", "t1"), ("t1.v2.nii.gz", "t1.v2"), ("T1.NII.GZ", "T1"), ("a b ü.nii", "a b ü")]
)
def test_a_scan_is_called_after_its_file(file, name, tmp_path):
    plain = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels_of((3, 4, 5)), np.eye(4)), plain)
    plain.rename(tmp_path / file)
    assert can_open(tmp_path / file)
    assert open_scan(tmp_path / file).name == name


@pytest.mark.parametrize(("zipped", "ending"), [(True, ".nii"), (False, ".nii.gz")])
def test_a_wrong_ending_is_seen_through(zipped, ending, tmp_path):
    data = nib.Nifti1Image(voxels_of((3, 4, 5)), np.eye(4)).to_bytes()
    path = tmp_path / f"scan{ending}"
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert open_scan(path).shape == (5, 4, 3)


def test_a_zip_in_several_parts_and_with_rubbish_behind(tmp_path):
    data = nib.Nifti1Image(voxels_of((3, 4, 5)), np.eye(4)).to_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]) + b"rubbish")
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels_of((3, 4, 5)))


def test_a_scan_does_not_hold_on_to_its_file(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels_of((3, 4, 5)), np.eye(4)), path)
    scan = open_scan(path)
    before = scan.voxels.copy()
    path.write_bytes(b"something else")
    np.testing.assert_array_equal(scan.voxels, before)


@pytest.mark.parametrize("unit", ["meter", "micron", "mm"])
def test_another_reader_finds_the_same_lengths(unit, tmp_path):
    image = nib.Nifti1Image(voxels_of((3, 4, 5)), np.diag([2.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii")
    theirs = sitk.ReadImage(str(tmp_path / "scan.nii"))
    np.testing.assert_allclose(theirs.GetSpacing(), open_scan(tmp_path / "scan.nii").geometry.spacing[::-1])


# ── real files ───────────────────────────────────────────────────────────────────────────────────

real = pytest.mark.skipif(
    not (DATA / "nifti_orientations").is_dir(),
    reason="no folder ../shared/data beside the repository, and SPARSETOK_DATA names none",
)


@real
def test_one_brain_in_24_orders_is_shown_as_one(tmp_path):
    paths = sorted((DATA / "nifti_orientations").glob("*.nii.gz"))
    assert len(paths) == 24
    first = open_scan(paths[0])
    mask = (first.voxels > np.median(first.voxels)).astype(np.uint8)
    for path in paths:
        scan = open_scan(path)
        assert scan.geometry.source_axes == path.name[:3]
        np.testing.assert_array_equal(scan.voxels, first.voxels)
        assert scan.geometry.same_grid(first.geometry)
        assert scan.content_hash == first.content_hash
        target = save_mask(tmp_path / path.name, mask, scan, LABELS)
        assert_same_place(raw_header(target), raw_header(path))
        np.testing.assert_array_equal(nib.load(target).affine, nib.load(path).affine)
        np.testing.assert_array_equal(open_scan(target).voxels, mask)


@real
def test_real_crops_open_and_come_back(tmp_path):
    for path in sorted((DATA / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:20]:
        scan = open_scan(path)
        labels = open_scan(DATA / "hippocampus" / "labelsTr" / path.name)
        assert labels.geometry.same_grid(scan.geometry)
        target = save_mask(tmp_path / path.name, labels.voxels.astype(np.uint8), scan, LABELS)
        np.testing.assert_array_equal(open_scan(target).voxels, labels.voxels)
        assert_same_place(raw_header(target), raw_header(path))
