"""A mask of a DICOM scan saved as DICOM SEG: the same voxels in the same place for readers that know nothing of us."""

from __future__ import annotations

import errno
import logging
import os
import sys
import zipfile
from pathlib import Path

import dicom_maker as make
import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from dicom_maker import SECRET, Series
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from napari_sparsetok import __version__
from napari_sparsetok.cli import app
from napari_sparsetok.files import MASK_SUFFIXES, MadeBy, mask_suffixes, open_labels, open_scan, save_mask
from napari_sparsetok.labels import Concept, Label, LabelTable
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError

DATA = Path(os.environ.get("SPARSETOK_DATA", Path(__file__).parents[3] / "shared" / "data"))
HIPPOCAMPUS = Concept("5366008", "SCT", "Hippocampus")
LABELS = LabelTable((Label(1, "Vorn “ü”", "#E69F00", HIPPOCAMPUS), Label(2, "back", "#56B4E9")))

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
TWISTED = (0.6, 0.64, 0.48, -0.8, 0.48, 0.36)
SERIES = {
    "axial": {},
    "coronal": {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
    "sagittal": {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
    "oblique": {"orientation": OBLIQUE},
    "twisted": {"orientation": TWISTED},
    "reversed": {"step": -2.0},
    "reversed and oblique": {"orientation": OBLIQUE, "step": -1.5},
    "feet first": {"orientation": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
}


def thirds(scan):
    """A mask that says of each voxel which source pixel it is."""
    return (np.asarray(scan.voxels) % 3).astype(np.uint8)


@pytest.fixture
def series():
    return Series(make.block(6, 9, 14), orientation=OBLIQUE)


@pytest.fixture
def scan(series, tmp_path):
    return open_scan(series.write(tmp_path / "scan"))


def assert_same_place(path, scan, mask, off=1e-3):
    """By highdicom's own idea of where the frames lie, which speaks LPS; to a share of a voxel."""
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    to_voxel = np.linalg.inv(scan.geometry.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    laid = np.zeros_like(mask)
    for number in np.unique(mask[mask > 0]):
        points = np.argwhere(volume.array == number) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        assert np.abs(points - points.round()).max() < off
        laid[tuple(points.round().astype(int).T)] = number
    np.testing.assert_array_equal(laid, mask)


# ── the same voxels in the same place ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", SERIES)
def test_each_source_pixel_has_its_label(kind, tmp_path):
    series = Series(make.block(6, 9, 14), **SERIES[kind])
    scan = open_scan(series.write(tmp_path / "scan", order=[3, 1, 5, 0, 4, 2]))
    path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS)
    sources = [dcmread(file) for file in sorted((tmp_path / "scan").iterdir())]
    pixels = hd.seg.segread(path).get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources], combine_segments=True
    )
    np.testing.assert_array_equal(pixels, np.stack([source.pixel_array for source in sources]) % 3)
    assert_same_place(path, scan, thirds(scan))


@pytest.mark.parametrize("kind", SERIES)
def test_it_opens_as_it_was_saved(kind, tmp_path):
    scan = open_scan(Series(make.block(6, 9, 14), **SERIES[kind]).write(tmp_path / "scan"))
    mask, labels = open_labels(save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS), scan)
    np.testing.assert_array_equal(mask, thirds(scan))
    assert [(label.id, label.name) for label in labels] == [(1, "Vorn “ü”"), (2, "back")]
    assert labels.labels[0].concept == HIPPOCAMPUS


@pytest.mark.parametrize("kind", SERIES)
def test_another_toolkit_lays_it_in_the_same_place(kind, tmp_path):
    scan = open_scan(Series(make.block(6, 8, 14), **SERIES[kind]).write(tmp_path / "scan"))
    mask = (thirds(scan) == 1).astype(np.uint8)
    # It misreads the last pixels of a one-bit image that does not fill its last byte, which this one does.
    image = sitk.ReadImage(str(save_mask(tmp_path / "mask.dcm", mask, scan, LabelTable.of(["a"]))))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.geometry.affine
    found = [
        image[image.TransformPhysicalPointToIndex((lps[:3, :3] @ voxel + lps[:3, 3]).tolist())] > 0
        for voxel in np.argwhere(np.ones_like(mask))
    ]
    np.testing.assert_array_equal(np.reshape(found, mask.shape), mask)


def test_an_enhanced_object_is_referred_to_by_frame(tmp_path):
    (tmp_path / "scan").mkdir()
    source = make.enhanced(Series(make.block(6, 9, 14), orientation=TWISTED))
    source.save_as(tmp_path / "scan" / "one.dcm", enforce_file_format=True)
    scan = open_scan(tmp_path / "scan")
    mask = (((scan.voxels + 5) // 2) % 3).astype(np.uint8)
    path = save_mask(tmp_path / "mask.dcm", mask, scan, LABELS)
    pixels = hd.seg.segread(path).get_pixels_by_source_frame(
        source.SOPInstanceUID, list(range(1, 7)), combine_segments=True
    )
    np.testing.assert_array_equal(pixels, source.pixel_array % 3)
    assert_same_place(path, scan, mask)
    assert len(dcmread(path).ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_one_volume_of_several_refers_to_its_own_frames(tmp_path):
    (tmp_path / "scan").mkdir()
    source = make.enhanced(Series(make.block(4, 8, 8)), times=3)
    source.save_as(tmp_path / "scan" / "one.dcm", enforce_file_format=True)
    scan = open_scan(tmp_path / "scan")
    with pytest.raises(ScanError, match=r"cannot be saved as DICOM: the scan has several volumes.*save it as .nii.gz"):
        save_mask(tmp_path / "mask.dcm", np.ones(scan.shape, np.uint8), scan, LABELS)
    frame = scan.frame(1)
    path = save_mask(tmp_path / "mask.dcm", np.ones(scan.shape, np.uint8), frame, LABELS)
    used = {
        int(item.ReferencedFrameNumber)
        for group in dcmread(path).PerFrameFunctionalGroupsSequence
        for item in group.DerivationImageSequence[0].SourceImageSequence
    }
    assert used == {5, 6, 7, 8}


def test_slices_beside_their_place_open_again(tmp_path):
    series = Series(make.block(8, 9, 14))
    series.positions = series.places() + np.random.default_rng(0).normal(0, 0.01, (8, 3))
    scan = open_scan(series.write(tmp_path / "scan"))
    path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS)
    np.testing.assert_array_equal(open_labels(path, scan)[0], thirds(scan))


def test_a_series_in_a_zip(series, tmp_path):
    folder = series.write(tmp_path / "scan")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"deep/{file.name}")
    scan = open_scan(tmp_path / "scan.zip")
    path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS)
    assert_same_place(path, scan, thirds(scan))


@pytest.mark.parametrize("name", ["hippocrop_1", "t1_head_small", "multiframe/001"])
def test_real_series(name, tmp_path):
    folder = DATA / "dicom" / name
    if not folder.is_dir():
        pytest.skip("the real series are not here; set SPARSETOK_DATA to their folder")
    scan = open_scan(folder)
    bright = np.asarray(scan.voxels) > np.percentile(scan.voxels, 70)
    mask = bright.astype(np.uint8) + (bright & (np.indices(scan.shape)[2] % 2 == 0))
    path = save_mask(tmp_path / "mask.dcm", mask, scan, LABELS)
    assert_same_place(path, scan, mask)
    np.testing.assert_array_equal(open_labels(path, scan)[0], mask)
    assert_complete(dcmread(path))


# ── what it says ─────────────────────────────────────────────────────────────────────────────────

WITH_VALUE = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("SeriesNumber", "InstanceNumber", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"),
    *("SoftwareVersions", "ContentDate", "ContentTime", "ContentLabel", "ImageType", "SegmentationType"),
    *("SegmentSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"),
    *("DimensionOrganizationSequence", "DimensionIndexSequence", "ReferencedSeriesSequence", "LossyImageCompression"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PixelData"),
)
THERE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "ContentDescription"),
)


def assert_complete(dataset):
    """Has what the modules of a segmentation demand, and no number in more than 16 characters."""
    assert [name for name in WITH_VALUE if dataset.get(name) in (None, "", [])] == []
    assert [name for name in THERE if name not in dataset] == []
    for element in dataset.iterall():
        if element.VR == "DS" and element.VM:
            assert all(len(str(v)) <= 16 for v in (element.value if element.VM > 1 else [element.value]))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].SliceThickness
    assert len(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == 6


def test_it_belongs_to_the_patients_study(scan, series, tmp_path):
    dataset = dcmread(save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS))
    source = series.datasets()[0]
    assert_complete(dataset)
    for name in (*THERE[:9], "StudyInstanceUID", "FrameOfReferenceUID"):
        assert dataset[name].value == source[name].value, name
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.Modality == "SEG"
    assert dataset.SegmentationType == "BINARY"
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.mark.parametrize("name", ["mask.dcm", "mask.rtstruct.dcm"])
def test_it_says_that_and_how_the_source_was_deidentified(name, series, tmp_path):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Profile"
    series.extra = {"PatientIdentityRemoved": "YES", "DeidentificationMethodCodeSequence": [code]}
    scan = open_scan(series.write(tmp_path / "scan"))
    dataset = dcmread(save_mask(tmp_path / name, thirds(scan), scan, LABELS))
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.DeidentificationMethodCodeSequence[0].CodeMeaning == "Basic Profile"


def test_it_refers_to_every_image(scan, tmp_path):
    dataset = dcmread(save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS))
    sources = {dcmread(file).SOPInstanceUID: file for file in (tmp_path / "scan").iterdir()}
    (series,) = dataset.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == set(sources)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (item,) = group.DerivationImageSequence[0].SourceImageSequence
        source = dcmread(sources[item.ReferencedSOPInstanceUID])
        assert item.ReferencedSOPClassUID == source.SOPClassUID
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient


def test_segments_have_names_codes_colours_and_an_author(scan, tmp_path):
    path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS, MadeBy("head-model", corrected=False))
    first, second = dcmread(path).SegmentSequence
    assert (first.SegmentLabel, second.SegmentLabel) == ("Vorn “ü”", "back")
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeValue == "91723000"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    red, green, blue = hd.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb()
    assert np.abs(np.array([red, green, blue]) - (0xE6, 0x9F, 0)).max() <= 1
    (algorithm,) = first.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("napari-sparsetok head-model", __version__)


PAIR = LabelTable(
    tuple(
        Label(number, f"Gland {number}", "#009E73", Concept("45289007", "SCT", "Parotid gland", side))
        for number, side in ((1, "right"), (2, "left"))
    )
)


def test_a_pair_of_organs_is_told_apart_by_its_codes(scan, tmp_path):
    path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, PAIR)
    sides = [
        segment.segmented_property_type.SegmentedPropertyTypeModifierCodeSequence[0]
        for segment in hd.seg.segread(path).SegmentSequence
    ]
    assert [(side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) for side in sides] == [
        ("24028007", "SCT", "Right"),
        ("7771000", "SCT", "Left"),
    ]
    mask, labels = open_labels(path, scan)
    assert [label.concept for label in labels] == [label.concept for label in PAIR]
    assert np.array_equal(mask, thirds(scan))


@pytest.mark.parametrize("scheme", ["SCT", "SRT"])
def test_a_side_may_stand_with_the_anatomic_region(scheme, scan, tmp_path):
    path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS)
    dataset = dcmread(path)
    region, side = Dataset(), Dataset()
    side.CodeValue = "7771000" if scheme == "SCT" else "G-A101"
    side.CodingSchemeDesignator, side.CodeMeaning = scheme, "Left"
    region.AnatomicRegionModifierSequence = [side]
    dataset.SegmentSequence[0].AnatomicRegionSequence = [region]
    dataset.save_as(path)
    _, labels = open_labels(path, scan)
    assert [label.concept.part for label in labels] == ["left", ""]


@pytest.mark.parametrize(
    ("made_by", "kind"),
    [(MadeBy("m", False), "AUTOMATIC"), (MadeBy("m", True), "SEMIAUTOMATIC"), (None, "SEMIAUTOMATIC")],
)
def test_it_says_whether_a_person_had_a_hand_in_it(made_by, kind, scan, tmp_path):
    dataset = dcmread(save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS, made_by))
    assert {segment.SegmentAlgorithmType for segment in dataset.SegmentSequence} == {kind}


def test_the_command_line_says_which_model_drew_it(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "models")
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "models"))
    folder = Series(make.block(18, 20, 24), spacing=(1.0, 1.0), step=1.0).write(tmp_path / "scan")
    arguments = ["segment", folder, "--model", "tiny", "--out", tmp_path / "mask.dcm"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    (segment, *_) = dcmread(tmp_path / "mask.dcm").SegmentSequence
    assert segment.SegmentAlgorithmName == "napari-sparsetok tiny"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"


def test_numbers_with_gaps_become_segments_in_order(scan, tmp_path):
    labels = LabelTable((Label(3, "three", "#E69F00"), Label(7, "seven", "#56B4E9"), Label(9, "absent", "#009E73")))
    mask = np.zeros(scan.shape, np.uint8)
    mask[1, 2, 3], mask[2, 3, 4], mask[3, 4, 1] = 3, 7, 200
    again, table = open_labels(save_mask(tmp_path / "mask.dcm", mask, scan, labels), scan)
    assert [label.name for label in table] == ["three", "seven", "absent", "label 200"]
    assert (again[1, 2, 3], again[2, 3, 4], again[3, 4, 1], np.count_nonzero(again)) == (1, 2, 4, 3)


def test_an_empty_mask_is_an_answer_too(scan, tmp_path):
    empty = np.zeros(scan.shape, np.uint8)
    again, table = open_labels(save_mask(tmp_path / "mask.dcm", empty, scan, LABELS), scan)
    assert not again.any()
    assert len(table) == 2
    with pytest.raises(ScanError, match="the mask is empty and has no label"):
        save_mask(tmp_path / "none.dcm", empty, scan, LabelTable(()))


def test_a_series_that_lacks_what_it_should_have(series, tmp_path):
    folder = series.write(tmp_path / "scan")
    for file in folder.iterdir():
        dataset = dcmread(file)
        for name in (*THERE[:9], "FrameOfReferenceUID", "SeriesNumber", "SliceThickness", "Manufacturer"):
            if name in dataset:
                del dataset[name]
        dataset.save_as(file)
    scan = open_scan(folder)
    one, two = (dcmread(save_mask(tmp_path / f"{k}.dcm", thirds(scan), scan, LABELS)) for k in range(2))
    assert_complete(one)
    assert one.FrameOfReferenceUID == two.FrameOfReferenceUID
    assert one.SOPInstanceUID != two.SOPInstanceUID


@pytest.mark.parametrize("name", [SECRET, "Lovelace", "Müller^Jürgen", "山田^太郎"])
def test_the_patient_is_named_in_the_file_and_nowhere_else(name, series, tmp_path, caplog, capfd):
    series.extra = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": name}
    scan = open_scan(series.write(tmp_path / "scan"))
    with caplog.at_level(logging.DEBUG):
        path = save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS)
    assert str(dcmread(path).PatientName) == name
    assert capfd.readouterr() == ("", "")
    said = caplog.text
    for secret in (*name.split("^"), "4711-0815", series.study, series.uid):
        assert secret not in said


# ── when it cannot be ────────────────────────────────────────────────────────────────────────────


def test_what_a_window_may_offer(scan, tmp_path):
    assert mask_suffixes(scan) == (*MASK_SUFFIXES, ".dcm", ".rtstruct.dcm")
    assert mask_suffixes(Scan(scan.voxels, scan.geometry)) == MASK_SUFFIXES
    assert mask_suffixes(scan.cropped(Region((0, 0, 0), (2, 2, 2)))) == MASK_SUFFIXES
    nifti = save_mask(tmp_path / "mask.nii.gz", thirds(scan), scan, LABELS)
    assert mask_suffixes(open_scan(nifti)) == MASK_SUFFIXES


@pytest.mark.parametrize("name", ["mask.dcm", "mask.rtstruct.dcm", "MASK.DCM"])
def test_a_scan_that_was_not_dicom(name, tmp_path):
    scan = Scan(np.zeros((4, 5, 6)), Geometry.shown((4, 5, 6)))
    with pytest.raises(ScanError, match="cannot be saved as DICOM: the scan was not opened from DICOM"):
        save_mask(tmp_path / name, np.ones(scan.shape, np.uint8), scan, LABELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mask.dcm", "mask.rtstruct.dcm"])
def test_a_scan_that_was_resampled(name, tmp_path):
    series = Series(make.block(8, 9, 14))
    places = series.places()
    places[5:] += (0, 0, 1.0)
    series.positions = places
    scan = open_scan(series.write(tmp_path / "scan"), repair="resample")
    assert mask_suffixes(scan) == MASK_SUFFIXES
    with pytest.raises(ScanError, match="the scan was resampled when it was opened"):
        save_mask(tmp_path / name, np.ones(scan.shape, np.uint8), scan, LABELS)


@pytest.mark.parametrize("name", ["mask.dcm", "mask.rtstruct.dcm"])
def test_a_series_that_is_gone_or_another(name, scan, series, tmp_path):
    Series(series.pixels, orientation=OBLIQUE).write(tmp_path / "scan")
    with pytest.raises(ScanError, match="has changed on disk since it was opened; open it again"):
        save_mask(tmp_path / name, thirds(scan), scan, LABELS)
    for file in (tmp_path / "scan").iterdir():
        file.unlink()
    with pytest.raises(ScanError, match="cannot be read"):
        save_mask(tmp_path / name, thirds(scan), scan, LABELS)


@pytest.mark.parametrize("write_rtstruct", [False, True])
def test_an_image_of_the_scan_is_not_overwritten(write_rtstruct, series, tmp_path):
    name = "IM{:04d}.rtstruct.dcm" if write_rtstruct else "IM{:04d}.dcm"
    scan = open_scan(series.write(tmp_path / "scan", name))
    target = tmp_path / "scan" / name.format(3)
    before = target.read_bytes()
    with pytest.raises(ScanError, match="is the scan itself; choose another name"):
        save_mask(target, thirds(scan), scan, LABELS)
    assert target.read_bytes() == before


def test_without_highdicom(scan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ScanError, match=r'needs highdicom; install it with pip install "napari-sparsetok\[dicom\]"'):
        save_mask(tmp_path / "mask.dcm", thirds(scan), scan, LABELS)
    assert save_mask(tmp_path / "mask.rtstruct.dcm", thirds(scan), scan, LABELS).is_file()


def full_disk(*_args, **_keys):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["mask.dcm", "mask.rtstruct.dcm"])
@pytest.mark.parametrize(("owner", "function"), [(os, "fsync"), (os, "replace"), (Path, "write_bytes")])
@pytest.mark.parametrize("old", [None, b"an older mask"])
def test_a_full_disk_leaves_what_was_there(name, owner, function, old, scan, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / name
    if old is not None:
        target.write_bytes(old)
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, full_disk)
        with pytest.raises(ScanError, match=r"could not be saved .*No space left on device.*; nothing was overwritten"):
            save_mask(target, thirds(scan), scan, LABELS)
    assert sorted(folder.iterdir()) == ([target] if old is not None else [])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("ending", [".dcm", ".rtstruct.dcm", ".nii.gz"])
def test_a_name_that_is_too_long_is_said_in_words(ending, scan, tmp_path):
    with pytest.raises(ScanError, match="could not be saved .File name too long.; nothing was overwritten"):
        save_mask(tmp_path / ("x" * 300 + ending), thirds(scan), scan, LABELS)


def test_outlines_that_are_opened_are_called_so(scan, tmp_path):
    path = save_mask(tmp_path / "mask.rtstruct.dcm", thirds(scan), scan, LABELS)
    for opened in (lambda: open_scan(path), lambda: open_labels(path, scan)):
        with pytest.raises(ScanError, match="outlines .RTSTRUCT. are not read"):
            opened()
