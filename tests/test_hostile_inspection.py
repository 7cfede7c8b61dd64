"""The inspector in files and numbers, before what nobody expects: labels, scans, records and options out of the way."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tiny
import torch
from fakes import FakeSegmenter, expected_mask, make_card, make_prediction, make_scan
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.engine.report import report
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.inspection import audit
from napari_sparsetok.inspection.finding import Findings
from napari_sparsetok.inspection.heads import heads_of
from napari_sparsetok.inspection.ladder import Question, sweep
from napari_sparsetok.inspection.page import page
from napari_sparsetok.inspection.plot import picture, slice_figure, sweep_figure
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError
from napari_sparsetok.state import Forced, Reference, Settings
from napari_sparsetok.weights import Registry

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_network(monkeypatch, request):
    if "real" not in request.node.name:
        monkeypatch.setattr("napari_sparsetok.inspection.ladder.gmac_of", lambda prediction, card: 1.0)


@pytest.fixture
def question() -> Question:
    return Question(make_scan(), Settings("fake"), make_card(), ladder=(1.0, 0.5, 0.25))


@pytest.fixture
def airless(tmp_path):
    """A network that takes in no patch of air, over a scan that is half air."""
    torch.manual_seed(3)
    config = replace(tiny.CONFIG, empty=-1.0)
    tiny.write_model(tmp_path, "airless", config, intensity={"name": "window", "low": 0.0, "high": 200.0})
    voxels = np.random.default_rng(0).normal(100, 20, (16, 24, 16)).clip(1).astype(np.float32)
    voxels[:, 12:] = -5
    return SCDSegmenter(Registry([tmp_path])), Scan(voxels, Geometry.shown(voxels.shape), name="half")


def test_a_real_patch_that_never_entered_looked_nowhere(airless):
    segmenter, scan = airless
    probe, place = segmenter.probe(scan, Settings("airless", 0.5), (8, 20, 8))
    assert probe.stage[place] == 0
    assert np.isnan(probe.rollout(place)).all()


def test_real_even_attention_is_drawn_on_the_dashed_line(airless):
    segmenter, scan = airless
    probe, _ = segmenter.probe(scan, Settings("airless", 0.5), (8, 2, 8))
    attention = probe._block(0).attn
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
    reach = probe.reach()
    assert reach.share[0, 0] == pytest.approx(reach.even, abs=1e-4)


def run(*arguments, code=0):
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "models")
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "models"))
    return tmp_path


def save(path, voxels, spacing=1.0):
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing] * 3 + [1])), path)
    return path


def noise(shape=(16, 24, 16)):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def test_a_real_seed_that_cannot_be_meant_is_said_before_anything_is_computed(folder, monkeypatch):
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SCDSegmenter.segment", None)
    scan = save(folder / "scan.nii.gz", noise())
    result = run(
        "inspect", scan, "--model", "tiny", "--out", folder / "out", "--selection", "random", "--seed", -1, code=2
    )
    assert "seed" in result.stderr


def test_a_real_scan_with_holes_in_it_is_drawn(folder):
    voxels = noise()
    voxels[3, 4, 5] = np.nan
    scan = save(folder / "scan.nii.gz", voxels)
    run("inspect", scan, "--model", "tiny", "--out", folder / "out", "--keep-ratios", "1", "--replace-nonfinite", 0)


def test_the_grey_values_of_a_scan_with_holes_are_drawn():
    voxels = noise((16, 20, 12))
    voxels[3, 4, 5] = np.nan
    scan = Scan(voxels, Geometry.shown(voxels.shape))
    found = sweep(FakeSegmenter(free=True), Question(scan, Settings("fake"), make_card(), ladder=(1.0, 0.5)))
    images = slice_figure(found.dense, found).axes[0].get_images()
    assert np.isfinite(images[0].get_clim()).all()


@pytest.mark.parametrize("name", ["$\\nothing$", "_hidden", "<script>alert(1)</script>"])
def test_a_name_of_a_label_is_no_formula(question, name):
    labels = LabelTable.of([name, "tail"])

    class Named(FakeSegmenter):
        def segment(self, *arguments, **rest):
            return replace(super().segment(*arguments, **rest), labels=labels)

    found = sweep(Named(free=True), question)
    figure = sweep_figure(found)
    assert picture(figure)
    assert picture(figure, "svg")
    assert f"dense: {name}" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "<script" not in page("<script>", Findings(found.dense, found, None), [])


def record(settings):
    scan = make_scan()
    corrections = np.zeros(scan.shape, np.uint8)
    corrections[:4] = 1
    return json.loads(json.dumps(report(make_prediction(scan, settings), make_card(), corrections)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings("fake", 0.25, threshold=0.5), "above 0.5"),
        (Settings("fake", 0.25, stage_ratios=(0.5, 0.1)), "0.5, 0.1"),
        (Settings("fake", 0.25), "0.25"),
    ],
)
def test_the_audit_tells_the_rule_that_held(tmp_path, settings, words):
    (tmp_path / "a.json").write_text(json.dumps(record(settings)))
    row = next(line for line in run("audit", tmp_path).stdout.splitlines() if "a.json" in line)
    assert words in row
    (case,) = audit(tmp_path)["cases"]
    if words != "0.25":
        assert case["keep_ratio"] is None


def test_a_comparison_says_what_its_runs_were_of(question):
    asked = replace(question, settings=Settings("fake", 0.25, stage_ratios=(0.5, 0.5), threshold=0.4))
    seen = []
    document = sweep(FakeSegmenter(free=True), asked, on_rung=seen.append).to_json()
    assert document["settings"]["threshold"] is None
    assert document["settings"]["stage_ratios"] is None
    assert document["complete"] is True
    assert seen[0].to_json()["complete"] is False


def test_a_reference_counts_within_the_box_that_was_segmented(question):
    box = Region((0, 0, 0), (8, 20, 12))
    asked = replace(question, region=box, reference=Reference(expected_mask(question.scan, 0.5)))
    found = sweep(FakeSegmenter(free=True), asked)
    assert next(rung for rung in found.rungs if rung.keep_ratio == 0.5).reference_dice == 1.0
    halves = expected_mask(question.scan, 0.5)[box.slices]
    assert found.rungs[0].reference[0].other_ml == pytest.approx((halves == 1).sum() / 1000)


def test_a_token_that_must_go_is_kept_at_no_ratio(question):
    class Obeying(FakeSegmenter):
        def segment(self, scan, settings, **rest):
            found = super().segment(scan, settings, **rest)
            if settings.forced is not None:
                found.tokens.stage[settings.forced.signs() < 0] = 1
            return found

    signs = np.zeros((4, 5, 3), np.int8)
    signs[0, 0, 0] = -1
    forced = Forced.of(Region.whole(question.scan.shape), signs)
    found = sweep(Obeying(free=True), replace(question, settings=replace(question.settings, forced=forced)))
    assert np.isnan(found.kept_from[0, 0, 0])
    assert found.kept_from[0, 0, 1] == 0.25


def test_what_is_said_of_a_scan_is_said_here_too_real(folder, monkeypatch):
    scan = save(folder / "scan.nii.gz", noise())
    from napari_sparsetok import batch

    opened = batch.opened
    monkeypatch.setattr(batch, "opened", lambda source: replace(opened(source), notes=("Two slices were missing.",)))
    result = run("inspect", scan, "--model", "tiny", "--out", folder / "out", "--keep-ratios", "1")
    assert "Two slices were missing." in result.stderr


def test_a_real_empty_mask_beside_a_body_is_looked_into_where_a_window_is(tmp_path):
    rule = {"name": "window", "low": 0.0, "high": 200.0}
    tiny.write_model(tmp_path, body={"above": 50, "margin": 0}, intensity=rule)
    voxels = np.full((64, 24, 16), -100, np.float32)
    voxels[:16] = noise()
    scan, segmenter = Scan(voxels, Geometry.shown(voxels.shape)), SCDSegmenter(Registry([tmp_path]))
    found = segmenter.segment(scan, Settings("tiny", 0.5))
    heads = heads_of(segmenter, replace(found, mask=np.zeros_like(found.mask)), weigh=False)
    assert heads.at[0] < 16


def test_an_empty_mask_is_said_to_be_empty(question):
    found = sweep(FakeSegmenter(free=True), question)
    empty = make_prediction(question.scan, Settings("fake"), np.zeros(question.scan.shape, np.uint8))
    written = page("model", Findings(empty, found, None), [])
    assert "holds a token that was kept" not in written
    assert "empty" in written


def test_the_slices_show_every_voxel_that_changed(question):
    found = sweep(FakeSegmenter(free=True), replace(question, ladder=(1.0, 0.05, 0.02)))
    assert (found.lowest > np.float32(0.02)).all()
    shown = slice_figure(found.dense, found).axes[3].get_images()[1].get_array()
    assert not np.ma.getmaskarray(shown).any()
    assert np.isfinite(np.asarray(shown)).all()


def test_real_further_channels_are_drawn(folder):
    tiny.write_model(folder / "models", "two", tiny.with_channels(2))
    scans = [save(folder / f"{k}.nii.gz", noise() + k) for k in range(2)]
    run("inspect", *scans, "--model", "two", "--out", folder / "out", "--keep-ratios", "1,0.5", "--threshold", 0.4)
    rows = list(csv.DictReader((folder / "out" / "tokens.csv").read_text(encoding="utf-8").splitlines()))
    assert rows


def test_a_reference_may_say_yes_and_no(question):
    half = Reference(expected_mask(question.scan, 0.5) == 1)
    assert sweep(FakeSegmenter(free=True), replace(question, reference=half)).rungs[1].reference[0].dice == 1.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(20)
def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ScanError, match=r"could not be read: pipe\.json"):
        audit(tmp_path)


def test_a_name_that_is_no_text_is_audited(tmp_path):
    name = b"case\xff.json".decode("utf-8", "surrogateescape")
    (tmp_path / name).write_text(json.dumps(record(Settings("fake", 0.25))))
    run("audit", tmp_path)
    run("audit", tmp_path, "--json")


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 3)])
def test_a_record_counts_the_voxels_of_the_box_that_was_segmented(start):
    scan = make_scan()
    box = Region(start, (10, 11, 9))
    corrections = np.ones(scan.shape, np.uint8)
    document = report(make_prediction(scan, Settings("fake", 0.3), region=box), make_card(), corrections)
    assert sum(document["tokens"]["voxels_by_stage"]) == np.prod(box.shape)
    changed = document["corrections"]["voxels_changed_by_stage"]
    assert all(n <= m for n, m in zip(changed, document["tokens"]["voxels_by_stage"], strict=True))


@pytest.mark.parametrize("title", ["A [/tiny] model", "A [red]tiny[/red] model"])
def test_a_title_of_a_real_model_is_plain_text(folder, title):
    tiny.write_model(folder / "models", title=title)
    scan = save(folder / "scan.nii.gz", noise())
    result = run("inspect", scan, "--model", "tiny", "--out", folder / "out", "--keep-ratios", "1")
    assert title in " ".join(result.stdout.split())
