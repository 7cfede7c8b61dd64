"""One slice in two files: a copy, however it is packed, or two pictures of which nobody knows which is right."""

from __future__ import annotations

import copy
import zipfile

import dicom_maker as make
import numpy as np
import pydicom
import pytest
from dicom_maker import Series
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from napari_sparsetok.files import OpeningStopped, RepairableScanError, find_series, open_scan

CLASH = "two different pictures claim to be the same slice"


@pytest.fixture
def series():
    return Series(make.block(5, 32, 40, kind="u2"))


def write(datasets, folder):
    folder.mkdir(exist_ok=True)
    for k, ds in enumerate(datasets):
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def other(ds):
    """Another picture under the same name."""
    ds = copy.deepcopy(ds)
    changed = ds.pixel_array.copy()
    changed[3, 4] += 1
    ds.PixelData = changed.tobytes()
    return ds


def test_two_pictures_under_one_name_are_told(series, tmp_path):
    slices = series.datasets()
    folder = write([*slices, other(slices[2])], tmp_path / "a")
    with pytest.raises(RepairableScanError, match=CLASH) as caught:
        open_scan(folder)
    assert "image number 3" in str(caught.value)
    scan = open_scan(folder, repair="drop")
    assert scan.shape == (5, 32, 40)
    assert any(CLASH in note for note in scan.notes)
    assert not any("there twice" in note for note in scan.notes)


def test_several_are_counted(series, tmp_path):
    slices = series.datasets()
    folder = write([*slices, *map(other, slices[1:4]), slices[0]], tmp_path / "a")
    (info,) = find_series(folder)
    assert any(CLASH in problem and "2, 3, 4" in problem for problem in info.problems)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    assert find_series(tmp_path / "a.zip")[0].problems == info.problems
    notes = open_scan(folder, repair="drop").notes
    assert any("1 file is there twice" in note for note in notes)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless])
def test_a_copy_that_is_packed_otherwise_is_a_copy(syntax, series, tmp_path):
    folder = write(series.datasets(), tmp_path / "a")
    twin = pydicom.dcmread(folder / "2.dcm")
    if syntax.is_compressed:
        twin.compress(syntax, generate_instance_uid=False)
        twin.save_as(folder / "copy.dcm", enforce_file_format=True)
    else:
        twin.file_meta.TransferSyntaxUID = syntax
        twin.save_as(folder / "copy.dcm", implicit_vr=True, little_endian=True, enforce_file_format=True)
    scan = open_scan(folder)
    assert any("1 file is there twice" in note for note in scan.notes)
    assert np.array_equal(scan.voxels, open_scan(write(series.datasets(), tmp_path / "b")).voxels)


def test_zeros_behind_the_pixels_make_no_other_picture(series, tmp_path):
    folder = write(series.datasets(), tmp_path / "a")
    (folder / "copy.dcm").write_bytes((folder / "2.dcm").read_bytes() + bytes(5000))
    assert any("1 file is there twice" in note for note in open_scan(folder).notes)


def test_frames_of_one_object_are_compared_one_by_one(series, tmp_path):
    whole = make.enhanced(series)
    changed = copy.deepcopy(whole)
    pixels = np.frombuffer(changed.PixelData, "u2").copy()
    pixels[40 * 32 * 2 + 7] += 1  # in the third of five frames
    changed.PixelData = pixels.tobytes()
    folder = write([whole, changed], tmp_path / "a")
    (info,) = find_series(folder)
    assert any(CLASH in problem and "number 3)" in problem for problem in info.problems)


def test_comparing_can_be_stopped(series, tmp_path, monkeypatch):
    from napari_sparsetok.files import dicom_doubles

    folder = write(2 * series.datasets(), tmp_path / "a")
    begun = []
    real = dicom_doubles.Opener
    monkeypatch.setattr(dicom_doubles, "Opener", lambda: begun.append(0) or real())
    with pytest.raises(OpeningStopped):
        find_series(folder, should_stop=lambda: bool(begun))
