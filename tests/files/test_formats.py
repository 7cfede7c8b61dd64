"""NRRD, MetaImage, FreeSurfer, TIFF and OME-Zarr: what goes in comes out, in its place; what cannot be is refused."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr

from napari_sparsetok.files import (
    OpeningStopped,
    RepairableScanError,
    can_open,
    find_series,
    ome_zarr,
    open_labels,
    open_scan,
    raw,
    regrid,
    resampled_to,
    save_mask,
)
from napari_sparsetok.files.reading import Watch, oblique_note
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Region, ScanError

ITK = ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"]
ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("RL", "AP", "IS")) for codes in itertools.product(*axes)
]


def voxels(shape=(5, 6, 7), kind="i2", seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(kind)


def affine_of(codes):
    """An affine of voxels 1 × 2 × 3 mm whose axes lead to R or L, A or P, S or I."""
    affine = np.eye(4)
    steps = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine[:3, :3] = 0
    for axis, (code, size) in enumerate(zip(codes, (1.0, 2.0, 3.0), strict=True)):
        row, sign = steps[code]
        affine[row, axis] = sign * size
    affine[:3, 3] = (-11.5, 7.25, 30.0)
    return affine


def oblique(degrees):
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = affine_of("LPS")
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def itk_image(array, affine):
    """`array` (x, y, z) with a RAS affine, as ITK has it."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def refused(path, **options):
    with pytest.raises(ScanError) as caught:
        open_scan(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def scan_of(tmp_path):
    def scan_of(name="a.nrrd", array=None, affine=None):
        image = itk_image(voxels() if array is None else array, affine_of("LPS") if affine is None else affine)
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        return open_scan(tmp_path / name)

    return scan_of


# ── NRRD and MetaImage ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ITK)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_kind_of_nrrd_and_metaimage(name, compressed, tmp_path):
    sitk.WriteImage(itk_image(voxels(), oblique(20)), str(tmp_path / name), useCompression=compressed)
    scan = open_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels())
    np.testing.assert_allclose(scan.geometry.source_affine, oblique(20), atol=1e-9)
    assert scan.name == "a"
    assert any("Oblique" in note for note in scan.notes)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_48_orientations_there_and_back(codes, tmp_path, scan_of):
    assert len(set(ORIENTATIONS)) == 48
    scan = scan_of("a.nrrd", affine=affine_of(codes))
    assert scan.geometry.source_axes == codes
    shown = nib.as_closest_canonical(nib.Nifti1Image(voxels(), affine_of(codes)))
    np.testing.assert_array_equal(scan.voxels, np.asarray(shown.dataobj)[::-1, ::-1].transpose(2, 1, 0))
    mask = (scan.voxels % 3).astype(np.uint8)
    back = sitk.ReadImage(str(save_mask(tmp_path / "mask.nrrd", mask, scan, LabelTable.of(["a", "b"]))))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back).transpose(2, 1, 0), voxels() % 3)
    for there, here in [(back.GetSpacing(), scan.source.header.spacing), (back.GetOrigin(), scan.source.header.origin)]:
        assert there == here
    assert back.GetDirection() == scan.source.header.direction


@pytest.mark.parametrize("degrees", [1, 10, 30, 45])
@pytest.mark.parametrize("kind", [".nrrd", ".mha", ".nii.gz"])
def test_oblique_masks_lie_on_their_scan(degrees, kind, tmp_path, scan_of):
    scan = scan_of(affine=oblique(degrees))
    mask = (scan.voxels % 3).astype(np.uint8)
    table = LabelTable.of(["one", "two"])
    again, labels = open_labels(save_mask(tmp_path / f"mask{kind}", mask, scan, table), scan)
    np.testing.assert_array_equal(again, mask)
    assert labels == table


def test_the_names_of_another_programs_segments(tmp_path, scan_of):
    scan = scan_of()
    image = itk_image((voxels() % 3).astype(np.uint8), affine_of("LPS"))
    for key, value in {
        "Segment0_Name": "liver",
        "Segment0_LabelValue": "2",
        "Segment0_Color": "1 0.5 0",
    }.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / "x.seg.nrrd"))
    _, labels = open_labels(tmp_path / "x.seg.nrrd", scan)
    assert [(x.id, x.name) for x in labels] == [(1, "label 1"), (2, "liver")]
    assert labels.labels[1].color == "#ff8000"


def test_a_mask_of_another_grid_is_refused(tmp_path, scan_of):
    scan = scan_of()
    scan_of("b.nrrd", affine=oblique(5))
    with pytest.raises(ScanError, match="lies on other voxels"):
        open_labels(tmp_path / "b.nrrd", scan)
    scan_of("c.nrrd", array=voxels(kind="f4") + 0.5)
    with pytest.raises(ScanError, match="fractions"):
        open_labels(tmp_path / "c.nrrd", scan)
    scan_of("d.nrrd", array=voxels() + 200)
    with pytest.raises(ScanError, match="labels are numbered"):
        open_labels(tmp_path / "d.nrrd", scan)


def test_a_mask_stored_in_another_order_still_fits(tmp_path, scan_of):
    scan = scan_of()
    turned = np.flip((voxels() % 3).astype(np.uint8), 0)
    affine = affine_of("LPS")
    affine[:3, 3] += affine[:3, 0] * 4
    affine[:3, 0] *= -1
    nib.save(nib.Nifti1Image(turned, affine), tmp_path / "m.nii")
    mask, _ = open_labels(tmp_path / "m.nii", scan)
    np.testing.assert_array_equal(mask, scan.voxels % 3)


def test_four_axes(tmp_path):
    array = voxels((3, 5, 6, 7))
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "a.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True), str(tmp_path / "b.nrrd"))
    for name in ("a.nrrd", "b.nrrd"):
        scan = open_scan(tmp_path / name)
        assert (scan.leading, len(scan.voxels)) == ("time", 3)
        np.testing.assert_array_equal(scan.geometry.to_source(scan.frame(1).voxels).transpose(2, 1, 0), array[1])


# ── axes that miss a right angle ─────────────────────────────────────────────────────────────────


def tilted(degrees, base=None):
    """An affine whose slices are shifted along their second axis, as a tilted gantry shifts them."""
    affine = affine_of("LPS") if base is None else base.copy()
    step = affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    affine[:3, 2] += step * np.linalg.norm(affine[:3, 2]) * np.tan(np.radians(degrees))
    return affine


def write_tilted(path, array, affine):
    if path.suffix in (".nrrd", ".mha"):
        sitk.WriteImage(itk_image(array, affine), str(path))
    elif path.suffix == ".mgz":
        nib.save(nib.MGHImage(array.astype("f4"), affine), path)
    else:
        image = nib.Nifti1Image(array, affine)
        image.set_qform(None, 0)
        nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.mgz"])
@pytest.mark.parametrize("base", [None, oblique(20)], ids=["upright", "oblique"])
def test_shifted_slices_are_not_shown_as_a_box(name, base, tmp_path):
    path = write_tilted(tmp_path / name, voxels((9, 8, 7)), tilted(20, base))
    with pytest.raises(RepairableScanError, match=r"miss a right angle by 20\.0°.*“resample” would shift") as caught:
        open_scan(path)
    assert set(caught.value.repairs) == {"resample"}
    scan = open_scan(path, repair="resample")
    assert scan.geometry.skew < 1e-4
    assert scan.geometry.spacing == pytest.approx((3.0, 2.0, 1.0))
    assert any("Repaired" in note and "20.0°" in note for note in scan.notes)
    assert any("Oblique scan: its slices are turned by 20°" in note for note in scan.notes) == (base is not None)
    assert scan.source is None
    assert [file.name for file in scan.origins] == [name]


def test_slices_shifted_back_lie_where_they_were_measured(tmp_path):
    """A shift by whole pixels needs no value between the measured ones."""
    array, affine = voxels((9, 8, 7)), affine_of("LPS")
    affine[:3, 2] += affine[:3, 1]
    scan = open_scan(write_tilted(tmp_path / "a.nii", array, affine), repair="resample")
    assert scan.geometry.source_shape == (9, 14, 7)
    stored = scan.geometry.to_source(scan.voxels)
    for k in range(7):
        np.testing.assert_allclose(stored[:, k : k + 8, k], array[:, :, k], atol=1e-3)
    there = np.linalg.inv(scan.geometry.source_affine) @ affine @ (4, 3, 2, 1)
    np.testing.assert_allclose(there, (4, 5, 2, 1), atol=1e-5)
    mask = (scan.voxels > 99).astype(np.uint8)
    again, _ = open_labels(save_mask(tmp_path / "m.nii.gz", mask, scan, LabelTable.of(["a"])), scan)
    np.testing.assert_array_equal(again, mask)


def test_axes_that_are_rounded_are_at_right_angles(tmp_path):
    """Directions of three decimals, and a shift that does not show in a scan of so few slices."""
    affine = oblique(17)
    affine[:3, :3] = np.round(affine[:3, :3] / (1, 2, 3), 3) * (1, 2, 3)
    for number, made in enumerate([affine, tilted(0.09), tilted(0.4)]):
        scan = open_scan(write_tilted(tmp_path / f"{number}.nii", voxels((9, 8, 5)), made))
        np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels((9, 8, 5)))
        assert not any("Repaired" in note for note in scan.notes)
    assert "by 0.4°" in refused(write_tilted(tmp_path / "long.nii", voxels((9, 8, 40)), tilted(0.4)))


def test_several_volumes_of_shifted_slices_are_refused(tmp_path):
    path = write_tilted(tmp_path / "a.nii", voxels((9, 8, 7, 2)), tilted(20))
    assert "split its volumes" in refused(path, repair="resample")


@pytest.mark.parametrize("codes", ORIENTATIONS[::7])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_that_is_tilted_is_the_one_that_is_straightened(codes, axis):
    affine = affine_of(codes)
    affine[:3, axis] += affine[:3, (axis + 1) % 3] * 0.5
    geometry = Geometry((9, 8, 7), affine)
    grid = geometry.straightened()
    assert geometry.is_skewed
    assert not grid.is_skewed
    assert np.linalg.det(grid.source_affine[:3, :3]) == pytest.approx(np.linalg.det(affine[:3, :3]))
    corners = np.array([(*corner, 1) for corner in itertools.product((0, 8), (0, 7), (0, 6))])
    inside = corners @ (np.linalg.inv(grid.source_affine) @ affine).T[:, :3]
    assert (inside > -1e-6).all()
    assert (inside < np.array(grid.source_shape) - 1 + 1e-6).all()


NRRD = "NRRD0004\ntype: {type}\ndimension: 3\nsizes: {sizes}\nencoding: {encoding}\nendian: little\n{more}\n\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = {type}\n{more}ElementDataFile = {data}\n"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sizes": "99999 99999 99999"}, "header claims"),
        ({"sizes": "-1 2 3"}, "does not say how many"),
        ({"sizes": "5 6"}, "flat picture"),
        ({"sizes": "5 6 1"}, "flat picture"),
        ({"sizes": "2 2 2 2 2"}, "5 axes"),
        ({"sizes": "99999999999 99999999999 99999999999"}, "header claims"),
        ({"type": "block"}, "of a kind that is not read"),
        ({"encoding": "gzip", "sizes": "9999 9999 9999"}, "header claims"),
        ({"encoding": "bzip2"}, "bzip2"),
        ({"more": "data file: other.raw"}, "points to other files"),
        ({"more": "space: left-posterior-superior\nspace directions: (nan,0,0) (0,1,0) (0,0,1)"}, "no numbers"),
        (
            {"more": "space: left-posterior-superior\nspace directions: (1,0,0) (1,0,0) (0,0,1)"},
            "again|coincide",
        ),
    ],
)
def test_a_nrrd_that_cannot_be(fields, words, tmp_path):
    text = NRRD.format(**{"type": "short", "sizes": "5 6 7", "encoding": "raw", "more": "", **fields})
    (tmp_path / "a.nrrd").write_bytes(text.encode() + bytes(420))
    import re

    assert re.search(words, refused(tmp_path / "a.nrrd"))


@pytest.mark.parametrize("data", ["/dev/zero", "../other.raw", "LIST", "a%03d.raw 1 7 1", "nothing.raw", "a/b.raw"])
def test_voxels_in_other_files_than_beside_it(data, tmp_path):
    (tmp_path / "a.mhd").write_text(META.format(type="MET_SHORT", sizes="5 6 7", more="", data=data))
    assert "beside it" in (sentence := refused(tmp_path / "a.mhd")) or "many files" in sentence
    (tmp_path / "a.nhdr").write_text(
        NRRD.format(type="short", sizes="5 6 7", encoding="raw", more=f"data file: {data}").rstrip("\n") + "\n"
    )
    assert "beside it" in (sentence := refused(tmp_path / "a.nhdr")) or "many files" in sentence


def detached(folder, data):
    """Headers of both formats that point to `data`."""
    more = f"space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\ndata file: {data}"
    text = NRRD.format(type="short", sizes="5 6 7", encoding="raw", more=more)
    (folder / "a.nhdr").write_text(text.rstrip("\n") + "\n")
    (folder / "a.mhd").write_text(META.format(type="MET_SHORT", sizes="5 6 7", more="", data=data))
    return folder / "a.nhdr", folder / "a.mhd"


@pytest.mark.parametrize("data", ["x.raw", "./x.raw", "sub/x.raw", "./sub/deep/x.raw"])
@pytest.mark.parametrize("lazily", [False, True])
def test_voxels_beside_a_header_or_below_it(data, lazily, tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "LARGEST_IN_MEMORY", 0 if lazily else 1 << 30)
    (tmp_path / data).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / data).write_bytes(voxels().tobytes(order="F"))
    for header in detached(tmp_path, data):
        scan = open_scan(header)
        assert scan.is_lazy == lazily
        np.testing.assert_array_equal(scan.geometry.to_source(np.asarray(scan.voxels[...])), voxels())


@pytest.mark.parametrize(
    "data", ["{}/x.raw", "../x.raw", "sub/../../x.raw", "out/x.raw", "sub/link.raw", "sub\\x.raw", "C:x.raw"]
)
def test_voxels_that_a_header_may_not_point_to(data, tmp_path):
    (tmp_path / "x.raw").write_bytes(bytes(420))
    folder = tmp_path / "scan"
    (folder / "sub").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "sub" / "link.raw").symlink_to(tmp_path / "x.raw")
    for header in detached(folder, data.format(tmp_path)):
        assert "not beside it or in a folder there; copy them beside it" in refused(header)


def test_detached_voxels_cut_short(tmp_path):
    sitk.WriteImage(itk_image(voxels(), np.eye(4)), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes()[:-1])
    assert "cut short" in refused(tmp_path / "a.mhd")


PLACE = "space: {space}\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (1,2,3)"


def nrrd_of(path, more):
    text = NRRD.format(type="short", sizes="5 6 7", encoding="raw", more=more)
    path.write_bytes(text.encode() + voxels().tobytes(order="F"))
    return open_scan(path)


@pytest.mark.parametrize(
    ("space", "known"),
    [
        *[("left-posterior-superior", True), ("RAS", True), ("LPS", True), ("left-anterior-superior", True)],
        *[("scanner-xyz", False), ("3D-right-handed", False), ("3D-left-handed", False)],
    ],
)
def test_only_a_space_of_the_patient_has_sides(space, known, tmp_path):
    scan = nrrd_of(tmp_path / "a.nrrd", PLACE.format(space=space))
    assert scan.sides_known == known
    assert scan.geometry.spacing == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels())


def test_a_nrrd_without_directions_has_no_sides_and_maybe_no_size(tmp_path):
    scan = nrrd_of(tmp_path / "a.nrrd", "space: left-posterior-superior")
    assert not scan.sides_known
    assert "does not give its voxels a size; 1 mm was taken" in scan.notes[1]
    scan = nrrd_of(tmp_path / "b.nrrd", "spacings: 1 2 3")
    assert not scan.sides_known
    assert len(scan.notes) == 1
    assert "does not give its voxels a size" in nrrd_of(tmp_path / "d.nrrd", "spacings: 1 2 nan").notes[1]
    (tmp_path / "c.mha").write_bytes(
        META.format(type="MET_SHORT", sizes="5 6 7", more="", data="LOCAL").encode() + bytes(420)
    )
    assert "does not give its voxels a size" in open_scan(tmp_path / "c.mha").notes[1]


@pytest.mark.parametrize(("letters", "known"), [("RAI", True), ("LPI", False), ("???", False)])
def test_letters_of_a_metaimage_place_it_only_where_they_say_what_is_taken(letters, known, tmp_path):
    more = f"ElementSpacing = 1 2 3\nAnatomicalOrientation = {letters}\n"
    text = META.format(type="MET_SHORT", sizes="5 6 7", more=more, data="LOCAL")
    (tmp_path / "a.mha").write_bytes(text.encode() + bytes(420))
    scan = open_scan(tmp_path / "a.mha")
    assert scan.geometry.source_axes == "LPS"
    assert scan.sides_known == known


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("um", 1e-3), ("µm", 1e-3), ("mm", 1.0), ("cm", 10.0), ("m", 1000.0), ("", 1.0)]
)
def test_lengths_in_another_unit_become_millimetres(unit, millimetres, tmp_path):
    units = " ".join([f'"{unit}"'] * 3)
    place = PLACE.format(space="left-posterior-superior")
    placed = nrrd_of(tmp_path / "a.nrrd", f"{place}\nspace units: {units}")
    sized = nrrd_of(tmp_path / "b.nrrd", f"spacings: 1 2 3\nunits: {units}")
    for scan in (placed, sized):
        assert scan.geometry.spacing == pytest.approx([n * millimetres for n in (3, 2, 1)])
    assert placed.notes == ()
    np.testing.assert_allclose(placed.geometry.source_affine[:3, 3], np.multiply((-1, -2, 3), millimetres))
    mask = (placed.voxels % 3).astype(np.uint8)
    for name in ("m.nrrd", "m.nii.gz"):
        again, _ = open_labels(save_mask(tmp_path / name, mask, placed, LabelTable.of(["a", "b"])), placed)
        np.testing.assert_array_equal(again, mask)


def test_a_unit_that_is_not_known_is_told(tmp_path):
    place = PLACE.format(space="left-posterior-superior")
    scan = nrrd_of(tmp_path / "a.nrrd", f'{place}\nspace units: "furlong" "furlong" "furlong"')
    assert "millimetres were taken" in scan.notes[0]
    with pytest.raises(ScanError, match="different units"):
        nrrd_of(tmp_path / "b.nrrd", f'{place}\nspace units: "mm" "mm" "um"')
    more = "ElementSpacing = 100 200 300\nDistanceUnits = um\n"
    text = META.format(type="MET_SHORT", sizes="5 6 7", more=more, data="LOCAL")
    (tmp_path / "c.mha").write_bytes(text.encode() + bytes(420))
    assert open_scan(tmp_path / "c.mha").geometry.spacing == pytest.approx((0.3, 0.2, 0.1))


# ── FreeSurfer ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
@pytest.mark.parametrize("codes", ["LIA", "RAS", "PSR"])
def test_freesurfer(name, codes, tmp_path):
    nib.save(nib.MGHImage(voxels(kind="f4"), affine_of(codes)), tmp_path / name)
    scan = open_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels())
    np.testing.assert_allclose(scan.geometry.source_affine, affine_of(codes), atol=1e-5)
    assert scan.geometry.source_axes == codes
    data = (tmp_path / name).read_bytes()
    for cut in (0, 100, 300, len(data) - 40):
        (tmp_path / name).write_bytes(data[:cut])
        assert "cut short" in refused(tmp_path / name)


# ── TIFF ─────────────────────────────────────────────────────────────────────────────────────────


def test_imagej_and_ome_say_how_large_voxels_are(tmp_path):
    array = voxels(kind="u2")
    tifffile.imwrite(
        tmp_path / "j.tif",
        array,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": "mm"},
    )
    tifffile.imwrite(
        tmp_path / "o.ome.tif",
        array,
        metadata={
            **{"axes": "ZYX", "PhysicalSizeX": 250.0, "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "mm"},
            **{"PhysicalSizeZ": 3000.0, "PhysicalSizeZUnit": "µm"},
        },
    )
    for name in ("j.tif", "o.ome.tif"):
        scan = open_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.voxels, array)
        assert scan.geometry.spacing == pytest.approx((3.0, 0.5, 0.25))
        assert len(scan.notes) == 1


CALIBRATED = "ImageJ=1.54f\nimages=7\nslices=7\nunit=mm\nspacing=-3.0\nloop=false\n{}vunit=Gray Value\n"


def imagej_of(path, stored, said):
    tifffile.imwrite(
        path,
        stored,
        **{"photometric": "minisblack", "description": CALIBRATED.format(said), "metadata": None, "resolution": (1, 1)},
    )
    return open_scan(path)


@pytest.mark.parametrize(
    ("said", "kind", "means"),
    [
        ("cf=0\nc0=-32768\nc1=1\n", np.int16, lambda v: v - 32768),
        ("cf=0\nc0=-1024.0\nc1=1.0\n", np.int32, lambda v: v - 1024),
        ("cf=0\nc0=-1000.0\nc1=0.5\n", np.float32, lambda v: v * 0.5 - 1000),
        ("cf=20\n", np.uint16, lambda v: v),
        ("", np.uint16, lambda v: v),
    ],
)
def test_values_of_imagej_are_those_that_it_shows(said, kind, means, tmp_path):
    stored = voxels(kind="u2") + np.uint16(32000)
    scan = imagej_of(tmp_path / "ct.tif", stored, said)
    assert scan.voxels.dtype == kind
    np.testing.assert_array_equal(scan.voxels, means(stored.astype(np.float64)))
    assert scan.geometry.spacing == (3.0, 1.0, 1.0)
    assert len(scan.notes) == 1


def test_a_curve_of_imagej_is_told(tmp_path):
    scan = imagej_of(tmp_path / "a.tif", voxels(kind="u2"), "cf=1\nc0=0\nc1=1\nc2=2\n")
    np.testing.assert_array_equal(scan.voxels, voxels(kind="u2"))
    assert "by a curve that is not read" in scan.notes[-1]


def test_a_plain_tiff_has_no_size_and_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", voxels(kind="u1"), photometric="minisblack")
    scan = open_scan(tmp_path / "a.tif")
    assert scan.geometry.spacing == (1.0, 1.0, 1.0)
    assert "does not give its voxels a size in z, y, x" in scan.notes[1]


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 3)])
def test_flat_and_coloured_tiffs(shape, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", voxels(shape, "u1"), photometric="rgb" if shape[-1] == 3 else "minisblack")
    assert "flat picture" in (sentence := refused(tmp_path / "a.tif")) or "colours" in sentence


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "zlib"}, {"bigtiff": True}])
def test_a_stack_that_is_cut_short_is_no_picture(options, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", voxels(kind="u2"), **options)
    data = (tmp_path / "a.tif").read_bytes()
    np.testing.assert_array_equal(open_scan(tmp_path / "a.tif").voxels, voxels(kind="u2"))
    for share in (0.3, 0.5, 0.7, 0.9):
        (tmp_path / "a.tif").write_bytes(data[: int(len(data) * share)])
        sentence = refused(tmp_path / "a.tif")
        assert "cut short" in sentence or "not a TIFF file that can be read" in sentence


# ── OME-Zarr ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def write_zarr(tmp_path):
    def write_zarr(array, axes="zyx", version=3, name="a.ome.zarr", levels=2, **axis_fields):
        group = zarr.open_group(str(tmp_path / name), mode="w", zarr_format=version)
        datasets = []
        for level in range(levels):
            step = tuple(slice(None, None, 2**level) if axis in "zyx" else slice(None) for axis in axes)
            part = array[step]
            made = group.create_array(
                str(level), shape=part.shape, dtype=part.dtype, chunks=tuple(min(4, n) for n in part.shape)
            )
            made[...] = part
            scale = [{"z": 3.0, "y": 2.0, "x": 1.0}.get(a, 1.0) * (2**level if a in "zyx" else 1) for a in axes]
            datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        kinds = {"t": "time", "c": "channel"}
        described = [
            {"name": a, "type": kinds.get(a, "space"), **({"unit": "millimeter"} if a in "zyx" else {})} for a in axes
        ]
        for axis in described:
            axis.update(axis_fields.get(axis["name"], {}))
        scales = [{"version": {3: "0.5", 2: "0.4"}[version], "axes": described, "datasets": datasets}]
        inner = {"version": scales[0]["version"], "multiscales": scales}
        group.attrs.update({"ome": inner} if version == 3 else inner)
        return tmp_path / name

    return write_zarr


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_is_read_when_it_is_needed(version, write_zarr, monkeypatch):
    array = voxels((12, 10, 8))
    path = write_zarr(array, version=version)
    assert can_open(path)
    reads = []
    real = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, at: reads.append(self.path) or real(self, at))
    scan = open_scan(path)
    assert scan.is_lazy
    assert scan.geometry.spacing == (3.0, 2.0, 1.0)
    assert set(reads) <= {"1"}  # the coarsest level tells it from other scans
    box = Region((2, 3, 1), (6, 7, 5))
    np.testing.assert_array_equal(np.asarray(scan.voxels[box.slices]), array[box.slices])
    np.testing.assert_array_equal(scan.cropped(box).voxels, array[box.slices])
    np.testing.assert_array_equal(np.asarray(scan.voxels), array)


def test_levels_are_there_to_choose(write_zarr):
    path = write_zarr(voxels((12, 10, 8)), levels=3)
    levels = find_series(path)
    assert [(x.key, x.shape, x.spacing) for x in levels] == [
        ("0", (12, 10, 8), (3.0, 2.0, 1.0)),
        ("1", (6, 5, 4), (6.0, 4.0, 2.0)),
        ("2", (3, 3, 2), (12.0, 8.0, 4.0)),
    ]
    assert open_scan(path, series=levels[1]).shape == (6, 5, 4)
    assert "the levels 0 to 2" in refused(path, series="3")


def test_a_lazy_scan_is_known_again_and_its_hash_says_that_it_is_of_a_sample(write_zarr, monkeypatch):
    array = voxels((12, 10, 8))
    one, same = open_scan(write_zarr(array)), open_scan(write_zarr(array, name="b.zarr"))
    other = open_scan(write_zarr(array[::-1], name="c.zarr"))
    assert one.content_hash == same.content_hash != other.content_hash
    assert one.content_hash.endswith("-sampled")
    assert one.content_hash != open_scan(write_zarr(array), series="1").content_hash


def test_orientation_channels_and_time(write_zarr):
    array = voxels((12, 10, 8))
    ways = {"z": "inferior-to-superior", "y": "posterior-to-anterior", "x": "left-to-right"}
    fields = {a: {"orientation": {"type": "anatomical", "value": way}} for a, way in ways.items()}
    scan = open_scan(write_zarr(array, **fields))
    assert scan.geometry.source_axes == "SAR"
    assert scan.notes == ()
    np.testing.assert_array_equal(np.asarray(scan.voxels), array[:, ::-1, ::-1])
    scan = open_scan(write_zarr(voxels((1, 3, 12, 10, 8)), axes="tczyx"))
    assert (scan.leading, scan.voxels.shape) == ("channel", (3, 12, 10, 8))
    np.testing.assert_array_equal(np.asarray(scan.voxels), voxels((1, 3, 12, 10, 8))[0])
    assert open_scan(write_zarr(voxels((2, 1, 12, 10, 8)), axes="tczyx")).leading == "time"
    assert "both channels and a time axis" in refused(write_zarr(voxels((2, 2, 12, 10, 8)), axes="tczyx"))


@pytest.mark.parametrize("version", [2, 3])
def test_an_axis_that_runs_backwards_is_never_mirrored_silently(version, write_zarr):
    path = write_zarr(voxels((12, 10, 8)), version=version)
    document = path / ("zarr.json" if version == 3 else ".zattrs")
    document.write_text(document.read_text().replace("3.0", "-3.0"))
    assert "a size below zero" in refused(path)


def test_ome_zarr_that_cannot_be(write_zarr):
    path = write_zarr(voxels((12, 10, 8)))
    metadata = path / "zarr.json"
    good = metadata.read_text()
    metadata.write_text(good.replace('"path": "0"', '"path": "../0"'))
    assert "outside its own folder" in refused(path)
    metadata.write_text(good.replace('"path": "0"', '"path": "7"'))
    assert "export it again" in refused(path)
    metadata.write_text(good.replace('"name": "z"', '"name": "q"'))
    assert "no axes z, y and x" in refused(path)
    metadata.write_text("{")
    assert not can_open(path)
    assert "is a folder without" in refused(path)
    metadata.write_text(good)
    level = json.loads((path / "0" / "zarr.json").read_text())
    level["chunk_grid"]["configuration"]["chunk_shape"] = [10**5, 10**5, 10**5]
    (path / "0" / "zarr.json").write_text(json.dumps(level))
    assert "blocks or numbers" in refused(path)
    shutil.rmtree(path / "0")
    assert refused(path)


def test_text_nested_without_end_is_damage_like_any_other(write_zarr, scan_of, tmp_path):
    """Python's reader of JSON gives up on it with an error of its own."""
    for name in (".zattrs", "zarr.json"):
        (folder := tmp_path / f"{name[1:]}.zarr").mkdir()
        (folder / name).write_text("[" * 200_000)
        assert can_open(folder) is False
        assert "is a folder without" in refused(folder)
    path = write_zarr(voxels((12, 10, 8)), version=2)
    (path / "0" / ".zarray").write_text("[" * 200_000)
    assert "export it again" in refused(path)
    path = write_zarr(voxels((12, 10, 8)), name="b.zarr")
    (path / "0" / "zarr.json").write_text("[" * 200_000)
    assert "export it again" in refused(path)
    scan = scan_of()
    image = itk_image((voxels() % 3).astype(np.uint8), affine_of("LPS"))
    image.SetMetaData("sparsetok_labels", "[" * 50_000)
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    mask, labels = open_labels(tmp_path / "m.nrrd", scan)
    np.testing.assert_array_equal(mask, scan.voxels % 3)
    assert [label.name for label in labels] == ["label 1", "label 2"]


def test_a_missing_zarr_is_named(write_zarr, monkeypatch):
    import sys

    path = write_zarr(voxels((12, 10, 8)))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ScanError, match=r'pip install "napari-sparsetok\[zarr\]"'):
        ome_zarr.read(path, None, Watch())


def test_a_mask_of_an_ome_zarr(write_zarr, tmp_path):
    scan = open_scan(write_zarr(voxels((12, 10, 8))))
    mask = (np.asarray(scan.voxels) % 3).astype(np.uint8)
    again, _ = open_labels(save_mask(tmp_path / "m.nii.gz", mask, scan, LabelTable.of(["a", "b"])), scan)
    np.testing.assert_array_equal(again, mask)


# ── channels from other grids ────────────────────────────────────────────────────────────────────


def test_a_scan_is_resampled_to_anothers_grid(scan_of, monkeypatch):
    x, y, z = np.mgrid[:12, :14, :10]
    first = scan_of("a.nrrd", array=(x + 10 * y + 100 * z).astype(np.float32), affine=affine_of("LPS"))
    affine = affine_of("RAS")
    affine[:3, 3] = first.geometry.source_affine[:3] @ (8.0, 9.0, 2.0, 1.0)
    geometry = Geometry((5, 4, 3), affine)
    moved = resampled_to(first, geometry)
    assert moved.geometry.same_grid(geometry)
    point = np.linalg.inv(first.geometry.source_affine) @ geometry.affine @ (1, 2, 3, 1)
    assert moved.voxels[1, 2, 3] == pytest.approx(point[0] + 10 * point[1] + 100 * point[2], abs=1e-3)
    assert "was resampled" in moved.notes[-1]
    assert moved.source is None
    monkeypatch.setattr(regrid, "_AT_ONCE", 1)
    steps = []
    np.testing.assert_array_equal(
        resampled_to(first, geometry, Watch(lambda *step: steps.append(step))).voxels, moved.voxels
    )
    assert steps == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(OpeningStopped):
        resampled_to(first, geometry, Watch(should_stop=lambda: True))
    slanted = replace(first, geometry=Geometry(first.geometry.source_shape, oblique(20)), notes=(oblique_note(20),))
    assert resampled_to(slanted, first.geometry).notes == ("“a” was resampled linearly to another scan's voxels.",)
    assert resampled_to(first, first.geometry) is first
    far = affine.copy()
    far[:3, 3] += 1000
    with pytest.raises(ScanError, match="lies somewhere else"):
        resampled_to(first, Geometry((5, 4, 3), far))


@pytest.mark.parametrize(
    ("field", "value"), [("axes", list("zyx")), ("axes", None), ("datasets", []), ("datasets", [{"path": "0"}])]
)
def test_ome_zarr_metadata_that_break_their_own_rules_are_named(field, value, write_zarr):
    path = write_zarr(voxels((12, 10, 8)))
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0][field] = value
    (path / "zarr.json").write_text(json.dumps(document))
    assert f"do not follow version 0.5 of the format ({field})" in refused(path)


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_ome_zarrs_before_units_and_spacing(version, write_zarr):
    """Their levels are told apart by their sizes alone; ome-zarr knows what axes they have."""
    array = voxels((1, 1, 12, 10, 8)) if version != "0.3" else voxels((12, 10, 8))
    path = write_zarr(array, axes="zyx" if version == "0.3" else "tczyx", version=2)
    document = json.loads((path / ".zattrs").read_text())
    image = document["multiscales"][0]
    image |= {"version": version, "datasets": [{"path": data["path"]} for data in image["datasets"]]}
    del image["axes"]
    if version == "0.3":
        image["axes"] = list("zyx")
    (path / ".zattrs").write_text(json.dumps(document))
    assert [(x.shape, x.spacing) for x in find_series(path)] == [
        ((12, 10, 8), (1.0, 1.0, 1.0)),
        ((6, 5, 4), (2.0, 2.0, 2.0)),
    ]
    scan = open_scan(path)
    np.testing.assert_array_equal(np.asarray(scan.voxels), array.reshape(12, 10, 8))
    assert len(scan.notes) == 2  # neither sides nor units are known
    assert any("millimetres were taken" in note for note in scan.notes)
    for wrong in ({"axes": ["z", "x"]}, {"axes": 7}, {"datasets": [{"path": 7}]}, {"datasets": [{}]}, {"datasets": 7}):
        (path / ".zattrs").write_text(json.dumps({"multiscales": [image | wrong]}))
        assert "export it again" in refused(path)
    outside = {"datasets": [{"path": "../a.ome.zarr/0"}]}
    (path / ".zattrs").write_text(json.dumps({"multiscales": [image | outside]}))
    assert "outside its own folder" in refused(path)


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler")  # which ome-zarr's own writer makes
def test_an_ome_zarr_as_ome_zarr_itself_writes_and_reads_it(tmp_path):
    from ome_zarr import OMEZarrImage, OMEZarrMultiscale

    array, unit = voxels((12, 10, 8)), "micrometer"
    image = OMEZarrImage(array, "zyx", {"z": 3000.0, "y": 2000.0, "x": 1000.0}, dict.fromkeys("zyx", unit))
    OMEZarrMultiscale(image, scale_factors=[2]).to_ome_zarr(str(tmp_path / "a.zarr"))
    oracle = OMEZarrMultiscale.from_ome_zarr(str(tmp_path / "a.zarr"))
    for level, (found, expected) in enumerate(zip(find_series(tmp_path / "a.zarr"), oracle.images, strict=True)):
        scan = open_scan(tmp_path / "a.zarr", series=found)
        np.testing.assert_array_equal(np.asarray(scan.voxels), expected.data.compute())
        np.testing.assert_allclose(scan.geometry.spacing, [expected.scale[k] / 1000 for k in "zyx"])
        assert level or np.array_equal(np.asarray(scan.voxels), array)


def test_archives_that_hold_no_scan_to_be_seen(tmp_path):
    def zipped(name, member, data):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, data)
        return tmp_path / name

    with pytest.raises(ScanError, match=r"a\.zip holds further archives, .* unpack it"):
        open_scan(zipped("a.zip", "b.zip", b"PK\x03\x04"))
    with pytest.raises(ScanError, match="is not a scan of a kind that is read"):
        open_scan(zipped("c.zip", "letter.txt", b"Dear colleague"))
    locked = bytearray(zipped("d.zip", "IM1", bytes(200)).read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + flags] |= 1
    (tmp_path / "d.zip").write_bytes(locked)
    with pytest.raises(ScanError, match=r"d\.zip is locked with a password"):
        open_scan(tmp_path / "d.zip")
    with pytest.raises(ScanError, match="with zip files; choose one of them"):
        open_scan(tmp_path)


def test_an_empty_name_is_not_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nothing = ""
    with pytest.raises(ScanError, match="no name was given"):
        open_scan(nothing)
    assert not can_open(nothing)


def test_an_endless_name_is_not_repeated():
    with pytest.raises(ScanError, match="cannot be reached") as caught:
        open_scan("/tmp/" + 3000 * "a/" + "x.nii")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("unit", "millimetres"), [("inch", 25.4), ("micrometer", 1e-3), ("parsec", 0), (None, 0)])
def test_units_of_an_ome_zarr_are_known_or_said_to_be_unknown(unit, millimetres, write_zarr):
    fields = {axis: {"unit": unit} for axis in "zyx"}
    scan = open_scan(write_zarr(voxels((12, 10, 8)), **fields))
    np.testing.assert_allclose(scan.geometry.spacing, np.array([3.0, 2.0, 1.0]) * (millimetres or 1.0))
    assert any("millimetres were taken" in note for note in scan.notes) == (millimetres == 0)


@pytest.mark.parametrize("address", ["https://example.org/a.ome.zarr", "s3://bucket/a.zarr", "file:///tmp/a.nii"])
def test_network_addresses_are_refused_in_words(address):
    with pytest.raises(ScanError, match="no network addresses; copy the scan here first"):
        open_scan(address)
