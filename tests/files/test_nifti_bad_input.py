"""Every file that is no scan is refused in one sentence that says why and what to do."""

from __future__ import annotations

import errno
import gzip
import os
import re
import struct
import threading
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from napari_sparsetok.files import can_open, nifti, open_scan
from napari_sparsetok.scan import Scan, ScanError

ADVICE = re.compile(
    r"; (.*\b(check|choose|convert|export|copy|crop|split|ask)\b.*)$"
    r"|needs a stack of slices$|needs one grey value a voxel$"
)
LIBRARY_WORDS = ("Traceback", "nibabel", "Error(", "0x", "NoneType", "array(", "dtype(", "errno", "Errno")

one_folder_will_do = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(path):
    """The sentence that the file is refused with."""
    sentence = opened_or_refused(path)
    assert sentence, "it was not refused"
    return sentence


def opened_or_refused(path):
    """Empty, or the sentence that the file is refused with, which must be a good one."""
    try:
        assert isinstance(open_scan(path), Scan)
    except ScanError as error:
        caught = error
    else:
        return ""
    sentence = str(caught)
    assert "\n" not in sentence
    assert ADVICE.search(sentence), sentence
    assert not any(word in sentence for word in LIBRARY_WORDS), sentence
    assert caught.__cause__ is None
    assert caught.__suppress_context__ or caught.__context__ is None
    return sentence


def good(shape=(6, 7, 8), dtype="i2"):
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    image = nib.Nifti1Image(voxels, None)
    image.set_sform(np.diag([1.0, 2.0, 3.0, 1.0]), 1)
    image.set_qform(np.diag([1.0, 2.0, 3.0, 1.0]), 1)
    return image.to_bytes()


def patched(**fields):
    """A good file whose header has these fields instead, unchecked by anyone."""
    data = good()
    header = nib.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + data[348:]


def dims(*shape):
    return [len(shape), *shape, *[1] * (7 - len(shape))]


@pytest.fixture
def write(tmp_path):
    def write(data, name="scan.nii"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def test_the_good_file_is_good(write):
    assert open_scan(write(good())).shape == (8, 7, 6)
    assert open_scan(write(patched())).shape == (8, 7, 6)


# ── no such file ─────────────────────────────────────────────────────────────────────────────────


def test_a_missing_file(tmp_path):
    assert "there is no file" in refused(tmp_path / "scan.nii.gz")
    assert "there is no file" in refused(str(tmp_path / "scan.nii.gz"))
    assert "there is no file" in refused("~nobody-of-this-name/scan.nii.gz")


def test_a_folder(tmp_path):
    (tmp_path / "scan.nii").mkdir()
    assert "is a folder" in refused(tmp_path)
    assert "is a folder" in refused(tmp_path / "scan.nii")
    assert "no name was given" in refused("")


def test_another_kind_of_file(tmp_path):
    for name in ("scan.png", "scan", "scan.nii.bz2", "nii.gz"):
        (tmp_path / name).write_bytes(b"x")
        assert "is not a scan of a kind that is read" in refused(tmp_path / name)
        assert not can_open(tmp_path / name)


def test_half_of_a_pair_under_the_name_of_a_whole_file(tmp_path, write):
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), dtype=np.int16), np.eye(4)), tmp_path / "scan.hdr")
    assert "half of a pair" in refused(write((tmp_path / "scan.hdr").read_bytes()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "scan.nii")
    thread = threading.Thread(target=refused, args=(tmp_path / "scan.nii",), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_name_that_no_disk_takes(tmp_path):
    assert "cannot be reached" in refused(tmp_path / ("x" * 5000 + ".nii"))
    assert "there is no file" in refused("scan\0.nii")


def test_a_file_that_may_not_be_read(write, monkeypatch):
    path = write(good())

    def refuse(*_args, **_keys):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(nifti.Path, "open", refuse)
    assert "may not be read by you" in refused(path)


def test_a_folder_that_may_not_be_entered(write, monkeypatch):
    path = write(good())

    def refuse(*_args, **_keys):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(nifti.Path, "stat", refuse)
    assert "cannot be reached (Permission denied)" in refused(path)


def test_a_disk_that_fails(write, monkeypatch):
    path = write(good())

    def fail(*_args, **_keys):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(nifti, "_stored", fail)
    assert "cannot be read (Input/output error)" in refused(path)


def test_too_little_memory(write, monkeypatch):
    path = write(good())

    def fail(*_args, **_keys):
        raise MemoryError

    monkeypatch.setattr(nifti, "_stored", fail)
    assert "does not fit into this computer's memory" in refused(path)


# ── bytes that are no scan ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_an_empty_file(name, tmp_path, write):
    (tmp_path / name).touch()
    assert "is empty" in refused(tmp_path / name)
    assert "is empty" in refused(write(b"", name))


@one_folder_will_do
@given(data=st.binary(max_size=2000), name=st.sampled_from(["scan.nii", "scan.nii.gz"]))
@example(data=b"\x1f\x8b", name="scan.nii.gz")
@example(data=b"\x1f\x8b\x08\x00" + bytes(40), name="scan.nii.gz")
@example(data=b"\x5c\x01\x00\x00" + bytes(400), name="scan.nii")
@example(data=b"\x1c\x02\x00\x00" + bytes(600), name="scan.nii")
@example(data=b"\x00\x00\x02\x1c" + b"\xff" * 600, name="scan.nii")
def test_random_bytes(data, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 100, 347, 348, 351, 352, 353, 700, -1])
def test_a_file_cut_short(cut, write):
    data = good()
    sentence = refused(write(data[:cut]))
    assert "cut short" in sentence or "is not a NIfTI file" in sentence


def test_a_zipped_file_cut_short_anywhere(write):
    path = write(good(), "scan.nii.gz")
    data = path.read_bytes()
    for cut in [*range(1, 40), *range(40, len(data) - 20, 17), *range(len(data) - 20, len(data))]:
        path.write_bytes(data[:cut])
        sentence = refused(path)
        assert "cut short" in sentence or (cut < 3 and "is not a NIfTI file" in sentence), (cut, sentence)


def test_a_short_file_zipped_whole(write):
    assert "cut short" in refused(write(good()[:-1], "scan.nii.gz"))
    assert "cut short" in refused(write(good()[:200], "scan.nii.gz"))


@pytest.mark.parametrize("place", [-1, -4, -5, -8])
def test_a_checksum_that_does_not_fit(place, write):
    path = write(good(), "scan.nii.gz")
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55  # the length in the last four bytes, the checksum in the four before
    path.write_bytes(data)
    assert "cut short or damaged" in refused(path)


def test_one_wrong_bit_in_a_zip_never_goes_unseen(write):
    path = write(good(), "scan.nii.gz")
    whole = path.read_bytes()
    wanted = open_scan(path).voxels
    random = np.random.default_rng(0)
    for place in random.integers(10, len(whole), 150):
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        try:
            np.testing.assert_array_equal(open_scan(path).voxels, wanted)
        except ScanError:
            continue


@one_folder_will_do
@given(changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12))
@example(changes=[(40, 0), (41, 255)])
@example(changes=[(108, 0), (111, 127), (110, 192)])
def test_a_header_with_wrong_bytes_opens_or_is_refused(changes, tmp_path):
    data = bytearray(good())
    for place, value in changes:
        data[place] = value
    path = tmp_path / "scan.nii"
    path.write_bytes(data)
    opened_or_refused(path)


@one_folder_will_do
@given(
    field=st.sampled_from([k for k in nib.Nifti1Header().keys() if k not in ("sizeof_hdr", "dim")]),  # noqa: SIM118
    data=st.data(),
)
def test_a_header_with_a_hostile_field_opens_or_is_refused(field, data, tmp_path):
    kind = nib.Nifti1Header().structarr.dtype[field]
    path = tmp_path / "scan.nii"
    path.write_bytes(
        patched(**{field: np.frombuffer(data.draw(st.binary(min_size=kind.itemsize, max_size=kind.itemsize)), kind)[0]})
    )
    opened_or_refused(path)


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (1, 8, 9), (8, 1, 9), (1, 1, 8), (8, 9, 1, 5), (8,), (1, 1, 1)])
def test_a_flat_picture(shape, write):
    data = nib.Nifti1Image(np.ones(shape, dtype=np.int16), np.eye(4)).to_bytes()
    assert "flat picture" in refused(write(data))
    assert str(tuple(shape)).rstrip(",)") in refused(write(data))


@pytest.mark.parametrize("shape", [(3, 4, 5, 1, 2), (3, 4, 5, 2, 3), (2, 2, 2, 2, 2, 2)])
def test_too_many_axes(shape, write):
    data = nib.Nifti1Image(np.ones(shape, dtype=np.int16), np.eye(4)).to_bytes()
    assert f"has {len(shape)} axes" in refused(write(data))


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 5, 0), (4, -5, 6), (4, 5, 6, 0), (-32768, -32768, 4)])
def test_no_voxels(shape, write):
    assert "holds no voxels" in refused(write(patched(dim=dims(*shape))))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_a_claim_of_40_gb_is_refused_before_any_memory_is_taken(kind, name, write):
    header = kind()
    header.set_data_dtype(np.float32)
    header.set_data_shape((2048, 2048, 2400))
    header.set_sform(np.eye(4), 1)
    path = write(header.binaryblock + bytes(700), name)
    open_scan(write(good(), "warm.nii"))
    tracemalloc.start()
    sentence = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "claims 40.3 GB" in sentence
    assert peak < 2_000_000


def test_a_claim_beyond_all_numbers(write):
    header = nib.Nifti2Header()
    header["dim"] = [3, 2**62, 2**62, 2**62, 1, 1, 1, 1]
    header.set_sform(np.eye(4), 1)
    assert "cut short: its header claims" in refused(write(header.binaryblock + bytes(700)))


def free_memory(monkeypatch, count):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": count}))


def test_a_scan_larger_than_the_memory(write, monkeypatch):
    path = write(good(), "scan.nii.gz")
    free_memory(monkeypatch, 600)
    assert "needs 672 bytes of memory, and 600 bytes are free; crop" in refused(path)
    assert open_scan(write(good(), "scan.nii")).is_lazy


def test_scaling_counts_towards_the_memory(write, monkeypatch):
    path = write(patched(scl_slope=2.0, scl_inter=0.0), "scan.nii.gz")
    free_memory(monkeypatch, 1000)
    assert "of memory" in refused(path)


def test_a_zip_that_goes_on_for_ever_is_not_followed(write):
    path = write(good() + bytes(400_000_000), "scan.nii.gz")
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    assert open_scan(path).shape == (8, 7, 6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


@pytest.mark.parametrize("offset", [np.nan, np.inf, -1e30, 1e30, 300.0, -352.0, 1e9])
def test_voxels_that_begin_nowhere(offset, write):
    assert "cut short" in (sentence := refused(write(patched(vox_offset=offset)))) or "contradicts" in sentence


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [128, 2304, 32, 1792, 2048])
def test_colours_and_complex_numbers(code, write):
    bits = {128: 24, 2304: 32, 32: 64, 1792: 128, 2048: 256}[code]
    assert "one grey value a voxel" in refused(write(patched(datatype=code, bitpix=bits)))


@pytest.mark.parametrize("code", [1, 1536, 0, 3, 7, 255, 32767, -1])
def test_number_types_that_no_scanner_writes(code, write):
    assert f"(NIfTI's type {code}); export it as" in refused(write(patched(datatype=code) + bytes(40_000)))


@pytest.mark.parametrize(
    ("slope", "inter"), [(3e38, 0.0), (-3e38, 3e38), (np.inf, 0.0), (-np.inf, 0.0), (2.0, np.inf), (2.0, np.nan)]
)
def test_scaling_out_of_range(slope, inter, write):
    sentence = refused(write(patched(scl_slope=slope, scl_inter=inter)))
    assert "takes its values out of range" in sentence or "scales its values with slope" in sentence


# ── place ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "rows",
    [
        {"srow_x": [0, 0, 0, 0]},
        {"srow_x": [1, 0, 0, 0], "srow_y": [1, 0, 0, 0]},
        {"srow_x": [np.nan, 0, 0, 0]},
        {"srow_z": [0, 0, 1, np.nan]},
        {"srow_z": [0, 0, np.inf, 0]},
        {"srow_x": [3e38, 3e38, 3e38, 3e38]},
        {"srow_x": [1e-38, 0, 0, 0]},
    ],
)
def test_a_matrix_that_places_nothing(rows, write):
    assert "orientation matrix" in refused(write(patched(**rows)))


@pytest.mark.parametrize("qform_code", [0, 1])
@pytest.mark.parametrize("pixdim", [(0, 1, 1), (1, 1, 0), (0, 0, 0), (np.nan, 1, 1), (np.inf, 1, 1)])
def test_voxels_without_size(pixdim, qform_code, write):
    data = patched(sform_code=0, qform_code=qform_code, pixdim=[1, *pixdim, 1, 1, 1, 1])
    assert "gives its voxels no size" in refused(write(data))


def test_a_size_that_only_the_unused_field_lacks(write):
    assert open_scan(write(patched(pixdim=[1, 0, 0, 0, 1, 1, 1, 1]))).geometry.spacing == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 7.0])
def test_a_rotation_that_is_none(value, write):
    refused(write(patched(sform_code=0, quatern_b=value, quatern_c=value)))


def test_a_signalling_nan_in_a_field(write):
    data = bytearray(good())
    data[280:284] = bytes.fromhex("0100807f")  # in the first row of the matrix
    assert "orientation matrix" in refused(write(data))


# ── nothing but the sentence ─────────────────────────────────────────────────────────────────────


def test_nothing_is_printed_or_logged(write, capfd, caplog):
    refused(write(patched(datatype=7)))
    refused(write(patched(sform_code=0, quatern_b=7.0)))
    open_scan(write(patched(bitpix=3, pixdim=[0, 0, -1, 0, 1, 1, 1, 1], session_error=3)))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_no_pickle_is_ever_read(write):
    for name in ("scan.nii", "scan.nii.gz"):
        assert "is not a NIfTI file" in refused(write(b"\x80\x04\x95" + struct.pack("<Q", 5) + b"K\x01.", name))
