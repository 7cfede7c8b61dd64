"""A model small enough for tests, written to a folder as a real one would be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.model import SCD, SCDConfig
from napari_sparsetok.weights import Card

CONFIG = SCDConfig(
    in_channels=1,
    out_channels=3,
    window=(16, 24, 16),
    patch=4,
    dim=24,
    depth=3,
    heads=2,
    prune_after=(1, 2),
    completion_dim=24,
    completion_heads=2,
    features=4,
)

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this CPU cannot convolve in bfloat16, so the program does not try; one with AVX-512 can",
)


def write_model(folder: Path, name: str = "tiny", config: SCDConfig = CONFIG, **changes: Any) -> Card:
    """Write random weights and a card; `changes` replace fields of the card."""
    torch.manual_seed(0)
    model = SCD(config)
    with torch.no_grad():  # random weights decide nothing; these make every class win somewhere
        model.decoder.out.conv.conv.weight.mul_(20)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    save_file(model.state_dict(), weights)
    card: dict[str, Any] = {
        "format": 1,
        "id": name,
        "title": f"A {name} model",
        "purpose": "Outlines nothing in particular.",
        "modality": "none",
        "channels": [f"channel {k}" for k in range(1, config.in_channels + 1)],
        "spacing": [1.0, 1.0, 1.0],
        "intensity": {"name": "standardise"},
        "labels": LabelTable.of([f"part {k}" for k in range(1, config.out_channels)]).to_json(),
        "config": asdict(config),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "overlap": 0.5,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(card | changes))
    return Card.read(path)


def rewrite(card: Card, **changes: Any) -> Card:
    """Write a card anew with other fields, as they are, and read it."""
    path = card.weights.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Card.read(path)


def with_channels(channels: int) -> SCDConfig:
    """The tiny network for several volumes."""
    return replace(CONFIG, in_channels=channels)
