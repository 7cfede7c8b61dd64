"""The command line: the same as the window, in files."""

from __future__ import annotations

import errno
import json
import os

import nibabel as nib
import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.files import open_scan
from napari_sparsetok.training import dataset

runner = CliRunner()


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    tiny.write_model(folder)
    tiny.write_model(folder, "pair", tiny.with_channels(2))
    monkeypatch.setenv("SPARSETOK_MODELS", str(folder))
    return folder


@pytest.fixture
def scan(tmp_path):
    """A scan stored in an order that is not the shown one."""
    voxels = np.random.default_rng(0).integers(0, 500, (20, 28, 18)).astype(np.int16)
    affine = np.array([[0, -1.0, 0, 30], [0, 0, 1.0, -20], [1.0, 0, 0, 5], [0, 0, 0, 1]])
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def run(*arguments, code=0):
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result


def refused(*arguments) -> str:
    """Run what must fail: exit code 2, and one line on standard error."""
    result = run(*arguments, code=2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("sparsetok: ")
    return lines[0]


def test_segment_writes_mask_report_and_tokens(models, scan, tmp_path):
    mask, report, tokens = (tmp_path / name for name in ("m.nii.gz", "r.json", "t.npz"))
    arguments = ["--model", "tiny", "--out", mask, "--report", report, "--tokens", tokens, "--keep-ratio", 0.5]
    result = run("segment", scan, *arguments, "--json")
    document = json.loads(result.stdout)
    assert document == json.loads(report.read_text())
    written, source = nib.load(mask), nib.load(scan)
    assert written.shape == source.shape
    assert np.array_equal(written.affine, source.affine)
    counts = np.bincount(np.asarray(written.dataobj).ravel(), minlength=3)
    assert [row["voxels"] for row in document["labels"]] == counts[1:3].tolist()
    assert [row["ml"] for row in document["labels"]] == pytest.approx(counts[1:3] / 1000)
    with np.load(tokens, allow_pickle=False) as arrays:
        assert arrays["left"].tolist() == document["tokens"]["left_after_each_stage"]
        assert (arrays["stage"] > 0).all()
    assert document["model"]["id"] == "tiny"
    assert document["settings"]["keep_ratio"] == 0.5


@pytest.mark.parametrize(("extra", "all_pieces"), [([], False), (["--all-pieces"], True)])
def test_far_pieces_are_left_out_unless_all_are_wanted(models, scan, tmp_path, extra, all_pieces):
    result = run("segment", scan, "--model", "tiny", "--out", tmp_path / "m.nii.gz", "--json", *extra)
    assert json.loads(result.stdout)["settings"]["all_pieces"] is all_pieces


def test_the_report_holds_no_name_and_no_path(models, scan, tmp_path):
    named = scan.with_name("DOE_JANE_19700101.nii.gz")
    scan.rename(named)
    result = run("segment", named, "--model", "tiny", "--out", tmp_path / "m.nii.gz", "--json")
    assert "DOE" not in result.stdout
    assert str(tmp_path) not in result.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--report": "scan.nii.gz"}, "saved as .json"),
        ({"--report": "scan.json"}, "is the scan itself"),
        ({"--tokens": "linked.npz"}, "is the scan itself"),
        ({"--report": "t.json", "--tokens": "t.json"}, "saved as .npz"),
        ({"--out": "m.foo"}, "saved as NIfTI"),
        ({"--tokens": "t.txt"}, "saved as .npz"),
        ({"--out": "scan.nii.gz"}, "is the scan itself"),
        ({"--out": "m.dcm"}, "cannot be saved as DICOM"),
        ({"--out": "folder.nii.gz"}, "is a folder"),
        ({"--out": "scan.nii.gz/m.nii.gz"}, "choose another folder"),
        ({"--report": "scan.nii.gz/deeper/r.json"}, "choose another folder"),
        ({"--tokens": "t.NPZ"}, "saved as .npz"),
    ],
)
def test_what_is_to_be_written_is_looked_at_before_anything_is_computed(
    changes, words, models, scan, tmp_path, monkeypatch
):
    (tmp_path / "scan.json").symlink_to(scan)
    (tmp_path / "linked.npz").hardlink_to(scan)
    (tmp_path / "folder.nii.gz").mkdir()
    before = scan.read_bytes()
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SCDSegmenter.segment", None)
    options = {"--out": "m.nii.gz"} | changes
    arguments = [word for option, name in options.items() for word in (option, tmp_path / name)]
    assert words in refused("segment", scan, "--model", "tiny", *arguments)
    assert scan.read_bytes() == before
    assert not (tmp_path / "m.nii.gz").exists()


def test_a_report_that_cannot_be_written_leaves_the_one_before(models, scan, tmp_path, monkeypatch):
    report = tmp_path / "r.json"
    report.write_text("before")
    arguments = ["--model", "tiny", "--out", tmp_path / "m.nii.gz", "--report", report]
    real = os.replace

    def full(source, target):
        if str(target).endswith("r.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert "r.json could not be saved (No space left" in refused("segment", scan, *arguments)
    assert report.read_text() == "before"


def test_all_that_is_written_goes_to_the_home_folder_if_its_name_says_so(models, scan, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(tmp_path)
    run("segment", scan, "--model", "tiny", "--out", "~/m.nii.gz", "--report", "~/r.json", "--tokens", "~/t.npz")
    assert {path.name for path in home.iterdir()} == {"m.nii.gz", "r.json", "t.npz"}
    assert not (tmp_path / "~").exists()


def test_for_people_there_is_a_table(models, scan, tmp_path):
    result = run("segment", scan, "--model", "tiny", "--out", tmp_path / "m.nii.gz")
    assert "mL" in result.stdout
    assert "kept" in result.stdout


def test_a_region_and_a_point_restrict_the_mask(models, scan, tmp_path):
    out = tmp_path / "m.nii.gz"
    run("segment", scan, "--model", "tiny", "--out", out, "--region", "2:12,4:20,3:18")
    mask = open_scan(out).voxels
    outside = mask.copy()
    outside[2:12, 4:20, 3:18] = 0
    assert mask.any()
    assert not outside.any()
    corner = open_scan(scan).geometry.affine @ [0, 0, 0, 1]
    around = ",".join(f"{v:g}" for v in corner[:3])
    document = json.loads(run("segment", scan, "--model", "tiny", "--out", out, f"--around={around}", "--json").stdout)
    assert document["region_zyx"]["start"] == [0, 0, 0]
    assert document["region_zyx"]["stop"] == [min(a, b) for a, b in zip((16, 24, 16), mask.shape, strict=True)]


def test_a_whole_scan_for_a_model_of_crops_is_segmented_with_a_warning(models, tmp_path):
    small, large = tmp_path / "small.nii.gz", tmp_path / "large.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 500, (20, 28, 30)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), large)
    nib.save(nib.Nifti1Image(voxels[:, :, :18], np.eye(4)), small)  # hardly larger than a crop
    tiny.write_model(models, "crops", needs_region=True)
    out = ["--out", tmp_path / "m.nii.gz"]
    assert "boxes of up to 16 × 24 × 16 mm" in run("segment", large, "--model", "crops", *out).stderr
    for quiet in (
        ["segment", small, "--model", "crops", *out],
        ["segment", large, "--model", "tiny", *out],
        ["segment", large, "--model", "crops", "--around=10,10,15", *out],
    ):
        assert "boxes of" not in run(*quiet).stderr


def test_several_channels_and_frames(models, scan, tmp_path):
    source = nib.load(scan)
    film = tmp_path / "film.nii.gz"
    frames = np.stack([np.asarray(source.dataobj), np.asarray(source.dataobj)[::-1]], axis=3)
    nib.save(nib.Nifti1Image(frames, source.affine), film)
    masks = []
    for frame in (0, 1):
        out = tmp_path / f"{frame}.nii.gz"
        run("segment", film, "--model", "tiny", "--out", out, "--frame", frame)
        masks.append(np.asarray(nib.load(out).dataobj))
    assert not np.array_equal(*masks)
    run("segment", scan, scan, "--model", "pair", "--out", tmp_path / "two.nii.gz")
    assert "no frame 2" in refused("segment", film, "--model", "tiny", "--out", tmp_path / "x.nii.gz", "--frame", 2)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--keep-ratio", "0"], "keep ratio"),
        (["--keep-ratio", "1.01"], "keep ratio"),
        (["--region", "1:2"], "no region"),
        (["--region", "a:b,1:2,3:4"], "no region"),
        (["--region=-3:9,0:9,0:9"], "counted from 0"),
        (["--region", "1.5:9,0:9,0:9"], "counted from 0"),
        (["--frame", "3"], "no time axis"),
        (["--region", "5:5,0:9,0:9"], "empty"),
        (["--region", "90:99,0:9,0:9"], "outside the scan"),
        (["--region", "0:2,0:9,0:9"], "one patch"),
        (["--around", "1,2"], "three numbers"),
        (["--around", "999,0,0"], "outside the scan"),
        (["--around", "0,0,0", "--region", "0:9,0:9,0:9"], "not both"),
        (["--model", "nope"], "known models"),
        (["--model", "pair"], "needs 2 volume"),
        (["--device", "cuda"], "no NVIDIA GPU"),
        (["--tokens", "t.txt"], ".npz"),
        (["--out", "m.png"], ".nii.gz"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(models, scan, tmp_path, monkeypatch, extra, words):
    monkeypatch.chdir(tmp_path)
    if "cuda" in extra:
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert words in refused("segment", scan, "--model", "tiny", "--out", "m.nii.gz", *extra)
    assert not (tmp_path / "m.nii.gz").exists() or "--tokens" in extra


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + b"x" * 50), "bad.nii.gz"),
        (lambda path: None, "no file"),
        (lambda path: nib.save(nib.Nifti1Image(np.ones((20, 20), np.int16), np.eye(4)), path), "flat"),
        (lambda path: nib.save(nib.Nifti1Image(np.ones((20, 20, 20), np.int16), np.eye(4)), path), "same value"),
        (lambda path: nib.save(nib.Nifti1Image(np.full((20, 20, 20), np.nan, "f4"), np.eye(4)), path), "not numbers"),
        (
            lambda path: nib.save(nib.Nifti1Image(np.eye(9, dtype="f4")[:, :, None].repeat(3, 2), np.eye(4)), path),
            "patch",
        ),
    ],
)
def test_bad_scans_are_one_line_and_exit_code_2(models, tmp_path, make, words):
    path = tmp_path / "bad.nii.gz"
    make(path)
    line = refused("segment", path, "--model", "tiny", "--out", tmp_path / "m.nii.gz")
    assert words in line
    assert not (tmp_path / "m.nii.gz").exists()


def test_the_scan_itself_is_never_overwritten(models, scan):
    before = scan.read_bytes()
    assert "not overwritten" in refused("segment", scan, "--model", "tiny", "--out", scan)
    assert scan.read_bytes() == before


def test_a_record_is_replayed_to_the_very_same_prediction(models, scan, tmp_path, monkeypatch):
    report, again = tmp_path / "r.json", tmp_path / "again.nii.gz"
    arguments = ["--model", "tiny", "--out", tmp_path / "m.nii.gz", "--report", report]
    run("segment", scan, *arguments, "--keep-ratio", 0.3, "--region", "0:12,4:20,3:18")
    document = json.loads(run("replay", report, scan, "--out", again, "--json").stdout)
    assert document["same"]
    assert np.array_equal(open_scan(again).voxels, open_scan(tmp_path / "m.nii.gz").voxels)
    changed = json.loads(report.read_text())
    changed["settings"]["keep_ratio"] = 0.9
    report.write_text(json.dumps(changed))
    assert not json.loads(run("replay", report, scan, "--json", code=1).stdout)["same"]
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SCDSegmenter.segment", None)  # nothing more is computed
    for name, words in (("m.foo", "saved as NIfTI"), ("m.dcm", "as DICOM"), ("scan.nii.gz/m.nii.gz", "another folder")):
        assert words in refused("replay", report, scan, "--out", tmp_path / name)
    report.write_text(json.dumps(changed | {"complete": False}))
    assert "unfinished mask" in refused("replay", report, scan)
    report.write_text(json.dumps(changed))
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(20**3, dtype=np.int16).reshape(20, 20, 20), np.eye(4)), other)
    assert "not the scan of the record" in refused("replay", report, other)
    tiny.write_model(models, config=tiny.with_channels(2))
    assert "other weights" in refused("replay", report, scan)
    assert "cannot be read as a record" in refused("replay", scan, scan)


def test_a_record_of_a_machine_with_a_gpu_is_replayed_without_one(models, scan, tmp_path, monkeypatch):
    report = tmp_path / "r.json"
    run("segment", scan, "--model", "tiny", "--out", tmp_path / "m.nii.gz", "--report", report, "--device", "cpu")
    document = json.loads(report.read_text())
    document["settings"]["device"] = "cuda"
    report.write_text(json.dumps(document))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "choose the device “auto” or “cpu”" in refused("replay", report, scan)
    assert json.loads(run("replay", report, scan, "--device", "cpu", "--json").stdout)["same"]


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": "x"},
        {"all_pieces": 3},
        {"threshold": "x"},
        {"stage_ratios": 5},
        {"stage_ratios": ["a", "b"]},
        {"replace_nonfinite": "x"},
        {"device": "tpu"},
        {"selection": "best"},
        {"selection": []},
        {"keep_ratio": None},
        {
            "forced": {
                "region_zyx": {"start": [0] * 3, "stop": [9] * 3},
                "grid_zyx": [5, 7, 5],
                "keep": [999],
                "drop": [],
            }
        },
        {
            "forced": {
                "region_zyx": {"start": [0] * 3, "stop": [9] * 3},
                "grid_zyx": [5, 7, 5],
                "keep": ["a"],
                "drop": [],
            }
        },
    ],
)
def test_a_record_with_settings_of_another_kind_is_refused(settings, models, scan, tmp_path, monkeypatch):
    report = tmp_path / "r.json"
    run("segment", scan, "--model", "tiny", "--out", tmp_path / "m.nii.gz", "--report", report)
    document = json.loads(report.read_text())
    report.write_text(json.dumps(document | {"settings": document["settings"] | settings}))
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SCDSegmenter.segment", None)
    assert "cannot be used again" in refused("replay", report, scan)


def test_what_a_reference_ranked_is_replayed_with_it(models, scan, tmp_path):
    source = nib.load(scan)
    masks = [tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"]
    for k, path in enumerate(masks):
        values = np.zeros(source.shape, np.uint8)
        values[4 + k : 9, 5:12, 3:9] = 1
        nib.save(nib.Nifti1Image(values, source.affine), path)
    out = tmp_path / "out"
    oracle = ["--selection", "oracle", "--reference", masks[0], "--keep-ratio", 0.3, "--keep-ratios", "1,0.3"]
    run("inspect", scan, "--model", "tiny", "--out", out, *oracle)
    assert json.loads(run("replay", out / "report.json", scan, "--reference", masks[0], "--json").stdout)["same"]
    for wrong in ([], ["--reference", masks[1]]):
        assert "give the same one" in refused("replay", out / "report.json", scan, *wrong)


def test_channels_on_other_voxels_and_missing_numbers_can_be_inspected_and_replayed(models, scan, tmp_path):
    source = nib.load(scan)
    voxels = np.asarray(source.dataobj, np.float32)[::2].copy()
    voxels[3, 3, 3] = np.nan
    affine = source.affine @ np.diag([2, 1, 1, 1])
    coarse = tmp_path / "coarse.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), coarse)
    out = tmp_path / "out"
    order = ["inspect", scan, coarse, "--model", "pair", "--out", out, "--keep-ratios", "1,0.5"]
    assert "--resample-channels" in refused(*order)
    note, *_, sentence = run(*order, "--resample-channels", code=2).stderr.strip().splitlines()
    assert "was resampled" in note
    assert "--replace-nonfinite 0" in sentence
    run(*order, "--resample-channels", "--replace-nonfinite", 0)
    again = ["replay", out / "report.json", scan, coarse, "--json"]
    assert "--resample-channels" in refused(*again)
    assert json.loads(run(*again, "--resample-channels").stdout)["same"]


def test_models_lists_cards_and_names_broken_ones(models):
    (models / "broken.json").write_text("{}")
    result = run("models", "--json")
    document = json.loads(result.stdout)
    assert {"tiny", "pair", "hippocampus-t1"} <= {card["id"] for card in document["models"]}
    assert "broken.json" in document["problems"][0]
    assert "A tiny model" in run("models").stdout


def test_a_bad_card_does_not_keep_the_others_from_being_listed(models):
    card = json.loads((models / "tiny.json").read_text())
    for name, change in {
        "a": {"dice": []},
        "b": {"purpose": 5},
        "c": {"dice": {"labels": {"0.25": [0.9, None]}}},
    }.items():
        (models / f"{name}.json").write_text(json.dumps(card | {"id": name} | change))
    result = run("models")
    assert "0.900 mean at keep ratio 0.25" in result.stdout
    assert [name in result.stderr for name in ("a.json", "b.json", "c.json")] == [True, True, False]


def test_help_and_version():
    assert "segment" in run("--help").stdout
    assert "keep" in run("segment", "--help").stdout
    assert run("--version").stdout.startswith("napari-sparsetok ")


@pytest.mark.parametrize(
    ("name", "known"), [("lightning_fabric.fabric", True), ("tensorboard", True), ("numpy", False)]
)
def test_a_command_whose_packages_are_not_installed_says_which_extra_brings_them(monkeypatch, tmp_path, name, known):
    def not_there(*arguments, **named):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(dataset, "open_dataset", not_there)
    result = CliRunner().invoke(app, ["train", str(tmp_path), "--out", str(tmp_path / "run")])
    if known:
        assert result.exit_code == 2
        assert f"this needs {name}, which comes with the extra “train”" in result.stderr
    else:
        assert isinstance(result.exception, ModuleNotFoundError)  # a fault of the program, not of the person
