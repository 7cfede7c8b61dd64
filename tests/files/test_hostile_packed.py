"""Packed files that are made of headers, of nothing, or of zeros; and sound ones that look a little like them."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_sparsetok.files import OpeningStopped, open_scan
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.files.unpacking import Unpacked

NAME, REMARK, EXTRA = 8, 16, 4


def scan(kind=nib.Nifti1Image, shape=(8, 9, 10), dtype="i2"):
    return kind(np.arange(np.prod(shape)).reshape(shape).astype(dtype), np.eye(4)).to_bytes()


def member(data, flags=0, fields=b""):
    """A member of gzip with optional fields in its header."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + fields
    return header + packer.compress(data) + packer.flush() + struct.pack("<II", zlib.crc32(data), len(data))


LONG = b"x" * 20_000_000 + b"\0"
HOSTILE = {
    "a long name": lambda data: member(data, NAME, LONG),
    "a long remark": lambda data: member(data, REMARK, LONG),
    "a long name and remark": lambda data: member(data, NAME | REMARK, LONG + LONG),
    "extra fields": lambda data: member(b"", EXTRA, b"\xff\xff" + bytes(65535)) * 800 + member(data),
    "empty members before": lambda data: member(b"") * 1_000_000 + member(data),
    "empty members after": lambda data: member(data) + member(b"") * 1_000_000,
    "members of a byte": lambda data: b"".join(member(bytes([byte])) for byte in data) + member(b"x") * 1_000_000,
    "empty blocks": lambda data: member(b"")[:10] + b"\0\0\0\xff\xff" * 10_000_000 + member(data)[10:],
    "zeros after": lambda data: member(data) + bytes(200_000_000),
}


@pytest.mark.parametrize("ending", [".nii.gz", ".mgz"])
@pytest.mark.parametrize("how", HOSTILE)
def test_little_but_headers(how, ending, tmp_path, endings):
    data = scan() if ending == ".nii.gz" else scan(nib.MGHImage, dtype="f4")
    (tmp_path / f"a{ending}").write_bytes(HOSTILE[how](data))
    words = endings(tmp_path / f"a{ending}")
    assert words == "" if how == "zeros after" else "cut short or damaged" in words


@pytest.mark.parametrize("how", ["a long name", "empty members before"])
def test_a_packed_nrrd(how, tmp_path, endings):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 9, 10), "i2")), str(tmp_path / "a.nrrd"), useCompression=True)
    head = (tmp_path / "a.nrrd").read_bytes().partition(b"\n\n")[0]
    (tmp_path / "a.nrrd").write_bytes(head + b"\n\n" + HOSTILE[how](bytes(1440)))
    assert "cut short or damaged" in endings(tmp_path / "a.nrrd")


def test_voxels_that_begin_gigabytes_behind_their_header(tmp_path, endings):
    head = bytearray(scan()[:352])
    head[108:112] = struct.pack("<f", 6e8)
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(600):
            file.write(bytes(1_000_000))
        file.write(scan())
    assert "far behind its header" in endings(tmp_path / "a.nii.gz")


def test_gigabytes_behind_the_voxels(tmp_path, endings):
    with gzip.open(tmp_path / "a.mgz", "wb", compresslevel=1) as file:
        file.write(scan(nib.MGHImage, (128, 128, 128), "f4"))
        for _ in range(300):
            file.write(bytes(1_000_000))
    assert endings(tmp_path / "a.mgz") == ""


def test_it_can_be_stopped_before_the_first_byte_comes_out(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(member(scan(), NAME, b"x" * 1_000_000 + b"\0"))
    asked = []
    with pytest.raises(OpeningStopped):
        open_scan(tmp_path / "a.nii.gz", should_stop=lambda: asked.append(0) or len(asked) > 3)


# Sound ones


def unpacked(data):
    return Unpacked(io.BytesIO(data)).read(1 << 30)


def test_every_field_that_a_header_may_have():
    fields = b"\x03\0abc" + b"name\0" + b"remark\0"
    header = b"\x1f\x8b\x08" + bytes([EXTRA | NAME | REMARK | 2]) + bytes(6) + fields
    data = header + struct.pack("<H", zlib.crc32(header) & 0xFFFF) + member(b"voxels")[10:]
    assert unpacked(data) == b"voxels" == gzip.decompress(data)


def test_ten_thousands_of_members(tmp_path):
    """As bgzip packs, with its empty member at the end."""
    blocks = [random.Random(k).randbytes(500) for k in range(10_000)]
    data = b"".join(member(block, EXTRA, b"\x06\0BC\x02\0\0\0") for block in blocks) + member(b"")
    assert unpacked(data) == b"".join(blocks)


@pytest.mark.parametrize("gap", [b"", b"\0", bytes(511), bytes(300_000)])
def test_zeros_between_members(gap):
    assert unpacked(member(b"vox") + gap + member(b"els") + gap) == b"voxels"


@pytest.mark.parametrize("rubbish", [b"x", b"rubbish", b"\x1f", b"\0\0\x1fx"])
def test_rubbish_behind_the_last_member_is_left(rubbish):
    assert unpacked(member(b"voxels") + rubbish) == b"voxels"


def test_every_cut_is_seen():
    data = member(b"vox", NAME, b"name\0") + member(random.Random(0).randbytes(300))
    whole = len(member(b"vox", NAME, b"name\0"))
    for length in (n for n in range(len(data)) if n not in (whole, whole + 1)):
        with pytest.raises((EOFError, zlib.error)):
            unpacked(data[:length])
    for at in (whole - 1, whole - 8, len(data) - 1, len(data) - 20):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        with pytest.raises(zlib.error):
            unpacked(bytes(changed))


@pytest.mark.parametrize("pieces", [1, 7, 1000, 10_000_000])
def test_in_whatever_pieces_it_is_read(pieces):
    whole = random.Random(0).randbytes(3000) + bytes(2_000_000 if pieces > 100 else 5000) + b"end"
    for data in (member(whole), member(whole[:1000]) + member(whole[1000:]), zlib.compress(whole)):
        stream, found = Unpacked(io.BytesIO(data)), []
        while piece := stream.read(pieces):
            found.append(piece)
        assert b"".join(found) == whole
        assert stream.tell() == len(whole)


def test_it_goes_on_to_a_place_and_never_back():
    stream = Unpacked(io.BytesIO(member(bytes(5_000_000) + b"voxels")))
    assert stream.seek(5_000_000) == 5_000_000
    assert stream.read(3) == b"vox"
    with pytest.raises(ValueError, match="once"):
        stream.seek(10)
    assert stream.seek(9_000_000) == 5_000_006
    assert stream.read(1) == b""


def test_it_stops_between_two_pieces():
    asked = []
    watch = Watch(should_stop=lambda: asked.append(0) or len(asked) > 2)
    stream = Unpacked(io.BytesIO(member(os.urandom(2_000_000))), watch)
    with pytest.raises(OpeningStopped):
        stream.read(2_000_000)
