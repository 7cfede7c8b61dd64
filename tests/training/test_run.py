"""From a folder of scans to a model in the registry, by the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import labelled
import numpy as np
import psutil
import pytest
import tiny
import torch
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.engine.segmenter import SCDSegmenter, load_model
from napari_sparsetok.files import open_scan
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.model import SCD
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Settings
from napari_sparsetok.training import run as run_module
from napari_sparsetok.training.configuration import PRESETS, preset, read_recipe
from napari_sparsetok.training.dataset import open_dataset
from napari_sparsetok.training.loop import Examples, train
from napari_sparsetok.training.run import Feedback, Hardware, read_split, starting_weights
from napari_sparsetok.weights import Card, Registry


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An empty folder for the person's own models."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "napari-sparsetok" / "models"


def call(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def config(tmp_path: Path, **training) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(labelled.recipe(**training).to_json()))
    return path


def test_a_run_ends_in_a_model_that_installs_and_segments(tmp_path, own):
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    result = call("train", root, "--out", out, "--config", config(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "models add" in result.stdout
    card = Card.read(out / "model" / "mine.json")
    assert set(card.dice["labels"]) == {"1.0", "0.75", "0.5", "0.25", "0.1", "0.05"}
    assert json.loads((out / "fingerprint.json").read_text())["cases"] == 4

    assert call("models", "add", out / "model" / "mine.json").exit_code == 0
    assert "mine" in Registry().cards
    scan = open_scan(root / "imagesTr" / "0.nii.gz")
    assert SCDSegmenter(Registry()).segment(scan, Settings("mine")).complete
    again = call("models", "add", out / "model" / "mine.json")
    assert again.exit_code == 2
    assert "--replace" in again.stderr
    assert call("models", "add", out / "model" / "mine.json", "--replace").exit_code == 0

    picture = tmp_path / "dice.svg"
    result = call("evaluate", "mine", root, "--keep-ratios", "1,0.5", "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert "front" in picture.read_text()

    assert call("models", "remove", "mine").exit_code == 0
    assert "mine" not in Registry().cards
    assert not list(own.iterdir())


def test_bundled_models_are_neither_replaced_nor_removed(tmp_path, own):
    tiny.write_model(tmp_path, "hippocampus-t1")
    result = call("models", "add", tmp_path / "hippocampus-t1.json", "--replace")
    assert result.exit_code == 2
    assert "bundled" in result.stderr
    assert call("models", "remove", "hippocampus-t1").exit_code == 2
    assert call("models", "remove", "../other").exit_code == 2


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden"])
def test_an_id_that_is_no_file_name_is_not_installed(tmp_path, own, name):
    tiny.write_model(tmp_path, "odd", id=name)
    result = call("models", "add", tmp_path / "odd.json")
    assert result.exit_code == 2
    assert "cannot be a model's id" in result.stderr


def test_a_recipe_is_proposed_written_and_used_when_edited(tmp_path):
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    result = call("train", root, "--out", out, "--prepare")
    assert result.exit_code == 0, result.stderr
    path = out / "config.json"
    edited = json.loads(path.read_text())
    assert edited["about"]["id"] == "run"
    edited["about"]["title"] = "Edited"
    edited |= {"overlap": 0.25, "needs_region": True, "one_piece": [2]}
    edited["training"] |= {"steps": 1, "batch": 1, "evaluate_every": 1}
    edited["network"] |= {"dim": 24, "heads": 2, "depth": 3, "prune_after": [1, 2], "features": 4}
    edited["network"] |= {"completion_dim": 24, "completion_heads": 2}
    path.write_text(json.dumps(edited))
    result = call("train", root, "--out", out)
    assert result.exit_code == 0, result.stderr
    card = Card.read(out / "model" / "run.json")
    assert (card.title, card.overlap, card.needs_region, card.one_piece) == ("Edited", 0.25, True, (2,))


def test_a_folder_with_a_run_of_another_recipe_keeps_its_own(tmp_path):
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    assert call("train", root, "--out", out, "--config", config(tmp_path, steps=1)).exit_code == 0
    before = (out / "config.json").read_bytes()
    result = call("train", root, "--out", out, "--config", config(tmp_path, steps=1, rate=1e-4))
    assert result.exit_code == 2
    assert "another recipe" in result.stderr
    assert (out / "config.json").read_bytes() == before
    result = call("train", root, "--out", out)
    assert result.exit_code == 0, result.stderr


def test_what_the_command_overrules_is_in_the_folder_s_recipe_and_holds_when_it_goes_on(tmp_path):
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    arguments = ["train", root, "--out", out, "--config", config(tmp_path)]
    assert call(*arguments, "--steps", 2, "--seed", 5, "--name", "other", "--prepare").exit_code == 0
    written = read_recipe(out / "config.json")
    assert (written.training.steps, written.training.seed, written.about["id"]) == (2, 5, "other")
    for again in (["train", root, "--out", out], ["train", root, "--out", out]):
        result = call(*again)
        assert result.exit_code == 0, result.stderr
    assert (out / "model" / "other.json").exists()
    assert len([r for r in (out / "log.csv").read_text().splitlines()[1:] if r.split(",")[1]]) == 2


def test_an_edited_recipe_is_not_replaced_by_the_one_it_was_made_from(tmp_path):
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    arguments = ["train", root, "--out", out, "--config", config(tmp_path)]
    assert call(*arguments, "--prepare").exit_code == 0
    edited = json.loads((out / "config.json").read_text())
    edited["training"]["rate"] = 1e-5
    (out / "config.json").write_text(json.dumps(edited))
    result = call(*arguments)
    assert result.exit_code == 2
    assert "leave --config and --preset out" in result.stderr
    assert json.loads((out / "config.json").read_text()) == edited


def test_a_dataset_with_problems_is_refused_with_all_of_them_or_trained_without(tmp_path):
    root = labelled.write_decathlon(tmp_path / "data", cases=5)
    (root / "imagesTr" / "1.nii.gz").write_bytes(b"no scan")
    labelled.save(root / "labelsTr" / "2.nii.gz", np.zeros((18, 22, 16), np.uint8))
    arguments = ["train", root, "--out", tmp_path / "run", "--config", config(tmp_path)]
    result = call(*arguments)
    assert result.exit_code == 2
    assert "2 problem(s)" in result.stderr
    assert "1.nii.gz" in result.stderr
    assert "2.nii.gz" in result.stderr
    result = call(*arguments, "--skip-bad")
    assert result.exit_code == 0, result.stderr


STANDARDISE = {"name": "standardise", "low": 0.5, "high": 99.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {"stepz": 1}}, "stepz"),
        ({"labels": []}, "label"),
        ({"format": 9}, "another format"),
        ({"training": {"windows": [[15], [16], [16]]}}, "multiple of the patch"),
        ({"network": {}}, "cannot be used"),
        ({"labels": [{"id": 2, "name": "box", "color": "#E69F00"}]}, "numbered 1, 2, 3 … without a gap"),
        ({"one_piece": [7]}, "labels that it has"),
        ({"overlap": 1.5}, "overlap by 0 … below 1"),
        ({"preparation": {"spacing": [0, 1, 1], "intensity": STANDARDISE}}, "three positive numbers"),
        ({"preparation": {"spacing": [1, 1, 1], "intensity": STANDARDISE | {"low": 99.6}}}, "“low” below “high”"),
        (
            {"preparation": {"spacing": [1, 1, 1], "intensity": STANDARDISE, "body": {"above": 0}}},
            "“body” needs an intensity rule that is the same for all scans",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_one_line(tmp_path, change, words):
    path = config(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ScanError, match=words):
        read_recipe(path)


def test_cases_on_a_shelf_are_those_in_memory_and_train_the_same_model(tmp_path, monkeypatch):
    root = labelled.write_decathlon(tmp_path / "data", contoured=[2])
    recipe, seen = labelled.recipe(), []

    def watched(fabric, recipe, examples, out, **rest):
        seen.extend([*examples.train, *examples.val])
        if sys.platform == "linux":
            assert len([m for m in psutil.Process().memory_maps() if str(shelf) in m.path]) == 4
            assert not [f for f in psutil.Process().open_files() if str(shelf) in f.path]
        return train(fabric, recipe, examples, out, **rest)

    (shelf := tmp_path / "run" / "cases-0").mkdir(parents=True)
    (shelf / "train_00000.safetensors").write_bytes(b"cut short")  # of a run that was killed
    monkeypatch.setattr(run_module, "train", watched)
    hardware = Hardware("cpu", precision="32-true")
    card = run_module.run(open_dataset(root), recipe, tmp_path / "run", hardware=hardware, feedback=Feedback())
    cases = [case for split in ("train", "val") for case in read_split(open_dataset(root), split, recipe, Feedback())]
    for mapped, held in zip(seen, cases, strict=True):
        assert mapped.name == held.name
        for name in ("image", "labels", "known"):
            assert np.array_equal(getattr(mapped, name), getattr(held, name))
        assert mapped.places.keys() == held.places.keys() == {2}
        assert np.array_equal(mapped.places[2], held.places[2])
    model = train(hardware.fabric(), recipe, Examples(cases[:3], cases[3:]), tmp_path / "memory")
    made = load_model(card).state_dict()
    assert all(torch.equal(made[key], value.half().float()) for key, value in model.state_dict().items())
    assert not shelf.exists()


def test_every_preset_can_be_read_and_is_named_as_its_model():
    names = sorted(p.stem for p in PRESETS.glob("*.json"))
    assert "hippocampus-t1" in names
    for name in names:
        assert preset(name).about["id"] == name
    with pytest.raises(ScanError, match="there is no preset “nope”"):
        preset("nope")


def test_presets_are_the_recipes_of_the_bundled_models():
    for name, card in Registry([Path(PRESETS).parents[1] / "weights"]).cards.items():
        recipe = preset(name)
        assert recipe.labels == card.labels
        assert recipe.preparation.spacing == card.spacing
        assert recipe.preparation.body == card.body
        assert dict(recipe.preparation.intensity) == dict(card.intensity)
        assert list(recipe.network.window) == list(card.window)


def test_weights_to_start_from_are_matched_by_name_and_new_labels_are_new(tmp_path, monkeypatch):
    card = tiny.write_model(tmp_path, labels=LabelTable.of(["nose", "front"]).to_json())
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path))
    old = load_model(card).state_dict()
    for given in ("tiny", str(tmp_path / "tiny.json")):
        start = starting_weights(given, labelled.recipe())  # front, back
        head = "decoder.out.conv.conv.weight"
        assert torch.equal(start[head][0], old[head][0])
        assert torch.equal(start[head][1], old[head][2])
        assert not torch.equal(start[head][2], old[head][1])
        assert all(torch.equal(start[k], old[k]) for k in old if not k.startswith("decoder.out."))


def test_weights_to_start_from_are_matched_however_the_names_are_written_and_what_is_new_is_said(tmp_path):
    card = tiny.write_model(tmp_path, labels=LabelTable.of(["Fr ont", "nose"]).to_json())
    said = []
    start = starting_weights(str(tmp_path / "tiny.json"), labelled.recipe(), said.append)
    head = "decoder.out.conv.conv.weight"
    assert torch.equal(start[head][1], load_model(card).state_dict()[head][1])
    assert said == ["labels that start from “A tiny model”: front; labels that start at random: back"]


def test_masks_with_numbers_of_their_own_are_trained_and_measured_by_them(tmp_path, own):
    for k in range(5):
        image, labels = labelled.arrays(k)
        labelled.save(tmp_path / "data" / "scans" / f"{k}.nii.gz", image)
        labelled.save(tmp_path / "data" / "masks" / f"{k}.nii.gz", np.array([0, 1, 4], np.uint8)[labels])
    data = [tmp_path / "data", "--images", "scans/*.nii.gz", "--labels", "masks/*.nii.gz"]
    result = call("train", *data, "--config", config(tmp_path), "--out", tmp_path / "refused")
    assert result.exit_code == 2
    assert "number(s) 4" in result.stderr
    result = call(
        *("train", *data, "--config", config(tmp_path, steps=1), "--label-numbers", "1,4"),
        *("--out", tmp_path / "run"),
    )
    assert result.exit_code == 0, result.stderr
    assert "1 front → 1 front, 4 back → 2 back" in result.stderr
    assert read_recipe(tmp_path / "run" / "config.json").numbers == {1: 1, 4: 2}
    assert call("models", "add", tmp_path / "run" / "model" / "mine.json").exit_code == 0
    measure = ["evaluate", "mine", *data, "--keep-ratios", "1", "--json"]
    result = call(*measure)
    assert result.exit_code == 2
    assert "number(s) 4" in result.stderr
    result = call(*measure, "--label-numbers", "1,4")
    assert result.exit_code == 0, result.stderr
    assert [label["dice"]["cases"] for label in json.loads(result.stdout)["keep_ratios"][0]["labels"]] == [1, 1]
    assert call(*measure, "--label-numbers", "1").exit_code == 2


def test_what_became_of_the_dataset_s_labels_is_said(tmp_path):
    root = labelled.write_decathlon(tmp_path / "data")
    listing = json.loads((root / "dataset.json").read_text())
    listing["labels"] = {"0": "background", "1": "Back", "2": "nose"}
    (root / "dataset.json").write_text(json.dumps(listing))
    result = call("train", root, "--out", tmp_path / "run", "--config", config(tmp_path, steps=1))
    assert result.exit_code == 0, result.stderr
    assert "1 Back → 2 back" in result.stderr
    assert "background to it: 2 nose" in result.stderr


def test_fine_tuning_starts_from_the_model(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "models")
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "models"))
    root = labelled.write_decathlon(tmp_path / "data")
    arguments = ["train", root, "--config", config(tmp_path, rate=1e-9, warmup=0, steps=1), "--out"]
    assert (
        call(*arguments, tmp_path / "run", "--init", "tiny", "--precision", "32-true", "--name", "tuned").exit_code == 0
    )
    made = load_model(Card.read(tmp_path / "run" / "model" / "tuned.json")).state_dict()
    old = load_model(Registry()["tiny"]).state_dict()
    assert all(torch.allclose(made[k], old[k], atol=2e-3) for k in old if not k.startswith("decoder.out."))
    result = call(*arguments, tmp_path / "other", "--init", "nothing")
    assert result.exit_code == 2
    assert "there is no model" in result.stderr


def test_a_model_of_another_network_is_no_start(tmp_path):
    from dataclasses import replace

    tiny.write_model(tmp_path, config=replace(tiny.CONFIG, dim=48, completion_dim=48, features=8))
    with pytest.raises(ScanError, match="is not the recipe's"):
        starting_weights(str(tmp_path / "tiny.json"), labelled.recipe())


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch was built without gloo")
def test_two_processes_train_one_model(tmp_path):
    """As `torchrun` starts them: each draws its own windows, they share every step, the first one writes."""
    root, out = labelled.write_decathlon(tmp_path / "data"), tmp_path / "run"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "napari_sparsetok.cli"]
    arguments = ["train", root, "--out", out, "--config", config(tmp_path), "--accelerator", "cpu", "--devices", "2"]
    done = subprocess.run(
        [sys.executable, *command, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained Mine") == 1
    shared = load_model(Card.read(out / "model" / "mine.json")).state_dict()
    assert call("train", root, "--out", tmp_path / "alone", "--config", config(tmp_path)).exit_code == 0
    alone = load_model(Card.read(tmp_path / "alone" / "model" / "mine.json")).state_dict()
    assert any(not torch.equal(shared[k], alone[k]) for k in alone)


def test_a_run_goes_on_with_its_own_cases_only(tmp_path):
    root = labelled.write_decathlon(tmp_path / "data", splits={"train": [1, 2], "val": [0]})
    out = tmp_path / "run"
    arguments = ["train", root, "--out", out, "--config", config(tmp_path, steps=1)]
    assert call(*arguments).exit_code == 0
    before = (out / "model" / "mine.safetensors").read_bytes()
    result = call(*arguments)
    assert result.exit_code == 0
    assert "was finished before: nothing is trained" in result.stderr
    for learnt, held_out in (([0, 1], [2]), ([1], [0]), ([1, 2], [3])):
        labelled.write_decathlon(root, splits={"train": learnt, "val": held_out})
        result = call(*arguments)
        assert result.exit_code == 2
        assert "was begun with other cases, or they were split otherwise" in result.stderr
    assert (out / "model" / "mine.safetensors").read_bytes() == before


def test_a_run_goes_on_from_its_own_start_only(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "models")
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "models"))
    root = labelled.write_decathlon(tmp_path / "data")
    arguments = ["train", root, "--config", config(tmp_path, steps=1), "--precision", "32-true", "--out"]
    assert call(*arguments, tmp_path / "fresh").exit_code == 0
    result = call(*arguments, tmp_path / "fresh", "--init", "tiny")
    assert result.exit_code == 2
    assert "did not begin with these weights; leave --init out" in result.stderr
    for init in (["--init", "tiny"], ["--init", "tiny"], []):
        result = call(*arguments, tmp_path / "tuned", *init)
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--accelerator", "abacus"], "cannot train so"),
        (["--precision", "7"], "cannot train so"),
        (["--name", "../../elsewhere"], "cannot be a model's id"),
        (["--name", "a/b"], "cannot be a model's id"),
    ],
)
def test_what_cannot_be_trained_is_known_before_a_dataset_is_read(options, words, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "fingerprint", None)
    root = labelled.write_decathlon(tmp_path / "data")
    result = call("train", root, "--out", tmp_path / "run", "--config", config(tmp_path), *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_of_a_decoder_of_another_width_the_encoder_is_still_a_start(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "models", config=replace(tiny.CONFIG, features=8))
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "models"))
    said: list[str] = []
    weights = starting_weights("tiny", labelled.recipe(), said.append)
    new, old = SCD(labelled.recipe().network).state_dict(), load_model(Registry()["tiny"]).state_dict()
    assert {key: weights[key].shape for key in weights} == {key: new[key].shape for key in weights}
    encoder = [key for key in old if key.startswith("blocks.")]
    assert encoder
    assert all(weights[key].equal(old[key]) for key in encoder)
    assert "none; labels that start at random" in said[0]
    assert any("have another size" in words and "decoder" in words for words in said)


def test_what_starts_at_random_beside_labels_is_said(tmp_path, monkeypatch):
    tiny.write_model(tmp_path / "models", "tiny", tiny.with_channels(2))
    monkeypatch.setenv("SPARSETOK_MODELS", str(tmp_path / "models"))
    said: list[str] = []
    starting_weights("tiny", labelled.recipe(), said.append)
    assert any("have another size" in words and "patch_embedding" in words for words in said)
