"""From a run to a model: weights in half precision and their card."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from napari_sparsetok.engine.segmenter import load_model
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.model import SCD
from napari_sparsetok.training.case import Case
from napari_sparsetok.training.configuration import Recipe
from napari_sparsetok.training.validation import mean_dice
from napari_sparsetok.weights import Card

KEEP_RATIOS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)


def export(recipe: Recipe, model: SCD, cases: Sequence[Case], folder: Path) -> Card:
    """Write a network as a model that can be installed, and measure Dice with the very weights that were written.

    Parameters
    ----------
    cases : of the val split; none leaves the card without a measure.

    Raises
    ------
    ScanError : the disk refuses.
    """
    name = recipe.about["id"]
    weights, path = folder / f"{name}.safetensors", folder / f"{name}.json"
    words = "the model could not be written ({}); free space and run the same command again"
    with written_whole(weights, words=words) as temporary:
        save_file(
            {key: value.detach().cpu().half().contiguous() for key, value in model.state_dict().items()}, temporary
        )
    card = _card(recipe, weights)
    _write(card, path)
    if cases:
        stored = load_model(card)
        by_ratio = {str(keep): [_number(d) for d in mean_dice(stored, cases, keep)] for keep in KEEP_RATIOS}
        card = replace(card, dice={"split": f"val, {len(cases)} cases", "labels": by_ratio})
        _write(card, path)
    return Card.read(path)


def _card(recipe: Recipe, weights: Path) -> Card:
    preparation = recipe.preparation
    return Card(
        **recipe.about,  # type: ignore[arg-type]
        channels=recipe.channels,
        spacing=preparation.spacing,
        intensity=dict(preparation.intensity),
        labels=recipe.labels,
        config=_config(recipe),
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        weights=weights,
        overlap=recipe.overlap,
        needs_region=recipe.needs_region,
        body=preparation.body,
        one_piece=recipe.one_piece,
        keep_ratios=(recipe.training.min_keep, 1.0),
    )


def _config(recipe: Recipe) -> dict[str, Any]:
    # Stochastic depth is for training; whoever loads the model does not train.
    return asdict(recipe.network) | {"drop_path": 0.0}


def _write(card: Card, path: Path) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(card.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
