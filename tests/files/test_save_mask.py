"""A mask is written whole or not at all, over nothing of value, and names no patient."""

from __future__ import annotations

import errno
import gzip
import json
import os

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from napari_sparsetok.files import nifti, open_scan, save_mask
from napari_sparsetok.files.nifti import read_labels
from napari_sparsetok.labels import Concept, Label, LabelTable
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError

LABELS = LabelTable(
    (
        Label(1, "Anterior", "#E69F00", Concept("3010001", "SCT", "anterior part")),
        Label(7, "Hinten “ü”", "#56B4E9"),
    )
)


@pytest.fixture
def scan(tmp_path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
    nib.save(image, tmp_path / "scan.nii.gz")
    return open_scan(tmp_path / "scan.nii.gz")


@pytest.fixture
def mask(scan):
    mask = np.zeros(scan.shape, dtype=np.uint8)
    mask[1, 2, 1], mask[3, 1, 0] = 1, 7
    return mask


# ── what is written ──────────────────────────────────────────────────────────────────────────────


def test_the_names_are_in_the_file(scan, mask, tmp_path):
    target = save_mask(tmp_path / "mask.nii.gz", mask, scan, LABELS)
    assert read_labels(target) == LABELS
    np.testing.assert_array_equal(open_scan(target).voxels, mask)


def test_it_says_that_it_is_a_mask(scan, mask, tmp_path):
    header = nib.load(save_mask(str(tmp_path / "mask.nii"), mask, scan, LABELS)).header
    assert header.get_intent()[0] == "label"
    assert header.get_data_dtype() == np.uint8
    assert header.get_slope_inter() in [(1.0, 0.0), (None, None)]


def test_the_same_mask_gives_the_same_bytes(scan, mask, tmp_path):
    one = save_mask(tmp_path / "one.nii.gz", mask, scan, LABELS)
    two = save_mask(tmp_path / "two.nii.gz", mask, scan, LABELS)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("dtype", [bool, "u1", "i1", "i2", "u2", "i4", "i8", "u8"])
def test_any_whole_numbers_will_do(scan, mask, dtype, tmp_path):
    target = save_mask(tmp_path / "mask.nii", mask.astype(dtype), scan, LABELS)
    np.testing.assert_array_equal(open_scan(target).voxels, mask.astype(dtype).astype(np.uint8))


def test_folders_on_the_way_are_made(scan, mask, tmp_path):
    assert save_mask(tmp_path / "a" / "b" / "mask.nii.gz", mask, scan, LABELS).is_file()


def test_the_file_is_as_readable_as_others(scan, mask, tmp_path):
    (tmp_path / "plain").write_text("x")
    target = save_mask(tmp_path / "mask.nii.gz", mask, scan, LABELS)
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_mask_of_a_scan_from_no_file(tmp_path):
    geometry = Geometry.shown((4, 5, 6), (3.0, 2.0, 1.0), (-7.0, 8.0, 9.0))
    mask = np.random.default_rng(0).integers(0, 2, (4, 5, 6))
    target = save_mask(tmp_path / "mask.nii.gz", mask, Scan(np.zeros((4, 5, 6)), geometry), LABELS)
    again = open_scan(target)
    np.testing.assert_array_equal(again.voxels, mask)
    assert again.geometry.same_grid(geometry)
    np.testing.assert_allclose(nib.load(target).get_qform(), nib.load(target).get_sform(), atol=1e-6)


def test_a_mask_of_a_crop_lies_where_the_crop_was(scan, tmp_path):
    crop = scan.cropped(Region((1, 1, 0), (4, 4, 2)))
    target = save_mask(tmp_path / "mask.nii.gz", np.ones(crop.shape, dtype=np.uint8), crop, LABELS)
    assert open_scan(target).geometry.same_grid(crop.geometry)


# ── no patient's name ────────────────────────────────────────────────────────────────────────────


def private_file(path, kind=nib.Nifti1Image):
    image = kind(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        if field in image.header.keys():  # noqa: SIM118 - a header is no mapping
            image.header[field] = b"JaneDoe"
    image.header.extensions.append(Nifti1Extension("comment", b"JaneDoe, born 1.4.1960"))
    image.header.extensions.append(Nifti1Extension("afni", b"JaneDoe"))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_words_of_the_scans_header_do_not_reach_the_mask(kind, tmp_path, caplog, capfd):
    scan = open_scan(private_file(tmp_path / "scan.nii", kind))
    target = save_mask(tmp_path / "mask.nii", np.ones(scan.shape, dtype=np.uint8), scan, LABELS)
    assert b"JaneDoe" in (tmp_path / "scan.nii").read_bytes()
    assert b"JaneDoe" not in target.read_bytes()
    assert b"scan" not in target.read_bytes()
    assert "JaneDoe" not in f"{scan.source.header} {scan.name} {scan.notes}"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_zips_own_header_holds_no_name_and_no_time(scan, mask, tmp_path):
    data = save_mask(tmp_path / "mask.nii.gz", mask, scan, LABELS).read_bytes()
    assert data[3] == 0  # no flags: no name, no comment
    assert data[4:8] == bytes(4)


# ── label names ──────────────────────────────────────────────────────────────────────────────────


def test_a_scan_has_no_label_names(scan, tmp_path):
    assert read_labels(tmp_path / "scan.nii.gz") is None
    assert read_labels(private_file(tmp_path / "private.nii")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[1]",
        b"{",
        b'{"labels": 3}',
        b'{"labels": [{}]}',
        b'{"labels": [{"id": 900, "name": "x"}]}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_names_that_cannot_be_read_are_no_names(content, tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.uint8), np.eye(4))
    image.header.extensions.append(Nifti1Extension("comment", content))
    nib.save(image, tmp_path / "mask.nii")
    assert read_labels(tmp_path / "mask.nii") is None


def test_the_first_names_count(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.uint8), np.eye(4))
    image.header.extensions.append(Nifti1Extension("comment", b"by hand"))
    image.header.extensions.append(Nifti1Extension("comment", json.dumps({"labels": LABELS.to_json()}).encode()))
    nib.save(image, tmp_path / "mask.nii.gz")
    assert read_labels(tmp_path / "mask.nii.gz") == LABELS


@pytest.mark.parametrize("size", [-1, 0, 7, 20, 2**31 - 1])
def test_an_extension_of_a_wrong_size(size, scan, mask, tmp_path):
    target = save_mask(tmp_path / "mask.nii", mask, scan, LABELS)
    data = bytearray(target.read_bytes())
    data[352:356] = (size & 0xFFFFFFFF).to_bytes(4, "little")
    target.write_bytes(data)
    assert read_labels(target) is None
    np.testing.assert_array_equal(open_scan(target).voxels, mask)


@pytest.mark.parametrize("offset", [0.0, -5.0, float("nan"), 1e30])
def test_names_in_a_header_without_room(offset, scan, mask, tmp_path):
    target = save_mask(tmp_path / "mask.nii", mask, scan, LABELS)
    data = target.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    header["vox_offset"] = offset
    target.write_bytes(header.binaryblock + data[348:])
    assert read_labels(target) is None


def test_names_from_no_nifti(tmp_path):
    (tmp_path / "mask.nii").write_bytes(b"nothing")
    with pytest.raises(ScanError, match="is not a NIfTI file"):
        read_labels(tmp_path / "mask.nii")


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def assert_refused(match, *args):
    with pytest.raises(ScanError, match=match) as caught:
        save_mask(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mask", "mask.png", "mask.nii.bz2", "mask.gz"])
def test_another_format_is_refused(name, scan, mask, tmp_path):
    assert_refused(r"let the name end in \.nii\.gz", tmp_path / name, mask, scan, LABELS)


def test_a_mask_of_another_scan_is_refused(scan, tmp_path):
    wrong = np.zeros((3, 4, 5), dtype=np.uint8)
    assert_refused(r"the mask has \(3, 4, 5\) voxels, the scan \(5, 4, 3\)", tmp_path / "m.nii", wrong, scan, LABELS)


@pytest.mark.parametrize("value", [255, 256, 300, -1])
def test_a_number_that_is_no_label_is_refused(value, scan, mask, tmp_path):
    wrong = mask.astype(np.int16)
    wrong[0, 0, 0] = value
    assert_refused(f"the mask holds the number {value}; labels are", tmp_path / "m.nii", wrong, scan, LABELS)
    assert not (tmp_path / "m.nii").exists()


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "S1", object])
def test_what_is_no_whole_number_is_refused(dtype, scan, mask, tmp_path):
    assert_refused("a mask holds whole numbers", tmp_path / "m.nii", mask.astype(dtype), scan, LABELS)


@pytest.mark.parametrize("way", ["itself", "symlink", "hard link", "dots", "text"])
def test_the_scan_is_never_overwritten(way, scan, mask, tmp_path):
    source = tmp_path / "scan.nii.gz"
    before = source.read_bytes()
    target = tmp_path / "other.nii.gz"
    if way == "symlink":
        target.symlink_to(source)
    elif way == "hard link":
        os.link(source, target)
    else:
        (tmp_path / "x").mkdir()
        target = {"itself": source, "dots": tmp_path / "x" / ".." / source.name, "text": str(source)}[way]
    assert_refused("is the scan itself; choose another name", target, mask, scan, LABELS)
    assert source.read_bytes() == before


def test_a_scan_opened_through_a_link_is_not_overwritten_either(scan, mask, tmp_path):
    link = tmp_path / "link.nii.gz"
    link.symlink_to(tmp_path / "scan.nii.gz")
    through = open_scan(link)
    for target in (link, tmp_path / "scan.nii.gz"):
        assert_refused("is the scan itself", target, mask, through, LABELS)


def test_a_scan_that_has_gone_does_not_hinder(scan, mask, tmp_path):
    (tmp_path / "scan.nii.gz").unlink()
    assert save_mask(tmp_path / "mask.nii.gz", mask, scan, LABELS).is_file()
    assert_refused("is the scan itself", tmp_path / "scan.nii.gz", mask, scan, LABELS)


def test_a_link_elsewhere_is_followed(scan, mask, tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "mask.nii.gz", tmp_path / "mask.nii.gz"
    real.write_text("old")
    link.symlink_to(real)
    save_mask(link, mask, scan, LABELS)
    assert link.is_symlink()
    np.testing.assert_array_equal(open_scan(real).voxels, mask)


# ── a disk that refuses ──────────────────────────────────────────────────────────────────────────


def full_disk(*_args, **_keys):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_permission(*_args, **_keys):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class _FullAfter(gzip.GzipFile):
    """A disk that takes a little and is full then."""

    taken = 0

    def write(self, data):
        self.taken += len(data)
        if self.taken > 400:
            full_disk()
        return super().write(data)


FAILURES = {
    "full at the end": (os, "fsync", full_disk, "No space left on device"),
    "full at the rename": (os, "replace", full_disk, "No space left on device"),
    "full in the middle": (gzip, "GzipFile", _FullAfter, "No space left on device"),
    "read-only folder": (nifti.Path, "open", no_permission, "Permission denied"),
    "folder cannot be made": (nifti.Path, "mkdir", no_permission, "Permission denied"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("old", [None, b"an older mask"])
def test_a_failure_leaves_what_was_there(failure, old, scan, mask, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "mask.nii.gz"
    if old is not None:
        target.write_bytes(old)
    owner, name, instead, reason = FAILURES[failure]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, instead)
        assert_refused(
            f"mask.nii.gz could not be saved .*{reason}.*; nothing was overwritten", target, mask, scan, LABELS
        )
    assert sorted(folder.iterdir()) == ([target] if old is not None else [])
    assert old is None or target.read_bytes() == old


@pytest.mark.skipif(os.name == "nt", reason="Windows does not limit the size of files")
@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz", "mask.nrrd", "mask.mha"])
def test_a_disk_that_is_full_at_any_moment_is_noticed(name, tmp_path):
    """The writers of other programs' formats are not ours, and not all of them say what they could not write."""
    import resource

    scan = Scan(np.zeros((12, 40, 40), np.float32), Geometry.shown((12, 40, 40)))
    old, new = np.ones(scan.shape, np.uint8), np.random.default_rng(0).choice([0, 1, 7], scan.shape).astype(np.uint8)
    target = save_mask(tmp_path / name, new, scan, LABELS)
    size = target.stat().st_size
    save_mask(target, old, scan, LABELS)
    kept, (_, most) = target.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, size // 2, size - 1000, size - 10, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        try:
            with pytest.raises(ScanError, match="could not be saved.*nothing was overwritten"):
                save_mask(target, new, scan, LABELS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert target.read_bytes() == kept
        assert list(tmp_path.iterdir()) == [target]


def test_a_stop_in_the_middle_leaves_no_litter(scan, mask, tmp_path, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save_mask(tmp_path / "mask.nii.gz", mask, scan, LABELS)
    assert set(tmp_path.iterdir()) == before


def test_a_folder_in_the_way(scan, mask, tmp_path):
    (tmp_path / "mask.nii.gz").mkdir()
    assert_refused("could not be saved", tmp_path / "mask.nii.gz", mask, scan, LABELS)
    assert {path.name for path in tmp_path.iterdir()} == {"scan.nii.gz", "mask.nii.gz"}


def test_a_file_where_a_folder_should_be(scan, mask, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert_refused("could not be saved", tmp_path / "out" / "mask.nii.gz", mask, scan, LABELS)


def test_a_name_that_is_too_long(scan, mask, tmp_path):
    assert_refused("could not be saved", tmp_path / ("x" * 300 + ".nii.gz"), mask, scan, LABELS)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.mha"])
def test_a_write_protected_file_stays(name, scan, mask, tmp_path):
    (tmp_path / name).write_bytes(b"signed")
    (tmp_path / name).chmod(0o444)
    assert_refused("write-protected", tmp_path / name, mask, scan, LABELS)
    assert (tmp_path / name).read_bytes() == b"signed"
    assert {path.name for path in tmp_path.iterdir()} == {"scan.nii.gz", name}
