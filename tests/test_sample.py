"""Samples: the template's hippocampi sit where a hippocampus crop has them; the phantom can be drawn again."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sparsetok import sample
from napari_sparsetok.files import open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.sample import SAMPLES, hippocampus_region, open_sample
from napari_sparsetok.scan import ScanError

FOLDER = Path(__file__).parents[1] / "sample_data"
SIDES = ["hippocampus_left", "hippocampus_right"]

needs_nilearn = pytest.mark.skipif(not importlib.util.find_spec("nilearn"), reason="nilearn is not installed")


@pytest.fixture(scope="module")
def head():
    return open_sample("mni152")


# ── the template ─────────────────────────────────────────────────────────────────────────────────


@needs_nilearn
def test_the_whole_brain(head):
    assert head.geometry.same_grid(sample.TEMPLATE_GEOMETRY)
    assert head.shape == (189, 233, 197)
    assert head.voxels.dtype == np.float32
    assert head.voxels.max() == 1.0
    assert head.notes == ()


@needs_nilearn
@pytest.mark.parametrize("name", SIDES)
def test_a_crop_is_that_region_of_the_brain(name, head):
    crop, region = open_sample(name), hippocampus_region(name)
    assert crop.shape == region.shape == (40, 50, 36)
    assert crop.geometry.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(crop.voxels, head.voxels[region.slices])
    np.testing.assert_allclose(crop.geometry.affine @ (0, 0, 0, 1), head.geometry.affine @ (*region.start, 1))


@needs_nilearn
@pytest.mark.parametrize(("name", "side"), [("hippocampus_left", -1), ("hippocampus_right", 1)])
def test_the_hippocampus_lies_in_its_crop(name, side):
    geometry = open_sample(name).geometry
    # Its outermost voxels in MNI millimetres.
    ends = [np.linalg.inv(geometry.affine) @ (side * x, y, z, 1) for x, y, z in ((14, -41, -31), (38, -5, 1))]
    first, last = np.min(ends, axis=0)[:3], np.max(ends, axis=0)[:3]
    before, behind = first, np.array(geometry.shape) - 1 - last
    assert before.min() >= 3
    assert behind.min() >= 3
    assert max(before.max(), behind.max()) <= 7


@needs_nilearn
def test_left_is_on_the_patients_left():
    # On the shown x axis, which leads to the patient's left, and so to the screen's right.
    left, right = (hippocampus_region(name) for name in SIDES)
    assert left.start[2] >= right.stop[2]
    assert left.start[:2] == right.start[:2]


@needs_nilearn
def test_both_crops_are_mirror_images():
    left, right = (open_sample(name) for name in SIDES)  # the template is symmetric
    assert np.abs(left.voxels - right.voxels[:, :, ::-1]).mean() < 0.02
    np.testing.assert_allclose(
        left.geometry.affine @ (0, 0, 0, 1), (right.geometry.affine @ (0, 0, 35, 1)) * (-1, 1, 1, 1)
    )


@needs_nilearn
def test_a_mask_of_a_sample_can_be_saved(tmp_path):
    crop = open_sample("hippocampus_left")
    mask = (crop.voxels > 0.5).astype(np.uint8)
    target = save_mask(tmp_path / "mask.nii.gz", mask, crop, LabelTable.of(["bright"]))
    again = open_scan(target)
    assert again.geometry.same_grid(crop.geometry)
    np.testing.assert_array_equal(again.voxels, mask)


# ── the phantom ──────────────────────────────────────────────────────────────────────────────────


def phantom_maker():
    spec = importlib.util.spec_from_file_location("make_phantom", FOLDER / "make_phantom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_phantom_opens():
    scan = open_sample("phantom")
    assert scan.shape == (72, 88, 72)
    assert scan.geometry.spacing == (1.0, 1.0, 1.0)
    assert scan.notes == ()


def test_the_phantom_can_be_drawn_again():
    maker = phantom_maker()
    drawn, truth = maker.make_phantom()
    stored = nib.load(FOLDER / "phantom_t1.nii.gz")
    np.testing.assert_array_equal(stored.affine, maker.affine())
    difference = np.abs(np.asanyarray(stored.dataobj).astype(int) - drawn)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    np.testing.assert_array_equal(np.asanyarray(nib.load(FOLDER / "phantom_truth.nii.gz").dataobj), truth)


def test_the_files_can_be_written_again(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make_phantom.py", tmp_path], check=True)
    for name in ("phantom_t1.nii.gz", "phantom_truth.nii.gz"):
        again, stored = open_scan(tmp_path / name), open_scan(FOLDER / name)
        assert again.geometry.same_grid(stored.geometry)
        np.testing.assert_allclose(again.voxels.astype(int), stored.voxels, atol=1)


def test_another_seed_draws_other_folds():
    maker = phantom_maker()
    assert (maker.make_phantom(1)[0] != maker.make_phantom(2)[0]).mean() > 0.5


def test_the_phantoms_truth_is_a_hippocampus_of_plausible_size():
    truth, scan = open_scan(FOLDER / "phantom_truth.nii.gz"), open_sample("phantom")
    assert truth.geometry.same_grid(scan.geometry)
    anterior, posterior = (truth.voxels == k for k in (1, 2))
    for part in (anterior, posterior):
        assert 1000 < part.sum() < 2500  # mm³
    assert np.argwhere(anterior)[:, 1].max() < np.argwhere(posterior)[:, 1].min()  # in front
    body, around = scan.voxels[anterior | posterior], scan.voxels[anterior | posterior].mean()
    assert body.std() < 10
    assert 50 < around < 75


def test_the_phantom_is_small():
    assert (FOLDER / "phantom_t1.nii.gz").stat().st_size <= 300_000


# ── what can go wrong ────────────────────────────────────────────────────────────────────────────


def test_every_sample_has_a_title():
    assert set(SAMPLES) == {"mni152", "phantom", *SIDES}
    assert all(SAMPLES.values())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_called_by_its_title(name):
    if name != "phantom":
        pytest.importorskip("nilearn")
    scan = open_sample(name)
    assert scan.name == SAMPLES[name]
    assert np.isfinite(scan.voxels).all()


def test_an_unknown_sample():
    with pytest.raises(ScanError, match="no sample is called “brain”; there are hippocampus_left"):
        open_sample("brain")


def test_a_region_of_something_else():
    with pytest.raises(ScanError, match="no hippocampus is called “mni152”"):
        hippocampus_region("mni152")


@pytest.mark.parametrize("name", ["mni152", *SIDES])
def test_without_nilearn_it_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(ScanError, match=r'pip install "napari-sparsetok\[samples\]"'):
        open_sample(name)
    assert open_sample("phantom").shape == (72, 88, 72)
    assert hippocampus_region("hippocampus_left").shape == (40, 50, 36)


@pytest.mark.parametrize("installed", [True, False])
def test_the_phantom_is_found_in_a_wheel_and_in_a_checkout(installed, tmp_path, monkeypatch):
    package = tmp_path / "napari_sparsetok"
    folder = (package if installed else tmp_path) / "sample_data"
    folder.mkdir(parents=True)
    (folder / "phantom_t1.nii.gz").write_bytes((FOLDER / "phantom_t1.nii.gz").read_bytes())
    monkeypatch.setattr(sample, "__file__", str(package / "sample.py"))
    assert open_sample("phantom").source.path == (folder / "phantom_t1.nii.gz").resolve()


def test_an_installation_without_the_phantom(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "__file__", str(tmp_path / "napari_sparsetok" / "sample.py"))
    with pytest.raises(ScanError, match=r"phantom_t1\.nii\.gz is missing .* install napari-sparsetok again"):
        open_sample("phantom")


def test_importing_samples_loads_neither_nilearn_nor_torch():
    code = "import sys, napari_sparsetok.sample; sys.exit(bool({'nilearn', 'torch', 'napari'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=FOLDER.parent)


@needs_nilearn
def test_the_template_needs_no_network():
    code = (
        "import socket\n"
        "def refuse(*args, **keys): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from napari_sparsetok.sample import open_sample\n"
        "assert open_sample('hippocampus_left').shape == (40, 50, 36)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=FOLDER.parent)
