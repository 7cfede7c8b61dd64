"""Compressed pictures are unpacked by other processes, and nothing that happens there reaches the window."""

from __future__ import annotations

import os
import sys
import time
import zipfile
from pathlib import Path

import dicom_maker as make
import numpy as np
import psutil
import pytest
from dicom_maker import Series
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from napari_sparsetok.files import OpeningStopped, decoder, decoder_pool, open_scan
from napari_sparsetok.scan import ScanError

COUNT = 30


def pixels():
    return make.block(COUNT, 32, 40, kind="u2")


def classic(folder, syntax=JPEG2000Lossless):
    folder.mkdir()
    for k, ds in enumerate(Series(pixels()).datasets()):
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def enhanced(path, syntax=JPEG2000Lossless):
    made = make.enhanced(Series(pixels()), times=2)
    made.compress(syntax, generate_instance_uid=False)
    made.save_as(path, enforce_file_format=True)
    return path


def zipped(path, syntax):
    folder = classic(path.with_suffix(""), syntax)
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


@pytest.fixture
def used(monkeypatch):
    """How often processes did it."""
    real, times = decoder_pool.run, []

    def run(*args):
        done = real(*args)
        times.append(done)
        return done

    monkeypatch.setattr(decoder_pool, "run", run)
    return times


def children():
    return [p for p in psutil.Process().children() if decoder.__file__ in " ".join(p.cmdline())]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("how", ["classic", "enhanced", "zip"])
def test_they_are_the_same_as_unpacked_here(how, syntax, tmp_path, monkeypatch, used):
    path = {
        "classic": lambda: classic(tmp_path / "a", syntax),
        "enhanced": lambda: enhanced(tmp_path / "a.dcm", syntax),
        "zip": lambda: zipped(tmp_path / "a.zip", syntax),
    }[how]()
    elsewhere = open_scan(path).voxels
    assert used == [True]
    monkeypatch.setattr(decoder_pool, "FEWEST", 1 << 30)
    np.testing.assert_array_equal(elsewhere, open_scan(path).voxels)
    assert not children()


def test_progress_rises_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_pool, "_LOOK", 0.001)
    steps = []
    open_scan(enhanced(tmp_path / "a.dcm"), on_progress=lambda *step: steps.append(step))
    inner = [done for done, total in steps if total == 4 * COUNT]
    assert len(set(inner)) > 2
    assert inner == sorted(inner)
    assert inner[-1] == 4 * COUNT


def test_asked_to_stop_the_processes_are_ended_at_once(tmp_path, monkeypatch):
    path = classic(tmp_path / "a")
    slow = tmp_path / "slow.py"
    slow.write_text(
        Path(decoder.__file__)
        .read_text()
        .replace("for plane in decoded(", "__import__('time').sleep(60)\n            for plane in decoded(")
    )
    monkeypatch.setattr(decoder, "__file__", str(slow))
    seen = []

    def stop():
        if children() and not seen:
            seen.append(time.perf_counter() + 1)  # they are at work
        return bool(seen) and time.perf_counter() > seen[0]

    with pytest.raises(OpeningStopped):
        open_scan(path, should_stop=stop)
    assert time.perf_counter() - seen[0] < 2
    assert not children()


@pytest.mark.parametrize("crash", ["os._exit(1)", "os.kill(os.getpid(), 11)"])
def test_a_decoder_that_crashes_is_a_sentence(crash, tmp_path, monkeypatch):
    path = classic(tmp_path / "a")
    bad = tmp_path / "bad.py"
    bad.write_text(
        Path(decoder.__file__)
        .read_text()
        .replace("for plane in decoded(", f"{crash}\n            for plane in decoded(")
    )
    monkeypatch.setattr(decoder, "__file__", str(bad))
    with pytest.raises(ScanError, match=r"slice \d+ of this series is damaged"):
        open_scan(path)
    assert not children()


def test_a_damaged_picture_is_a_sentence(tmp_path, used):
    path = classic(tmp_path / "a")
    data = (path / "7.dcm").read_bytes()
    at = data.index(b"\xff\x4f\xff\x51") + 120
    (path / "7.dcm").write_bytes(data[:at] + bytes(len(data) - at))
    with pytest.raises(ScanError, match="slice 8 of this series"):
        open_scan(path)


@pytest.mark.parametrize("why", ["frozen", "no python", "it does not start"])
def test_where_no_process_starts_they_are_unpacked_here(why, tmp_path, monkeypatch, used):
    path = classic(tmp_path / "a")
    if why == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif why == "no python":
        monkeypatch.setattr(sys, "executable", "")
    else:
        monkeypatch.setattr(decoder, "__file__", os.devnull)
    assert open_scan(path).shape == (COUNT, 32, 40)
    assert used == [False]


def test_few_pictures_start_no_process(tmp_path, used):
    folder = tmp_path / "a"
    folder.mkdir()
    for k, ds in enumerate(Series(make.block(5, 32, 40, kind="u2")).datasets()):
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    open_scan(folder)
    assert not used


@pytest.mark.parametrize("count", [5, COUNT])  # unpacked here, or by processes
def test_pictures_that_call_their_signed_numbers_unsigned(count, tmp_path):
    """Some programs do so; the header counts, as it does for pictures that are not packed."""
    stored = make.block(count, 32, 40, kind="u2") % 8192
    folder = tmp_path / "a"
    folder.mkdir()
    for k, ds in enumerate(Series(stored).datasets()):
        ds.BitsStored, ds.HighBit = 13, 12
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.PixelRepresentation = 1
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    meant = np.where(stored >= 4096, stored.astype("i4") - 8192, stored)
    np.testing.assert_array_equal(np.sort(open_scan(folder).voxels.ravel()), np.sort(meant.ravel()))
