"""A mask of a DICOM scan saved as RTSTRUCT: filled by other programs, its outlines give back the mask."""

from __future__ import annotations

import os
from pathlib import Path

import dicom_maker as make
import numpy as np
import pytest
from dicom_maker import SECRET, Series
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import dcmread
from scipy import ndimage
from skimage.draw import polygon

from napari_sparsetok import __version__
from napari_sparsetok.files import MadeBy, open_scan, save_mask
from napari_sparsetok.files.contour import outlines
from napari_sparsetok.labels import Concept, Label, LabelTable

DATA = Path(os.environ.get("SPARSETOK_DATA", Path(__file__).parents[3] / "shared" / "data"))
LABELS = LabelTable(
    (Label(1, "outer", "#E69F00"), Label(7, "Innen “ü”", "#56B4E9", Concept("1", "99T", "inner", "left")))
)

SERIES = {
    "axial": {},
    "oblique": {"orientation": (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)},
    "twisted": {"orientation": (0.6, 0.64, 0.48, -0.8, 0.48, 0.36)},
    "reversed": {"step": -2.0},
}


def shells(shape):
    """A hollow ball of 1 with a ball of 7 in it, a hole in the ball, and a speck beside them."""
    grid = np.indices(shape)
    centre = np.array(shape).reshape(3, 1, 1, 1) / 2
    radius = np.sqrt((((grid - centre) / (centre - 1)) ** 2).sum(0))
    mask = np.where(radius < 0.95, 1, 0) - np.where(radius < 0.75, 1, 0)
    mask = np.where((radius < 0.55) & (radius > 0.2), 7, mask)
    mask[:, 0, 0] = 1
    return mask.astype(np.uint8)


def filled(corners, shape):
    """Rows and columns inside a polygon, by scikit-image."""
    inside = np.zeros(shape, bool)
    columns, rows = np.asarray(corners).T
    inside[polygon(rows, columns, shape)] = True
    return inside


def winding(corners, shape):
    """How often a polygon winds around each pixel: what programs that do not count crossings look at."""
    rows, columns = np.indices(shape)
    turns = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossing = (columns < x0) & (np.minimum(y0, y1) < rows) & (rows < np.maximum(y0, y1)) & (x0 == x1)
        turns += np.where(crossing, np.sign(y1 - y0), 0).astype(int)
    return turns


# ── outlines ─────────────────────────────────────────────────────────────────────────────────────


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_give_back_any_mask(mask):
    even_odd, turns = np.zeros(mask.shape, bool), np.zeros(mask.shape, int)
    polygons = list(outlines(mask))
    for corners in polygons:
        even_odd ^= filled(corners, mask.shape)
        turns += winding(corners, mask.shape)
        assert (np.abs(corners % 1) == 0.5).all()
        assert (np.roll(corners, 1, axis=0) != corners).sum() == len(
            corners
        )  # sides along the grid, none of them empty
    np.testing.assert_array_equal(even_odd, mask)
    np.testing.assert_array_equal(turns, mask.astype(int))
    assert len(polygons) == ndimage.label(mask)[1]


def test_a_square_has_four_corners():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    (corners,) = outlines(mask)
    assert sorted(map(tuple, corners)) == [(1.5, 0.5), (1.5, 3.5), (6.5, 0.5), (6.5, 3.5)]


def test_many_holes():
    mask = np.ones((60, 60), bool)
    mask[1:-1:2, 1:-1:2] = False
    (corners,) = outlines(mask)
    np.testing.assert_array_equal(filled(corners, mask.shape), mask)


# ── in the file ──────────────────────────────────────────────────────────────────────────────────


def rasterised(dataset, number, sources):
    """Fill the outlines of a label, by the images that they refer to: {(instance, frame): (rows, columns)}.

    sources : for each (instance, frame): position, orientation, spacing, shape.
    """
    (region,) = [item for item in dataset.ROIContourSequence if item.ReferencedROINumber == number]
    planes = {key: np.zeros(shape, bool) for key, (_, _, _, shape) in sources.items()}
    for contour in region.get("ContourSequence") or ():
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.reshape([float(v) for v in contour.ContourData], (-1, 3))
        assert len(points) == contour.NumberOfContourPoints
        (image,) = contour.ContourImageSequence
        key = (str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber") or 0))
        position, orientation, spacing, shape = sources[key]
        row, column = np.reshape(orientation, (2, 3)).astype(float)
        offsets = points - np.asarray(position, float)
        assert np.abs(offsets @ np.cross(row, column)).max() < 2e-3  # in the plane of its image
        corners = np.stack([offsets @ row / spacing[1], offsets @ column / spacing[0]], axis=1)
        planes[key] ^= filled(corners, shape)
    return planes


def sources_of(files):
    found = {}
    for file in files:
        source = dcmread(file, stop_before_pixels=True)
        shape = (source.Rows, source.Columns)
        for number, group in enumerate(source.get("PerFrameFunctionalGroupsSequence") or [None], start=1):
            if group is None:
                place = source.ImagePositionPatient, source.ImageOrientationPatient, source.PixelSpacing
                found[str(source.SOPInstanceUID), 0] = (*place, shape)
                continue
            shared = (source.get("SharedFunctionalGroupsSequence") or [group])[0]
            orientation = group.get("PlaneOrientationSequence") or shared.PlaneOrientationSequence
            measures = group.get("PixelMeasuresSequence") or shared.PixelMeasuresSequence
            place = group.PlanePositionSequence[0].ImagePositionPatient, orientation[0].ImageOrientationPatient
            found[str(source.SOPInstanceUID), number] = (*place, measures[0].PixelSpacing, shape)
    return found


def assert_same(path, scan, mask, files, numbers):
    """Slice by slice, each slice of the mask found by where its image lies, not by the order of anything of ours."""
    dataset = dcmread(path)
    sources = sources_of(files)
    to_voxel = np.linalg.inv(scan.geometry.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    for number in numbers:
        planes = rasterised(dataset, number, sources)
        for key, plane in planes.items():
            position, orientation, spacing, shape = sources[key]
            rows, columns = np.indices(shape).reshape(2, -1, 1)
            row, column = np.reshape(orientation, (2, 3)).astype(float)
            points = np.asarray(position, float) + columns * row * float(spacing[1]) + rows * column * float(spacing[0])
            voxels = np.rint(points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
            expected = (mask[tuple(voxels.T)] == number).reshape(shape)
            both = 2 * np.count_nonzero(expected & plane)
            total = np.count_nonzero(expected) + np.count_nonzero(plane)
            assert both >= 0.99 * total, (number, key)
        assert sum(np.count_nonzero(plane) for plane in planes.values()) == np.count_nonzero(mask == number)


@pytest.mark.parametrize("kind", SERIES)
def test_filled_outlines_are_the_mask(kind, tmp_path):
    scan = open_scan(Series(make.block(12, 22, 26), **SERIES[kind]).write(tmp_path / "scan"))
    mask = shells(scan.shape)
    path = save_mask(tmp_path / "mask.rtstruct.dcm", mask, scan, LABELS)
    assert_same(path, scan, mask, (tmp_path / "scan").iterdir(), (1, 7))


def test_an_enhanced_object_is_referred_to_by_frame(tmp_path):
    (tmp_path / "scan").mkdir()
    file = tmp_path / "scan" / "one.dcm"
    make.enhanced(Series(make.block(12, 22, 26), **SERIES["twisted"])).save_as(file, enforce_file_format=True)
    scan = open_scan(tmp_path / "scan")
    path = save_mask(tmp_path / "mask.rtstruct.dcm", shells(scan.shape), scan, LABELS)
    assert_same(path, scan, shells(scan.shape), [file], (1, 7))


@pytest.mark.parametrize("name", ["hippocrop_1", "t1_head_small", "multiframe/001"])
def test_real_series(name, tmp_path):
    folder = DATA / "dicom" / name
    if not folder.is_dir():
        pytest.skip("the real series are not here; set SPARSETOK_DATA to their folder")
    scan = open_scan(folder)
    smooth = ndimage.gaussian_filter(np.asarray(scan.voxels, np.float32), 2)
    mask = np.where(smooth > np.percentile(smooth, 80), 1, 0).astype(np.uint8)  # ragged, with holes
    mask[smooth > np.percentile(smooth, 95)] = 7
    mask[: len(mask) // 2 - 6] = mask[len(mask) // 2 + 6 :] = 0  # each contour is measured point by point below
    path = save_mask(tmp_path / "mask.rtstruct.dcm", mask, scan, LABELS)
    assert_same(path, scan, mask, [file for file in folder.iterdir() if file.is_file()], (1, 7))
    assert_complete(dcmread(path))


# ── what it says ─────────────────────────────────────────────────────────────────────────────────

WITH_VALUE = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("StructureSetLabel", "StructureSetDate", "StructureSetTime", "ReferencedFrameOfReferenceSequence"),
    *("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence", "ApprovalStatus"),
)
THERE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "OperatorsName", "Manufacturer"),
)


def assert_complete(dataset):
    """Has what the modules of a structure set demand, and no number in more than 16 characters."""
    assert [name for name in WITH_VALUE if dataset.get(name) in (None, "", [])] == []
    assert [name for name in THERE if name not in dataset] == []
    for region in dataset.StructureSetROISequence:
        assert region.ReferencedFrameOfReferenceUID == dataset.FrameOfReferenceUID
    numbers = [
        [item[key].value for item in dataset[name]]
        for name, key in (
            ("StructureSetROISequence", "ROINumber"),
            ("ROIContourSequence", "ReferencedROINumber"),
            ("RTROIObservationsSequence", "ReferencedROINumber"),
        )
    ]
    assert numbers[0] == numbers[1] == numbers[2]
    for region in dataset.ROIContourSequence:
        for contour in region.get("ContourSequence") or ():
            assert all(len(str(value)) <= 16 for value in contour.ContourData)


@pytest.fixture
def series():
    return Series(make.block(6, 9, 14))


@pytest.fixture
def scan(series, tmp_path):
    return open_scan(series.write(tmp_path / "scan"))


def test_it_belongs_to_the_patients_study(scan, series, tmp_path):
    dataset = dcmread(save_mask(tmp_path / "m.rtstruct.dcm", shells(scan.shape), scan, LABELS, MadeBy("m", False)))
    source = series.datasets()[0]
    assert_complete(dataset)
    assert str(dataset.PatientName) == SECRET
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", "AccessionNumber"):
        assert dataset[name].value == source[name].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    first, second = dataset.StructureSetROISequence
    assert [(x.ROINumber, x.ROIName) for x in (first, second)] == [(1, "outer"), (7, "Innen “ü”")]
    assert first.ROIGenerationAlgorithm == "AUTOMATIC"
    assert first.ROIGenerationDescription == f"napari-sparsetok m {__version__}"
    assert dataset.ROIContourSequence[0].ROIDisplayColor == [0xE6, 0x9F, 0]
    (code,) = dataset.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence
    assert (code.CodeMeaning, code.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue) == ("inner", "7771000")


def test_it_refers_to_every_image(scan, tmp_path):
    dataset = dcmread(save_mask(tmp_path / "m.rtstruct.dcm", shells(scan.shape), scan, LABELS))
    (study,) = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    (referred,) = study.RTReferencedSeriesSequence
    files = [dcmread(file) for file in (tmp_path / "scan").iterdir()]
    assert study.ReferencedSOPInstanceUID == files[0].StudyInstanceUID
    assert referred.SeriesInstanceUID == files[0].SeriesInstanceUID
    assert {image.ReferencedSOPInstanceUID for image in referred.ContourImageSequence} == {
        file.SOPInstanceUID for file in files
    }


def test_beside_its_scan_it_is_no_scan(scan, tmp_path):
    save_mask(tmp_path / "scan" / "m.rtstruct.dcm", shells(scan.shape), scan, LABELS)
    again = open_scan(tmp_path / "scan")
    np.testing.assert_array_equal(again.voxels, scan.voxels)


def test_a_label_that_is_nowhere_has_no_outline(scan, tmp_path):
    dataset = dcmread(save_mask(tmp_path / "m.rtstruct.dcm", np.zeros(scan.shape, np.uint8), scan, LABELS))
    assert_complete(dataset)
    assert not any("ContourSequence" in region for region in dataset.ROIContourSequence)


def test_an_outline_of_more_than_64_kB(tmp_path):
    scan = open_scan(Series(make.block(3, 60, 80)).write(tmp_path / "scan"))
    mask = np.ones(scan.shape, np.uint8)
    mask[:, 1:-1:2, 1:-1:2] = 0
    path = save_mask(tmp_path / "m.rtstruct.dcm", mask, scan, LABELS)
    assert_same(path, scan, mask, (tmp_path / "scan").iterdir(), (1,))
