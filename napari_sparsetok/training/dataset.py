"""Labelled scans in the layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.engine.intensity import apply_rule
from napari_sparsetok.files import open_scan
from napari_sparsetok.labels import LabelTable


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled scan, ready for the network.

    image : (channels, z, y, x) float32, after the intensity rule.
    labels : (z, y, x) uint8.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]


def label_table(root: Path) -> LabelTable:
    """The labels that a dataset's `dataset.json` names, without background."""
    named = json.loads((root / "dataset.json").read_text())["labels"]
    return LabelTable.of([named[key] for key in sorted(named, key=int) if int(key)])


def read_cases(root: Path, split: str, rule: Mapping[str, Any]) -> list[Case]:
    """All cases of one split, in memory.

    Raises
    ------
    ValueError : image and labels of a case lie on different grids.
    """
    listing = json.loads((root / "dataset.json").read_text())
    names = set(listing["splits"][split])
    pairs = [p for p in listing["training"] if Path(p["image"]).name in names]
    return [_read(root / pair["image"], root / pair["label"], rule) for pair in pairs]


def _read(image_path: Path, label_path: Path, rule: Mapping[str, Any]) -> Case:
    image, labels = open_scan(image_path), open_scan(label_path)
    if not image.geometry.same_grid(labels.geometry):
        raise ValueError(f"{image_path.name}: the labels do not lie on the image's grid")
    return Case(image_path.name, apply_rule(rule, image.voxels)[None], labels.voxels.astype(np.uint8))
