"""Uncompressed voxels: read as other programs read them, or left on disk when there are too many."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tiny
from napari.components import ViewerModel
from napari.layers import Image
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.files import open_labels, open_scan, raw, reading, save_mask, unpacking
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Region, ScanError, stack_channels
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.scan_layer import layer_data, scan_of
from napari_sparsetok.weights import Registry

_LEFT, _, _RIGHT = np.linalg.svd([[0.1, -0.95, 0.14], [0.2, 0.15, 0.96], [0.98, 0.1, -0.03]])
OBLIQUE = np.diag([0.0, 0.0, 0.0, 1.0])
OBLIQUE[:3, :3] = _LEFT @ _RIGHT * (1.0, 2.0, 3.0)
OBLIQUE[:3, 3] = (30, -20, 10)


def voxels(shape=(9, 10, 11), kind="i2"):
    return np.random.default_rng(5).integers(0, 200, shape).astype(kind)


@pytest.fixture
def left_on_disk(monkeypatch):
    """Every scan that may stay on disk does."""
    monkeypatch.setattr(raw, "LARGEST_IN_MEMORY", 0)


def nifti(path, array, kind=nib.Nifti1Image, order="<", scale=(1, 0)):
    """The stored numbers as they are, under a header that scales them."""
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype.newbyteorder(order))
    header.set_data_shape(array.shape)
    header.set_sform(OBLIQUE, 1)
    header.set_slope_inter(*scale)
    data = array.astype(header.get_data_dtype()).tobytes(order="F")
    if kind is nib.Nifti1Pair:
        path.with_suffix(".hdr").write_bytes(header.binaryblock)
        path.write_bytes(data)
    else:
        header["vox_offset"] = len(header.binaryblock) + 4
        path.write_bytes(header.binaryblock + bytes(4) + data)
    return path


def both(path, monkeypatch):
    """A file read whole, and the same left on disk."""
    whole = open_scan(path)
    with monkeypatch.context() as patch:
        patch.setattr(raw, "LARGEST_IN_MEMORY", 0)
        return whole, open_scan(path)


def agree(whole, lazy):
    assert (whole.is_lazy, lazy.is_lazy) == (False, True)
    assert (lazy.voxels.dtype, lazy.voxels.shape, lazy.voxels.ndim) == (
        whole.voxels.dtype,
        whole.voxels.shape,
        whole.voxels.ndim,
    )
    np.testing.assert_array_equal(np.asarray(lazy.voxels), whole.voxels)
    np.testing.assert_array_equal(lazy.geometry.source_affine, whole.geometry.source_affine)
    assert (lazy.notes, lazy.name, lazy.leading) == (whole.notes, whole.name, whole.leading)
    box = (..., slice(1, 4), slice(None, None, 3), slice(8, 2, -2))
    part = lazy.voxels[box]
    assert type(part) is np.ndarray
    assert part.dtype.isnative
    np.testing.assert_array_equal(part, whole.voxels[box])


# ── what is on disk is what would be in memory ───────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("scale", [(1, 0), (0.25, -3.0)])
def test_nifti(kind, order, dtype, scale, tmp_path, monkeypatch):
    path = nifti(tmp_path / ("a.img" if kind is nib.Nifti1Pair else "a.nii"), voxels(kind=dtype), kind, order, scale)
    whole, lazy = both(path, monkeypatch)
    agree(whole, lazy)
    expected = voxels(kind=dtype) * scale[0] + scale[1]
    np.testing.assert_array_equal(whole.geometry.to_source(whole.voxels), expected)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
@pytest.mark.parametrize("shape", [(9, 10, 11), (3, 9, 10, 11)])
def test_nrrd_and_metaimage(name, dtype, shape, tmp_path, monkeypatch):
    array = voxels(shape, dtype)
    image = sitk.GetImageFromArray(array, isVector=False)
    if len(shape) == 3:
        image.SetSpacing((0.5, 0.75, 2.0))
        image.SetDirection((0.0, 1.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0))
        image.SetOrigin((3.0, 4.0, -5.5))
    sitk.WriteImage(image, str(tmp_path / name), useCompression=False)
    whole, lazy = both(tmp_path / name, monkeypatch)
    agree(whole, lazy)
    back = whole.geometry.to_source(np.moveaxis(whole.voxels, 0, -1) if len(shape) == 4 else whole.voxels)
    np.testing.assert_array_equal(back.T, array)


@pytest.mark.parametrize("kind", ["i2", "f8"])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("skip", ["", "byte skip: 7", "byte skip: -1"])
@pytest.mark.parametrize("detached", [False, True])
def test_nrrd_of_other_programs(kind, endian, skip, detached, tmp_path, monkeypatch):
    array = voxels(kind=kind)
    head = "NRRD0004\n# made up\ntype: {}\ndimension: 3\nspace: RAS\nsizes: 11 10 9\nendian: {}\nencoding: raw\n"
    head = head.format("short" if kind == "i2" else "double", endian)
    head += "space directions: (0.5,0,0) (0,0,2) (0,3,0)\nspace origin: (1,2,3)\n" + (f"{skip}\n" if skip else "")
    data = bytes(7) * bool(skip) + array.astype((">" if endian == "big" else "<") + kind).tobytes()
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    if detached:
        (tmp_path / "a.bin").write_bytes(data)
        path.write_text(head + "data file: a.bin\n")
    else:
        path.write_bytes(head.encode() + b"\n" + data)
    whole, lazy = both(path, monkeypatch)
    agree(whole, lazy)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(whole.geometry.to_source(whole.voxels).T, sitk.GetArrayFromImage(image))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    assert whole.geometry.source_axes == "RSA"


META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\n{more}ElementSpacing = 0.5 2 3\nDimSize = 11 10 9\n"
    "ElementType = {type}\nElementDataFile = {data}\n"
)


@pytest.mark.parametrize(
    "more",
    ["BinaryDataByteOrderMSB = True\n", "ElementByteOrderMSB = False\n", "HeaderSize = -1\n", "HeaderSize = 7\n"],
)
def test_metaimage_of_other_programs(more, tmp_path, monkeypatch):
    array = voxels()
    data = bytes(7) * ("HeaderSize" in more) + array.astype(">i2" if "= True" in more else "<i2").tobytes()
    (tmp_path / "a.bin").write_bytes(data)
    path = tmp_path / "a.mhd"
    path.write_text(META.format(more=more, type="MET_SHORT", data="a.bin"))
    whole, lazy = both(path, monkeypatch)
    agree(whole, lazy)
    np.testing.assert_array_equal(whole.geometry.to_source(whole.voxels).T, array)
    np.testing.assert_array_equal(
        whole.geometry.to_source(whole.voxels).T, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    )


@pytest.mark.parametrize("name", ["a.nii.gz", "b.nrrd", "c.mha", "d.mgz"])
def test_what_is_compressed_is_read_whole(name, tmp_path, left_on_disk):
    if name.endswith((".gz", ".mgz")):
        nib.save((nib.MGHImage if "mgz" in name else nib.Nifti1Image)(voxels(kind="f4"), OBLIQUE), tmp_path / name)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / name), useCompression=True)
    assert not open_scan(tmp_path / name).is_lazy


# ── what a lazy scan is good for ─────────────────────────────────────────────────────────────────


def test_frames_stay_on_disk_too(tmp_path, left_on_disk):
    array = voxels((9, 10, 11, 3)) * np.array([1, 1, 1])
    array[..., 1] = array[..., 0]
    scan = open_scan(nifti(tmp_path / "a.nii", array.astype("i2")))
    assert (scan.leading, len(scan.voxels)) == ("time", 3)
    frame = scan.frame(2)
    assert frame.is_lazy
    np.testing.assert_array_equal(frame.geometry.to_source(np.asarray(frame.voxels)), array[..., 2])
    assert len({scan.frame(k).content_hash for k in range(3)}) == 3
    assert frame.content_hash.endswith("-sampled")
    np.testing.assert_array_equal(np.asarray(frame.voxels[None])[0], np.asarray(frame.voxels))


def test_a_lazy_scan_is_known_again(tmp_path, left_on_disk):
    one = open_scan(nifti(tmp_path / "a.nii", voxels()))
    same = open_scan(nifti(tmp_path / "b.nii", voxels()))
    array = voxels()
    array[0, 0, 0] += 1  # in no box, but in a stripe
    other = open_scan(nifti(tmp_path / "c.nii", array))
    assert one.content_hash == same.content_hash != other.content_hash
    assert one.content_hash.endswith("-sampled")


def test_a_region_of_it_is_segmented_and_saved(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(100, 20, (24, 32, 28)).astype("f4")
    whole, lazy = both(nifti(tmp_path / "a.nii", array), monkeypatch)
    tiny.write_model(tmp_path)
    segmenter = SCDSegmenter(Registry([tmp_path]))
    box = Region((4, 4, 2), (20, 28, 20))
    expected = segmenter.segment(whole, Settings("tiny", 0.5), region=box)
    found = segmenter.segment(lazy, Settings("tiny", 0.5), region=box)
    np.testing.assert_array_equal(found.mask, expected.mask)
    labels = LabelTable.of([f"label {k + 1}" for k in range(int(found.mask.max()) or 1)])
    again, _ = open_labels(save_mask(tmp_path / "m.nii", found.mask, lazy, labels), lazy)
    np.testing.assert_array_equal(again, found.mask)
    assert not lazy.is_sampled
    assert lazy.sample.size >= 500
    assert lazy.is_sampled
    np.testing.assert_array_equal(lazy.cropped(box).voxels, whole.cropped(box).voxels)


def test_channels_of_lazy_scans(tmp_path, left_on_disk):
    scan = open_scan(nifti(tmp_path / "a.nii", voxels()))
    stacked = stack_channels([scan, scan])
    np.testing.assert_array_equal(np.asarray(stacked.voxels)[1], np.asarray(scan.voxels))


def test_channels_that_do_not_fit_are_refused_unread(tmp_path):
    scan = open_scan(sparse(tmp_path / "a.nii", 2560))
    with pytest.raises(ScanError, match="GB of memory, and .* are free; crop"):
        stack_channels([scan, scan])


@pytest.mark.parametrize("shape", [(9, 10, 11), (9, 10, 11, 3)])
def test_napari_shows_it(shape, tmp_path, left_on_disk):
    scan = open_scan(nifti(tmp_path / "a.nii", voxels(shape)))
    [(data, arguments, _)] = layer_data(scan)
    layer = Image(data, **arguments)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    at = (2,) * len(shape)
    viewer.dims.current_step = at
    assert layer.data is scan.voxels
    assert layer.get_value(at, world=False) == np.asarray(scan.voxels)[at]
    assert scan_of(layer).is_lazy


def test_a_file_that_changes_meanwhile_is_not_touched(tmp_path, left_on_disk):
    path = nifti(tmp_path / "a.nii", voxels())
    scan = open_scan(path)
    os.truncate(path, 1000)
    with pytest.raises(ScanError, match="changed or moved since it was opened"):
        scan.voxels[0:2]
    path.unlink()
    with pytest.raises(ScanError, match="changed or moved"):
        np.asarray(scan.voxels)


@pytest.mark.parametrize("cut", [1, 500])
@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
def test_cut_short(cut, name, tmp_path, left_on_disk):
    if name == "a.nii":
        nifti(tmp_path / name, voxels())
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(tmp_path / name), useCompression=False)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-cut])
    with pytest.raises(ScanError, match="cut short"):
        open_scan(tmp_path / name)


def test_a_scaling_out_of_range_is_refused_unread(tmp_path, left_on_disk):
    with pytest.raises(ScanError, match="out of range"):
        open_scan(nifti(tmp_path / "a.nii", voxels(), scale=(3e38, 0.0)))


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def sparse(path, side, kind=nib.Nifti1Header):
    """A NIfTI file of side³ int16 voxels that takes next to no room on disk."""
    header = kind()
    header.set_data_dtype(np.int16)
    header.set_data_shape((side, side, side))
    header.set_sform(np.diag([-0.1, -0.1, 0.1, 1.0]), 1)
    with path.open("wb") as file:
        header.write_to(file)
        file.write(bytes(4))
        file.truncate(int(header.get_data_offset()) + 2 * side**3)
    return path


def test_thirty_two_gigabytes_open_within_a_few_megabytes(tmp_path):
    path = sparse(tmp_path / "a.nii", 2560)
    assert path.stat().st_size > 32_000_000_000
    tracemalloc.start()
    scan = open_scan(path)
    assert scan.is_lazy
    assert scan.shape == (2560, 2560, 2560)
    assert scan.content_hash
    assert scan.voxels[1000:1010, 0:64, 5].shape == (10, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


RESIDENT = """
import sys
from pathlib import Path
import SimpleITK
from napari_sparsetok.files import itk, nifti, open_scan
from napari_sparsetok.scan import Region
def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
scan = open_scan(sys.argv[1])
scan.content_hash
scan.cropped(Region((100, 100, 100), (164, 164, 164)))
print(resident("VmHWM") - before)
"""


def sparse_text(path, side):
    """The same as NRRD, or as MetaImage with its voxels beside it."""
    if path.suffix == ".nrrd":
        head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {side} {side} {side}\nendian: little\nencoding: raw\n\n"
        path.write_text(head)
        os.truncate(path, len(head) + 2 * side**3)
    else:
        text = META.format(more="", type="MET_SHORT", data="a.raw").replace("11 10 9", f"{side} {side} {side}")
        path.write_text(text)
        path.with_suffix(".raw").touch()
        os.truncate(path.with_suffix(".raw"), 2 * side**3)
    return path


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mhd"])
def test_what_opening_takes_of_the_machine(name, tmp_path):
    path = (sparse if name == "a.nii" else sparse_text)(tmp_path / name, 1400)
    run = subprocess.run([sys.executable, "-c", RESIDENT, str(path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 150_000_000


def test_a_small_file_is_read_whole(tmp_path, monkeypatch):
    path = nifti(tmp_path / "a.nii", voxels())
    assert not open_scan(path).is_lazy
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 3 * 1980}))
    assert open_scan(path).is_lazy


# ── on the command line ──────────────────────────────────────────────────────────────────────────


def test_info_on_a_scan_that_stays_on_disk(tmp_path):
    path = sparse(tmp_path / "a.nii", 1400)
    run = CliRunner().invoke(app, ["info", "--json", str(path)])
    assert run.exit_code == 0
    found = json.loads(run.stdout)["scan"]
    assert found["lazy"] is True
    assert (found["voxels_zyx"], found["numbers"]) == ([1400, 1400, 1400], "int16")
    assert "read when needed" in CliRunner().invoke(app, ["info", str(path)]).output


# ── packed ───────────────────────────────────────────────────────────────────────────────────────


def packed_nrrd(path, array, endian="little", pack=gzip.compress, end=b""):
    text = f"NRRD0004\ntype: short\ndimension: 3\nspace: RAS\nsizes: 11 10 9\nendian: {endian}\nencoding: gzip\n"
    text += "space directions: (0.5,0,0) (0,0,2) (0,3,0)\nspace origin: (1,2,3)\n"
    data = pack(array.astype((">" if endian == "big" else "<") + "i2").tobytes()) + end
    if path.suffix == ".nhdr":
        path.with_suffix(".gz").write_bytes(data)
        path.write_text(f"{text}data file: {path.stem}.gz\n")
    else:
        path.write_bytes(text.encode() + b"\n" + data)
    return path


def packed_meta(path, array, endian="little", pack=zlib.compress, end=b""):
    data = pack(array.astype((">" if endian == "big" else "<") + "i2").tobytes()) + end
    text = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {endian == 'big'}\n"
    text += f"CompressedData = True\nCompressedDataSize = {len(data)}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    text += "ElementSpacing = 1 2 3\nDimSize = 11 10 9\nElementType = MET_SHORT\n"
    if path.suffix == ".mhd":
        path.with_suffix(".zraw").write_bytes(data)
        path.write_text(f"{text}ElementDataFile = {path.stem}.zraw\n")
    else:
        path.write_bytes(f"{text}ElementDataFile = LOCAL\n".encode() + data)
    return path


PACKED = {"a.nrrd": packed_nrrd, "a.nhdr": packed_nrrd, "a.mha": packed_meta, "a.mhd": packed_meta}


@pytest.fixture
def no_library(monkeypatch):
    """SimpleITK would read it in one step, and take twice the memory."""
    monkeypatch.setattr(sitk, "ReadImage", None)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("endian", ["little", "big"])
def test_packed_numbers_are_read_in_pieces(name, endian, tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "_PIECE", 100)
    monkeypatch.setattr(reading, "_CHUNK", 64)
    array = voxels(kind="i2")
    scan = open_scan(PACKED[name](tmp_path / name, array, endian))
    np.testing.assert_array_equal(scan.geometry.to_source(scan.voxels).T, array)
    assert scan.voxels.dtype == np.int16
    assert scan.voxels.dtype.isnative


@pytest.mark.usefixtures("no_library")
def test_packed_by_other_programs(tmp_path):
    array = voxels(kind="i2")
    half = array.nbytes // 2

    def in_two(data):
        return gzip.compress(data[:half]) + gzip.compress(data[half:])

    for path in (
        packed_nrrd(tmp_path / "parts.nrrd", array, pack=in_two),
        packed_nrrd(tmp_path / "rubbish.nrrd", array, end=b"rubbish"),
        packed_meta(tmp_path / "gzip.mha", array, pack=gzip.compress),
        packed_meta(tmp_path / "rubbish.mha", array, end=b"rubbish"),
    ):
        np.testing.assert_array_equal(open_scan(path).voxels.ravel().sum(), array.sum())


@pytest.mark.parametrize("name", PACKED)
def test_packed_numbers_that_are_damaged(name, tmp_path):
    array = voxels(kind="i2")
    for k, spoil in enumerate(
        (
            lambda data: data[:-2],  # in the middle of the checksum
            lambda data: data[: len(data) // 2],
            lambda data: data[:-6] + bytes(6),
            lambda data: data[:40] + bytes(40) + data[80:],
            lambda data: b"",
        )
    ):
        path = PACKED[name](tmp_path / f"{k}{name}", array)
        file = next((path.with_suffix(s) for s in (".gz", ".zraw") if path.with_suffix(s).exists()), path)
        data = file.read_bytes()
        at = data.index(b"\n\n") + 2 if name == "a.nrrd" else data.index(b"LOCAL\n") + 6 if name == "a.mha" else 0
        file.write_bytes(data[:at] + spoil(data[at:]))
        with pytest.raises(ScanError, match=r"cut short"):
            open_scan(path)


def test_packed_voxels_take_their_size_once(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 1 << 16)
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 9, (100, 200, 200)).astype("i2"))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        tracemalloc.start()
        scan = open_scan(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.3 * scan.voxels.nbytes
