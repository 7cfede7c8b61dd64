"""The record beside a mask."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from napari_sparsetok.files import record, whole_file
from napari_sparsetok.scan import ScanError

DOCUMENT = {"model": {}, "scan": {}, "settings": {}, "region_zyx": {}, "prediction_sha256": "ab"}


@pytest.mark.parametrize("name", ["head_mask.nii.gz", "head_mask.nii", "head_mask.NRRD", "head_mask.mha", "head_mask"])
def test_it_lies_beside_the_mask(name):
    assert record.record_path(Path("/x") / name) == Path("/x/head_mask.json")


def test_it_reads_back(tmp_path):
    path = record.save_record(tmp_path / "m.nii.gz", DOCUMENT)
    assert record.read_record(path) == DOCUMENT | {"mask_ending": ".nii.gz"}
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_a_full_disk_says_that_the_mask_is_saved(tmp_path, monkeypatch):
    record.save_record(tmp_path / "m.nii.gz", DOCUMENT)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(ScanError, match=r"mask is saved.*No space left"):
        record.save_record(tmp_path / "m.nii.gz", DOCUMENT | {"more": 1})
    assert "more" not in record.read_record(tmp_path / "m.json")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"model": 1}'])
def test_what_is_no_record_is_refused_in_words(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ScanError, match=r"x\.json"):
        record.read_record(path)
    with pytest.raises(ScanError, match="cannot be read"):
        record.read_record(tmp_path / "missing.json")
