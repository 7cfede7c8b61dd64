"""The record beside a mask."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from napari_sparsetok.batch import ScanFiles, replay
from napari_sparsetok.files import record, whole_file
from napari_sparsetok.scan import ScanError
from napari_sparsetok.weights import Registry

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


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"model": 1}', "[" * 100_000])
def test_what_is_no_record_is_refused_in_words(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ScanError, match=r"x\.json"):
        record.read_record(path)
    with pytest.raises(ScanError, match="cannot be read"):
        record.read_record(tmp_path / "missing.json")


NOW = {
    "model": {"id": "gone", "sha256": "ab"},
    "scan": {"sha256": "ab"},
    "settings": {"keep_ratio": 0.5},
    "region_zyx": {"start": [0, 0, 0], "stop": [4, 4, 4]},
    "prediction_sha256": "ab",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "no model “gone”"),
        ({"settings": {"magic": 3, "keep_ratio": 0.5}}, "does not know \\(magic\\); update"),
        ({"settings": {"keep_ratio": "lots"}}, "cannot be used again"),
        ({"settings": 5}, "cannot be used again"),
        ({"settings": None}, "cannot be used again"),
        ({"model": {}}, "cannot be used again"),
        ({"model": [1]}, "cannot be used again"),
        ({"scan": None}, "cannot be used again"),
        ({"region_zyx": "all"}, "cannot be used again"),
        ({"region_zyx": {"start": [0, 0]}}, "cannot be used again"),
        ({"region_zyx": {"start": [0, 0], "stop": [4, 4]}}, "cannot be used again"),
    ],
)
def test_a_record_that_cannot_be_replayed_says_why(change, words, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(NOW | change), encoding="utf-8")
    with pytest.raises(ScanError, match=words):
        replay(path, ScanFiles((tmp_path / "scan.nii.gz",)))


def test_a_record_whose_scan_was_moved_says_so(tmp_path):
    card = Registry()["hippocampus-t1"]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(NOW | {"model": {"id": card.id, "sha256": card.sha256}}), encoding="utf-8")
    with pytest.raises(ScanError, match=r"scan\.nii\.gz"):
        replay(path, ScanFiles((tmp_path / "scan.nii.gz",)))
