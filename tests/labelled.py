"""Labelled scans made up for tests: in memory, and as folders on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import tiny

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.training.case import Case
from napari_sparsetok.training.configuration import Preparation, Recipe, TrainingConfig

SHORT = TrainingConfig(steps=3, batch=2, windows=((16,), (16, 20), (16,)), warmup=1, evaluate_every=2)
NAMES = {1: "front", 2: "back"}


def arrays(seed: int, shape=(18, 22, 16)):
    """A bright box in noise, whose front half is label 1 and back half label 2: (image, labels)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.3, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[5:11, 6:11, 5:11] = 1
    labels[5:11, 11:16, 5:11] = 2
    image[labels > 0] += 2
    return image, labels


def make_case(seed: int, shape=(18, 22, 16), known=(True, True, True)) -> Case:
    """A case of `arrays`."""
    image, labels = arrays(seed, shape)
    return Case.of(f"case_{seed}", image[None], labels, known)


def recipe(**training) -> Recipe:
    """A recipe for the tiny network."""
    from dataclasses import replace

    return Recipe(
        about={
            "id": "mine",
            "title": "Mine",
            "purpose": "Outlines a box.",
            "modality": "none",
            "training_data": "Made up.",
            "licence": "None.",
            "limits": "All.",
        },
        channels=("image",),
        labels=LabelTable.of(list(NAMES.values())),
        preparation=Preparation((1.0, 1.0, 1.0), {"name": "standardise"}),
        network=tiny.CONFIG,
        training=replace(SHORT, **training),
    )


def write_decathlon(root: Path, cases: int = 4, splits: Mapping[str, list[int]] | None = None, **entry) -> Path:
    """A folder in the decathlon's layout; `entry` goes into every case's entry."""
    entries = []
    for k in range(cases):
        for folder, array in zip(("imagesTr", "labelsTr"), arrays(k), strict=True):
            save(root / folder / f"{k}.nii.gz", array)
        entries.append({"image": f"./imagesTr/{k}.nii.gz", "label": f"./labelsTr/{k}.nii.gz", **entry})
    chosen = splits or {"train": list(range(1, cases)), "val": [0]}
    listing = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", **{str(k): name for k, name in NAMES.items()}},
        "training": entries,
        "splits": {name: [f"{k}.nii.gz" for k in members] for name, members in chosen.items()},
    }
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path
