"""`sparsetok info`, and segmenting from what is not NIfTI."""

from __future__ import annotations

import json

import dicom_maker as make
import nibabel as nib
import numpy as np
import pytest
from dicom_maker import Series
from typer.testing import CliRunner

from napari_sparsetok import batch
from napari_sparsetok.cli import app
from napari_sparsetok.files import RepairableScanError, SeveralSeriesError
from napari_sparsetok.scan import ScanError

PERSONAL = ("Lovelace", "Babbage", "4711", "1815", "1.2.826")


def info(*arguments):
    run = CliRunner().invoke(app, ["info", *map(str, arguments)])
    assert not any(word in run.output for word in PERSONAL), run.output
    return run


def test_a_series_in_words_and_as_json(tmp_path):
    folder = Series(make.block(), orientation=(0, 1, 0, 0, 0, -1)).write(tmp_path / "a")
    run = info(folder)
    assert run.exit_code == 0
    assert "T1 sagittal (series 3)" in run.output
    run = info(folder, "--json")
    found = json.loads(run.stdout)
    assert found["format"] == "DICOM"
    assert found["refused"] == ""
    assert found["scan"]["voxels_zyx"] == [8, 10, 6]
    assert found["scan"]["spacing_mm_zyx"] == [0.5, 0.75, 2.0]
    assert [x["opens"] for x in found["series"]] == [True]


@pytest.mark.parametrize(("degrees", "said"), [(0, ""), (12, "turned by 12.0°")])
def test_only_an_oblique_scan_is_said_to_be_turned(tmp_path, degrees, said):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    run = info(Series(make.block(), orientation=(c, s, 0, -s, c, 0)).write(tmp_path / "a"))
    assert run.exit_code == 0
    assert said in run.output
    assert bool(said) == ("turned by" in run.output)


def test_several_series_are_listed_and_one_is_chosen(tmp_path):
    Series(make.block(4)).write(tmp_path / "a")
    Series(make.block(6)).write(tmp_path / "b")
    found = json.loads(info(tmp_path, "--json").stdout)
    assert found["scan"] is None
    assert [x["slices"] for x in found["series"]] == [6, 4]
    chosen = json.loads(info(tmp_path, "--json", "--series", found["series"][1]["key"]).stdout)
    assert chosen["scan"]["voxels_zyx"] == [4, 8, 10]
    assert info(tmp_path, "--series", "nonsense").exit_code == 2


def test_what_is_refused_exits_with_2_and_says_what_would_help(tmp_path):
    folder = Series(make.block(8)).write(tmp_path / "a")
    (folder / "IM0003").unlink()
    run = info(folder, "--json")
    assert run.exit_code == 2
    assert json.loads(run.stdout)["repairs"].keys() == {"resample"}
    run = info(folder)
    assert run.exit_code == 2
    assert "slice is missing" in run.output.replace("\n", " ")
    assert info(folder, "--repair", "resample").exit_code == 0


@pytest.mark.parametrize("name", ["nothing.nii", "text.txt", "."])
def test_what_is_no_scan_exits_with_2(name, tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    assert info(tmp_path / name).exit_code == 2


def files(*paths, **fields):
    return batch.ScanFiles(paths, **fields)


def test_a_batch_opens_folders_and_agrees_to_repairs(tmp_path):
    Series(make.block(4)).write(tmp_path / "a")
    (Series(make.block(8)).write(tmp_path / "b") / "IM0003").unlink()
    assert batch.opened(files(tmp_path / "a")).shape == (4, 8, 10)
    with pytest.raises(SeveralSeriesError):
        batch.opened(files(Series(make.block(5)).write(tmp_path / "a" / "c").parent))
    with pytest.raises(RepairableScanError):
        batch.opened(files(tmp_path / "b"))
    assert batch.opened(files(tmp_path / "b", repair="resample")).shape == (8, 8, 10)


def test_channels_are_resampled_only_when_asked(tmp_path):
    first = Series(make.block(6)).write(tmp_path / "a")
    second = Series(make.block(12), step=1.0).write(tmp_path / "b")
    with pytest.raises(ScanError, match="does not lie on the grid .*--resample-channels"):
        batch.opened(files(first, second))
    scan = batch.opened(files(first, second, resample_channels=True))
    assert scan.voxels.shape == (2, 6, 8, 10)
    np.testing.assert_allclose(scan.geometry.spacing, (2.0, 0.5, 0.75))


def test_a_name_that_looks_like_markup_is_told_as_it_is(tmp_path):
    path = tmp_path / "a[red]b.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), path)
    assert "a[red]b" in info(path).stdout
