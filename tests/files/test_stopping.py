"""One large file says how far it is, and can be stopped in the middle."""

from __future__ import annotations

import threading
import zipfile

import dicom_maker as make
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from dicom_maker import Series
from pydicom.uid import JPEG2000Lossless, RLELossless

from napari_sparsetok.files import OpeningStopped, open_scan, reading, unpacking
from napari_sparsetok.scan import ScanError

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def voxels(shape=(20, 21, 22)):
    return np.random.default_rng(0).integers(0, 200, shape).astype("i2")


def enhanced(path, syntax=None, times=2):
    made = make.enhanced(Series(make.block(6, 32, 40, kind="u2")), times=times)
    if syntax:
        made.compress(syntax, generate_instance_uid=False)
    made.save_as(path, enforce_file_format=True)


def zipped(path):
    enhanced(path.with_suffix(".dcm"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_suffix(".dcm"), "a")


WRITERS = {
    "a.nii": lambda path: nib.save(nib.Nifti1Image(voxels(), AFFINE), path),
    "a.nii.gz": lambda path: nib.save(nib.Nifti1Image(voxels(), AFFINE), path),
    "a.img": lambda path: nib.save(nib.AnalyzeImage(voxels(), AFFINE), path),
    "a.mgh": lambda path: nib.save(nib.MGHImage(voxels(), AFFINE), path),
    "a.mgz": lambda path: nib.save(nib.MGHImage(voxels(), AFFINE), path),
    "a.nrrd": lambda path: sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(path), useCompression=False),
    "a.mha": lambda path: sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(path), useCompression=False),
    "packed.nrrd": lambda path: sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(path), useCompression=True),
    "packed.mha": lambda path: sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(path), useCompression=True),
    "pages.tif": lambda path: tifffile.imwrite(path, voxels(), photometric="minisblack", compression="zlib"),
    "imagej.tif": lambda path: tifffile.imwrite(path, voxels(), imagej=True),
    "a.dcm": enhanced,
    "a.zip": lambda path: zipped(path),
    "j2k.dcm": lambda path: enhanced(path, JPEG2000Lossless),
    "rle.dcm": lambda path: enhanced(path, RLELossless),
}


@pytest.fixture(params=WRITERS)
def path(request, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 4096)
    WRITERS[request.param](tmp_path / request.param)
    return tmp_path / request.param


def test_progress_rises_to_the_end(path):
    steps = []
    open_scan(path, on_progress=lambda done, total: steps.append((done, total)))
    inner = [step for step in steps if step[1] > 1]
    assert len(inner) > 4
    assert inner == sorted(inner)
    assert steps[-1] == (1, 1)
    assert all(done <= total for done, total in steps)


def test_it_stops_in_the_middle(path):
    seen = []

    def progress(done, total):
        if total > 4:
            seen.append(done)

    with pytest.raises(OpeningStopped):
        open_scan(path, on_progress=progress, should_stop=lambda: len(seen) >= 3)
    assert len(seen) == 3


# What a library reads in one step


def vectors(path):
    """Several numbers a voxel, which are left to the library."""
    image = sitk.GetImageFromArray(voxels((8, 9, 10, 5)), isVector=True)
    sitk.WriteImage(image, str(path), useCompression=True)


IN_ONE_STEP = {"packed.nrrd": (vectors, (sitk, "ReadImage")), "packed.mha": (vectors, (sitk, "ReadImage"))}


@pytest.mark.parametrize("name", IN_ONE_STEP)
def test_one_long_step_is_left_to_itself_when_it_is_to_stop(name, tmp_path, monkeypatch):
    write, (owner, method) = IN_ONE_STEP[name]
    write(tmp_path / name)
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    real = getattr(owner, method)

    def slow(*args, **options):
        begun.set()
        assert go.wait(20)
        try:
            return real(*args, **options)
        finally:
            ended.set()

    monkeypatch.setattr(owner, method, slow)
    steps = []
    with pytest.raises(OpeningStopped):
        open_scan(
            tmp_path / name,
            on_progress=lambda *step: steps.append(step),
            should_stop=lambda: begun.is_set() and (0, 0) in steps,
        )
    assert not ended.is_set(), "nobody waited for it"
    assert (0, 0) in steps, "busy, without a measure"
    go.set()
    assert ended.wait(20)


def test_an_error_in_one_long_step_is_told(tmp_path, monkeypatch):
    IN_ONE_STEP["packed.nrrd"][0](tmp_path / "a.nrrd")

    def broken(name):
        raise RuntimeError("deep inside")

    monkeypatch.setattr(sitk, "ReadImage", broken)
    with pytest.raises(ScanError, match=r"a\.nrrd is damaged"):
        open_scan(tmp_path / "a.nrrd")


def test_what_is_stopped_was_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 4096)
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(voxels((64, 64, 64)), AFFINE), path)
    read = []
    real = unpacking.Unpacked.read
    monkeypatch.setattr(unpacking.Unpacked, "read", lambda self, size: read.append(size) or real(self, size))
    with pytest.raises(OpeningStopped):
        open_scan(path, should_stop=lambda: len(read) > 6)
    assert sum(read) < 50_000
