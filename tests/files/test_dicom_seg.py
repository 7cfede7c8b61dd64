"""DICOM segmentations, written by highdicom, open as labels on their scan."""

from __future__ import annotations

import dicom_maker as make
import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_maker import Series
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from napari_sparsetok.files import open_labels, open_scan
from napari_sparsetok.scan import ScanError

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def described(number, name):
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def write(path, series, pixels, kind="BINARY"):
    """A segmentation of (slices, rows, columns) label numbers 1 and 2."""
    hd.seg.Segmentation(
        source_images=series.datasets(),
        pixel_array=pixels.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=[described(1, "one"), described(2, "two")],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
    ).save_as(path)
    return path


@pytest.fixture
def series():
    return Series(make.block(6, 16, 24), orientation=OBLIQUE, extra={"PatientOrientation": ["L", "P"]})


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_become_labels(kind, series, tmp_path):
    scan = open_scan(series.write(tmp_path / "scan"))
    pixels = series.pixels % 3
    mask, labels = open_labels(write(tmp_path / "seg.dcm", series, pixels, kind), scan)
    np.testing.assert_array_equal(mask, scan.voxels % 3)
    assert [(x.id, x.name) for x in labels] == [(1, "one"), (2, "two")]
    assert labels.labels[0].concept.meaning == "Liver"


def test_a_segmentation_of_another_scan_is_refused(series, tmp_path):
    write(tmp_path / "seg.dcm", series, series.pixels % 3)
    moved = Series(series.pixels, orientation=OBLIQUE, origin=(0.3, 0.0, 0.0))
    scan = open_scan(moved.write(tmp_path / "other"))
    with pytest.raises(ScanError, match="lies on other voxels than the scan"):
        open_labels(tmp_path / "seg.dcm", scan)
    smaller = open_scan(Series(make.block(6, 12, 20), orientation=OBLIQUE).write(tmp_path / "small"))
    with pytest.raises(ScanError, match="lies on other voxels than the scan"):
        open_labels(tmp_path / "seg.dcm", smaller)


def test_a_segmentation_beside_its_scan_is_no_scan(series, tmp_path):
    folder = series.write(tmp_path / "scan")
    write(folder / "seg.dcm", series, series.pixels % 3)
    assert open_scan(folder).shape
    with pytest.raises(ScanError, match="this is a mask, not a scan"):
        open_scan(write(tmp_path / "alone.dcm", series, series.pixels % 3))


def test_a_damaged_segmentation(series, tmp_path):
    scan = open_scan(series.write(tmp_path / "scan"))
    path = write(tmp_path / "seg.dcm", series, series.pixels % 3)
    data = path.read_bytes()
    for cut in (200, 1000, len(data) // 2, len(data) - 20):
        path.write_bytes(data[:cut])
        with pytest.raises(ScanError):
            open_labels(path, scan)


def test_a_segmentation_of_another_examination_is_refused_where_its_voxels_lie_alike(series, tmp_path):
    write(tmp_path / "seg.dcm", series, series.pixels % 3)
    scan = open_scan(series.write(tmp_path / "scan"))
    assert open_labels(tmp_path / "seg.dcm", scan)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(ScanError, match="belongs to another examination"):
        open_labels(tmp_path / "seg.dcm", scan)


def test_a_name_that_cannot_be_read_is_not_quoted(series, tmp_path):
    path = write(tmp_path / "seg.dcm", series, series.pixels % 3)
    scan = open_scan(series.write(tmp_path / "scan"))
    dataset = pydicom.dcmread(path)
    dataset.SeriesDescription = "mask of Lovelace"
    dataset.save_as(path)
    whole = path.read_bytes()
    at = whole.index(b"\x10\x00\x10\x00PN") + 4
    path.write_bytes(whole[:at] + b"FD" + whole[at + 2 :])
    mask, _ = open_labels(path, scan)
    np.testing.assert_array_equal(mask, scan.voxels % 3)
    with pytest.raises(ScanError) as caught:
        open_scan(path)
    assert "Lovelace" not in str(caught.value)
