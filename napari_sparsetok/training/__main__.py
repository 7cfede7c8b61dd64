"""Train `hippocampus-t1`: ``python -m napari_sparsetok.training DATASET --out RUN``."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_sparsetok.model import SCDConfig
from napari_sparsetok.training.dataset import label_table, read_cases
from napari_sparsetok.training.loop import TrainingConfig, mean_dice, train

RULE = {"name": "standardise", "low": 0.5, "high": 99.5}


def main() -> None:
    """Train on the train split and print Dice on the val split at several keep ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps)
    args = parser.parse_args()
    labels = label_table(args.dataset)
    config = SCDConfig(
        in_channels=1,
        out_channels=len(labels) + 1,
        window=(40, 56, 40),
        patch=4,
        dim=192,
        depth=8,
        heads=3,
        prune_after=(1, 4),
        completion_dim=192,
        completion_depth=1,
        completion_heads=3,
        features=16,
        drop_path=0.05,
    )
    # Left and right hippocampi are both in the data and carry the same labels, so mirroring is sound.
    training = TrainingConfig(steps=args.steps, mirror=True)
    cases, val = (read_cases(args.dataset, split, RULE) for split in ("train", "val"))
    model = train(config, training, cases, val, args.out)
    for keep in (1.0, 0.75, 0.5, 0.25, 0.1, 0.05):
        print(keep, [round(d, 4) for d in mean_dice(model, val, keep)], flush=True)


if __name__ == "__main__":
    main()
