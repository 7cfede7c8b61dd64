"""DICOM headers without end, lists of files without end, and objects of a scanner that are long but sound."""

from __future__ import annotations

import copy
import io
import os
import struct
import time
import zipfile

import dicom_maker as make
import numpy as np
import pytest
from dicom_maker import Series
from pydicom import Dataset
from pydicom.sequence import Sequence

from napari_sparsetok.files import OpeningStopped, find_series, open_scan

ITEM, END = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SHARED, FRAMES, REFERENCED, SEGMENTS = (0x5200, 0x9229), (0x5200, 0x9230), (0x0008, 0x1140), (0x0062, 0x0002)
TOO_LONG = "far longer than that of any scan"
PIXELS, PATIENT = b"\xe0\x7f\x10\x00", b"\x10\x00\x10\x00PN"


def written(dataset):
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def element(tag, kind, length):
    return struct.pack("<HH2sHI", *tag, kind, 0, length)


def sequence(tag, items, *, announced):
    length = len(items) if announced else 0xFFFFFFFF
    return element(tag, b"SQ", length) + items + (b"" if announced else END)


def item(*parts):
    body = b"".join(parts)
    return ITEM[:4] + struct.pack("<I", len(body)) + body


def put(data, more, before=PIXELS):
    at = data.index(before)
    return data[:at] + more + data[at:]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "open"])
@pytest.mark.parametrize("tag", [SHARED, FRAMES, REFERENCED, SEGMENTS], ids=["shared", "frames", "images", "segments"])
def test_a_sequence_of_a_million_items(tag, announced, tmp_path, endings):
    slices = Series(make.block(3)).datasets()
    for k, ds in enumerate(slices):
        more = sequence(tag, ITEM * 1_000_000, announced=announced)
        (tmp_path / f"{k}.dcm").write_bytes(put(written(ds), more, PATIENT if tag == REFERENCED else PIXELS))
    words = endings(tmp_path)
    skipped = announced and tag in (REFERENCED, SEGMENTS)
    assert words == "" if skipped else "damaged" in words
    if not skipped:
        assert TOO_LONG in endings(tmp_path / "1.dcm")


def test_a_million_frames_that_nobody_announced(tmp_path, endings):
    """No size, no number of frames, nothing but descriptions of them."""
    head = written(make.empty(make.ENHANCED_MR))
    (tmp_path / "a.dcm").write_bytes(head + sequence(FRAMES, ITEM * 2_000_000, announced=False))
    assert endings(tmp_path / "a.dcm")


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "open"])
def test_a_structure_set_of_a_million_points_beside_a_scan(announced, tmp_path, endings):
    folder = Series(make.block(4)).write(tmp_path / "series")
    ds = make.empty("1.2.840.10008.5.1.4.1.1.481.3")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2", "1.2.3", "RTSTRUCT"
    outline = item(struct.pack("<HH2sH", 0x3006, 0x50, b"DS", 6) + b"1\\2\\3 ")
    outlines = item(sequence((0x3006, 0x40), outline * 1_000_000, announced=announced))
    (folder / "rt.dcm").write_bytes(written(ds) + sequence((0x3006, 0x39), outlines, announced=announced))
    assert endings(folder) == ""
    assert "holds no DICOM image" in endings(folder / "rt.dcm")


@pytest.mark.parametrize(
    "last",
    [
        element((0x0029, 0x1010), b"OB", 0xFFFFFFFF),
        element(FRAMES, b"SQ", 3 << 30),
        element((0x0029, 0x1010), b"OB", 3 << 30),
        b"",
    ],
    ids=["open", "frames", "announced", "nothing"],
)
def test_gigabytes_of_zeros_in_a_header(last, tmp_path, endings):
    data = written(Series(make.block(1)).datasets()[0])
    (tmp_path / "a.dcm").write_bytes(data[: data.index(PIXELS)] + last)
    os.truncate(tmp_path / "a.dcm", (3 << 30) + 100_000)
    assert endings(tmp_path / "a.dcm")


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "open"])
def test_a_dicomdir_of_a_million_records(announced, tmp_path, endings):
    record = item(struct.pack("<HH2sH", 4, 0x1500, b"CS", 4) + b"IM\\A")
    data = written(make.empty("1.2.840.10008.1.3.10"))
    (tmp_path / "DICOMDIR").write_bytes(data + sequence((4, 0x1220), record * 1_000_000, announced=announced))
    assert "choose the folder of one study" in endings(tmp_path / "DICOMDIR")


def end_of(length, remark=b""):
    """The end of a zip whose list of members is so long."""
    return b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0, 0, length, 0, len(remark)) + remark


def long_end_of(length, shorter):
    """As zips of four gigabytes end: a record of its own says how long the list is, where the usual one may lie."""
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 0, 0, length, 0)
    return record + b"PK\6\7" + struct.pack("<IQI", 0, length, 1) + end_of(shorter)


ENDS = {
    "plain": end_of,
    "with a remark": lambda length: end_of(length, b"x" * 60_000),
    "long": lambda length: long_end_of(length, 0xFFFFFFFF),
    "long and lying": lambda length: long_end_of(length, 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_zip_of_half_a_million_members(end, tmp_path, endings):
    member = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    members = b"PK\3\4" + member * 500_000
    (tmp_path / "a.zip").write_bytes(members + ENDS[end](len(members) - 4))
    assert "more than 15000 files in this zip" in endings(tmp_path / "a.zip")


def test_a_zip_of_as_many_members_as_are_read(tmp_path):
    folder = Series(make.block(4)).write(tmp_path / "series")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
        for k in range(14_990):
            archive.writestr(f"viewer/{k}.x", b"x")
    assert open_scan(tmp_path / "a.zip").shape == (4, 8, 10)


def many_frames(count):
    """An object as scanners make them: eight descriptions a frame, sequences that end where they say so."""
    ds = make.enhanced(Series(make.block(10, 8, 10)))
    shared, first = ds.SharedFunctionalGroupsSequence[0], list(ds.PerFrameFunctionalGroupsSequence)
    echo, kind = Dataset(), Dataset()
    echo.EffectiveEchoTime, kind.FrameType = 5.0, ["ORIGINAL", "PRIMARY", "M", "NONE"]
    frames = []
    for k in range(count):
        frame = copy.deepcopy(first[k % 10])
        frame.FrameContentSequence[0].TemporalPositionIndex = k // 10 + 1
        frame.MREchoSequence, frame.MRImageFrameTypeSequence = Sequence([echo]), Sequence([kind])
        for said in shared:
            frame[said.tag] = said
        frame.is_undefined_length_sequence_item = True
        for said in frame:
            said.is_undefined_length = True
        frames.append(frame)
    pixels = np.frombuffer(ds.PixelData, "i2")
    ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = Sequence(frames), count
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    ds.PixelData = np.tile(pixels, count // 10).tobytes()
    return ds


def test_thousands_of_frames_open_and_can_be_stopped_in_their_header(tmp_path):
    many_frames(1000).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert open_scan(tmp_path / "a.dcm").voxels.shape == (100, 10, 8, 10)
    for patience in (0.05, 0.2, 0.4):
        begun = time.process_time()
        with pytest.raises(OpeningStopped):
            find_series(tmp_path / "a.dcm", should_stop=lambda end=begun + patience: time.process_time() > end)
        assert time.process_time() - begun < patience + 0.6
