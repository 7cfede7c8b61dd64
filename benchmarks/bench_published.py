"""Our encoder and completion against those of the published implementation, at the same weights.

    python benchmarks/bench_published.py CHECKOUT [RESULT.json] [--rounds N]

CHECKOUT is a clone of https://github.com/cvlab-stonybrook/TokenSparse-for-MedSeg, which is no part of this project; it
needs timm 0.6. The network is that of the BTCV preset with random weights, one window of 96³ voxels, on the CPU; parts
run in turns. Before anything is timed, both must give the same completed tokens. The decoders are not compared: both
are made of MONAI's UNETR blocks, and what ours gains there is told by `sparsetok bench`, against these blocks. The
last line is one JSON document.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from napari_sparsetok.bench.row import in_turns
from napari_sparsetok.model import SCD
from napari_sparsetok.model.presets import PRESETS
from napari_sparsetok.model.reference import TOLERANCE, convert_weights

KEEP_RATIOS = (0.75, 0.5, 0.25)
CONFIG = PRESETS["btcv"]
_DECODER = {"decoder.skips.": "decoder.encoder", "decoder.ups.": "decoder.decoder"}


class _ParameterList(torch.nn.ParameterList):
    """As PyTorch had it when the published code was written."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)


def published(checkout: Path) -> tuple[Any, Any]:
    """The modules with the networks, without their packages' `__init__`, which load the training code too."""
    for name in ("lib", "lib.networks", "lib.models"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    return importlib.import_module("lib.networks.adavit"), importlib.import_module("lib.models.unetr3d")


def build(checkout: Path, keep_ratio: float) -> tuple[Any, Any]:
    """Their encoder and completion of the preset, with random weights."""
    networks, embedding = published(checkout)
    torch.manual_seed(0)
    encoder = networks.VisionTransformerTokenPruningV1(
        img_size=CONFIG.window,
        patch_size=CONFIG.patch,
        in_chans=CONFIG.in_channels,
        num_classes=0,
        global_pool="",
        embed_dim=CONFIG.dim,
        depth=CONFIG.depth,
        num_heads=CONFIG.heads,
        embed_layer=embedding.PatchEmbed3D,
        predictor=networks.MlpPredictor,
        tp_loc=[block - 1 for block in CONFIG.prune_after],
        tp_ratio=1 - keep_ratio,
        args=types.SimpleNamespace(share_pred=False, perturbation="gumbel"),
    )
    with patch.object(torch.nn, "ParameterList", _ParameterList):
        completion = networks.FusionNet(
            grid_size=CONFIG.grid(),
            embed_dim=CONFIG.completion_dim,
            enc_dim=CONFIG.dim,
            depth=CONFIG.completion_depth,
            num_heads=CONFIG.completion_heads,
            num_layers=CONFIG.stages + 1,
        )
    return encoder.eval().requires_grad_(False), completion.eval().requires_grad_(False)


def ours(encoder: Any, completion: Any) -> SCD:
    """Our network with their weights; its decoder keeps its own."""
    model = SCD(CONFIG)
    theirs = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    theirs |= {f"completion_net.{name}": value for name, value in completion.state_dict().items()}
    for name, value in model.state_dict().items():
        if name.startswith("decoder."):
            theirs[_published_name(name)] = value
    weights, _ = convert_weights(theirs, CONFIG, tuple(range(CONFIG.stages)))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _published_name(name: str) -> str:
    for head, their in _DECODER.items():
        if name.startswith(head):
            number, _, rest = name.removeprefix(head).partition(".")
            return f"{their}{int(number) + 2}.{rest}"
    return name.replace("decoder.image_block.", "decoder.encoder1.")


@torch.inference_mode()
def measure(checkout: Path, keep_ratio: float, rounds: int) -> dict[str, Any]:
    encoder, completion = build(checkout, keep_ratio)
    model = ours(encoder, completion)
    image = torch.randn(1, CONFIG.in_channels, *CONFIG.window)
    tokens, policies = encoder(image)
    prefix = model.encode_prefix(image)
    parts, ids, _ = model.encode_rest(prefix, keep_ratio)
    difference = float(
        (completion([t.clone() for t in tokens], policies) - model.complete(parts, ids, prefix.grid).flatten(2).mT)
        .abs()
        .max()
    )
    if difference > TOLERANCE:
        raise SystemExit(f"the completed tokens differ by {difference:g}: these are not the same networks")
    times = in_turns(
        {
            "encoder, published": lambda: encoder(image),
            "encoder, ours": lambda: model.encode_rest(model.encode_prefix(image), keep_ratio),
            "completion, published": lambda: completion([t.clone() for t in tokens], policies),
            "completion, ours": lambda: model.complete(parts, ids, prefix.grid),
        },
        rounds,
    )
    medians = {name: round(float(np.median(seconds)), 4) for name, seconds in times.items()}
    spread = {name: [round(min(seconds), 4), round(max(seconds), 4)] for name, seconds in times.items()}
    ratios = {
        part: round(medians[f"{part}, ours"] / medians[f"{part}, published"], 3) for part in ("encoder", "completion")
    }
    return {"seconds": medians, "spread": spread, "ours_over_published": ratios, "largest_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("result", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "published",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "threads": torch.get_num_threads(),
        "rounds": given.rounds,
        "keep_ratios": {str(r): measure(given.checkout, r, given.rounds) for r in KEEP_RATIOS},
    }
    if given.result:
        given.result.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
