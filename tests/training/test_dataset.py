"""Folders of labelled scans, as they come."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import labelled
import numpy as np
import pytest

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.case import open_item, read_case
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


def test_a_file_without_its_counterpart_is_a_problem(tmp_path):
    image, labels = labelled.arrays(0)
    for name in ("one", "two", "unlabelled"):
        labelled.save(tmp_path / "scans" / f"{name}_t1.nii.gz", image)
    for name in ("one", "two", "wrongly_called"):
        labelled.save(tmp_path / "masks" / f"{name}.nii.gz", labels)
    found = fingerprint(open_dataset(tmp_path, ["scans/*_t1.nii.gz"], "masks/*.nii.gz"))
    assert found.problems == (
        "unlabelled: has no file “masks/*.nii.gz”",
        "wrongly_called: has no file “scans/*_t1.nii.gz”",
    )
    assert found.bad == {"unlabelled", "wrongly_called"}


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


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            {"background": 0, "front": 1, "back": 2, "ignore": 3},
            r"label 3, “ignore”, is for voxels that nobody judged.* draw what is there",
        ),
        ({"0": "background", "1": "front", "2": "Ignore"}, "label 2, “Ignore”, is for voxels that nobody judged"),
        (
            {"background": 0, "whole": [1, 2], "back": 2},
            r"“whole” is a region of the labels 1, 2.* give every number a name of its own",
        ),
    ],
)
def test_labels_of_a_kind_that_cannot_be_trained_are_refused_in_words(tmp_path, labels, words):
    root = labelled.write_decathlon(tmp_path)
    change(root, labels=labels)
    with pytest.raises(ScanError, match=words):
        open_dataset(root)


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


def test_numbers_that_were_asked_for_win_over_the_dataset_s_names(tmp_path):
    root, table = labelled.write_decathlon(tmp_path), LabelTable.of(["front", "back"])
    change(root, labels={"0": "background", "1": "front", "2": "back", "3": "nose"})
    named = open_dataset(root).named(table, {2: 1, 3: 2})
    found = named.matching(table)
    assert found.numbers == {1: 0, 2: 1, 3: 2}
    assert str(found) == (
        "labels matched by the numbers given: 2 back → 1 front, 3 nose → 2 back. "
        "not among the model's labels, and background to it: 1 front"
    )
    assert named.named(table, {2: 1, 3: 2}) == named
    assert fingerprint(named).problems == ()
    with pytest.raises(ScanError, match="none of the label numbers 17, 53 is the dataset's: 1 front, 2 back, 3 nose"):
        open_dataset(root).named(table, {17: 1, 53: 2})


def test_one_name_that_is_not_the_model_s_leaves_the_others_matched(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    change(root, labels={"0": "background", "1": "Mandible", "2": "Brain-stem", "3": "Tumour"})
    found = open_dataset(root).matching(LabelTable.of(["Brainstem", "Spinal cord", "Mandible"]))
    assert found.numbers == {1: 3, 2: 1, 3: 0}
    assert "background to it: 3 Tumour" in str(found)
    assert "left open: Spinal cord" in str(found)


def in_folders_of_their_own(root: Path, cases: int = 4, **entries) -> Path:
    """A listing of cases whose files all have the same names."""
    training = []
    for k in range(cases):
        for name, array in zip(("image", "seg"), labelled.arrays(k), strict=True):
            labelled.save(root / f"case{k}" / f"{name}.nii.gz", array)
        training.append({"image": f"./case{k}/image.nii.gz", "label": f"./case{k}/seg.nii.gz"})
    listing = {"modality": {"0": "MR"}, "labels": {"0": "background", "1": "front", "2": "back"}, "training": training}
    (root / "dataset.json").write_text(json.dumps(listing | entries))
    return root


def test_cases_in_folders_of_their_own_keep_apart(tmp_path):
    splits = {"train": ["case0/image.nii.gz", "./case1/image.nii.gz", "case3/image"], "val": ["case2/image.nii.gz"]}
    dataset = open_dataset(in_folders_of_their_own(tmp_path, splits=splits))
    assert [item.name for item in dataset["train"]] == [f"case{k}/image.nii.gz" for k in (0, 1, 3)]
    assert [item.images for item in dataset["val"]] == [(tmp_path / "case2" / "image.nii.gz",)]
    assert fingerprint(dataset).problems == ()


def test_a_case_that_is_listed_again_is_a_problem(tmp_path):
    root = in_folders_of_their_own(tmp_path)
    listed = json.loads((root / "dataset.json").read_text())["training"]
    change(root, training=[*listed, listed[0], listed[1]])  # the fifth is held out
    found = fingerprint(open_dataset(root))
    assert found.problems == (
        "case0/image.nii.gz: is in more than one split",
        "case1/image.nii.gz: is listed more than once",
    )
    assert found.bad == {"case0/image.nii.gz", "case1/image.nii.gz"}


def test_a_name_in_a_split_that_is_no_case_is_a_problem(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    change(root, splits={"train": ["1.nii.gz", "2", "typo"], "val": ["0.nii.gz", "case_17.nii.gz"]})
    found = fingerprint(open_dataset(root))
    assert found.problems == (
        "typo: is in the split “train”, and no case is called so; the first one is called “0.nii.gz”",
        "case_17.nii.gz: is in the split “val”, and no case is called so; the first one is called “0.nii.gz”",
    )
    assert found.bad == {"typo", "case_17.nii.gz"}
    change(root, splits={"train": ["1"], "val": ["image"]})
    with pytest.raises(ScanError, match="the split “val” of the dataset is empty"):
        open_dataset(root)["val"]


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


def four_axes(root: Path, volumes: int = 2) -> Path:
    """The decathlon's brain tumours and prostates: all channels of a case in one file."""
    labelled.write_decathlon(root)
    change(root, modality={"0": "T2", "1": "ADC"})
    for k in range(4):
        image, _ = labelled.arrays(k)
        stacked = np.stack([image + 10 * n for n in range(volumes)], axis=-1)
        labelled.save(root / "imagesTr" / f"{k}.nii.gz", stacked)
    return root


def test_channels_in_one_file_are_told_apart(tmp_path):
    dataset = open_dataset(four_axes(tmp_path))
    found = fingerprint(dataset)
    assert found.problems == ()
    recipe = propose(dataset, found, "mine")
    assert recipe.channels == ("T2", "ADC")
    channels, drawn = open_item(dataset["train"][0])
    assert [scan.voxels.shape for scan in channels] == [drawn.shape] * 2
    assert channels[1].voxels.mean() == pytest.approx(channels[0].voxels.mean() + 10, rel=1e-3)
    case = read_case(dataset["train"][0], {1: 1, 2: 2}, recipe.labels, recipe.preparation)
    assert case.image.shape == (2, *case.labels.shape)


@pytest.mark.parametrize("volumes", [1, 3])
def test_more_or_fewer_channels_than_the_dataset_names_are_a_problem_of_the_case(tmp_path, volumes):
    found = fingerprint(open_dataset(root := four_axes(tmp_path)))
    assert not found.problems
    image, _ = labelled.arrays(1)
    labelled.save(root / "imagesTr" / "1.nii.gz", np.stack([image] * volumes, axis=-1))
    (words,) = fingerprint(open_dataset(root)).problems
    assert f"holds {volumes} volume(s), and the dataset has 2 channel(s)" in words


def test_labels_with_a_fourth_axis_are_a_problem_of_the_case(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    _, labels = labelled.arrays(1)
    labelled.save(root / "labelsTr" / "1.nii.gz", np.stack([labels, labels], axis=-1))
    (words,) = fingerprint(open_dataset(root)).problems
    assert "1.nii.gz: 1.nii.gz holds 2 volumes; labels are one" in words


def test_scans_that_stay_on_disk_are_checked_like_others(tmp_path, monkeypatch):
    root = labelled.write_decathlon(tmp_path)
    for k in range(4):
        for folder, array in zip(("imagesTr", "labelsTr"), labelled.arrays(k), strict=True):
            (root / folder / f"{k}.nii.gz").unlink()
            labelled.save(root / folder / f"{k}.nii", array)
    listing = json.loads((root / "dataset.json").read_text().replace(".nii.gz", ".nii"))
    change(root, **listing)
    dataset = open_dataset(root)
    expected = fingerprint(dataset).to_json()
    monkeypatch.setattr("napari_sparsetok.files.raw.LARGEST_IN_MEMORY", 1)
    assert open_item(dataset["train"][0])[0][0].is_lazy
    assert fingerprint(dataset).to_json() == expected


def patterned(root: Path, numbers=(1, 4)) -> Path:
    """A folder without names, whose masks call the labels by these numbers."""
    for k in range(4):
        image, labels = labelled.arrays(k)
        labelled.save(root / "scans" / f"{k}.nii.gz", image)
        labelled.save(root / "masks" / f"{k}.nii.gz", np.array([0, *numbers], np.uint8)[labels])
    return root


PATTERNS = (["scans/*.nii.gz"], "masks/*.nii.gz")


def test_numbers_in_masks_that_nobody_named_are_kept_by_the_proposed_recipe(tmp_path):
    dataset = open_dataset(patterned(tmp_path, (17, 53)), *PATTERNS)
    recipe = propose(dataset, fingerprint(dataset), "mine")
    assert [(label.id, label.name) for label in recipe.labels] == [(1, "label 17"), (2, "label 53")]
    assert recipe.numbers == {17: 1, 53: 2}
    assert recipe == type(recipe).from_json(json.loads(json.dumps(recipe.to_json())))
    assert dataset.named(recipe.labels, recipe.numbers).labels == {17: "label 17", 53: "label 53"}


def test_a_recipe_whose_numbers_are_the_labels_own_is_as_it_always_was(tmp_path):
    dataset = open_dataset(patterned(tmp_path, (1, 2)), *PATTERNS)
    recipe = propose(dataset, fingerprint(dataset), "mine")
    assert "numbers" not in recipe.to_json()  # so that runs begun before go on
    assert dataset.named(recipe.labels).labels == {1: "label 1", 2: "label 2"}


def test_numbers_that_no_label_has_are_refused_before_training(tmp_path):
    dataset = open_dataset(patterned(tmp_path), *PATTERNS)
    found = fingerprint(dataset.named(LabelTable.of(["front", "back"])))
    assert any("holds the label number(s) 4, which neither" in words for words in found.problems)


def test_a_recipe_s_numbers_stand_for_labels_of_its_own():
    with pytest.raises(ValueError, match="stand for labels that it has"):
        replace(labelled.recipe(), numbers={4: 3})


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
