"""600 hostile inputs: each opens or ends in a sentence, within five seconds of work and a gigabyte.

They are opened in a process of their own; see `opening_process`.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path

import dicom_maker as make
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from dicom_maker import Series
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, RLELossless

from napari_sparsetok.files import open_scan

KINDS = [
    *("classic.dcm", "enhanced.dcm", "j2k.dcm", "rle.dcm", "a.zip", "a.nii", "a.nii.gz", "a.mgz"),
    *("a.nrrd", "raw.nrrd", "a.mha", "a.tif"),
]


def test_memory_that_was_taken_and_given_back_is_seen(process):
    assert 90_000_000 < process.open(100_000_000, "take").bytes < 200_000_000
    for _ in range(2):  # the second time it is no record of the process any more
        assert process.open(400_000_000, "take").bytes > 390_000_000


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A sound file of every kind, by name."""
    folder = tmp_path_factory.mktemp("good")
    pixels = make.block(4, 32, 40, kind="u2")
    made = {"classic.dcm": Series(pixels).datasets()[0], "enhanced.dcm": make.enhanced(Series(pixels))}
    for name, syntax in {"j2k.dcm": JPEG2000Lossless, "rle.dcm": RLELossless}.items():
        made[name] = make.enhanced(Series(pixels))
        made[name].compress(syntax, generate_instance_uid=False)
    for name, dataset in made.items():
        dataset.save_as(folder / name, enforce_file_format=True)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in Series(pixels).write(folder / "series").iterdir():
            archive.write(path, path.name)
    nib.save(nib.Nifti1Image(pixels.astype("i2"), np.eye(4)), folder / "a.nii.gz")
    nib.save(nib.MGHImage(pixels.astype("f4"), np.eye(4)), folder / "a.mgz")
    nib.save(nib.Nifti1Image(pixels.astype("i2"), np.eye(4)), folder / "a.nii")
    for name in ("a.nrrd", "raw.nrrd", "a.mha"):
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(folder / name), useCompression=not name.startswith("raw"))
    tifffile.imwrite(folder / "a.tif", pixels, imagej=True)
    return {name: (folder / name).read_bytes() for name in KINDS}


def spoilt(data: bytes, dice: random.Random) -> bytes:
    """The bytes with something wrong about them."""
    way = dice.randrange(6)
    if way == 0:
        return data[: dice.randrange(len(data))]
    if way == 1:
        return dice.randbytes(dice.randrange(1, 3000))
    changed = bytearray(data)
    reach = len(data) if way == 2 else min(len(data), 2500)
    for _ in range(dice.choice((1, 3, 20, 200))):
        changed[dice.randrange(reach)] = dice.choice((0, 0xFF, 0x7F, 0x80, dice.randrange(256)))
    if way == 3:
        at = dice.randrange(reach)
        changed[at : at + 4] = b"\xff\xff\xff\xfe"
    if way == 4:
        at = dice.randrange(reach)
        del changed[at : at + dice.randrange(1, 400)]
    if way == 5:
        at = dice.randrange(reach)
        changed[at:at] = dice.randbytes(dice.randrange(1, 400))
    return bytes(changed)


def spoilt_text(data: bytes, dice: random.Random) -> bytes:
    """As `spoilt`, or with another number in the text at the head."""
    head, tail = data[:600], data[600:]
    numbers = [k for k, byte in enumerate(head) if chr(byte).isdigit()]
    if not numbers or dice.random() < 0.4:
        return spoilt(data, dice)
    at = dice.choice(numbers)
    wrong = dice.choice((b"-1", b"0", b"99999999999", b"nan", b"1e300", b"", b"4 4 4 4", b"inf", b"\xff"))
    return head[:at] + wrong + head[at + 1 :] + tail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_fifty_spoilt_files_of_each_kind(kind, seed, good, tmp_path, endings):
    dice = random.Random(f"{kind} {seed}")
    ends = []
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        how = spoilt_text if kind in ("a.nrrd", "raw.nrrd", "a.mha") else spoilt
        (folder / kind).write_bytes(how(good[kind], dice))
        ends.append(endings(folder / kind))
    assert any(ends)


def test_the_sound_files_are_sound(good, tmp_path, endings):
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
        if name != "classic.dcm":  # one slice of a series
            assert endings(tmp_path / name) == "" or name.endswith(".dcm")


# ── made with intent ─────────────────────────────────────────────────────────────────────────────


def test_sequences_within_sequences(tmp_path, endings):
    inner = Dataset()
    for _ in range(100):
        outer = Dataset()
        outer.PerFrameFunctionalGroupsSequence = Sequence([inner])
        inner = outer
    for k, ds in enumerate(Series(make.block(3)).datasets()):
        ds.PerFrameFunctionalGroupsSequence = Sequence([inner])
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    endings(tmp_path)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF) + item
    whole = (tmp_path / "0.dcm").read_bytes()
    (tmp_path / "0.dcm").write_bytes(whole[: whole.index(b"\x28\x00\x02\x00")] + nested * 20_000)
    assert endings(tmp_path)


def test_a_zip_that_unpacks_to_gigabytes(tmp_path, endings):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        head = io.BytesIO()
        Series(make.block(3)).datasets()[0].save_as(head, enforce_file_format=True)
        with archive.open("IM0", "w", force_zip64=True) as member:
            member.write(head.getvalue())
            for _ in range(300):
                member.write(bytes(1 << 20))
    assert (tmp_path / "a.zip").stat().st_size < 1_000_000
    assert "unpacks to far more" in endings(tmp_path / "a.zip")


def test_names_that_lead_out_of_a_zip(tmp_path):
    folder = Series(make.block(4)).write(tmp_path / "in")
    (tmp_path / "deep").mkdir()
    with zipfile.ZipFile(tmp_path / "deep" / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"../../../{path.name}.dcm")
    before = sorted(tmp_path.rglob("*"))
    assert open_scan(tmp_path / "deep" / "a.zip").shape == (4, 8, 10)
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_a_circle(tmp_path, endings):
    folder = Series(make.block(4)).write(tmp_path / "a")
    (folder / "up").symlink_to(tmp_path)
    (folder / "self").symlink_to(folder / "self")
    (folder / "one").symlink_to(folder / "two")
    (folder / "two").symlink_to(folder / "one")
    assert open_scan(tmp_path).shape == (4, 8, 10)
    assert endings(folder / "self")


def test_a_stream_that_announces_another_picture(tmp_path, endings):
    for k, ds in enumerate(Series(make.block(4, 32, 40, kind="u2")).datasets()):
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
        data = (tmp_path / f"{k}.dcm").read_bytes()
        at = data.index(b"\xff\x4f\xff\x51")
        huge = data[: at + 8] + struct.pack(">II", 60_000, 60_000) + data[at + 16 :]
        (tmp_path / f"{k}.dcm").write_bytes(huge)
    assert "another size than its header says" in endings(tmp_path)


def test_a_data_set_deflated_as_a_whole(tmp_path, endings):
    for k, ds in enumerate(Series(make.block(4)).datasets()):
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        ds.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    assert endings(tmp_path)


def test_an_ome_zarr_of_a_size_that_no_disk_holds(tmp_path, endings):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    group.create_array("0", shape=(10**7, 10**7, 10**7), dtype="u1", chunks=(64, 64, 64))
    group.create_array("1", shape=(10**6, 10**6, 10**6), dtype="u1", chunks=(512, 512, 512))
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    datasets = [{"path": str(k), "coordinateTransformations": scale} for k in range(2)]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    assert "choose a coarser one" in endings(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_that_points_elsewhere(tmp_path, endings):
    folder = tmp_path / "cd"
    Series(make.block(4)).write(tmp_path / "outside")
    ds = make.empty("1.2.840.10008.1.3.10")
    record = Dataset()
    record.ReferencedFileID = ["..", "outside", "IM0001"]
    ds.DirectoryRecordSequence = Sequence([record])
    folder.mkdir()
    ds.save_as(folder / "DICOMDIR", enforce_file_format=True)
    assert "no DICOM image" in endings(folder / "DICOMDIR")


def test_what_is_not_a_file(tmp_path, endings):
    for name in ("a.dcm", "a.nrrd", "a.mgz", "a.tif", "a.zip", "DICOMDIR", "a.zarr"):
        assert endings(tmp_path / name)
        (tmp_path / name).touch()
        assert endings(tmp_path / name)
    assert endings(Path("/dev/null"))


def test_zeros_after_the_pixels_are_not_read_as_a_header(tmp_path, endings):
    folder = Series(make.block(4)).write(tmp_path / "series")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes() + bytes(8 << 20))
    assert endings(folder) == ""
