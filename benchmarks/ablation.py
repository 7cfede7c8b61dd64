"""What each part of the training brings: short runs of one small network that differ in one thing each.

    python benchmarks/ablation.py DATASET RESULT.json [--steps 500] [--only NAME …]

DATASET is the hippocampus set of the Medical Segmentation Decathlon with a train and a val split. The network is the
bundled model's, narrowed, so that a run takes minutes on two cores. Every run starts from the same seed. What is said
of each: Dice at several keep ratios, agreement with its own dense prediction, the area under the ROC of its scores,
and seconds a step. A finished variant is not run again; delete its entry to do so.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from napari_sparsetok.metrics import dice
from napari_sparsetok.model import SCD
from napari_sparsetok.training.case import Case
from napari_sparsetok.training.configuration import Recipe, preset
from napari_sparsetok.training.dataset import open_dataset
from napari_sparsetok.training.loop import Examples, train
from napari_sparsetok.training.run import Feedback, Hardware, read_split
from napari_sparsetok.training.validation import mean_dice, predict

KEEP_RATIOS = (1.0, 0.5, 0.25, 0.1, 0.05)

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # changes of training, of the network
    "default": ({}, {}),
    "published: no score loss": ({"score_weight": 0.0}, {}),
    "mask token instead of assembly": ({}, {"completion": "mask"}),
    "one model for 0.25 alone": ({"ratios": "fixed", "min_keep": 0.25}, {}),
    "sandwich": ({"ratios": "sandwich"}, {}),
    "sandwich and distillation": ({"ratios": "sandwich", "distillation": 0.5}, {}),
    "pruned later, after blocks 3 and 5": ({}, {"prune_after": (3, 5)}),
}


def base(steps: int) -> Recipe:
    recipe = preset("hippocampus-t1")
    network = replace(recipe.network, dim=96, heads=3, depth=6, completion_dim=96, features=8)
    training = replace(
        recipe.training,
        steps=steps,
        batch=2,
        warmup=50,
        evaluate_every=steps,
        average_decay=0.99,
        checkpoint_seconds=1e9,
    )
    return replace(recipe, network=network, training=training)


def score_area(model: SCD, cases: list[Case]) -> float:
    """Mean area under the ROC of first-stage scores against tokens that touch a label, each case as one window."""
    from scipy.stats import rankdata

    areas = []
    for case in cases:
        pads = [(0, (-n) % model.config.patch) for n in case.labels.shape]
        image = torch.from_numpy(np.pad(case.image, [(0, 0), *pads], mode="edge"))[None]
        with torch.inference_mode():
            scores = model.encode_prefix(image).scores[0].numpy()
        labels = torch.from_numpy(np.pad(case.labels, pads) > 0).float()[None, None]
        touches = torch.nn.functional.max_pool3d(labels, model.config.patch)[0, 0].flatten().numpy() > 0
        ranks, n = rankdata(scores), int(touches.sum())
        areas.append((ranks[touches].sum() - n * (n + 1) / 2) / (n * (touches.size - n)))
    return float(np.mean(areas))


def agreement(model: SCD, cases: list[Case], keep_ratio: float) -> float:
    found = []
    for case in cases:
        dense, sparse = (predict(model, case, ratio).labels for ratio in (1.0, keep_ratio))
        found += [dice(sparse == k, dense == k) for k in range(1, model.config.out_channels)]
    return float(np.nanmean(found))


def measure(recipe: Recipe, cases: list[Case], val: list[Case]) -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        fabric: Fabric = Hardware("cpu").fabric()
        model = train(fabric, recipe, Examples(cases, []), Path(out))
    seconds = time.monotonic() - started
    by_ratio = {str(r): [round(d, 4) for d in mean_dice(model, val, r)] for r in KEEP_RATIOS}
    return {
        "dice": by_ratio,
        "mean_dice": {ratio: round(float(np.mean(values)), 4) for ratio, values in by_ratio.items()},
        "agreement_with_dense_at_0.1": round(agreement(model, val, 0.1), 4),
        "score_roc_auc": round(score_area(model, val), 4),
        "seconds_per_step": round(seconds / recipe.training.steps, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    args = parser.parse_args()
    recipe, dataset = base(args.steps), open_dataset(args.dataset)
    cases, val = (read_split(dataset, split, recipe, Feedback()) for split in ("train", "val"))
    document = json.loads(args.result.read_text()) if args.result.exists() else {"steps": args.steps, "variants": {}}
    for name in args.only:
        if name in document["variants"]:
            continue
        training, network = VARIANTS[name]
        changed = replace(
            recipe, training=replace(recipe.training, **training), network=replace(recipe.network, **network)
        )
        document["variants"][name] = measure(changed, cases, val)
        document |= {"cases": len(val), "load_average": os.getloadavg()[0], "torch": torch.__version__}
        args.result.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        print(name, json.dumps(document["variants"][name]), flush=True)


if __name__ == "__main__":
    main()
