"""Slices are one series' only if one study, and one frame of reference, holds them all."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_maker import Series, block
from pydicom.uid import generate_uid

from napari_sparsetok.files import RepairableScanError, SeveralSeriesError, find_series, open_scan

UID = "1.2.826.0.1.3680043.8.498.5"


def stored(scan):
    return scan.geometry.to_source(scan.voxels).transpose(2, 1, 0)


@pytest.fixture(params=[0.0, 10.0], ids=["in one place", "one above the other"])
def two_studies(tmp_path, request):
    """Scans of two patients to which a program that takes names out gave one series UID."""
    first = Series(block(5), uid=UID, extra={"AcquisitionTime": "090000"})
    second = Series(block(5, seed=1), uid=UID, study="1.2.9", extra={"AcquisitionTime": "100000"})
    second.origin = (first.origin[0], first.origin[1], first.origin[2] + request.param)
    for name, series in (("A", first), ("B", second)):
        series.write(tmp_path, name + "{:03d}.dcm")
    return tmp_path, (first, second)


def test_two_studies_are_never_one_scan(two_studies):
    folder, made = two_studies
    found = find_series(folder)
    assert [(info.slices, info.volumes, info.opens) for info in found] == [(5, 1, True)] * 2
    assert len({info.key for info in found}) == 2
    with pytest.raises(SeveralSeriesError):
        open_scan(folder)
    opened = [stored(open_scan(folder, series=info.key)) for info in found]
    for series in made:
        assert sum(np.array_equal(pixels, series.pixels) for pixels in opened) == 1


def test_a_file_stands_for_the_series_of_its_own_study(two_studies):
    folder, made = two_studies
    for name, series in zip("AB", made, strict=True):
        np.testing.assert_array_equal(stored(open_scan(folder / f"{name}000.dcm")), series.pixels)


def test_places_in_two_frames_of_reference_are_not_compared(tmp_path):
    references = ["1.2.3.1"] * 6 + ["1.2.3.2"] * 4
    Series(block(10), extra={"FrameOfReferenceUID": references}).write(tmp_path)
    with pytest.raises(RepairableScanError, match="frames of reference") as caught:
        open_scan(tmp_path, series=find_series(tmp_path)[0])
    assert set(caught.value.repairs) == {"drop"}
    assert open_scan(tmp_path, series=find_series(tmp_path)[0], repair="drop").shape[0] == 6


def test_a_frame_of_reference_for_each_slice_says_nothing(tmp_path):
    Series(block(5), extra={"FrameOfReferenceUID": [generate_uid() for _ in range(5)]}).write(tmp_path)
    assert open_scan(tmp_path).shape[0] == 5


def test_a_key_stays_what_it_was_where_a_series_is_in_one_study(tmp_path):
    Series(block(5), uid=UID).write(tmp_path / "a")
    Series(block(5), uid=UID, study="1.2.9").write(tmp_path / "b")
    assert find_series(tmp_path / "a")[0].key == find_series(tmp_path / "b")[0].key
