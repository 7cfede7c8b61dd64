"""Folders of labelled scans, as they come."""

from __future__ import annotations

import json
from pathlib import Path

import labelled
import numpy as np
import pytest

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.dataset import open_dataset
from napari_sparsetok.training.fingerprint import fingerprint, propose


def change(root: Path, **entries) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_the_decathlon_s_layout(tmp_path):
    dataset = open_dataset(labelled.write_decathlon(tmp_path, contoured=[2]))
    assert dataset.labels == labelled.NAMES
    assert [item.name for item in dataset["train"]] == ["1.nii.gz", "2.nii.gz", "3.nii.gz"]
    assert dataset["val"][0].drawn == {2}
    assert dataset.channels == ("MR",)


def test_nnu_net_s_layout_with_several_channels(tmp_path):
    for k in range(6):
        image, labels = labelled.arrays(k)
        for channel in range(2):
            labelled.save(tmp_path / "imagesTr" / f"a_{k}_{channel:04d}.nii.gz", image)
        labelled.save(tmp_path / "labelsTr" / f"a_{k}.nii.gz", labels)
    listing = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "front": 1, "back": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({**listing, "numTraining": 6, "file_ending": ".nii.gz"}))
    dataset = open_dataset(tmp_path)
    assert dataset.channels == ("T1", "T2")
    assert dataset.labels == labelled.NAMES
    assert [p.name for p in dataset["val"][0].images] == ["a_4_0000.nii.gz", "a_4_0001.nii.gz"]
    assert len(dataset["train"]) == 5  # every fifth is held out


def test_pairs_by_pattern(tmp_path):
    image, labels = labelled.arrays(0)
    for name in ("one", "two"):
        labelled.save(tmp_path / "scans" / f"{name}_t1.nii.gz", image)
        labelled.save(tmp_path / "masks" / f"{name}.nii.gz", labels)
    labelled.save(tmp_path / "scans" / "unlabelled_t1.nii.gz", image)
    dataset = open_dataset(tmp_path, ["scans/*_t1.nii.gz"], "masks/*.nii.gz")
    assert [item.name for item in dataset["train"]] == ["one", "two"]
    assert dataset["train"][0].label == tmp_path / "masks" / "one.nii.gz"


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (["scans/*.nii"], "", "both patterns"),
        (["scans/*.nii"], "masks/*.nii", "no image has a label file of the same name"),
        (["scans/a.nii"], "masks/*.nii", "one “\\*”"),
        ([], "", "no dataset.json"),
    ],
)
def test_what_is_missing_is_said(tmp_path, images, labels, words):
    with pytest.raises(ScanError, match=words):
        open_dataset(tmp_path, images, labels)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"labels": 3}', '{"labels": {"a": "b"}, "training": []}'])
def test_a_broken_listing_is_refused_in_words(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ScanError, match=r"dataset\.json"):
        open_dataset(tmp_path)


def test_labels_are_matched_by_name_or_else_by_number(tmp_path):
    dataset = open_dataset(labelled.write_decathlon(tmp_path))
    found = dataset.matching(LabelTable.of(["Back", "other", "FRONT"]))
    assert found.numbers == {1: 3, 2: 1}
    assert str(found) == (
        "labels matched by name: 1 front → 3 FRONT, 2 back → 1 Back. not in the dataset, and left open: other"
    )
    found = dataset.matching(LabelTable.of(["x", "y"]))
    assert found.numbers == {1: 1, 2: 2}
    assert "equal numbers were taken to mean the same: 1 front → 1 x, 2 back → 2 y" in str(found)


def test_one_name_that_is_not_the_model_s_leaves_the_others_matched(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    change(root, labels={"0": "background", "1": "Mandible", "2": "Brain-stem", "3": "Tumour"})
    found = open_dataset(root).matching(LabelTable.of(["Brainstem", "Spinal cord", "Mandible"]))
    assert found.numbers == {1: 3, 2: 1, 3: 0}
    assert "background to it: 3 Tumour" in str(found)
    assert "left open: Spinal cord" in str(found)


def test_all_problems_are_found_in_one_go(tmp_path):
    root = labelled.write_decathlon(tmp_path, cases=7, splits={"train": [0, 1, 2, 3, 4, 5], "val": [5, 6]})
    image, labels = labelled.arrays(0)
    (root / "imagesTr" / "0.nii.gz").write_bytes(b"no scan")
    labelled.save(root / "labelsTr" / "1.nii.gz", labels[:-1])
    labelled.save(root / "labelsTr" / "2.nii.gz", labels * 3)
    labelled.save(root / "labelsTr" / "3.nii.gz", labels * 0)
    image[0, 0, 0] = np.nan
    labelled.save(root / "imagesTr" / "4.nii.gz", image)
    found = fingerprint(open_dataset(root))
    said = "\n".join(found.problems)
    for words in (
        "0.nii.gz: ",
        "1.nii.gz: 1.nii.gz does not lie on the grid",
        "2.nii.gz: holds the label number(s) 3, 6",
        "3.nii.gz: has no labelled voxel",
        "4.nii.gz: some voxels are not numbers",
        "5.nii.gz: is in more than one split",
    ):
        assert words in said
    assert found.bad == {f"{k}.nii.gz" for k in range(6)}


def test_a_sound_dataset_has_no_problem_and_gets_a_recipe(tmp_path):
    dataset = open_dataset(labelled.write_decathlon(tmp_path))
    found = fingerprint(dataset)
    assert found.problems == ()
    recipe = propose(dataset, found, "mine")
    assert recipe.preparation.spacing == (1.0, 1.0, 1.0)
    assert recipe.preparation.intensity["name"] == "standardise"
    assert recipe.preparation.body is None
    assert [label.name for label in recipe.labels] == ["front", "back"]
    assert recipe.needs_region
    assert recipe == type(recipe).from_json(json.loads(json.dumps(recipe.to_json())))


def test_ct_is_told_by_its_air_and_windowed_by_what_is_labelled(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    change(root, modality={"0": "CT"}, labels={"0": "background", "1": "Left lung", "2": "Right lung"})
    for k in range(4):
        _, labels = labelled.arrays(k)
        hu = np.where(labels > 0, 40, -1000).astype(np.int16)
        hu[labels == 2] = 95
        labelled.save(root / "imagesTr" / f"{k}.nii.gz", hu, np.diag([0.9, 0.9, 2.5, 1]))
        labelled.save(root / "labelsTr" / f"{k}.nii.gz", labels, np.diag([0.9, 0.9, 2.5, 1]))
    dataset = open_dataset(root)
    recipe = propose(dataset, fingerprint(dataset), "lungs")
    assert recipe.preparation.intensity == {"name": "window", "low": 40, "high": 100}
    assert recipe.preparation.body.above == -500
    assert recipe.preparation.spacing == (2.5, 0.9, 0.9)
    assert recipe.training.swap == ((1, 2),)
    assert recipe.training.mirror
