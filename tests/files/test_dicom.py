"""DICOM series that are as they should be, in every form in which they come."""

from __future__ import annotations

import gc
import warnings
import zipfile
from functools import partial

import dicom_maker as make
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_maker import Series
from pydicom.fileset import FileSet
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from napari_sparsetok.files import OpeningStopped, SeveralSeriesError, can_open, find_series, open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError

TURN = 0.3


def turned(degrees_x=17.0, degrees_z=31.0):
    """Directions of an oblique slice."""
    a, b = np.radians([degrees_x, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return tuple((about_x @ about_z)[:, :2].T.ravel())


def stored(scan):
    """A scan's voxels in DICOM's order: (slices, rows, columns)."""
    return scan.geometry.to_source(scan.voxels).transpose(2, 1, 0)


def same_place(scan, series, atol=1e-4):
    """Whether every corner lies where the series says."""
    n = np.array(series.pixels.shape[::-1]) - 1
    corners = np.array([(a, b, c, 1) for a in (0, n[0]) for b in (0, n[1]) for c in (0, n[2])])
    np.testing.assert_allclose(corners @ scan.geometry.source_affine.T, corners @ series.affine().T, rtol=0, atol=atol)


def by_itk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("orientation", [make.AXIAL, (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), turned()])
def test_a_classic_series(orientation, tmp_path):
    series = Series(make.block(), orientation=orientation)
    scan = open_scan(series.write(tmp_path))
    np.testing.assert_array_equal(stored(scan), series.pixels)
    same_place(scan, series)
    assert scan.name == "T1 sagittal (series 3)"
    assert scan.voxels.dtype == np.int16
    assert bool(scan.notes) == (orientation == turned())


@pytest.mark.parametrize("orientation", [make.AXIAL, turned(), (0, 1, 0, 0, 0, -1)])
def test_simpleitk_finds_the_same_voxels_in_the_same_place(orientation, tmp_path):
    series = Series(make.block(), orientation=orientation)
    image = by_itk(series.write(tmp_path))
    scan = open_scan(tmp_path)
    to_shown = np.linalg.inv(scan.geometry.affine)
    for index in [(0, 0, 0), (9, 7, 5), (3, 0, 2), (0, 6, 4)]:
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        voxel = to_shown @ (-x, -y, z, 1)
        np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-4)
        assert scan.voxels[tuple(np.rint(voxel[:3]).astype(int))] == image[index]


def test_slices_are_sorted_by_place_whatever_their_names_and_numbers(tmp_path):
    series = Series(make.block(), extra={"InstanceNumber": [4, 2, 6, 1, 3, 5]})
    scan = open_scan(series.write(tmp_path, order=[5, 2, 0, 4, 1, 3]))
    np.testing.assert_array_equal(stored(scan), series.pixels)
    same_place(scan, series)


def test_a_series_from_head_to_foot(tmp_path):
    series = Series(make.block(), step=-2.0)
    scan = open_scan(series.write(tmp_path))
    np.testing.assert_array_equal(stored(scan), series.pixels[::-1])
    assert scan.geometry.affine[2, 0] == pytest.approx(2.0)
    np.testing.assert_array_equal(scan.voxels[-1], series.pixels[0])


def test_a_mask_goes_back_to_the_voxels_it_came_from(tmp_path):
    series = Series(make.block(), orientation=turned())
    scan = open_scan(series.write(tmp_path / "in"))
    mask = (scan.voxels % 5 == 0).astype(np.uint8)
    image = nib.load(save_mask(tmp_path / "mask.nii.gz", mask, scan, LabelTable.of(["fifths"])))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), series.pixels % 5 == 0)
    np.testing.assert_allclose(image.affine, series.affine(), atol=1e-5)


def test_what_saving_needs_is_kept_and_never_shown(tmp_path):
    series = Series(make.block())
    scan = open_scan(series.write(tmp_path))
    header = scan.source.header
    made = series.datasets()
    assert (header.series, header.study, header.frame_of_reference) == (series.uid, series.study, series.study + ".1")
    assert len(header.slices) == 1
    assert [len({s.sop_instance for s in volume}) for volume in header.slices] == [len(made)]
    assert series.uid not in repr(scan.source)
    assert all(word not in repr(header) for word in (series.uid, "Lovelace"))


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("CT Thorax", "CT Thorax (series 3)"),
        ("Ada brain", "MR series 3"),
        ("head LOVELACE", "MR series 3"),
        ("scan of 18151210", "MR series 3"),
        ("born 10.12.1815", "MR series 3"),
        ("4711-0815", "MR series 3"),
        ("", "MR series 3"),
    ],
)
def test_a_name_that_could_be_a_persons_is_not_shown(description, name, tmp_path):
    folder = Series(make.block(), extra={"SeriesDescription": description}).write(tmp_path / "Lovelace")
    assert open_scan(folder).name == name


@pytest.mark.parametrize(
    ("person", "description", "names"),
    [
        ("Li^Na", "T1 Li Na", True),
        ("Li^Na", "T1 FLAIR sagittal", False),  # within a word it is not the name
        ("Wu^X", "T1 X", False),  # a single letter is nobody
        ("李^娜", "李娜头部", True),
        ("Müller^Jörg", "head MUELLER", True),
        ("Müller^Jörg", "Joerg T1", True),
        ("Muller^Jorg", "Schädel Müller", True),
        ("Núñez^Ana", "NUNEZ brain", True),
        ("Straße^A", "STRASSE", True),
    ],
)
def test_a_name_is_recognised_however_it_is_spelt(person, description, names, tmp_path):
    extra = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": person, "SeriesDescription": description}
    folder = Series(make.block(), extra=extra).write(tmp_path / "scan")
    assert (open_scan(folder).name == "MR series 3") == names


@pytest.mark.parametrize(
    ("group", "creator", "element", "vr", "value"),
    [
        (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "{}"),
        (0x0043, "GEMS_PARM_01", 0x39, "IS", ["100000{:04d}", 8, 0, 0]),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL", 0.0),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_b_values_that_a_scanner_keeps_to_itself(group, creator, element, vr, value, implicit, tmp_path):
    for k, b in enumerate((0, 800)):
        told = [value[0].format(b), *value[1:]] if isinstance(value, list) else float(b) if vr == "FL" else str(b)
        for ds in Series(make.block(4, seed=k), uid="1.2.3").datasets():
            ds.private_block(group, creator, create=True).add_new(element, vr, told)
            ds.InstanceNumber = int(ds.InstanceNumber) + 4 * k
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.4.{ds.InstanceNumber}"
            if implicit:
                ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            ds.save_as(tmp_path / f"{ds.InstanceNumber}.dcm", enforce_file_format=True)
    scan = open_scan(tmp_path)
    assert scan.leading == "time"
    assert any("b-value: 0; 800 s/mm²" in note for note in scan.notes), scan.notes


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def test_hounsfield_units(tmp_path):
    pixels = make.block(kind="u2")
    scan = open_scan(Series(pixels, extra={"RescaleSlope": 1, "RescaleIntercept": -1024}).write(tmp_path))
    np.testing.assert_array_equal(stored(scan), pixels.astype(int) - 1024)
    assert scan.voxels.dtype == np.int32  # sixteen bits minus 1024 need more than sixteen


def test_twelve_bits_stay_small_and_what_hides_above_them_is_dropped(tmp_path):
    pixels = make.block(kind="u2")
    extra = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": -1024}
    dirty = Series(pixels | 0x4000, extra=extra)
    scan = open_scan(dirty.write(tmp_path))
    np.testing.assert_array_equal(stored(scan), pixels.astype(int) - 1024)
    assert scan.voxels.dtype == np.int16


def test_every_slice_may_be_scaled_its_own_way(tmp_path):
    pixels, slopes = make.block(kind="u2"), [0.5, 1.5, 2.25, 0.125, 4.0, 1.0]
    scan = open_scan(Series(pixels, extra={"RescaleSlope": slopes, "RescaleIntercept": 0}).write(tmp_path))
    np.testing.assert_allclose(stored(scan), pixels * np.reshape(slopes, (-1, 1, 1)), rtol=1e-6)
    assert scan.voxels.dtype == np.float32


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_signed_and_unsigned(kind, tmp_path):
    pixels = make.block(4, 6, 5, kind=kind)
    pixels.flat[:2] = np.iinfo(kind).min, np.iinfo(kind).max
    np.testing.assert_array_equal(stored(open_scan(Series(pixels).write(tmp_path))), pixels)


def test_monochrome1_is_turned_round_and_says_so(tmp_path):
    pixels = make.block(kind="u2")
    extra = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    scan = open_scan(Series(pixels, extra=extra).write(tmp_path))
    np.testing.assert_array_equal(stored(scan), 4095 - pixels.astype(int))
    assert any("MONOCHROME1" in note for note in scan.notes)


def test_monochrome1_of_a_ct_stays_in_hounsfield_units(tmp_path):
    extra = {"PhotometricInterpretation": "MONOCHROME1", "Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -10}
    pixels = make.block(kind="i2")
    np.testing.assert_array_equal(stored(open_scan(Series(pixels, extra=extra).write(tmp_path))), pixels - 10)


def test_padding_becomes_the_lowest_value_that_was_measured(tmp_path):
    pixels = make.block(kind="i2") + 100
    pixels[:, 0, :] = -2000
    extra = {"PixelPaddingValue": -2000, "RescaleSlope": 1, "RescaleIntercept": -7}
    scan = open_scan(Series(pixels, extra=extra).write(tmp_path))
    measured = np.where(pixels == -2000, pixels[pixels != -2000].min(), pixels)
    np.testing.assert_array_equal(stored(scan), measured - 7)
    assert any("Padding" in note and "12.5%" in note for note in scan.notes)


@pytest.mark.parametrize(("kind", "vr", "written"), [("i2", "US", 63536), ("u2", "SS", -2000)])
def test_padding_of_the_other_sign_is_the_same_bits(kind, vr, written, tmp_path):
    pixels = make.block(kind="i2") + np.int16(100)
    pixels[:, 0, :] = -2000
    for k, ds in enumerate(Series(pixels.astype(kind)).datasets()):
        ds.add_new("PixelPaddingValue", vr, written)
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    scan = open_scan(tmp_path)
    assert (scan.voxels.min(), scan.voxels.max()) == (pixels[pixels > 0].min(), pixels.max())
    assert any("Padding" in note for note in scan.notes)


def test_padding_that_the_bits_cannot_hold_is_no_value_of_the_picture(tmp_path):
    pixels = np.arange(200, 200 + 56, dtype=np.uint8).repeat(10).reshape(7, 8, 10)
    scan = open_scan(Series(pixels, extra={"PixelPaddingValue": 65535}).write(tmp_path))
    np.testing.assert_array_equal(stored(scan), pixels)  # 255 too


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_pictures(syntax, tmp_path):
    pixels = make.block(4, 32, 40, kind="u2")
    for k, ds in enumerate(Series(pixels).datasets()):
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(stored(open_scan(tmp_path)), pixels)


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    from napari_sparsetok.files import dicom_pixels

    for k, ds in enumerate(Series(make.block(4, 32, 40, kind="u2")).datasets()):
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda uid: type("Decoder", (), {"is_available": False}))
    with pytest.raises(ScanError, match=r'RLE Lossless.*pip install "napari-sparsetok\[dicom\]"'):
        open_scan(tmp_path)


# ── enhanced multi-frame, and four axes ──────────────────────────────────────────────────────────


def test_an_enhanced_multi_frame_object(tmp_path):
    series = Series(make.block(), orientation=turned())
    make.enhanced(series).save_as(tmp_path / "one.dcm", enforce_file_format=True)
    scan = open_scan(tmp_path / "one.dcm")
    np.testing.assert_array_equal(stored(scan), series.pixels * 2 - 5)
    same_place(scan, series)
    assert [s.frame for s in scan.source.header.slices[0]] == [6, 5, 4, 3, 2, 1]


def test_an_enhanced_object_over_time(tmp_path):
    series = Series(make.block())
    make.enhanced(series, times=3).save_as(tmp_path / "one.dcm", enforce_file_format=True)
    scan = open_scan(tmp_path)
    assert (scan.leading, len(scan.voxels)) == ("time", 3)
    for t in range(3):
        np.testing.assert_array_equal(stored(scan.frame(t)), (series.pixels + 1000 * t) * 2 - 5)
        assert scan.frame(t).source.frame == t
    assert "The leading axis is the time: 1; 2; 3." in scan.notes


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("TemporalPositionIdentifier", [2, 1], "the time: 1; 2"),
        ("DiffusionBValue", [800.0, 0.0], "b-value: 0; 800 s/mm²"),
        ("EchoTime", [20.0, 4.5], "echo time: 4.5; 20 ms"),
        ("AcquisitionNumber", [9, 8], "acquisition: 8; 9"),
        ("ImageType", [["ORIGINAL", "P"], ["ORIGINAL", "M"]], "image type: ORIGINAL/M; ORIGINAL/P"),
        ("ContentTime", ["120001", "120000"], "content time"),
    ],
)
def test_volumes_are_told_apart(name, values, words, tmp_path):
    first = Series(make.block(), extra={name: values[0]})
    second = Series(make.block(seed=1), uid=first.uid, extra={name: values[1], "InstanceNumber": list(range(7, 13))})
    first.write(tmp_path, "a{}")
    scan = open_scan(second.write(tmp_path, "b{}"))
    assert scan.leading == "time"
    np.testing.assert_array_equal(stored(scan.frame(0)), second.pixels)
    np.testing.assert_array_equal(stored(scan.frame(1)), first.pixels)
    assert any(words in note for note in scan.notes)


def test_volumes_that_were_measured_over_midnight_are_not_mixed(tmp_path):
    before = ["235956", "235957.5", "235958", "000001", "000002", "000003.25"]
    first = Series(make.block(), extra={"AcquisitionTime": before})
    after = [f"0000{seconds}" for seconds in range(10, 16)]
    extra = {"AcquisitionTime": after, "InstanceNumber": list(range(7, 13))}
    second = Series(make.block(seed=1), uid=first.uid, extra=extra)
    first.write(tmp_path, "a{}")
    scan = open_scan(second.write(tmp_path, "b{}"))
    for frame, series in enumerate((first, second)):
        np.testing.assert_array_equal(stored(scan.frame(frame)), series.pixels)


def test_diffusion_by_value_and_direction(tmp_path):
    base = Series(make.block())
    ways = [(0.0, None), (700.0, [1.0, 0.0, 0.0]), (700.0, [0.0, 1.0, 0.0])]
    for v, (value, direction) in enumerate(ways):
        extra = {"DiffusionBValue": value, "InstanceNumber": [v * 6 + k + 1 for k in range(6)]}
        if direction:
            extra["DiffusionGradientOrientation"] = direction
        Series(make.block(seed=v), uid=base.uid, extra=extra).write(tmp_path, f"{v}_{{}}")
    scan = open_scan(tmp_path)
    assert len(scan.voxels) == 3
    np.testing.assert_array_equal(stored(scan.frame(0)), make.block(seed=0))


# ── where series lie ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def study(tmp_path):
    """A nested folder with two series, and what else lies about in an export."""
    folder = tmp_path / "export"
    Series(make.block(4), extra={"SeriesDescription": "localizer"}).write(folder / "a" / "deep")
    Series(make.block(6)).write(folder / "b")
    (folder / "b" / "viewer.exe").write_bytes(b"MZ" + bytes(500))
    (folder / "readme.txt").write_text("hello")
    (folder / "b" / "empty").touch()
    (folder / "round").symlink_to(folder)
    (folder / "nowhere").symlink_to(folder / "nowhere")
    return folder


def test_the_best_candidate_comes_first(study):
    found = find_series(study)
    assert [(s.description, s.shape, s.spacing) for s in found] == [
        ("T1 sagittal (series 3)", (6, 8, 10), (2.0, 0.5, 0.75)),
        ("localizer (series 3)", (4, 8, 10), (2.0, 0.5, 0.75)),
    ]
    assert all(s.thumbnail.dtype == np.uint8 and s.thumbnail.max() == 255 for s in found)
    assert [s.key for s in find_series(study)] == [s.key for s in found]


def test_one_of_several_is_never_chosen_silently(study):
    with pytest.raises(SeveralSeriesError, match="there are 2 scans here; choose one") as caught:
        open_scan(study)
    first, second = caught.value.series
    assert open_scan(study, series=first).shape == (6, 8, 10)
    assert open_scan(study, series=second.key).shape == (4, 8, 10)
    with pytest.raises(ScanError, match="there is no series nonsense"):
        open_scan(study, series="nonsense")


def test_a_file_stands_for_its_series(study):
    assert open_scan(study / "b" / "IM0003").shape == (6, 8, 10)


def test_a_file_in_a_crowd(tmp_path):
    Series(make.block(4)).write(tmp_path, "a{}.dcm")
    Series(make.block(6)).write(tmp_path, "b{}.dcm")
    assert open_scan(tmp_path / "a1.dcm").shape == (4, 8, 10)


def test_a_zip(study, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in study.rglob("*"):
            if path.is_file() and not path.is_symlink():
                archive.write(path, "../../" + path.name + path.parent.name)
    before = sorted(tmp_path.rglob("*"))
    assert can_open(tmp_path / "x.zip")
    found = find_series(tmp_path / "x.zip")
    scan = open_scan(tmp_path / "x.zip", series=found[0])
    np.testing.assert_array_equal(stored(scan), make.block(6))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dicomdir(tmp_path):
    files = FileSet()
    for ds in Series(make.block()).datasets():
        files.add(ds)
    files.write(tmp_path / "cd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pydicom leaves its temporary folder to the collector
        del files
        gc.collect()
    Series(make.block(5)).write(tmp_path / "cd" / "unlisted")
    np.testing.assert_array_equal(stored(open_scan(tmp_path / "cd" / "DICOMDIR")), make.block())
    assert can_open(tmp_path / "cd" / "DICOMDIR")


def test_a_folder_without_a_scan_is_not_claimed(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.png").write_bytes(b"\x89PNG" + bytes(300))
    assert not can_open(tmp_path)
    assert can_open(Series(make.block()).write(tmp_path / "deep"))
    assert can_open(tmp_path)


def _after_five(calls):
    calls.append(1)
    return len(calls) > 5


def test_opening_is_watched_and_stopped(tmp_path):
    folder = Series(make.block(20)).write(tmp_path)
    seen = []
    open_scan(folder, on_progress=lambda done, total: seen.append((done, total)))
    assert (20, 20) in seen
    assert seen[-1] == (1, 1)
    for function in (find_series, open_scan):
        calls = []
        with pytest.raises(OpeningStopped):
            function(folder, should_stop=partial(_after_five, calls))
        assert len(calls) == 6


@pytest.mark.parametrize("signed", [True, False])
def test_bits_that_a_pixel_does_not_use_are_no_part_of_it(signed, tmp_path):
    pixels = np.array([[[5, -5 if signed else 7, 2000, 100]] * 2] * 3, dtype="i2")
    wide = pixels.astype("i4")
    stored = ((wide & 0x0FFF) | 0xF000 * (wide % 2)).astype("u2")
    extra = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
    scan = open_scan(Series(stored, extra=extra).write(tmp_path))
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels).transpose(2, 1, 0), pixels)


def test_values_in_higher_bits_are_refused(tmp_path):
    folder = Series(make.block(3, kind="u2"), extra={"BitsStored": 12, "HighBit": 15}).write(tmp_path)
    with pytest.raises(ScanError, match="lowest bits"):
        open_scan(folder)
