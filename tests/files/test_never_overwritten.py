"""No file is written over without being asked: scans of every channel, other masks' records, other programs' JSON."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_sparsetok.files import open_scan, resampled_to, save_mask, whole_file
from napari_sparsetok.files.record import read_record, save_record
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Region, ScanError, stack_channels

LABELS = LabelTable.of(["head", "tail"])
DOCUMENT = {"model": {}, "scan": {}, "settings": {}, "region_zyx": {}, "prediction_sha256": "ab"}


def written(path: Path, spacing: float = 1.0) -> Path:
    voxels = np.random.default_rng(0).normal(100, 20, (12, 10, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing, 1.0, 1.0, 1.0])), path)
    return path


def test_no_channel_of_a_scan_is_written_over(tmp_path):
    t1, flair = (open_scan(written(tmp_path / name)) for name in ("t1.nii.gz", "flair.nii.gz"))
    other = open_scan(written(tmp_path / "other.nii.gz", 1.1))
    both = stack_channels([t1, flair, resampled_to(other, t1.geometry)])
    box = flair.cropped(Region((0, 0, 0), (4, 4, 4)))
    assert not t1.origins
    for scan, name in ((both, "t1"), (both, "flair"), (both, "other"), (box, "flair")):
        path = tmp_path / f"{name}.nii.gz"
        before = path.read_bytes()
        with pytest.raises(ScanError, match="is the scan itself"):
            save_mask(path, np.ones(scan.shape, np.uint8), scan, LABELS)
        assert path.read_bytes() == before


def test_masks_of_one_name_in_several_formats_keep_their_records(tmp_path):
    for number, name in enumerate(("head_mask.nii.gz", "head_mask.dcm", "head_mask.nrrd")):
        save_record(tmp_path / name, {**DOCUMENT, "windows": number})
    for number, name in enumerate(("head_mask.json", "head_mask.dcm.json", "head_mask.nrrd.json")):
        assert read_record(tmp_path / name)["windows"] == number
    save_record(tmp_path / "head_mask.nii.gz", {**DOCUMENT, "windows": 7})  # saved again: its own is replaced
    save_record(tmp_path / "head_mask.dcm", {**DOCUMENT, "windows": 8})
    assert read_record(tmp_path / "head_mask.json")["windows"] == 7
    assert read_record(tmp_path / "head_mask.dcm.json")["windows"] == 8
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("text", [json.dumps({"RepetitionTime": 2.3}), "not JSON at all", json.dumps(DOCUMENT)])
def test_json_of_others_stays(tmp_path, text):
    """The description that a scan has in BIDS; and a record that does not say of which mask it is."""
    side = tmp_path / "sub-01_T1w.json"
    side.write_text(text)
    path = save_record(tmp_path / "sub-01_T1w.nrrd", DOCUMENT)
    assert side.read_text() == text
    assert path.name == "sub-01_T1w.nrrd.json"
    assert read_record(path)["prediction_sha256"] == "ab"
    path.write_text("{}")
    with pytest.raises(ScanError, match=r"mask is saved, but not the record.*sub-01_T1w\.nrrd\.json"):
        save_record(tmp_path / "sub-01_T1w.nrrd", DOCUMENT)
    assert path.read_text() == "{}"


def test_what_is_flushed_to_the_disk_was_opened_for_writing(tmp_path, monkeypatch):
    """Windows refuses to flush a file that was opened for reading only."""
    fcntl = pytest.importorskip("fcntl")
    flush = os.fsync

    def as_on_windows(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flush(handle)

    monkeypatch.setattr(whole_file.os, "fsync", as_on_windows)
    with whole_file.written_whole(tmp_path / "x.bin") as part:
        part.write_bytes(b"whole")
    assert (tmp_path / "x.bin").read_bytes() == b"whole"
