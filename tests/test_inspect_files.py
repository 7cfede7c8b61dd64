"""The inspector without a window: the folder that it writes, and the audit of corrections."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
import tiny
from fakes import make_card, make_prediction, make_scan
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.engine.report import report
from napari_sparsetok.files import open_scan
from napari_sparsetok.inspection import audit
from napari_sparsetok.inspection.auditing import odds
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Settings
from napari_sparsetok.tokens import Lattice

runner = CliRunner()
RATIOS = "1,0.5,0.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    tiny.write_model(folder / "models")
    voxels = np.random.default_rng(0).integers(0, 500, (20, 28, 18)).astype(np.int16)
    affine = np.array([[0, -1.0, 0, 30], [0, 0, 1.0, -20], [1.0, 0, 0, 5], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels, affine), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image((voxels > 400).astype(np.uint8), affine), folder / "mask.nii.gz")
    nib.save(nib.Nifti1Image(voxels[:-1].astype(np.uint8), affine), folder / "elsewhere.nii.gz")
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.setenv("SPARSETOK_MODELS", str(folder / "models"))

    def run(*arguments, code=0):
        result = runner.invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return run


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return dict(stored)


class Page(HTMLParser):
    """Collects what a page would load, and its tables."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_inspect_writes_tables_plots_arrays_and_one_page(run, folder, tmp_path):
    out = tmp_path / "out"
    asked = ["--model", "tiny", "--keep-ratios", RATIOS, "--keep-ratio", 0.3, "--reference", folder / "mask.nii.gz"]
    run("inspect", folder / "scan.nii.gz", "--out", out, *asked)
    names = {path.name for path in out.iterdir()}
    assert names == {
        "sweep.csv", "tokens.csv", "never_looked_at.csv", "report.json", "report.html", "sweep.png", "sweep.svg",
        "voxels.npz", "tokens.npz", "heads.csv",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "sweep.csv").read_text(encoding="utf-8").splitlines()))
    document = json.loads((out / "report.json").read_text())
    assert [float(row["keep_ratio"]) for row in rows] == [1.0, 0.5, 0.2]
    assert float(rows[0]["lowest_agreement"]) == 1.0
    assert "part 1: Dice with reference" in rows[0]
    tokens = list(csv.DictReader((out / "tokens.csv").read_text(encoding="utf-8").splitlines()))
    stored = arrays_of(out / "tokens.npz")
    assert len(tokens) == stored["stage"].size
    one = tokens[7]
    place = tuple(int(one[axis]) for axis in "zyx")
    assert int(one["stage"]) == stored["stage"][place]
    assert float(one["score_1"]) == pytest.approx(stored["importance"][(0, *place)], rel=1e-4)
    assert float(one["kept_from"]) == pytest.approx(stored["kept_from"][place])
    assert [int(row["windows"]) for row in tokens] == stored["windows"].ravel().tolist()
    assert stored["windows"].max() > 1
    assert float(one["share_of_windows_past_stage_2"]) == pytest.approx(stored["passed"][(1, *place)], abs=1e-3)
    heads = list(csv.DictReader((out / "heads.csv").read_text(encoding="utf-8").splitlines()))
    assert len(heads) == tiny.CONFIG.depth * tiny.CONFIG.heads
    assert all(row["loss_without"] == "" for row in heads)  # nobody asked for it
    assert sum(float(v) for k, v in heads[3].items() if k.startswith("attention_")) == pytest.approx(1, abs=1e-3)
    arrays = arrays_of(out / "voxels.npz")
    assert arrays["mask"].shape == arrays["lowest_keep_ratio"].shape == open_scan(folder / "scan.nii.gz").shape
    steady = arrays["lowest_keep_ratio"] == np.float32(0.2)
    assert document["sweep"]["rungs"][2]["keep_ratio"] == 0.2
    assert steady.any()
    page = Page()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)  # nothing is fetched
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_the_arrays_are_those_of_the_chosen_rule(run, folder, tmp_path):
    out = tmp_path / "out"
    asked = ["--model", "tiny", "--keep-ratios", "1", "--selection", "norm", "--stage-ratios", "0.5,0.5", "--heads"]
    run("inspect", folder / "scan.nii.gz", "--out", out, *asked, "--json")
    document = json.loads((out / "report.json").read_text())
    assert document["tokens"]["ranked_by"] == "norm"
    assert document["settings"]["stage_ratios"] == [0.5, 0.5]
    assert str(arrays_of(out / "tokens.npz")["selection"]) == "norm"
    heads = list(csv.DictReader((out / "heads.csv").read_text(encoding="utf-8").splitlines()))
    assert all(0 <= float(row["loss_without"]) <= 1 for row in heads)
    assert "Most matters head" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--selection", "luck"], "there is no rule “luck”"),
        (["--keep-ratios", "1,2"], "keep ratios are numbers"),
        (["--selection", "oracle"], "needs a reference mask"),
        (["--reference", "elsewhere.nii.gz"], "does not lie on the voxels"),
        (["--reference", "scan.nii.gz"], "is no mask"),
        (["--stage-ratios", "0.5,0.5,0.5"], "2"),
        (["--keep-ratio", "1.5"], "the keep ratio must be above 0"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_is_computed(
    run, folder, tmp_path, arguments, sentence, monkeypatch
):
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SCDSegmenter.segment", None)
    arguments = [folder / a if a.endswith(".gz") else a for a in arguments]
    result = run("inspect", folder / "scan.nii.gz", "--model", "tiny", "--out", tmp_path / "out", *arguments, code=2)
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_known_before_anything_is_computed(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SCDSegmenter.segment", None)
    (tmp_path / "out").write_text("a file")
    result = run("inspect", folder / "scan.nii.gz", "--model", "tiny", "--out", tmp_path / "out", code=2)
    assert "out cannot be written to (File exists); choose another folder" in result.stderr


# Corrections against tokens


def corrected(seed: int = 0) -> tuple[dict, np.ndarray, np.ndarray]:
    """A record, where voxels were changed, and the stage of each voxel."""
    scan = make_scan()
    prediction = make_prediction(scan, Settings("fake", 0.3))
    corrections = np.zeros(scan.shape, np.uint8)
    draw = np.random.default_rng(seed)
    corrections[tuple(draw.integers(0, n, 300) for n in scan.shape)] = 1
    changed = (corrections == 1) & (prediction.mask != 1)
    stage = Lattice.of(prediction.tokens, scan.geometry, scan.shape).spread(prediction.tokens.stage)
    return json.loads(json.dumps(report(prediction, make_card(), corrections))), changed, stage


def test_the_record_counts_changed_voxels_by_the_fate_of_their_token():
    document, changed, stage = corrected()
    expected = [int((changed & (stage == k)).sum()) for k in range(4)]
    assert sum(expected) > 0
    assert document["corrections"]["voxels_changed_by_stage"] == expected
    assert document["tokens"]["voxels_by_stage"] == [int((stage == k).sum()) for k in range(4)]
    assert sum(document["tokens"]["mask_voxels_by_stage"]) == np.prod(changed.shape)  # the fake labels every voxel


def test_the_audit_adds_up_a_folder(run, tmp_path):
    records = [corrected(seed)[0] for seed in (0, 1)]
    old = json.loads(json.dumps(records[0]))
    del old["corrections"]
    (tmp_path / "deep").mkdir()
    for name, document in (("a.json", records[0]), ("deep/b.json", records[1]), ("old.json", old), ("other.json", [1])):
        (tmp_path / name).write_text(json.dumps(document))
    (tmp_path / "broken.json").write_text("{")
    found = json.loads(run("audit", tmp_path, "--json").stdout)
    assert [case["record"] for case in found["cases"]] == ["a.json", "deep/b.json"]
    assert found["records_without_counts"] == 1
    (total,) = found["totals"]
    both = np.sum([r["corrections"]["voxels_changed_by_stage"] for r in records], axis=0).tolist()
    assert total["changed_by_stage"] == both
    assert total["stages"] == ["not looked at", "pruned at stage 1", "pruned at stage 2", "kept to the end"]
    told = run("audit", tmp_path).stdout
    assert re.search(r"pruned at stage 1 .*corrected voxels", told)
    assert "times as often" in told


@pytest.mark.parametrize(
    "changes",
    [
        {"corrections": None},
        {"corrections": [1, 2]},
        {"corrections": {"voxels_changed_by_stage": "many"}},
        {"corrections": {"voxels_changed_by_stage": [1, "two", 3, 4]}},
        {"corrections": {"voxels_changed_by_stage": [1, 2, 3]}},
        {"corrections": {"voxels_changed_by_stage": [3]}, "tokens": {"voxels_by_stage": [3]}},
        {"tokens": {"voxels_by_stage": None}},
        {"tokens": "many"},
        {"model": None, "corrections": {}},
    ],
)
def test_a_record_that_somebody_spoiled_is_counted_and_left_out(tmp_path, changes):
    good = corrected()[0]
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / "spoiled.json").write_text(json.dumps({**good, **changes}))
    found = audit(tmp_path)
    assert [case["record"] for case in found["cases"]] == ["good.json"]
    assert found["records_without_counts"] == 1


def test_files_that_cannot_be_read_are_named(run, tmp_path):
    text = json.dumps(corrected()[0])
    (tmp_path / "good.json").write_text(text)
    (tmp_path / "[red]").mkdir()
    (tmp_path / "[red]" / "cut.json").write_text(text[: len(text) // 2])
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "folder.json").mkdir()
    document = audit(tmp_path)
    assert [case["record"] for case in document["cases"]] == ["good.json"]
    assert document["unreadable"] == ["[red]/cut.json", "bytes.json", "deep.json"]
    told = run("audit", tmp_path).stdout
    assert "3 file(s) could not be read as JSON; left out: [red]/cut.json, bytes.json, deep.json" in told
    (tmp_path / "good.json").unlink()
    with pytest.raises(ScanError, match=r"no record .*; could not be read: \[red\]/cut\.json, bytes\.json, deep\.json"):
        audit(tmp_path)


def test_names_in_the_audit_s_table_are_plain_text(run, tmp_path):
    (tmp_path / "[b]").mkdir()
    record = {**corrected()[0], "model": {"id": "[/x]m"}}
    (tmp_path / "[b]" / "a.json").write_text(json.dumps(record))
    told = run("audit", tmp_path).stdout
    assert "[b]/a.json" in told
    assert "[/x]m" in told


def test_a_record_without_model_or_settings_counts_all_the_same(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({**corrected()[0], "model": None, "settings": "gone"}))
    (case,) = audit(tmp_path)["cases"]
    assert case["model"] == ""
    assert case["keep_ratio"] is None


def test_the_audit_names_each_case(run, tmp_path):
    for name, seed in (("one.json", 0), ("two.json", 1)):
        (tmp_path / name).write_text(json.dumps(corrected(seed)[0]))
    told = run("audit", tmp_path).stdout
    for case in audit(tmp_path)["cases"]:
        changed = case["changed_by_stage"]
        row = next(line for line in told.splitlines() if case["record"] in line)
        assert re.search(rf"\b{sum(changed)}\b.*\b{sum(changed[1:-1])}\b", row)


def test_odds_by_hand():
    assert odds([0, 10, 10, 10], [0, 100, 100, 100]) == pytest.approx(1)
    assert odds([5, 30, 10], [9, 100, 100]) == pytest.approx(3)
    assert odds([0, 3, 0], [0, 10, 10]) is None
    assert odds([0, 3, 1], [0, 0, 10]) is None


def test_a_folder_without_records_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ScanError, match="no record"):
        audit(tmp_path)
    with pytest.raises(ScanError, match="no folder"):
        audit(tmp_path / "a.json")
