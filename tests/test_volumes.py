"""Volumes, intensities and diameters, against shapes whose sizes are known."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from napari_sparsetok.files.volume_table import COLUMNS, as_text, save_volumes
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.metrics import largest_diameter, volumes
from napari_sparsetok.scan import Geometry, Scan, ScanError

SHAPE = (12, 20, 30)
SPACING = (2.0, 0.5, 1.5)
LABELS = LabelTable.of(["front", "back", "gone"])


def made() -> tuple[np.ndarray, Scan]:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 4:10, 6:8] = 1
    mask[7, 3, 3:28] = 2
    voxels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return mask, Scan(voxels, Geometry.shown(SHAPE, SPACING))


def test_each_label_is_measured():
    mask, scan = made()
    front, back, gone = volumes(mask, scan, LABELS)
    inside = scan.voxels[mask == 1].astype(float)
    assert (front.voxels, front.ml) == (36, pytest.approx(36 * 1.5 / 1000))
    assert (front.mean, front.sd) == (pytest.approx(inside.mean()), pytest.approx(inside.std()))
    assert back.diameter == pytest.approx(25 * 1.5)  # 25 voxels in a row
    assert (gone.voxels, gone.ml, gone.mean, gone.sd, gone.diameter) == (0, 0.0, None, None, 0.0)


def test_values_that_are_no_numbers_are_left_out_and_the_first_channel_is_measured():
    mask, scan = made()
    voxels = np.stack([scan.voxels, scan.voxels * 0])
    voxels[0, 2, 4, 6] = np.nan
    front = volumes(mask, Scan(voxels, scan.geometry, leading="channel"), LABELS)[0]
    inside = voxels[0][mask == 1]
    assert front.mean == pytest.approx(np.nanmean(inside))
    assert front.voxels == 36


@pytest.mark.parametrize("seed", range(5))
def test_the_diameter_is_that_of_all_pairs_of_face_middles(seed):
    rng = np.random.default_rng(seed)
    shape = rng.random((5, 6, 7)) > 0.8
    middles = np.argwhere(shape)
    faces = np.concatenate([0.5 * np.eye(3), -0.5 * np.eye(3)])
    points = (middles[:, None] + faces).reshape(-1, 3) * SPACING
    assert largest_diameter(shape, SPACING) == pytest.approx(pdist(points).max())


@pytest.mark.parametrize("radius", [6.0, 9.5])
def test_the_diameter_of_a_ball(radius):
    z, y, x = np.ogrid[-12:13, -12:13, -12:13]
    shape = z**2 + y**2 + x**2 <= radius**2
    assert abs(largest_diameter(shape, (1, 1, 1)) - (2 * radius + 0.5)) < 1.0
    assert largest_diameter(np.zeros((3, 3, 3), bool), (1, 1, 1)) == 0.0


def test_they_can_be_stopped():
    mask, scan = made()

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        volumes(mask, scan, LABELS, stop)


def test_the_table_reads_back(tmp_path):
    mask, scan = made()
    rows = [row.to_json() for row in volumes(mask, scan, LABELS)]
    path = save_volumes(tmp_path / "volumes", rows, {})
    assert path.name == "volumes.csv"
    back = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert tuple(back[0]) == COLUMNS
    assert float(back[1]["largest_diameter_mm"]) == 37.5
    assert back[2]["mean_intensity"] == ""
    assert as_text(rows, "\t").count("\t") == 4 * (len(COLUMNS) - 1)


def test_a_folder_that_takes_nothing_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScanError, match="could not be saved"):
        save_volumes(tmp_path / "file" / "v.csv", [], {})
