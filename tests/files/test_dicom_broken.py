"""DICOM series that must not be opened as if all were well: each is refused in words, with what can be done."""

from __future__ import annotations

import gc
import json
import os
import re
import warnings
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_maker import Series
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.fileset import FileSet
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.files import RepairableScanError, can_open, find_series, open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError

DATA = Path(os.environ.get("SPARSETOK_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "dicom"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no test data beside the repository or in SPARSETOK_DATA")


def refused(path, **options):
    """The error that a path is refused with, which must name nobody."""
    with pytest.raises(ScanError) as caught:
        open_scan(path, **options)
    sentence = str(caught.value)
    assert not re.search(r"Lovelace|Babbage|4711|1815|IM000", sentence), sentence
    assert "\n" not in sentence
    return caught.value


def repairs(path):
    error = refused(path)
    assert isinstance(error, RepairableScanError), error
    assert set(error.repairs) == set(find_series(path)[0].repairs)
    return error.repairs


def ramp(slices=8, rows=12, columns=10):
    """Brightness that rises evenly along all axes: linear interpolation gives it back exactly."""
    z, y, x = np.mgrid[:slices, :rows, :columns]
    return (100 * z + 10 * y + x).astype(np.int16)


def stored(scan):
    return scan.geometry.to_source(scan.voxels).transpose(2, 1, 0)


def test_missing_slices(tmp_path):
    series = Series(ramp())
    series.write(tmp_path)
    (tmp_path / "IM0004").unlink()
    (tmp_path / "IM0005").unlink()
    error = refused(tmp_path)
    assert "2 slices are missing (between slices 4 and 5 of 6" in str(error)
    assert repairs(tmp_path).keys() == {"resample"}
    assert refused(tmp_path, repair="drop").repairs.keys() == {"resample"}
    scan = open_scan(tmp_path, repair="resample")
    np.testing.assert_allclose(stored(scan), ramp(), atol=1e-3)
    np.testing.assert_allclose(scan.geometry.source_affine, series.affine(), atol=1e-6)
    assert any(note.startswith("Repaired: 2 slices are missing") for note in scan.notes)
    assert scan.source.header.slices == ()


def test_uneven_gaps(tmp_path):
    heights = np.array([0, 2, 4, 6.7, 8, 10, 12, 14])
    series = Series(ramp(), positions=np.array([(0, 0, h) for h in heights]))
    assert "unevenly, 1.30 to 2.70 mm apart" in str(refused(series.write(tmp_path)))
    scan = open_scan(tmp_path, repair=["resample"])
    assert scan.geometry.spacing == pytest.approx((2.0, 0.5, 0.75))
    np.testing.assert_allclose(stored(scan)[[0, 1, 2, 4, 5, 6, 7]], ramp()[[0, 1, 2, 4, 5, 6, 7]], atol=1e-3)


def test_positions_rounded_in_the_header_are_even(tmp_path):
    heights = np.round(np.arange(8) * 0.625, 2)
    scan = open_scan(Series(ramp(), positions=np.array([(0, 0, h) for h in heights])).write(tmp_path))
    assert scan.geometry.spacing[0] == pytest.approx(0.625, rel=2e-3)


@pytest.mark.parametrize("degrees", [3.0, 15.0, -20.0])
def test_a_tilted_gantry(degrees, tmp_path):
    slope = np.tan(np.radians(degrees))
    places = np.array([(0, -slope * 2.0 * k, 2.0 * k) for k in range(8)])
    series = Series(ramp(8, 30, 10), positions=places)
    assert f"tilted by {abs(degrees):.1f}°" in str(refused(series.write(tmp_path)))
    assert repairs(tmp_path).keys() == {"resample"}
    scan = open_scan(tmp_path, repair="resample")
    np.testing.assert_allclose(np.linalg.norm(scan.geometry.affine[:3, :3], axis=0), scan.geometry.spacing)
    turn = scan.geometry.affine[:3, :3] / scan.geometry.spacing
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-9)
    _same_values_in_space(scan, series)


def _same_values_in_space(scan, series):
    """Voxels of the middle of the series, found where they were measured."""
    to_shown = np.linalg.inv(scan.geometry.affine)
    for z, y, x in [(1, 14, 3), (3, 15, 5), (5, 16, 7), (6, 14, 2)]:
        row = series.places()[z] + np.array([x * 0.75, y * 0.5, 0])
        point = to_shown @ (-row[0], -row[1], row[2], 1)
        low = np.floor(point[:3] + 1e-9).astype(int)
        share = point[:3] - low
        value = 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod([s if c else 1 - s for c, s in zip(corner, share, strict=True)])
            if weight > 1e-9:
                value += weight * scan.voxels[tuple(low + corner)]
        assert value == pytest.approx(series.pixels[z, y, x], abs=0.05)


def test_slices_that_wander(tmp_path):
    places = np.array([(0, 0, 2.0 * k) for k in range(8)])
    places[4, 0] += 3.0
    error = refused(Series(ramp(), positions=places).write(tmp_path))
    assert "shifted against each other by up to 3.0 mm" in str(error)


def test_a_file_stored_twice_is_read_once(tmp_path):
    Series(ramp()).write(tmp_path)
    (tmp_path / "copy").write_bytes((tmp_path / "IM0003").read_bytes())
    scan = open_scan(tmp_path)
    np.testing.assert_array_equal(stored(scan), ramp())
    assert any("1 file is there twice" in note for note in scan.notes)


def test_slices_that_are_there_twice_with_other_pixels(tmp_path):
    first = Series(ramp())
    second = Series(ramp()[:3] + 1, uid=first.uid, extra={"InstanceNumber": [11, 12, 13]})
    first.write(tmp_path, "a{}")
    second.write(tmp_path, "b{}")
    assert "3 of 8 slices are there more than once" in str(refused(tmp_path))
    assert repairs(tmp_path).keys() == {"drop"}
    np.testing.assert_array_equal(stored(open_scan(tmp_path, repair="drop")), ramp())


def test_a_volume_in_time_that_lacks_slices(tmp_path):
    first = Series(ramp(), extra={"TemporalPositionIdentifier": 1})
    second = Series(ramp() + 1, uid=first.uid, extra={"TemporalPositionIdentifier": 2})
    first.write(tmp_path, "a{}")
    second.write(tmp_path, "b{}")
    (tmp_path / "b3").unlink()
    assert "1 of 2 volumes lacks slices" in str(refused(tmp_path))
    scan = open_scan(tmp_path, repair="drop")
    assert scan.leading == ""
    np.testing.assert_array_equal(stored(scan), ramp())


def test_mixed_directions(tmp_path):
    first = Series(ramp())
    Series(ramp(3), orientation=(0, 1, 0, 0, 0, -1), uid=first.uid).write(tmp_path, "b{}")
    found = find_series(first.write(tmp_path, "a{}"))
    assert [info.slices for info in found] == [8, 3]
    assert all("mixes slices of different directions" in info.problems[0] for info in found)
    with pytest.raises(ScanError, match="there are 2 scans here"):
        open_scan(tmp_path)
    np.testing.assert_array_equal(stored(open_scan(tmp_path, series=found[0], repair="drop")), ramp())


def test_mixed_sizes(tmp_path):
    first = Series(ramp())
    Series(ramp(1, 9, 9), uid=first.uid).write(tmp_path, "b{}")
    found = find_series(first.write(tmp_path, "a{}"))
    assert isinstance(refused(tmp_path, series=found[0]), RepairableScanError)


def test_tiles_side_by_side(tmp_path):
    first = Series(ramp())
    Series(ramp(), origin=(90.0, -20.0, 30.0), uid=first.uid).write(tmp_path, "b{}")
    first.write(tmp_path, "a{}")
    assert "side by side" in str(refused(tmp_path))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices(count, tmp_path):
    error = refused(Series(ramp(count)).write(tmp_path))
    assert "it takes 3 to tell their spacing" in str(error)
    assert not isinstance(error, RepairableScanError)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"ImagePositionPatient": None}, "do not say where they lie"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "do not say where they lie"),
        ({"PixelSpacing": [0, 0]}, "do not say where they lie"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour pictures"),
        ({"BitsStored": 17}, "contradicts itself"),
        ({"RescaleSlope": "NaN"}, "scaled by a number that is none"),
        ({"NumberOfFrames": 10**7}, "contradicts itself"),
        ({"Rows": 65535, "Columns": 65535}, "cut short"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_headers_that_make_no_scan(extra, words, tmp_path):
    Series(ramp(), extra=extra).write(tmp_path)
    assert words in str(refused(tmp_path))


def changed(folder, change, pixels=None):
    """A series that `change` was done to."""
    folder.mkdir(exist_ok=True)
    for k, ds in enumerate(Series(ramp() if pixels is None else pixels).datasets()):
        change(ds, k)
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("bits", [32, 64])
def test_values_stored_as_fractions(bits, tmp_path):
    """As parametric maps store them; read as whole numbers they would all be 0 and 1."""
    values = np.random.default_rng(0).random((8, 12, 10)).astype(f"f{bits // 8}") - 0.5

    def fractions(ds, k):
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(ds, name)
        ds.BitsAllocated = bits
        setattr(ds, "FloatPixelData" if bits == 32 else "DoubleFloatPixelData", values[k].tobytes())

    scan = open_scan(changed(tmp_path, fractions))
    assert scan.voxels.dtype == values.dtype
    np.testing.assert_array_equal(stored(scan), values)


def test_numbers_of_a_palette_are_no_grey_values(tmp_path):
    def palette(ds, k):
        ds.PhotometricInterpretation = "PALETTE COLOR"

    assert "colour pictures" in str(refused(changed(tmp_path, palette)))


def test_a_slope_of_zero(tmp_path):
    def flat(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = 0, 0

    assert "multiplied by zero" in str(refused(changed(tmp_path, flat)))


def test_one_slice_is_no_plural(tmp_path):
    folder = Series(ramp(1)).write(tmp_path)
    assert "there is only 1 slice" in str(refused(folder))


class _Closed:
    """What of `os.scandir` and `open` a person without permission meets; the tests may run as root."""

    def __init__(self, monkeypatch, *closed):
        self._closed = [str(path) for path in closed]
        self._scandir, self._open = os.scandir, Path.open
        monkeypatch.setattr(os, "scandir", lambda path=".": self._checked(path) or self._scandir(path))
        monkeypatch.setattr(Path, "open", lambda path, *args: self._checked(path) or self._open(path, *args))

    def _checked(self, path):
        if str(path) in self._closed:
            raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize("what", ["a folder", "a file"])
def test_what_may_not_be_read_may_belong_to_the_series(what, tmp_path, monkeypatch):
    """Else the last slices of a scan could lie there, and nobody would miss them."""
    folder = Series(ramp()).write(tmp_path / "study")
    (folder / "more").mkdir()
    last = (folder / "IM0007").rename(folder / "more" / "IM0007")
    _Closed(monkeypatch, last.parent if what == "a folder" else last)
    error = refused(folder)
    assert "may not be read by you" in str(error)
    assert error.repairs.keys() == {"drop"}
    assert open_scan(folder, repair="drop").shape == (7, 12, 10)


def test_nothing_that_may_be_read(tmp_path, monkeypatch):
    folder = Series(ramp()).write(tmp_path / "study")
    _Closed(monkeypatch, *folder.iterdir())
    with pytest.raises(ScanError, match="cannot be reached.*check the name and your permissions"):
        open_scan(folder / "IM0001")
    _Closed(monkeypatch, folder)
    with pytest.raises(ScanError, match="is a folder that you may not look into"):
        open_scan(folder)


def test_a_file_cut_short_is_named_by_its_number(tmp_path):
    Series(ramp()).write(tmp_path)
    path = tmp_path / "IM0004"
    path.write_bytes(path.read_bytes()[:-100])
    assert "image number 5: it is cut short" in str(refused(tmp_path))


def test_pixels_that_are_missing(tmp_path):
    for k, ds in enumerate(Series(ramp()).datasets()):
        del ds.PixelData
        ds.save_as(tmp_path / f"IM000{k}", enforce_file_format=True)
    assert "it holds no pixel data" in str(refused(tmp_path))


def test_a_header_cut_short(tmp_path):
    Series(ramp()).write(tmp_path)
    path = tmp_path / "IM0004"
    path.write_bytes(path.read_bytes()[:400])
    error = refused(tmp_path)
    assert "damaged, cut short" in str(error) or "missing" in str(error)


def test_nothing_of_a_person_is_printed_or_logged(tmp_path, capfd, caplog):
    Series(ramp()).write(tmp_path / "Lovelace")
    for path in (tmp_path / "Lovelace").iterdir():
        data = path.read_bytes().replace(b"18151210", b"1815-1-1").replace(b"4711-0815", b"\\711-08\\5")
        path.write_bytes(data)
    open_scan(tmp_path / "Lovelace")
    (tmp_path / "Lovelace" / "IM0003").unlink()
    refused(tmp_path / "Lovelace")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# ── volumes that do not lie in one place ─────────────────────────────────────────────────────────


def moved(folder, shift, name="TemporalPositionIdentifier", **changes):
    """Two volumes, the second shifted by millimetres along columns, rows and slices."""
    first = Series(ramp(), extra={name: 1})
    fields = {"origin": tuple(np.add(first.origin, shift)), "uid": first.uid, **changes}
    second = Series(ramp() + 1000, extra={name: 2, "InstanceNumber": list(range(20, 20 + len(ramp())))}, **fields)
    first.write(folder, "a{}")
    second.write(folder, "b{}")
    return first, second


@pytest.mark.parametrize("name", ["TemporalPositionIdentifier", "DiffusionBValue", "EchoTime"])
@pytest.mark.parametrize(
    "shift",
    [(0, 0, 1.0), (0, 0, 0.5), (0, 0, 2.0), (0, 0, 100.0), (0.4, 0, 0), (0, 3.0, 0), (0.4, 0.4, 0.3), (0, 0, 12)],
)
def test_volumes_that_lie_apart_are_never_mixed(name, shift, tmp_path):
    first, _ = moved(tmp_path, shift, name)
    assert "do not lie in one place" in str(refused(tmp_path))
    assert repairs(tmp_path).keys() == {"drop"}
    assert "the first of 2 volumes" in repairs(tmp_path)["drop"]
    scan = open_scan(tmp_path, repair="drop")
    np.testing.assert_array_equal(stored(scan), first.pixels)
    np.testing.assert_allclose(scan.geometry.source_affine, first.affine(), atol=1e-6)
    assert "Repaired" in scan.notes[0]


def test_info_on_volumes_that_lie_apart(tmp_path):
    moved(tmp_path, (0, 0, 1.0))
    run = CliRunner().invoke(app, ["info", "--json", str(tmp_path)])
    assert run.exit_code == 2
    found = json.loads(run.stdout)
    assert "do not lie in one place, but up to 1.0 mm apart" in found["refused"]
    assert found["repairs"] == {"drop": "open the first of 2 volumes alone"}
    run = CliRunner().invoke(app, ["info", "--json", "--repair", "drop", str(tmp_path)])
    assert run.exit_code == 0
    assert json.loads(run.stdout)["scan"]["volumes"] == 1
    assert "Lovelace" not in run.output


def test_a_volume_that_is_slightly_turned(tmp_path):
    a = 1.5e-3  # radians: below what parts a series, but half a millimetre at the edge of a large picture
    turned = (float(np.cos(a)), float(np.sin(a)), 0.0, -float(np.sin(a)), float(np.cos(a)), 0.0)
    pixels = np.zeros((4, 300, 300), "i2")
    first = Series(pixels, spacing=(1.0, 1.0), extra={"EchoTime": 10})
    first.write(tmp_path, "a{}")
    fields = {"EchoTime": 20, "InstanceNumber": [11, 12, 13, 14]}
    Series(pixels, spacing=(1.0, 1.0), orientation=turned, uid=first.uid, extra=fields).write(tmp_path, "b{}")
    assert "do not lie in one place" in str(refused(tmp_path))


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.004, 0, 0), (0, 0.004, 0.004)])
def test_rounding_does_not_part_volumes(shift, tmp_path):
    moved(tmp_path, shift)
    scan = open_scan(tmp_path)
    assert (scan.leading, len(scan.voxels)) == ("time", 2)


def test_the_second_volume_has_a_gap_of_its_own(tmp_path):
    positions = Series(ramp()).places()
    positions[3:, 2] += 2.0
    moved(tmp_path, (0, 0, 0), positions=positions)
    problem = str(refused(tmp_path))
    assert "do not lie in one place" in problem or "lack slices" in problem or "more than once" in problem


def test_contiguous_acquisitions_are_one_stack(tmp_path):
    numbers = [1] * 3 + [2] * (len(ramp()) - 3)
    Series(ramp(), extra={"AcquisitionNumber": numbers}).write(tmp_path)
    np.testing.assert_array_equal(stored(open_scan(tmp_path)), ramp())


# ── real series ──────────────────────────────────────────────────────────────────────────────────


@needs_data
def test_the_series_with_two_slices():
    assert "there are only 2 slices" in str(refused(DATA / "broken" / "slicecount"))


@needs_data
def test_the_series_with_a_tilted_gantry():
    folder = DATA / "broken" / "gantrytilting"
    assert "tilted by 14.0°" in str(refused(folder))
    scan = open_scan(folder, repair="resample")
    assert "Repaired" in scan.notes[0]


@needs_data
@pytest.mark.parametrize("name", ["hippocrop_1", "hippocrop_3", "t1_head_small"])
def test_simpleitk_agrees_on_real_series(name):
    scan = open_scan(DATA / name)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(DATA / name)))
    _agree(scan, reader.Execute())


def _agree(scan, image):
    to_shown = np.linalg.inv(scan.geometry.affine)
    random = np.random.default_rng(0)
    for _ in range(50):
        index = [int(random.integers(n)) for n in image.GetSize()]
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        voxel = to_shown @ (-x, -y, z, 1)
        at = np.rint(voxel[:3]).astype(int)
        np.testing.assert_allclose(scan.geometry.affine @ (*at, 1), (-x, -y, z, 1), atol=2e-4)
        assert scan.voxels[tuple(at)] == image[index]


@needs_data
def test_three_reads_of_one_head_land_on_one_place(tmp_path):
    dicom = open_scan(DATA / "t1_head_small")
    nifti = open_scan(DATA / "t1_head_small_reference.nii.gz")
    image = sitk.ReadImage(str(DATA / "t1_head_small_reference.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "head.nrrd"), useCompression=True)
    nrrd = open_scan(tmp_path / "head.nrrd")
    for other in (nifti, nrrd):
        np.testing.assert_array_equal(other.voxels, dicom.voxels)
        corners = np.array([(a, b, c, 1) for a in (0, 255) for b in (0, 255) for c in (0, 3)])
        # The files round the directions to six or seven digits, which makes 1e-4 mm at the far end of 256 voxels.
        off = np.abs(corners @ (other.geometry.affine - dicom.geometry.affine).T).max()
        assert off < 1e-4, off


@needs_data
def test_the_enhanced_object():
    folder = DATA / "multiframe"
    scan = open_scan(folder / "001")
    reference = open_scan(folder / "001_ground_truth.nii.gz")
    np.testing.assert_array_equal(scan.voxels, reference.voxels)
    np.testing.assert_allclose(scan.geometry.affine, reference.geometry.affine, atol=1e-3)


@needs_data
def test_a_mask_of_a_real_series_is_read_by_others(tmp_path):
    scan = open_scan(DATA / "t1_head_small")
    mask = (scan.voxels > 200).astype(np.uint8)
    saved = nib.load(save_mask(tmp_path / "m.nii.gz", mask, scan, LabelTable.of(["head"])))
    reference = nib.load(DATA / "t1_head_small_reference.nii.gz")
    same = nib.as_closest_canonical(saved), nib.as_closest_canonical(reference)
    np.testing.assert_array_equal(np.asarray(same[0].dataobj), np.asarray(same[1].dataobj) > 200)


def test_a_damaged_file_beside_a_sound_series(tmp_path):
    Series(ramp()).write(tmp_path)
    (tmp_path / "x").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x03\x00" + bytes(99))
    assert "1 file or folder here is damaged" in str(refused(tmp_path))
    assert repairs(tmp_path).keys() == {"drop"}
    scan = open_scan(tmp_path, repair="drop")
    np.testing.assert_array_equal(stored(scan), ramp())
    assert any("damaged" in note for note in scan.notes)


# ── slices that are there and cannot be read ─────────────────────────────────────────────────────


@pytest.mark.parametrize("kept", [0, 132, 140, 200, 300, 500, 700, 900])
@pytest.mark.parametrize("slice_", [0, 5])
def test_a_slice_at_an_end_that_was_cut_short_is_missed(tmp_path, kept, slice_):
    files = sorted(Series(ramp(6)).write(tmp_path).iterdir())
    files[slice_].write_bytes(files[slice_].read_bytes()[:kept])
    assert "1 file or folder here is" in str(refused(tmp_path))
    assert repairs(tmp_path).keys() == {"drop"}


def test_a_slice_of_zeros_is_missed(tmp_path):
    files = sorted(Series(ramp(6)).write(tmp_path).iterdir())
    files[-1].write_bytes(bytes(files[-1].stat().st_size))
    assert "may belong to it" in str(refused(tmp_path))


def test_other_files_beside_the_slices_are_not_missed(tmp_path):
    Series(ramp(6)).write(tmp_path)
    (tmp_path / "README").write_text("Lovelace")
    (tmp_path / ".lock").touch()
    (tmp_path / "viewer.ini").touch()
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2", "1.3"
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    report.save_as(tmp_path / "REPORT", enforce_file_format=True)
    assert open_scan(tmp_path).voxels.shape == (6, 12, 10)


@pytest.mark.parametrize("growth", [1.0001, 1.001, 1.01])
def test_a_spacing_that_drifts_is_not_even(tmp_path, growth):
    """Each gap is nearly the one before, and the slices in the middle lie far off their places."""
    heights = np.concatenate([[0.0], np.cumsum(growth ** np.arange(79))])
    Series(ramp(80), positions=np.stack([0 * heights, 0 * heights, heights], axis=1)).write(tmp_path)
    if growth == 1.0001:
        assert np.abs(heights - np.linspace(0, heights[-1], 80)).max() < 0.1 * heights[-1] / 79
        assert open_scan(tmp_path).voxels.shape[0] == 80
        return
    assert "the slices lie unevenly" in str(refused(tmp_path))
    assert repairs(tmp_path).keys() == {"resample"}


# ── what a DICOMDIR lists ────────────────────────────────────────────────────────────────────────


def listing(folder):
    """A DICOMDIR of all that lies in a folder."""
    fileset = FileSet()
    for file in sorted(folder.iterdir()):
        fileset.add(file)
    fileset.write(folder.parent / "media")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pydicom leaves its temporary folder to the collector
        del fileset
        gc.collect()
    return folder.parent / "media" / "DICOMDIR"


def test_a_listed_slice_that_is_not_there_is_missed(tmp_path):
    directory = listing(Series(ramp(6)).write(tmp_path / "series"))
    assert open_scan(directory).voxels.shape[0] == 6
    sorted(p for p in directory.parent.rglob("*") if p.is_file() and p.name != "DICOMDIR")[-1].unlink()
    assert "1 file or folder here is damaged, cut short, missing" in str(refused(directory))
    assert repairs(directory).keys() == {"drop"}


def test_names_on_a_disk_that_turned_them_to_small_letters_are_found(tmp_path):
    directory = listing(Series(ramp(6)).write(tmp_path / "series"))
    for path in sorted(directory.parent.rglob("*"), key=lambda p: -len(p.parts)):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    assert open_scan(directory).voxels.shape[0] == 6


# ── sentences ────────────────────────────────────────────────────────────────────────────────────


def test_one_identity_for_all_slices_leaves_them_different_slices(tmp_path):
    Series(ramp(6)).write(tmp_path)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        dataset.save_as(file)
    assert open_scan(tmp_path).voxels.shape[0] == 6


def test_deflated_files_are_called_so(tmp_path):
    Series(ramp(6)).write(tmp_path)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        dataset.save_as(file)
    assert "deflated" in str(refused(tmp_path))


def test_a_dose_is_no_scan(tmp_path):
    Series(ramp(6)).write(tmp_path)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.Modality, dataset.SOPClassUID = "RTDOSE", "1.2.840.10008.5.1.4.1.1.481.2"
        dataset.save_as(file)
    assert "dose" in str(refused(tmp_path))


def test_info_of_series_of_which_none_opens_fails(tmp_path):
    for k in range(2):
        Series(ramp(6), uid=f"1.2.{k}").write(tmp_path / str(k))
        (tmp_path / str(k) / "IM0003").unlink()
    result = CliRunner().invoke(app, ["info", str(tmp_path), "--json"])
    assert result.exit_code == 2
    assert "none of the 2 series" in json.loads(result.stdout)["refused"]


def test_info_as_json_is_a_document_whatever_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no scan")
    result = CliRunner().invoke(app, ["info", str(tmp_path / "a.txt"), "--json"])
    assert result.exit_code == 2
    assert "not a scan" in json.loads(result.stdout)["refused"]


# ── where hospitals put them ─────────────────────────────────────────────────────────────────────


def test_a_series_deep_down_beside_a_viewer_is_found(tmp_path):
    Series(ramp(6)).write(tmp_path / "disc" / "z" / "PATIENT" / "STUDY" / "SERIES")
    for k in range(150):
        (tmp_path / "disc" / f"viewer{k}.dll").write_bytes(b"MZ" + bytes(200))
    assert open_scan(tmp_path / "disc").voxels.shape[0] == 6
    with zipfile.ZipFile(tmp_path / "disc.zip", "w") as archive:
        for path in sorted((tmp_path / "disc").rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    assert open_scan(tmp_path / "disc.zip").voxels.shape[0] == 6


def test_slices_without_the_mark_are_found(tmp_path):
    for file in sorted(Series(ramp(6)).write(tmp_path).iterdir()):
        dataset = pydicom.dcmread(file)
        bare = Dataset({element.tag: element for element in dataset})
        bare.save_as(file, implicit_vr=True, little_endian=True)
        assert file.read_bytes()[128:132] != b"DICM"
    assert open_scan(tmp_path).voxels.shape[0] == 6


def test_a_zip_with_a_list_too_long_to_read_is_refused_at_once(tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\x05\x06")
    whole[at + 12 : at + 16] = (100 << 20).to_bytes(4, "little")
    path.write_bytes(whole)
    assert not can_open(path)
    assert "in this zip" in str(refused(path))
