"""What each part of the training brings: short runs of one small network that differ in one thing each.

    python benchmarks/ablation.py DATASET RESULT.json [--steps 500] [--seed 0] [--only NAME …] [--weights FOLDER]

DATASET is the hippocampus set of the Medical Segmentation Decathlon with a train and a val split. The network is the
bundled model's, narrowed, so that a run takes minutes on two cores. Every run starts from the same seed. What is said
of each: Dice at several keep ratios, agreement with its own dense prediction, the area under the ROC of its scores, by
how much its Dice is better than with random tokens or those of the largest norm, and seconds a step. A finished variant
is not run again; delete its entry to do so.
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
from safetensors.torch import save_file

from napari_sparsetok.metrics import dice
from napari_sparsetok.model import SCD, Rule
from napari_sparsetok.training.case import Case
from napari_sparsetok.training.configuration import Recipe, preset
from napari_sparsetok.training.dataset import open_dataset
from napari_sparsetok.training.evaluation import summary
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
    "deep supervision": ({"deep_supervision": 0.5}, {}),
}


def base(steps: int, seed: int) -> Recipe:
    recipe = preset("hippocampus-t1")
    network = replace(recipe.network, dim=96, heads=3, depth=6, completion_dim=96, features=8)
    training = replace(
        recipe.training,
        steps=steps,
        seed=seed,
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


def mean_by_case(model: SCD, cases: list[Case], keep_ratio: float, selection: str) -> np.ndarray[Any, Any]:
    """Mean Dice of each case with the tokens that a rule picks."""
    generator = torch.Generator().manual_seed(0)

    def rule(tokens: int) -> Rule:
        if selection == "random":
            return Rule("random", given=torch.rand(1, tokens, generator=generator))
        return Rule(selection)

    means = []
    for case in cases:
        labels = predict(model, case, keep_ratio, rule).labels
        means.append(np.mean([dice(labels == k, case.labels == k) for k in range(1, model.config.out_channels)]))
    return np.asarray(means)


def advantage(model: SCD, cases: list[Case]) -> dict[str, dict[str, float]]:
    """By how much Dice is better with the learned scores, case by case, with 95 % bootstrap intervals."""
    found = {}
    for keep_ratio in (0.25, 0.1):
        learned = mean_by_case(model, cases, keep_ratio, "learned")
        for other in ("random", "norm"):
            gained = summary(learned - mean_by_case(model, cases, keep_ratio, other))
            found[f"{other} at {keep_ratio}"] = {key: round(value, 4) for key, value in gained.items()}
    return found


def measure(recipe: Recipe, cases: list[Case], val: list[Case], weights: Path | None) -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        fabric: Fabric = Hardware("cpu").fabric()
        model = train(fabric, recipe, Examples(cases, []), Path(out))
    seconds = time.monotonic() - started
    if weights:
        save_file(model.state_dict(), weights)
    by_ratio = {str(r): [round(d, 4) for d in mean_dice(model, val, r)] for r in KEEP_RATIOS}
    return {
        "dice": by_ratio,
        "mean_dice": {ratio: round(float(np.mean(values)), 4) for ratio, values in by_ratio.items()},
        "agreement_with_dense_at_0.1": round(agreement(model, val, 0.1), 4),
        "score_roc_auc": round(score_area(model, val), 4),
        "learned_minus": advantage(model, val),
        "seconds_per_step": round(seconds / recipe.training.steps, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--weights", type=Path, help="keep the weights here")
    args = parser.parse_args()
    recipe, dataset = base(args.steps, args.seed), open_dataset(args.dataset)
    cases, val = (read_split(dataset, split, recipe, Feedback()) for split in ("train", "val"))
    document: dict[str, Any] = {"steps": args.steps, "seed": args.seed, "variants": {}}
    if args.result.exists():
        document = json.loads(args.result.read_text())
    for name in args.only:
        if name in document["variants"]:
            continue
        training, network = VARIANTS[name]
        changed = replace(
            recipe, training=replace(recipe.training, **training), network=replace(recipe.network, **network)
        )
        weights = args.weights / f"{name.replace(' ', '-')}.safetensors" if args.weights else None
        document["variants"][name] = measure(changed, cases, val, weights)
        document |= {"cases": len(val), "load_average": os.getloadavg()[0], "torch": torch.__version__}
        args.result.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        print(name, json.dumps(document["variants"][name]), flush=True)


if __name__ == "__main__":
    main()
