"""Analyze 7.5 and pairs of NIfTI: read from either half, refused in words where they cannot be."""

from __future__ import annotations

import gzip
import json
import random
import shutil

import dicom_maker as make
import nibabel as nib
import numpy as np
import pytest
from dicom_maker import Series
from nibabel.spm99analyze import Spm99AnalyzeHeader, Spm99AnalyzeImage
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.files import can_open, open_labels, open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError

AFFINE = np.array([[0, -2.0, 0, 30], [0, 0, 3.0, -20], [1.0, 0, 0, 10], [0, 0, 0, 1]])


def voxels(shape=(5, 6, 7), kind="i2"):
    return np.random.default_rng(3).integers(0, 200, shape).astype(kind)


def refused(path):
    with pytest.raises(ScanError) as caught:
        open_scan(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def analyze(path, array, kind=nib.AnalyzeImage, steps=(1.0, 2.0, 3.0), **fields):
    """A pair as other programs write it, the file that `path` names and the one beside it."""
    image = kind(array, np.diag([*steps, 1.0]))
    image.to_filename(path)
    header = bytearray(path.with_suffix(".hdr").read_bytes())
    changed = Spm99AnalyzeHeader(bytes(header), check=False)
    for name, value in fields.items():
        changed[name] = value
    path.with_suffix(".hdr").write_bytes(changed.binaryblock + header[348:])
    path.with_suffix(".mat").unlink(missing_ok=True)
    return path


# ── NIfTI ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("half", [".hdr", ".img"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 3)])
def test_a_nifti_pair_is_the_scan_that_one_file_is(kind, half, shape, tmp_path):
    nib.save(kind(voxels(shape), AFFINE), tmp_path / "a.img")
    nib.save(nib.Nifti1Image(voxels(shape), AFFINE), tmp_path / "b.nii")
    pair, one = open_scan(tmp_path / f"a{half}"), open_scan(tmp_path / "b.nii")
    np.testing.assert_array_equal(pair.voxels, one.voxels)
    np.testing.assert_array_equal(pair.geometry.source_affine, one.geometry.source_affine)
    assert (pair.name, pair.leading, pair.notes) == ("a", one.leading, one.notes)
    assert pair.sides_known


def test_scaled_packed_and_in_capitals(tmp_path):
    image = nib.Nifti1Pair(voxels().astype(float) / 3, AFFINE)
    image.set_data_dtype("i2")
    nib.save(image, tmp_path / "a.img")
    plain = open_scan(tmp_path / "a.hdr")
    np.testing.assert_allclose(plain.geometry.to_source(plain.voxels), voxels() / 3, atol=1e-2)
    for name in ("a.hdr", "a.img"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        shutil.copy(tmp_path / name, tmp_path / name.upper())
    (tmp_path / "a.img").unlink()  # one half packed, the other not
    for name in ("a.hdr", "a.hdr.gz", "a.img.gz", "A.HDR", "A.IMG"):
        np.testing.assert_array_equal(open_scan(tmp_path / name).voxels, plain.voxels)
    assert open_scan(tmp_path / "a.img.gz").name == "a"


def test_a_mask_of_a_pair_lies_on_it(tmp_path):
    nib.save(nib.Nifti1Pair(voxels(), AFFINE), tmp_path / "a.img")
    scan = open_scan(tmp_path / "a.img")
    mask = (scan.voxels % 3).astype(np.uint8)
    saved = save_mask(tmp_path / "m.nii.gz", mask, scan, LabelTable.of(["one", "two"]))
    np.testing.assert_array_equal(open_labels(saved, scan)[0], mask)
    np.testing.assert_array_equal(np.asarray(nib.load(saved).dataobj), voxels() % 3)
    np.testing.assert_array_equal(nib.load(saved).affine, AFFINE)


# ── Analyze ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("half", [".hdr", ".img"])
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_analyze_says_that_sides_are_unknown(half, kind, order, tmp_path):
    header = nib.AnalyzeHeader(endianness=order)
    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    nib.AnalyzeImage(voxels(kind=kind), np.diag([1.0, 2.0, 3.0, 1.0]), header).to_filename(tmp_path / "a.img")
    scan = open_scan(tmp_path / f"a{half}")
    assert not scan.sides_known
    assert scan.source.format == "analyze"
    assert scan.geometry.spacing == (3.0, 2.0, 1.0)
    assert scan.voxels.dtype == np.dtype(kind)
    assert scan.name == "a"
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels(kind=kind))
    np.testing.assert_allclose(scan.geometry.source_affine, nib.load(tmp_path / "a.hdr").affine)


def test_the_factor_and_the_origin_of_spm(tmp_path):
    path = analyze(tmp_path / "a.img", voxels(), Spm99AnalyzeImage, scl_slope=0.5, origin=[2, 3, 4, 0, 0])
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels), voxels() / 2)
    assert any("multiplies the stored values by 0.5" in note for note in scan.notes)
    np.testing.assert_allclose(scan.geometry.source_affine @ (1, 2, 3, 1), (0, 0, 0, 1), atol=1e-6)


def test_analyze_with_several_volumes(tmp_path):
    scan = open_scan(analyze(tmp_path / "a.img", voxels((5, 6, 7, 3))))
    assert scan.leading == "time"
    np.testing.assert_array_equal(scan.geometry.to_source(scan.frame(1).voxels), voxels((5, 6, 7, 3))[..., 1])
    mask = (scan.frame(1).voxels % 2).astype(np.uint8)
    again, _ = open_labels(save_mask(tmp_path / "m.nii", mask, scan.frame(1), LabelTable.of(["a"])), scan.frame(1))
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "header claims 54000.0 GB"),
        ({"dim": [3, 5, 6, 0, 1, 1, 1, 1]}, "holds no voxels"),
        ({"dim": [3, 5, 6, -7, 1, 1, 1, 1]}, "holds no voxels"),
        ({"dim": [2, 5, 6, 7, 1, 1, 1, 1]}, "flat picture"),
        ({"dim": [5, 5, 6, 7, 2, 2, 1, 1]}, "5 axes"),
        ({"datatype": 128}, "stores colours"),
        ({"datatype": 32}, "stores complex numbers"),
        ({"datatype": 1}, "of a kind that is not read"),
        ({"pixdim": [0, 1, 0, 1, 1, 1, 1, 1]}, "gives its voxels no size"),
        ({"pixdim": [0, 1, np.nan, 1, 1, 1, 1, 1]}, "gives its voxels no size"),
        ({"vox_offset": -400.0}, "contradicts"),
        ({"vox_offset": 1e30}, "header claims"),
        ({"scl_slope": np.inf}, "scales its values"),
    ],
)
def test_an_analyze_header_that_cannot_be(fields, words, tmp_path):
    assert words in refused(analyze(tmp_path / "a.img", voxels(), **fields))


def test_halves_that_do_not_make_a_pair(tmp_path):
    path = analyze(tmp_path / "a.img", voxels())
    shutil.copy(path, tmp_path / "b.img")
    shutil.copy(path.with_suffix(".hdr"), tmp_path / "c.hdr")
    assert "b.hdr is not beside it" in refused(tmp_path / "b.img")
    assert "c.img is not beside it" in refused(tmp_path / "c.hdr")
    assert "there is no file" in refused(tmp_path / "nothing.hdr")
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut short" in refused(path)
    path.with_suffix(".hdr").write_bytes(bytes(348))
    assert "is not of a NIfTI or Analyze pair" in refused(path)
    path.with_suffix(".hdr").write_bytes(b"ENVI\nsamples = 5\nlines = 6\nbands = 7\n" * 20)
    assert "is not of a NIfTI or Analyze pair" in refused(path)
    nib.save(nib.Nifti1Image(voxels(), AFFINE), tmp_path / "whole.nii")
    (tmp_path / "whole.nii").rename(tmp_path / "a.hdr")
    assert "a whole NIfTI file" in refused(path)


@pytest.mark.parametrize("seed", range(3))
def test_spoilt_headers_end_in_a_sentence(seed, tmp_path):
    dice = random.Random(seed)
    path = analyze(tmp_path / "a.img", voxels())
    sound = path.with_suffix(".hdr").read_bytes()
    ends = []
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(dice.choice((1, 2, 8, 40))):
            data[dice.randrange(4, 348)] = dice.choice((0, 0xFF, 0x7F, 0x80, dice.randrange(256)))
        path.with_suffix(".hdr").write_bytes(bytes(data[: dice.choice((348, 348, dice.randrange(348)))]))
        try:
            open_scan(path)
        except ScanError as error:
            ends.append(str(error))
    assert ends
    assert not any(word in end for end in ends for word in ("Error(", "NoneType", "\n"))


def test_dicom_slices_that_are_called_img(tmp_path):
    folder = Series(make.block(4)).write(tmp_path / "a", name="IM{:03d}.img")
    assert open_scan(folder / "IM001.img").shape == (4, 8, 10)
    assert open_scan(folder).shape == (4, 8, 10)


# ── on the command line ──────────────────────────────────────────────────────────────────────────


def test_info_on_pairs(tmp_path):
    path = analyze(tmp_path / "a.img", voxels(), descrip=b"Lovelace")
    assert can_open(path)
    run = CliRunner().invoke(app, ["info", "--json", str(path)])
    assert run.exit_code == 0
    found = json.loads(run.stdout)
    assert found["format"] == "NIfTI or Analyze pair"
    assert found["scan"]["voxels_zyx"] == [7, 6, 5]
    assert any("left and right cannot be told" in note for note in found["scan"]["notes"])
    assert "Lovelace" not in run.output
    path.unlink()
    run = CliRunner().invoke(app, ["info", str(tmp_path / "a.hdr")])
    assert run.exit_code == 2
    assert "a.img is not beside it" in run.output.replace("\n", " ")
