"""A few steps of training on made-up cases, and what comes out of a run."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tiny
import torch

from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.files import open_scan
from napari_sparsetok.model import SCD, TokenRecord
from napari_sparsetok.state import Settings
from napari_sparsetok.training import augmentation
from napari_sparsetok.training.dataset import Case, label_table, read_cases
from napari_sparsetok.training.export import export
from napari_sparsetok.training.loop import TrainingConfig, mean_dice, score_loss, train
from napari_sparsetok.weights import Registry

SHORT = TrainingConfig(steps=3, batch=2, windows=((16,), (16, 20), (16,)), warmup=1, evaluate_every=2)


def make_case(seed: int, shape=(18, 22, 16)) -> Case:
    """A bright box in noise, whose front half is label 1 and back half label 2."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.3, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[5:11, 6:11, 5:11] = 1
    labels[5:11, 11:16, 5:11] = 2
    image[labels > 0] += 2
    return Case(f"case_{seed}", image[None], labels)


def test_the_score_loss_teaches_the_scores_where_the_labels_are():
    labels = torch.zeros(1, 1, 8, 8, 8, dtype=torch.long)
    labels[..., :4, :4, :4] = 1  # the first token, and nothing else
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    record = TokenRecord((torch.nn.functional.logsigmoid(logits),), torch.zeros(1, 2, 2, 2, dtype=torch.uint8))
    loss = score_loss(record, labels, patch=4)
    assert loss.item() == pytest.approx(np.log(2))
    loss.backward()
    gradient = logits.grad.flatten()
    assert gradient[0] < 0  # up with the score of the token that touches the label
    assert (gradient[1:] > 0).all()


def test_tokens_that_were_gone_teach_nothing():
    labels = torch.ones(1, 1, 8, 8, 8, dtype=torch.long)
    scores = torch.full((1, 2, 2, 2), -0.1)
    scores[0, 0, 0, 0] = float("nan")
    loss = score_loss(TokenRecord((scores,), torch.zeros(1, 2, 2, 2)), labels, patch=4)
    assert loss.item() == pytest.approx(0.1)


def test_a_short_run_writes_its_log_its_config_and_its_weights(tmp_path):
    cases = [make_case(k) for k in range(3)]
    model = train(tiny.CONFIG, SHORT, cases, cases[:1], tmp_path)
    assert not model.training
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3]
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert rows[1]["val_dice"]
    assert json.loads((tmp_path / "config.json").read_text())["training"]["steps"] == 3
    assert (tmp_path / "weights.safetensors").exists()


def test_one_seed_gives_one_result(tmp_path):
    cases = [make_case(k) for k in range(2)]
    weights = [train(tiny.CONFIG, SHORT, cases, cases[:1], tmp_path / str(k)).state_dict() for k in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_finds_the_box_and_the_scores_learn_where_it_is(tmp_path):
    """Eighty steps on one easy case: enough to see both losses do their work."""
    case = make_case(0, (16, 20, 16))
    config = replace(SHORT, steps=80, batch=1, rate=3e-3, warmup=5, windows=((16,), (20,), (16,)), average_decay=0.5)
    model = train(tiny.CONFIG, config, [case], [case], tmp_path)
    assert mean_dice(model, [case], 1.0)[0] > 0.3
    with torch.inference_mode():
        _, record = model(torch.from_numpy(case.image)[None], 0.5)
    touches = torch.nn.functional.max_pool3d(torch.from_numpy(case.labels[None] > 0).float(), 4)[0] > 0
    scores = record.scores[0][0]
    assert scores[touches].mean() > scores[~touches].mean()


def test_a_batch_has_the_window_s_size_whatever_the_case_s(tmp_path):
    augment = augmentation.build(mirror=True)
    augment.set_random_state(0)
    images, labels = augmentation.batch([make_case(0), make_case(1, (12, 30, 16))], (20, 16, 24), augment)
    assert images.shape == labels.shape == (2, 1, 20, 16, 24)
    assert images.dtype == torch.float32
    assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_dice_of_a_case_that_is_no_multiple_of_the_patch():
    case = make_case(0, (17, 21, 15))
    assert len(mean_dice(SCD(tiny.CONFIG), [case], 0.5)) == 2


def test_an_exported_run_is_a_model(tmp_path):
    root = tmp_path / "data"
    entries = []
    for k in range(2):
        case = make_case(k)
        for folder, array in (("imagesTr", case.image[0]), ("labelsTr", case.labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"{k}.nii.gz")
        entries.append({"image": f"imagesTr/{k}.nii.gz", "label": f"labelsTr/{k}.nii.gz"})
    listing = {
        "labels": {"0": "background", "1": "front", "2": "back"},
        "training": entries,
        "splits": {"train": ["0.nii.gz"], "val": ["1.nii.gz"]},
    }
    (root / "dataset.json").write_text(json.dumps(listing))
    assert [label.name for label in label_table(root)] == ["front", "back"]
    cases = read_cases(root, "train", {"name": "standardise"})
    assert cases[0].image.shape[1:] == cases[0].labels.shape
    train(tiny.CONFIG, replace(SHORT, batch=1), cases, cases, tmp_path / "run")
    about = tmp_path / "about.json"
    given = {"id": "mine", "title": "Mine", "purpose": "x", "modality": "MR", "channels": ["T1"], "spacing": [1, 1, 1]}
    about.write_text(json.dumps(given | {"intensity": {"name": "standardise"}}))
    folder = tmp_path / "models"
    folder.mkdir()
    card = export(tmp_path / "run", root, about, folder)
    assert set(card.dice["labels"]) == {"1.0", "0.75", "0.5", "0.25", "0.1", "0.05"}
    registry = Registry([folder])
    scan = open_scan(root / "imagesTr" / "0.nii.gz")
    assert SCDSegmenter(registry).segment(scan, Settings("mine")).complete
