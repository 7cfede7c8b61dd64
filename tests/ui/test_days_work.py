"""A day's work in a real window on a DICOM series, by mouse and buttons, and another day's look at it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from dicom_maker import Series

from napari_sparsetok.files import open_scan
from napari_sparsetok.sample import open_sample

HERE = Path(__file__).parent
DATA = Path(os.environ.get("SPARSETOK_DATA", HERE.parents[2] / "shared" / "data"))
SERIES = DATA / "dicom" / "hippocrop_1"


def series_in(folder: Path) -> Path:
    """The real series; where it is not, the hippocampus of MNI152 as one."""
    if SERIES.is_dir():
        return SERIES
    pytest.importorskip("nilearn")
    scan = open_sample("hippocampus_left")
    voxels = np.round(1000 * (np.asarray(scan.voxels) / np.max(scan.voxels))).astype("i2")
    return Series(voxels, spacing=(1.0, 1.0), step=1.0).write(folder / "series")


def done(what: str, series: Path, folder: Path) -> None:
    """Run the program to its end."""
    environment = os.environ | {"XDG_DATA_HOME": str(folder / "home"), "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "window_process.py"), what, str(series), str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.environ.get("QT_QPA_PLATFORM") == "offscreen", reason="needs a display")
def test_open_segment_correct_fill_save_as_seg_and_reopen(tmp_path):
    series = series_in(tmp_path)
    done("work", series, tmp_path)
    prediction, drawn, filled, seen = (
        np.load(tmp_path / f"{name}.npy") for name in ("prediction", "drawn", "filled", "seen")
    )
    first, last = (int(n) for n in (tmp_path / "slices.txt").read_text().split())
    # The mouse drew in two slices, label 1, and nowhere else.
    assert set(np.flatnonzero(drawn.any(axis=(1, 2)))) == {first, last}
    assert set(np.unique(drawn)) == {0, 1}
    # Filling wrote between them, took nothing back, and what is seen is what was said.
    between = filled[first + 1 : last]
    assert between.any()
    assert np.array_equal(filled[drawn > 0], drawn[drawn > 0])
    expected = np.where(filled == 255, 0, np.where(filled > 0, filled, prediction))
    assert np.array_equal(seen, expected)
    assert not np.array_equal(seen, prediction)

    # An independent reader finds the same voxels in the same place.
    scan = open_scan(series)
    segmentation = hd.seg.segread(tmp_path / "mask.dcm")
    volume = segmentation.get_volume(combine_segments=True)
    found = np.zeros(seen.shape, np.uint8)
    inverse = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.geometry.affine)
    to_scan = inverse @ volume.affine
    at = np.argwhere(volume.array > 0)
    places = np.round(np.c_[at, np.ones(len(at))] @ to_scan.T)[:, :3].astype(int)
    found[tuple(places.T)] = volume.array[tuple(at.T)]
    assert np.array_equal(found, seen)
    assert segmentation.ContentLabel

    done("again", series, tmp_path)
    assert np.array_equal(np.load(tmp_path / "back.npy"), filled)
    assert np.array_equal(np.load(tmp_path / "opened.npy"), seen)
    assert np.array_equal(np.load(tmp_path / "seen-again.npy"), seen)
