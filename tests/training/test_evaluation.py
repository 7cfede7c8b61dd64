"""Evaluation against sums that can be done by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from napari_sparsetok.engine.segmenter import SCDSegmenter, config_of
from napari_sparsetok.files import open_scan
from napari_sparsetok.inspection.ladder import gmac_of
from napari_sparsetok.model.flops import count_cost
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Prediction, Settings
from napari_sparsetok.training import deletion, evaluation, evaluation_words
from napari_sparsetok.training.dataset import open_dataset
from napari_sparsetok.training.evaluation import Truth
from napari_sparsetok.training.plan import Pruning
from napari_sparsetok.weights import Registry

KEY = ("learned", Pruning(1.0))


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Three cases whose labels are what the tiny model itself says at keep ratio 1."""
    models = tmp_path / "models"
    tiny.write_model(models)
    monkeypatch.setenv("SPARSETOK_MODELS", str(models))
    root = tmp_path / "data"
    segmenter = SCDSegmenter(Registry())
    entries = []
    for number in range(3):
        voxels = np.random.default_rng(number).normal(0, 1, (16, 24, 16)).astype(np.float32)
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        name = f"case_{number}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 1, 1])), root / "imagesTr" / name)
        scan = open_scan(root / "imagesTr" / name)
        mask = segmenter.segment(scan, Settings("tiny", 1.0)).mask
        nib.save(nib.Nifti1Image(scan.geometry.to_source(mask), np.eye(4)), root / "labelsTr" / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    listing = {
        "labels": {"0": "background", "1": "part 1", "2": "part 2"},
        "training": entries,
        "splits": {"train": ["case_0.nii.gz"], "val": ["case_1.nii.gz", "case_2.nii.gz"]},
    }
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def truths(root, split="val"):
    return evaluation.read_truths(open_dataset(root), split, Registry()["tiny"])


def test_a_model_agrees_with_itself(dataset):
    document = evaluation.evaluate("tiny", truths(dataset), evaluation.Plan([1.0, 0.1]))
    dense, sparse = document["keep_ratios"]
    assert document["cases"] == 2
    for label in dense["labels"]:
        assert label["dice"]["mean"] == label["agreement"]["mean"] == label["surface_dice"]["mean"] == 1
        assert label["hd95"]["mean"] == label["volume_error"]["mean"] == 0
    assert sparse["mean_dice"] < 1
    assert sparse["labels"][0]["dice"] == sparse["labels"][0]["agreement"]
    assert [label["missed_cases"] for label in dense["labels"]] == [0, 0]


def test_tokens_and_cost_are_of_the_windows_that_were_run(dataset):
    """Scans of 16×24×16 voxels are one window of the card's; a smaller and a larger one are not."""
    rows = evaluation.evaluate("tiny", truths(dataset), evaluation.Plan([1.0, 0.1]))["keep_ratios"]
    assert [row["tokens_per_case"] for row in rows] == [[96, 96, 96], [96, 9, 1]]
    config = config_of(Registry()["tiny"])
    assert rows[0]["gmac_per_case"] == pytest.approx(count_cost(config, 1.0).total, rel=1e-3)
    assert rows[1]["gmac_per_case"] < rows[0]["gmac_per_case"]
    for name, shape in (("case_1", (8, 8, 8)), ("case_2", (16, 44, 16))):
        voxels = np.random.default_rng(5).normal(0, 1, shape[::-1]).astype(np.float32)
        for folder, array in (("imagesTr", voxels), ("labelsTr", (voxels > 0).astype(np.uint8))):
            nib.save(nib.Nifti1Image(array, np.eye(4)), dataset / folder / f"{name}.nii.gz")
    found = list(truths(dataset))
    predictions = [SCDSegmenter(Registry()).segment(t.scan, Settings("tiny", 1.0)) for t in found]
    assert predictions[0].tokens.left[0] < 96 < predictions[1].tokens.left[0]
    row = evaluation.evaluate("tiny", iter(found), evaluation.Plan([1.0]))["keep_ratios"][0]
    assert row["tokens_per_case"][0] == pytest.approx(np.mean([p.tokens.left[0] for p in predictions]))
    costs = [gmac_of(p, Registry()["tiny"]) for p in predictions]
    assert row["gmac_per_case"] == pytest.approx(np.mean(costs))


def test_a_label_that_was_missed_counts_against_the_surface_dice_and_is_counted(dataset):
    truth = next(truths(dataset))
    prediction = SCDSegmenter(Registry()).segment(truth.scan, Settings("tiny", 1.0))
    without = replace(prediction, mask=np.where(prediction.mask == 2, 0, prediction.mask))
    first, second = evaluation._case_scores(truth, without, prediction, KEY)
    assert (first.surface_dice, second.surface_dice) == (1.0, 0.0)
    assert np.isnan(second.hd95)
    assert (first.missed, second.missed) == (False, True)
    # Drawn nowhere, but seen: as wrong, though nothing was missed.
    nowhere = replace(truth, labels=np.where(truth.labels == 2, 0, truth.labels))
    _, second = evaluation._case_scores(nowhere, prediction, prediction, KEY)
    assert (second.dice, second.surface_dice, second.missed, second.invented) == (0.0, 0.0, False, True)
    _, second = evaluation._case_scores(nowhere, without, prediction, KEY)
    assert np.isnan(second.surface_dice)
    assert not second.missed
    assert not second.invented


def test_what_was_taken_for_what_stands_in_the_document_and_the_sentences(dataset):
    """Masks of which all of label 1 is called 2, and nobody drew label 2 in the second."""
    truth, other = truths(dataset)
    swapped = [
        replace(truth, labels=np.where(truth.labels == 1, 2, truth.labels)),
        replace(other, labels=np.where(other.labels == 1, 2, other.labels), known=frozenset({1})),
    ]
    document = evaluation.evaluate("tiny", swapped, evaluation.Plan([1.0]))
    first, second = document["keep_ratios"][0]["confusion"]
    assert (first["drawn_ml"], first["taken_for"]) == (0, [])
    both, ones = (np.count_nonzero(truth.labels == n) for n in (2, 1))
    assert second["drawn_ml"] == pytest.approx((both + ones) / 1000)  # of the first alone
    assert [row["id"] for row in second["taken_for"]] == [1]
    assert second["taken_for"][0]["ml"] == pytest.approx(ones / 1000)
    share = ones / (both + ones)
    assert f"of part 2: {share:.2%}, for part 1." in " ".join(evaluation_words.findings(document))
    alike = evaluation.evaluate("tiny", [truth], evaluation.Plan([1.0]))
    assert "nothing drawn was taken for another label" in " ".join(evaluation_words.findings(alike))


def test_missed_labels_stand_in_the_document_and_the_table(dataset):
    for k in (1, 2):  # label 2 where the model says none of it: swapped with background
        path = dataset / "labelsTr" / f"case_{k}.nii.gz"
        drawn = np.asarray(nib.load(path).dataobj).astype(np.uint8)
        nib.save(nib.Nifti1Image(np.where(drawn == 2, 0, drawn), np.eye(4)), path)
    document = evaluation.evaluate("tiny", truths(dataset), evaluation.Plan([1.0]))
    second = document["keep_ratios"][0]["labels"][1]
    assert (second["missed_cases"], second["invented_cases"]) == (0, 2)
    assert second["surface_dice"]["mean"] == 0
    assert second["hd95"]["cases"] == 0
    assert "| missed, invented |" in evaluation_words.markdown(document)
    assert "| 0, 2 |" in evaluation_words.markdown(document)


def test_labels_that_were_not_drawn_are_left_out(dataset):
    path = dataset / "dataset.json"
    listing = json.loads(path.read_text())
    listing["training"][1]["contoured"] = [2]
    path.write_text(json.dumps(listing))
    first, second = evaluation.evaluate("tiny", truths(dataset), evaluation.Plan([1.0]))["keep_ratios"][0]["labels"]
    assert (first["dice"]["cases"], second["dice"]["cases"]) == (1, 2)


def test_labels_are_matched_by_name(dataset):
    path = dataset / "dataset.json"
    listing = json.loads(path.read_text())
    listing["labels"] = {"0": "background", "1": "Part 2", "2": "Part 1"}
    path.write_text(json.dumps(listing))
    document = evaluation.evaluate("tiny", truths(dataset), evaluation.Plan([1.0]))
    assert document["keep_ratios"][0]["mean_dice"] < 0.9


def test_numbers_that_were_asked_for_win_over_names(dataset):
    from napari_sparsetok.cli import app

    arguments = ["evaluate", "tiny", str(dataset), "--keep-ratios", "1", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--label-numbers", "2,1"])
    assert result.exit_code == 0, result.stderr
    assert "numbers given: 2 part 2 → 1 part 1, 1 part 1 → 2 part 2" in result.stderr
    assert json.loads(result.stdout)["keep_ratios"][0]["mean_dice"] < 0.9


def test_a_name_that_the_model_lacks_does_not_unsettle_the_others(dataset):
    path = dataset / "dataset.json"
    listing = json.loads(path.read_text())
    listing["labels"] = {"0": "background", "1": "Part 2", "2": "nose"}
    path.write_text(json.dumps(listing))
    truth = next(truths(dataset))
    assert truth.known == {2}
    assert set(np.unique(truth.labels)) == {0, 2}


def test_cases_that_are_not_there_are_named(dataset):
    listing = json.loads((dataset / "dataset.json").read_text())
    listing["splits"]["val"].append("case_9.nii.gz")
    (dataset / "dataset.json").write_text(json.dumps(listing))
    said = []
    evaluation.read_truths(open_dataset(dataset), "val", Registry()["tiny"], on_notice=said.append)
    assert any(line.startswith("case_9.nii.gz: is in the split “val”") for line in said)


def test_an_unknown_split_is_refused_in_words(dataset):
    with pytest.raises(ScanError, match="no split “test”; it has train, val"):
        list(truths(dataset, "test"))


def half_labelled(dataset: Path) -> tuple[Truth, Prediction]:
    """A case of which what lies from token row 3 on is labelled, and what the model makes of it."""
    truth = next(truths(dataset))
    labels = np.zeros_like(truth.labels)
    labels[:, 12:, :] = 1
    prediction = SCDSegmenter(Registry()).segment(truth.scan, Settings("tiny", 1.0))
    return replace(truth, labels=labels), prediction


def test_the_area_under_the_roc_is_one_for_scores_that_know(dataset):
    truth, prediction = half_labelled(dataset)
    knows = np.zeros_like(prediction.tokens.importance)
    knows[0, :, 3:, :] = 1
    for importance, area in ((knows, 1.0), (1 - knows, 0.0), (np.zeros_like(knows), 0.5)):
        tokens = replace(prediction.tokens, importance=importance.astype(np.float32))
        assert evaluation.score_area(replace(prediction, tokens=tokens), truth) == pytest.approx(area)


def test_a_token_that_never_entered_counts_as_scored_below_all_others_or_not_at_all(dataset):
    truth, prediction = half_labelled(dataset)
    scores = prediction.tokens.importance.copy()
    scores[0], scores[0, :, 3:, :] = 0.9, 0.1  # wrong about all
    for gone, with_all, with_entered in ((np.s_[:, 2:3], 1 / 3, 0.0), (np.s_[:, :3], 1.0, np.nan)):
        stage, importance = prediction.tokens.stage.copy(), scores.copy()
        stage[gone], importance[0][gone] = 0, np.nan
        found = replace(prediction, tokens=replace(prediction.tokens, stage=stage, importance=importance))
        assert evaluation.score_area(found, truth) == pytest.approx(with_all)
        assert evaluation.score_area(found, truth, entered_only=True) == pytest.approx(with_entered, nan_ok=True)


def test_the_interval_holds_the_mean_and_leaves_undefined_values_out():
    found = evaluation.summary([0.5, 0.7, float("nan"), 0.9])
    assert found["cases"] == 3
    assert found["mean"] == pytest.approx(0.7)
    assert 0.5 <= found["low"] <= 0.7 <= found["high"] <= 0.9
    assert evaluation.summary([])["cases"] == 0


def test_the_command_prints_json_or_a_table(dataset):
    from napari_sparsetok.cli import app

    arguments = ["evaluate", "tiny", str(dataset), "--keep-ratios", "1,0.5"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    assert [row["keep_ratio"] for row in json.loads(result.stdout)["keep_ratios"]] == [1.0, 0.5]
    result = CliRunner().invoke(app, [*arguments, "--markdown"])
    assert result.stdout.startswith("| keep ratio |")
    result = CliRunner().invoke(app, [*arguments, "--split", "nope"])
    assert result.exit_code == 2
    assert "no split" in result.stderr


def spoil(dataset: Path, name: str, value: float = np.nan) -> None:
    """Write a value that is no number into a case."""
    path = dataset / "imagesTr" / f"{name}.nii.gz"
    voxels = np.asarray(nib.load(path).dataobj).copy()
    voxels[3, 3, 3] = value
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def test_a_case_that_cannot_be_measured_is_named_and_the_others_are_measured(dataset):
    from napari_sparsetok.cli import app

    arguments = ["evaluate", "tiny", str(dataset), "--keep-ratios", "1,0.5", "--deletion", "0.5"]
    sound = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert sound["failed"] == []
    listing = json.loads((dataset / "dataset.json").read_text())
    listing["splits"]["val"].append("case_0.nii.gz")  # before the others
    (dataset / "dataset.json").write_text(json.dumps(listing))
    for spoilt in (lambda: spoil(dataset, "case_0"), lambda: (dataset / "imagesTr" / "case_0.nii.gz").write_bytes(b"")):
        spoilt()
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        ((case, why),) = [(failed["case"], failed["why"]) for failed in document.pop("failed")]
        assert case == "case_0.nii.gz"
        assert why
        assert f"case_0.nii.gz is left out: {why}" in result.stderr
        for row in (*document["keep_ratios"], *sound["keep_ratios"]):
            row.pop("seconds_per_case_cached_prefix", None)
        assert document == {key: value for key, value in sound.items() if key != "failed"}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout.startswith("| keep ratio |")
    assert "1 of 3 cases could not be measured: case_0.nii.gz" in result.stderr


def test_a_dataset_of_which_no_case_can_be_measured_is_refused(dataset, tmp_path):
    from napari_sparsetok.cli import app

    for name in ("case_1", "case_2"):
        (dataset / "imagesTr" / f"{name}.nii.gz").write_bytes(b"no scan")
    arguments = ["evaluate", "tiny", str(dataset), "--plot", str(tmp_path / "dice.svg")]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert (document["cases"], document["keep_ratios"]) == (0, [])
    assert [failed["case"] for failed in document["failed"]] == ["case_1.nii.gz", "case_2.nii.gz"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "2 of 2 cases could not be measured" in result.stderr


def test_what_is_no_number_is_replaced_if_that_was_asked_for(dataset):
    from napari_sparsetok.cli import app

    spoil(dataset, "case_1", np.inf)
    arguments = ["evaluate", "tiny", str(dataset), "--keep-ratios", "1", "--deletion", "0.5", "--json"]
    assert CliRunner().invoke(app, arguments).exit_code == 1
    result = CliRunner().invoke(app, [*arguments, "--replace-nonfinite", "0"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["cases"] == 2


def test_a_plot_of_no_kind_is_refused_before_the_work_and_a_full_disk_after_the_print(dataset, tmp_path):
    from napari_sparsetok.cli import app

    arguments = ["evaluate", "tiny", str(dataset), "--keep-ratios", "1", "--json", "--plot"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "dice.doc")])
    assert result.exit_code == 2
    assert "case_1" not in result.stderr
    assert ".png" in result.stderr
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "file" / "dice.png")])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["cases"] == 2


def test_a_ratio_for_each_stage_and_a_threshold_are_measured_too(dataset):
    from napari_sparsetok.cli import app

    arguments = ["evaluate", "tiny", str(dataset), "--keep-ratios", "1", "--stage-ratios", "0.5,0.25"]
    result = CliRunner().invoke(app, [*arguments, "--threshold", "0.5", "--json"])
    assert result.exit_code == 0, result.stderr
    dense, staged, thresholded = json.loads(result.stdout)["keep_ratios"]
    assert staged["tokens_per_case"] == [96, 48, 12]
    assert (staged["keep_ratio"], staged["stage_ratios"], staged["pruning"]) == (None, [0.5, 0.25], "0.5 → 0.25")
    truth = next(truths(dataset))
    alone = SCDSegmenter(Registry()).segment(truth.scan, Settings("tiny", threshold=0.5))
    assert thresholded["tokens_per_case"][0] == alone.tokens.left[0]
    assert (thresholded["keep_ratio"], thresholded["threshold"]) == (None, 0.5)
    assert thresholded["pruning"] == "score ≥ 0.5"
    assert dense["keep_ratio"] == 1
    result = CliRunner().invoke(app, [*arguments, "--markdown", "--plot", str(dataset / "dice.svg")])
    assert result.exit_code == 0, result.stderr
    assert "| 0.5 → 0.25 | 96 → 48 → 12 |" in result.stdout
    assert CliRunner().invoke(app, [*arguments[:-1], "0.5,2"]).exit_code == 2
    assert CliRunner().invoke(app, [*arguments[:-1], "0.5"]).exit_code == 2


def test_a_threshold_that_is_none_is_refused_before_the_work(dataset):
    from napari_sparsetok.cli import app

    result = CliRunner().invoke(app, ["evaluate", "tiny", str(dataset), "--threshold", "-1"])
    assert result.exit_code == 2
    assert "a threshold must be a number of 0 or more, not -1" in result.stderr
    assert "case_1" not in result.stderr


def test_selections_are_compared_case_by_case(dataset):
    plan = evaluation.Plan([0.25], ("learned", "random", "oracle"))
    document = evaluation.evaluate("tiny", truths(dataset), plan)
    assert [row["selection"] for row in document["keep_ratios"]] == ["learned", "random", "oracle"]
    learned, random, _ = (row["mean_dice"] for row in document["keep_ratios"])
    against = {row["selection"]: row["dice"] for row in document["learned_minus"]}
    assert set(against) == {"random", "oracle"}
    assert against["random"]["mean"] == pytest.approx(learned - random)
    assert against["random"]["cases"] == 2
    assert "| random |" in evaluation_words.markdown(document)
    assert any("learned minus random" in line for line in evaluation_words.findings(document))


def test_cases_of_one_name_are_compared_one_by_one(dataset):
    plan = evaluation.Plan([0.25], ("learned", "random"))
    namesakes = (replace(truth, name="image.nii.gz") for truth in truths(dataset))
    (against,) = evaluation.evaluate("tiny", namesakes, plan)["learned_minus"]
    (apart,) = evaluation.evaluate("tiny", truths(dataset), plan)["learned_minus"]
    assert against["dice"]["cases"] == 2
    assert against == apart


@pytest.mark.parametrize("order", deletion.ORDERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_tokens_that_go_are_those_of_the_order(share, order):
    scores = np.array([[[0.1, np.nan, 0.9, 0.5, 0.3, 0.2, 0.8, 0.7, 0.6, 0.4, 0.0]]], np.float32)
    gone = deletion.taken(scores, share, order)
    assert gone.sum() == round(share * 10)
    assert not gone[np.isnan(scores)].any()
    left = scores[~gone & ~np.isnan(scores)]
    if share == 0.3 and order != "random":
        assert (scores[gone].max() < left.min()) if order == "worst" else (scores[gone].min() > left.max())


def test_the_deletion_test_without_deletion_agrees_with_dense(dataset):
    segmenter = SCDSegmenter(Registry())
    dense = segmenter.segment(next(truths(dataset)).scan, Settings("tiny", 1.0))
    assert [one.agreement for one in deletion.delete_tokens(segmenter, dense, [0.0])] == [1, 1, 1]
    document = evaluation.evaluate("tiny", truths(dataset), evaluation.Plan([1.0], deletion=(0.8,)))
    (much,) = document["deletion"]
    assert much["random"]["mean"] < 1
    assert any("Without 80%" in line for line in evaluation_words.findings(document))


def test_what_is_asked_for_twice_is_measured_once(dataset):
    once = evaluation.Plan([0.25, 1.0], ("random", "learned"), (0.8, 0.5))
    twice = evaluation.Plan([0.25, 1.0, 0.25], ("random", "learned", "random"), (0.8, 0.5, 0.8))
    assert twice == once
    case = [next(truths(dataset))]
    document = evaluation.evaluate("tiny", case, evaluation.Plan([0.25, 0.25], deletion=(0.8, 0.8)))
    (row,) = document["keep_ratios"]
    assert row["labels"][0]["dice"]["cases"] == 1
    assert document["deletion"][0]["random"]["cases"] == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="numbers above 0 and below 1, as in 0.5,0.9"):
        evaluation.Plan([1.0], deletion=(0.5, share))


def test_a_selection_that_is_none_is_refused(dataset):
    from napari_sparsetok.cli import app

    result = CliRunner().invoke(app, ["evaluate", "tiny", str(dataset), "--selection", "learned,best"])
    assert result.exit_code == 2
    assert "there is no selection “best”" in result.stderr


def test_tokens_that_hold_an_undrawn_label_are_no_false_alarms(dataset):
    """Scores that rise where the model sees label 2 are wrong if 2 is known to be absent, not if nobody drew it."""
    truth = next(truths(dataset))
    prediction = SCDSegmenter(Registry()).segment(truth.scan, Settings("tiny", 1.0))
    labels = np.zeros_like(truth.labels)
    labels[:4] = 1
    mask = np.zeros_like(prediction.mask)
    mask[:4], mask[12:] = 1, 2
    scores = np.zeros_like(prediction.tokens.importance)
    scores[0, 0], scores[0, 3] = 0.5, 0.9  # the drawn one's tokens, and more so the other one's
    tokens = replace(prediction.tokens, importance=scores)
    prediction = replace(prediction, mask=mask, tokens=tokens)
    for known, area in (({1, 2}, 2 / 3), ({1}, 1.0)):
        part = replace(truth, labels=labels, known=frozenset(known))
        assert evaluation.score_area(prediction, part) == pytest.approx(area)
